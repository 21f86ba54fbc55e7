"""Trained weights and what is known of them, from a run of the store or from a file; and their test on any data."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from roadmap.checks import RoadmapError, check_known
from roadmap.data.batches import TEST_BATCH
from roadmap.ladders.ladder import REGIMES, Rung
from roadmap.ladders.rungs import FULL_WIDTH, ladder
from roadmap.network.description import RUNG, Description, parse_description
from roadmap.network.design import Design
from roadmap.network.families import NetworkDesign, family_of, on_ladder
from roadmap.network.layers import load_plugins
from roadmap.network.weights import Weights, open_weights
from roadmap.planning.spec import OPENED
from roadmap.store.records import WEIGHTS, Entry
from roadmap.store.store import Store, store_at
from roadmap.tasks import default_task, task_named
from roadmap.tasks.task import Task
from roadmap.training.spec import Execution

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
    part_size: int = TEST_BATCH
    execution: Execution = Execution()
    precision: str = "32"

    @property
    def task(self) -> Task:
        """What the network was trained to do."""
        return task_named(self.description.task or default_task().name)

    @property
    def head(self) -> Any:
        """Settings of its head, of one of `Task.heads`; None where it has none."""
        return self.task.head_of(self.description.head)


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
            description=parse_description(
                facts
                | {"mean": data["mean"], "std": data["std"]}
                | {name: run[name] for name in ("task", "head") if run.get(name)}
            ),
            opened=dict(data["opened"]),
            identity=run["data_fingerprint"],
            part_size=run["recipe"]["batch_size"] // run["recipe"].get("accumulate", 1),
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
    build = partial(trained.task.make_runtime().build, design, trained.head)
    tensors = trained.weights.of(design, build)
    network = build()
    network.load_state_dict({**network.state_dict(), **tensors})
    return network
