"""`Recipe`: every setting of the training as one frozen, validated value. Needs no torch."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from roadmap.checks import (
    RoadmapError,
    check_bool,
    check_choice,
    check_int,
    check_known,
    check_number,
    check_text,
    nearest,
    said,
)
from roadmap.files import read_yaml
from roadmap.settings import from_yaml, setting

OPTIMIZERS = ("sgd", "nesterov", "adam", "adamw", "lamb", "lion")
SCHEDULES = ("cosine", "linear", "step")
CROPS = ("none", "shift", "resized")


@dataclass(frozen=True)
class Recipe:
    """All settings of a training. A recipe is a YAML file; the shipped ones are listed by ``roadmap recipes``.

    Optimizers, schedules, Mixup, CutMix, RandAugment, erasing, averaging and layer-wise decay are timm's. The learning
    rate is the one at ``lr_batch_size`` images a step, and in proportion at others. ``classic`` names the recipe that
    the ladder's start trains with, so that the rung ``modern_recipe`` is the change from that one to this one; None:
    there is no older twin. ``image_size``: what images are resized to where the study does not say, pixels.
    ``stochastic_depth`` may differ between regimes: ``{resnet50: 0.0, resnet200: 0.1}``.

    Raises `RoadmapError` for a value that cannot be, and for two that contradict each other.
    """

    name: str
    why: str = ""
    classic: str | None = None
    image_size: int | None = None
    epochs: int = 1
    batch_size: int = 128
    accumulate: int = setting("parts that a batch is cut into, one after the other, to fit into memory; BatchNorm "
                              "normalises over a part", 1, metavar="N")  # fmt: skip
    optimizer: str = setting("update rule; sgd has momentum", "adamw", choices=OPTIMIZERS)
    lr: float = 1e-3
    lr_batch_size: int = 256
    momentum: float = setting("of sgd and nesterov", 0.9, metavar="M")
    betas: tuple[float, float] = setting("decay rates of both moments, of the other optimizers", (0.9, 0.999),
                                         metavar="B1,B2")  # fmt: skip
    weight_decay: float = setting("weight decay", 0.0, metavar="RATE")
    decay_all: bool = setting("decay norms, biases and layer scale, too", False)
    layer_decay: float | None = setting("factor on the learning rate from each layer to the one beneath, three blocks "
                                        "a layer; none: all learn alike", metavar="FACTOR")  # fmt: skip
    head_scale: float | None = setting("factor on a fresh classifier's initial weights; none: as they are",
                                       metavar="FACTOR")  # fmt: skip
    schedule: str = setting("learning rate after warm-up; step multiplies it at every milestone", "cosine",
                            choices=SCHEDULES)  # fmt: skip
    min_lr: float = setting("where cosine and linear end", 0.0, metavar="RATE")
    milestones: tuple[float, ...] = setting("epochs of the step schedule", (), metavar="E1,E2,...")
    step_factor: float = setting("of the step schedule", 0.1, metavar="FACTOR")
    warmup_epochs: float = setting("epochs of linear warm-up from 0; may be a fraction", 0.0, metavar="N")
    clip_gradient: float | None = setting("largest norm of the whole gradient; none: as it is", metavar="NORM")
    ema: float | None = setting("decay, a step, of an average of the weights, which is then tested and kept; none: no "
                                "average", metavar="DECAY")  # fmt: skip
    ema_warmup: bool = setting("let the average's decay rise from 0 during the first steps", False)
    label_smoothing: float = setting("share of the target that goes to all classes", 0.0, metavar="SHARE")
    mixup: float = setting("alpha of Mixup; 0: none. With CutMix, too, each batch takes one at random", 0.0,
                           metavar="ALPHA")  # fmt: skip
    cutmix: float = setting("alpha of CutMix; 0: none", 0.0, metavar="ALPHA")
    crop: str = setting("random crop: a shift, for small images; or Inception's resized part", "none", choices=CROPS)
    crop_pixels: int = setting("most that an image is shifted", 4, metavar="PIXELS")
    crop_scale: tuple[float, float] = setting("share of the image's area that a resized crop has", (0.08, 1.0),
                                              metavar="LOW,HIGH")  # fmt: skip
    flip: bool = setting("mirror every second image, where the data allows", False)
    randaugment: str | None = setting("RandAugment in timm's words, such as rand-m9-mstd0.5-inc1; none: not used",
                                      metavar="WORDS")  # fmt: skip
    random_erasing: float = setting("probability that a rectangle is erased", 0.0, metavar="P")
    stochastic_depth: float | dict[str, float] | None = setting(
        "drop rate of the last block, linear over depth; none leaves it to the regime (0.1, and 0.5 for resnet200)",
        metavar="RATE",
    )

    def __post_init__(self) -> None:
        for name, length in (("betas", 2), ("crop_scale", 2)):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or len(value) != length:
                raise RoadmapError(f"{name} is {said(value)}, but must be {length} numbers")
            object.__setattr__(self, name, tuple(value))
            for number in value:
                check_number(name, number, 0.0, 1.0)
        for name in ("name", "classic", "randaugment"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if max(self.betas) >= 1:
            raise RoadmapError(f"betas {self.betas} must be below 1")
        if self.randaugment and not re.fullmatch(
            r"rand(-((m|n|mmax|inc)\d{1,2}|(mstd|p)(\d+\.?\d*|\.\d+)))*", self.randaugment
        ):
            raise RoadmapError(
                f"randaugment is '{self.randaugment}', but must be like rand-m9-mstd0.5-inc1 (timm's words)"
            )
        check_int("epochs", self.epochs, 1, 100_000)
        check_int("batch size", self.batch_size, 2, 1_000_000)  # BatchNorm cannot normalise over one
        check_int("lr_batch_size", self.lr_batch_size, 1)
        if self.image_size is not None:
            check_int("image size", self.image_size, 1, 4096)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("crop", self.crop, CROPS)
        check_number("lr", self.lr, 0.0, 1000.0)
        if self.lr == 0:
            raise RoadmapError("lr is 0, but must be above 0")
        for name, high in (
            ("momentum", 1.0), ("weight_decay", 10.0), ("step_factor", 1.0), ("label_smoothing", 1.0),
            ("mixup", 100.0), ("cutmix", 100.0), ("random_erasing", 1.0), ("warmup_epochs", None),
            ("min_lr", 1000.0),
        ):  # fmt: skip
            check_number(name, getattr(self, name), 0.0, high)
        for name, low, high in (
            ("clip_gradient", 1e-9, None), ("layer_decay", 1e-6, 1.0), ("head_scale", 0.0, 1000.0), ("ema", 0.0, 1.0),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low, high)
        rates = self.stochastic_depth if isinstance(self.stochastic_depth, dict) else {"": self.stochastic_depth}
        for rate in rates.values():
            if rate is not None:
                check_number("stochastic_depth", rate, 0.0, 0.99)
        if self.ema == 1:
            raise RoadmapError("ema is 1, but must be below 1: the average would keep the initial weights")
        if self.ema_warmup and self.ema is None:
            raise RoadmapError("ema_warmup needs ema: set ema, or leave ema_warmup out")
        if not isinstance(self.milestones, (list, tuple)):
            raise RoadmapError(f"milestones is {said(self.milestones)}, but must be a list of epochs")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for epoch in self.milestones:
            check_number("milestones", epoch, 0.0, self.epochs)
        if list(self.milestones) != sorted(self.milestones):
            raise RoadmapError(f"milestones is {list(self.milestones)}, but must rise")
        if bool(self.milestones) != (self.schedule == "step"):
            raise RoadmapError(
                "schedule 'step' needs milestones: give the epochs at which the learning rate falls"
                if self.schedule == "step"
                else f"milestones are for schedule 'step', but the schedule is '{self.schedule}': leave them out"
            )
        check_int("crop_pixels", self.crop_pixels, 0, 1024)
        for name in ("decay_all", "flip", "ema_warmup"):
            check_bool(name, getattr(self, name))
        if self.crop_scale[0] > self.crop_scale[1] or self.crop_scale[0] == 0:
            raise RoadmapError(
                f"crop_scale is {self.crop_scale}, but must be two rising shares of the area above 0, such as 0.08,1"
            )
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise RoadmapError(
                f"warmup_epochs is {self.warmup_epochs:g}, but must be below the {self.epochs} epochs of the training"
            )
        if self.min_lr > self.peak_lr:
            raise RoadmapError(
                f"min_lr is {self.min_lr:g}, but must not be above the peak learning rate {self.peak_lr:g}"
            )
        check_int("accumulate", self.accumulate, 1, 100_000)
        if self.batch_size % self.accumulate or self.batch_size == self.accumulate:
            raise RoadmapError(
                f"batches of {self.batch_size} images cannot be cut into {self.accumulate} parts of two "
                "or more: change batch_size or accumulate"
            )
        if self.mixes and self.part_size % 2:
            parts = f" of {self.accumulate} parts" if self.accumulate > 1 else ""
            raise RoadmapError(
                f"batch size is {self.batch_size}{parts}, but Mixup and CutMix pair images: it must be even"
            )

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def part_size(self) -> int:
        """Images that are in memory at once: the batch, or the part of it that `accumulate` leaves."""
        return self.batch_size // self.accumulate

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up, at this batch size."""
        return self.lr * self.batch_size / self.lr_batch_size

    def drop_rate(self, regime: str, default: float) -> float:
        """Stochastic depth's rate in a regime; ``default`` where the recipe leaves it to the regime."""
        rate = self.stochastic_depth
        if isinstance(rate, dict):
            rate = rate.get(regime)
        return default if rate is None else rate

    def with_training(
        self,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Recipe:
        """This recipe with other epochs, batch size, peak learning rate, and some of `SETTINGS`.

        Warm-up and milestones keep their share of the epochs, ``min_lr`` keeps its share of the peak; the learning rate
        follows the batch size, unless ``lr`` is given, which is then the peak as it is. ``settings`` hold as they are;
        a schedule other than step has no milestones.
        """
        settings = settings or {}
        check_known("setting of a recipe", settings, SETTINGS)
        changes: dict[str, Any] = {}
        if epochs is not None:
            check_int("epochs", epochs, 1, 100_000)
            ratio = epochs / self.epochs
            changes |= {
                "epochs": epochs,
                "warmup_epochs": self.warmup_epochs * ratio,
                "milestones": tuple(epoch * ratio for epoch in self.milestones),
            }
        if batch_size is not None:
            changes["batch_size"] = batch_size
        if lr is not None:
            changes |= {"lr": lr, "lr_batch_size": self.batch_size if batch_size is None else batch_size}
        peak = lr or self.lr * changes.get("batch_size", self.batch_size) / self.lr_batch_size
        changes["min_lr"] = self.min_lr * peak / self.peak_lr
        if settings.get("schedule", "step") != "step":
            changes["milestones"] = ()
        return dataclasses.replace(self, **(changes | dict(settings)))


#: What `Recipe.with_training` takes by name, because other settings follow it.
FOLLOWED = ("epochs", "batch_size", "lr")
#: What a study may set of its recipe, beside epochs, batch size and learning rate: name -> field with its help.
SETTINGS = {field.name: field for field in dataclasses.fields(Recipe) if field.metadata}


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def load_recipe(name_or_path: str) -> Recipe:
    """A shipped recipe by name, or one from a YAML file. Raises `RoadmapError` for an unknown name or setting."""
    if name_or_path.endswith((".yaml", ".yml")):
        return parse_recipe(read_yaml(Path(name_or_path)), name=Path(name_or_path).stem)
    return _shipped(name_or_path)


@cache
def _shipped(name: str) -> Recipe:
    if name not in recipe_names():
        raise RoadmapError(
            f"unknown recipe '{name}'{nearest(name, recipe_names())}; known: {', '.join(recipe_names())}, "
            "or the path of a .yaml file"
        )
    return parse_recipe(yaml.safe_load(_folder().joinpath(f"{name}.yaml").read_text(encoding="utf-8")), name=name)


def describe(recipe: Recipe) -> str:
    """A recipe as the YAML file that `load_recipe` reads, with what its settings mean."""
    lines = [f"# {line}" for line in textwrap.wrap(" ".join(f"{recipe.name}: {recipe.why}".split()), 110)]
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if field.name in ("name", "why") or (value is None and not field.metadata):
            continue
        value = list(value) if isinstance(value, tuple) else value
        if field.metadata:
            lines.append(f"# {field.metadata['help']}")
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()
        lines.append(f"{field.name}: {text}")
    return "\n".join(lines) + "\n"


def parse_recipe(settings: dict[str, Any], name: str) -> Recipe:
    """A recipe from plain settings. Raises `RoadmapError` for a setting that does not exist."""
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    check_known("setting of a recipe", settings, fields)
    return Recipe(**{"name": name, **{name: from_yaml(fields[name], value) for name, value in settings.items()}})


def _folder():
    return files(__package__)
