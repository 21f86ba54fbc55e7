"""What every step of a study is worth: the contrasts of its question, estimated from its runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from roadmap.analysis.estimation import Effect, Moderated, Sample, estimate
from roadmap.analysis.schema import EFFECTS, typed
from roadmap.checks import RoadmapError
from roadmap.questions.question import Cell, Contrast, Question

#: Columns of the effects of every question.
COMMON = tuple(EFFECTS)[: list(EFFECTS).index("params") + 1]


@dataclass(frozen=True)
class Trained:
    """A network that has runs: as a question sees it, the sample of its scores, how many runs it still lacks, what it
    costs (GMACs and parameters, NaN where unknown), and the signatures of its runs, where they have some: two networks
    of the same runs are one network."""

    cell: Cell
    sample: Sample
    missing: int = 0
    gmacs: float = math.nan
    params: float = math.nan
    signatures: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Measured:
    """One row of the table of effects, the values of its parts, such as one an order (none of a plain difference), and
    the weight of each network's mean in it."""

    row: dict[str, Any]
    parts: np.ndarray
    weights: Mapping[str, float] = field(default_factory=dict)


def effects_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """One row an effect. Columns: those of `roadmap.analysis.schema.EFFECTS` that the question has, docs/tables.md."""
    rows = [one.row for one in measured]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COMMON))
    return typed(table[[name for name in EFFECTS if name in table]], EFFECTS)


def measure(
    question: type[Question],
    facts: Mapping[str, Any],
    networks: Sequence[Trained],
    matters: float,
    lower_is_better: bool = False,
) -> list[Measured]:
    """The effects of a question on these networks, in the question's order, see `roadmap.analysis.estimation.estimate`.

    ``facts``: what study.json says of the design; ``matters``: the smallest difference that matters, in points.
    Raises `RoadmapError` where the facts lack what the question needs.
    """
    for name in question.needs:
        if not facts.get(name):
            raise RoadmapError(f"study.json says nothing of the {name} of this {question.name} study")
    taken = [one for one in networks if question.includes_references or not one.cell.reference]
    contrasts = question.contrasts([one.cell for one in taken], facts)
    # What belongs to no effect says nothing of the noise of those that do; a twin would say it twice.
    used = {name for contrast in contrasts for name in (*contrast.weights, *contrast.rest)}
    taken = [one for one in taken if one.cell.name in used]
    first: dict[Any, int] = {}
    place = {one.cell.name: first.setdefault(one.signatures or one.cell.name, index) for index, one in enumerate(taken)}
    weights = np.zeros((len(contrasts), len(taken)))
    for row, contrast in enumerate(contrasts):
        for name, weight in contrast.weights.items():
            weights[row, place[name]] += weight
    kept = {*place.values()}
    samples = [one.sample if index in kept else Sample(0, math.nan, math.nan) for index, one in enumerate(taken)]
    means = np.array([sample.mean for sample in samples])
    parts = [_parts(contrast, place, means) for contrast in contrasts]
    between = [_between(contrast, values) for contrast, values in zip(contrasts, parts, strict=True)]
    known = [bool(contrast.weights) and not _failed(contrast, taken, place) for contrast in contrasts]
    # An effect that cannot be told is no test; the others are estimated as if it were not there.
    found = iter(
        estimate(
            samples,
            weights[known],
            matters=matters,
            between=[one for one, told in zip(between, known, strict=True) if told],
            lower_is_better=lower_is_better,
        )
        if any(known)
        else ()
    )
    variances = Moderated.of(samples).variances
    usual = max((one.sample.count + one.sample.failed + one.missing for one in taken), default=0)
    measured = []
    for contrast, own, values, told in zip(contrasts, weights, parts, known, strict=True):
        effect = next(found) if told else _unknown(own, means, bool(contrast.weights))
        columns = _row(contrast, effect, own, taken, place, usual)
        if contrast.parts:
            columns |= _spread(contrast, values, place, variances, samples, own)
        measured.append(Measured(columns, values, contrast.weights))
    return measured


def _failed(contrast: Contrast, taken: Sequence[Trained], place: Mapping[str, int]) -> int:
    return sum(taken[place[name]].sample.failed for name in {*contrast.weights, *contrast.rest})


def _unknown(weights: np.ndarray, means: np.ndarray, estimated: bool) -> Effect:
    """An effect without an interval: with a failed run, or without all of its networks."""
    value = float(np.where(weights != 0, weights * means, 0).sum()) if estimated else math.nan
    nan = math.nan
    return Effect(value, nan, nan, nan, nan, nan, nan, verdict=None, apart=(), images=False)


