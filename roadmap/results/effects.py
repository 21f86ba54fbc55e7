"""What every step of a study is worth: the contrasts of its question, estimated from its runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from roadmap.checks import RoadmapError
from roadmap.questions.question import Cell, Contrast, Question
from roadmap.results.estimation import Effect, Moderated, Sample, estimate
from roadmap.results.schema import EFFECTS, typed
from roadmap.results.sequential import InterimLook, Rule, look

#: Columns of the effects of every question.
COMMON = tuple(EFFECTS)[: list(EFFECTS).index("params") + 1]


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that has runs: as a question sees it, the sample of its scores, how many runs it still lacks, what it
    costs (GMACs and parameters, NaN where unknown), and the signatures of its runs, where they have some: two networks
    of the same runs are one network. ``scores`` are those of its seeds in their order up to the first that is not there
    yet, NaN where the run failed, and ``correct`` what they got right, bool (runs, images), where all of them kept it.
    """

    cell: Cell
    sample: Sample
    missing: int = 0
    gmacs: float = math.nan
    params: float = math.nan
    signatures: frozenset[str] = frozenset()
    scores: tuple[float, ...] = ()
    correct: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Measured:
    """One row of the table of effects, the values of its parts, such as one an order (none of a plain difference), and
    the weight of each network's mean in it."""

    row: dict[str, Any]
    parts: np.ndarray
    weights: Mapping[str, float] = field(default_factory=dict)


def effects_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """One row an effect. Columns: those of `roadmap.results.schema.EFFECTS` that the question has, docs/tables.md."""
    rows = [one.row for one in measured]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COMMON))
    return typed(table[[name for name in EFFECTS if name in table]], EFFECTS)


def measure(
    question: type[Question],
    facts: Mapping[str, Any],
    networks: Sequence[TrainedNetwork],
    matters: float,
    lower_is_better: bool = False,
    rule: Rule | None = None,
) -> list[Measured]:
    """The effects of a question on these networks, in the question's order, see `roadmap.results.estimation.estimate`.

    ``facts``: what study.json says of the design; ``matters``: the smallest difference that matters, in points. With a
    ``rule`` the study grew by seeds, and its effects stand as at their last look, see `roadmap.results.sequential`.
    Raises `RoadmapError` where the facts lack what the question needs.
    """
    these = arrange(question, facts, networks)
    contrasts, taken, place, weights = these.contrasts, these.taken, these.place, these.weights
    kept = {*place.values()}
    samples = [one.sample if index in kept else Sample(0, math.nan, math.nan) for index, one in enumerate(taken)]
    means = np.array([sample.mean for sample in samples])
    parts = [_parts(contrast, place, means) for contrast in contrasts]
    if rule:
        seen = looked(these, rule, matters, lower_is_better)
        known = [bool(contrast.weights and seen.effects) for contrast in contrasts]
        found = iter([effect for effect, told in zip(seen.effects, known, strict=False) if told])
    else:
        known = [bool(contrast.weights) and not _failed(contrast, taken, place) for contrast in contrasts]
        # An effect without an estimate does not count as a test: the correction is for the others alone.
        between = [_between(one, own) for one, own, told in zip(contrasts, parts, known, strict=True) if told]
        found = iter(
            estimate(samples, weights[known], matters=matters, between=between, lower_is_better=lower_is_better)
            if any(known)
            else ()
        )
    variances = Moderated.of(samples).variances
    usual = max((one.sample.count + one.sample.failed + one.missing for one in taken), default=0)
    measured = []
    for row, (contrast, own, values, told) in enumerate(zip(contrasts, weights, parts, known, strict=True)):
        effect = next(found) if told else _unknown(own, means, bool(contrast.weights))
        columns = _row(contrast, effect, own, taken, place, usual)
        if rule and told:
            columns["seeds"] = min(columns["seeds"], seen.seeds[row])
        if contrast.parts:
            columns |= _spread(contrast, values, place, variances, samples, own)
        measured.append(Measured(columns, values, contrast.weights))
    return measured


@dataclass(frozen=True)
class Arranged:
    """The effects of a question over the networks that belong to them (``taken``): the weight of each network's mean
    in each effect, (effects, networks), and the ``place`` of each name among the networks; two names of one training
    have one."""

    contrasts: list[Contrast]
    taken: list[TrainedNetwork]
    place: dict[str, int]
    weights: np.ndarray


