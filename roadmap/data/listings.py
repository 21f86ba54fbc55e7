"""What lies in a part of a data set before its images are decoded, and a part that is held out of another."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.data.readers import Files, Reader

#: What the part that tests may be called, the first that is there.
EVALUATIONS = ("val", "validation", "test")
#: One image in so many is held out of ``train`` where nothing else tests, and what that part is called.
HELD_OUT_OF, HELD_OUT = 10, "held out of train"


@dataclass(frozen=True)
class Listing:
    """A part of a data set: its name, such as train, ``where`` it lies, and its encoded images.

    ``class_names``: those that have images, in order; ``labels``: int64 (N,); ``keys``: bytes (N,), names of the
    images that do not depend on machine, folder or number of files.
    """

    part: str
    where: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    reader: Reader
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> bytes:
        """Where an image lies within the data set."""
        return self.part.encode() + b"/" + self.reader.name(index)

    def select(self, indices: np.ndarray, part: str | None = None) -> Listing:
        """These images alone, under another name."""
        return dataclasses.replace(
            self, part=part or self.part, labels=self.labels[indices], reader=self.reader.select(indices),
            keys=self.keys[indices],
        )  # fmt: skip


def check_classes(train: Listing, test: Listing | None = None) -> None:
    """Raise `RoadmapError` where need at least two classes, or something else to tell apart when testing."""
    if len(train.class_names) < 2:
        raise RoadmapError(f"{train.where} has one class only ('{train.class_names[0]}'): need at least two classes")
    for only, other in ((train, test), (test, train)) if test else ():
        missing = sorted((Counter(only.class_names) - Counter(other.class_names)).elements())
        if missing:
            raise RoadmapError(f"class '{missing[0]}' is in {only.where}, but not in {other.where}")


def hold_out(train: Listing) -> list[Listing]:
    """What is left of ``train``, and what is held out of it to test.

    Of each class that is the tenth of the images, at least one, whose keys have the smallest SHA-256. The rule knows no
    seed, order or place: a file or a class that is added later changes little of what is held out.
    Raises `RoadmapError` for a class with a single image.
    """
    counts = np.bincount(train.labels, minlength=len(train.class_names))
    if counts.min() < 2:
        name = train.class_names[counts.argmin()]
        raise RoadmapError(
            f"class '{name}' has a single image in {train.where}, but one to train and one to test are needed: "
            "leave the class out, or add images"
        )
    digests = np.frombuffer(b"".join(hashlib.sha256(key).digest()[:8] for key in train.keys), ">u8")
    order = np.lexsort((digests, train.labels))  # class by class; equal keys stay in order
    ranks = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
    chosen = np.zeros(len(train), bool)
    chosen[order] = ranks < np.maximum(1, counts // HELD_OUT_OF)[train.labels[order]]
    return [train.select(np.flatnonzero(~chosen)), train.select(np.flatnonzero(chosen), HELD_OUT)]


def refuse(root: Path, expected: str) -> NoReturn:
    """Raise the `RoadmapError` that says what a folder must hold, and what it holds instead."""
    raise RoadmapError(f"{root} must hold {expected}, but holds {contents(root)}")


def contents(root: Path) -> str:
    """The first names in a folder."""
    names = sorted(entry.name for entry in root.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"


def fingerprint_lines(listing: Listing) -> Iterator[bytes]:
    """What tells a part from others without decoding it: names and sizes of its images, and the classes where names
    do not hold them."""
    for index, size in enumerate(listing.reader.sizes):
        yield b"%b:%d\n" % (listing.name(index), size)
    if not isinstance(listing.reader, Files):
        yield "\n".join(listing.class_names).encode()
        yield listing.labels.tobytes()
