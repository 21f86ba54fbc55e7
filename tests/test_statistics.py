"""The statistics against hand formulas, scipy's own tests, simulations whose truth is known, and the paper's table."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from ablations import FACTORS, make_ablation, make_sweep
from scipy import stats
from test_analysis import full_scores, make_runs, row_of
from test_effects import additive, by_effect, interacting, lacking, noisy

from roadmap.analysis.ablation import COMMON, effects
from roadmap.analysis.statistics import (
    MOST_SEEDS,
    Sample,
    holm,
    mean_interval,
    p_value,
    pooled_deviation,
    power,
    rank_agreement,
    seeds_needed,
    verdict,
    welch,
)
from roadmap.analysis.study import Study, readable
from roadmap.analysis.tables import agreement, printed_gains, summarize
from roadmap.checks import RoadmapError
from roadmap.reference import printed_table
from roadmap.rungs import ladder

ADOPTED = [rung.name for rung in ladder() if rung.adopted]
#: Of the paper's adopted changes of the network those that its own deviations do not tell from nothing.
WITHIN = ["patchify_stem", "gelu", "fewer_norms", "layer_norm"]


def p_of(differences):
    mean, std, _, _ = mean_interval(differences)
    return p_value(mean, std / math.sqrt(len(differences)), len(differences) - 1)


# --- tests


def test_p_by_hand_and_by_scipy():
    t = 2 / (1 / math.sqrt(3))
    assert p_of([1.0, 2.0, 3.0]) == pytest.approx(1 - t / math.sqrt(t**2 + 2)), "of two degrees of freedom, closed"
    generator = np.random.default_rng(0)
    for seeds in (2, 3, 10):
        one, other = generator.normal(size=(2, seeds))
        assert p_of(one - other) == pytest.approx(stats.ttest_rel(one, other).pvalue)


def test_p_without_an_error():
    assert math.isnan(p_of([0.5, 0.5, 0.5])) and p_of([0.0, 0.0]) == 1
    assert p_of([1e-15, -2e-15, 1.1e-15]) == 1, "rounding is no difference"
    assert math.isnan(p_of([1.0])) and math.isnan(p_value(math.nan, 0, 2))


def test_accuracies_counted_on_few_images_give_no_findings_where_there_are_none():
    """Two seeds on 300 images, 17 rungs worth the same: equal differences are frequent, but no findings."""
    generator = np.random.default_rng(6)
    top1 = np.round(generator.normal(70, 1, (400, 17, 2)) * 3) / 3
    families = [holm([p_of(pair) for pair in np.diff(rungs, axis=0)]) for rungs in top1]
    assert np.mean([np.nanmin(family) < 0.05 for family in families]) < 0.08


def test_flipped_signs_of_three_seeds_cannot_tell_anything():
    differences = (5.0, 5.1, 5.2)
    means = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=3)]
    assert np.mean([mean >= max(means) for mean in means]) == 0.25


def test_holm_is_bonferroni_of_every_subset():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    p = np.random.default_rng(1).uniform(size=6) ** 3
    for index, corrected in enumerate(holm(p)):
        subsets = [s for n in range(1, 7) for s in itertools.combinations(range(6), n) if index in s]
        assert corrected == pytest.approx(max(min(1, len(s) * min(p[i] for i in s)) for s in subsets))
    assert holm([math.nan, 0.01, 0.5]) == pytest.approx([math.nan, 0.02, 0.5], nan_ok=True)
    assert holm([]) == []


def test_verdicts():
    assert [verdict(1.0, 0.049), verdict(-1.0, 0.049), verdict(1.0, 0.05)] == ["gain", "loss", "within noise"]
    assert verdict(1.0, math.nan) is None


def test_intervals_cover_the_truth():
    samples = np.random.default_rng(2).normal(3, 2, size=(3000, 3))
    held = [low <= 3 <= high for _, _, low, high in map(mean_interval, samples)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.013)


def test_of_studies_without_any_effect_one_in_twenty_has_a_finding():
    """Gains of 16 rungs that share their networks; without the correction most studies would have a finding."""
    top1 = np.random.default_rng(3).normal(70, 0.5, size=(800, 17, 3))
    plain = [[p_of(gain) for gain in study] for study in np.diff(top1, axis=1)]
    assert np.mean([min(p) < 0.05 for p in plain]) > 0.4
    assert np.mean([min(holm(p)) < 0.05 for p in plain]) <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 800)


# --- seeds


@pytest.mark.parametrize(("size", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_are_those_of_published_tables(size, seeds):
    """Cohen's small, medium and large effects, paired, two-sided at 5 %, power 0.8."""
    assert seeds_needed(size, 1.0) == seeds_needed(-3 * size, 3.0) == seeds
    assert power(size, 1.0, seeds) >= 0.8 > power(size, 1.0, seeds - 1)


