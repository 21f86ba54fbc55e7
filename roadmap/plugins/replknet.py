"""RepLKNet's kernels of up to 31x31: arXiv 2203.06717, §4.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from roadmap.checks import RoadmapError, check_int
from roadmap.network.layers import Site, layer

if TYPE_CHECKING:
    from torch import nn

KERNELS = (31, 29, 27, 13)


@layer(
    "replknet_kernels",
    place="spatial",
    why="See most of the image with a single depthwise convolution of up to 31x31; a 5x5 one beside it keeps the "
    "detail and makes the large one trainable.",
    section="arXiv 2203.06717, §4.1",
)
def build(site: Site, kernels: int | Sequence[int] | None = None, small: int | None = 5) -> nn.Module:
    """``kernels``: one size for each stage, or one for all; None: 31, 29, 27, 13, and 13 in any further stage.
    ``small``: size of the parallel kernel; None: there is none."""
    from roadmap.plugins._replknet import LargeKernel

    stages, stage = len(site.design.blocks), site.stage or 0
    if kernels is None:
        kernels = [*KERNELS, *[KERNELS[-1]] * stages]
    elif isinstance(kernels, int):
        kernels = [kernels] * stages
    elif len(kernels) != stages:
        raise RoadmapError(
            f"kernels has {len(kernels)} sizes, but must have one for each of {stages} stages, or for all"
        )
    for name, size in (("kernels", kernels[stage]), ("small", small)):
        if size is not None:
            check_int(name, size, 1)
            if size % 2 == 0:
                raise RoadmapError(f"{name} has {size}, but must be odd, to keep height and width")
    return LargeKernel(site.outgoing, kernels[stage], small, site.stride)
