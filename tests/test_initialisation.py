"""A seed makes the weights that torch draws for the network's modules one after the other, plug-in layers included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import roadmap
from roadmap.network import layers
from roadmap.network.layers import layer, site_of
from roadmap.network.model import RoadmapNet

SMALL = {"widths": (8, 16), "blocks": (1, 2), "num_classes": 5}
LAYERS = [[], ["se"], ["grn", "resnet_d_stem", "replknet_kernels"], ["drawn_norm", "se"], ["drawn_activation"]]


@pytest.fixture(autouse=True)
def drawing(monkeypatch):
    """A norm and an activation that draw random numbers."""
    layers.load_installed()
    monkeypatch.setattr(layers, "_layers", dict(layers._layers))

    @layer("drawn_norm", "norm", "x")
    def norm(site):
        module = nn.GroupNorm(1, site.incoming)
        nn.init.normal_(module.weight)
        return module

    @layer("drawn_activation", "activation", "x")
    def activation(site):
        module = nn.PReLU(site.incoming)
        nn.init.normal_(module.weight)
        return module


def drawn_in_turn(network: RoadmapNet) -> dict[str, torch.Tensor]:
    """The weights that are drawn for modules like a network's: each as torch makes it, or as its layer builds it, and
    then the network's own convolutions anew, by He's formula."""
    plugged = {name: site for name, module in network.named_modules() if (site := site_of(module))}
    own = {name: module for name, module in network.named_modules() if not name.startswith(tuple(plugged))}
    order = [name for name in dict(network.named_modules()) if name in own or name in plugged]
    order.sort(key=lambda name: name == "head.norm")  # which is made behind the classifier
    made: dict[str, nn.Module] = {}
    for name in order:
        if name in plugged and not any(name.startswith(f"{outer}.") for outer in plugged):
            made[name] = layers.find_layer(plugged[name].layer).build(plugged[name])
        elif isinstance(own.get(name), nn.Conv2d):
            old = own[name]
            made[name] = nn.Conv2d(
                old.in_channels, old.out_channels, old.kernel_size, groups=old.groups, bias=old.bias is not None
            )
        elif isinstance(own.get(name), nn.Linear):
            made[name] = nn.Linear(own[name].in_features, own[name].out_features)
    found = {f"{name}.{key}": tensor for name, module in made.items() for key, tensor in module.state_dict().items()}
    for name in own:
        if isinstance(own[name], nn.Conv2d):
            weight = found[f"{name}.weight"]
            fan_out = weight[0, 0].numel() * weight.shape[0]
            found[f"{name}.weight"] = torch.empty_like(weight).normal_(0.0, (2 / fan_out) ** 0.5)
            found |= {f"{name}.bias": torch.zeros(len(weight))} if own[name].bias is not None else {}
    return found


@pytest.mark.parametrize("names", LAYERS, ids="+".join)
@pytest.mark.parametrize("step", ["resnet50", "inverted_bottleneck", "layer_norm", "separate_downsample"])
def test_random_numbers_are_drawn_in_the_order_of_the_modules(step, names):
    torch.manual_seed(3)
    network = roadmap.build(step, layers=names, **SMALL)
    after = torch.rand(4)
    torch.manual_seed(3)
    expected = drawn_in_turn(network)
    assert torch.equal(torch.rand(4), after)
    state = network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    rest = {name: tensor for name, tensor in state.items() if name not in expected}
    assert all(bool(((tensor == 0) | (tensor == 1)).all()) for tensor in rest.values()), "norms start at one and zero"


@pytest.mark.parametrize("names", [[], ["se", "grn"]], ids="+".join)
def test_a_network_is_built_where_torch_is_told_to(names):
    with torch.device("meta"):
        shape = roadmap.build("separate_downsample", layers=names, **SMALL)
    assert all(tensor.is_meta for tensor in shape.state_dict().values())
    torch.set_default_dtype(torch.float64)
    try:
        double = roadmap.build("separate_downsample", layers=names, **SMALL)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in double.parameters()} == {torch.float64}
    assert not any(tensor.is_meta for tensor in double.state_dict().values())
    assert {name: t.shape for name, t in double.state_dict().items()} == {
        name: t.shape for name, t in shape.state_dict().items()
    }


def test_a_layer_named_like_a_part_of_the_stem_is_refused():
    @layer("norm_out", "stem", "x")
    def stem(site):
        return nn.Conv2d(site.incoming, site.outgoing, 4, 4)

    with pytest.raises(roadmap.RoadmapError, match="the layer 'norm_out' has no place 'stem' in this network"):
        roadmap.build("separate_downsample", layers=["norm_out"], **SMALL)
