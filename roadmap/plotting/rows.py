"""Figures that read as a table: a row for every name, columns of text, and panels whose marks stand in the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from roadmap.plotting.style import BAND, EDGE, FAINT, INK, Drawn, Look, Part, Sheet, line_of, open_sheet

#: Font sizes between two columns.
GAP = 0.95


@dataclass(frozen=True)
class Name:
    """The head of a row: the name by which it is known, how it is written, the group that it belongs to, and how
    telling it is: of rows that find no room on a slide the least telling are left out."""

    name: str
    label: str
    group: str = ""
    weight: float = math.inf
    pale: bool = False


@dataclass(frozen=True)
class TextColumn:
    """A column of text beside the rows, each with its colour. Of columns that find no room those with the highest
    ``rank`` are left out."""

    header: str
    texts: Sequence[str]
    rank: int = 0
    colours: Sequence[str] = ()
    left: bool = False


@dataclass(frozen=True)
class Panel:
    """A panel beside the rows: its name, the label of its axis, the function that draws into it, what is above it, how
    many letters wide it is at least, its share of what room is left, and its rank, as of a `TextColumn`.

    It is drawn by the axes, the look and, by the numbers of the rows that are shown, their places on the y axis, on
    which a row is 1 high."""

    name: str
    axis: str
    draw: Callable[[Axes, Look, Mapping[int, float]], None]
    header: str = ""
    least: float = 8.0
    share: float = 1.0
    rank: int = 0


@dataclass(frozen=True)
class _Layout:
    """What is shown: inches of the names, the columns and panels, and the inches of each."""

    names: float
    items: list[TextColumn | Panel] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)


def draw_rows(
    names: Sequence[Name],
    items: Sequence[TextColumn | Panel],
    look: Look,
    headline: str,
    caption: str,
    key: Iterable[str | None] = (),
) -> Drawn:
    """The figure: names on the left, then the columns and panels in their order, as far as there is room.

    ``key``: the verdicts that are drawn. Rows that a slide has no room for are counted in a last line.
    """
    size = look.size
    with look.style():
        layout = _lay_out(names, items, look)
        folded = [look.fold(name.label, layout.names, lines=2) for name in names]
        lines = max([text.count("\n") + 1 for text in folded], default=1)
        row = max(size.rows[0], line_of(size.text) * lines if lines > 1 else 0.0)
        apart = GAP * size.text / 72
        # What the marks mean stands in the line of the headers, unless panels have some.
        own_line = any(isinstance(item, Panel) and item.header for item in layout.items)
        headers = max([item.header.count("\n") + 1 if item.header else 0 for item in layout.items], default=0)
        above = line_of(size.small) * max(headers, 1) + 0.06
        labels = [
            look.fold(item.axis, width * 1.2, size.small, lines=3) if isinstance(item, Panel) else ""
            for item, width in zip(layout.items, layout.widths, strict=True)
        ]
        below = line_of(size.small) * (1.2 + max([label.count("\n") + 1 for label in labels if label], default=0)) + 0.1
        title = line_of(size.small) + 0.05 if _grouped(names) and size.down is None else 0.0
        titles = title * sum(bool(group) for group, _ in groupby(name.group for name in names))
        sheet = open_sheet(
            look, headline, caption, above + row * len(names) + titles + below, [*key] if own_line else ()
        )
        shown = [*range(len(names))]
        if size.down is not None:
            room = sheet.bottom - sheet.top - above - below
            shown = _most_telling(names, int(room / row))
            spare = line_of(size.small) * (len(shown) < len(names))
            row = min((room - spare) / max(len(shown), 1), max(size.rows[1], row))
        if not own_line:
            sheet.write_key(sheet.top + above - 0.08, [*key])
        tops, end = _places([names[index].group for index in shown], sheet.top + above, row, title)
        placed = dict(zip(shown, tops, strict=True))
        _draw_bands(sheet, names, placed, row, title)
        for index, top in placed.items():
            _write(sheet, EDGE, top + row / 2, folded[index], color=FAINT if names[index].pale else INK)
        x = EDGE + layout.names + apart
        for item, width, label in zip(layout.items, layout.widths, labels, strict=True):
            if isinstance(item, TextColumn):
                _write_column(sheet, item, x, width, placed, row, above)
            else:
                _draw_panel(sheet, item, label, (x, width, end), placed, row, above)
            x += width + apart
        if len(shown) < len(names):
            text = f"{len(names) - len(shown)} more rows, the smallest differences, are in the table."
            sheet.write(EDGE, sheet.bottom, text, va="bottom", size=size.small, color=FAINT)
        sheet.figure.rows = [
            Part(names[index].name, sheet.box(0, top, size.across, row)) for index, top in placed.items()
        ]
    return sheet.figure


def _places(groups: Sequence[str], top: float, row: float, title: float) -> tuple[list[float], float]:
    """The upper ends of rows of these groups, of which each has a ``title`` so high, and the lower end of the last."""
    tops = []
    for group, rows in groupby(groups):
        top += title if group else 0.0
        for _ in rows:
            tops.append(top)
            top += row
    return tops, top


def _write(sheet: Sheet, x: float, middle: float, text: str, **look: Any) -> None:
    """A text in a row: one line on the baseline that it shares with the row's numbers, two around the middle."""
    if "\n" in text:
        sheet.write(x, middle, text, va="center", linespacing=0.95, **look)
    else:
        sheet.write(x, middle + 0.36 * sheet.size.text / 72, text, va="baseline", **look)


