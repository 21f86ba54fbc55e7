"""Studies of detectors from the command line, on a folder in COCO's layout and on the embedded scenes."""

from __future__ import annotations

import csv
import json
import re

import pytest
from coco_folders import make_coco
from commands import call

from roadmap.data.detection import open_detection

SMALL = ("--task", "detect", "--width", 8, "--depth", 0.33, "--head-settings", "channels=8,proposals=40,samples=16")


@pytest.mark.slow
def test_a_study_of_detectors_runs_and_its_weights_meet_its_figures(tmp_path):
    data = make_coco(tmp_path / "data", 16, 6)
    words = (
        "run", *SMALL, "--head", "cascade_mask_rcnn", "--data", "coco", "--data-dir", data, "--image-size", 40,
        "--only", "layer_norm", "--epochs", 1, "--batch-size", 4, "--seeds", 1, "--device", "cpu",
        "--store", tmp_path / "store", "--out", tmp_path / "study",
    )  # fmt: skip
    shown = call(*words)
    assert shown.code == 0, shown.err
    assert "crowds of train2017, not learned" in shown.out + shown.err
    rows = list(csv.DictReader((tmp_path / "study" / "trajectory.csv").open()))
    assert [row["metric"] for row in rows] == ["mask_ap"]
    assert rows[0]["score"] == rows[0]["mask_ap"] and float(rows[0]["box_ap"]) >= 0
    assert float(rows[0]["backbone_gmacs"]) < float(rows[0]["gmacs"])
    assert "mask AP" in call("report", tmp_path / "study").out + (tmp_path / "study" / "report.html").read_text()

    tested = call("eval", rows[0]["signature"], "--store", tmp_path / "store", "--data-dir", data, "--json")
    assert tested.code == 0, tested.err
    found = json.loads(tested.out)
    assert [found[key] for key in ("mask_ap", "box_ap")] == [float(rows[0][key]) for key in ("mask_ap", "box_ap")]
    assert [one["class"] for one in found["classes"]] == ["disc", "box"]


def refused(*words):
    shown = call("run", *SMALL, "--dry-run", *words)
    assert shown.code == 2 and len(shown.err.strip().splitlines()[-1]) > 20
    return re.sub(r"\s+", " ", shown.err)


def test_what_cannot_be_is_refused_in_one_sentence(tmp_path):
    assert "--head is for tasks" not in refused("--head", "yolo")
    assert "head is 'yolo', but must be one of mask_rcnn, cascade_mask_rcnn" in refused("--head", "yolo")
    assert "unknown setting of head mask_rcnn 'window'" in refused("--head-settings", "window=3")
    assert "channels is 2, but must be at least 4" in refused("--head-settings", "channels=2")
    assert "data is 'cifar10', but must be one of embedded, coco" in refused("--data", "cifar10")
    assert "data set 'coco' needs --data-dir" in refused("--data", "coco")
    assert f"there is no folder {tmp_path / 'no'}" in refused("--data", "coco", "--data-dir", tmp_path / "no")
    assert "mixup 0.8, which means nothing to --task detect" in refused("--mixup", "0.8")
    assert "has BatchNorm" in refused("--only", "resnet50", "--batch-size", 2)


def test_embedded_scenes_share_no_digit_and_have_boxes_around_masks():
    data = open_detection()
    assert (len(data.train), len(data.test), data.image_size, len(data.class_names)) == (800, 400, 64, 10)
    for split in (data.train, data.test):
        assert set(split.objects.labels.tolist()) == set(range(10))
        for image in range(0, len(split), 100):
            _, corners, masks = split.objects.learned(image)
            for corner, mask in zip(corners, masks, strict=True):
                rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
                assert corner.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert masks.sum(0).max(initial=0) <= 1  # a pixel is part of one digit
