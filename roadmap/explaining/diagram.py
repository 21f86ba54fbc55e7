"""One large drawing of what a step changes: feature maps as boxes of channels and space, and what layers read of them.

A box is as long as its channels are many, and as high and deep as its positions. The beam within it is what one output
of the next layer is computed from: kernel by kernel by channels of a group. So a dense convolution reads a beam, a 1x1
one a rod and a depthwise one a plate. Lengths are inches on a page; at other widths they are in proportion to the text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.patches import Circle, Polygon, Rectangle

from roadmap.explaining.lines import Line, aligned, lines_after, shape_text
from roadmap.explaining.words import shown
from roadmap.formatting import label, macs_unit
from roadmap.plotting.style import EDGE, FAINT, INK, PAPER, Drawn, Look, line_of, open_sheet

if TYPE_CHECKING:
    from roadmap.explaining.explanation import BuiltNetwork, Explanation
    from roadmap.explaining.outline import Piece, View

#: Front, top and right side of a feature map, of what is read of it, and of what changes.
MAP, BEAM, CHANGED = ("#E9EDF1", "#F6F8FA", "#D3DAE1"), ("#8FA3B5", "#A9BACA", "#71879B"), (PAPER, "#E58A45", "#A84A00")
#: A feature map at its highest, its depth as a share of its height, the least length of anything.
HIGH, DEEP, LEAST = 1.05, 0.22, 0.035
#: From a box to the next, for each sign between them, and from a block to the next; from a row to its residual path.
GAP, SIGN, CLOSE, PATH = 0.42, 0.17, 0.09, 0.15
ACTIVATIONS = ("ReLU", "GELU", "SiLU")
#: The most flags that a label names.
NAMED = 2
CAPTION = (
    "A box is a feature map: as long as its channels are many, as high and deep as its positions. The beam in it is "
    "what one output of the next layer reads. Bars are norms, bends activations, diamonds other layers; the line below "
    "a row is the residual path."
)


@dataclass
class _Map:
    """A feature map of shape (C, H, W). The next layer ``reads`` this many positions, high and wide, and channels;
    ``changed``: whether it differs, or, of a block of a whole network, whether only one network has it. ``signs``: the
    kinds of the layers before the next map, and whether they differ. ``path``: the map where the residual path begins
    that ends behind this one, and whether a layer on it differs (None: there is none); ``behind``: signs after it.
    """

    shape: tuple[int, ...]
    reads: tuple[float, float, float] | None = None
    changed: bool = False
    signs: list[tuple[str, bool]] = field(default_factory=list)
    path: tuple[_Map, bool | None] | None = None
    behind: list[tuple[str, bool]] = field(default_factory=list)


@dataclass
class _Row:
    """A part of a network with a heading and a few words; or all blocks of a network, which are not ``joined``."""

    head: str
    words: str
    maps: list[_Map]
    joined: bool = True

    @property
    def fixed(self) -> float:
        """The length that does not depend on channels."""
        signs = sum(len(one.signs) + len(one.behind) + (one.path is not None) for one in self.maps)
        return len(self.maps) * ((GAP if self.joined else CLOSE) + LEAST) + SIGN * signs + DEEP * HIGH


def draw_blocks(
    explanation: Explanation, width: str = "page", caption: bool | None = None, title: str | None = None
) -> Drawn:
    """What a step changes, before and after: a block, the stem, or what stands between two stages; where these stay,
    all blocks of the network.

    ``width``: a ``page``, a ``column`` or a ``slide``; ``caption``: whether it is part of the picture, by default on a
    page; ``title``: in place of its own, or none where it is empty. Raises `RoadmapError` for any other width.
    """
    look = Look(width, title, caption)
    unit = look.size.text / 10
    rows = list(_rows(explanation))
    head, tall = line_of(look.size.text) + 0.06 * unit, (HIGH * (1 + DEEP) + 2 * PATH) * unit
    how = CAPTION + (" Orange: what changes." if explanation.before else "")
    with look.style():
        sheet = open_sheet(look, _headline(explanation), how, len(rows) * (head + tall) + line_of(look.size.small))
        across, down = map(float, sheet.figure.get_size_inches())
        axes = sheet.figure.add_axes((0, 0, 1, 1), xlim=(0, across / unit), ylim=(down / unit, 0), facecolor="none")
        axes.set_axis_off()
        pens = {
            joined: _pen(axes, [row for row in rows if row.joined == joined and row.maps], sheet.room / unit, unit)
            for joined in {row.joined for row in rows}
        }
        y, colour = sheet.top, CHANGED[2] if explanation.before else FAINT
        for row in rows:
            name = look.fold(row.head, 0.6 * sheet.room, bold=True, lines=1)
            sheet.write(EDGE, y, name, va="top", weight="bold")
            start = EDGE + look.measure(name, bold=True) + 0.1 * unit
            sheet.write(start, y, look.fold(row.words, across - EDGE - start, lines=1), va="top", color=colour)
            pens[row.joined].draw(row, EDGE / unit, (y + head) / unit + HIGH * (DEEP + 0.5))
            y += head + tall
        channels, *positions = next(row.maps[0].shape for row in rows if row.maps)
        sheet.write(
            EDGE,
            y,
            f"First box: {channels} channels of {shape_text(positions)} positions",
            va="top",
            size=look.size.small,
            color=FAINT,
        )
    return sheet.figure


def _headline(explanation: Explanation) -> str:
    before, after = explanation.before, explanation.after
    section = f" ({explanation.section})" if explanation.section else ""
    if math.isnan(after.gmacs):
        return f"{label(explanation.title)}{section}"
    factor, unit = macs_unit(network.gmacs for network in (before, after) if network)
    costs = [f"{factor * network.gmacs:.3g}" for network in (before, after) if network]
    same = " as before" if len(costs) == 2 and costs[0] == costs[1] else ""
    return f"{label(explanation.title)}{section}: {' → '.join(dict.fromkeys(costs))} {unit}{same}"


# --- what is drawn


def _rows(explanation: Explanation) -> Iterator[_Row]:
    before, after = explanation.before, explanation.after
    parts = _changed_parts(explanation.views)
    if before is None:
        block = next(view for view in reversed(explanation.views) if ".blocks." in view.name)
        yield _Row("The network", "every block of its stages", _blocks(after), joined=False)
        yield _Row("A block", block.name, _maps([[(line, False) for line in lines_after(block)]]))
    elif parts:
        pairs = [list(aligned(view)) for view in parts]
        for side, (when, network) in enumerate((("before", before), ("after", after))):
            lines = [[(pair[side], _differ(*pair)) for pair in part] for part in pairs]
            maps = _maps([[(line, changed) for line, changed in part if line] for part in lines])
            yield _Row(f"{when}: {label(network.name)}", _words(explanation, side) if maps else "has none", maps)
    elif _counts(before) != _counts(after):
        for side, (when, network, other) in enumerate((("before", before, after), ("after", after, before))):
            words, maps = _words(explanation, side), _blocks(network, _counts(other))
            yield _Row(f"{when}: {label(network.name)}", words, maps, joined=False)
    else:
        settings = len(explanation.training)
        words = f"{settings} settings of its training change" if settings else "nothing changes at this size"
        yield _Row("The network stays", words, _blocks(after), joined=False)


def _differ(old: Line | None, new: Line | None) -> bool:
    """Whether two layers differ in more than a bias, which no drawing of this kind shows."""
    words = [line and line.words.removesuffix(", bias") for line in (old, new)]
    return words[0] != words[1]


def _changed_parts(views: Sequence[View]) -> list[View]:
    """What shows a step best: a block, and what stands before it if it is a stage's first; else the first part."""
    changed = [view for view in views if not view.same]
    blocks = [view for view in changed if ".blocks." in view.name]
    if not blocks:
        return changed[:1]
    between = blocks[-1].name.replace("blocks.0", "downsample")
    return [*(view for view in changed if view.name == between != blocks[-1].name), blocks[-1]]


