"""How all figures look, what a figure is, and how it becomes files.

Everything goes through matplotlib's objects and nothing through pyplot: no display, no global state.
"""

from __future__ import annotations

import io
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.style import context
from matplotlib.textpath import TextToPath
from matplotlib.transforms import Bbox

from roadmap.checks import check_choice, check_known
from roadmap.files import whole_file
from roadmap.markup import latex

#: Colours of Okabe and Ito, told apart by the colour-blind and in grey print.
OURS, PAPER, REFERENCE = "#0072B2", "#D55E00", "#007A5A"
INK, FAINT, PALE, BAND = "#222222", "#666666", "#D9D9D9", "#F3F3F3"
#: Colours of a few lines in one panel, told apart by the colour-blind, too.
LINES = (OURS, PAPER, INK, "#CC79A7", "#56B4E9")


@dataclass(frozen=True)
class Mark:
    """How a verdict is shown, in every figure alike: a colour, a marker, the same as a character, and its word."""

    colour: str
    marker: str
    sign: str
    word: str
    hollow: bool = False

    def look(self, size: float) -> dict[str, Any]:
        """Arguments of a matplotlib line that is one marker."""
        face = "white" if self.hollow else self.colour
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": size,
            "markerfacecolor": face,
            "linestyle": "none",
        }


MARKS: dict[str | None, Mark] = {
    "gain": Mark(OURS, "^", "▲", "gain"),
    "loss": Mark(PAPER, "v", "▼", "loss"),
    "negligible": Mark("#595959", "s", "■", "negligible"),
    "open": Mark("#757575", "o", "○", "undecided", hollow=True),
    None: Mark("#757575", "D", "◇", "no interval", hollow=True),
}

