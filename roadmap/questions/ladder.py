"""Where does one road lead, step by step?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roadmap.checks import check_known
from roadmap.ladders.steps import is_alternative
from roadmap.questions.question import Builder, Cell, Contrast, Network, Plan, Question, difference


@dataclass(frozen=True)
class LadderQuestion(Question):
    """The base, then the steps one after the other, each kept; a road not taken is measured and not built upon."""

    name = "ladder"
    rank = 0
    title = "The ladder"
    asks = "What does each step bring, one after the other?"
    effect = "Gain"
    axis = "Accuracy gained over the step before (pp)"
    meaning = "The gain of a step is its accuracy minus that of the last adopted step before it"
    networks = "the base, then the steps one after the other, each kept"
    example = "roadmap run"
    figures = ("trajectory",)
    ranked = False
    uses = ("steps", "from_", "only", "roads")
    cumulative = True
    needs = ()

    def plan(self, build: Builder) -> Plan:
        """Each step on those before it."""
        taken = list(build.base)
        networks = [Network(build.name, tuple(build.base))]
        for step in build.factors:
            path = [one for one in taken if step.adopted or not is_alternative(step, one)]
            networks.append(Network(step.name, (*path, step), step.adopted))
            if step.adopted:
                taken.append(step)
        return build.plan(self, [network for network in networks if network.name not in build.skipped])

    @classmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """v(step) - v(the last adopted one before it).

        Where a table does not say what a network is compared with, it is the one whose steps are the longest beginning
        of its own. So a road not taken compares with what the adopted step beside it compares with, and where steps
        between are missing, the gain is that of all their changes together.
        """
        found = []
        for cell in cells:
            before = cell.against or _longest_beginning(cell, cells)
            if before is not None:
                found.append(difference(cell.name, cell.name, before))
        return found

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """Nothing beside the name: see `compared`."""
        return {"design": cls.name}

    @classmethod
    def compared(cls, cells: Sequence[Cell], baseline: str | None = None) -> list[Cell]:
        """The networks of a table, each compared with what the table says, else with the one before it."""
        names = [cell.name for cell in cells]
        check_known("network to compare with", [cell.against for cell in cells if cell.against], names)
        before = [None, *names]
        return [replace(cell, against=cell.against or other) for cell, other in zip(cells, before, strict=False)]

    def pairs(self, plan: Plan) -> dict[str, list[tuple[Network, Network]]]:
        """Step -> all earlier networks with the one that it makes: no two of them may be one."""
        networks = plan.networks
        return {
            network.steps[-1].name: [(one, network) for one in networks[:place]]
            for place, network in enumerate(networks[1:], 1)
        }

    def short_title(self, plan: Plan, upto: str | None) -> str:
        """From where to where."""
        return f"{plan.networks[0].name}-to-{plan.networks[-1].name}"


def _longest_beginning(cell: Cell, cells: Sequence[Cell]) -> str | None:
    """Of the networks that have a result."""
    done = [one for one in cells if one.done and len(one.steps) < len(cell.steps)]
    shorter = [one for one in done if cell.steps[: len(one.steps)] == one.steps]
    return max(shorter, key=lambda one: len(one.steps)).name if shorter else None
