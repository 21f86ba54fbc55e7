"""Trained weights and what is known of them, from a run of the store or from a file; and their test on any data."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from roadmap.checks import RoadmapError, check_choice, check_int, check_known, plain
from roadmap.data.batches import TEST_BATCH
from roadmap.data.images import named
from roadmap.data.known import data_sets
from roadmap.data.listings import output_order
from roadmap.data.sources import IMAGENET_MEAN, IMAGENET_STD, ImageData, open_data
from roadmap.ladders.ladder import REGIMES, Rung
from roadmap.ladders.rungs import FULL_WIDTH, ladder
from roadmap.network.building import build_network
from roadmap.network.description import RUNG, Description, parse_description
from roadmap.network.design import Design
from roadmap.network.families import NetworkDesign, family_of, on_ladder
from roadmap.network.layers import load_plugins
from roadmap.network.weights import Weights, open_weights
from roadmap.planning.spec import OPENED
from roadmap.store.records import WEIGHTS, Entry
from roadmap.store.store import Store, store_at
from roadmap.training.evaluate import Evaluation, evaluate_network
from roadmap.training.spec import PRECISIONS, Execution

#: Flags that the weights themselves tell, or that only a training heeds: two designs may differ in them.
TOLD_BY_WEIGHTS = ("num_classes", "layer_scale", "stochastic_depth")
#: Flags of a network's size, in which a rung may be scaled.
SIZES = ("blocks", "widths", "stem_stride", "in_channels")


@dataclass(frozen=True)
class TrainedWeights:
    """Weights, their name, which is a signature or a path, and what is known of the network. ``labels``: the rung that
    it stands for, as in a `RunSpec`.

    Of a run also: how its own data is opened, that data's identity, and how it was tested there.
    """

    name: str
    path: Path
    weights: Weights
    description: Description
    labels: dict[str, Any]
    opened: dict[str, Any] = field(default_factory=dict)
    identity: str | None = None
    batch_size: int = TEST_BATCH
    execution: Execution = Execution()
    precision: str = "32"

    @property
    def crop_share(self) -> float:
        """Share of an image's shorter side that the test crop keeps, for the data that it was trained on."""
        source = data_sets().get(self.opened.get("name", ""))
        return 1.0 if source is None else source.crop_share


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
    images = _open_data(trained, data, data_dir, image_size, given)
    return evaluate_network(
        network, _as_trained(images, trained), trained.name, batch_size or trained.batch_size, execution, precision
    )


def load(
    run_or_path: str | os.PathLike,
    store: str | os.PathLike | None = None,
    plugin: str | os.PathLike | Sequence[str | os.PathLike] = (),
) -> nn.Module:
    """The trained network of a run, or of a weights file that says which network it is for, in evaluation mode.

    ``run_or_path`` is a run of the ``store``, by its signature or the beginning of it, or a file that roadmap wrote;
    ``plugin``: files of the network's layers from outside. The network's ``description`` says what it was trained as:
    class names in the order of its outputs, image size, and the mean and deviation that images are normalised with.
    Raises `RoadmapError` where there is no such run or file, and where the weights do not fit.

    >>> network = roadmap.load("3f2a")
    >>> network.description.class_names[network(images).argmax(1)[0]]
    """
    load_plugins(plugin)
    trained = find_trained(run_or_path, store, None, {}, "roadmap.load_weights(roadmap.build(STEP), FILE)")
    network = network_of(trained).eval()
    network.description = trained.description  # type: ignore[assignment]
    return network


# --- what is known of the weights


def find_trained(
    run_or_path: str | os.PathLike,
    store: str | os.PathLike | None,
    step: str | None,
    scale: dict[str, Any],
    option: str = "--step",
) -> TrainedWeights:
    """A run of the store or a file, read; ``step`` and ``scale`` name the network of a file.

    ``option`` is what sentences call the step. Raises `RoadmapError`.
    """
    asked = _rung(step, scale, option)
    if _names_run(run_or_path):
        return _of_run(str(run_or_path), store, asked, option)
    return _of_file(run_or_path, asked, scale, option)


