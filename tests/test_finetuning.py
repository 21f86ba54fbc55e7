"""Trained weights trained further, and runs made again."""

from __future__ import annotations

import json
import math
import subprocess

import pytest
import torch
from commands import call, once
from folders import make_image_folder, make_images
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import roadmap
from roadmap import provenance
from roadmap.data.batches import Batcher, seed_everything
from roadmap.data.sources import open_data
from roadmap.network.description import RUNG
from roadmap.network.model import RoadmapNet
from roadmap.network.weights import to_timm
from roadmap.planning.reading import load_spec
from roadmap.running.finetuning import find_start, plan_finetuning
from roadmap.store.store import Store
from roadmap.training.fit import Watch, fit_run
from roadmap.training.module import StoppedError
from roadmap.training.spec import Execution

ONE_THREAD = Execution(device="cpu", threads=1)
SMALL = {"batch_size": 16, "image_size": 16, "threads": 1, "jobs": "1", "seeds": "1"}
OPTIONS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)]


def make(folder):
    make_image_folder(folder / "images")
    make_image_folder(folder / "others", train=12, test=6, size=(24, 24))
    for number, part in enumerate(("train", "val")):  # a fourth class
        make_images(folder / "others" / part / "yellow", (220, 220, 60), 12, (24, 24), 200 + number)
    settings = SMALL | {"width": 4, "epochs": 4, "lr": 0.01, "recipe": "small"}
    roadmap.run(out=folder / "study", store=folder / "store", only="separate_downsample", data="folder",
                data_dir=str(folder / "images"), **settings)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return once(tmp_path_factory, "finetuning", make)


@pytest.fixture(scope="module")
def source(root):
    return Store(root / "store").signatures()[0]


@pytest.fixture
def place(root, tmp_path):
    """A copy of the store, which may be changed."""
    subprocess.run(["cp", "-r", root / "store", tmp_path / "store"], check=True)
    return tmp_path / "store"


def finetune(source, root, place, *words, images="others"):
    return call("finetune", source, "--store", place, "--out", place.parent / "study", "--data", "folder",
                "--data-dir", root / images, *OPTIONS, *words)  # fmt: skip


def made(place, source):
    """The record of the one run that is not the source."""
    store = Store(place)
    (signature,) = set(store.signatures()) - {source}
    return store.record(signature)