def arrange(question: type[Question], facts: Mapping[str, Any], networks: Sequence[TrainedNetwork]) -> Arranged:
    """The effects of a question over these networks. Raises `RoadmapError` where the facts lack what it needs."""
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
    return Arranged(contrasts, taken, place, weights)


@dataclass(frozen=True)
class Standing:
    """Where a study that grows by seeds stands: of each effect its verdict and why it is closed, None while it is
    open; the networks whose runs come next, as often as they need a seed; and how many runs would close all effects,
    None before the first look."""

    effects: dict[str, tuple[str | None, str | None]]
    next: list[str]
    forecast: int | None


def standing(these: Arranged, rule: Rule, matters: float, slots: int) -> Standing:
    """Where a study of these effects stands, and what to train next with ``slots`` runs at a time."""
    found = looked(these, rule, matters, slots=slots)
    verdicts = [effect.verdict for effect in found.effects] or [None] * len(found.closed)
    whys = zip(verdicts, found.closed, strict=True)
    effects = {contrast.effect: both for contrast, both in zip(these.contrasts, whys, strict=True)}
    return Standing(effects, [these.taken[network].cell.name for network in found.next], found.forecast)


def looked(these: Arranged, rule: Rule, matters: float, lower_is_better: bool = False, slots: int = 1) -> InterimLook:
    """What `look` finds of these effects; its networks are numbered as in ``these``."""
    kept = sorted({*these.place.values()})
    weights = these.weights.copy()
    for own, contrast in zip(weights, these.contrasts, strict=True):
        if any(these.taken[these.place[name]].sample.failed for name in contrast.rest):
            own[:] = 0
    correct = [one for index in kept if (one := these.taken[index].correct) is not None]
    found = look(
        [these.taken[index].scores for index in kept],
        weights[:, kept],
        width=rule.width,
        most_seeds=rule.most_seeds,
        matters=matters,
        lower_is_better=lower_is_better,
        slots=slots,
        correct=correct if len(correct) == len(kept) else None,
    )
    effects = [replace(effect, apart=tuple(kept[index] for index in effect.apart)) for effect in found.effects]
    counts = [found.counts[kept.index(these.place[one.cell.name])] for one in these.taken]
    return replace(found, effects=effects, next=[kept[index] for index in found.next], counts=counts)


def _failed(contrast: Contrast, taken: Sequence[TrainedNetwork], place: Mapping[str, int]) -> int:
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
    taken: Sequence[TrainedNetwork],
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
    asked: Sequence[tuple[str, int]] = (),
) -> list[TrainedNetwork]:
    """The networks of `completed` runs, in the order of their first appearance, references among them.

    ``missing``: (network, seed) of runs that the study still lacks; ``correct``: (network, seed) -> which test images
    the run got right, bool (images,), in the same order for all; ``asked``: (network, seed) of all runs that the study
    consists of, in their order. While a network has no run at all, none has scores in their order.
    """
    names = {*runs["step"]}
    whole = all(name in names for name, _ in asked)
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
            done["score"].astype(float),
            failed=len(group) - len(done),
            correct=np.array(known) if known and len(known) == len(records) else None,
        )
        signatures = frozenset(group["signature"].dropna())
        costs = float(first["gmacs"]), float(first["params"])
        scores, kept = _in_turn(cell.name, group, correct or {}, asked) if whole else ((), None)
        networks.append(TrainedNetwork(cell, sample, lacking.get(cell.name, 0), *costs, signatures, scores, kept))
    return networks


def _in_turn(
    name: str, runs: pd.DataFrame, correct: Mapping[tuple[str, int], np.ndarray], asked: Sequence[tuple[str, int]]
) -> tuple[tuple[float, ...], np.ndarray | None]:
    """`Trained.scores` and `Trained.correct` of a network."""
    done = runs["status"] == "done"
    found = dict(zip(runs["seed"], runs["score"].astype(float).where(done), strict=True))
    order = [seed for step, seed in asked if step == name] or list(found)
    scores = {seed: float(found[seed]) for seed in takewhile(found.__contains__, order)}
    kept = {seed: correct[name, seed] for seed in scores if (name, seed) in correct}
    if not kept or not all(seed in kept or math.isnan(score) for seed, score in scores.items()):
        return tuple(scores.values()), None
    nothing = np.zeros_like(next(iter(kept.values())))
    return tuple(scores.values()), np.array([kept.get(seed, nothing) for seed in scores])


def steps_in(text: str | None) -> tuple[str, ...]:
    """The steps of a network, from the column ``steps``."""
    return tuple(text.split("+")) if isinstance(text, str) and text else ()
