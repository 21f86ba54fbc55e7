"""The settings of a study as keywords of a Python function: what `StudySpec` and `Recipe` take, with its types."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ForwardRef, TypedDict, TypeVar

from roadmap.planning.spec import study_settings
from roadmap.questions import question_settings
from roadmap.recipes.recipe import SETTINGS
from roadmap.settings import show_keywords

Function = TypeVar("Function", bound=Callable[..., Any])


class Settings(TypedDict, total=False):
    """Settings of a study and what each may be given as, for type checkers and completion. Defaults, help and checks
    are those of the fields of `StudySpec`, of the questions and of `Recipe` that have the same names."""

    name: str | None
    regime: str
    from_: str | None
    upto: str | None
    only: str | Sequence[str]
    roads: bool
    design: str | None
    steps: str | Sequence[str | Mapping[str, Any]]
    base: str | None
    reference: str | Sequence[str]
    plugin: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    match: str | None
    match_by: str
    task: str
    head: str | None
    head_settings: Mapping[str, Any] | str
    data: str
    data_dir: str | os.PathLike[str] | None
    download: bool
    loading: str
    skip_corrupt: bool
    image_size: int | None
    start_from: str | os.PathLike[str] | None
    recipe: str | os.PathLike[str] | None
    seeds: int | str | Sequence[int]
    base_seeds: int | None
    seeds_for: Mapping[str, int | str | Sequence[int]]
    until_resolved: float | None
    most_seeds: int
    budget: str | None
    matters: float | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    width: int | None
    depth: float | None
    stem_stride: int | None
    test_every: int | None
    precision: int | str
    device: str
    compile: bool
    deterministic: bool
    workers: int | None
    threads: int | None
    jobs: int | str
    devices: int
    num_nodes: int
    engine: str
    address: str | None
    gpus: float | None
    slurm: str | None
    retries: int
    logger: str | None
    fraction: float | str
    orders: int | str
    order_seed: int
    sweep: Mapping[str, Any] | str | Sequence[str]
    grid: bool
    baseline: str | None
    accumulate: int
    optimizer: str
    momentum: float
    betas: tuple[float, float]
    weight_decay: float
    decay_all: bool
    layer_decay: float | None
    head_scale: float | None
    schedule: str
    min_lr: float
    milestones: Sequence[float]
    step_factor: float
    warmup_epochs: float
    clip_gradient: float | None
    ema: float | None
    ema_warmup: bool
    label_smoothing: float
    mixup: float
    cutmix: float
    crop: str
    crop_pixels: int
    crop_scale: tuple[float, float]
    scale: tuple[float, float]
    flip: bool
    photometric: bool
    randaugment: str | None
    random_erasing: float
    frozen_norms: bool
    stochastic_depth: float | dict[str, float] | None


def with_settings(function: Function) -> Function:
    """Show every setting, with its type, default and help, in the signature and the docstring of a function that takes
    them as ``**settings: Unpack[Settings]``."""
    known = study_settings() | question_settings() | SETTINGS
    types = {name: _written(given) for name, given in Settings.__annotations__.items()}
    defaults = {name: one.default for name, one in known.items()} | dict.fromkeys(SETTINGS, ...)  # the recipe's
    show_keywords(function, {name: (types[name], defaults[name]) for name in known})
    listed = "\n".join(f"    {name}: {one.help}" for name, one in known.items())
    function.__doc__ = f"{function.__doc__}\n    Settings, all optional:\n\n{listed}\n"
    return function


def _written(annotation: Any) -> str:
    """A type as it is written in `Settings`."""
    return annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else str(annotation)
