"""The block diagrams of an `Explanation` as a picture, in the spirit of Figure 4 of arXiv 2201.03545.

Every layer is a row: a shape as wide as its channels are many, and beside it the words that the terminal has for it.
All lengths are inches, from the upper left corner.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from matplotlib.axes import Axes
from matplotlib.patches import Circle, PathPatch, Polygon, Rectangle
from matplotlib.path import Path

from roadmap.checks import check_choice
from roadmap.explaining.lines import Line, aligned, lines_after, shape_text
from roadmap.explaining.words import shown
from roadmap.formatting import label
from roadmap.plotting.style import FAINT, INK, OURS, PAPER, Drawn, styled

if TYPE_CHECKING:
    from roadmap.explaining.content import Explanation, Network
    from roadmap.explaining.outline import View

#: Inches of a picture's widths, and between its edges and what is drawn.
WIDTHS, EDGE = {"page": 9.0, "column": 3.4}, 0.14
#: What changes has this colour, a band of a paler one behind it, and a mark for those who do not see colours.
CHANGED, BAND, MARK = PAPER, "#FBE7DC", "≠"
#: Fillings of layers that mix channels or positions, of activations, of plug-ins and of all others.
MIXING, ACTIVATION, PLUGGED, OTHER = "#A9CCE3", "#9AD3B5", "#E3BBD3", "#CFCFCF"
ACTIVATIONS = ("ReLU", "GELU", "SiLU")

#: Between two bands of panels, a panel's head, a row and a line of text within one.
GAP, HEAD, ROW, LINE = 0.26, 0.42, 0.27, 0.14
#: Heights of layers that mix channels or positions, and of others; widths of the narrowest shape, of one on the
#: residual path, of a square of a kernel unless there are more than fit, of a stripe, and of a block among a stage's
#: blocks; the radius of a sum.
TALL, FLAT, NARROW, ASIDE, SQUARE, STRIPE, BLOCK, SUM = 0.22, 0.075, 0.05, 0.16, 0.02, 0.05, 0.1, 0.07
#: Font sizes in points, and a character's width, in font sizes, in bold print and in words with many digits.
TITLE, HEADING, WORDS, SMALL = 12.5, 9.0, 8.0, 7.0
BOLD, PLAIN = 0.72, 0.6


def draw_blocks(explanation: Explanation, width: str = "page") -> Drawn:
    """The parts of the networks that show what changes, before and after, from the modules of the built networks.

    ``width``: on a ``page`` both stand beside each other; in a ``column``, 3.4 inches wide, one above the other. What
    stays is drawn once. Raises `RoadmapError` for any other width.
    """
    check_choice("width", width, WIDTHS)
    grid = GRIDS[width]
    groups = list(_groups(explanation, grid))
    bands = _beside(groups) if width == "page" else [[panel] for group in groups for panel in group]
    inches = WIDTHS[width]
    section = f" ({explanation.section})" if explanation.section else ""
    title = _folded(label(explanation.title) + section, inches - 2 * EDGE, TITLE, BOLD)
    caption = _folded(_caption(explanation), inches - 2 * EDGE, SMALL)
    top = 0.12 + 0.21 * len(title) + 0.14
    tops = list(accumulate((max(panel.height for panel in band) + GAP for band in bands), initial=top))
    height = tops[-1] + LINE * len(caption) + 0.08
    with styled():
        figure = Drawn(figsize=(inches, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, inches), ylim=(height, 0))
        axes.set_axis_off()
        _write(axes, EDGE, 0.22, title, TITLE, spacing=0.21, weight="bold")
        for y, band in zip(tops, bands, strict=False):
            for x, panel in zip((EDGE, inches - EDGE - grid.width), band, strict=False):
                panel.draw(axes, x, y)
        _write(axes, EDGE, tops[-1] + LINE / 2, caption, SMALL, color=FAINT)
        for artist in axes.get_children():
            artist.set_clip_on(False)  # all lies within, and files need not say so of each
    return figure


def _caption(explanation: Explanation) -> str:
    sentences = [
        f"{label(explanation.regime)} regime; one image of {explanation.image_size} px; channels x height x width.",
        "A shape is as wide as its channels are many. White squares: the kernel. Stripes: groups of channels.",
    ]
    if explanation.layers:
        sentences.append(f"{MARK} and orange: what changes.")
    return " ".join(sentences)


class _Panel(Protocol):
    """A piece of the picture, ``grid.width`` wide."""

    @property
    def height(self) -> float: ...
    def draw(self, axes: Axes, x: float, y: float) -> None: ...


@dataclass(frozen=True)
class _Grid:
    """Where a panel has what, from its left edge: its width, the residual path, the middle of the shapes and their
    greatest width, the names of the layers and the words."""

    width: float
    residual: float
    middle: float
    widest: float
    slots: float
    words: float


GRIDS = {
    "page": _Grid(width=4.25, residual=0.14, middle=0.84, widest=1.12, slots=1.56, words=2.26),
    "column": _Grid(width=3.12, residual=0.12, middle=0.6, widest=0.72, slots=1.12, words=1.74),
}


def _groups(explanation: Explanation, grid: _Grid) -> Iterator[tuple[_Panel, ...]]:
    """One panel, or two that belong beside each other, for everything that there is to draw."""
    before, after = explanation.before, explanation.after
    counts = [_counts(network) for network in (before, after) if network]
    if before is None:
        yield (_Stages(grid, after.name, after, (), max(counts[0])),)
    elif counts[0] != counts[1]:
        most = max(max(count) for count in counts)
        yield (
            _Stages(grid, f"before: {before.name}", before, counts[1], most),
            _Stages(grid, f"after: {after.name}", after, counts[0], most),
        )
    for view in explanation.views:
        if before is None or view.same:
            remark = "stays as it is" if before else after.name
            yield (
                _Part(grid, view.name, remark, _rows(grid, [(line, False) for line in lines_after(view)]), _most(view)),
            )
        else:
            yield _pair(grid, view, before, after)
    if before and not explanation.layers:
        yield (_note(explanation, grid),)


def _beside(groups: Sequence[tuple[_Panel, ...]]) -> list[list[_Panel]]:
    """Bands of one or two panels: those that belong together, and others as they come."""
    bands: list[list[_Panel]] = []
    alone = False
    for group in groups:
        if alone and len(group) == 1:
            bands[-1] += group
            alone = False
        else:
            bands.append(list(group))
            alone = len(group) == 1
    return bands


# --- a part of the network


@dataclass(frozen=True)
class _Row:
    """A line of a part, or the place of one that only the other network has (None), and whether it changes; its texts
    line by line: in small print (True) or not, where each begins, and what it says."""

    line: Line | None
    changed: bool
    texts: tuple[tuple[tuple[bool, float, str], ...], ...]
    height: float


def _rows(grid: _Grid, lines: Sequence[tuple[Line | None, bool]]) -> tuple[_Row, ...]:
    """Rows of the lines of a part, each of which changes or does not."""
    rows: list[_Row] = []
    known: dict[bool, tuple[int, ...]] = {}
    for line, changed in lines:
        texts: list[tuple[tuple[bool, float, str], ...]] = []
        if line and line.piece:
            aside = line.role == "shortcut"
            texts = _named(grid, line.slot.removeprefix(line.within), line.words)
            if line.shape != known[aside]:
                texts.append(((True, grid.words, f"→ {shape_text(line.shape)}"),))
            known[aside] = line.shape
        elif line:
            texts = [((False, grid.slots, line.words),)]
            if line.role == "input":
                known = {False: line.shape, True: line.shape}
        rows.append(_Row(line, changed, tuple(texts), ROW + LINE * max(len(texts) - 1, 0)))
    return tuple(rows)


def _named(grid: _Grid, slot: str, words: str) -> list[tuple[tuple[bool, float, str], ...]]:
    """A layer's name, and its words beside it, or below where the name is long."""
    lines = [((False, grid.words, text),) for text in _folded(words, grid.width - grid.words, WORDS)]
    if _length(slot, SMALL) < grid.words - grid.slots:
        return [((True, grid.slots, slot), *lines[0]), *lines[1:]]
    return [*(((True, grid.slots, text),) for text in _folded(slot, grid.width - grid.slots, SMALL)), *lines]


