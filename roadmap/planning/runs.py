"""`plan`: the runs that answer a study, each complete in itself. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from roadmap.checks import RoadmapError, check_int, check_known
from roadmap.ladders.ladder import REGIMES, start_design
from roadmap.ladders.steps import STUDY_RECIPE, Step, compose, merge
from roadmap.network.design import Design
from roadmap.network.families import NetworkDesign, family_of
from roadmap.network.layers import digest_of
from roadmap.planning.networks import plan_networks, seeds_of
from roadmap.planning.spec import StudySpec
from roadmap.questions.question import Network, Plan
from roadmap.recipes.recipe import FOLLOWED, Recipe, load_recipe
from roadmap.tasks.task import NetworkScale
from roadmap.training.spec import RunSpec

if TYPE_CHECKING:
    from roadmap.cost.matching import Matched
    from roadmap.data.sources import ImageData


#: On sets too small for the batch of a recipe, batches shrink until an epoch has this many steps, to this many images;
#: on the smallest sets to fewer, until it has at least some.
FEWEST_STEPS, SMALLEST_BATCH = 50, 32
LEAST_STEPS, LEAST_BATCH = 10, 8
#: What a match rescales -> flags of steps that it undoes.
UNDONE = {"width": {"width_factor", "widths"}, "depth": {"depth_factor", "blocks"}}


class NetworkResolver(Protocol):
    """Answers what planning can only learn from built networks."""

    def rescale(
        self, image_size: int, batch_size: int, designs: list[Design], target: Design, head: Any
    ) -> list[Matched]:
        """Each design with the cost of the ``target``, both with this head; batches have up to this many images."""

    def unified(self, designs: list[Design]) -> list[Design]:
        """Each design, or in its place the first of them that makes the same network."""

    def references(self, num_classes: int, image_size: int, stem_stride: int) -> list[NetworkDesign]:
        """The networks beside the ladder that the study names."""


def scale_of(spec: StudySpec, data: ImageData) -> NetworkScale:
    """The size of the networks and the recipe: what the study says, else what suits its images."""
    default = spec.asked_task.scale(spec.data, data.image_size, len(data.train))
    given = {name: getattr(spec, name) for name in ("width", "depth", "stem_stride", "recipe")}
    return dataclasses.replace(default, **{name: value for name, value in given.items() if value is not None})


def head_of(spec: StudySpec, scale: NetworkScale) -> Any:
    """Settings of the head that a study asks for; None where its task has none."""
    return spec.asked_task.head(spec.head, spec.head_settings, scale.head)


def plan(
    spec: StudySpec, data: ImageData, resolver: NetworkResolver | None = None, ablation: Plan | None = None
) -> list[RunSpec]:
    """The runs that answer a study on opened data: networks in order, seeds within. Two names of one network, or of one
    training, are runs of one signature.

    ``ablation``: the networks asked for, if known already. Without a ``resolver`` there are no references, and only
    equal designs are one network; a match needs one.

    Raises `RoadmapError` where the strides leave nothing of the images, and where a step would change nothing.
    """
    scale = scale_of(spec, data)
    classes = len(data.class_names)
    start = start_design(spec.regime).replace(stem_stride=scale.stem_stride, num_classes=classes)
    ablation, modern = ablation or plan_networks(spec), load_recipe(scale.recipe)
    seeds = seeds_of(spec, ablation)
    probes = [] if spec.match else ablation.question.probes(ablation)
    networks = [*ablation.networks, *probes]
    designs = [_composed(start, network, scale) for network in networks]
    factors: list[float | None] = [None] * len(designs)
    if spec.match:
        assert resolver is not None
        target = compose(start, ablation.base, scale.width, scale.depth)
        head = head_of(spec, scale)
        matched = resolver.rescale(data.image_size, modern.part_size, designs, target, head)
        designs, factors = [one.design for one in matched], [one.factor for one in matched]
    if resolver and len(set(designs)) > 1:
        designs = resolver.unified(designs)
    made: dict[str, list[RunSpec]] = {}
    for network, design, factor in zip(networks, designs, factors, strict=True):
        labels = {
            "regime": spec.regime,
            "step": network.name,
            "adopted": network.adopted,
            "width": scale.width,
            "depth": scale.depth,
            "ablation": ablation.question.name,
            "steps": tuple(step.name for step in network.steps),
            "match": spec.match and f"{spec.match} by {spec.match_by}",
            "match_factor": factor,
        }
        if network.name in made:
            raise RoadmapError(f"two networks would be called '{network.name}': give the step another name")
        made[network.name] = runs_of(
            spec,
            data,
            labels,
            design,
            _recipe(modern, network.steps),
            training=merge(network.steps).training,
            seeds=seeds.get(network.name),
        )
    _check_changes(spec, ablation, {name: runs[0] for name, runs in made.items()}, modern)
    for probe in probes:
        del made[probe.name]
    for model in resolver.references(classes, data.image_size, scale.stem_stride) if resolver else ():
        family = family_of(model)
        name = str(family.name(model))
        name = f"{family.source}/{name}" if name in made else name
        labels = {
            "regime": spec.regime,
            "step": name,
            "adopted": True,
            "reference": True,
            "width": scale.width,
            "depth": scale.depth,
            "ablation": ablation.question.name,
        }
        made[name] = runs_of(spec, data, labels, model, modern, seeds=seeds.get(name))
    return [run for runs in made.values() for run in runs]


def _composed(start: Design, network: Network, scale: NetworkScale) -> Design:
    try:
        return compose(start, network.steps, scale.width, scale.depth)
    except RoadmapError as error:
        raise RoadmapError(f"{network.name}: {error}") from None


def _recipe(modern: Recipe, steps: Sequence[Step]) -> Recipe:
    """The recipe that a network with these steps trains with, where the study has the ``modern`` one."""
    named = merge(steps).recipe
    if named is None:
        return load_recipe(modern.classic) if modern.classic else modern
    return modern if named == STUDY_RECIPE else load_recipe(named)


def _check_changes(spec: StudySpec, ablation: Plan, runs: Mapping[str, RunSpec], modern: Recipe) -> None:
    """Raise `RoadmapError` for a step that changes nothing anywhere: its name would stand for another training."""

    def are_twins(one: Network, other: Network) -> bool:
        return runs[one.name].signature == runs[other.name].signature

    steps = {step.name: step for network in ablation.networks for step in network.steps}
    for name, pairs in ablation.question.pairs(ablation).items():
        step = steps[name]
        if ablation.question.cumulative:  # no two of its networks may be one
            pairs = [pair for pair in pairs if are_twins(*pair)] or pairs
        undone = spec.match and not step.training and step.changes.keys() <= UNDONE[spec.match_by]
        if undone or not all(are_twins(*pair) for pair in pairs):
            continue
        first = next(iter(runs.values()))
        if step.recipe == STUDY_RECIPE:
            why = f"recipe '{modern.name}' has no classic twin"
        elif not step.changes:
            why = f"recipe '{first.recipe.name}' has these settings already"
        else:
            why = (
                "it is so already, a layer stands in its place, or "
                f"width {first.width} and depth {first.depth:.3g} are too small for it"
            )
        without, with_it = pairs[0]
        raise RoadmapError(
            f"'{with_it.name}' would be the same training as '{without.name}': {why}; leave "
            f"{'it' if with_it.name == name else name} out or change that"
        )


def steps_of(runs: Sequence[RunSpec]) -> list[str]:
    """The steps of some runs, each once, in order."""
    return list(dict.fromkeys(run.step for run in runs))


def runs_of(
    spec: StudySpec,
    data: ImageData,
    labels: dict[str, Any],
    design: NetworkDesign,
    recipe: Recipe,
    initial: str | None = None,
    training: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[RunSpec]:
    """The runs of one network, one a seed (by default the study's), by a recipe with the study's own settings, and its
    own ``training`` before these. ``labels`` say which rung it is.

    Raises `RoadmapError` where the strides leave nothing of the images, or settings contradict each other.
    """
    design.feature_sizes(data.image_size)
    if isinstance(recipe.stochastic_depth, dict):
        check_known(f"regime in the stochastic depth of recipe {recipe.name}", recipe.stochastic_depth, REGIMES)
    recipe = _fitting(recipe, spec, len(data.train), training or {})
    rate = recipe.drop_rate(labels["regime"], REGIMES[labels["regime"]].stochastic_depth)
    run = RunSpec(
        **labels,
        design=design.replace(stochastic_depth=rate),
        recipe=recipe,
        data=data.name,
        data_fingerprint=data.identity,
        image_size=data.image_size,
        seed=0,
        precision=spec.precision,
        initial=initial,
        task=spec.task,
        head=head_of(spec, scale_of(spec, data)),
        plugins=digest_of(name for name, _ in design.layers),
    )
    return [dataclasses.replace(run, seed=seed) for seed in seeds or spec.seeds]


def _fitting(recipe: Recipe, spec: StudySpec, images: int, training: Mapping[str, Any]) -> Recipe:
    """The recipe with the study's own settings, or the network's own, and with batches that suit the number of training
    images."""
    settings = {**spec.recipe_settings, **training}
    own = {name: settings.pop(name, getattr(spec, name)) for name in FOLLOWED}
    parts = settings.get("accumulate", recipe.accumulate)
    check_int("accumulate", parts, 1, 100_000)
    whole = 2 * parts
    smallest = min(SMALLEST_BATCH, max(LEAST_BATCH, images // LEAST_STEPS))
    least = -(-smallest // whole) * whole
    batch_size = own["batch_size"] or min(recipe.batch_size, max(least, images // FEWEST_STEPS // whole * whole))
    batch_size = min(batch_size, max(whole, images // whole * whole))
    return recipe.with_training(
        own["epochs"], None if batch_size == recipe.batch_size else batch_size, own["lr"], settings
    )
