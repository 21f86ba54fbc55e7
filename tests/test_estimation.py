"""The estimator of effects against hand formulas, scipy's own tests, published tables, and studies of known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from roadmap.results import estimation
from roadmap.results.estimation import (
    GAIN,
    LOSS,
    NEGLIGIBLE,
    OPEN,
    Sample,
    default_matters,
    estimate,
    resolvable,
    verdict_of,
)

LADDER = np.eye(17)[1:] - np.eye(17)[:-1]
LEAVE_ONE_OUT = np.hstack([np.ones((13, 1)), -np.eye(13)])
PAIR = np.array([[1.0, -1.0]])


def samples_of(values):
    return [Sample.of(scores) for scores in values]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(70, 0.6, shape)


def sidak(tests):
    return 1 - 0.95 ** (1 / tests)


# --- the formulas


def test_pooled_variances_are_the_t_test_of_scipy(monkeypatch):
    monkeypatch.setattr(estimation, "PRIOR_FREEDOM", 1e9)
    one, other = noise(2, 6)
    effect = estimate(samples_of([one, other]), PAIR, matters=1)[0]
    test = stats.ttest_ind(one, other)
    interval = test.confidence_interval(0.95)
    assert (effect.p, effect.p_all, effect.freedom) == pytest.approx((test.pvalue, test.pvalue, 10))
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))


def test_variances_of_their_own_are_welchs_test(monkeypatch):
    monkeypatch.setattr(estimation, "PRIOR_FREEDOM", 0)
    one, other = noise(3), 3 * noise(7, seed=1)
    effect = estimate(samples_of([one, other]), PAIR, matters=1)[0]
    test = stats.ttest_ind(one, other, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (effect.p, effect.freedom) == pytest.approx((test.pvalue, test.df))
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))


def test_variances_are_moderated_as_in_limma_with_satterthwaites_degrees_of_freedom():
    """Every number by hand, for unequal seeds and a contrast of three networks."""
    values = [noise(4, seed=2), noise(2, seed=3), noise(6, seed=4), noise(1, seed=5)]
    contrasts = np.array([[1, -0.5, -0.5, 0], [0, 0, 1, -1]])
    s2 = [np.var(values[k], ddof=1) for k in range(3)]
    d = [3, 1, 5]
    common = sum(d[k] * s2[k] for k in range(3)) / 9
    v = [(5 * common + d[k] * s2[k]) / (5 + d[k]) for k in range(3)]
    first, second = estimate(samples_of(values), contrasts, matters=1)
    mean = [np.mean(one) for one in values]
    assert first.estimate == pytest.approx(mean[0] - (mean[1] + mean[2]) / 2)
    variance = v[0] / 4 + v[1] / 8 + v[2] / 24
    assert first.std_error**2 == pytest.approx(variance)
    prior = sum(w * 5 / (5 + d[k]) for k, w in enumerate((1 / 4, 1 / 8, 1 / 24)))
    a = [w * d[k] / (5 + d[k]) + prior * d[k] / 9 for k, w in enumerate((1 / 4, 1 / 8, 1 / 24))]
    assert sum(a[k] * s2[k] for k in range(3)) == pytest.approx(variance)
    nu = variance**2 / sum(a[k] ** 2 * v[k] ** 2 / d[k] for k in range(3))
    assert first.freedom == pytest.approx(nu)
    half = stats.t.isf(sidak(2) / 2, nu) * math.sqrt(variance)
    assert (first.low, first.high) == pytest.approx((first.estimate - half, first.estimate + half))
    assert first.p == pytest.approx(2 * stats.t.sf(abs(first.estimate) / math.sqrt(variance), nu))
    assert first.p_all == pytest.approx(1 - (1 - first.p) ** 2)
    assert second.std_error**2 == pytest.approx(v[2] / 6 + common), "one seed takes the common variance"


def test_the_interval_excludes_zero_where_p_of_all_is_below_five_per_cent():
    for seed in range(40):
        values = noise(17, 3, seed=seed) + np.arange(17)[:, None] % 5
        for effect in estimate(samples_of(values), LADDER, matters=0.5, tests=[None, 3, 40][seed % 3]):
            assert (effect.p_all < 0.05) == (effect.low > 0 or effect.high < 0) == (effect.verdict in (GAIN, LOSS))


def test_verdicts_are_read_off_the_interval():
    assert [verdict_of(*ends, 0.5) for ends in ((0.1, 9), (-9, -0.1), (-0.5, 0.5), (-0.5, 0.6), (0.1, 0.2))] == [
        GAIN,
        LOSS,
        NEGLIGIBLE,
        OPEN,
        GAIN,
    ]
    assert verdict_of(math.nan, math.nan, 0.5) is None
    assert [verdict_of(*ends, 0.5, lower_is_better=True) for ends in ((0.1, 9), (-9, -0.1))] == [LOSS, GAIN]
    values = [[70.0, 70.1, 70.2], [80.0, 80.1, 80.2]]
    assert [one.verdict for one in estimate(samples_of(values), PAIR, matters=1, lower_is_better=True)] == [GAIN]


def test_a_variance_of_its_own_is_added_with_its_degrees_of_freedom():
    samples = samples_of(noise(3, 4))
    contrasts = np.array([[1, -1, 0], [0, 1, -1]])
    plain = estimate(samples, contrasts, matters=1)
    more = estimate(samples, contrasts, matters=1, between=[(0.3, 4), (0.2, math.inf)])
    for before, after, (variance, freedom) in zip(plain, more, [(0.3, 4), (0.2, math.inf)], strict=True):
        total = before.std_error**2 + variance
        assert after.std_error**2 == pytest.approx(total)
        squares = before.std_error**4 / before.freedom + variance**2 / freedom
        assert after.freedom == pytest.approx(total**2 / squares)
    assert estimate(samples, contrasts, matters=1, between=[(0, math.inf)] * 2) == plain
    assert [one.verdict for one in estimate(samples, contrasts, matters=1, between=[(math.nan, 0), (0, 1)])][0] is None


# --- what cannot be tested


def test_no_verdict_where_a_run_failed_or_is_missing():
    samples = [*samples_of(noise(3, 3)), Sample.of([70.0, 71.0], failed=1), Sample.of([], failed=3), Sample.of([])]
    pairs = [(0, 1), (0, 3), (0, 4), (0, 5), (1, 2)]
    contrasts = np.array([np.eye(6)[i] - np.eye(6)[j] for i, j in pairs])
    found = estimate(samples, contrasts, matters=1)
    assert [one.verdict is None for one in found] == [False, True, True, True, False]
    assert found[1].estimate == pytest.approx(samples[0].mean - 70.5)
    assert math.isnan(found[2].estimate) and math.isnan(found[3].estimate)
    assert all(math.isnan(number) for number in (found[1].std_error, found[1].low, found[1].p, found[1].p_all))
    alone = estimate(samples[:3], contrasts[[0, 4], :3], matters=1)
    assert [found[0], found[4]] == alone, "neither tests nor variances of what failed count"


def test_equal_accuracies_say_nothing_of_the_noise():
    same = samples_of([[80.0, 80.0, 80.0], [60.0, 60.0, 60.0 + 1e-12]])
    effect = estimate(same, PAIR, matters=1)[0]
    assert effect.estimate == pytest.approx(20) and math.isnan(effect.low) and effect.verdict is None
    one_seed = estimate(samples_of([[80.0], [60.0]]), PAIR, matters=1)[0]
    assert one_seed.estimate == 20 and one_seed.verdict is None
    rounded = estimate(samples_of([[0.1 + 0.2, 0.7], [0.3, 0.7]]), PAIR, matters=1)[0]
    assert rounded.estimate == 0 and rounded.p == 1


def test_a_study_without_effects_or_networks():
    assert estimate([], [], matters=1) == estimate(samples_of(noise(2, 3)), np.zeros((0, 2)), matters=1) == []
    assert estimate(samples_of(noise(2, 3)), np.zeros((1, 2)), matters=1)[0].verdict is None


# --- networks whose variance is an outlier


#: (networks, runs of each) -> upper critical value of Cochran's C at 1 %, as Eisenhart, Hastay & Wallis, "Techniques of
#: Statistical Analysis" (1947), print it.
COCHRAN = {
    (3, 2): 0.9933,
    (3, 3): 0.9423,
    (4, 3): 0.8643,
    (5, 3): 0.7885,
    (5, 6): 0.5875,
    (10, 2): 0.7175,
    (10, 3): 0.5358,
    (10, 11): 0.2704,
    (15, 3): 0.4069,
    (20, 2): 0.4799,
    (20, 3): 0.3297,
    (24, 4): 0.2295,
}


@pytest.mark.parametrize(("networks", "runs"), COCHRAN)
def test_outliers_are_those_of_cochrans_printed_table(networks, runs):
    for share, expected in ((COCHRAN[networks, runs] - 2e-4, ()), (COCHRAN[networks, runs] + 2e-4, (1,))):
        variances = np.full(networks, (1 - share) / (networks - 1))
        variances[1] = share
        samples = [Sample(runs, 70.0, variance) for variance in variances]
        assert estimate(samples, np.ones((1, networks)), matters=1)[0].apart == expected


def test_one_network_in_a_hundred_studies_is_wrongly_apart_for_unequal_seeds_too():
    generator = np.random.default_rng(8)
    counts = [3, 9, 2, 5, 3, 4]
    every, apart = np.ones((1, 6)), 0
    for _ in range(2000):
        samples = [Sample(n, 0.0, generator.chisquare(n - 1) / (n - 1)) for n in counts]
        apart += bool(estimate(samples, every, matters=1)[0].apart)
    assert apart / 2000 == pytest.approx(0.01, abs=3 * math.sqrt(0.01 / 2000))


def test_a_diverged_network_is_apart_and_its_variance_its_own():
    values = noise(9, 3)
    values[2] += [-40, 0, 10]
    values[5] += [0, 9, -9]
    contrasts = np.eye(9)[1:] - np.eye(9)[:-1]
    found = estimate(samples_of(values), contrasts, matters=1)
    assert [one.apart for one in found] == [(), (2,), (2,), (), (5,), (5,), (), ()], "the test is repeated"
    calm = np.delete(values, [2, 5], axis=0).var(axis=1, ddof=1)
    moderated = (5 * calm.mean() + 2 * calm) / 7
    assert found[0].std_error ** 2 == pytest.approx(moderated[:2].sum() / 3)
    assert found[1].std_error ** 2 == pytest.approx(moderated[1] / 3 + values[2].var(ddof=1) / 3)


@pytest.mark.parametrize("variances", [[9.0, 0, 0, 0], [9.0, 9, 0, 0, 0, 0, 0, 0], [1e9, 1.0], [0, 0, 0], [1.0]])
def test_without_others_of_some_variance_no_network_is_apart(variances):
    samples = [Sample(9, 70.0, variance) for variance in variances]
    assert estimate(samples, np.ones((1, len(samples))), matters=1)[0].apart == ()


def test_the_order_of_the_networks_does_not_matter():
    values = noise(8, 3)
    values[1] += [0, 30, 90]
    values[6] += [0, 9, 3]
    contrasts = np.random.default_rng(3).normal(size=(5, 8))
    turned = np.random.default_rng(4).permutation(8)
    there = estimate(samples_of(values), contrasts, matters=1)
    here = estimate(samples_of(values[turned]), contrasts[:, turned], matters=1)
    for one, other in zip(there, here, strict=True):
        assert sorted(turned[k] for k in other.apart) == [*one.apart] == [1, 6]
        assert (one.low, one.high, one.freedom) == pytest.approx((other.low, other.high, other.freedom))


# --- new test images


def test_the_variance_over_test_images_by_hand():
    generator = np.random.default_rng(5)
    correct = [generator.random((n, 40)) < 0.7 for n in (3, 4)]
    samples = [Sample.of(100 * one.mean(axis=1), correct=one) for one in correct]
    effect = estimate(samples, PAIR, matters=1)[0]
    plain = estimate([Sample.of(100 * one.mean(axis=1)) for one in correct], PAIR, matters=1)[0]
    shares = [one.mean(axis=0) for one in correct]
    d = shares[0] - shares[1]
    scatter = sum((p * (1 - p)).mean() / (len(one) - 1) for p, one in zip(shares, correct, strict=True))
    added = 1e4 * max(0, d.var(ddof=1) - scatter) / 40
    assert effect.images and not plain.images and added > 0
    assert effect.std_error**2 == pytest.approx(plain.std_error**2 + added)
    squares = plain.std_error**4 / plain.freedom + added**2 / 39
    assert effect.freedom == pytest.approx(effect.std_error**4 / squares)


def test_intervals_speak_of_new_images_only_where_all_networks_have_records():
    generator = np.random.default_rng(6)
    records = [generator.random((3, 40)) < 0.7 for _ in range(3)]
    kinds = [None, records[0][:1], records[0][:, :30]]
    contrasts = np.array([[1, -1, 0], [0, 1, -1]])
    for instead in kinds:
        samples = [Sample.of(noise(3, seed=k), correct=one) for k, one in enumerate((instead, *records[1:]))]
        assert [one.images for one in estimate(samples, contrasts, matters=1)] == [False, True]


def test_intervals_cover_the_truth_on_new_images():
    """Networks of the same true accuracy that get other images right; seeds of each agree on most images."""
    generator = np.random.default_rng(7)
    held = {True: 0, False: 0}
    for _ in range(500):
        knows = generator.random((2, 1, 300)) < 0.8  # drawn images, which either network knows or not
        correct = knows ^ (generator.random((2, 5, 300)) < 0.05)
        for images in held:
            samples = [Sample.of(100 * one.mean(axis=1), correct=one if images else None) for one in correct]
            effect = estimate(samples, PAIR, matters=1)[0]
            held[images] += effect.low <= 0 <= effect.high
    assert held[True] / 500 == pytest.approx(0.95, abs=0.03) and held[False] / 500 < 0.7


# --- plans


def test_a_plan_says_how_long_its_intervals_will_be():
    for counts, half in (([9] + [3] * 13, 1.27), ([3] * 14, 1.57), ([4] * 14, 1.34)):
        assert resolvable(0.6, counts, LEAVE_ONE_OUT) == pytest.approx([half] * 13, rel=0.04)
    halves = []
    for seed in range(100):
        values = noise(14, 9, seed=seed)
        found = estimate(samples_of([values[0], *values[1:, :3]]), LEAVE_ONE_OUT, matters=1)
        halves += [(one.high - one.low) / 2 for one in found]
    assert np.mean(halves) == pytest.approx(resolvable(0.6, [9] + [3] * 13, LEAVE_ONE_OUT)[0], rel=0.02)
    assert resolvable(1.2, [3] * 17, LADDER) == pytest.approx([2 * one for one in resolvable(0.6, [3] * 17, LADDER)])
    assert resolvable(0.6, [3] * 17, LADDER, tests=1) < resolvable(0.6, [3] * 17, LADDER)
    assert all(math.isnan(half) for half in resolvable(0.6, [1, 1], PAIR)) and resolvable(0.6, [3, 1], PAIR)[0] > 0


def test_what_matters_follows_from_the_size_of_the_test_set():
    assert [default_matters(images) for images in (10_000, 50_000, 3_000, 15)] == [0.5, 0.2, 0.9, 10]
    assert default_matters(None) == default_matters(0) == 0.5


# --- studies of known truth: 17 networks, 16 steps, deviation 0.6 points


def simulate(deviation=0.6, seeds=3, gains=(), studies=400, heavy=False, unequal=False, shared=0.1, contrasts=LADDER):
    """Shares of (studies with a finding where there is none, gains found, studies whose intervals all hold).

    ``gains`` are the true values of as many effects, spread over the study. Runs that share a seed correlate by
    ``shared``, as the runs of the kept studies do (-0.04 to 0.16), which the estimator does not know.
    """
    generator = np.random.default_rng(11)
    many, networks = contrasts.shape
    truth = np.zeros(many)
    truth[np.linspace(2, many - 3, len(gains), dtype=int)] = gains
    means = np.linalg.lstsq(contrasts, truth, rcond=None)[0]
    counts = np.broadcast_to(seeds, networks)
    false, found, held = [], [], []
    for _ in range(studies):
        shape = networks, counts.max()
        own = generator.standard_t(3, shape) / math.sqrt(3) if heavy else generator.normal(size=shape)
        scatter = math.sqrt(1 - shared) * own + math.sqrt(shared) * generator.normal(size=shape[1])
        each = np.broadcast_to(deviation, networks)
        if unequal:
            each = each * np.sqrt(5 / generator.chisquare(5, networks))
        values = means[:, None] + each[:, None] * scatter
        samples = map(Sample, counts, *_moments(values, counts))
        effects = estimate(list(samples), contrasts, matters=0.5)
        findings = np.array([one.verdict in (GAIN, LOSS) for one in effects])
        false.append(findings[truth == 0].any())
        found.append(findings[truth != 0].mean() if gains else 0)
        held.append(all(one.low <= true <= one.high for one, true in zip(effects, truth, strict=True)))
    return np.mean(false), np.mean(found), np.mean(held)


def _moments(values, counts):
    """Mean and variance of the first scores of each network; `Sample.of` for many."""
    well = np.arange(values.shape[1]) < counts[:, None]
    mean = (values * well).sum(axis=1) / counts
    return mean, (((values - mean[:, None]) ** 2) * well).sum(axis=1) / (counts - 1)


def at_most(share, studies=400):
    """The greatest share of simulated studies that a true share of this size explains (three standard errors)."""
    return share + 3 * math.sqrt(share * (1 - share) / studies)


WITH_ONE = {name: np.where(np.arange(17) == 7, other, 0.6) for name, other in (("wild", 1.8), ("diverged", 17))}


@pytest.mark.parametrize(
    ("study", "error"),
    [
        ({}, 0.02),
        ({"unequal": True}, 0.06),
        ({"deviation": WITH_ONE["wild"]}, 0.07),
        ({"deviation": WITH_ONE["diverged"]}, 0.03),
        ({"heavy": True}, 0.02),
        ({"deviation": WITH_ONE["diverged"], "seeds": 2}, 0.10),
        ({"shared": 0}, 0.035),
    ],
    ids=["equal", "unequal", "one wild", "one diverged", "heavy tails", "diverged of two seeds", "independent seeds"],
)
def test_few_studies_without_any_effect_have_a_finding(study, error):
    false, _, held = simulate(**study)
    assert false <= at_most(error) and held >= 1 - at_most(error)


@pytest.mark.parametrize(("seeds", "powers"), [(3, (0.11, 0.78, 1)), (5, (0.28, 0.98, 1))])
def test_gains_are_found_as_often_as_promised(seeds, powers):
    for gain, power in zip((1, 2, 4), powers, strict=True):
        false, found, held = simulate(seeds=seeds, gains=[gain] * 4, studies=150)
        assert found == pytest.approx(power, abs=3 * math.sqrt(0.25 / 600) if power < 0.9 else 0.03)
        assert false <= at_most(0.04, 150) and held >= 1 - at_most(0.04, 150)


def test_a_diverged_network_does_not_hide_the_gains_of_the_others():
    assert simulate(WITH_ONE["diverged"], gains=[2] * 4, studies=150)[1] > 0.62


def test_seeds_for_the_network_that_all_are_compared_with_pay_most():
    found = [
        simulate(seeds=seeds, gains=[2] * 4, studies=150, contrasts=LEAVE_ONE_OUT)[1]
        for seeds in ([9] + [3] * 13, [3] * 14, [4] * 14)
    ]
    assert found == pytest.approx([0.95, 0.78, 0.92], abs=0.06) and found[0] > found[1] + 0.1
