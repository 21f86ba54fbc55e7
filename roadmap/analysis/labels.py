"""Where labels stand in a figure: near what they name, and on nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from roadmap.look import FAINT

#: Distances of a label from its dot that are tried, in points; further than the near ones a thin line joins the two.
_NEAR, _FAR = (4.0, 6.0, 9.0), (13.0, 18.0, 24.0, 32.0, 42.0, 55.0, 70.0, 90.0, 120.0)
#: Where around the dot, as places on the edge of a square.
_ANGLES = np.deg2rad(45 + 22.5 * np.arange(16))
_DIRECTIONS = np.clip(2**0.5 * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1), -1, 1).round(6)
#: Points around the middle of a dot, and around a label, that no other label may cover.
_DOT, _GAP = 4.0, 1.2
#: A label stands so many points further off rather than cross a line for two, or be about as near to another dot.
_CROSSING, _DOUBTFUL = 1.0, 14.0
#: About as near: by these points.
_CLEARLY = 3.0
#: A full text is not worth more than this.
_FULL_WORTH = 16.0


@dataclass(frozen=True)
class Label:
    """The label of a dot: its ``text``, or the ``full`` one where there is room for that. ``look``: as of a Text."""

    dot: int
    text: str
    full: str = ""
    look: Mapping[str, Any] = field(default_factory=dict)


def draw_labels(axes: Axes, dots: np.ndarray, lines: Sequence[np.ndarray], labels: Sequence[Label]) -> None:
    """Write labels beside dots, so that none covers a dot or another label or leaves the panel.

    ``dots``: (N, 2) places of all dots in data coordinates; ``lines``: arrays (M, 2) of the corners of drawn lines,
    which labels cross only where the way around is long. The panel's limits and its place in the figure must be final.
    All texts are placed, the first with the best choice, before the full ones are tried. A text for which no place is
    left is not drawn, which takes some hundred labels in a panel.
    """
    scale = 72 / axes.figure.dpi
    room = np.array(axes.get_window_extent().extents) * scale
    points = axes.transData.transform(dots) * scale
    crossed = np.concatenate(
        [np.empty((0, 2)), *(_along(axes.transData.transform(line) * scale) for line in lines if len(line))]
    )
    covered = np.concatenate([points - _DOT, points + _DOT], axis=1)
    boxes: dict[int, np.ndarray] = {}
    words: dict[int, str] = {}
    for full in (False, True):
        for index, label in enumerate(labels):
            text = label.full if full else label.text
            if not text:
                continue
            others = [box for other, box in boxes.items() if other != index]
            size = _size(axes, text, label.look) * scale
            distances = _NEAR if full else _NEAR + _FAR
            box, cost = _free_place(label.dot, points, size, distances, np.array([*covered, *others]), crossed, room)
            if cost < (_FULL_WORTH if full else np.inf):
                boxes[index], words[index] = box, text
    for index, box in boxes.items():
        _draw_label(axes, dots[labels[index].dot], points[labels[index].dot], box, words[index], labels[index].look)


def _size(axes: Axes, text: str, look: Mapping[str, Any]) -> np.ndarray:
    """Width and height of a text in pixels."""
    drawn = axes.text(0, 0, text, **look)
    extent = drawn.get_window_extent()
    drawn.remove()
    return np.array([extent.width, extent.height])


def _along(corners: np.ndarray) -> np.ndarray:
    """(K, 2) places on a line, two points apart."""
    corners = corners[np.isfinite(corners).all(axis=1)]
    parts = [
        np.linspace(one, other, max(int(np.hypot(*(other - one)) / 2), 1), endpoint=False)
        for one, other in zip(corners, corners[1:], strict=False)
    ]
    return np.concatenate([*parts, corners[-1:]])


def _free_place(
    dot: int,
    points: np.ndarray,
    size: np.ndarray,
    distances: Sequence[float],
    taken: np.ndarray,
    crossed: np.ndarray,
    room: np.ndarray,
) -> tuple[np.ndarray, float]:
    """The box (x0, y0, x1, y1) that suits a label best, at one of these distances, and its cost: infinite if none is
    free."""
    away = np.repeat(distances, len(_DIRECTIONS))
    directions = np.tile(_DIRECTIONS, (len(distances), 1))
    middles = points[dot] + directions * (size / 2 + away[:, None])
    places = np.concatenate([middles - size / 2, middles + size / 2], axis=1)
    free = (places[:, :2] >= room[:2]).all(axis=1) & (places[:, 2:] <= room[2:]).all(axis=1)
    free &= ~_overlaps(places, taken + _GAP * np.array([-1, -1, 1, 1])).any(axis=1)
    crossings = _overlaps(places, np.tile(crossed, 2)).sum(axis=1)
    to_dots = np.linalg.norm(np.clip(points, places[:, None, :2], places[:, None, 2:]) - points, axis=2)
    doubtful = (to_dots < to_dots[:, [dot]] + _CLEARLY).sum(axis=1) > 1
    cost = np.where(free, away + _CROSSING * crossings + _DOUBTFUL * doubtful, np.inf)
    best = int(np.argmin(cost))
    return places[best], float(cost[best])


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M): whether two boxes overlap, of which a point may be one."""
    one, other = boxes.T[:, :, None], others.T[:, None, :]
    found: np.ndarray = (one[0] < other[2]) & (one[1] < other[3]) & (one[2] > other[0]) & (one[3] > other[1])
    return found


def _draw_label(
    axes: Axes, dot: np.ndarray, point: np.ndarray, box: np.ndarray, text: str, look: Mapping[str, Any]
) -> None:
    middle = (box[:2] + box[2:]) / 2 - point
    place: dict[str, Any] = {"xy": tuple(dot), "textcoords": "offset points"}
    axes.annotate(text, xytext=tuple(middle), ha="center", va="center", **place, **look)
    end = np.clip(point, box[:2], box[2:]) - point
    if np.abs(end).max() > max(_NEAR):
        line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", xytext=tuple(end), arrowprops=line, **place)


def apart(values: Sequence[float], gap: float, high: float) -> list[float]:
    """Places near ascending values, at least ``gap`` apart and, where there are not too many, none above ``high``."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], high - gap * (len(places) - 1 - index))
    return places
