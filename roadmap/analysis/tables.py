"""The statistics of a study: one row a network, with means, spreads and gains."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from roadmap.analysis.schema import COSTS, RUNS, STEPS, typed
from roadmap.analysis.statistics import (
    Agreement,
    Sample,
    accuracy_interval,
    half_width,
    holm,
    p_value,
    paired_interval,
    pooled_deviation,
    rank_agreement,
    seeds_needed,
    verdict,
    welch,
)
from roadmap.checks import RoadmapError, check_known
from roadmap.reference import PrintedRow, printed_table
from roadmap.rungs import ladder

#: Runs behind every mean and deviation of Table 10 (section 2.1 of the paper); Table 11 has no deviations.
PRINTED_RUNS = 3


def summarize(runs: pd.DataFrame, ablation: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One row a network, in the study's order, from one row a run; reference models come last.

    ``ablation`` is what study.json says of the design; without it the runs are a ladder of the paper's rungs.

    Only runs that ended well (status ``done``) enter a mean; a step whose runs all failed has NaN there. Accuracies are
    in per cent (0 to 100), gains in percentage points. Columns: `roadmap.analysis.schema.STEPS`, docs/tables.md.

    Raises `RoadmapError` for an empty table, one that mixes regimes, and an unknown step.
    """
    runs = completed(runs)
    ablation = ablation or {}
    scores = scores_of(runs)
    on_ladder = runs[~runs["reference"]] if design_of(runs, ablation) == "ladder" else runs[:0]
    ways = {str(run["step"]): steps_in(run["steps"]) for run in on_ladder.to_dict("records")}
    printed = _printed_rows(runs, ablation)
    own = runs.loc[~runs["reference"], "seed"] if not runs["reference"].all() else runs["seed"]
    seeds = own.nunique()
    rows = [
        _summary_row(
            runs,
            step,
            seeds,
            scores,
            baseline(step, ways, scores),
            printed.get(step, (math.nan, math.nan)),
        )
        for step in networks_of(runs, ablation)
    ]
    tests = sum(not math.isnan(row["p"]) for row in rows)
    deviation = pooled_deviation([row["gain_std"] for row in rows], [row["pairs"] for row in rows])
    for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"], row["verdict"] = p_holm, verdict(row["gain"], p_holm)
        row["seeds_needed"] = seeds_needed(row["gain"], deviation, max(tests, 1))
    return typed(pd.DataFrame(rows), STEPS)


def _summary_row(
    runs: pd.DataFrame,
    step: str,
    seeds: int,
    scores: Mapping[str, pd.Series],
    before: str | None,
    printed: tuple[float, float],
) -> dict[str, Any]:
    own = runs[runs["step"] == step]
    first = own.iloc[0]
    mean, std, low, high = accuracy_interval(scores.get(step, ()))
    pairs = np.array([]) if before is None else differences_of(scores, step, before)
    failed = runs["step"].isin([step, before]) & (runs["status"] != "done")
    gain, gain_std, gain_low, gain_high = paired_interval(pairs, bool(failed.any()))
    return {
        "step": step,
        "adopted": bool(first["adopted"]),
        "reference": bool(first["reference"]),
        "seeds": int((own["status"] == "done").sum()),
        "failed": int((own["status"] != "done").sum()),
        "missing": max(seeds - len(own), 0),
        "gmacs": float(first["gmacs"]),
        "params": int(first["params"]),
        "match_factor": float(first["match_factor"]),
        "top1_mean": mean,
        "top1_std": std,
        "top1_low": low,
        "top1_high": high,
        "against": before,
        "pairs": None if before is None else len(pairs),
        "gain": gain,
        "gain_low": gain_low,
        "gain_high": gain_high,
        "gain_std": gain_std,
        "p": p_value(gain, gain_std / math.sqrt(max(len(pairs), 1)), len(pairs) - 1),
        "p_holm": math.nan,
        "verdict": None,
        "seeds_needed": None,
        "printed_top1": printed[0],
        "printed_gflops": printed[1],
    }


