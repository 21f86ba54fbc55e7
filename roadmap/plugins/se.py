"""Squeeze-and-excitation: arXiv 1709.01507, §3, with the settings of timm's ``seresnet50``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roadmap.checks import check_int, check_number
from roadmap.network.layers import Site, layer

if TYPE_CHECKING:
    from torch import nn


@layer(
    "se",
    place="branch",
    why="Weigh the channels of each residual branch by what the whole image holds: two small layers on the average of "
    "each channel.",
    section="arXiv 1709.01507, §3",
)
def build(site: Site, ratio: float = 1 / 16, divisor: int = 8) -> nn.Module:
    """timm's module: the inner layer is ``ratio`` times as wide as the branch, rounded to a multiple of ``divisor``."""
    from timm.layers import SEModule

    check_number("ratio", ratio, 1e-6, 1.0)
    check_int("divisor", divisor, 1)
    return SEModule(site.outgoing, rd_ratio=ratio, rd_divisor=divisor)
