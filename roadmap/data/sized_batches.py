"""Batches of images that keep sizes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from roadmap.data.batches import IMAGE, Batcher, Batches, Images
from roadmap.data.sources import ImageData

#: Most images of a test batch.
TEST_IMAGES = 64

#: Images, each (3, H, W), and for each what is known of it.
Batch = tuple[list[Tensor], list[Any]]


class SizedBatcher(Batcher):
    """Makes batches (images, what is known of them): two lists, the images float (3, H, W), normalised.

    A task says how an image is made, of its split and its index there: uint8 (3, H, W), with what is known of it. It
    stays whole bytes until it is on the device.
    """

    #: A test batch has about this many pixels.
    test_pixels: ClassVar[int]

    def __init__(self, data: ImageData, *args: Any, **how: Any) -> None:
        super().__init__(data, *args, **how)
        if data.in_memory:  # to hand an image over would take longer than to make it
            self.workers = 0

    def learned(self) -> Callable[[Any, int], tuple[Tensor, Any]]:
        """Makes a training image, augmented by Python's and torch's generators."""
        raise NotImplementedError

    def tested(self) -> Callable[[Any, int], tuple[Tensor, Any]]:
        """Makes a test image."""
        raise NotImplementedError

    def training(self, epoch: int) -> Batches:
        """The training batches of this epoch, in its order."""
        order = self.order(epoch)
        images = Images(self.data.train, order, self.learned(), (self.seed, epoch, IMAGE), self.share(len(order)))
        return self._batches(images, self.part_size // self.ranks)

    def testing(self, size: int | None = None) -> Batches:
        """The test batches, in order, of ``size`` images or as many as suit their size."""
        order = np.arange(len(self.data.test))
        images = Images(self.data.test, order, self.tested(), (0, 0, IMAGE), self.test_places(size))
        return self._batches(images, self.test_size(size))

    def _batches(self, images: Images, size: int) -> Batches:
        return Batches(_Normalized(self, self.loader(images, size, _listed)))

    def test_places(self, size: int | None = None) -> np.ndarray:
        """Which test images this rank is given by `testing`, in that order: their places among all, int64 (M,)."""
        return np.arange(len(self.data.test))[self.rank :: self.ranks]

    def test_size(self, size: int | None = None) -> int:
        """Images of a test batch: ``size``, or as many as are likely to fit into memory, if there are that many."""
        fitting = max(1, self.test_pixels // self.data.image_size**2)
        return min(size or min(fitting, TEST_IMAGES), len(self.data.test))


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


def scaled(picture: Image.Image, ratio: float) -> Image.Image:
    """A picture of ``ratio`` times the size, in whole pixels (bilinear)."""
    width, height = (max(1, int(ratio * length + 0.5)) for length in picture.size)
    return picture if (width, height) == picture.size else picture.resize((width, height), Image.Resampling.BILINEAR)


def pixels_of(picture: Any) -> Tensor:
    """A picture, or an array (H, W, 3), as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _listed(examples: Iterable[tuple[Tensor, Any]]) -> Batch:
    images, known = zip(*examples, strict=True)
    return [*images], [*known]
