"""Foreign text made harmless, for a terminal and for HTML; and the few pieces of HTML that notebooks are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def printable(value: Any) -> str:
    """A value as text that changes nothing about a terminal, whatever it holds."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else " ".join(text.split()).encode("unicode_escape").decode()


def consecutive(numbers: Iterable[int]) -> list[list[int]]:
    """Whole numbers in their order, those that follow each other together."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in their order, three or more that follow each other as a range: ``0-299``, ``0,4,7-9``."""
    runs = consecutive(numbers)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), numbers: bool = False) -> str:
    """An HTML table of escaped cells, to the left, or all but the first column to the right: ``numbers``."""

    def line(tag: str, cells: Sequence[str]) -> str:
        sides = ["left", *["right" if numbers else "left"] * len(cells)]
        shown = (
            f'<{tag} style="text-align: {side}">{escape(text)}</{tag}>'
            for side, text in zip(sides, cells, strict=False)
        )
        return f"<tr>{''.join(shown)}</tr>"

    head = f"<thead>{line('th', header)}</thead>" if header else ""
    return f"<table>{head}<tbody>{''.join(line('td', row) for row in rows)}</tbody></table>"


def element(tag: str, text: str) -> str:
    """An HTML element with escaped text in it."""
    return f"<{tag}>{escape(text)}</{tag}>"


def items(texts: Iterable[str]) -> str:
    """An HTML list of escaped texts; nothing where there are none."""
    listed = "".join(element("li", text) for text in texts)
    return f"<ul>{listed}</ul>" if listed else ""


def folded(summary: str, content: str) -> str:
    """HTML that is shown when its ``summary``, which is escaped, is clicked."""
    return f"<details>{element('summary', summary)}{content}</details>"


#: Characters that LaTeX has in its own way.
_LATEX = {
    "\\": r"\textbackslash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≈": r"$\approx$",
    "–": "--",
    "→": r"$\rightarrow$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "■": r"$\blacksquare$",
    "○": r"$\circ$",
    "◇": r"$\diamond$",
    "…": r"\dots{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex(text: str) -> str:
    """Text as LaTeX has it."""
    return "".join(_LATEX.get(character, character) for character in text)
