"""Every rung is a timm model, and behaves as timm's own do."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from independent import randomize

import roadmap
import roadmap.timm
from roadmap import RoadmapError
from roadmap.network.model import RoadmapNet

NAMES = [f"roadmap_{step}" for step in roadmap.ladder("resnet50").names] + [
    f"roadmap_r200_{step}" for step in roadmap.ladder("resnet200").names
]
SMALL = {"widths": (8, 16, 24, 32), "blocks": (1, 2, 1, 1)}


def create(name: str, **options) -> torch.nn.Module:
    """A small network of that rung in double precision, with weights that matter."""
    return randomize(timm.create_model(name, **SMALL, **options).double())


def images(channels: int = 3, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, 64, 96, generator=generator, dtype=torch.float64)


def channels(name: str) -> list[int]:
    """Of the stages of the small network: a bottleneck puts out four times its width."""
    steps = ("resnet50", "resnet200", "modern_recipe", "stage_ratio", "patchify_stem", "depthwise_conv",
             "increase_width")  # fmt: skip
    factor = 4 if name.endswith(steps) else 1
    return [factor * width for width in SMALL["widths"]]


def test_timm_lists_every_rung():
    assert sorted(timm.list_models("roadmap_*")) == sorted(NAMES)
    assert len(NAMES) == 34
    assert all(timm.is_model(name) for name in NAMES)
    assert timm.list_models("roadmap_*", pretrained=True) == []


@pytest.mark.parametrize("name", NAMES)
def test_name_is_the_rung(name):
    regime = "resnet200" if name.startswith("roadmap_r200_") else "resnet50"
    rung = roadmap.ladder(regime)[name.removeprefix("roadmap_").removeprefix("r200_")]
    with torch.device("meta"):
        network = timm.create_model(name)
    assert network.design == rung.design
    configuration = network.pretrained_cfg
    assert network.get_submodule(configuration["first_conv"]) is network.stem.conv
    assert network.get_submodule(configuration["classifier"]) is network.get_classifier()
    assert (configuration["num_classes"], configuration["input_size"]) == (1000, (3, 224, 224))
    with torch.device("meta"):
        features = timm.create_model(name, features_only=True)
        maps = features(torch.empty(1, 3, 224, 224))
    outputs = [rung.design.output_width(width) for width in rung.design.widths]
    assert features.feature_info.channels() == outputs
    assert [tuple(x.shape) for x in maps] == [(1, c, s, s) for c, s in zip(outputs, (56, 28, 14, 7), strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_features_only(name):
    whole = create(name)
    for indices in ((0, 1, 2, 3), (1, 3), (0,)):
        backbone = timm.create_model(name, **SMALL, features_only=True, out_indices=indices).double().eval()
        assert backbone.feature_info.channels() == [channels(name)[index] for index in indices]
        assert backbone.feature_info.reduction() == [(4, 8, 16, 32)[index] for index in indices]
        weights = whole.state_dict()
        own = backbone.state_dict()  # timm flattens the two sequences: stem_conv.weight, stages_0.blocks...
        backbone.load_state_dict({key: weights[re.sub(r"^(stem|stages)_", r"\1.", key)] for key in own})
        with torch.no_grad():
            maps = backbone(images())
            _, expected = whole.forward_intermediates(images(), indices=list(indices))
        assert [x.shape[2:] for x in maps] == [[(16, 24), (8, 12), (4, 6), (2, 3)][index] for index in indices]
        for found, wanted in zip(maps, expected, strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_forward_intermediates(name):
    network, x = create(name), images()
    with torch.no_grad():
        final, maps = network.forward_intermediates(x)
        assert torch.equal(final, network.forward_features(x))
        assert [feature.shape[1] for feature in maps] == channels(name)
        assert torch.equal(network.forward_head(final), network(x))
        stopped, early = network.forward_intermediates(x, indices=[0, 1], stop_early=True)
        assert len(early) == 2 and torch.equal(early[0], maps[0]) and torch.equal(stopped, maps[1])
        only = network.forward_intermediates(x, indices=2, intermediates_only=True)
        assert [feature.shape for feature in only] == [maps[2].shape, maps[3].shape]
    with pytest.raises(ValueError, match="NCHW"):
        network.forward_intermediates(x, output_fmt="NLC")


def test_final_norm_before_pooling():
    """Only a design off the ladder has one: separate downsampling with BatchNorm."""
    network, x = create("roadmap_separate_downsample", norm="batch"), images()
    with torch.no_grad():
        final, raw = network.forward_intermediates(x)
        assert torch.equal(network.forward_head(final), network(x))
        normed = network.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]
        assert torch.equal(normed, final) and not torch.allclose(raw[3], final)
        assert torch.equal(network.norm_pre(raw[3]), final)


@pytest.mark.parametrize("name", NAMES)
def test_prune_intermediate_layers(name):
    network, x = create(name), images()
    with torch.no_grad():
        _, maps = network.forward_intermediates(x)
        assert network.prune_intermediate_layers(1) == [3]
        assert network.prune_intermediate_layers([0, 1]) == [0, 1]
        assert torch.equal(network.forward_features(x), maps[1])
        assert torch.equal(network(x), maps[1])
    assert len(network.stages) == 2


@pytest.mark.parametrize("name", NAMES)
def test_head(name):
    network, x = create(name, num_classes=7, in_chans=1), images(channels=1)
    width = channels(name)[-1]
    assert network.num_features == network.head_hidden_size == width
    assert isinstance(network.get_classifier(), torch.nn.Linear)
    with torch.no_grad():
        logits, features = network(x), network.forward_features(x)
        assert logits.shape == (2, 7) and features.shape == (2, width, 2, 3)
        pooled = network.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, width)
        torch.testing.assert_close(network.get_classifier()(pooled), logits)

        network.reset_classifier(0)
        assert network.num_classes == 0
        torch.testing.assert_close(network(x), pooled)
        network.reset_classifier(11)
        assert network.num_classes == 11 and network(x).shape == (2, 11)
        network.reset_classifier(0, "")
        assert network(x).shape == (2, width, 2, 3)
        network.reset_classifier(3, "max")
        assert network(x).shape == (2, 3)


@pytest.mark.parametrize("name", ["roadmap_resnet50", "roadmap_separate_downsample"])
def test_feature_extractors_as_timm_makes_them(name):
    pooled, maps = create(name, num_classes=0), create(name, num_classes=0, global_pool="")
    with torch.no_grad():
        assert pooled(images()).shape == (2, channels(name)[-1])
        assert maps(images()).shape == (2, channels(name)[-1], 2, 3)
    dropping = create(name, drop_rate=0.9).train()
    assert dropping.drop_rate == 0.9
    logits = dropping.forward_head(torch.ones(200, channels(name)[-1], 1, 1, dtype=torch.float64))
    assert logits.std(dim=0).max() > 0  # identical features, different dropouts


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_gives_the_same_gradients(name):
    network, x = create(name).train(), images()

    def gradients(enable: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        logits = network(x)
        logits.square().sum().backward()
        return logits.detach(), [parameter.grad.clone() for parameter in network.parameters()]

    assert _saved_bytes(network, x, True) < _saved_bytes(network, x, False)
    (plain_logits, plain), (logits, checkpointed) = gradients(False), gradients(True)
    torch.testing.assert_close(logits, plain_logits)
    torch.testing.assert_close(checkpointed, plain)


def _saved_bytes(network: torch.nn.Module, x: torch.Tensor, checkpointing: bool) -> int:
    """What the forward pass keeps for the backward pass."""
    network.set_grad_checkpointing(checkpointing)
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x)
    return sum(sizes)


def test_timms_words_are_flags_of_the_design():
    options = {"in_chans": 1, "drop_path_rate": 0.25, "ls_init_value": 1e-6, "num_classes": 10, "kernel_size": 5}
    network = timm.create_model("roadmap_separate_downsample", **SMALL, **options)
    expected = roadmap.ladder()["separate_downsample"].design.replace(
        **SMALL, in_channels=1, stochastic_depth=0.25, layer_scale=1e-6, num_classes=10, kernel_size=5
    )
    assert network.design == expected
    plugged = timm.create_model("roadmap_separate_downsample", **SMALL, layers=["grn"])
    assert plugged.design.layers == (("grn", ()),)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in network.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.0625, 0.125, 0.1875, 0.25])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pretrained": True}, "no pretrained weights for roadmap_gelu"),
        ({"kernelsize": 7}, "did you mean 'kernel_size'"),
        ({"kernel_size": 4}, "must be odd"),
        ({"drop_path_rate": 1.5}, "stochastic_depth is 1.5"),
        ({"output_stride": 16}, "output_stride is 16, but roadmap_gelu divides the image by 32"),
        ({"output_stride": 8, "features_only": True}, "output_stride is 8, but .* no dilated convolutions"),
        ({"output_stride": 7}, "output_stride is 7, but must be one of 8, 16, 32"),
        ({"features_only": True, "out_indices": (0, 4)}, "out_indices is 4, but must be between -4 and 3"),
        ({"features_only": True, "out_indices": [-5]}, "out_indices is -5, but must be between -4 and 3"),
        ({"features_only": True, "out_indices": 5}, "out_indices, as a number of stages, is 5, but .* 1 and 4"),
        ({"features_only": True, "out_indices": (1, 1)}, "each once"),
        ({"features_only": True, "out_indices": (1, -3)}, "each once"),
        ({"features_only": True, "out_indices": ()}, "one stage or more"),
        ({"features_only": True, "out_indices": "last"}, "must be a whole number"),
    ],
)
def test_mistakes_are_told(options, words):
    with pytest.raises(RoadmapError, match=words) as caught:
        timm.create_model("roadmap_gelu", **options)
    assert "\n" not in str(caught.value)


def test_output_stride_that_the_network_has():
    network = timm.create_model("roadmap_gelu", **SMALL, output_stride=32)
    assert network.feature_info[-1]["reduction"] == 32
    halved = timm.create_model("roadmap_gelu", **SMALL, stem_stride=2, output_stride=16, features_only=True)
    assert halved.feature_info.reduction() == [2, 4, 8, 16]


@pytest.mark.parametrize(
    ("indices", "taken"),
    [(None, [0, 1, 2, 3]), (2, [2, 3]), (np.int64(1), [3]), (range(1, 3), [1, 2]), ([-1, -4], [3, 0])],
)
def test_indices_of_features(indices, taken):
    backbone = timm.create_model("roadmap_gelu", **SMALL, features_only=True, out_indices=indices)
    assert backbone.feature_info.channels() == [SMALL["widths"][index] for index in taken]
    x = images().float()
    with torch.no_grad():
        assert sorted(x.shape[1] for x in backbone(x)) == sorted(SMALL["widths"][index] for index in taken)


def test_features_of_a_network_of_other_stages():
    backbone = timm.create_model("roadmap_gelu", widths=(8, 16), blocks=(1, 1), features_only=True)
    assert backbone.feature_info.channels() == [8, 16]


@pytest.mark.parametrize("indices", [5, 0, [4], [], [0, 0], 1.5])
def test_indices_of_intermediates_that_cannot_be(indices):
    network = create("roadmap_gelu")
    for ask in (network.prune_intermediate_layers, lambda taken: network.forward_intermediates(images(), taken)):
        with pytest.raises(RoadmapError, match="indices"):
            ask(indices)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_groups_by_depth(name):
    """What timm's layer-wise learning rates are made of: every parameter in one group, in the order of depth."""
    network = create(name)
    groups = timm.models.group_parameters(network, network.group_matcher())
    assert sorted(itertools.chain(*groups.values())) == sorted(key for key, _ in network.named_parameters())
    order = list(groups.values())
    assert all(key.startswith("stem") for key in order[0])
    assert any(key.startswith("head") for key in order[-1])
    stages = [int(group[0].split(".")[1]) for group in order if group[0].startswith("stages")]
    assert stages == sorted(stages) and len(set(stages)) == 4


