"""Rank agreement, the paper's own table through the estimator, and the verdicts of every question's table."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from ablations import FACTORS, make_ablation, make_sweep
from scipy import stats
from test_analysis import full_scores, make_runs, row_of
from test_effects import additive, by_effect, effects, interacting, lacking, noisy

from roadmap.ladders.rungs import ladder
from roadmap.questions import questions
from roadmap.reference import printed_table
from roadmap.results.effects import COMMON
from roadmap.results.estimation import Sample, estimate
from roadmap.results.shown import readable
from roadmap.results.statistics import mean_interval, pooled_deviation, rank_agreement
from roadmap.results.study import Study
from roadmap.results.tables import agreement, printed_effects, summarize


def test_intervals_cover_the_truth():
    samples = np.random.default_rng(2).normal(3, 2, size=(3000, 3))
    held = [low <= 3 <= high for _, _, low, high in map(mean_interval, samples)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.013)


def test_deviations_are_pooled_by_their_seeds():
    assert pooled_deviation([1.0, 2.0, math.nan], [3, 2, 0]) == pytest.approx(math.sqrt((2 * 1 + 1 * 4) / 3))
    assert math.isnan(pooled_deviation([math.nan], [1]))


# --- the paper's own table


def test_the_papers_own_table_goes_through_the_same_estimator():
    table = printed_effects("resnet50").set_index("effect")
    printed = printed_table("resnet50")
    names = [rung.name for rung in ladder()]
    samples = [
        Sample(1, printed[name].top1, math.nan)
        if printed[name].top1_std is None
        else Sample(3, printed[name].top1, printed[name].top1_std ** 2)
        for name in names
    ]
    contrasts = np.array([
        [(name == effect) - (name == row["against"]) for name in names] for effect, row in table.iterrows()
    ], dtype=float)  # fmt: skip
    by_hand = estimate(samples, contrasts, matters=0.2)
    assert table["low"].tolist() == pytest.approx([one.low for one in by_hand])
    assert table["verdict"].tolist() == [one.verdict for one in by_hand]
    undecided = table.index[table["verdict"] == "open"]
    assert set(undecided) <= {"patchify_stem", "inverted_bottleneck", "gelu", "fewer_norms", "layer_norm"}
    assert table.loc[["depthwise_conv", "move_up_depthwise"], "verdict"].tolist() == ["loss", "loss"]
    assert table.loc[["modern_recipe", "increase_width", "fewer_activations"], "verdict"].tolist() == ["gain"] * 3


def test_without_deviations_nothing_is_said():
    table = printed_effects("resnet200")
    assert len(table) == 16 and table["estimate"].notna().all()
    assert table[["p", "p_all", "low", "verdict"]].isna().all(axis=None)


# --- rank agreement


def test_tau_by_hand():
    ours, theirs = [1.0, 2.0, 2.0, 4.0, 3.0, 5.0], [2.0, 1.0, 3.0, 3.0, 5.0, 6.0]
    pairs = list(itertools.combinations(range(6), 2))
    ahead, behind = (np.array([np.sign(side[j] - side[i]) for i, j in pairs]) for side in (ours, theirs))
    found = rank_agreement(ours, theirs)
    assert found.tau == pytest.approx((ahead @ behind) / math.sqrt((ahead**2).sum() * (behind**2).sum()))
    assert math.atanh(found.high) - math.atanh(found.tau) == pytest.approx(1.959964 * math.sqrt(0.437 / 2))
    assert math.atanh(found.low) + math.atanh(found.high) == pytest.approx(2 * math.atanh(found.tau))
    assert (found.rungs, found.unknown) == (6, 0)
    # 80.64 - 80.50 and 81.41 - 81.27 are a tie, although not to the last bit.
    assert rank_agreement([80.64 - 80.50, 81.41 - 81.27, 1], [1, 2, 3]).tau < 1


def test_few_rungs_have_no_interval():
    assert (
        str(rank_agreement([1.0, 2.0, math.nan, 3.0], [1.0, 3.0, 4.0, 2.0])) == "+0.33 over 3 rungs, 1 without a value"
    )
    same = rank_agreement(range(9), range(9))
    assert same.tau == pytest.approx(1) and math.isnan(same.low) and same.p < 0.001
    for nothing in (rank_agreement([1.0], [2.0]), rank_agreement([], []), rank_agreement([1.0, 1.0], [1.0, 2.0])):
        assert math.isnan(nothing.tau) and str(nothing) == "unknown"


def test_intervals_of_tau_cover_the_truth():
    """Of normal values with correlation r tau is 2 / pi asin r (Kendall)."""
    generator = np.random.default_rng(5)
    truth = 2 / math.pi * math.asin(0.6)
    found = [rank_agreement(*generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 14).T) for _ in range(500)]
    assert np.mean([one.low <= truth <= one.high for one in found]) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
def test_a_study_like_the_paper_agrees_with_it(regime):
    scores = {rung.name: {0: 3 * rung.printed.top1 - 170} for rung in ladder(regime)}
    assert agreement(summarize(make_runs(scores, regime=regime))).tau == pytest.approx(1), "one seed is enough"
    upside = {step: {0: -seeds[0] / 3 + 90} for step, seeds in scores.items()}
    assert agreement(summarize(make_runs(upside, regime=regime))).tau == pytest.approx(-1)
    lost = agreement(summarize(make_runs(scores | {"kernel_5": {0: None}}, regime=regime)))
    assert (lost.rungs, lost.unknown) == (13, 0), "roads not taken are left out"
    without = agreement(summarize(make_runs(scores | {"gelu": {0: None}}, regime=regime)))
    assert (without.rungs, without.unknown) == (12, 1), "a lost rung is unknown"
    # The gain of the rung after a lost one is that of both changes, there as here.
    assert agreement(summarize(make_runs(scores | {"large_kernel": {0: None}}, regime=regime))).tau == pytest.approx(1)


# --- tables


def test_a_summary_has_the_gains_of_its_effects():
    runs = make_runs(full_scores())
    summary = summarize(runs).set_index("step")
    table = by_effect(runs, {})
    for effect, step in (("estimate", "gain"), ("low", "gain_low"), ("high", "gain_high"), ("p_all", "p_all")):
        assert table[effect].tolist() == pytest.approx(summary.loc[table.index, step].tolist()), effect
    assert summary.loc["modern_recipe", "verdict"] == "gain" and summary.loc["depthwise_conv", "gain"] < 0
    assert row_of(summarize(runs), "resnet50")[["p", "p_all", "verdict"]].isna().all()


def test_seeds_may_differ_and_a_gain_has_no_verdict_where_a_run_failed():
    runs = make_runs({
        "separate_downsample": {0: 60.0, 1: 62.0, 2: 61.0},
        "gelu": {0: 50.0, 1: 57.0, 2: 51.1, 3: 90.0},
        "fewer_activations": {0: 60.0, 1: 67.1},
        "fewer_norms": {0: 70.0, 1: 72.1, 2: None},
        "layer_norm": {0: 71.0, 1: 72.5},
    })  # fmt: skip
    summary = summarize(runs).set_index("step")
    rungs = summary.loc[["gelu", "fewer_activations", "fewer_norms", "layer_norm", "separate_downsample"]]
    assert rungs[["seeds", "failed"]].to_numpy().tolist() == [[4, 0], [2, 0], [2, 1], [2, 0], [3, 0]]
    means = [62.025, 63.55, 71.05, 71.75, 61.0]
    assert rungs["gain"].tolist() == pytest.approx([math.nan, *np.diff(means)], nan_ok=True)
    assert rungs["p"].isna().tolist() == [True, False, True, True, False]


def test_one_seed_has_no_verdict():
    summary = summarize(make_runs(full_scores(seeds=1)))
    assert summary[["p", "p_all", "verdict"]].isna().all(axis=None)


@pytest.mark.parametrize("design", [*questions()])
def test_every_question_reads_its_verdicts_off_its_intervals(design):
    if design == "sweep":
        runs, facts = make_sweep({"kernel_size": [3, 5, 7]}, noisy(lambda steps, _: 50.0 + len(min(steps))))
    else:
        runs, facts = make_ablation(design, noisy(additive))
    table = effects(runs, facts)
    assert set(COMMON) <= set(table.columns) and table["estimate"].notna().all()
    t = (table["estimate"] / table["std_error"]).abs()
    assert table["p"].tolist() == pytest.approx((2 * stats.t.sf(t, table["freedom"])).tolist())
    assert table["p_all"].tolist() == pytest.approx((1 - (1 - table["p"]) ** len(table)).tolist())
    assert ((table["p_all"] < 0.05) == (table["low"] > 0) | (table["high"] < 0)).all()
    by_hand = [
        "gain" if low > 0 else "loss" if high < 0 else "negligible" if low >= -0.5 and high <= 0.5 else "open"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    assert table["verdict"].tolist() == by_hand
    assert set(readable(table)["verdict"]) == set(by_hand)


def test_drawn_orders_add_the_error_of_their_choice():
    orders = [["large_kernel", "gelu", "layer_norm"], ["gelu", "layer_norm", "large_kernel"],
              ["layer_norm", "large_kernel", "gelu"]]  # fmt: skip
    runs, facts = make_ablation("order", noisy(interacting), orders=orders)
    means = {frozenset(s.split("+")) & {*FACTORS}: group["top1"].mean() for s, group in runs.groupby("steps")}
    ways = [(frozenset(order[: order.index("gelu")]), frozenset(order[: order.index("gelu") + 1])) for order in orders]
    added = np.array([means[after] - means[before] for before, after in ways])
    drawn, every = by_effect(runs, facts).loc["gelu"], by_effect(runs, facts | {"orders": orders * 2}).loc["gelu"]
    assert drawn["estimate"] == pytest.approx(added.mean())
    # Three of six orders: half of the variance of their mean is left, by the correction for a finite population.
    of_orders = 0.5 * added.var(ddof=1) / 3
    counts = {frozenset(s.split("+")) & {*FACTORS}: len(group) for s, group in runs.groupby("steps")}
    weights = {}
    for before, after in ways:
        weights[after] = weights.get(after, 0) + 1 / 3
        weights[before] = weights.get(before, 0) - 1 / 3
    variances = {frozenset(s.split("+")) & {*FACTORS}: g["top1"].var(ddof=1) for s, g in runs.groupby("steps")}
    common = np.mean([*variances.values()])
    moderated = {key: (5 * common + 2 * variance) / 7 for key, variance in variances.items()}
    of_seeds = sum(weight**2 * moderated[key] / counts[key] for key, weight in weights.items())
    assert drawn["std_error"] == pytest.approx(math.sqrt(of_orders + of_seeds))
    assert every["std_error"] > 0


def test_failed_runs_leave_an_effect_without_a_verdict():
    runs, facts = make_ablation("leave-one-out", lacking(noisy(additive), {"gelu", "layer_norm"}, {1}, None))
    table = by_effect(runs, facts)
    assert table["verdict"].isna().tolist() == [True, False, False] and table.loc["large_kernel", "failed"] == 1


def test_a_ladder_shows_its_agreement_and_its_verdicts(tmp_path):
    text = repr(Study(tmp_path / "mine", make_runs(full_scores())))
    assert "Kendall's tau with the paper's gains +" in text and "over 13 rungs" in text
    assert "gain" in text and "open" in text and "<NA>" not in text
    assert "tau" not in repr(Study(tmp_path / "mine", pd.DataFrame(make_runs({"gelu": {0: 60.0}}))))
