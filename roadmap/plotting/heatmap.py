"""Cells by row and column: main effects and interactions, or a grid of two flags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from roadmap.plotting.forest import Interval
from roadmap.plotting.style import EDGE, FAINT, INK, MARKS, Drawn, Look, Part, line_of, open_sheet

#: Inches of a cell, at most, and how pale what is decided is where it is smallest, and what is undecided.
CELL, PALEST, UNDECIDED = 2.6, 0.45, 0.08
#: Below this luminance white is read better than `INK`.
DARK = 0.3


@dataclass(frozen=True)
class HeatCell:
    """A cell: its place, the name by which it is known, its effect, and what is written in place of the estimate where
    that is another number, or none is known."""

    row: int
    column: int
    name: str
    effect: Interval
    text: str = ""
    aliased: bool = False


def draw_triangle(
    cells: Sequence[HeatCell], names: Sequence[str], look: Look, headline: str, caption: str, form: Any
) -> Drawn:
    """Effects of steps alone on the diagonal, of two together below it. Each step's name stands once, to the right of
    its diagonal cell, at the head of its column and at the end of its row."""
    return _draw(cells, [], [], names, look, headline, caption, form)


def draw_grid(
    cells: Sequence[HeatCell],
    downs: Sequence[str],
    acrosses: Sequence[str],
    titles: tuple[str, str],
    look: Look,
    headline: str,
    caption: str,
    form: Any,
) -> Drawn:
    """Every combination of two flags' levels; ``titles`` are the flags down and across."""
    across = [f"{titles[1]} = {name}" if place == 0 else name for place, name in enumerate(acrosses)]
    down = [f"{titles[0]} = {name}" if place == 0 else name for place, name in enumerate(downs)]
    return _draw(cells, down, across, [], look, headline, caption, form)


def _draw(
    cells: Sequence[HeatCell],
    downs: Sequence[str],
    acrosses: Sequence[str],
    diagonal: Sequence[str],
    look: Look,
    headline: str,
    caption: str,
    form: Any,
) -> Drawn:
    size = look.size
    rows, columns = max(cell.row for cell in cells) + 1, max(cell.column for cell in cells) + 1
    with look.style():
        texts = [_texts(cell, form) for cell in cells]
        room = size.across - 2 * EDGE
        left = min(max([look.measure(name) for name in downs], default=0.0), 0.3 * room) + 0.1 * bool(downs)
        right = min(
            max([look.measure(name, bold=True) for name in diagonal[-1:]], default=0.0), 0.28 * room
        ) + 0.1 * bool(diagonal)
        width = min((room - left - right) / columns, CELL)
        whole = max((look.measure(text, size.small) for one in texts for text in one[1:]), default=0.0) < width - 0.06
        if not whole:  # the interval's ends below each other
            texts = [[one[0], *(part for text in one[1:] for part in _halves(text))] for one in texts]
        small = all(look.measure(text, size.small) < width - 0.04 for one in texts for text in one[1:])
        if not small:
            texts = [one[:1] for one in texts]
            caption = f"{caption} The intervals, for which the cells have no room, are in the table of effects."
        lines = max(len(one) for one in texts)
        head = (line_of(size.text) + 0.06) if acrosses else 0.0
        height = line_of(size.text) + line_of(size.small) * (lines - 1) + 0.14
        shown = [cell.effect.verdict for cell in cells if not math.isnan(cell.effect.value)]
        sheet = open_sheet(look, headline, caption, head + height * rows + 0.05, shown)
        if size.down is not None:
            height = min((sheet.bottom - sheet.top - head - 0.05) / rows, max(height, 1.1))
        axes = sheet.axes(EDGE + left, sheet.top + head, width * columns, height * rows, "map")
        axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        largest = max((abs(cell.effect.value) for cell in cells if cell.effect.verdict in ("gain", "loss")), default=1)
        for cell, lines_of in zip(cells, texts, strict=True):
            _draw_cell(axes, cell, lines_of, look, largest, width)
        for row, name in enumerate(downs):
            sheet.write(
                EDGE + left - 0.1,
                sheet.top + head + height * (row + 0.5),
                look.fold(name, left, lines=1),
                va="center",
                ha="right",
            )
        for column, name in enumerate(acrosses):
            sheet.write(
                EDGE + left + width * (column + 0.5),
                sheet.top + head - 0.06,
                look.fold(name, width - 0.04, lines=1),
                va="bottom",
                ha="center",
            )
        for place, name in enumerate(diagonal):
            x = EDGE + left + width * (place + 1) + 0.1
            sheet.write(
                x,
                sheet.top + head + height * (place + 0.5),
                look.fold(name, size.across - EDGE - x, lines=2),
                va="center",
                weight="bold",
                linespacing=1.0,
            )
        sheet.figure.rows = [
            Part(cell.name, sheet.box_within(axes, (cell.column, cell.column + 1), (cell.row, cell.row + 1)))
            for cell in cells
        ]
    return sheet.figure


