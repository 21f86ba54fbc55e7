"""The parts of a network line by line, from input to output, as a terminal, a page and a picture show them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roadmap.explaining.outline import Piece, View


@dataclass(frozen=True)
class Line:
    """One line of a diagram; two are the same where a reader sees the same.

    ``role``: ``input``, ``layer``, ``shortcut`` (a layer on the residual path), ``sum``, ``behind`` (a layer behind the
    sum) or ``output``. ``slot``: the layer's name within its part, or the role. ``words``: what is there. ``block``:
    whether the part is a residual block. ``piece``: the layer, if it is one, and ``within`` which plug-in's module,
    by its slot; ``shape``: of what leaves the line.
    """

    role: str
    slot: str
    words: str
    block: bool
    piece: Piece | None = field(default=None, compare=False)
    shape: tuple[int, ...] = field(default=(), compare=False)
    within: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The slot, if it is a layer's, and the words."""
        return f"{self.slot} {self.words}".strip() if self.piece else self.words


def lines_after(view: View) -> list[Line]:
    """The lines of a part of the network that comes after."""
    return _lines(view.name, view.after, view.input_after)


def aligned(view: View) -> Iterator[tuple[Line | None, Line | None]]:
    """Lines of both networks, those of one slot beside each other; None beside a slot that only one has."""
    old, new = _lines(view.name, view.before, view.input_before), lines_after(view)
    slots = [[line.slot for line in lines] for lines in (old, new)]
    for tag, low, high, first, last in difflib.SequenceMatcher(None, slots[0], slots[1], autojunk=False).get_opcodes():
        if tag == "equal":
            yield from zip(old[low:high], new[first:last], strict=True)
        else:
            yield from ((line, None) for line in old[low:high])
            yield from ((None, line) for line in new[first:last])


def shape_text(shape: Sequence[int]) -> str:
    """``96 x 56 x 56`` for (96, 56, 56)."""
    return " x ".join(map(str, shape))


def _lines(name: str, pieces: Sequence[Piece], shape: tuple[int, ...]) -> list[Line]:
    """The lines of a part: input, branch, shortcut, sum, what is behind, output; none where there is no such part."""
    if not pieces:
        return []
    block = ".blocks." in name
    roles: dict[str, list[Line]] = {"layer": [], "shortcut": [], "behind": []}
    plugged = ""
    for piece in pieces:
        slot = piece.name.removeprefix(name).lstrip(".")
        plugged = slot if "layer" in piece.facts else plugged
        within = plugged if plugged and slot.startswith(f"{plugged}.") else ""
        place = {"act3": "behind", "shortcut": "shortcut"}.get(slot.split(".")[0], "layer") if block else "layer"
        roles[place].append(Line(place, slot, piece.words, block, piece, piece.output, within))
    output = _last(roles["layer"]).shape
    lines = [Line("input", "input", shape_text(shape), block, shape=shape), *roles["layer"], *roles["shortcut"]]
    if block:
        added = "the shortcut" if roles["shortcut"] else "the input: identity"
        lines.append(Line("sum", "sum", f"+ {added}", block, shape=output))
    return [*lines, *roles["behind"], Line("output", "output", shape_text(output), block, shape=output)]


def _last(lines: Sequence[Line]) -> Line:
    """The layer that ends last: of a plug-in's module and what is within it, the module."""
    end = lines[-1]
    return next((outer for outer in lines if end.slot.startswith(f"{outer.slot}.")), end)
