"""Trained networks opened elsewhere: by timm alone, by ONNX Runtime, by torch.export, and from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import commands
import pytest
import timm
import torch
from commands import call
from folders import make_image_folder
from independent import randomize
from safetensors.torch import load_file

import roadmap
from roadmap import RoadmapError
from roadmap.exporting.graph import save_graph
from roadmap.network.description import Description, read_description
from roadmap.network.weights import save_weights

CLASSES = ("cat", "dog", "eel")
FACTS = {"class_names": CLASSES, "image_size": 32, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
SMALL = {"blocks": (1, 2, 1, 1), "widths": (8, 16, 24, 32), "num_classes": 3}
TIMMS_STEM = {"widths": (64, 16, 24, 32)}
#: What is exported: step, flags, and as which of timm's models.
NETWORKS = {
    "the end": ("separate_downsample", {"stochastic_depth": 0.1}, "convnext_tiny"),
    "the end with layer scale": ("separate_downsample", {"layer_scale": 1e-6, "kernel_size": 5}, "convnext_tiny"),
    "the end with grn": ("separate_downsample", {"layers": ["grn"]}, "convnextv2_tiny"),
    "the start": ("resnet50", {**TIMMS_STEM, "activation": "silu"}, "resnet50"),
    "se and a deep stem": ("resnet50", {**TIMMS_STEM, "layers": ["se", "resnet_d_stem"]}, "seresnet50"),
    "resnext": ("resnet50", {"groups": 4, "expansion": 2, "widths": (16, 32, 48, 64), "stem_width": 64}, "resnet50"),
    "between": ("large_kernel", {"layers": {"se": {"ratio": 0.5}}}, "roadmap_large_kernel"),
    "another stem": ("separate_downsample", {"stem_stride": 2}, "roadmap_separate_downsample"),
}


def train(folder: Path) -> None:
    """A study of three networks with two seeds each, and its store."""
    images = make_image_folder(folder / "images", train=8, test=4, size=(16, 16))
    small = {"epochs": 1, "width": 4, "image_size": 16, "stem_stride": 1, "threads": 1, "jobs": "1", "seeds": 2}
    places = {"data_dir": str(images), "out": folder / "study", "store": folder / "store"}
    roadmap.run(only=["large_kernel", "gelu", "layer_norm"], data="folder", **places, **small)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The folder of `train`."""
    return commands.once(tmp_path_factory, "exporting", train)


def weights(folder: Path, step: str, flags: dict) -> tuple[torch.nn.Module, Path]:
    """A network with weights that matter, and its file."""
    network = randomize(roadmap.build(step, **{**SMALL, **flags})).float().eval()
    rung = {"regime": "resnet50", "step": step, "adopted": True, "width": 64, "depth": 1.0}
    save_weights(network, folder / "weights.safetensors", **FACTS, rung=rung)
    return network, folder / "weights.safetensors"


def images(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def assert_same(one, other) -> None:
    expected = one(images())
    assert (expected[0] - expected[1]).abs().max() > 1e-2 * expected.abs().max()  # the images do matter
    torch.testing.assert_close(other(images()), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_run_is_loaded(study):
    loaded = roadmap.load_study(study / "study")
    for row in loaded.runs.to_dict("records"):
        network = roadmap.load(row["signature"], study / "store")
        kept = load_file(study / "store" / "runs" / row["signature"] / "weights.safetensors")
        assert not network.training and network.state_dict().keys() == kept.keys()
        assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())
        again = loaded.network(row["step"], row["seed"])
        assert torch.equal(again(images(size=16)), network(images(size=16)))
    known = loaded.network("gelu").description
    record = json.loads((study / "store" / "runs" / row["signature"] / "run.json").read_text())
    assert [*known.class_names] == record["data"]["classes"] and known.image_size == 16
    assert [*known.mean] == record["data"]["mean"]


def test_what_cannot_be_loaded(study, tmp_path):
    _, path = weights(tmp_path, "gelu", {})
    loaded = roadmap.load_study(study / "study")
    for asked, words in (
        (lambda: loaded.network("gel"), "unknown network 'gel'"),
        (lambda: loaded.network("gelu", 7), "gelu has no finished run of seed 7; known seeds: 0 and 1"),
        (lambda: roadmap.load("nothing.safetensors"), "neither a file nor a run"),
        (lambda: roadmap.load_weights(path), "roadmap.load takes a file and builds its network"),
        (lambda: roadmap.load_weights(roadmap.build("resnet50", **SMALL), path), f"roadmap.load('{path}') builds"),
    ):
        with pytest.raises(RoadmapError) as caught:
            asked()
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_timm_opens_what_is_exported(name, tmp_path):
    step, flags, architecture = NETWORKS[name]
    network, path = weights(tmp_path, step, flags)
    shown = call("export-weights", path, tmp_path / "out")
    assert shown.code == 0 and f"timm's model {architecture};" in shown.out, shown.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert_same(network, theirs)
    prepared = timm.data.resolve_model_data_config(theirs)
    assert [*prepared["mean"]] == [*FACTS["mean"]] and [*prepared["std"]] == [*FACTS["std"]]
    assert [*prepared["input_size"]] == [3, 32, 32] and prepared["crop_pct"] == 1.0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["label_names"] == [*CLASSES]
    backbone = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, features_only=True)
    assert len(backbone(images())) >= 4
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("import roadmap.timm" in card) is architecture.startswith("roadmap_")


