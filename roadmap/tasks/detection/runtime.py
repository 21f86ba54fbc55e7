"""Training and testing of detectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from roadmap.cost.cost import Cost
from roadmap.network.building import build_network, normalises_over_batch
from roadmap.network.families import NetworkDesign
from roadmap.network.features import Features
from roadmap.recipes.recipe import Recipe
from roadmap.tasks.detect import CascadeMaskRCNN, MaskRCNN
from roadmap.tasks.detection.batches import Batch, DetectionBatcher
from roadmap.tasks.detection.meter import DetectionMeter
from roadmap.tasks.detection.network import Detector


class Detection:
    """The `roadmap.tasks.task.TaskRuntime` of detection."""

    batcher = DetectionBatcher

    def build(self, design: NetworkDesign, head: MaskRCNN) -> Detector:
        """The detector on a backbone of this design. Raises `RoadmapError` where it has not the features for it."""
        features = Features(build_network(design), head.norm)
        cascade = isinstance(head, CascadeMaskRCNN)
        detector = Detector(features, design.num_classes, head.channels, head.proposals, head.samples, cascade)
        detector.design, detector.head = design, head
        return detector

    def loss(self, network: nn.Module, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """(sum of the losses of proposals, classes, boxes and masks, zero)."""
        losses = torch.stack([*network(*batch).values()])
        return losses.sum(), losses.new_zeros(())

    def meter(self, batcher: DetectionBatcher, device: torch.device) -> DetectionMeter:
        """Average precision over the test images."""
        return DetectionMeter(batcher.data.test.objects)

    def parameters(self, network: nn.Module, recipe: Recipe) -> nn.Module:
        """The network, whose groups timm makes."""
        return network

    def cost(self, design: NetworkDesign, head: MaskRCNN, image_size: int | tuple[int, int]) -> Cost:
        """What an image costs, its proposals through the heads of boxes and `DETECTIONS` through those of masks."""
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        with torch.device("meta"):
            detector, image = self.build(design, head).eval(), torch.zeros(1, design.in_channels, *size)
        outputs: list[int] = []
        for module in detector.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                module.register_forward_hook(lambda _, inputs, output: outputs.append(output.numel()))
        features = detector.backbone.features
        with torch.no_grad():
            with FlopCounterMode(display=False) as backbone:
                features(image)
            outputs.clear()
            with FlopCounterMode(display=False) as whole:
                detector.forward_counted(image)
        return Cost(
            image_size=size,
            gmacs=whole.get_total_flops() / 2e9,
            params=sum(parameter.numel() for parameter in detector.parameters()),
            activations=sum(outputs),
            macs_by_operator={
                str(name).removeprefix("aten."): flops // 2 for name, flops in whole.get_flop_counts()["Global"].items()
            },
            backbone={
                "backbone_gmacs": backbone.get_total_flops() / 2e9,
                "backbone_params": sum(parameter.numel() for parameter in features.parameters()),
            },
        )

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
