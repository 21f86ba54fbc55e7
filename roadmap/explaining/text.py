"""An `Explanation` for the terminal, 80 columns wide; `click.echo` leaves its colours out where they do not belong."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from roadmap.explaining import words

if TYPE_CHECKING:
    from roadmap.explaining.content import Explanation, Network
    from roadmap.explaining.outline import Piece, View

COLUMNS = 80
#: Between two columns of a diagram: lines that differ, and lines that do not.
CHANGED, SAME = " ≠ ", "   "


def plain(explanation: Explanation) -> str:
    """The text without colours."""
    return click.unstyle(styled(explanation))


def styled(explanation: Explanation, every_layer: bool = False) -> str:
    """The text with colours; with ``every_layer`` each layer that differs by its own name."""
    before, after = explanation.before, explanation.after
    section = f" ({explanation.section})" if explanation.section else ""
    lines = [click.style(f"{explanation.title}{section}", bold=True)]
    if explanation.why:
        lines += ["", *_wrapped(explanation.why)]
    lines += ["", _heading("What changes"), *_changes(explanation)]
    for view in explanation.views:
        lines += ["", *_diagram(view, before, after)]
    if before:
        lines += ["", _heading(f"Layers that differ: {len(explanation.layers)} of {words.count_layers(before, after)}")]
        layers = words.every_layer(explanation) if every_layer else words.grouped_layers(explanation)
        lines += _listed(layers, hanging="      ")
    lines += ["", _heading(f"What it costs, for one image of {explanation.image_size} px")]
    headers = [("", "before", "after", "ratio")] if before else []
    lines += _table([*headers, *words.costs(before, after)])
    if explanation.measured_on:
        lines += _wrapped(f"Measured: {explanation.measured_on}.")
    lines += [
        "",
        _heading("What a position sees: resolution, and theoretical receptive field"),
        *_stages(before, after),
    ]
    lines += _wrapped(f"Receptive fields: {words.SOURCE}; all: the whole image.")
    if explanation.printed:
        lines += ["", _heading("In the paper: ImageNet-1K, at full size"), *_listed(words.printed(explanation))]
    for study in explanation.studies:
        lines += ["", _heading(f"In the study {study.study} ({study.design}; {study.setting})")]
        lines += _listed(words.measured(study))
    if explanation.questions:
        other = explanation.regime != "resnet50"
        lines += [
            "",
            _heading("Questions" + (" (figures: ResNet-50 regime, where no other is named)" if other else "")),
        ]
    for number, asked in enumerate(explanation.questions, 1):
        lines += _wrapped(f"{number}. {asked.question}", hanging="     ")
        lines += _wrapped(f"{asked.answer} ({asked.section})", indent="     ")
    return "\n".join(lines)


def _heading(text: str) -> str:
    return click.style(text, bold=True, fg="cyan")


def _wrapped(text: str, indent: str = "  ", hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), COLUMNS, initial_indent=indent, subsequent_indent=hanging or indent,
        break_on_hyphens=False,
    )  # fmt: skip


def _listed(sentences: Iterable[str], hanging: str | None = None) -> Iterator[str]:
    for sentence in sentences:
        yield from _wrapped(sentence, hanging=hanging)


def _changes(explanation: Explanation) -> Iterator[str]:
    if remark := words.remark_on_changes(explanation):
        yield from _wrapped(remark)
    for name, old, new in words.changes(explanation):
        yield from _wrapped(f"{name}: {old} → {new}", hanging="      ")


# --- diagrams


def _diagram(view: View, before: Network | None, after: Network) -> Iterator[str]:
    """A part of the network, before and after beside each other; once where it stays."""
    new = _drawn(view.name, view.after, view.input_after)
    if before is None or view.same:
        stays = "" if before is None else ", which stays"
        yield click.style(f"  {view.name}{stays}", bold=True)
        yield from (f"  {line}" for _, line in new)
        return
    half = (COLUMNS - len(CHANGED)) // 2
    old = _drawn(view.name, view.before, view.input_before)
    yield click.style(view.name, bold=True)
    names = [network.name if part else f"{network.name} has none"
             for network, part in ((before, view.before), (after, view.after))]  # fmt: skip
    yield from _beside(names[0], names[1], half, SAME)
    for left, right in _aligned(old, new):
        changed = left != right
        for line in _beside(left, right, half, CHANGED if changed else SAME):
            yield click.style(line, fg="yellow") if changed else line


def _drawn(name: str, pieces: Sequence[Piece], shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """(slot, line) of a part, from its input at the top to its output at the bottom."""
    if not pieces:
        return []
    block = ".blocks." in name
    slots = [(piece.name.removeprefix(name).lstrip("."), piece) for piece in pieces]
    behind = [(slot, piece) for slot, piece in slots if block and slot.split(".")[0] == "act3"]
    skip = [(slot, piece) for slot, piece in slots if block and slot.split(".")[0] == "shortcut"]
    branch = [pair for pair in slots if pair not in behind and pair not in skip]
    lines = [("input", f"{'┌' if block else '│'} {_shape(shape)}")]
    lines += [(slot, f"│ {slot} {piece.words}".replace("  ", " ")) for slot, piece in branch]
    lines += [(slot, f"├ {slot} {piece.words}") for slot, piece in skip]
    if block:
        lines.append(("sum", f"└ + {'the shortcut' if skip else 'the input: identity'}"))
    lines += [(slot, f"  {slot} {piece.words}") for slot, piece in behind]
    return [*lines, ("output", f"{' ' if block else '│'} {_shape(_last(branch).output)}")]


def _last(pairs: Sequence[tuple[str, Piece]]) -> Piece:
    """The piece that ends last: of a plug-in's module and what is within it, the module."""
    slot, piece = pairs[-1]
    return next((outer for other, outer in pairs if slot.startswith(f"{other}.")), piece)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _aligned(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Lines of two drawings, those of one slot beside each other."""
    slots = [[slot for slot, _ in lines] for lines in (old, new)]
    for tag, low, high, first, last in difflib.SequenceMatcher(None, slots[0], slots[1], autojunk=False).get_opcodes():
        if tag == "equal":
            yield from ((old[i][1], new[j][1]) for i, j in zip(range(low, high), range(first, last), strict=True))
        else:
            yield from ((old[i][1], "") for i in range(low, high))
            yield from (("", new[j][1]) for j in range(first, last))


def _beside(left: str, right: str, half: int, between: str) -> Iterator[str]:
    columns = [
        textwrap.wrap(text, half, subsequent_indent="│   " if text[0] in "│├" else "    ")
        if len(text) > half
        else [text]
        for text in (left, right)
    ]
    for number in range(max(map(len, columns))):
        one, two = (column[number] if number < len(column) else "" for column in columns)
        yield f"{one:{half}}{between if not number else SAME}{two}".rstrip()


# --- tables


def _stages(before: Network | None, after: Network) -> list[str]:
    titles = words.STAGE_COLUMNS * (2 if before else 1)
    lines = _table([("", *titles), *words.stages(before, after)])
    if before:
        start = lines[0].index("blocks", lines[0].index("sees px"))
        lines.insert(0, f"{'':{lines[0].index('blocks')}}{'before':{start - lines[0].index('blocks')}}after")
    return lines


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of cells: the first column to the left, figures to the right."""
    widths = [max(len(row[index]) for row in rows if index < len(row)) for index in range(max(map(len, rows)))]
    return [
        "  " + "  ".join(cell.ljust(width) if not index else cell.rjust(width)
                         for index, (cell, width) in enumerate(zip(row, widths, strict=False))).rstrip()
        for row in rows
    ]  # fmt: skip
