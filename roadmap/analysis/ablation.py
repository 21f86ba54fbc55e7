"""What every step of an ablation is worth: one estimate with its uncertainty, by the design of the study.

A study's networks are subsets of its factors (the steps under study) on a base of steps that are in all of them. Below,
v(S) is the top1 of the network with the factors S, in per cent; every network is trained once with each of R seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from roadmap.analysis.schema import EFFECTS, typed
from roadmap.analysis.statistics import (
    accuracy_interval,
    half_width,
    holm,
    mean_interval,
    p_value,
    paired_interval,
    satterthwaite,
    verdict,
)
from roadmap.analysis.tables import completed, design_of, differences_of, scores_of, steps_in, summarize
from roadmap.checks import RoadmapError, check_choice
from roadmap.rungs import ladder

Factors = frozenset[str]
#: Design -> what study.json has to say of it, so that its effects can be told.
NEEDED: dict[str, tuple[str, ...]] = {
    "ladder": (),
    "leave-one-out": ("factors",),
    "one-at-a-time": ("factors",),
    "factorial": ("factors",),
    "order": ("factors",),
    "sweep": ("levels",),
}
#: Columns of the effects of every design.
COMMON = tuple(EFFECTS)[: list(EFFECTS).index("verdict") + 1]


def effects(runs: pd.DataFrame, ablation: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """What every step is worth: one row a step or effect, in the study's order, from one row a run.

    ``ablation`` is what study.json says of the design. The estimate is, by design:

    ladder
        v(rung) - v(the adopted one before it), see `summarize`.
    leave-one-out
        v(all factors) - v(all but this one).
    one-at-a-time
        v(this factor alone) - v(none), on the base.
    order
        The mean over the orders of what the step adds to those before it: its Shapley value (Shapley 1953), by sampled
        orders (Castro et al. 2009) or by all of them. The estimates sum to v(all factors) - v(none).
    factorial
        Main effects and two-factor interactions as Box, Hunter & Hunter (Statistics for Experimenters) define them: a
        main effect is the mean of the networks with the factor minus that of those without; the interaction of two
        is half the difference between the effect of the one with and without the other.
    sweep
        v(level) - v(base): the base level, else the network without any level, else the first one of its flag.

    The estimate is the mean over the seeds (and orders) in which all networks of it ended well. Paired by seed, with
    one value a seed, it has R - 1 degrees of freedom; of order designs see `_spread_of_mean`: with one seed their error
    tells of the choice of orders alone, and a run that failed or is missing takes the orders through its network (or
    its seed) with it. One seed has no p, even with many orders, since it says nothing of another.

    Columns: those of `roadmap.analysis.schema.EFFECTS` that the design has, docs/tables.md.

    Raises `RoadmapError` where the runs cannot be summarised, or ``ablation`` lacks what its design needs.
    """
    rows = [measured.row for measured in measure(runs, ablation)]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COMMON))
    return typed(table[[name for name in EFFECTS if name in table]], EFFECTS)


@dataclass(frozen=True)
class Measured:
    """One row of `effects`, and the values behind it: one a seed; of sampled orders the mean over seeds of each, of all
    orders that for each set which the step is added to; of sweeps the top1 of each seed."""

    row: dict[str, Any]
    values: np.ndarray


def measure(runs: pd.DataFrame, ablation: Mapping[str, Any] | None = None) -> list[Measured]:
    """The rows of `effects` with the values behind them. Raises as `effects`."""
    runs = completed(runs)
    ablation = ablation or {}
    design = design_of(runs, ablation)
    check_choice("the design of the study", design, NEEDED)
    lacking = [name for name in NEEDED[design] if not ablation.get(name)]
    if lacking:
        raise RoadmapError(f"study.json says nothing of the {lacking[0]} of this {design} study")
    if design == "ladder":
        return _judged(_on_ladder(runs, ablation))
    by_design: dict[str, Callable[[Results, Mapping[str, Any]], list[Measured]]] = {
        "leave-one-out": _left_out,
        "one-at-a-time": _added_alone,
        "order": _in_orders,
        "factorial": _factorial,
        "sweep": _sweep,
    }
    return _judged(by_design[design](Results(runs, ablation), ablation))


def _judged(measured: Sequence[Measured]) -> list[Measured]:
    """The same with p, p_holm and verdict, which all follow from estimate, std_error and freedom."""
    p = [
        p_value(one.row["estimate"], one.row["std_error"], one.row["freedom"]) if one.row["seeds"] > 1 else math.nan
        for one in measured
    ]
    return [
        Measured(one.row | {"p": own, "p_holm": p_holm, "verdict": verdict(one.row["estimate"], p_holm)}, one.values)
        for one, own, p_holm in zip(measured, p, holm(p), strict=True)
    ]


class Results:
    """The networks of `completed` runs by their factors: top1 and cost of each, and what failed or is missing.

    ``seeds`` are those of the study. A network that is there under two names counts once. Networks with steps that are
    neither factors nor in the base are no part of the design.
    """

    def __init__(self, runs: pd.DataFrame, ablation: Mapping[str, Any]) -> None:
        runs = runs.loc[~runs["reference"], ["regime", "step", "steps", "seed", "status", "top1", "gmacs", "params"]]
        levels = ablation.get("levels") or {}
        self.factors: list[str] = [*itertools.chain(*levels.values())] if levels else list(ablation["factors"])
        known = {*self.factors, *ablation.get("base", ()), *(ladder(regime).start.name for regime in runs["regime"])}
        self.seeds: list[int] = sorted(runs["seed"].unique())
        self.names: dict[Factors, str] = {}
        self._top1: dict[Factors, np.ndarray] = {}
        self._failed: dict[Factors, int] = {}
        self._trained: dict[Factors, int] = {}
        self._cost: dict[Factors, np.ndarray] = {}
        for step, group in runs.groupby("step", sort=False):
            steps = steps_in(group["steps"].iloc[0])
            factors = frozenset(steps) & frozenset(self.factors)
            if not known.issuperset(steps) or factors in self.names:
                continue
            done = group.loc[group["status"] == "done", ["seed", "top1"]].set_index("seed")["top1"]
            self.names[factors] = str(step)
            self._top1[factors] = done.reindex(self.seeds).to_numpy()
            self._failed[factors] = len(group) - len(done)
            self._trained[factors] = len(group)
            self._cost[factors] = group[["gmacs", "params"]].iloc[0].to_numpy(float)

    def top1(self, networks: Iterable[Factors]) -> np.ndarray:
        """(networks, seeds): top1 in per cent, NaN where a run failed or is missing."""
        return np.array([self._top1.get(network, np.full(len(self.seeds), math.nan)) for network in networks])

    def cost(self, networks: Iterable[Factors]) -> np.ndarray:
        """(networks, 2): GMACs and parameters, NaN where a network is missing."""
        return np.array([self._cost.get(network, np.full(2, math.nan)) for network in networks])

    def row(self, effect: str, networks: Sequence[Factors], cost: np.ndarray, values: np.ndarray) -> dict[str, Any]:
        """The common columns of `effects`, from one value a seed (NaN where there is none) and a difference in cost."""
        values = values[~np.isnan(values)]
        different = set(networks)
        failed = sum(self._failed.get(network, 0) for network in different)
        mean, std, low, high = paired_interval(values, bool(failed))
        return {
            "effect": effect,
            "estimate": mean,
            "std_error": std / math.sqrt(max(len(values), 1)),
            "low": low,
            "high": high,
            "freedom": len(values) - 1 if len(values) > 1 and not failed else math.nan,
            "seeds": len(values),
            "networks": len(different),
            "failed": failed,
            "missing": sum(len(self.seeds) - self._trained.get(network, 0) for network in different),
            "gmacs": round(float(cost[0]), 12) + 0.0,  # no -0.0
            "params": round(float(cost[1]), 6) + 0.0,
        }

    def difference(self, effect: str, network: Factors, base: Factors) -> Measured:
        """v(network) - v(base), paired by seed."""
        (top1, other), (cost, other_cost) = self.top1([network, base]), self.cost([network, base])
        row = self.row(effect, [network, base], cost - other_cost, top1 - other)
        return Measured(row, _without_nan(top1 - other))


def _without_nan(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _on_ladder(runs: pd.DataFrame, ablation: Mapping[str, Any]) -> list[Measured]:
    scores = scores_of(runs)
    summary = summarize(runs, ablation).set_index("step", drop=False)
    seeds = runs.loc[~runs["reference"], "seed"].nunique()
    measured = []
    for step in summary[summary["against"].notna()].to_dict("records"):
        other = summary.loc[step["against"]]
        values = differences_of(scores, step["step"], step["against"])
        failed, done = int(step["failed"] + other["failed"]), int(step["seeds"] + other["seeds"])
        row = {
            "effect": step["step"],
            "estimate": step["gain"],
            "std_error": step["gain_std"] / math.sqrt(max(len(values), 1)),
            "low": step["gain_low"],
            "high": step["gain_high"],
            "freedom": math.nan if math.isnan(step["gain_std"]) else len(values) - 1,
            "seeds": len(values),
            "networks": 2,
            "failed": failed,
            "missing": 2 * seeds - failed - done,
            "gmacs": step["gmacs"] - other["gmacs"],
            "params": float(step["params"] - other["params"]),
            "against": step["against"],
        }
        measured.append(Measured(row, values))
    return measured


def _left_out(results: Results, ablation: Mapping[str, Any]) -> list[Measured]:
    whole = frozenset(results.factors)
    return [results.difference(factor, whole, whole - {factor}) for factor in results.factors]


def _added_alone(results: Results, ablation: Mapping[str, Any]) -> list[Measured]:
    return [results.difference(factor, frozenset([factor]), frozenset()) for factor in results.factors]


# --- orders


def _in_orders(results: Results, ablation: Mapping[str, Any]) -> list[Measured]:
    if ablation.get("exact"):
        return _in_all_orders(results)
    factors = results.factors
    orders = [tuple(order) for order in ablation.get("orders") or ()]
    if not orders:
        raise RoadmapError("study.json says nothing of the orders of this order study")
    ways = [[frozenset(order[:length]) for length in range(len(order) + 1)] for order in orders]
    networks = list(dict.fromkeys(network for way in ways for network in way))
    top1 = np.array([results.top1(way) for way in ways])  # (orders, factors + 1, seeds)
    complete, seeds = _complete_block(~np.isnan(top1).any(axis=1))
    # Step i of an order adds the difference between its networks i + 1 and i; columns go by factor.
    places = np.array([[order.index(factor) for factor in factors] for order in orders])
    added = np.take_along_axis(np.diff(top1, axis=1), places[:, :, None], axis=1)[complete][:, :, seeds]
    costs = np.array([np.diff(results.cost(way), axis=0)[place] for way, place in zip(ways, places, strict=True)])
    # Where orders were drawn twice they are no sample without replacement.
    distinct = len(set(orders)) == len(orders)
    unsampled = 1 - len(complete) / math.factorial(len(factors)) if distinct else 1.0
    measured = []
    for index, factor in enumerate(factors):
        values = added[:, index]
        row = results.row(factor, networks, costs[:, index].mean(axis=0), values.mean(axis=0) if len(values) else seeds)
        row |= _spread_of_mean(values, unsampled)
        measured.append(Measured(row, values.mean(axis=1) if values.size else np.array([])))
    return measured


def _in_all_orders(results: Results) -> list[Measured]:
    """As `_in_orders`, from all sets of factors: what a step adds to a set counts as often as orders pass there.

    One value a set, not one an order, of which there may be far too many. Orders are no source of error here.
    """
    factors = results.factors
    networks = [frozenset(names) for size in range(len(factors) + 1) for names in itertools.combinations(factors, size)]
    top1, costs = (
        dict(zip(networks, table, strict=True)) for table in (results.top1(networks), results.cost(networks))
    )
    there = {network: ~np.isnan(values) for network, values in top1.items()}
    ranked = np.argsort(-np.sum(list(there.values()), axis=0), kind="stable")
    blocks = [(_orders_through({n: bool(ok[ranked[:count]].all()) for n, ok in there.items()}, factors), ranked[:count])
              for count in range(1, len(ranked) + 1)]  # fmt: skip
    (before, after), seeds = max(blocks, key=lambda block: (block[0][0][networks[-1]] * len(block[1]), len(block[1])))
    orders = before[networks[-1]]
    measured = []
    for factor in factors:
        passed = [(n, n | {factor}) for n in networks if factor not in n and before[n] and after[n | {factor}]]
        weights = np.array([before[n] * after[more] / orders for n, more in passed])
        added = np.array([(top1[more] - top1[n])[seeds] for n, more in passed])  # (sets, seeds)
        cost = sum((weight * (costs[more] - costs[n]) for weight, (n, more) in zip(weights, passed, strict=True)),
                   np.zeros(2) if passed else np.full(2, math.nan))  # fmt: skip
        of_seeds = weights @ added if passed else np.array([])
        row = results.row(factor, networks, cost, of_seeds)
        mean, std, low, high = mean_interval(of_seeds)
        freedom = len(of_seeds) - 1 if len(of_seeds) > 1 else math.nan
        row |= {"std_error": std / math.sqrt(max(len(of_seeds), 1)), "low": low, "high": high, "freedom": freedom}
        row["orders"] = orders
        spread = dict.fromkeys(("least", "greatest", "spread", "noise"), math.nan)
        of_sets = added.mean(axis=1) if passed else np.array([])
        if passed:
            rest = added - of_sets[:, None] - of_seeds + mean
            noise = math.sqrt(float(weights @ (rest**2).sum(axis=1)) / freedom / len(seeds))
            spread = {"least": float(of_sets.min()), "greatest": float(of_sets.max()),
                      "spread": math.sqrt(float(weights @ (of_sets - mean) ** 2)), "noise": noise}  # fmt: skip
        measured.append(Measured(row | spread, of_sets))
    return measured


def _orders_through(
    there: Mapping[Factors, bool], factors: Sequence[str]
) -> tuple[dict[Factors, int], dict[Factors, int]]:
    """(network -> ways from the empty set to it, network -> ways from it to the whole one), adding a factor at a time
    and passing only through networks that are ``there``, which names all of them, smallest first."""
    before: dict[Factors, int] = {}
    for network, known in there.items():
        before[network] = known * (sum(before[network - {factor}] for factor in network) if network else 1)
    after: dict[Factors, int] = {}
    for network, known in reversed(list(there.items())):
        rest = [factor for factor in factors if factor not in network]
        after[network] = known * (sum(after[network | {factor}] for factor in rest) if rest else 1)
    return before, after


def _complete_block(complete: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the orders and of the seeds to average over: all of whose runs are there, as many as there can be.

    ``complete``: (orders, seeds), whether all networks on the way ended well with this seed. Where runs lack, the seeds
    with most orders are taken one after the other, and as many of them as leave most pairs.
    """
    ranked = np.argsort(-complete.sum(axis=0), kind="stable")
    blocks = [(np.flatnonzero(complete[:, ranked[:count]].all(axis=1)), count) for count in range(1, len(ranked) + 1)]
    orders, count = max(blocks, key=lambda block: (len(block[0]) * block[1], block[1]))
    return orders, np.sort(ranked[: count if len(orders) else 0])


