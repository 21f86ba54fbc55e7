"""Semantic segmentation: one class a pixel."""

from __future__ import annotations

from dataclasses import dataclass

from roadmap.settings import check_settings, setting
from roadmap.tasks.task import Metric, NetworkScale, Task


@dataclass(frozen=True)
class UPerNet:
    """Settings of UPerNet's head; the defaults are the paper's for ADE20K, but for the norm, which its ResNets lack.

    A ``window`` of W pixels, moved by ``stride`` (by default two thirds of it: 341 for 512), tests an image piece by
    piece and averages the logits where pieces overlap; without one an image is tested as a whole. Raises `RoadmapError`
    for a value that cannot be.
    """

    channels: int = setting("channels of the pyramid; the auxiliary head has half of them", 512, low=2, high=4096)
    norm: str = setting("norm on the feature maps of the backbone", "layer", choices=("layer", "none"))
    dropout: float = setting("dropout before the classifier of a pixel", 0.1, low=0.0, below=1.0)
    auxiliary: float = setting("weight of the auxiliary head's loss, on the third stage", 0.4, low=0.0, high=10.0)
    window: int | None = setting("side of the sliding window of a test in pixels", low=32, high=4096)
    stride: int | None = setting("pixels that the window is moved by", low=1, high=4096)

    def __post_init__(self) -> None:
        check_settings(self)


MIOU = Metric(
    "miou",
    "mIoU",
    "mean IoU (%)",
    "intersection over union, from the counts of all test pixels, mean over the classes that there are",
)
PIXELS = Metric("pixel_accuracy", "pixel acc.", "pixel accuracy (%)", "share of the labelled test pixels told right")
CLASSES = Metric("class_accuracy", "class acc.", "mean class accuracy (%)", "the same of each class, mean over these")

SMALL = NetworkScale(width=8, depth=1 / 3, stem_stride=2, recipe="quick-segment", head={"channels": 24})
PAPER = NetworkScale(width=64, depth=1.0, stem_stride=4, recipe="ade20k-160k", head={"window": 512})
#: From fewer images, or smaller ones, a network of the paper's size learns little that a small one does not.
FEW_IMAGES, SMALL_IMAGE = 1000, 128

SEGMENT = Task(
    name="segment",
    rank=1,
    title="semantic segmentation",
    metrics=(MIOU, PIXELS, CLASSES),
    score="mIoU",
    trained=PIXELS,
    target="one class a pixel",
    data=lambda: ("embedded", "ade20k", "voc"),
    opens="roadmap.data.segmentation:open_segmentation",
    scale=lambda data, image_size, images: SMALL if image_size < SMALL_IMAGE or images < FEW_IMAGES else PAPER,
    runtime="roadmap.tasks.segmentation.runtime:Segmentation",
    heads={"upernet": UPerNet},
    fewest_images=3,
    unused=("head_scale", "mixup", "cutmix", "crop", "randaugment", "random_erasing"),
    extra={"segmentation_models_pytorch": "roadmap-ablation[dense]"},
)
