"""The parametric network builds, runs, learns and says its sizes for any combination of its flags."""

from __future__ import annotations

import copy
import itertools
import random

import pytest
import torch
from independent import randomize
from torch import Tensor, nn

import roadmap
from roadmap import Design, RoadmapError
from roadmap.network import pointwise
from roadmap.network.model import RoadmapNet

TINY = Design(blocks=(2, 1), widths=(8, 16), num_classes=5)
TINY_CONVNEXT = roadmap.ladder()["separate_downsample"].design.replace(blocks=(2, 1), widths=(8, 16), num_classes=5)

ARCHITECTURES = {
    "stem": ("resnet", "patchify"),
    "block": ("bottleneck", "inverted"),
    "spatial_position": ("middle", "first"),
    "norm": ("batch", "layer"),
}
DETAILS = {
    "stem_stride": (1, 2, 4),
    "groups": (1, 4, "depthwise"),
    "fewer_activations": (False, True),
    "fewer_norms": (False, True),
    "separate_downsample": (False, True),
}
#: Drawn for each combination: too many for a full product, and independent of most of it.
DRAWN = {
    "kernel_size": (1, 3, 5, 7),
    "activation": ("relu", "gelu", "silu"),
    "layer_scale": (None, 0.5),
    "stochastic_depth": (0.0, 0.3),
    "expansion": (1, 2, 4),
    "in_channels": (1, 3),
}
BATCHES = ((2, 32, 32), (1, 33, 47), (1, 24, 39), (3, 17, 40))
ZERO = 1e-10  # in double precision; a gradient that matters here is beyond 1e-5


def images(design: Design, *shape: int, seed: int = 0) -> Tensor:
    count, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, design.in_channels, height, width, generator=generator, dtype=torch.float64)


def gradients(network: nn.Module, x: Tensor, train: bool) -> dict[str, Tensor]:
    """Gradient of every parameter for a loss that looks at each logit of each image differently."""
    network.train(train).zero_grad()
    logits = network(x)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3), dtype=logits.dtype)
    (logits * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in found.values())
    return found


def vanishing(found: dict[str, Tensor]) -> set[str]:
    return {name for name, gradient in found.items() if gradient.abs().max() < ZERO}


@pytest.mark.parametrize("architecture", list(itertools.product(*ARCHITECTURES.values())), ids="-".join)
def test_every_combination_runs_and_learns(architecture):
    """Every other one, so that all combinations of all flags but any one are there."""
    draw = random.Random(str(architecture))
    every = {**ARCHITECTURES, **DETAILS}
    for detail in itertools.product(*DETAILS.values()):
        if sum(every[name].index(value) for name, value in zip(every, architecture + detail, strict=True)) % 2:
            continue
        flags = dict(zip(ARCHITECTURES, architecture, strict=True)) | dict(zip(DETAILS, detail, strict=True))
        flags |= {name: draw.choice(values) for name, values in DRAWN.items()}
        design, batch = TINY.replace(**flags), draw.choice(BATCHES)
        if design.norm == "batch" and (design.separate_downsample or design.fewer_activations):
            # Averaging right after a BatchNorm leaves nothing of a lone image: rightly no gradients, so take two.
            batch = (max(2, batch[0]), *batch[1:])
        # Without stochastic depth, which would rightly leave a dropped branch without gradients.
        network = randomize(RoadmapNet(design.replace(stochastic_depth=0.0)).double())
        x = images(design, *batch)

        # Evaluated with fixed statistics every parameter matters. In training BatchNorm takes away a constant that
        # was added before it, so that a bias in front of it may have no influence; nothing else may lack it.
        without = vanishing(gradients(network, x, train=True))
        if design.norm == "layer":
            assert not without, flags
        else:
            assert all(name.endswith("bias") for name in without), (flags, without)
            assert not vanishing(gradients(network, x, train=False)), flags
        assert not any(name.startswith("head.fc") for name in without)

        network = RoadmapNet(design).double().train()
        logits = network(x)
        assert logits.shape == (batch[0], design.num_classes) and logits.isfinite().all(), flags
        sizes = list(zip(design.feature_sizes(batch[1]), design.feature_sizes(batch[2]), strict=True))
        _, features = network.forward_intermediates(x)
        shapes = [tuple(feature.shape) for feature in features]
        channels = [design.output_width(width) for width in design.widths]
        assert shapes == [(batch[0], c, *size) for c, size in zip(channels, sizes[1:], strict=True)], flags


