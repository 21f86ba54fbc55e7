"""Lines over an axis of numbers: learning curves by epoch, and accuracy over the levels of a flag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from roadmap.plotting.forest import Interval, Scale
from roadmap.plotting.style import (
    EDGE,
    FAINT,
    INK,
    LINES,
    MARKS,
    OURS,
    PALE,
    REFERENCE,
    Drawn,
    Look,
    Part,
    apart,
    line_of,
    open_sheet,
    padded,
)

#: Height of a panel in inches, of a small one, and how many small ones stand side by side; by the figure's width.
HEIGHT, SMALL, ACROSS = (
    {"column": 1.9, "page": 3.2, "slide": 0.0},
    {"column": 0.5, "page": 0.85, "slide": 0.0},
    {"column": 2, "page": 4, "slide": 4},
)
#: Two levels on an axis lie apart by at least this share of its length: else it is logarithmic, or not to scale.
LEAST_GAP = 0.08
#: Values of a line up to which each has its dot.
MOST_DOTS = 30


@dataclass(frozen=True)
class Curve:
    """A line: its name and how that is written, (N,) x and mean, the ends of its interval (NaN for one seed), the
    number at its end as text, and for each failed run its (x, values)."""

    name: str
    label: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    end: str = ""
    road: bool = False
    reference: bool = False
    failed: Sequence[tuple[np.ndarray, np.ndarray]] = ()

    @property
    def last(self) -> float | None:
        """The value at its end, or where it has none that of the longest failed run."""
        runs = [(self.x, self.mean)] if len(self.x) else [run for run in self.failed if len(run[0])]
        return max(((float(x[-1]), float(values[-1])) for x, values in runs), default=(0.0, None))[1]


def draw_curves(
    curves: Sequence[Curve],
    axes_labels: tuple[str, str],
    bounds: tuple[float, float],
    look: Look,
    headline: str,
    caption: str,
) -> Drawn:
    """Up to five curves share a panel and have their names at the ends of their lines; of more, each has its own panel,
    with the first one in grey. ``bounds``: between what the values can be."""
    with look.style():
        draw = _draw_shared if len(curves) <= len(LINES) else _draw_apart
        return draw(curves, axes_labels, _limits(curves, bounds), look, headline, caption)


def _limits(curves: Sequence[Curve], bounds: tuple[float, float]) -> tuple[float, float]:
    """Limits of the values; those of failed runs, which may have gone anywhere, only if the values are bounded or there
    is nothing else."""
    values = np.concatenate([part for curve in curves for part in (curve.mean, curve.low, curve.high)])
    if math.isfinite(bounds[1]) or not np.isfinite(values).any():
        values = np.concatenate([values, *(run for curve in curves for _, run in curve.failed)])
    low, high = padded(values[np.isfinite(values)].tolist(), 0.06)
    return max(low, bounds[0]), min(high, bounds[1])


def _draw_shared(
    curves: Sequence[Curve],
    labels: tuple[str, str],
    limits: tuple[float, float],
    look: Look,
    headline: str,
    caption: str,
) -> Drawn:
    size = look.size
    sheet = open_sheet(look, headline, caption, HEIGHT[look.width] + 0.2 + 2 * line_of(size.small))
    longest = max(look.measure(text) for curve in curves for text in (curve.label, curve.end))
    right = min(longest, 0.4 * sheet.room)
    left = look.measure("100.0", size.small) + line_of(size.small) + 0.16
    high = sheet.bottom - sheet.top - 2 * line_of(size.small) - 0.25
    axes = sheet.axes(EDGE + left, sheet.top + 0.08, sheet.room - left - right - 0.25, high, "curves")
    axes.set(ylim=limits, xlim=_across(curves), ylabel=labels[1])
    axes.set_xlabel(labels[0], labelpad=2)
    for curve, colour in zip(curves, LINES, strict=False):
        _draw_curve(axes, curve, colour, limits)
    _dress(axes, 6)
    ends = sorted(
        (float(np.clip(one.last, *limits)), place) for place, one in enumerate(curves) if one.last is not None
    )
    gap = 2 * line_of(size.text) / high * (limits[1] - limits[0])
    places = apart([max(end, limits[0] + gap / 2) for end, _ in ends], gap, limits[1] - gap / 2)
    parts: dict[int, Part] = {}
    edge = sheet.room + EDGE - right
    for (end, index), place in zip(ends, places, strict=True):
        axes.add_artist(
            Line2D(
                [1, 1 + 0.2 / (sheet.room - left - right - 0.25)],
                [end, place],
                color=LINES[index],
                linewidth=1,
                transform=axes.get_yaxis_transform(),
                clip_on=False,
            )
        )
        y = sheet.top + 0.08 + high * (limits[1] - place) / (limits[1] - limits[0])
        text = f"{look.fold(curves[index].label, right, lines=1)}\n{look.fold(curves[index].end, right, lines=1)}"
        sheet.write(edge, y, text, va="center", color=LINES[index], linespacing=1.05)
        parts[index] = Part(curves[index].name, sheet.box(edge, y - line_of(size.text), right, 2 * line_of(size.text)))
    sheet.figure.rows = [parts[index] for index in sorted(parts)]
    return sheet.figure


def _draw_apart(
    curves: Sequence[Curve],
    labels: tuple[str, str],
    limits: tuple[float, float],
    look: Look,
    headline: str,
    caption: str,
) -> Drawn:
    """A small panel for every curve, row by row, its name and last value above it."""
    size, columns = look.size, ACROSS[look.width]
    rows = math.ceil(len(curves) / columns)
    names = 2 * line_of(size.small) + 0.06
    foot = 2 * line_of(size.small) + 0.12
    sheet = open_sheet(look, headline, caption, (SMALL[look.width] + names) * rows + foot)
    down = (sheet.bottom - sheet.top - foot) / rows - names
    left = look.measure("100.0", size.small) + line_of(size.small) + 0.12
    wide = (sheet.room - left - 0.14 * (columns - 1)) / columns
    parts = []
    for place, curve in enumerate(curves):
        row, column = divmod(place, columns)
        x, y = EDGE + left + (wide + 0.14) * column, sheet.top + (down + names) * row
        axes = sheet.axes(x, y + names, wide, down, f"curves of {curve.name}")
        axes.set(ylim=limits, xlim=_across(curves))
        if place:
            axes.plot(curves[0].x, curves[0].mean, color="#999999", linewidth=1, zorder=1, label="first")
        _draw_curve(axes, curve, REFERENCE if curve.reference else OURS, limits)
        _dress(axes, 3)
        axes.tick_params(labelleft=column == 0, labelbottom=place + columns >= len(curves))
        name = look.fold(curve.label, wide, size.small, lines=1)
        above = {"va": "bottom", "size": size.small, "linespacing": 1.05}
        sheet.write(x, y + names - 0.02 - line_of(size.small), name, **above)
        sheet.write(x, y + names - 0.02, look.fold(curve.end, wide, size.small, lines=1), color=FAINT, **above)
        parts.append(Part(curve.name, sheet.box(x, y, wide, down + names)))
    sheet.write(EDGE + left, sheet.bottom, labels[0], va="bottom", size=size.small)
    sheet.write(EDGE, (sheet.top + names + sheet.bottom) / 2, labels[1], va="center", rotation=90, size=size.small)
    sheet.figure.rows = parts
    return sheet.figure


def _across(curves: Sequence[Curve]) -> tuple[float, float]:
    ends = [
        float(x[place])
        for curve in curves
        for x in (curve.x, *(run for run, _ in curve.failed))
        if len(x)
        for place in (0, -1)
    ]
    return padded(ends, 0.04)


def _draw_curve(axes: Axes, curve: Curve, colour: str, limits: tuple[float, float]) -> None:
    if np.isfinite(curve.low).any():
        axes.fill_between(
            curve.x,
            curve.low,
            curve.high,
            color=colour,
            alpha=0.2,
            linewidth=0,
            zorder=2,
            label=f"interval of {curve.name}",
        )
    few = len(curve.x) <= MOST_DOTS
    dotted = len(curve.x) and (few or len(curve.x) < curve.x[-1])
    axes.plot(
        curve.x,
        curve.mean,
        color=colour,
        linewidth=1.6,
        linestyle=(0, (4, 1.5)) if curve.road else "-",
        marker="o" if dotted else None,
        markersize=3 if few else 2,
        zorder=3,
        label=f"mean of {curve.name}",
    )
    for x, values in curve.failed:
        axes.plot(x, values, color=colour, linewidth=0.8, alpha=0.7, zorder=2, label=f"failed run of {curve.name}")
        axes.plot(
            x[-1:],
            np.clip(values[-1:], *limits),
            "x",
            color=INK,
            markersize=6,
            markeredgewidth=1.4,
            clip_on=False,
            zorder=4,
            label=f"end of {curve.name}",
        )


def _dress(axes: Axes, ticks: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(ticks))
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)


# --- levels


@dataclass(frozen=True)
class Level:
    """A level: the name by which it is known, how it is written, its effect (of which ``start`` is the accuracy of the
    first level), and the number that is written at it."""

    name: str
    label: str
    effect: Interval
    number: str = ""
    notes: Sequence[str] = field(default=())


def places_of(levels: Sequence[str]) -> tuple[list[float], str] | None:
    """Where levels stand on an axis, and its scale: ``linear``, ``log`` or ``not to scale``; None unless numbers."""
    try:
        values = [float(level) for level in levels]
    except ValueError:
        return None
    if len(values) < 2 or not all(map(math.isfinite, values)) or len(set(values)) < len(values):
        return None
    scales = {"linear": values} | ({"log": [math.log(value) for value in values]} if min(values) > 0 else {})
    for scale, scaled in scales.items():
        ordered = sorted(scaled)
        gaps = [after - before for before, after in zip(ordered, ordered[1:], strict=False)]
        if min(gaps) >= LEAST_GAP * (ordered[-1] - ordered[0]):
            return values, scale
    return [float(place) for place in range(len(values))], "not to scale"


def draw_levels(
    levels: Sequence[Level],
    places: Sequence[float],
    scale: str,
    axes_labels: tuple[str, str],
    references: Sequence[tuple[str, float]],
    look: Look,
    headline: str,
    caption: str,
) -> Drawn:
    """Accuracy over the levels of a flag: a line through the means, at each level the interval of its difference to the
    first one, the mark of its verdict and its number; references are dashed lines."""
    size = look.size
    shown = [level.effect.verdict for level in levels if not math.isnan(level.effect.start)]
    with look.style():
        sheet = open_sheet(look, headline, caption, HEIGHT[look.width] + 0.2 + 2 * line_of(size.small), shown)
        left = look.measure("100.0", size.small) + line_of(size.small) + 0.16
        high = sheet.bottom - sheet.top - 2 * line_of(size.small) - 0.25
        axes = sheet.axes(EDGE + left, sheet.top + 0.08, sheet.room - left, high, "levels")
        on_axis = [math.log(place) for place in places] if scale == "log" else [*places]
        axes.set_xlim(padded(on_axis, 0.12))
        fitted = Scale.of([level.effect for level in levels], zero=False)
        span = fitted.high - fitted.low
        axes.set_ylim(fitted.low - 0.1 * span * fitted.beyond[0], fitted.high + span * 0.22)
        known = sorted(
            (x, one.effect.value) for x, one in zip(on_axis, levels, strict=True) if not math.isnan(one.effect.value)
        )
        axes.plot([x for x, _ in known], [y for _, y in known], color=FAINT, linewidth=1, zorder=2, label="means")
        for x, level in zip(on_axis, levels, strict=True):
            _draw_level(axes, x, level, fitted, look)
        for name, mean in references:
            if axes.get_ylim()[0] < mean < axes.get_ylim()[1]:
                axes.axhline(mean, color=REFERENCE, linewidth=1, linestyle=(0, (4, 2)), zorder=1, label=name)
                axes.annotate(
                    name,
                    (0.01, mean),
                    xycoords=axes.get_yaxis_transform(),
                    xytext=(0, 2),
                    va="bottom",
                    textcoords="offset points",
                    size=size.small,
                    color=REFERENCE,
                )
        room = sheet.room / (len(levels) + 1)
        axes.set_xticks(on_axis, [look.fold(level.label, room, size.small, lines=1) for level in levels])
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="y", color=PALE, linewidth=0.6)
        axes.set_axisbelow(True)
        words = {"linear": "", "log": " (logarithmic)", "not to scale": " (not to scale)"}[scale]
        axes.set_xlabel(axes_labels[0] + words, labelpad=2)
        axes.set_ylabel(axes_labels[1], labelpad=2)
        half = 0.45 * min(abs(a - b) for a in on_axis for b in on_axis if a != b)
        sheet.figure.rows = [
            Part(level.name, sheet.box_within(axes, (x - half, x + half), axes.get_ylim()))
            for x, level in zip(on_axis, levels, strict=True)
        ]
    return sheet.figure


def _draw_level(axes: Axes, x: float, level: Level, fitted: Scale, look: Look) -> None:
    one, size = level.effect, look.size
    if math.isnan(one.value):
        axes.annotate(
            level.number or "not trained",
            (x, 0.04),
            xycoords=axes.get_xaxis_transform(),
            ha="center",
            rotation=90,
            size=size.small,
            color=FAINT,
        )
        return
    base = math.isnan(one.start)
    mark: dict[str, Any] = (
        {"color": INK, "marker": "o", "markersize": size.text * 0.72}
        if base
        else MARKS[one.verdict].look(size.text * 0.72)
    )
    ends = [one.value if math.isnan(end) else end for end in (one.low, one.high)]
    axes.plot(
        [x, x],
        [fitted.clip(end) for end in ends],
        color=mark["color"],
        linewidth=size.text * 0.16,
        zorder=3,
        label="interval",
    )
    for end, edge, side, arrow in zip(ends, (fitted.low, fitted.high), (-1, 1), ("v", "^"), strict=True):
        if side * end > side * edge:
            axes.plot(x, edge, arrow, color=mark["color"], markersize=size.text * 0.45, zorder=3, label="beyond")
    axes.plot(x, fitted.clip(one.value), **mark, zorder=4, label=f"mean of {level.name}")
    top = max(fitted.clip(ends[1]), fitted.clip(one.value))
    axes.annotate(
        "\n".join([level.number, *level.notes]),
        (x, top),
        xytext=(0, size.text * 0.5),
        ha="center",
        textcoords="offset points",
        va="bottom",
        size=size.text,
        color=mark["color"],
    )
