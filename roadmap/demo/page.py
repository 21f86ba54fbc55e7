"""The demo's page and its server. Needs gradio (the extra ``demo``); nothing on the page is fetched from elsewhere."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import gradio as gr
from torch import nn

from roadmap.checks import RoadmapError
from roadmap.demo.compared import Comparison, comparisons, examples, read_examples, write_examples
from roadmap.demo.content import nothing_html, numbers_html, sides_html
from roadmap.demo.evidence import as_input, as_tested, evidence_of
from roadmap.demo.reading import read_dropped
from roadmap.markup import element
from roadmap.network.description import Description
from roadmap.phases import phase
from roadmap.results.shown import interval_text
from roadmap.results.study import Study, load_study
from roadmap.running.trained import load

#: Networks that are kept in memory.
KEPT_NETWORKS = 4
#: The choice of each network's most probable class.
OWN_CLASS = ("the most probable class", -1)
#: Seconds for which an image that somebody dropped stays on the disk.
KEPT_IMAGES = 3600
LARGEST_FILE = "50mb"
STYLE = Path(__file__).with_name("page.css")


def serve(
    folder: str | os.PathLike[str],
    plugin: Sequence[str | os.PathLike[str]] = (),
    images: str | os.PathLike[str] | None = None,
    port: int | None = None,
    share: bool = False,
) -> None:
    """Serve the demo of the study in a ``folder`` until the process is interrupted.

    ``plugin``: files of its networks' layers from outside; ``images``: a folder of examples, by default test images of
    the study's data where that is at hand; ``port``: by default the first free one from 7860 on; ``share``: also at a
    public address, which gradio lends. Prints the address. Raises `RoadmapError` where the study cannot be shown or the
    port is taken.
    """
    with contextlib.ExitStack() as kept:
        with phase("reading the study"):
            study = load_study(Path(folder))
            shown, left_out = comparisons(study)
            offered = kept.enter_context(_examples(study, images))
            page = build_page(study, shown, left_out, offered, plugin)
        try:
            _, local, public = page.launch(
                server_port=port,
                share=share,
                prevent_thread_lock=True,
                quiet=True,
                show_error=True,
                ssr_mode=False,
                max_file_size=LARGEST_FILE,
                allowed_paths=[str(Path(path).parent) for path, _ in offered[:1]],
                footer_links=[],
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=STYLE.read_text(encoding="utf-8"),
            )
        except OSError:
            taken = "every port that was tried" if port is None else f"port {port}"
            raise RoadmapError(f"{taken} is in use: name another one with --port") from None
        click.echo(f"the demo of {study.name} is at {public or local} (Ctrl+C ends it)")
        page.block_thread()


@contextlib.contextmanager
def _examples(study: Study, folder: str | os.PathLike[str] | None) -> Iterator[list[tuple[str, str]]]:
    """Paths of images to try, with their classes, from a folder or for as long as the demo runs."""
    if folder is not None:
        yield read_examples(Path(folder))
        return
    with tempfile.TemporaryDirectory(prefix="roadmap-demo-") as made:
        write_examples(examples(study), Path(made))
        yield read_examples(Path(made))


def build_page(
    study: Study,
    shown: Sequence[Comparison],
    left_out: Sequence[str],
    offered: Sequence[tuple[str, str]],
    plugin: Sequence[str | os.PathLike[str]] = (),
) -> gr.Blocks:
    """The page of a study's ``shown`` comparisons, with images to try ``offered``: paths and classes."""
    by_name = {one.effect: one for one in shown}
    deciding = interval_text(study.effects, study.matters, study.rule)
    data = str(study.runs["data"].iloc[0])
    assert study.store is not None
    store = study.store.folder

    @lru_cache(KEPT_NETWORKS)
    def network(signature: str) -> nn.Module:
        return load(signature, store=store, plugin=plugin)

    def look(path: str, effect: str, seed: int, chosen: int) -> str:
        one, picture = by_name[effect], read_dropped(path)
        seen = []
        for signature in one.runs[seed]:
            trained = network(signature)
            about = _description(trained)
            view = as_tested(picture, about, data)
            seen.append((view, evidence_of(trained, as_input(view, about))))
        return sides_html(one, seen, names, None if chosen < 0 else chosen)

    empty = f"Drop an image{', or choose a test image' if offered else ''}."

    def looked(path: str | None, effect: str, seed: int, chosen: int) -> str:
        try:
            return look(path, effect, seed, chosen) if path else nothing_html(empty)
        except RoadmapError as error:
            return nothing_html(str(error))

    def stepped(path: str | None, effect: str, seed: int, chosen: int) -> tuple[Any, str, str]:
        seeds = [*by_name[effect].runs]
        seed = seed if seed in seeds else seeds[0]
        numbers = numbers_html(by_name[effect], deciding)
        return gr.update(choices=seeds, value=seed), numbers, looked(path, effect, seed, chosen)

    def choose(event: gr.SelectData) -> str:
        return offered[event.index][0]

    first = shown[0]
    about = _description(network(next(iter(first.runs.values()))[0]))
    names = about.class_names or tuple(map(str, range(about.design.num_classes)))
    with gr.Blocks(
        title=f"{study.name}: before and after a step", analytics_enabled=False, delete_cache=(KEPT_IMAGES, KEPT_IMAGES)
    ) as page:
        heading = f"{study.question.title}: what networks see before and after a step"
        gr.HTML(f"{element('h1', study.name)}{element('p', heading)}")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                step = gr.Dropdown([(one.title, one.effect) for one in shown], value=first.effect, label="Step")
                seed = gr.Dropdown([*first.runs], value=next(iter(first.runs)), label="Seed")
                image = gr.Image(label="Image", sources=["upload", "clipboard"], height=260, elem_id="dropped")
                # as it was dropped: gradio would decode it in its own way, and say less of what it cannot
                image.preprocess = lambda payload: payload and payload.path  # type: ignore[assignment, method-assign, return-value]
                classes = [OWN_CLASS, *((name, place) for place, name in enumerate(names))]
                chosen = gr.Dropdown(classes, value=OWN_CLASS[1], label="Evidence for")
                if offered:
                    tried = gr.Gallery(
                        [*offered], label="Test images", columns=4, allow_preview=False, buttons=[], elem_id="tried"
                    )
            with gr.Column(scale=3, min_width=320):
                sides = gr.HTML(looked(None, "", 0, -1), elem_id="sides")
                numbers = gr.HTML(numbers_html(first, deciding), elem_id="numbers")
                for sentence in left_out:
                    gr.HTML(element("p", sentence))
        asked = [image, step, seed, chosen]
        step.input(stepped, asked, [seed, numbers, sides])
        gr.on([image.change, seed.input, chosen.input], looked, asked, sides)
        if offered:
            tried.select(choose, None, image)
    return page


def _description(network: nn.Module) -> Description:
    told = network.description
    assert isinstance(told, Description)
    return told
