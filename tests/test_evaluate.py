"""Trained weights tested again: `roadmap eval`, against recorded results, timm's networks and bare loops."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
import timm
import torch
from folders import COLOURS, make_image_folder, make_images
from independent import randomize
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_weights import OfficialConvNeXt, RunsCode

import roadmap
from roadmap import RoadmapError
from roadmap.network.model import RoadmapNet
from roadmap.network.weights import load_weights, save_weights

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = tuple(COLOURS)


@pytest.fixture
def call():
    """The command, in this process; never a traceback, and one sentence for a mistake."""

    def call(*words):
        shown = commands.call("eval", *words)
        if shown.code:
            assert shown.code == 2 and commands.one_sentence(shown.err), shown
            assert not shown.out
        return shown

    return call


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of three classes, 32 px, with more test images than one batch takes."""
    return commands.once(tmp_path_factory, "colours", lambda root: make_image_folder(root, 20, 100, size=(32, 32)))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The same classes, with eight test images each."""
    return commands.once(tmp_path_factory, "few", lambda root: make_image_folder(root, 2, 8, size=(32, 32)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, images):
    """The folder of a store with one run, trained on these images at 16 px."""

    def make(folder):
        small = {"epochs": 3, "width": 4, "image_size": 16, "stem_stride": 1, "threads": 1, "jobs": "1", "seeds": [0]}
        places = {"data_dir": str(images), "out": folder / "study", "store": folder / "store"}
        roadmap.run(only=["patchify_stem"], data="folder", **places, **small)

    return commands.once(tmp_path_factory, "evaluated", make)


def record_of(folder):
    """(signature, record) of the run in a store, read by nothing of the package."""
    [path] = (folder / "store").glob("runs/*/run.json")
    return path.parent.name, json.loads(path.read_text())


def small_network(classes=3, **flags):
    design = roadmap.ladder().scaled(4, 0.3333, stem_stride=2)["separate_downsample"].design
    return randomize(RoadmapNet(design.replace(num_classes=classes, **flags)), 9)


def pictures(root):
    """(pixels (N, 3, 32, 32) in 0..1, labels (N,)) of a folder of 32 px images, read image by image."""
    found = [(path, label) for label, name in enumerate(NAMES) for path in sorted((root / "val" / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in found])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, [label for _, label in found]


@torch.no_grad()
def counted(network, pixels, labels, mean, std):
    """(confusion table, mean loss, top-1, top-5) by bare loops in double precision."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    logits = network.double().eval()(((pixels - mean) / std).double()).numpy()
    confusion, loss, five = np.zeros((logits.shape[1],) * 2, int), 0.0, 0
    for row, label in zip(logits, labels, strict=True):
        order = np.argsort(-row)
        confusion[label, order[0]] += 1
        five += label in order[:5]
        loss -= row[label] - np.log(np.exp(row - row.max()).sum()) - row.max()
    count = len(labels)
    return confusion, loss / count, 100 * np.trace(confusion) / count, 100 * five / count


# --- runs of the store


def test_a_run_meets_its_recorded_result_exactly(trained, images, call):
    signature, record = record_of(trained)
    shown = json.loads(call(signature[:6], "--store", trained / "store", "--json").out)
    assert {name: shown[name] for name in ("top1", "top5", "loss")} == {
        name: record["result"][name] for name in ("top1", "top5", "loss")
    }
    assert shown["weights"] == signature and shown["images"] == record["data"]["test"]
    weights = trained / "store" / "runs" / signature / "weights.safetensors"
    other = roadmap.evaluate(weights, data="folder", data_dir=images, threads=1)  # the file alone knows as much
    assert (other.top1, other.top5, other.loss) == (shown["top1"], shown["top5"], shown["loss"])


