"""Two studies beside each other: what every step is worth in both, and whether that differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from roadmap.analysis.ablation import effects
from roadmap.analysis.statistics import half_width, holm, p_value, satterthwaite, verdict
from roadmap.analysis.tables import completed, design_of
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


def differences(first: Finished, second: Finished) -> pd.DataFrame:
    """One row an effect that both studies have, in the first one's order; accuracies in percentage points.

    effect
        The step; of two ladders those whose gain is over the same rung in both, their starts counting as the same.
    first, second
        Each study's estimate, see `roadmap.analysis.ablation.effects`.
    difference, std_error, freedom, low, high
        second - first, with its standard error, degrees of freedom and 95 % interval by Welch's t-test: the studies are
        taken for independent, since even equal seeds are other initialisations in other networks. NaN where the error
        of one of them is unknown.
    p, p_holm, verdict
        p that the true difference is zero; by Holm's correction over the table; ``gain`` or ``loss`` where that is
        below 0.05, else ``within noise``; missing where a study has one seed.

    Raises `RoadmapError` where the studies share no step, and where `effects` does.
    """
    check_shared(first, second)
    ours, theirs = (effects_of(study) for study in (first, second))
    same = _design(first) == _design(second)
    alike = [
        effect
        for effect in ours
        if effect in theirs and (not same or _against(ours[effect], first) == _against(theirs[effect], second))
    ]
    rows = [_difference(effect, ours[effect], theirs[effect]) for effect in alike]
    for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p_holm, "verdict": verdict(row["difference"], p_holm)}
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = ["effect", "first", "second", "difference", "std_error", "freedom", "low", "high", "p", "p_holm", "verdict"]


def check_shared(first: Finished, second: Finished) -> None:
    """Raise `RoadmapError` where the studies share no step: two ladders no rung, starts aside, others no effect."""
    ladders = is_ladder(first) and is_ladder(second)
    ours, theirs = (_rungs(study) if ladders else {*effects_of(study)} for study in (first, second))
    if not ours & theirs:
        one, other = names_of(first, second)
        raise RoadmapError(f"the studies '{one}' and '{other}' have no step in common")


def effects_of(study: Finished) -> dict[str, dict[str, Any]]:
    """Effect -> its row of `roadmap.analysis.ablation.effects`."""
    rows: Sequence[Mapping[Any, Any]] = effects(study.runs, study.described).to_dict("records")
    return {row["effect"]: {**row} for row in rows}


def _rungs(study: Finished) -> set[str]:
    runs = completed(study.runs)
    return {*runs.loc[~runs["reference"], "step"]} - starts_of(study)


def _against(effect: Mapping[str, Any], study: Finished) -> str | None:
    """The network that an effect is measured by, where its table says."""
    against = effect.get("against")
    return key_of(against, starts_of(study)) if isinstance(against, str) else None


def _difference(effect: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    parts = [(one["std_error"] ** 2, one["freedom"]) for one in (first, second) if one["std_error"] != 0]
    error = math.sqrt(math.fsum(variance for variance, _ in parts))
    freedom = satterthwaite(parts) if parts else math.nan
    half = half_width(error, freedom) if parts else 0.0
    difference = second["estimate"] - first["estimate"]
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


def is_ladder(study: Finished) -> bool:
    """Whether the study's design is a ladder."""
    return _design(study) == "ladder"


def _design(study: Finished) -> str:
    return design_of(completed(study.runs), study.described)


def starts_of(study: Finished) -> set[str]:
    """Names of the networks of a ladder that have no steps."""
    runs = completed(study.runs)
    return {*runs.loc[(runs["steps"] == "") & ~runs["reference"], "step"]}


def key_of(step: str, starts: set[str]) -> str:
    """A rung's name, by which it is found in the other study."""
    return START if step in starts else step


def names_of(first: Finished, second: Finished) -> tuple[str, str]:
    """What the two are called: their folders, with as much of the path as tells them apart."""
    one, other = first.path.resolve().parts, second.path.resolve().parts
    for length in range(1, max(len(one), len(other)) + 1):
        if one[-length:] != other[-length:]:
            return "/".join(one[-length:]), "/".join(other[-length:])
    return one[-1], other[-1]
