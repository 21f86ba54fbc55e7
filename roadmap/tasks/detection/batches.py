"""Images of any size with the objects in them, as batches."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from roadmap.data.objects import ObjectSplit
from roadmap.data.sized_batches import SizedBatcher, pixels_of, scaled

#: The longer side of an image is at most this much of the shorter one that is asked for, as in the paper: 1333 for 800.
LONGEST = 5 / 3


class DetectionBatcher(SizedBatcher):
    """Makes batches of images and targets. The shorter side of an image is the data's ``image_size``, in training times
    a random factor of the recipe's ``scale``.

    The target of a training image has ``boxes`` (M, 4) as left, top, right and bottom, ``labels`` (M,) from 1 on and
    ``masks`` uint8 (M, H, W); that of a test image ``image``, its place among all, and ``size``, its own height and
    width.
    """

    test_pixels = 2**22

    def learned(self) -> Learned:
        """Scales and flips images with their objects."""
        return Learned(self.data.image_size, self.recipe.scale, self.flips)

    def tested(self) -> Tested:
        """Scales images."""
        return Tested(self.data.image_size)


@dataclass(frozen=True)
class Learned:
    """An image of a split, scaled and flipped at random, and its objects with it: uint8 (3, H, W), what it teaches."""

    side: int
    scale: tuple[float, float]
    flips: bool

    def __call__(self, split: ObjectSplit, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        picture = split.picture(index)
        labels, corners, shapes = split.objects.learned(index)
        image = scaled(picture, _ratio(picture, self.side, random.uniform(*self.scale)))
        pixels, masks = pixels_of(image), torch.from_numpy(shapes)
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
        return pixels_of(scaled(picture, _ratio(picture, self.side))), known


def _ratio(picture: Image.Image, side: int, factor: float = 1.0) -> float:
    """What makes the shorter side ``side`` times ``factor`` pixels, and the longer one `LONGEST` times ``side`` at
    most."""
    return min(factor * side / min(picture.size), LONGEST * side / max(picture.size))
