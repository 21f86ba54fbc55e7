"""`Rung` and `Ladder`: the steps from ResNet to ConvNeXt in their places, and the two regimes. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, check_choice, check_int, check_known, check_number
from roadmap.ladders.steps import FULL_WIDTH, Step, compose
from roadmap.markup import element, table
from roadmap.network.design import Design
from roadmap.reference import PrintedRow

if TYPE_CHECKING:
    pass

#: Every stage is this many times as wide as the first.
WIDTH_MULTIPLES = (1, 2, 4, 8)


def stage_widths(base: int) -> tuple[int, ...]:
    """Widths of the four stages, in channels, of a network with this base width."""
    return tuple(base * multiple for multiple in WIDTH_MULTIPLES)


@dataclass(frozen=True)
class Rung:
    """One named step of the ladder, in its place.

    ``path``: the steps that make its network of the start, its own last; none for the start. ``design`` is the whole
    network at this rung, ``before`` the one it changes: the adopted rung before it (None for the start). ``printed`` is
    the paper's row; a rung that is not ``adopted`` is a road not taken.
    """

    name: str
    why: str
    section: str
    path: tuple[Step, ...]
    design: Design
    before: Design | None
    printed: PrintedRow
    adopted: bool = True

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps of its ``path``."""
        return tuple(step.name for step in self.path)

    @property
    def classic_recipe(self) -> bool:
        """Whether it trains with the classic recipe rather than the modern one."""
        return not any(step.recipe for step in self.path)

    @property
    def changes(self) -> dict[str, Any]:
        """The flags of the `Design` that this rung changes, with their new values."""
        return {name: values[1] for name, values in self._differences().items()}

    @property
    def change(self) -> str:
        """What it changes, in a few words, such as ``kernel_size 3 → 7``; of the start, what it is."""
        if self.before is None:
            return f"{_words('blocks', self.design.blocks)}, {_words('widths', self.design.widths)}"
        parts = [
            f"{_words(flag, old)} → {_words(flag, new).rpartition(' ')[2]}"
            for flag, (old, new) in self._differences().items()
        ]
        if self.path[-1].recipe:
            parts.append("recipe classic → modern")
        return ", ".join(parts) or "changes nothing at this size"

    def _repr_html_(self) -> str:
        from roadmap.cost.counting import count

        road = "" if self.adopted else ", a road not taken"
        rows = [("changes", self.change), ("in the paper", printed_text(self.printed))]
        costs = [count(design) for design in (self.before, self.design) if design]
        for name, scale in (("gmacs", 1), ("params", 1e6), ("activations", 1e6)):
            values = " → ".join(f"{getattr(cost, name) / scale:.4g}" for cost in costs)
            rows.append((COSTS[name], values))
        head = f"{self.name} ({self.section}{road})"
        return f"<div>{element('h4', head)}{element('p', self.why)}{table(rows)}</div>"

    def _differences(self) -> dict[str, tuple[Any, Any]]:
        if self.before is None:
            return {}
        old, new = vars(self.before), vars(self.design)
        return {flag: (old[flag], new[flag]) for flag in new if old[flag] != new[flag]}


#: What a rung's costs are called, for one image of 224 px.
COSTS = {"gmacs": "GMACs at 224 px", "params": "parameters, M", "activations": "activations at 224 px, M"}


def printed_text(row: PrintedRow) -> str:
    """What the paper printed for a rung, on one line."""
    deviation = f" ±{row.top1_std:.2f}" if row.top1_std else ""
    return f"{row.top1:.2f}{deviation} %, {row.gflops:.2f} GFLOPs"


def _words(flag: str, value: Any) -> str:
    if flag == "widths" and value == stage_widths(value[0]):
        return f"width {value[0]}"
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f"{flag} {'-'.join(map(str, value)) if isinstance(value, tuple) else value}"


