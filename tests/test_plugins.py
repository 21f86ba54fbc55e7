"""The layers and steps that are shipped are the published ones: timm's networks, weights carried across."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from independent import randomize

import roadmap
from roadmap import Design, RoadmapError, load_weights
from roadmap.network import layers
from roadmap.network.building import normalises_over_batch
from roadmap.network.model import RoadmapNet
from roadmap.network.weights import to_timm

END = roadmap.ladder()["separate_downsample"].design
TINY = {"blocks": (1, 2, 1, 1), "widths": (8, 16, 24, 32), "num_classes": 5}
RESNEXT = {"groups": 32, "expansion": 2, "widths": (128, 256, 512, 1024), "stem_width": 64}


def logits(network: torch.nn.Module, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    with torch.no_grad():
        return network.double().eval()(images)


def assert_is_timms(design: Design, theirs: torch.nn.Module) -> None:
    """The same network, from timm's weights and back."""
    randomize(theirs)
    ours = RoadmapNet(design)
    load_weights(ours, theirs.state_dict())
    found = logits(ours)
    torch.testing.assert_close(found, logits(theirs), rtol=1e-8, atol=1e-8)
    assert (found[0] - found[1]).abs().max() > 1e-2 * found.abs().max() > 0
    returned = to_timm(ours)
    assert returned.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():  # timm's smallest networks have 1x1 convolutions for linear layers
        assert torch.equal(tensor.squeeze(), returned[name].squeeze())


@pytest.mark.parametrize("name", ["atto", "tiny"])
def test_grn_at_the_ladders_end_is_convnext_v2(name):
    sizes = {"atto": {"blocks": (2, 2, 6, 2), "widths": (40, 80, 160, 320)}, "tiny": {}}[name]
    assert_is_timms(END.replace(layers=["grn"], **sizes), timm.create_model(f"convnextv2_{name}"))


def test_se_in_resnet50_is_seresnet50():
    assert_is_timms(Design(layers=["se"]), timm.create_model("seresnet50"))


def test_resnext():
    assert_is_timms(Design(**RESNEXT), timm.create_model("resnext50_32x4d"))


def test_resnet_d_stem_is_timms_deep_stem():
    deep = {"stem_type": "deep", "stem_width": 32}
    assert_is_timms(Design(layers=["resnet_d_stem"]), timm.create_model("resnet50", **deep))
    both = Design(layers=["se", "resnet_d_stem"], **RESNEXT)
    assert_is_timms(both, timm.create_model("seresnext50_32x4d", **deep))


def test_only_timms_layers_go_to_timm():
    for design in (Design(layers={"se": {"ratio": 0.25}}), END.replace(layers=["se"]), Design(groups=2, expansion=3)):
        with pytest.raises(RoadmapError, match="timm has no such network"):
            to_timm(RoadmapNet(design.replace(blocks=(1, 1, 1, 1))))


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
def test_resnet_d_stem_divides_as_the_design_says(stride):
    design = END.replace(stem_stride=stride, layers=["resnet_d_stem"], **TINY)
    stem = RoadmapNet(design).stem
    assert stem(torch.zeros(1, 3, 64, 96)).shape == (1, 8, 64 // stride, 96 // stride)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in stem.modules()) == 3


def merged(large: torch.nn.Sequential, small: torch.nn.Sequential) -> tuple[torch.Tensor, torch.Tensor]:
    """One kernel and one offset for the two, in evaluation."""
    kernels, offsets = [], []
    for convolution, norm in (large, small):
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernels.append(convolution.weight * factor[:, None, None, None])
        offsets.append(norm.bias - factor * norm.running_mean)
    border = (kernels[0].shape[-1] - kernels[1].shape[-1]) // 2
    return kernels[0] + F.pad(kernels[1], [border] * 4), sum(offsets)


@pytest.mark.parametrize("base", [Design(**TINY), END.replace(**TINY)], ids=["start", "end"])
def test_replknets_kernels_are_one_in_evaluation(base):
    network = randomize(RoadmapNet(base.replace(layers=["replknet_kernels"])).double())
    found = {}
    for stage, kernel in enumerate((31, 29, 27, 13)):
        block = network.stages[stage].blocks[0]
        layer = next(module for module in block.modules() if layers.site_of(module))
        channels = layer.large[1].num_features
        assert layer.large[0].weight.shape == (channels, 1, kernel, kernel)
        assert layer.small[0].weight.shape == (channels, 1, 5, 5)
        weight, bias = merged(layer.large, layer.small)
        stride = layers.site_of(layer).stride
        found[stage] = stride
        x = torch.randn(2, channels, 19, 22, dtype=torch.float64)
        expected = F.conv2d(x, weight, bias, stride, kernel // 2, groups=channels)
        torch.testing.assert_close(layer(x), expected)
    assert set(found.values()) == ({1} if base.separate_downsample else {1, 2})


def test_whether_a_network_normalises_over_the_batch_is_told_by_its_layers():
    small = END.replace(**TINY)
    assert not normalises_over_batch(small) and normalises_over_batch(small.replace(norm="batch"))
    assert not normalises_over_batch(small.replace(layers=["grn"]))
    assert normalises_over_batch(small.replace(layers=["replknet_kernels"]))


def test_replknets_options():
    def kernels(stages: int = 4, **options) -> list[int]:
        design = END.replace(blocks=(1,) * stages, widths=(4,) * stages, layers={"replknet_kernels": options})
        return [stage.blocks[0].conv1.large[0].kernel_size[0] for stage in RoadmapNet(design).stages]

    assert kernels() == [31, 29, 27, 13]
    assert kernels(stages=2) == [31, 29] and kernels(stages=6) == [31, 29, 27, 13, 13, 13]
    assert kernels(kernels=[9, 7, 5, 5]) == [9, 7, 5, 5] and kernels(kernels=9, small=None) == [9] * 4
    for options, words in (
        ({"kernels": [9, 7]}, "kernels has 2 sizes, but must have one for each of 4 stages"),
        ({"kernels": 8}, "kernels has 8, but must be odd"),
        ({"small": 4}, "small has 4, but must be odd"),
        ({"kernels": "9"}, "kernels has 1 sizes"),
    ):
        with pytest.raises(RoadmapError, match=words):
            kernels(**options)


def test_the_options_of_se_are_checked():
    with pytest.raises(RoadmapError, match=r"the layer 'se' .*: ratio is 2.0, but must be between"):
        RoadmapNet(Design(layers={"se": {"ratio": 2.0}}))


def test_what_is_shipped_is_offered_as_anybody_would():
    """Every file of the folder is an entry point in pyproject.toml, under the name of what it registers."""
    project = Path(roadmap.__file__).parents[1]
    text = (project / "pyproject.toml").read_text().split('[project.entry-points."roadmap.plugins"]')[1].split("[")[0]
    points = dict(line.replace('"', "").split(" = ") for line in text.strip().splitlines() if " = " in line)
    files = {path.stem for path in (project / "roadmap" / "plugins").glob("[!_]*.py")}
    assert {value.removeprefix("roadmap.plugins.") for value in points.values()} == files
    code = """
import sys
from roadmap.network.layers import layer_names, digest_of
from roadmap.ladders.steps import registered_steps
names = layer_names()
assert not {"torch", "timm"} & set(sys.modules) and digest_of(names) == {}
print(*names, *registered_steps)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == set(points)


def test_resnext_is_a_step_of_flags():
    from roadmap.ladders.steps import compose, registered_steps

    layers.load_installed("resnext_32x4d")
    assert compose(Design(), [registered_steps["resnext_32x4d"]]) == Design(**RESNEXT)