def _halves(text: str) -> list[str]:
    low, to, high = text.partition(" to ")
    return [f"{low} to", high] if to else [text]


def _texts(cell: HeatCell, form: Any) -> list[str]:
    """The lines of a cell: its number with the sign of its verdict, and its interval."""
    one = cell.effect
    first = cell.text or ("–" if math.isnan(one.value) else form(one.value))
    known = one.verdict is not None or not math.isnan(one.value)
    lines = [f"{first} {MARKS[one.verdict].sign}" if known else first]
    if not math.isnan(one.low):
        lines.append(f"{form(one.low)} to {form(one.high)}")
    return lines


def _draw_cell(axes: Any, cell: HeatCell, lines: Sequence[str], look: Look, largest: float, width: float) -> None:
    one, mark = cell.effect, MARKS[cell.effect.verdict]
    if one.verdict in ("gain", "loss"):
        share = PALEST + (1 - PALEST) * abs(one.value) / largest
    else:
        share = 0.25 if one.verdict == "negligible" else UNDECIDED
    colour = tuple(1 - share * (1 - channel) for channel in to_rgb(mark.colour))
    decided = one.verdict in ("gain", "loss", "negligible")
    ink = "white" if _luminance(colour) < DARK else INK if decided else FAINT
    axes.add_patch(
        Rectangle(
            (cell.column, cell.row),
            1,
            1,
            facecolor=colour,
            edgecolor="white",
            linewidth=2,
            hatch="////" if cell.aliased else None,
            label=cell.name,
        )
    )
    y = cell.row + 0.5
    plate = {"boxstyle": "square,pad=0.1", "facecolor": colour, "linewidth": 0} if cell.aliased else None
    size = look.size
    shift = (len(lines) - 1) * size.small * 1.2 / 2
    weight = "bold" if one.verdict in ("gain", "loss") else "normal"
    fitting = min(1.0, (width - 0.04) / max(look.measure(lines[0], size.text, weight == "bold"), 0.01))
    axes.annotate(
        lines[0],
        (cell.column + 0.5, y),
        xytext=(0, shift),
        textcoords="offset points",
        ha="center",
        va="center",
        color=ink,
        weight=weight,
        size=max(size.text * fitting, 6),
        bbox=plate,
    )
    for number, text in enumerate(lines[1:]):
        down = shift - size.text * 0.6 - size.small * 0.6 - number * size.small * 1.2
        axes.annotate(
            text,
            (cell.column + 0.5, y),
            xytext=(0, down),
            textcoords="offset points",
            ha="center",
            va="center",
            color=ink,
            size=size.small,
            bbox=plate,
        )


def _luminance(colour: Sequence[float]) -> float:
    """The relative luminance of sRGB, 0 to 1, with its curve taken for a power of 2.2."""
    return sum(part * channel**2.2 for part, channel in zip((0.2126, 0.7152, 0.0722), colour, strict=True))
