"""Detection: printed costs, torchvision's and COCO's own code as oracles, and one training from end to end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import clip_boxes_to_image, generalized_box_iou

from roadmap import RoadmapError
from roadmap.ladders.family import FAMILY
from roadmap.ladders.rungs import ladder
from roadmap.network.timm_model import TimmModel
from roadmap.recipes.recipe import Recipe, load_recipe
from roadmap.tasks import task_named

TASK = task_named("detect")
SMALL = {"channels": 8, "proposals": 40, "samples": 16}
DESIGN = ladder().scaled(8, 1 / 3, stem_stride=2, num_classes=2)["layer_norm"].design


def detector(head="mask_rcnn", design=DESIGN, **settings):
    return TASK.make_runtime().build(design, TASK.head(head, {**SMALL, **settings}))


@pytest.mark.parametrize(
    ("head", "network", "gflops", "params"),
    [
        ("mask_rcnn", "convnext_tiny", 262, 48),
        ("cascade_mask_rcnn", "convnext_tiny", 741, 86),
        ("cascade_mask_rcnn", "convnext_small", 827, None),
        ("cascade_mask_rcnn", "convnext_base", 964, None),
        ("cascade_mask_rcnn", "convnext_large", 1354, None),
        ("cascade_mask_rcnn", "convnext_xlarge", 1898, None),
    ],
)
def test_costs_are_those_that_the_paper_prints(head, network, gflops, params):
    """Table 3 and the released code's, at 1280 x 800 pixels."""
    design = FAMILY[network].replace(num_classes=80)
    cost = TASK.make_runtime().cost(design, TASK.head(head, {}), (800, 1280))
    assert cost.gmacs == pytest.approx(gflops, abs=1)
    assert params is None or round(cost.params / 1e6) == params
    assert 0 < cost.backbone["backbone_gmacs"] < cost.gmacs
    assert 0 < cost.backbone["backbone_params"] < cost.params


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
@pytest.mark.parametrize("head", list(TASK.heads))
def test_anchors_and_levels_follow_the_reductions(head, stem_stride):
    design = ladder().scaled(8, 1 / 3, stem_stride=stem_stride, num_classes=2)["separate_downsample"].design
    network = detector(head, design)
    reductions = [stem_stride * factor for factor in (1, 2, 4, 8)]
    assert [round(float((base[0, 2:] - base[0, :2]).prod()) ** 0.5 / 8, 0) for base in cells(network)] == [
        *reductions,
        2 * reductions[-1],
    ]
    heads = network.roi_heads.stages if head == "cascade_mask_rcnn" else [network.roi_heads]
    assert all(one.box_roi_pool.scales == [1 / reduction for reduction in reductions] for one in heads)
    assert len(network.eval()([torch.rand(3, 50, 70)])) == 1


def cells(network):
    anchors = network.rpn.anchor_generator
    return [
        anchors.generate_anchors(sizes, (1.0,)) for sizes, _ in zip(anchors.sizes, anchors.aspect_ratios, strict=True)
    ]


def test_timm_models_need_the_four_feature_maps():
    network = detector(design=TimmModel("resnet18", 2, 64))
    assert network.backbone.features.reductions == [4, 8, 16, 32]
    with pytest.raises(RoadmapError, match="timm's vit_tiny_patch16_224 has no feature maps"):
        detector(design=TimmModel("vit_tiny_patch16_224", 2, 224))


def example_batch():
    torch.manual_seed(1)
    images, targets = TASK.make_runtime().example(3, DESIGN, 64)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": torch.zeros(0, 64, 64)}
    return [images[0], images[1], images[2][:, :40, :]], [targets[0], empty, {**empty, "masks": torch.zeros(0, 40, 64)}]


