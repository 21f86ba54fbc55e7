"""Foreign text made harmless, for a terminal and for HTML; and the few pieces of HTML that notebooks are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def printable(value: Any) -> str:
    """A value as text that changes nothing about a terminal, whatever it holds."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else " ".join(text.split()).encode("unicode_escape").decode()


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """An HTML table of escaped cells: the first column to the left, the others to the right."""
    head = f"<thead><tr>{''.join(_cell('th', *cell) for cell in enumerate(header))}</tr></thead>" if header else ""
    body = "".join(f"<tr>{''.join(_cell('td', *cell) for cell in enumerate(row))}</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _cell(tag: str, index: int, text: str) -> str:
    return f'<{tag} style="text-align: {"right" if index else "left"}">{escape(text)}</{tag}>'


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
