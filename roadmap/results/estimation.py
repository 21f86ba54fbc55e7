"""One estimator for every effect: a contrast of the mean scores of networks, with its interval and its verdict.

An effect is `sum_k c_k * mean_k` over the networks k of a study: +1 and -1 for the gain of a step, rows of larger
numbers for Shapley values and factorial effects. Seeds are not paired: runs that share a seed hardly correlate, and
pairing costs half of the degrees of freedom.

    s2_k    sample variance of network k over its n_k seeds, with d_k = n_k - 1 degrees of freedom
    apart   networks whose s2_k is an outlier by Cochran's test, repeated, at 1 %
    s2_0    mean of the s2_k that are not apart, weighted by d_k
    v_k     (d0 * s2_0 + d_k * s2_k) / (d0 + d_k), d0 = 5; s2_k itself where apart
    SE^2    sum_k c_k^2 * v_k / n_k. Every v_k is a weighted mean of the s2_j, so this is sum_j a_j * s2_j for some a_j
    nu      SE^4 / sum_j (a_j^2 * v_j^2 / d_j)
    low, high   estimate -+ SE * t(1 - (1 - 0.95^(1/m)) / 2; nu) for m effects; all m intervals hold at once
    p_all   1 - (1 - p)^m

A verdict is read off the interval and off nothing else. A network whose runs partly failed has no known variance (the
runs that survive are a selection), so its effects have an estimate, but no interval and no verdict.

Scores are percentages (or any other score), differences percentage points (or the score's unit).

Sources
-------
Cochran, "The distribution of the largest of a set of estimated variances as a fraction of their total" (1941), and
't Lam, "Scrutiny of variance results for outliers: Cochran's test optimized" (2010), for unequal counts; repeated as in
ISO 5725-2. Smyth, "Linear models and empirical Bayes methods for assessing differential expression" (2004), for v_k;
d0 is fixed, since three seeds cannot estimate it. Satterthwaite, "An approximate distribution of estimates of variance
components" (1946). Sidak, "Rectangular confidence regions for the means of multivariate normal distributions" (1967).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import betaincc, stdtr, stdtrit

#: Probability with which all intervals of a study hold at once.
CONFIDENCE = 0.95
#: Degrees of freedom d0 with which the common variance enters that of each network. A compromise: with less, three
#: seeds find little; with more, intervals are too short where the variances of networks differ.
PRIOR_FREEDOM = 5
#: Level of Cochran's test, that of an "outlier" in ISO 5725-2.
OUTLIER_LEVEL = 0.01
#: Differences smaller than this are rounding of floating-point numbers.
ROUNDING = 1e-9
#: Verdicts. An effect that cannot be tested has none.
GAIN, LOSS, NEGLIGIBLE, OPEN = "gain", "loss", "negligible", "open"
FINDINGS = (GAIN, LOSS)


@dataclass(frozen=True)
class Sample:
    """Runs of one network that ended well.

    ``count`` runs have the mean score ``mean`` (NaN for none) and the sample variance ``variance`` (NaN for fewer than
    two); ``failed`` more runs did not end well. ``correct``, where it is known, says which test images each run got
    right: bool, (runs, test images), the images in the same order for all networks.
    """

    count: int
    mean: float
    variance: float
    failed: int = 0
    correct: np.ndarray | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, values: Iterable[float], failed: int = 0, correct: np.ndarray | None = None) -> Sample:
        """The sample of these scores, one a run that ended well."""
        scores = np.array([*values], dtype=float)
        mean = float(scores.mean()) if len(scores) else math.nan
        variance = float(scores.var(ddof=1)) if len(scores) > 1 else math.nan
        return cls(len(scores), mean, variance, failed, correct)


@dataclass(frozen=True)
class Effect:
    """One contrast of network means; every number but ``estimate`` is NaN where it cannot be tested.

    ``p`` is the two-sided p of Student's t with ``freedom`` degrees of freedom, ``p_all`` the same corrected for all
    effects of the study: below 5 % exactly where the interval from ``low`` to ``high`` excludes zero. ``verdict`` is
    None where there is no interval. ``apart`` are the indices of those of its networks whose variance is an outlier.
    ``images`` says whether the interval holds for new test images, too, and not only for new seeds on the same ones.
    """

    estimate: float
    std_error: float
    freedom: float
    low: float
    high: float
    p: float
    p_all: float
    verdict: str | None
    apart: tuple[int, ...]
    images: bool


def estimate(
    samples: Sequence[Sample],
    contrasts: np.ndarray,
    *,
    matters: float,
    between: Sequence[tuple[float, float]] | None = None,
    lower_is_better: bool = False,
    tests: int | None = None,
    levels: np.ndarray | None = None,
) -> list[Effect]:
    """One effect for each row of ``contrasts`` (effects, networks), the networks being those of ``samples``.

    All samples inform the common variance, whether or not a contrast uses them. A network with one seed takes the
    common variance for its own. No interval and no verdict: where one of its networks has no run or a failed one, where
    no network has two runs, and where all known variances are zero. Accuracies are counts of images, so that on few
    images a handful of runs often agree, which says nothing of the noise.

    ``matters`` is the smallest difference that matters, see `verdict_of`. ``between`` adds to the variance of each
    effect an independent one with its degrees of freedom, which may be infinite (drawn orders of an order study).
    ``tests`` is the number m of effects that shall hold at once; by default the number of those that have an interval.
    ``levels`` are the probabilities (effects,) with which each interval may err, where that is not Sidak's
    1 - 0.95^(1/m): at one of several looks (see `roadmap.results.sequential`). There p_all is that of p times Sidak's
    level over this one, which keeps it below 5 % exactly where the interval excludes zero.
    """
    contrasts = np.asarray(contrasts, dtype=float).reshape(len(contrasts), len(samples))
    used = contrasts != 0
    counts = np.array([sample.count for sample in samples])
    known = np.array([sample.count > 0 and not sample.failed for sample in samples], dtype=bool)
    moderated = Moderated.of(samples)
    means = np.array([sample.mean for sample in samples])
    estimates = np.where(used, contrasts * means, 0).sum(axis=1)
    estimates[abs(estimates) < ROUNDING] = 0

    of_seeds, squares = moderated.variance(contrasts**2 / np.maximum(counts, 1))
    testable = (known | ~used).all(axis=1) & (of_seeds > 0)

    of_images = [_of_images(samples, row) for row in contrasts]
    total, none = of_seeds, (0.0, math.inf)
    for terms in (between or [none] * len(contrasts), [one or none for one in of_images]):
        variance, degrees = np.array(terms, dtype=float).reshape(-1, 2).T
        total = total + variance
        squares = squares + np.divide(variance**2, degrees, out=np.zeros(len(total)), where=variance != 0)
    testable &= np.isfinite(total)

    m = max(tests or int(testable.sum()), 1)
    usual = sidak(m)
    level = np.full(len(contrasts), usual) if levels is None else np.asarray(levels, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(testable, np.sqrt(total), math.nan)
        nu = np.where(testable, total**2 / squares, math.nan)
        half = -stdtrit(nu, level / 2) * error
        p = 2 * stdtr(nu, -abs(estimates / error))
        p_all = -np.expm1(m * np.log1p(-np.minimum(p * (usual / level), 1)))
    outliers = np.flatnonzero(moderated.apart).tolist()
    numbers = np.column_stack([estimates, error, nu, estimates - half, estimates + half, p, p_all]).tolist()
    return [
        Effect(
            *(value, std_error, degrees, low, high, own, corrected),
            verdict=verdict_of(low, high, matters, lower_is_better),
            apart=tuple(k for k in outliers if of_effect[k]),
            images=math.isfinite(std_error) and images is not None,
        )
        for (value, std_error, degrees, low, high, own, corrected), of_effect, images in zip(
            numbers, used, of_images, strict=True
        )
    ]


@dataclass(frozen=True)
class Moderated:
    """The variances between seeds of some networks, moderated by their common one: ``own`` are the s2_k with their
    degrees of ``freedom``, ``apart`` says which are outliers, and ``mixing`` (networks, networks) which weighted means
    of the s2_j the v_k are."""

    own: np.ndarray
    freedom: np.ndarray
    apart: np.ndarray
    mixing: np.ndarray

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Moderated:
        """Those of these samples. A network without two runs, or with a failed one, has no degrees of freedom, and its
        s2_k no weight."""
        freedom = np.array([0 if sample.failed else max(sample.count - 1, 0) for sample in samples])
        own = np.where(freedom > 0, [sample.variance for sample in samples], 0)
        own[own < ROUNDING**2] = 0
        apart = _apart(own, freedom)
        common = np.where(apart, 0, freedom)
        prior = np.where(apart, 0, PRIOR_FREEDOM)
        share = np.divide(freedom, freedom + prior, out=np.zeros(len(samples)), where=freedom > 0)
        return cls(own, freedom, apart, np.diag(share) + np.outer(1 - share, common / max(common.sum(), 1)))

    @property
    def variances(self) -> np.ndarray:
        """(networks,): the v_k; zero where no variance is known at all."""
        variances: np.ndarray = self.mixing @ self.own
        return variances

    def variance(self, loads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(effects,) twice: sum_k load_k v_k for each row of ``loads`` (effects, networks), and its square over its
        degrees of freedom, by Satterthwaite. The load of a network in a contrast of means is c_k^2 / n_k."""
        parts = loads @ self.mixing  # a_j of each effect
        return parts @ self.own, (parts * self.variances) ** 2 @ (1 / np.maximum(self.freedom, 1))