def test_a_network_with_another_head_trains_as_in_a_bare_loop(root, source, tmp_path):
    spec = load_spec(start_from=source, data="folder", data_dir=str(root / "others"), optimizer="sgd", lr=0.02,
                     epochs=3, randaugment=None, crop="none", flip=False, random_erasing=0.0, layer_decay=None,
                     schedule="step", milestones=(3,), weight_decay=0.0, image_size=24, batch_size=16)  # fmt: skip
    data = open_data(**spec.opened)
    start = find_start(spec, root / "store")
    run = plan_finetuning(spec, data, start)[0]
    assert run.design.num_classes == 4 and run.recipe.head_scale == 0.001
    result = fit_run(run, data, tmp_path, ONE_THREAD, initial=start.path)

    seed_everything(0)
    network = RoadmapNet(run.design).to(memory_format=torch.channels_last)
    old = load_file(root / "store" / "runs" / source / "weights.safetensors")
    assert old["head.fc.weight"].shape[0] == 3
    network.load_state_dict({name: value for name, value in old.items() if "head.fc" not in name}, strict=False)
    with torch.no_grad():
        network.head.fc.weight.mul_(0.001), network.head.fc.bias.mul_(0.001)
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    losses = []
    for epoch in range(3):
        for images, labels in Batcher(data, run.recipe, 0).training(epoch):
            loss = cross_entropy(network(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(math.log(4), abs=0.01), "a scaled head says all classes are alike"
    for name, value in network.state_dict().items():
        assert torch.allclose(value, result.network.state_dict()[name], atol=1e-5), name


def test_a_stopped_finetuning_goes_on_without_its_source(root, source, tmp_path):
    spec = load_spec(start_from=source, data="folder", data_dir=str(root / "others"), epochs=3, batch_size=16)
    data = open_data(**spec.opened)
    start = find_start(spec, root / "store")
    run = plan_finetuning(spec, data, start)[0]
    whole = fit_run(run, data, tmp_path / "whole", ONE_THREAD, initial=start.path)

    class Stopping(Watch):
        def wants_stop(self):
            return True

    with pytest.raises(StoppedError):
        fit_run(run, data, tmp_path / "parts", ONE_THREAD, Stopping(), start.path)
    resumed = fit_run(run, data, tmp_path / "parts", ONE_THREAD, initial=tmp_path / "gone.safetensors")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    with pytest.raises(roadmap.RoadmapError, match="their file is not named"):
        fit_run(run, data, tmp_path / "new", ONE_THREAD)


def test_the_same_classes_keep_their_classifier(root, source, place):
    """Trained with a learning rate of nothing, the network is the one it was."""
    before = Store(place).record(source)["result"]
    shown = finetune(source[:6], root, place, "--lr", 1e-12, "--min-lr", 0, "--epochs", 1, images="images")
    assert shown.code == 0, shown.err
    record = made(place, source)
    assert record["result"]["top1"] == before["top1"] and record["result"]["loss"] == pytest.approx(before["loss"])
    run = record["run"]
    assert (run["step"], run["width"], run["recipe"]["name"]) == ("separate_downsample", 4, "finetune-1k")
    assert run["initial"] and source in record["origin"]["initial"]
    assert (place.parent / "study" / "trajectory.csv").is_file()


def test_a_plan_measures_a_finetuning(root, source, place):
    words = ["--data", "folder", "--data-dir", root / "others", *OPTIONS, "--batch-size", 8, "--epochs", 2]
    shown = call("plan", "--start-from", source, "--store", place, *words)
    assert shown.code == 0, shown.err
    assert "finetune-1k" in shown.out and "1 to train" in shown.out and "one run at a time" in shown.out


def test_a_file_of_weights_knows_its_rung(root, source, place, tmp_path):
    """The weights of a run, taken away from its store."""
    (tmp_path / "mine.safetensors").write_bytes((place / "runs" / source / "weights.safetensors").read_bytes())
    shown = finetune(tmp_path / "mine.safetensors", root, place, "--epochs", 1)
    assert shown.code == 0, shown.err
    run, before = made(place, source)["run"], Store(place).record(source)["run"]
    assert {name: run[name] for name in RUNG} == {name: before[name] for name in RUNG}


def test_another_resolution_and_another_head(root, source, place):
    shown = finetune(source, root, place, "--image-size", 32, "--lr", 0.005, "--epochs", 25, "--layer-decay", "none",
                     "--randaugment", "none",
                     "--crop", "none")  # fmt: skip
    assert shown.code == 0, shown.err
    record = made(place, source)
    assert record["run"]["image_size"] == 32 and record["run"]["design"]["num_classes"] == 4
    assert record["result"]["top1"] > 60, "four colours"


def test_a_checkpoint_in_timms_layout(root, source, tmp_path):
    network = roadmap.build("separate_downsample", widths=(8, 16, 32, 64), blocks=(1, 1, 2, 1),
                            num_classes=7)  # fmt: skip
    torch.save(to_timm(network), tmp_path / "theirs.pth")
    where = [tmp_path / "theirs.pth", root, tmp_path / "store", "--epochs", 1]
    assert "name it with --only" in finetune(*where).err
    assert "--width is for --only" in finetune(*where, "--width", 5).err
    spec = load_spec(start_from=str(tmp_path / "theirs.pth"), only="separate_downsample", width=5, depth=0.25,
                     data="folder", data_dir=str(root / "others"))  # fmt: skip
    start = find_start(spec, tmp_path / "store")
    assert (start.design.num_classes, start.design.widths[0], start.labels["step"]) == (7, 8, "separate_downsample")
    shown = call("finetune", tmp_path / "theirs.pth", "--only", "separate_downsample", "--width", 5, "--depth", 0.25,
                 "--image-size", 32, "--data", "folder", "--data-dir", root / "others", "--epochs", 1, "--batch-size",
                 16, "--threads", 1, "--store", tmp_path / "store", "--out", tmp_path / "out")  # fmt: skip
    assert shown.code == 0, shown.err
    (signature,) = Store(tmp_path / "store").signatures()
    assert Store(tmp_path / "store").record(signature)["run"]["design"]["num_classes"] == 4


def truncated(path):
    path.write_bytes(path.read_bytes()[:200])


def other(path):
    torch.save({"stem.conv.weight": torch.zeros(1)}, path)


def code(path):
    torch.save({"model": subprocess.run}, path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [(truncated, "cut off"), (other, "no classifier"), (code, "code in a file is never run")],
)
def test_bad_checkpoints_are_one_sentence(root, tmp_path, spoil, sentence):
    path = tmp_path / "bad.pth"
    torch.save({"stem.conv.weight": torch.zeros(300)}, path)
    spoil(path)
    shown = finetune(path, root, tmp_path / "store", "--only", "gelu")
    assert shown.code == 2 and sentence in shown.err and shown.err.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--upto", "gelu"], "trains one network"),
        (["--only", "gelu"], "says itself which network"),
        (["--recipe", "finetune"], "unknown recipe 'finetune' (did you mean 'finetune-1k'?)"),
        (["--accumulate", "3"], "cannot be split into 3 equal parts"),
        (["--ema", "2"], "ema is 2"),
        (["--mixup", "much"], "mixup is 'much', but must be a number"),
        (["--betas", "0.9"], "betas is (0.9,), but must be 2 numbers"),
        (["--image-size", "1"], "reduced to nothing"),
    ],
)
def test_what_cannot_be_is_one_sentence(root, source, place, words, sentence):
    shown = finetune(source, root, place, *words)
    assert shown.code == 2 and sentence in shown.err and shown.err.count("\n") == 1, shown.err
    assert Store(place).signatures() == [source] and not (place.parent / "study").exists()


