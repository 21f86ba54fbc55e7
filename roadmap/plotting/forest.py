"""Effects with their intervals, a row each: of one study, or of several beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from roadmap.formatting import plain, signed
from roadmap.plotting.rows import Name, Panel, TextColumn, draw_rows
from roadmap.plotting.style import FAINT, INK, MARKS, PALE, Drawn, Look

#: A verdict, or where there is one, its word, is known of these.
DECIDED = ("gain", "loss", "negligible")
#: Undecided effects lengthen the axis at most by this factor over what is decided.
STRETCH = 2.0
#: The numbers of what lies beyond the axis take at most this share of a panel.
NUMBERED = 0.6


@dataclass(frozen=True)
class Interval:
    """An estimate, the interval that decides it, and its verdict; ``start`` is where it would be without any effect,
    and ``dots`` are single values, such as seeds or orders."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    verdict: str | None = None
    start: float = 0.0
    dots: Sequence[float] = ()
    pale: bool = False


@dataclass(frozen=True)
class Scale:
    """The part of an axis from ``low`` to ``high``, and on which side something lies beyond it."""

    low: float
    high: float
    beyond: tuple[bool, bool] = (False, False)

    @classmethod
    def of(cls, intervals: Iterable[Interval], *, zero: bool = True) -> Scale:
        """The scale that fits what is decided. What is not, and single dots, may stretch it a little."""
        known = [one for one in intervals if not math.isnan(one.value)]
        decided = [one for one in known if one.verdict in DECIDED] or known
        core = [end for one in decided for end in (one.value, one.low, one.high) if math.isfinite(end)]
        core += [0.0] * zero + [one.start for one in decided]
        low, high = (min(core), max(core)) if core else (-1.0, 1.0)
        room = (STRETCH - 1) / 2 * max(high - low, 1e-9)
        ends = [end for one in known for end in (one.value, one.low, one.high) if math.isfinite(end)]
        near = [end for end in ends if low - room <= end <= high + room]
        low, high = min([low, *near]), max([high, *near])
        beyond = any(end < low for end in ends), any(end > high for end in ends)
        margin = 0.06 * (high - low) or 0.5
        return cls(low - margin, high + margin, beyond)

    def apply(self, axes: Axes, look: Look, intervals: Iterable[Interval]) -> bool:
        """Set the limits, with room at the ends for the numbers of what lies beyond; whether they have room."""
        ends = [end for one in intervals for end in (one.low, one.high, one.value) if self.clip(end) != end]
        sample = max(map(_far, ends), key=len, default="")
        inches = axes.get_position().width * look.size.across
        gutter = look.measure(sample, look.size.small) + 0.6 * look.size.text / 72
        numbered = gutter * sum(self.beyond) < NUMBERED * inches
        gutter = gutter if numbered else 0.4 * look.size.text / 72
        free = inches - gutter * sum(self.beyond)
        room = gutter * (self.high - self.low) / free
        axes.set_xlim(self.low - room * self.beyond[0], self.high + room * self.beyond[1])
        axes.xaxis.set_major_locator(_Within(self.low, self.high, max(int(free / (look.size.small / 72 * 4.5)), 1)))
        return numbered

    def clip(self, value: float) -> float:
        """A place on the scale."""
        return min(max(value, self.low), self.high)


class _Within(MaxNLocator):
    """Ticks on the part of an axis that is to scale."""

    def __init__(self, low: float, high: float, most: int) -> None:
        super().__init__(nbins=min(most, 6), steps=[1, 2, 2.5, 5, 10])
        self._ends = low, high

    def __call__(self) -> Any:
        return [tick for tick in super().tick_values(*self._ends) if self._ends[0] <= tick <= self._ends[1]]


def _far(end: float) -> str:
    """What is written at an arrow: the number of the end that lies beyond the axis, counted from where it starts."""
    return plain(end, "+")


