"""What is a step worth on average, whatever comes before it?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadmap.checks import RoadmapError, check_int
from roadmap.questions.question import (
    Builder,
    Cell,
    Contrast,
    Plan,
    Question,
    by_factors,
    check_number_of_networks,
    subsets,
)
from roadmap.settings import setting

Factors = frozenset[str]
#: Orders that are found in a table of runs, at most.
MOST_ORDERS = 20_000


@dataclass(frozen=True)
class Order(Question):
    """The base with every set of steps that random orders of them pass through, or with every set."""

    name = "order"
    rank = 4
    title = "In many orders"
    asks = "What is a step worth on average, whatever comes before it?"
    effect = "Shapley value"
    axis = "Accuracy gained by this step, averaged over orders (pp)"
    meaning = (
        "The effect of a step is the accuracy that it adds to the steps before it, averaged over orders: its Shapley "
        "value, and all of them sum to the difference between all steps and none"
    )
    networks = "the base with every set of steps that random orders pass through"
    example = "roadmap run --design order --orders 8"

    orders: str = setting("number of random orders in an order study, or all", "8", metavar="N|all", part="ablation")
    order_seed: int = setting("seed of the random orders in an order study", 0, metavar="N", part="ablation")

    def __post_init__(self) -> None:
        object.__setattr__(self, "orders", str(self.orders))  # YAML reads numbers

    def check(self) -> None:
        """See `Question.check`."""
        if not re.fullmatch(r"all|[1-9][0-9]{0,4}", self.orders):
            raise RoadmapError(f"orders is '{self.orders}', but must be all or a number from 1 to 99999")
        check_int("order_seed", self.order_seed, 0, 2**32 - 1)

    def plan(self, build: Builder) -> Plan:
        """Every set of steps that this many random orders pass through, or every set.

        The orders are drawn by numpy's frozen generator, so that a seed means the same orders for ever. As many orders
        as exist, or ones that pass through every set, are all of them.
        """
        import numpy as np  # not above: what only prints must not wait for it

        factors = build.factors
        if len(factors) < 2:
            raise RoadmapError("an order study needs at least two steps")
        wanted = None if self.orders == "all" else int(self.orders)
        generator = np.random.RandomState(self.order_seed)
        drawn: dict[tuple[int, ...], None] = {}  # without repetition: each order tells something new
        if wanted is not None and wanted < math.factorial(len(factors)):
            while len(drawn) < wanted:
                drawn[tuple(int(place) for place in generator.permutation(len(factors)))] = None
        prefixes = {frozenset(one[:length]) for one in drawn for length in range(len(factors) + 1)}
        exact = not drawn or len(prefixes) == 2 ** len(factors)
        if exact:
            check_number_of_networks(2 ** len(factors), "an order study of all orders")
            prefixes = {frozenset(places) for places in subsets(range(len(factors)))}
        ranked = sorted(prefixes, key=lambda places: (len(places), sorted(places)))
        networks = [build.network([factors[place] for place in sorted(places)]) for places in ranked]
        named = [] if exact else [[factors[place].name for place in one] for one in drawn]
        return build.plan(self, networks, orders=named, exact=exact)

    def remarks(self, plan: Plan) -> list[str]:
        """How many networks the orders share."""
        steps, facts = len(plan.facts["factors"]), plan.facts
        count = math.factorial(steps) if facts["exact"] else len(facts["orders"])
        return [
            f"{'all ' if facts['exact'] else ''}{count} orders of {steps} steps pass through {len(plan.networks)} "
            f"different networks; without shared prefixes they would be {count * (steps + 1)}"
        ]

    @classmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """The mean over the orders of what the step adds to those before it: its Shapley value (Shapley 1953), by
        sampled orders (Castro et al. 2009) or by all of them. Only orders enter whose networks were all trained."""
        whole, factors = by_factors(cells, facts), list(facts["factors"])
        done = {cell.name for cell in cells if cell.done}
        names = {network: name for network, name in whole.items() if name in done}
        rest = tuple(name for name in whole.values() if name not in done)
        if facts.get("exact"):
            return _of_all_orders(names, factors, rest)
        orders = [tuple(order) for order in facts.get("orders") or ()]
        if not orders:
            raise RoadmapError("study.json says nothing of the orders of this order study")
        ways = [[frozenset(order[:length]) for length in range(len(order) + 1)] for order in orders]
        complete = [(order, way) for order, way in zip(orders, ways, strict=True) if all(step in names for step in way)]
        absent = len({network for way in ways for network in way if network not in names}) - len(rest)
        rest = rest if complete else (*names.values(), *rest)
        # Where orders were drawn twice they are no sample without replacement.
        distinct = len(set(orders)) == len(orders)
        left_out = 1 - len(complete) / math.factorial(len(factors)) if distinct else 1.0
        found = []
        for factor in factors:
            places = [order.index(factor) for order, _ in complete]
            parts = [
                (names[way[place + 1]], names[way[place]]) for (_, way), place in zip(complete, places, strict=True)
            ]
            shares = [1 / len(parts)] * len(parts)
            found.append(_contrast(factor, parts, shares, len(complete), absent, left_out, rest))
        return found

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """All orders where every set of steps is there, else those whose sets all are."""
        facts = super().facts_of(cells)
        names, factors = by_factors(cells, facts), facts["factors"]
        if len(names) == 2 ** len(factors):
            return facts | {"orders": [], "exact": True}
        orders = _orders_within(names, factors)
        if not orders:
            raise RoadmapError(
                f"the networks of design {cls.name} add the steps {', '.join(factors)} one after the other, from "
                "none to all, but in this table no order has all of its networks"
            )
        return facts | {"orders": orders, "exact": False}


def _contrast(
    factor: str,
    parts: Sequence[tuple[str, str]],
    shares: Sequence[float],
    orders: int,
    absent: int,
    drawn: float | None,
    rest: Iterable[str],
) -> Contrast:
    weights: dict[str, float] = {}
    for (network, against), share in zip(parts, shares, strict=True):
        weights[network] = weights.get(network, 0.0) + share
        weights[against] = weights.get(against, 0.0) - share
    return Contrast(factor, weights, absent, {"orders": orders}, tuple(parts), tuple(shares), drawn, tuple(rest))


def _of_all_orders(names: Mapping[Factors, str], factors: Sequence[str], rest: tuple[str, ...]) -> list[Contrast]:
    """From all sets of factors: what a step adds to a set counts as often as orders pass there. One part a set, not one
    an order, of which there may be far too many. Orders are no source of error here."""
    networks = [frozenset(chosen) for chosen in subsets(factors)]
    there = {network: network in names for network in networks}
    before, after = _orders_through(there, factors)
    orders, absent = before[networks[-1]], sum(not known for known in there.values()) - len(rest)
    rest = rest if orders else (*names.values(), *rest)
    found = []
    for factor in factors:
        passed = [
            (one, one | {factor})
            for one in networks
            if factor not in one and before[one] and after[one | {factor}] and orders
        ]
        parts = [(names[more], names[one]) for one, more in passed]
        shares = [before[one] * after[more] / orders for one, more in passed]
        found.append(_contrast(factor, parts, shares, orders, absent, None, rest))
    return found


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


def _orders_within(networks: Iterable[Factors], factors: Sequence[str]) -> list[list[str]]:
    """All orders of the factors whose every set is among these networks."""
    there = set(networks)
    ways: list[list[str]] = [[]] if frozenset() in there else []
    for _ in factors:
        ways = [[*way, step] for way in ways for step in factors if step not in way and {*way, step} in there]
        if len(ways) > MOST_ORDERS:
            raise RoadmapError(f"more than {MOST_ORDERS} orders pass through these networks, but not all: name fewer")
    return ways
