"""The published networks are what timm builds, or where timm has none, what their description says."""

from __future__ import annotations

import pytest
import timm
import torch
from independent import Isotropic
from torch import nn

import roadmap
from roadmap import RoadmapError
from roadmap.cost.counting import count
from roadmap.ladders.family import FAMILY, design
from roadmap.network.model import RoadmapNet
from roadmap.network.weights import to_timm

ISOTROPIC = [name for name in FAMILY if "isotropic" in name]


def filled(name: str) -> RoadmapNet:
    """The network without its own initialisation, which takes long, but with numbers that matter everywhere."""
    with torch.device("meta"):
        network = RoadmapNet(design(name))
    network.to_empty(device="cpu")
    numbers = torch.randn(2**16 + 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for place, (path, tensor) in enumerate(network.state_dict().items()):
            repeated = (
                numbers.roll(101 * place)
                .repeat(-(-tensor.numel() // len(numbers)))[: tensor.numel()]
                .view(tensor.shape)
            )
            if path.endswith("running_var"):
                repeated = 0.5 + repeated.abs()
            elif tensor.ndim > 1:
                repeated = repeated / tensor[0].numel() ** 0.5
            elif path.endswith("weight"):
                repeated = 1 + 0.2 * repeated
            elif path.endswith("gamma"):
                repeated = 0.5 + 0.2 * repeated
            else:
                repeated = 0.2 * repeated
            tensor.copy_(repeated)
    return network.eval()


def logits(network: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return network(images)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = expected.abs().max()
    assert found.isfinite().all() and (found[0] - found[1]).abs().max() > 1e-2 * scale  # the images do matter
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAMILY if name not in ISOTROPIC])
def test_the_network_is_timms(name):
    with torch.device("meta"):
        theirs = timm.create_model(name).eval()
    ours = filled(name)
    theirs.load_state_dict(to_timm(ours), strict=True, assign=True)  # every name and shape, and one memory for both
    assert_same(logits(ours), logits(theirs))


@pytest.mark.parametrize("name", ISOTROPIC)
def test_isotropic_networks_are_what_the_paper_describes(name):
    depth, width = {"small": (18, 384), "base": (18, 768), "large": (36, 1024)}[name.rpartition("_")[2]]
    network = filled(name)
    reference = Isotropic(depth, width, network.state_dict())
    assert_same(logits(network), logits(reference))
    assert reference.used == set(network.state_dict())


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("convnext_isotropic_small", 22, 4.3),  # Table 2
        ("convnext_isotropic_base", 87, 16.9),
        ("convnext_isotropic_large", 306, 59.7),
        ("convnext_tiny", 29, 4.5),  # Table 1, and those below
        ("convnext_small", 50, 8.7),
        ("convnext_base", 89, 15.4),
        ("convnext_large", 198, 34.4),
        ("convnext_xlarge", 350, 60.9),
    ],
)
def test_sizes_are_the_papers(name, params, gmacs):
    cost = count(design(name), 224)
    assert (round(cost.params / 1e6), round(cost.gmacs, 1)) == (params, gmacs)


def test_ends_of_the_ladder_are_in_the_family():
    for regime, end in (("resnet50", "convnext_tiny"), ("resnet200", "convnext_base")):
        ladder = roadmap.ladder(regime)
        assert ladder[regime].design == design(regime)
        assert ladder["separate_downsample"].design.replace(layer_scale=1e-6, stochastic_depth=0.0) == design(end)


def test_a_name_that_is_not_there():
    with pytest.raises(RoadmapError, match="unknown network 'convnext_tinny'.*did you mean 'convnext_tiny'"):
        design("convnext_tinny")
