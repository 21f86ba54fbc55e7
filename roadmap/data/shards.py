"""WebDataset shards: tars whose files of one name are one sample, such as 0001.jpg and 0001.cls.

The shards are listed once and their images read at random. timm and webdataset stream them in an order that depends on
the number of workers, and with it a run would.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from roadmap.checks import RoadmapError, cause
from roadmap.data.entries import ending, is_hidden, is_image
from roadmap.data.folders import TarFile, beside, others, refuse_compressed, tar_files, twice
from roadmap.data.listings import EVALUATIONS, Listing, refuse
from roadmap.data.readers import Members

SHARDS = "train-*.tar and val-*.tar (or validation-*, test-*), or such tars in train/ and val/"
#: Of a sample that has several images the first of these is taken, else the first by its ending.
USUAL = (".jpg", ".jpeg", ".png", ".webp", ".ppm")
LABELS = (".cls", ".json")
#: What a remark calls what is left out.
NO_IMAGE, MORE_IMAGES = "labels without an image", "further images of a sample"

Label = int | str


class ShardSample(NamedTuple):
    """An image of a shard, where its bytes lie, and its label: a number, or the name of a class."""

    name: str
    offset: int
    size: int
    label: Label


def list_shards(root: Path) -> list[Listing]:
    """The training part of a folder of shards and, if there is one, the part that tests.

    A shard belongs to the part that is a word of its name, or the name of its folder. ``_info.json`` or ``info.json``
    may hold ``class_names``, what numbers as labels mean. Samples are in the order of their classes and names.
    Raises `RoadmapError` for a sample without label, or with labels that contradict each other, and for shards that are
    no tars.
    """
    shards = {part: _shards(root, part) for part in ("train", *EVALUATIONS)}
    test = next((part for part in EVALUATIONS if shards[part]), None)
    used = [*shards["train"], *(shards[test] if test else [])]
    unused = others(root, [*used, root / "train", *([root / test] if test else [])], True)
    if not shards["train"] or (test is None and unused):
        refuse_compressed(root)
        refuse(root, SHARDS)
    for folder in {root, *(path.parent for path in used)}:
        refuse_compressed(folder, {"train", *([test] if test else EVALUATIONS)} if folder == root else ())
    path = next((path for path in used if used.count(path) > 1), None)
    if path:
        raise RoadmapError(f"{path} is named as both train and {test}: name it as one of them")
    names = _class_names(root)
    return beside([_list(part, root, shards[part], names) for part in ("train", test) if part], unused)


def _shards(root: Path, part: str) -> list[Path]:
    beside = [path for path in root.glob("*.tar") if part in re.split(r"[^a-z]+", path.stem.lower())]
    found = [*beside, *(root / part).rglob("*.tar")]
    return sorted(path for path in found if not is_hidden(path.relative_to(root).as_posix()))


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
    labels: list[Label] = []
    left_out: Counter[str] = Counter()
    contents = _Contents(names)
    columns: list[tuple[np.ndarray, ...]] = []  # of each shard: owners, names, offsets, sizes
    for number, path in enumerate(shards):
        samples = _samples(path, contents, left_out)
        if not samples:
            raise RoadmapError(f"{path} has no samples: expected images, such as .jpg or .png, and their labels")
        labels += [sample.label for sample in samples]
        rows = [(number, os.fsencode(sample.name), sample.offset, sample.size) for sample in samples]
        columns.append(tuple(map(np.array, zip(*rows, strict=True))))
    where = f"{part} of {root}"
    if names:
        labels = _all_numbers(labels, names, where)
    values, positions = _arrange(labels)
    if len({type(value) for value in values}) > 1:
        raise RoadmapError(
            f"{where} has both numbers and names as labels, such as {values[0]} and '{values[-1]}': use one of the two"
        )
    if names and isinstance(values[-1], int):
        if values[-1] >= len(names):
            raise RoadmapError(f"{where} has the label {values[-1]}, but {root} names {len(names)} classes")
        values = [names[int(value)] for value in values]
    owners, members, offsets, sizes = map(np.concatenate, zip(*columns, strict=True))
    paths = tuple(str(path.relative_to(root)) for path in shards)
    reader = Members(str(root.absolute()), paths, owners, members, offsets, sizes)
    order = np.lexsort((owners, members, positions))
    return Listing(
        part,
        where,
        tuple(map(str, values)),
        positions[order],
        reader.select(order),
        members[order],
        left_out,
        twice(owners, members),
    )


def _all_numbers(labels: list[Label], names: list[str], where: str) -> list[Label]:
    """The labels, names as numbers where some are numbers."""
    texts = {label for label in labels if isinstance(label, str)}
    if not texts or len(texts) == len(set(labels)):
        return labels
    unknown = sorted(texts - set(names))
    if unknown:
        raise RoadmapError(f"{where} has the label '{unknown[0]}', which is not among the class_names of its info file")
    return [names.index(label) if isinstance(label, str) else label for label in labels]


def _arrange(labels: list[Label]) -> tuple[list[Label], np.ndarray]:
    """The labels that occur, numbers by size and names as text, and the position of each label among them."""
    values = sorted(set(labels), key=lambda label: (isinstance(label, str), label))
    places = {value: place for place, value in enumerate(values)}
    return values, np.array([places[label] for label in labels], np.int64)


class _Group:
    """Files of a shard that differ in their ending only: images by it, and the contents of .cls and .json."""

    def __init__(self) -> None:
        self.images: dict[str, TarFile] = {}
        self.labels: dict[str, bytes] = {}

    def image(self, left_out: Counter[str]) -> TarFile:
        """The image that is taken; others are counted."""
        left_out[MORE_IMAGES] += len(self.images) - 1
        usual = [kind for kind in USUAL if kind in self.images]
        return self.images[usual[0] if usual else min(self.images)]


def _samples(path: Path, contents: _Contents, left_out: Counter[str]) -> list[ShardSample]:
    """The samples of a shard.

    Names may have dots: files that share all of it but the ending are a sample where they have an image and a label.
    Those of WebDataset's samples share their name up to its first dot only: an image without a label of its own, such
    as ``7.left.png``, is the image of the label ``7.cls`` where it is the only one, and left out where there is
    ``7.png``. A name that comes again in a shard is another sample.
    """
    groups = _groups(path, left_out)
    labels = {key: contents.label(group, f"{path}/{key[0]}") for key, group in groups.items()}
    samples: list[tuple[_Group, Label | None]] = []
    sharing: dict[tuple[str, int], list[_Group]] = {}
    used = set()
    for key, group in groups.items():
        folder, file = os.path.split(key[0])
        short = (os.path.join(folder, file.partition(".")[0]), key[1])
        if not group.images:
            continue
        if labels[key] is not None:
            samples.append((group, labels[key]))
            used.add(key)
        elif short == key or labels.get(short) is None:
            raise RoadmapError(f"{path}/{key[0]} has no label: expected a .cls file, or a .json file with a 'label'")
        elif groups[short].images:
            left_out[MORE_IMAGES] += len(group.images)
        else:
            sharing.setdefault(short, []).append(group)
    for key, several in sharing.items():
        if len(several) > 1:
            first, second = (several[place].image(Counter()).file for place in (0, 1))
            raise RoadmapError(f"{path}/{key[0]} has one label, but several images, such as {first} and {second}")
        samples.append((several[0], labels[key]))
        used.add(key)
    for key, group in groups.items():
        if key not in used:
            for kind in group.labels:
                left_out[NO_IMAGE if labels[key] is not None else kind] += 1
    images = ((group.image(left_out), label) for group, label in samples if label is not None)
    return [ShardSample(image.name, image.offset, image.size, label) for image, label in images]


def _groups(path: Path, left_out: Counter[str]) -> dict[tuple[str, int], _Group]:
    """The images and labels in a shard by the name that they share, and how many had it before."""
    groups: dict[tuple[str, int], _Group] = {}
    turns: Counter[str] = Counter()
    with path.open("rb") as tar:
        for member in tar_files(path, left_out):
            kind = ending(member.name)
            name, label = member.name[: -len(kind)], kind in LABELS and not is_hidden(member.name)
            if not label and not is_image(member.name, left_out):
                continue
            group = groups.setdefault((name, turns[name]), _Group())
            if kind in group.images or kind in group.labels:
                turns[name] += 1
                group = groups[name, turns[name]] = _Group()
            if label:
                tar.seek(member.offset)
                group.labels[kind] = tar.read(member.size)
            else:
                group.images[kind] = member
    return groups


class _Contents:
    """What the labels of a part say. ``names``: what numbers mean, if that is known."""

    def __init__(self, names: list[str] | None) -> None:
        self._names = names
        self._meant: dict[Label, Label] = {}

    def label(self, group: _Group, place: str) -> Label | None:
        """The label of some files, None where they have none. Raises `RoadmapError` where .cls and .json differ."""
        number, other = (_label(kind, group.labels[kind]) if kind in group.labels else None for kind in LABELS)
        if number is None or other is None:
            return other if number is None else number
        same = number == other
        if type(number) is not type(other):  # a number and a name: of one class as long as no other has either
            known = self._names or []
            named = [
                known[label] if isinstance(label, int) and label < len(known) else label for label in (number, other)
            ]
            same = named[0] == named[1] if known else self._meant.setdefault(number, other) == other
        if not same:
            raise RoadmapError(f"{place} has the label '{number}' in its .cls file, but '{other}' in its .json file")
        return number


def _label(kind: str, content: bytes) -> Label | None:
    label: Any = None
    with contextlib.suppress(ValueError, KeyError, TypeError):  # such as no JSON, no label in it, or no mapping
        label = content.decode().strip() if kind == ".cls" else json.loads(content)["label"]
    if isinstance(label, str) and re.fullmatch(r"-?\d+", label):
        label = int(label)
    number = isinstance(label, int) and not isinstance(label, bool) and label >= 0  # timm: -1 for none
    return label if number or (isinstance(label, str) and label) else None