@dataclass(frozen=True)
class _Part:
    """A part of one network; ``most``: the channels of the widest shape of it, or of what it is compared with."""

    grid: _Grid
    name: str
    remark: str
    rows: tuple[_Row, ...]
    most: int

    @property
    def height(self) -> float:
        return HEAD + sum(row.height for row in self.rows)

    def draw(self, axes: Axes, x: float, y: float) -> None:
        _write_head(axes, x, y, self.name, self.remark)
        tops = list(accumulate((row.height for row in self.rows), initial=y + HEAD))[:-1]
        present = [(row, row.line, top) for row, top in zip(self.rows, tops, strict=True) if row.line]
        self._draw_paths(axes, x, {line.role: top + ROW / 2 for _, line, top in present})
        incoming: dict[bool, tuple[int, ...]] = {}
        for row, line, top in present:
            if row.changed:
                _highlight(axes, self.grid, x, top, row.height)
            for number, texts in enumerate(row.texts):
                for small, start, text in texts:
                    _write(axes, x + start, top + ROW / 2 + LINE * number, [text], SMALL if small else WORDS,
                           color=FAINT if small else INK)  # fmt: skip
            if not line.within:
                aside = line.role == "shortcut"
                self._draw_shape(axes, x, top + ROW / 2, row, line, incoming.get(aside, line.shape)[0])
                incoming[aside] = line.shape

    def _draw_paths(self, axes: Axes, x: float, levels: dict[str, float]) -> None:
        """The image's way from top to bottom, and the residual path beside it; ``levels``: where each role is."""
        centre, side = x + self.grid.middle, x + self.grid.residual
        if levels:
            axes.plot([centre, centre], [levels["input"], levels["output"]], color=FAINT, linewidth=1, zorder=1)
        if "sum" in levels:
            low, high = levels["input"], levels["sum"]
            axes.plot([centre, side, side], [low, low, high], color=INK, linewidth=1.2, zorder=1)
            axes.annotate("", (centre - SUM, high), (side, high), zorder=1, arrowprops={
                "arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7,
            })  # fmt: skip

    def _draw_shape(self, axes: Axes, x: float, y: float, row: _Row, line: Line, incoming: int) -> None:
        """What stands for a line: a bar for a feature map, a sign for the sum, and for a layer a shape from so many
        ``incoming`` channels at its top to its own at the bottom."""
        edge: dict[str, Any] = {
            "edgecolor": CHANGED if row.changed else FAINT,
            "linewidth": 1.4 if row.changed else 0.6,
        }
        centre = x + (self.grid.residual if line.role == "shortcut" else self.grid.middle)
        if line.role == "sum":
            axes.add_patch(Circle((centre, y), SUM, facecolor="white", zorder=3, **edge))
            arms = [[(centre - SUM / 2, y), (centre + SUM / 2, y)], [(centre, y - SUM / 2), (centre, y + SUM / 2)]]
            axes.add_patch(_strokes(arms, INK, 1.0))
            return
        top, bottom = (self._half(channels) for channels in (incoming, line.shape[0]))
        if line.piece is None:
            axes.add_patch(Rectangle((centre - top, y - 0.02), 2 * top, 0.04, color=INK, linewidth=0, zorder=2))
            return
        if line.role == "shortcut":
            top = bottom = ASIDE / 2
        kind, facts = line.piece.kind, line.piece.facts
        fill = PLUGGED if "layer" in facts else MIXING if _mixes(line) else ACTIVATION if kind in ACTIVATIONS else OTHER
        half = (TALL if fill in (MIXING, PLUGGED) else FLAT) / 2
        corners = [
            (centre - top, y - half),
            (centre + top, y - half),
            (centre + bottom, y + half),
            (centre - bottom, y + half),
        ]
        axes.add_patch(Polygon(corners, closed=True, facecolor=fill, zorder=2, **edge))
        if facts.get("groups", 1) > 1 and top == bottom:
            number = min(facts["groups"], max(int(2 * top / STRIPE), 2))
            places = [centre - top + 2 * top * index / number for index in range(1, number)]
            axes.add_patch(_strokes([[(place, y - half), (place, y + half)] for place in places], "white", 0.9))
        if max(facts.get("kernel", (1, 1))) > 1:
            _draw_kernel(axes, centre, y, facts["kernel"])

    def _half(self, channels: int) -> float:
        return max(self.grid.widest * channels / self.most, NARROW) / 2


