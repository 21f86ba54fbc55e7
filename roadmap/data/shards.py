"""WebDataset shards: tars whose files of one name are one sample, such as 0001.jpg and 0001.cls.

The shards are listed once and their images read at random. timm and webdataset stream them in an order that depends on
the number of workers, and with it a run would.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from roadmap.checks import RoadmapError, cause
from roadmap.data.folders import check_tar, others, refuse_compressed
from roadmap.data.listings import EVALUATIONS, Listing, refuse
from roadmap.data.readers import Members

#: Kinds of images; of a sample that has several the first one is taken.
IMAGES = ("jpg", "jpeg", "png", "webp", "ppm")
SHARDS = "train-*.tar and val-*.tar (or validation-*, test-*), or such tars in train/ and val/"


class Sample(NamedTuple):
    """An image of a shard, where its bytes lie, and its label: a number, or the name of a class."""

    name: str
    offset: int
    size: int
    label: int | str


def list_shards(root: Path) -> list[Listing]:
    """The training part of a folder of shards and, if there is one, the part that tests.

    A shard belongs to the part that is a word of its name, or the name of its folder. ``_info.json`` or ``info.json``
    may hold ``class_names``, what numbers as labels mean. Samples are in the order of their classes and names.
    Raises `RoadmapError` for a sample without label and for shards that are no tars.
    """
    shards = {part: _shards(root, part) for part in ("train", *EVALUATIONS)}
    test = next((part for part in EVALUATIONS if shards[part]), None)
    if not shards["train"] or (test is None and set(others(root, root / "train", True)) - set(shards["train"])):
        refuse_compressed(root)
        refuse(root, SHARDS)
    names = _class_names(root)
    return [_list(part, root, shards[part], names) for part in ("train", test) if part]


def _shards(root: Path, part: str) -> list[Path]:
    beside = [path for path in root.glob("*.tar") if part in re.split(r"[^a-z]+", path.stem.lower())]
    return sorted([*beside, *(root / part).glob("*.tar")])


def _class_names(root: Path) -> list[str] | None:
    for path in (root / "_info.json", root / "info.json"):
        if path.is_file():
            try:
                info = json.loads(path.read_bytes())
            except ValueError as error:
                raise RoadmapError(f"{path} cannot be read: {cause(error)}") from None
            names = info.get("class_names") if isinstance(info, dict) else None
            if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise RoadmapError(f"class_names in {path} must be a list of names")
            return names
    return None


def _list(part: str, root: Path, shards: list[Path], names: list[str] | None) -> Listing:
    labels: list[int | str] = []
    columns: list[tuple[np.ndarray, ...]] = []  # of each shard: owners, names, offsets, sizes
    for number, path in enumerate(shards):
        check_tar(path)
        samples = list(_samples(path))
        if not samples:
            raise RoadmapError(f"{path} has no samples: expected an image ({', '.join(IMAGES)}) and its label")
        labels += [sample.label for sample in samples]
        rows = [(number, os.fsencode(sample.name), sample.offset, sample.size) for sample in samples]
        columns.append(tuple(map(np.array, zip(*rows, strict=True))))
    values, positions = _arrange(labels)
    where = f"{part} of {root}"
    if names and isinstance(values[-1], int):
        if values[-1] >= len(names):
            raise RoadmapError(f"{where} has the label {values[-1]}, but {root} names {len(names)} classes")
        values = [names[int(value)] for value in values]
    owners, members, offsets, sizes = map(np.concatenate, zip(*columns, strict=True))
    paths = tuple(str(path.relative_to(root)) for path in shards)
    reader = Members(str(root.absolute()), paths, owners, members, offsets, sizes)
    order = np.lexsort((owners, members, positions))
    return Listing(part, where, tuple(map(str, values)), positions[order], reader.select(order), members[order])


def _arrange(labels: list[int | str]) -> tuple[list[int | str], np.ndarray]:
    """The labels that occur, numbers by size and names as text, and the position of each label among them."""
    values = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    places = {value: place for place, value in enumerate(values)}
    return values, np.array([places[label] for label in labels], np.int64)


def _samples(path: Path) -> Iterator[Sample]:
    """The samples of a shard that have an image; the name of a file is its sample's up to the first dot."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            folder, file = os.path.split(member.name)
            key, _, kind = file.partition(".")
            kind = kind.lower()
            if member.isfile() and key and kind in (*IMAGES, "cls", "json"):
                sample = found.setdefault(os.path.join(folder, key), {})
                sample[kind] = member if kind in IMAGES else tar.extractfile(member).read()  # type: ignore[union-attr]
    for key, sample in found.items():
        image = next((sample[kind] for kind in IMAGES if kind in sample), None)
        if image is not None:
            yield Sample(image.name, image.offset_data, image.size, _label(sample, f"{path}/{key}"))


def _label(sample: dict[str, Any], place: str) -> int | str:
    label: Any = None
    with contextlib.suppress(ValueError, KeyError, TypeError):  # such as no JSON, no label in it, or no mapping
        label = sample["cls"].decode().strip() if "cls" in sample else json.loads(sample["json"])["label"]
    if isinstance(label, str) and re.fullmatch(r"-?\d+", label):
        label = int(label)
    number = isinstance(label, int) and not isinstance(label, bool) and label >= 0  # timm: -1 for none
    if not number and not (isinstance(label, str) and label):
        raise RoadmapError(f"{place} has no label: expected a .cls file, or a .json file with a 'label'")
    return label
