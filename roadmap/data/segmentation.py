"""Data sets of images with a class a pixel, opened: looked at before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from roadmap.checks import RoadmapError, cause, check_choice, check_int
from roadmap.data.images import cores
from roadmap.data.listings import Listing, fingerprint_lines
from roadmap.data.looking import look_at, refuse_empty, seen_remarks, without_corrupt
from roadmap.data.masks import Masked, check_mask, list_ade20k, list_voc, read_mask
from roadmap.data.readers import Files
from roadmap.data.scenes import Scenes, compose_scenes
from roadmap.data.sources import IMAGENET_MEAN, IMAGENET_STD, ImageData, Split, hash_of

#: Data set -> shorter side of its images in pixels where a study does not say.
SIDES = {"embedded": 64, "ade20k": 512, "voc": 512}
LAYOUTS = {"ade20k": list_ade20k, "voc": list_voc}


@dataclass(frozen=True)
class MaskSplit(Split):
    """Images in their own sizes, each with a mask: decoded, uint8 (N, H, W), or files, of which 0 may be unknown."""

    masks: np.ndarray | Files = field(kw_only=True)
    zero: bool = False

    def mask(self, index: int) -> np.ndarray:
        """Class numbers, uint8 (H, W), `roadmap.data.masks.IGNORED` where nothing is known."""
        if isinstance(self.masks, np.ndarray):
            found: np.ndarray = self.masks[index]
            return found
        return read_mask(self.masks, index, self.zero)


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
    check_choice("data", name, SIDES)
    image_size = SIDES[name] if image_size is None else check_int("image size", image_size, 1, 4096)
    if download:
        raise RoadmapError(f"--download cannot fetch {name}: leave it out")
    if name == "embedded":
        if directory is not None or loading == "stream":
            raise RoadmapError(
                "the embedded data set is made in memory and needs no data directory: leave --data-dir and --loading "
                f"out, or name other --data ({', '.join(LAYOUTS)})"
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
        return _listed(name, LAYOUTS[name](root), image_size, skip_corrupt)
    except OSError as error:
        raise RoadmapError(f"{error.filename or root} cannot be read: {cause(error)}") from None


def _embedded(image_size: int) -> ImageData:
    """The scenes, in eleven classes: the background, and the ten digits."""
    scenes, masks = compose_scenes(), [_masks(part) for part in compose_scenes()]
    prints = [hash_of([part.images.tobytes(), own.tobytes()]) for part, own in zip(scenes, masks, strict=True)]
    train, test = (
        MaskSplit(np.zeros(len(own), np.int64), part.images, masks=own) for part, own in zip(scenes, masks, strict=True)
    )
    pixels = scenes[0].images.reshape(-1, 3) / 255
    return ImageData(
        name="embedded",
        image_size=image_size,
        class_names=("background", *(str(digit) for digit in range(10))),
        train=train,
        test=test,
        flip=False,  # digits are not symmetric
        mean=tuple(pixels.mean(0).tolist()),
        std=tuple(pixels.std(0).tolist()),
        fingerprint=hash_of(map(str.encode, prints)),
        test_fingerprint=prints[1],
    )


def _masks(scenes: Scenes) -> np.ndarray:
    """0 for the background, and 1 + the digit for its pixels."""
    count = len(scenes.digits)
    classes = np.take_along_axis(scenes.classes, scenes.digits.reshape(count, -1).astype(np.int64), axis=1)
    return (classes + 1).astype(np.uint8).reshape(scenes.digits.shape)


def _listed(name: str, parts: list[Masked], image_size: int, skip_corrupt: bool) -> ImageData:
    whole = []
    for part in parts:
        labels = np.zeros(len(part.images.sizes), np.int64)
        whole.append(Listing(part.part, part.where, ("image",), labels, part.images, part.images.names))
    if not skip_corrupt:
        refuse_empty(whole)
    skipped: list[str] = []
    listings, masks = look_at(whole), [part.masks for part in parts]
    if skip_corrupt:
        kept, skipped = without_corrupt(listings)
        places = [np.flatnonzero(np.isin(a.keys, b.keys)) for a, b in zip(listings, kept, strict=True)]
        listings, masks = kept, [some.select(place) for some, place in zip(masks, places, strict=True)]
    for part, listing, some in zip(parts, listings, masks, strict=True):
        _check_masks(part, listing, some)
    prints = [hash_of(_lines(listing, some)) for listing, some in zip(listings, masks, strict=True)]
    train, test = (
        MaskSplit(listing.labels, reader=listing.reader, bits=listing.bits, masks=some, zero=part.zero)
        for part, listing, some in zip(parts, listings, masks, strict=True)
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
        notes=(*seen_remarks(listings), *(remark for part in parts for remark in part.remarks)),
    )


def _check_masks(part: Masked, listing: Listing, masks: Files) -> None:
    """Raise `RoadmapError` for the first mask that is broken, or has another size than its image."""
    check = check_mask(Masked(part.part, part.where, part.images, masks, part.class_names, part.zero))
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        sizes = pool.map(check, range(len(masks.sizes)))
        for index, (size, seen) in enumerate(zip(sizes, listing.seen, strict=True)):
            own = int(seen["height"]), int(seen["width"])
            if all(own) and size != own:
                raise RoadmapError(
                    f"{masks.place(index)} has {size[1]} x {size[0]} pixels, but its image, "
                    f"{listing.reader.place(index)}, has {own[1]} x {own[0]}"
                )


def _lines(listing: Listing, masks: Files) -> Iterator[bytes]:
    yield from fingerprint_lines(listing)
    for index in range(len(masks.sizes)):
        with masks.open(index) as file:
            yield hash_of([file.read()]).encode()
