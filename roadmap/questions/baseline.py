"""How does every network compare with one of them? The commonest table in papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadmap.checks import RoadmapError, check_known
from roadmap.questions.ladder import LadderQuestion
from roadmap.questions.question import Builder, Cell, Contrast, Plan, difference
from roadmap.settings import setting


@dataclass(frozen=True)
class Baseline(LadderQuestion):
    """The networks of a ladder, each against one named network."""

    name = "baseline"
    rank = 6
    title = "Against one baseline"
    asks = "How does every network compare with one of them?"
    effect = "Difference"
    axis = "Accuracy gained over the baseline (pp)"
    meaning = "The effect of a network is its accuracy minus that of the baseline"
    networks = "those of a ladder, each compared with one of them"
    example = "roadmap run --design baseline --baseline resnet50"
    figures = ("ablation",)
    favours_common = True
    includes_references = True

    baseline: str | None = setting(
        "network that all others are compared with [default: the first]", metavar="NETWORK", part="ablation"
    )

    def plan(self, build: Builder) -> Plan:
        """The networks of a ladder. Raises `RoadmapError` for a baseline that is not among them."""
        plan = super().plan(build)
        names = [network.name for network in plan.networks]
        chosen = self.baseline or names[0]
        check_known("baseline", [chosen], [*names, *build.others])
        return build.plan(self, plan.networks, baseline=chosen)

    @classmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """v(network) - v(baseline), or minus that which a table says."""
        chosen = facts.get("baseline") or cells[0].name
        known = {cell.name for cell in cells}
        return [
            difference(cell.name, cell.name, against if (against := cell.against or chosen) in known else None)
            for cell in cells
            if (cell.against or chosen) != cell.name
        ]

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """The baseline: the named network, else the first."""
        chosen = baseline or cells[0].name
        check_known("baseline", [chosen], [cell.name for cell in cells])
        return {"design": cls.name, "baseline": chosen}

    @classmethod
    def compared(cls, cells: Sequence[Cell], baseline: str | None = None) -> list[Cell]:
        """The networks as the table has them."""
        check_known(
            "network to compare with", [cell.against for cell in cells if cell.against], [cell.name for cell in cells]
        )
        return list(cells)

    def check(self) -> None:
        """See `Question.check`."""
        if self.baseline is not None and (not isinstance(self.baseline, str) or not self.baseline.strip()):
            raise RoadmapError(f"baseline is {self.baseline!r}, but must be the name of a network of the study")

    def short_title(self, plan: Plan, upto: str | None) -> str:
        """What they are compared with."""
        return f"{super().short_title(plan, upto)}-against-{plan.facts['baseline']}"
