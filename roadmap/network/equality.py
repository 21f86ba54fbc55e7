"""Designs that differ in their flags and make the very same network, as where a plug-in replaces what a flag sets."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from roadmap.network.design import Design
from roadmap.network.model import RoadmapNet


def unified(designs: Sequence[Design]) -> list[Design]:
    """Each design, or in its place the first of them that makes the same network.

    Networks are the same if they are made of the same modules, and, begun from one seed, have the same weights and give
    the same outputs, in training and in evaluation, bit for bit. Raises `RoadmapError` where one cannot be built.
    """
    found: dict[Design, Design] = {}
    alike: dict[str, list[Design]] = {}
    for design in dict.fromkeys(designs):
        with torch.device("meta"):
            modules = repr(RoadmapNet(design))
        others = alike.setdefault(modules, [])
        found[design] = next((other for other in others if _are_equal(design, other)), design)
        if found[design] == design:
            others.append(design)
    return [found[design] for design in designs]


def _are_equal(design: Design, other: Design) -> bool:
    if (design.in_channels, design.num_classes) != (other.in_channels, other.num_classes):
        return False
    side = 2 * max(one.stem_stride * 2 ** (len(one.blocks) - 1) for one in (design, other))
    seen = [_behaviour(one, side) for one in (design, other)]
    names, tensors = zip(*seen, strict=True)
    return names[0] == names[1] and all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def _behaviour(design: Design, side: int) -> tuple[list[str], list[torch.Tensor]]:
    """The names of all parameters and buffers; these, and what becomes of two images in training and evaluation."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = RoadmapNet(design)
        own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        images = torch.randn(2, design.in_channels, side, side)
        outputs = [network.train(training)(images) for training in (True, False)]
    return list(own), [*own.values(), *outputs]
