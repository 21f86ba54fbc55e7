"""Two studies beside each other: what every step is worth in both, and whether that differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from roadmap.checks import RoadmapError
from roadmap.questions.question import Question
from roadmap.results.effects import Measured, TrainedNetwork, trained_networks
from roadmap.results.estimation import CONFIDENCE, ROUNDING, Moderated, sidak, verdict_of
from roadmap.results.sequential import Rule
from roadmap.results.tables import completed, effects_of, question_of, summarize


class Finished(Protocol):
    """What is asked of a study: where it is, its runs, a row each, what study.json says of its design, its effects, and
    the rule by which it grew by seeds, if it did."""

    @property
    def path(self) -> Path: ...
    def worded(self, text: str) -> str: ...
    @property
    def runs(self) -> pd.DataFrame: ...
    @property
    def described(self) -> Mapping[str, Any]: ...
    @property
    def matters(self) -> float: ...
    @property
    def measured(self) -> list[Measured]: ...
    @property
    def rule(self) -> Rule | None: ...


#: What the starts of two ladders are called, which have different names in different regimes.
START = "start"


@dataclass(frozen=True)
class Compared:
    """One of two studies: what it is called, its `completed` runs, what study.json says of its design, and its effects
    where it grew by seeds."""

    name: str
    runs: pd.DataFrame
    described: Mapping[str, Any]
    matters: float
    grown: Sequence[Measured] | None = None

    @cached_property
    def question(self) -> type[Question]:
        """What it asks."""
        return question_of(self.runs, self.described)

    @cached_property
    def networks(self) -> list[TrainedNetwork]:
        """Its networks, with the samples of their runs."""
        return trained_networks(self.runs)

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """Effect -> its row and its weights, see `roadmap.results.effects.measure`."""
        found = effects_of(self.runs, self.described, matters=self.matters) if self.grown is None else self.grown
        return {one.row["effect"]: one for one in found}

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row a network, see `summarize`."""
        return summarize(self.runs, self.described, [*self.measured.values()])

    @property
    def effects(self) -> dict[str, dict[str, Any]]:
        """Effect -> its row."""
        return {effect: one.row for effect, one in self.measured.items()}

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
        Compared(name, completed(study.runs), study.described, study.matters, study.measured if study.rule else None)
        for name, study in zip(names, (first, second), strict=True)
    )
    shared = one.rungs & other.rungs if are_ladders(one, other) else one.effects.keys() & other.effects.keys()
    if not shared:
        raise RoadmapError(f"the studies '{one.name}' and '{other.name}' have no step in common")
    return one, other


