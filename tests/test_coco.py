"""Data in COCO's layout: what is read from it, compared with pycocotools, and what is said of a broken one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from coco_folders import SIZE, annotation, make_coco, one_class, rectangle, run_lengths
from PIL import Image
from pycocotools import mask as tools
from pycocotools.coco import COCO

from roadmap import RoadmapError
from roadmap.data.detection import open_detection


def test_objects_are_those_that_pycocotools_reads(tmp_path):
    root = make_coco(tmp_path)
    split = open_detection("coco", root).train
    coco = COCO(str(root / "annotations" / "instances_train2017.json"))
    assert len(split) == 8
    for place, number in enumerate(sorted(coco.imgs)):
        theirs = [one for one in coco.loadAnns(coco.getAnnIds(imgIds=number)) if not one["iscrowd"]]
        labels, corners, masks = split.objects.learned(place)
        assert [(3, 17)[label] for label in labels] == [one["category_id"] for one in theirs]
        assert masks.shape == (len(theirs), *SIZE)
        for corner, mask, one in zip(corners, masks, theirs, strict=True):
            left, top, width, height = one["bbox"]
            assert corner.tolist() == [left, top, left + width, top + height]
            assert np.array_equal(mask, coco.annToMask(one))
        assert split.picture(place).size == (SIZE[1], SIZE[0])


def test_masks_of_every_kind_are_read(tmp_path):
    """Two polygons, run lengths, and run lengths that are compressed."""
    mask = np.zeros(SIZE, np.uint8)
    mask[3:17, 5:30] = 1
    mask[20:, 40:] = 1
    packed = tools.encode(np.asfortranarray(mask))
    shapes = [
        rectangle(5, 3, 25, 14) + rectangle(40, 20, 8, 20),
        run_lengths(mask),
        {"size": list(SIZE), "counts": packed["counts"].decode()},
    ]

    def change(part, content):
        for number, shape in enumerate(shapes):
            content["annotations"].append(annotation(50 + number, 7, 3, (5, 3, 43, 37), segmentation=shape))

    _, _, masks = open_detection("coco", make_coco(tmp_path, change=change)).train.objects.learned(0)
    assert all(np.array_equal(one, mask) for one in masks[-3:])


def test_what_is_left_out_is_counted(tmp_path):
    def change(part, content):
        content["annotations"] += [annotation(60, 7, 3, (5, 5, 0, 9)), annotation(61, 7, 3, (SIZE[1] + 1, 2, 9, 9))]
        content["annotations"][-1]["segmentation"] = rectangle(1, 1, 4, 4)

    root = make_coco(tmp_path, change=change)
    Image.new("RGB", (9, 9)).save(root / "val2017" / "other.png")
    (root / "val2017" / "notes.txt").touch()
    data = open_detection("coco", root)
    beside = (
        "1 file of another kind was left out: 1 .txt",
        f"images in {root / 'val2017'} that instances_val2017.json does not list left out: 1",
    )
    assert [note for note in data.notes if note not in beside] == [
        f"{what}: {count}"
        for part in ("train2017", "val2017")
        for what, count in (
            (f"boxes of {part} that cover nothing of their image, not learned", 2),
            (f"crowds of {part}, not learned, and neither right nor wrong in a test", 1),
            (f"images of {part} without objects", 1),
        )
    ]
    assert set(beside) <= set(data.notes)
    assert len(data.train.objects.learned(0)[0]) == 1


def test_one_class_is_enough(tmp_path):
    assert open_detection("coco", make_coco(tmp_path, change=one_class)).class_names == ("disc",)


def first(**changes):
    """A change of the first annotation to train on."""

    def change(part, content):
        if part == "train2017":
            content["annotations"][0].update(changes)

    return change


def without(*path):
    def change(part, content):
        if part == "val2017":
            for key in path[:-1]:
                content = content[key]
            del content[path[-1]]

    return change


def with_content(**changes):
    def change(part, content):
        if part == "val2017":
            content.update(changes)

    return change


BROKEN = {
    "unknown image": (first(image_id=8), "annotation 1 names image_id 8, which is not listed"),
    "unknown category": (first(category_id=4), "annotation 1 names category_id 4, which is not listed"),
    "outside": (first(segmentation=rectangle(40, 3, 90, 5)), "polygon outside its image of 48 x 40 pixels, at x = 130"),
    "above": (first(segmentation=rectangle(4, -9, 9, 5)), "polygon outside its image of 48 x 40 pixels, at y = -9"),
    "two points": (first(segmentation=[[1, 2, 3, 4]]), "a polygon that is not three points or more"),
    "no polygon": (first(segmentation=[]), "a polygon that is not three points or more"),
    "not a number": (first(segmentation=[[1, 2, "x", 4, 5, 6]]), "a coordinate that is no number"),
    "runs of another size": (
        first(segmentation={"size": [9, 9], "counts": [81]}),
        "the run lengths of annotation 1 are not a mask of its image, 48 x 40 pixels",
    ),
    "runs that end early": (
        first(segmentation={"size": list(SIZE), "counts": [5, 9]}),
        "the run lengths of annotation 1 are not a mask of its image",
    ),
    "runs that are cut off": (
        first(segmentation={"size": list(SIZE), "counts": "abc"}),
        "the run lengths of annotation 1 are not a mask of its image",
    ),
    "crowd in words": (first(iscrowd="0"), "annotation 1 has iscrowd '0', not 0 or 1"),
    "short box": (first(bbox=[1, 2, 3]), "the bbox of annotation 1 is not x, y, width and height"),
    "box of words": (first(bbox=[1, 2, 3, "4"]), "the bbox of annotation 1 is not x, y, width and height"),
    "no list": (without("annotations"), "has no list of annotations: expected images, annotations and categories"),
    "no annotations": (with_content(annotations=[]), "has no annotations: need at least one"),
    "no images": (with_content(images=[]), "has no images: need at least one"),
    "no name": (without("images", 1, "file_name"), "of images, 107 has no file_name"),
    "no box": (without("annotations", 0, "bbox"), "of annotations, 1 has no bbox"),
    "height of words": (
        with_content(images=[{"id": 7, "file_name": "a", "height": "40", "width": 48}]),
        "of images, 7 has '40' as height",
    ),
    "twice": (
        lambda part, content: content["images"].append(content["images"][0]),
        "instances_train2017.json has image 7 twice",
    ),
    "other categories": (
        with_content(categories=[{"id": 3, "name": "disc"}, {"id": 17, "name": "ring"}]),
        "instances_val2017.json differ: they must be the same in both",
    ),
    "only crowds": (
        lambda part, content: [one.update(iscrowd=1) for one in content["annotations"]],
        "has no object that is neither a crowd nor without extent",
    ),
    "another size": (
        lambda part, content: content["images"][0].update(height=41),
        "000000000007.png has 48 x 40 pixels, but",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, name):
    change, words = BROKEN[name]
    with pytest.raises(RoadmapError) as caught:
        open_detection("coco", make_coco(tmp_path, 3, 3, change))
    text = str(caught.value)
    assert words in text
    assert "\n" not in text and "None" not in text and str(tmp_path) in text


def test_a_broken_folder_is_refused_in_one_sentence(tmp_path):
    def refused(root):
        with pytest.raises(RoadmapError) as caught:
            open_detection("coco", root)
        return str(caught.value)

    annotations = tmp_path / "annotations"
    assert "there is no folder" in refused(tmp_path / "nowhere")
    assert "has no instances_train*.json: it holds nothing" in refused(tmp_path)
    make_coco(tmp_path, 3, 3)
    (tmp_path / "train2017" / "000000000107.png").rename(tmp_path / "gone.png")
    assert f"lists images that {tmp_path / 'train2017'} lacks: 000000000107.png" in refused(tmp_path)
    (tmp_path / "gone.png").rename(tmp_path / "train2017" / "000000000107.png")
    (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    assert f"has no folder of images: expected {tmp_path / 'train2017'}" in refused(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "train2017")
    whole = (annotations / "instances_val2017.json").read_text()
    for content, words in (
        ("", "cannot be read: it is not valid JSON (line 1)"),
        (whole[:90], "cannot be read: it is not valid JSON (line 1)"),
        ("[" * 100_000, "cannot be read: it is nested too deeply"),
        ("[]", "must be an object with the lists images, annotations and categories"),
        ("{}", "has no list of images"),
    ):
        (annotations / "instances_val2017.json").write_text(content)
        assert words in refused(tmp_path)
    (annotations / "instances_val2014.json").write_text(whole)
    assert "has val2014 and val2017, of which only one can be meant" in refused(tmp_path)
    (annotations / "instances_val2014.json").unlink()
    (annotations / "instances_val2017.json").unlink()
    assert "has no instances_val*.json: it holds instances_train2017.json" in refused(tmp_path)


def test_corrupt_images_are_named_or_left_out(tmp_path):
    root = make_coco(tmp_path)
    (root / "train2017" / "000000000107.png").write_bytes(b"no image")
    data = open_detection("coco", root, skip_corrupt=True)
    assert data.skipped == ("train2017/000000000107.png",)
    assert len(data.train) == len(data.train.objects) == 7
    boxes = json.loads((root / "annotations" / "instances_train2017.json").read_text())["annotations"]
    kept = [one["bbox"] for one in boxes if one["image_id"] != 107]
    assert data.train.objects.boxes.tolist() == kept
    Image.new("RGB", (9, 9)).save(root / "train2017" / "000000000107.png")
    with pytest.raises(RoadmapError, match="has 9 x 9 pixels"):
        open_detection("coco", root)


def test_the_fingerprint_follows_annotations(tmp_path):
    prints = {
        open_detection("coco", make_coco(tmp_path / str(number), change=change)).fingerprint
        for number, change in enumerate((None, None, first(bbox=[1, 1, 5, 5]), first(category_id=17)))
    }
    assert len(prints) == 3
