"""Data sets whose images keep sizes of their own, with more known of each than one label: opened, and looked at before
anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import Self

from roadmap.checks import RoadmapError, cause, check_choice, check_int
from roadmap.data.known import EMBEDDED
from roadmap.data.listings import Listing, fingerprint_lines
from roadmap.data.looking import look_at, refuse_empty, seen_remarks, without_corrupt
from roadmap.data.readers import Files
from roadmap.data.sources import IMAGENET_MEAN, IMAGENET_STD, ImageData, Split, hash_of


@dataclass(frozen=True)
class SizedPart:
    """A part of a data set: its name, ``where`` it lies, its ``images`` and the ``class_names``, and what was ``noted``
    when it was listed; of each kind of data set a class, which adds what is known of the images."""

    part: str
    where: str
    images: Files
    class_names: tuple[str, ...]
    noted: tuple[str, ...]

    @property
    def remarks(self) -> list[str]:
        """What a user should know of it, in sentences."""
        return [*self.noted]

    def select(self, places: np.ndarray) -> Self:
        """These images alone."""
        raise NotImplementedError

    def check(self, listing: Listing) -> None:
        """Raise `RoadmapError` where what is known does not fit the images, which have been looked at."""
        raise NotImplementedError

    def lines(self) -> Iterator[bytes]:
        """What tells what is known from anything else."""
        raise NotImplementedError

    def split(self, listing: Listing) -> Split:
        """The images with what is known of them."""
        raise NotImplementedError


#: The embedded data set of a task: names of the classes, and of each part its images, decoded, and what tells what is
#: known of them from anything else.
Embedded = tuple[tuple[str, ...], Sequence[tuple[Split, Iterable[bytes]]]]


def open_sized(
    name: str,
    directory: str | os.PathLike | None,
    image_size: int | None,
    download: bool,
    loading: str,
    skip_corrupt: bool,
    sides: Mapping[str, int],
    embedded: Callable[[], Embedded],
    layouts: Mapping[str, Callable[[Path], Sequence[SizedPart]]],
) -> ImageData:
    """Open the data set ``name``, which is one of ``sides``, with the usual shorter side of its images in pixels, and
    embedded or one of ``layouts``: from a folder to the part to train on and the part to test.

    Other arguments as of `roadmap.data.sources.open_data`. Raises `RoadmapError` with one sentence.
    """
    check_choice("data", name, sides)
    image_size = sides[name] if image_size is None else check_int("image size", image_size, 1, 4096)
    if download:
        raise RoadmapError(f"--download cannot fetch {name}: leave it out")
    if name == EMBEDDED.name:
        if directory is not None or loading == "stream":
            raise RoadmapError(
                "the embedded data set is made in memory and needs no data directory: leave --data-dir and --loading "
                f"out, or name other --data ({', '.join(layouts)})"
            )
        return _embedded(image_size, *embedded())
    if directory is None:
        raise RoadmapError(f"data set '{name}' needs --data-dir, the folder of its files")
    if loading == "memory":
        raise RoadmapError(f"the images of {name} have sizes of their own, and are streamed: leave --loading out")
    root = Path(directory).expanduser()
    if not os.path.isdir(root):  # noqa: PTH112  (which also takes names that are too long)
        raise RoadmapError(f"there is no folder {root}")
    try:
        return _listed(name, layouts[name](root), image_size, skip_corrupt)
    except OSError as error:
        raise RoadmapError(f"{error.filename or root} cannot be read: {cause(error)}") from None


def _embedded(
    image_size: int, class_names: tuple[str, ...], parts: Sequence[tuple[Split, Iterable[bytes]]]
) -> ImageData:
    prints = [hash_of([np.ascontiguousarray(split.images), *lines]) for split, lines in parts]
    (train, _), (test, _) = parts
    assert train.images is not None
    pixels = train.images.reshape(-1, 3) / 255
    return ImageData(
        name=EMBEDDED.name,
        image_size=image_size,
        class_names=class_names,
        train=train,
        test=test,
        flip=False,  # digits are not symmetric
        mean=tuple(pixels.mean(0).tolist()),
        std=tuple(pixels.std(0).tolist()),
        fingerprint=hash_of(map(str.encode, prints)),
        test_fingerprint=prints[1],
    )


def _listed(name: str, parts: Sequence[SizedPart], image_size: int, skip_corrupt: bool) -> ImageData:
    listings = []
    for part in parts:
        labels = np.zeros(len(part.images.sizes), np.int64)
        listings.append(Listing(part.part, part.where, ("image",), labels, part.images, part.images.names))
    if not skip_corrupt:
        refuse_empty(listings)
    listings = look_at(listings)
    skipped: list[str] = []
    if skip_corrupt:
        kept, skipped = without_corrupt(listings)
        pairs = zip(parts, listings, kept, strict=True)
        parts = [part.select(np.flatnonzero(np.isin(one.keys, left.keys))) for part, one, left in pairs]
        listings = kept
    for part, listing in zip(parts, listings, strict=True):
        part.check(listing)
    prints = [
        hash_of([*fingerprint_lines(listing), *part.lines()]) for part, listing in zip(parts, listings, strict=True)
    ]
    train, test = (part.split(listing) for part, listing in zip(parts, listings, strict=True))
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