def _words(explanation: Explanation, side: int) -> str:
    """The flags that change, as they are before (0) or after (1)."""
    flags = [f"{label(name)}: {shown(values[side])}" for name, values in explanation.flags.items()]
    return "; ".join(flags) if len(flags) <= NAMED else f"{len(flags)} flags, such as {flags[0]}"


def _counts(network: BuiltNetwork) -> list[int]:
    return [stage.blocks for stage in network.stages]


def _blocks(network: BuiltNetwork, others: Sequence[int] = ()) -> list[_Map]:
    """What comes out of every block; changed are those that a network with these blocks per stage lacks."""
    stages = zip(network.stages, others or _counts(network), strict=True)
    return [
        _Map((stage.channels, stage.height, stage.width), changed=block >= other)
        for stage, other in stages
        for block in range(stage.blocks)
    ]


def _maps(parts: Iterable[Sequence[tuple[Line, bool]]]) -> list[_Map]:
    """The feature maps of parts that follow each other, from their lines, each of which changes or does not."""
    maps: list[_Map] = []
    for lines in parts:
        start, shortcuts = None, []
        for line, changed in lines:
            if line.role == "input":
                maps = maps or [_Map(_spatial(line.shape))]
                start = maps[-1]
            elif line.role == "shortcut":
                shortcuts.append(changed)
            elif line.role == "sum" and start is not None:
                maps[-1].path = (start, any(shortcuts) if shortcuts else None)
            elif line.piece is not None and not line.within:
                maps[-1].reads = _reads(line.piece, maps[-1].shape)
                if maps[-1].reads is None:
                    (maps[-1].signs if maps[-1].path is None else maps[-1].behind).append((line.piece.kind, changed))
                else:
                    maps[-1].changed = changed
                    maps.append(_Map(_spatial(line.shape)))
    return maps


