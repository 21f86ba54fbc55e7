"""Which test images every run got right: kept, read, compared between networks, and shown."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from folders import make_image_folder, make_images
from PIL import Image
from test_training import ONE_THREAD, make_run

import roadmap
from roadmap import RoadmapError
from roadmap.data.batches import Batcher
from roadmap.data.sources import open_data
from roadmap.recipes.recipe import Recipe
from roadmap.results.flips import Flips, flips, flips_html, thumbnail
from roadmap.results.schema import FLIPS, dtype_of
from roadmap.running.reproduction import Reproduction
from roadmap.store.store import Store
from roadmap.training.evaluate import evaluate_network
from roadmap.training.fit import fit_run

PROJECT = Path(__file__).parents[1]
IMAGES = 50  # a class: 150 in all, no multiple of eight
SMALL = {"epochs": 1, "width": 4, "image_size": 16, "batch_size": 16, "threads": 1, "jobs": "1", "seeds": [0, 1]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of images of noise, of a store with two networks with two seeds each, and of their study. The average
    of the weights is what is tested."""

    def make(folder):
        for number, name in enumerate("abc"):
            make_images(folder / "images" / "train" / name, (128, 128, 128), 24, (16, 16), number)
            make_images(folder / "images" / "val" / name, (128, 128, 128), IMAGES, (16, 16), 10 + number)
        places = {"data_dir": str(folder / "images"), "out": folder / "study", "store": folder / "store"}
        roadmap.run(only=["gelu", "layer_norm"], data="folder", ema=0.5, **places, **SMALL)

    return commands.once(tmp_path_factory, "flips", make)


@pytest.fixture
def place(trained, tmp_path):
    """A copy of it, to be changed at will; the images are where they were."""
    for name in ("study", "store"):
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def paths(folder):
    return sorted((folder / "store").glob("runs/*/run.json"))


def bits(path):
    """What the file beside a record holds, read by nothing of the package."""
    record = json.loads(path.read_text())
    text = "".join(f"{byte:08b}" for byte in (path.parent / "correct.bits").read_bytes())
    images = record["data"]["test"]
    assert set(text[images:]) <= {"0"} and len(text) - images < 8
    return np.array([digit == "1" for digit in text[:images]])


# --- kept


def test_the_bits_are_what_another_test_of_the_weights_finds(trained):
    store = Store(trained / "store")
    assert len(paths(trained)) == 4
    for path in paths(trained):
        record, found = json.loads(path.read_text()), bits(path)
        assert 100 * found.sum() / len(found) == record["result"]["top1"] and len(found) == 3 * IMAGES
        tested = roadmap.evaluate(path.parent.name, store=trained / "store")
        assert (found == (tested.labels == tested.guesses)).all() and (found == tested.correct).all()
        assert (store.correct(path.parent.name) == found).all()
        assert record["result"]["last_top1"] is not None  # the weights that were tested are the average


def test_a_run_that_came_from_out_of_sight_brings_its_bits(trained, tmp_path):
    path = paths(trained)[0]
    store, signature = Store(tmp_path / "store"), path.parent.name
    store.begin()
    with store.claim(signature) as mine:
        assert mine
        store.adopt(signature, {file.name: file.read_bytes() for file in path.parent.iterdir()})
    assert (store.correct(signature) == bits(path)).all() and store.verify(signature) is None
    assert store.garbage() == []
    changed = store.path(signature) / "correct.bits"
    changed.write_bytes(bytes([changed.read_bytes()[0] ^ 1]) + changed.read_bytes()[1:])
    assert store.verify(signature) == f"{changed} is not what was written"
    store.remove(signature)
    assert not store.path(signature).exists() and store.correct(signature) is None


def test_memory_and_stream_and_several_processes_share_one_order(tmp_path):
    folder = make_image_folder(tmp_path, 2, 100, size=(16, 16))
    memory, streamed = (open_data("folder", folder, loading=how) for how in ("memory", "stream"))
    assert memory.test_fingerprint == streamed.test_fingerprint != ""
    assert memory.identity != streamed.identity
    for data in (memory, streamed):
        for ranks in (1, 2, 3, 7):
            batchers = [Batcher(data, Recipe("test"), 0, rank=rank, ranks=ranks) for rank in range(ranks)]
            shares = [batcher.test_places() for batcher in batchers]
            assert sorted(np.concatenate(shares)) == list(range(300))  # 256 of them in a first batch
            for batcher, share in zip(batchers, shares, strict=True):
                labels = torch.cat([labels for _, labels in batcher.testing()])
                assert (labels.numpy() == data.test.labels[share]).all()


