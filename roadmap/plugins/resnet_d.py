"""The stem of three 3x3 convolutions of ResNet-C and ResNet-D: arXiv 1812.01187, §4.1, Figure 2b."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from roadmap.network.layers import Site, layer

if TYPE_CHECKING:
    from torch import nn


@layer(
    "resnet_d_stem",
    place="stem",
    why="See as far as the 7x7 convolution with three 3x3 ones, which have fewer weights and two more activations "
    "between them.",
    section="arXiv 1812.01187, §4.1",
)
def build(site: Site) -> nn.Module:
    """Convolutions to half the stem's width, half, and all of it, norms and activations, as timm's ``deep`` stem. A
    pooling follows where the stem divides by 4 or more; below, the first convolution alone has stride 2, or none."""
    from torch import nn

    from roadmap.network.model import initialize

    half = max(1, site.outgoing // 2)
    halvings = site.stride.bit_length() - 1
    pooled = halvings > 1
    widths = (site.incoming, half, half, site.outgoing)
    layers: list[nn.Module] = []
    for n in range(3):
        stride = 2 if n < halvings - pooled else 1
        layers += [nn.Conv2d(widths[n], widths[n + 1], 3, stride, 1, bias=False)]
        layers += [site.norm(half), site.activation(half)] if n < 2 else []
    stem = OrderedDict(conv=nn.Sequential(*layers), norm=site.norm(site.outgoing), act=site.activation(site.outgoing))
    if pooled:
        stem["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    module = nn.Sequential(stem)
    initialize(module)
    return module
