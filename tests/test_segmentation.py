"""Semantic segmentation, against scikit-learn, the paper's printed costs, its released rules and a bare loop."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score, recall_score
from torch.nn.functional import cross_entropy, interpolate

from roadmap import RoadmapError
from roadmap.data.segmentation import open_segmentation
from roadmap.ladders.family import FAMILY
from roadmap.ladders.rungs import ladder
from roadmap.network.building import build_network
from roadmap.network.timm_model import reference_design
from roadmap.recipes.recipe import Recipe, load_recipe
from roadmap.tasks import task_named
from roadmap.tasks.segmentation.batches import LearnedPiece
from roadmap.tasks.segmentation.meter import SegmentationMeter
from roadmap.tasks.segmentation.network import predict
from roadmap.training.fit import Watch, fit_run
from roadmap.training.module import StoppedError
from roadmap.training.spec import Execution, RunSpec

TASK = task_named("segment")
RUNTIME = TASK.make_runtime()
HEAD = TASK.head("upernet", {"channels": 8, "dropout": 0.1})
ONE_THREAD = Execution(device="cpu", threads=1)
#: Task, network, size and GFLOPs as the paper prints them, and millions of parameters where it does.
PRINTED = [
    ("convnext_tiny", 2048, 512, 939, 60),
    ("convnext_small", 2048, 512, 1027, None),
    ("convnext_base", 2048, 512, 1170, None),
    ("convnext_base", 2560, 640, 1828, None),
    ("convnext_large", 2560, 640, 2458, None),
    ("convnext_xlarge", 2560, 640, 3335, None),
]


def small_design(step="large_kernel", classes=3):
    return ladder().scaled(width=4, depth=1 / 9, stem_stride=2)[step].design.replace(num_classes=classes)


@pytest.fixture(scope="module")
def scenes():
    """The embedded scenes, few of them."""
    data = open_segmentation()
    parts = {
        part: dataclasses.replace(
            split, labels=split.labels[:some], images=split.images[:some], masks=split.masks[:some]
        )
        for part, split, some in (("train", data.train, 24), ("test", data.test, 10))
    }
    return dataclasses.replace(data, **parts)


def run_of(data, design=None, seed=0, **settings):
    how = {"epochs": 2, "batch_size": 8, "lr": 5e-3, "lr_batch_size": 8, "optimizer": "adamw", "weight_decay": 0.05}
    design = design or small_design(classes=len(data.class_names))
    return RunSpec(
        "resnet50",
        "large_kernel",
        True,
        4,
        1.0,
        design,
        Recipe("test", **(how | settings)),
        data.name,
        data.identity,
        data.image_size,
        seed,
        task="segment",
        head=HEAD,
    )


# --- cost


@pytest.mark.parametrize(("name", "width", "height", "gflops", "params"), PRINTED)
def test_costs_are_those_that_the_paper_prints(name, width, height, gflops, params):
    cost = RUNTIME.cost(FAMILY[name].replace(num_classes=150), TASK.head("upernet", {}), (height, width))
    assert abs(cost.gmacs - gflops) < 1
    assert params is None or round(cost.params / 1e6) == params
    with torch.device("meta"):
        own = build_network(FAMILY[name])
    body = sum(one.numel() for key, one in own.named_parameters() if not key.startswith("head"))
    norms = 2 * sum(FAMILY[name].widths)
    assert cost.backbone["backbone_params"] == body + norms


def test_a_reference_gives_the_features_of_reduction_4_to_32():
    design = reference_design("resnet18", 3, 64)
    with torch.device("meta"):
        network = RUNTIME.build(design, HEAD)
        maps = network.features(torch.zeros(1, 3, 64, 64))
    assert [tuple(one.shape) for one in maps] == [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    with pytest.raises(RoadmapError, match=r"timm's \w+ has no feature maps that reduce images by"):
        RUNTIME.build(reference_design("deit_tiny_patch16_224", 3, 224), HEAD)


@pytest.mark.parametrize(("stride", "step"), [(1, "resnet50"), (2, "separate_downsample"), (4, "patchify_stem")])
def test_every_stem_stride_gives_logits_for_every_pixel(stride, step):
    design = ladder().scaled(width=4, depth=1 / 9, stem_stride=stride)[step].design.replace(num_classes=5)
    images = torch.randn(2, 3, 64, 96)
    network = RUNTIME.build(design, HEAD).eval()
    with torch.no_grad():
        assert network(images).shape == (2, 5, 64 // stride, 96 // stride)
        assert predict(network, images, HEAD).shape == (2, 5, 64, 96)


def test_the_norm_on_the_features_is_a_setting_of_the_head(scenes):
    for norm, kinds in (("layer", {"LayerNorm2d"}), ("none", {"Identity"})):
        head = TASK.head("upernet", {"norm": norm})
        network = RUNTIME.build(small_design(), head)
        assert {type(one).__name__ for one in network.features.norms} == kinds
        assert {type(one).__name__ for one in network.decoder.feature_norms} == {"Identity"}
    run = run_of(scenes)
    other = dataclasses.replace(run, head=dataclasses.replace(HEAD, norm="none"))
    assert run.signature != other.signature
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run


# --- what is measured


class Told(torch.nn.Module):
    """A network whose logits are those it is given."""

    def __init__(self, logits, head=HEAD):
        super().__init__()
        self.head, self.logits = head, iter(logits)

    def forward(self, images):
        return torch.stack([next(self.logits) for _ in images])


def test_figures_are_those_of_scikit_learn_over_all_pixels(scenes):
    generator = torch.Generator().manual_seed(0)
    sizes = [(20, 30), (17, 33), (20, 30)]
    masks = [torch.randint(0, 5, size, generator=generator) for size in sizes]
    masks[0][:5] = 255
    masks[1][masks[1] == 4] = 2
    logits = [torch.randn(7, *size, generator=generator) for size in sizes]  # of class 5 and 6 there is no pixel
    for one in logits:
        one[6] = -100.0  # nor a guess
    data = dataclasses.replace(scenes, class_names=tuple("abcdefg"))
    meter = SegmentationMeter(RUNTIME.batcher(data, Recipe("none"), 0), torch.device("cpu"))
    for own, mask in zip(logits, masks, strict=True):
        meter.update(Told([own]), ([torch.zeros(3, *mask.shape)], [mask]))
    true = np.concatenate([mask[mask != 255].numpy() for mask in masks])
    guessed = np.concatenate([own.argmax(0)[mask != 255].numpy() for own, mask in zip(logits, masks, strict=True)])
    found = meter.compute()
    labels = sorted({*true, *guessed})
    assert found["miou"] == pytest.approx(100 * jaccard_score(true, guessed, average="macro", labels=labels))
    assert found["pixel_accuracy"] == pytest.approx(100 * accuracy_score(true, guessed))
    recall = recall_score(true, guessed, average="macro", labels=sorted({*true}))
    assert found["class_accuracy"] == pytest.approx(100 * recall)
    losses = [
        cross_entropy(own[:, mask != 255].T, mask[mask != 255], reduction="sum")
        for own, mask in zip(logits, masks, strict=True)
    ]
    assert found["loss"] == pytest.approx(float(sum(losses)) / len(true), rel=1e-5)
    # no mean over images: that is another figure
    by_image = [
        jaccard_score(mask[mask != 255], own.argmax(0)[mask != 255], average="macro", zero_division=0)
        for own, mask in zip(logits, masks, strict=True)
    ]
    assert abs(100 * np.mean(by_image) - found["miou"]) > 0.1


def test_what_is_predicted_is_compared_at_the_masks_own_size(scenes):
    logits, mask = torch.randn(3, 8, 8), torch.randint(0, 3, (31, 45))
    data = dataclasses.replace(scenes, class_names=tuple("abc"))
    meter = SegmentationMeter(RUNTIME.batcher(data, Recipe("none"), 0), torch.device("cpu"))
    meter.update(Told([logits]), ([torch.zeros(3, 16, 23)], [mask]))
    whole = interpolate(logits[None], (16, 23), mode="bilinear", align_corners=False)
    guess = interpolate(whole, (31, 45), mode="bilinear", align_corners=False)[0].argmax(0)
    assert meter.compute()["pixel_accuracy"] == pytest.approx(100 * float((guess == mask).float().mean()))


def windows(network, image, side, stride):
    """Sliding windows as a plain loop over the pixels that each has: the mean of its logits."""
    height, width = image.shape[-2:]
    total, seen = 0.0, torch.zeros(height, width)
    for row in range(max(0, -(-(height - side) // stride)) + 1):
        for column in range(max(0, -(-(width - side) // stride)) + 1):
            bottom, right = min(row * stride + side, height), min(column * stride + side, width)
            top, left = max(bottom - side, 0), max(right - side, 0)
            piece = image[:, :, top:bottom, left:right]
            own = interpolate(network(piece), piece.shape[-2:], mode="bilinear", align_corners=False)
            part = torch.zeros(1, own.shape[1], height, width)
            part[:, :, top:bottom, left:right] = own
            total = total + part
            seen[top:bottom, left:right] += 1
    assert seen.min() > 0
    return total / seen


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (100, 75), (150, 64), (40, 90)])
def test_sliding_windows(size):
    torch.manual_seed(0)
    network, image = RUNTIME.build(small_design(), HEAD).eval(), torch.randn(1, 3, *size)
    head = dataclasses.replace(HEAD, window=64)
    with torch.no_grad():
        whole, slid = predict(network, image, HEAD), predict(network, image, head)
        assert torch.allclose(slid, windows(network, image, 64, 42), atol=1e-5)
        assert torch.equal(whole, slid) == (max(size) <= 64)
        assert torch.equal(whole, predict(network, image, dataclasses.replace(head, window=max(size))))
        other = predict(network, image, dataclasses.replace(head, stride=10))
        assert torch.allclose(other, windows(network, image, 64, 10), atol=1e-5)


# --- training


def test_a_loss_is_that_of_both_heads(scenes):
    torch.manual_seed(0)
    network = RUNTIME.build(small_design(classes=11), dataclasses.replace(HEAD, dropout=0.0))
    batch = next(iter(RUNTIME.batcher(scenes, Recipe("none", batch_size=4), 0).training(0)))
    images, masks = (torch.stack(one) for one in batch)
    masks[:, :8] = 255
    loss, right = RUNTIME.loss(network, (images, masks), Recipe("none"))
    whole, auxiliary = (interpolate(one, (64, 64), mode="bilinear") for one in network(images))
    losses = [
        cross_entropy(one.permute(0, 2, 3, 1)[masks != 255], masks[masks != 255], reduction="sum")
        for one in (whole, auxiliary)
    ]
    assert float(loss.detach()) == pytest.approx(
        float((losses[0] + 0.4 * losses[1]).detach()) / masks.numel(), rel=1e-4
    )
    shares = [(one.argmax(0) == mask)[mask != 255].float().mean() for one, mask in zip(whole, masks, strict=True)]
    assert float(right) == pytest.approx(float(sum(shares)), rel=1e-4)
    loss.backward()
    assert [name for name, one in network.named_parameters() if one.grad is None] == []


class Stop(Watch):
    def wants_checkpoint(self):
        return True

    def wants_stop(self):
        return True


def test_a_stopped_run_ends_as_one_that_was_never_stopped(scenes, tmp_path):
    run = run_of(scenes, scale=(0.5, 2.0), flip=True, photometric=True, ema=0.9)
    data = dataclasses.replace(scenes, flip=True)
    whole = fit_run(run, data, tmp_path / "whole", ONE_THREAD)
    with pytest.raises(StoppedError):
        fit_run(run, data, tmp_path / "stopped", ONE_THREAD, Stop())
    resumed = fit_run(run, data, tmp_path / "stopped", ONE_THREAD)
    assert len(resumed.history) == 2 and whole.metrics["miou"] == resumed.metrics["miou"] > 0
    assert whole.metrics["last_miou"] == resumed.metrics["last_miou"]
    weights = resumed.network.state_dict()
    assert all(torch.equal(one, weights[name]) for name, one in whole.network.state_dict().items())
    keys = ("epoch", "train_loss", "train_pixel_accuracy", "test_loss", "test_miou", "test_pixel_accuracy")
    assert [*whole.history[-1]][:6] == [*keys] and whole.correct is None


def test_workers_make_the_same_batches(scenes):
    recipe = Recipe("test", batch_size=8, scale=(0.5, 2.0), flip=True, photometric=True)
    data = dataclasses.replace(scenes, flip=True)
    one, two = ([*RUNTIME.batcher(data, recipe, 3, workers=workers).training(1)] for workers in (0, 2))
    for ours, others in zip(one, two, strict=True):
        assert all(torch.equal(torch.stack(a), torch.stack(b)) for a, b in zip(ours, others, strict=True))
    ranks = [[*RUNTIME.batcher(data, recipe, 3, rank=rank, ranks=2).training(1)] for rank in (0, 1)]
    for first, second, whole in zip(*ranks, one, strict=True):
        assert torch.equal(torch.stack([*first[0], *second[0]]), torch.stack(whole[0]))


def test_a_mask_goes_where_its_image_goes(scenes):
    """Images whose colour says the class of a pixel, and whose places differ: scaled, cut, filled up, flipped."""
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 5, size=(2, 6, 9)), np.ones((12, 12), int)).astype(np.uint8)
    images = np.stack([40 * blocks] * 3, axis=-1)
    split = dataclasses.replace(scenes.train, labels=np.zeros(2, np.int64), images=images, masks=blocks)
    unknown = 0
    for place in range(12):
        image, mask = LearnedPiece(64, (0.5, 2.0), True, False)(split, place % 2)
        assert image.shape == (3, 64, 64) and mask.shape == (64, 64) and mask.dtype == torch.int64
        known = mask != 255
        unknown += int((~known).sum())
        near = (image[0].float() / 40 - mask).abs()[known] < 0.5
        assert near.float().mean() > 0.8  # but on the edges of blocks, which bilinear scaling blurs
    assert unknown > 0


def test_layers_learn_at_the_rates_of_the_released_code():
    """`get_num_layer_stage_wise` of the paper's repository, written out for our names: num_layers 6 and 12."""
    recipe = dataclasses.replace(load_recipe("ade20k-160k"), layer_decay=0.9)
    for regime, count in (("resnet50", 6), ("resnet200", 12)):
        with torch.device("meta"):
            network = RUNTIME.build(ladder(regime)["separate_downsample"].design, HEAD)
        groups = RUNTIME.parameters(network, recipe)
        found = {id(one): group for group in groups for one in group["params"]}
        assert len(found) == len([*network.parameters()])
        for name, parameter in network.named_parameters():
            stage = re.match(r"features\.network\.stages\.(\d)\.blocks", name)
            layer = int(stage[1]) + 1 if stage else 0 if name.startswith("features.network.") else count + 1
            group = found[id(parameter)]
            assert group["lr_scale"] == pytest.approx(0.9 ** (count + 1 - layer)), name
            assert (group["weight_decay"] == 0) == (parameter.ndim < 2), name


def test_batch_norm_over_few_images_is_refused(scenes):
    for batch, settings, refused in (
        (2, {}, True),
        (4, {}, False),
        (4, {"accumulate": 2}, True),
        (2, {"frozen_norms": True}, False),
    ):
        run = run_of(scenes, batch_size=batch, **settings)
        if refused:
            with pytest.raises(RoadmapError, match=r"cannot normalise over 2 images .* --frozen-norms"):
                Execution().check_shares(run, "cuda")
        else:
            Execution().check_shares(run, "cuda")
    with pytest.raises(RoadmapError, match="normalises over the whole batch"):
        Execution(devices=2).check_shares(run_of(scenes), "cpu")


def test_frozen_statistics_stay_what_they_were(scenes, tmp_path):
    run = run_of(scenes, frozen_norms=True, epochs=1, batch_size=2)
    weights = fit_run(run, scenes, tmp_path, ONE_THREAD).network.state_dict()
    means = [one for name, one in weights.items() if name.endswith("running_mean")]
    assert means and not any(one.any() for one in means)