BLOCKS = ["0.blocks.0", "1.blocks.0", "2.blocks.0", "2.blocks.1", "2.blocks.2", "3.blocks.0"]
#: What BatchNorm makes idle on the ladder: the bias of the patchify stem where only 1x1 convolution and norm follow on
#: both branches, and the bias of a norm that is followed by a 1x1 convolution and the next norm.
IDLE = {
    "patchify_stem": {"stem.conv.bias"},
    "depthwise_conv": {"stem.conv.bias"},
    "increase_width": {"stem.conv.bias"},
    "fewer_activations": {f"stages.{block}.norm1.bias" for block in BLOCKS},
}
SMALL = roadmap.ladder().scaled(width=8, depth=1 / 3, num_classes=5)


@pytest.mark.parametrize("step", SMALL.names)
def test_parameters_without_influence_in_training(step):
    network = randomize(RoadmapNet(SMALL[step].design).double())
    x = images(SMALL[step].design, 3, 70, 97)
    assert vanishing(gradients(network, x, train=True)) == IDLE.get(step, set())
    assert vanishing(gradients(network, x, train=False)) == set()


@pytest.mark.parametrize("step", SMALL.names)
@pytest.mark.parametrize("scale", [None, 1e-6])
def test_fresh_rung_learns(step, scale):
    """From its own initialisation, not from weights that the test chose."""
    torch.manual_seed(0)
    network = RoadmapNet(SMALL[step].design.replace(layer_scale=scale)).double()
    found = gradients(network, images(SMALL[step].design, 2, 64, 96), train=True)
    assert all(found[name].abs().max() > 0 for name in found)
    assert found["stem.conv.weight"].abs().max() > ZERO


FLAGS = [
    {"blocks": (1, 1)},
    {"widths": (8, 24)},
    {"stem": "patchify"},
    {"stem_stride": 1},
    {"stem_stride": 2},
    {"groups": 4},
    {"groups": "depthwise"},
    {"block": "inverted"},
    {"expansion": 2},
    {"spatial_position": "first"},
    {"kernel_size": 5},
    {"activation": "gelu"},
    {"activation": "silu"},
    {"fewer_activations": True},
    {"fewer_norms": True},
    {"norm": "layer"},
    {"separate_downsample": True},
    {"layer_scale": 1e-6},
    {"layer_scale": 0.1},
    {"in_channels": 1},
    {"num_classes": 0},
    {"stem": "resnet"},
    {"groups": 1},
    {"block": "bottleneck"},
    {"spatial_position": "middle"},
    {"kernel_size": 3},
    {"activation": "relu"},
    {"fewer_activations": False},
    {"fewer_norms": False},
    {"norm": "batch"},
    {"separate_downsample": False},
]


@pytest.mark.parametrize(
    ("base", "flags"),
    [(base, flags) for base in (TINY, TINY_CONVNEXT) for flags in FLAGS if base.replace(**flags) != base],
    ids=str,
)
def test_each_flag_changes_the_network(base, flags):
    changed = base.replace(**flags)
    before, after = randomize(RoadmapNet(base).double()), RoadmapNet(changed).double().eval()
    shapes = [{name: tensor.shape for name, tensor in net.state_dict().items()} for net in (before, after)]
    if shapes[0] == shapes[1]:
        after.load_state_dict(before.state_dict())
        with torch.no_grad():
            x = images(base, 2, 64, 64)
            assert not torch.allclose(before(x), after(x), rtol=1e-3)


def test_the_last_layer_may_be_left_out():
    network = RoadmapNet(TINY.replace(num_classes=0))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
    assert not any(name.startswith("head") for name in network.state_dict())


def runs(network: nn.Module, height: int, width: int) -> list[tuple[int, int]] | None:
    """Height and width after the stem and after each stage of the real network; None where torch refuses."""
    try:
        x = network.stem(torch.empty(2, 3, height, width, device="meta"))
        sizes = [tuple(x.shape[2:])]
        for stage in network.stages:
            x = stage(x)
            sizes.append(tuple(x.shape[2:]))
        return sizes if min(map(min, sizes)) else None  # torch 2.5 lets maps without positions pass on this device
    except RuntimeError:
        return None


