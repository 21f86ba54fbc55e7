"""Image classification: one class an image."""

from __future__ import annotations

import dataclasses

from roadmap.data import HUB
from roadmap.data.known import EMBEDDED, trainable
from roadmap.tasks.task import Metric, NetworkScale, Task

SMALL_IMAGE = 128
#: From fewer training images the paper's networks and recipe learn nothing: batches of a fiftieth of them bring its
#: learning rate, 4e-3 for 4096 images a step, below 1e-4.
FEW_IMAGES = 5000
SMALL = NetworkScale(width=16, depth=1 / 3, stem_stride=2, recipe="small")
FEW = NetworkScale(width=16, depth=1 / 3, stem_stride=4, recipe="small")
PAPER = NetworkScale(width=64, depth=1.0, stem_stride=4, recipe="modern")
OF_EMBEDDED = NetworkScale(width=8, depth=1 / 3, stem_stride=4, recipe="quick")


def scale_for(data: str, image_size: int, images: int) -> NetworkScale:
    """For images below `SMALL_IMAGE` pixels, or fewer of them than `FEW_IMAGES`, networks that a laptop trains, else
    the paper's."""
    if data == EMBEDDED.name:
        # four stages halve three times behind the stem: smaller images would leave nothing behind a stride of 4
        return OF_EMBEDDED if image_size >= 32 else dataclasses.replace(OF_EMBEDDED, stem_stride=2)
    if image_size < SMALL_IMAGE:
        return SMALL
    return FEW if images < FEW_IMAGES else PAPER


TOP1 = Metric("top1", "top-1", "top-1 accuracy (%)", "accuracy on the test images after the last epoch")
TOP5 = Metric("top5", "top-5", "top-5 accuracy (%)", "the same, within the first five")

CLASSIFY = Task(
    name="classify",
    rank=0,
    title="image classification",
    metrics=(TOP1, TOP5),
    score="accuracy",
    trained=TOP1,
    target="one class an image",
    data=lambda: (*trainable(), f"{HUB}NAME"),
    opens="roadmap.data.sources:open_data",
    scale=scale_for,
    unused=("scale", "photometric"),
    printed=True,
    counted=True,
    runtime="roadmap.tasks.classification.runtime:Classification",
)
