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
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.rows import PAD, SIZES, Sizes, draw_names, lay_out, row_height, shade
from roadmap.checks import check_choice
from roadmap.look import BEYOND, EDGE, FAINT, INK, OURS, REFERENCE, fold, span, styled


@dataclass(frozen=True)
class Places:
    """Inches from the left: where the panel begins and the columns of text do, and where the last of these ends. A
    figure with fewer columns has the last ones; one with more leaves out those in the middle."""

    left: float
    columns: tuple[float, ...]
    end: float


PLACES = {"page": Places(2.2, (5.25, 6.6, 8.2), 8.95), "column": Places(1.05, (2.0, 2.86), 3.38)}
#: Inches between the panel and the first column.
GAP = 0.12
#: Inches that a row is higher where its small print needs two lines.
LINE = 0.1
#: An estimate so many times as large as the next one leaves the panel, so that the others can be told apart.
FAR = 5.0


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
    sentences: Sequence[str],
    dots: str,
    zero: bool = True,
    width: str = "page",
) -> Figure:
    """The rows from top to bottom. ``headers``: of the columns; ``axis``: what the panel's axis shows; ``sentences``:
    the caption's; ``dots``: what the small dots are; ``zero``: whether estimates are differences, with a line at zero
    and, where there is no range behind them, a bar from there: sorted by size, a tornado.

    An estimate `FAR` times as large as all others does not fit the axis; its bar ends in an arrow. At the width of a
    ``column`` rows have no notes. Raises `RoadmapError` for a width that there is not.
    """
    check_choice("width", width, PLACES)
    places, sizes, short = PLACES[width], SIZES[width], width == "column"
    shown = [*range(len(headers))] if len(headers) <= len(places.columns) else [0, len(headers) - 1]
    columns = _columns(rows, headers, shown, places, sizes)
    names, notes = [row.name for row in rows], ["" if short else row.note for row in rows]
    room = places.left - PAD - EDGE
    height = row_height(names, room, sizes)
    if short and any("\n" in small for column in columns for _, small in column.cells):
        height += LINE
    panel = columns[0].left - GAP - places.left
    with styled():
        sheet = lay_out(width, title, sentences, _legend(rows, dots, zero), height * len(rows))
        axes = sheet.panel("forest", places.left, panel)
        shade([axes], [row.section for row in rows])
        draw_names(axes, names, notes, [row.bold for row in rows], room, sizes)
        limits, far = _limits(rows, zero), _far(rows, zero)
        axes.set_xlim(limits)
        for number, row in enumerate(rows):
            _draw_row(axes, number, row, zero, sizes)
            if row is far:
                axes.plot(limits[row.estimate > 0], number, ">" if row.estimate > 0 else "<", color=OURS,
                          markersize=sizes.marker, clip_on=False, zorder=4, label=f"beyond: {row.name}")  # fmt: skip
        for number, column in enumerate(columns):
            _draw_column(axes, rows, column, places.left + panel, not number, zero, sizes)
        if short:
            axes.xaxis.set_major_locator(MaxNLocator(3))
        if zero:
            axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        beside = places.left + panel / 2 - EDGE
        axes.set_xlabel(fold(axis, 2 * beside, sizes.name), color=OURS)
        axes.tick_params(axis="x", labelcolor=OURS)
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    return sheet.figure


@dataclass(frozen=True)
class Column:
    """A column of text: inches from the left, header, and (large, small) text of every row."""

    left: float
    header: str
    cells: list[tuple[str, str]]


def _columns(
    rows: Sequence[Row], headers: Sequence[str], shown: Sequence[int], places: Places, sizes: Sizes
) -> list[Column]:
    """The columns with those numbers, their headers and small print in lines that end before the next column."""
    lefts = places.columns[-len(shown) :]
    columns = []
    for number, left, end in zip(shown, lefts, [*lefts[1:], places.end], strict=True):
        room = end - left - 0.03
        texts = [row.columns[number] if number < len(row.columns) else ("", "") for row in rows]
        cells = [(large, fold(small, room, sizes.small, lines=2)) for large, small in texts]
        header = "\n".join(fold(line, room, sizes.small) for line in headers[number].split("\n"))
        columns.append(Column(left, header, cells))
    return columns


