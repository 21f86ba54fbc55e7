"""Ablation designs: the rules that turn steps into the networks that answer a question about them. Needs no torch.

=================  ==========================================================  ==============================
design             networks of a base B and the steps F that it is about       what it answers
=================  ==========================================================  ==============================
ladder             B, then F one after the other, each kept                    where one road leads
leave-one-out      B with all of F, and that without each                      what breaks without a step
one-at-a-time      B, and B with each of F                                     what a step brings alone
factorial          B with every subset of F, or a balanced fraction of them    which steps need each other
order              B with every set that random orders of F pass through       what a step is worth on average
sweep              B with each level of a flag                                 how much of it
=================  ==========================================================  ==============================

A network is the set of its steps: orders that pass through the same set share its runs.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.steps import Step, contradiction, is_alternative

DESIGNS = ("ladder", "leave-one-out", "one-at-a-time", "factorial", "order", "sweep")
#: An ablation of more networks than this is a mistake.
MOST_NETWORKS = 20_000
#: A network of more steps than this, with as many left out, is called by their numbers.
NAMED = 2
#: All choices of generators are looked through where they have so many words together (two seconds); else from so many
#: beginnings.
MOST_WORDS, RESTARTS = 6_000_000, 20


@dataclass(frozen=True)
class Network:
    """One network of a study: its name there, the steps that make it of the ladder's start, and whether what follows
    builds upon it."""

    name: str
    steps: tuple[Step, ...]
    adopted: bool = True

    @property
    def key(self) -> frozenset[str]:
        """Names of its steps."""
        return frozenset(step.name for step in self.steps)


@dataclass(frozen=True)
class Ablation:
    """What a design asks for: its networks in order, the steps of its ``base``, which all of them have, and the
    ``facts`` that reading its results needs, as plain values.

    ``facts``: the ``design``; ``factors``, names of the steps that it is about; ``base``, of those that are always in;
    ``steps``, what each is; and of an order study its ``orders`` and whether they are all there are (``exact``), of a
    factorial its ``fraction``, ``generators`` and ``aliases``, of a sweep the ``levels`` of each flag.
    """

    design: str
    networks: tuple[Network, ...]
    base: tuple[Step, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """What a reader of the list of networks should know, in sentences."""
        facts, count = self.facts, len(self.networks)
        remarks = []
        if any(network.name.startswith("steps ") for network in self.networks):
            listed = ", ".join(f"{number} {name}" for number, name in enumerate(facts["factors"], 1))
            remarks.append(f"steps: {listed}")
        if self.design == "order":
            steps = len(facts["factors"])
            if facts["exact"]:
                apart = math.factorial(steps) * (steps + 1)
                orders = f"all {math.factorial(steps)} orders"
            else:
                apart, orders = len(facts["orders"]) * (steps + 1), f"{len(facts['orders'])} orders"
            remarks.append(
                f"{orders} of {steps} steps pass through {count} different networks; without shared prefixes they "
                f"would be {apart}"
            )
        if self.design == "factorial" and facts["generators"]:
            remarks.append(
                f"a fraction of {facts['fraction']}, resolution {facts['resolution']}: {', '.join(facts['generators'])}"
            )
            remarks += [
                f"cannot be told apart: {' = '.join(' × '.join(effect) for effect in group)}"
                for group in facts["aliases"]
            ]
        return remarks

    @property
    def probes(self) -> list[Network]:
        """Networks that are not trained, but planned to see that a step of a fraction changes something, where no two
        networks differ in a single one: the base without any step, and with each."""
        if self.design != "factorial" or not self.facts["generators"]:
            return []
        factors = [step for step in {step.name: step for network in self.networks for step in network.steps}.values()
                   if step not in self.base]  # fmt: skip
        probes = [Network("the base", self.base), *(Network(f"the base with {step.name}", (*self.base, step))
                                                    for step in factors)]  # fmt: skip
        there = {network.key for network in self.networks}
        return [probe for probe in probes if probe.key not in there]

    @property
    def pairs(self) -> dict[str, list[tuple[Network, Network]]]:
        """Step -> the pairs of networks, without and with it, that differ in it alone; on a ladder all earlier networks
        with the one that it makes. A sweep, whose levels are alternatives, has none."""
        if self.design == "sweep":
            return {}
        networks = [*self.networks, *self.probes]
        pairs: dict[str, list[tuple[Network, Network]]] = {}
        if self.design == "ladder":
            for place, network in enumerate(networks[1:], 1):
                pairs[network.steps[-1].name] = [(one, network) for one in networks[:place]]
            return pairs
        known = {network.key: network for network in networks}
        for network in networks:
            for name in network.key:
                without = known.get(network.key - {name})
                if without is not None:
                    pairs.setdefault(name, []).append((without, network))
        return pairs


def _facts(design: str, base: Sequence[Step], factors: Sequence[Step], **more: Any) -> dict[str, Any]:
    return {
        "design": design,
        "factors": [step.name for step in factors],
        "base": [step.name for step in base],
        "steps": [
            {"name": step.name, "why": step.why, "section": step.section, "change": step.change,
             "adopted": step.adopted, "settings": step.settings}
            for step in [*base, *factors]
        ],
        **more,
    }  # fmt: skip


class Builder:
    """Makes the networks of a base and the steps that a design is about.

    ``base``: steps that are always in; ``name``: what the network of the base alone is called; ``positions``: names of
    steps in the order in which a network lists them. Raises `RoadmapError` where two steps contradict each other.
    """

    def __init__(self, base: Sequence[Step], name: str, factors: Sequence[Step], positions: Sequence[str]) -> None:
        names = [step.name for step in factors]
        self.base, self.name, self.factors = tuple(base), name, tuple(factors)
        self._place = {name: place for place, name in enumerate([*positions, *names])}

    def network(self, chosen: Iterable[Step], called: str | None = None) -> Network:
        """The network of the base and some of the factors, in whatever order."""
        taken = [step for step in self.factors if step in list(chosen)]
        together = sorted([*self.base, *taken], key=lambda step: self._place[step.name])
        if why := contradiction(taken):
            raise RoadmapError(f"{why}; leave one of them out of steps, or sweep the flag")
        return Network(called or self._called(taken), tuple(together))

    def _called(self, taken: Sequence[Step]) -> str:
        left = [step.name for step in self.factors if step not in taken]
        if not taken:
            return self.name
        if not left:
            return "all"
        if len(taken) <= min(len(left), NAMED):
            return f"with {' & '.join(step.name for step in taken)}"
        if len(left) <= NAMED:
            return f"all but {' & '.join(left)}"
        return f"steps {_ranges([self.factors.index(step) + 1 for step in taken])}"


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as ``1-4 7 9-10``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def ladder_of(base: Sequence[Step], name: str, factors: Sequence[Step]) -> Ablation:
    """Each step on those before it; a road not taken is measured, and not built upon."""
    taken = list(base)
    networks = [Network(name, tuple(base))]
    for step in factors:
        path = [one for one in taken if step.adopted or not is_alternative(step, one)]
        networks.append(Network(step.name, (*path, step), step.adopted))
        if step.adopted:
            taken.append(step)
    return Ablation("ladder", tuple(networks), tuple(base), _facts("ladder", base, factors))


def leave_one_out(build: Builder) -> Ablation:
    """All steps, and all but each."""
    networks = [build.network(build.factors)]
    networks += [
        build.network([step for step in build.factors if step != left], f"all but {left.name}")
        for left in build.factors
    ]
    return Ablation("leave-one-out", tuple(networks), build.base, _facts("leave-one-out", build.base, build.factors))


def one_at_a_time(build: Builder) -> Ablation:
    """The base, and the base with each step."""
    networks = [build.network([]), *(build.network([step], f"with {step.name}") for step in build.factors)]
    return Ablation("one-at-a-time", tuple(networks), build.base, _facts("one-at-a-time", build.base, build.factors))


def order(build: Builder, orders: int | None, seed: int) -> Ablation:
    """Every set of steps that so many random orders pass through; None: every set there is.

    The orders are drawn by numpy's frozen generator, so that a seed means the same orders for ever. As many orders as
    there are, or ones that pass through every set, are all of them.
    """
    import numpy as np  # not above: what only prints must not wait for it

    factors = build.factors
    if len(factors) < 2:
        raise RoadmapError("an order study needs two steps at least")
    generator = np.random.RandomState(seed)
    drawn: dict[tuple[int, ...], None] = {}  # without repetition: each order tells something new
    if orders is not None and orders < math.factorial(len(factors)):
        while len(drawn) < orders:
            drawn[tuple(int(place) for place in generator.permutation(len(factors)))] = None
    prefixes = {frozenset(one[:length]) for one in drawn for length in range(len(factors) + 1)}
    exact = not drawn or len(prefixes) == 2 ** len(factors)
    if exact:
        _check_number(2 ** len(factors), "an order study of all orders")
        prefixes = {frozenset(places) for places in _subsets(range(len(factors)))}
    ranked = sorted(prefixes, key=lambda places: (len(places), sorted(places)))
    networks = tuple(build.network([factors[place] for place in sorted(places)]) for places in ranked)
    named = [] if exact else [[factors[place].name for place in one] for one in drawn]
    return Ablation("order", networks, build.base, _facts("order", build.base, factors, orders=named, exact=exact))


def _subsets(items: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    pool = list(items)
    return itertools.chain.from_iterable(itertools.combinations(pool, size) for size in range(len(pool) + 1))


def _check_number(count: int, what: str) -> None:
    if count > MOST_NETWORKS:
        raise RoadmapError(f"{what} would have {count} networks: name fewer steps")


# --- factorials

TOO_SMALL = "so small a fraction does not tell the steps apart: name a larger one, or fewer steps"


def factorial(build: Builder, fraction: int) -> Ablation:
    """Every subset of the steps, or one in ``fraction`` of them (a power of two), chosen so that main effects are mixed
    up with interactions of as many steps as possible.

    The fraction is regular (Box, Hunter & Hunter, Statistics for Experimenters, chapter 6): the last p of k steps are
    in a network where the product of some of the others' signs is +1, by the generators of the highest resolution and
    then the fewest shortest words (minimum aberration). ``aliases`` lists the effects of one or two steps that it
    cannot tell apart, each group once, beginning with the shortest.
    """
    factors = build.factors
    names = [step.name for step in factors]
    spare = fraction.bit_length() - 1
    basic = len(factors) - spare
    if len(factors) < 2:
        raise RoadmapError("a factorial needs two steps at least")
    if basic < 1 or (spare and basic < 2):
        raise RoadmapError(f"a factorial of {len(factors)} steps has no 1/{fraction} of it: name more steps")
    _check_number(2**basic, f"a factorial of {len(factors)} steps")
    generators = best_generators(basic, spare)
    networks = []
    for bits in itertools.product((0, 1), repeat=basic):
        signs = [2 * bit - 1 for bit in bits]
        signs += [math.prod(signs[place] for place in generator) for generator in generators]
        networks.append(build.network([step for step, sign in zip(factors, signs, strict=True) if sign > 0]))
    words = defining_words(basic, generators)
    facts = _facts(
        "factorial", build.base, factors,
        fraction=f"1/{fraction}" if fraction > 1 else "1",
        generators=[
            f"{names[basic + number]} = {' × '.join(names[place] for place in generator)}"
            for number, generator in enumerate(generators)
        ],
        resolution=min(map(len, words), default=None),
        aliases=[[[names[place] for place in effect] for effect in group] for group in alias_groups(len(names), words)],
    )  # fmt: skip
    return Ablation("factorial", tuple(networks), build.base, facts)


@lru_cache
def best_generators(basic: int, spare: int) -> list[tuple[int, ...]]:
    """For each of ``spare`` further steps the basic ones whose signs' product is its own.

    Of all choices that with the fewest short words, or, where they are too many to be looked through, the best that
    exchanging one generator at a time finds from several beginnings.
    """
    products = [sum(1 << place for place in product) for product in _subsets(range(basic)) if len(product) >= 2]
    if len(products) < spare:
        raise RoadmapError(TOO_SMALL)
    if math.comb(len(products), spare) << spare <= MOST_WORDS:
        best = min(itertools.combinations(products, spare), key=lambda choice: _word_lengths(basic, choice))
    else:
        best = min((_exchanged(basic, spare, products, seed) for seed in range(RESTARTS)),
                   key=lambda choice: _word_lengths(basic, choice))  # fmt: skip
    return [tuple(place for place in range(basic) if product >> place & 1) for product in best]


def _exchanged(basic: int, spare: int, products: list[int], seed: int) -> tuple[int, ...]:
    """A choice of generators that no exchange of one of them betters, from a random beginning."""
    chosen = random.Random(seed).sample(products, spare)
    best, better = _word_lengths(basic, chosen), True
    while better:
        better = False
        for place, product in itertools.product(range(spare), products):
            if product not in chosen:
                tried = [*chosen[:place], product, *chosen[place + 1 :]]
                lengths = _word_lengths(basic, tried)
                if lengths < best:
                    chosen, best, better = tried, lengths, True
    return tuple(chosen)


def _word_lengths(basic: int, generators: Sequence[int]) -> tuple[int, ...]:
    """How many words there are of 1, 2, 3, ... letters: the smaller, the better."""
    words = [0]
    for number, generator in enumerate(generators):
        first = generator | 1 << (basic + number)
        words += [word ^ first for word in words]
    lengths = [0] * (basic + len(generators))
    for word in words[1:]:
        lengths[word.bit_count() - 1] += 1
    return tuple(lengths)


def defining_words(basic: int, generators: Sequence[tuple[int, ...]]) -> list[frozenset[int]]:
    """The defining relation: every set of steps whose signs' product is the same in all networks of the fraction."""
    words: list[frozenset[int]] = [frozenset()]
    for number, generator in enumerate(generators):
        first = frozenset(generator) | {basic + number}
        words += [word ^ first for word in words]
    return words[1:]


