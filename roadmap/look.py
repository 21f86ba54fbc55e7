"""How all figures look, and how they become files.

Everything goes through matplotlib's objects and nothing through pyplot: no display, no global state.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.style import context
from matplotlib.textpath import TextToPath

from roadmap.checks import check_choice
from roadmap.files import whole_file

#: Colours of Okabe and Ito, told apart by the colour-blind and in grey print.
OURS, PAPER, REFERENCE = "#0072B2", "#D55E00", "#007A5A"
INK, FAINT = "#222222", "#666666"

#: Inches. A page: 9 are 900 pixels at the 100 dpi of a notebook and the width of a README; the PNG file has twice that.
#: A column of a paper, which is as wide as a phone.
WIDTHS = {"page": 9.0, "column": 3.4}
WIDTH = WIDTHS["page"]
ROW, CAPTION_LINE, TITLE_LINE, LEGEND_LINE = 0.44, 0.135, 0.22, 0.2
#: Left end of whatever stands at a figure's left edge, in inches.
EDGE = 0.14
SCREEN_DPI, FILE_DPI = 100, 200
#: What a figure is written as.
KINDS = ("png", "svg", "pdf")
#: What a file would else say of the moment at which it was written.
_UNDATED = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
#: Font size in points of what is written below a name or a number, and of the caption.
SMALL = 7.6
#: Font sizes of the title, by width of the figure.
TITLE_SIZES = {WIDTHS["page"]: 13.0, WIDTHS["column"]: 10.5}

#: How networks are marked: those on the adopted path, roads not taken, reference models.
ADOPTED_MARKER: dict[str, Any] = {"color": OURS, "marker": "o", "markersize": 7}
ROAD_MARKER: dict[str, Any] = {"color": OURS, "marker": "D", "markersize": 6, "markerfacecolor": "white"}
REFERENCE_MARKER: dict[str, Any] = {"color": REFERENCE, "marker": "^", "markersize": 7}
#: Colours of a few lines in one panel, told apart by the colour-blind, too.
LINES = (OURS, PAPER, INK, "#CC79A7", "#56B4E9")

#: On top of matplotlib's defaults, so that a reader's own matplotlibrc changes nothing.
STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.7,
    # TrueType: publishers refuse the Type 3 fonts that are matplotlib's default.
    "pdf.fonttype": 42,
    "svg.hashsalt": "roadmap",
    "text.color": INK,
    # What users name is no formula.
    "text.parse_math": False,
    "xtick.color": INK,
}


class NotebookFigure(Figure):
    """A Figure that a notebook shows by itself, without pyplot having been imported."""

    def _repr_png_(self) -> bytes:
        return _render(self, "png", SCREEN_DPI)


def styled() -> Any:
    """A context in which matplotlib has this package's style and nothing of the reader's own."""
    return context(["default", STYLE])


def save_figure(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write ``name.png``, ``name.svg`` and ``name.pdf`` into an existing folder; returns their paths.

    Each file appears whole or not at all, and the same figure gives the same bytes of SVG and PDF.
    """
    paths = []
    for kind in KINDS:
        path = Path(folder) / f"{name}.{kind}"
        with whole_file(path) as temporary:
            temporary.write_bytes(_render(figure, kind, FILE_DPI))
        paths.append(path)
    return paths


def _render(figure: Figure, kind: str, dpi: int) -> bytes:
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=_UNDATED[kind])
    return buffer.getvalue()


def inches_of(width: str) -> float:
    """The inches of a ``page`` or a ``column``. Raises `RoadmapError` for any other width."""
    check_choice("width", width, WIDTHS)
    return WIDTHS[width]


@cache
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Inches that a line of text is long, in the figures' font at so many points: on a screen, whose pixels letters are
    fitted to, or in print, whichever is longer."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    shown, _, _ = _screen().get_text_width_height_descent(text, font, ismath=False)
    printed, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return max(float(shown) / SCREEN_DPI, float(printed) / 72)


@cache
def _screen() -> RendererAgg:
    return RendererAgg(1, 1, SCREEN_DPI)