def _spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 3 else (shape[0], 1, 1)


def _reads(piece: Piece, shape: tuple[int, ...]) -> tuple[float, float, float] | None:
    """What one output of a layer is computed from: positions high and wide, and channels; None where it is a sign only,
    since it is norm, activation or the like."""
    channels, high, wide = shape
    facts: dict[str, Any] = dict(piece.facts)
    if "layer" in facts and (facts["sees"] != 1 or piece.output != shape):
        return facts["sees"] or high, facts["sees"] or wide, channels
    if "kernel" in facts:
        tall, broad = (
            dilation * (side - 1) + 1
            for side, dilation in zip(facts["kernel"], _two(facts.get("dilation", 1)), strict=True)
        )
        return tall, broad, channels / facts.get("groups", channels)
    if piece.kind == "global average pooling":
        return high, wide, 1
    return (1, 1, channels) if piece.kind == "linear" else None


def _two(sizes: Any) -> Sequence[int]:
    return (sizes, sizes) if isinstance(sizes, int) else sizes


# --- how


def _pen(axes: Axes, rows: Sequence[_Row], room: float, weight: float) -> _Pen:
    """The scale at which the longest of these rows fills the room, and the highest of their maps is `HIGH`."""
    channel = min((room - row.fixed) / sum(one.shape[0] for one in row.maps) for row in rows)
    return _Pen(axes, channel, HIGH / max(side for row in rows for one in row.maps for side in one.shape[1:]), weight)


