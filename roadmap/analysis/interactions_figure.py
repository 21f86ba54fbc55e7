"""What the steps of a factorial study bring alone and together, as a map."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.estimation import FINDINGS
from roadmap.checks import RoadmapError
from roadmap.look import (
    EDGE,
    FAINT,
    INK,
    OURS,
    PAPER,
    SMALL,
    TITLE_LINE,
    NotebookFigure,
    add_words,
    caption_text,
    foot_of,
    headline,
    inches_of,
    label,
    number,
    short,
    signed,
    styled,
)  # fmt: skip

#: Losses orange and gains blue, which the colour-blind tell apart; nothing is white.
COLOURS = LinearSegmentedColormap.from_list("effects", [PAPER, "white", OURS])
HATCH = "////"
#: The colours go as far as the largest interaction, or if they are larger than that as the main effects, but at most so
#: many times as far; what is beyond has the darkest colour.
MAX_STRETCH = 3.0
#: Inches: the largest cell; what the names take on the left and, upright, below, by the figure's width; the colour bar.
CELL, NAMES, BAR = 1.15, {"page": 1.5, "column": 0.92}, 0.14
#: Characters of a name in a line, by the figure's width, its font size, and the height of a cell with room for two.
FITTING, NAME, TWO_LINES = {"page": 22, "column": 12}, 7.0, 0.235
#: Font sizes in points of a cell's number: the largest and the smallest.
SIZE, SMALLEST = 9.0, 6.0
#: Widths of bold characters in DejaVu Sans, as parts of the font size; a digit is as wide as any other.
_DIGIT, _OTHERS = 0.7, {".": 0.38, "+": 0.84, "−": 0.84}
#: Below this luminance white is read better than `INK`.
_DARK = 0.2


def draw_interactions(effects: pd.DataFrame, title: str | None = None, width: str = "page") -> Figure:
    """The effects of a factorial study as a symmetric map: main effects on the diagonal, interactions of two beside it.

    ``effects`` is the table of the effects, in percentage points. Blue cells are gains, orange
    ones losses; findings are bold and framed. An effect that is unknown is hatched, and so is one that the fraction of
    the networks cannot tell from others of the map: its number is that of their sum. Where a cell has room, the 95 %
    interval stands below; where it has none, numbers have fewer digits, or are left out.

    Raises `RoadmapError` for a width that there is not, and where the effects are those of another design.
    """
    inches = inches_of(width)
    if "kind" not in effects or not len(effects):
        raise RoadmapError("only a factorial study has interactions: roadmap run --design factorial")
    cells = _cells(effects)
    factors = list(dict.fromkeys(name for pair in cells for name in pair))
    limit = _limit(cells)
    cell = min((inches - NAMES[width] - EDGE) / len(factors), CELL)
    names = [short(label(name), FITTING[width], 1 + (cell > TWO_LINES)) for name in factors]
    form, size = _form(cells, cell)
    body = cell * len(factors)
    below = 0.12 + 0.06 * max(len(line) for name in names for line in name.split("\n"))
    caption = caption_text(_sentences(effects, cells, limit, form), inches)
    lower = foot_of(caption, [], inches) - 0.15
    foot = lower + BAR + 0.25 + below
    words = headline(
        title or f"Main effects and interactions of {len(factors)} step{'' if len(factors) == 1 else 's'}", inches
    )
    height = foot + body + 0.5 + TITLE_LINE * words.count("\n")
    with styled():
        figure = NotebookFigure(figsize=(inches, height))
        axes = figure.add_axes((NAMES[width] / inches, foot / height, body / inches, body / height), label="map")
        _draw_cells(axes, cells, factors, limit, cell, form, size)
        axes.set_xticks(range(len(factors)), names, rotation=90, multialignment="right", fontsize=NAME, linespacing=1)
        axes.set_yticks(range(len(factors)), names, fontsize=NAME, linespacing=1)
        axes.tick_params(length=0, labelcolor=INK)
        axes.spines[:].set_visible(False)
        long = max(body, 1.6)
        bar = figure.add_axes((NAMES[width] / inches, lower / height, long / inches, BAR / height), label="colours")
        colours = ScalarMappable(Normalize(-limit, limit), COLOURS)
        beyond = any(abs(one.estimate) > limit for one in cells.values())
        figure.colorbar(colours, cax=bar, orientation="horizontal", extend="both" if beyond else "neither",
                        ticks=MaxNLocator(4))  # fmt: skip
        bar.set_xlabel("points of top1", fontsize=8.5)
        bar.tick_params(labelsize=SMALL)
        add_words(figure, words, caption, [], lower)
    return figure


@dataclass(frozen=True)
class _Cell:
    """An effect in its cell; ``aliased``: that of others with it."""

    estimate: float
    low: float
    high: float
    found: bool
    aliased: bool
    failed: bool


def _cells(effects: pd.DataFrame) -> dict[tuple[str, str], _Cell]:
    """(step, step) -> cell, of every main effect, where the two are the same, and of every pair, in one order."""
    cells: dict[tuple[str, str], _Cell] = {}
    rows = effects.to_dict("records")
    # Of the map; interactions of more steps have no place in it.
    aliases = [[term for term in _aliases(row) if term.count(" × ") < 2] for row in rows]
    for row, others in zip(rows, aliases, strict=True):
        cells[_pair(row["effect"])] = _cell(row, 1.0, bool(others))
    # An effect that another one stands for has no row of its own.
    for row, others in zip(rows, aliases, strict=True):
        for alias in others:
            pair = _pair(alias[2:])
            if pair not in cells and pair[::-1] not in cells:
                cells[pair] = _cell(row, 1.0 if alias[0] == "+" else -1.0, True)
    return cells


def _aliases(row: Mapping[Hashable, Any]) -> list[str]:
    """The effects that cannot be told from a row's, each with its sign: ``+ a × b``."""
    return re.split(" (?=[+−] )", row["aliases"]) if row["aliases"] else []


