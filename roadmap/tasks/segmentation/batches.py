"""Images with their masks, as batches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import RandomPhotometricDistort

from roadmap.data.batches import IMAGE, Batcher, Batches, Images
from roadmap.data.masks import IGNORED
from roadmap.data.segmentation import MaskSplit

#: The longer side of an image is at most this many times the shorter one that is asked for, as in the paper: 2048, 512.
LONGEST = 4
#: A piece of which one class covers more than this share is cut anew, up to so many times, as in the paper.
MOST_OF_ONE, TRIES = 0.75, 10
#: A test batch has about this many pixels, and at most so many images.
TEST_PIXELS, TEST_IMAGES = 2**20, 64

#: Images, float (3, H, W), normalised, and their masks, int64 (H, W). Those to train on are alike in size, and stacked.
Batch = tuple[Any, Any]


class SegmentationBatcher(Batcher):
    """Makes batches (images, masks).

    A training image is scaled so that its shorter side is the data's ``image_size`` times a random factor of the
    recipe's ``scale``; a square piece of that size is cut out, filled up where the image is smaller, and flipped and
    distorted in its colours where the recipe says so. A test image is scaled to that shorter side; its mask is not.
    """

    def training(self, epoch: int) -> Batches:
        """The training batches of this epoch, in its order."""
        learned = LearnedPiece(self.data.image_size, self.recipe.scale, self.flips, self.recipe.photometric)
        order = self.order(epoch)
        images = Images(self.data.train, order, learned, (self.seed, epoch, IMAGE), self.share(len(order)))
        return Batches(_Normalized(self, self.loader(images, self.part_size // self.ranks, _stacked)))

    def testing(self, size: int | None = None) -> Batches:
        """The test batches, in order, of ``size`` images or as many as suit their size."""
        order = np.arange(len(self.data.test))
        images = Images(self.data.test, order, TestedImage(self.data.image_size), (0, 0, IMAGE), self.test_places(size))
        return Batches(_Normalized(self, self.loader(images, self.test_size(size), _listed)))

    def test_places(self, size: int | None = None) -> np.ndarray:
        """Which test images this rank is given by `testing`, in that order: their places among all, int64 (M,)."""
        return np.arange(len(self.data.test))[self.rank :: self.ranks]

    def test_size(self, size: int | None = None) -> int:
        """Images of a test batch: ``size``, or as many as are likely to fit into memory, where there are so many."""
        fitting = max(1, TEST_PIXELS // self.data.image_size**2)
        return min(size or min(fitting, TEST_IMAGES), len(self.data.test))


@dataclass(frozen=True)
class LearnedPiece:
    """A piece of an image of a split: uint8 (3, S, S), and of its mask, int64 (S, S)."""

    side: int
    scale: tuple[float, float]
    flips: bool
    distorts: bool

    def __call__(self, split: MaskSplit, index: int) -> tuple[Tensor, Tensor]:
        picture, values = split.picture(index), split.mask(index)
        image = scaled(picture, self.side, random.uniform(*self.scale))
        mask = Image.fromarray(values)
        if image.size != picture.size:
            mask = mask.resize(image.size, Image.Resampling.NEAREST)
        pixels, classes = _filled(np.asarray(image), self.side, None), _filled(np.asarray(mask), self.side, IGNORED)
        for _ in range(TRIES):
            top, left = (random.randint(0, length - self.side) for length in classes.shape)
            piece = classes[top : top + self.side, left : left + self.side]
            counts = np.bincount(piece[piece != IGNORED], minlength=1)
            if (counts > 0).sum() > 1 and counts.max() < MOST_OF_ONE * counts.sum():
                break
            if classes.shape == piece.shape:
                break
        found = _tensor(pixels[top : top + self.side, left : left + self.side])
        target = torch.from_numpy(piece.astype(np.int64))
        if self.flips and random.random() < 0.5:
            found, target = found.flip(2), target.flip(1)
        return (RandomPhotometricDistort()(found) if self.distorts else found), target


@dataclass(frozen=True)
class TestedImage:
    """An image of a split, scaled: uint8 (3, H, W), and its mask in its own size, int64."""

    side: int

    def __call__(self, split: MaskSplit, index: int) -> tuple[Tensor, Tensor]:
        picture = scaled(split.picture(index), self.side)
        return _tensor(np.asarray(picture)), torch.from_numpy(split.mask(index).astype(np.int64))


@dataclass(frozen=True)
class _Normalized:
    """Batches whose images are on the batcher's device, normalised."""

    batcher: Batcher
    loader: DataLoader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for images, masks in self.loader:
            if isinstance(images, Tensor):
                yield self.batcher.normalize(self._moved(images)), masks
            else:
                yield [self.batcher.normalize(self._moved(image[None]))[0] for image in images], masks

    def _moved(self, images: Tensor) -> Tensor:
        return images.to(self.batcher.device, non_blocking=True).permute(0, 2, 3, 1)


def scaled(picture: Image.Image, side: int, factor: float = 1.0) -> Image.Image:
    """A picture whose shorter side is ``side`` times ``factor`` pixels, or fewer where the longer one would be above
    `LONGEST` times that (bilinear)."""
    ratio = factor * min(side / min(picture.size), LONGEST * side / max(picture.size))
    width, height = (max(1, int(ratio * length + 0.5)) for length in picture.size)
    return picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BILINEAR)


def _filled(values: np.ndarray, side: int, value: int | None) -> np.ndarray:
    """Values (H, W, ...), at least ``side`` rows and columns: further ones have the ``value``, or repeat the last."""
    more = [(0, max(0, side - length)) for length in values.shape[:2]] + [(0, 0)] * (values.ndim - 2)
    if not any(after for _, after in more):
        return values
    return np.pad(values, more, mode="edge") if value is None else np.pad(values, more, constant_values=value)


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def _stacked(examples: Iterable[Any]) -> Batch:
    images, masks = zip(*examples, strict=True)
    return torch.stack(images), torch.stack(masks)


def _listed(examples: Iterable[Any]) -> Batch:
    images, masks = zip(*examples, strict=True)
    return [*images], [*masks]
