"""`Task`: what networks are trained to do, as one value; and what its side with torch has to bring. Needs no torch."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from roadmap.checks import RoadmapError, check_choice, check_known
from roadmap.imports import is_installed
from roadmap.network.families import NetworkDesign
from roadmap.recipes.recipe import Recipe
from roadmap.settings import settings_in

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from roadmap.cost.counting import Cost
    from roadmap.data.batches import Batcher
    from roadmap.data.sources import ImageData


@dataclass(frozen=True)
class Metric:
    """A figure of a test, in per cent, higher is better.

    ``key``: its column in tables, such as ``top1``. ``short``: the column as it is shown, ``top-1``. ``label``: on an
    axis, ``top-1 accuracy (%)``. ``meaning``: in one sentence.
    """

    key: str
    short: str
    label: str
    meaning: str


@dataclass(frozen=True)
class NetworkScale:
    """How large the networks of a study are where it does not say, and how they train: base ``width`` in channels,
    factor on the ``depth``, ``stem_stride``, name of the ``recipe``, and settings of the ``head`` other than its own
    defaults."""

    width: int
    depth: float
    stem_stride: int
    recipe: str
    head: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What networks are trained to do: a module of `roadmap.tasks` holds one, and is found there.

    name
        What ``--task`` calls it. ``rank``: its place among them; the first is trained where a study does not say.
        Runs of earlier versions, which name none, were trained for that one.
    title
        What it is, as in ``trained for semantic segmentation``.
    metrics
        The figures of a test; the first is the score, of which effects are differences.
    score
        What sentences call the score, where classification says *accuracy*.
    trained
        The figure that is told of the training images while it trains, None where a training has none.
    target
        What is known of a training image: ``one class an image``.
    data
        Names of the data sets that it can be trained on, as ``--data`` takes them; ``hfds/NAME`` stands for any that
        begins so.
    opens
        Function that opens one of them, as ``module:function``, with the arguments of
        `roadmap.data.sources.open_data`: gives an `ImageData`. Raises `RoadmapError`.
    heads
        Name -> frozen dataclass of its settings (`roadmap.settings.setting`), the default first. Empty where networks
        have the classifier of their design.
    scale
        From the name of the data set, the side of its images in pixels and the number of training images to the size of
        the networks where a study does not say.
    runtime
        Class of its side with torch, as ``module:Class``: a `TaskRuntime`.
    fewest_images
        Images that BatchNorm has to see at once: with fewer a run is refused unless its statistics are frozen.
    unused
        Settings of a recipe that mean nothing to it, and are refused at other values than their defaults.
    printed
        Whether the paper prints its score of every rung.
    counted
        Whether the score is a share of the test images, whose number then says how far it is off by chance.
    extra
        Packages that it needs beside roadmap's own -> the extra that installs them.
    """

    name: str
    rank: int
    title: str
    metrics: tuple[Metric, ...]
    score: str
    trained: Metric | None
    target: str
    data: Callable[[], tuple[str, ...]]
    opens: str
    scale: Callable[[str, int, int], NetworkScale]
    runtime: str
    heads: Mapping[str, type] = field(default_factory=dict)
    fewest_images: int = 1
    unused: tuple[str, ...] = ()
    printed: bool = False
    counted: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """The score."""
        return self.metrics[0]

    def check_data(self, name: object) -> None:
        """Raise `RoadmapError` unless one of its data sets can be called so."""
        own = self.data()
        begins = tuple(one.removesuffix("NAME") for one in own if one.endswith("/NAME"))
        if not (isinstance(name, str) and name.startswith(begins) and name not in begins and "\0" not in name):
            check_choice("data", name, own)

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise `RoadmapError` for a setting that means nothing to the task."""
        for name in self.unused:
            default, value = settings_in(Recipe)[name].default, getattr(recipe, name)
            if value != default:
                raise RoadmapError(
                    f"the recipe has {name} {value}, which means nothing to --task {self.name}: leave it out, or set "
                    f"it to {'none' if default is None else default}"
                )

    def head(self, name: str | None, given: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> Any:
        """Settings of the head of that name, by default the first, ``given`` ones before the ``usual``; None where the
        task has none. Raises `RoadmapError` for what cannot be."""
        if not self.heads:
            if name is not None or given:
                raise RoadmapError(f"--head is for tasks with heads of their own, but the task is {self.name}")
            return None
        kind = self.heads[check_choice("head", name or next(iter(self.heads)), tuple(self.heads))]
        known = settings_in(kind)
        check_known(f"setting of head {name or next(iter(self.heads))}", given, known)
        usual = {key: value for key, value in (usual or {}).items() if key in known}
        told = {key: known[key].from_text(one) if isinstance(one, str) else one for key, one in given.items()}
        return kind(**{**usual, **told})

    def head_of(self, values: Mapping[str, Any] | None) -> Any:
        """Settings of a head from plain values: its name as ``head``, and its settings."""
        if values is None:
            return None
        return self.head(values["head"], {key: value for key, value in values.items() if key != "head"})

    def head_values(self, head: Any) -> dict[str, Any] | None:
        """The plain values that `head_of` reads."""
        if head is None:
            return None
        name = next(name for name, kind in self.heads.items() if type(head) is kind)
        return {"head": name, **dataclasses.asdict(head)}

    def open_data(self, **how: Any) -> ImageData:
        """An opened data set; arguments and errors as of `roadmap.data.sources.open_data`."""
        opened: ImageData = _imported(self.opens)(**how)
        return opened

    def check_installed(self) -> None:
        """Raise `RoadmapError` where a package that it needs is not installed."""
        for package, extra in self.extra.items():
            if not is_installed(package):
                raise RoadmapError(f"--task {self.name} needs the package {package}: pip install '{extra}'")

    def make_runtime(self) -> TaskRuntime:
        """Its side with torch. Raises `RoadmapError` where a package that it needs is not installed."""
        self.check_installed()
        made: TaskRuntime = _imported(self.runtime)()
        return made


def _imported(name: str) -> Any:
    module, _, member = name.partition(":")
    return getattr(importlib.import_module(module), member)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a trained network makes of the test images of a data set.

    ``weights`` and ``data``: what these are called; ``metrics``: those of the ``task`` by their keys, in per cent;
    ``loss``: the mean one, None where a test has none; ``images``: how many were tested. ``remarks``: what a reader
    should know of the images and classes, in sentences.
    """

    task: str
    weights: str
    data: str
    image_size: int
    device: str
    precision: str
    metrics: dict[str, float]
    loss: float | None
    class_names: tuple[str, ...]
    images: int
    remarks: tuple[str, ...]

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Of each class its name as ``class``, number of ``images`` and score, by its key; None where it has none."""
        return []

    @property
    def confusion(self) -> np.ndarray | None:
        """What is taken for what: int64 (C, C), true classes in rows; None where a task does not count that."""
        return None

    def confusion_csv(self) -> str:
        """A table of what is taken for what, as comma-separated values. Raises `RoadmapError` where there is none."""
        raise RoadmapError(f"a test of --task {self.task} has no confusion table: leave --out out")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        facts = {name: getattr(self, name) for name in ("weights", "data", "image_size", "device", "precision")}
        named = {"loss": self.loss, "class_names": list(self.class_names), "images": self.images}
        return facts | self.metrics | named | {"classes": self.classes}


class Meter(Protocol):
    """Counts a test. A training makes one for every test and every network that it tests."""

    def update(self, network: nn.Module, batch: Any) -> None:
        """Test one batch, of those that `TaskRuntime.batcher` gives for testing, in inference and under the precision
        of the run; the batch is on the network's device."""

    def gather(self) -> None:
        """Make the counts those of all processes that train together, by torch.distributed; called with several."""

    def compute(self) -> dict[str, float]:
        """Every metric of the task by its key, in per cent, and the mean ``loss`` where the test has one."""

    @property
    def correct(self) -> np.ndarray | None:
        """Which test images are right, bool (N,), in their order; None where a task cannot say that of an image."""

    def evaluation(self, **facts: Any) -> Evaluation:
        """The test as a value; ``facts`` are the fields of `Evaluation`, and only what a task adds is missing."""


