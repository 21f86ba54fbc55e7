"""Weights go in and out of the network, and prove that the ladder's ends are the published networks."""

from __future__ import annotations

import argparse
import fractions
import pickle
import types
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from independent import randomize
from safetensors.torch import load_file, save_file
from torch import nn

import roadmap
from roadmap import RoadmapError, load_weights
from roadmap.network.design import CONVNEXT
from roadmap.network.model import RoadmapNet
from roadmap.network.weights import open_weights, save_weights, to_timm

ENDS = [
    ("resnet50", "resnet50", "resnet50"),
    ("separate_downsample", "resnet50", "convnext_tiny"),
    ("resnet200", "resnet200", "resnet200"),
    ("separate_downsample", "resnet200", "convnext_base"),
]
TINY = {"blocks": (1, 2, 1, 1), "widths": (8, 16, 24, 32), "num_classes": 5}
TINY_RESNET = {**TINY, "widths": (64, 16, 24, 32)}  # timm's ResNet has a stem of 64 channels


def tiny_convnext(seed: int = 0, **flags) -> RoadmapNet:
    return randomize(roadmap.build("separate_downsample", **{**TINY, "layer_scale": 1e-6, **flags}), seed)


def tiny_resnet(seed: int = 0, **flags) -> RoadmapNet:
    return randomize(roadmap.build("resnet50", **{**TINY_RESNET, **flags}), seed)


def timm_convnext(**options) -> nn.Module:
    # not by create_model, which drops ls_init_value=None
    return timm.models.ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=5, **options)


def timm_resnet(**options) -> nn.Module:
    return timm.create_model("resnet50", layers=(1, 2, 1, 1), channels=(64, 16, 24, 32), num_classes=5, **options)


@torch.no_grad()
def assert_same_logits(one: nn.Module, other: nn.Module, size: tuple[int, int] = (64, 96)) -> None:
    """Of two networks in double precision, so that nothing hides behind rounding."""
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    logits = one.double().eval()(images)
    assert (logits[0] - logits[1]).abs().max() > 1e-2 * logits.abs().max() > 0  # the images do matter
    torch.testing.assert_close(logits, other.double().eval()(images), rtol=1e-8, atol=1e-8)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    expected, found = one.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def uninitialised(make, *words, **options) -> nn.Module:
    """A network whose weights are whatever was in memory: initialising a large one takes long."""
    with torch.device("meta"):
        network = make(*words, **options)
    return network.to_empty(device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("step", "regime", "published"), ENDS)
def test_ends_of_the_ladder_are_timms_networks(step, regime, published):
    flags = {"layer_scale": 1e-6} if step == "separate_downsample" else {}
    theirs = randomize(uninitialised(timm.create_model, published))
    ours = uninitialised(roadmap.build, step, regime, **flags)
    load_weights(ours, theirs.state_dict())
    assert_same_logits(ours, theirs)

    other = uninitialised(timm.create_model, published)
    returned = to_timm(ours)
    other.load_state_dict(returned, strict=True)
    assert list(returned.keys()) and returned.keys() == theirs.state_dict().keys()
    assert_same_weights(other.double(), theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: tiny_resnet(), timm_resnet),
        (lambda: tiny_resnet(activation="gelu"), lambda: timm_resnet(act_layer="gelu")),
        (lambda: tiny_resnet(in_channels=1), lambda: timm_resnet(in_chans=1)),
        (lambda: tiny_resnet(num_classes=0), lambda: timm_resnet().reset_classifier(0)),
        (lambda: tiny_convnext(), timm_convnext),
        (lambda: tiny_convnext(layer_scale=None), lambda: timm_convnext(ls_init_value=None)),
        (lambda: tiny_convnext(kernel_size=5), lambda: timm_convnext(kernel_sizes=5)),
        (lambda: tiny_convnext(activation="silu"), lambda: timm_convnext(act_layer="silu")),
    ],
)
def test_timm_and_back(ours, theirs):
    network, counterpart = ours(), theirs()
    if counterpart is None:  # reset_classifier returns nothing
        counterpart = timm_resnet()
        counterpart.reset_classifier(0)
    counterpart.load_state_dict(to_timm(network), strict=True)
    if network.in_chans == 3:
        assert_same_logits(network, counterpart, size=(64, 64))
    fresh = RoadmapNet(network.design).to(network.stem.conv.weight.dtype)
    load_weights(fresh, counterpart.state_dict())
    assert_same_weights(network, fresh)


