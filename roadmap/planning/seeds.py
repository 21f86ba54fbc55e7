"""Which seeds the networks of a study train with. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from roadmap.checks import RoadmapError, check_int, check_known
from roadmap.questions.question import Plan

#: Seeds of every network before the first look at a study that grows by seeds: of two, a diverged network makes
#: intervals that err too often.
FIRST = 3
#: Seconds of the units of a duration.
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def parse_budget(text: Any) -> float:
    """Seconds of a duration such as ``6h``, ``90m``, ``2d`` or ``1h30m``."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text) if isinstance(text, str) else []
    if not parts or "".join(map("".join, parts)) != text.replace(" ", "") or not any(float(n) for n, _ in parts):
        raise RoadmapError(f"budget is {text!r}, but must be a duration such as 6h, 90m, 2d or 1h30m")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def usual_seeds(data: str, grows: bool) -> int:
    """How many seeds a study has by default: `FIRST`, and more on the embedded set, whose short trainings make seeds
    differ by four points, unless the study ``grows`` by seeds."""
    return 5 if data == "embedded" and not grows else FIRST


def parse_seeds(value: Any) -> tuple[int, ...]:
    """The seeds that a number of them means (3: 0, 1, 2), or a list such as ``0,4,7``."""
    if isinstance(value, str):
        try:
            numbers = [int(word) for word in value.split(",") if word.strip()]
        except ValueError:
            raise RoadmapError(f"seeds is '{value}', but must be a number of seeds or a list such as 0,1,2") from None
        value = numbers[0] if len(numbers) == 1 and "," not in value else numbers
    if isinstance(value, int) and not isinstance(value, bool):
        check_int("the number of seeds", value, 1, 10_000)
        return tuple(range(value))
    if not isinstance(value, (list, tuple)) or not value:
        raise RoadmapError(f"seeds is {value!r}, but must be a number of seeds or a list of them")
    for seed in value:
        check_int("seed", seed, 0, 2**32 - 1)
    if len(set(value)) != len(value):
        raise RoadmapError(f"seeds {', '.join(map(str, value))} name one seed twice")
    return tuple(value)


def parse_seeds_for(value: Any) -> dict[str, tuple[int, ...]]:
    """Network -> its seeds, from a mapping or from texts such as ``gelu=5``."""
    if isinstance(value, Mapping):
        return {str(name): parse_seeds(seeds) for name, seeds in value.items()}
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) and "=" in text for text in texts):
        raise RoadmapError(f"seeds_for is {value!r}, but must be networks with their seeds, such as gelu=5")
    pairs = [text.rpartition("=") for text in texts]
    return {name.strip(): parse_seeds(seeds.strip()) for name, _, seeds in pairs}


def seeds_by_network(
    plan: Plan,
    seeds: Sequence[int],
    base_seeds: int | None,
    seeds_for: Mapping[str, Sequence[int]],
    others: Sequence[str] = (),
) -> dict[str, tuple[int, ...]]:
    """Network -> its seeds.

    The network that all effects are compared with has ``base_seeds`` of them, by default about as many times ``seeds``
    as the square root of the number of effects, which spends runs best (Dunnett 1955). ``others`` run beside them.

    Raises `RoadmapError` where ``seeds_for`` names another network, and for ``base_seeds`` without such a network.
    """
    names = [*(network.name for network in plan.networks), *others]
    check_known("network in seeds_for", seeds_for, names)
    by_network = dict.fromkeys(names, tuple(seeds))
    if plan.common is None and base_seeds is not None:
        raise RoadmapError(
            f"base_seeds is of no use to --design {plan.question.name}: its networks are not all compared with one"
        )
    if plan.common is not None:
        count = base_seeds or max(len(seeds), round(len(seeds) * math.sqrt(len(plan.contrasts))))
        by_network[plan.common] = extended(seeds, count)
    return by_network | {name: tuple(own) for name, own in seeds_for.items()}


def first_seeds(plan: Plan, seeds: Sequence[int], others: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Network -> the seeds that it begins with in a study that grows: the given ones, and `FIRST` at least."""
    names = [*(network.name for network in plan.networks), *others]
    return dict.fromkeys(names, extended(seeds, max(FIRST, len(seeds))))


def extended(seeds: Sequence[int], count: int) -> tuple[int, ...]:
    """The first ``count`` of the seeds, and where they are fewer, of those that follow the largest of them."""
    largest = max(seeds)
    more = range(largest + 1, largest + 1 + max(count - len(seeds), 0))
    return (*seeds[:count], *more)
