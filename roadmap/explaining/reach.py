"""Theoretical receptive fields, from the kernels, strides, paddings and dilations of a network's own modules.

The recurrences are those of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks",
Distill 2019 (doi 10.23915/distill.00021); where paths meet, the field is the union of theirs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from roadmap.checks import RoadmapError
from roadmap.network.layers import Layer, Site, find_layer, in_words, layers_at, site_of
from roadmap.network.model import Block, RoadmapNet
from roadmap.network.parts import LayerScale
from roadmap.processes import one_thread

#: Modules that see one position at a time, in evaluation.
POINTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Dropout,
    _BatchNorm,
    LayerNorm2d,
    LayerScale,
    DropPath,
)
#: The receptive field of a plug-in's module is searched within this many positions of its output.
POSITIONS = 128


@dataclass(frozen=True)
class Reach:
    """What output o depends on, along one axis: the inputs from ``o * stride + low`` to ``o * stride + high``.

    Both ends are infinite for what depends on the whole image.
    """

    low: float = 0
    high: float = 0
    stride: int = 1

    @property
    def size(self) -> int | None:
        """Inputs that one output depends on; None for the whole image."""
        size = self.high - self.low + 1
        return None if math.isinf(size) else int(size)

    def then(self, later: Reach) -> Reach:
        """Of two modules, one after the other."""
        low, high = (self.stride * end for end in (later.low, later.high))
        return Reach(self.low + low, self.high + high, self.stride * later.stride)

    def beside(self, other: Reach) -> Reach:
        """Of two modules with the same input, whose outputs are added."""
        return Reach(min(self.low, other.low), max(self.high, other.high), self.stride)


def receptive_fields(network: RoadmapNet) -> list[int | None]:
    """Side of the receptive field behind the stem and behind every stage, in pixels of the image, the longer one where
    height and width differ; None for the whole image. Fields may be larger than any image.

    What a plug-in layer's module sees follows from the convolutions and poolings that it is made of, where these stand
    one after the other; else it is tried out on a module of its own, see `_tried`.
    """
    sides = []
    for axis in (0, 1):
        reaches = [_of_plugged_or_own(network.stem, axis)]
        for stage in network.stages:
            parts = [_of_plugged_or_own(stage.downsample, axis), *(_of_block(block, axis) for block in stage.blocks)]  # type: ignore[union-attr, arg-type]
            reaches.append(reduce(Reach.then, parts, reaches[-1]))
        sides.append([reach.size for reach in reaches])
    return [longer(height, width) for height, width in zip(*sides, strict=True)]


def longer(height: int | None, width: int | None) -> int | None:
    """The longer of two sides, None being the whole image."""
    return None if height is None or width is None else max(height, width)


def seen_by(module: nn.Module) -> int | None:
    """Side of what one output of a plug-in's module depends on, in positions of its input; None for all of it."""
    return longer(_of_plugged_or_own(module, 0).size, _of_plugged_or_own(module, 1).size)


def _of_block(block: Block, axis: int) -> Reach:
    branch = [
        block.conv1,
        block.norm1,
        block.act1,
        block.conv2,
        block.norm2,
        block.act2,
        block.hidden,
        block.conv3,
        block.norm3,
        block.branch,
        block.layer_scale,
        block.drop_path,
    ]
    reach = _of_all(branch, axis).beside(_of_plugged_or_own(block.shortcut, axis))
    return reach.then(_of_plugged_or_own(block.act3, axis))


def _of_all(modules: Iterable[nn.Module], axis: int) -> Reach:
    return reduce(Reach.then, (_of_plugged_or_own(module, axis) for module in modules), Reach())


def _of_plugged_or_own(module: nn.Module, axis: int) -> Reach:
    """What a module sees, its inner modules being known, from a plug-in, or one after the other."""
    known = _by_formula(module, axis)
    if known is not None:
        return known
    site = site_of(module)
    if site is not None:
        return _tried(site, axis, find_layer(site.layer))
    return _of_all(module.children(), axis)


def _by_formula(module: nn.Module, axis: int) -> Reach | None:
    """What a module sees, from its kernel, stride, padding and dilation; None where these do not tell."""
    if isinstance(module, POINTWISE):
        return Reach()
    if type(module) is nn.Sequential:
        parts = [_by_formula(child, axis) for child in module]
        known = [part for part in parts if part is not None]
        return reduce(Reach.then, known, Reach()) if len(known) == len(parts) else None
    if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return None
    kernel, stride, dilation = (
        _along(getattr(module, name, 1), axis) for name in ("kernel_size", "stride", "dilation")
    )
    span = dilation * (kernel - 1)
    padding = module.padding
    before = {"same": span // 2, "valid": 0}[padding] if isinstance(padding, str) else _along(padding, axis)
    return Reach(-before, span - before, stride)


def _along(value: Any, axis: int) -> int:
    return value[axis] if isinstance(value, (tuple, list)) else value


@lru_cache(maxsize=1024)
def _tried(site: Site, axis: int, layer: Layer) -> Reach:
    """What a plug-in's module sees: the outputs that become NaN where one input is, whatever the weights.

    Convolutions are computed one product at a time: faster algorithms let an input reach outputs that do not depend on
    it. They are so small that a second thread only waits: a 31x31 one took 14 s with four on a busy machine, and 0.03 s
    with one. ``layer`` is what stands behind the site's name now; a plug-in file may be loaded anew.
    """
    stride, middle = site.stride, POSITIONS // 2 * site.stride
    module = layers_at(site)[site.layer].eval()
    size = [4 * stride, 4 * stride]
    size[axis] = POSITIONS * stride
    images = torch.ones(stride, site.incoming, *size)
    for index in range(stride):  # one image for every place that an input can have within a stride
        images.select(2 + axis, middle + index)[index] = math.nan
    with warnings.catch_warnings(), torch.no_grad(), one_thread():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.backends")  # flags of other machines
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
            try:
                touched = module(images).isnan().any(dim=1).any(dim=2 - axis)  # (stride, outputs along the axis)
            except Exception as error:
                raise RoadmapError(f"{site} fails at {size[0]}x{size[1]} positions: {in_words(error)}") from error
    if touched[:, 0].any() and touched[:, -1].any():
        return Reach(-math.inf, math.inf, stride)
    if not touched.any():  # what turns NaN into a number, such as a comparison, is taken to see its own position
        return Reach(stride=stride)
    offsets = [middle + index - stride * output for index, output in touched.nonzero().tolist()]
    return Reach(min(offsets), max(offsets), stride)