def _pair(effect: str) -> tuple[str, str]:
    """The two steps of an interaction, and of a main effect the one step twice."""
    first, _, second = effect.partition(" × ")
    return first, second or first


def _cell(row: Mapping[Hashable, Any], sign: float, aliased: bool) -> _Cell:
    low, high = sorted((sign * row["low"], sign * row["high"]))
    return _Cell(sign * row["estimate"], low, high, row["verdict"] in FINDINGS, aliased, bool(row["failed"]))


def _limit(cells: Mapping[tuple[str, str], _Cell]) -> float:
    """The largest number that has a colour of its own."""
    sizes = {pair: abs(one.estimate) for pair, one in cells.items() if not math.isnan(one.estimate)}
    together = max((size for (one, other), size in sizes.items() if one != other), default=0.0)
    whole = max(sizes.values(), default=0.0)
    return (min(whole, MAX_STRETCH * together) if together else whole) or 1.0


def _draw_cells(
    axes: Axes,
    cells: Mapping[tuple[str, str], _Cell],
    factors: Sequence[str],
    limit: float,
    cell: float,
    form: str,
    size: float,
) -> None:
    axes.set_xlim(-0.5, len(factors) - 0.5)
    axes.set_ylim(len(factors) - 0.5, -0.5)
    colour_of = Normalize(-limit, limit, clip=True)
    for (one, other), found in cells.items():
        unknown = math.isnan(found.estimate)
        colour = to_rgb("#EEEEEE" if unknown else COLOURS(float(colour_of(found.estimate))))
        for row, column in {(factors.index(one), factors.index(other)), (factors.index(other), factors.index(one))}:
            name = f"{factors[row]} × {factors[column]}"
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5,
                          label=name)
            )  # fmt: skip
            if unknown or found.aliased:
                axes.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="none", edgecolor=FAINT, linewidth=0,
                              hatch=HATCH, alpha=0.5, label=f"hatch of {name}")
                )  # fmt: skip
            if found.found:
                axes.add_patch(
                    Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, fill=False, edgecolor=INK, linewidth=1.2,
                              label=f"frame of {name}")
                )  # fmt: skip
            _write(axes, row, column, found, form, size, cell, "white" if _luminance(colour) < _DARK else INK)