@pytest.mark.parametrize(("difference", "tests"), [(1.5, 1), (0.8, 16)])
def test_so_many_seeds_find_it_as_often_as_promised(difference, tests):
    seeds = seeds_needed(difference, 0.7, tests)
    differences = np.random.default_rng(4).normal(difference, 0.7, size=(4000, seeds))
    found = np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05 / tests)
    assert found == pytest.approx(power(difference, 0.7, seeds, tests), abs=0.02) and found > 0.78


def test_extremes_of_seeds():
    assert power(1e-9, 1.0, 3) == pytest.approx(0.05) and power(1e6, 1.0, 2) == pytest.approx(1)
    assert seeds_needed(1e6, 1e-3) == 2
    assert seeds_needed(0.001, 1.0) is None and power(0.001, 1.0, MOST_SEEDS) < 0.8
    assert [seeds_needed(*nothing) for nothing in ((0.0, 1.0), (math.nan, 1.0), (1.0, math.nan), (1.0, 0.0))] == [
        None
    ] * 4
    assert seeds_needed(1.0, 1.0, wanted=0.95) > seeds_needed(1.0, 1.0)
    with pytest.raises(RoadmapError, match="power is 1, but must be"):
        seeds_needed(1.0, 1.0, wanted=1)


def test_deviations_are_pooled_by_their_seeds():
    assert pooled_deviation([1.0, 2.0, math.nan], [3, 2, 0]) == pytest.approx(math.sqrt((2 * 1 + 1 * 4) / 3))
    assert math.isnan(pooled_deviation([math.nan], [1]))


# --- the paper's own table


def test_welch_agrees_with_scipy():
    difference, error, freedom = welch(Sample(80.0, 0.1, 3), Sample(79.5, 0.3, 5))
    test = stats.ttest_ind_from_stats(80.0, 0.1, 3, 79.5, 0.3, 5, equal_var=False)
    assert difference / error == pytest.approx(test.statistic)
    assert p_value(difference, error, freedom) == pytest.approx(test.pvalue)
    assert welch(Sample(1.0, 0.0, 3), Sample(0.0, 0.0, 3))[:2] == (1, 0)


def test_four_of_the_papers_twelve_architecture_steps_lie_within_its_noise():
    table = printed_gains("resnet50")
    adopted = table[table["adopted"]].set_index("step").loc[ADOPTED[2:]]
    assert len(adopted) == 12 and adopted["verdict"].notna().all()
    assert adopted.index[adopted["verdict"] == "within noise"].tolist() == WITHIN
    assert adopted.index[adopted["p"] >= 0.05].tolist() == WITHIN, "the correction is not what makes them so"
    assert adopted.index[(adopted["gain_low"] < 0) & (adopted["gain_high"] > 0)].tolist() == WITHIN
    assert adopted.index[adopted["verdict"] == "loss"].tolist() == ["depthwise_conv", "move_up_depthwise"]
    printed = printed_table("resnet50")
    for step, row in adopted.iterrows():
        one, other = printed[step], printed[row["against"]]
        test = stats.ttest_ind_from_stats(one.top1, one.top1_std, 3, other.top1, other.top1_std, 3, equal_var=False)
        assert (row["gain"], row["p"]) == pytest.approx((one.top1 - other.top1, test.pvalue))
    roads = table[~table["adopted"]]
    assert (roads["against"] == "move_up_depthwise").all() and (roads["verdict"] == "gain").all()


def test_other_rules_find_others_in_the_papers_table():
    printed = [printed_table("resnet50")[name] for name in ADOPTED[1:]]
    gains = np.diff([row.top1 for row in printed])
    deviations = np.array([row.top1_std for row in printed])
    each = np.hypot(deviations[1:], deviations[:-1])

    def within(errors, quantile):
        return [step for step, inside in zip(ADOPTED[2:], abs(gains) < quantile * errors, strict=True) if inside]

    assert within(each / math.sqrt(3), 1.96) == [step for step in WITHIN if step != "fewer_norms"]
    pooled = math.sqrt((deviations**2).mean() * 2 / 3)
    assert set(within(pooled, stats.t.ppf(0.975, 2 * len(printed)))) == {*WITHIN, "inverted_bottleneck"}


