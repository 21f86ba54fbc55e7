"""Multiply-accumulates, parameters and activations of a network, counted with fvcore."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

from roadmap.network.design import Design
from roadmap.network.model import RoadmapNet

#: fvcore's names of the operators that the paper's "GFLOPs" count.
COUNTED_OPERATORS = ("conv", "linear")
#: One sentence that stands wherever a figure is shown.
CONVENTION = (
    "GMACs: multiply-accumulates of convolution and linear layers for one image, in 1e9 (the paper's 'GFLOPs'); "
    "norms and activations are not counted"
)


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass of one image.

    ``gmacs``: multiply-accumulates of convolution and linear layers, in 1e9. ``macs_by_operator``: fvcore's count of
    every operator it knows, in 1 (norms and pooling by fvcore's own rules). ``activations``: outputs of convolution
    and linear layers, in 1.
    """

    image_size: tuple[int, int]
    gmacs: float
    params: int
    activations: int
    macs_by_operator: dict[str, int]


@lru_cache(maxsize=256)
def count(design: Design, image_size: int | tuple[int, int] = 224) -> Cost:
    """Count the cost of a design for images of ``image_size`` pixels (a side, or height and width).

    Raises `RoadmapError` where the strides reduce that size to nothing.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    for side in size:
        design.feature_sizes(side)
    # On the meta device nothing is initialised, but fvcore cannot trace there: give the parameters memory, unset.
    with torch.device("meta"):
        network = RoadmapNet(design)
    network.to_empty(device="cpu").eval()
    image = torch.zeros(1, design.in_channels, *size)
    macs = FlopCountAnalysis(network, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    outputs = ActivationCountAnalysis(network, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        by_operator = {name: int(number) for name, number in macs.by_operator().items()}
        activations = int(outputs.total())
    return Cost(
        image_size=size,
        gmacs=sum(by_operator.get(name, 0) for name in COUNTED_OPERATORS) / 1e9,
        params=sum(parameter.numel() for parameter in network.parameters()),
        activations=activations,
        macs_by_operator=by_operator,
    )
