"""Object detection and instance segmentation: boxes and masks of the objects in an image."""

from __future__ import annotations

from dataclasses import dataclass

from roadmap.settings import check_settings, setting
from roadmap.tasks.task import Metric, NetworkScale, Task

#: From fewer images, or smaller ones, a network of the paper's size learns little that a small one does not.
FEW_IMAGES, SMALL_IMAGE = 5000, 128


@dataclass(frozen=True)
class MaskRCNN:
    """Settings of Mask R-CNN's head; the defaults are the paper's, but for the norm, which its ResNets do not have.

    Raises `RoadmapError` for a value that cannot be.
    """

    channels: int = setting("channels of the pyramid, which all widths of the heads are in proportion to", 256, low=4)
    norm: str = setting("norm on the feature maps of the backbone", "layer", choices=("layer", "none"))
    proposals: int = setting("most proposals of an image", 1000, low=1, high=10_000)
    samples: int = setting("proposals of an image that a training step learns from", 512, low=1, high=10_000)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class CascadeMaskRCNN(MaskRCNN):
    """The same of Cascade Mask R-CNN, whose boxes are refined in three stages."""


SMALL_HEAD = {"channels": 16, "proposals": 100, "samples": 32}
SMALL = NetworkScale(width=8, depth=1 / 3, stem_stride=2, recipe="quick-detect", head=SMALL_HEAD)
PAPER = NetworkScale(width=64, depth=1.0, stem_stride=4, recipe="coco-3x")

DETECT = Task(
    name="detect",
    rank=2,
    title="object detection and instance segmentation",
    metrics=(
        Metric("mask_ap", "mask AP", "mask AP (%)", "COCO's average precision of masks on the test images"),
        Metric("box_ap", "box AP", "box AP (%)", "the same of boxes"),
        Metric("mask_ap50", "mask AP50", "mask AP50 (%)", "that of masks at an overlap of one half"),
        Metric("mask_ap75", "mask AP75", "mask AP75 (%)", "that of masks at an overlap of three quarters"),
    ),
    score="mask AP",
    trained=None,
    target="boxes, classes and masks of the objects in an image",
    data=lambda: ("embedded", "coco"),
    opens="roadmap.data.detection:open_detection",
    scale=lambda data, image_size, images: SMALL if image_size < SMALL_IMAGE or images < FEW_IMAGES else PAPER,
    runtime="roadmap.tasks.detection.runtime:Detection",
    heads={"mask_rcnn": MaskRCNN, "cascade_mask_rcnn": CascadeMaskRCNN},
    fewest_images=3,
    unused=(
        "head_scale",
        "label_smoothing",
        "mixup",
        "cutmix",
        "crop",
        "photometric",
        "randaugment",
        "random_erasing",
    ),
    extra={"pycocotools": "roadmap-ablation[dense]"},
)
