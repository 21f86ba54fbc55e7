"""Listed images, read before a training starts: decoded, tried, or left out where they cannot be read."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError
from roadmap.data.images import REPAIR, bits_of, cores, read_image, unreadable
from roadmap.data.listings import Listing
from roadmap.data.readers import Reader
from roadmap.data.seen import seen_of

#: Images that are handed to threads at a time: what they hold of each is a kilobyte.
READ_AT_ONCE = 10_000

#: An image of some parts: the number of its part, and its index there.
Place = tuple[int, int]


def read_picture(reader: Reader, index: int, bits: np.ndarray) -> Image.Image:
    """An image as RGB, in its own size, of ``bits`` (N,) (`bits_of`). Raises `RoadmapError` where it is unreadable."""
    place = reader.place(index)
    try:
        file = reader.open(index)
    except OSError:
        unreadable([place])
    with file:
        return read_image(file, place, int(bits[index]))


def look_at(parts: Sequence[Listing]) -> list[Listing]:
    """The parts with what is seen of their images.

    Raises `RoadmapError` for colours of 16 bits that use fewer, of which Pillow's upper eight would be black.
    """
    seen = [seen_of(part.reader, os.path.abspath(part.where)) for part in parts]  # noqa: PTH100
    bits = np.split(bits_of(np.concatenate(seen)), np.cumsum([len(some) for some in seen])[:-1])
    parts = [dataclasses.replace(part, seen=seen[number], bits=bits[number]) for number, part in enumerate(parts)]
    for part in parts:
        for index in np.flatnonzero((part.seen["deep"] == 2) & (part.bits < 16))[:1]:
            raise RoadmapError(
                f"{part.reader.place(int(index))} has colours of 16 bits, of which the data set uses "
                f"{part.bits[index]}: convert them to 8 bits"
            )
    return parts


def seen_remarks(parts: Sequence[Listing]) -> list[str]:
    """What a user should know of how the images are read, in sentences."""
    seen, bits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("seen", "bits"))
    counts = {
        "images turned as their EXIF orientation says": seen["turned"].sum(),
        "images with transparency, shown on black": seen["transparent"].sum(),
        "images with several frames or layers, of which the first is taken": seen["frames"].sum(),
    }
    for depth in np.unique(bits[seen["deep"] == 1]):
        counts[
            f"images of more than 8 bits, whose values are taken for {depth} bits, of which the upper 8 are kept"
        ] = ((seen["deep"] == 1) & (bits == depth)).sum()
    return [f"{what}: {count}" for what, count in counts.items() if count]


def read_all(
    parts: Sequence[Listing], use: Callable[[Image.Image, int], Any], places: Iterable[Place] | None = None
) -> list[Any]:
    """``use`` of every image, or of those at some ``places``, and the number of its part, in order.

    Raises `RoadmapError` naming those that cannot be read.
    """
    results, failures = _read(parts, use, _places(parts) if places is None else places)
    reasons = [text for _, text in sorted(failures.items()) if not text.endswith(REPAIR)]
    if reasons:
        more = f" ({len(reasons)} such images)" if len(reasons) > 1 else ""
        raise RoadmapError(f"{reasons[0]}{more}")
    if failures:
        unreadable([parts[number].reader.place(index) for number, index in sorted(failures)])
    return results


def probed(parts: Sequence[Listing], count: int) -> list[Place]:
    """Places of some ``count`` images, and of all that do not look readable."""
    some = itertools.islice(_places(parts), 0, None, max(1, sum(map(len, parts)) // count))
    seen = [part.seen for part in parts]
    odd = [
        (one["width"] == 0) | ((one["deep"] == 1) & ((one["largest"] < 0) | (one["largest"] >= 2**16))) for one in seen
    ]
    return sorted({*some, *((number, int(index)) for number, one in enumerate(odd) for index in np.flatnonzero(one))})


def without_corrupt(parts: Sequence[Listing]) -> tuple[list[Listing], list[str]]:
    """The parts without the images that cannot be read, and the names of these.

    Raises `RoadmapError` for a class of which nothing is left.
    """
    _, failures = _read(parts, lambda picture, number: None, _places(parts))
    kept = []
    for number, part in enumerate(parts):
        good = np.setdiff1d(np.arange(len(part)), [index for where, index in failures if where == number])
        kept.append(part.select(good))
        counts = np.bincount(kept[-1].labels, minlength=len(part.class_names))
        if not counts.all():
            name = part.class_names[counts.argmin()]
            raise RoadmapError(f"class '{name}' of {part.where} has no image that can be read")
    return kept, [parts[number].name(index).decode(errors="replace") for number, index in sorted(failures)]


def refuse_empty(parts: Sequence[Listing]) -> None:
    """Raise `RoadmapError` where there are images without content."""
    empty = [part.reader.place(int(index)) for part in parts for index in np.flatnonzero(part.reader.sizes == 0)]
    if empty:
        unreadable(empty)


def usual_size(parts: Sequence[Listing]) -> int:
    """The commonest shorter side among up to 200 images, a multiple of 32 between 32 and 224."""
    sides = np.concatenate([np.minimum(part.seen["height"], part.seen["width"]) for part in parts])
    sides = sides[:: max(1, len(sides) // 200)].tolist()
    usual = Counter(side for side in sides if side).most_common(1)
    return min(224, max(32, usual[0][0] // 32 * 32)) if usual else 32


def _places(parts: Sequence[Listing]) -> Iterator[Place]:
    """The images of the parts, one part after the other."""
    return ((number, index) for number, part in enumerate(parts) for index in range(len(part)))


def _read(
    parts: Sequence[Listing], use: Callable[[Image.Image, int], Any], places: Iterable[Place]
) -> tuple[list[Any], dict[Place, str]]:
    """What ``use`` made of the images, None of those that cannot be read; and what is said of these."""
    failures: dict[Place, str] = {}

    def read(place: Place) -> Any:
        number, index = place
        try:
            return use(read_picture(parts[number].reader, index, parts[number].bits), number)
        except RoadmapError as error:
            failures[place] = str(error)
            return None

    places = iter(places)
    results: list[Any] = []
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        while some := list(itertools.islice(places, READ_AT_ONCE)):
            results += pool.map(read, some)
    return results, failures
