"""Tars, WebDataset shards and Hugging Face data sets; what is held out, left out, and said about bad ones."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import torch
from commands import call
from folders import COLOURS, make_image_folder, make_images, make_shards, make_tars, pack
from PIL import Image

import roadmap
from roadmap import RoadmapError
from roadmap.data import sources
from roadmap.data.batches import Batcher
from roadmap.data.shared import SharedData
from roadmap.data.sources import open_data
from roadmap.planning.networks import plan_networks, title_of
from roadmap.planning.reading import load_spec
from roadmap.planning.runs import plan
from roadmap.recipes.recipe import Recipe
from roadmap.training.fit import fit_run
from roadmap.training.spec import Execution

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images"), train=12, test=4)


@pytest.fixture(scope="module")
def places(folder, tmp_path_factory):
    """The same images from every source: name -> the arguments of `open_data`."""
    root = tmp_path_factory.mktemp("sources")
    parquet = root / "parquet"
    parquet.mkdir()
    features = datasets.Features({"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=list(COLOURS)),
                                  "coarse_label": datasets.ClassLabel(names=["all"])})  # fmt: skip
    for part in ("train", "val"):
        rows = {"img": [], "fine_label": [], "coarse_label": []}
        for label, name in enumerate(COLOURS):
            for path in sorted((folder / part / name).iterdir()):
                for column, value in zip(rows, ({"bytes": path.read_bytes(), "path": None}, label, 0), strict=True):
                    rows[column].append(value)
        part = {"val": "validation"}.get(part, part)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(parquet / f"{part}-00000.parquet")
    imagenet = make_tars(root / "imagenet", folder, "nested")
    (imagenet / "ILSVRC2012_img_val.tar").unlink()
    shutil.copytree(folder / "val", imagenet / "val")
    cache = root / "cache"
    return {
        "tar": {"name": "tar", "directory": make_tars(root / "part", folder, "part")},
        "tars of classes": {"name": "tar", "directory": make_tars(root / "class", folder, "class")},
        "imagenet": {"name": "imagenet", "directory": imagenet},
        "imagenet22k": {"name": "imagenet22k", "directory": root / "class"},
        "wds": {"name": "wds", "directory": make_shards(root / "shards", folder)},
        "wds text": {"name": "wds", "directory": make_shards(root / "text", folder, "text")},
        "wds json": {"name": "wds", "directory": make_shards(root / "json", folder, "json")},
        "hfds parquet": {"name": f"hfds/{parquet}", "directory": cache},
        "hfds folder": {"name": f"hfds/{folder}", "directory": cache},
    }


SOURCES = ["tar", "tars of classes", "imagenet", "imagenet22k", "wds", "wds text", "wds json", "hfds parquet",
           "hfds folder"]  # fmt: skip
#: One of each kind of reader.
READERS = ["tar", "wds", "hfds parquet"]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_images_and_labels_of_the_folder(folder, places, source):
    name = places[source]["name"]
    known = open_data(name if name.startswith("imagenet") else "folder", folder, image_size=32)
    data = open_data(**places[source], image_size=32)
    assert data.in_memory and data.fingerprint == known.fingerprint and data.identity == known.identity
    assert data.class_names == ("blue", "green", "red")
    streamed = open_data(**places[source], image_size=32, loading="stream")
    assert not streamed.in_memory and streamed.fingerprint != known.fingerprint
    plain = open_data("folder", folder, image_size=32, loading="stream")
    for part, others in ((streamed.train, plain.train), (streamed.test, plain.test)):
        assert np.array_equal(part.labels, others.labels)
        for index in range(len(part)):
            assert np.array_equal(part.picture(index), others.picture(index))


@pytest.mark.parametrize("source", READERS)
def test_memory_or_stream_is_chosen_by_size_for_every_source(places, source, monkeypatch):
    assert open_data(**places[source]).in_memory
    assert not open_data(**places[source], image_size=160).in_memory
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 1000)
    assert not open_data(**places[source]).in_memory


@pytest.mark.parametrize("source", READERS)
def test_a_streamed_set_can_be_handed_to_new_processes(places, source):
    data = open_data(**places[source], loading="stream")
    other = pickle.loads(pickle.dumps(SharedData(data))).open()
    assert other.identity == data.identity
    assert all(np.array_equal(other.test.picture(i), data.test.picture(i)) for i in range(len(data.test)))


def weights(data, workers, tmp_path):
    spec = load_spec(only="gelu", seeds=1, epochs=2, width=4, batch_size=12, recipe="small", image_size=16)
    run = plan(spec, data)[0]
    # RandAugment and random crops in the workers, mixing in the main process
    recipe = dataclasses.replace(run.recipe, randaugment="rand-m9-mstd0.5-inc1", crop="resized", random_erasing=0.5)
    run = dataclasses.replace(run, recipe=recipe)
    folder = tmp_path / str(workers)
    folder.mkdir(parents=True)
    return fit_run(run, data, folder, Execution(device="cpu", threads=1, workers=workers)).network.state_dict()


def test_a_training_on_streamed_tars_does_not_depend_on_workers(places, tmp_path):
    data = open_data(**places["tar"], image_size=16, loading="stream")
    alone = weights(data, 0, tmp_path)
    for workers in (1, 3):
        others = weights(data, workers, tmp_path)
        assert all(torch.equal(alone[name], others[name]) for name in alone)


@pytest.mark.parametrize("source", ["wds", "hfds parquet"])
def test_batches_do_not_depend_on_workers(places, source):
    data = open_data(**places[source], image_size=16, loading="stream")
    recipe = Recipe("test", batch_size=8, crop="resized", randaugment="rand-m9-mstd0.5-inc1")
    alone, helped = (list(Batcher(data, recipe, 0, workers=workers).training(0)) for workers in (0, 3))
    for (images, labels), (others, their_labels) in zip(alone, helped, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, their_labels)


# --- held out


def without_test(root, images):
    shutil.copytree(images / "train", root / "train")
    return root


def held_out(data):
    return sorted(bytes(np.asarray(data.test.picture(index))) for index in range(len(data.test)))


def test_what_is_held_out_is_a_share_of_each_class_the_same_from_every_source(tmp_path):
    for number, (name, count) in enumerate([("blue", 40), ("green", 12), ("red", 2)]):
        make_images(tmp_path / "images" / "train" / name, COLOURS[name], count, (32, 32), seed=number)
    images = tmp_path / "images"
    (tmp_path / "root").symlink_to(images / "train")
    tars = make_tars(tmp_path / "class", images, "class")
    for arguments in (
        {"name": "folder", "directory": images},
        {"name": "folder", "directory": images, "loading": "stream"},
        {"name": "tar", "directory": make_tars(tmp_path / "part", images, "part")},
        {"name": "tar", "directory": tars, "loading": "stream"},
        {"name": "imagenet22k", "directory": tmp_path / "root", "loading": "stream"},
        {"name": "imagenet22k", "directory": tars / "train", "loading": "stream"},
    ):
        data = open_data(**arguments)
        assert data.evaluation == "held out of train" and "held out of train" in data.remarks[0]
        assert np.bincount(data.test.labels).tolist() == [4, 1, 1]
        assert np.bincount(data.train.labels).tolist() == [36, 11, 1]
        known = held_out(open_data("folder", images))
        assert held_out(data) == known
    # another file in a class moves nothing else in or out
    path = images / "train" / "green" / "more.png"
    shutil.copy(images / "train" / "green" / "000.png", path)
    assert len(set(held_out(open_data("folder", images))) - set(known)) <= 1


@pytest.mark.parametrize("source", READERS)
def test_shards_and_rows_are_held_out_too(folder, places, source, tmp_path):
    images = without_test(tmp_path / "images", folder)
    if source == "wds":
        arguments = {"name": "wds", "directory": make_shards(tmp_path / "shards", images)}
        again = {"name": "wds", "directory": make_shards(tmp_path / "others", images, size=7)}
    elif source == "tar":
        arguments = again = {"name": "tar", "directory": make_tars(tmp_path / "part", images, "part")}
    else:
        arguments = {"name": f"hfds/{images}", "directory": tmp_path / "one"}
        again = {"name": f"hfds/{images}", "directory": tmp_path / "two"}
    data, other = open_data(**arguments), open_data(**again, loading="stream", image_size=32)
    assert np.bincount(data.test.labels).tolist() == [1, 1, 1] and len(data.train) == 33
    assert {bytes(image) for image in data.test.images}.isdisjoint(bytes(image) for image in data.train.images)
    fitted = [np.asarray(sources.fit(other.test.picture(index), 32)) for index in range(3)]
    assert sorted(map(bytes, data.test.images)) == sorted(map(bytes, fitted))


def test_a_class_with_a_single_image_is_named(folder, tmp_path):
    images = without_test(tmp_path, folder)
    for path in sorted((images / "train" / "green").iterdir())[1:]:
        path.unlink()
    with pytest.raises(RoadmapError, match="class 'green' has a single image in .*train, but one to train and one to"):
        open_data("folder", images)


# --- images that cannot be read


def spoil(images):
    (images / "train" / "red" / "003.png").write_text("this is no image")
    path = images / "train" / "blue" / "001.png"
    path.write_bytes(path.read_bytes()[:300])
    (images / "val" / "green" / "002.png").write_bytes(b"")


def remade(source, root, images):
    if source == "folder":
        return {"name": "folder", "directory": images}
    if source == "tar":
        return {"name": "tar", "directory": make_tars(root / "part", images, "part")}
    if source == "wds":
        return {"name": "wds", "directory": make_shards(root / "shards", images)}
    return {"name": f"hfds/{images}", "directory": root / "cache"}


@pytest.mark.parametrize("source", ["folder", "tar", "wds", "hfds"])
def test_corrupt_images_are_named_or_left_out(tmp_path, source):
    images = make_image_folder(tmp_path / "images", train=6, test=4)
    known = open_data("folder", images)
    spoil(images)
    arguments = remade(source, tmp_path, images)
    with pytest.raises(RoadmapError, match=r"not (a )?readable images?.*--skip-corrupt") as caught:
        open_data(**arguments)
    assert "\n" not in str(caught.value)
    data = open_data(**arguments, skip_corrupt=True)
    streamed = open_data(**arguments, skip_corrupt=True, loading="stream")
    for found in (data, streamed):
        assert (len(found.train), len(found.test)) == (16, 11)
        assert len(found.skipped) == 3 and found.remarks[0].startswith("3 images that cannot be read are left out: ")
    if source == "folder":
        assert data.skipped == ("train/blue/001.png", "train/red/003.png", "val/green/002.png")
    kept = {bytes(image) for image in known.train.images}
    assert all(bytes(image) in kept for image in data.train.images)
    assert data.fingerprint != known.fingerprint
    # what remains is what counts
    for path in ("train/blue/001.png", "train/red/003.png", "val/green/002.png"):
        (images / path).unlink()
    assert data.fingerprint == open_data("folder", images).fingerprint


def test_a_class_of_corrupt_images_is_named(tmp_path):
    images = make_image_folder(tmp_path, train=3, test=1)
    for path in (images / "train" / "red").iterdir():
        path.write_text("nothing")
    with pytest.raises(RoadmapError, match="class 'red' of .*train has no image that can be read"):
        open_data("folder", images, skip_corrupt=True)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("source", ["folder", "tar", "wds", "hfds"])
def test_an_image_that_spoils_while_training_is_named(tmp_path, source, workers):
    images = make_image_folder(tmp_path / "images", train=6, test=2)
    arguments = remade(source, tmp_path, images)
    data = open_data(**arguments, loading="stream", image_size=16)
    if source == "hfds":
        (images / "train" / "red" / "003.png").write_text("this is no image any more")
    for path in [*tmp_path.rglob("train*.tar"), *(images / "train" / "blue").iterdir()]:
        path.write_bytes(bytes(path.stat().st_size))
    batches = Batcher(data, Recipe("test", batch_size=6), 0, workers=workers).training(0)
    with pytest.raises(RoadmapError, match="^[^\n]*(png|image [0-9]+ of hfds/.*, split train) is not a readable image"):
        list(batches)


# --- what is said


def test_a_study_says_and_records_what_it_left_out_and_held_out(tmp_path):
    images = make_image_folder(tmp_path / "images", train=12, test=1)
    shutil.rmtree(images / "val")
    (images / "train" / "red" / "003.png").write_text("this is no image")
    words = ["--only", "gelu", "--seeds", "1", "--epochs", "1", "--width", "4", "--threads", "1", "--image-size", "16",
             "--data", "tar", "--data-dir", make_tars(tmp_path / "part", images, "part"),
             "--out", tmp_path / "study", "--store", tmp_path / "store"]  # fmt: skip
    done = call("run", *words, "--skip-corrupt")
    assert done.code == 0, done.err
    assert "1 image that cannot be read is left out: train/train.tar/red/003.png\n" in done.err
    assert "3 images, one in 10 of each class, are held out of train\n" in done.err
    [record] = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("runs/*/run.json")]
    facts = record["data"]
    assert facts["evaluation"] == "held out of train" and facts["opened"]["skip_corrupt"] is True
    assert facts["skipped"] == {"count": 1, "names": ["train/train.tar/red/003.png"]}
    assert (facts["train"], facts["test"], facts["classes"]) == (32, 3, ["blue", "green", "red"])


def test_names_of_data_sets_are_checked():
    for name in ("hfds/", "hfds", "hub/x", 3):
        with pytest.raises(RoadmapError, match="data is .*, but must be one of .*wds, hfds/NAME"):
            load_spec(data=name)
    spec = load_spec(data="hfds/uoft-cs/cifar10")
    assert title_of(spec, plan_networks(spec)).startswith("hfds-uoft-cs-cifar10-")


def test_a_planted_pickle_is_not_read(folder, tmp_path):
    root = make_tars(tmp_path / "part", folder, "part")

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for name in ("_train_tarinfos.pickle", "_part_tarinfos.pickle"):
        (root / name).write_bytes(pickle.dumps(Evil(), protocol=2))
    before = sorted(root.iterdir())
    assert len(open_data("tar", root).train) == 36
    assert not (tmp_path / "ran").exists() and sorted(root.iterdir()) == before


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RoadmapError, match=r"needs the package datasets: pip install 'roadmap-ablation\[hf\]'"):
        open_data("hfds/uoft-cs/cifar10")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConnectionError("no route\nto host"), "hub cannot be reached for 'some/name': no route to host"),
        (datasets.exceptions.DatasetNotFoundError("x"), "'some/name' is neither a folder nor a data set of"),
        (ValueError("Config name is missing."), "hfds/some/name cannot be loaded: Config name is missing."),
    ],
)
def test_a_hub_that_has_it_not_is_told_in_one_sentence(monkeypatch, error, sentence):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(RoadmapError, match=sentence) as caught:
        open_data("hfds/some/name")
    assert "\n" not in str(caught.value)


def write_rows(root, rows, **kinds):
    root.mkdir(exist_ok=True)
    features = datasets.Features(kinds)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "train.parquet")
    return {"name": f"hfds/{root}", "directory": root.parent / "cache"}


def test_columns_that_cannot_be_told_apart_are_named(tmp_path):
    image, label = datasets.Image(), datasets.ClassLabel(names=["a", "b"])
    nothing = {"bytes": b"x", "path": None}
    one = write_rows(tmp_path / "one", {"left": [nothing], "right": [nothing], "label": [0]}, left=image, right=image,
                     label=label)  # fmt: skip
    with pytest.raises(RoadmapError, match="split train has the Image columns left, right, but must have one"):
        open_data(**one)
    two = write_rows(tmp_path / "two", {"image": [nothing], "text": ["x"]}, image=image, text=datasets.Value("string"))
    with pytest.raises(RoadmapError, match="has the columns image, text, but must have one of kind ClassLabel"):
        open_data(**two)
    three = write_rows(tmp_path / "three", {"image": [nothing] * 2, "label": [0, -1]}, image=image, label=label)
    with pytest.raises(RoadmapError, match="has images without a class, such as image 1"):
        open_data(**three)


@pytest.mark.parametrize(
    ("kind", "values", "classes"),
    [
        ("string", ["b", "a", "c"], ("a", "b", "c")),
        ("large_string", ["10", "2", "1"], ("1", "10", "2")),
        ("int64", [10, 2, 0], ("0", "2", "10")),
        ("uint8", [3, 200, 1], ("1", "3", "200")),
        ("bool", [True, False, True], ("False", "True")),
    ],
)
def test_labels_of_the_hub_may_be_text_or_numbers(folder, tmp_path, kind, values, classes):
    pictures = [path.read_bytes() for path in sorted((folder / "train" / "red").iterdir())][:9]
    rows = {"image": [{"bytes": picture, "path": None} for picture in pictures], "label": values * 3,
            "caption": ["x"] * 9}  # fmt: skip
    columns = {"image": datasets.Image(), "label": datasets.Value(kind), "caption": datasets.Value("string")}
    data = open_data(**write_rows(tmp_path / "rows", rows, **columns))
    assert data.class_names == classes
    fitted = [np.asarray(sources.fit(Image.open(io.BytesIO(picture)), 32)) for picture in pictures]
    labels = {bytes(picture): str(value) for picture, value in zip(fitted, values * 3, strict=True)}
    for split in (data.train, data.test):
        for picture, label in zip(split.images, split.labels, strict=True):
            assert labels[bytes(picture)] == classes[label]
    rows["label"][4] = None
    with pytest.raises(RoadmapError, match="has images without a class, such as image 4"):
        open_data(**write_rows(tmp_path / "lost", rows, **columns))


def test_splits_that_number_their_classes_differently_are_matched_by_name(folder, tmp_path, monkeypatch):
    splits = {}
    for split, names in (("train", ["a", "b", "c"]), ("validation", ["c", "a", "b"])):
        pictures = [(folder / "train" / colour / "000.png").read_bytes() for colour in COLOURS] * 2
        rows = {"image": [{"bytes": picture, "path": None} for picture in pictures],
                "label": [names.index(name) for name in "abcabc"]}  # fmt: skip
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split=None, **__: splits[split] if split else splits)
    data = open_data("hfds/some/name")
    assert data.class_names == ("a", "b", "c")
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1, 2, 0, 1, 2]


def assert_refused(name, directory, sentence):
    with pytest.raises(RoadmapError, match=sentence) as caught:
        open_data(name, directory)
    assert "\n" not in str(caught.value)


def add_shard(path, files):
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            (path.parent / name).write_bytes(content)
            shard.add(path.parent / name, name)
            (path.parent / name).unlink()


def bad_tar(root, images, what):
    make_tars(root, images, "part")
    tar = root / "train.tar"
    if what == "cut":
        tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2 + 100])
    elif what == "damaged":  # a header in the middle, which Python's tarfile takes for the end
        with tarfile.open(tar) as content:
            place = content.getmembers()[-3].offset
        whole = tar.read_bytes()
        tar.write_bytes(whole[:place] + b"\xff" * 512 + whole[place + 512 :])
    elif what == "two in one":
        tar.write_bytes(tar.read_bytes() * 2)
    elif what == "inner":
        make_tars(root, images, "nested")
        tar = next(root.glob("*train*.tar"))
        with tarfile.open(tar) as content:
            inner = content.getmembers()[-1]
        whole = bytearray(tar.read_bytes())
        whole[inner.offset_data + 1024 : inner.offset_data + 1536] = b"\xff" * 512
        tar.unlink()
        (root / "val.tar").unlink(missing_ok=True)
        (root / "train.tar").write_bytes(whole)
    elif what == "flat":
        pack(tar, images / "train" / "red")
    elif what == "empty":
        tarfile.open(tar, "w").close()
    elif what == "compressed":
        tar.rename(root / "train.tar.gz")
    elif what == "no train":
        tar.rename(root / "training.tar")
    elif what == "other test":
        (root / "val.tar").rename(root / "evaluation.tar")
    elif what == "one class":
        pack(tar, images / "train", list((images / "train" / "red").iterdir()))
    elif what == "other classes":
        pack(root / "val.tar", images / "val", [path for path in images.glob("val/*/*") if path.parent.name != "red"])
    return root


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("cut", r"train.tar is not a whole, uncompressed tar: it does not end as one"),
        ("damaged", r"train.tar is damaged, or several tars in one file: it continues after its end at byte"),
        ("two in one", r"train.tar is damaged, or several tars in one file"),
        ("inner", r"train.tar/.*.tar is (damaged|not a readable tar)"),
        ("flat", r"train.tar is flat, so nothing tells the classes of its images: unpack it into train/CLASS/IMAGE"),
        ("empty", r"train.tar has no images \(.jpg"),
        ("compressed", r"train.tar.gz is compressed: .* unpack it"),
        ("no train", r"must hold train.tar and val.tar .* but holds training.tar, val.tar"),
        ("other test", r"must hold train.tar and val.tar .* but holds evaluation.tar, train.tar"),
        ("one class", r"one class only \('red'\)"),
        ("other classes", r"class 'red' is in .*train.tar, but not in .*val.tar"),
    ],
)
def test_bad_tars_are_told_in_one_sentence(tmp_path, folder, what, sentence):
    assert_refused("tar", bad_tar(tmp_path, folder, what), sentence)


def test_a_flat_imagenet_archive_is_told_what_to_do(tmp_path, folder):
    make_tars(tmp_path, folder, "nested")
    flat = tmp_path / "ILSVRC2012_img_val.tar"
    pack(flat, folder / "val" / "red")
    with pytest.raises(RoadmapError, match="img_val.tar is flat.*unpack it into val/CLASS/IMAGE.*valprep.sh"):
        open_data("imagenet", tmp_path)
    pack(flat, folder / "val")
    assert len(open_data("imagenet", tmp_path, image_size=16).test) == 12


def test_class_folders_beside_tars_are_refused(tmp_path, folder):
    make_tars(tmp_path, folder, "class")
    (tmp_path / "train" / "red").mkdir()
    with pytest.raises(RoadmapError, match="train holds class folders and tars"):
        open_data("imagenet22k", tmp_path)


def bad_shards(root, images, what):
    make_shards(root, images)
    image = (images / "train" / "red" / "000.png").read_bytes()
    if what == "no label":
        add_shard(root / "train-9999.tar", {"new.png": image})
    elif what == "no number":
        add_shard(root / "train-9999.tar", {"new.png": image, "new.json": b"{}"})
    elif what == "unlabelled":
        add_shard(root / "train-9999.tar", {"new.png": image, "new.cls": b"-1"})
    elif what == "nothing":
        add_shard(root / "train-9999.tar", {"new.txt": b"no image"})
    elif what == "compressed":
        for path in root.glob("*.tar"):
            path.rename(f"{path}.gz")
    elif what == "cut":
        path = root / "train-0020.tar"
        path.write_bytes(path.read_bytes()[: 3 * 512 + 100])
    elif what == "no shards":
        for path in root.glob("*.tar"):
            path.rename(root / path.name.replace("train", "learn"))
    elif what == "other classes":
        add_shard(root / "train-9999.tar", {"new.png": image, "new.cls": b"3"})
        (root / "_info.json").unlink()
    elif what == "too few names":
        (root / "_info.json").write_text('{"class_names": ["blue", "green"]}')
    elif what == "no names":
        (root / "_info.json").write_text('{"class_names": 3}')
    elif what == "no info":
        (root / "_info.json").write_text("{")
    return root


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("no label", r"train-9999.tar/new has no label: expected a .cls file, or a .json"),
        ("no number", r"train-9999.tar/new has no label"),
        ("unlabelled", r"train-9999.tar/new has no label"),
        ("nothing", r"train-9999.tar has no samples"),
        ("compressed", r"train-0000.tar.gz is compressed|val-0000.tar.gz is compressed"),
        ("cut", r"train-0020.tar is not a whole, uncompressed tar"),
        ("no shards", r"must hold train-\*.tar and val-\*.tar .* but holds _info.json, learn-0000.tar"),
        ("other classes", r"class '3' is in train of .*, but not in val of"),
        ("too few names", r"has the label 2, but .* names 2 classes"),
        ("no names", r"class_names in .*_info.json must be a list"),
        ("no info", r"_info.json cannot be read: it is not valid JSON"),
    ],
)
def test_bad_shards_are_told_in_one_sentence(tmp_path, folder, what, sentence):
    assert_refused("wds", bad_shards(tmp_path, folder, what), sentence)


def test_the_python_front_door_trains_on_shards(folder, tmp_path, capsys):
    shards = make_shards(tmp_path / "shards", without_test(tmp_path / "images", folder))
    study = roadmap.run(
        only="gelu", seeds=1, epochs=1, width=4, image_size=16, threads=1, workers=2, loading="stream", data="wds",
        data_dir=str(shards), out=tmp_path / "study", store=tmp_path / "store",
    )  # fmt: skip
    assert list(study.runs["status"]) == ["done"] and list(study.runs["data"]) == ["wds"]
    assert "are held out of train\n" in capsys.readouterr().out