def _mixes(line: Line) -> bool:
    """Whether it is a layer that brings together channels or positions."""
    return line.piece is not None and line.piece.kind in ("convolution", "linear", "max pooling", "average pooling")


def _draw_kernel(axes: Axes, x: float, y: float, kernel: Sequence[int]) -> None:
    """The squares of a kernel, around (x, y)."""
    square = min(SQUARE, TALL / max(kernel))
    high, wide = (square * side for side in kernel)
    left, top = x - wide / 2, y - high / 2
    axes.add_patch(Rectangle((left, top), wide, high, facecolor="white", linewidth=0, zorder=3))
    upright = [[(left + square * n, top), (left + square * n, top + high)] for n in range(kernel[1] + 1)]
    level = [[(left, top + square * n), (left + wide, top + square * n)] for n in range(kernel[0] + 1)]
    axes.add_patch(_strokes(upright + level, OURS, 0.4))


def _strokes(lines: Sequence[Sequence[tuple[float, float]]], color: str, linewidth: float) -> PathPatch:
    """Several straight lines as one path."""
    points = [point for line in lines for point in line]
    codes = [code for _ in lines for code in (Path.MOVETO, Path.LINETO)]
    return PathPatch(Path(points, codes), fill=False, edgecolor=color, linewidth=linewidth, zorder=4)


