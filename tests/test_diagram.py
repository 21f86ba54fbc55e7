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
from roadmap.explaining.diagram import BEAM, CHANGED, MAP, draw_blocks
from roadmap.network.design import Design
from roadmap.network.layers import layer_names

DOCS = Path(__file__).parents[1] / "docs"
LADDERS = {regime: roadmap.ladder(regime).scaled(8, 0.2, stem_stride=2) for regime in ("resnet50", "resnet200")}

WIDER = roadmap.ladder().scaled(32, 0.2, stem_stride=2)


def check_legible(figure):
    """No text is cut off, none overlaps another, none is smaller than 6 points."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.texts if text.get_text()]
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
    for patch in figure.axes[0].patches:
        box = patch.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height


def drawn_words(figure):
    return " ".join(text.get_text() for text in figure.texts)


def fronts(figure, colours):
    """(middle, left, length, height) of every box of a colour, by row and from left to right."""
    found = []
    for patch in figure.axes[0].patches:
        if type(patch) is Polygon and to_hex(patch.get_facecolor()).upper() == colours[0].upper():
            (left, low), (right, same), (_, top) = patch.get_xy()[:3]
            if low == same:  # a front, and no diamond
                found.append((round((low + top) / 2, 3), left, right - left, low - top))
    return sorted(found)


def in_rows(boxes, row):
    return [box[1:] for box in boxes if box[0] == sorted({middle for middle, *_ in boxes})[row]]


def explained(step, regime="resnet50", image_size=32):
    """At 112 px the third stage has 14 x 14 positions, as at full size."""
    return roadmap.explain(step, LADDERS[regime], image_size=image_size)


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
def test_every_rung_is_drawn_with_five_labels_at_most(regime):
    widths = ("page", "column", "slide")
    for number, step in enumerate(LADDERS[regime].names):
        explanation = explained(step, regime)
        for width in widths if regime == "resnet50" else [widths[number % 3]]:
            figure = draw_blocks(explanation, width, caption=False)
            check_legible(figure)
            labels = [text for text in figure.texts if text.get_text() not in ("", figure.headline)]
            assert len([one for one in labels if one.get_text().replace("\n", " ") != figure.headline]) <= 5, step
            assert explanation.title.replace("_", " ") in figure.headline.replace("ResNet-", "resnet")
            if explanation.before:
                assert (
                    f"after: {explanation.after.name.replace('_', ' ')}" in drawn_words(figure) or not explanation.flags
                )
            else:
                assert not fronts(figure, CHANGED)


def test_a_feature_map_is_as_long_as_its_channels_are_many():
    """The hidden layer of an inverted bottleneck is four times as long as its input; of the other a quarter."""
    figure = draw_blocks(explained("inverted_bottleneck", image_size=112))
    maps = fronts(figure, MAP)
    for row, hidden in ((0, 1 / 4), (1, 4)):
        lengths = [length for _, length, _ in in_rows(maps, row)]
        assert lengths == pytest.approx([lengths[0] * factor for factor in (1, hidden, hidden, 1)])
    heights = {round(box[3], 6) for box in maps}
    assert len(heights) == 1  # all have 14 x 14 positions


def test_a_beam_is_what_one_output_reads():
    """Of a 3x3 and a 7x7 convolution, dense and depthwise, over 14 x 14 positions."""
    figure = draw_blocks(explained("large_kernel", image_size=112))
    (small,), (large,) = (in_rows(fronts(figure, CHANGED), row) for row in (0, 1))
    high = in_rows(fronts(figure, MAP), 0)[0][2]
    assert (small[2], large[2]) == pytest.approx((high * 3 / 14, high * 7 / 14))
    figure = draw_blocks(explained("depthwise_conv", image_size=112))
    (dense,), (plate,) = (in_rows(fronts(figure, CHANGED), row) for row in (0, 1))
    (left, length, _) = in_rows(fronts(figure, MAP), 0)[1]
    assert dense[:2] == pytest.approx((left, length)) and plate[1] < length / 5
    assert len(in_rows(fronts(figure, BEAM), 0)) == 2  # the 1x1 convolutions on either side stay


def orange(figure):
    """How many bars and bends in each row are orange."""
    axes = figure.axes[0]
    bars = [patch for patch in axes.patches if type(patch) is Rectangle]
    heights = [patch.get_y() + patch.get_height() / 2 for patch in bars if to_hex(patch.get_facecolor()) == changed()]
    heights += [np.mean(line.get_ydata()) for line in axes.lines if to_hex(line.get_color()) == changed()]
    middle = np.mean(axes.get_ylim())
    return sum(height < middle for height in heights), sum(height > middle for height in heights)


def changed():
    return to_hex(CHANGED[0])


@pytest.mark.parametrize(
    ("step", "counts"),
    [("gelu", (3, 3)), ("fewer_activations", (2, 0)), ("fewer_norms", (2, 0)), ("layer_norm", (1, 1))],
)
def test_only_what_the_step_changes_is_orange(step, counts):
    """By hand, of the activations and norms of a block."""
    figure = draw_blocks(explained(step, image_size=112), caption=False)
    assert orange(figure) == counts and not fronts(figure, CHANGED)


def test_between_stages_stands_before_the_block():
    """A norm and a 2x2 convolution come, a stride and a shortcut go."""
    figure = draw_blocks(explained("separate_downsample", image_size=112))
    rows = [in_rows(fronts(figure, MAP), row) for row in (0, 1)]
    assert [len(row) for row in rows] == [4, 5]
    assert rows[1][0][2] == pytest.approx(2 * rows[1][1][2])  # 56 and 28 positions
    assert orange(figure) == (2, 2)  # a norm and the shortcut; two norms


def test_stages_are_drawn_where_they_are_what_changes():
    figure = draw_blocks(roadmap.explain("stage_ratio", roadmap.ladder().scaled(8), 64))
    assert [len(in_rows(fronts(figure, CHANGED), row)) for row in (0, 1)] == [1, 3]
    assert len(fronts(figure, MAP)) == 3 + 3 + 6 + 3 + 3 + 3 + 6 + 3
    assert "blocks: 3-4-6-3" in drawn_words(figure) and "blocks: 3-3-9-3" in drawn_words(figure)


def test_a_step_of_the_training_leaves_the_network():
    explanation = explained("modern_recipe", image_size=112)
    figure = draw_blocks(explanation)
    assert f"{len(explanation.training)} settings of its training change" in drawn_words(figure)
    assert "The network stays" in drawn_words(figure) and not fronts(figure, CHANGED)


@pytest.mark.parametrize("step", layer_names())
def test_plug_ins_are_drawn(step):
    explanation = roadmap.explain(step, WIDER, 32, onto="resnet50" if step == "resnet_d_shortcut" else None)
    for width in ("page", "column"):
        figure = draw_blocks(explanation, width)
        check_legible(figure)
        colours = [to_hex(patch.get_facecolor()) for patch in figure.axes[0].patches]
        colours += [to_hex(line.get_color()) for line in figure.axes[0].lines]
        assert changed() in colours and step.replace("_", " ") in figure.headline


def test_two_networks_are_drawn():
    figure = draw_blocks(roadmap.diff("resnet50", "convnext_tiny", LADDERS["resnet50"], 32), "column")
    check_legible(figure)
    assert "flags, such as" in drawn_words(figure) and len({middle for middle, *_ in fronts(figure, MAP)}) == 2


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
    drawings = {f"{name}.svg" for name in [*roadmap.ladder().names, "operations"]}
    assert set(kept) == set(new) == drawings | {"fields.png"}
    for name in sorted(drawings):
        path = kept[name]
        written = [[element.text for element in ElementTree.parse(one).iter("{http://www.w3.org/2000/svg}text")]
                   for one in (path, new[name])]  # fmt: skip
        assert written[0] == written[1] and len(written[0]) >= 4, f"{name}: run python docs/make_ladder.py"
        assert path.stat().st_size < 60_000


def test_the_ladder_page_tells_both_regimes():
    page = (DOCS / "ladder.md").read_text()
    for regime in ("resnet50", "resnet200"):
        for rung in roadmap.ladder(regime):
            section = (
                page.split("\n## Where the operations go")[0]
                .split(f"\n### {rung.name if rung.path else 'resnet50'}\n")[1]
                .split("\n### ")[0]
            )
            assert f"{rung.printed.top1:.2f}" in section and f"{rung.printed.gflops:.2f}" in section
            assert section.count("<details>") == section.count("</details>") == 3
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
    assert [tag for tag, _ in page.tags].count("details") == 4
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
