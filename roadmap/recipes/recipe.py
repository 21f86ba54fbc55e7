"""`Recipe`: every setting of the training as one frozen, validated value. Needs no torch."""

from __future__ import annotations

import dataclasses
import re
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
)
from roadmap.files import read_yaml

OPTIMIZERS = ("sgd", "adamw", "lamb")
SCHEDULES = ("cosine", "step")
CROPS = ("none", "shift", "resized")


@dataclass(frozen=True)
class Recipe:
    """All settings of a training. A recipe is a YAML file; the shipped ones are listed by ``roadmap recipes``.

    name, why
        What it is called and where its numbers come from.
    classic
        Name of the recipe that the ladder's start trains with, so that the rung ``modern_recipe`` is the change from
        that one to this one. None: this recipe has no older twin.
    epochs, batch_size
        Passes over the training images, and images a step.
    optimizer, momentum, betas, weight_decay, decay_all
        ``sgd`` (momentum), ``adamw`` or ``lamb`` (betas), from timm. Weight decay spares norms, biases and layer scale
        unless ``decay_all``.
    lr, lr_batch_size
        Peak learning rate at ``lr_batch_size`` images a step; it scales in proportion to ``batch_size``.
    schedule, milestones, step_factor, warmup_epochs
        ``cosine`` to zero; ``step`` multiplies by ``step_factor`` at each of the ``milestones``, in epochs.
        Before that a linear warm-up from 0. Epochs may be fractions.
    label_smoothing, mixup, cutmix
        Smoothing of the targets; alpha of Mixup and of CutMix (timm; with both, each batch takes one at random).
    crop, crop_pixels, crop_scale, flip
        ``shift`` moves each image by up to ``crop_pixels`` (for small images); ``resized`` cuts a random part, of an
        area within ``crop_scale``, and resizes it (Inception's); ``flip`` mirrors every second one where the data
        allows.
    randaugment, random_erasing
        timm's RandAugment by its configuration string, and the probability to erase a rectangle.
    stochastic_depth
        Drop rate of the last block, for every rung alike; None leaves it to the regime (§A.1: 0.1, and 0.5 for
        ResNet-200's).
    clip_gradient
        Largest norm of the whole gradient; None leaves it as it is.
    """

    name: str
    why: str = ""
    classic: str | None = None
    epochs: int = 1
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 1e-3
    lr_batch_size: int = 256
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decay_all: bool = False
    schedule: str = "cosine"
    milestones: tuple[float, ...] = ()
    step_factor: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    crop: str = "none"
    crop_pixels: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = False
    randaugment: str | None = None
    random_erasing: float = 0.0
    stochastic_depth: float | None = None
    clip_gradient: float | None = None

    def __post_init__(self) -> None:
        for name, length in (("betas", 2), ("crop_scale", 2)):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or len(value) != length:
                raise RoadmapError(f"{name} is {value!r}, but must be {length} numbers")
            object.__setattr__(self, name, tuple(value))
            for number in value:
                check_number(name, number, 0.0, 1.0)
        for name in ("name", "classic", "randaugment"):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
        if max(self.betas) >= 1:
            raise RoadmapError(f"betas {self.betas} must be below 1")
        if self.randaugment and not re.fullmatch(r"rand(-(m|n|w|inc|mstd|mmax|p)[0-9.]+)*", self.randaugment):
            raise RoadmapError(
                f"randaugment is '{self.randaugment}', but must be like rand-m9-mstd0.5-inc1 (timm's words)"
            )
        check_int("epochs", self.epochs, 1, 100_000)
        check_int("batch size", self.batch_size, 2, 1_000_000)  # BatchNorm cannot normalise over one
        check_int("lr_batch_size", self.lr_batch_size, 1)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("crop", self.crop, CROPS)
        check_number("lr", self.lr, 0.0, 1000.0)
        if self.lr == 0:
            raise RoadmapError("lr is 0, with which nothing is learnt: it must be above 0")
        for name, high in (
            ("momentum", 1.0), ("weight_decay", 10.0), ("step_factor", 1.0), ("label_smoothing", 1.0),
            ("mixup", 100.0), ("cutmix", 100.0), ("random_erasing", 1.0), ("warmup_epochs", None),
        ):  # fmt: skip
            check_number(name, getattr(self, name), 0.0, high)
        if not isinstance(self.milestones, (list, tuple)):
            raise RoadmapError(f"milestones is {self.milestones!r}, but must be a list of epochs")
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for epoch in self.milestones:
            check_number("milestones", epoch, 0.0, self.epochs)
        if list(self.milestones) != sorted(self.milestones):
            raise RoadmapError(f"milestones {self.milestones} must rise")
        if bool(self.milestones) != (self.schedule == "step"):
            raise RoadmapError(
                f"schedule is '{self.schedule}' with milestones {self.milestones}: 'step' alone has them"
            )
        check_int("crop_pixels", self.crop_pixels, 0, 1024)
        check_bool("decay_all", self.decay_all)
        check_bool("flip", self.flip)
        if self.crop_scale[0] > self.crop_scale[1] or self.crop_scale[0] == 0:
            raise RoadmapError(f"crop_scale is {self.crop_scale}, but must be two rising shares of the area above 0")
        if self.stochastic_depth is not None:
            check_number("stochastic_depth", self.stochastic_depth, 0.0, 0.99)
        if self.clip_gradient is not None:
            check_number("clip_gradient", self.clip_gradient, 1e-9)
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise RoadmapError(f"warm-up of {self.warmup_epochs} epochs leaves nothing of {self.epochs} epochs")
        if self.mixes and self.batch_size % 2:
            raise RoadmapError(f"batch size is {self.batch_size}, but Mixup and CutMix pair images: it must be even")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def peak_lr(self) -> float:
        """The learning rate after warm-up, at this batch size."""
        return self.lr * self.batch_size / self.lr_batch_size

    def with_training(
        self, epochs: int | None = None, batch_size: int | None = None, lr: float | None = None
    ) -> Recipe:
        """This recipe with other epochs, batch size or peak learning rate.

        Warm-up and steps of the schedule keep their share of the epochs; the learning rate follows the batch size,
        unless ``lr`` is given, which is then the peak as it is.
        """
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
        return dataclasses.replace(self, **changes)


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


def parse_recipe(settings: dict[str, Any], name: str) -> Recipe:
    """A recipe from plain settings. Raises `RoadmapError` for a setting that does not exist."""
    check_known("setting of a recipe", settings, [field.name for field in dataclasses.fields(Recipe)])
    return Recipe(**{"name": name, **settings})


def _folder():
    return files(__package__)