#: On top of matplotlib's defaults, so that a reader's own matplotlibrc changes nothing.
STYLE: dict[str, Any] = {
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # TrueType: publishers refuse the Type 3 fonts that are matplotlib's default.
    "pdf.fonttype": 42,
    "svg.hashsalt": "roadmap",
    "svg.fonttype": "none",
    "text.color": INK,
    # What users name is no formula.
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
#: What a figure is written as; its caption is written as text.
KINDS, CAPTIONS = ("png", "svg", "pdf"), ("md", "tex")
SCREEN_DPI, FILE_DPI = 100, 200
#: What a file would else say of the moment at which it was written.
_UNDATED = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
#: Inches between what stands at a figure's edge and the edge.
EDGE = 0.12
FONT = "DejaVu Sans"
#: Letters are fitted to pixels, which makes a line longer at some resolutions than at those at which it is measured.
SAFETY = 1.03


@dataclass(frozen=True)
class Size:
    """A width of figures: inches across and, where it is fixed, down; points of text, small print and title; inches of
    a row at least and at most; whether the caption is part of the picture unless somebody says otherwise."""

    across: float
    down: float | None
    text: float
    small: float
    title: float
    rows: tuple[float, float]
    caption: bool


WIDTHS = {
    "column": Size(3.3, None, 7.5, 6.5, 9, (0.2, 0.2), caption=False),
    "page": Size(7.0, None, 10, 8.5, 12.5, (0.28, 0.28), caption=True),
    "slide": Size(40 / 3, 7.5, 18, 18, 24, (0.29, 0.95), caption=False),
}


@dataclass(frozen=True)
class Look:
    """What a reader chooses: the ``width``, one of `WIDTHS`; a ``title`` of his own in place of the headline, or none
    where it is empty; whether the ``caption`` is part of the picture; the ``font``. Raises `RoadmapError` for a width
    or font that does not exist."""

    width: str = "page"
    title: str | None = None
    caption: bool | None = None
    font: str = FONT

    def __post_init__(self) -> None:
        check_choice("width", self.width, WIDTHS)
        if self.font != FONT:
            check_known("font", [self.font], {font.name for font in fontManager.ttflist})

    @property
    def size(self) -> Size:
        """The sizes of this width."""
        return WIDTHS[self.width]

    @property
    def fonts(self) -> list[str]:
        """The font, and behind it the one that has all signs."""
        return list(dict.fromkeys([self.font, FONT]))

    def style(self) -> Any:
        """A context in which matplotlib has this look."""
        return styled({"font.family": self.fonts, "font.size": self.size.text})

    def measure(self, text: str, size: float | None = None, bold: bool = False) -> float:
        """Inches that a text is long, the longest of its lines."""
        return SAFETY * max(_length(line, size or self.size.text, bold, self.font) for line in text.split("\n"))

    def fold(self, text: str, inches: float, size: float | None = None, bold: bool = False, lines: int = 0) -> str:
        """Text wrapped to this width, cut off with an ellipsis after this many ``lines``.

        Lines end between words, and only where a word is longer than a line within it, after a mark if there is one.
        """

        def fits(line: str) -> bool:
            return self.measure(line, size, bold) <= inches

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


@dataclass(frozen=True)
class Part:
    """A part of a figure that stands for something: its ``name``, and its ``box`` as left, top, width and height in
    shares of the figure."""

    name: str
    box: tuple[float, float, float, float]


class Drawn(Figure):
    """A figure that knows what it shows; a notebook shows it by itself, without pyplot having been imported.

    ``rows`` are the parts that it drew, in their order; ``headline`` is its message, and ``caption`` says how to read
    it, both as text, whether or not they are part of the picture.
    """

    rows: Sequence[Part] = ()
    headline: str = ""
    caption: str = ""

    def _repr_png_(self) -> bytes:
        return _render(self, "png", SCREEN_DPI)


@dataclass
class Sheet:
    """A figure whose headline and caption are in place. Lengths are inches from the upper left corner; the body goes
    from ``top`` to ``bottom``."""

    figure: Drawn
    look: Look
    top: float
    bottom: float

    @property
    def size(self) -> Size:
        """The sizes of its width."""
        return self.look.size

    @property
    def room(self) -> float:
        """Inches between its edges."""
        return self.size.across - 2 * EDGE

    def write(self, x: float, y: float, text: str, **look: Any) -> Any:
        """A text at a place."""
        height = float(self.figure.get_size_inches()[1])
        return self.figure.text(x / self.size.across, 1 - y / height, text, **{"size": self.size.text, **look})

    def write_key(self, y: float, key: Container[str | None]) -> None:
        """What the marks of these verdicts mean, in a line at the left edge."""
        x = EDGE
        for mark in (mark for verdict, mark in MARKS.items() if verdict in key):
            text = f"{mark.sign} {mark.word}"
            self.write(x, y, text, size=self.size.small, color=mark.colour)
            x += self.look.measure(text, self.size.small) + 1.2 * self.size.small / 72

    def axes(self, left: float, top: float, width: float, height: float, label: str, **options: Any) -> Axes:
        """An empty panel."""
        inches, high = self.figure.get_size_inches()
        place = left / inches, 1 - (top + height) / high, width / inches, height / high
        axes = self.figure.add_axes(place, label=label, facecolor="none", **options)
        axes.tick_params(labelsize=self.size.small, length=3)
        axes.xaxis.label.set_fontsize(self.size.small)
        axes.yaxis.label.set_fontsize(self.size.small)
        return axes

    def box(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Shares of the figure."""
        inches, high = map(float, self.figure.get_size_inches())
        return left / inches, top / high, width / inches, height / high

    def box_within(self, axes: Axes, x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float, float]:
        """The box between two places of the data, each an (x, y) pair of ends."""
        ends = axes.transData.transform([(x[0], y[0]), (x[1], y[1])])
        box = Bbox(self.figure.transFigure.inverted().transform(ends))
        return float(box.xmin), float(1 - box.ymax), abs(float(box.width)), abs(float(box.height))


def line_of(points: float) -> float:
    """Inches from one line of text to the next."""
    return points * 1.25 / 72


def open_sheet(look: Look, headline: str, caption: str, body: float, key: Sequence[str | None] = ()) -> Sheet:
    """A sheet with its words, whose body is ``body`` inches high, or on a slide as high as there is room.

    ``key``: the verdicts whose marks are explained below the headline. Call it within `Look.style`.
    """
    size = look.size
    room = size.across - 2 * EDGE
    shown = headline if look.title is None else look.title
    title = look.fold(shown, room, size.title, bold=True, lines=4) if shown else ""
    below = look.fold(caption, room, size.small) if (size.caption if look.caption is None else look.caption) else ""
    top = EDGE + (line_of(size.title) * (title.count("\n") + 1) + 0.06 if title else 0)
    top += line_of(size.small) + 0.08 if key else 0
    foot = EDGE / 2 + (line_of(size.small) * (below.count("\n") + 1) + 0.08 if below else 0)
    height = size.down or top + body + foot
    figure = Drawn(figsize=(size.across, height), facecolor="white")
    figure.headline, figure.caption = shown or headline, caption
    sheet = Sheet(figure, look, top, height - foot)
    if title:
        sheet.write(EDGE, EDGE, title, va="top", size=size.title, weight="bold", linespacing=1.2)
    sheet.write_key(top - 0.08, key)
    if below:
        sheet.write(EDGE, height - EDGE / 2, below, va="bottom", size=size.small, color=FAINT, linespacing=1.2)
    return sheet


def styled(more: dict[str, Any] | None = None) -> Any:
    """A context in which matplotlib has this package's style and nothing of the reader's own."""
    return context(["default", STYLE | (more or {})])


def apart(values: Sequence[float], gap: float, high: float) -> list[float]:
    """Places near ascending values, at least ``gap`` apart and, where there are not too many, none above ``high``."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], high - gap * (len(places) - 1 - index))
    return places


def padded(values: Iterable[float], share: float = 0.08) -> tuple[float, float]:
    """The range of these numbers, and a share of it on either side."""
    known = [*values]
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = share * (high - low) or 0.5
    return low - margin, high + margin


def save_figure(figure: Drawn, folder: str | Path, name: str) -> list[Path]:
    """Write a figure into an existing folder as ``name.png``, ``.svg`` and ``.pdf``, and with its caption as Markdown
    and as a figure of LaTeX, ``name.md`` and ``name.tex``; returns their paths.

    Each file appears whole or not at all, and the same figure gives the same bytes of all but the PNG.
    """
    contents = {kind: _render(figure, kind, FILE_DPI) for kind in KINDS}
    contents |= {"md": _as_markdown(figure, name).encode(), "tex": _as_latex(figure, name).encode()}
    paths = []
    for kind, content in contents.items():
        path = Path(folder) / f"{name}.{kind}"
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
        paths.append(path)
    return paths


def _as_markdown(figure: Drawn, name: str) -> str:
    alt = figure.headline.translate(str.maketrans("[]", "()"))
    return f"![{alt}]({name}.svg)\n\n**{figure.headline}.** {figure.caption}\n"


def _as_latex(figure: Drawn, name: str) -> str:
    star = "" if figure.get_size_inches()[0] <= WIDTHS["column"].across else "*"
    return (
        f"\\begin{{figure{star}}}\n  \\centering\n  \\includegraphics[width=\\linewidth]{{{name}.pdf}}\n"
        f"  \\caption{{\\textbf{{{latex(figure.headline)}.}} {latex(figure.caption)}}}\n"
        f"  \\label{{fig:{name}}}\n\\end{{figure{star}}}\n"
    )


def _render(figure: Drawn, kind: str, dpi: int) -> bytes:
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=_UNDATED[kind])
    return buffer.getvalue()


@cache
def _length(text: str, size: float, bold: bool, font: str) -> float:
    """Inches of a line on a screen, whose pixels letters are fitted to, or in print, whichever is longer."""
    properties = FontProperties(family=[font, FONT], size=size, weight="bold" if bold else "normal")
    shown, _, _ = _screen().get_text_width_height_descent(text, properties, ismath=False)
    printed, _, _ = TextToPath().get_text_width_height_descent(text, properties, ismath=False)
    return max(float(shown) / SCREEN_DPI, float(printed) / 72)


@cache
def _screen() -> RendererAgg:
    return RendererAgg(1, 1, SCREEN_DPI)
