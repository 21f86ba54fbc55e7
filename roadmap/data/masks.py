"""Folders of images with a mask each, as ADE20K and Pascal VOC have them."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError, repeated
from roadmap.data.entries import is_image, refuse_no_images, told
from roadmap.data.images import UNREADABLE, cores
from roadmap.data.listings import Listing, refuse
from roadmap.data.readers import Files, stamp
from roadmap.data.sized import SizedPart
from roadmap.data.sources import Split, hash_of

#: The class of pixels that nothing is known of, in masks as they are used.
IGNORED = 255
VOC_CLASSES = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike
person pottedplant sheep sofa train tvmonitor""".split()  # noqa: SIM905
ADE20K_CLASSES = 150
ADE20K = "images/training, images/validation, annotations/training and annotations/validation"
VOC_PARTS = ("train", "val")
VOC = "JPEGImages, SegmentationClass and ImageSets/Segmentation with train.txt and val.txt"


@dataclass(frozen=True)
class MaskSplit(Split):
    """Images in their own sizes, each with a mask: decoded, uint8 (N, H, W), or files, of which 0 may be unknown."""

    masks: np.ndarray | Files = field(kw_only=True)
    zero: bool = False

    def mask(self, index: int) -> np.ndarray:
        """Class numbers, uint8 (H, W), `IGNORED` where nothing is known."""
        if isinstance(self.masks, np.ndarray):
            found: np.ndarray = self.masks[index]
            return found
        return read_mask(self.masks, index, self.zero)


@dataclass(frozen=True)
class Masked(SizedPart):
    """Images with the ``masks`` of these, in the same order; ``zero``: whether 0 in a mask means that nothing is
    known."""

    masks: Files = field(kw_only=True)
    zero: bool = field(kw_only=True)

    def select(self, places: np.ndarray) -> Masked:
        """These images alone."""
        return dataclasses.replace(self, images=self.images.select(places), masks=self.masks.select(places))

    def check(self, listing: Listing) -> None:
        """Raise `RoadmapError` for the first mask that is broken, or has another size than its image."""
        with ThreadPoolExecutor(max_workers=cores()) as pool:
            sizes = pool.map(check_mask(self), range(len(self.masks.sizes)))
            for index, (size, seen) in enumerate(zip(sizes, listing.seen, strict=True)):
                own = int(seen["height"]), int(seen["width"])
                if all(own) and size != own:
                    raise RoadmapError(
                        f"{self.masks.place(index)} has {size[1]} x {size[0]} pixels, but its image, "
                        f"{listing.reader.place(index)}, has {own[1]} x {own[0]}"
                    )

    def lines(self) -> Iterator[bytes]:
        """What tells the masks from others."""
        for index in range(len(self.masks.sizes)):
            with self.masks.open(index) as file:
                yield hash_of([file.read()]).encode()

    def split(self, listing: Listing) -> MaskSplit:
        """The images with their masks."""
        return MaskSplit(listing.labels, reader=listing.reader, bits=listing.bits, masks=self.masks, zero=self.zero)


def list_ade20k(root: Path) -> list[Masked]:
    """The parts of ADE20K's scene parsing benchmark, whose masks number 150 classes from 1 on, 0 being none of them.

    Names of the classes are those of ``objectInfo150.txt``, where that is there. Raises `RoadmapError` for other
    folders, and for an image that has no mask.
    """
    root = root / "ADEChallengeData2016" if (root / "ADEChallengeData2016").is_dir() else root
    places = [(part, root / "images" / part, root / "annotations" / part) for part in ("training", "validation")]
    if not all(place.is_dir() for _, *pair in places for place in pair):
        refuse(root, ADE20K)
    names = _ade20k_names(root / "objectInfo150.txt")
    parts = []
    for part, images, masks in places:
        left_out: Counter[str] = Counter()
        found = sorted(entry.name for entry in os.scandir(images) if entry.is_file() and is_image(entry.name, left_out))
        if not found:
            refuse_no_images(images, left_out)
        parts.append(_with_masks(part, images, found, masks, names, True, tuple(told(left_out))))
    return parts


