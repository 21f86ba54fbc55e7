"""What the network has besides convolutions: norms, activations, and the factor on a residual branch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from roadmap.network.design import Design

LAYER_NORM_EPSILON = 1e-6  # the released ConvNeXt code's
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": partial(LayerNorm2d, eps=LAYER_NORM_EPSILON),
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def norm_layer(design: Design, channels: int) -> nn.Module:
    """The design's norm over (N, channels, H, W). LayerNorm is over the channels of each position, never over H, W."""
    return NORMS[design.norm](channels)


def activation_layer(design: Design) -> nn.Module:
    """A fresh activation of the design's kind, for tensors of any shape."""
    return ACTIVATIONS[design.activation]()


class LayerScale(nn.Module):
    """Multiplies each channel of (N, C, H, W) by a learned factor, at first ``value``."""

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.value = float(value)
        self.gamma = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set all factors to what they start from."""
        nn.init.constant_(self.gamma, self.value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(-1, 1, 1)
