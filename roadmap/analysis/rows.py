"""Figures whose rows have names: how rows are laid out at each width, and their names, groups and bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from roadmap.look import (
    CAPTION_LINE,
    EDGE,
    FAINT,
    INK,
    LEGEND_LINE,
    ROW,
    SMALL,
    TITLE_LINE,
    NotebookFigure,
    add_words,
    caption_text,
    fold,
    headline,
    inches_of,
    legend_lines,
    text_width,
)  # fmt: skip
from roadmap.reference import sections


@dataclass(frozen=True)
class Sizes:
    """Points of names and of small print, of a marker and of a seed's dot; inches of a row, and of one whose name needs
    two lines."""

    name: float
    small: float
    marker: float
    dot: float
    row: float
    tall: float


SIZES = {"page": Sizes(9.5, SMALL, 7, 4, ROW, 0.56), "column": Sizes(7, 6, 4.5, 2.5, 0.31, 0.31)}
#: Inches between a name and the panel beside it.
PAD = 0.11


@dataclass(frozen=True)
class Sheet:
    """A figure with its words in place, whose panels are all as high as its rows. Lengths are inches."""

    figure: NotebookFigure
    sizes: Sizes
    foot: float
    body: float

    def panel(self, label: str, left: float, width: float, **options: Any) -> Axes:
        """An empty panel beside the rows."""
        inches, height = self.figure.get_size_inches()
        box = left / inches, self.foot / height, width / inches, self.body / height
        axes = self.figure.add_axes(box, label=label, **options)
        axes.tick_params(labelsize=self.sizes.name)
        axes.xaxis.label.set_fontsize(self.sizes.name)
        axes.set_facecolor("none")
        return axes


def lay_out(
    width: str,
    title: str,
    sentences: Sequence[str],
    legend: Sequence[Artist],
    body: float,
    above: float = 0.8,
    below: float = 0.0,
) -> Sheet:
    """The sheet for rows that are ``body`` inches high in all, with ``above`` inches over them for a title of one line
    and headers, and ``below`` inches more than usual for what stands at the axis. Call it within `styled`.

    Raises `RoadmapError` for a width that there is not.
    """
    inches = inches_of(width)
    words, caption = headline(title, inches), caption_text(sentences, inches)
    foot = (1.0 if legend else 0.7) + CAPTION_LINE * (caption.count("\n") + 1)
    foot += LEGEND_LINE * max(legend_lines(legend, inches) - 1, 0)
    height = foot + below + body + above + TITLE_LINE * words.count("\n")
    figure = NotebookFigure(figsize=(inches, height))
    add_words(figure, words, caption, legend, foot)
    return Sheet(figure, SIZES[width], foot + below, body)


def row_height(names: Sequence[str], room: float, sizes: Sizes) -> float:
    """Inches of a row, where one of these names may need two lines of ``room`` inches."""
    return sizes.tall if any(text_width(name, sizes.small, bold=True) > room for name in names) else sizes.row


def draw_names(
    axes: Axes, names: Sequence[str], notes: Sequence[str], bold: Sequence[bool], room: float, sizes: Sizes
) -> None:
    """A row for every name, from top to bottom, the names on the left, within ``room`` inches, and below each its note,
    in small print. Where there are no notes names may have two lines."""
    lines = 1 if any(notes) else 2
    # Names of one kind have one size.
    kinds = {kind: [name for name, other in zip(names, bold, strict=True) if other == kind] for kind in (True, False)}
    size = {
        kind: sizes.name if all(_fits(name, room, sizes.name, kind, lines) for name in some) else sizes.small
        for kind, some in kinds.items()
    }
    folded = [fold(name, room, size[heavy], heavy, lines=2) for name, heavy in zip(names, bold, strict=True)]
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), folded)
    axes.tick_params(axis="y", length=0, pad=PAD * 72, labelcolor=INK)
    for row, (tick, note) in enumerate(zip(axes.get_yticklabels(), notes, strict=True)):
        tick.set(fontsize=size[bold[row]], fontweight="bold" if bold[row] else "normal", multialignment="right",
                 va="bottom" if note else "center", linespacing=0.95)  # fmt: skip
        axes.annotate(
            fold(note, room, sizes.small, lines=2),
            (0, row),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-PAD * 72, -1),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=sizes.small,
            color=FAINT,
        )


def _fits(name: str, room: float, size: float, bold: bool, lines: int) -> bool:
    """Whether a name stands in so many lines without being cut or broken within a word."""
    folded = fold(name, room, size, bold).split("\n")
    return len(folded) <= lines and " ".join(folded) == " ".join(name.split())


def titles_of(names: Sequence[str], width: str) -> list[str]:
    """The titles, or at the width of a column words for them, of these sections of the paper; empty for any other."""
    known = {name: section.short if width == "column" else section.title for name, section in sections().items()}
    return [known.get(name, "") for name in names]


def shade(axes: Sequence[Axes], sections: Sequence[str]) -> None:
    """A band behind the rows of every other section."""
    shaded = False
    for row, section in enumerate(sections):
        shaded ^= row > 0 and section != sections[row - 1]
        for panel in axes if shaded else ():
            panel.axhspan(row - 0.5, row + 0.5, color=INK, alpha=0.05, linewidth=0, zorder=0)


def draw_groups(sheet: Sheet, beside: Axes, titles: Sequence[str], room: float) -> None:
    """The title of every group of rows at the left edge, within ``room`` inches, and a band across the figure behind
    every other group. ``titles``: of every row, empty where it belongs to no group and has no band."""
    inches, _ = sheet.figure.get_size_inches()
    axes = sheet.panel("groups", 0, inches, zorder=-1)
    axes.set(xlim=(0, inches), ylim=beside.get_ylim(), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    edge = EDGE if room > 0.5 else EDGE / 2
    row, shaded = 0, False
    for title, rows in groupby(titles):
        end = row + len([*rows])
        if title:
            if shaded:
                axes.axhspan(row - 0.5, end - 0.5, color=INK, alpha=0.05, linewidth=0, label=title)
            axes.text(edge, (row + end - 1) / 2, fold(title, room, sheet.sizes.small, lines=3), va="center",
                      fontsize=sheet.sizes.small, color=INK, linespacing=1.1)  # fmt: skip
            rule = edge + room + 0.03
            axes.add_artist(Line2D([rule, rule], [row - 0.4, end - 0.6], color=FAINT, linewidth=0.8))
            shaded = not shaded
        row = end