def _write(axes: Axes, row: int, column: int, found: _Cell, form: str, size: float, cell: float, colour: Any) -> None:
    """The number of a cell, as far as it has room, and its interval below."""
    place: dict[str, Any] = {"ha": "center", "color": colour}
    if found.aliased:
        place["bbox"] = {"color": "white", "alpha": 0.75, "pad": 1, "linewidth": 0}
        place["color"] = INK
    if math.isnan(found.estimate):
        if cell > 0.75:
            axes.text(column, row, "failed" if found.failed else "not trained", va="center", fontsize=SMALL,
                      style="italic", **place | {"bbox": {"color": "#EEEEEE", "pad": 1, "linewidth": 0}})  # fmt: skip
        return
    if not form:
        return
    interval = f"[{signed(found.low)}, {signed(found.high)}]"
    below = not math.isnan(found.low) and cell > 0.062 * len(interval) + 0.1
    if below:
        axes.text(column, row + 0.08, interval, va="top", fontsize=SMALL - 0.8, **place)
    where: dict[str, Any] = {"y": row - 0.02, "va": "bottom"} if below else {"y": row, "va": "center"}
    axes.text(column, s=_number(found.estimate, form), fontsize=size, **where,
              weight="bold" if found.found else "normal", **place)  # fmt: skip


def _number(estimate: float, form: str) -> str:
    """A number in a format of Python's; what is rounded to zero has no minus sign."""
    return number(round(estimate, int(form[2])) + 0.0, form)


def _form(cells: Mapping[tuple[str, str], _Cell], cell: float) -> tuple[str, float]:
    """A format of Python's and a font size for the numbers, with as many digits as cells of so many inches have room
    for; an empty format where they have none."""
    for form in ("+.2f", "+.1f"):
        texts = [_number(one.estimate, form) for one in cells.values() if not math.isnan(one.estimate)]
        widest = max((sum(_OTHERS.get(character, _DIGIT) for character in text) for text in texts), default=1.0)
        size = min(SIZE, 72 * (cell - 0.04) / widest)
        if size >= SMALLEST:
            return form, size
    return "", SMALLEST


def _luminance(colour: tuple[float, float, float]) -> float:
    """The relative luminance of sRGB, 0 to 1, with its curve taken for a power of 2.2."""
    return sum(part * channel**2.2 for part, channel in zip((0.2126, 0.7152, 0.0722), colour, strict=True))


def _sentences(effects: pd.DataFrame, cells: Mapping[tuple[str, str], _Cell], limit: float, form: str) -> list[str]:
    sentences = [
        "Diagonal: main effects, the mean of the networks with the step minus that of those without. Beside it: "
        "interactions, half the difference between the effect of the one step with and without the other."
    ]
    if any(one.found for one in cells.values()):
        sentences.append(
            "Bold and framed: p below 0.05 by Holm's correction over all effects; the rest is within noise."
        )
    elif any(not math.isnan(one.low) for one in cells.values()):
        sentences.append("All of them are within noise.")
    else:
        sentences.append("There are no intervals, and a small effect may be noise.")
    if any(one.aliased for one in cells.values()):
        sentences.append(
            "Hatched: this fraction of the networks cannot tell the effect from others; what is drawn is their sum."
        )
    if any(alias.count(" × ") > 1 for row in effects.to_dict("records") for alias in _aliases(row)):
        sentences.append("This fraction of the networks takes interactions of three steps for zero.")
    if any(math.isnan(one.estimate) for one in cells.values()):
        sentences.append("Grey: unknown, since runs failed or are missing.")
    if any(abs(one.estimate) > limit for one in cells.values()):
        sentences.append("What is beyond the colour bar has its darkest colour.")
    if not form:
        sentences.append("The numbers, for which there is no room here, are in the table of effects.")
    return sentences