def alias_groups(count: int, words: Sequence[frozenset[int]]) -> list[list[tuple[int, ...]]]:
    """The groups of effects, of one or two of ``count`` steps, that the fraction cannot tell apart, each with the
    effects of up to three steps that it is mixed up with; only groups of several."""
    groups = []
    seen: set[frozenset[int]] = set()
    for effect in (frozenset(places) for size in (1, 2) for places in itertools.combinations(range(count), size)):
        if effect in seen:
            continue
        group = {effect, *(effect ^ word for word in words)}
        seen |= group
        short = sorted(tuple(sorted(one)) for one in group if 0 < len(one) <= 3)
        if len(short) > 1:
            groups.append(sorted(short, key=lambda one: (len(one), one)))
    return groups


# --- sweeps


def sweep(base: Sequence[Step], levels: Mapping[str, Sequence[Step]], grid: bool) -> Ablation:
    """The base with each level of each flag, one flag at a time or in every combination."""
    flags = list(levels)
    combinations: list[tuple[Step, ...]]
    if grid:
        _check_number(math.prod(len(steps) for steps in levels.values()), "this grid")
        combinations = list(itertools.product(*levels.values()))
    else:
        combinations = [(step,) for flag in flags for step in levels[flag]]
    networks = tuple(Network(" & ".join(step.name for step in steps), (*base, *steps)) for steps in combinations)
    named = {flag: [step.name for step in levels[flag]] for flag in flags}
    everything = [step for steps in levels.values() for step in steps]
    facts = _facts("sweep", base, everything, levels=named, grid=grid)
    return Ablation("sweep", networks, tuple(base), facts | {"factors": flags})
