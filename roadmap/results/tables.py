"""The statistics of a study: one row a network, with means, spreads and gains."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from roadmap.checks import RoadmapError, check_known
from roadmap.ladders.rungs import ladder
from roadmap.questions import default_question, question_named
from roadmap.questions.question import Cell, Question
from roadmap.reference import PrintedRow, printed_table
from roadmap.results.effects import Measured, TrainedNetwork, effects_table, measure, steps_in, trained_networks
from roadmap.results.estimation import Effect, Sample, default_matters, estimate
from roadmap.results.schema import COSTS, RUNS, STEPS, typed
from roadmap.results.sequential import Rule
from roadmap.results.statistics import Agreement, rank_agreement

#: Runs behind every mean and deviation of Table 10 (section 2.1 of the paper); Table 11 has no deviations.
PRINTED_RUNS = 3
#: Images of ImageNet's validation set, on which the paper tests.
IMAGENET_TEST = 50_000


def effects_of(
    runs: pd.DataFrame,
    ablation: Mapping[str, Any] | None = None,
    *,
    matters: float | None = None,
    missing: Collection[tuple[str, int]] = (),
    correct: Mapping[tuple[str, int], np.ndarray] | None = None,
    asked: Sequence[tuple[str, int]] = (),
    rule: Rule | None = None,
) -> list[Measured]:
    """What the question of a study finds: its effects in order, see `roadmap.results.effects.measure`.

    ``ablation`` is what study.json says of the design; without it the runs are a ladder of the paper's rungs.
    ``matters``: the smallest difference that matters, in points; by default that of an unknown number of test images.
    ``missing``, ``correct`` and ``asked`` as in `roadmap.results.effects.trained_networks`, ``rule`` as in `measure`.

    Raises `RoadmapError` where the runs cannot be summarised, or ``ablation`` lacks what its question needs.
    """
    runs = completed(runs)
    question, facts = question_of(runs, ablation or {}), ablation or {}
    smallest = default_matters(None) if matters is None else matters
    return measure(question, facts, trained_networks(runs, missing, correct, asked), smallest, rule=rule)


def question_of(runs: pd.DataFrame, ablation: Mapping[str, Any]) -> type[Question]:
    """The question of `completed` runs. Raises `RoadmapError` for one that does not exist."""
    return question_named(design_of(runs, ablation))


def summarize(
    runs: pd.DataFrame,
    ablation: Mapping[str, Any] | None = None,
    effects: Sequence[Measured] | None = None,
    missing: Collection[tuple[str, int]] = (),
) -> pd.DataFrame:
    """One row a network, in the study's order, from one row a run; reference models come last.

    ``ablation`` is what study.json says of the design; without it the runs are a ladder of the paper's rungs.
    ``effects``: those of the study, by default `effects_of` its runs; where an effect is that of a network, such as the
    gain of a rung, the network's row has it. ``missing``: (network, seed) of runs that the study still lacks.

    Only runs that ended well (status ``done``) enter a mean; a step whose runs all failed has NaN there. Accuracies are
    in per cent (0 to 100), gains in percentage points. Columns: `roadmap.results.schema.STEPS`, docs/tables.md.

    Raises `RoadmapError` for an empty table, one that mixes regimes, and an unknown step.
    """
    runs = completed(runs)
    ablation = ablation or {}
    found = effects_of(runs, ablation, missing=missing) if effects is None else effects
    gains = {one.row["network"]: one.row for one in found if one.row["network"] == one.row["effect"]}
    printed = _printed_rows(runs, ablation)
    networks = {one.cell.name: one for one in trained_networks(runs, missing)}
    order = networks_of(runs, ablation)
    samples = [networks[step].sample for step in order]
    means = estimate(samples, np.eye(len(samples)), matters=0, tests=1)
    rows = [
        _summary_row(
            runs[runs["step"] == step].iloc[0],
            networks[step],
            mean,
            gains.get(step),
            printed.get(step, (math.nan, math.nan)),
        )
        for step, mean in zip(order, means, strict=True)
    ]
    return typed(pd.DataFrame(rows), STEPS)


def _summary_row(
    first: pd.Series,
    network: TrainedNetwork,
    mean: Effect,
    gain: Mapping[str, Any] | None,
    printed: tuple[float, float],
) -> dict[str, Any]:
    sample = network.sample
    judged = gain or {}
    return {
        "step": network.cell.name,
        "adopted": network.cell.adopted,
        "reference": network.cell.reference,
        "seeds": sample.count,
        "failed": sample.failed,
        "missing": network.missing,
        "gmacs": float(first["gmacs"]),
        "params": first["params"],
        "match_factor": float(first["match_factor"]),
        "top1_mean": sample.mean,
        "top1_std": math.sqrt(sample.variance),
        "top1_low": max(mean.low, 0.0) if mean.low == mean.low else math.nan,
        "top1_high": min(mean.high, 100.0) if mean.high == mean.high else math.nan,
        "against": judged.get("against"),
        "gain": judged.get("estimate", math.nan),
        "gain_low": judged.get("low", math.nan),
        "gain_high": judged.get("high", math.nan),
        "p": judged.get("p", math.nan),
        "p_all": judged.get("p_all", math.nan),
        "verdict": judged.get("verdict"),
        "printed_top1": printed[0],
        "printed_gflops": printed[1],
    }


def costs_of(runs: pd.DataFrame, ablation: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """What every network costs, counted and as it was measured in its runs: one row a network, in `summarize`'s order.
    Columns: `roadmap.results.schema.COSTS`, docs/tables.md.

    Raises `RoadmapError` as `summarize`.
    """
    runs = completed(runs)
    rows = [_cost_row(runs[runs["step"] == step]) for step in networks_of(runs, ablation or {})]
    return typed(pd.DataFrame(rows), COSTS)


def _cost_row(runs: pd.DataFrame) -> dict[str, Any]:
    counted = ["step", "adopted", "reference", "gmacs", "params", "activations", "match_factor"]
    done = runs[runs["status"] == "done"]
    speed = done["images_per_second"]
    return {
        **runs.iloc[0][counted],
        "images_per_second": speed.mean(),
        "images_per_second_std": speed.std(),
        "seconds": done["seconds"].mean(),
        "device_name": " / ".join(done["device_name"].dropna().unique()) or None,
        "latency": math.nan,
        "latency_p95": math.nan,
    }


def agreement(summary: pd.DataFrame) -> Agreement:
    """How far the gains of a `summarize`d ladder rank as those that the paper prints for the same changes.

    Gains and not means, since on a road means rise along with all that came before. Both are against the same network,
    over all adopted rungs: roads not taken are near-copies of one network, which would count its choice several times.
    A rung without a gain counts as unknown.
    """
    printed = summary.set_index("step")["printed_top1"]
    compared = summary[summary["against"].notna() & summary["adopted"]]
    theirs = compared["printed_top1"].to_numpy(float) - printed.reindex(compared["against"]).to_numpy(float)
    known = ~pd.isna(theirs)
    return rank_agreement(compared["gain"].to_numpy(float)[known], theirs[known])


def printed_effects(regime: str) -> pd.DataFrame:
    """What the paper's own printed means and deviations say of its gains, by the estimator of all studies: the table of
    effects of its ladder.

    A mean with a printed deviation stands for `PRINTED_RUNS` runs, one without for a single run. Table 11 has no
    deviations, and so no intervals. The smallest difference that matters is that of ImageNet's 50,000 test images.

    Raises `RoadmapError` for a regime that does not exist.
    """
    printed = printed_table(regime)
    networks = [
        TrainedNetwork(Cell(rung.name, rung.steps, rung.adopted), _printed_sample(printed[rung.name]))
        for rung in ladder(regime)
    ]
    return effects_table(measure(default_question(), {}, networks, default_matters(IMAGENET_TEST)))


def _printed_sample(row: PrintedRow) -> Sample:
    if row.top1_std is None:
        return Sample(1, row.top1, math.nan)
    return Sample(PRINTED_RUNS, row.top1, row.top1_std**2)


def completed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the columns and dtypes of `roadmap.results.schema.RUNS`, whatever version wrote them, and
    whether they come from records or as text from a file.

    Runs that name no design are rungs of the paper's ladder. Raises `RoadmapError` for an empty table, one that mixes
    regimes or has two runs of one network and seed, a rung that the ladder does not have, a run that is done and has no
    top1 between 0 and 100 %, and a value of another type.
    """
    if not len(runs):
        raise RoadmapError("there are no runs to summarise")
    runs = runs.reindex(columns=list(RUNS))
    runs["reference"] = runs["reference"].map(_is_true).astype(bool)
    # Whatever belongs to no ladder is no road not taken.
    runs["adopted"] = (runs["adopted"].isna() | runs["adopted"].map(_is_true)).astype(bool)
    of_ladder = runs["ablation"].isna() & ~runs["reference"]
    derived = _ladder_steps(regime_of(runs))
    check_known("step", runs.loc[of_ladder, "step"].unique(), derived)
    for step, seed in runs.loc[runs.duplicated(["step", "seed"]), ["step", "seed"]].to_numpy():
        raise RoadmapError(f"the table has two runs of '{step}' with seed {seed}")
    runs["steps"] = [
        None if reference else "+".join(derived[step]) if ladder_row else "" if pd.isna(steps) else str(steps)
        for reference, ladder_row, step, steps in zip(
            runs["reference"], of_ladder, runs["step"], runs["steps"], strict=True
        )
    ]
    runs["ablation"] = runs["ablation"].astype(object).where(runs["ablation"].notna(), default_question().name)
    runs = typed(runs, RUNS)
    unknown = (runs["status"] == "done") & ~runs["top1"].between(0, 100)
    for step, seed in runs.loc[unknown, ["step", "seed"]].to_numpy():
        raise RoadmapError(f"the run of '{step}' with seed {seed} is done, but has no top1 between 0 and 100 %")
    return runs


