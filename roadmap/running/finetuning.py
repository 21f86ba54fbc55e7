"""Studies that start from trained weights: one network, trained further on other images or at another resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.data.listings import output_order
from roadmap.network.families import NetworkDesign
from roadmap.network.layers import load_plugins
from roadmap.planning.runs import runs_of
from roadmap.planning.spec import StudySpec
from roadmap.recipes.recipe import load_recipe
from roadmap.training.spec import RunSpec

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData

#: The recipe where a study says nothing.
RECIPE = "finetune-1k"


@dataclass(frozen=True)
class Start:
    """Trained weights in a file, as plain values: the ``design`` and labels of their network, its classes where known,
    and the digests of all of them and of all but the classifier."""

    path: Path
    design: NetworkDesign
    class_names: tuple[str, ...] | None
    labels: dict[str, Any]
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
        whole=weights.digest(classifier=True),
        without_classifier=weights.digest(classifier=False),
    )


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
