"""Cascade Mask R-CNN's heads, made of torchvision's: three in a row, each refining the boxes of the one before it.

Cai and Vasconcelos, "Cascade R-CNN" (CVPR 2018), with the numbers of ConvNeXt's released configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        self.stages = nn.ModuleList(stages)

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
        totals = dict.fromkeys(("loss_classifier", "loss_box_reg", "loss_mask"), proposals[0].new_zeros(()))
        for stage, weight in zip(self.stages, LOSS_WEIGHTS, strict=True):
            proposals, matched, labels, _ = stage.select_training_samples(proposals, targets)
            logits, offsets = _classified(stage, features, proposals, sizes)
            boxes = stage.box_coder.decode(offsets, proposals)
            positive = [torch.where(some > 0)[0] for some in labels]
            objects = [some[place] for some, place in zip(matched, positive, strict=True)]
            inside = [some[place] for some, place in zip(proposals, positive, strict=True)]
            label = torch.cat(labels)
            found = torch.where(label > 0)[0]
            truth = torch.cat([target["boxes"][which] for target, which in zip(targets, objects, strict=True)])
            masks = stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(features, inside, sizes)))
            losses = {
                "loss_classifier": cross_entropy(logits, label),
                "loss_box_reg": BOX_LOSS
                * generalized_box_iou_loss(boxes[found, label[found]], truth, reduction="sum")
                / max(len(label), 1),
                "loss_mask": maskrcnn_loss(
                    masks, inside, [target["masks"] for target in targets], [t["labels"] for t in targets], objects
                ),
            }
            totals = {name: totals[name] + weight * loss for name, loss in losses.items()}
            proposals = _refined(boxes, torch.where(label > 0, label, _best(logits)), proposals, sizes)
        return totals

    def _detections(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: Sizes
    ) -> list[dict[str, Tensor]]:
        scores = []
        for number, stage in enumerate(self.stages):
            if number:
                before = self.stages[number - 1]
                proposals = _refined(before.box_coder.decode(offsets, proposals), _best(logits), proposals, sizes)
            logits, offsets = _classified(stage, features, proposals, sizes)
            scores.append(logits.softmax(-1))
        mean = torch.stack(scores).mean(0)
        found = self.stages[-1].postprocess_detections(mean.log(), offsets, proposals, sizes)
        masks = [
            maskrcnn_inference(stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(features, found[0], sizes))), found[2])
            for stage in self.stages
        ]
        return [
            {"boxes": boxes, "scores": score, "labels": labels, "masks": torch.stack(of_stages).mean(0)}
            for boxes, score, labels, *of_stages in zip(*found, *masks, strict=True)
        ]


def _classified(
    stage: nn.Module, features: dict[str, Tensor], proposals: list[Tensor], sizes: Sizes
) -> tuple[Tensor, Tensor]:
    """Logits (R, 1 + classes), background first, and box offsets (R, 4 (1 + classes)) of the proposals of all images."""
    return stage.box_predictor(stage.box_head(stage.box_roi_pool(features, proposals, sizes)))


def _best(logits: Tensor) -> Tensor:
    """The class of each proposal that is likeliest, background apart: (R,)."""
    return logits[:, 1:].argmax(1) + 1


def _refined(boxes: Tensor, labels: Tensor, proposals: list[Tensor], sizes: Sizes) -> list[Tensor]:
    """Of ``boxes`` (R, 1 + classes, 4) those of ``labels`` (R,), as the next stage's proposals for each image."""
    chosen = boxes[torch.arange(len(labels), device=labels.device), labels].detach()
    parts = chosen.split([len(some) for some in proposals])
    return [clip_boxes_to_image(part, size) for part, size in zip(parts, sizes, strict=True)]
