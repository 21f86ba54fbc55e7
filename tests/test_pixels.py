"""Pixels that are not what they seem: many bits, orientation, transparency, size; right values in every mode."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from folders import make_image_folder
from PIL import Image, TiffImagePlugin

from roadmap import RoadmapError
from roadmap.data.batches import Batcher
from roadmap.data.images import read_image
from roadmap.data.sources import open_data
from roadmap.recipes.recipe import Recipe

RAMP = np.arange(32 * 32).reshape(32, 32)  # 0..1023


def grey_folder(root, **pictures):
    """Three classes of colours, and pictures (a function of the path) among the red ones."""
    make_image_folder(root, train=2, test=2, size=(32, 32))
    for name, save in pictures.items():
        save(root / "train" / "red" / name)
    return root


def saved(values, **options):
    return lambda path: Image.fromarray(values).save(path, **options)


def tags(**values):
    """A TIFF's tags by number: t280 and t281 are the smallest and largest value."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in values.items():
        info[int(name[1:])] = value
    return info


def with_chunk(path, kind, content):
    """A PNG with one chunk more behind its header."""
    whole, chunk = path.read_bytes(), kind + content
    added = struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(whole[:33] + added + whole[33:])


def reds(root, loading="memory"):
    """First channel of the red training images that are not drawn by `make_image_folder`, and the remarks."""
    data = open_data("folder", root, loading=loading, image_size=32)
    places = np.flatnonzero(data.train.labels == 2)[2:]
    pixels = [np.asarray(data.train.picture(place)) for place in places]
    assert all((picture == picture[..., :1]).all() for picture in pixels)
    return [picture[..., 0] for picture in pixels], data.remarks


@pytest.mark.parametrize("loading", ["memory", "stream"])
@pytest.mark.parametrize(
    ("ending", "kind", "factor", "bits"),
    [
        ("png", np.uint16, 0.2, 8),
        ("tif", np.uint16, 0.2, 8),
        ("tif", np.uint16, 1, 10),
        ("png", np.uint16, 4, 12),
        ("tif", np.uint16, 16, 14),
        ("png", np.uint16, 64, 16),
        ("tif", np.int32, 0.2, 8),
        ("tif", np.int32, 4, 12),
        ("tif", np.int32, 64, 16),
    ],
)
def test_the_bits_of_a_data_set_are_those_that_it_uses(tmp_path, ending, kind, factor, bits, loading):
    bright, dark = (RAMP * factor).astype(kind), (RAMP * factor / 8).astype(kind)
    root = grey_folder(tmp_path, **{f"x.{ending}": saved(bright), f"y.{ending}": saved(dark)})
    found, remarks = reds(root, loading)
    for picture, values in zip(found, (bright, dark), strict=True):  # the dark one stays dark
        assert np.array_equal(picture, values >> (bits - 8))
    assert remarks == [
        f"images of more than 8 bits, whose values are taken for {bits} bits, of which the upper 8 are kept: 2"
    ]


def test_what_the_files_declare_counts(tmp_path):
    values = (RAMP // 4).astype(np.uint16)  # 0..255, but of 4095
    root = grey_folder(tmp_path, **{"x.tif": saved(values, tiffinfo=tags(t281=4095)), "y.png": saved(values)})
    with_chunk(root / "train" / "red" / "y.png", b"sBIT", b"\x0c")
    found, _ = reds(root)
    assert all(np.array_equal(picture, values >> 4) for picture in found)
    # a PNG's significant bits may be scaled to 16, as its standard asks for
    scaled = grey_folder(tmp_path / "scaled", **{"y.png": saved((RAMP * 64).astype(np.uint16))})
    with_chunk(scaled / "train" / "red" / "y.png", b"sBIT", b"\x0c")
    assert np.array_equal(reds(scaled)[0][0], RAMP // 4)
    # and a PGM says its largest value itself
    pgm = grey_folder(tmp_path / "pgm")
    pgm.joinpath("train", "red", "z.pgm").write_bytes(b"P5 32 32 1023\n" + RAMP.astype(">u2").tobytes())
    assert np.abs(reds(pgm)[0][0].astype(int) - RAMP / 4).max() <= 1


def test_white_that_is_zero_is_white(tmp_path):
    values = (RAMP * 64).astype(np.uint16)
    root = grey_folder(tmp_path, **{"x.tif": saved(values, tiffinfo=tags(t262=0))})
    with Image.open(root / "train" / "red" / "x.tif") as picture:
        if picture.tag_v2[262] != 0:
            pytest.skip("this Pillow writes it otherwise")
    assert np.array_equal(reds(root)[0][0], (65535 - values) >> 8)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((RAMP - 5).astype(np.int32), r"x.tif holds values from -5 to 1018, outside of 0 to 65535: convert it to 8"),
        ((RAMP * 1000).astype(np.int32), r"x.tif holds values from 0 to 1023000, outside of 0 to 65535"),
        (RAMP.astype(np.float32), r"x.tif holds fractions \(mode F\) of unknown range: convert it to 8 or 16 bits"),
    ],
)
@pytest.mark.parametrize("loading", ["memory", "stream"])
def test_values_of_no_known_range_are_refused(tmp_path, values, sentence, loading):
    root = grey_folder(tmp_path, **{"x.tif": saved(values), "y.tif": saved(values)})
    with pytest.raises(RoadmapError, match=rf"{sentence}[^\n]* \(2 such images\)$"):
        open_data("folder", root, loading=loading, image_size=32)