def test_the_table_is_what_a_bare_loop_counts(trained, images, call, tmp_path):
    signature, record = record_of(trained)
    path = tmp_path / "confusion.csv"
    shown = json.loads(call(signature, "--store", trained / "store", "--image-size", 32, "--json", "--out", path).out)
    network = RoadmapNet(roadmap.Design(**record["run"]["design"]))
    network.load_state_dict(load_file(trained / "store" / "runs" / signature / "weights.safetensors"))
    constants = record["data"]["mean"], record["data"]["std"]
    confusion, loss, top1, top5 = counted(network, *pictures(images), *constants)
    assert (shown["confusion"], shown["top1"], shown["top5"]) == (confusion.tolist(), pytest.approx(top1), top5)
    assert shown["loss"] == pytest.approx(loss, rel=1e-4)
    assert shown["loss"] != record["result"]["loss"]  # another resolution
    header, *rows = csv.reader(path.open())
    assert header == ["true", *record["data"]["classes"]]
    assert [row[0] for row in rows] == record["data"]["classes"]
    assert [[int(cell) for cell in row[1:]] for row in rows] == shown["confusion"]


def test_what_is_printed_is_what_json_says(trained, call):
    signature, record = record_of(trained)
    shown = json.loads(call(signature, "--store", trained / "store", "--json").out)
    assert set(shown) == {
        "weights", "data", "image_size", "device", "precision", "top1", "top5", "loss", "images", "class_names",
        "classes", "confusion", "mistakes",
    }  # fmt: skip
    confusion = np.array(shown["confusion"])
    assert confusion.sum(1).tolist() == [100] * 3 == [facts["images"] for facts in shown["classes"]]
    assert [facts["class"] for facts in shown["classes"]] == shown["class_names"] == record["data"]["classes"]
    for facts, row, place in zip(shown["classes"], confusion, range(3), strict=True):
        assert facts["top1"] == pytest.approx(100 * row[place] / row.sum())
    assert shown["top1"] == pytest.approx(100 * np.trace(confusion) / confusion.sum())
    for pair in shown["mistakes"]:
        places = [shown["class_names"].index(pair[name]) for name in ("true", "predicted")]
        assert places[0] != places[1] and confusion[tuple(places)] == pair["images"] > 0
    assert sum(pair["images"] for pair in shown["mistakes"]) == confusion.sum() - np.trace(confusion)
    text = call(signature, "--store", trained / "store").out
    assert f"top-1 {shown['top1']:.2f} %, top-5 {shown['top5']:.2f} %, loss {shown['loss']:.4f}" in text
    lines = [line.split() for line in text.splitlines()]
    for facts, row in zip(shown["classes"], shown["confusion"], strict=True):
        assert [facts["class"], str(facts["images"]), f"{facts['top1']:.2f}"] in lines
        assert [facts["class"], *map(str, row)] in lines


def test_precision_and_batches_are_free(trained, call):
    signature, record = record_of(trained)
    words = (signature, "--store", trained / "store", "--json")
    shown = json.loads(call(*words, "--batch-size", 100, "--precision", "bf16-mixed", "--device", "cpu").out)
    assert shown["precision"] == "bf16-mixed" and shown["loss"] != record["result"]["loss"]
    assert shown["loss"] == pytest.approx(record["result"]["loss"], rel=0.05)


def changed(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("hurt", "sentence"),
    [
        (lambda run: (run / "weights.safetensors").unlink(), "is damaged: .*weights.safetensors is missing"),
        (lambda run: (run / "weights.safetensors").write_bytes(b"short"), "is damaged: .*is cut off"),
        (
            lambda run: (run / "weights.safetensors").write_bytes(
                (run / "weights.safetensors").read_bytes()[:-1] + b"?"
            ),
            "is damaged: .*is not what was written",
        ),
        (lambda run: (run / "run.json").write_text("{}"), "is unreadable: .*names no format"),
        (
            lambda run: changed(run / "run.json", lambda record: record["data"].pop("mean")),
            "is incomplete or of another version",
        ),
        (
            lambda run: changed(run / "run.json", lambda record: record["run"]["design"].update(colour=1)),
            "unknown flag of the design 'colour'",
        ),
        (
            lambda run: changed(run / "run.json", lambda record: record["run"]["design"].update(widths=[8, 8, 8, 8])),
            "does not fit this network",
        ),
        (
            lambda run: changed(run / "run.json", lambda record: record["data"]["opened"].update(colour=1)),
            "unknown setting of the data 'colour'",
        ),
        (
            lambda run: changed(run / "run.json", lambda record: record["run"].update(data_fingerprint="0" * 16)),
            "no longer those that it was trained on",
        ),
    ],
)
def test_a_run_that_is_hurt(trained, call, tmp_path, hurt, sentence):
    signature, _ = record_of(trained)
    shutil.copytree(trained / "store", tmp_path / "store")
    hurt(tmp_path / "store" / "runs" / signature)
    assert re.search(sentence, call(signature, "--store", tmp_path / "store").err)


