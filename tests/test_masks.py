"""Folders of images with masks: whole ones, and broken ones, which one sentence refuses."""

from __future__ import annotations

import numpy as np
import pytest
from mask_folders import make_ade20k, make_voc, save
from PIL import Image

from roadmap import RoadmapError
from roadmap.data.segmentation import open_segmentation


def test_ade20k_has_150_classes_and_nothing_where_the_label_is_zero(tmp_path):
    root = make_ade20k(tmp_path / "ADEChallengeData2016")
    data = open_segmentation("ade20k", tmp_path, image_size=32)
    assert (len(data.train), len(data.test), len(data.class_names)) == (6, 4, 150)
    written = np.asarray(Image.open(root / "annotations" / "validation" / "ADE_validation_0001.png"))
    mask = data.test.mask(1)
    assert (mask[written == 0] == 255).all() and (mask[written > 0] == written[written > 0] - 1).all()
    assert data.evaluation == "validation" and open_segmentation("ade20k", root).identity == data.identity
    lines = ["Idx\tRatio\tTrain\tVal\tName", *(f"{n}\t0.1\t1\t1\t{n % 149}thing, other" for n in range(1, 151))]
    (root / "objectInfo150.txt").write_text("\n".join(lines))
    names = open_segmentation("ade20k", root).class_names
    assert names[2] == "3thing" and len(set(names)) == 150  # and names that come twice are told apart


def test_voc_has_the_background_and_says_what_is_unknown(tmp_path):
    root = make_voc(tmp_path / "VOC2012")
    data = open_segmentation("voc", tmp_path)
    assert len(data.class_names) == 21 and data.class_names[0] == "background" and len(data.train) == 24
    mask = data.train.mask(0)
    assert (mask[:, -2:] == 255).all() and {*np.unique(mask[:, :-2])} == {0, 1}
    assert data.train.picture(0).size == (56, 40)
    (root / "classes.txt").write_text("ground\na\nb\nc\n")
    assert open_segmentation("voc", root).class_names == ("ground", "a", "b", "c")


def drop(place):
    return lambda root: (root / place).unlink()


def write(place, make):
    def do(root):
        (root / place).unlink(missing_ok=True)
        save(root / place, make)

    return do


ADE_MASK, VOC_MASK = "annotations/training/ADE_training_0002.png", "SegmentationClass/train3.png"


def rename(old, new):
    return lambda root: (root / old).rename(root / new)


def empty(folder):
    return lambda root: [path.unlink() for path in (root / folder).iterdir()]


BROKEN = [
    ("ade20k", drop(ADE_MASK), r"ADE_training_0002.jpg has no mask: .* must hold ADE_training_0002.png"),
    ("ade20k", empty("annotations/validation"), r"ADE_validation_0000.jpg has no mask, as 3 more: "),
    (
        "ade20k",
        write(ADE_MASK, np.ones((40, 55), np.uint8)),
        r"ADE_training_0002.png has 55 x 40 pixels, but its image, .*ADE_training_0002.jpg, has 56 x 40",
    ),
    ("ade20k", write(ADE_MASK, np.full((40, 56), 151, np.uint8)), r"a pixel of class 151, but classes .* 1 to 150"),
    ("ade20k", write(ADE_MASK, np.zeros((40, 56, 3), np.uint8)), r"mode RGB, but a mask has one class number"),
    ("ade20k", lambda root: (root / ADE_MASK).write_bytes(b"no"), r"ADE_training_0002.png is not a readable mask"),
    ("ade20k", empty("images/training"), r"images/training has no images .* but holds nothing"),
    ("ade20k", rename("annotations/training", "annotations/train"), r"must hold images/training, .* but holds"),
    ("voc", drop(VOC_MASK), r"train3.jpg has no mask"),
    ("voc", drop("JPEGImages/val1.jpg"), r"val.txt names 'val1', but .*JPEGImages has no such image"),
    ("voc", write(VOC_MASK, np.full((40, 56), 21, np.uint8)), r"a pixel of class 21, but classes go from 0 to 20"),
    ("voc", lambda root: (root / "classes.txt").write_text("a\nb\n"), r"class 2, but classes go from 0 to 1"),
    ("voc", lambda root: (root / "classes.txt").write_text("a\na\n"), r"names the class 'a' twice"),
    ("voc", lambda root: (root / "ImageSets/Segmentation/val.txt").write_text(" \n"), r"val.txt names no image"),
    ("voc", drop("ImageSets/Segmentation/train.txt"), r"must hold JPEGImages, SegmentationClass and ImageSets"),
]


@pytest.mark.parametrize(("name", "breaks", "message"), BROKEN, ids=range(len(BROKEN)))
def test_broken_folders_are_refused_in_one_sentence(tmp_path, name, breaks, message):
    root = {"ade20k": make_ade20k, "voc": make_voc}[name](tmp_path)
    breaks(root)
    with pytest.raises(RoadmapError, match=message) as told:
        open_segmentation(name, root)
    assert "\n" not in str(told.value) and "None" not in str(told.value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"name": "ade20k"}, "data set 'ade20k' needs --data-dir"),
        ({"name": "voc", "directory": "/nowhere"}, "there is no folder /nowhere"),
        ({"name": "voc", "directory": ".", "loading": "memory"}, "leave --loading out"),
        ({"name": "embedded", "directory": "."}, "needs no data directory"),
        ({"name": "embedded", "download": True}, "--download cannot fetch embedded"),
    ],
)
def test_settings_that_do_not_suit_the_data(how, message):
    with pytest.raises(RoadmapError, match=message):
        open_segmentation(**how)


def test_no_source_digit_is_in_both_parts():
    data = open_segmentation()
    assert (len(data.train), len(data.test), len(data.class_names)) == (800, 400, 11)
    counts = np.bincount(data.train.masks.ravel(), minlength=11)
    assert counts.min() > 0 and counts[0] > counts[1:].sum()
    assert not {image.tobytes() for image in data.train.images} & {image.tobytes() for image in data.test.images}
