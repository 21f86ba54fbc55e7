"""Learning curves, with what they vary by over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.labels import apart
from roadmap.analysis.statistics import mean_interval
from roadmap.checks import RoadmapError, check_known, repeated
from roadmap.look import (
    EDGE,
    FAINT,
    INK,
    LINES,
    OURS,
    REFERENCE,
    SMALL,
    TITLE_LINE,
    NotebookFigure,
    add_words,
    caption_text,
    foot_of,
    headline,
    inches_of,
    name_of,
    number,
    short,
    styled,
)  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """A column of the curves: what its axis shows, the format of its numbers, and the values that it can have."""

    axis: str
    form: str = ".2f"
    least: float = 0.0
    most: float = 100.0


QUANTITIES = {
    "test_top1": Quantity("top1 on the test images (%)"),
    "test_top5": Quantity("top5 on the test images (%)"),
    "train_top1": Quantity("top1 in training (%)"),
    "test_loss": Quantity("loss on the test images (nats)", ".3f", most=math.inf),
    "train_loss": Quantity("loss in training (nats)", ".3f", most=math.inf),
}
#: Lines that share a panel; of more steps each has its own.
MOST_SHARED = len(LINES)
#: Values of a line up to which each has its dot.
MOST_DOTS = 30
#: The colour of the curve that others are seen against.
START = "#999999"
#: Inches. Left of the panels; of one panel: its height, the height of a name on its right, the room there by the
#: figure's width, and the characters that fit.
LEFT, HEIGHT, NAME, NAMES, FITTING = 0.7, 3.2, 0.42, {"page": 1.55, "column": 1.15}, {"page": 19, "column": 13}
#: Of small panels: how many side by side by the figure's width, their height with the name above, and between two.
SIDE_BY_SIDE, SMALL_HEIGHT, SMALL_NAME, BETWEEN = {"page": 5, "column": 2}, 1.15, 0.42, 0.13


def draw_curves(
    curves: pd.DataFrame,
    steps: Sequence[str] | None = None,
    quantity: str = "test_top1",
    title: str | None = None,
    width: str = "page",
) -> Figure:
    """Learning curves: a quantity by epoch, the mean over seeds with its 95 % interval as a band.

    ``curves`` has one row a run and epoch: step, adopted, reference, seed, status, epoch, and the quantities, of which
    one of `QUANTITIES` is drawn. ``steps``: which, in which order; by default all. Up to five share a panel and
    have their names at the ends of their lines; of more, each has its own panel, with the curve of the first in grey.

    Runs that ended well (status ``done``) make the mean, at each epoch those that have a value there; an epoch that was
    not tested has no dot, and the line goes on to the next. Runs that failed are thin lines, up to a cross where they
    end. Raises `RoadmapError` for a quantity, step or width that there is not, for a step named twice, and where there
    is nothing to draw.
    """
    inches = inches_of(width)
    check_known("quantity", [quantity], QUANTITIES)
    if not len(curves):
        raise RoadmapError("there are no learning curves: they are in the store of the runs, which is not here")
    present = list(dict.fromkeys(curves["step"]))
    steps = present if steps is None else list(steps)
    if not steps:
        raise RoadmapError("no step is named whose learning curve is to be drawn")
    check_known("step", steps, present)
    if twice := repeated(steps):
        raise RoadmapError(f"step '{twice}' is named twice")
    curves = curves[curves["step"].isin(steps) & np.isfinite(curves[quantity].astype(float))]
    if not len(curves):
        raise RoadmapError(f"these runs have no {quantity} at any epoch")
    found = [_curve(step, curves[curves["step"] == step], quantity) for step in steps]
    limits = _limits(found, QUANTITIES[quantity])
    shared = len(found) <= MOST_SHARED
    legend = _legend(found, shared)
    caption = caption_text(_sentences(found, shared, quantity), inches)
    foot = foot_of(caption, legend, inches)
    words = headline(title or f"Learning curves: {QUANTITIES[quantity].axis.partition(' (')[0]}", inches)
    rows = 1 if shared else math.ceil(len(found) / SIDE_BY_SIDE[width])
    body = HEIGHT if shared else (SMALL_HEIGHT + SMALL_NAME) * rows
    height = foot + body + (0.5 if shared else 0.3) + TITLE_LINE * words.count("\n")
    with styled():
        figure = NotebookFigure(figsize=(inches, height))
        if shared:
            _draw_shared(figure, found, limits, quantity, foot, width)
        else:
            _draw_apart(figure, found, limits, quantity, foot, SIDE_BY_SIDE[width])
        add_words(figure, words, caption, legend, foot)
    return figure


@dataclass(frozen=True)
class _Curve:
    """What is drawn of a step: (N,) epochs with the mean, the ends of its interval (NaN for one seed), and for each
    failed run its (epochs, values)."""

    step: str
    road: bool
    reference: bool
    epochs: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    failed: list[tuple[np.ndarray, np.ndarray]]

    @property
    def name(self) -> str:
        return name_of(self.step, self.reference)

    @property
    def drawn(self) -> list[np.ndarray]:
        """The epochs of everything there is to draw."""
        return [epochs for epochs in (self.epochs, *(run for run, _ in self.failed)) if len(epochs)]

    @property
    def end(self) -> tuple[float, float] | None:
        """Epoch and value at which the mean ends, or where there is none the longest failed run; None for neither."""
        lines = [(self.epochs, self.mean)] if len(self.epochs) else self.failed
        ends = [(float(epochs[-1]), float(values[-1])) for epochs, values in lines]
        return max(ends, default=None)

    def last(self, form: str, interval: bool) -> str:
        """The mean at its end, with its ``interval`` or without, in a format of Python's; and how many runs failed."""
        texts = ["no value"] if self.end is None else []
        if len(self.epochs):
            texts = [number(self.mean[-1], form)]
            if interval and math.isfinite(self.low[-1]) and not self.failed:
                texts[0] += f" [{number(self.low[-1], form)}, {number(self.high[-1], form)}]"
        if self.failed:
            texts.append(f"{len(self.failed)} failed")
        return "; ".join(texts)