def _spread_of_mean(values: np.ndarray, unsampled: float) -> dict[str, Any]:
    """Standard error and interval of the mean of contributions (orders, seeds), and how they spread over the orders.

    Orders and seeds are drawn independently, and a contribution is a function of the two, so that its variance falls
    into a part of the orders, one of the seeds and a rest (crossed random effects), and the variance of the grand mean
    is orders / m + seeds / R + rest / (m R). It is estimated as

        V = u var(means of orders) / m + var(means of seeds) / R,  u = 1 - m / (number of all orders),

    u being the correction for a finite population. Both terms contain the rest, which
    is thus counted twice: in simulations (3 to 5 factors, 4 to 20 orders, 2 to 5 seeds, with and without interactions)
    intervals from V with Satterthwaite's degrees of freedom cover 95 to 98 %; with the rest taken off once, which is
    unbiased, degrees of freedom are so few that they cover up to 99 % and are up to two thirds longer.
    """
    names = ("std_error", "low", "high", "freedom", "least", "greatest", "spread", "noise")
    if not values.size:
        return {"orders": 0} | dict.fromkeys(names, math.nan)
    many, seeds = values.shape
    mean, of_orders, of_seeds = float(values.mean()), values.mean(axis=1), values.mean(axis=0)
    parts = [(unsampled * _variance(of_orders) / many, many - 1)] if unsampled else []
    if seeds > 1 or not unsampled:
        parts.append((_variance(of_seeds) / seeds, seeds - 1))
    variance = math.fsum(part for part, _ in parts)
    half, freedom = variance, math.nan  # 0 or NaN
    if variance > 0:
        freedom = satterthwaite(parts)
        half = half_width(math.sqrt(variance), freedom)
    rest = values - of_orders[:, None] - of_seeds + mean
    free = (many - 1) * (seeds - 1)
    noise = math.sqrt(float((rest**2).sum()) / free / seeds) if free else math.nan
    found = (math.sqrt(variance), mean - half, mean + half, freedom, float(of_orders.min()), float(of_orders.max()),
             math.sqrt(_variance(of_orders)), noise)  # fmt: skip
    return {"orders": many} | dict(zip(names, found, strict=True))


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else math.nan