def _parts(contrast: Contrast, place: Mapping[str, int], means: np.ndarray) -> np.ndarray:
    return np.array([means[place[network]] - means[place[against]] for network, against in contrast.parts])


def _between(contrast: Contrast, values: np.ndarray) -> tuple[float, float]:
    """The variance of the mean of randomly drawn parts, and its degrees of freedom (finite population)."""
    if not contrast.drawn:
        return 0.0, math.inf
    if len(values) < 2:
        return math.nan, math.nan
    return contrast.drawn * float(values.var(ddof=1)) / len(values), len(values) - 1


def _row(
    contrast: Contrast,
    effect: Effect,
    weights: np.ndarray,
    taken: Sequence[Trained],
    place: Mapping[str, int],
    usual: int,
) -> dict[str, Any]:
    names = [*contrast.weights, *(name for name in contrast.rest if name not in contrast.weights)]
    networks = [taken[place[name]] for name in names]
    weighted = [taken[place[name]].sample.count for name in contrast.weights]
    against, network = contrast.pair or (None, None)
    costs = np.array([[one.gmacs, one.params] for one in taken]).reshape(len(taken), 2)
    gmacs, params = np.where(weights[:, None] != 0, weights[:, None] * costs, 0).sum(axis=0)
    if not contrast.weights:
        gmacs = params = math.nan
    return {
        "effect": contrast.effect,
        "against": against,
        "estimate": effect.estimate,
        "std_error": effect.std_error,
        "freedom": effect.freedom,
        "low": effect.low,
        "high": effect.high,
        "p": effect.p,
        "p_all": effect.p_all,
        "verdict": effect.verdict,
        "apart": ", ".join(taken[index].cell.name for index in effect.apart) or None,
        "seeds": min(weighted, default=0),
        "images": effect.images,
        "network": network,
        "networks": len(networks) + contrast.absent,
        "failed": sum(one.sample.failed for one in networks),
        "missing": sum(one.missing for one in networks) + contrast.absent * usual,
        "gmacs": round(float(gmacs), 12) + 0.0,  # no -0.0
        "params": round(float(params), 6) + 0.0,
        **contrast.extra,
    }


def _spread(
    contrast: Contrast,
    values: np.ndarray,
    place: Mapping[str, int],
    variances: np.ndarray,
    samples: Sequence[Sample],
    weights: np.ndarray,
) -> dict[str, float]:
    """How far the parts of an effect differ, and how far seeds alone would make them differ."""
    shares = np.array(contrast.shares)
    counts = np.array([max(sample.count, 1) for sample in samples])
    errors = variances / counts
    of_parts = np.array([errors[place[one]] + errors[place[other]] for one, other in contrast.parts])
    noise = float(shares @ of_parts - weights**2 @ errors)
    mean = float(shares @ values)
    return {
        "least": float(values.min()),
        "greatest": float(values.max()),
        "spread": math.sqrt(float(shares @ (values - mean) ** 2)),
        "noise": math.sqrt(max(noise, 0.0)) if noise == noise else math.nan,
    }


def trained_networks(
    runs: pd.DataFrame,
    missing: Collection[tuple[str, int]] = (),
    correct: Mapping[tuple[str, int], np.ndarray] | None = None,
) -> list[Trained]:
    """The networks of `completed` runs, in the order of their first appearance, references among them.

    ``missing``: (network, seed) of runs that the study still lacks; ``correct``: (network, seed) -> which test images
    the run got right, bool (images,), in the same order for all.
    """
    lacking: dict[str, int] = {}
    for name, _ in missing:
        lacking[name] = lacking.get(name, 0) + 1
    networks = []
    for step, group in runs.groupby("step", sort=False):
        done = group[group["status"] == "done"]
        records = [(correct or {}).get((str(step), int(seed))) for seed in done["seed"]]
        known = [record for record in records if record is not None]
        first = group.iloc[0]
        cell = Cell(
            str(step), steps_in(first["steps"]), bool(first["adopted"]), bool(first["reference"]), done=len(done)
        )
        sample = Sample.of(
            done["top1"].astype(float),
            failed=len(group) - len(done),
            correct=np.array(known) if known and len(known) == len(records) else None,
        )
        signatures = frozenset(group["signature"].dropna())
        costs = float(first["gmacs"]), float(first["params"])
        networks.append(Trained(cell, sample, lacking.get(cell.name, 0), *costs, signatures))
    return networks


def steps_in(text: str | None) -> tuple[str, ...]:
    """The steps of a network, from the column ``steps``."""
    return tuple(text.split("+")) if isinstance(text, str) and text else ()
