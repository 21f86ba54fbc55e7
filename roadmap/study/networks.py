"""The networks that a study asks for: its words for steps and rungs, resolved. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from roadmap.checks import RoadmapError, repeated
from roadmap.network.layers import registered_by
from roadmap.questions.question import Builder, Plan
from roadmap.rungs import Rung, find_step, ladder, ladder_steps, step_names
from roadmap.steps import LADDER, Step

if TYPE_CHECKING:
    from roadmap.study.spec import StudySpec


def plan_networks(spec: StudySpec) -> Plan:
    """The networks that answer a study's question.

    Raises `RoadmapError` for a step that does not exist, and for steps that contradict each other.
    """
    question, rungs = spec.question, ladder(spec.regime)
    last = rungs.between(None, spec.upto)[-1]
    default = last if question.takes_away else rungs.start
    base = default if spec.base is None else {"start": rungs.start, "end": last}.get(spec.base) or rungs[spec.base]
    asked = [rungs[name] for name in spec.only] or rungs.between(spec.from_, spec.upto, spec.roads)
    factors = _factors(spec, _climbed(spec, base, asked)) if "steps" in question.uses else []
    names = [step.name for step in factors]
    if twice := repeated(names):
        raise RoadmapError(f"steps names '{twice}' twice")
    kept = tuple(step for step in base.path if step.name not in names)
    called = next((rung.name for rung in rungs if rung.path == kept), "none of them")
    named = {step for step in spec.steps if isinstance(step, str)} | ({called} if spec.base else set())
    skipped = frozenset(rung.name for rung in rungs if rung not in asked) - named
    positions = tuple(step.name for step in ladder_steps(spec.regime))
    return question.plan(Builder(kept, called, tuple(factors), positions, skipped, spec.reference))


def _climbed(spec: StudySpec, base: Rung, asked: Sequence[Rung]) -> list[Step]:
    """The steps that the word ladder stands for: those of the base where they are taken away, else those behind it."""
    if spec.question.takes_away:
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
