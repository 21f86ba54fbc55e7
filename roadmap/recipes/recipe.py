"""`Recipe`: every setting of the training as one frozen, validated value. Needs no torch."""

from __future__ import annotations

import dataclasses
import os
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from roadmap.checks import RoadmapError, check_int, check_known, check_number, nearest
from roadmap.files import read_yaml
from roadmap.settings import check_settings, setting, settings_in

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
    image_size: int | None = setting(low=1, high=4096)
    epochs: int = setting(default=1, low=1, high=100_000)
    batch_size: int = setting(default=128, low=2, high=1_000_000)  # BatchNorm cannot normalise over one
    accumulate: int = setting(
        "split each batch into this many parts to save memory (gradient accumulation); BatchNorm then normalises each "
        "part by itself",
        1,
        metavar="N",
        low=1,
        high=100_000,
    )
    optimizer: str = setting("optimizer; sgd uses momentum", "adamw", choices=OPTIMIZERS)
    lr: float = setting(default=1e-3, above=0.0, high=1000.0)
    lr_batch_size: int = setting(default=256, low=1)
    momentum: float = setting("momentum of sgd and nesterov", 0.9, metavar="M", low=0.0, high=1.0)
    betas: tuple[float, float] = setting(
        "decay rates of the first and second moment, for adam, adamw, lamb and lion",
        (0.9, 0.999),
        metavar="B1,B2",
        low=0.0,
        below=1.0,
    )
    weight_decay: float = setting("weight decay", 0.0, metavar="RATE", low=0.0, high=10.0)
    decay_all: bool = setting("apply weight decay to norms, biases and layer scale as well", False)
    layer_decay: float | None = setting(
        "layer-wise learning rate decay: factor from each group of three blocks to the one before it",
        metavar="FACTOR",
        above=0.0,
        high=1.0,
    )
    head_scale: float | None = setting(
        "factor on the initial weights of a new classifier", metavar="FACTOR", low=0.0, high=1000.0
    )
    schedule: str = setting(
        "learning rate schedule after warm-up; step multiplies the rate by --step-factor at every milestone",
        "cosine",
        choices=SCHEDULES,
    )
    min_lr: float = setting("final learning rate of cosine and linear", 0.0, metavar="RATE", low=0.0, high=1000.0)
    milestones: tuple[float, ...] = setting(
        "epochs at which the step schedule lowers the learning rate", (), metavar="E1,E2,...", low=0.0
    )
    step_factor: float = setting("factor of the step schedule", 0.1, metavar="FACTOR", low=0.0, high=1.0)
    warmup_epochs: float = setting(
        "epochs of linear learning rate warm-up; may be a fraction", 0.0, metavar="N", low=0.0
    )
    clip_gradient: float | None = setting("clip the gradient to this norm", metavar="NORM", above=0.0)
    ema: float | None = setting(
        "decay per step of an exponential moving average of the weights, which is then tested and kept",
        metavar="DECAY",
        low=0.0,
        below=1.0,
    )
    ema_warmup: bool = setting("let the decay of the moving average rise from 0 in the first steps", False)
    label_smoothing: float = setting("label smoothing", 0.0, metavar="SHARE", low=0.0, high=1.0)
    mixup: float = setting(
        "alpha of Mixup; 0 turns it off. With CutMix on as well, each batch uses one of the two at random",
        0.0,
        metavar="ALPHA",
        low=0.0,
        high=100.0,
    )
    cutmix: float = setting("alpha of CutMix; 0 turns it off", 0.0, metavar="ALPHA", low=0.0, high=100.0)
    crop: str = setting(
        "random crop: shift pads and crops (small images), resized is a random resized crop", "none", choices=CROPS
    )
    crop_pixels: int = setting("largest shift of crop shift", 4, metavar="PIXELS", low=0, high=1024)
    crop_scale: tuple[float, float] = setting(
        "range of the share of the image's area that a resized crop covers",
        (0.08, 1.0),
        metavar="LOW,HIGH",
        above=0.0,
        high=1.0,
    )
    scale: tuple[float, float] = setting(
        "range of a random factor on the size of training images, for tasks that ask where things are",
        (1.0, 1.0),
        metavar="LOW,HIGH",
        above=0.0,
        high=10.0,
    )
    flip: bool = setting("random horizontal flip, where the data set allows it", False)
    photometric: bool = setting("distort brightness, contrast, saturation and hue at random, for segmentation", False)
    randaugment: str | None = setting(
        "RandAugment policy in timm's notation, such as rand-m9-mstd0.5-inc1", metavar="POLICY"
    )
    random_erasing: float = setting("probability of random erasing", 0.0, metavar="P", low=0.0, high=1.0)
    frozen_norms: bool = setting(
        "keep the statistics of BatchNorm as they are at the start instead of normalising over the batch", False
    )
    stochastic_depth: float | dict[str, float] | None = setting(
        "stochastic depth: drop rate of the last block, rising linearly from the first; none uses the regime's default "
        "(0.1; for resnet200 0.5)",
        metavar="RATE",
        low=0.0,
        high=0.99,
    )

    def __post_init__(self) -> None:
        check_settings(self, [name for name in settings_in(Recipe) if name != "why"])
        if self.randaugment and not re.fullmatch(
            r"rand(-((m|n|mmax|inc)\d{1,2}|(mstd|p)(\d+\.?\d*|\.\d+)))*", self.randaugment
        ):
            raise RoadmapError(
                f"randaugment is '{self.randaugment}', but must be like rand-m9-mstd0.5-inc1 (timm's notation)"
            )
        if self.ema_warmup and self.ema is None:
            raise RoadmapError("ema_warmup needs ema: set ema, or leave ema_warmup out")
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
        if self.crop_scale[0] > self.crop_scale[1]:
            raise RoadmapError(f"crop_scale is {self.crop_scale}, but must be two rising shares, such as 0.08,1")
        if self.scale[0] > self.scale[1]:
            raise RoadmapError(f"scale is {self.scale}, but must be two rising factors, such as 0.6,1")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            raise RoadmapError(
                f"warmup_epochs is {self.warmup_epochs:g}, but must be below the {self.epochs} epochs of the training"
            )
        if self.min_lr > self.peak_lr:
            raise RoadmapError(
                f"min_lr is {self.min_lr:g}, but must not be above the peak learning rate {self.peak_lr:g}"
            )
        if self.batch_size % self.accumulate or self.batch_size == self.accumulate:
            raise RoadmapError(
                f"a batch of {self.batch_size} images cannot be split into {self.accumulate} equal parts of two "
                "or more images: change batch_size or accumulate"
            )
        if self.mixes and self.part_size % 2:
            parts = f" in {self.accumulate} parts" if self.accumulate > 1 else ""
            raise RoadmapError(
                f"batch_size is {self.batch_size}{parts}, but Mixup and CutMix pair images: it must be even"
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
#: What a study may set of its recipe, beside epochs, batch size and learning rate.
SETTINGS = {name: one for name, one in settings_in(Recipe).items() if one.help}


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def load_recipe(name_or_path: str | os.PathLike) -> Recipe:
    """A shipped recipe by name, or one from a YAML file. Raises `RoadmapError` for an unknown name or setting."""
    name_or_path = os.fspath(name_or_path)
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
        help = field.metadata.get("help")
        if field.name in ("name", "why") or (value is None and not help):
            continue
        value = list(value) if isinstance(value, tuple) else value
        if help:
            lines.append(f"# {help}")
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()
        lines.append(f"{field.name}: {text}")
    return "\n".join(lines) + "\n"


def parse_recipe(settings: dict[str, Any], name: str) -> Recipe:
    """A recipe from plain settings. Raises `RoadmapError` for a setting that does not exist."""
    known = settings_in(Recipe)
    check_known("setting of a recipe", settings, known)
    return Recipe(**{"name": name, **{key: known[key].from_yaml(value) for key, value in settings.items()}})


def _folder():
    return files(__package__)
