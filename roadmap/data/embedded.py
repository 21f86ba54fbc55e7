"""The embedded data set: ten classes of 32 x 32 colour images composed on the spot, with no download.

Each image is one handwritten digit, the class, glowing over a darkened piece of a photograph, among fainter pieces of
other digits and noise. Digits and photographs are those that scikit-learn ships (``load_digits``,
``load_sample_images``). All arithmetic is on whole numbers, so that every machine composes the same images.
"""

from __future__ import annotations

import numpy as np

# Chosen so that the nine rungs up to the large kernel differ by more than their seeds (width 8, depth 1/3, stem
# stride 4, 300 steps of 64 images, 5 seeds; recipes/quick.yaml): 45 to 76 % test top-1, seeds 4.4 points apart; five
# or six of the eight effects are decided. With the digit no farther than 4 pixels from the middle (19 to 25 pixels
# large, contrast from 64, 420 steps) the rungs reach 73 to 89 %, seeds are 1.6 points apart, and the patchify stem
# stays open. Digits lighter or darker than an undimmed photograph, anywhere in the image, left every rung at 10 %.

#: Height and width of the images in pixels.
SIZE = 32
#: Seed of the generator; the images are always the same.
SEED = 2022
#: Images of each part: of 64 images, 100 steps an epoch.
TRAIN_IMAGES, TEST_IMAGES = 6400, 4000
#: The first of the 1797 source digits, for training; the others are for testing, distractors included.
TRAIN_DIGITS = 1197
#: Of the 640 columns of a photograph those left of this one are for training, the others for testing.
TRAIN_COLUMNS = 400
#: Height of the digit's 8 x 8 source in pixels, and how far its centre may lie from the image's. The farther, the
#: more a stem of windows that do not overlap loses.
DIGIT_PIXELS, WANDER = (17, 22), 6
#: Largest rotation or shear, in 256ths of a template pixel for each pixel off the centre.
SLANT = 50
#: How much of the photograph's brightness remains, in 256ths, and the noise's largest value.
BACKDROP, NOISE = 128, 24
#: What digit and distractors add to each colour channel at full ink, and the number of distractors.
CONTRAST, DISTRACTOR_CONTRAST, DISTRACTORS = (96, 255), (10, 60), 2

_ENLARGED = 4  # template pixels a source pixel
_AT_ONCE = 256  # images, for the processor's cache


