"""Test sets for networks that know ImageNet's classes, in the layouts in which they are published: a folder of class
folders, named by synset or, in ImageNet-V2, by the number of the class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.data.known import Source

if TYPE_CHECKING:
    from roadmap.data.listings import Listing

#: What the folder within the published archive is called.
ARCHIVES = {
    "imagenet-a": ("imagenet-a",),
    "imagenet-r": ("imagenet-r",),
    "imagenet-sketch": ("sketch",),
    "imagenet-v2": (
        "imagenetv2-matched-frequency-format-val",
        "imagenetv2-threshold0.7-format-val",
        "imagenetv2-top-images-format-val",
    ),
}


def _source(name: str) -> Source:
    def read(root: Path) -> list[Listing]:
        from roadmap.data.folders import list_part

        within = next((root / folder for folder in ARCHIVES[name] if (root / folder).is_dir()), root)
        return [list_part("test", within, tars=False)]

    return Source(name, read, image_size=224, crop_share=0.875, test_only=True)


IMAGENET_A = _source("imagenet-a")
IMAGENET_R = _source("imagenet-r")
IMAGENET_SKETCH = _source("imagenet-sketch")
IMAGENET_V2 = _source("imagenet-v2")
