"""Images of any size with the objects in them, as batches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from roadmap.data.batches import IMAGE, Batcher, Batches, Images
from roadmap.data.detection import ObjectSplit
from roadmap.data.sources import ImageData

#: The longer side of an image is at most this much of the shorter one that is asked for, as in the paper: 1333 for 800.
LONGEST = 5 / 3
#: A test batch has about this many pixels, and at most so many images.
TEST_PIXELS, TEST_IMAGES = 2**22, 64

#: Images, each (3, H, W), and for each what is known of it.
Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


class DetectionBatcher(Batcher):
    """Makes batches (images, targets) of images float (3, H, W), normalised, each in a size of its own.

    Their shorter side is the data's ``image_size``, in training times a random factor of the recipe's ``scale``. The
    target of a training image has ``boxes`` (M, 4) as left, top, right and bottom, ``labels`` (M,) from 1 on and
    ``masks`` uint8 (M, H, W); that of a test image ``image``, its place among all, and ``size``, its own height and
    width. Pixels stay whole bytes until they are on the device.
    """

    def __init__(self, data: ImageData, *args: Any, **how: Any) -> None:
        super().__init__(data, *args, **how)
        if data.in_memory:  # which takes less time than another process to do it
            self.workers = 0

    def training(self, epoch: int) -> Batches:
        """The training batches of this epoch, in its order."""
        order, learned = self.order(epoch), Learned(self.data.image_size, self.recipe.scale, self.flips)
        images = Images(self.data.train, order, learned, (self.seed, epoch, IMAGE), self.share(len(order)))
        return Batches(_Normalized(self, self.loader(images, self.part_size // self.ranks, _collate)))

    def testing(self, size: int | None = None) -> Batches:
        """The test batches, in order, without augmentation, of ``size`` images or as many as suit their size."""
        tested = Tested(self.data.image_size)
        images = Images(self.data.test, np.arange(len(self.data.test)), tested, (0, 0, IMAGE), self.test_places(size))
        return Batches(_Normalized(self, self.loader(images, self.test_size(size), _collate)))

    def test_places(self, size: int | None = None) -> np.ndarray:
        """Which test images this rank is given by `testing`, in that order: their places among all, int64 (M,)."""
        return np.arange(len(self.data.test))[self.rank :: self.ranks]

    def test_size(self, size: int | None = None) -> int:
        """Images of a test batch: ``size``, or as many as are likely to fit into memory, where there are so many."""
        fitting = int(TEST_PIXELS / (LONGEST * self.data.image_size**2))
        return min(size or max(1, min(fitting, TEST_IMAGES)), len(self.data.test))


@dataclass(frozen=True)
class Learned:
    """An image of a split, scaled and flipped at random, and its objects with it: uint8 (3, H, W), what it teaches."""

    side: int
    scale: tuple[float, float]
    flips: bool

    def __call__(self, split: ObjectSplit, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        picture = split.picture(index)
        labels, corners, shapes = split.objects.learned(index)
        image = scaled(picture, self.side, random.uniform(*self.scale))
        pixels, masks = _pixels(image), torch.from_numpy(shapes)
        ratios = torch.tensor([image.width / picture.width, image.height / picture.height] * 2)
        boxes = torch.from_numpy(corners).float() * ratios
        if image.size != picture.size:
            masks = interpolate(masks[:, None], (image.height, image.width), mode="nearest")[:, 0]
        if self.flips and random.random() < 0.5:
            pixels, masks = pixels.flip(2), masks.flip(2)
            left, top, right, bottom = boxes.unbind(1)
            boxes = torch.stack([image.width - right, top, image.width - left, bottom], dim=1)
        return pixels, {"boxes": boxes, "labels": torch.from_numpy(labels) + 1, "masks": masks}


@dataclass(frozen=True)
class Tested:
    """An image of a split, scaled: uint8 (3, H, W), and where it belongs."""

    side: int

    def __call__(self, split: ObjectSplit, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        picture = split.picture(index)
        known = {"image": torch.tensor(index), "size": torch.tensor([picture.height, picture.width])}
        return _pixels(scaled(picture, self.side)), known


@dataclass(frozen=True)
class _Normalized:
    """Batches whose images are on the batcher's device, normalised."""

    batcher: Batcher
    loader: DataLoader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for images, known in self.loader:
            moved = (image.to(self.batcher.device, non_blocking=True) for image in images)
            yield [self.batcher.normalize(image.permute(1, 2, 0)[None])[0] for image in moved], known


def scaled(picture: Image.Image, side: int, factor: float = 1.0) -> Image.Image:
    """A picture whose shorter side is ``side`` times ``factor`` pixels, or fewer where the longer one would be above
    `LONGEST` times ``side`` (bilinear)."""
    ratio = min(factor * side / min(picture.size), LONGEST * side / max(picture.size))
    size = tuple(max(1, round(ratio * length)) for length in picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)


def _pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _collate(examples: Iterable[Any]) -> Batch:
    images, known = zip(*examples, strict=True)
    return [*images], [*known]