def _names_run(text: str | os.PathLike) -> bool:
    """Whether this is a signature or the beginning of one: a file of such a name is ``./3f2a``."""
    if isinstance(text, str) and re.fullmatch("[0-9a-f]{1,16}", text):
        return True
    if not Path(text).is_file():
        raise RoadmapError(f"'{text}' is neither a file nor a run, which is named by up to 16 digits of 0-9 and a-f")
    return False


def _rung(step: str | None, scale: dict[str, Any], option: str) -> Rung | None:
    """The rung that was asked for, if one was."""
    if step is None:
        if scale:
            raise RoadmapError(f"--{next(iter(scale)).replace('_', '-')} is for {option}, which names the network")
        return None
    size = {name: value for name, value in scale.items() if name != "regime"}
    return ladder(scale.get("regime", "resnet50")).scaled(**size)[step]


def _labels(rung: Rung, scale: dict[str, Any]) -> dict[str, Any]:
    return {
        "regime": scale.get("regime", "resnet50"),
        "step": rung.name,
        "adopted": rung.adopted,
        "width": scale.get("width", FULL_WIDTH),
        "depth": scale.get("depth", 1.0),
    }


def _labels_of(design: NetworkDesign) -> dict[str, Any]:
    """The labels of a network whose file names no rung."""
    if on_ladder(design):
        return _labels(*_like(design))
    name = family_of(design).name(design)
    return {"regime": "resnet50", "step": name, "adopted": False, "width": FULL_WIDTH, "depth": 1.0}


def _like(design: Design) -> tuple[Rung, dict[str, Any]]:
    """The rung, and its scale, of a design that is known alone: of those that differ from it in size only, the one that
    is nearest in depth; the ladder's end where there is none."""

    def choices(of: Design) -> dict[str, Any]:
        return {name: value for name, value in vars(of).items() if name not in (*SIZES, *TOLD_BY_WEIGHTS)}

    known = [(regime, rung) for regime in REGIMES for rung in reversed(ladder(regime).rungs)]
    alike = [pair for pair in known if choices(pair[1].design) == choices(design)] or known[:1]
    regime, rung = min(alike, key=lambda pair: abs(sum(pair[1].design.blocks) - sum(design.blocks)))
    width = round(FULL_WIDTH * design.widths[0] / rung.design.widths[0])
    return rung, {"regime": regime, "width": width, "depth": sum(design.blocks) / sum(rung.design.blocks)}


