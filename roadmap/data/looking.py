"""Listed images, read before a training starts: decoded, tried, or left out where they cannot be read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError
from roadmap.data.images import UNREADABLE, cores, read_image, unreadable
from roadmap.data.listings import Listing
from roadmap.data.readers import Reader

#: Images that are handed to threads at a time: what they hold of each is a kilobyte.
READ_AT_ONCE = 10_000

#: An image of some parts: the number of its part, and its index there.
Place = tuple[int, int]


def read_picture(reader: Reader, index: int) -> Image.Image:
    """An image as RGB, in its own size. Raises `RoadmapError` naming one that cannot be read."""
    place = reader.place(index)
    try:
        file = reader.open(index)
    except OSError:
        unreadable([place])
    with file:
        return read_image(file, place)


def read_all(parts: Sequence[Listing], use: Callable[[Image.Image, int], Any], step: int = 1) -> list[Any]:
    """``use`` of every ``step``-th image and the number of its part, in order.

    Raises `RoadmapError` naming those that cannot be read.
    """
    results, failures = _read(parts, use, step)
    if len(failures) == 1:
        raise RoadmapError(*failures.values())
    if failures:
        unreadable([parts[number].reader.place(index) for number, index in sorted(failures)])
    return results


def without_corrupt(parts: Sequence[Listing]) -> tuple[list[Listing], list[str]]:
    """The parts without the images that cannot be read, and the names of these.

    Raises `RoadmapError` for a class of which nothing is left.
    """
    _, failures = _read(parts, lambda picture, number: None)
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
    sizes: Counter[int] = Counter()
    for number, index in _places(parts, max(1, sum(map(len, parts)) // 200)):
        reader = parts[number].reader
        try:
            with reader.open(index) as file, Image.open(file) as picture:
                sizes[min(picture.size)] += 1
        except UNREADABLE:
            unreadable([reader.place(index)])
    return min(224, max(32, sizes.most_common(1)[0][0] // 32 * 32))


def _places(parts: Sequence[Listing], step: int) -> Iterator[Place]:
    """Every ``step``-th image of the parts, one part after the other."""
    places = ((number, index) for number, part in enumerate(parts) for index in range(len(part)))
    return itertools.islice(places, 0, None, step)


def _read(
    parts: Sequence[Listing], use: Callable[[Image.Image, int], Any], step: int = 1
) -> tuple[list[Any], dict[Place, str]]:
    """What ``use`` made of the images, None of those that cannot be read; and what is said of these."""
    failures: dict[Place, str] = {}

    def read(place: Place) -> Any:
        number, index = place
        try:
            return use(read_picture(parts[number].reader, index), number)
        except RoadmapError as error:
            failures[place] = str(error)
            return None

    places = _places(parts, step)
    results: list[Any] = []
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        while some := list(itertools.islice(places, READ_AT_ONCE)):
            results += pool.map(read, some)
    return results, failures