def test_a_run_without_weights(trained, call, tmp_path):
    shutil.copytree(trained / "store", tmp_path / "store")
    signature, _ = record_of(tmp_path)
    run = tmp_path / "store" / "runs" / signature
    (run / "weights.safetensors").unlink()
    changed(run / "run.json", lambda record: record["files"].pop("weights.safetensors"))
    changed(run / "run.json", lambda record: record["result"].update(status="failed", reason="diverged: loss is nan"))
    shown = call(signature, "--store", tmp_path / "store")
    assert "is failed (diverged: loss is nan) and has no weights to test" in shown.err
    (tmp_path / "store" / "partial" / "00000000000000aa").mkdir()
    shown = call("00000000000000aa", "--store", tmp_path / "store")
    assert "is interrupted and has no weights to test" in shown.err


# --- files of weights


def test_a_file_says_what_network_it_is_for(few, call, tmp_path):
    network, facts = small_network(), {"mean": (0.4, 0.5, 0.3), "std": (0.3, 0.25, 0.2), "image_size": 32}
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in paths:
        save_weights(network, path, class_names=NAMES, **facts)
    assert len({path.read_bytes() for path in paths}) == 1
    shown = json.loads(call(paths[0], "--data", "folder", "--data-dir", few, "--json").out)
    confusion, loss, top1, _ = counted(network, *pictures(few), facts["mean"], facts["std"])
    assert (shown["confusion"], shown["top1"], shown["top5"]) == (confusion.tolist(), pytest.approx(top1), 100)
    assert shown["loss"] == pytest.approx(loss, rel=1e-4) and np.count_nonzero(confusion.sum(0)) > 1
    other = roadmap.evaluate(paths[0], data="folder", data_dir=few, image_size=48)
    assert other.image_size == 48 and other.loss != shown["loss"] and other.images == 24


def test_classes_in_another_order_and_layout(few, tmp_path):
    """The same network with its outputs in another order takes the same images for the same classes."""
    network, order = small_network(), [2, 0, 1]
    save_weights(network, tmp_path / "one.safetensors", class_names=NAMES)
    with torch.no_grad():
        for tensor in network.head.fc.parameters():
            tensor.copy_(tensor[order].clone())
    save_weights(network, tmp_path / "other.safetensors", class_names=[NAMES[place] for place in order])
    shutil.copytree(few / "val", tmp_path / "moved" / "test")
    shutil.copytree(few / "train", tmp_path / "moved" / "train")
    one = roadmap.evaluate(tmp_path / "one.safetensors", data="folder", data_dir=few)
    other = roadmap.evaluate(tmp_path / "other.safetensors", data="folder", data_dir=tmp_path / "moved")
    assert other.class_names == ("red", "blue", "green") and one.class_names == NAMES
    assert np.array_equal(other.confusion, one.confusion[order][:, order])
    assert (one.top1, one.loss) == (other.top1, pytest.approx(other.loss, rel=1e-5))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("blue", "green", "violet"), "class 'violet' that .* tells apart is not in folder"),
        (("blue", "red"), "class 'green' that folder has is unknown to"),
        (None, "folder has 3 classes, but .* tells 1000 apart"),
    ],
)
def test_classes_that_differ(few, call, tmp_path, names, sentence):
    save_weights(small_network(len(names or range(1000))), tmp_path / "w.safetensors", class_names=names)
    assert re.search(sentence, call(tmp_path / "w.safetensors", "--data", "folder", "--data-dir", few).err)


