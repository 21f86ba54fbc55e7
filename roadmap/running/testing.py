"""Trained networks tested on images: their own, others of the same classes, and corrupted ones."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from roadmap.checks import RoadmapError, check_choice, check_int, plain
from roadmap.data.corrupted import KINDS, STRENGTHS, corrupted
from roadmap.data.images import named
from roadmap.data.known import data_sets
from roadmap.data.listings import output_order
from roadmap.data.sources import IMAGENET_MEAN, IMAGENET_STD, ImageData
from roadmap.network.layers import load_plugins
from roadmap.running.trained import TrainedWeights, find_trained, network_of
from roadmap.tasks import check_default
from roadmap.tasks.task import Evaluation
from roadmap.training.evaluate import evaluate_network, evaluate_networks
from roadmap.training.spec import PRECISIONS, Execution


def evaluate(
    run_or_path: str | os.PathLike,
    data: str | None = None,
    data_dir: str | os.PathLike | None = None,
    image_size: int | None = None,
    store: str | os.PathLike | None = None,
    step: str | None = None,
    regime: str | None = None,
    width: int | None = None,
    depth: float | None = None,
    stem_stride: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    precision: str | None = None,
    loading: str | None = None,
    skip_corrupt: bool | None = None,
    plugin: str | os.PathLike | Sequence[str | os.PathLike] = (),
) -> Evaluation:
    """Test trained weights on a data set; ``roadmap eval`` from Python.

    ``run_or_path`` is a run of the ``store``, by its signature or the beginning of it, or a file of weights that
    `load_weights` reads. A run is tested on its own data unless ``data`` or ``data_dir`` name other images, and there
    with its own threads, so that it meets its recorded result. ``image_size`` and ``precision`` are by default those of
    the training. ``step`` names the network of a file that does not say it itself, with ``regime``, ``width``,
    ``depth`` and ``stem_stride`` as in `Ladder.scaled`. Images are normalised as those that the network was trained on,
    in doubt as ImageNet's. ``device``, ``threads`` and ``workers`` are those of an `Execution`,
    ``loading`` and ``skip_corrupt`` those of `open_data`. ``plugin``: files of the network's layers from outside.
    Raises `RoadmapError` with one sentence where something asked for cannot be.
    """
    load_plugins(plugin)
    scale = plain({"regime": regime, "width": width, "depth": depth, "stem_stride": stem_stride})
    if batch_size is not None:
        batch_size = check_int("batch size", batch_size, 1, 1_000_000)
    given = {name: value for name, value in scale.items() if value is not None}
    trained = find_trained(run_or_path, store, step, given)
    precision = check_choice("precision", precision or trained.precision, PRECISIONS)
    own = trained.execution if data is None and data_dir is None else Execution()
    execution = Execution(device or own.device, threads=own.threads if threads is None else threads, workers=workers)
    network = network_of(trained)
    how = {"loading": loading, "skip_corrupt": skip_corrupt}
    given = {name: value for name, value in how.items() if value is not None}
    images, outputs = _as_trained(_open_data(trained, data, data_dir, image_size, given), trained)
    return evaluate_network(
        network if outputs is None else SomeOutputs(network, outputs),
        images,
        trained.name,
        batch_size,
        execution,
        precision,
        trained.task,
        trained.part_size,
    )


@dataclass(frozen=True)
class CorruptedTest:
    """What networks make of corrupted test images: of each, by its name, its score in per cent by (kind, strength).
    ``images``: how many each was tested on, ``image_size`` their side."""

    scores: dict[str, dict[tuple[str, int], float]]
    images: int
    image_size: int


def evaluate_corrupted(
    trained: Sequence[TrainedWeights],
    kinds: Sequence[str] = KINDS,
    strengths: Sequence[int] = STRENGTHS,
    most: int | None = None,
    data: str | None = None,
    data_dir: str | os.PathLike | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
) -> CorruptedTest:
    """Test networks on their own test images, or others, corrupted by `KINDS` at `STRENGTHS`
    (`roadmap.data.corrupted`). All see the same corrupted images, each made once.

    ``most``: images that are taken, spread evenly over the test images (None: all).
    Raises `RoadmapError` where the networks were trained on different data, and as `evaluate`.
    """
    for kind in kinds:
        check_choice("kind of corruption", kind, KINDS)
    for strength in strengths:
        check_choice("strength", strength, STRENGTHS)
    first = trained[0]
    check_default(first.task, "--on corrupted", first.name)
    images, outputs = _as_trained(_open_data(first, data, data_dir, None, {}), first)
    for other in trained[1:]:
        told = ("class_names", "image_size", "mean", "std", "task")
        if any(getattr(other.description, name) != getattr(first.description, name) for name in told):
            raise RoadmapError(f"{first.name} and {other.name} were trained on different data: test them by themselves")
    if most is not None and check_int("images", most, 1) < len(images.test):
        chosen = np.unique(np.linspace(0, len(images.test) - 1, most).round().astype(int))
        images = dataclasses.replace(images, test=images.test.select(chosen))
    networks = {one.name: network_of(one) for one in trained}
    if outputs is not None:
        networks = {name: SomeOutputs(network, outputs) for name, network in networks.items()}
    execution = Execution(device or "auto", threads=threads, workers=workers)
    scores: dict[str, dict[tuple[str, int], float]] = {name: {} for name in networks}
    for kind in kinds:
        for strength in strengths:
            tested = corrupted(images, kind, strength)
            found = evaluate_networks(
                networks, tested, batch_size, execution, first.precision, first.task, first.part_size
            )
            for name, result in found.items():
                scores[name][kind, strength] = result.metrics[first.task.metric.key]
    return CorruptedTest(scores, len(images.test), images.image_size)


# --- the images, as the network knows them


def _open_data(
    trained: TrainedWeights,
    name: str | None,
    folder: str | os.PathLike | None,
    image_size: int | None,
    how: dict[str, Any],
) -> ImageData:
    """The data asked for, by default a run's own, which must be what it was."""
    own = name is None and folder is None
    if own and not trained.opened:
        raise RoadmapError(f"{trained.weights.where} needs --data, the images to test it on")
    settings: dict[str, Any] = dict(trained.opened) if name is None else {"name": name}
    if folder is not None:
        settings["directory"] = folder
    size = image_size if image_size is not None else trained.description.image_size
    if size is not None:
        settings["image_size"] = size
    data = trained.task.open_data(**settings | how)
    trained.description.design.feature_sizes(data.image_size)
    if own and data.image_size == trained.description.image_size and data.identity != trained.identity:
        raise RoadmapError(
            f"the images of run {trained.name} are no longer those that it was trained on: "
            "to test it on what is there now, name it with --data and --data-dir"
        )
    return data