def _curve(step: str, rows: pd.DataFrame, quantity: str) -> _Curve:
    done = rows[rows["status"] == "done"].groupby("epoch")[quantity]
    intervals = np.array([mean_interval(values) for _, values in done]).reshape(-1, 4)
    intervals[:, 2:] = intervals[:, 2:].clip(QUANTITIES[quantity].least, QUANTITIES[quantity].most)
    failed = [
        (run["epoch"].to_numpy(float), run[quantity].to_numpy(float))
        for _, run in rows[rows["status"] != "done"].sort_values("epoch").groupby("seed")
    ]
    reference = bool(rows["reference"].any())
    return _Curve(
        step=step,
        road=not reference and not rows["adopted"].all(),
        reference=reference,
        epochs=np.array(list(done.groups), dtype=float),
        mean=intervals[:, 0],
        low=intervals[:, 2],
        high=intervals[:, 3],
        failed=failed,
    )


def _limits(found: Sequence[_Curve], quantity: Quantity) -> tuple[float, float]:
    """Limits that hold all means and bands; failed runs, whose losses may have gone anywhere, only if those are bounded
    or there is nothing else."""
    values = np.concatenate([part for curve in found for part in (curve.mean, curve.low, curve.high)])
    if math.isfinite(quantity.most) or not np.isfinite(values).any():
        values = np.concatenate([values, *(run for curve in found for _, run in curve.failed)])
    least, most = np.nanmin(values), np.nanmax(values)
    margin = 0.06 * (most - least) or 0.05 * abs(most) or 0.01
    return max(least - margin, quantity.least), min(most + margin, quantity.most)


def _epochs(found: Sequence[_Curve]) -> tuple[float, float]:
    """Limits of the epochs' axis."""
    first = min(epochs[0] for curve in found for epochs in curve.drawn)
    last = max(epochs[-1] for curve in found for epochs in curve.drawn)
    margin = 0.06 * (last - first) or 0.9
    return first - margin, last + margin


def _draw_shared(
    figure: Figure, found: Sequence[_Curve], limits: tuple[float, float], quantity: str, foot: float, width: str
) -> None:
    """All curves in one panel, with their names on the right."""
    inches, height = figure.get_size_inches()
    wide = inches - LEFT - NAMES[width]
    axes = figure.add_axes((LEFT / inches, foot / height, wide / inches, HEIGHT / height), label="curves")
    axes.set_xlim(_epochs(found))
    axes.set_ylim(limits)
    for curve, colour in zip(found, LINES, strict=False):
        _draw_curve(axes, curve, colour, limits)
    _dress(axes)
    axes.set_xlabel("epoch")
    axes.set_ylabel(QUANTITIES[quantity].axis)
    ends = sorted((float(np.clip(curve.end[1], *limits)), index) for index, curve in enumerate(found) if curve.end)
    gap = NAME / HEIGHT * (limits[1] - limits[0])
    lowest = limits[0] + gap / 2
    across = axes.get_yaxis_transform()
    places = apart([max(end, lowest) for end, _ in ends], gap, limits[1] - gap / 2)
    for (end, index), place in zip(ends, places, strict=True):
        ways = [1, 1 + 0.1 / wide, 1 + 0.15 / wide], [end, place, place]
        axes.add_artist(Line2D(*ways, color=LINES[index], linewidth=1.4, transform=across, clip_on=False))
        name = short(found[index].name, FITTING[width])
        axes.text(1 + 0.19 / wide, place, f"{name}\n{found[index].last(QUANTITIES[quantity].form, interval=False)}",
                  transform=across, va="center", fontsize=SMALL, linespacing=1.05)  # fmt: skip


