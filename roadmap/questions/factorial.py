"""Which steps need each other?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.questions.generators import alias_groups, best_generators, defining_words
from roadmap.questions.question import (
    Builder,
    Cell,
    Contrast,
    Network,
    Plan,
    Question,
    by_factors,
    check_number_of_networks,
    subsets,
)
from roadmap.settings import setting

#: Part of all networks -> one in how many.
FRACTIONS = {"1": 1, **{f"1/{2**power}": 2**power for power in range(1, 11)}}


@dataclass(frozen=True)
class Factorial(Question):
    """The base with every subset of the steps, or with a balanced fraction of them."""

    name = "factorial"
    rank = 3
    title = "Factorial"
    asks = "What does a step bring, and which steps need each other?"
    axis = "Effect on accuracy (pp)"
    meaning = (
        "A main effect is the mean accuracy of the networks with the step minus that of those without it; the "
        "interaction a × b is half the difference between the effect of a with and without b"
    )
    networks = "the base with every subset of the steps, or with a balanced fraction of them"
    example = "roadmap run --design factorial --steps gelu,layer_norm"
    figures = ("ablation", "interactions")

    fraction: str = setting(
        "fraction of a factorial's networks to train, such as 1/2 or 1/4",
        "1",
        metavar="PART",
        part="ablation",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", str(self.fraction))  # YAML reads numbers

    def check(self) -> None:
        """See `Question.check`."""
        if self.fraction not in FRACTIONS:
            raise RoadmapError(f"fraction is {self.fraction!r}, but must be one of {', '.join(FRACTIONS)}")

    def plan(self, build: Builder) -> Plan:
        """Every subset of the steps, or a regular fraction of them, chosen so that main effects are mixed up with
        interactions of as many steps as possible.

        The fraction is regular (Box, Hunter & Hunter, Statistics for Experimenters, chapter 6): the last p of k steps
        are in a network where the product of some of the others' signs is +1, by the generators of the highest
        resolution and then the fewest shortest words (minimum aberration). The fact ``aliases`` lists the effects of
        one or two steps that it cannot tell apart, each group once, beginning with the shortest.
        """
        factors, fraction = build.factors, FRACTIONS[self.fraction]
        names = [step.name for step in factors]
        spare = fraction.bit_length() - 1
        basic = len(factors) - spare
        if len(factors) < 2:
            raise RoadmapError("a factorial needs at least two steps")
        if basic < 1 or (spare and basic < 2):
            raise RoadmapError(f"a factorial of {len(factors)} steps cannot be cut to 1/{fraction}: name more steps")
        check_number_of_networks(2**basic, f"a factorial of {len(factors)} steps")
        generators = best_generators(basic, spare)
        networks = []
        for bits in itertools.product((0, 1), repeat=basic):
            signs = [2 * bit - 1 for bit in bits]
            signs += [math.prod(signs[place] for place in generator) for generator in generators]
            networks.append(build.network([step for step, sign in zip(factors, signs, strict=True) if sign > 0]))
        words = defining_words(basic, generators)
        return build.plan(
            self,
            networks,
            fraction=f"1/{fraction}" if fraction > 1 else "1",
            generators=[
                f"{names[basic + number]} = {' × '.join(names[place] for place in generator)}"
                for number, generator in enumerate(generators)
            ],
            resolution=min(map(len, words), default=None),
            aliases=[[[names[place] for place in one] for one in group] for group in alias_groups(len(names), words)],
        )

    def remarks(self, plan: Plan) -> list[str]:
        """The fraction, and what it cannot tell apart."""
        facts = plan.facts
        if not facts["generators"]:
            return []
        return [
            f"a fraction of {facts['fraction']}, resolution {facts['resolution']}: {', '.join(facts['generators'])}",
            *(
                f"cannot be told apart: {' = '.join(' × '.join(effect) for effect in group)}"
                for group in facts["aliases"]
            ),
        ]

    def probes(self, plan: Plan) -> list[Network]:
        """In a fraction no two networks differ in a single step: the base without any, and with each."""
        if not plan.facts["generators"]:
            return []
        every = {step.name: step for network in plan.networks for step in network.steps}.values()
        factors = [step for step in every if step not in plan.base]
        probes = [Network("the base", plan.base)]
        probes += [Network(f"the base with {step.name}", (*plan.base, step)) for step in factors]
        there = {network.key for network in plan.networks}
        return [probe for probe in probes if probe.key not in there]

    @classmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """Main effects and interactions of two, as Box, Hunter & Hunter define them, each group of aliases once."""
        names, factors = by_factors(cells, facts), list(facts["factors"])
        expected = int(2 ** len(factors) * Fraction(str(facts.get("fraction") or 1)))
        signs = {effect: _signs(names, effect) for effect in _effects(factors, 3)}
        whole = len(names) == expected
        groups = [[tuple(effect) for effect in group] for group in facts.get("aliases") or ()]
        aliases = {frozenset(effect): group for group in groups for effect in group}
        told: set[frozenset[str]] = set()
        found = []
        for effect in _effects(factors, 2):
            if frozenset(effect) in told:
                continue
            same = [other for other in aliases.get(frozenset(effect), []) if frozenset(other) != frozenset(effect)]
            told |= {frozenset(other) for other in same}
            turned = ["+" if _dot(signs[effect], signs[other]) > 0 else "−" for other in same]
            found.append(
                Contrast(
                    term(effect),
                    dict(zip(names.values(), [2 / expected * sign for sign in signs[effect]], strict=True))
                    if whole
                    else {},
                    absent=expected - len(names),
                    rest=() if whole else tuple(names.values()),
                    extra={
                        "kind": "main" if len(effect) == 1 else "interaction",
                        "aliases": " ".join(f"{sign} {term(other)}" for sign, other in zip(turned, same, strict=True)),
                    },
                )
            )
        return found

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """The fraction of all combinations that is there, and the effects that it cannot tell apart.

        Raises `RoadmapError` for networks that are neither all combinations nor a regular fraction of them.
        """
        facts = super().facts_of(cells)
        names, factors = by_factors(cells, facts), facts["factors"]
        every = [frozenset(chosen) for chosen in subsets(factors)] if len(factors) <= 20 else []
        effects = _effects(factors, 3)
        columns = {effect: _signs(names, effect) for effect in effects}
        balanced = all(not sum(columns[factor,]) for factor in factors)
        regular = len(names) & (len(names) - 1) == 0 and all(
            abs(_dot(one, other)) in (0, len(names)) for one, other in itertools.combinations(columns.values(), 2)
        )
        if not (balanced and regular):
            lacking = next((one for one in every if one not in names), frozenset())
            raise RoadmapError(
                f"design {cls.name} with the steps {', '.join(factors)} needs a network for every combination of "
                f"them, or for a regular fraction; it lacks, for one, {_combination(lacking, factors)}"
            )
        groups: list[list[tuple[str, ...]]] = []
        for effect in effects:
            mates = [group for group in groups if abs(_dot(columns[group[0]], columns[effect])) == len(names)]
            if mates:
                mates[0].append(effect)
            elif len(effect) < 3:
                groups.append([effect])
        whole = Fraction(len(names), 2 ** len(factors))
        return facts | {
            "fraction": str(whole),
            "aliases": [[list(effect) for effect in group] for group in groups if len(group) > 1],
        }


def term(effect: Sequence[str]) -> str:
    """The name of a main effect or an interaction."""
    return " × ".join(effect)


def _effects(factors: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """Main effects, and interactions of up to this many steps."""
    return [effect for size in range(1, most + 1) for effect in itertools.combinations(factors, size)]


def _signs(networks: Iterable[frozenset[str]], effect: Sequence[str]) -> list[int]:
    """The sign of every network in an effect: that of the product of its factors' signs, +1 with a factor, else -1."""
    return [math.prod(1 if factor in network else -1 for factor in effect) for network in networks]


def _dot(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _combination(network: frozenset[str], factors: Sequence[str]) -> str:
    return ", ".join(f"{factor}: {'yes' if factor in network else 'no'}" for factor in factors)
