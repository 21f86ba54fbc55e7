"""`Explanation`: what a step does, or how two networks differ, as plain data. Needs no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from roadmap.reference import PrintedRow, QuizQuestion

if TYPE_CHECKING:
    from roadmap.cost.measuring import Speed
    from roadmap.explaining.outline import Difference, Piece, View


@dataclass(frozen=True)
class FeatureMap:
    """A feature map, behind the stem or behind ``stages.0``, ...: its shape, the number of blocks of its stage (0 for
    the stem), and the side of its theoretical receptive field in pixels of the image (None: the whole image).
    """

    name: str
    blocks: int
    channels: int
    height: int
    width: int
    receptive_field: int | None


@dataclass(frozen=True)
class BuiltNetwork:
    """A network that was built: its flags, its layers, what it costs for one image, and its stages.

    ``gmacs``: multiply-accumulates in 1e9; ``params`` and ``activations`` in 1; NaN where nobody counted. ``speed``:
    images per second and memory in MiB where they were measured, by `roadmap.cost.measuring.Speed`.
    """

    name: str
    design: dict[str, Any]
    gmacs: float
    params: float
    activations: float
    speed: Speed | None
    stages: tuple[FeatureMap, ...]
    layers: tuple[Piece, ...]


@dataclass(frozen=True)
class PrintedGain:
    """What the paper printed: top-1 in per cent on ImageNet-1K of both networks, with its deviation over seeds, and the
    gain in points, whose deviation is sqrt(s1² + s2²) of both; None where the paper has no such figure."""

    before: PrintedRow | None
    after: PrintedRow
    gain: float | None
    gain_std: float | None


@dataclass(frozen=True)
class MeasuredEffect:
    """What a study measured: points with the interval that decides, the verdict, seeds and failed runs."""

    effect: str
    estimate: float | None
    low: float | None
    high: float | None
    seeds: int
    failed: int
    against: str | None
    verdict: str | None


@dataclass(frozen=True)
class NetworkScore:
    """A network of a study: mean and deviation of its top1 in per cent over seeds; None where there is none."""

    name: str
    top1_mean: float | None
    top1_std: float | None
    seeds: int


@dataclass(frozen=True)
class StudyFindings:
    """What one study says of the step, or of the networks: its folder's name, its design, and on what it was measured.
    ``speed``: images per second in training without the step and with it, or of both networks, and on which device;
    None where not all was trained on one. ``remark`` says why there is nothing."""

    study: str
    design: str
    setting: str
    effects: tuple[MeasuredEffect, ...]
    networks: tuple[NetworkScore, ...]
    speed: tuple[float, float, str] | None
    remark: str


@dataclass(frozen=True)
class Explanation:
    """What a step does, or how two networks differ.

    ``flags`` and ``training``: flags of the `Design` and settings of the recipe, with their values before and after.
    ``before`` is None for the start of a ladder. ``layers``: all that differ, by module name; ``views``: the parts
    of the networks that show it. ``measured_on``: the machine that ``speed`` was measured on; empty where it was not.
    """

    title: str
    regime: str
    image_size: int
    section: str
    why: str
    flags: dict[str, tuple[Any, Any]]
    training: dict[str, tuple[Any, Any]]
    before: BuiltNetwork | None
    after: BuiltNetwork
    layers: tuple[Difference, ...]
    views: tuple[View, ...]
    printed: PrintedGain | None
    measured_on: str
    studies: tuple[StudyFindings, ...]
    questions: tuple[QuizQuestion, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return dataclasses.asdict(self)
