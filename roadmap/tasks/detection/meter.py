"""Average precision of boxes and masks, by COCO's own code."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import resize_boxes

from roadmap.data.objects import Objects
from roadmap.tasks.task import Evaluation

#: COCO's overlaps that count as found: 0.5, 0.55, ... 0.95. Where two of them are.
AT_50, AT_75 = 0, 5


class DetectionMeter:
    """Collects the detections in test images whose objects are known, and compares them when all are there.

    Batches are (images, targets), a target with the ``image``'s place among all and its own ``size`` in pixels, which
    detections are scaled to. Of an image that is tested twice, the last test counts.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._found: dict[int, list[dict[str, Any]]] = {}

    def update(self, network: nn.Module, batch: Any) -> None:
        images, targets = batch
        for image, target, detected in zip(images, targets, network(images), strict=True):
            place, size = int(target["image"]), target["size"].tolist()
            boxes = resize_boxes(detected["boxes"].float(), image.shape[-2:], size)
            masks = paste_masks_in_image(detected["masks"].float(), boxes, size) > 0.5
            self._found[place] = [
                {"image_id": place, "category_id": label, "score": score, "box": box, "mask": mask}
                for label, score, box, mask in zip(
                    detected["labels"].tolist(),
                    detected["scores"].tolist(),
                    _as_coco(boxes),
                    _packed(masks[:, 0]),
                    strict=True,
                )
            ]

    def gather(self) -> None:
        """Collect what all processes have found."""
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, self._found)
        self._found = {place: found for part in parts for place, found in part.items()}

    def compute(self) -> dict[str, float]:
        """Average precision in per cent: of masks, of boxes, and of masks at overlaps of 0.5 and 0.75."""
        found = [one for place in sorted(self._found) for one in self._found[place]]
        masks = self._masks = precisions_of(
            self._objects, [_with(one, segmentation=one["mask"]) for one in found], "segm"
        )
        boxes = precisions_of(self._objects, [_with(one, bbox=one["box"]) for one in found], "bbox")
        return {
            "mask_ap": mean_precision(masks),
            "box_ap": mean_precision(boxes),
            "mask_ap50": mean_precision(masks[AT_50]),
            "mask_ap75": mean_precision(masks[AT_75]),
        }

    @property
    def correct(self) -> None:
        """An image is neither right nor wrong."""

    def evaluation(self, **facts: Any) -> Detected:
        """The test as a value, after `compute`."""
        labels = self._objects.labels
        images = [len(np.unique(self._objects.images[labels == label])) for label in range(len(facts["class_names"]))]
        return Detected(**facts, images_of=images, precisions=self._masks)


@dataclass(frozen=True, eq=False)
class Detected(Evaluation):
    """What a network makes of the test images of a data set.

    ``images_of``: in how many of them objects of each class are; ``precisions``: what `precisions_of` says of masks.
    """

    images_of: list[int]
    precisions: np.ndarray

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Name, number of images with such objects, and mask AP in per cent of each class; None where it has none."""
        return [
            {"class": name, "images": count, "mask_ap": mean_precision(self.precisions[..., label]) if count else None}
            for label, (name, count) in enumerate(zip(self.class_names, self.images_of, strict=True))
        ]


def precisions_of(objects: Objects, found: list[dict[str, Any]], kind: str) -> np.ndarray:
    """COCO's precision by overlap, recall and class, (10, 101, C), of at most 100 detections an image; -1 for a class
    that no object has. ``kind``: bbox or segm. ``found``: COCO's results, an ``image_id`` being the image's place and
    a ``category_id`` 1 + the class's."""
    truth = COCO()
    truth.dataset = {
        "images": [
            {"id": place, "height": height, "width": width}
            for place, (height, width) in enumerate(objects.sizes.tolist())
        ],
        "categories": [{"id": label + 1} for label in range(objects.labels.max(initial=0) + 1)],
        "annotations": [
            {
                "id": index + 1,  # pycocotools takes a match with 0 for none
                "image_id": int(image),
                "category_id": int(label) + 1,
                "bbox": box.tolist(),
                "segmentation": objects.mask(index),
                "area": float(area),
                "iscrowd": int(crowd),
            }
            for index, (image, label, box, area, crowd) in enumerate(
                zip(objects.images, objects.labels, objects.boxes, objects.areas, objects.crowds, strict=True)
            )
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it says how far it is
        truth.createIndex()
        results = COCO()
        results.dataset = {**truth.dataset, "annotations": []}
        results.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found) if found else results, kind)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision: np.ndarray = evaluation.eval["precision"][..., 0, 0]
    return precision


def mean_precision(precision: np.ndarray) -> float:
    """Average precision in per cent, over all classes that have objects; nan where none has."""
    known = precision[precision > -1]
    return 100 * float(known.mean()) if len(known) else float("nan")


def _as_coco(boxes: Tensor) -> list[list[float]]:
    """Left, top, right, bottom -> left, top, width, height: (D, 4)."""
    sizes: list[list[float]] = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    return sizes


def _packed(masks: Tensor) -> list[dict[str, Any]]:
    """Masks bool (D, H, W) as COCO's run lengths."""
    packed: list[dict[str, Any]] = tools.encode(np.asfortranarray(masks.permute(1, 2, 0).byte().cpu().numpy()))
    return packed


def _with(found: dict[str, Any], **shape: Any) -> dict[str, Any]:
    return {**{key: found[key] for key in ("image_id", "category_id", "score")}, **shape}