# --- factorials


def _factorial(results: Results, ablation: Mapping[str, Any]) -> list[Measured]:
    factors = results.factors
    present = list(results.names)
    expected = int(2 ** len(factors) * Fraction(str(ablation.get("fraction") or 1)))
    top1, cost = results.top1(present), results.cost(present)
    # (networks, factors): +1 with the factor, -1 without it.
    signs = np.array([[1 if factor in network else -1 for factor in factors] for network in present])
    whole = len(present) == expected
    aliases = _aliases(ablation)
    told: set[Factors] = set()
    measured = []
    for effect in [*itertools.combinations(factors, 1), *itertools.combinations(factors, 2)]:
        if frozenset(effect) in told:
            continue
        same = [other for other in aliases.get(frozenset(effect), []) if frozenset(other) != frozenset(effect)]
        told |= {frozenset(other) for other in same}
        contrast = _contrast(signs, factors, effect)
        values = 2 / expected * contrast @ top1 if whole else np.full(len(results.seeds), math.nan)
        row = results.row(_term(effect), present, 2 / expected * contrast @ cost if whole else np.full(2, math.nan),
                          values)  # fmt: skip
        row["networks"] = expected
        row["missing"] += (expected - len(present)) * len(results.seeds)
        row["kind"] = "main" if len(effect) == 1 else "interaction"
        row["aliases"] = " ".join(
            f"{'+' if contrast @ _contrast(signs, factors, other) > 0 else '−'} {_term(other)}" for other in same
        )
        measured.append(Measured(row, _without_nan(values)))
    return measured


