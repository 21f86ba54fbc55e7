"""Multiply-accumulates, parameters and activations of a network, counted with fvcore."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from roadmap.network.building import build_network
from roadmap.network.families import NetworkDesign
from roadmap.network.layers import Layer, find_layer
from roadmap.processes import one_thread

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")  # what torch has deprecated
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import conv_flop_jit, generic_activation_jit, linear_flop_jit

#: The layers that the paper's "GFLOPs" count: torch's name, fvcore's name, fvcore's rule.
COUNTED_LAYERS = {
    "aten::_convolution": ("conv", lambda inputs, outputs: conv_flop_jit(inputs, outputs)["conv"]),
    "aten::linear": ("linear", linear_flop_jit),
}
#: The matrix products that it counts besides, those of attention: fvcore's names, with its own rules but for the last.
COUNTED_PRODUCTS = ("matmul", "mm", "bmm", "addmm", "einsum", "scaled_dot_product_attention")
#: One sentence that stands wherever a figure is shown.
CONVENTION = (
    "GMACs: multiply-accumulates of convolution and linear layers, and of attention, for one image, in 1e9 (the "
    "paper's 'GFLOPs'); norms and activations are not counted"
)


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass of one image.

    ``gmacs``: multiply-accumulates of convolution and linear layers, and of attention's matrix products, in 1e9.
    ``macs_by_operator``: fvcore's count of every operator it knows, in 1 (norms and pooling by fvcore's own rules).
    ``activations``: outputs of convolution and linear layers, in 1. ``backbone``:
    where a task's head stands on a backbone, ``backbone_gmacs`` and ``backbone_params``.
    """

    image_size: tuple[int, int]
    gmacs: float
    params: int
    activations: int
    macs_by_operator: dict[str, int]
    backbone: dict[str, Any] | None = None


def count(design: NetworkDesign, image_size: int | tuple[int, int] = 224) -> Cost:
    """Count the cost of a design for images of ``image_size`` pixels (a side, or height and width).

    Raises `RoadmapError` where the strides reduce that size to nothing, and where a timm model does not take it.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    plugged = tuple(find_layer(name) for name, _ in design.layers)
    return _count(design, size, plugged)


@lru_cache(maxsize=256)
def _count(design: NetworkDesign, size: tuple[int, int], plugged: tuple[Layer, ...]) -> Cost:
    """``plugged``: the layers that stand behind their names now; a plug-in file may be loaded anew."""
    for side in size:
        design.feature_sizes(side)
    # On the meta device nothing is initialised, but fvcore cannot trace there: lend all parameters one piece of memory.
    with torch.device("meta"):
        network = build_network(design).eval()
    memory = torch.zeros(max(parameter.numel() for parameter in network.parameters()))
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            lent = memory[: parameter.numel()].view(parameter.shape)
            module.register_parameter(name, nn.Parameter(lent, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    analysis = FlopCountAnalysis(network, torch.zeros(1, design.in_channels, *size))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle(**{name: _with_activations(*rule) for name, rule in COUNTED_LAYERS.items()})
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    # Most of a trace is Python: threads save a seventh at best, and on a busy machine wait for each other for long.
    with torch.no_grad(), one_thread():
        by_operator = {name: int(number) for name, number in analysis.by_operator().items()}
    activations = by_operator.pop(_ACTIVATIONS)
    counted = (*(name for name, _ in COUNTED_LAYERS.values()), *COUNTED_PRODUCTS)
    return Cost(
        image_size=size,
        gmacs=sum(by_operator.get(name, 0) for name in counted) / 1e9,
        params=sum(parameter.numel() for parameter in network.parameters()),
        activations=activations,
        macs_by_operator=by_operator,
    )


def count_params(design: NetworkDesign) -> int:
    """The parameters of a design's network, as `count` has them, in a tenth of its time."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(design).parameters())


_ACTIVATIONS = "outputs of convolution and linear layers"


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """softmax(q k^T) v, with q (..., L, E), k (..., S, E), v (..., S, F): two matrix products."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _with_activations(name: str, macs: Callable[..., Any]) -> Callable[..., Counter]:
    """fvcore's rules for an operator and for its activations in one, because tracing a network takes long."""
    outputs_of = generic_activation_jit()
    return lambda inputs, outputs: Counter({name: macs(inputs, outputs), _ACTIVATIONS: outputs_of(inputs, outputs)})
