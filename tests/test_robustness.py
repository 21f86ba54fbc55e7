"""Networks tested on corrupted images and on ImageNet's robustness sets, and what steps do to that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call, once
from folders import make_image_folder, make_images
from independent import randomize
from PIL import Image

import roadmap
from roadmap import RoadmapError
from roadmap.data.corrupted import KINDS, STRENGTHS, corrupted
from roadmap.data.sources import open_data
from roadmap.network.weights import save_weights
from roadmap.results.robustness import TABLE, with_metric
from roadmap.running.testing import imagenet_synsets

imagecorruptions = pytest.importorskip("imagecorruptions")
SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")


def train(folder: Path) -> None:
    """A study of three networks with two seeds each on images of 32 px."""
    images = make_image_folder(folder / "images", train=8, test=6, size=(32, 32))
    small = {"epochs": 1, "width": 4, "image_size": 32, "stem_stride": 2, "threads": 1, "jobs": "1", "seeds": 2}
    places = {"data_dir": str(images), "out": folder / "study", "store": folder / "store"}
    roadmap.run(only=["large_kernel", "gelu", "layer_norm"], data="folder", **places, **small)


@pytest.fixture
def study(tmp_path_factory, tmp_path):
    """A copy of the folder of `train`."""
    shutil.copytree(once(tmp_path_factory, "robustness", train), tmp_path / "copy")
    return tmp_path / "copy" / "study"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_data("folder", make_image_folder(tmp_path_factory.mktemp("images"), size=(48, 40)), image_size=32)


def test_the_kinds_are_those_of_imagenet_c():
    assert [*KINDS] == imagecorruptions.get_corruption_names()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_corrupted_as_the_package_does_it_and_the_same_every_time(kind, data):
    plain = np.asarray(data.test.picture(3))
    changes = []
    for strength in STRENGTHS:
        split = corrupted(data, kind, strength).test
        before = np.random.get_state()[1].copy()
        once, again, other = (np.asarray(split.picture(index)) for index in (3, 3, 4))
        assert (np.random.get_state()[1] == before).all(), "the generators belong to others"
        np.testing.assert_array_equal(once, again)
        assert once.shape == plain.shape and once.dtype == np.uint8 and not np.array_equal(once, other)
        changes.append(np.abs(once.astype(int) - plain).mean())
    assert changes[-1] > 0.5 and changes[-1] > changes[0]
    if kind in ("brightness", "contrast", "pixelate", "jpeg_compression", "defocus_blur", "zoom_blur"):  # not random
        np.testing.assert_array_equal(once, imagecorruptions.corrupt(plain, 5, kind))


def test_streamed_images_are_cut_as_for_the_test_before_they_are_corrupted(tmp_path):
    make_image_folder(tmp_path / "images", train=4, test=4, size=(80, 60))
    how = {"image_size": 40, "directory": tmp_path / "images"}
    streamed, held = (open_data("folder", loading=loading, **how) for loading in ("stream", "memory"))
    for index in range(4):
        one, other = (np.asarray(corrupted(each, "contrast", 2).test.picture(index)) for each in (streamed, held))
        assert one.shape == (40, 40, 3)
        np.testing.assert_array_equal(one, other)


def test_a_run_on_corrupted_images_is_a_bare_loop_over_them(study):
    loaded = roadmap.load_study(study)
    row = loaded.runs.to_dict("records")[0]
    words = (
        "--on",
        "corrupted",
        "--kinds",
        "contrast,fog",
        "--strengths",
        "1,5",
        "--workers",
        0,
        "--store",
        loaded.store.folder,
    )
    shown = call("eval", row["signature"], *words, "--json")
    assert shown.code == 0, shown.err
    found = json.loads(shown.out)
    network, record = loaded.network(row["step"], row["seed"]), loaded.store.record(row["signature"])
    images = open_data(**record["data"]["opened"])
    mean, std = (torch.tensor(record["data"][name]).view(3, 1, 1) for name in ("mean", "std"))
    for kind, told in zip(("contrast", "fog"), found["corruptions"], strict=True):
        for strength in (1, 5):
            pictures = [corrupted(images, kind, strength).test.picture(index) for index in range(len(images.test))]
            pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                guesses = network((pixels - mean) / std).argmax(1).numpy()
            assert told[f"strength {strength}"] == pytest.approx(100 * (guesses == images.test.labels).mean())
    printed = call("eval", row["signature"], *words).out
    assert f"mean {found['mean']:.2f} %" in printed and "weather" in printed


def test_what_steps_do_to_the_mean_corruption_error(study):
    loaded = roadmap.load_study(study)
    words = "--on corrupted --kinds contrast,pixelate --strengths 2,5 --images 9 --workers 0"
    shown = call("eval", study, *words.split())
    assert shown.code == 0 and f"roadmap effects {study} --metric mce" in shown.out, shown.err
    table = pd.read_csv(study / TABLE)
    assert len(table) == 6 * 2 * 2 and table["images"].eq(9).all() and table["test"].eq("corrupted").all()
    # by hand, as section 4 of the paper has it
    table["error"] = 100 - table["score"]
    first = loaded.steps["step"].iloc[0]
    expected = {}
    for (step, seed), rows in table.groupby(["step", "seed"]):
        ratios = []
        for kind in ("contrast", "pixelate"):
            of_start = table[(table["step"] == first) & (table["kind"] == kind)]
            ratios.append(rows[rows["kind"] == kind]["error"].sum() / (of_start["error"].sum() / 2))
        expected[step, seed] = 50 * sum(ratios)
    found = with_metric(loaded, "mce")
    scores = {(row["step"], row["seed"]): row["score"] for row in found.found.runs.to_dict("records")}
    assert scores == pytest.approx(expected)
    means = {step: np.mean([value for (name, _), value in expected.items() if name == step]) for step, _ in expected}
    for row in found.effects.to_dict("records"):
        assert row["estimate"] == pytest.approx(means[row["network"]] - means[row["against"]])
    assert "mean corruption error" in found.metric and found.lower_is_better
    corrupted_mean = with_metric(loaded, "corrupted").found.runs.set_index("signature")["score"]
    assert corrupted_mean.to_dict() == pytest.approx(table.groupby("signature")["score"].mean().to_dict())
    for words in (("effects", study, "--metric", "mce"), ("effects", study, "--metric", "top5")):
        assert call(*words).code == 0
    drawn = call("plot", study, "--metric", "mce", "--figure", "ablation", "--out", study / "drawn")
    assert drawn.code == 0 and (study / "drawn" / "mce-ablation.svg").is_file(), drawn.err


def test_lower_is_a_gain(study):
    loaded = roadmap.load_study(study)
    rows = []
    for run in loaded.runs.to_dict("records"):
        score = {"large_kernel": 50.0, "gelu": 60.0, "layer_norm": 40.0}[run["step"]] + run["seed"] / 10
        rows.append([run["signature"], run["step"], run["seed"], "corrupted", "fog", 1, 10, 32, score])
    columns = ["signature", "step", "seed", "test", "kind", "strength", "images", "image_size", "score"]
    pd.DataFrame(rows, columns=columns).to_csv(study / TABLE, index=False)
    effects = with_metric(loaded, "mce").effects.set_index("effect")
    assert effects.loc["gelu", "estimate"] < 0 and effects.loc["gelu", "verdict"] == "gain"
    assert effects.loc["layer_norm", "estimate"] > 0 and effects.loc["layer_norm", "verdict"] == "loss"
    pd.DataFrame(rows[:-1], columns=columns).to_csv(study / TABLE, index=False)
    with pytest.raises(RoadmapError, match="layer_norm seed . was not tested for mce"):
        with_metric(loaded, "mce")


# --- ImageNet's robustness sets


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network of four of ImageNet's classes, and its file."""
    small = {"blocks": (1, 1, 1, 1), "widths": (8, 16, 16, 16), "num_classes": 4}
    network = randomize(roadmap.build("gelu", **small)).float().eval()
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(network, path, class_names=SYNSETS, image_size=64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    return network, path


def pictures(folder: Path, names, count=5) -> Path:
    for number, name in enumerate(names):
        make_images(folder / name, (60 * number, 120, 255 - 60 * number), count, (90, 70), number)
    return folder


def by_hand(network, folder: Path, names, outputs) -> float:
    """Top-1 in per cent among some outputs, over the images of class folders, cut as ImageNet's are."""
    right = []
    for number, name in enumerate(names):
        for path in sorted((folder / name).iterdir()):
            picture = Image.open(path).convert("RGB")
            scale = 64 / 0.875 / min(picture.size)
            picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
            left, top = (picture.width - 64) // 2, (picture.height - 64) // 2
            pixels = torch.from_numpy(np.array(picture.crop((left, top, left + 64, top + 64)))).permute(2, 0, 1) / 255
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
            with torch.no_grad():
                logits = network(((pixels - mean) / std)[None])[0, outputs]
            right.append(int(logits.argmax()) == number)
    return 100 * float(np.mean(right))


@pytest.mark.parametrize(
    ("name", "within", "classes", "outputs"),
    [
        ("imagenet-a", "imagenet-a", (SYNSETS[1], SYNSETS[3]), [1, 3]),
        ("imagenet-r", "", (SYNSETS[0], SYNSETS[1], SYNSETS[2]), [0, 1, 2]),
        ("imagenet-sketch", "sketch", SYNSETS, [0, 1, 2, 3]),
        ("imagenet-v2", "imagenetv2-matched-frequency-format-val", ("0", "1", "2", "3"), [0, 1, 2, 3]),
    ],
)
def test_a_robustness_set_tests_the_classes_that_it_has(name, within, classes, outputs, weights, tmp_path):
    network, path = weights
    folder = pictures(tmp_path / "data" / within, classes)
    result = roadmap.evaluate(path, data=name, data_dir=tmp_path / "data", image_size=64)
    assert result.images == 5 * len(classes) and result.class_names == tuple(SYNSETS[place] for place in outputs)
    assert result.top1 == pytest.approx(by_hand(network, folder, classes, outputs))
    shown = call("eval", path, "--data", name, "--data-dir", tmp_path / "data", "--image-size", 64)
    assert shown.code == 0 and f"{result.images} images" in shown.out, shown.err


def test_images_of_other_classes_are_left_out_and_counted(weights, tmp_path):
    _, path = weights
    pictures(tmp_path, (SYNSETS[1], SYNSETS[2], "n09999999"))
    result = roadmap.evaluate(path, data="imagenet-r", data_dir=tmp_path, image_size=64)
    assert result.images == 10 and any("5 images of classes" in remark for remark in result.remarks)


def test_numbers_are_imagenets_classes_whatever_the_network_knows(weights, tmp_path):
    _, path = weights
    folder = pictures(tmp_path, ("1", "3", "7"))
    result = roadmap.evaluate(path, data="imagenet-v2", data_dir=folder, image_size=64)
    assert result.class_names == (SYNSETS[1], SYNSETS[3]) and result.images == 10
    assert any("5 images of classes" in remark for remark in result.remarks)
    network = randomize(roadmap.build("gelu", blocks=(1, 1, 1, 1), widths=(8, 16, 16, 16))).float()
    torch.save(network.state_dict(), tmp_path / "plain.pth")  # as a published file: a thousand outputs without names
    size = {"step": "gelu", "width": 8, "depth": 0.1}
    with pytest.raises(RoadmapError):  # of another size
        roadmap.evaluate(tmp_path / "plain.pth", data="imagenet-v2", data_dir=folder, image_size=64, **size)
    assert imagenet_synsets()[:4] == SYNSETS


def test_a_damaged_table_is_replaced_and_one_that_cannot_be_is_said_first(study):
    (study / TABLE).write_text("colour\nred\n")
    words = "--on corrupted --kinds fog --strengths 1 --images 3 --workers 0".split()
    assert call("effects", study, "--metric", "mce").code == 2
    assert call("eval", study, *words).code == 0 and len(pd.read_csv(study / TABLE)) == 6
    (study / TABLE).unlink()
    (study / TABLE).mkdir()
    shown = call("eval", study, *words)
    assert shown.code == 2 and "tests.csv cannot be written: it is a folder" in shown.err


def test_tests_of_runs_that_are_no_longer_the_studys_do_not_count(study):
    words = "--on corrupted --kinds fog --strengths 1 --workers 0".split()
    assert call("eval", study, *words).code == 0
    before = with_metric(roadmap.load_study(study), "mce").found.runs["score"].tolist()
    table = pd.read_csv(study / TABLE)
    stale = table.head(1).assign(signature="0" * 16, step="large_kernel", seed=9, score=0.0)
    pd.concat([table, stale]).to_csv(study / TABLE, index=False)
    assert with_metric(roadmap.load_study(study), "mce").found.runs["score"].tolist() == before
    first = table["step"].eq("large_kernel")
    table[~first].to_csv(study / TABLE, index=False)
    with pytest.raises(RoadmapError, match="no run of large_kernel was tested"):
        with_metric(roadmap.load_study(study), "mce")


def test_a_file_that_does_not_name_its_network_is_tested_on_corrupted_images(study, tmp_path):
    loaded = roadmap.load_study(study)
    torch.save(loaded.network("gelu").state_dict(), tmp_path / "plain.pth")
    data = ("--data", "folder", "--data-dir", study.parent / "images", "--step", "gelu", "--width", 4)
    size = ("--depth", loaded.runs["depth"].iloc[0], "--stem-stride", 2)
    words = "--on corrupted --kinds fog --strengths 1 --workers 0".split()
    shown = call("eval", tmp_path / "plain.pth", *words, *data, *size)
    assert shown.code == 0 and "mean" in shown.out, shown.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("plot {study} --metric top5 --figure pareto", "pareto is of the study's own score"),
        ("eval {study} --on corrupted --store {study}", "leave out --store"),
        ("eval {study} --on corrupted --data cifar10", "leave out --data, or --on"),
        ("eval {run} --on corrupted --kinds mist", "kind of corruption"),
        ("eval {run} --on corrupted --strengths 6", "strength"),
        ("eval {run} --on corrupted --strengths two", "--strengths is 'two'"),
        ("eval {run} --on corrupted --images 0", "images"),
        ("eval {run} --kinds fog", "--kinds is for --on corrupted"),
        ("eval {run} --on corrupted --out table.csv", "--out is for one network"),
        ("eval {study}", "say --on corrupted, or --data another set"),
        ("eval {study} --on corrupted --step gelu", "--step is for one network"),
        ("effects {study} --metric mce", "--on corrupted adds mce"),
        ("effects {study} --metric colour", "unknown metric 'colour'"),
        ("plot {study} --metric top5 --paper", "--paper is for the study's own score"),
        ("run --data imagenet-a --data-dir {study}", "data is 'imagenet-a'"),
        ("eval {run} --data imagenet-a --data-dir {images}", "tells none of the classes of imagenet-a apart"),
    ],
)
def test_what_cannot_be(words, sentence, study):
    run = roadmap.load_study(study).runs["signature"].iloc[0]
    places = {"run": run, "study": study, "images": study.parent / "images" / "val"}
    where = ["--store", study.parent / "store"] if "{run}" in words else []
    if "--data imagenet-a" in words and "eval" in words:
        for folder in places["images"].iterdir():
            folder.rename(folder.with_name(f"n{folder.name}"))
    shown = call(*(word.format(**places) for word in words.split()), *where)
    assert shown.code == 2 and sentence in shown.err and "Traceback" not in shown.err, shown


def test_a_missing_package_and_a_small_image_are_named(data, monkeypatch, tmp_path):
    small = open_data("folder", make_image_folder(tmp_path / "images", train=4, test=2), image_size=16)
    with pytest.raises(RoadmapError, match="32 px and more, not of 16 px"):
        corrupted(small, "fog", 1)
    monkeypatch.setattr("roadmap.data.corrupted.is_installed", lambda package: False)
    with pytest.raises(RoadmapError, match=r"pip install 'roadmap-ablation\[robustness\]'"):
        corrupted(data, "fog", 1)
