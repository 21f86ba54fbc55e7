"""What records a network for images of any number, torch's tools and timm's, finds the network that was built."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
from independent import randomize
from timm.models._features_fx import create_feature_extractor, get_notrace_functions, get_notrace_modules
from torch import Tensor, nn
from torchvision.models.feature_extraction import get_graph_node_names

import roadmap
import roadmap.timm

SMALL = {"widths": (8, 16), "blocks": (1, 2)}
STEPS = roadmap.ladder().names
PLUGGED = {
    "se and resnet_d_stem": ("resnet50", {"layers": ["se", "resnet_d_stem"]}),
    "replknet_kernels": ("large_kernel", {"layers": ["replknet_kernels"]}),
    "grn": ("separate_downsample", {"layers": ["grn"]}),
    "norm before pooling": ("separate_downsample", {"norm": "batch", "layer_scale": 1e-6, "stochastic_depth": 0.1}),
}
NETWORKS = {**{step: (step, {}) for step in STEPS}, **PLUGGED}
ENDS = ("resnet50", "separate_downsample")
BATCH = {0: torch.export.Dim("images")}


def network(name: str) -> nn.Module:
    """A small network in evaluation, with weights that matter."""
    step, flags = NETWORKS[name]
    return randomize(roadmap.build(step, **SMALL, **flags)).eval()


def images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count))


def assert_same(recorded, network: nn.Module, *more: Tensor) -> None:
    """Logits for other numbers of images than were recorded."""
    with torch.no_grad():
        for x in (images(3), *more):
            torch.testing.assert_close(recorded(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_fx(name):
    """As timm's own tests do: traced, in evaluation and in training, forward and backward."""
    original = network(name)
    assert_same(torch.fx.symbolic_trace(original), original, images(1, 97, 130))
    how = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    train, test = get_graph_node_names(original, tracer_kwargs=how)
    traced = create_feature_extractor(original, {test[-1]: "logits"})
    assert train == test or name == "norm before pooling"  # whose branches are dropped in training alone
    assert_same(lambda x: traced(x)["logits"], original)
    torch.fx.symbolic_trace(original.train())(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in original.parameters())


@pytest.mark.parametrize("feature_cls", ["fx", "hook", "getter", "list", "dict"])
@pytest.mark.parametrize("step", ENDS)
def test_features_of_every_kind(step, feature_cls):
    torch.manual_seed(0)
    whole = timm.create_model(f"roadmap_{step}", **SMALL).eval()
    torch.manual_seed(0)
    backbone = timm.create_model(f"roadmap_{step}", **SMALL, features_only=True, feature_cls=feature_cls).eval()
    with torch.no_grad():
        maps = backbone(images())
        _, expected = whole.forward_intermediates(images())
    assert [x.shape[1] for x in expected] == backbone.feature_info.channels()
    torch.testing.assert_close(list(maps.values()) if isinstance(maps, dict) else maps, expected)


@pytest.mark.filterwarnings("ignore:.*(deprecated|type system).*")
@pytest.mark.parametrize("name", NETWORKS)
def test_torchscript(name, tmp_path):
    original = network(name)
    scripted = torch.jit.script(original)
    torch.jit.save(scripted, tmp_path / "scripted.pt")
    assert_same(torch.jit.load(tmp_path / "scripted.pt"), original, images(1, 97, 130))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced = torch.jit.trace(original, images(), check_trace=False)
    assert not [one for one in caught if issubclass(one.category, torch.jit.TracerWarning)]
    assert_same(traced, original)
    scripted.train()(images()).sum().backward()


@pytest.mark.parametrize("name", NETWORKS)
def test_export(name):
    original = network(name)
    assert_same(torch.export.export(original, (images(),), dynamic_shapes=(BATCH,)).module(), original)


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__.startswith("2.5."), reason="torch 2.5 exports no batch of any size to ONNX")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", ENDS)
def test_onnx(step, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    original, path = network(step), tmp_path / "network.onnx"
    torch.onnx.export(original, (images(),), path, dynamo=True, dynamic_shapes=(BATCH,), verbose=False)
    session = onnxruntime.InferenceSession(path)
    assert_same(lambda x: torch.tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]), original)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("step", ENDS)
def test_full_width_with_large_products(step):
    """At 224 px some 1x1 convolutions are so large that they are products on the CPU; a record has none of these."""
    with torch.device("meta"):
        shape = roadmap.build(step, blocks=(1, 1, 1, 1), num_classes=3)
    original = randomize(shape.to_empty(device="cpu")).to(memory_format=torch.channels_last)
    x = images(8, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        with torch.profiler.profile() as profile:
            logits = original(x)
        assert sum(event.name == "aten::linear" for event in profile.events()) > 1  # the classifier, and others
        assert (logits[0] - logits[1]).abs().max() > 1e-3 * logits.abs().max()  # the images do matter
        traced = torch.fx.symbolic_trace(original)
        exported = torch.export.export(original, (x,), dynamic_shapes=(BATCH,)).module()
        for recorded in (traced(x), exported(x), torch.func.vmap(original)(torch.stack([x, x]))[1]):
            torch.testing.assert_close(recorded, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max()))
        assert traced(x[:1]).shape == exported(x[:1]).shape == (1, 3)