def _draw_row(axes: Axes, number: int, row: Row, zero: bool, sizes: Sizes) -> None:
    colour = REFERENCE if row.reference else OURS
    if row.span:
        axes.barh(number, row.span[1] - row.span[0], left=row.span[0], height=0.3, color=colour, alpha=0.18,
                  linewidth=0, label=f"range of {row.name}")  # fmt: skip
    if math.isnan(row.estimate):
        axes.text(
            0.5, number, row.remark, transform=axes.get_yaxis_transform(), ha="center", va="center", style="italic",
            fontsize=sizes.name, bbox={"color": "white", "pad": 2} if row.remark else None,
        )  # fmt: skip
        return
    known = not math.isnan(row.low)
    solid = row.found or not known or not zero
    if zero and not row.span:
        axes.barh(number, row.estimate, height=0.5, color=colour, alpha=0.35 if solid else 0.15, linewidth=0,
                  label=f"bar of {row.name}")  # fmt: skip
    axes.errorbar(
        row.estimate,
        number,
        xerr=[[row.estimate - row.low], [row.high - row.estimate]] if known else None,
        color=colour,
        alpha=1 if solid else 0.55,
        marker="^" if row.reference else "o",
        markersize=sizes.marker,
        markerfacecolor=colour if solid else "white",
        elinewidth=sizes.marker / 5,
        capsize=sizes.marker / 2,
        zorder=3,
        label=f"estimate of {row.name}",
    )
    if len(row.values) > 1:
        axes.plot(row.values, [number + 0.27] * len(row.values), ".", color=INK, markersize=sizes.dot, alpha=0.7,
                  zorder=2, label=f"values of {row.name}")  # fmt: skip


def _draw_column(
    axes: Axes, rows: Sequence[Row], column: Column, right: float, first: bool, zero: bool, sizes: Sizes
) -> None:
    """The header and the texts of a column beside a panel that ends ``right`` inches from the left."""
    left = (column.left - right) * 72
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    size = sizes.name if first or sizes.small > 7 else sizes.small
    axes.annotate(column.header, (1, -0.5), xytext=(left, 5), va="bottom", fontsize=sizes.small, color=FAINT, **place)
    for number, (row, (large, small)) in enumerate(zip(rows, column.cells, strict=True)):
        axes.annotate(large, (1, number), xytext=(left, 1 if small else 0), va="bottom" if small else "center",
                      fontsize=size, color=INK if row.found or not zero else FAINT, **place)  # fmt: skip
        axes.annotate(small, (1, number), xytext=(left, -1), va="top", fontsize=sizes.small,
                      color=INK if row.found and first else FAINT, **place)  # fmt: skip


def _limits(rows: Sequence[Row], zero: bool) -> tuple[float, float]:
    """Axis limits that hold all estimates, dots and ranges but those of a row that is `_far`, zero if asked for, and of
    the intervals what is not far."""
    far = _far(rows, zero)
    rows = [row for row in rows if row is not far]
    points = [value for row in rows for value in (row.estimate, *row.values, *(row.span or ()))] + [0.0] * zero
    known = any(not math.isnan(value) for value in points)
    low, high = span(points if known else [0.0], [end for row in rows for end in (row.low, row.high)])
    margin = max((high - low) / 20, 0.1)
    return float(low - margin), float(high + margin)


def _far(rows: Sequence[Row], zero: bool) -> Row | None:
    """The row whose estimate, a difference, is `FAR` times as large as the next largest, if there is one."""
    known = sorted((row for row in rows if not math.isnan(row.estimate)), key=lambda row: -abs(row.estimate))
    if zero and len(known) > 1 and abs(known[0].estimate) > FAR * abs(known[1].estimate) > 0:
        return known[0]
    return None


def beyond_text(rows: Sequence[Row], zero: bool) -> list[str]:
    """The caption's sentences on what goes on beyond the axis."""
    low, high = _limits(rows, zero)
    far = _far(rows, zero)
    sentences = []
    if far:
        sentences.append(f"The arrow: {far.name} lies beyond the axis; its numbers stand beside it.")
    if any(row.low < low or row.high > high for row in rows if row is not far):
        sentences.append(BEYOND)
    return sentences


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