def _contrast(signs: np.ndarray, factors: Sequence[str], effect: Sequence[str]) -> np.ndarray:
    return signs[:, [factors.index(factor) for factor in effect]].prod(axis=1)


def _aliases(ablation: Mapping[str, Any]) -> dict[Factors, list[tuple[str, ...]]]:
    groups = [[tuple(effect) for effect in group] for group in ablation.get("aliases") or ()]
    return {frozenset(effect): group for group in groups for effect in group}


def _term(effect: Sequence[str]) -> str:
    return " × ".join(effect)


# --- sweeps


def _sweep(results: Results, ablation: Mapping[str, Any]) -> list[Measured]:
    combinations = _level_combinations(results, ablation)
    measured = []
    for network, name in combinations.items():
        base = _base_of_sweep(network, combinations, ablation)
        difference = results.difference(name, network, base)
        (top1,) = results.top1([network])
        values = _without_nan(top1)
        mean, std, low, high = accuracy_interval(values)
        row = difference.row
        if network == base:
            own = results.row(name, [network], np.zeros(2), np.zeros(len(values)))
            row |= own | dict.fromkeys(("estimate", "std_error", "low", "high", "freedom"), math.nan)
        row |= {"top1_mean": mean, "top1_std": std, "top1_low": low, "top1_high": high,
                "against": None if network == base else combinations[base]}  # fmt: skip
        measured.append(Measured(row, values))
    return measured