def numbered(root, names):
    """A folder of these classes, each of its own brightness."""
    for place, name in enumerate(names):
        for part in ("train", "val"):
            make_images(root / part / name, (20 * place,) * 3, 2, (32, 32), seed=place)
    return root


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([str(n) for n in range(12)], [str(n) for n in range(12)]),
        (["8", "9", "10", "11"], ["8", "9", "10", "11"]),
        (["09", "10", "11", "8"], ["8", "09", "10", "11"]),
        (["n01", "n02", "n10"], ["n01", "n02", "n10"]),
        (["Bee", "ant", "cat"], ["Bee", "ant", "cat"]),
    ],
)
def test_outputs_without_names_are_the_classes_in_the_order_of_their_numbers(call, tmp_path, names, order):
    root = numbered(tmp_path / "images", names)
    network = small_network(len(names))
    save_weights(network, tmp_path / "plain.safetensors")
    words = (tmp_path / "plain.safetensors", "--data", "folder", "--data-dir", root)
    shown = call(*words, "--json")
    result = json.loads(shown.out)
    assert result["class_names"] == order
    paths = [(path, place) for place, name in enumerate(order) for path in sorted((root / "val" / name).iterdir())]
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path, _ in paths])).permute(0, 3, 1, 2) / 255
    confusion, loss, top1, _ = counted(network, pixels, [place for _, place in paths], *IMAGENET)
    assert (result["confusion"], result["top1"]) == (confusion.tolist(), pytest.approx(top1))
    assert result["loss"] == pytest.approx(loss, rel=1e-4)
    said = "plain.safetensors have no names, and stand for the classes in the order " + ", ".join(order[:3])
    assert said in shown.err
    # with names, as every run has them, the order of the folders is all the same
    save_weights(network.float(), tmp_path / "named.safetensors", class_names=names[::-1])
    shown = call(tmp_path / "named.safetensors", *words[1:], "--json")
    assert json.loads(shown.out)["class_names"] == names[::-1] and not commands.without_phases(shown.err)


@pytest.mark.parametrize(
    ("names", "advice"),
    [(["class1", "class2", "class10"], "class01"), (["v2 a", "v10 b"], "v10 b"), (["1", "01"], "01")],
)
def test_an_order_that_cannot_be_told_is_refused(call, tmp_path, names, advice):
    save_weights(small_network(len(names)), tmp_path / "w.safetensors")
    root = numbered(tmp_path / "images", names)
    shown = call(tmp_path / "w.safetensors", "--data", "folder", "--data-dir", root)
    assert f"name the folders so that both agree, such as {advice}" in shown.err


TIMM = {"depths": (1, 1, 3, 1), "dims": (6, 12, 24, 48), "num_classes": 3}


@pytest.mark.parametrize(
    ("make", "name", "step"),
    [
        (lambda: timm.models.ConvNeXt(**TIMM), "convnext.safetensors", "separate_downsample"),
        (lambda: timm.models.ConvNeXt(ls_init_value=None, **TIMM), "convnext.bin", "separate_downsample"),
        (lambda: OfficialConvNeXt(*TIMM.values()), "official.pth", "separate_downsample"),
        (
            lambda: timm.create_model("resnet50", layers=(1, 1, 2, 1), channels=(64, 128, 256, 512), num_classes=3),
            "resnet.ckpt",
            "resnet50",
        ),
    ],
)
def test_files_of_timm_and_of_the_official_code(few, call, tmp_path, make, name, step):
    theirs = randomize(make(), 9)
    weights = {key: tensor.float() for key, tensor in theirs.state_dict().items()}
    if name.endswith(".safetensors"):
        save_file(weights, tmp_path / name)
    else:
        torch.save({"model": weights}, tmp_path / name)
    width = 64 if step == "resnet50" else 4
    words = (tmp_path / name, "--step", step, "--width", width, "--depth", 0.3333)
    shown = json.loads(call(*words, "--data", "folder", "--data-dir", few, "--json").out)
    confusion, loss, top1, _ = counted(theirs, *pictures(few), *IMAGENET)
    assert (shown["confusion"], shown["top1"]) == (confusion.tolist(), pytest.approx(top1))
    assert shown["loss"] == pytest.approx(loss, rel=1e-3) and np.count_nonzero(confusion.sum(0)) > 1


