"""Which differences the planned seeds of a study can tell apart, before any of them is trained."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.planning.runs import steps_of
from roadmap.questions.question import Cell
from roadmap.results.effects import TrainedNetwork, arrange
from roadmap.results.estimation import ROUNDING, Sample, default_matters, resolvable
from roadmap.results.statistics import pooled_deviation
from roadmap.running.prepared import Prepared
from roadmap.store.records import row_of
from roadmap.store.store import Store
from roadmap.training.spec import RunSpec

#: Where no earlier run tells the deviation between seeds: an accuracy of 80 % scatters by the choice of images, and
#: training adds 0.7 points. Measured, the whole of it is 0.61 and 0.70 points in the kept studies on CIFAR-10
#: (results/cifar10 and cifar10-order), for which this assumes 0.81; with very short trainings, such as on the embedded
#: set, it is 4 points.
ASSUMED_ACCURACY, ASSUMED_NOISE = 0.8, 0.7
#: A plan of more seeds a network is not worth an answer.
MOST = 1000


@dataclass(frozen=True)
class Resolution:
    """What a plan can tell apart: ``half_lengths`` are those of the intervals to be expected, one an effect, in
    percentage points, from the ``deviation`` between seeds of ``runs`` earlier runs, or assumed where there are none.
    ``counts`` are the planned seeds of each network, ``needed`` about those that would reach ``target`` points for all
    effects; None where it is reached, or no reasonable number would."""

    half_lengths: dict[str, float]
    deviation: float
    runs: int
    counts: dict[str, int]
    target: float
    needed: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        values = {name: None if math.isnan(half) else half for name, half in self.half_lengths.items()}
        return dataclasses.asdict(self) | {"half_lengths": values}

    def __str__(self) -> str:
        if any(math.isnan(half) for half in self.half_lengths.values()):
            return "one seed each can tell no difference: an interval takes two seeds of some network"
        low, high = (f"{limit(self.half_lengths.values()):.2g}" for limit in (min, max))
        known = f"from {self.runs} earlier runs of such networks" if self.runs else "assumed, without earlier runs"
        above = f"±{low}" if low == high else f"±{low} to ±{high}"
        text = (
            f"{self._seeds()} can tell differences above {above} points apart (deviation between seeds "
            f"{self.deviation:.2f}, {known})"
        )
        if max(self.half_lengths.values()) <= self.target:
            return text
        if self.needed is None:
            return f"{text}; ±{self.target:g} would take more than {MOST:,} each"
        usual = min(self.counts.values())
        unequal = "" if usual == max(self.counts.values()) else ", and in proportion where there are more"
        return f"{text}; ±{self.target:g} would take about {self.needed}{unequal}"

    def _seeds(self) -> str:
        usual = min(self.counts.values())
        more = [f"{count} of {name}" for name, count in self.counts.items() if count != usual]
        if not more:
            return f"{usual} {'seed' if usual == 1 else 'seeds'} each"
        named = more if len(more) <= 3 else [f"up to {max(self.counts.values())} of {len(more)} networks"]
        return f"{usual} seeds each and {', '.join(named)}"


def plan_resolution(study: Prepared, store: Store) -> Resolution | None:
    """What the planned seeds of a study can tell apart, see `resolvable`; None for a study without effects.

    The deviation between seeds is that of earlier runs in the store with the same data, image size, recipe and epochs,
    pooled over networks of two seeds at least, else an assumed one, see `assumed_deviation`. A study that grows by
    seeds is looked at with those that it begins with.
    """
    spec, plan = study.spec, study.ablation
    if plan is None:
        return None
    by_step = {step: [run for run in study.runs if run.step == step] for step in steps_of(study.runs)}
    networks = [
        TrainedNetwork(
            Cell(step, runs[0].steps or (), runs[0].adopted, runs[0].reference),
            Sample(len(runs), 0.0, math.nan),
            signatures=frozenset(run.signature for run in runs[:1]),
        )
        for step, runs in by_step.items()
    ]
    these = arrange(type(plan.question), plan.facts, networks)
    told = [row for row, contrast in enumerate(these.contrasts) if contrast.weights]
    if not told:
        return None
    kept = sorted({*these.place.values()})
    weights, counts = these.weights[told][:, kept], [these.taken[index].sample.count for index in kept]
    deviation, runs = earlier_deviation(study.runs, store)
    if not runs:
        deviation = assumed_deviation(len(study.data.test))
    halves = resolvable(deviation, counts, weights)
    target = (
        spec.until_resolved
        or spec.matters
        or default_matters(len(study.data.test) if spec.asked_task.counted else None)
    )
    return Resolution(
        {these.contrasts[row].effect: half for row, half in zip(told, halves, strict=True)},
        deviation,
        runs,
        {one.cell.name: one.sample.count for one in these.taken},
        target,
        _needed(deviation, counts, weights, target),
    )


def _needed(deviation: float, counts: Sequence[int], weights: np.ndarray, target: float) -> int | None:
    """The seeds of the network that has fewest with which all half-lengths are at most ``target``; the others keep
    their proportion to it."""
    least = min(counts)

    def reaches(seeds: int) -> bool:
        halves = resolvable(deviation, [max(2, round(count * seeds / least)) for count in counts], weights)
        return max(halves) <= target

    if deviation < ROUNDING or reaches(least) or not reaches(MOST):
        return None
    low, high = least, MOST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def assumed_deviation(test_images: int) -> float:
    """The deviation between seeds, in percentage points, that a plan takes where no earlier run tells it."""
    of_images = 100 * math.sqrt(ASSUMED_ACCURACY * (1 - ASSUMED_ACCURACY) / test_images)
    return math.hypot(of_images, ASSUMED_NOISE)


def earlier_deviation(runs: Sequence[RunSpec], store: Store) -> tuple[float, int]:
    """The deviation between seeds of the networks in a store that were trained on the data of these runs, at their
    image size, by one of their recipes, epochs included; and from how many runs it is known. NaN and 0 where no such
    network has two."""
    wanted = {_training(run.to_dict()) for run in runs}
    scores: dict[str, list[float]] = defaultdict(list)
    for signature in store.signatures():
        try:
            record = store.record(signature)
        except RoadmapError:  # damaged, or of another version
            continue
        if record is None or record["result"]["status"] != "done" or _training(record["run"]) not in wanted:
            continue
        network = json.dumps([record["run"].get(name) for name in ("design", "recipe", "precision", "initial", "head")])
        scores[network].append(row_of(record)["score"])
    samples = [Sample.of(values) for values in scores.values() if len(values) > 1]
    if not samples:
        return math.nan, 0
    counts = [sample.count for sample in samples]
    return pooled_deviation([math.sqrt(sample.variance) for sample in samples], counts), sum(counts)


def _training(run: dict[str, Any]) -> str:
    return json.dumps([run.get(name) for name in ("data_fingerprint", "image_size", "recipe")])
