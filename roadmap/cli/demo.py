"""The command that serves a study's demo."""

from __future__ import annotations

from pathlib import Path

import click

from roadmap.checks import RoadmapError
from roadmap.cli.group import cli
from roadmap.cli.study import PLUGIN_OPTION
from roadmap.imports import is_installed
from roadmap.phases import phase


@cli.command("demo")
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Port to serve on [default: the first free one from 7860 on].",
)
@click.option("--share", is_flag=True, help="Serve at a public address, too, which gradio lends for a week.")
@click.option(
    "--save",
    "space",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Serve nothing: write a folder that runs as a Hugging Face Space.",
)
@PLUGIN_OPTION
def demo_command(study: Path, port: int | None, share: bool, space: Path | None, plugin: tuple[str, ...]) -> None:
    """Try a study's networks on images, in a browser: before and after a step, side by side.

    Pick a step, drop an image, and see the classes that both networks find, where their evidence lies, and what the
    study measured of the step. STUDY is a study's folder, with its store. The page runs on this machine alone and
    fetches nothing from elsewhere; what is dropped is not kept. --save writes the same demo as a folder to upload.

    \b
    roadmap demo results/ladder
    roadmap demo results/ladder --save space
    """
    if not is_installed("gradio"):
        raise RoadmapError("roadmap demo needs the package gradio: pip install 'roadmap-ablation[demo]'")
    with phase("loading what the demo needs"):
        from roadmap.demo.page import serve
        from roadmap.demo.space import save_space
    if space is not None:
        with phase("writing the demo"):
            save_space(study, space, [Path(path) for path in plugin])
        click.echo(space)
        return
    serve(study, plugin, port=port, share=share)