class TaskRuntime(Protocol):
    """What a task does with torch. Made without arguments, without any state of its own."""

    def build(self, design: NetworkDesign, head: Any) -> nn.Module:
        """The network, freshly initialised from torch's generator: a backbone of this design and a ``head``, the value
        of one of `Task.heads`. It has its ``design``, whose ``num_classes`` are those of the data, and its ``head``.

        Also called under ``torch.device("meta")``. Raises `RoadmapError` where it cannot be built.
        """

    def batcher(
        self,
        data: ImageData,
        recipe: Recipe,
        seed: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> Batcher:
        """What makes the batches of one run: a `Batcher`, or one with other ``training`` and ``testing``.

        A batch is a tuple whose first item holds the images (its length is their number) and which Lightning can move
        to a device: nested tuples, lists and mappings of tensors. Everything random in epoch e follows from (seed, e).
        """

    def loss(self, network: nn.Module, batch: Any, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """(mean loss of a training batch, sum over its images of `Task.trained` as a share of 1), both scalars; the
        second is zero where there is no such figure."""

    def meter(self, batcher: Batcher, device: torch.device) -> Meter:
        """A fresh meter of the test images of this batcher, on the device of the network."""

    def parameters(self, network: nn.Module, recipe: Recipe) -> Any:
        """What an optimizer is made of: the network, whose groups timm makes (weight decay, `Recipe.layer_decay`), or
        groups with ``params``, ``weight_decay`` and ``lr_scale`` as timm makes them."""

    def cost(self, design: NetworkDesign, head: Any, image_size: int | tuple[int, int]) -> Cost:
        """What one image of this size (a side, or height and width) costs; ``backbone_gmacs`` and ``backbone_params``
        say what of it is the backbone's. Raises `RoadmapError` as `build`."""

    def normalises_over_batch(self, design: NetworkDesign, head: Any) -> bool:
        """Whether what an image comes to depends on the others of its batch in training."""