@pytest.mark.parametrize("stem", ["resnet", "patchify"])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("separate", [False, True])
def test_feature_sizes_are_the_networks(stem, stride, separate):
    design = Design(
        blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4), stem=stem, stem_stride=stride, separate_downsample=separate,
        kernel_size=1 if (stem == "patchify") == separate else 7,
    )  # fmt: skip
    with torch.device("meta"):
        network = RoadmapNet(design).eval()
    refused = []
    for size in (*range(1, 32), 35, 97, 224, 255):
        real = runs(network, size, 64)
        if real is None:
            refused.append(size)
            with pytest.raises(RoadmapError, match=f"an image of {size} pixels"):
                design.feature_sizes(size)
        else:
            assert list(zip(design.feature_sizes(size), design.feature_sizes(64), strict=True)) == real
    least = (stride if stem == "patchify" else 1) * (8 if separate and stem == "patchify" else 1)
    if separate and stem == "resnet":
        least = 7 * stride + 1  # rounded up thrice: the smallest with 8 positions left
    assert refused == list(range(1, least))
    with pytest.raises(RoadmapError):
        design.feature_sizes(0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"blocks": ()}, "blocks"),
        ({"blocks": 3}, "must be a list of whole numbers"),
        ({"blocks": (3, 0, 1, 1)}, "blocks is 0, but must be at least 1"),
        ({"blocks": (3, 4, 6, 3.0)}, "whole number"),
        ({"blocks": (True, 1, 1, 1)}, "whole number"),
        ({"blocks": "3333"}, "must be a list"),
        ({"blocks": (3, 4, 6)}, "must have one number a stage each"),
        ({"widths": (64, 128, 256, -1)}, "widths is -1"),
        ({"stem": "patch"}, "did you mean 'patchify'"),
        ({"stem": None}, "must be one of resnet, patchify"),
        ({"stem_stride": 3}, "must be one of 1, 2, 4"),
        ({"stem_stride": True}, "stem_stride is True"),
        ({"stem_stride": 4.0}, "stem_stride is 4.0"),
        ({"groups": 0}, "groups is 0"),
        ({"groups": 7}, "groups 7 does not divide the 64 channels"),
        ({"groups": "depth"}, "'depthwise'"),
        ({"groups": 2.0}, "whole number"),
        ({"groups": None}, "whole number"),
        ({"block": "inverse"}, "inverted"),
        ({"expansion": 0}, "expansion is 0"),
        ({"expansion": 2.5}, "whole number"),
        ({"spatial_position": "last"}, "must be one of middle, first"),
        ({"kernel_size": 4}, "must be odd"),
        ({"kernel_size": 0}, "at least 1"),
        ({"kernel_size": "7"}, "whole number"),
        ({"activation": "gelo"}, "did you mean 'gelu'"),
        ({"fewer_activations": 1}, "must be true or false"),
        ({"fewer_norms": "yes"}, "must be true or false"),
        ({"norm": "instance"}, "must be one of batch, layer"),
        ({"separate_downsample": None}, "must be true or false"),
        ({"layer_scale": -1e-6}, "layer_scale"),
        ({"layer_scale": float("nan")}, "finite"),
        ({"layer_scale": True}, "finite number"),
        ({"stochastic_depth": 1.0}, "must be below 1"),
        ({"stochastic_depth": -0.1}, "between 0.0 and 1.0"),
        ({"stochastic_depth": float("inf")}, "finite"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"num_classes": -1}, "num_classes is -1"),
    ],
    ids=str,
)
def test_invalid_flags(flags, words):
    with pytest.raises(RoadmapError) as caught:
        Design(**flags)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_flags_are_told_with_the_nearest():
    with pytest.raises(RoadmapError, match="did you mean 'kernel_size'"):
        Design().replace(kernelsize=7)


def test_lists_become_tuples_so_that_designs_compare_and_hash():
    design = Design(blocks=[3, 4, 6, 3], widths=[64, 128, 256, 512])
    assert design == Design() and hash(design) == hash(Design())


def test_stochastic_depth_is_linear_over_the_blocks():
    design = Design(blocks=(3, 3, 9, 3), stochastic_depth=0.34)
    assert [len(stage) for stage in design.stochastic_depths()] == [3, 3, 9, 3]
    rates = [rate for stage in design.stochastic_depths() for rate in stage]
    assert rates == pytest.approx([0.02 * index for index in range(18)])
    with torch.device("meta"):
        network = RoadmapNet(design)
    built = [getattr(block.drop_path, "drop_prob", 0.0) for stage in network.stages for block in stage.blocks]
    assert built == pytest.approx(rates)
    assert Design(blocks=(1,), widths=(8,), stochastic_depth=0.5).stochastic_depths() == [[0.0]]