def _draw_apart(
    figure: Figure, found: Sequence[_Curve], limits: tuple[float, float], quantity: str, foot: float, columns: int
) -> None:
    """A small panel for every curve, row by row, with the first one in grey behind it."""
    inches, height = figure.get_size_inches()
    wide = (inches - LEFT - EDGE - BETWEEN * (columns - 1)) / columns
    rows = math.ceil(len(found) / columns)
    form = QUANTITIES[quantity].form
    for place, curve in enumerate(found):
        row, column = divmod(place, columns)
        bottom = foot + (SMALL_HEIGHT + SMALL_NAME) * (rows - 1 - row)
        left = LEFT + (wide + BETWEEN) * column
        axes = figure.add_axes(
            (left / inches, bottom / height, wide / inches, SMALL_HEIGHT / height), label=f"curves of {curve.step}"
        )
        axes.set_ylim(limits)
        if place:
            axes.plot(found[0].epochs, found[0].mean, color=START, linewidth=1.1, zorder=1, label="first")
        _draw_curve(axes, curve, REFERENCE if curve.reference else OURS, limits)
        _dress(axes, ticks=3)
        axes.set_xlim(_epochs(found))
        axes.tick_params(labelleft=column == 0, labelbottom=place + columns >= len(found), labelsize=8)
        if place + columns >= len(found):
            axes.set_xlabel("epoch", fontsize=8.5)
        above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
        name = short(curve.name, int(wide / 0.0635), 1)
        axes.annotate(name, (0, 1), xytext=(0, 11), fontsize=7.2, weight="normal" if curve.road else "bold", **above)
        axes.annotate(
            curve.last(form, interval=True), (0, 1), xytext=(0, 2), fontsize=SMALL - 0.8, color=FAINT, **above
        )
    middle = (foot + (SMALL_HEIGHT + SMALL_NAME) * rows / 2) / height
    figure.text(0.08 / inches, middle, QUANTITIES[quantity].axis, rotation=90, va="center", fontsize=9.5)


def _draw_curve(axes: Axes, curve: _Curve, colour: str, limits: tuple[float, float]) -> None:
    if np.isfinite(curve.low).any():
        axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0, zorder=2,
                          label=f"interval of {curve.step}")  # fmt: skip
    few = len(curve.epochs) <= MOST_DOTS
    dotted = len(curve.epochs) and (few or len(curve.epochs) < curve.epochs[-1])
    axes.plot(curve.epochs, curve.mean, color=colour, linewidth=1.5, linestyle=(0, (4, 1.5)) if curve.road else "-",
              marker="o" if dotted else None, markersize=3 if few else 2, zorder=3,
              label=f"mean of {curve.step}")  # fmt: skip
    for epochs, values in curve.failed:
        axes.plot(epochs, values, color=colour, linewidth=0.8, alpha=0.7, zorder=2, label=f"failed run of {curve.step}")
        axes.plot(epochs[-1], np.clip(values[-1], *limits), "x", color=INK, markersize=5.5, markeredgewidth=1.3,
                  clip_on=False, zorder=4, label=f"end of {curve.step}")  # fmt: skip


def _dress(axes: Axes, ticks: int = 6) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(ticks))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(found: Sequence[_Curve], shared: bool) -> list[Artist]:
    colour = FAINT if shared else OURS
    handles: list[Artist] = [Line2D([], [], color=colour, linewidth=1.5, label="mean over seeds")]
    if any(np.isfinite(curve.low).any() for curve in found):
        handles.append(Patch(color=colour, alpha=0.25, linewidth=0, label="95 % interval"))
    if any(curve.road for curve in found):
        handles.append(Line2D([], [], color=colour, linewidth=1.5, linestyle=(0, (4, 1.5)), label="road not taken"))
    if not shared and any(curve.reference for curve in found):
        handles.append(Line2D([], [], color=REFERENCE, linewidth=1.5, label="reference"))
    if not shared and len(found[0].epochs):
        handles.append(Line2D([], [], color=START, linewidth=1.1, label=short(found[0].name, 24, 1)))
    if any(curve.failed for curve in found):
        look: dict[str, Any] = {"color": colour, "linewidth": 0.8, "marker": "x", "markeredgecolor": INK}
        handles.append(Line2D([], [], **look, label="failed run"))
    return handles


def _sentences(found: Sequence[_Curve], shared: bool, quantity: str) -> list[str]:
    banded = any(np.isfinite(curve.low).any() for curve in found)
    sentences = ["Mean over the seeds that ended well" + (", with its 95 % interval." if banded else "; no intervals.")]
    if any(0 < len(curve.epochs) < curve.epochs[-1] for curve in found if len(curve.epochs)):
        sentences.append("Epochs without a dot have no value.")
    if not shared and len(found[0].epochs):
        sentences.append(f"Grey in every panel: {found[0].name}.")
    if any(curve.failed for curve in found):
        sentences.append("Thin: runs that failed, each up to the cross where it ended; they are in no mean.")
    if quantity.startswith("train"):
        sentences.append("In training: on augmented images, while the network changed.")
    return sentences
