"""`explain` and `diff`: what a step does, and how two networks differ, read from the built networks.

Needs torch only when something is explained. A terminal, a page and a notebook show the same `Explanation`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from roadmap.checks import check_int
from roadmap.explaining.chosen import Chosen, around, named
from roadmap.explaining.explanation import BuiltNetwork, Explanation, FeatureMap, PrintedGain, StudyFindings
from roadmap.explaining.findings import StudyLike, findings_of_networks, findings_of_step
from roadmap.ladders.ladder import REGIMES, Ladder
from roadmap.ladders.rungs import ladder
from roadmap.network.design import Design
from roadmap.network.layers import Layer, find_layer
from roadmap.recipes.recipe import Recipe
from roadmap.reference import QuizQuestion, questions

if TYPE_CHECKING:
    from roadmap.cost.measuring import Speed


class ShownExplanation(Explanation):
    """An `Explanation` that a terminal and a notebook can show."""

    def __str__(self) -> str:
        from roadmap.explaining.text import plain

        return plain(self)

    def _repr_html_(self) -> str:
        from roadmap.explaining.html import as_html

        return as_html(self)


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
    before, after = around(step, rungs, onto, studies)
    name, what = (rungs.start.name, rungs.start) if after.step is None else (after.step.name, after.step)
    return _explanation(
        name,
        what.section,
        what.why,
        rungs,
        before,
        after,
        image_size,
        measure,
        [findings_of_step(study, name, rungs.regime) for study in studies],
        questions().get(name, ()) if after.rung else (),
        costs,
    )


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
    before, after = named(first, rungs, studies), named(second, rungs, studies)
    return _explanation(
        f"{first} → {second}",
        "",
        "",
        rungs,
        before,
        after,
        image_size,
        measure,
        [findings_of_networks(study, (first, second), rungs.regime) for study in studies],
        (),
    )


def _explanation(
    title: str,
    section: str,
    why: str,
    rungs: Ladder,
    before: Chosen | None,
    after: Chosen,
    image_size: int,
    measure: Measuring | None,
    studies: Sequence[StudyFindings],
    asked: tuple[QuizQuestion, ...],
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
    return ShownExplanation(
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


def network_of(name: str, design: Design, image_size: int, costs: bool = True) -> BuiltNetwork:
    """The network of a design as it is built, without its speed; its ``costs`` are counted, or not."""
    built = _built(design, image_size, tuple(find_layer(layer) for layer, _ in design.layers))
    if costs:
        from roadmap.cost.counting import count

        cost = count(design, image_size)
        built = dataclasses.replace(built, gmacs=cost.gmacs, params=cost.params, activations=cost.activations)
    return dataclasses.replace(built, name=name)


def _network(chosen: Chosen, image_size: int, time: Callable[[Design], Speed | None], costs: bool) -> BuiltNetwork:
    built = network_of(chosen.name, chosen.design, image_size, costs)
    return dataclasses.replace(built, speed=time(chosen.design))


@lru_cache(maxsize=256)
def _built(design: Design, image_size: int, plugged: tuple[Layer, ...]) -> BuiltNetwork:
    """A network without name, costs and speed: what comes after one step stands before the next. ``plugged``: the
    layers that stand behind their names now; a plug-in file may be loaded anew."""
    from roadmap.explaining.outline import build_on_meta, outline
    from roadmap.explaining.reach import receptive_fields

    built = build_on_meta(design)
    layers, shapes = outline(built, image_size)
    names = ["stem", *(f"stages.{index}" for index in range(len(design.blocks)))]
    rows = zip(names, (0, *design.blocks), shapes, receptive_fields(built), strict=True)
    return BuiltNetwork(
        name="",
        design=dataclasses.asdict(design),
        gmacs=math.nan,
        params=math.nan,
        activations=math.nan,
        speed=None,
        stages=tuple(
            FeatureMap(name, blocks, shape[0], shape[1], shape[2], side) for name, blocks, shape, side in rows
        ),
        layers=layers,
    )


def _shapes(network: BuiltNetwork, image_size: int) -> list[tuple[int, ...]]:
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


def _changed_recipe(before: Chosen | None, after: Chosen, regime: str) -> dict[str, tuple[Any, Any]]:
    if before is None or before.recipe is None or after.recipe is None:
        return {}
    old, new = (_settings(recipe, regime) for recipe in (before.recipe, after.recipe))
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


def _settings(recipe: Recipe, regime: str) -> dict[str, Any]:
    """The settings of a recipe without what it is called, and with the regime's stochastic depth where it has none."""
    values = {name: value for name, value in vars(recipe).items() if name not in ("name", "why", "classic")}
    return values | {"stochastic_depth": recipe.drop_rate(regime, REGIMES[regime].stochastic_depth)}


def _printed(before: Chosen | None, after: Chosen) -> PrintedGain | None:
    if after.rung is None or (before is not None and before.rung is None):
        return None
    old, new = before.rung.printed if before and before.rung else None, after.rung.printed
    if old is None:
        return PrintedGain(None, new, None, None)
    deviation = None
    if old.top1_std is not None and new.top1_std is not None:
        deviation = math.hypot(old.top1_std, new.top1_std)
    return PrintedGain(old, new, new.top1 - old.top1, deviation)