def test_mask_rcnn_is_torchvisions():
    """Which pads and normalises by itself, and guesses the scales of the levels from the sizes of the images."""
    torch.manual_seed(0)
    network = detector()
    images, targets = example_batch()
    other = copy.deepcopy(network)
    for pool in (other.roi_heads.box_roi_pool, other.roi_heads.mask_roi_pool):
        pool.scales = pool.map_levels = None
    transform = GeneralizedRCNNTransform(1, 10_000, [0.0] * 3, [1.0] * 3, _skip_resize=True)
    theirs = GeneralizedRCNN(other.backbone, other.rpn, other.roi_heads, transform)
    torch.manual_seed(2)
    ours = network(images, targets)
    torch.manual_seed(2)
    expected = theirs(images, targets)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)

    network.eval(), theirs.eval()
    transform.resize = lambda image, target=None: (image, target)
    network.roi_heads.score_thresh = theirs.roi_heads.score_thresh = 0.0
    for found, wanted in zip(network(images), theirs(images), strict=True):
        assert len(found["boxes"])
        assert torch.equal(found["boxes"], wanted["boxes"]) and torch.equal(found["scores"], wanted["scores"])


def stage_outputs(stage, features, proposals, sizes):
    pooled = stage.box_roi_pool(features, proposals, sizes)
    return stage.box_predictor(stage.box_head(pooled))


def test_a_cascade_averages_its_stages_and_moves_boxes_on():
    """Written out for one image with plain torch, from the outputs of torchvision's heads."""
    torch.manual_seed(0)
    network = detector("cascade_mask_rcnn").eval()
    cascade = network.roi_heads
    for stage in cascade.stages:
        stage.score_thresh = 0.0
        for layer in (stage.box_predictor.cls_score, stage.box_predictor.bbox_pred):
            torch.nn.init.normal_(layer.weight, std=0.3)
    features, sizes = network.backbone(torch.randn(1, 3, 64, 64)), [(64, 64)]
    corners = torch.rand(20, 2) * 40
    boxes = torch.cat([corners, corners + 4 + torch.rand(20, 2) * 20], 1)
    with torch.no_grad():
        found = cascade(features, [boxes], sizes)[0][0]
        total = 0
        for stage in cascade.stages:
            before = boxes
            logits, offsets = stage_outputs(stage, features, [before], sizes)
            total = total + logits.softmax(1) / 3
            weights = stage.box_coder.weights
            x, y, w, h = (offsets.view(20, 3, 4) / torch.tensor(weights)).unbind(2)
            widths, heights = (before[:, 2:] - before[:, :2]).unbind(1)
            middle_x, middle_y = before[:, 0] + widths / 2, before[:, 1] + heights / 2
            new_x, new_y = middle_x[:, None] + x * widths[:, None], middle_y[:, None] + y * heights[:, None]
            new_w, new_h = (
                edge.clamp(max=np.log(1000 / 16)).exp() * side[:, None] for edge, side in ((w, widths), (h, heights))
            )
            moved = torch.stack([new_x - new_w / 2, new_y - new_h / 2, new_x + new_w / 2, new_y + new_h / 2], 2)
            best = 1 + logits[:, 1:].argmax(1)
            boxes = clip_boxes_to_image(moved[torch.arange(20), best], (64, 64))
        final = clip_boxes_to_image(moved, (64, 64))
        for box, score, label, mask in zip(
            *(found[key] for key in ("boxes", "scores", "labels", "masks")), strict=True
        ):
            gaps = (final[:, label] - box).abs().amax(1)
            assert gaps.min() < 1e-3
            assert score == pytest.approx(float(total[gaps.argmin(), label]), abs=1e-5)
            masks = []
            for stage in cascade.stages:
                pooled = stage.mask_roi_pool(features, [box[None]], sizes)
                masks.append(stage.mask_predictor(stage.mask_head(pooled))[0, label].sigmoid())
            assert torch.allclose(mask[0], torch.stack(masks).mean(0), atol=1e-5)
    assert [stage.box_coder.weights[0] for stage in cascade.stages] == [10, 20, 30]
    assert [stage.proposal_matcher.high_threshold for stage in cascade.stages] == [0.5, 0.6, 0.7]