def test_many_classes_are_told_by_their_most_frequent_confusions(call, tmp_path):
    for number in range(21):
        for part in ("train", "val"):
            make_images(tmp_path / part / f"class{number:02}", (10 * number, 90, 90), 2, (32, 32), number)
    save_weights(small_network(21), tmp_path / "w.safetensors")
    words = (tmp_path / "w.safetensors", "--data", "folder", "--data-dir", tmp_path)
    shown = json.loads(call(*words, "--json").out)
    text = call(*words).out.partition("most frequent confusions\n")[2]
    table = [(names[0], names[1], int(names[2])) for names in map(str.split, text.splitlines()[1:])]
    wrong = sorted(
        (count for i, row in enumerate(shown["confusion"]) for j, count in enumerate(row) if i != j and count)
    )
    assert [count for *_, count in table] == wrong[::-1][:20]
    places = {name: place for place, name in enumerate(shown["class_names"])}
    assert all(shown["confusion"][places[true]][places[guess]] == count for true, guess, count in table)


# --- what is in a file


def metadata(path):
    with safe_open(path, "pt") as content:
        return json.loads(content.metadata()["roadmap"])


def test_metadata_hold_the_whole_design(trained):
    signature, record = record_of(trained)
    found = metadata(trained / "store" / "runs" / signature / "weights.safetensors")
    assert found == {
        "design": record["run"]["design"], "image_size": 16, "class_names": record["data"]["classes"],
        "mean": record["data"]["mean"], "std": record["data"]["std"],
        "rung": {name: record["run"][name] for name in ("regime", "step", "adopted", "width", "depth")},
    }  # fmt: skip
    page = (Path(__file__).parents[1] / "docs" / "store.md").read_text()
    section = page.partition("## weights.safetensors\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(found)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda facts: facts["design"].update(colour="red"), "unknown flag of the design 'colour'"),
        (lambda facts: facts["design"].pop("kernel_size"), "its design lacks kernel_size"),
        (lambda facts: facts["design"].update(norm="group"), "norm is 'group'"),
        (lambda facts: facts["design"].update(kernel_size=5), "does not fit this network"),
        (lambda facts: facts["design"].update(widths=[10**6] * 4), "does not fit this network"),
        (lambda facts: facts["design"].update(widths=[10**9] * 4), "too large for any memory"),
        (lambda facts: facts["design"].update(blocks=[10**6] * 4), "more blocks than the file has tensors"),
        (lambda facts: facts["rung"].pop("depth"), "rung must have"),
        (lambda facts: facts["rung"].update(step="geluu"), "unknown step 'geluu'"),
        (lambda facts: facts["design"].update(num_classes=0), "class_names must be a list of 0"),
        (lambda facts: facts.pop("design"), "there is no design"),
        (lambda facts: facts.update(class_names=["a", "b"]), "class_names must be a list of 3"),
        (lambda facts: facts.update(class_names=[1, 2, 3]), "class_names must be text"),
        (lambda facts: facts.update(std=[0, 1, 1]), "std is 0"),
        (lambda facts: facts.update(mean="123"), "mean must be a list of 3"),
        (lambda facts: facts.update(image_size="32"), "image_size is '32'"),
        (lambda facts: facts.update(colour="red"), "unknown fact 'colour'"),
    ],
)
def test_metadata_that_cannot_be(few, call, tmp_path, change, sentence):
    path, network = tmp_path / "w.safetensors", small_network()
    rung = {"regime": "resnet50", "step": "gelu", "adopted": True, "width": 4, "depth": 1.0}
    save_weights(network, path, class_names=NAMES, rung=rung)
    facts = metadata(path)
    change(facts)
    save_file(load_file(path), path, metadata={"roadmap": json.dumps(facts)})
    assert sentence in call(path, "--data", "folder", "--data-dir", few).err
    load_weights(network, path)  # who names the network needs no description


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "null", "{"])
def test_metadata_of_anything_else(few, call, tmp_path, text):
    save_file(small_network().float().state_dict(), tmp_path / "w.safetensors", metadata={"roadmap": text})
    shown = call(tmp_path / "w.safetensors", "--data", "folder", "--data-dir", few)
    assert "does not say what network it is for" in shown.err


