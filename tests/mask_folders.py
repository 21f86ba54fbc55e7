"""Small folders in the layouts of ADE20K and Pascal VOC."""

from __future__ import annotations

import numpy as np
from PIL import Image


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def pictures(count, size=(40, 56), classes=4, first=1, seed=0):
    """Images with a square of one class on a ground of another."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask = np.full(size, first, np.uint8)
        top, left = rng.integers(0, 16, 2)
        mask[top : top + 20, left : left + 24] = first + 1 + number % (classes - 1)
        yield rng.integers(0, 60, (*size, 3), dtype=np.uint8) + 40 * mask[..., None], mask


def make_ade20k(root, train=6, test=4):
    for part, count, seed in (("training", train, 0), ("validation", test, 1)):
        for number, (image, mask) in enumerate(pictures(count, seed=seed)):
            mask[-3:] = 0
            save(root / "images" / part / f"ADE_{part}_{number:04}.jpg", image)
            save(root / "annotations" / part / f"ADE_{part}_{number:04}.png", mask)
    return root


def make_voc(root, train=24, test=6, size=(40, 56)):
    for part, count, seed in (("train", train, 0), ("val", test, 1)):
        names = []
        for number, (image, mask) in enumerate(pictures(count, size, first=0, seed=seed)):
            mask[:, -2:] = 255
            names.append(f"{part}{number}")
            save(root / "JPEGImages" / f"{names[-1]}.jpg", image)
            picture = Image.fromarray(mask, "P")
            picture.putpalette([value for colour in range(256) for value in (colour, 255 - colour, 99)])
            (root / "SegmentationClass").mkdir(parents=True, exist_ok=True)
            picture.save(root / "SegmentationClass" / f"{names[-1]}.png")
        (root / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
    return root