def fold(text: str, inches: float, size: float, bold: bool = False, lines: int | None = None) -> str:
    """Text in lines at most so long, cut off with an ellipsis where it needs more than so many ``lines``.

    Lines end between words, and only where a word is longer than a line within it, after a mark if there is one.
    """

    def fits(line: str) -> bool:
        return text_width(line, size, bold) <= inches

    folded = [""]
    for word in text.split():
        if not fits(f"{folded[-1]} {word}".strip()):
            folded.append("")
        while not fits(word) and len(word) > 1:
            length = next(length for length in range(len(word) - 1, 0, -1) if length == 1 or fits(word[:length]))
            length = max(word.rfind(mark, 0, length) for mark in "_-/.") + 1 or length
            folded[-1], word = word[:length], word[length:]
            folded.append("")
        folded[-1] = f"{folded[-1]} {word}".strip()
    folded = [line for line in folded if line]
    if lines and len(folded) > lines:
        last = folded[lines - 1]
        while last and not fits(f"{last}…"):
            last = last[:-1].rstrip()
        folded = [*folded[: lines - 1], f"{last}…"]
    return "\n".join(folded)


def headline(text: str, inches: float = WIDTH) -> str:
    """A title in as many lines as the figure's width needs."""
    return fold(text, inches - 2 * EDGE, TITLE_SIZES[inches], bold=True)


def caption_text(sentences: Sequence[str], inches: float = WIDTH) -> str:
    """The sentences below a figure, in lines of its width."""
    return fold(" ".join(sentences), inches - 2 * EDGE, SMALL)


def legend_columns(legend: Sequence[Artist], inches: float = WIDTH) -> int:
    """In how many columns the entries of a legend fit into the figure's width: all in one line, if they do."""
    widths = [0.57 + 0.066 * len(str(entry.get_label())) for entry in legend]
    room = inches - 2 * EDGE + 0.23  # nothing is between the last column and the edge
    return len(widths) if sum(widths) <= room else max(int(room / max(widths)), 1)


def legend_lines(legend: Sequence[Artist], inches: float = WIDTH) -> int:
    """How many lines a legend needs; a figure's foot is higher by `LEGEND_LINE` for each but the first."""
    return math.ceil(len(legend) / legend_columns(legend, inches)) if legend else 0


def add_words(figure: Figure, title: str, caption: str, legend: Sequence[Artist], foot: float) -> None:
    """Title above, and the legend and the caption below, within the lowest ``foot`` inches."""
    inches, height = figure.get_size_inches()
    if legend:
        more = LEGEND_LINE * (legend_lines(legend, inches) - 1)
        figure.legend(
            handles=list(legend), loc="lower left", bbox_to_anchor=(0.1 / inches, (foot - 0.84 - more) / height),
            bbox_transform=figure.transFigure, ncols=legend_columns(legend, inches), frameon=False, fontsize=8.5,
            borderpad=0.2,
        )  # fmt: skip
    figure.text(EDGE / inches, 0.08 / height, caption, va="bottom", fontsize=SMALL, color=FAINT, linespacing=1.3)
    figure.suptitle(
        title, x=EDGE / inches, y=1 - 0.12 / height, ha="left", va="top", size=TITLE_SIZES[inches], weight="bold"
    )


def foot_of(caption: str, legend: Sequence[Artist], inches: float = WIDTH) -> float:
    """Inches below a panel: for caption and legend, as `add_words` sets them, and for the labels of its axis."""
    more = 0.3 + LEGEND_LINE * (legend_lines(legend, inches) - 1) if legend else 0
    return 0.7 + more + CAPTION_LINE * (caption.count("\n") + 1)


def label(step: str) -> str:
    """A step's name as a reader sees it."""
    return re.sub(r"^resnet(\d+)$", r"ResNet-\1", step).replace("_", " ")


def name_of(step: str, reference: bool) -> str:
    """The name of a network as a reader sees it: a `label`, but of a reference model the name that it goes by."""
    return step if reference else label(step)