@dataclass
class _Pen:
    """Draws rows: inches a channel and a position, and what the widths of lines are multiplied by."""

    axes: Axes
    channel: float
    position: float
    weight: float

    def draw(self, row: _Row, x: float, y: float) -> None:
        """The maps of a row from left to right; ``y``: the middle of their fronts."""
        places: dict[int, float] = {}
        for number, one in enumerate(row.maps):
            long, high, deep = self._size(one.shape)
            places[id(one)] = x + long / 2
            self._box(x, y, (long, high, deep), CHANGED if one.changed and not row.joined else MAP)
            if one.reads:
                tall, wide, channels = one.reads
                size = (
                    min(long, max(channels * self.channel, LEAST)),
                    min(high, max(tall * self.position, LEAST)),
                    min(deep, max(wide * self.position * DEEP, LEAST / 2)),
                )
                self._box(x + long - size[0], y, size, CHANGED if one.changed else BEAM)
            x += long
            if not row.joined:
                x += CLOSE
                continue
            end = x + GAP + SIGN * len(one.signs)
            if number + 1 < len(row.maps) or one.path:
                self._arrow(x + deep / 2, end, y)
            self._signs(one.signs, x + deep + 0.08, y)
            x = end
            if one.path:
                x = self._sum(one, x, y, places)

    def _size(self, shape: tuple[int, ...]) -> tuple[float, float, float]:
        high = max(shape[1] * self.position, 2 * LEAST)
        return max(shape[0] * self.channel, LEAST), high, max(shape[2] * self.position, 2 * LEAST) * DEEP

    def _box(self, x: float, y: float, size: tuple[float, float, float], colours: tuple[str, str, str]) -> None:
        """A box with its front around the height y, seen from the right and from above."""
        long, high, deep = size
        low, top = y + high / 2, y - high / 2
        front = [(x, low), (x + long, low), (x + long, top), (x, top)]
        above = [(x, top), (x + long, top), (x + long + deep, top - deep), (x + deep, top - deep)]
        aside = [(x + long, low), (x + long + deep, low - deep), (x + long + deep, top - deep), (x + long, top)]
        for corners, colour in zip((front, above, aside), colours, strict=True):
            # `add_patch` would look for the limits of the axes, which are set, at twice the time
            self.axes.add_artist(
                Polygon(corners, closed=True, facecolor=colour, edgecolor="white", linewidth=0.4 * self.weight)
            )

    def _arrow(self, start: float, end: float, y: float) -> None:
        look = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.9 * self.weight, "mutation_scale": 7 * self.weight}
        self.axes.annotate("", (end, y), (start, y), arrowprops={**look, "shrinkA": 0, "shrinkB": 0})

    def _signs(self, signs: Sequence[tuple[str, bool]], x: float, y: float) -> None:
        for kind, changed in signs:
            colour, x = CHANGED[0] if changed else BEAM[2], x + SIGN
            if "Norm" in kind:
                self.axes.add_patch(Rectangle((x - 0.09, y - 0.16), 0.07, 0.32, color=colour, linewidth=0, zorder=3))
            elif kind in ACTIVATIONS:
                places = [x - 0.14, x - 0.05, x + 0.03], [y + 0.06, y + 0.06, y - 0.1]
                self.axes.plot(*places, color="white", linewidth=5 * self.weight, zorder=3)
                self.axes.plot(*places, color=colour, linewidth=2.4 * self.weight, zorder=3, solid_joinstyle="miter")
            else:
                corners = [(x - 0.14, y), (x - 0.06, y - 0.1), (x + 0.02, y), (x - 0.06, y + 0.1)]
                self.axes.add_patch(Polygon(corners, closed=True, color=colour, linewidth=0, zorder=3))

    def _sum(self, one: _Map, x: float, y: float, places: dict[int, float]) -> float:
        """The path below a row, its sum, and what stands behind; returns where that ends."""
        assert one.path
        start, changed = one.path
        radius, below = 0.08, y + HIGH / 2 + PATH
        high, place = self._size(start.shape)[1], places[id(start)]
        self.axes.plot(
            [place, place, x + radius, x + radius],
            [y + high / 2, below, below, y + radius],
            color=INK,
            linewidth=0.9 * self.weight,
            zorder=1,
        )
        if changed is not None:
            corner = ((place + x) / 2 - 0.12, below - 0.05)
            self.axes.add_patch(
                Rectangle(corner, 0.24, 0.1, color=(CHANGED if changed else BEAM)[0], linewidth=0, zorder=3)
            )
        self.axes.add_patch(
            Circle((x + radius, y), radius, facecolor="white", edgecolor=INK, linewidth=0.9 * self.weight, zorder=3)
        )
        for across, up in ((0.045, 0), (0, 0.045)):
            self.axes.plot(
                [x + radius - across, x + radius + across],
                [y - up, y + up],
                color=INK,
                linewidth=0.9 * self.weight,
                zorder=4,
            )
        end = x + 2 * radius + SIGN * len(one.behind) + 0.25
        self._arrow(x + 2 * radius, end, y)
        self._signs(one.behind, x + 2 * radius + 0.03, y)
        return end
