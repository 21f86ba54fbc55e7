"""The explanation of a step, or of the difference between two networks, as plain data.

Needs torch only when something is explained. A terminal, a page and a notebook show the same `Explanation`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from roadmap.checks import RoadmapError, check_int, check_known
from roadmap.ladders.family import FAMILY
from roadmap.ladders.rungs import FULL_WIDTH, REGIMES, Ladder, Rung, find_step, ladder, step_names
from roadmap.ladders.steps import STUDY_RECIPE, Step, compose, half_up
from roadmap.network.design import Design
from roadmap.network.layers import Layer, find_layer
from roadmap.recipes.recipe import FOLLOWED, Recipe, load_recipe
from roadmap.reference import PrintedRow, Question, questions

if TYPE_CHECKING:
    import pandas as pd

    from roadmap.cost.measuring import Speed
    from roadmap.explaining.outline import Difference, Piece, View

#: What divides the image in front of the stages where nothing else is said, as in the paper.
FULL_STRIDE = 4
#: The recipe that a step's settings of the training are compared with.
MODERN = "modern"


@dataclass(frozen=True)
class Stage:
    """A feature map, behind the stem or behind ``stages.0``, ...: its shape, the number of blocks of its stage (0 for
    the stem), and the side of its theoretical receptive field in pixels of the image (None: the whole image).
    """

    name: str
    blocks: int
    channels: int
    height: int
    width: int
    receptive_field: int | None


@dataclass(frozen=True)
class Network:
    """A network that was built: its flags, its layers, what it costs for one image, and its stages.

    ``gmacs``: multiply-accumulates in 1e9; ``params`` and ``activations`` in 1; NaN where nobody counted. ``speed``:
    images per second and memory in MiB where they were measured, by `roadmap.cost.measuring.Speed`.
    """

    name: str
    design: dict[str, Any]
    gmacs: float
    params: float
    activations: float
    speed: Speed | None
    stages: tuple[Stage, ...]
    layers: tuple[Piece, ...]


@dataclass(frozen=True)
class Printed:
    """What the paper printed: top-1 in per cent on ImageNet-1K of both networks, with its deviation over seeds, and the
    gain in points, whose deviation is sqrt(s1² + s2²) of both; None where the paper has no such figure."""

    before: PrintedRow | None
    after: PrintedRow
    gain: float | None
    gain_std: float | None


@dataclass(frozen=True)
class Effect:
    """What a study measured: points with the interval that decides, the verdict, seeds and failed runs."""

    effect: str
    estimate: float | None
    low: float | None
    high: float | None
    seeds: int
    failed: int
    against: str | None
    verdict: str | None


@dataclass(frozen=True)
class Trained:
    """A network of a study: mean and deviation of its top1 in per cent over seeds; None where there is none."""

    name: str
    top1_mean: float | None
    top1_std: float | None
    seeds: int


@dataclass(frozen=True)
class Measured:
    """What one study says of the step, or of the networks: its folder's name, its design, and on what it was measured.
    ``speed``: images per second in training without the step and with it, or of both networks, and on which device;
    None where not all was trained on one. ``remark`` says why there is nothing."""

    study: str
    design: str
    setting: str
    effects: tuple[Effect, ...]
    networks: tuple[Trained, ...]
    speed: tuple[float, float, str] | None
    remark: str


@dataclass(frozen=True)
class Explanation:
    """What a step does, or how two networks differ.

    ``flags`` and ``training``: flags of the `Design` and settings of the recipe, with their values before and after.
    ``before`` is None for the start of a ladder. ``layers``: all that differ, by module name; ``views``: the parts
    of the networks that show it. ``measured_on``: the machine that ``speed`` was measured on; empty where it was not.
    """

    title: str
    regime: str
    image_size: int
    section: str
    why: str
    flags: dict[str, tuple[Any, Any]]
    training: dict[str, tuple[Any, Any]]
    before: Network | None
    after: Network
    layers: tuple[Difference, ...]
    views: tuple[View, ...]
    printed: Printed | None
    measured_on: str
    studies: tuple[Measured, ...]
    questions: tuple[Question, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        from roadmap.explaining.text import plain

        return plain(self)

    def _repr_html_(self) -> str:
        from roadmap.explaining.html import as_html

        return as_html(self)


class StudyLike(Protocol):
    """What is read of a finished study: a `roadmap.results.study.Study`."""

    @property
    def path(self) -> Path: ...
    @property
    def runs(self) -> pd.DataFrame: ...
    @property
    def design(self) -> str: ...
    @property
    def described(self) -> Mapping[str, Any]: ...
    @property
    def steps(self) -> pd.DataFrame: ...
    @property
    def effects(self) -> pd.DataFrame: ...


@dataclass(frozen=True)
class Measuring:
    """How speed is measured: images a step, a device's name or ``auto``, seconds of each measurement, CPU threads
    (None: torch's choice)."""

    batch_size: int = 8
    device: str = "auto"
    seconds: float = 2.0
    threads: int | None = None


def explain(
    step: str,
    rungs: Ladder | None = None,
    image_size: int = 224,
    onto: str | None = None,
    measure: Measuring | None = None,
    studies: Iterable[StudyLike] = (),
    costs: bool = True,
) -> Explanation:
    """What a step does: a rung of the ladder, in its place, or a step of a plug-in or of one of the ``studies``, on the
    network ``onto``, named as in `diff`: that which the first study with such a step puts it onto, else the last rung.

    ``rungs``: the ladder, of some size: ``roadmap.ladder("resnet200").scaled(16)``. ``studies``: finished ones, whose
    results for this step are to be told: ``[roadmap.load_study("results/ladder")]``. ``costs``: count what the networks
    cost, which takes a third of the time. Raises `RoadmapError` with the
    nearest name for an unknown step, and where the network cannot be built or does not take images of this size.
    """
    rungs, studies = rungs or ladder(), list(studies)
    before, after = _around(step, rungs, onto, studies)
    name, what = (rungs.start.name, rungs.start) if after.step is None else (after.step.name, after.step)
    return _explanation(
        name, what.section, what.why, rungs, before, after, image_size, measure,
        [_of_step(study, name, rungs.regime) for study in studies],
        questions().get(name, ()) if after.rung else (), costs,
    )  # fmt: skip


def diff(
    first: str,
    second: str,
    rungs: Ladder | None = None,
    image_size: int = 224,
    measure: Measuring | None = None,
    studies: Iterable[StudyLike] = (),
) -> Explanation:
    """How two networks differ: rungs, members of the `FAMILY`, scaled as the ladder is, or steps of plug-ins or of the
    ``studies``, on the last rung. ``gelu+se`` is a network with a further step. Otherwise as `explain`."""
    rungs, studies = rungs or ladder(), list(studies)
    before, after = _named(first, rungs, studies), _named(second, rungs, studies)
    return _explanation(
        f"{first} → {second}", "", "", rungs, before, after, image_size, measure,
        [_of_networks(study, (first, second), rungs.regime) for study in studies], (),
    )  # fmt: skip


# --- networks by name


@dataclass(frozen=True)
class _Chosen:
    """A network that was asked for: the rung that it is, if it is one, the last step that made it, and its recipe."""

    name: str
    design: Design
    rung: Rung | None = None
    step: Step | None = None
    recipe: Recipe | None = None


def _of_rung(rung: Rung, rungs: Ladder) -> _Chosen:
    recipe = load_recipe(MODERN)
    if rung.classic_recipe:
        recipe = load_recipe(str(recipe.classic))
    return _Chosen(rung.name, rung.design, rung, rung.path[-1] if rung.path else None, recipe)


def _with(base: _Chosen, step: Step, design: Design) -> _Chosen:
    recipe = base.recipe or load_recipe(MODERN)
    if step.recipe:
        recipe = load_recipe(MODERN if step.recipe == STUDY_RECIPE else step.recipe)
    settings = dict(step.training)
    own = {name: settings.pop(name) for name in FOLLOWED if name in settings}
    if own or settings:
        recipe = recipe.with_training(**own, settings=settings)
    return _Chosen(f"{base.name}+{step.name}", design, step=step, recipe=recipe)


def _around(name: str, rungs: Ladder, onto: str | None, studies: Sequence[StudyLike]) -> tuple[_Chosen | None, _Chosen]:
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
    before, after = _named(without, rungs, studies), _named(with_it, rungs, studies)
    if before.recipe is None:  # a published network: what the step sets of the training is told all the same
        before = dataclasses.replace(before, recipe=load_recipe(MODERN))
        after = dataclasses.replace(after, recipe=_with(before, step, after.design).recipe)
    return before, after


def _place_in_study(name: str, rungs: Ladder, studies: Sequence[StudyLike]) -> tuple[str, str] | None:
    """The networks that the first study with such a step has without it and with it: of a ladder its own and that which
    it was put onto, of a sweep what the level compares with and the level's own, of other designs the base and the base
    with it, and when each step is left out all others and all."""
    study = next((one for one in studies if name in _steps_said(one)), None)
    if study is None or _other_regime(study, rungs.regime):
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


def _named(name: str, rungs: Ladder, studies: Sequence[StudyLike]) -> _Chosen:
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
        chosen, path = _Chosen(first, _scaled(first, [], rungs)), ()
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


# --- the explanation


def _explanation(
    title: str,
    section: str,
    why: str,
    rungs: Ladder,
    before: _Chosen | None,
    after: _Chosen,
    image_size: int,
    measure: Measuring | None,
    studies: Sequence[Measured],
    asked: tuple[Question, ...],
    costs: bool = True,
) -> Explanation:
    image_size = check_int("image size", image_size, 1, 4096)
    for chosen in (before, after):
        if chosen:
            chosen.design.feature_sizes(image_size)
    from roadmap.explaining.outline import differences, views

    time, machine = _stopwatch(measure, image_size)
    old = _network(before, image_size, time, costs) if before else None
    new = _network(after, image_size, time, costs)
    return Explanation(
        title=title,
        regime=rungs.regime,
        image_size=image_size,
        section=section,
        why=why,
        flags=_changed_flags(before.design, after.design) if before else {},
        training=_changed_recipe(before, after, rungs.regime),
        before=old,
        after=new,
        layers=differences(old.layers, new.layers) if old else (),
        views=views(
            old.layers if old else (), new.layers, [_shapes(network, image_size) for network in (old or new, new)]
        ),
        printed=_printed(before, after),
        measured_on=machine,
        studies=tuple(studies),
        questions=asked,
    )


def network_of(name: str, design: Design, image_size: int, costs: bool = True) -> Network:
    """The network of a design as it is built, without its speed; its ``costs`` are counted, or not."""
    built = _built(design, image_size, tuple(find_layer(layer) for layer, _ in design.layers))
    if costs:
        from roadmap.cost.counting import count

        cost = count(design, image_size)
        built = dataclasses.replace(built, gmacs=cost.gmacs, params=cost.params, activations=cost.activations)
    return dataclasses.replace(built, name=name)


def _network(chosen: _Chosen, image_size: int, time: Callable[[Design], Speed | None], costs: bool) -> Network:
    built = network_of(chosen.name, chosen.design, image_size, costs)
    return dataclasses.replace(built, speed=time(chosen.design))


@lru_cache(maxsize=256)
def _built(design: Design, image_size: int, plugged: tuple[Layer, ...]) -> Network:
    """A network without name, costs and speed: what comes after one step stands before the next. ``plugged``: the
    layers that stand behind their names now; a plug-in file may be loaded anew."""
    from roadmap.explaining.outline import build_on_meta, outline
    from roadmap.explaining.reach import receptive_fields

    built = build_on_meta(design)
    layers, shapes = outline(built, image_size)
    names = ["stem", *(f"stages.{index}" for index in range(len(design.blocks)))]
    rows = zip(names, (0, *design.blocks), shapes, receptive_fields(built), strict=True)
    return Network(
        name="",
        design=dataclasses.asdict(design),
        gmacs=math.nan,
        params=math.nan,
        activations=math.nan,
        speed=None,
        stages=tuple(Stage(name, blocks, shape[0], shape[1], shape[2], side) for name, blocks, shape, side in rows),
        layers=layers,
    )


def _shapes(network: Network, image_size: int) -> list[tuple[int, ...]]:
    image = (network.design["in_channels"], image_size, image_size)
    return [image, *((stage.channels, stage.height, stage.width) for stage in network.stages)]


def _stopwatch(measure: Measuring | None, image_size: int) -> tuple[Callable[[Design], Speed | None], str]:
    """What measures a design, and the words for where."""
    if measure is None:
        return lambda design: None, ""
    from roadmap.cost import measuring
    from roadmap.training.device import device_name, resolve_device
    from roadmap.training.spec import Execution

    device = resolve_device(Execution(device=measure.device, threads=measure.threads))
    how = (image_size, measure.batch_size, str(device), measure.seconds, measure.threads)
    return (
        lambda design: measuring.measure(design, *how),
        f"{device_name(device)}, {image_size} px, batches of {measure.batch_size}",
    )


def _changed_flags(before: Design, after: Design) -> dict[str, tuple[Any, Any]]:
    old, new = vars(before), vars(after)
    return {flag: (old[flag], new[flag]) for flag in new if old[flag] != new[flag]}


def _changed_recipe(before: _Chosen | None, after: _Chosen, regime: str) -> dict[str, tuple[Any, Any]]:
    if before is None or before.recipe is None or after.recipe is None:
        return {}
    old, new = (_settings(recipe, regime) for recipe in (before.recipe, after.recipe))
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


def _settings(recipe: Recipe, regime: str) -> dict[str, Any]:
    """The settings of a recipe without what it is called, and with the regime's stochastic depth where it has none."""
    values = {name: value for name, value in vars(recipe).items() if name not in ("name", "why", "classic")}
    return values | {"stochastic_depth": recipe.drop_rate(regime, REGIMES[regime].stochastic_depth)}


def _printed(before: _Chosen | None, after: _Chosen) -> Printed | None:
    if after.rung is None or (before is not None and before.rung is None):
        return None
    old, new = before.rung.printed if before and before.rung else None, after.rung.printed
    if old is None:
        return Printed(None, new, None, None)
    deviation = None
    if old.top1_std is not None and new.top1_std is not None:
        deviation = math.hypot(old.top1_std, new.top1_std)
    return Printed(old, new, new.top1 - old.top1, deviation)


# --- what studies measured


def _of_step(study: StudyLike, step: str, regime: str) -> Measured:
    """What a study says of a step: its effect, those of its combinations, and the network of its name."""
    if remark := _other_regime(study, regime):
        return _said(study, remark)
    rows = [row for row in study.effects.to_dict("records") if step in str(row["effect"]).split(" × ")]
    effects = [
        Effect(
            str(row["effect"]), _number(row["estimate"]), _number(row["low"]), _number(row["high"]),
            int(row["seeds"]), int(row["failed"]),
            *(row[name] if isinstance(row[name], str) else None for name in ("against", "verdict")),
        )
        for row in rows
    ]  # fmt: skip
    networks = _trained(study, [step])
    remark = "" if effects or networks else f"nothing about {step}"
    return _said(study, remark, effects, networks, _pairs(study, step))


def _of_networks(study: StudyLike, names: Sequence[str], regime: str) -> Measured:
    if remark := _other_regime(study, regime):
        return _said(study, remark)
    networks = _trained(study, names)
    remark = "" if networks else f"neither {names[0]} nor {names[1]}"
    return _said(study, remark, [], networks, [(names[0], names[1])])


def _pairs(study: StudyLike, step: str) -> list[tuple[str, str]]:
    """Names of the networks of a study that differ in a step alone: without it, and with it."""
    effects = study.effects
    plain = effects[(effects["effect"] == step) & effects["network"].notna()]
    if len(plain):
        return [*plain[["against", "network"]].itertuples(index=False, name=None)]
    own = study.runs[~study.runs["reference"]]
    names = {
        frozenset(str(steps).split("+")) - {""}: name for name, steps in zip(own["step"], own["steps"], strict=True)
    }
    return [(names[key - {step}], name) for key, name in names.items() if step in key and key - {step} in names]


def _speeds(study: StudyLike, pairs: Sequence[tuple[str, str]]) -> tuple[float, float, str] | None:
    """Images per second in training, the mean over pairs of networks, of the first and of the second of each, and the
    device; None where they are not all known, of one device."""
    runs = study.runs[study.runs["images_per_second"].notna()]
    speeds = runs.groupby("step")["images_per_second"].mean()
    there = [pair for pair in pairs if pair[0] in speeds and pair[1] in speeds]
    devices = runs.loc[runs["step"].isin([name for pair in there for name in pair]), "device_name"].unique()
    if len(devices) != 1:
        return None
    first, second = (float(speeds[[pair[side] for pair in there]].mean()) for side in (0, 1))
    return first, second, str(devices[0])


def _trained(study: StudyLike, names: Sequence[str]) -> list[Trained]:
    rows = {row["step"]: row for row in study.steps.to_dict("records")}
    return [
        Trained(name, _number(rows[name]["top1_mean"]), _number(rows[name]["top1_std"]), int(rows[name]["seeds"]))
        for name in names
        if name in rows
    ]


def _other_regime(study: StudyLike, regime: str) -> str:
    other = str(study.runs["regime"].iloc[0])
    return "" if other == regime else f"it is of the regime {other}"


def _said(
    study: StudyLike,
    remark: str,
    effects: Sequence[Effect] = (),
    networks: Sequence[Trained] = (),
    pairs: Sequence[tuple[str, str]] = (),
) -> Measured:
    first = study.runs.iloc[0]
    setting = f"{first['data']}, {first['image_size']} px, width {first['width']}, {study.runs['epochs'].max()} epochs"
    speeds = _speeds(study, pairs)
    return Measured(study.path.name, study.design, setting, tuple(effects), tuple(networks), speeds, remark)


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