def _level_combinations(results: Results, ablation: Mapping[str, Any]) -> dict[Factors, str]:
    """Levels -> name, of every network of a sweep: by the levels in their order, the first factor slowest, those that
    lack a factor's level before those that have one. A network without levels that is none but a level's under
    another name is left out."""
    levels = [list(names) for names in ablation["levels"].values()]
    wanted = len(levels) if ablation.get("grid", True) else 1
    everything = itertools.product(*[[None, *names] for names in levels]) if wanted > 1 else (
        (level,) for level in (None, *itertools.chain(*levels))
    )  # fmt: skip
    found = {}
    for combination in everything:
        network = frozenset(level for level in combination if level)
        # What the sweep asks for belongs to it, trained yet or not; of the others, those that were trained.
        if network in results.names or len(network) == wanted:
            found[network] = ", ".join(level for level in combination if level) or results.names[network]
    (without,) = results.top1([frozenset()])
    twins = results.top1([network for network in found if network])
    if not np.isnan(without).all() and np.isclose(twins, without, rtol=0, atol=0, equal_nan=True).all(axis=1).any():
        found.pop(frozenset())
    return found


def _base_of_sweep(network: Factors, combinations: Mapping[Factors, str], ablation: Mapping[str, Any]) -> Factors:
    """What a network compares with: the named levels of its factors, else that without levels, else the first one."""
    factor_of = {level: factor for factor, names in ablation["levels"].items() for level in names}

    def factors(levels: Iterable[str]) -> set[str]:
        return {factor_of[level] for level in levels}

    named = ablation.get("base_level") or []
    named = [named] if isinstance(named, str) else list(named.values() if isinstance(named, Mapping) else named)
    own = frozenset(level for level in named if factor_of.get(level) in factors(network))
    first = (other for other in combinations if factors(other) == factors(network))
    return own if own in combinations else frozenset() if frozenset() in combinations else next(first)