def python(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports", ["import timm, roadmap.timm", "import roadmap.timm, timm", "import timm\nfrom roadmap import timm as _"]
)
def test_registered_whatever_is_imported_first(imports):
    code = f"{imports}\nprint(len(timm.list_models('roadmap_*')), timm.create_model('roadmap_gelu').design.activation)"
    assert python(code) == "34 gelu"


@pytest.mark.slow
def test_importing_roadmap_leaves_timm_as_it_is():
    code = "import roadmap, timm, roadmap.ladders.rungs, roadmap.network.model\nprint(timm.list_models('roadmap_*'))"
    assert python(code) == "[]"


def test_importing_and_planning_load_neither_torch_nor_timm():
    code = """
import sys, roadmap
ladder = roadmap.ladder("resnet200").scaled(16, 0.5)
try:
    roadmap.build("no_such_step")
except roadmap.RoadmapError:
    pass
assert ladder["gelu"].design.feature_sizes(224)
print(sorted({"torch", "timm", "numpy", "pandas", "lightning", "pytorch_lightning"} & set(sys.modules)))
"""
    assert python(code) == "[]"


def test_the_face_of_the_package():
    assert set(roadmap.__all__) <= set(dir(roadmap))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = roadmap.no_such_name
    assert isinstance(roadmap.build("gelu", **SMALL), RoadmapNet)