def are_ladders(first: Compared, second: Compared) -> bool:
    """Whether both studies are ladders, which are compared rung by rung."""
    return first.question is second.question and first.question.cumulative and not first.question.ranked


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
        Each study's estimate, see `roadmap.results.ablation.effects`.
    difference, std_error, freedom, low, high
        second - first, with its standard error, degrees of freedom and interval; all intervals of the table hold at
        once with 95 %. Runs that both studies share, which is seen by their signatures, are no evidence of a difference
        and cancel. NaN where the error of one of them is unknown, and where nothing but shared runs is left.
    shared
        How many runs of its networks both studies have in common.
    p, p_all, verdict
        As in the table of effects; the smallest difference that matters is the larger one of both studies.
    """
    same = first.question is second.question
    names = [effect for effect in first.effects if effect in second.effects]
    alike = [effect for effect in names if not same or first.against(effect) == second.against(effect)]
    runs = _Runs(first, second)
    rows = [_difference(effect, first, second, runs) for effect in alike]
    level = sidak(sum(not math.isnan(row["std_error"]) for row in rows))
    matters = max(first.matters, second.matters)
    for row in rows:
        half = -float(stdtrit(row["freedom"], level / 2)) * row["std_error"]
        p = 2 * float(stdtr(row["freedom"], -abs(row["difference"]) / row["std_error"]))
        row |= {"low": row["difference"] - half, "high": row["difference"] + half, "p": p}
        row["p_all"] = -math.expm1(math.log1p(-min(p, 1.0)) * math.log(CONFIDENCE) / math.log1p(-level)) if p < 1 else p
        row["verdict"] = verdict_of(row["low"], row["high"], matters)
    return pd.DataFrame(rows, columns=_COLUMNS)


_COLUMNS = [
    "effect",
    "first",
    "second",
    "difference",
    "std_error",
    "freedom",
    "low",
    "high",
    "p",
    "p_all",
    "verdict",
    "shared",
]


class _Runs:
    """The runs of both studies: which network of either has which, by their signatures, and the variances between
    seeds in each study."""

    def __init__(self, first: Compared, second: Compared) -> None:
        self.studies = first, second
        self.moderated = [Moderated.of([one.sample for one in study.networks]) for study in self.studies]
        self.place = [{one.cell.name: place for place, one in enumerate(study.networks)} for study in self.studies]
        self.done = [_done(study.runs, side) for side, study in enumerate(self.studies)]

    def loads(self, effect: str) -> tuple[list[np.ndarray], int]:
        """(loads of the networks of each study in second - first, number of shared runs): every run enters with the
        square of the weight that is left to it after both studies, in the first study that has it."""
        weights: dict[str, float] = {}
        home: dict[str, tuple[int, str]] = {}
        shared = set()
        for side, study in enumerate(self.studies):
            for network, weight in study.measured[effect].weights.items():
                runs = self.done[side].get(network, [])
                for run in runs:
                    shared |= {run} if home.get(run, (side,))[0] != side else set()
                    weights[run] = weights.get(run, 0.0) + (2 * side - 1) * weight / len(runs)
                    home.setdefault(run, (side, network))
        loads = [np.zeros(len(study.networks)) for study in self.studies]
        for run, weight in weights.items():
            side, network = home[run]
            loads[side][self.place[side][network]] += weight**2
        return loads, len(shared)


def _done(runs: pd.DataFrame, side: int) -> dict[str, list[str]]:
    """Network -> its runs that are done, by their signatures, or where they have none by names of their own."""
    done: dict[str, list[str]] = {}
    for run in runs[runs["status"] == "done"].to_dict("records"):
        known = isinstance(run["signature"], str)
        name = run["signature"] if known else f"{side}: {run['step']} {run['seed']}"
        done.setdefault(run["step"], []).append(name)
    return done


def _difference(effect: str, first: Compared, second: Compared, runs: _Runs) -> dict[str, Any]:
    one, other = first.effects[effect], second.effects[effect]
    loads, shared = runs.loads(effect)
    parts = [moderated.variance(load[None]) for moderated, load in zip(runs.moderated, loads, strict=True)]
    variance, squares = (float(sum(part[index][0] for part in parts)) for index in (0, 1))
    # Of effects that have more sources of error than their seeds, such as drawn orders, the rest comes on top.
    for row, moderated, study in zip((one, other), runs.moderated, (first, second), strict=True):
        own = moderated.variance(_own_loads(study, effect)[None])
        rest = row["std_error"] ** 2 - float(own[0][0])
        if rest > ROUNDING:
            variance += rest
            squares += max(row["std_error"] ** 4 / row["freedom"] - float(own[1][0]), 0.0)
    known = not (math.isnan(one["std_error"]) or math.isnan(other["std_error"])) and variance > ROUNDING**2
    difference = other["estimate"] - one["estimate"]
    return {
        "effect": effect,
        "first": one["estimate"],
        "second": other["estimate"],
        "difference": 0.0 if abs(difference) < ROUNDING else difference,
        "std_error": math.sqrt(variance) if known else math.nan,
        "freedom": variance**2 / squares if known else math.nan,
        "shared": shared,
    }


def _own_loads(study: Compared, effect: str) -> np.ndarray:
    weights = study.measured[effect].weights
    return np.array([weights.get(one.cell.name, 0.0) ** 2 / max(one.sample.count, 1) for one in study.networks])


#: Column of a table of runs -> what two studies differ in.
_SETTINGS = {
    "data": "data",
    "image_size": "image size",
    "width": "width",
    "depth": "depth",
    "recipe": "recipe",
    "epochs": "epochs",
}


def settings_that_differ(first: Compared, second: Compared) -> list[str]:
    """What the two studies were not trained alike in, such as ``data`` or ``recipe``: then a difference between them is
    one of these as well."""
    own = [study.runs[~study.runs["reference"]] for study in (first, second)]
    return [
        words
        for column, words in _SETTINGS.items()
        if {*own[0][column].dropna().astype(str)} != {*own[1][column].dropna().astype(str)}
    ]