class SomeOutputs(nn.Module):
    """A network that tells only some of its classes apart, those whose places among its outputs are ``outputs``."""

    def __init__(self, network: nn.Module, outputs: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("outputs", torch.tensor(outputs), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, number of outputs)."""
        logits: Tensor = self.network(images)[:, self.outputs]
        return logits


def imagenet_synsets() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in their order, such as ``n01440764``, from timm."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def _some_classes(data: ImageData, trained: TrainedWeights) -> tuple[ImageData, Sequence[int]]:
    """The images of a test set whose classes the network knows, and which of its outputs these are. Class names that
    are numbers count ImageNet's 1,000; a network of as many that has no names is of these. Images of other classes are
    left out, and counted in the notes."""
    synsets = imagenet_synsets()
    names = trained.description.class_names or (synsets if trained.description.design.num_classes == 1000 else None)
    if names is None:
        raise RoadmapError(f"{trained.name} does not say which classes it tells apart, so {data.name} cannot test it")
    told = [synsets[int(name)] if name.isdecimal() and int(name) < 1000 else name for name in data.class_names]
    places = {name: place for place, name in enumerate(names)}
    found = [places.get(name) for name in told]
    outputs = sorted(place for place in found if place is not None)
    if len(outputs) < 2:
        raise RoadmapError(
            f"{trained.name} tells none of the classes of {data.name} apart, such as {data.class_names[0]}"
        )
    order = {place: number for number, place in enumerate(outputs)}
    labels = np.array([-1 if place is None else order[place] for place in found])[data.test.labels]
    kept = np.flatnonzero(labels >= 0)
    left_out = len(labels) - len(kept)
    notes = (
        (*data.notes, f"{left_out} images of classes that {trained.name} does not know are left out")
        if left_out
        else data.notes
    )
    test = dataclasses.replace(data.test.select(kept), labels=labels[kept])
    return dataclasses.replace(
        data, class_names=tuple(names[place] for place in outputs), test=test, notes=notes
    ), outputs


def _as_trained(data: ImageData, trained: TrainedWeights) -> tuple[ImageData, Sequence[int] | None]:
    """The data with the classes in the order of the network's outputs, and normalised as its training images were; and
    which outputs these are, where they are not all.

    Raises `RoadmapError` where the classes are others.
    """
    known = trained.description
    source, outputs = data_sets().get(data.name), None
    if source is not None and source.test_only:
        data, outputs = _some_classes(data, trained)
    names, notes = known.class_names if outputs is None else data.class_names, data.notes
    if trained.head is not None and names != data.class_names:  # whose classes stand in masks and boxes
        raise RoadmapError(f"{data.name} has other classes than {trained.name}, or has them in another order")
    if names is None:
        names = output_order(data.class_names)
        if names is None:
            raise RoadmapError(
                f"{trained.name} has no class names, and those of {data.name} have another order as text than by the "
                f"numbers in them: name the folders so that both agree, such as {_filled(data.class_names)}"
            )
        order = named(list(names))
        notes = (*notes, f"the outputs of {trained.name} have no names, and stand for the classes in the order {order}")
    for missing, words in (
        (sorted(set(names) - set(data.class_names)), f"{trained.name} tells apart is not in {data.name}"),
        (sorted(set(data.class_names) - set(names)), f"{data.name} has is unknown to {trained.name}"),
    ):
        if missing:
            raise RoadmapError(f"class {missing[0]!r} that {words}")
    if outputs is None and len(names) != known.design.num_classes:
        raise RoadmapError(
            f"{data.name} has {len(names)} classes, but {trained.name} tells {known.design.num_classes} apart"
        )
    test = data.test
    if names != data.class_names:
        if len(set(names)) != len(names):
            raise RoadmapError(
                f"{trained.name} has several classes of one name, so that its outputs cannot be matched with "
                "the data: rename them"
            )
        numbers = {name: number for number, name in enumerate(names)}
        places = np.array([numbers[name] for name in data.class_names], dtype=np.int64)
        test = dataclasses.replace(test, labels=places[test.labels])
    mean, std = known.mean or IMAGENET_MEAN, known.std or IMAGENET_STD
    return dataclasses.replace(data, class_names=names, test=test, mean=mean, std=std, notes=notes), outputs


def _filled(class_names: Sequence[str]) -> str:
    """The first class, its numbers filled with zeros to the same length as the longest."""
    most = max(len(number) for name in class_names for number in re.findall("[0-9]+", name))
    first = next(name for name in class_names if re.search("[0-9]", name))
    return re.sub("[0-9]+", lambda number: number[0].zfill(most), first)
