"""Accuracy against what it costs, with the names of those networks that no other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from roadmap.plotting.style import (
    EDGE,
    FAINT,
    INK,
    OURS,
    PALE,
    REFERENCE,
    Drawn,
    Look,
    Part,
    line_of,
    open_sheet,
    padded,
)

#: Inches of the panel's height, by the figure's width; on a slide it is as high as there is room.
HEIGHT = {"column": 2.2, "page": 3.6, "slide": 0.0}
#: Distances of a label from its dot that are tried, in font sizes.
AWAY = (0.7, 1.0, 1.4, 2.0, 2.8, 3.8, 5.0)


@dataclass(frozen=True)
class Point:
    """A network: its name and how that is written, cost, mean accuracy with its interval, and what it is."""

    name: str
    label: str
    x: float
    y: float
    low: float = math.nan
    high: float = math.nan
    adopted: bool = True
    reference: bool = False
    front: bool = False


def pareto_front(costs: Sequence[float], accuracies: Sequence[float], lower_is_better: bool = True) -> list[bool]:
    """Whether each network is on the Pareto front: no other one is better in cost or accuracy and no worse in the
    other. Of networks equal in both, all are or none is; one whose cost or accuracy is NaN never is."""
    table = np.array([costs, accuracies], dtype=float)
    table[0] *= -1 if lower_is_better else 1
    one, other = table[:, :, None], table[:, None, :]
    beaten = np.logical_and((one <= other).all(axis=0), (one < other).any(axis=0)).any(axis=1)
    return [not lost for lost in beaten | np.isnan(table).any(axis=0)]


def draw_scatter(
    points: Sequence[Point],
    axes_labels: tuple[str, str],
    less: bool,
    look: Look,
    headline: str,
    caption: str,
    limit: float | None = None,
) -> Drawn:
    """A dot for every network, dark and named on the front, pale elsewhere; references are diamonds and have names.
    ``less``: whether a smaller x is better. A name for which there is no place is told in the caption. ``limit``: the x
    beyond which the panel is shaded."""
    size = look.size
    with look.style():
        sheet = open_sheet(look, headline, caption, HEIGHT[look.width] + 0.2 + 3 * line_of(size.small))
        left, foot = look.measure("100.0", size.small) + line_of(size.small) + 0.16, 2 * line_of(size.small) + 0.2
        axes = sheet.axes(
            EDGE + left, sheet.top + 0.1, sheet.room - left, sheet.bottom - sheet.top - foot - 0.1, "cost"
        )
        xs, ys = [point.x for point in points], [point.y for point in points]
        axes.set_xlim(padded([*xs, *([] if limit is None else [limit])], 0.1))
        axes.set_ylim(padded([*ys, *(_near(end, ys) for point in points for end in (point.low, point.high))], 0.1))
        axes.xaxis.set_major_locator(MaxNLocator(max(int(sheet.room / (size.small / 12)), 3)))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"{axes_labels[0]} ({'less' if less else 'more'} is better)", labelpad=2)
        axes.set_ylabel(axes_labels[1], labelpad=2)
        if limit is not None:
            axes.axvspan(limit, axes.get_xlim()[less], color=PALE, zorder=0, label="beyond the budget")
            axes.axvline(limit, color=FAINT, linewidth=1, zorder=1, label="budget")
        for point in points:
            _draw_point(axes, point, size.text)
        members = sorted((point for point in points if point.front), key=lambda point: point.x)
        where: Literal["post", "pre"] = "post" if less else "pre"
        axes.step(
            [one.x for one in members],
            [one.y for one in members],
            where=where,
            color=INK,
            linewidth=1.2,
            zorder=2,
            label="front",
        )
        left_out = _name(axes, points, less, look)
        if left_out:
            sheet.figure.caption += f" Not named for lack of room: {', '.join(left_out)}."
        half = size.text * 0.8 / 72
        inches, height = map(float, sheet.figure.get_size_inches())
        places = axes.transData.transform(np.array([xs, ys]).T) / sheet.figure.dpi
        sheet.figure.rows = [
            Part(point.name, sheet.box(x - half, height - y - half, 2 * half, 2 * half))
            for point, (x, y) in zip(points, places.tolist(), strict=True)
        ]
    return sheet.figure


def _near(end: float, values: Sequence[float]) -> float:
    """The end of an interval, as far as it makes the axis no more than twice as long as the values do."""
    low, high = min(values), max(values)
    room = max(high - low, 1.0) / 2
    return min(max(low if math.isnan(end) else end, low - room), high + room)


def _draw_point(axes: Axes, point: Point, size: float) -> None:
    colour = REFERENCE if point.reference else OURS
    if not math.isnan(point.low):
        axes.plot(
            [point.x] * 2, [point.low, point.high], color=colour, alpha=0.35, linewidth=1, zorder=2, label="interval"
        )
    axes.plot(
        point.x,
        point.y,
        "D" if point.reference else "o",
        color=colour,
        zorder=4 if point.front else 3,
        markersize=size * (0.75 if point.front else 0.55),
        alpha=1 if point.front or point.reference else 0.55,
        markerfacecolor=colour if point.adopted or point.reference else "white",
        label=f"mean of {point.name}",
    )


def _name(axes: Axes, points: Sequence[Point], less: bool, look: Look) -> list[str]:
    """Write the names of the front and the references beside their dots, so that none covers a dot or another name or
    leaves the panel. Returns those that found no place."""
    scale = axes.figure.dpi / 72
    room = axes.get_window_extent()
    dots = axes.transData.transform([(point.x, point.y) for point in points])
    taken = [(*(dot - look.size.text * 0.4 * scale), *(dot + look.size.text * 0.4 * scale)) for dot in dots]
    members = sorted((dot for point, dot in zip(points, dots, strict=True) if point.front), key=lambda dot: dot[0])
    taken += [
        box for one, other in zip(members, members[1:], strict=False) for box in _step(one, other, less, 2 * scale)
    ]
    left_out = []
    for point, dot in sorted(zip(points, dots, strict=True), key=lambda pair: (not pair[0].front, -pair[0].y)):
        if not point.front and not point.reference:
            continue
        wide = look.measure(point.label, look.size.small, point.front) * axes.figure.dpi
        high = line_of(look.size.small) * axes.figure.dpi
        for away, right, up in (
            (a, r, u) for a in AWAY for r, u in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
        ):
            shift = away * look.size.text * scale
            middle = dot + [right * (shift + wide / 2), up * (shift + high / 2)]
            box = (*(middle - [wide / 2, high / 2]), *(middle + [wide / 2, high / 2]))
            inside = box[0] >= room.x0 and box[1] >= room.y0 and box[2] <= room.x1 and box[3] <= room.y1
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                offset = (middle - dot) / scale
                if away > 1:
                    end = np.clip(dot, box[:2], box[2:])
                    axes.annotate(
                        "",
                        (point.x, point.y),
                        xytext=tuple((end - dot) / scale),
                        textcoords="offset points",
                        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6},
                    )
                axes.annotate(
                    point.label,
                    (point.x, point.y),
                    xytext=tuple(offset),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    size=look.size.small,
                    weight="bold" if point.front else "normal",
                    color=REFERENCE if point.reference else INK,
                )
                break
        else:
            left_out.append(point.label)
    return left_out


def _step(one: Any, other: Any, less: bool, half: float) -> list[tuple[float, ...]]:
    """The boxes around the two lines of a step of the front between two places."""
    corner = (other[0], one[1]) if less else (one[0], other[1])
    return [
        (
            min(start[0], end[0]) - half,
            min(start[1], end[1]) - half,
            max(start[0], end[0]) + half,
            max(start[1], end[1]) + half,
        )
        for start, end in ((one, corner), (corner, other))
    ]


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and one[2] > other[0] and one[1] < other[3] and one[3] > other[1]
