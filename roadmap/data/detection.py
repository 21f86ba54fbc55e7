"""Data sets of images with objects in them, opened."""

from __future__ import annotations

import os

import numpy as np

from roadmap.data.coco import read_coco
from roadmap.data.objects import Objects, ObjectSplit
from roadmap.data.scenes import Scenes, compose_scenes
from roadmap.data.sized import Embedded, open_sized
from roadmap.data.sources import ImageData

#: Data set -> shorter side of its images in pixels where a study does not say, the paper's for COCO.
SIDES = {"embedded": 64, "coco": 800}
LAYOUTS = {"coco": read_coco}


def open_detection(
    name: str = "embedded",
    directory: str | os.PathLike | None = None,
    image_size: int | None = None,
    download: bool = False,
    loading: str = "auto",
    skip_corrupt: bool = False,
) -> ImageData:
    """Open a data set of images with objects; arguments as of `roadmap.data.sources.open_data`.

    ``image_size`` is the shorter side that images are scaled to, in pixels. Raises `RoadmapError` with one sentence for
    a folder that is missing or not in COCO's layout, and for annotations that are broken or do not fit their images.
    """
    return open_sized(name, directory, image_size, download, loading, skip_corrupt, SIDES, _embedded, LAYOUTS)


def _embedded() -> Embedded:
    """The scenes, in ten classes."""
    splits = [
        ObjectSplit(np.zeros(len(part.images), np.int64), part.images, objects=_objects(part))
        for part in compose_scenes()
    ]
    return tuple(str(digit) for digit in range(10)), [(split, split.objects.lines()) for split in splits]


def _objects(scenes: Scenes) -> Objects:
    """The digits of scenes as COCO would have them."""
    from pycocotools import mask as tools

    images, numbers = np.nonzero(scenes.classes >= 0)
    shapes = scenes.digits[images] == numbers[:, None, None]
    masks = tools.encode(np.asfortranarray(shapes.transpose(1, 2, 0).astype(np.uint8)))
    return Objects(
        sizes=np.tile(scenes.digits.shape[1:], (len(scenes.digits), 1)),
        counts=np.bincount(images, minlength=len(scenes.digits)),
        labels=scenes.classes[images, numbers],
        boxes=tools.toBbox(masks),
        masks=[mask["counts"] for mask in masks],
        areas=shapes.sum(axis=(1, 2)).astype(np.float64),
        crowds=np.zeros(len(images), bool),
    )
