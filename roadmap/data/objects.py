"""The objects in images: classes, boxes and masks, as COCO has them. pycocotools is imported where masks are used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from roadmap.data.sources import Split


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects in the images of a part, image after image.

    ``sizes``: height and width of each image, int64 (N, 2); ``counts``: its objects, int64 (N,). Of each object:
    ``labels``, its class, int64 (K,); ``boxes``, left, top, width and height in pixels, float64 (K, 4); ``masks``, the
    runs of its pixels as pycocotools compresses them; ``areas``, its pixels as the annotations count them, float64
    (K,); ``crowds``, whether it is a crowd, where a detection is neither right nor wrong, bool (K,).
    """

    sizes: np.ndarray
    counts: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: Sequence[bytes]
    areas: np.ndarray
    crowds: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def images(self) -> np.ndarray:
        """The image of each object, int64 (K,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the objects of each image begin, and where they end, int64 (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def corners(self) -> np.ndarray:
        """Left, top, right and bottom of each box, as much of it as is in the image, float64 (K, 4)."""
        ends = np.tile(self.sizes[self.images][:, ::-1], 2)
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)
        return np.minimum(corners.clip(0), ends)

    @cached_property
    def degenerate(self) -> np.ndarray:
        """Whether there is nothing of a box in the image, bool (K,)."""
        return np.any(self.corners[:, 2:] <= self.corners[:, :2], axis=1)

    def mask(self, index: int) -> dict[str, object]:
        """An object's mask as pycocotools takes it."""
        return {"size": self.sizes[self.images[index]].tolist(), "counts": self.masks[index]}

    def learned(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What an image is to teach: labels (M,), corners float64 (M, 4) and masks uint8 (M, H, W) of its objects,
        without crowds and degenerate boxes."""
        from pycocotools.mask import decode

        own = np.arange(*self.starts[image : image + 2])
        own = own[~(self.crowds | self.degenerate)[own]]
        masks = decode([self.mask(one) for one in own]) if len(own) else np.zeros((*self.sizes[image], 0), np.uint8)
        return self.labels[own], self.corners[own], np.ascontiguousarray(masks.transpose(2, 0, 1))

    def select(self, images: np.ndarray) -> Objects:
        """The objects of these images alone, in their order."""
        own = np.concatenate([np.zeros(0, np.int64), *(np.arange(*self.starts[one : one + 2]) for one in images)])
        masks = [self.masks[one] for one in own]
        columns = (column[own] for column in (self.labels, self.boxes, self.areas, self.crowds))
        labels, boxes, areas, crowds = columns
        return Objects(self.sizes[images], self.counts[images], labels, boxes, masks, areas, crowds)

    def lines(self) -> Iterator[bytes]:
        """What names them in a fingerprint."""
        columns = (self.sizes, self.counts, self.labels, self.boxes, self.areas, self.crowds)
        yield from (np.ascontiguousarray(column).tobytes() for column in columns)
        yield hashlib.sha256(b"\n".join(self.masks)).digest()


@dataclass(frozen=True)
class ObjectSplit(Split):
    """Images with their ``objects``."""

    objects: Objects = field(kw_only=True)