def draw_interval(axes: Axes, y: float, one: Interval, scale: Scale, look: Look, numbered: bool = True) -> None:
    """The interval as a line, the estimate as the mark of its verdict; an arrow where either goes on beyond the scale,
    with the number of that end, by how far it lies from the start, if it is to be ``numbered``."""
    if math.isnan(one.value):
        return
    mark, size = MARKS[one.verdict], look.size.text
    dots = [value for value in one.dots if scale.low <= value <= scale.high]
    axes.plot(dots, [y + 0.3] * len(dots), ".", color=FAINT, markersize=size * 0.25, zorder=2, label="dots")
    ends = [one.value if math.isnan(end) else end for end in (one.low, one.high)]
    axes.plot(
        [scale.clip(end) for end in ends],
        [y, y],
        color=mark.colour,
        linewidth=size * 0.16,
        zorder=3,
        solid_capstyle="butt",
        label="interval",
    )
    for end, edge, side, arrow in zip(ends, (scale.low, scale.high), (-1, 1), ("<", ">"), strict=True):
        if side * end > side * edge:
            axes.plot(edge, y, arrow, color=mark.colour, markersize=size * 0.5, zorder=3, label="beyond")
            axes.annotate(
                _far(end - one.start) if numbered else "",
                (edge, y),
                xytext=(side * size * 0.45, 0),
                textcoords="offset points",
                va="center",
                ha="left" if side > 0 else "right",
                size=look.size.small,
                color=mark.colour,
            )
    if scale.clip(one.value) == one.value:
        axes.plot(one.value, y, **mark.look(size * 0.72), zorder=4, label="estimate")


@dataclass(frozen=True)
class Effects:
    """A panel of effects: its name, what its axis shows, one interval a row, and what is above it."""

    name: str
    axis: str
    intervals: Sequence[Interval]
    header: str = ""
    rank: int = 0
    number_rank: int = 0


def forest_panel(effects: Effects, scale: Scale, matters: float, least: float) -> Panel:
    """The panel of these effects; the smallest difference that ``matters`` is a band around zero."""

    def draw(axes: Axes, look: Look, places: Mapping[int, float]) -> None:
        numbered = scale.apply(axes, look, effects.intervals)
        if matters:
            axes.axvspan(
                max(-matters, scale.low), min(matters, scale.high), color=PALE, alpha=0.5, linewidth=0, label="matters"
            )
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for index, y in places.items():
            draw_interval(axes, y, effects.intervals[index], scale, look, numbered)

    return Panel(effects.name, effects.axis, draw, effects.header, least, rank=effects.rank)


def number_column(header: str, intervals: Sequence[Interval], form: Any, rank: int = 0) -> TextColumn:
    """The estimates as numbers, each with the sign and the colour of its verdict."""
    texts = ["" if math.isnan(one.value) else f"{form(one.value)} {MARKS[one.verdict].sign}" for one in intervals]
    return TextColumn(header, texts, rank, [MARKS[one.verdict].colour for one in intervals])


def interval_column(intervals: Sequence[Interval], form: Any, rank: int = 3) -> TextColumn:
    """The intervals as numbers."""
    texts = ["" if math.isnan(one.low) else f"{form(one.low)} to {form(one.high)}" for one in intervals]
    return TextColumn("interval", texts, rank, [MARKS[one.verdict].colour for one in intervals])


def draw_forest(
    names: Sequence[Name],
    panels: Sequence[Effects],
    columns: Sequence[TextColumn],
    look: Look,
    headline: str,
    caption: str,
    matters: float = 0.0,
    form: Any = signed,
) -> Drawn:
    """A row for every name: in each of the ``panels`` its effect, with its number beside it, and of a single panel its
    interval, too; then further ``columns``."""
    items: list[TextColumn | Panel] = []
    scale = Scale.of([one for effects in panels for one in effects.intervals])
    for effects in panels:
        least = 11.0 if len(panels) == 1 else 7.0
        items += [
            forest_panel(effects, scale, matters, least),
            number_column("", effects.intervals, form, effects.number_rank),
        ]
    if len(panels) == 1:
        items.append(interval_column(panels[0].intervals, form))
    shown = {one.verdict for effects in panels for one in effects.intervals if not math.isnan(one.value)}
    return draw_rows(names, [*items, *columns], look, headline, caption, shown)
