"""Images with their masks, as batches."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import RandomPhotometricDistort

from roadmap.data.masks import IGNORED, MaskSplit
from roadmap.data.sized_batches import SizedBatcher, pixels_of, scaled

#: The longer side of an image is at most this many times the shorter one that is asked for, as in the paper: 2048, 512.
LONGEST = 4
#: A piece of which one class covers more than this share is cut anew, up to so many times, as in the paper.
MOST_OF_ONE, TRIES = 0.75, 10


class SegmentationBatcher(SizedBatcher):
    """Makes batches of images and masks, int64 (H, W).

    A training image is scaled so that its shorter side is the data's ``image_size`` times a random factor of the
    recipe's ``scale``; a square piece of that size is cut out, filled up where the image is smaller, and flipped and
    distorted in its colours where the recipe says so. A test image is scaled to that shorter side; its mask is not.
    """

    test_pixels = 2**20

    def learned(self) -> LearnedPiece:
        """Cuts pieces of one size."""
        return LearnedPiece(self.data.image_size, self.recipe.scale, self.flips, self.recipe.photometric)

    def tested(self) -> TestedImage:
        """Scales images."""
        return TestedImage(self.data.image_size)


@dataclass(frozen=True)
class LearnedPiece:
    """A piece of an image of a split: uint8 (3, S, S), and of its mask, int64 (S, S)."""

    side: int
    scale: tuple[float, float]
    flips: bool
    distorts: bool

    def __call__(self, split: MaskSplit, index: int) -> tuple[Tensor, Tensor]:
        picture, values = split.picture(index), split.mask(index)
        image = scaled(picture, _ratio(picture, self.side, random.uniform(*self.scale)))
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
        found = pixels_of(pixels[top : top + self.side, left : left + self.side])
        target = torch.from_numpy(piece.astype(np.int64))
        if self.flips and random.random() < 0.5:
            found, target = found.flip(2), target.flip(1)
        return (RandomPhotometricDistort()(found) if self.distorts else found), target


@dataclass(frozen=True)
class TestedImage:
    """An image of a split, scaled: uint8 (3, H, W), and its mask in its own size, int64."""

    side: int

    def __call__(self, split: MaskSplit, index: int) -> tuple[Tensor, Tensor]:
        picture = split.picture(index)
        return pixels_of(scaled(picture, _ratio(picture, self.side))), torch.from_numpy(
            split.mask(index).astype(np.int64)
        )


def _ratio(picture: Image.Image, side: int, factor: float = 1.0) -> float:
    """What makes the shorter side ``side`` times ``factor`` pixels, and the longer one `LONGEST` times that at most."""
    return factor * min(side / min(picture.size), LONGEST * side / max(picture.size))


def _filled(values: np.ndarray, side: int, value: int | None) -> np.ndarray:
    """Values (H, W, ...), at least ``side`` rows and columns: further ones have the ``value``, or repeat the last."""
    more = [(0, max(0, side - length)) for length in values.shape[:2]] + [(0, 0)] * (values.ndim - 2)
    if not any(after for _, after in more):
        return values
    return np.pad(values, more, mode="edge") if value is None else np.pad(values, more, constant_values=value)
