"""The feature maps of a backbone, as heads of dense tasks take them."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from roadmap.checks import RoadmapError
from roadmap.network.building import design_of
from roadmap.network.families import family_of, on_ladder
from roadmap.network.parts import NORMS

#: What timm's models reduce images by where heads read them.
REDUCTIONS = (4, 8, 16, 32)


class Features(nn.Module):
    """Images (N, 3, H, W) -> the outputs of a network's stages, list of (N, C_i, H / r_i, W / r_i).

    ``norm`` stands on each of them: layer, over the channels of each position, or none. ``channels`` and
    ``reductions`` are those of the maps. Of the network, classifier and final norm are taken out. Raises `RoadmapError`
    for one of timm's models that has not the maps of reduction 4, 8, 16 and 32.
    """

    def __init__(self, network: nn.Module, norm: str) -> None:
        super().__init__()
        design = design_of(network)
        infos: list[dict[str, Any]] = list(cast(Any, network).feature_info)
        wanted = [n for n, info in enumerate(infos) if on_ladder(design) or info["reduction"] in REDUCTIONS]
        self.channels = [int(infos[n]["num_chs"]) for n in wanted]
        self.reductions = [int(infos[n]["reduction"]) for n in wanted]
        if len(set(self.reductions)) < len(REDUCTIONS) or not hasattr(network, "forward_intermediates"):
            raise RoadmapError(
                f"{family_of(design).title(design)} has no feature maps that reduce images by {REDUCTIONS}: take "
                "another reference"
            )
        self.indices = wanted
        cast(Any, network).prune_intermediate_layers(wanted, prune_norm=True, prune_head=True)
        self.network: Any = network
        self.norms = nn.ModuleList(nn.Identity() if norm == "none" else NORMS[norm](width) for width in self.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.network.forward_intermediates(images, indices=self.indices, intermediates_only=True)
        return [norm(one) for norm, one in zip(self.norms, maps, strict=True)]