def test_streamed_images_are_told_as_those_in_memory(trained, tmp_path):
    """A rate that changes no weight leaves both with the same network."""
    memory, streamed = (
        open_data("folder", trained / "images", image_size=16, loading=how) for how in ("memory", "stream")
    )
    streamed = dataclasses.replace(streamed, mean=memory.mean, std=memory.std)
    execution = dataclasses.replace(ONE_THREAD, workers=0)
    run = make_run(memory, epochs=1, lr=1e-30)
    results = [fit_run(run, data, tmp_path, execution) for data in (memory, streamed)]
    one, two = (result.correct for result in results)
    assert (one == two).all() and 100 * one.mean() == pytest.approx(results[0].metrics["top1"])
    expected = evaluate_network(results[0].network, memory, "", execution=execution)
    assert (one == (expected.labels == expected.guesses)).all() and 0 < one.sum() < len(one)


@pytest.mark.parametrize("change", ["added", "order", "content"])
def test_the_fingerprint_is_of_the_images_and_their_order(tmp_path, change):
    folder = make_image_folder(tmp_path, 2, 3, size=(16, 16))
    before = open_data("folder", folder).test_fingerprint
    first = sorted((folder / "val").glob("*/*.png"))[0]
    make_images(folder / "train" / "red", (255, 0, 0), 4, (16, 16), 9)  # those to train have no say in it
    assert open_data("folder", folder, image_size=32).test_fingerprint == before
    if change == "added":
        shutil.copy(first, first.with_name("zzz.png"))
    elif change == "order":
        first.rename(first.with_name("zzz.png"))
    else:
        Image.new("RGB", (16, 16)).save(first)
    assert open_data("folder", folder).test_fingerprint != before


def test_a_run_made_again_must_get_the_same_images_right():
    same = Reproduction("0" * 16, {"top1": (50.0, 50.0)}, 0.0, 0, {})
    assert same.matches and not dataclasses.replace(same, flipped=2).matches
    assert dataclasses.replace(same, flipped=None).matches  # of an earlier version


# --- read


def test_a_study_has_the_bits_of_its_runs(trained):
    study = roadmap.load_study(trained / "study")
    kept = {(record["run"]["step"], record["run"]["seed"]): (bits(path), record["data"]["test_fingerprint"])
            for path in paths(trained) for record in [json.loads(path.read_text())]}  # fmt: skip
    found = study.correct_by_run()
    assert found.keys() == kept.keys() == {(step, seed) for step in ("gelu", "layer_norm") for seed in (0, 1)}
    for run, (correct, fingerprint) in found.items():
        assert correct.dtype == bool and (correct == kept[run][0]).all() and fingerprint == kept[run][1]
    for step in ("gelu", "layer_norm"):
        assert (study.correct(step) == [kept[step, seed][0] for seed in (0, 1)]).all()
        tops = study.runs.loc[study.runs["step"] == step, "top1"]
        assert [*(100 * study.correct(step).sum(1) / (3 * IMAGES))] == [*tops]
    with pytest.raises(RoadmapError, match="unknown network 'gellu'"):
        study.correct("gellu")


def forget(path):
    """A record as an earlier version wrote it."""
    record = json.loads(path.read_text())
    del record["correct"], record["data"]["test_fingerprint"]
    path.write_text(json.dumps(record))
    (path.parent / "correct.bits").unlink()


def test_runs_of_earlier_versions_have_none(place):
    for path in paths(place):
        if json.loads(path.read_text())["run"]["step"] == "gelu":
            forget(path)
            assert Store(place / "store").correct(path.parent.name) is None
            shown = commands.call("show", path.parent.name, "--store", place / "store")
            assert shown.code == 0 and "all files are as they were written" in shown.out
    study = roadmap.load_study(place / "study")
    assert study.correct("gelu") is None and study.correct("layer_norm") is not None
    assert {run for run, kept in study.correct_by_run().items() if kept is None} == {("gelu", 0), ("gelu", 1)}
    with pytest.raises(RoadmapError, match="'gelu' with seed 0, 1 have no record of single test images"):
        study.flips("layer_norm", against="gelu")


def test_a_folder_without_its_store_has_none(place):
    shutil.rmtree(place / "store")
    study = roadmap.load_study(place / "study")
    assert study.correct("gelu") is None and set(study.correct_by_run().values()) == {None}
    with pytest.raises(RoadmapError, match="only the store of study says"):
        study.flips("layer_norm", against="gelu")


