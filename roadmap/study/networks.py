"""The networks that a study asks for: its words for steps, rungs and levels, resolved. Needs no torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from roadmap.checks import RoadmapError, check_known, repeated
from roadmap.network.layers import registered_by
from roadmap.recipes.recipe import SETTINGS
from roadmap.rungs import Rung, find_step, ladder, ladder_steps, step_names
from roadmap.settings import from_text
from roadmap.steps import FLAGS, LADDER, TRAINING, Step
from roadmap.study.ablation import (
    Ablation,
    Builder,
    factorial,
    ladder_of,
    leave_one_out,
    one_at_a_time,
    order,
    sweep,
)

if TYPE_CHECKING:
    from roadmap.study.spec import StudySpec

#: Part of a factorial -> one in how many.
FRACTIONS = {"1": 1, **{f"1/{2**power}": 2**power for power in range(1, 11)}}
#: Designs that take steps from their base; the others add them to it.
TAKING_AWAY = ("leave-one-out", "sweep")


def ablate(spec: StudySpec) -> Ablation:
    """The ablation that a study asks for.

    Raises `RoadmapError` for a step that does not exist, and for steps that contradict each other.
    """
    design, rungs = spec.ablation_design, ladder(spec.regime)
    last = rungs.between(None, spec.upto)[-1]
    default = last if design in TAKING_AWAY else rungs.start
    base = default if spec.base is None else {"start": rungs.start, "end": last}.get(spec.base) or rungs[spec.base]
    if design == "sweep":
        levels = {flag: [_level(flag, value) for value in values] for flag, values in spec.sweep.items()}
        for steps in levels.values():
            if twice := repeated(step.name for step in steps):
                raise RoadmapError(f"sweep has the level {twice} twice")
        return sweep(base.path, levels, spec.grid)
    asked = [rungs[name] for name in spec.only] or rungs.between(spec.from_, spec.upto, spec.roads)
    factors = _factors(spec, _climbed(spec, base, asked))
    names = [step.name for step in factors]
    if twice := repeated(names):
        raise RoadmapError(f"steps names '{twice}' twice")
    kept = [step for step in base.path if step.name not in names]
    called = next((rung.name for rung in rungs if list(rung.path) == kept), "none of them")
    if design == "ladder":
        whole = ladder_of(kept, called, factors)
        named = {step for step in spec.steps if isinstance(step, str)} | ({called} if spec.base else set())
        skipped = {rung.name for rung in rungs if rung not in asked} - named
        return dataclasses.replace(
            whole, networks=tuple(network for network in whole.networks if network.name not in skipped)
        )
    build = Builder(kept, called, factors, [step.name for step in ladder_steps(spec.regime)])
    if design == "order":
        return order(build, None if spec.orders == "all" else int(spec.orders), spec.order_seed)
    if design == "factorial":
        return factorial(build, FRACTIONS[spec.fraction])
    return {"leave-one-out": leave_one_out, "one-at-a-time": one_at_a_time}[design](build)


def _climbed(spec: StudySpec, base: Rung, asked: Sequence[Rung]) -> list[Step]:
    """The steps that the word ladder stands for: those of the base where they are taken away, else those behind it."""
    if spec.ablation_design in TAKING_AWAY:
        return list(base.path)
    below = ladder(spec.regime).between(None, spec.upto, roads=True)
    steps = [rung.path[-1] for rung in below if rung.path and (rung.adopted or rung in asked)]
    return [step for step in steps if step not in base.path]


def _factors(spec: StudySpec, climbed: Sequence[Step]) -> list[Step]:
    """The steps that the ablation is about; ``climbed`` are those that the word ladder stands for."""
    own: dict[str, Step] = {}

    def find(name: str) -> Step:
        return own[name] if name in own else find_step(name, spec.regime)

    found: list[Step] = []
    for item in spec.steps or (LADDER,):
        if item == LADDER:
            found += climbed
        elif isinstance(item, str):
            found.append(find(item))
        else:
            step = Step.from_mapping(item, find)
            if step.name in step_names(spec.regime):
                raise RoadmapError(f"there is a step '{step.name}' already: give yours another name")
            own[step.name] = step
            found.append(step)
    return found


def checked_steps(names: Sequence[str], spec: StudySpec | None, plugins: Sequence[str]) -> list[Step]:
    """The steps of these names, own ones of a study among them; without names all of the study and of the
    plug-in files, or, where there are none, of the ladder.

    Raises `RoadmapError` for a step that does not exist.
    """
    own = {}
    if spec is not None:
        own = {step.name: step for step in _factors(spec, []) if step.name not in ladder(spec.regime).names}
    if names:
        return [own[name] if name in own else find_step(name) for name in names]
    loaded = [find_step(name) for name in registered_by(plugins)]
    return [*own.values(), *loaded] or [step for step in ladder_steps() if step.changes]


def parse_levels(value: Any) -> dict[str, tuple[Any, ...]]:
    """Flag -> its levels, from a mapping or from texts such as ``kernel_size=3,5,7``."""
    if not isinstance(value, Mapping):
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise RoadmapError(f"sweep is {value!r}, but must be flags with their levels, such as kernel_size: [3, 5]")
        value = {}
        for text in texts:
            flag, equals, listed = text.partition("=")
            words = [word.strip() for word in listed.split(",") if word.strip()]
            if not equals or not words:
                raise RoadmapError(f"sweep is '{text}', but must be like kernel_size=3,5,7")
            if flag.strip() in value:
                raise RoadmapError(f"sweep names {flag.strip()} twice: give all of its levels at once")
            value[flag.strip()] = [_level_from_text(flag.strip(), word) for word in words]
    for flag, levels in value.items():
        check_known("flag to sweep", [flag], [*FLAGS, "recipe", *TRAINING])
        if not isinstance(levels, (list, tuple)) or not levels:
            raise RoadmapError(f"sweep of {flag} is {levels!r}, but must be a list of its levels")
    return {flag: tuple(levels) for flag, levels in value.items()}


def _level_from_text(flag: str, word: str) -> Any:
    if flag in ("blocks", "widths"):
        parts = word.split("-")
        if not all(part.isdigit() for part in parts):
            raise RoadmapError(f"a level of {flag} is '{word}', but must be like 3-3-9-3")
        return [int(part) for part in parts]
    if flag in SETTINGS:
        return from_text(SETTINGS[flag], word.replace(":", ","))
    if flag == "layers":
        return [] if word == "none" else word.split("+")
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError:
        value = word
    return None if value == "none" else value


def _level(flag: str, value: Any) -> Step:
    made = Step.from_mapping({"name": flag, flag: value})
    parsed = {**made.changes, **made.training, "recipe": made.recipe}[flag]
    shown = "-".join(map(str, parsed)) if isinstance(parsed, (list, tuple)) else str(parsed).lower()
    shown = re.sub(r"[^\w.]+", "-", shown.replace("{}", "")).strip("-") or "none"
    return dataclasses.replace(made, name=f"{flag}={shown}")
