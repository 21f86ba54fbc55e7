"""Two studies beside each other: what every step is worth in both, and whether that differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from roadmap.analysis.ablation import effects
from roadmap.analysis.statistics import DECIMALS, half_width, holm, p_value, satterthwaite, verdict
from roadmap.analysis.tables import completed, design_of, summarize
from roadmap.checks import RoadmapError


class Finished(Protocol):
    """What is asked of a study: where it is, its runs, a row each, and what study.json says of its design."""

    @property
    def path(self) -> Path: ...
    @property
    def runs(self) -> pd.DataFrame: ...
    @property
    def described(self) -> Mapping[str, Any]: ...


#: What the starts of two ladders are called, which have different names in different regimes.
START = "start"


@dataclass(frozen=True)
class Compared:
    """One of two studies: what it is called, its `completed` runs, and what study.json says of its design."""

    name: str
    runs: pd.DataFrame
    described: Mapping[str, Any]

    @cached_property
    def design(self) -> str:
        return design_of(self.runs, self.described)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row a network, see `summarize`."""
        return summarize(self.runs, self.described)

    @cached_property
    def effects(self) -> dict[str, dict[str, Any]]:
        """Effect -> its row, see `roadmap.analysis.ablation.effects`."""
        rows: Sequence[Mapping[Any, Any]] = effects(self.runs, self.described).to_dict("records")
        return {row["effect"]: {**row} for row in rows}

    @cached_property
    def starts(self) -> set[str]:
        """Names of the networks that have no steps."""
        return {*self.runs.loc[(self.runs["steps"] == "") & ~self.runs["reference"], "step"]}

    @cached_property
    def rungs(self) -> set[str]:
        """Names of the networks, but for starts and references."""
        return {*self.runs.loc[~self.runs["reference"], "step"]} - self.starts

    def key(self, step: str) -> str:
        """A network's name, by which it is found in the other study."""
        return START if step in self.starts else step

    def against(self, effect: str) -> str | None:
        """The network that an effect is measured by, where its table says."""
        against = self.effects[effect].get("against")
        return self.key(against) if isinstance(against, str) else None


def compared(first: Finished, second: Finished) -> tuple[Compared, Compared]:
    """Both studies, with names that tell them apart. Raises `RoadmapError` where they share no step: two ladders no
    rung but the start, others no effect."""
    names = _names(first.path.resolve().parts, second.path.resolve().parts)
    one, other = (
        Compared(name, completed(study.runs), study.described)
        for name, study in zip(names, (first, second), strict=True)
    )
    shared = one.rungs & other.rungs if are_ladders(one, other) else one.effects.keys() & other.effects.keys()
    if not shared:
        raise RoadmapError(f"the studies '{one.name}' and '{other.name}' have no step in common")
    return one, other


def are_ladders(first: Compared, second: Compared) -> bool:
    """Whether both studies are ladders, which are compared rung by rung."""
    return first.design == second.design == "ladder"


def _names(first: Sequence[str], second: Sequence[str]) -> tuple[str, str]:
    """The names of two folders, with as much of their paths as tells them apart."""
    for length in range(1, max(len(first), len(second)) + 1):
        if first[-length:] != second[-length:]:
            return "/".join(first[-length:]), "/".join(second[-length:])
    return first[-1], second[-1]


def differences(first: Compared, second: Compared) -> pd.DataFrame:
    """One row an effect that both studies have, in the first one's order; accuracies in percentage points.

    effect
        The step. Of two studies of one design it is left out where it is measured by other networks, such as the gain
        over another rung; the starts of two ladders count as the same network.
    first, second
        Each study's estimate, see `roadmap.analysis.ablation.effects`.
    difference, std_error, freedom, low, high
        second - first, with its standard error, degrees of freedom and 95 % interval by Welch's t-test: the studies are
        taken for independent, since even equal seeds are other initialisations in other networks. NaN where the error
        of one of them is unknown.
    p, p_holm, verdict
        p that the true difference is zero; by Holm's correction over the table; ``gain`` or ``loss`` where that is
        below 0.05, else ``within noise``; missing where a study has one seed.
    """
    same = first.design == second.design
    shared = [effect for effect in first.effects if effect in second.effects]
    alike = [effect for effect in shared if not same or first.against(effect) == second.against(effect)]
    rows = [_difference(effect, first.effects[effect], second.effects[effect]) for effect in alike]
    for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p_holm, "verdict": verdict(row["difference"], p_holm)}
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = ["effect", "first", "second", "difference", "std_error", "freedom", "low", "high", "p", "p_holm", "verdict"]


def _difference(effect: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    parts = [(one["std_error"] ** 2, one["freedom"]) for one in (first, second) if one["std_error"] != 0]
    error = math.sqrt(math.fsum(variance for variance, _ in parts))
    freedom = satterthwaite(parts) if parts else math.nan
    half = half_width(error, freedom) if parts else 0.0
    difference = round(second["estimate"] - first["estimate"], DECIMALS) + 0.0  # which makes a zero of −0
    tested = min(first["seeds"], second["seeds"]) > 1
    return {
        "effect": effect,
        "first": first["estimate"],
        "second": second["estimate"],
        "difference": difference,
        "std_error": error,
        "freedom": freedom,
        "low": difference - half,
        "high": difference + half,
        "p": p_value(difference, error, freedom) if tested else math.nan,
    }