def test_stochastic_depth_drops_residual_branches_in_training_only():
    design = TINY_CONVNEXT.replace(blocks=(1, 1), stochastic_depth=0.75)
    network = randomize(RoadmapNet(design).double())
    plain = RoadmapNet(design.replace(stochastic_depth=0.0)).double().eval()
    plain.load_state_dict(network.state_dict())
    x = images(design, 1, 32, 32).expand(600, -1, -1, -1)
    torch.manual_seed(0)
    with torch.no_grad():
        kept_always = network.forward_features(x[:1])
        assert torch.equal(network(x[:1]), plain(x[:1]))
        features = network.train().forward_features(x)
        shortcut = network.stages[1].downsample(network.stages[0](network.stem(x[:1])))
    dropped = torch.isclose(features, shortcut).flatten(1).all(dim=1)
    assert 0.70 < dropped.double().mean() < 0.80
    expected = shortcut + (kept_always - shortcut) / 0.25  # so that the mean over runs is the evaluation's
    torch.testing.assert_close(features[~dropped], expected.expand_as(features[~dropped]))


@pytest.mark.parametrize("train", [False, True])
def test_layer_norm_is_over_the_channels_of_one_position(train):
    """With 1x1 kernels an output position sees its own patch only, unless a norm mixes positions or images."""
    design = TINY_CONVNEXT.replace(kernel_size=1)  # stride 8: each output position has a patch of 8 x 8 pixels
    x = images(design, 2, 32, 40)
    changed = x.clone()
    changed[1, :, 16:24, 8:16] += 3.0
    network = randomize(RoadmapNet(design).double()).train(train)
    with torch.no_grad():
        differs = (network.forward_features(x) != network.forward_features(changed)).any(dim=1)
    assert differs.nonzero().tolist() == [[1, 2, 1]]

    batch_norm = randomize(RoadmapNet(design.replace(norm="batch")).double()).train(train)
    with torch.no_grad():
        differs = (batch_norm.forward_features(x) != batch_norm.forward_features(changed)).any(dim=1)
    assert differs.all() if train else differs.sum() == 1


def test_layer_scale_multiplies_the_residual_branch():
    with_scale = randomize(RoadmapNet(TINY_CONVNEXT.replace(layer_scale=1e-6)).double())
    for value in (0.0, 1.0):
        for name, parameter in with_scale.named_parameters():
            if name.endswith("gamma"):
                parameter.data.fill_(value)
        plain = RoadmapNet(TINY_CONVNEXT).double().eval()
        weights = {name: tensor for name, tensor in with_scale.state_dict().items() if not name.endswith("gamma")}
        if value == 0.0:  # a branch that puts out nothing
            weights = {name: tensor * (".conv3." not in name) for name, tensor in weights.items()}
        plain.load_state_dict(weights)
        x = images(TINY_CONVNEXT, 2, 32, 32)
        torch.testing.assert_close(with_scale(x), plain(x))


def test_layer_scale_starts_at_its_value():
    network = RoadmapNet(TINY_CONVNEXT.replace(layer_scale=1e-6))
    gammas = [parameter for name, parameter in network.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 3
    assert all((gamma == 1e-6).all() for gamma in gammas)


@pytest.mark.parametrize("step", ["resnet50", "fewer_norms", "separate_downsample"])
def test_copies_are_equal_and_independent(step):
    network = randomize(RoadmapNet(SMALL[step].design))
    x = images(SMALL[step].design, 2, 64, 64).float()
    copied, loaded = copy.deepcopy(network), RoadmapNet(SMALL[step].design).eval()
    loaded.load_state_dict(network.state_dict())
    with torch.no_grad():
        logits = network(x)
        assert torch.equal(copied(x), logits) and torch.equal(loaded(x), logits)
        copied.stem.conv.weight.zero_()
        assert torch.equal(network(x), logits) and not torch.equal(copied(x), logits)


@pytest.mark.parametrize("step", SMALL.names)
def test_single_and_double_precision_agree(step):
    network = randomize(RoadmapNet(SMALL[step].design))
    x = images(SMALL[step].design, 2, 64, 64)
    with torch.no_grad():
        single = network(x.float())
        double = network.double()(x)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step", ["resnet50", "increase_width", "separate_downsample"])
def test_channels_last_gives_the_same(step):
    network = randomize(RoadmapNet(SMALL[step].design).double())
    x = images(SMALL[step].design, 2, 64, 64)
    with torch.no_grad():
        expected = network(x)
        found = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", ["resnet50", "inverted_bottleneck", "separate_downsample"])
def test_large_products_are_the_convolution(step, monkeypatch):
    """Forward and backward, as a matrix product and as a convolution."""
    network = roadmap.build(step, widths=(8, 16, 24, 32), blocks=(1, 1, 1, 1), num_classes=5).double()
    network = network.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    results = []
    for least in (0, 2**62):
        monkeypatch.setattr(pointwise, "LARGE_PRODUCT", least)
        network.zero_grad()
        logits = network(images)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in network.parameters())])
    for one, two in zip(*results, strict=True):
        assert torch.allclose(one, two, atol=1e-10)
