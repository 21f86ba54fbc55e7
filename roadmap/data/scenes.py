"""Scenes: the embedded data set of tasks that ask where things are. Several digits glow over a piece of a photograph.

Composed as the images of `roadmap.data.embedded` are, of the same digits and photographs, none of them in both parts.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from roadmap.data.embedded import CONTRAST, SEED, backdrops, draw, finished, glow, sources

#: Height and width of the images in pixels, and the images to train on and to test.
SIZE, TRAIN_IMAGES, TEST_IMAGES = 64, 800, 400
#: Fewest and most digits of an image, their height in pixels, and how far their centres stay off the border.
DIGITS, DIGIT_PIXELS, MARGIN = (1, 5), (18, 30), 8
#: Ink, of 255, from which a pixel is part of a digit, which hides what is behind it, and the pixels that the later
#: digits have to leave of one.
SOLID, FEWEST_PIXELS = 96, 32


class Scenes(NamedTuple):
    """Composed images, uint8 (N, 64, 64, 3).

    ``digits``: which of its digits a pixel is part of, counted from 1, 0 for none, uint8 (N, 64, 64); ``classes``: what
    these digits are, int64 (N, 6), -1 for none, and for the background at place 0.
    """

    images: np.ndarray
    digits: np.ndarray
    classes: np.ndarray


@cache
def compose_scenes() -> tuple[Scenes, Scenes]:
    """The part to train on and the part to test; once in a process."""
    rng, (train, test) = np.random.default_rng(SEED), sources()
    return _compose(rng, TRAIN_IMAGES, *train), _compose(rng, TEST_IMAGES, *test)


def _compose(
    rng: np.random.Generator, count: int, templates: np.ndarray, labels: np.ndarray, photographs: list[np.ndarray]
) -> Scenes:
    backdrop = images = backdrops(rng, count, photographs, SIZE)
    digits = np.zeros((count, SIZE, SIZE), np.uint8)
    classes = np.full((count, 1 + DIGITS[1]), -1)
    wanted = rng.integers(*DIGITS, size=count, endpoint=True)
    for number in range(1, DIGITS[1] + 1):
        chosen = rng.integers(len(templates), size=count)
        centres = rng.integers(MARGIN, SIZE - MARGIN, size=(count, 2), endpoint=True)
        ink = draw(rng, templates, chosen, centres, SIZE, DIGIT_PIXELS) * (number <= wanted)[:, None, None, None]
        images = np.where(ink >= SOLID, backdrop, images) + glow(rng, ink, CONTRAST)
        digits[ink[..., 0] >= SOLID] = number
        classes[:, number] = labels[chosen]
    pixels = (digits[..., None] == np.arange(1 + DIGITS[1])).sum(axis=(1, 2))
    classes[pixels < FEWEST_PIXELS] = -1
    digits[np.take_along_axis(classes, digits.reshape(count, -1).astype(int), axis=1).reshape(digits.shape) < 0] = 0
    return Scenes(finished(rng, images), digits, classes)
