"""Regular fractions of two-level factorials: generators of minimum aberration, and what they cannot tell apart.

Box, Hunter & Hunter, "Statistics for Experimenters", chapter 6. Steps are numbered from 0; the first ``basic`` of them
take every combination, and a generator is the set of basic steps whose signs' product is a further step's sign.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from functools import lru_cache

from roadmap.checks import RoadmapError
from roadmap.questions.question import subsets

TOO_SMALL = "so small a fraction does not tell the steps apart: name a larger one, or fewer steps"
#: All choices of generators are searched while they have at most this many words together (two seconds); else this many
#: beginnings.
MOST_WORDS, RESTARTS = 6_000_000, 20


@lru_cache
def best_generators(basic: int, spare: int) -> list[tuple[int, ...]]:
    """For each of ``spare`` further steps the basic ones whose signs' product is its own.

    Of all choices that with the fewest short words, or, where they are too many to be looked through, the best that
    exchanging one generator at a time finds from several beginnings.
    """
    products = [sum(1 << place for place in product) for product in subsets(range(basic)) if len(product) >= 2]
    if len(products) < spare:
        raise RoadmapError(TOO_SMALL)
    if math.comb(len(products), spare) << spare <= MOST_WORDS:
        best = min(itertools.combinations(products, spare), key=lambda choice: _word_lengths(basic, choice))
    else:
        best = min(
            (_exchanged(basic, spare, products, seed) for seed in range(RESTARTS)),
            key=lambda choice: _word_lengths(basic, choice),
        )
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