def test_timm_needs_no_roadmap_for_its_own_networks(tmp_path):
    network, path = weights(tmp_path, "separate_downsample", {})
    assert call("export-weights", path, tmp_path / "out").code == 0
    code = (
        "import sys, timm, torch\n"
        f"network = timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True).eval()\n"
        f"images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))\n"
        f"torch.save(network(images).detach(), {str(tmp_path / 'logits.pt')!r})\n"
        "assert not any(name.startswith('roadmap') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(logits, network(images()).detach(), rtol=1e-4, atol=1e-3)


def test_the_card_of_a_run_says_what_is_known_of_it(study, tmp_path):
    row = roadmap.load_study(study / "study").runs.to_dict("records")[0]
    words = ("--store", study / "store", "--study", study / "study")
    assert call("export-weights", row["signature"], tmp_path / "out", *words).code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for name in ("signature", "recipe", "command", "torch", "seed"):
        assert f"| {name} | {row[name]} |" in card
    mean = roadmap.load_study(study / "study").steps.set_index("step")["top1_mean"][row["step"]]
    assert f"value: {row['top1']:.2f}" in card and f"{row['step']}: {mean:.2f}" in card


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="torch 2.5 records no batch of any size for ONNX")
def test_onnx_runtime_runs_what_is_recorded(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network, path = weights(tmp_path, "separate_downsample", {})
    shown = call("export", path, "--to", "onnx", "--out", tmp_path / "network.onnx")
    assert shown.code == 0 and "any number of images of 32 px" in shown.out, shown.err
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx")
    assert_same(network, lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0]))
    told = read_description(session.get_modelmeta().custom_metadata_map["roadmap"])
    assert told.class_names == CLASSES and told.image_size == 32


def test_torch_loads_what_is_recorded(tmp_path, monkeypatch):
    network, path = weights(tmp_path, "gelu", {})
    monkeypatch.chdir(tmp_path)
    assert call("export", path, "--to", "torch-export", "--image-size", 40).code == 0
    facts = {"roadmap": ""}
    program = torch.export.load("weights.pt2", extra_files=facts)
    with torch.no_grad():
        expected = network(images(4, 40))
        torch.testing.assert_close(program.module()(images(4, 40)), expected, rtol=1e-4, atol=1e-3)
    assert read_description(facts["roadmap"]).class_names == CLASSES


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("export-weights {file} {here}", "exists already: name a new folder"),
        ("export-weights {file} {file}/new", "cannot be written"),
        ("export-weights {file} {here}/new --study {here}", "no study.json"),
        ("export-weights nothing {here}/new", "neither a file nor a run"),
        ("export --to onnx", "name its run"),
        ("export {file} --to onnx --all-columns", "--all-columns is for a table"),
        ("export {file} --to torch-export --image-size 3", "reduced to nothing"),
        ("export {file} --to torch-export --image-size 0", "image size is 0"),
        ("export {file} --to torch-export --out {here}/no/where.pt2", "cannot be written"),
        ("export --to csv --image-size 32", "--image-size is for a network"),
        ("export {here}/none", "none"),
    ],
)
def test_what_cannot_be_exported(words, sentence, tmp_path):
    _, path = weights(tmp_path, "gelu", {})
    before = sorted(tmp_path.iterdir())
    shown = call(*(word.format(file=path, here=tmp_path) for word in words.split()))
    assert shown.code == 2 and sentence in shown.err and shown.err.count("\n") == 1, shown.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_study_is_quoted_of_its_own_runs_alone(study, tmp_path):
    _, path = weights(tmp_path, "gelu", {})
    shown = call("export-weights", path, tmp_path / "out", "--study", study / "study")
    assert shown.code == 2 and "so that its findings say nothing of it" in shown.err
    assert call("export-weights", path, tmp_path / "out").code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "How it was trained is not known" in card and "## Training" not in card


def test_what_torch_cannot_record_is_said_in_a_sentence(tmp_path, monkeypatch):
    class Branching(torch.nn.Module):
        def forward(self, x):
            return x if float(x.mean()) > 0.1 else -x

    network, _ = weights(tmp_path, "gelu", {})
    network.head.fc = torch.nn.Sequential(network.head.fc, Branching())
    network.description = Description(network.design, image_size=32)
    with pytest.raises(RoadmapError, match="torch cannot record this network for torch-export: [^\n]+$"):
        save_graph(network, "torch-export", tmp_path / "network.pt2", 32)
    assert not (tmp_path / "network.pt2").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    _, path = weights(tmp_path, "gelu", {})
    monkeypatch.setattr("roadmap.exporting.graph.is_installed", lambda package: package != "onnxruntime")
    shown = call("export", path, "--to", "onnx")
    assert shown.code == 2 and "pip install 'roadmap-ablation[onnx]'" in shown.err