@dataclass(frozen=True)
class Ladder:
    """All rungs of one regime, in order; the roads not taken stand where Figure 2 draws them.

    ``width``, ``depth`` and ``flags`` are those of `scaled`.
    """

    regime: str
    rungs: tuple[Rung, ...]
    width: int = FULL_WIDTH
    depth: float = 1.0
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of all rungs, roads not taken included."""
        return [rung.name for rung in self.rungs]

    @property
    def start(self) -> Rung:
        """The rung that everything is compared with."""
        return self.rungs[0]

    def __getitem__(self, name: str) -> Rung:
        """The rung of that name. Raises `RoadmapError` with the nearest name where there is none."""
        check_known("step", [name], self.names)
        return next(rung for rung in self.rungs if rung.name == name)

    def __iter__(self) -> Iterator[Rung]:
        return iter(self.rungs)

    def __len__(self) -> int:
        return len(self.rungs)

    def _repr_html_(self) -> str:
        rows = [
            (rung.name if rung.adopted else f"({rung.name})", rung.section, rung.change, printed_text(rung.printed))
            for rung in self.rungs
        ]
        size = f"base width {self.width}, depth {self.depth:g}"
        what = f"{self.regime}: {len(self)} rungs, {size}; roads not taken in brackets"
        return f"<div>{element('p', what)}{table(rows, ('step', 'section', 'changes', 'in the paper'))}</div>"

    def between(self, first: str | None = None, last: str | None = None, roads: bool = False) -> list[Rung]:
        """The rungs from ``first`` to ``last``, both included, with or without the roads not taken between them.

        Raises `RoadmapError` for an unknown name, and where ``first`` comes after ``last``.
        """
        low = self.names.index(self[first].name) if first is not None else 0
        high = self.names.index(self[last].name) if last is not None else len(self.rungs) - 1
        if low > high:
            raise RoadmapError(f"the ladder cannot go from '{first}' up to '{last}': '{first}' comes after '{last}'")
        ends = {low, high}
        return [
            rung
            for index, rung in enumerate(self.rungs)
            if low <= index <= high and (rung.adopted or roads or index in ends)
        ]

    def scaled(self, width: int = FULL_WIDTH, depth: float = 1.0, **changes: Any) -> Ladder:
        """The same ladder for networks of another size.

        ``width``: base width of the start in channels (64 in the paper); every rung's width keeps its ratio to it.
        ``depth``: factor on the blocks of every stage, at least one block each. ``changes``: further flags for all
        rungs alike, such as ``stem_stride`` or ``num_classes``.
        """
        width, depth = check_int("width", width, 4, 4096), check_number("depth", depth, 0.01, 16)
        sized = dataclasses.replace(self, width=width, depth=depth, flags=changes)
        rungs = (
            dataclasses.replace(
                rung, design=sized.design_of(rung.path), before=rung.before and sized.design_of(rung.path[:-1])
            )
            for rung in self.rungs
        )
        return dataclasses.replace(sized, rungs=tuple(rungs))

    def design_of(self, steps: Iterable[Step]) -> Design:
        """The network that steps make of the regime's start, at this ladder's size. Raises as `compose`."""
        return compose(start_design(self.regime), steps, self.width, self.depth).replace(**self.flags)


@dataclass(frozen=True)
class Regime:
    """The few numbers in which the two regimes of the paper differ (Tables 10 and 11)."""

    start_blocks: tuple[int, ...]
    final_blocks: tuple[int, ...]
    width_after_stage_ratio: int
    final_width: int
    stochastic_depth: float
    prefix: str


#: No stochastic depth is printed for the ResNet-200 regime; 0.5 is ConvNeXt-B's (Table 5).
REGIMES = {
    "resnet50": Regime((3, 4, 6, 3), (3, 3, 9, 3), 64, 96, 0.1, "roadmap_"),
    "resnet200": Regime((3, 24, 36, 3), (3, 3, 27, 3), 84, 128, 0.5, "roadmap_r200_"),
}


def start_design(regime: str) -> Design:
    """The ResNet that a regime starts from, at the paper's size. Raises `RoadmapError` for another regime."""
    check_choice("regime", regime, REGIMES)
    return Design(blocks=REGIMES[regime].start_blocks, widths=stage_widths(FULL_WIDTH))