@pytest.mark.parametrize(
    ("step", "flags", "words"),
    [
        ("patchify_stem", {}, "timm ResNet in stem"),
        ("depthwise_conv", {}, "groups"),
        ("layer_norm", {}, "timm ConvNeXt in separate_downsample"),
        ("separate_downsample", {"stem_stride": 2}, "timm ConvNeXt in stem_stride"),
        ("separate_downsample", {"expansion": 2}, "timm ConvNeXt in expansion"),
        ("separate_downsample", {"norm": "batch"}, "timm ConvNeXt in norm"),
        ("separate_downsample", {"blocks": (1, 1), "widths": (8, 16)}, "timm ConvNeXt in blocks"),
        ("resnet50", {"kernel_size": 5}, "timm ResNet in kernel_size"),
        ("resnet50", {"layer_scale": 0.1}, "timm ResNet in layer_scale"),
        ("resnet50", {"widths": (32, 64, 128, 256)}, "timm ResNet in widths"),
        ("resnet50", {"blocks": (1, 1, 1), "widths": (64, 128, 256)}, "timm ResNet in blocks"),
    ],
)
def test_only_timms_designs_go_to_timm(step, flags, words):
    with torch.device("meta"):
        network = roadmap.build(step, **flags)
    with pytest.raises(RoadmapError) as caught:
        to_timm(network)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class OfficialNorm(nn.Module):
    def __init__(self, channels: int, channels_first: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.channels_first = channels_first

    def forward(self, x):
        if not self.channels_first:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-6)
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return self.weight[:, None, None] * ((x - mean) / torch.sqrt(variance + 1e-6)) + self.bias[:, None, None]


class OfficialBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, kernel_size=7, padding=3, groups=width)
        self.norm = OfficialNorm(width, channels_first=False)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class OfficialConvNeXt(nn.Module):
    """The module layout of facebookresearch/ConvNeXt, models/convnext.py."""

    def __init__(self, blocks: tuple[int, ...], widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, widths[0], kernel_size=4, stride=4), OfficialNorm(widths[0], True))
        self.downsample_layers = nn.ModuleList([stem])
        for i in range(3):
            self.downsample_layers.append(
                nn.Sequential(OfficialNorm(widths[i], True), nn.Conv2d(widths[i], widths[i + 1], 2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(OfficialBlock(width) for _ in range(count)))
            for count, width in zip(blocks, widths, strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x):
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.head(self.norm(x.mean([-2, -1])))


def official(seed: int = 3) -> nn.Module:
    return randomize(OfficialConvNeXt(TINY["blocks"], TINY["widths"], TINY["num_classes"]), seed)


def test_official_convnext_layout(tmp_path):
    released = official()
    torch.save({"model": released.state_dict()}, tmp_path / "convnext_tiny_1k_224_ema.pth")
    network = tiny_convnext()
    load_weights(network, tmp_path / "convnext_tiny_1k_224_ema.pth")
    assert_same_logits(network, released)


class OfficialIsotropic(nn.Module):
    """The module layout of facebookresearch/ConvNeXt, models/convnext_isotropic.py."""

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, kernel_size=16, stride=16)
        self.blocks = nn.Sequential(*(OfficialBlock(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


def test_official_isotropic_layout():
    released = randomize(OfficialIsotropic(3, 8, 5))
    network = RoadmapNet(CONVNEXT.replace(blocks=(3,), widths=(8,), stem_stride=16, layer_scale=1e-6, num_classes=5))
    load_weights(network, {"model": released.state_dict()})
    assert_same_logits(network, released)


@pytest.mark.parametrize("make", [tiny_convnext, tiny_resnet])
def test_safetensors_round_trip(tmp_path, make):
    network, other = make(seed=1), make(seed=2)
    network.stem.conv.weight.data = network.stem.conv.weight.data.to(memory_format=torch.channels_last)
    save_weights(network, tmp_path / "weights.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]
    assert load_file(tmp_path / "weights.safetensors").keys() == network.state_dict().keys()
    load_weights(other, str(tmp_path / "weights.safetensors"))
    assert_same_weights(network, other)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_weights(tiny_convnext(seed=1), path)
    before = path.read_bytes()

    def interrupted(tensors, filename, metadata=None):
        filename.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("roadmap.network.weights.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_weights(tiny_convnext(seed=2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_kinds_of_files(tmp_path, suffix):
    network, path = timm_convnext(), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    ours = tiny_convnext()
    load_weights(ours, path)
    assert_same_weights(network, _into(timm_convnext(), to_timm(ours)))


def _into(network: nn.Module, weights: dict) -> nn.Module:
    network.load_state_dict(weights)
    return network


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {"state_dict": weights, "optimizer": {"lr": 0.1}},
        lambda weights: {"model_state": weights},
        lambda weights: {"model_ema": weights},
        lambda weights: {"checkpoint": 1, "model": {"state_dict": weights}},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()},
        lambda weights: {f"module._orig_mod.{name}": value for name, value in weights.items()},
        lambda weights: {"n_averaged": torch.tensor(4), **{f"module.{name}": v for name, v in weights.items()}},
        lambda weights: {
            "state_dict": {
                **{f"network._orig_mod.{name}": value for name, value in weights.items()},
                "loss.weight": torch.ones(1),
            },
            "pytorch-lightning_version": "2.5.0",
        },
    ],
)
@pytest.mark.parametrize("make", [tiny_convnext, tiny_resnet])
def test_wrapped_checkpoints(tmp_path, wrap, make):
    network, other = make(seed=1), make(seed=2)
    torch.save(wrap(dict(network.state_dict())), tmp_path / "wrapped.ckpt")
    load_weights(other, tmp_path / "wrapped.ckpt")
    assert_same_weights(network, other)


@pytest.mark.parametrize("ema", ["state_dict_ema", "model_ema"])
def test_averaged_weights_go_first_as_in_timm(tmp_path, ema):
    averaged, last, path = timm_convnext(), randomize(timm_convnext()), tmp_path / "last.pth.tar"
    torch.save({"state_dict": last.state_dict(), "model": last.state_dict(), ema: averaged.state_dict()}, path)
    ours, theirs = tiny_convnext(), timm_convnext()
    load_weights(ours, path)
    timm.models.load_checkpoint(theirs, str(path), weights_only=True)
    assert_same_weights(theirs, averaged)
    assert_same_weights(_into(timm_convnext(), to_timm(ours)), averaged)


def beside() -> dict:
    """What timm's train.py and ConvNeXt's main.py write, and what people add."""
    return {
        **{"epoch": 3, "arch": "convnext_tiny", "version": 2, "metric": np.float64(78.5), "best": np.array([1.0, 2.0])},
        "args": argparse.Namespace(lr=4e-3, output=Path("runs"), mean=(0.5, np.float32(0.1))),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": np.float64(0.1)}]},
        "more": types.SimpleNamespace(path=Path("/data")),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_plain_data_beside_the_weights(tmp_path, key, zipped):
    network, other, path = tiny_convnext(seed=1), tiny_convnext(seed=2), tmp_path / "checkpoint.pth"
    torch.save(beside() | {key: network.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    load_weights(other, path)
    assert_same_weights(network, other)


def test_names_of_older_numpy_and_newer_python(tmp_path):
    network, other = tiny_resnet(seed=1), tiny_resnet(seed=2)
    old = (b"numpy._core.multiarray", b"numpy.core.multiarray"), (b"cpathlib\n", b"cpathlib._local\n")
    path = tmp_path / "new.pt"
    torch.save(beside() | {"model": network.state_dict()}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert all(new in content for new, _ in old)
    for new, name in old:
        content = content.replace(new, name)
    (tmp_path / "old.pt").write_bytes(content)
    load_weights(other, tmp_path / "old.pt")
    assert_same_weights(network, other)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: {"model": tiny_convnext().state_dict(), "best": fractions.Fraction(1, 2)}, "fractions.Fraction"),
        (tiny_convnext, "roadmap.network.model.RoadmapNet"),
        (lambda: {"epoch": 3, "nets": [1], "loss": 0.5}, "its keys are epoch, nets, loss"),
        (lambda: {"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(1)}}, "its keys are a, b"),
        (lambda: {"model": {"stem.conv.weight": torch.ones(1), "depth": 3}}, "holds depth as int"),
        (lambda: [tiny_convnext().state_dict()], "holds a list"),
    ],
)
def test_refused_things_are_named(tmp_path, content, words):
    torch.save(content(), tmp_path / "checkpoint.pt")
    with pytest.raises(RoadmapError) as caught:
        load_weights(tiny_convnext(), tmp_path / "checkpoint.pt")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*(deprecated|type system).*")
def test_torchscript_archives_are_named(tmp_path):
    torch.jit.save(torch.jit.script(tiny_resnet()), tmp_path / "scripted.pt")
    with pytest.raises(RoadmapError, match=r"scripted\.pt' is a TorchScript archive"):
        load_weights(tiny_resnet(), tmp_path / "scripted.pt")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights", "weights.txt"])
@pytest.mark.parametrize("write", [save_file, torch.save, save_weights])
def test_a_file_is_what_its_bytes_say(tmp_path, write, name):
    network, other = tiny_convnext(seed=1), tiny_convnext(seed=2)
    write(network if write is save_weights else network.state_dict(), tmp_path / name)
    load_weights(other, tmp_path / name)
    assert_same_weights(network, other)
    assert (open_weights(tmp_path / name).description() is not None) == (write is save_weights)


def test_averaged_and_compiled_modules_as_torch_writes_them():
    network = tiny_resnet(seed=1)
    for wrapper in (torch.optim.swa_utils.AveragedModel(network), torch.compile(network)):
        other = tiny_resnet(seed=2)
        load_weights(other, wrapper.state_dict())
        assert_same_weights(network, other)


def test_counters_of_old_checkpoints_may_be_missing():
    network, other = tiny_resnet(seed=1), tiny_resnet(seed=2)
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    assert counters
    load_weights(other, {name: value for name, value in network.state_dict().items() if name not in counters})
    assert_same_weights(network, other)


def test_precision_of_the_network_is_kept():
    network = tiny_convnext().double()
    load_weights(network, {name: value.half() for name, value in official().state_dict().items()})
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float64}


def without(weights: dict, *names: str) -> dict:
    return {name: value for name, value in weights.items() if name not in names}


def cyclic() -> dict:
    weights: dict = {}
    weights["model"] = weights
    return weights


def spoilt(change) -> dict:
    weights = tiny_convnext().state_dict()
    return weights | {"stem.conv.weight": change(weights["stem.conv.weight"])}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (lambda: timm_resnet().state_dict(), ["timm ResNet layout", "conv1.weight", "more"]),
        (lambda: tiny_convnext(layer_scale=None).state_dict(), ["stages.0.blocks.0.layer_scale.gamma", "2 more"]),
        (lambda: tiny_convnext(kernel_size=5).state_dict(), ["(8, 1, 5, 5) instead of (8, 1, 7, 7)"]),
        (lambda: tiny_convnext(num_classes=7).state_dict(), ["head.fc.weight of shape (7, 32) instead of (5, 32)"]),
        (lambda: without(timm_convnext().state_dict(), "head.norm.bias"), ["missing keys head.norm.bias"]),
        (lambda: {**official().state_dict(), "extra.weight": torch.ones(1)}, ["unexpected keys extra.weight"]),
        (lambda: without(official().state_dict(), "head.bias"), ["official ConvNeXt layout", "missing keys head.bias"]),
        (lambda: nn.Linear(3, 4).state_dict(), ["no known network", "bias, weight"]),
        (dict, ["no network weights"]),
        (cyclic, ["no network weights"]),
        (lambda: spoilt(lambda tensor: tensor.to_sparse()), ["stem.conv.weight without its numbers"]),
        (lambda: spoilt(lambda tensor: tensor.to("meta")), ["stem.conv.weight without its numbers"]),
        (lambda: spoilt(lambda tensor: tensor.int()), ["stem.conv.weight as torch.int32, but weights are"]),
        (lambda: spoilt(lambda tensor: tensor + 1j), ["stem.conv.weight as torch.complex64"]),
        (lambda: {"stem.conv.weight": [1, 2, 3]}, ["no network weights"]),
    ],
)
def test_weights_that_do_not_fit_change_nothing(weights, words):
    network, untouched = tiny_convnext(), tiny_convnext()
    with pytest.raises(RoadmapError) as caught:
        load_weights(network, weights())
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
    assert_same_weights(network, untouched)


class RunsCode:
    def __init__(self, touched) -> None:
        self.touched = touched

    def __reduce__(self):
        return (open, (str(self.touched), "w"))


@pytest.mark.parametrize("how", ["torch", "legacy torch", "pickle"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, how):
    trap, path = tmp_path / "trap", tmp_path / "evil.pt"
    evil = {"model": {"stem.conv.weight": RunsCode(trap)}}
    if how == "pickle":
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=how == "torch")
    network, untouched = tiny_convnext(), tiny_convnext()
    with pytest.raises(RoadmapError, match=r"evil\.pt.*never run"):
        load_weights(network, path)
    assert not trap.exists()
    assert_same_weights(network, untouched)
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap was a real one


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_truncated_files(tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    weights = tiny_convnext().state_dict()
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    network, untouched = tiny_convnext(seed=5), tiny_convnext(seed=5)
    with pytest.raises(RoadmapError) as caught:
        load_weights(network, path)
    assert f"cut{suffix}" in str(caught.value) and "\n" not in str(caught.value)
    assert_same_weights(network, untouched)


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors", "tensor.pt", "missing.pt", "."])
def test_files_that_are_no_checkpoints(tmp_path, name):
    if name == "tensor.pt":
        torch.save(torch.ones(3), tmp_path / name)
    elif name.startswith("text"):
        (tmp_path / name).write_text("not a checkpoint, although it says so\n" * 5)
    with pytest.raises(RoadmapError) as caught:
        load_weights(tiny_convnext(), tmp_path / name)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