def test_weights_that_changed_since_they_were_planned_are_not_trained(root, source, tmp_path):
    spec = load_spec(start_from=source, data="folder", data_dir=str(root / "others"), epochs=1, batch_size=16)
    data = open_data(**spec.opened)
    run = plan_finetuning(spec, data, find_start(spec, root / "store"))[0]
    weights = load_file(root / "store" / "runs" / source / "weights.safetensors")
    torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / "changed.pth")
    with pytest.raises(roadmap.RoadmapError, match="no longer holds"):
        fit_run(run, data, tmp_path, ONE_THREAD, initial=tmp_path / "changed.pth")


# --- made again


def test_a_run_made_again_matches(root, source):
    shown = call("reproduce", source[:5], "--store", root / "store")
    assert shown.code == 0, shown.err
    assert "equal bit for bit" in shown.out and f"run {source} matches" in shown.out
    assert "test images: none that only one of the two runs got right" in shown.out
    assert Store(root / "store").signatures() == [source]


def test_a_run_that_differs_says_where(source, place):
    record = json.loads((place / "runs" / source / "run.json").read_text())
    record["result"]["top1"] -= 1
    record["environment"]["torch"] = "1.0"
    (place / "runs" / source / "run.json").write_text(json.dumps(record))
    bits = bytearray((place / "runs" / source / "correct.bits").read_bytes())
    bits[0] ^= 0b101
    (place / "runs" / source / "correct.bits").write_bytes(bits)
    shown = call("reproduce", source, "--store", place, "--json")
    told = json.loads(shown.out)
    assert shown.code == 1 and not told["matches"] and told["weights"] == 0.0 and told["flipped"] == 2
    assert [name for name, (old, new) in told["metrics"].items() if old != new] == ["top1"]
    assert told["circumstances"]["torch"] == ["1.0", torch.__version__]


def test_a_finetuned_run_is_made_again(root, source, place):
    finetune(source, root, place, "--epochs", 1)
    (signature,) = set(Store(place).signatures()) - {source}
    assert call("reproduce", signature, "--store", place).code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["0" * 16], "there is no run"),
        (["nonsense"], "is not the name of a run"),
        (["SOURCE", "--data-dir", "OTHERS"], "are not those that run"),
        (["SOURCE", "--data-dir", "nowhere"], "there is no folder nowhere"),
        (["SOURCE", "--device", "cuda:77"], "is not there"),
    ],
)
def test_what_cannot_be_made_again_is_one_sentence(root, source, words, sentence):
    words = [{"SOURCE": source, "OTHERS": root / "others"}.get(word, word) for word in words]
    shown = call("reproduce", *words, "--store", root / "store")
    assert shown.code == 2 and sentence in shown.err and shown.err.count("\n") == 1, shown.err


def test_a_finetuned_run_without_its_source_is_not_made_again(root, source, place):
    finetune(source, root, place, "--epochs", 1)
    (signature,) = set(Store(place).signatures()) - {source}
    Store(place).remove(source)
    shown = call("reproduce", signature, "--store", place)
    assert shown.code == 2 and "a file that no longer exists" in shown.err


def git(folder, *words):
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_code_is_recorded(tmp_path, monkeypatch, root, source):
    package = tmp_path / "project" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    record = provenance.code_record.__wrapped__
    before = record()
    assert before["commit"] is None and before["dirty"] is None and len(before["source"]) == 16
    git(package.parent, "init", "-q")
    git(package.parent, "add", "-A")
    git(package.parent, "commit", "-qm", "one")
    assert record() == before | {"commit": git(package, "rev-parse", "HEAD"), "dirty": False}
    (package / "__init__.py").write_text("x = 2\n")
    assert record()["dirty"] is True and record()["source"] != before["source"]
    origin = Store(root / "store").record(source)["origin"]
    assert {"commit", "dirty", "source"} <= set(origin) and len(origin["source"]) == 16
