"""Mask R-CNN and Cascade Mask R-CNN on the features of any backbone, of torchvision's parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils._pytree import tree_map
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from roadmap.network.building import build_network
from roadmap.network.families import NetworkDesign
from roadmap.network.features import Features
from roadmap.network.parts import NORMS
from roadmap.tasks.detect import CascadeMaskRCNN, MaskRCNN
from roadmap.tasks.detection.cascade import BOX_WEIGHTS, IOUS, Cascade

#: Side of an anchor for each pixel that its level reduces the image by, and its heights by widths.
ANCHOR_SCALE, ASPECT_RATIOS = 8, (0.5, 1.0, 2.0)
#: Side in pixels of what box and mask heads see of a proposal. Features are sampled once a pixel of their own (0).
BOX_SIDE, MASK_SIDE, SAMPLES = 7, 14, 0
#: A proposal of this side in pixels is read off the level that reduces by 2 to the power of the second number.
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4
#: Height and width of a batch are multiples of this, as in the paper.
PADDED = 32
#: Most detections of an image, as COCO counts them: where a cost is counted, there are as many.
DETECTIONS = 100


class Pyramid(nn.Module):
    """A feature pyramid over the feature maps of a backbone: images (N, 3, H, W) -> level -> (N, channels, H', W').

    The levels "0" onwards have the sizes of the maps; one more, "pool", is the last one halved.
    """

    def __init__(self, features: Features, channels: int) -> None:
        super().__init__()
        self.features = features
        self.fpn = FeaturePyramidNetwork(features.channels, channels, LastLevelMaxPool())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(OrderedDict((str(level), feature) for level, feature in enumerate(self.features(images))))


class Detector(nn.Module):
    """Images, each (3, H, W) and normalised, -> losses by name when training, with ``targets`` as torchvision has them:
    ``boxes`` (M, 4) as left, top, right and bottom, ``labels`` (M,) from 1 on and ``masks`` (M, H, W).

    Tested, for each image ``boxes`` (D, 4), ``labels`` (D,), ``scores`` (D,), and ``masks`` (D, 1, 28, 28), the
    probability of every 28th of a box. Anchors and the levels that proposals are read off follow the reductions of the
    backbone's feature maps. All widths of the heads are in proportion to the head's ``channels``; at 256 they are the
    paper's. Raises `RoadmapError` where the backbone has not the maps for it.
    """

    def __init__(self, design: NetworkDesign, head: MaskRCNN) -> None:
        super().__init__()
        self.design, self.head, channels = design, head, head.channels
        features = Features(build_network(design), head.norm)
        reductions = features.reductions
        self.backbone = Pyramid(features, channels)
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(
                tuple((ANCHOR_SCALE * reduction,) for reduction in (*reductions, 2 * reductions[-1])),
                (ASPECT_RATIOS,) * (len(reductions) + 1),
            ),
            RPNHead(channels, len(ASPECT_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2 * head.proposals, "testing": head.proposals},
            post_nms_top_n={"training": head.proposals, "testing": head.proposals},
            nms_thresh=0.7,
        )
        cascade = isinstance(head, CascadeMaskRCNN)
        count, pool = len(IOUS) if cascade else 1, partial(_pool, reductions)
        stages = [
            _heads(pool, design.num_classes, head, *how, cascade)
            for how in zip(IOUS[:count], BOX_WEIGHTS[:count], strict=True)
        ]
        self.roi_heads = Cascade(stages) if cascade else stages[0]
        for part in (self.rpn.head, *(part for one in stages for part in (one.box_predictor, one.mask_predictor))):
            part.register_forward_hook(_in_single_precision)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = (-(-max(side) // PADDED) * PADDED for side in zip(*sizes, strict=True))
        batch = torch.stack([pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2])) for image in images])
        features = self.backbone(batch.contiguous(memory_format=torch.channels_last))
        proposals, losses = self.rpn(ImageList(batch, sizes), features, targets)
        detections, more = self.roi_heads(features, proposals, sizes, targets)
        return {**losses, **more} if self.training else detections

    def compile(self, *args: Any, **how: Any) -> None:
        """Compile the backbone, in place: what follows depends on how many proposals there are."""
        self.backbone.features.compile(*args, **how)

    def forward_counted(self, images: Tensor) -> None:
        """What a cost counts: images (N, 3, H, W) through backbone and pyramid, as many proposals as an image may have
        through the heads of boxes, and `DETECTIONS` through those of masks. Their numbers do not matter to a cost."""
        self.rpn.head(list(self.backbone(images).values()))
        stages: Any = self.roi_heads.stages if isinstance(self.roi_heads, Cascade) else [self.roi_heads]
        for stage in stages:
            stage.box_predictor(
                stage.box_head(images.new_zeros(self.head.proposals, self.head.channels, BOX_SIDE, BOX_SIDE))
            )
            pooled = images.new_zeros(DETECTIONS, self.head.channels, MASK_SIDE, MASK_SIDE)
            stage.mask_predictor(stage.mask_head(pooled))


def _heads(
    pool: Callable[[int], nn.Module],
    classes: int,
    head: MaskRCNN,
    iou: float,
    box_weights: tuple[float, ...],
    convolutions: bool,
) -> RoIHeads:
    """torchvision's heads of boxes and masks. The paper's four convolutions are followed by BatchNorm over all devices;
    LayerNorm costs the same and does not depend on what else is in the batch."""
    channels, hidden = head.channels, 4 * head.channels
    box_head = (
        FastRCNNConvFCHead((channels, BOX_SIDE, BOX_SIDE), [channels] * 4, [hidden], NORMS["layer"])
        if convolutions
        else TwoMLPHead(channels * BOX_SIDE**2, hidden)
    )
    return RoIHeads(
        box_roi_pool=pool(BOX_SIDE),
        box_head=box_head,
        box_predictor=FastRCNNPredictor(hidden, 1 + classes),
        fg_iou_thresh=iou,
        bg_iou_thresh=iou,
        batch_size_per_image=head.samples,
        positive_fraction=0.25,
        bbox_reg_weights=box_weights,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=DETECTIONS,
        mask_roi_pool=pool(MASK_SIDE),
        mask_head=MaskRCNNHeads(channels, [channels] * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, 1 + classes),
    )


def _pool(reductions: list[int], side: int) -> MultiScaleRoIAlign:
    """RoIAlign over the levels "0" onwards. torchvision would guess their scales from the first batch's sizes."""
    pool = MultiScaleRoIAlign([str(level) for level in range(len(reductions))], side, SAMPLES)
    pool.scales = [1 / reduction for reduction in reductions]
    exponents = [reduction.bit_length() - 1 for reduction in reductions]
    pool.map_levels = initLevelMapper(exponents[0], exponents[-1], CANONICAL_SIDE, CANONICAL_LEVEL)
    return pool


def _in_single_precision(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Boxes and scores as 32-bit numbers, also under mixed precision: torchvision would round boxes to 8 bits."""
    return tree_map(Tensor.float, outputs)
