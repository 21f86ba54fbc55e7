"""Adding seeds until all is decided: printed boundaries, ways that are the same however runs come in, known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from roadmap.checks import RoadmapError
from roadmap.results.estimation import GAIN, LOSS, NEGLIGIBLE, Sample, estimate
from roadmap.results.sequential import (
    DECIDED,
    EXHAUSTED,
    FIRST,
    SETTLED,
    UNTESTABLE,
    boundaries,
    levels,
    look,
)

FIFTHS = np.arange(1, 6) / 5
LADDER = np.eye(17)[1:] - np.eye(17)[:-1]
SMALL = np.eye(4)[1:] - np.eye(4)[:-1]
RULE = {"width": 1.0, "most_seeds": 10, "matters": 0.5}


def scores(means, seeds=10, seed=0, deviation=0.6):
    return np.array(means)[:, None] + np.random.default_rng(seed).normal(70, deviation, (len(means), seeds))


def trained(values, contrasts, slots=1, start=None, **rule):
    """A study from its first run to its last, with scores from ``values``: the final look, and the runs it took."""
    stored = list(start or [0] * len(values))
    while True:
        found = look([v[:n] for v, n in zip(values, stored, strict=True)], contrasts, slots=slots, **RULE | rule)
        if not found.next:
            return found, sum(stored)
        assert len(found.next) <= slots
        for network in found.next:
            stored[network] += 1


# --- boundaries


@pytest.mark.parametrize(
    ("spent", "printed"),
    [
        (4 * stats.norm.sf(stats.norm.isf(0.0125) / np.sqrt(FIFTHS)), [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
        (0.05 * np.log(1 + (math.e - 1) * FIFTHS), [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
        (0.05 * FIFTHS**2, [3.0902, 2.7141, 2.4728, 2.2799, 2.1140]),
        (0.05 * FIFTHS, [2.5758, 2.4920, 2.4108, 2.3391, 2.2755]),
    ],
    ids=["O'Brien & Fleming type", "Pocock type", "quadratic", "linear"],
)
def test_boundaries_are_those_of_lan_and_demets_programs(spent, printed):
    """Two-sided at 5 %, five equal looks, as the programs of Reboussin, DeMets, Kim & Lan (2000) print them."""
    assert boundaries(FIFTHS, spent) == pytest.approx(printed, abs=1.5e-4)


def test_boundaries_spend_what_they_are_to_spend():
    """The same probabilities by integration over the joint normal distribution, for looks at unequal distances."""
    times, spent = np.array([3.0, 4, 7, 8]), np.array([0.002, 0.01, 0.03, 0.05])
    found = np.array(boundaries(times, spent))
    correlation = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    for n in range(1, 5):
        joint = stats.multivariate_normal(np.zeros(n), correlation[:n, :n])
        inside = joint.cdf(found[:n], lower_limit=-found[:n], rng=np.random.default_rng(0))
        assert 1 - inside == pytest.approx(spent[n - 1], abs=2e-5)


def test_levels_of_all_looks():
    assert levels(16, 3) == pytest.approx((1 - 0.95 ** (1 / 16),)), "one look spends all"
    alpha = 1 - 0.95 ** (1 / 16)
    found = levels(16, 12)
    assert len(found) == 10 and found[0] == pytest.approx(alpha / 16)
    assert all(np.diff(found) > 0) and found[-1] < alpha < sum(found)
    steps = np.random.default_rng(1).normal(size=(40_000, 12))
    z = np.abs(np.cumsum(steps, axis=1) / np.sqrt(np.arange(1, 13)))[:, 2:]
    crossed = (z > stats.norm.isf(np.array(levels(1, 12)) / 2)).any(axis=1)
    assert crossed.mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 40_000))


# --- the way


def test_every_network_starts_with_three_seeds():
    values = scores([0, 0, 0, 0])
    begun = look([values[0][:2], [], values[2][:1], values[3][:5]], SMALL, slots=99, **RULE)
    assert begun.next == [1, 1, 2, 0, 1, 2] and begun.forecast is None
    assert begun.effects == [] and begun.closed == [None] * 3 and begun.counts == [2, 0, 1, 3]
    assert look([[], []], [[1, -1]], slots=3, **RULE).next == [0, 1, 0]


def test_what_closes_is_frozen_at_its_look():
    values = scores([0, 9, 9, 9])
    found, _ = trained(values, SMALL)
    first = estimate([Sample.of(v[:3]) for v in values], SMALL, matters=0.5, levels=[levels(3, 10)[0]] * 3, tests=3)
    assert found.closed[0] == DECIDED and found.effects[0] == first[0] and found.effects[0].verdict == GAIN
    assert found.counts[0] == FIRST and min(found.counts[1:]) > FIRST
    half = -stats.t.ppf(levels(3, 10)[0] / 2, first[0].freedom) * first[0].std_error
    assert first[0].high - first[0].estimate == pytest.approx(half)
    assert found.closed[1:] == [SETTLED] * 2
    for effect, why in zip(found.effects, found.closed, strict=True):
        excludes = effect.low > 0 or effect.high < 0
        assert excludes == (effect.verdict in (GAIN, LOSS)) == (effect.p_all < 0.05) == (why == DECIDED)
        assert why == DECIDED or (effect.high - effect.low) / 2 <= 1


def test_an_interval_no_wider_than_half_of_what_matters_is_negligible():
    found, _ = trained(scores([0, 0, 0, 0]), SMALL, matters=2.0)
    assert found.closed == [SETTLED] * 3 and {one.verdict for one in found.effects} == {NEGLIGIBLE}


def test_the_next_run_belongs_to_the_effect_that_closes_soonest_and_to_its_network_with_fewest_seeds():
    """Two effects without a network in common, the second all but decided; then the first, one of whose has more."""
    contrasts = np.array([[1, -1, 0, 0], [0, 0, 1, -1]])
    values = scores([0, 0, 0, 2.2], seed=3)
    start = look(values[:, :3], contrasts, **RULE)
    assert start.closed == [None, None] and start.next == [2]
    assert look([*values[:2, :3], values[2][:4], values[3][:3]], contrasts, **RULE).next == [3]
    both = look([*values[:2, :3], *values[2:]], contrasts, slots=2, **RULE)
    assert both.closed == [None, DECIDED] and both.next == [0, 1] and both.counts[:2] == [3, 3]
    more = look([values[0], values[1][:3], *values[2:]], contrasts, **RULE)
    assert more.next == [1] and more.counts[0] == 4, "runs before their turn wait for it"


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_verdicts_do_not_depend_on_when_or_how_many_at_a_time_runs_are_trained(slots):
    contrasts = np.vstack([SMALL, [[1, -1 / 3, -1 / 3, -1 / 3]]])
    for seed in range(4):
        values = scores([0, 1, 3, 3], seed=seed)
        at_once = look(values, contrasts, **RULE)
        found, used = trained(values, contrasts, slots)
        assert (found.effects, found.closed, found.counts) == (at_once.effects, at_once.closed, at_once.counts)
        assert used - sum(found.counts) < 2 * slots and (slots > 1 or used == sum(found.counts))
        killed, _ = trained(values, contrasts, slots, start=[4, 3, 6, 2])
        assert (killed.effects, killed.closed, killed.counts) == (found.effects, found.closed, found.counts)
        assert at_once.next == [] and at_once.forecast == 0


def test_a_forecast_tells_the_runs_that_are_still_needed():
    forecasts, needed = [], []
    for seed in range(12):
        values = scores([0, 0, 1, 1], seed=seed)
        begun = look(values[:, :FIRST], SMALL, **RULE)
        assert len(look(values[:, :FIRST], SMALL, slots=99, **RULE).next) == begun.forecast
        forecasts.append(begun.forecast)
        needed.append(sum(look(values, SMALL, **RULE).counts) - 4 * FIRST)
    assert np.mean(forecasts) == pytest.approx(np.mean(needed), rel=0.25) and min(needed) > 0


def test_a_failed_run_ends_its_effects_and_no_others():
    values = scores([0, 0, 0, 0])
    values[3, 3] = math.nan
    found, _ = trained(values, SMALL)
    assert found.closed[2] == UNTESTABLE and found.effects[2].verdict is None and math.isnan(found.effects[2].low)
    assert found.closed[:2] == [SETTLED] * 2 and found.counts[3] == 4
    values[0, 0] = math.nan
    assert trained(values, SMALL)[0].closed[0] == UNTESTABLE


def test_what_cannot_be_resolved_ends_with_the_most_seeds():
    found, used = trained(scores([0, 0, 0, 0], deviation=5), SMALL, most_seeds=6)
    assert found.closed == [EXHAUSTED] * 3 and found.counts == [6] * 4 and used == 24
    same, _ = trained(np.full((2, 5), 70.0), [[1, -1]], most_seeds=5)
    assert same.closed == [EXHAUSTED] and same.effects[0].verdict is None and same.effects[0].estimate == 0
    assert trained(scores([0, 0]), [[1, -1]], most_seeds=3, width=1e-3)[0].counts == [3, 3]
    assert look([[], []], np.zeros((0, 2)), **RULE).next == [0]
    assert trained(scores([0, 0]), [[0, 0]])[0].closed == [UNTESTABLE]


def test_factorial_effects_grow_all_their_networks():
    signs = np.array([[(-1) ** (network >> factor & 1) for network in range(8)] for factor in range(3)]) / 4
    values = scores(np.array([3, 0, 0]) @ signs * 2)
    found, _ = trained(values, signs, most_seeds=12, width=0.4)
    assert found.closed[0] == DECIDED and set(found.closed[1:]) <= {SETTLED, DECIDED}
    assert max(found.counts) - min(found.counts) <= 1 < min(found.counts) - 1


def test_lower_is_better_and_new_images():
    generator = np.random.default_rng(4)
    correct = [generator.random((5, 200)) < share for share in (0.3, 0.9)]
    values = [100 * one.mean(axis=1) for one in correct]
    found = look(values, [[1, -1]], lower_is_better=True, correct=correct, **RULE)
    assert found.closed == [DECIDED] and found.effects[0].verdict == GAIN and found.effects[0].images
    assert not look(values, [[1, -1]], **RULE).effects[0].images


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"most_seeds": 2}, "most_seeds is 2, but must be at least 3"),
        ({"slots": 0}, "slots is 0, but must be at least 1"),
        ({"width": 0}, "width is 0, but must be at least"),
        ({"width": math.nan}, "width is nan, but must be a finite number"),
    ],
)
def test_settings_that_make_no_sense(rule, message):
    with pytest.raises(RoadmapError, match=message):
        look([[], []], [[1, -1]], **RULE | rule)


# --- studies of known truth


def test_ladders_are_resolved_with_two_thirds_of_the_runs_of_equal_seeds():
    """17 networks, steps worth 2.5 points either way, all resolved to 1 point: 124 runs where equal seeds take 188."""
    generator, studies = np.random.default_rng(5), 20
    used, equal, wrong, held = [], [], 0, 0
    for _ in range(studies):
        truth = generator.normal(0, 2.5, 16)
        values = np.append(0, np.cumsum(truth))[:, None] + generator.normal(70, 0.6, (17, 12))
        found = look(values, LADDER, width=1, most_seeds=12, matters=0.5)
        used.append(sum(found.counts))
        signs = {GAIN: 1, LOSS: -1}
        wrong += any(signs.get(e.verdict, 0) * true < 0 for e, true in zip(found.effects, truth, strict=True))
        held += all(e.low <= true <= e.high for e, true in zip(found.effects, truth, strict=True))
        equal.append(17 * _equal_seeds(values))
    assert np.mean(used) == pytest.approx(124, abs=3 * np.std(used) / math.sqrt(studies))
    assert np.mean(equal) == pytest.approx(188, abs=3 * np.std(equal) / math.sqrt(studies))
    assert wrong == 0 and held >= studies - 2


def _equal_seeds(values):
    """The seeds of every network with which all effects are closed, looked at with the same boundaries."""
    waiting = np.ones(16, dtype=bool)
    for n, level in zip(range(3, 13), levels(16, 12), strict=True):
        samples = [Sample.of(v[:n]) for v in values]
        for e, effect in enumerate(estimate(samples, LADDER, matters=0.5, levels=[level] * 16, tests=16)):
            half = (effect.high - effect.low) / 2
            waiting[e] &= half > 1 and half >= abs(effect.estimate)
        if not waiting.any():
            break
    return n


def test_ladders_without_any_effect_have_hardly_ever_a_finding():
    generator = np.random.default_rng(6)
    studies = [look(generator.normal(70, 0.6, (17, 12)), LADDER, **RULE | {"most_seeds": 12}) for _ in range(15)]
    assert sum(DECIDED in found.closed for found in studies) <= 1
    assert all(SETTLED in found.closed for found in studies)


def test_looking_at_every_seed_finds_nothing_where_there_is_nothing():
    """Of 100 studies without any effect few have a finding; at a fixed level more than twice as many do."""
    found = {"honest": 0, "fixed": 0}
    level = 1 - 0.95 ** (1 / 3)
    for seed in range(100):
        values = scores([0, 0, 0, 0], 8, seed)
        found["honest"] += DECIDED in look(values, SMALL, width=0.5, most_seeds=8, matters=0.5).closed
        looks = [
            estimate([Sample.of(v[:n]) for v in values], SMALL, matters=0.5, levels=[level] * 3) for n in range(3, 9)
        ]
        found["fixed"] += any(one.verdict in (GAIN, LOSS) for effects in looks for one in effects)
    assert found["honest"] <= 5 + 3 * math.sqrt(5) and found["fixed"] >= 2 * found["honest"], found
