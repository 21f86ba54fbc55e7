"""Data sets of images with objects in them, opened: looked at before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from roadmap.checks import RoadmapError, cause, check_choice, check_int
from roadmap.data.coco import Annotated, read_coco
from roadmap.data.listings import Listing, fingerprint_lines
from roadmap.data.looking import look_at, refuse_empty, seen_remarks, without_corrupt
from roadmap.data.objects import Objects
from roadmap.data.scenes import Scenes, compose_scenes
from roadmap.data.sources import IMAGENET_MEAN, IMAGENET_STD, ImageData, Split, hash_of

#: Data set -> shorter side of its images in pixels where a study does not say, the paper's for COCO.
SIDES = {"embedded": 64, "coco": 800}


@dataclass(frozen=True)
class ObjectSplit(Split):
    """Images in their own sizes with their ``objects``."""

    objects: Objects = field(kw_only=True)


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
    check_choice("data", name, SIDES)
    image_size = SIDES[name] if image_size is None else check_int("image size", image_size, 1, 4096)
    if download:
        raise RoadmapError(f"--download cannot fetch {name}: leave it out")
    if name == "embedded":
        if directory is not None or loading == "stream":
            raise RoadmapError(
                "the embedded data set is made in memory and needs no data directory: leave --data-dir and --loading "
                "out, or say --data coco"
            )
        return _embedded(image_size)
    if directory is None:
        raise RoadmapError(f"data set '{name}' needs --data-dir, the folder of its files")
    if loading == "memory":
        raise RoadmapError(f"the images of {name} have sizes of their own, and are streamed: leave --loading out")
    root = Path(directory).expanduser()
    if not os.path.isdir(root):  # noqa: PTH112  (which also takes names that are too long)
        raise RoadmapError(f"there is no folder {root}")
    try:
        return _annotated(name, read_coco(root), image_size, skip_corrupt)
    except OSError as error:
        raise RoadmapError(f"{error.filename or root} cannot be read: {cause(error)}") from None


def _embedded(image_size: int) -> ImageData:
    train, test = compose_scenes()
    parts = [ObjectSplit(np.arange(len(part.images)), part.images, objects=_objects(part)) for part in (train, test)]
    pixels = train.images.reshape(-1, 3) / 255
    prints = [
        hash_of([part.images.tobytes(), *split.objects.lines()])
        for part, split in zip((train, test), parts, strict=True)
    ]
    return ImageData(
        name="embedded",
        image_size=image_size,
        class_names=tuple(str(digit) for digit in range(10)),
        train=parts[0],
        test=parts[1],
        flip=False,  # digits are not symmetric
        mean=tuple(pixels.mean(0).tolist()),
        std=tuple(pixels.std(0).tolist()),
        fingerprint=hash_of(map(str.encode, prints)),
        test_fingerprint=prints[1],
    )


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


def _annotated(name: str, parts: list[Annotated], image_size: int, skip_corrupt: bool) -> ImageData:
    whole = [
        Listing(part.part, part.where, ("image",), np.zeros(len(part.objects), np.int64), part.files, part.files.names)
        for part in parts
    ]
    if not skip_corrupt:
        refuse_empty(whole)
    listings, skipped = look_at(whole), []
    objects = [part.objects for part in parts]
    if skip_corrupt:
        kept, skipped = without_corrupt(listings)
        places = [np.flatnonzero(np.isin(a.keys, b.keys)) for a, b in zip(listings, kept, strict=True)]
        listings, objects = kept, [some.select(place) for some, place in zip(objects, places, strict=True)]
    for part, listing, some in zip(parts, listings, objects, strict=True):
        seen = np.stack([listing.seen["height"], listing.seen["width"]], axis=1)
        for place in np.flatnonzero((seen != some.sizes).any(axis=1) & seen.all(axis=1))[:1]:
            (height, width), (stated, across) = seen[place], some.sizes[place]
            raise RoadmapError(
                f"{listing.reader.place(int(place))} has {width} x {height} pixels, but {part.where} says "
                f"{across} x {stated}"
            )
        if (some.crowds | some.degenerate).all():
            raise RoadmapError(f"{part.where} has no object that is neither a crowd nor without extent: need one")
    prints = [hash_of(_lines(listing, some)) for listing, some in zip(listings, objects, strict=True)]
    train, test = (
        ObjectSplit(listing.labels, reader=listing.reader, bits=listing.bits, objects=some)
        for listing, some in zip(listings, objects, strict=True)
    )
    return ImageData(
        name=name,
        image_size=image_size,
        class_names=parts[0].class_names,
        train=train,
        test=test,
        flip=True,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        fingerprint=hash_of(map(str.encode, prints)),
        evaluation=parts[1].part,
        skipped=tuple(skipped),
        test_names=listings[1].keys,
        test_fingerprint=prints[1],
        notes=(*seen_remarks(listings), *_remarks(parts, objects)),
    )


def _lines(listing: Listing, objects: Objects) -> Iterator[bytes]:
    yield from fingerprint_lines(listing)
    yield from objects.lines()


def _remarks(parts: Sequence[Annotated], objects: Sequence[Objects]) -> list[str]:
    """What a user should know of the objects, in sentences."""
    counts = {}
    for part, some, use in zip(parts, objects, ("not learned", "never found in the test"), strict=True):
        counts[f"boxes of {part.part} that cover nothing of their image, {use}"] = int(some.degenerate.sum())
    counts["crowds, not learned and ignored in the test"] = sum(int(some.crowds.sum()) for some in objects)
    counts["images without objects"] = sum(int((some.counts == 0).sum()) for some in objects)
    return [f"{what}: {count}" for what, count in counts.items() if count]
