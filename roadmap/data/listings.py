"""What lies in a part of a data set before its images are decoded, and a part that is held out of another."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from roadmap.checks import RoadmapError, repeated
from roadmap.data.images import SEEN
from roadmap.data.readers import Files, Reader

#: What the part that tests may be called, the first that is there.
EVALUATIONS = ("val", "validation", "test")
#: One in this many images is held out of ``train`` where there is no test split, and what that part is called.
HELD_OUT_OF, HELD_OUT = 10, "held out of train"


@dataclass(frozen=True)
class Listing:
    """A part of a data set: its name, such as train, ``where`` it lies, and its encoded images.

    ``class_names``: those that have images, in order; ``labels``: int64 (N,); ``keys``: bytes (N,), names of the
    images that do not depend on machine, folder or number of files; ``left_out``: what is no data, counted as in
    `entries`; ``remarks``: what else a user should know, in sentences; once looked at, ``seen``: `SEEN` (N,),
    and ``bits``: `bits_of` them, uint8 (N,).
    """

    part: str
    where: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    reader: Reader
    keys: np.ndarray
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: tuple[str, ...] = ()
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, SEEN))
    bits: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> bytes:
        """Where an image lies within the data set."""
        return self.part.encode() + b"/" + self.reader.name(index)

    def select(self, indices: np.ndarray, part: str | None = None) -> Listing:
        """These images alone, under another name."""
        return dataclasses.replace(
            self,
            part=part or self.part,
            labels=self.labels[indices],
            reader=self.reader.select(indices),
            keys=self.keys[indices],
            seen=self.seen[indices],
            bits=self.bits[indices],
        )


def with_same_classes(parts: list[Listing]) -> list[Listing]:
    """The parts, the classes of the one that tests numbered as those of the one that trains.

    Raises `RoadmapError` where there are fewer than two classes, or others when testing.
    """
    train = parts[0]
    if len(train.class_names) < 2:
        raise RoadmapError(f"{train.where} has one class only ('{train.class_names[0]}'): need at least two classes")
    if len(parts) == 1 or parts[1].class_names == train.class_names:
        return parts
    test = parts[1]
    for only, other in ((train, test), (test, train)):
        missing = sorted((Counter(only.class_names) - Counter(other.class_names)).elements())
        if missing:
            raise RoadmapError(f"class '{missing[0]}' is in {only.where}, but not in {other.where}")
    name = repeated(train.class_names)
    if name is not None:
        raise RoadmapError(
            f"{train.where} and {test.where} number their classes differently, two of which are '{name}'"
        )
    places = np.array([train.class_names.index(name) for name in test.class_names])
    return [train, dataclasses.replace(test, class_names=train.class_names, labels=places[test.labels])]


def output_order(class_names: Sequence[str]) -> tuple[str, ...] | None:
    """The classes in the order of outputs that have no names: by size where all are whole numbers, else as they are.

    None where that cannot be told: torchvision sorts folders as text, but timm the numbers within their names by size,
    and here the two differ.
    """
    if all(re.fullmatch("[0-9]+", name) for name in class_names):
        ordered = sorted(class_names, key=int)
        return tuple(ordered) if len({int(name) for name in ordered}) == len(ordered) else None
    by_size = sorted(class_names, key=lambda name: re.sub("[0-9]+", lambda number: number[0].zfill(20), name))
    sorted_as_text = list(class_names) == sorted(class_names)
    return None if sorted_as_text and by_size != list(class_names) else tuple(class_names)


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
    """What tells a part from others without decoding it: names of its images and digests of their bytes, and the
    classes where names do not hold them."""
    for index, digest in enumerate(listing.seen["digest"]):
        yield b"%b:%b\n" % (listing.name(index), bytes(digest))
    if not isinstance(listing.reader, Files):
        yield "\n".join(listing.class_names).encode()
        yield listing.labels.tobytes()
