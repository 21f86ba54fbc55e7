"""The networks that a study asks for: its words for steps and rungs, resolved. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from roadmap.checks import RoadmapError, repeated
from roadmap.ladders.ladder import Rung
from roadmap.ladders.rungs import find_step, ladder, ladder_steps, step_names
from roadmap.ladders.steps import LADDER, Step
from roadmap.network.layers import load_plugins, registered_by
from roadmap.planning.seeds import first_seeds, seeds_by_network
from roadmap.planning.spec import StudySpec
from roadmap.questions.question import Builder, Plan
from roadmap.tasks import default_task


def plan_networks(spec: StudySpec) -> Plan:
    """The networks that answer a study's question. This is where its plug-ins are loaded.

    Raises `RoadmapError` for a step that does not exist, for steps that contradict each other, for seeds of networks
    that the study lacks, and for one that is to grow until its effects are known where no seeds can make them so.
    """
    load_plugins(spec.plugin)
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
    plan = question.plan(Builder(kept, called, tuple(factors), positions, skipped, spec.reference))
    seeds_of(spec, plan)
    if spec.until_resolved is not None:
        _check_growth(spec, plan)
    return plan


def seeds_of(spec: StudySpec, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Network -> its seeds, of every network of the plan; those that it begins with where the study grows. Raises
    `RoadmapError` where ``seeds_for`` names a network that the study does not have."""
    if spec.until_resolved is not None:
        return first_seeds(plan, spec.seeds, spec.reference)
    return seeds_by_network(plan, spec.seeds, spec.base_seeds, spec.seeds_for, spec.reference)


def title_of(spec: StudySpec, plan: Plan | None) -> str:
    """Name of a study, and of its folder: the given one, or what is trained, on what."""
    if spec.name:
        return spec.name
    data = re.sub(r"[^\w.+-]+", "-", spec.data)  # of names with slashes
    if plan is None:
        return f"{data}-from-{Path(str(spec.start_from)).stem}"
    steps = "+".join(spec.only) or spec.question.short_title(plan, spec.upto)
    steps += f"-by-{spec.match}" if spec.match else ""
    prefix = "" if spec.regime == "resnet50" else f"{spec.regime}-"
    prefix += "" if spec.asked_task is default_task() else f"{spec.task}-"
    return re.sub(r"[^\w.+-]+", "-", steps if spec.data == "embedded" and not prefix else f"{prefix}{data}-{steps}")


def _check_growth(spec: StudySpec, plan: Plan) -> None:
    if not plan.contrasts and not (spec.reference and spec.question.includes_references):
        raise RoadmapError("--until-resolved needs effects, but this study has no two networks to compare")
    if any(contrast.drawn for contrast in plan.contrasts):
        raise RoadmapError(
            "--until-resolved adds seeds, but the effects of this study are means over a random sample, whose error no "
            "seeds reduce: have it take all of them"
        )


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
    load_plugins([*plugins, *(spec.plugin if spec else ())])
    own = {}
    if spec is not None:
        own = {step.name: step for step in _factors(spec, []) if step.name not in ladder(spec.regime).names}
    if names:
        return [own[name] if name in own else find_step(name) for name in names]
    loaded = [find_step(name) for name in registered_by(plugins)]
    return [*own.values(), *loaded] or [step for step in ladder_steps() if step.changes]
