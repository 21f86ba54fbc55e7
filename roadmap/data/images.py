"""One encoded image: the kinds that there are, what is seen of it, its pixels, and what is said of a bad one."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
from functools import cache
from typing import IO, Any, NoReturn

import numpy as np
from PIL import ExifTags, Image, ImageFile

from roadmap.checks import RoadmapError

#: Pillow refuses twice this many pixels, and its own limit, 179 million, is within what cameras and scanners make: such
#: a picture takes 3 GB.
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, 2**29)
# Many a camera's EXIF data are damaged, which Pillow would say with every image, in every process.
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
#: What Pillow raises for a file that is no readable image.
UNREADABLE = (OSError, Image.DecompressionBombError, SyntaxError, ValueError, TypeError, IndexError, struct.error)
#: What is to be done with such files.
REPAIR = "repair or remove, or leave out what cannot be read with --skip-corrupt"
#: Most images named in one list.
NAMED_IMAGES = 3
#: Bits that the values of a camera or scanner have, of which the upper eight are kept.
DEPTHS = (8, 10, 12, 14, 16)
#: What is seen of an encoded image: a digest of its bytes; its height and width as it is shown, 0 where it cannot be
#: read; whether its EXIF data turn it, whether it has transparency, whether it has more than one frame. Of one with
#: more than eight bits a channel ``deep`` is 1 (grey) or 2 (colour), ``declared`` the bits that the file says its
#: values have, 0 where it does not, and ``largest`` the largest value, of colours with their lower eight bits set; -1
#: where values are negative or fractions.
SEEN = np.dtype(
    [
        ("digest", "V16"),
        ("height", "i4"),
        ("width", "i4"),
        ("turned", "?"),
        ("transparent", "?"),
        ("frames", "?"),
        ("deep", "u1"),
        ("declared", "u1"),
        ("largest", "i8"),
    ]
)
#: How a picture is turned, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Of these turns, those that swap height and width.
ASIDE = (TURNS[5], TURNS[6], TURNS[7], TURNS[8])


@cache
def image_kinds() -> dict[str, str]:
    """The endings of image files, in every source alike, and Pillow's names of their formats: those that it decodes.

    It also knows formats that it cannot read (stubs), that are not images, or that another program must draw.
    """
    Image.init()

    def decoded(kind: str) -> bool:
        factory = Image.OPEN[kind][0]
        stub = isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)
        return not stub and Image.MIME.get(kind, "image/").startswith("image/")

    return {ending: kind for ending, kind in Image.EXTENSION.items() if kind in Image.OPEN and decoded(kind)}


@cache
def _formats() -> tuple[str, ...]:
    kinds = {*image_kinds().values()}  # which has Pillow fill its list
    return tuple(kind for kind in Image.ID if kind in kinds)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def see(content: bytes) -> tuple[Any, ...]:
    """What is seen of an encoded image, a row of `SEEN`; only one of more than eight bits is decoded."""
    digest = hashlib.sha256(content).digest()[:16]
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as picture:
            deep = _deep(picture)
            if picture.format == "PNG" and content.find(b"eXIf") > content.find(b"IDAT"):
                picture.load()  # EXIF data may follow the pixels
            turn = TURNS.get(_orientation(picture))
            facts = (
                *(picture.size if turn in ASIDE else picture.size[::-1]),
                turn is not None,
                picture.has_transparency_data,
                getattr(picture, "n_frames", 1) > 1,
                deep,
            )
            return (digest, *facts, *((_declared(picture, content), _largest(picture)) if deep else (0, 0)))
    except UNREADABLE:
        return (digest, 0, 0, False, False, False, 0, 0, 0)


def read_image(source: str | os.PathLike | IO[bytes], name: str, bits: int = 16) -> Image.Image:
    """An image, from a path or an open file, as RGB, turned as its EXIF data say, transparency shown on black.

    Of grey values of more than eight bits the upper eight of ``bits`` are kept (`bits_of`).
    Raises `RoadmapError` with its ``name`` if it cannot be read.
    """
    try:
        with Image.open(source, formats=_formats()) as opened:
            inverted = opened.format == "TIFF" and opened.tag_v2.get(262) == 0  # type: ignore[attr-defined]
            opened.load()  # which turns a TIFF
            turn = TURNS.get(_orientation(opened))
            picture = opened if turn is None else opened.transpose(turn)
            if _deep(picture):
                return _upper_eight(picture, name, bits, inverted)
            if picture.has_transparency_data:
                shown = picture.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", shown.size, "black"), shown).convert("RGB")
            return picture.convert("RGB")
    except RoadmapError:
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise RoadmapError(f"{name} claims to have more than {most} pixels: make it smaller") from None
    except UNREADABLE:
        unreadable([name])


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none."""
    try:
        return Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    except (*UNREADABLE, KeyError):  # damaged EXIF data hinder no other program
        return 1


# --- more than eight bits a channel


def _deep(picture: Image.Image) -> int:
    """1 for grey values of more than eight bits, 2 for colours, of which Pillow reads the upper eight, else 0."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return 1
    return 2 if any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ())) else 0


def _declared(picture: Image.Image, content: bytes) -> int:
    """Bits of its values as the file declares them, 0 where it does not."""
    if picture.format in ("PPM", "JPEG2000"):  # Pillow itself scales what these declare
        return 16
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        largest = np.ravel(tags.get(341) or tags.get(281) or 0)[0]  # SMaxSampleValue, MaxSampleValue
        if largest > 0:
            return min(16, int(largest).bit_length())
        bits = tags.get(258, (16,))[0]  # BitsPerSample
        return bits if bits < 16 else 0
    place = content.find(b"sBIT", 0, 4096) if picture.format == "PNG" else -1
    return content[place + 4] if place > 0 and content[place + 4] < 16 else 0


def _largest(picture: Image.Image) -> int:
    deep, values = _deep(picture), np.asarray(picture)
    if deep == 2:
        return int(values.max()) << 8 | 255
    return int(values.max()) if picture.mode != "F" and values.min() >= 0 else -1


def bits_of(seen: np.ndarray) -> np.ndarray:
    """Bits that the values of each image of a data set are read with, uint8 (N,), from `SEEN` (N,).

    All images whose files declare the same share them: what is declared, or the fewest of `DEPTHS` that hold the
    largest value of them all, where it is more (a PNG may have its values scaled to 16) or nothing is declared.
    """
    bits = np.full(len(seen), 16, np.uint8)
    known = (seen["deep"] > 0) & (seen["largest"] >= 0) & (seen["largest"] < 2**16)
    for kind, declared in set(seen[known][["deep", "declared"]].tolist()):
        alike = known & (seen["deep"] == kind) & (seen["declared"] == declared)
        needed = max(declared, int(seen["largest"][alike].max()).bit_length())
        bits[alike] = min(depth for depth in (declared, *DEPTHS) if depth >= needed)
    return bits


def _upper_eight(picture: Image.Image, name: str, bits: int, inverted: bool) -> Image.Image:
    if picture.mode == "F":
        raise RoadmapError(f"{name} holds fractions (mode F) of unknown range: convert it to 8 or 16 bits")
    values = np.asarray(picture).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**bits:
        raise RoadmapError(
            f"{name} holds values from {low} to {high}, outside of 0 to {2**bits - 1}: convert it to 8 or 16 bits"
        )
    values = 2**bits - 1 - values if inverted else values
    values = values >> (bits - 8) if bits > 8 else values << (8 - bits)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


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
    raise RoadmapError(f"{named(names)} {what}: {REPAIR}")