def png_of_16_bits(path, values):
    """A PNG with colours of 16 bits (H, W, 3), which Pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
                     + chunk(b"IEND", b""))  # fmt: skip


def test_colours_of_16_bits_keep_the_upper_eight_or_are_refused(tmp_path):
    colours = np.repeat(RAMP[..., None], 3, 2)
    root = grey_folder(tmp_path, **{"x.png": lambda path: png_of_16_bits(path, colours * 64)})
    assert np.array_equal(reds(root)[0][0], RAMP // 4)
    png_of_16_bits(root / "train" / "red" / "x.png", colours * 4)
    with pytest.raises(
        RoadmapError, match=r"x.png has colours of 16 bits, of which the data set uses 12: convert them"
    ):
        open_data("folder", root)


# --- orientation

#: What a picture with each EXIF orientation looks like, from the pixels as they are stored (the standard's table).
TURNED = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "jpg"])
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, ending):
    stored = np.zeros((32, 32, 3), np.uint8)
    stored[:16, :8] = 255
    root = grey_folder(tmp_path)
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(ending, {})
    for orientation in TURNED:
        for part in ("train", "val"):
            exif = Image.Exif()
            exif[274] = orientation
            Image.fromarray(stored).save(root / part / "red" / f"x{orientation}.{ending}", exif=exif, **options)
    for loading in ("memory", "stream"):
        data = open_data("folder", root, loading=loading, image_size=32)
        assert data.remarks == ["images turned as their EXIF orientation says: 14"]
        for split in (data.train, data.test):
            for place, turn in zip(np.flatnonzero(split.labels == 2)[2:], TURNED.values(), strict=True):
                assert np.abs(np.asarray(split.picture(place)).astype(int) - turn(stored)).max() < 10
    # so the network sees them, in testing
    images, _ = next(iter(Batcher(data, Recipe("test"), 0).testing(50)))
    seen = images[6:14].permute(0, 2, 3, 1).numpy() * np.array(data.std) + np.array(data.mean)
    for picture, turn in zip(seen, TURNED.values(), strict=True):
        assert np.abs(255 * picture - turn(stored)).max() < 10


def test_damaged_exif_data_hinder_nothing(tmp_path):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (8, 8), "white").save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.asarray(read_image(path, "x.jpg")).min() == 255


# --- the rest


def test_transparency_and_frames_are_told(tmp_path):
    clear = np.zeros((32, 32, 4), np.uint8)
    clear[:, :16] = 200
    frames = [Image.new("L", (32, 32), value) for value in (90, 10, 200)]
    root = grey_folder(
        tmp_path,
        **{"x.png": saved(clear), "y.gif": lambda path: frames[0].save(path, save_all=True, append_images=frames[1:])},
    )
    found, remarks = reds(root)
    assert (found[0][:, :16] > 150).all() and not found[0][:, 16:].any() and (found[1] == 90).all()
    assert remarks == ["images with transparency, shown on black: 1",
                       "images with several frames or layers, of which the first is taken: 1"]  # fmt: skip


def test_a_very_large_picture_is_read_and_a_bomb_is_refused(tmp_path):
    root = grey_folder(tmp_path)
    path = root / "train" / "red" / "x.png"
    Image.new("1", (90_000, 2000), 1).save(path)
    assert read_image(path, "x.png").getextrema() == ((255, 255),) * 3
    header = bytearray(path.read_bytes())
    header[16:24] = struct.pack(">II", 100_000, 100_000)
    header[29:33] = struct.pack(">I", zlib.crc32(bytes(header[12:29])))
    path.write_bytes(header)
    for loading in ("memory", "stream"):
        with pytest.raises(RoadmapError, match=r"x.png claims to have more than 1073741824 pixels: make it smaller"):
            open_data("folder", root, loading=loading, image_size=32)
    assert (
        "1 image that cannot be read is left out: train/red/x.png"
        in open_data("folder", root, skip_corrupt=True).remarks
    )