def test_without_deviations_nothing_is_said():
    table = printed_gains("resnet200")
    assert len(table) == 16 and table["gain"].notna().all()
    assert table[["p", "p_holm", "gain_low", "verdict"]].isna().all(axis=None)
    assert printed_gains("resnet50")["p"].isna().tolist() == [True] + [False] * 15, "the start has no deviation"


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
    assert (lost.rungs, lost.unknown) == (15, 1)
    # The gain of the rung after a lost one is that of both changes, there as here.
    assert agreement(summarize(make_runs(scores | {"large_kernel": {0: None}}, regime=regime))).tau == pytest.approx(1)


# --- tables


def test_a_summary_says_how_sure_its_gains_are():
    scores = full_scores()
    summary = summarize(make_runs(scores))
    gains = summary[summary["gain"].notna()].set_index("step")
    differences = {
        step: np.subtract([*scores[step].values()], [*scores[row["against"]].values()])
        for step, row in gains.iterrows()
    }
    tests = {step: stats.ttest_1samp(values, 0) for step, values in differences.items()}
    assert gains["p"].tolist() == pytest.approx([test.pvalue for test in tests.values()])
    assert gains["p_holm"].tolist() == pytest.approx(holm(gains["p"].tolist()))
    deviation = math.sqrt(np.mean([values.var(ddof=1) for values in differences.values()]))
    row = gains.loc["gelu"]
    assert (row["gain_std"], row["verdict"]) == (pytest.approx(differences["gelu"].std(ddof=1)), "within noise")
    assert row["seeds_needed"] == seeds_needed(row["gain"], deviation, 16)
    assert gains.loc["modern_recipe", "verdict"] == "gain" and gains.loc["depthwise_conv", "gain"] < 0
    start = row_of(summary, "resnet50")
    assert start[["p", "p_holm", "verdict", "seeds_needed"]].isna().all()


def test_a_gain_is_over_the_seeds_of_both_and_has_no_verdict_where_a_run_failed():
    runs = make_runs({
        "separate_downsample": {0: 60.0, 1: 62.0, 2: 61.0},
        "gelu": {0: 50.0, 1: 57.0, 2: 51.1, 3: 90.0},
        "fewer_activations": {0: 60.0, 1: 67.1},
        "fewer_norms": {0: 70.0, 1: 72.1, 2: None},
        "layer_norm": {0: 71.0, 1: 72.5},
    })  # fmt: skip
    summary = summarize(runs).set_index("step")
    rungs = summary.loc[["gelu", "fewer_activations", "fewer_norms", "layer_norm", "separate_downsample"]]
    assert rungs[["seeds", "failed", "missing"]].to_numpy().tolist() == [
        [4, 0, 0], [2, 0, 2], [2, 1, 1], [2, 0, 2], [3, 0, 1]
    ]  # fmt: skip
    assert rungs["pairs"].fillna(0).tolist() == [0, 2, 2, 2, 2]
    assert rungs["gain"].tolist() == pytest.approx([math.nan, 10.05, 7.5, 0.7, -10.75], nan_ok=True)
    test = stats.ttest_1samp([10.0, 10.1], 0)
    found = rungs.loc["fewer_activations"]
    assert found["p"] == pytest.approx(test.pvalue)
    assert [found["gain_low"], found["gain_high"]] == pytest.approx([*test.confidence_interval()])
    assert found["verdict"] == "gain" and rungs["p"].isna().tolist() == [True, False, True, True, False]
    assert found["p_holm"] == pytest.approx(2 * found["p"]), "two tests: a network with a failed run is in none"
    measured = effects(runs).set_index("effect")
    for effect, step in (("estimate", "gain"), ("low", "gain_low"), ("seeds", "pairs"), ("p_holm", "p_holm")):
        assert measured[effect].tolist() == pytest.approx(rungs[step].tolist()[1:], nan_ok=True), effect


def test_one_seed_has_no_verdict():
    summary = summarize(make_runs(full_scores(seeds=1)))
    assert summary[["p", "p_holm", "verdict", "seeds_needed", "gain_std"]].isna().all(axis=None)
    drawn = [list(order) for order in itertools.permutations(FACTORS)][:4]
    table = effects(*make_ablation("order", noisy(interacting), seeds=1, orders=drawn))
    assert table["low"].notna().all() and table[["p", "p_holm", "verdict"]].isna().all(axis=None)


