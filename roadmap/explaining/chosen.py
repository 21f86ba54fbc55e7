"""The networks that an explanation is about, by their names: rungs, published networks, and further steps on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from roadmap.checks import RoadmapError, check_known
from roadmap.explaining.findings import StudyLike, other_regime
from roadmap.ladders.family import FAMILY
from roadmap.ladders.ladder import Ladder, Rung
from roadmap.ladders.rungs import FULL_WIDTH, find_step, step_names
from roadmap.ladders.steps import STUDY_RECIPE, Step, compose, half_up
from roadmap.network.design import Design
from roadmap.recipes.recipe import FOLLOWED, Recipe, load_recipe

#: What divides the image in front of the stages where nothing else is said, as in the paper.
FULL_STRIDE = 4
#: The recipe that a step's settings of the training are compared with.
MODERN = "modern"


@dataclass(frozen=True)
class Chosen:
    """A network that was asked for: the rung that it is, if it is one, the last step that made it, and its recipe."""

    name: str
    design: Design
    rung: Rung | None = None
    step: Step | None = None
    recipe: Recipe | None = None


def _of_rung(rung: Rung, rungs: Ladder) -> Chosen:
    recipe = load_recipe(MODERN)
    if rung.classic_recipe:
        recipe = load_recipe(str(recipe.classic))
    return Chosen(rung.name, rung.design, rung, rung.path[-1] if rung.path else None, recipe)


def _with(base: Chosen, step: Step, design: Design) -> Chosen:
    recipe = base.recipe or load_recipe(MODERN)
    if step.recipe:
        recipe = load_recipe(MODERN if step.recipe == STUDY_RECIPE else step.recipe)
    settings = dict(step.training)
    own = {name: settings.pop(name) for name in FOLLOWED if name in settings}
    if own or settings:
        recipe = recipe.with_training(**own, settings=settings)
    return Chosen(f"{base.name}+{step.name}", design, step=step, recipe=recipe)


def around(name: str, rungs: Ladder, onto: str | None, studies: Sequence[StudyLike]) -> tuple[Chosen | None, Chosen]:
    """The networks before and after a step."""
    if name in rungs.names:
        if onto is not None:
            raise RoadmapError(f"'{name}' is a rung of the ladder and has its place: only other steps are put onto one")
        rung = rungs[name]
        after = _of_rung(rung, rungs)
        return (_of_rung(rungs[_before(rung, rungs)], rungs) if rung.path else None), after
    if name in FAMILY and name not in step_names(rungs.regime):
        raise RoadmapError(f"'{name}' is a network, not a step: use roadmap diff {rungs.start.name} {name}")
    step = _step(name, rungs, studies)  # one, and no network of several
    place = _place_in_study(name, rungs, studies) if onto is None else None
    onto = rungs.rungs[-1].name if onto is None else onto
    without, with_it = place or (onto, f"{onto}+{name}")
    before, after = named(without, rungs, studies), named(with_it, rungs, studies)
    if before.recipe is None:  # a published network: what the step sets of the training is told all the same
        before = dataclasses.replace(before, recipe=load_recipe(MODERN))
        after = dataclasses.replace(after, recipe=_with(before, step, after.design).recipe)
    return before, after


def _place_in_study(name: str, rungs: Ladder, studies: Sequence[StudyLike]) -> tuple[str, str] | None:
    """The networks that the first study with such a step has without it and with it: of a ladder its own and that which
    it was put onto, of a sweep what the level compares with and the level's own, of other designs the base and the base
    with it, and when each step is left out all others and all."""
    study = next((one for one in studies if name in _steps_said(one)), None)
    if study is None or other_regime(study, rungs.regime):
        return None
    own = study.runs[~study.runs["reference"]]
    networks = {
        step: tuple(filter(None, steps.split("+"))) for step, steps in zip(own["step"], own["steps"], strict=True)
    }
    pairs = {
        row["effect"]: (row["against"], row["network"])
        for row in study.effects.to_dict("records")
        if isinstance(row["network"], str)
    }
    if name in pairs:
        without, with_it = (networks[network] for network in pairs[name])
    elif name in networks:
        raise RoadmapError(f"in the study {study.path.name}, '{name}' is compared with no other network")
    else:
        without = tuple(study.described.get("base", ()))
        with_it = (*without, name)
    if {*without, name} == {*with_it}:
        # Their order changes nothing; with the ladder's before all others the name is the shortest.
        without = tuple(sorted(without, key=[*rungs.names, *without].index))
        with_it = (*without, name)
    return _name_of(without, rungs), _name_of(with_it, rungs)


def _name_of(steps: tuple[str, ...], rungs: Ladder) -> str:
    """What the network of these steps is called: the rung that they begin with, and the others."""
    known = {rung.steps: rung.name for rung in rungs}
    length = next(length for length in range(len(steps), -1, -1) if steps[:length] in known)
    return "+".join([known[steps[:length]], *steps[length:]])


def _steps_said(study: StudyLike) -> dict[str, Mapping[str, Any]]:
    """What a study says of its steps, by name."""
    return {step["name"]: step for step in study.described.get("steps", ())}


def _step(name: str, rungs: Ladder, studies: Sequence[StudyLike]) -> Step:
    """The step of that name: of the ladder, a plug-in, or one of the studies, as its study.json describes it."""
    facts = _own_steps(rungs, studies).get(name)
    if facts is None:
        return find_step(name, rungs.regime)
    if not facts.keys() >= {"why", "settings"}:
        raise RoadmapError(
            f"the study {facts['study']} has a step '{name}', but does not say what it sets: run the study again, "
            "which trains nothing again, or name the plug-in file of the step"
        )
    return Step.from_mapping({"name": name, **{k: facts[k] for k in ("why", "section")}, **facts["settings"]})


def _own_steps(rungs: Ladder, studies: Sequence[StudyLike]) -> dict[str, dict[str, Any]]:
    """What each study, the first before all, says of the steps that are its own, by name."""
    known = step_names(rungs.regime)
    return {
        name: {**facts, "study": study.path.name}
        for study in reversed(studies)
        for name, facts in _steps_said(study).items()
        if name not in known
    }


def _before(rung: Rung, rungs: Ladder) -> str:
    return rung.path[-2].name if rung.path[1:] else rungs.start.name


def named(name: str, rungs: Ladder, studies: Sequence[StudyLike]) -> Chosen:
    """The network of such a name: ``gelu``, ``convnext_tiny``, ``gelu+se``. Raises `RoadmapError` for any other."""
    first, *added = name.split("+")
    steps = [*step_names(rungs.regime), *_own_steps(rungs, studies)]
    check_known("network", [first], dict.fromkeys([*steps, *FAMILY]))
    further = [_step(one, rungs, studies) for one in added]
    if first in rungs.names:
        chosen, path = _of_rung(rungs[first], rungs), rungs[first].path
    elif first in steps:
        chosen, path = _of_rung(rungs.rungs[-1], rungs), rungs.rungs[-1].path
        further = [_step(first, rungs, studies), *further]
    else:
        chosen, path = Chosen(first, _scaled(first, [], rungs)), ()
        for index, step in enumerate(further):
            chosen = dataclasses.replace(_with(chosen, step, _scaled(first, further[: index + 1], rungs)), recipe=None)
        return dataclasses.replace(chosen, name=name)
    for index, step in enumerate(further):
        chosen = _with(chosen, step, rungs.design_of([*path, *further[: index + 1]]))
    return dataclasses.replace(chosen, name=name)


def _scaled(name: str, steps: Sequence[Step], rungs: Ladder) -> Design:
    """A published network with some steps, its width, depth and stem in proportion to the ladder's."""
    design = FAMILY[name]
    if design.stem_width is not None:
        design = design.replace(stem_width=max(1, half_up(Fraction(design.stem_width * rungs.width, FULL_WIDTH))))
    flags = dict(rungs.flags)
    if "stem_stride" in flags:
        flags["stem_stride"] = max(1, design.stem_stride * flags["stem_stride"] // FULL_STRIDE)
    return compose(design, steps, rungs.width, rungs.depth).replace(**flags)