def test_bits_of_another_number_of_images_are_damage(place):
    path = paths(place)[0]
    record = json.loads(path.read_text())
    record["data"]["test"] = 8
    path.write_text(json.dumps(record))
    with pytest.raises(RoadmapError, match="is not a bit for each of 8 test images"):
        Store(place / "store").correct(path.parent.name)


def test_other_images_are_not_compared(place):
    for path in paths(place):
        record = json.loads(path.read_text())
        if (record["run"]["step"], record["run"]["seed"]) == ("gelu", 1):
            record["data"]["test_fingerprint"] = "0" * 16
            path.write_text(json.dumps(record))
    study = roadmap.load_study(place / "study")
    assert study.correct("gelu") is None
    with pytest.raises(RoadmapError, match="tested on different images"):
        study.flips("layer_norm", against="gelu")


# --- compared


def test_flips_by_hand():
    before = np.array([[1, 0, 0, 1, 1], [1, 0, 0, 1, 0], [1, 0, 1, 1, 0]], bool)  # 3, 0, 1, 3, 1 of 3
    after = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], bool)  # 2, 2, 1, 0, 0 of 2
    table = flips(before, after, [f"{n}.png" for n in range(5)], [*"aabbb"])
    assert [*table["image"]] == [1, 2, 4, 3]
    assert [*table["name"]] == ["1.png", "2.png", "4.png", "3.png"] and [*table["label"]] == [*"abbb"]
    assert [*table["before"]] == [0, 1 / 3, 1 / 3, 1] and [*table["after"]] == [1, 1 / 2, 0, 0]
    assert [*table["change"]] == [1, 1 / 6, -2 / 6, -1]
    assert {name: table[name].dtype for name in table} == {name: dtype_of(FLIPS[name]) for name in FLIPS}
    bare = flips(before, after)
    assert bare[["name", "label"]].isna().all(axis=None) and [*bare["image"]] == [1, 2, 4, 3]
    assert len(flips(before, before)) == 0


def test_equal_changes_stand_in_the_order_of_the_images():
    before = np.array([[1, 0], [1, 0], [0, 0]], bool)  # 2/3 -> 1 and 0 -> 1/3: the same in exact arithmetic alone
    after = np.array([[1, 1], [1, 0], [1, 0]], bool)
    assert [*flips(before, after)["image"]] == [0, 1]


def test_a_step_gains_and_loses_images(trained):
    """Against the weights, tested once more, and the folder of the images."""
    study = roadmap.load_study(trained / "study")
    table = study.flips("layer_norm", against="gelu")
    right = {}
    for run in study.runs.itertuples():
        tested = roadmap.evaluate(run.signature, store=trained / "store")
        right.setdefault(run.step, []).append(tested.labels == tested.guesses)
    before, after = (np.mean(right[step], axis=0) for step in ("gelu", "layer_norm"))
    assert {*table["image"]} == {*np.flatnonzero(before != after)} and len(table) > 3
    assert table["change"].is_monotonic_decreasing
    files = sorted((trained / "images" / "val").glob("*/*.png"))
    for row in table.itertuples():
        assert (row.before, row.after) == (before[row.image], after[row.image])
        assert row.name == files[row.image].relative_to(trained / "images" / "val").as_posix()
        assert row.label == files[row.image].parent.name
    assert [*study.flips("layer_norm")["image"]] == [*table["image"]]  # the ladder's own comparison
    back = study.flips("gelu", against="layer_norm")
    assert {*zip(back["image"], -back["change"], strict=True)} == {*zip(table["image"], table["change"], strict=True)}
    assert abs(table["change"].sum() - (after - before).sum()) < 1e-9


def test_what_cannot_be_compared_is_one_sentence(trained):
    study = roadmap.load_study(trained / "study")
    for words, sentence in (
        (("nonsense",), "unknown step 'nonsense'"),
        (("gelu",), "unknown step 'gelu'"),
        (("gelu", "nonsense"), "unknown network 'nonsense'"),
    ):
        with pytest.raises(RoadmapError, match=sentence):
            study.flips(*words)


