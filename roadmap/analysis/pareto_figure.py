"""Accuracy against what it costs, with the Pareto front."""

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
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.labels import Label, draw_labels
from roadmap.checks import RoadmapError, check_known
from roadmap.look import (
    ADOPTED_MARKER,
    EDGE,
    FAINT,
    INK,
    OURS,
    REFERENCE_MARKER,
    ROAD_MARKER,
    SMALL,
    TITLE_LINE,
    NotebookFigure,
    add_words,
    caption_text,
    foot_of,
    headline,
    inches_of,
    limits,
    name_of,
    short,
    styled,
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """A column of the costs: what its axis shows, and whether less of it is better."""

    axis: str
    less: bool = True


COSTS = {
    "gmacs": Cost("GMACs per image"),
    "params": Cost("parameters"),
    "activations": Cost("activations per image"),
    "images_per_second": Cost("images per second in training", less=False),
}
#: Of more networks than this only those on a front, the first, the last and the references have a number.
MOST_NUMBERED = 40
#: An interval makes the axis at most this many times as long as the means do; it goes on beyond.
MAX_STRETCH = 2.0
#: Inches: left of a panel, right of the last one, between two; widest panel; height of a panel on a page, in a column.
LEFT, RIGHT, BETWEEN, WIDEST = 0.72, 0.2, 0.3, 5.0
HEIGHTS = {"page": 3.3, "column": 2.5}
#: Inches below a panel for what its axis says, which has a line more than other figures.
AXIS, DIRECTION = 0.72, 0.16
#: Characters of a name in the key, by the figure's width.
FITTING = {"page": 24, "column": 19}
#: Inches of a line and a character of the key, and font sizes of labels in points.
KEY_LINE, KEY_CHARACTER, LABEL = 0.15, 0.06, 6.8


def pareto_front(costs: Sequence[float], accuracies: Sequence[float], lower_is_better: bool = True) -> list[bool]:
    """Whether each network is on the Pareto front: no other one is better in cost or accuracy and no worse in the
    other. Of networks equal in both, all are or none is; one whose cost or accuracy is NaN never is."""
    table = np.array([costs, accuracies], dtype=float)
    table[0] *= -1 if lower_is_better else 1
    one, other = table[:, :, None], table[:, None, :]
    beaten = np.logical_and((one <= other).all(axis=0), (one < other).any(axis=0)).any(axis=1)
    return [not lost for lost in beaten | np.isnan(table).any(axis=0)]


def draw_pareto(
    steps: pd.DataFrame,
    costs: pd.DataFrame,
    against: Sequence[str] = ("gmacs", "params", "images_per_second"),
    title: str | None = None,
    width: str = "page",
) -> Figure:
    """Accuracy against cost: a panel for each cost, side by side on a ``page`` and below each other in a ``column``.

    ``steps`` has one row a network, as `roadmap.analysis.tables.summarize` gives; ``costs`` has ``step`` and the
    columns that ``against`` names: ``gmacs``, ``params``, ``activations``, and ``images_per_second``, the measured
    throughput of training. Dots are mean top1 in per cent, whiskers its 95 % interval over seeds; a light line joins
    the adopted rungs of a ladder in its order and breaks at one that failed. Roads not taken are hollow, reference
    models triangles. The step line is the `pareto_front` of the means of all networks; its members have a ring and,
    where there is room, their name. Every dot has a number that the key below names.

    A network without accuracy (its runs failed) or without a cost is named in the caption, and a cost that is known
    of none has no panel. Raises `RoadmapError` for a width or cost that there is not, and where nothing is known.
    """
    inches = inches_of(width)
    check_known("cost", against, COSTS)
    table = steps.merge(costs[["step", *dict.fromkeys(against)]], on="step", how="left", suffixes=("_counted", ""))
    shown = [cost for cost in dict.fromkeys(against) if table[cost].notna().any()]
    if not shown:
        raise RoadmapError("nothing is known of what these networks cost")
    on_ladder = "against" in steps and bool(steps["against"].notna().any())
    fronts = {cost: pareto_front([*table[cost]], [*table["top1_mean"]], COSTS[cost].less) for cost in shown}
    table["name"] = [name_of(*named) for named in zip(table["step"], table["reference"], strict=True)]
    numbers = _numbers(table, shown, fronts)
    legend = _legend(table, on_ladder)
    # A figure space is as wide as a digit.
    key = [f"{number:\u2007>2}  {short(table['name'][row], FITTING[width], 1)}" for row, number in numbers.items()]
    per_line = max(int((inches - 2 * EDGE) / (KEY_CHARACTER * max(map(len, key), default=1) + 0.15)), 1)
    accuracy = _accuracy_limits(table)
    caption = caption_text(_sentences(table, against, shown, accuracy), inches)
    lower = foot_of(caption, legend, inches) - 0.5
    foot = lower + KEY_LINE * math.ceil(len(key) / per_line) + 0.12 + AXIS
    words = headline(title or "Accuracy and what it costs", inches)
    down = 1 if width == "page" else len(shown)
    body = HEIGHTS[width] * down + AXIS * (down - 1)
    height = foot + body + 0.55 + TITLE_LINE * words.count("\n")
    across = len(shown) if width == "page" else 1
    panel = min((inches - LEFT - RIGHT - BETWEEN * (across - 1)) / across, WIDEST)
    with styled():
        figure = NotebookFigure(figsize=(inches, height))
        for place, cost in enumerate(shown):
            left = LEFT + (panel + BETWEEN) * (place if width == "page" else 0)
            bottom = foot + (HEIGHTS[width] + AXIS) * (0 if width == "page" else down - 1 - place)
            axes = figure.add_axes(
                (left / inches, bottom / height, panel / inches, HEIGHTS[width] / height), label=cost
            )
            lines = _draw_panel(axes, table, cost, fronts[cost], on_ladder, accuracy)
            if left > LEFT:
                axes.tick_params(axis="y", labelleft=False)
            else:
                axes.set_ylabel("top1 on the test images (%)", color=OURS)
            _draw_numbers(axes, table, cost, fronts[cost], numbers, lines)
        _draw_key(figure, key, per_line, lower)
        add_words(figure, words, caption, legend, lower + 0.5)
    return figure


def _numbers(table: pd.DataFrame, shown: Sequence[str], fronts: dict[str, list[bool]]) -> dict[int, int]:
    """Row -> number, in the study's order, of the networks that have one."""
    drawn = table["top1_mean"].notna() & table[shown].notna().any(axis=1)
    if drawn.sum() > MOST_NUMBERED:
        own = drawn[drawn & ~table["reference"]].index
        drawn &= np.any([*fronts.values()], axis=0) | table["reference"] | table.index.isin([*own[:1], *own[-1:]])
    return {row: number for number, row in enumerate(drawn[drawn].index, 1)}


def _draw_panel(
    axes: Axes, table: pd.DataFrame, cost: str, front: list[bool], on_ladder: bool, accuracy: tuple[float, float]
) -> list[np.ndarray]:
    """Everything but the labels. Returns the corners of the lines, which labels had better not cross."""
    scale, unit = _scale(table[cost])
    values, means = table[cost].to_numpy(float) / scale, table["top1_mean"].to_numpy(float)
    less = COSTS[cost].less
    least, most = np.nanmin(values), np.nanmax(values)
    margin = 0.12 * ((most - least) or most or 1.0)
    axes.set_xlim(max(least - margin, 0), most + margin)
    axes.set_ylim(accuracy)
    lines = []
    if on_ladder:
        path = (table["adopted"] & ~table["reference"]).to_numpy()
        axes.plot(values[path], means[path], color=OURS, linewidth=1.2, alpha=0.3, zorder=1, label="path")
        lines.append(np.stack([values[path], means[path]], axis=1))
    members = sorted(zip(values[front], means[front], strict=True), reverse=not less)
    if not members:
        axes.text(0.5, 0.5, "no result", transform=axes.transAxes, ha="center", va="center", style="italic")
    else:
        # From the lower edge up to the first member, and from the best one to where costs are worst.
        worst = axes.get_xlim()[less]
        x, y = np.repeat([(members[0][0], accuracy[0]), *members, (worst, members[-1][1])], 2, axis=0).T
        axes.plot(x[1:], y[:-1], color=INK, linewidth=1.1, zorder=2, label="front")
        # The front is the line that most needs to be seen.
        lines += 3 * [np.stack([x[1:], y[:-1]], axis=1)]
    for row, step in enumerate(table.to_dict("records")):
        if math.isnan(step["top1_mean"]) or math.isnan(step[cost]):
            continue
        known = not math.isnan(step["top1_low"])
        lines += [np.array([(values[row], step["top1_low"]), (values[row], step["top1_high"])])] * known
        look = REFERENCE_MARKER if step["reference"] else ADOPTED_MARKER if step["adopted"] else ROAD_MARKER
        ring = {"markeredgecolor": INK, "markeredgewidth": 1.4} if front[row] else {}
        axes.errorbar(
            values[row],
            step["top1_mean"],
            yerr=[[step["top1_mean"] - step["top1_low"]], [step["top1_high"] - step["top1_mean"]]] if known else None,
            **{**look, "markersize": look["markersize"] - 1, **ring},
            elinewidth=0.9,
            ecolor=(look["color"], 0.4),
            zorder=4 if front[row] else 3,
            label=f"mean of {step['step']}",
        )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    better = "← better" if less else "better →"
    axes.set_xlabel(f"{COSTS[cost].axis}{unit}\n{better}", linespacing=1.3)
    axes.tick_params(axis="y", labelcolor=OURS)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    return lines


def _scale(values: pd.Series) -> tuple[float, str]:
    """By what counts are divided on an axis, and how it says so."""
    most = values.max()
    for scale, unit in ((1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if most >= scale:
            return (1e3 if unit == "thousand" else scale), f" ({unit})"
    return 1.0, ""


def _accuracy_limits(table: pd.DataFrame) -> tuple[float, float]:
    """Limits that hold all means, and of their intervals what is not far."""
    means = table["top1_mean"]
    stretch = (MAX_STRETCH - 1) / 2 * max(means.max() - means.min(), 1.0)
    inner = means.min() - stretch, means.max() + stretch
    return limits(pd.Series([
        max(inner[0], np.fmin(table["top1_low"].min(), means.min())),
        min(inner[1], np.fmax(table["top1_high"].max(), means.max())),
    ]))  # fmt: skip


def _draw_numbers(
    axes: Axes,
    table: pd.DataFrame,
    cost: str,
    front: list[bool],
    numbers: dict[int, int],
    lines: list[np.ndarray],
) -> None:
    """Numbers beside the dots, and names of those on the front, the first and the last, where there is room."""
    drawn = table.index[table["top1_mean"].notna() & table[cost].notna()]
    own = [row for row in drawn if not table["reference"][row]]
    ends = {*own[:1], *own[-1:]}
    dots = np.stack([table[cost][drawn] / _scale(table[cost])[0], table["top1_mean"][drawn]], axis=1)
    wanted = [
        Label(
            place,
            str(numbers[row]),
            f"{numbers[row]} {short(table['name'][row], 24, 1)}" if front[row] or row in ends else "",
            {"fontsize": LABEL, "color": INK if front[row] else FAINT, "weight": "bold" if front[row] else "normal"},
        )
        for place, row in enumerate(drawn)
        if row in numbers
    ]
    draw_labels(axes, dots, lines, sorted(wanted, key=lambda one: not one.full))


def _draw_key(figure: Figure, key: Sequence[str], per_line: int, bottom: float) -> None:
    """The names of the numbers, column after column."""
    inches, height = figure.get_size_inches()
    lines = math.ceil(len(key) / per_line)
    step = (inches - 2 * EDGE) / per_line
    for place, text in enumerate(key):
        column, line = divmod(place, lines)
        figure.text((EDGE + column * step) / inches, (bottom + KEY_LINE * (lines - 1 - line)) / height, text,
                    fontsize=SMALL, va="bottom")  # fmt: skip


def _legend(table: pd.DataFrame, on_ladder: bool) -> list[Artist]:
    path: dict[str, Any] = {"linestyle": "-" if on_ladder else "none", "linewidth": 1.2}
    handles: list[Artist] = [Line2D([], [], **ADOPTED_MARKER, **path, label="adopted rung" if on_ladder else "network")]
    if not (table["adopted"] | table["reference"]).all():
        handles.append(Line2D([], [], **ROAD_MARKER, linestyle="none", label="road not taken"))
    if table["reference"].any():
        handles.append(Line2D([], [], **REFERENCE_MARKER, linestyle="none", label="reference"))
    ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.4}
    handles.append(Line2D([], [], color=INK, linewidth=1.1, label="Pareto front", **ring))
    return handles


def _sentences(
    table: pd.DataFrame, against: Sequence[str], shown: Sequence[str], accuracy: tuple[float, float]
) -> list[str]:
    intervals = table["top1_low"].notna().any()
    sentences = ["Mean top1 over seeds" + (", with its 95 % interval (whiskers)." if intervals else "; no intervals.")]
    if (table["top1_low"] < accuracy[0]).any() or (table["top1_high"] > accuracy[1]).any():
        sentences.append("An interval that reaches the edge goes on beyond it.")
    sentences.append(
        "Pareto front: no other network is as good in both and better in one. It is that of the means: members whose "
        "accuracies lie within noise of one another cannot be told apart."
    )
    if "gmacs" in shown:
        sentences.append("GMACs: multiply-accumulates of convolutions and linear layers in 1e9.")
    if "images_per_second" in shown:
        sentences.append("Images per second: measured while training, mean over seeds.")
    failed = table["name"][table["top1_mean"].isna()]
    if len(failed):
        sentences.append(f"Without a result: {', '.join(failed)}.")
    for cost in dict.fromkeys(against):
        unknown = table["name"][table[cost].isna() & table["top1_mean"].notna()]
        if len(unknown):
            who = "any network" if cost not in shown else ", ".join(unknown)
            sentences.append(f"Not known of {who}: {COSTS[cost].axis}.")
    return sentences
