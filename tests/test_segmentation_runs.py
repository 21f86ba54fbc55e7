"""Studies of semantic segmentation: planned, trained, tested again and told of."""

from __future__ import annotations

import csv
import json
import re

import pytest
from commands import call
from mask_folders import make_voc

import roadmap
from roadmap import RoadmapError
from roadmap.data.segmentation import open_segmentation
from roadmap.planning.reading import load_spec
from roadmap.planning.runs import plan
from roadmap.recipes.recipe import load_recipe
from roadmap.tasks import task_named

TASK = task_named("segment")


def test_a_study_from_the_command_line(tmp_path):
    """Trained, tested again, and told of in the words of its own score."""
    root, store, out = make_voc(tmp_path / "voc", 24, 6, (32, 32)), tmp_path / "store", tmp_path / "study"
    (root / "classes.txt").write_text("ground\na\nb\nc\n")
    how = [
        "--task",
        "segment",
        "--data",
        "voc",
        "--data-dir",
        root,
        "--image-size",
        32,
        "--width",
        4,
        "--depth",
        0.1,
        "--head-settings",
        "channels=8,window=32",
        "--device",
        "cpu",
        "--jobs",
        1,
        "--threads",
        1,
        "--workers",
        0,
    ]
    ended = call("run", *how, "--only", "gelu,layer_norm", "--seeds", 2, "--epochs", 1, "--store", store, "--out", out)
    assert ended.code == 0, ended.err
    study = roadmap.load_study(out)
    assert {*study.runs["task"]} == {"segment"} and {*study.runs["metric"]} == {"miou"}
    assert study.runs["score"].tolist() == study.runs["miou"].tolist() and study.runs["top1"].isna().all()
    assert study.steps["miou_mean"].tolist() == study.steps["score_mean"].tolist()
    assert (study.costs["backbone_gmacs"] < study.costs["gmacs"]).all() and study.printed == {}
    assert study.trajectory().figure and study.curves().figure
    text = repr(study)
    assert "mIoU ± std, %" in text and "its mIoU minus that of" in text and "top-1" not in text
    run = study.runs.iloc[0]
    again = call("eval", run["signature"], "--store", store, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["miou"] == run["score"]
    shown = call("eval", run["signature"], "--store", store, "--out", tmp_path / "table.csv").out
    assert f"mIoU {run['score']:.2f} %, pixel acc. " in shown
    rows = [*csv.reader((tmp_path / "table.csv").open())]
    assert rows[0] == ["true", "ground", "a", "b", "c"] and len(rows) == 5
    file = store / "runs" / run["signature"] / "weights.safetensors"
    one = roadmap.evaluate(file, data="voc", data_dir=root, threads=1, device="cpu")
    assert one.metrics["miou"] == run["score"]
    page = tmp_path / "page.html"
    assert call("report", out, "--out", page).code == 0
    html = page.read_text()
    assert "mIoU" in html and "top-1" not in html.replace("ImageNet", "")
    status = call("list", "--store", store).out
    assert "mIoU %" in status


def test_settings_of_a_study():
    spec = load_spec(task="segment", head_settings="channels=24,norm=none,window=none")
    data = open_segmentation()
    runs = plan(spec, data)
    assert {run.head for run in runs} == {TASK.head("upernet", {"channels": 24, "norm": "none"})}
    assert {run.recipe.name for run in runs} == {"quick-segment", "quick-segment-classic"}
    plain = plan(load_spec(task="segment"), data)
    assert plain[0].head.channels == 24 and plain[0].width == 8 and plain[0].design.stem_stride == 2
    for settings, message in (
        ({"head": "unet"}, "head is 'unet', but must be one of upernet"),
        ({"head_settings": "channel=3"}, "unknown setting of head upernet 'channel'"),
        ({"head_settings": "channels=many"}, "channels is 'many', but must be a whole number"),
        ({"head_settings": "channels"}, "must be like channels=24,norm=none"),
        ({"data": "cifar10"}, "data is 'cifar10', but must be one of embedded, ade20k, voc"),
    ):
        with pytest.raises(RoadmapError, match=re.escape(message)):
            load_spec(**({"task": "segment"} | settings))
    with pytest.raises(RoadmapError, match="--head is for tasks with heads of their own"):
        load_spec(head="upernet")
    with pytest.raises(RoadmapError, match="task is 'segmant', but must be one of .*did you mean 'segment'"):
        load_spec(task="segmant")


def test_the_papers_recipe_has_160_thousand_steps():
    recipe = load_recipe("ade20k-160k")
    steps = 20_210 // recipe.batch_size
    assert abs(recipe.epochs * steps - 160_000) < steps
    assert recipe.warmup_epochs * steps == pytest.approx(1500, abs=1)