def test_a_step_left_out_is_compared_with_all(trained, monkeypatch):
    """The networks of a design, whatever they are called, by the steps that they have."""
    study = roadmap.load_study(trained / "study")
    names = {"gelu": ("all but b", "a"), "layer_norm": ("all", "a+b")}
    renamed = study.runs.assign(
        ablation="leave-one-out", steps=study.runs["step"].map(lambda step: names[step][1]),
        step=study.runs["step"].map(lambda step: names[step][0]),
    )  # fmt: skip
    described = {"design": "leave-one-out", "factors": ["a", "b"], "base": [], "steps": []}
    left_out = dataclasses.replace(study, runs=renamed, described=described)
    assert left_out.flips("b").equals(study.flips("layer_norm"))
    assert left_out.flips("b").title == "Test images: all against all but b"
    with pytest.raises(RoadmapError, match="'a' is not the difference of two networks in this leave-one-out study"):
        left_out.flips("a")


# --- shown


class Page(HTMLParser):
    """The tags and the text of a piece of HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_a_notebook_shows_the_images(trained):
    table = roadmap.load_study(trained / "study").flips("layer_norm")
    page = Page(table._repr_html_())
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    gained, lost = table[table["change"] > 0], table[table["change"] < 0][::-1]
    assert [picture["alt"] for picture in pictures] == [
        f"{row.name} (image {row.image})" for side in (gained, lost) for row in side.head(6).itertuples()
    ]
    assert f"{len(gained)} images gained" in page.text and f"{len(lost)} images lost" in page.text
    for picture in pictures:
        kind, _, content = picture["src"].partition(",")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        name = re.sub(r" \(image \d+\)$", "", picture["alt"])
        own = np.asarray(Image.open(trained / "images" / "val" / name))
        assert kind == "data:image/png;base64" and (shown[1::3, 1::3] == own).all()  # 16 px, each as 3 x 3
    assert type(table.head(2)) is pd.DataFrame


def test_streamed_images_are_shown_as_the_network_sees_them(tmp_path):
    folder = make_image_folder(tmp_path, 2, 2, size=(90, 60))
    data = open_data("folder", folder, image_size=48, loading="stream")
    _, content = thumbnail(data, 1).split(",")
    batch, _ = next(iter(Batcher(data, Recipe("test"), 0).testing()))
    seen = (batch[1].permute(1, 2, 0) * torch.tensor(data.std) + torch.tensor(data.mean)) * 255
    shown = torch.tensor(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))))
    assert (seen - shown).abs().max() < 0.01


@pytest.mark.parametrize("hurt", ["gone", "others"])
def test_without_the_images_a_remark_says_so(trained, place, hurt):
    moved = place / "images"
    if hurt == "others":
        make_image_folder(moved, 2, 2)
    for path in paths(place):
        record = json.loads(path.read_text())
        record["data"]["opened"]["directory"] = str(moved)
        path.write_text(json.dumps(record))
    table = roadmap.load_study(place / "study").flips("layer_norm")
    whole = roadmap.load_study(trained / "study").flips("layer_norm")
    assert [*table["image"]] == [*whole["image"]] and table[["name", "label"]].isna().all(axis=None)
    page = Page(table._repr_html_())
    words = {"gone": f"there is no folder {moved}", "others": "no longer holds the images"}[hurt]
    assert f"The images are not shown: {moved}" in page.text or words in page.text
    assert not any(tag == "img" for tag, _ in page.tags) and f"image {table['image'][0]}" in page.text


def test_names_are_escaped():
    nasty = "<script>alert('1')</script>\"&"
    table = flips(np.zeros((1, 1), bool), np.ones((1, 1), bool), [nasty], [nasty])
    page = Page(flips_html(Flips(table, nasty, None, nasty)))
    assert "script" not in [tag for tag, _ in page.tags] and page.text.count(nasty) == 4


def test_the_page_lists_every_column():
    page = (PROJECT / "docs" / "tables.md").read_text(encoding="utf-8")
    section = page.partition("\n## flips\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) ?\| (.*) \|$", section, re.MULTILINE)
    assert rows == [(name, each.dtype, each.unit, each.meaning) for name, each in FLIPS.items()]


def test_a_report_shows_the_images_that_a_step_gains_and_loses(trained, place, tmp_path):
    study = roadmap.load_study(trained / "study")
    shown = roadmap.report(study, tmp_path / "page.html", diagrams=False).read_text()
    table = study.flips("layer_norm")
    gained = int((table["change"] > 0).sum())
    section = shown[shown.index('id="step-layer_norm"') :]
    assert "Test images: layer_norm against gelu" in section and f"<p>{gained} image" in section
    assert section.count("<img src='data:image/png;base64,") == min(6, gained) + min(6, len(table) - gained)
    for path in paths(place):
        forget(path)
    shown = roadmap.report(place / "study", tmp_path / "page.html", diagrams=False).read_text()
    assert "have no record of single test images" in shown and "<img" not in shown