@pytest.mark.parametrize("design", ["leave-one-out", "one-at-a-time", "factorial", "order", "exact order", "sweep"])
def test_every_design_has_verdicts(design):
    if design == "sweep":
        runs, ablation = make_sweep({"size": ["size=3", "size=5", "size=7"]}, noisy(lambda steps, _: 5.0 * len(steps)))
    else:
        runs, ablation = make_ablation(design.split()[-1], noisy(additive), exact=design == "exact order")
    table = effects(runs, ablation)
    assert set(COMMON) <= set(table.columns)
    known = table[table["estimate"].notna()]
    t = (known["estimate"] / known["std_error"]).abs()
    assert known["p"].tolist() == pytest.approx((2 * stats.t.sf(t, known["freedom"])).tolist())
    assert ((known["p"] < 0.05) == (known["low"] > 0) | (known["high"] < 0)).all()
    assert known["p_holm"].tolist() == pytest.approx(holm(known["p"].tolist()))
    assert known["verdict"].notna().all() and table.loc[table["estimate"].isna(), "verdict"].isna().all()
    assert set(readable(table)["verdict"]) <= {"gain", "loss", "within noise", ""}


def test_drawn_orders_have_the_degrees_of_freedom_of_their_errors():
    orders = [["large_kernel", "gelu", "layer_norm"], ["gelu", "layer_norm", "large_kernel"],
              ["layer_norm", "large_kernel", "gelu"]]  # fmt: skip
    runs, ablation = make_ablation("order", noisy(interacting), orders=orders)
    top1 = {frozenset(s.split("+")) & {*FACTORS}: group["top1"].to_numpy() for s, group in runs.groupby("steps")}
    ways = [(frozenset(order[: order.index("gelu")]), frozenset(order[: order.index("gelu") + 1])) for order in orders]
    added = np.array([top1[after] - top1[before] for before, after in ways])
    parts = 0.5 * added.mean(axis=1).var(ddof=1) / 3, added.mean(axis=0).var(ddof=1) / 3  # three of six orders
    row = by_effect(runs, ablation).loc["gelu"]
    assert row["std_error"] == pytest.approx(math.sqrt(sum(parts)))
    assert row["freedom"] == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 2))
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(row["estimate"]) / row["std_error"], row["freedom"]))


def test_failed_runs_leave_an_effect_without_a_verdict(tmp_path):
    runs, ablation = make_ablation("leave-one-out", lacking(noisy(additive), {"gelu", "layer_norm"}, {1}, None))
    table = by_effect(runs, ablation)
    assert table["verdict"].isna().tolist() == [True, False, False] and table.loc["large_kernel", "failed"] == 1
    others = table.loc[["gelu", "layer_norm"]]
    assert others["p_holm"].tolist() == pytest.approx(holm(others["p"].tolist()))


def test_a_study_says_how_many_seeds_a_difference_needs(tmp_path):
    study = Study(tmp_path / "mine", *make_ablation("one-at-a-time", noisy(additive)))
    deviation = math.sqrt((study.effects["std_error"] ** 2 * 3).mean())
    assert study.seeds_needed(0.5) == seeds_needed(0.5, deviation, 3)
    assert study.seeds_needed(0.5, power=0.9) > study.seeds_needed(0.5) > study.seeds_needed(1)
    with pytest.raises(RoadmapError, match="difference is 0, but must be"):
        study.seeds_needed(0)
    same = make_ablation("one-at-a-time", lambda steps, seed: 70.0 + len(steps) + seed)
    one = make_ablation("one-at-a-time", additive, seeds=1)
    for alone in (one, same, (make_runs({"gelu": {0: 1.0, 1: 2.0}}), {})):
        with pytest.raises(RoadmapError, match="mine has no differences paired by two seeds or more"):
            Study(tmp_path / "mine", *alone).seeds_needed(0.5)


def test_a_ladder_shows_its_agreement_and_its_verdicts(tmp_path):
    text = repr(Study(tmp_path / "mine", make_runs(full_scores())))
    assert "Kendall's tau with the paper's gains +" in text and "over 16 rungs" in text
    assert "within noise" in text and "<NA>" not in text
    assert "tau" not in repr(Study(tmp_path / "mine", pd.DataFrame(make_runs({"gelu": {0: 60.0}}))))
