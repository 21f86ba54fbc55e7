"""Data sets of images with a class a pixel, opened: looked at before anything starts."""

from __future__ import annotations

import os

import numpy as np

from roadmap.data.masks import MaskSplit, list_ade20k, list_voc
from roadmap.data.scenes import Scenes, compose_scenes
from roadmap.data.sized import Embedded, open_sized
from roadmap.data.sources import ImageData

#: Data set -> shorter side of its images in pixels where a study does not say.
SIDES = {"embedded": 64, "ade20k": 512, "voc": 512}
LAYOUTS = {"ade20k": list_ade20k, "voc": list_voc}


def open_segmentation(
    name: str = "embedded",
    directory: str | os.PathLike | None = None,
    image_size: int | None = None,
    download: bool = False,
    loading: str = "auto",
    skip_corrupt: bool = False,
) -> ImageData:
    """Open a data set of images with masks; arguments as of `roadmap.data.sources.open_data`.

    ``image_size`` is the side of the pieces that are trained on, and the shorter side that test images are scaled to,
    in pixels; what is predicted is compared at an image's own size. Raises `RoadmapError` with one sentence for a
    folder that is missing or in another layout, a mask that is missing, has another size than its image or classes that
    there are not.
    """
    return open_sized(name, directory, image_size, download, loading, skip_corrupt, SIDES, _embedded, LAYOUTS)


def _embedded() -> Embedded:
    """The scenes, in eleven classes: the background, and the ten digits."""
    parts = []
    for scenes in compose_scenes():
        masks = _masks(scenes)
        parts.append((MaskSplit(np.zeros(len(masks), np.int64), scenes.images, masks=masks), [masks.tobytes()]))
    return ("background", *(str(digit) for digit in range(10))), parts


def _masks(scenes: Scenes) -> np.ndarray:
    """0 for the background, and 1 + the digit for its pixels."""
    count = len(scenes.digits)
    classes = np.take_along_axis(scenes.classes, scenes.digits.reshape(count, -1).astype(np.int64), axis=1)
    return (classes + 1).astype(np.uint8).reshape(scenes.digits.shape)
