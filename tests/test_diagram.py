"""Pictures of the blocks, docs/ladder.md that is made of them, and what notebooks show, against the networks."""

from __future__ import annotations

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Polygon, Rectangle

import roadmap
from roadmap import RoadmapError
from roadmap.explaining.diagram import BAND, MARK, draw_blocks
from roadmap.network.design import Design
from roadmap.network.layers import layer_names

DOCS = Path(__file__).parents[1] / "docs"
LADDERS = {regime: roadmap.ladder(regime).scaled(8, 0.2, stem_stride=2) for regime in ("resnet50", "resnet200")}

WIDER = roadmap.ladder().scaled(32, 0.2, stem_stride=2)


def check_legible(figure):
    """No text is cut off, none overlaps another, none is smaller than 6 points."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    words = [text.get_text() for text in texts]
    left, low, right, high = np.array([text.get_window_extent(renderer).extents for text in texts]).T
    outside = (left < 0) | (low < 0) | (right > figure.bbox.width) | (high > figure.bbox.height)
    assert not outside.any(), np.array(words)[outside]
    common = [
        np.minimum.outer(end, end) - np.maximum.outer(start, start) for start, end in ((left, right), (low, high))
    ]
    pairs = np.argwhere(np.triu((common[0] > 0.5) & (common[1] > 0.5), 1))
    assert not len(pairs), [(words[one], words[two]) for one, two in pairs]
    assert min(text.get_size() for text in texts) >= 6


def drawn_words(figure):
    return " ".join(text.get_text() for text in figure.axes[0].texts)


def told_as_changed(explanation):
    """How many lines the terminal marks, before and after, and how many stages differ in their blocks."""
    diagrams = str(explanation).split("\nLayers that differ")[0].splitlines()
    sides = [side.strip() for line in diagrams if line[39:40] == "≠" for side in (line[:38], line[41:])]
    before, after = explanation.before.design["blocks"], explanation.after.design["blocks"]
    return sum(map(bool, sides)) + 2 * sum(one != two for one, two in zip(before, after, strict=True))


def explained(step, regime="resnet50"):
    return roadmap.explain(step, LADDERS[regime], image_size=32)


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
def test_every_rung_is_drawn(regime):
    """Every rung of the one regime at both widths, and of the other at the one or the other."""
    for number, step in enumerate(LADDERS[regime].names):
        explanation, shapes = explained(step, regime), [("page", 9.0), ("column", 3.4)]
        for width, inches in shapes if regime == "resnet50" else [shapes[number % 2]]:
            figure = draw_blocks(explanation, width)
            assert figure.get_size_inches()[0] == inches
            check_legible(figure)
            shown = drawn_words(figure)
            for view in explanation.views:
                assert view.name in shown
                for piece in (*view.before, *view.after):
                    assert all(part.strip() in shown for part in piece.words.split(", "))
            marks = [text for text in figure.axes[0].texts if text.get_text() == MARK]
            bands = [patch for patch in figure.axes[0].patches
                     if isinstance(patch, Rectangle) and to_hex(patch.get_facecolor()) == BAND.lower()]  # fmt: skip
            expected = told_as_changed(explanation) if explanation.before else 0
            assert len(marks) == len(bands) == expected, step


def test_what_is_marked_is_what_the_step_changes():
    """By hand: the row of the spatial convolution, on both sides, and no other."""
    texts = draw_blocks(explained("large_kernel")).axes[0].texts
    (level,) = {text.get_position()[1] for text in texts if text.get_text() == MARK}
    row = [text.get_text() for text in texts if text.get_position()[1] == level]
    assert row.count("conv1") == 2 and "3x3 48→48, groups 48" in row and "7x7 48→48, groups 48" in row


def test_widths_of_shapes_tell_the_channels():
    """The hidden layer of an inverted bottleneck is four times as wide as its input."""
    axes = draw_blocks(explained("inverted_bottleneck")).axes[0]
    corners = [patch.get_xy()[:4, 0] for patch in axes.patches if type(patch) is Polygon]
    ratios = [(bottom[0] - bottom[1]) / (top[1] - top[0]) for top, bottom in ((one[:2], one[2:]) for one in corners)]
    assert max(ratios) == pytest.approx(4) and min(ratios) == pytest.approx(1 / 4)


def test_stages_and_training_are_drawn_where_they_are_what_changes():
    ratio = drawn_words(draw_blocks(roadmap.explain("stage_ratio", roadmap.ladder().scaled(8), 64)))
    assert "4 blocks, 64 x 8 x 8" in ratio and "9 blocks, 128 x 4 x 4" in ratio and "stays as it is" in ratio
    recipe = drawn_words(draw_blocks(explained("modern_recipe")))
    assert "The network stays; its training changes:" in recipe and "optimizer: sgd → adamw" in recipe
    start = drawn_words(draw_blocks(explained("resnet50")))
    assert "before" not in start and MARK not in start


@pytest.mark.parametrize("step", layer_names())
def test_plug_ins_are_drawn(step):
    explanation = roadmap.explain(step, WIDER, 32, onto="resnet50" if step == "resnet_d_shortcut" else None)
    plugged = [piece for view in explanation.views for piece in view.after if piece.facts.get("layer") == step]
    for width in ("page", "column"):
        figure = draw_blocks(explanation, width)
        check_legible(figure)
        assert plugged and all(str(piece.facts["parameters"]) in drawn_words(figure) for piece in plugged)


def test_two_networks_are_drawn():
    figure = draw_blocks(roadmap.diff("resnet50", "convnext_tiny", LADDERS["resnet50"], 32), "column")
    check_legible(figure)
    assert "LayerScale" in drawn_words(figure) and "before: resnet50, which has none" in drawn_words(figure)


def test_other_widths_are_refused():
    with pytest.raises(RoadmapError, match="width"):
        draw_blocks(explained("gelu"), "poster")


# --- docs/ladder.md


@pytest.mark.slow
def test_the_ladder_page_is_what_the_program_makes(tmp_path):
    """Its pictures by their texts, in order: matplotlib's versions write the same shapes in other words."""
    spec = importlib.util.spec_from_file_location("make_ladder", DOCS / "make_ladder.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make(tmp_path)
    assert (DOCS / "ladder.md").read_text() == (tmp_path / "ladder.md").read_text(), "run python docs/make_ladder.py"
    kept, new = ({path.name: path for path in (place / "ladder").iterdir()} for place in (DOCS, tmp_path))
    assert set(kept) == set(new) == {f"{name}.svg" for name in roadmap.ladder().names}
    for name, path in kept.items():
        written = [[element.text for element in ElementTree.parse(one).iter("{http://www.w3.org/2000/svg}text")]
                   for one in (path, new[name])]  # fmt: skip
        assert written[0] == written[1] and len(written[0]) > 20, f"{name}: run python docs/make_ladder.py"
        assert path.stat().st_size < 60_000


def test_the_ladder_page_tells_both_regimes():
    page = (DOCS / "ladder.md").read_text()
    for regime in ("resnet50", "resnet200"):
        for rung in roadmap.ladder(regime):
            section = page.split(f"\n### {rung.name if rung.path else 'resnet50'}\n")[1].split("\n### ")[0]
            assert f"{rung.printed.top1:.2f}" in section and f"{rung.printed.gflops:.2f}" in section
            assert section.count("<details>") == section.count("</details>") == 2
    assert all((DOCS / target).exists() for target in re.findall(r"\]\(([^)#:]+)\)", page))
    anchors = set(re.findall(r"^### (\w+)$", page, re.M))
    assert set(re.findall(r"\]\(#(\w+)\)", page)) == anchors == set(roadmap.ladder().names)


# --- in notebooks


class Reader(HTMLParser):
    """Texts of a page, and its tags, which must be closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def test_an_explanation_in_a_notebook():
    explanation = explained("inverted_bottleneck")
    page = Reader(explanation._repr_html_())
    for words in ("inverted_bottleneck (§2.4)", "block: bottleneck → inverted", f"{explanation.after.gmacs:.4g}",
                  "Layers that differ", "80.64 ±0.03 %", "Questions"):  # fmt: skip
        assert words in page.text
    (picture,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert picture["src"].startswith("data:image/png;base64,") and "inverted_bottleneck" in picture["alt"]
    assert [tag for tag, _ in page.tags].count("details") == 3
    assert len(explanation._repr_html_()) < 400_000


def test_rungs_ladders_and_designs_in_a_notebook():
    rungs = LADDERS["resnet50"]
    rung = Reader(rungs["kernel_9"]._repr_html_()).text
    assert "kernel_size 3 → 9" in rung and "a road not taken" in rung and "80.57 ±0.06 %, 4.21 GFLOPs" in rung
    assert f"{roadmap.explain('kernel_9', rungs).after.gmacs:.4g}" in rung
    ladder = Reader(rungs._repr_html_()).text
    assert (
        all(name in ladder for name in rungs.names) and "(kernel_9)" in ladder and "base width 8, depth 0.2" in ladder
    )
    design = Reader(Design(kernel_size=7, layers={"se": {"mode": "<b>"}})._repr_html_())
    assert "kernel_size 3 7" in design.text and "blocks" not in design.text and "<b>" in design.text
    assert "ResNet-50" in Design()._repr_html_()
    assert repr(Design(kernel_size=7)).startswith("Design(blocks=")