def list_voc(root: Path) -> list[Masked]:
    """The parts of a folder as Pascal VOC's: masks number classes from 0 on, the background, and 255 is none of them.

    The classes are VOC's, or those that a file ``classes.txt`` names, one a line, the background first. Raises
    `RoadmapError` for other folders, and for an image that has no mask.
    """
    inner = next((path for path in (root / "VOCdevkit" / "VOC2012", root / "VOC2012") if path.is_dir()), root)
    lists, images, masks = inner / "ImageSets" / "Segmentation", inner / "JPEGImages", inner / "SegmentationClass"
    if not all(path.is_dir() for path in (images, masks)) or not all((lists / f"{p}.txt").is_file() for p in VOC_PARTS):
        refuse(root, VOC)
    names = _voc_names(inner / "classes.txt")
    endings: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for entry in sorted(os.scandir(images), key=lambda entry: entry.name):
        if entry.is_file() and is_image(entry.name, left_out):
            endings[Path(entry.name).stem] = entry.name
    parts = []
    for part in VOC_PARTS:
        listed = (lists / f"{part}.txt").read_text(encoding="utf-8", errors="replace").split()
        if not listed:
            raise RoadmapError(f"{lists / part}.txt names no image: it must have one name a line")
        if twice := repeated(listed):
            raise RoadmapError(f"{lists / part}.txt names '{twice}' twice")
        for name in listed:
            if name not in endings:
                raise RoadmapError(f"{lists / part}.txt names '{name}', but {images} has no such image")
        parts.append(_with_masks(part, images, [endings[name] for name in listed], masks, names, False, ()))
    return parts


def _ade20k_names(path: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers."""
    if not path.is_file():
        return tuple(f"class {number}" for number in range(1, ADE20K_CLASSES + 1))
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]]
    names = [row[-1].split(",")[0].strip() for row in rows if len(row) > 1]
    if len(names) != ADE20K_CLASSES:
        raise RoadmapError(f"{path} names {len(names)} classes, but ADE20K has {ADE20K_CLASSES}: fetch it again")
    return tuple(name if names.count(name) == 1 else f"{name} {number}" for number, name in enumerate(names, start=1))


def _voc_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return tuple(VOC_CLASSES)
    names = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if len(names) < 2 or len(names) > IGNORED:
        raise RoadmapError(f"{path} names {len(names)} classes: need 2 to {IGNORED}, one a line, the background first")
    if twice := repeated(names):
        raise RoadmapError(f"{path} names the class '{twice}' twice")
    return tuple(names)


def _with_masks(
    part: str,
    folder: Path,
    names: list[str],
    masks: Path,
    class_names: tuple[str, ...],
    zero: bool,
    remarks: tuple[str, ...],
) -> Masked:
    there = {entry.name for entry in os.scandir(masks)}
    wanted = [f"{Path(name).stem}.png" for name in names]
    missing = [name for name, mask in zip(names, wanted, strict=True) if mask not in there]
    if missing:
        more = f", as {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RoadmapError(
            f"{folder / missing[0]} has no mask{more}: {masks} must hold {Path(missing[0]).stem}.png, or leave the "
            "image out"
        )
    if spare := len([name for name in there - set(wanted) if name.endswith(".png")]) if zero else 0:
        remarks = (*remarks, f"masks without an image, of {part}: {spare}")
    images = _files(folder, names)
    return Masked(part, str(folder), images, class_names, remarks, masks=_files(masks, wanted), zero=zero)


def _files(folder: Path, names: list[str]) -> Files:
    base = os.path.join(os.path.abspath(folder), "")  # noqa: PTH100
    sizes = np.array([stamp(base + name)[0] for name in names], np.int64)
    return Files(base, np.array([os.fsencode(name) for name in names]), sizes)


def read_mask(files: Files, index: int, zero: bool) -> np.ndarray:
    """A mask as class numbers from 0 on, uint8 (H, W), `IGNORED` where nothing is known.

    Raises `RoadmapError` with its name where it cannot be read, or has no class number a pixel.
    """
    place = files.place(index)
    try:
        with Image.open(place) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise RoadmapError(
                    f"{place} has the colours of mode {picture.mode}, but a mask has one class number a pixel: save "
                    "it in grey (L) or with a palette (P)"
                )
            values = np.asarray(picture).astype(np.uint8)
    except RoadmapError:
        raise
    except UNREADABLE:
        raise RoadmapError(f"{place} is not a readable mask: repair it, or leave its image out") from None
    return np.where(values == 0, IGNORED, values - 1).astype(np.uint8) if zero else values


def check_mask(part: Masked) -> Callable[[int], tuple[int, int]]:
    """What checks the mask of an image by its index: gives its height and width, and raises `RoadmapError` for a class
    that there is not."""

    def check(index: int) -> tuple[int, int]:
        values = read_mask(part.masks, index, part.zero)
        known = values[values != IGNORED]
        if known.size and known.max() >= len(part.class_names):
            first = int(part.zero)
            last = len(part.class_names) - 1 + first
            raise RoadmapError(
                f"{part.masks.place(index)} has a pixel of class {int(known.max()) + first}, but classes go from "
                f"{first} to {last}"
                + ("" if part.zero else f" ({IGNORED}: unknown); a file classes.txt beside the folders names others")
            )
        return values.shape[0], values.shape[1]

    return check
