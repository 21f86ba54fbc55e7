"""Batches, training and testing of detectors: COCO's own code as oracle, and runs that stop and go on."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from coco_folders import SIZE, make_coco, one_class
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection import roi_heads

from roadmap import RoadmapError
from roadmap.data.detection import open_detection
from roadmap.ladders.rungs import ladder
from roadmap.recipes.recipe import Recipe
from roadmap.tasks import task_named
from roadmap.tasks.detection.batches import DetectionBatcher
from roadmap.training.fit import Watch, fit_run
from roadmap.training.module import StoppedError
from roadmap.training.spec import Execution, RunSpec

TASK = task_named("detect")
SMALL = {"channels": 8, "proposals": 40, "samples": 16}
DESIGN = ladder().scaled(8, 1 / 3, stem_stride=2, num_classes=2)["layer_norm"].design


class Found:
    """A network that finds what it is told to, in images scaled to twice their size."""

    def __init__(self, found):
        self.found = iter(found)

    def __call__(self, images):
        return [next(self.found) for _ in images]


def test_precision_is_what_cocos_own_code_finds_in_files(tmp_path):
    """Crowds, an image without objects, category ids with gaps, classes that are mistaken, several at one score."""
    root = make_coco(tmp_path / "data", test=12)
    path = root / "annotations" / "instances_val2017.json"
    data = open_detection("coco", root)
    truth = json.loads(path.read_text())
    rng = random.Random(0)
    results, found = {"bbox": [], "segm": []}, []
    for place, image in enumerate(truth["images"]):
        own = []
        for one in [one for one in truth["annotations"] if one["image_id"] == image["id"]] * 2:
            left, top, width, height = one["bbox"]
            left, top = max(0, left + rng.randint(-3, 3)), max(0, top + rng.randint(-3, 3))
            width, height = min(width + rng.randint(-2, 2), 48 - left), min(height, 40 - top)
            category = rng.choice([one["category_id"], one["category_id"], 3, 17])
            own.append((category, rng.randint(1, 9) / 10, [left, top, width, height]))
        if place % 3 == 0:
            own.append((3, 0.55, [1, 1, 12, 12]))
        own.sort(key=lambda one: -one[1])
        for category, score, box in own:
            result = {"image_id": image["id"], "category_id": category, "score": score}
            results["bbox"].append({**result, "bbox": box})
        corners = torch.tensor([[b[0], b[1], b[0] + b[2], b[1] + b[3]] for *_, b in own], dtype=torch.float64)
        masks = 0.47 + 0.5 * torch.rand(len(own), 1, 28, 28, generator=torch.Generator().manual_seed(place))
        for (category, score, _), mask in zip(
            own, roi_heads.paste_masks_in_image(masks, corners.reshape(-1, 4).float(), SIZE), strict=True
        ):
            rle = roadmap_free_encoding(mask[0] > 0.5)
            results["segm"].append(
                {"image_id": image["id"], "category_id": category, "score": score, "segmentation": rle}
            )
        labels = torch.tensor([{3: 1, 17: 2}[category] for category, *_ in own], dtype=torch.int64)
        scores = torch.tensor([score for _, score, _ in own], dtype=torch.float64)
        found.append({"boxes": 2 * corners.reshape(-1, 4), "labels": labels, "scores": scores, "masks": masks})

    runtime = TASK.make_runtime()
    batcher = DetectionBatcher(data, Recipe("none"), 0)
    meter = runtime.meter(batcher, torch.device("cpu"))
    network = Found(found)
    for images, targets in batcher.testing(5):
        meter.update(network, ([torch.zeros(3, 2 * SIZE[0], 2 * SIZE[1]) for _ in images], targets))
    ours = meter.compute()

    coco, stats = COCO(str(path)), {}
    for kind, own in results.items():
        (tmp_path / f"{kind}.json").write_text(json.dumps(own))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / f"{kind}.json")), kind)
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
        stats[kind] = 100 * evaluation.stats
    assert 5 < stats["bbox"][0] < 95 and stats["segm"][1] > 0
    assert ours["box_ap"] == pytest.approx(stats["bbox"][0])
    assert ours["mask_ap"] == pytest.approx(stats["segm"][0])
    assert ours["mask_ap50"] == pytest.approx(stats["segm"][1])
    assert ours["mask_ap75"] == pytest.approx(stats["segm"][2])


def roadmap_free_encoding(mask):
    from pycocotools import mask as tools

    rle = tools.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def test_finding_nothing_is_no_precision(tmp_path):
    data = open_detection("coco", make_coco(tmp_path))
    meter = TASK.make_runtime().meter(DetectionBatcher(data, Recipe("none"), 0), torch.device("cpu"))
    assert set(meter.compute().values()) == {0.0}


def test_boxes_and_masks_move_with_the_pixels(tmp_path):
    """Scaled and flipped at random, the bright pixels are those of the mask and within the box; epochs differ, and each
    is the same again."""
    data = open_detection("coco", make_coco(tmp_path, 16), image_size=60)
    recipe = Recipe("none", batch_size=4, scale=(0.5, 1.5), flip=True)
    seen = set()
    for images, targets in DetectionBatcher(data, recipe, 0).training(3):
        for image, target in zip(images, targets, strict=True):
            seen.add(image.shape)
            assert target["masks"].shape[1:] == image.shape[1:]
            for box, mask, label in zip(target["boxes"], target["masks"], target["labels"], strict=True):
                left, top, right, bottom = box.round().int().tolist()
                assert mask[max(0, top + 1) : bottom - 1, max(0, left + 1) : right - 1].all()
                assert int(mask.sum()) == pytest.approx((right - left) * (bottom - top), rel=0.35)
                own = image[int(label) - 1]
                assert own[mask > 0].mean() > own[mask == 0].mean() + 1
    assert len(seen) > 4
    assert all(min(shape[1:]) <= 90 and max(shape[1:]) <= 100 for shape in seen)

    def pixels(epoch, seed=0, workers=0):
        batches = DetectionBatcher(data, recipe, seed, workers=workers).training(epoch)
        return [float(image.sum()) for images, _ in batches for image in images]

    assert pixels(0) == pixels(0) != pixels(1)
    assert pixels(0, workers=2) == pixels(0) != pixels(0, seed=1)


def test_ranks_share_batches_out(tmp_path):
    data = open_detection("coco", make_coco(tmp_path, 8, 5))
    recipe = Recipe("none", batch_size=4)
    whole = [[float(image.sum()) for image in images] for images, _ in DetectionBatcher(data, recipe, 0).training(0)]
    parts = [DetectionBatcher(data, recipe, 0, rank=rank, ranks=2) for rank in (0, 1)]
    shares = [[[float(image.sum()) for image in images] for images, _ in part.training(0)] for part in parts]
    assert whole == [one + other for one, other in zip(*shares, strict=True)]
    tested = [[int(target["image"]) for _, targets in part.testing() for target in targets] for part in parts]
    assert sorted(sum(tested, [])) == list(range(5))
    assert [part.test_places().tolist() for part in parts] == tested


def make_run(data, head="mask_rcnn", **settings):
    recipe = Recipe("test", **{"epochs": 2, "batch_size": 4, "lr": 2e-3, "lr_batch_size": 4, **settings})
    return RunSpec(
        regime="resnet50", step="layer_norm", adopted=True, width=8, depth=1 / 3,
        design=DESIGN.replace(num_classes=len(data.class_names)), recipe=recipe, data=data.name, task="detect",
        data_fingerprint=data.fingerprint, image_size=data.image_size, seed=0, head=TASK.head(head, SMALL),
    )  # fmt: skip


@pytest.mark.parametrize("head", list(TASK.heads))
def test_a_stopped_training_goes_on_as_if_it_had_not(tmp_path, head):
    """With one class, images without objects, a crowd, and batches in which nothing is to be found."""
    data = open_detection("coco", make_coco(tmp_path / "data", change=one_class), image_size=40)
    run, execution = make_run(data, head, scale=(0.8, 1.0), flip=True), Execution(device="cpu", threads=1, workers=0)

    class Stop(Watch):
        def wants_stop(self):
            return True

    whole = fit_run(run, data, tmp_path / "whole", execution)
    with pytest.raises(StoppedError):
        fit_run(run, data, tmp_path / "parts", execution, Stop())
    again = fit_run(run, data, tmp_path / "parts", execution)
    pairs = zip(whole.network.state_dict().values(), again.network.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    assert whole.metrics["mask_ap"] == again.metrics["mask_ap"] >= 0
    assert whole.metrics["status"] == "done" and whole.correct is None


def test_settings_that_mean_nothing_are_refused(tmp_path):
    data = open_detection("coco", make_coco(tmp_path))
    with pytest.raises(RoadmapError, match="mixup 0.8, which means nothing to --task detect: leave it out"):
        make_run(data, mixup=0.8)


def found_in(rank, ranks, data, store, results):
    """One of ``ranks`` processes tests its share of the images, in which every object is found but the first."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    batcher = DetectionBatcher(data, Recipe("none"), 0, rank=rank, ranks=ranks)
    meter = TASK.make_runtime().meter(batcher, torch.device("cpu"))
    for _, targets in batcher.testing(2):
        found = []
        for target in targets:
            labels, corners, _ = data.test.objects.learned(int(target["image"]))
            kept = slice(int(target["image"]) == 0, None)
            boxes = torch.from_numpy(corners[kept]).float()
            masks = torch.ones(len(boxes), 1, 28, 28)
            labels = torch.from_numpy(labels[kept]) + 1
            found.append({"boxes": boxes, "labels": labels, "scores": torch.ones(len(boxes)), "masks": masks})
        meter.update(Found(found), ([torch.zeros(3, *SIZE) for _ in targets], targets))
    if ranks > 1:
        meter.gather()
    results.put(meter.compute())
    torch.distributed.destroy_process_group()


def test_ranks_gather_what_they_have_found(tmp_path):
    data = open_detection("coco", make_coco(tmp_path / "data", test=9))
    context = torch.multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    for ranks in (1, 2):
        given = [(rank, ranks, data, tmp_path / f"store{ranks}", results) for rank in range(ranks)]
        workers = [context.Process(target=found_in, args=one) for one in given]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    alone, *shared = (results.get() for _ in range(3))
    assert 50 < alone["box_ap"] < 100
    assert shared == [alone, alone]


@pytest.mark.parametrize("head", list(TASK.heads))
def test_a_training_that_diverges_says_so(tmp_path, head):
    data = open_detection("coco", make_coco(tmp_path / "data"), image_size=40)
    run = make_run(data, head, lr=1000.0, optimizer="sgd", epochs=3)
    result = fit_run(run, data, tmp_path, Execution(device="cpu", threads=1, workers=0))
    assert result.metrics["status"] == "failed" and result.metrics["reason"].startswith("diverged: training loss is")
    assert result.metrics["mask_ap"] is None
