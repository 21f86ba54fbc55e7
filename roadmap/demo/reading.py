"""An image that somebody dropped, whatever it is."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError
from roadmap.data.images import REPAIR, SEEN, UNREADABLE, bits_of, read_image, see

#: Pixels of the largest image that is read: decoded, it takes 300 MB.
MOST_PIXELS = 100_000_000


def read_dropped(path: str | Path) -> Image.Image:
    """The image as RGB, read as a data set's are: turned as its EXIF data say, transparency on black, of deep values
    the upper eight bits. Raises `RoadmapError` for what is no image and for one that is too large."""
    name, width, height = Path(path).name, 0, 0
    with contextlib.suppress(*UNREADABLE), Image.open(path) as opened:
        width, height = opened.size
    if width * height > MOST_PIXELS:
        raise RoadmapError(
            f"{name} has {width} x {height} pixels, but the demo reads up to {MOST_PIXELS // 10**6} million: make it "
            "smaller"
        )
    bits = bits_of(np.array([see(Path(path).read_bytes())], SEEN))[0]
    try:
        return read_image(path, name, int(bits))
    except RoadmapError as error:
        raise RoadmapError(str(error).replace(REPAIR, "drop another one")) from None