def _draw_panel(
    sheet: Sheet,
    panel: Panel,
    label: str,
    place: tuple[float, float, float],
    placed: Mapping[int, float],
    row: float,
    above: float,
) -> None:
    """``place``: the panel's left end, its width, and its lower end."""
    left, width, end = place
    top = sheet.top + above
    axes = sheet.axes(left, top, width, end - top, panel.name)
    axes.set_ylim((end - top) / row, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    panel.draw(axes, sheet.look, {index: (start + row / 2 - top) / row for index, start in placed.items()})
    axes.set_xlabel(label, labelpad=2)
    sheet.write(left + width / 2, top - 0.08, panel.header, ha="center", size=sheet.size.small, color=FAINT)


def _lay_out(names: Sequence[Name], items: Sequence[TextColumn | Panel], look: Look) -> _Layout:
    """What fits: items of high rank go first, then names are folded."""
    size, room = look.size, look.size.across - 2 * EDGE
    apart = GAP * size.text / 72
    longest = max([look.measure(name.label) for name in names], default=0.0)
    wanted = min(longest + 0.02, 0.4 * room)
    kept = [item for item in items if isinstance(item, Panel) or any(item.texts)]

    def least(item: TextColumn | Panel) -> float:
        if isinstance(item, Panel):
            return item.least * size.text / 72
        return max([look.measure(text) for text in item.texts] + [look.measure(item.header, size.small)]) + 0.02

    widths = {id(item): least(item) for item in kept}
    while sum(widths[id(item)] + apart for item in kept) + wanted > room and max(item.rank for item in kept):
        last = max(range(len(kept)), key=lambda place: (kept[place].rank, place))
        del kept[last]
    taken = sum(widths[id(item)] + apart for item in kept)
    wanted = max(min(wanted, room - taken), 0.6 * size.text / 10)
    spare = max(room - taken - wanted, 0.0)
    shares = sum(item.share for item in kept if isinstance(item, Panel)) or 1.0
    return _Layout(
        wanted,
        kept,
        [widths[id(item)] + (spare * item.share / shares if isinstance(item, Panel) else 0.0) for item in kept],
    )


def _grouped(names: Sequence[Name]) -> bool:
    return len({name.group for name in names}) > 1


def _most_telling(names: Sequence[Name], most: int) -> list[int]:
    """The numbers of the rows that are shown, in order: all, or the most telling ones and room for a line below."""
    if len(names) <= most:
        return [*range(len(names))]
    ranked = sorted(range(len(names)), key=lambda index: -names[index].weight)
    return sorted(ranked[: max(most - 1, 1)])


def _draw_bands(sheet: Sheet, names: Sequence[Name], tops: Mapping[int, float], row: float, title: float) -> None:
    """A pale band behind every other group of rows, and above each the group's title, where there is room for it."""
    if not _grouped(names):
        return
    height = float(sheet.figure.get_size_inches()[1])
    for place, (group, found) in enumerate(groupby(tops, key=lambda index: names[index].group)):
        rows = [*found]
        start = tops[rows[0]] - (title if group else 0.0)
        if place % 2 == 0:
            left, high = EDGE / 2 / sheet.size.across, (tops[rows[-1]] + row - start) / height
            sheet.figure.add_artist(
                Rectangle(
                    (left, 1 - start / height - high),
                    1 - 2 * left,
                    high,
                    facecolor=BAND,
                    linewidth=0,
                    zorder=-2,
                    transform=sheet.figure.transFigure,
                )
            )
        if title and group:
            sheet.write(
                EDGE, start + title / 2 + 0.02, group, va="center", size=sheet.size.small, color=FAINT, style="italic"
            )


def _write_column(
    sheet: Sheet, column: TextColumn, x: float, width: float, placed: Mapping[int, float], row: float, above: float
) -> None:
    side, place = ("left", x) if column.left else ("right", x + width)
    for index, top in placed.items():
        colour = column.colours[index] if column.colours else INK
        _write(sheet, place, top + row / 2, column.texts[index], ha=side, color=colour)
    sheet.write(place, sheet.top + above - 0.08, column.header, ha=side, size=sheet.size.small, color=FAINT)
