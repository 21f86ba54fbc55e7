"""An `Explanation` for the terminal, 80 columns wide; `click.echo` leaves its colours out where they do not belong."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from roadmap.explaining import words
from roadmap.explaining.lines import Line, aligned, lines_after
from roadmap.markup import printable

if TYPE_CHECKING:
    from roadmap.explaining.explanation import BuiltNetwork, Explanation
    from roadmap.explaining.outline import View

COLUMNS = 80
#: Between two columns of a diagram: lines that differ, and lines that do not.
CHANGED, SAME = " ≠ ", "   "


def plain(explanation: Explanation) -> str:
    """The text without colours."""
    return click.unstyle(styled(explanation))


def styled(explanation: Explanation, every_layer: bool = False) -> str:
    """The text with colours; with ``every_layer`` each layer that differs by its own name."""
    explanation = _harmless(explanation)
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
        heading = f"In the study {study.study} ({study.design}; {study.setting})"
        lines += ["", *map(_heading, _wrapped(heading, indent=""))]
        lines += _listed(words.measured(study))
    if explanation.questions:
        lines += ["", _heading(words.questions_heading(explanation))]
    lines += [text for pair in questions_and_answers(explanation) for text in pair]
    return "\n".join(lines)


def questions_and_answers(explanation: Explanation) -> Iterator[tuple[str, str]]:
    """The questions about a step, each with its answer."""
    for number, asked in enumerate(_harmless(explanation).questions, 1):
        question = _wrapped(f"{number}. {asked.question}", hanging="     ")
        answer = _wrapped(f"{asked.answer} ({asked.section})", indent="     ")
        yield "\n".join(question), "\n".join(answer)


def _harmless(value: Any) -> Any:
    """The same with nothing in its texts that changes a terminal: names come from plug-ins and foreign tables."""
    if isinstance(value, str):
        return printable(" ".join(value.split()))
    if isinstance(value, Mapping):
        return {_harmless(key): _harmless(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_harmless, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _harmless(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _heading(text: str) -> str:
    return click.style(text, bold=True, fg="cyan")


def _wrapped(text: str, indent: str = "  ", hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()),
        COLUMNS,
        initial_indent=indent,
        subsequent_indent=hanging or indent,
        break_on_hyphens=False,
    )


def _listed(sentences: Iterable[str], hanging: str | None = None) -> Iterator[str]:
    for sentence in sentences:
        yield from _wrapped(sentence, hanging=hanging)


def _changes(explanation: Explanation) -> Iterator[str]:
    if remark := words.remark_on_changes(explanation):
        yield from _wrapped(remark)
    for name, old, new in words.changes(explanation):
        yield from _wrapped(f"{name}: {old} → {new}", hanging="      ")


# --- diagrams


def layer_by_layer(explanation: Explanation) -> str:
    """The parts of both networks that show what changes, a line a layer, without colours."""
    explanation = _harmless(explanation)
    parts = ("\n".join(_diagram(view, explanation.before, explanation.after)) for view in explanation.views)
    return click.unstyle("\n\n".join(parts))


def _diagram(view: View, before: BuiltNetwork | None, after: BuiltNetwork) -> Iterator[str]:
    """A part of the network, before and after beside each other; once where it stays."""
    if before is None or view.same:
        stays = "" if before is None else ", which stays"
        yield click.style(f"  {view.name}{stays}", bold=True)
        yield from (f"  {_drawn(line)}" for line in lines_after(view))
        return
    half = (COLUMNS - len(CHANGED)) // 2
    yield click.style(view.name, bold=True)
    names = [
        network.name if part else f"{network.name} has none"
        for network, part in ((before, view.before), (after, view.after))
    ]
    yield from _beside(names[0], names[1], half, SAME)
    for left, right in aligned(view):
        changed = left != right
        for line in _beside(_drawn(left), _drawn(right), half, CHANGED if changed else SAME):
            yield click.style(line, fg="yellow") if changed else line


#: What stands in front of a line, by its role within a residual block, and elsewhere.
IN_BLOCK = {"input": "┌", "layer": "│", "shortcut": "├", "sum": "└", "behind": " ", "output": " "}
ELSEWHERE = dict.fromkeys(IN_BLOCK, "│")


def _drawn(line: Line | None) -> str:
    if line is None:
        return ""
    return f"{(IN_BLOCK if line.block else ELSEWHERE)[line.role]} {line.text}"


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


def _stages(before: BuiltNetwork | None, after: BuiltNetwork) -> list[str]:
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
        "  "
        + "  ".join(
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
