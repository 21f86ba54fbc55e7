"""The cost of networks around a backbone, counted by torch on its meta device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from roadmap.cost.counting import Cost
from roadmap.network.building import design_of


def count_around(
    network: nn.Module, backbone: nn.Module, size: tuple[int, int], forward: Callable[[Tensor], object] | None = None
) -> Cost:
    """The cost of one image of ``size`` (height, width): multiply-accumulates of convolution and linear layers, and of
    attention, of the network and of its ``backbone`` alone. ``forward``: what an image is to go through, by default the
    network. Both must be on the meta device.
    """
    image = torch.zeros(1, design_of(network).in_channels, *size, device="meta")
    outputs: list[int] = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(lambda _, inputs, output: outputs.append(output.numel()))
    network.eval()
    with torch.no_grad():
        with FlopCounterMode(display=False) as part:
            backbone(image)
        outputs.clear()
        with FlopCounterMode(display=False) as whole:
            (forward or network)(image)
    counted = whole.get_flop_counts()["Global"].items()
    return Cost(
        image_size=size,
        gmacs=whole.get_total_flops() / 2e9,
        params=sum(parameter.numel() for parameter in network.parameters()),
        activations=sum(outputs),
        macs_by_operator={str(name).removeprefix("aten."): flops // 2 for name, flops in counted},
        backbone={
            "backbone_gmacs": part.get_total_flops() / 2e9,
            "backbone_params": sum(parameter.numel() for parameter in backbone.parameters()),
        },
    )