# --- mistakes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("w.safetensors", "needs --data"),
        ("w.safetensors --data folder", "needs --data-dir"),
        ("w.safetensors --data folder --data-dir nowhere", "there is no folder nowhere"),
        ("w.safetensors --data folder --data-dir {images} --image-size 8", "reduced to nothing"),
        ("w.safetensors --data folder --data-dir {images} --image-size 0", "image size is 0"),
        ("w.safetensors --data folder --data-dir {images} --batch-size 0", "batch size is 0"),
        ("w.safetensors --data folder --data-dir {images} --threads 0", "threads is 0"),
        ("w.safetensors --data folder --data-dir {images} --device tpu", "device is 'tpu'"),
        ("w.safetensors --data folder --data-dir {images} --precision 16-mixed --device cpu", "needs a GPU"),
        ("w.safetensors --data folder --data-dir {images} --out nowhere/table.csv", "there is no folder nowhere"),
        ("w.safetensors --data folder --data-dir {images} --out .", "is a directory"),
        ("w.safetensors --data folder --data-dir {images} --step gelu", "says that its network has blocks"),
        ("w.safetensors --data folder --data-dir {images} --depth 2", "--depth is for --step"),
        ("plain.safetensors --data folder --data-dir {images}", "name it with --step"),
        ("plain.safetensors --data folder --data-dir {images} --step gelo", "did you mean 'gelu'"),
        ("plain.safetensors --data folder --data-dir {images} --step gelu --width 1", "width is 1"),
        ("plain.safetensors --data folder --data-dir {images} --step gelu", "does not fit this network"),
        (
            "plain.safetensors --data folder --data-dir {images} --step resnet50 --regime resnet200 --width 4096",
            "unknown step 'resnet50'",
        ),
        (
            "plain.safetensors --data folder --data-dir {images} --step gelu --width 4096 --depth 2",
            "does not fit this network",
        ),
        ("headless.safetensors --data folder --data-dir {images} --step gelu", "has no classifier"),
        ("grey.safetensors --data folder --data-dir {images}", "takes images of 1 channel"),
        ("nothing.safetensors --data folder --data-dir {images}", "the loss is nan"),
        ("cut.safetensors --data folder --data-dir {images}", "is damaged, cut off"),
        ("cut.pth --data folder --data-dir {images} --step gelu", "is damaged, cut off"),
        ("evil.pth --data folder --data-dir {images} --step gelu", "never run"),
        ("missing.pth", "neither a file nor a run"),
        ("abc", "there is no store in"),
    ],
)
def test_mistakes(few, call, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADMAP_STORE", raising=False)
    network = small_network()
    save_weights(network, "w.safetensors", class_names=NAMES)
    save_file(network.state_dict(), "plain.safetensors")
    save_file({k: v for k, v in network.state_dict().items() if "head.fc" not in k}, "headless.safetensors")
    save_weights(small_network(in_channels=1), "grey.safetensors")
    torch.save(network.state_dict(), "cut.pth")
    for name, source in (("cut.safetensors", "w.safetensors"), ("cut.pth", "cut.pth")):
        whole = (tmp_path / source).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    torch.save({"model": {"stem.conv.weight": RunsCode(tmp_path / "trap")}}, "evil.pth")
    network.head.fc.bias.data[0] = float("nan")
    save_weights(network, "nothing.safetensors")
    before = sorted(tmp_path.iterdir())
    assert sentence.lower() in call(*words.format(images=few).split()).err.lower()
    assert sorted(tmp_path.iterdir()) == before


def test_a_python_caller_hears_the_same(tmp_path):
    with pytest.raises(RoadmapError, match="neither a file nor a run"):
        roadmap.evaluate(tmp_path)
