"""Training and testing of networks for semantic segmentation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from roadmap.cost.counting import Cost
from roadmap.cost.dense import count_around
from roadmap.data.batches import Batcher
from roadmap.data.masks import IGNORED
from roadmap.network.decay import STAGES, decayed_groups
from roadmap.network.families import NetworkDesign
from roadmap.recipes.recipe import Recipe
from roadmap.tasks.segment import UPerNet
from roadmap.tasks.segmentation.batches import SegmentationBatcher
from roadmap.tasks.segmentation.meter import SegmentationMeter
from roadmap.tasks.segmentation.network import Segmenter, enlarged


class Segmentation:
    """The `roadmap.tasks.task.TaskRuntime` of segmentation."""

    batcher = SegmentationBatcher

    def build(self, design: NetworkDesign, head: UPerNet) -> Segmenter:
        """UPerNet on a backbone of this design. Raises `RoadmapError` where it has not the features for it."""
        return Segmenter(design, head)

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor], recipe: Recipe) -> tuple[Tensor, Tensor]:
        """(cross-entropy of a pixel, with the auxiliary head's times its weight; share of the pixels told right, summed
        over the images). Pixels of which nothing is known count as told with a loss of 0, as in the paper's code."""
        images, masks = (torch.stack([*one]) for one in batch)
        head: UPerNet = network.head  # type: ignore[assignment]
        images = images.contiguous(memory_format=torch.channels_last)
        outputs = [enlarged(one, masks.shape[1:]) for one in network(images)]
        how: dict[str, Any] = {"reduction": "sum", "ignore_index": IGNORED, "label_smoothing": recipe.label_smoothing}
        loss, auxiliary = (cross_entropy(logits, masks, **how) / masks.numel() for logits in outputs)
        known = (masks != IGNORED).flatten(1).sum(1).clamp(min=1)
        right = (outputs[0].argmax(1) == masks).flatten(1).sum(1)
        return loss + head.auxiliary * auxiliary, (right / known).sum()

    def meter(self, batcher: Batcher, device: torch.device) -> SegmentationMeter:
        """Counts pixels by true class and guess."""
        return SegmentationMeter(batcher, device)

    def parameters(self, network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
        """Groups by depth, by the rule of the paper's released code."""
        how = (recipe.layer_decay, recipe.weight_decay, recipe.decay_all)
        return decayed_groups(network, "features.network", STAGES, *how)

    def cost(self, design: NetworkDesign, head: UPerNet, image_size: int | tuple[int, int]) -> Cost:
        """What an image costs in a test; parameters are those of the auxiliary head, too."""
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        with torch.device("meta"):
            network = self.build(design, head)
        return count_around(network, network.features, size)

    def normalises_over_batch(self, design: NetworkDesign, head: UPerNet) -> bool:
        """The head does."""
        return True
