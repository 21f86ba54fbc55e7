"""Global response normalisation: ConvNeXt V2 (arXiv 2301.00808, §3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roadmap.network.layers import Site, layer

if TYPE_CHECKING:
    from torch import nn


@layer(
    "grn",
    place="hidden",
    why="Let the channels of the hidden layer compete: each is scaled by its share of the response over the whole "
    "image, so that fewer of them are idle or alike.",
    section="arXiv 2301.00808, §3.2",
)
def build(site: Site, eps: float = 1e-6) -> nn.Module:
    """timm's module. It starts as the identity: factor and offset are 0 beside the shortcut within it."""
    from timm.layers.grn import GlobalResponseNorm

    return GlobalResponseNorm(site.outgoing, eps=eps, channels_last=False)