def number(value: float | None, form: str) -> str:
    """A number in a format of Python's, with a minus sign for the hyphen; nothing where there is none."""
    return "" if pd.isna(value) else format(value, form).replace("-", "−")


def signed(value: float, decimals: int = 2) -> str:
    """A difference with its sign."""
    return number(value, f"+.{decimals}f")


def cost_text(gmacs: float, params: float, sign: str = "") -> tuple[str, str]:
    """Texts of GMACs and parameters, or with ``sign="+"`` of changes in them; empty where they are unknown."""
    if math.isnan(gmacs):
        return "", ""
    scale, unit = (1e6, "M") if abs(params) >= 1e6 else (1e3, "k")
    texts = [number(value, f"{sign if value else ''}.3g") for value in (gmacs, params / scale)]
    return texts[0], f"{texts[1]} {unit}" if params else "0"


def short(text: str, width: int, lines: int = 2) -> str:
    """Text in at most so many lines of about ``width`` characters, cut off with an ellipsis where that is too few."""
    wrapped = textwrap.wrap(text, width, break_on_hyphens=False)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: width - 1].rstrip() + "…"]
    return "\n".join(wrapped)


def limits(values: pd.Series) -> tuple[float, float]:
    """Axis limits in per cent that leave a tenth of the range free, and at least 0.2, on either side."""
    values = values.dropna().astype(float)
    if values.empty:
        return 0.0, 100.0
    margin = max((values.max() - values.min()) / 10, 0.2)
    return max(float(values.min() - margin), 0.0), min(float(values.max() + margin), 100.0)


#: Intervals make an axis at most this many times as long as what they are about; they go on beyond.
MAX_STRETCH = 3.0
#: The caption's sentence where they do.
BEYOND = "An interval that reaches the edge goes on beyond it."


def span(values: Iterable[float], ends: Iterable[float]) -> tuple[float, float]:
    """The range of the values, there being at least one, and of the ``ends`` of their intervals as far as
    `MAX_STRETCH` allows. What is NaN counts nowhere."""
    inner, ends = ([value for value in some if not math.isnan(value)] for some in (values, ends))
    low, high = min(inner), max(inner)
    room = max(high - low, 0.2) * (MAX_STRETCH - 1) / 2
    return max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)


def values_of(runs: pd.DataFrame, column: str) -> str:
    """Every value of a column, in order of appearance: ``6`` or ``90 / 300``."""
    return " / ".join(
        dict.fromkeys(f"{value:.3g}" if isinstance(value, float) else f"{value}" for value in runs[column].dropna())
    )


def trained_text(runs: pd.DataFrame, what: str) -> str:
    """The caption's first sentence: what was trained, on what, how and where. ``what`` is counted by seeds."""
    own = runs[~runs["reference"]]
    size = (
        f"base width {values_of(own, 'width')}, depth ×{values_of(own, 'depth')}, "
        f"stem stride {values_of(own, 'stem_stride')}; "
    )
    if not len(own):
        own, size = runs, ""
    counts = own.groupby("step")["seed"].nunique()
    seeds = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    return (
        f"{values_of(own, 'data')} at {values_of(own, 'image_size')} px; {size}epochs {values_of(own, 'epochs')}; "
        f"seeds per {what} {seeds}; recipe {values_of(own, 'recipe')}; {values_of(own, 'device_name')}."
    )


#: What networks were brought to the same amount of, in words.
MATCHED = {"gmacs": "GMACs", "params": "parameters", "time": "training time"}


def matched_text(runs: pd.DataFrame) -> list[str]:
    """The caption's sentence on networks that were brought to the same cost, where they were: ``gmacs by width``."""
    sentences = []
    for kind, factors in runs.groupby("match")["match_factor"]:
        cost, _, what = str(kind).partition(" by ")
        span = " to ".join(dict.fromkeys(f"×{factor:.3g}" for factor in (factors.min(), factors.max())))
        sentences.append(
            f"{(what or 'width').capitalize()} rescaled to the start's {MATCHED.get(cost, cost)}, by {span}."
        )
    return sentences