def test_a_cascades_losses_are_weighted_by_stage(monkeypatch):
    """Classes by cross-entropy, boxes by ten times one minus their generalised IoU, a mean over all that is sampled."""
    torch.manual_seed(0)
    network = detector("cascade_mask_rcnn")
    cascade = network.roi_heads
    monkeypatch.setattr("roadmap.tasks.detection.cascade.maskrcnn_loss", lambda *_: torch.zeros(()))
    features = network.backbone(torch.randn(1, 3, 64, 64))
    target = {"boxes": torch.tensor([[10.0, 10, 30, 40]]), "labels": torch.tensor([2]), "masks": torch.ones(1, 64, 64)}
    sampled, decoded = [], []
    for stage in cascade.stages:
        choose, decode = stage.select_training_samples, stage.box_coder.decode
        stage.select_training_samples = lambda *given, choose=choose: sampled.append(choose(*given)) or sampled[-1]
        stage.box_coder.decode = lambda *given, decode=decode: decoded.append(decode(*given)) or decoded[-1]
    proposals = [torch.tensor([[11.0, 10, 30, 41], [12, 12, 36, 40], [50, 50, 60, 60], [0, 0, 30, 30]])]
    losses = cascade(features, proposals, [(64, 64)], [target])[1]
    classes = boxes = 0
    for stage, weight, chosen, moved in zip(cascade.stages, (1, 0.5, 0.25), sampled, decoded, strict=True):
        labels = chosen[2][0]
        assert (labels == 2).any() and (labels == 0).any()
        logits, _ = stage_outputs(stage, features, chosen[0], [(64, 64)])
        classes = classes + weight * cross_entropy(logits, labels)
        apart = 1 - generalized_box_iou(moved[labels == 2, 2], target["boxes"])
        boxes = boxes + weight * 10 * apart.sum() / len(labels)
    assert torch.allclose(losses["loss_classifier"], classes, atol=1e-5)
    assert torch.allclose(losses["loss_box_reg"], boxes, atol=1e-5)


@pytest.mark.parametrize("head", list(TASK.heads))
def test_gradients_reach_every_parameter(head):
    torch.manual_seed(0)
    network = detector(head)
    loss, _ = TASK.make_runtime().loss(network, example_batch(), Recipe("none"))
    loss.backward()
    assert [name for name, one in network.named_parameters() if one.grad is None] == []


def test_layers_decay_from_the_heads_to_the_stem():
    network = detector(design=FAMILY["convnext_tiny"].replace(num_classes=2, widths=(8, 8, 8, 8)))
    groups = TASK.make_runtime().parameters(network, Recipe("test", layer_decay=0.5, weight_decay=0.05))
    scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    assert len(scales) == len([*network.parameters()])
    backbone = network.backbone.features.network

    def scale_of(module):
        return {scales[id(parameter)] for parameter in module.parameters()}

    # released for 9 blocks in the third stage: the stem is layer 0, the last stage layer 6, all else layer 7
    assert scale_of(network.rpn) == scale_of(network.roi_heads) == scale_of(network.backbone.fpn) == {1}
    assert scale_of(backbone.stages[3]) == {0.5}
    assert [scale_of(block) for block in backbone.stages[2].blocks[::3]] == [{0.5**4}, {0.5**3}, {0.5**2}]
    assert scale_of(backbone.stem) == {0.5**7}


def test_boxes_keep_their_precision_under_bfloat16():
    torch.manual_seed(0)
    network = detector()
    with torch.autocast("cpu", torch.bfloat16):
        losses = network(*example_batch())
        found = network.eval()([torch.randn(3, 64, 64)])[0]
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert {found[name].dtype for name in ("boxes", "scores", "masks")} == {torch.float32}


@pytest.mark.parametrize("name", ["coco-3x", "coco-3x-cascade"])
def test_the_papers_recipes_train_as_it_did(name):
    recipe = load_recipe(name)
    assert (recipe.epochs, recipe.batch_size, recipe.milestones, recipe.scale) == (36, 16, (27, 33), (0.6, 1.0))
