"""Cascade Mask R-CNN's heads, made of torchvision's: three in a row, each refining the boxes of the one before it.

Cai and Vasconcelos, "Cascade R-CNN" (CVPR 2018), with the numbers of ConvNeXt's released configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss

#: By stage: the IoU from which a proposal counts as an object, one over the standard deviations of its offsets
#: (x, y, width, height), and the weight of its losses.
IOUS = (0.5, 0.6, 0.7)
BOX_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
LOSS_WEIGHTS = (1.0, 0.5, 0.25)
#: Weight of the boxes' generalised IoU loss, a mean over all sampled proposals.
BOX_LOSS = 10.0

Sizes = list[tuple[int, int]]


class Cascade(nn.Module):
    """Stands where torchvision's detectors have `RoIHeads`, of which it has one a stage, with the same arguments.

    Every stage classifies and moves the boxes of the stage before, by class; its masks are learned on its own boxes.
    Tested, boxes are the last stage's, class probabilities and masks are means over the stages.
    """

    def __init__(self, stages: Sequence[RoIHeads]) -> None:
        super().__init__()
        self.stages: Any = nn.ModuleList(stages)

    def forward(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: Sizes, targets: list[dict] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections of each image when testing, losses when training; the other is empty."""
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, sizes, targets)
        return self._detections(features, proposals, sizes), {}

    def _losses(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: Sizes, targets: list[dict]
    ) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        for stage, weight in zip(self.stages, LOSS_WEIGHTS, strict=True):
            proposals, matched, by_image, _ = stage.select_training_samples(proposals, targets)
            logits, offsets = _classified(stage, features, proposals, sizes)
            boxes, labels = stage.box_coder.decode(offsets, proposals), torch.cat(by_image)
            positive = [torch.where(some > 0)[0] for some in by_image]
            matched = [some[here] for some, here in zip(matched, positive, strict=True)]
            inside = [some[here] for some, here in zip(proposals, positive, strict=True)]
            truth = torch.cat([target["boxes"][which] for target, which in zip(targets, matched, strict=True)])
            found = torch.where(labels > 0)[0]
            apart = generalized_box_iou_loss(boxes[found, labels[found]], truth, reduction="sum")
            masks, classes = ([target[key] for target in targets] for key in ("masks", "labels"))
            losses = {
                "loss_classifier": cross_entropy(logits, labels),
                "loss_box_reg": BOX_LOSS * apart / len(labels),
                "loss_mask": maskrcnn_loss(_masked(stage, features, inside, sizes), inside, masks, classes, matched),
            }
            totals = {name: totals.get(name, 0.0) + weight * loss for name, loss in losses.items()}
            proposals = _refined(boxes, torch.where(labels > 0, labels, _best(logits)), proposals, sizes)
        return totals

    def _detections(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        scores = []
        for stage in self.stages:
            logits, offsets = _classified(stage, features, proposals, sizes)
            scores.append(logits.softmax(-1))
            before, proposals = (
                proposals,
                _refined(stage.box_coder.decode(offsets, proposals), _best(logits), proposals, sizes),
            )
        logits = torch.stack(scores).mean(0).log()
        boxes, scores, labels = self.stages[-1].postprocess_detections(logits, offsets, before, sizes)
        masks = [maskrcnn_inference(_masked(stage, features, boxes, sizes), labels) for stage in self.stages]
        return [
            {"boxes": box, "scores": score, "labels": label, "masks": torch.stack(of_stages).mean(0)}
            for box, score, label, *of_stages in zip(boxes, scores, labels, *masks, strict=True)
        ]


def _classified(
    stage: Any, features: dict[str, Tensor], proposals: list[Tensor], sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """Logits (R, 1 + classes), background first, and box offsets (R, 4 (1 + classes)) of the proposals of a batch."""
    return stage.box_predictor(stage.box_head(stage.box_roi_pool(features, proposals, sizes)))


def _masked(stage: Any, features: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> Tensor:
    """Logits of the masks within the boxes of a batch, by class: (R, 1 + classes, 28, 28)."""
    return stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(features, boxes, sizes)))


def _best(logits: Tensor) -> Tensor:
    """The class of each proposal that is likeliest, background apart: (R,)."""
    return logits[:, 1:].argmax(1) + 1


def _refined(boxes: Tensor, labels: Tensor, proposals: list[Tensor], sizes: Sizes) -> list[Tensor]:
    """Of ``boxes`` (R, 1 + classes, 4) those of ``labels`` (R,), as the next stage's proposals for each image.

    Where a training diverges, boxes are not numbers, which RoIAlign refuses; its loss says so.
    """
    if not len(labels):  # no proposal in the whole batch
        return proposals
    chosen = boxes[torch.arange(len(labels), device=labels.device), labels].detach().nan_to_num()
    parts = chosen.split([len(some) for some in proposals])
    return [clip_boxes_to_image(part, size) for part, size in zip(parts, sizes, strict=True)]