def compose() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images uint8 (N, 32, 32, 3) and labels int64 (N,), then test images and labels; takes about a second.

    No source digit and no piece of a photograph is in both parts.
    """
    rng, (train, test) = np.random.default_rng(SEED), sources()
    return *_compose(rng, TRAIN_IMAGES, *train), *_compose(rng, TEST_IMAGES, *test)


def sources() -> list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]:
    """What images are made of, to train and to test: templates (M, 40, 40), their labels (M,), and photographs."""
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    templates, labels = _enlarge(digits.images.astype(np.int32)), digits.target.astype(np.int64)
    photographs = load_sample_images().images
    return [
        (templates[:TRAIN_DIGITS], labels[:TRAIN_DIGITS], [one[:, :TRAIN_COLUMNS] for one in photographs]),
        (templates[TRAIN_DIGITS:], labels[TRAIN_DIGITS:], [one[:, TRAIN_COLUMNS:] for one in photographs]),
    ]


def _enlarge(digits: np.ndarray) -> np.ndarray:
    """Digits (M, 8, 8) of 0..16 as smooth templates (M, 40, 40) of 0..255, linearly interpolated, with a margin."""
    enlarged = np.pad(digits, ((0, 0), (1, 1), (1, 1)))
    for axis in (1, 2):
        enlarged = np.repeat(enlarged, _ENLARGED, axis=axis)
        enlarged = np.sum([np.roll(enlarged, shift, axis=axis) for shift in range(_ENLARGED)], axis=0)
    return np.minimum(enlarged, 255)


def draw(
    rng: np.random.Generator,
    templates: np.ndarray,
    chosen: np.ndarray,
    centres: np.ndarray,
    size: int = SIZE,
    pixels: tuple[int, int] = DIGIT_PIXELS,
) -> np.ndarray:
    """Ink (N, size, size, 1) of 0..255: the chosen (N,) templates at ``centres`` (N, 2), of a random slant and a size
    within ``pixels``.

    Numbers are drawn with 64 bits, since others would be other numbers, and computed with 32, which is quicker.
    """
    count, side = len(chosen), templates.shape[-1]
    along = (8 * _ENLARGED * 256 // rng.integers(*pixels, size=count, endpoint=True)).astype(np.int32)
    across = rng.integers(-SLANT, SLANT, size=(2, count), endpoint=True).astype(np.int32)
    offsets = (np.arange(size) - centres[..., None]).astype(np.int32)
    down, right = offsets[:, 0, :, None], offsets[:, 1, None, :]
    along, (first, second) = along[:, None, None], across[..., None, None]
    rows = ((along * down + first * right) >> 8) + side // 2
    columns = ((second * down + along * right) >> 8) + side // 2
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return np.where(inside, templates[chosen[:, None, None], rows * inside, columns * inside], 0)[..., None]


def _compose(
    rng: np.random.Generator, count: int, templates: np.ndarray, labels: np.ndarray, photographs: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` images and their labels, every template used equally often, to within one."""
    chosen = rng.permutation(np.resize(np.arange(len(labels)), count))
    parts = np.split(chosen, range(_AT_ONCE, count, _AT_ONCE))
    return np.concatenate([_images(rng, part, templates, photographs) for part in parts]), labels[chosen]


def _images(
    rng: np.random.Generator, chosen: np.ndarray, templates: np.ndarray, photographs: list[np.ndarray]
) -> np.ndarray:
    """Images uint8 (N, 32, 32, 3) of the ``chosen`` (N,) templates."""
    count = len(chosen)
    images = backdrops(rng, count, photographs, SIZE)
    for _ in range(DISTRACTORS):
        others = rng.integers(len(templates), size=count)
        centres = rng.integers(-6, SIZE + 6, size=(count, 2))
        images += glow(rng, draw(rng, templates, others, centres), DISTRACTOR_CONTRAST)
    centres = rng.integers(SIZE // 2 - WANDER, SIZE // 2 + WANDER, size=(count, 2), endpoint=True)
    images += glow(rng, draw(rng, templates, chosen, centres), CONTRAST)
    return finished(rng, images)


def backdrops(rng: np.random.Generator, count: int, photographs: list[np.ndarray], size: int) -> np.ndarray:
    """Darkened pieces of the photographs, int32 (count, size, size, 3)."""
    images = np.empty((count, size, size, 3), dtype=np.int32)
    photographed = rng.integers(len(photographs), size=count)
    for number, photograph in enumerate(photographs):
        pieces = np.lib.stride_tricks.sliding_window_view(photograph, (size, size), axis=(0, 1))
        here = photographed == number
        top, left = (rng.integers(length, size=here.sum()) for length in pieces.shape[:2])
        images[here] = pieces[top, left].transpose(0, 2, 3, 1)
    return images * BACKDROP >> 8


def glow(rng: np.random.Generator, ink: np.ndarray, contrast: tuple[int, int]) -> np.ndarray:
    """What ink (N, H, W, 1) adds to images, in a colour of its own each: int32 (N, H, W, 3)."""
    return ink * rng.integers(*contrast, size=(len(ink), 1, 1, 3), endpoint=True).astype(np.int32) >> 8


def finished(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Images with noise, uint8."""
    images += rng.integers(-NOISE, NOISE, size=images.shape, endpoint=True).astype(np.int32)
    return np.clip(images, 0, 255).astype(np.uint8)
