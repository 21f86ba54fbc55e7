"""The statistics of a study: one row a step, with means, spreads and gains."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from roadmap.checks import RoadmapError, check_known
from roadmap.rungs import Ladder, Rung, ladder

#: Probability with which the intervals of `summarize` cover the true value, if the seeds vary normally.
CONFIDENCE = 0.95


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a step, in the ladder's order, from one row a run.

    Only runs that ended well (status ``done``) enter a mean; a step whose runs all failed has NaN there. In what
    follows x_1 ... x_n are the top1 of a step's n such runs, and t is the 97.5 % quantile of Student's t distribution
    with n - 1 degrees of freedom. Accuracies are in per cent (0 to 100), gains in percentage points.

    step, adopted
        Name of the rung; False for a road not taken.
    seeds, failed
        n, and the number of runs that failed.
    gmacs, params
        Multiply-accumulates of convolution and linear layers in 1e9 for one image of the study's size; parameters.
    top1_mean, top1_std
        Mean; sample standard deviation, sqrt(sum (x_i - mean)^2 / (n - 1)), NaN for n = 1.
    top1_low, top1_high
        95 % interval of the mean over seeds, mean -+ t * top1_std / sqrt(n); NaN for n = 1.
    against
        The step that the gain compares with: the last adopted rung before this one that has a result in this study.
        A road not taken compares with what the adopted rung beside it compares with (``kernel_9`` is another answer
        to the question of ``large_kernel``, not an addition to it). Where rungs between are missing from the study,
        the gain is that of all their changes together.
    gain
        top1_mean minus that of ``against``.
    gain_low, gain_high
        95 % interval of the gain, paired by seed: gain -+ t * std(d) / sqrt(n), where d_i is the difference of the two
        runs of one seed. NaN unless both steps ended well with the same seeds, at least two of them.
    printed_top1, printed_gflops
        What the paper prints for the step: per cent on ImageNet-1K, multiply-accumulates in 1e9 at 224 px.
    seconds_mean, images_per_second_mean
        Mean training time of a run in seconds; mean training throughput.

    Raises `RoadmapError` for an empty table, one that mixes regimes, and an unknown step.
    """
    steps = ladder(regime_of(runs))
    check_known("step", runs["step"].unique(), steps.names)
    scores = {
        str(step): group.set_index("seed")["top1"].astype(float)
        for step, group in runs[runs["status"] == "done"].groupby("step")
    }
    return pd.DataFrame(
        _summary_row(steps, rung, runs[runs["step"] == rung.name], scores)
        for rung in steps
        if (runs["step"] == rung.name).any()
    )


def _summary_row(steps: Ladder, rung: Rung, runs: pd.DataFrame, scores: Mapping[str, pd.Series]) -> dict[str, Any]:
    done = runs[runs["status"] == "done"]
    own = scores.get(rung.name, pd.Series(dtype=float))
    mean, std, low, high = mean_interval(own)
    before = baseline(steps, rung, scores)
    gain = gain_low = gain_high = math.nan
    if before is not None:
        other = scores[before.name]
        gain = mean - other.mean()
        if set(own.index) == set(other.index):
            _, _, gain_low, gain_high = mean_interval(own - other)
    return {
        "step": rung.name,
        "adopted": rung.adopted,
        "seeds": len(done),
        "failed": len(runs) - len(done),
        "gmacs": float(runs["gmacs"].iloc[0]),
        "params": int(runs["params"].iloc[0]),
        "top1_mean": mean,
        "top1_std": std,
        "top1_low": low,
        "top1_high": high,
        "against": before.name if before else None,
        "gain": gain,
        "gain_low": gain_low,
        "gain_high": gain_high,
        "printed_top1": rung.printed.top1,
        "printed_gflops": rung.printed.gflops,
        "seconds_mean": done["seconds"].astype(float).mean(),
        "images_per_second_mean": done["images_per_second"].astype(float).mean(),
    }


def mean_interval(values: Collection[float] | pd.Series) -> tuple[float, float, float, float]:
    """(mean, sample standard deviation, low, high), the last two being the 95 % t-interval of the mean.

    NaN for whatever the number of values does not allow: everything for none, all but the mean for one.
    """
    sample = np.asarray(values, dtype=float)
    count = len(sample)
    if count < 2:
        return (float(sample[0]) if count else math.nan), math.nan, math.nan, math.nan
    mean, std = float(sample.mean()), float(sample.std(ddof=1))
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(count)
    return mean, std, mean - half, mean + half


def regime_of(runs: pd.DataFrame) -> str:
    """The one regime of these runs. Raises `RoadmapError` where there is none or more than one."""
    regimes = sorted(runs["regime"].unique()) if len(runs) else []
    if not regimes:
        raise RoadmapError("there are no runs to summarise")
    if len(regimes) > 1:
        raise RoadmapError(f"runs of {' and '.join(regimes)} have no common start: take one regime at a time")
    return str(regimes[0])


def baseline(steps: Ladder, rung: Rung, present: Collection[str] | None = None) -> Rung | None:
    """The rung that ``rung`` is compared with, None for the first one: the last adopted rung before it.

    A road not taken skips the adopted rung it stands beside, which changes the same flags. ``present``: consider only
    rungs of these names.
    """
    for other in reversed(steps.rungs[: steps.names.index(rung.name)]):
        beside = not rung.adopted and other.changes.keys() == rung.changes.keys()
        if other.adopted and not beside and (present is None or other.name in present):
            return other
    return None
