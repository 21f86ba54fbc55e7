"""The cost of a network as fvcore counts it in a trace: half a second and more for each."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from roadmap.cost.cost import Cost
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


def trace(design: NetworkDesign, size: tuple[int, int]) -> Cost:
    """The cost of a design for images of ``size`` (height and width in pixels). Raises `RoadmapError` as `count`."""
    return _trace(design, size, tuple(find_layer(name) for name, _ in design.layers))


@lru_cache(maxsize=256)
def _trace(design: NetworkDesign, size: tuple[int, int], plugged: tuple[Layer, ...]) -> Cost:
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


_ACTIVATIONS = "outputs of convolution and linear layers"


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """softmax(q k^T) v, with q (..., L, E), k (..., S, E), v (..., S, F): two matrix products."""
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _with_activations(name: str, macs: Callable[..., Any]) -> Callable[..., Counter]:
    """fvcore's rules for an operator and for its activations in one, because tracing a network takes long."""
    outputs_of = generic_activation_jit()
    return lambda inputs, outputs: Counter({name: macs(inputs, outputs), _ACTIVATIONS: outputs_of(inputs, outputs)})
