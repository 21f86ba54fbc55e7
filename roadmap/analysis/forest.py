"""Estimates with their intervals, one a row: the figure of most ablation designs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from roadmap.look import (
    CAPTION_LINE,
    FAINT,
    INK,
    OURS,
    REFERENCE,
    SMALL,
    TITLE_LINE,
    WIDTH,
    NotebookFigure,
    add_words,
    draw_names,
    row_height,
    shade,
    styled,
)  # fmt: skip

#: Left end of the panel, and left ends of the columns of text, in inches: of a figure with two columns the last two.
LEFT, COLUMNS = 2.2, (5.25, 6.6, 8.2)
#: Inches between the panel and the first column.
GAP = 0.15
#: An interval makes the axis at most this many times as long as the estimates and the dots do; it goes on beyond.
MAX_STRETCH = 3.0


@dataclass(frozen=True)
class Row:
    """One row: an estimate with its interval, the values behind it as small dots, and text beside it.

    ``span``: a range to draw pale behind it. ``columns``: (large, small) text right of the panel. ``found`` says that
    the estimate is a finding, which is drawn dark. ``remark`` stands in the panel where there is no estimate.
    """

    name: str
    note: str = ""
    bold: bool = True
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    values: Sequence[float] = ()
    span: tuple[float, float] | None = None
    columns: tuple[tuple[str, str], ...] = ()
    found: bool = True
    remark: str = ""
    section: str = ""
    reference: bool = False


def draw_forest(
    rows: Sequence[Row],
    headers: Sequence[str],
    axis: str,
    title: str,
    caption: str,
    dots: str,
    zero: bool = True,
) -> Figure:
    """The rows from top to bottom. ``headers``: of the columns; ``axis``: what the panel's axis shows; ``dots``: what
    the small dots are; ``zero``: whether estimates are differences, with a line at zero."""
    height_of_row = row_height([row.name for row in rows])
    body = height_of_row * len(rows)
    legend = _legend(rows, dots, zero)
    foot = (1.0 if legend else 0.7) + CAPTION_LINE * (caption.count("\n") + 1)
    height = foot + body + 0.8 + TITLE_LINE * title.count("\n")
    right = COLUMNS[-len(headers)] - GAP
    with styled():
        figure = NotebookFigure(figsize=(WIDTH, height))
        axes = figure.add_axes((LEFT / WIDTH, foot / height, (right - LEFT) / WIDTH, body / height), label="forest")
        shade([axes], [row.section for row in rows])
        draw_names(axes, [row.name for row in rows], [row.note for row in rows], [row.bold for row in rows])
        for number, row in enumerate(rows):
            _draw_row(axes, number, row, zero)
        _draw_columns(axes, rows, headers, zero)
        axes.set_xlim(_limits(rows, zero))
        if zero:
            axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        axes.set_xlabel(axis, color=OURS)
        axes.tick_params(axis="x", labelcolor=OURS)
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        add_words(figure, title, caption, legend, foot)
    return figure


def _draw_row(axes: Axes, number: int, row: Row, zero: bool) -> None:
    colour = REFERENCE if row.reference else OURS
    if row.span:
        axes.barh(number, row.span[1] - row.span[0], left=row.span[0], height=0.3, color=colour, alpha=0.18,
                  linewidth=0, label=f"range of {row.name}")  # fmt: skip
    if math.isnan(row.estimate):
        axes.text(
            0.5, number, row.remark, transform=axes.get_yaxis_transform(), ha="center", va="center", style="italic",
            bbox={"color": "white", "pad": 2} if row.remark else None,
        )  # fmt: skip
        return
    known = not math.isnan(row.low)
    solid = row.found or not known or not zero
    axes.errorbar(
        row.estimate,
        number,
        xerr=[[row.estimate - row.low], [row.high - row.estimate]] if known else None,
        color=colour,
        alpha=1 if solid else 0.55,
        marker="^" if row.reference else "o",
        markersize=7,
        markerfacecolor=colour if solid else "white",
        elinewidth=1.5,
        capsize=3.5,
        zorder=3,
        label=f"estimate of {row.name}",
    )
    if len(row.values) > 1:
        axes.plot(row.values, [number + 0.27] * len(row.values), ".", color=INK, markersize=4, alpha=0.7, zorder=2,
                  label=f"values of {row.name}")  # fmt: skip


def _draw_columns(axes: Axes, rows: Sequence[Row], headers: Sequence[str], zero: bool) -> None:
    right = COLUMNS[-len(headers)] - GAP
    for column, header in enumerate(headers):
        left = (COLUMNS[len(COLUMNS) - len(headers) + column] - right) * 72
        place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(header, (1, -0.5), xytext=(left, 5), va="bottom", fontsize=SMALL, color=FAINT, **place)
        for number, row in enumerate(rows):
            main, small = row.columns[column] if column < len(row.columns) else ("", "")
            axes.annotate(main, (1, number), xytext=(left, 1 if small else 0), va="bottom" if small else "center",
                          color=INK if row.found or not zero else FAINT, **place)  # fmt: skip
            axes.annotate(small, (1, number), xytext=(left, -1), va="top", fontsize=SMALL,
                          color=INK if row.found and not column else FAINT, **place)  # fmt: skip


def _limits(rows: Sequence[Row], zero: bool) -> tuple[float, float]:
    """Axis limits that hold all estimates, dots and ranges, zero if asked for, and of the intervals what is not far."""
    points = [value for row in rows for value in (row.estimate, *row.values, *(row.span or ()))] + [0.0] * zero
    inner = [value for value in points if not math.isnan(value)] or [0.0]
    low, high = min(inner), max(inner)
    room = max(high - low, 0.2) * (MAX_STRETCH - 1) / 2
    ends = [end for row in rows for end in (row.low, row.high) if not math.isnan(end)] + inner
    low, high = max(min(ends), low - room), min(max(ends), high + room)
    margin = max((high - low) / 20, 0.1)
    return float(low - margin), float(high + margin)


def is_cut(rows: Sequence[Row], zero: bool) -> bool:
    """Whether an interval goes on beyond the axis."""
    low, high = _limits(rows, zero)
    return any(row.low < low or row.high > high for row in rows)


def _legend(rows: Sequence[Row], dots: str, zero: bool) -> list[Any]:
    handles: list[Any] = []
    drawn = [row for row in rows if not math.isnan(row.estimate) and not row.reference]
    look: dict[str, Any] = {"color": OURS, "marker": "o", "markersize": 7}
    if not zero:
        handles.append(Line2D([], [], **look, label="mean ± std"))
    elif any(not math.isnan(row.low) for row in drawn):
        if any(row.found for row in drawn):
            handles.append(Line2D([], [], **look, label="finding"))
        if not all(row.found for row in drawn):
            handles.append(Line2D([], [], **look, alpha=0.55, markerfacecolor="white", label="no finding"))
    if any(row.span for row in rows):
        handles.append(Patch(color=OURS, alpha=0.18, linewidth=0, label="range over orders"))
    if any(row.reference and not math.isnan(row.estimate) for row in rows):
        handles.append(Line2D([], [], color=REFERENCE, marker="^", markersize=7, linestyle="none", label="reference"))
    if any(len(row.values) > 1 for row in rows):
        handles.append(Line2D([], [], color=INK, marker=".", linestyle="none", label=dots))
    return handles