def costs_of(runs: pd.DataFrame, ablation: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """What every network costs, counted and as it was measured in its runs: one row a network, in `summarize`'s order.
    Columns: `roadmap.analysis.schema.COSTS`, docs/tables.md.

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
    }


def scores_of(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """Network -> top1 in per cent by seed, of the runs that ended well."""
    done = runs.loc[runs["status"] == "done", ["step", "seed", "top1"]].set_index("seed")
    return {str(step): top1.astype(float) for step, top1 in done.groupby("step")["top1"]}


def differences_of(scores: Mapping[str, pd.Series], step: str, against: str) -> np.ndarray:
    """What ``step`` has more than ``against`` in percentage points, one value a seed with which both ended well."""
    none = pd.Series(dtype=float)
    return (scores.get(step, none) - scores.get(against, none)).dropna().to_numpy()


def agreement(summary: pd.DataFrame) -> Agreement:
    """How far the gains of a `summarize`d ladder rank as those that the paper prints for the same changes.

    Gains and not means, since on a road means rise along with all that came before. Both are against the same network,
    over all rungs between, roads not taken included. A rung without a gain counts as unknown.
    """
    printed = summary.set_index("step")["printed_top1"]
    compared = summary[summary["against"].notna()]
    theirs = compared["printed_top1"].to_numpy(float) - printed.reindex(compared["against"]).to_numpy(float)
    known = ~pd.isna(theirs)
    return rank_agreement(compared["gain"].to_numpy(float)[known], theirs[known])


def printed_gains(regime: str) -> pd.DataFrame:
    """What the paper's own printed means and deviations say of its gains: one row a rung but the start, in its order.

    step, adopted, against, gain, gain_low, gain_high, p, p_holm, verdict
        As in `summarize`, but by Welch's t-test of two independent samples of `PRINTED_RUNS` runs each, for the paper
        says nothing of single seeds. Printed deviations are taken for sample deviations. Holm's correction is over all
        rungs that have one, and so has what they compare with; in Table 11 none has.
    std_error, freedom
        The standard error of the gain in percentage points, and its degrees of freedom.

    Raises `RoadmapError` for a regime that there is not.
    """
    steps = ladder(regime)
    ways, printed = _ladder_steps(regime), printed_table(regime)
    rows: list[dict[str, Any]] = []
    for rung in list(steps)[1:]:
        against = str(baseline(rung.name, ways, ways))
        gain, std_error, freedom = welch(_printed_sample(printed[rung.name]), _printed_sample(printed[against]))
        half = half_width(std_error, freedom)
        rows.append({
            "step": rung.name, "adopted": rung.adopted, "against": against, "gain": gain, "gain_low": gain - half,
            "gain_high": gain + half, "std_error": std_error, "freedom": freedom,
            "p": p_value(gain, std_error, freedom),
        })  # fmt: skip
    for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p_holm, "verdict": verdict(row["gain"], p_holm)}
    return pd.DataFrame(rows)


def _printed_sample(row: PrintedRow) -> Sample:
    return Sample(row.top1, math.nan if row.top1_std is None else row.top1_std, PRINTED_RUNS)


def completed(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the columns and dtypes of `roadmap.analysis.schema.RUNS`, whatever version wrote them, and
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
    runs["ablation"] = runs["ablation"].astype(object).where(runs["ablation"].notna(), "ladder")
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


def steps_in(text: str) -> tuple[str, ...]:
    """The steps of a network, from the column ``steps``."""
    return tuple(text.split("+")) if text else ()


def design_of(runs: pd.DataFrame, ablation: Mapping[str, Any]) -> str:
    """The ablation design of `completed` runs: what study.json says, else what they say themselves."""
    return str(ablation.get("design") or runs.sort_values("reference", kind="stable")["ablation"].iloc[0])


def networks_of(runs: pd.DataFrame, ablation: Mapping[str, Any]) -> list[str]:
    """Names of the networks of `completed` runs: those of a ladder in its order, of other designs as the study trained
    them, and the references last."""
    names = list(dict.fromkeys(runs.loc[~runs["reference"], "step"]))
    if names and design_of(runs, ablation) == "ladder":
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


def baseline(step: str, ways: Mapping[str, tuple[str, ...]], present: Collection[str]) -> str | None:
    """The network on the way to ``step`` that it is compared with, None where there is none.

    ``ways``: network -> its steps in the order in which they came. Of the networks of ``present`` whose steps are a
    beginning of this one's, it is that with most steps.
    """
    own = ways.get(step, ())
    before = [name for name, way in ways.items() if name in present and len(way) < len(own) and own[: len(way)] == way]
    return max(before, key=lambda name: len(ways[name]), default=None)
