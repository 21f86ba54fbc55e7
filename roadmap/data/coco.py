"""COCO's layout: annotations/instances_PART.json beside the folders PART of its images, checked before training."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError, cause, repeated, said
from roadmap.data.entries import is_image, told
from roadmap.data.images import named
from roadmap.data.listings import EVALUATIONS, Listing, contents
from roadmap.data.objects import Objects, ObjectSplit
from roadmap.data.readers import Files, stamp
from roadmap.data.sized import SizedPart
from roadmap.formatting import listed

EXPECTED = "annotations/instances_train*.json and instances_val*.json, and the images in train*/ and val*/"
#: How far in pixels a polygon may reach beyond its image: COCO's own do so by rounding.
TOLERANCE = 1.0


@dataclass(frozen=True)
class Annotated(SizedPart):
    """Images with the ``objects`` that a file of annotations, ``where``, says are in them."""

    objects: Objects = field(kw_only=True)

    @property
    def remarks(self) -> list[str]:
        """What is not used or not learned, counted."""
        counts = {
            f"boxes of {self.part} that cover nothing of their image, not learned": self.objects.degenerate,
            f"crowds of {self.part}, not learned, and neither right nor wrong in a test": self.objects.crowds,
            f"images of {self.part} without objects": self.objects.counts == 0,
        }
        return [*self.noted, *(f"{what}: {which.sum()}" for what, which in counts.items() if which.any())]

    def select(self, places: np.ndarray) -> Annotated:
        """These images alone."""
        return dataclasses.replace(self, images=self.images.select(places), objects=self.objects.select(places))

    def check(self, listing: Listing) -> None:
        """Raise `RoadmapError` for an image of another size, and where there is nothing to learn or find."""
        seen, said = np.stack([listing.seen["height"], listing.seen["width"]], axis=1), self.objects.sizes
        for place in np.flatnonzero((seen != said).any(axis=1) & seen.all(axis=1))[:1]:
            own, other = (f"{width} x {height}" for height, width in (seen[place], said[place]))
            raise RoadmapError(f"{self.images.place(place)} has {own} pixels, but {self.where} says {other}")
        if (self.objects.crowds | self.objects.degenerate).all():
            raise RoadmapError(f"{self.where} has no object that is neither a crowd nor without extent: need one")

    def lines(self) -> Iterator[bytes]:
        """What tells the objects from others."""
        return self.objects.lines()

    def split(self, listing: Listing) -> ObjectSplit:
        """The images with their objects."""
        return ObjectSplit(listing.labels, reader=listing.reader, bits=listing.bits, objects=self.objects)


def read_coco(root: Path) -> list[Annotated]:
    """The part to train on and the one to test, with the same classes.

    Raises `RoadmapError` with one sentence for files that are missing, broken or contradict each other.
    """
    folder = root / "annotations"
    found = {path.stem.removeprefix("instances_"): path for path in sorted(folder.glob("instances_*.json"))}
    parts = []
    for words in (("train",), EVALUATIONS):
        own = next((some for word in words if (some := [part for part in found if part.startswith(word)])), None)
        if own is None:
            here = contents(folder if folder.is_dir() else root)
            raise RoadmapError(f"{root} must hold {EXPECTED}, but has no instances_{words[0]}*.json: it holds {here}")
        if len(own) > 1:
            raise RoadmapError(f"{folder} has {listed(own)}, of which only one can be meant: move the others elsewhere")
        parts.append(_Reading(found[own[0]]).part(root, own[0]))
    train, test = parts
    if train.class_names != test.class_names:
        raise RoadmapError(f"the categories of {train.where} and {test.where} differ: they must be the same in both")
    return parts


class _Reading:
    """One file of annotations; every refusal names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, problem: str) -> RoadmapError:
        return RoadmapError(f"{self.path} {problem}")

    def part(self, root: Path, part: str) -> Annotated:
        """All of it, checked."""
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise self.refuse(f"cannot be read: {cause(error)}") from None
        if not isinstance(content, dict):
            raise self.refuse("must be an object with the lists images, annotations and categories, as COCO's are")
        images = self._rows(content, "images", {"id": int, "file_name": str, "height": int, "width": int})
        classes = self._rows(content, "categories", {"id": int, "name": str})
        annotations = self._rows(
            content, "annotations", {"image_id": int, "category_id": int, "bbox": list, "segmentation": (list, dict)}
        )
        for kind, rows in (("image", images), ("category", classes)):
            again = repeated(row["id"] for row in rows)
            if again is not None:
                raise self.refuse(f"has {kind} {again} twice")
        for row in images:
            if min(row["height"], row["width"]) < 1:
                raise self.refuse(f"gives image {row['id']} a size of {row['width']} x {row['height']} pixels")
        classes.sort(key=lambda row: row["id"])
        objects = self._objects(images, {row["id"]: place for place, row in enumerate(classes)}, annotations)
        files, noted = self._files(root, part, [row["file_name"] for row in images])
        names = tuple(row["name"] for row in classes)
        return Annotated(part, str(self.path), files, names, noted, objects=objects)

    def _rows(self, content: dict[str, Any], name: str, keys: dict[str, Any]) -> list[dict[str, Any]]:
        """A list of objects that have these keys."""
        rows = content.get(name)
        if not isinstance(rows, list):
            raise self.refuse(f"has no list of {name}: expected images, annotations and categories, as COCO has them")
        if not rows:
            raise self.refuse(f"has no {name}: need at least one")
        for number, row in enumerate(rows):
            for key, kind in keys.items():
                value = row.get(key) if isinstance(row, dict) else None
                if not isinstance(value, kind) or isinstance(value, bool):
                    which = row.get("id", f"number {number + 1}") if isinstance(row, dict) else f"number {number + 1}"
                    state = "has no" if value is None else f"has {said(value)[:40]} as"
                    raise self.refuse(f"is broken: of {name}, {which} {state} {key}")
        return rows

    def _objects(
        self, images: list[dict[str, Any]], classes: dict[int, int], annotations: list[dict[str, Any]]
    ) -> Objects:
        places = {row["id"]: place for place, row in enumerate(images)}
        sizes = np.array([(row["height"], row["width"]) for row in images], np.int64)
        for number, row in enumerate(annotations):
            row.setdefault("id", f"number {number + 1}")
            if row.get("iscrowd", 0) not in (0, 1):
                raise self.refuse(
                    f"is broken: annotation {row['id']} has iscrowd {said(row['iscrowd'])[:40]}, not 0 or 1"
                )
            for key, known in (("image_id", places), ("category_id", classes)):
                if row[key] not in known:
                    raise self.refuse(f"is broken: annotation {row['id']} names {key} {row[key]}, which is not listed")
        annotations = sorted(annotations, key=lambda row: places[row["image_id"]])
        owners = np.array([places[row["image_id"]] for row in annotations], np.int64)
        masks, areas = zip(*map(self._mask, annotations, sizes[owners].tolist()), strict=True)
        return Objects(
            sizes,
            np.bincount(owners, minlength=len(images)),
            np.array([classes[row["category_id"]] for row in annotations], np.int64),
            np.array([self._box(row) for row in annotations], np.float64),
            masks,
            np.array(areas, np.float64),
            np.array([bool(row.get("iscrowd")) for row in annotations]),
        )

    def _box(self, row: dict[str, Any]) -> list[float]:
        if len(row["bbox"]) != 4 or not _numbers(row["bbox"]):
            raise self.refuse(f"is broken: the bbox of annotation {row['id']} is not x, y, width and height")
        return row["bbox"]

    def _mask(self, row: dict[str, Any], size: list[int]) -> tuple[bytes, float]:
        """Its mask, compressed, and its area."""
        from pycocotools import mask as tools

        shape, (height, width) = row["segmentation"], size
        if isinstance(shape, dict):
            packed = self._packed(row, size)
        else:
            if not shape or not all(isinstance(one, list) and len(one) >= 6 and len(one) % 2 == 0 for one in shape):
                raise self.refuse(f"is broken: annotation {row['id']} has a polygon that is not three points or more")
            if not all(map(_numbers, shape)):
                raise self.refuse(
                    f"is broken: annotation {row['id']} has a polygon with a coordinate that is no number"
                )
            for polygon in shape:
                for values, most, axis in ((polygon[::2], width, "x"), (polygon[1::2], height, "y")):
                    for value in (min(values), max(values)):
                        if not -TOLERANCE <= value <= most + TOLERANCE:
                            raise self.refuse(
                                f"is broken: annotation {row['id']} has a polygon outside its image of {width} x "
                                f"{height} pixels, at {axis} = {value:g}"
                            )
            packed = tools.merge(tools.frPyObjects(shape, height, width))
        area = row["area"] if _numbers([row.get("area")]) else tools.area(packed)
        return packed["counts"], float(area)

    def _packed(self, row: dict[str, Any], size: list[int]) -> dict[str, Any]:
        """The mask of run lengths, which must be those of the whole image."""
        from pycocotools import mask as tools

        shape = row["segmentation"]
        counts = shape.get("counts")
        runs = _runs(counts) if isinstance(counts, str) else counts
        if (
            not isinstance(runs, list)
            or shape.get("size") != size
            or not all(isinstance(run, int) and run >= 0 for run in runs)
            or sum(runs) != math.prod(size)
        ):
            raise self.refuse(
                f"is broken: the run lengths of annotation {row['id']} are not a mask of its image, "
                f"{size[1]} x {size[0]} pixels"
            )
        packed: dict[str, Any] = tools.frPyObjects({"size": size, "counts": runs}, *size)
        return packed

    def _files(self, root: Path, part: str, names: list[str]) -> tuple[Files, tuple[str, ...]]:
        """The image files, in the folder of the part, or of the same name in images/; and what lies beside them."""
        folders = [root / part, root / "images" / part]
        folder = next((one for one in folders if one.is_dir()), None)
        if folder is None:
            raise self.refuse(f"has no folder of images: expected {folders[0]}")
        base = str(folder.absolute())
        sizes = np.array([stamp(os.path.join(base, name))[0] for name in names], np.int64)
        missing = [name for name, size in zip(names, sizes, strict=True) if not size and not (folder / name).is_file()]
        if missing:
            raise self.refuse(f"lists images that {folder} lacks: {named(missing)}")
        left_out: Counter[str] = Counter()
        beside = {one.name for one in os.scandir(folder) if one.is_file() and is_image(one.name, left_out)} - set(names)
        left_out[f"images in {folder} that {self.path.name} does not list"] = len(beside)
        return Files(base, np.array([os.fsencode(name) for name in names]), sizes), tuple(told(left_out))


def _numbers(values: Iterable[Any]) -> bool:
    """Whether all are finite numbers."""
    return all(isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) for one in values)


def _runs(text: str) -> list[int] | None:
    """The run lengths that pycocotools has compressed: six bits a character, differences from the third on. None for
    text that is none such."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if not shift else None