def _of_run(beginning: str, folder: str | os.PathLike | None, asked: Rung | None, option: str) -> TrainedWeights:
    store = store_at(folder)
    store.check()
    signature = store.find(beginning)
    name = f"run {signature}"
    if asked:
        raise RoadmapError(f"{name} says itself which network it has: leave out {option}")
    entry = store.entry(signature)
    record = _whole_record(store, signature, entry)
    try:
        run, data, made_by = record["run"], record["data"], record["environment"]
        check_known("setting of the data", data["opened"], OPENED)
        facts = {"design": run["design"], "image_size": run["image_size"], "class_names": data["classes"]}
        return TrainedWeights(
            name=signature,
            path=store.path(signature) / WEIGHTS,
            labels={name: run[name] for name in RUNG},
            weights=open_weights(store.path(signature) / WEIGHTS),
            description=parse_description(facts | {"mean": data["mean"], "std": data["std"]}),
            opened=dict(data["opened"]),
            identity=run["data_fingerprint"],
            batch_size=max(run["recipe"]["batch_size"] // run["recipe"].get("accumulate", 1), TEST_BATCH),
            # sums in another order, on another device or by other threads, would be other bits
            execution=Execution("cpu" if made_by["device"] == "cpu" else "auto", threads=made_by["threads"]),
            precision=run["precision"],
        )
    except RoadmapError as error:
        raise RoadmapError(f"{name}: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise RoadmapError(
            f"the record of {name} is incomplete or of another version, so that it cannot be tested"
        ) from None


def _whole_record(store: Store, signature: str, entry: Entry | None) -> dict[str, Any]:
    """The record of a run that has weights, every byte of which is what was written. Raises `RoadmapError`."""
    name = f"run {signature}"
    if entry is None:
        raise RoadmapError(f"{name} was removed from {store.folder} just now")
    if entry.status in ("damaged", "unreadable"):
        raise RoadmapError(f"{name} is {entry.status}: {entry.reason}")
    if entry.record is None or WEIGHTS not in entry.record["files"]:
        why = f" ({' '.join(str(entry.reason).split())})" if entry.reason else ""
        raise RoadmapError(f"{name} is {entry.status}{why} and has no weights to test")
    problem = store.verify(signature)
    if problem:
        raise RoadmapError(f"{name} is damaged: {problem}")
    return entry.record


def _of_file(path: str | os.PathLike, asked: Rung | None, scale: dict[str, Any], option: str) -> TrainedWeights:
    weights = open_weights(path)
    description = weights.description()
    if description is None:
        if asked is None:
            raise RoadmapError(f"{weights.where} does not say what network it is for: name it with {option}")
        description = Description(weights.completed(asked.design))
    elif asked:
        told = description.design
        if not on_ladder(told):
            name = family_of(told).title(told)
            raise RoadmapError(f"{weights.where} says that its network is {name}, not a rung: leave out {option}")
        differing = [
            flag.name
            for flag in dataclasses.fields(Design)
            if flag.name not in TOLD_BY_WEIGHTS and getattr(asked.design, flag.name) != getattr(told, flag.name)
        ]
        if differing:
            flag = differing[0]
            raise RoadmapError(
                f"{weights.where} says that its network has {flag} {getattr(told, flag)}, "
                f"but the one asked for has {getattr(asked.design, flag)}: leave out {option}"
            )
    labels = _labels(asked, scale) if asked else description.rung or _labels_of(description.design)
    if on_ladder(description.design):
        ladder(labels["regime"])[labels["step"]]
    return TrainedWeights(os.fspath(path), Path(path), weights, description, labels)


def network_of(trained: TrainedWeights) -> nn.Module:
    """The network with its weights. Raises `RoadmapError` where they do not fit, before it fills the memory."""
    design = trained.description.design
    if design.in_channels != 3:
        raise RoadmapError(f"{trained.name} takes images of {design.in_channels} channels, but images have 3")
    tensors = trained.weights.of(design)
    network = build_network(design)
    network.load_state_dict({**network.state_dict(), **tensors})
    return network


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
    data = open_data(**settings | how)
    trained.description.design.feature_sizes(data.image_size)
    if own and data.image_size == trained.description.image_size and data.identity != trained.identity:
        raise RoadmapError(
            f"the images of run {trained.name} are no longer those that it was trained on: "
            "to test it on what is there now, name it with --data and --data-dir"
        )
    return data


def _as_trained(data: ImageData, trained: TrainedWeights) -> ImageData:
    """The data with the classes in the order of the network's outputs, and normalised as its training images were.

    Raises `RoadmapError` where the classes are others.
    """
    known = trained.description
    names, notes = known.class_names, data.notes
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
    if len(names) != known.design.num_classes:
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
    return dataclasses.replace(data, class_names=names, test=test, mean=mean, std=std, notes=notes)


def _filled(class_names: Sequence[str]) -> str:
    """The first class, its numbers filled with zeros to the same length as the longest."""
    most = max(len(number) for name in class_names for number in re.findall("[0-9]+", name))
    first = next(name for name in class_names if re.search("[0-9]", name))
    return re.sub("[0-9]+", lambda number: number[0].zfill(most), first)
