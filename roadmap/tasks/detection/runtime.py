"""Training and testing of detectors."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from roadmap.cost.cost import Cost
from roadmap.cost.dense import count_around
from roadmap.data.objects import ObjectSplit
from roadmap.data.sized_batches import Batch
from roadmap.network.building import normalises_over_batch
from roadmap.network.decay import BLOCKS, decayed_groups
from roadmap.network.families import NetworkDesign
from roadmap.recipes.recipe import Recipe
from roadmap.tasks.detect import MaskRCNN
from roadmap.tasks.detection.batches import DetectionBatcher
from roadmap.tasks.detection.meter import DetectionMeter
from roadmap.tasks.detection.network import Detector


class Detection:
    """The `roadmap.tasks.task.TaskRuntime` of detection."""

    batcher = DetectionBatcher

    def build(self, design: NetworkDesign, head: MaskRCNN) -> Detector:
        """The detector on a backbone of this design. Raises `RoadmapError` where it has not the features for it."""
        return Detector(design, head)

    def backbone(self, network: nn.Module) -> nn.Module:
        """The network whose stages the pyramid reads."""
        return cast(Detector, network).backbone.features.network

    def loss(self, network: nn.Module, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """(sum of the losses of proposals, classes, boxes and masks, zero)."""
        losses = torch.stack([*network(*batch).values()])
        return losses.sum(), losses.new_zeros(())

    def meter(self, batcher: DetectionBatcher, device: torch.device) -> DetectionMeter:
        """Average precision over the test images."""
        return DetectionMeter(cast(ObjectSplit, batcher.data.test).objects)

    def parameters(self, network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
        """Groups by depth, by the rule of the paper's released code."""
        how = (recipe.layer_decay, recipe.weight_decay, recipe.decay_all)
        return decayed_groups(network, "backbone.features.network", BLOCKS, *how)

    def cost(self, design: NetworkDesign, head: MaskRCNN, image_size: int | tuple[int, int]) -> Cost:
        """What an image costs, its proposals through the heads of boxes and as many as are tested through those of
        masks."""
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        with torch.device("meta"):
            network = self.build(design, head)
        return count_around(network, network.backbone.features, size, network.forward_counted)

    def example(self, count: int, design: NetworkDesign, image_size: int) -> Batch:
        """Random square images, in each of which the middle is an object."""
        images = [torch.randn(design.in_channels, image_size, image_size) for _ in range(count)]
        masks = torch.zeros(1, image_size, image_size, dtype=torch.uint8)
        near, far = image_size // 4, image_size - image_size // 4
        masks[:, near:far, near:far] = 1
        box = torch.tensor([[near, near, far, far]], dtype=torch.float32)
        return images, [
            {"boxes": box, "labels": torch.ones(1, dtype=torch.int64), "masks": masks} for _ in range(count)
        ]

    def normalises_over_batch(self, design: NetworkDesign, head: MaskRCNN) -> bool:
        """Whether the backbone does; the heads do not."""
        return normalises_over_batch(design)