def _is_true(value: Any) -> bool:
    return str(value).lower() == "true"


@cache
def _ladder_steps(regime: str) -> dict[str, tuple[str, ...]]:
    """Rung -> the steps that are in its network: the adopted ones up to the one it changes, and itself."""
    return {rung.name: rung.steps for rung in ladder(regime)}


def design_of(runs: pd.DataFrame, ablation: Mapping[str, Any]) -> str:
    """The ablation design of `completed` runs: what study.json says, else what they say themselves."""
    return str(ablation.get("design") or runs.sort_values("reference", kind="stable")["ablation"].iloc[0])


def networks_of(runs: pd.DataFrame, ablation: Mapping[str, Any]) -> list[str]:
    """Names of the networks of `completed` runs, those whose names are steps in the steps' order, the others as the
    study trained them, and the references last."""
    names = list(dict.fromkeys(runs.loc[~runs["reference"], "step"]))
    if names and question_of(runs, ablation).cumulative:
        order = [step["name"] for step in ablation.get("steps", ())] or ladder(regime_of(runs)).names
        if sum(name not in order for name in names) < 2:  # the start may be no step
            names.sort(key=lambda name: order.index(name) if name in order else -1)
    return names + list(dict.fromkeys(runs.loc[runs["reference"], "step"]))


def _printed_rows(runs: pd.DataFrame, ablation: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Network -> top1 and GFLOPs in the paper, for those made of the very steps of the paper's network of that name."""
    steps = ladder(regime_of(runs))
    known = _ladder_steps(steps.regime)
    base = {*ablation.get("base", ())}
    return {
        run["step"]: (steps[run["step"]].printed.top1, steps[run["step"]].printed.gflops)
        for run in runs[~runs["reference"] & runs["step"].isin(steps.names)].to_dict("records")
        if (base | set(steps_in(run["steps"]))) - {steps.start.name} == set(known[run["step"]])
    }


def regime_of(runs: pd.DataFrame) -> str:
    """The one regime of these runs, references aside. Raises `RoadmapError` where there is none or more than one."""
    own = runs[~runs["reference"]] if "reference" in runs else runs
    regimes = sorted((own if len(own) else runs)["regime"].dropna().unique()) if len(runs) else []
    if not regimes:
        raise RoadmapError("there are no runs to summarise")
    if len(regimes) > 1:
        raise RoadmapError(f"runs of {' and '.join(regimes)} have no common start: take one regime at a time")
    return str(regimes[0])