def sidak(effects: int) -> float:
    """Error rate of each interval such that all of them hold at once with `CONFIDENCE` (Šidák)."""
    return -math.expm1(math.log(CONFIDENCE) / max(effects, 1))


def verdict_of(low: float, high: float, matters: float, lower_is_better: bool = False) -> str | None:
    """`GAIN` or `LOSS` where the interval excludes zero, `NEGLIGIBLE` where it lies within -+``matters``, else `OPEN`;
    None without an interval."""
    if math.isnan(low):
        return None
    if low > 0 or high < 0:
        return GAIN if (low > 0) != lower_is_better else LOSS
    return NEGLIGIBLE if -matters <= low and high <= matters else OPEN


def _apart(variances: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Which variances (networks,) are outliers upwards by Cochran's test, repeated until none is found: bool.

    Network j's share of the sum of squares is Beta(d_j / 2, (D - d_j) / 2) where all variances are equal, D being the
    sum of the d_j. The largest deviates where the number of networks times its p is below 1 %; with equal counts that
    is Cochran's C. Two networks at least, not all of zero variance, must remain: else there is no common variance to
    deviate from. Equal variances go together, so that the order of the networks does not matter.
    """
    apart = np.zeros(len(variances), dtype=bool)
    while True:
        left = np.flatnonzero(~apart & (freedom > 0))
        squares, degrees = variances[left] * freedom[left], freedom[left]
        if len(left) < 3 or not squares.any():
            return apart
        p = betaincc(degrees / 2, (degrees.sum() - degrees) / 2, squares / squares.sum())
        rest = p > p.min()
        if len(left) * p.min() >= OUTLIER_LEVEL or rest.sum() < 2 or not squares[rest].any():
            return apart
        apart[left[~rest]] = True


def _of_images(samples: Sequence[Sample], contrast: np.ndarray) -> tuple[float, float] | None:
    """(variance, degrees of freedom) of an effect over the choice of test images; None where it is not known.

    With p_ki the share of k's runs that get image i right and d_i = sum_k c_k p_ki, in per cent,

        V = max(0, Var_i(d_i) - sum_k c_k^2 mean_i[p_ki (1 - p_ki)] / (n_k - 1)) / images,

    the second term being what the seeds alone would scatter the d_i, estimated without bias.
    """
    records = [(100 * c, sample.correct) for c, sample in zip(contrast, samples, strict=True) if c]
    known = [(c, record) for c, record in records if record is not None and len(record) > 1]
    sizes = {record.shape[1] for _, record in known}
    if len(known) < len(records) or len(sizes) != 1 or (images := sizes.pop()) < 2:
        return None
    differences, scatter = np.zeros(images), 0.0
    for c, record in known:
        share = record.mean(axis=0)
        differences += c * share
        scatter += c**2 * float((share * (1 - share)).mean()) / (len(record) - 1)
    return max(0.0, float(differences.var(ddof=1)) - scatter) / images, images - 1


def resolvable(
    deviation: float, counts: Sequence[int], contrasts: np.ndarray, *, tests: int | None = None
) -> list[float]:
    """Half the lengths of the intervals that a plan can expect, one for each row of ``contrasts``.

    ``deviation`` is the standard deviation between seeds, the same for all networks, ``counts`` their seeds. NaN where
    no network has two seeds. A plan looks at these alone, and never at an observed gain (Stein, "A two-sample test for
    a linear hypothesis whose power is independent of the variance", 1945).
    """
    samples = [Sample(count, 0.0, deviation**2 if count > 1 else math.nan) for count in counts]
    return [(one.high - one.low) / 2 for one in estimate(samples, contrasts, matters=0, tests=tests)]


def default_matters(test_images: int | None) -> float:
    """The smallest difference in accuracy that matters, in percentage points, if a study says nothing of it.

    One standard error of an accuracy over this number of test images, rounded to one digit: less than that, another
    test set of the same size changes an accuracy by chance. Taken at 50 %, where it is largest: 0.5 points for 10,000
    images, 0.2 for 50,000, 0.9 for 3,000. Where the number is not known it is that of 10,000 images.
    """
    return float(f"{50 / math.sqrt(test_images or 10_000):.0e}")
