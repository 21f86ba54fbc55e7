"""One encoded image: how it becomes pixels, and what is said of one that cannot be read."""

from __future__ import annotations

import os
from typing import IO, NoReturn

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: What Pillow raises for a file that is no readable image.
UNREADABLE = (OSError, Image.DecompressionBombError, SyntaxError, ValueError)
#: A shown list of images is cut behind so many.
NAMED_IMAGES = 3


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_image(source: str | os.PathLike | IO[bytes], name: str) -> Image.Image:
    """An image, from a path or an open file, as RGB, transparency shown on black.

    Raises `RoadmapError` with its ``name`` if it cannot be read.
    """
    try:
        with Image.open(source) as picture:
            if picture.mode == "F":
                raise RoadmapError(f"{name} holds fractions (mode F) of unknown range: convert it to 8 or 16 bits")
            if picture.mode == "I" or picture.mode.startswith("I;16"):  # 16 bits: keep the upper eight
                return Image.fromarray((np.asarray(picture).clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
            if picture.has_transparency_data:
                shown = picture.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", shown.size, "black"), shown).convert("RGB")
            return picture.convert("RGB")
    except RoadmapError:
        raise
    except UNREADABLE:
        unreadable([name])


def fit(picture: Image.Image, size: int, share: float = 1.0) -> Image.Image:
    """Cut the middle square, ``share`` of the shorter side, and resize it to ``size`` pixels (bicubic)."""
    width, height = picture.size
    if (width, height) == (size, size) and share == 1.0:
        return picture
    scale = size / share / min(width, height)
    resized = picture.resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return resized.crop((left, top, left + size, top + size))


def named(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED_IMAGES} more" if len(names) > NAMED_IMAGES else ""
    return f"{', '.join(names[:NAMED_IMAGES])}{more}"


def unreadable(names: list[str]) -> NoReturn:
    """Raise the `RoadmapError` that names images which cannot be read."""
    what = "is not a readable image" if len(names) == 1 else "are not readable images"
    raise RoadmapError(f"{named(names)} {what}: repair or remove, or leave out what cannot be read with --skip-corrupt")