def _pair(grid: _Grid, view: View, before: Network, after: Network) -> tuple[_Part, _Part]:
    """A part before and after, lines of one slot at one height where they stand beside each other."""
    pairs = list(aligned(view))
    sides = [_rows(grid, [(pair[side], pair[0] != pair[1]) for pair in pairs]) for side in (0, 1)]
    if grid is GRIDS["page"]:
        heights = [max(row.height for row in rows) for rows in zip(*sides, strict=True)]
        sides = [
            tuple(replace(row, height=height) for row, height in zip(rows, heights, strict=True)) for rows in sides
        ]
    else:
        sides = [tuple(row for row in rows if row.line) for rows in sides]
    old, new = (
        _Part(grid, view.name, f"{when}: {network.name}" + ("" if pieces else ", which has none"), rows, _most(view))
        for when, network, pieces, rows in zip(
            ("before", "after"), (before, after), (view.before, view.after), sides, strict=True
        )
    )
    return old, new


def _most(view: View) -> int:
    """The most channels of any feature map of a part, before and after."""
    shapes = [view.input_before, view.input_after, *(piece.output for piece in (*view.before, *view.after))]
    return max(shape[0] for shape in shapes if shape)


# --- stages, and notes


@dataclass(frozen=True)
class _Stages:
    """How many blocks each stage of a network has; ``others``: of the network beside it, ``most``: of any stage."""

    grid: _Grid
    remark: str
    network: Network
    others: tuple[int, ...]
    most: int

    @property
    def height(self) -> float:
        return HEAD + (ROW + LINE) * len(_counts(self.network))

    def draw(self, axes: Axes, x: float, y: float) -> None:
        _write_head(axes, x, y, "stages: a square is a block", self.remark)
        step = min(1.35 * BLOCK, (self.grid.width - self.grid.residual) / self.most)
        others = dict(enumerate(self.others))
        for index, stage in enumerate(stage for stage in self.network.stages if stage.blocks):
            top, both = y + HEAD + (ROW + LINE) * index, others.get(index, 0)
            if self.others and both != stage.blocks:
                _highlight(axes, self.grid, x, top, ROW + LINE, 0.1)
            words = f"{stage.blocks} {'block' if stage.blocks == 1 else 'blocks'}, "
            words += shape_text((stage.channels, stage.height, stage.width))
            _write(axes, x + self.grid.residual, top + 0.1, [stage.name], SMALL, color=FAINT)
            _write(axes, x + self.grid.slots, top + 0.1, [words], WORDS)
            for block in range(stage.blocks):
                changed = bool(self.others) and block >= both
                corner = (x + self.grid.residual + step * block, top + 0.21)
                axes.add_patch(Rectangle(corner, step / 1.35, BLOCK, facecolor=MIXING, zorder=2,
                                         edgecolor=CHANGED if changed else FAINT, linewidth=1.4 if changed else 0.6,
                                         hatch="//////" if changed else None))  # fmt: skip


