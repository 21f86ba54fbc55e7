"""Plug-in layers at their places: a network that has been built without them gets those of its design."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import nn

from roadmap.network.design import Design
from roadmap.network.layers import ADDED, PLACES, NoPlaceError, Site, check_places, find_layer, layers_at, site_of

#: Places that are modules of their own name, where the network has something there.
NAMED = ("stem", "downsample", "shortcut", *ADDED)


def apply_layers(network: nn.Module, design: Design) -> None:
    """Turn a network that was built on torch's meta device, without plug-in layers, into the one of its design, in
    place: layers are built where they stand, and all other modules get memory and torch's default initialisation.

    Both happen in one walk through the modules, because random numbers are drawn in its order: what a layer replaces
    draws none, and what lies behind a layer draws after it. Raises `RoadmapError` for layers that are unknown, fail,
    replace the same or have no place in this network.
    """
    check_places(design)
    device = torch.empty(0).device  # the default one
    _filled(network, "", {site.path: site for site in places_of(network, design)}, device)
    standing = {site.layer for site in map(site_of, network.modules()) if site is not None}
    for name, _ in design.layers:
        if name not in standing:
            place = find_layer(name).place
            raise NoPlaceError(f"the layer '{name}' has no place '{place}' in this network: {PLACES[place]}")


def places_of(network: nn.Module, design: Design) -> Iterator[Site]:
    """Every place of a network without plug-in layers, in the order of its modules, whose names and sizes tell it."""
    places = {name: name for name in NAMED}
    places["conv1" if design.spatial_position == "first" else "conv2"] = "spatial"
    channels = design.in_channels  # of what passes the module
    for path, module in network.named_modules():
        where: dict[str, Any] = {"path": path, "stage": _number(path, "stages"), "block": _number(path, "blocks")}
        place = places.get(path.rpartition(".")[2])
        convolution = next((one for one in module.modules() if isinstance(one, nn.Conv2d)), None)
        if place in ADDED:
            yield Site(design, place, channels, channels, **where)
        elif place is not None and convolution is not None:
            incoming, outgoing = convolution.in_channels, convolution.out_channels
            stride = design.stem_stride if place == "stem" else convolution.stride[0]
            where |= {"kernel_size": convolution.kernel_size[0], "groups": convolution.groups}
            yield Site(design, place, incoming, outgoing, stride, bias=convolution.bias is not None, **where)
        elif isinstance(module, (nn.BatchNorm2d, LayerNorm2d)):
            yield Site(design, "norm", channels, channels, **where)
        elif isinstance(module, (nn.ReLU, nn.GELU, nn.SiLU)):
            yield Site(design, "activation", channels, channels, **where)
        if convolution is module:
            channels = convolution.out_channels


def _number(path: str, word: str) -> int | None:
    """The number behind a word in a module's name."""
    found = re.search(rf"\b{word}\.(\d+)", path)
    return int(found[1]) if found else None


def _filled(module: nn.Module, path: str, sites: Mapping[str, Site], device: torch.device) -> nn.Module:
    """The layer that replaces a module; else the module, with memory, initialised, and all within it filled. On the
    meta device there is neither."""
    site = sites.get(path)
    layers = layers_at(site) if site else {}
    if site and layers and site.place not in ("stem", *ADDED):
        return next(iter(layers.values()))
    if layers:  # they stand within the module, under their names, and a norm of separate_downsample follows
        kept = {name: child for name, child in module.named_children() if name == "norm_out"}
        module = nn.Sequential(OrderedDict({**layers, **kept}))
    elif device.type != "meta" and (reset := getattr(module, "reset_parameters", None)):
        module.to_empty(device=device, recurse=False)
        reset()
    plain = [(f"{path}.{name}".lstrip("."), name, child) for name, child in module.named_children()]
    # The head's norm draws last, behind the classifier that it stands before.
    for inner, name, child in sorted(plain, key=lambda each: each[0] == "head.norm"):
        if site_of(child) is None:
            module.add_module(name, _filled(child, inner, sites, device))
    return module
