"""Studies that start from trained weights: one network, trained further on other images or at another resolution."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError
from roadmap.data.listings import output_order
from roadmap.formatting import listed
from roadmap.network.families import NetworkDesign
from roadmap.network.layers import load_plugins
from roadmap.planning.runs import runs_of
from roadmap.planning.spec import StudySpec
from roadmap.recipes.recipe import load_recipe
from roadmap.store.folder import StudyFolder
from roadmap.training.spec import RunSpec

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData

#: What a network and the one that it starts from may differ in.
FREE = ("num_classes", "stochastic_depth")
#: The recipe where a study says nothing.
RECIPE = "finetune-1k"


@dataclass(frozen=True)
class Start:
    """Trained weights in a file, as plain values: the ``design`` and labels of their network, its classes where known,
    the ``task`` that it was trained for, and the digests of all of them and of all but the classifier."""

    path: Path
    design: NetworkDesign
    class_names: tuple[str, ...] | None
    labels: dict[str, Any]
    task: str
    whole: str
    without_classifier: str


def find_start(spec: StudySpec, store: Path) -> Start:
    """What a study's ``start_from`` names: a run of the store, or a file of weights, whose network ``only`` names where
    the file does not, with ``regime``, ``width``, ``depth`` and ``stem_stride``. Raises `RoadmapError`."""
    from roadmap.running.trained import find_trained
    from roadmap.training.start import StartingWeights

    assert spec.start_from is not None
    load_plugins(spec.plugin)
    scale = {name: getattr(spec, name) for name in ("width", "depth", "stem_stride") if getattr(spec, name) is not None}
    if spec.only:
        scale["regime"] = spec.regime
    trained = find_trained(spec.start_from, store, spec.only[0] if spec.only else None, scale, "--only")
    weights = StartingWeights(trained.weights, trained.description.design)
    return Start(
        path=trained.path.absolute(),
        design=trained.description.design,
        class_names=trained.description.class_names,
        labels=trained.labels,
        task=trained.task.name,
        whole=weights.digest(classifier=True),
        without_classifier=weights.digest(classifier=False),
    )


def find_starts(spec: StudySpec, runs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Start]:
    """What each of these (network, seed) starts from: its own run in the study whose folder ``start_from`` names.

    Raises `RoadmapError` where the folder holds no study, or not these runs with their weights.
    """
    assert spec.start_from is not None
    folder = StudyFolder(spec.start_from)
    asked, store = folder.study()["runs"], folder.store.folder.resolve()
    there = {(run["step"], run["seed"]): run["signature"] for run in asked if {"step", "seed"} <= run.keys()}
    starts = {}
    for step, seed in runs:
        if (step, seed) not in there:
            seeds = sorted(known for name, known in there if name == step)
            has = f"of {step} it has the seeds {listed([*map(str, seeds)])}" if seeds else f"it has no {step}"
            raise RoadmapError(f"{spec.start_from} has no run of {step} with seed {seed} to start from: {has}")
        own = StudySpec(start_from=there[step, seed], plugin=spec.plugin)
        starts[step, seed] = find_start(own, store)
    return starts


def start_each(
    runs: Sequence[RunSpec], starts: Mapping[tuple[str, int], Start], classes: Sequence[str]
) -> list[RunSpec]:
    """The runs, each from the weights of its own start: all but the classifier, unless the classes are the same.

    Raises `RoadmapError` where a network differs from the one that it is to start from.
    """
    started = []
    for run in runs:
        start = starts[run.step, run.seed]
        own, theirs = (dataclasses.asdict(one) for one in (run.design, start.design))
        for name in own:
            if name not in FREE and theirs.get(name) != own[name]:
                raise RoadmapError(
                    f"{run.step} cannot start from its run, whose {name} is {theirs.get(name)}: here it is {own[name]}"
                )
        same = run.task == start.task and start.class_names == tuple(classes)
        started.append(dataclasses.replace(run, initial=start.whole if same else start.without_classifier))
    return started


def plan_finetuning(spec: StudySpec, data: ImageData, start: Start) -> list[RunSpec]:
    """The runs that train these weights further, one a seed.

    Where the classes are the same, in the same order (or as many, where those of the weights are not known, and their
    order is beyond doubt), the classifier goes on, too; else it begins anew.
    """
    classes = len(data.class_names)
    order = start.class_names or (output_order(data.class_names) if start.design.num_classes == classes else None)
    return runs_of(
        spec,
        data,
        start.labels,
        start.design.replace(num_classes=classes),
        load_recipe(spec.recipe or RECIPE),
        start.whole if order == data.class_names else start.without_classifier,
    )