def _counts(network: Network) -> tuple[int, ...]:
    return tuple(stage.blocks for stage in network.stages if stage.blocks)


@dataclass(frozen=True)
class _Note:
    """Sentences where nothing is to be drawn."""

    grid: _Grid
    lines: tuple[str, ...]

    @property
    def height(self) -> float:
        return HEAD + LINE * len(self.lines)

    def draw(self, axes: Axes, x: float, y: float) -> None:
        _write(axes, x, y + 0.1, self.lines[:1], HEADING, weight="bold")
        _write(axes, x, y + HEAD, self.lines[1:], WORDS)


def _note(explanation: Explanation, grid: _Grid) -> _Note:
    """That nothing of the network changes, and what does."""
    changes = [f"{name}: {shown(old)} → {shown(new)}" for name, (old, new) in explanation.training.items()]
    head = "The network stays; its training changes:" if changes else "The network stays as it is."
    return _Note(grid, (head, *(part for change in changes for part in _folded(change, grid.width, WORDS))))


# --- texts


def _write(
    axes: Axes, x: float, y: float, lines: Sequence[str], size: float, spacing: float = LINE, **style: Any
) -> None:
    """Lines of text that begin at x, the middle of the first at y."""
    for number, text in enumerate(lines):
        axes.text(x, y + spacing * number, text, size=size, va="center", parse_math=False, zorder=5, **style)


def _write_head(axes: Axes, x: float, y: float, name: str, remark: str) -> None:
    _write(axes, x, y + 0.08, [name], HEADING, weight="bold")
    _write(axes, x, y + 0.25, [remark], WORDS, color=FAINT)


def _highlight(axes: Axes, grid: _Grid, x: float, y: float, height: float, first: float = ROW / 2) -> None:
    """A band behind what changes, and the mark in front of its first line of words."""
    axes.add_patch(Rectangle((x, y), grid.width, height + 0.005, color=BAND, linewidth=0, zorder=0))
    _write(axes, x + grid.slots - 0.11, y + first, [MARK], WORDS, color=CHANGED, weight="bold")


def _length(text: str, size: float, character: float = PLAIN) -> float:
    return len(text) * character * size / 72


def _folded(text: str, inches: float, size: float, character: float = PLAIN) -> list[str]:
    """Text in lines at most so long, a number on the line of what it is of."""
    joined = re.sub(r"(groups|stride|dilation|sees) ", "\\1\u00a0", text)
    lines = textwrap.wrap(joined, int(inches * 72 / (character * size)), break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines]
