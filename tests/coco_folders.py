"""Folders in COCO's layout, made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 48)  # height, width
#: Two classes, whose ids have gaps.
CATEGORIES = [{"id": 3, "name": "disc"}, {"id": 17, "name": "box"}]


def rectangle(left, top, width, height):
    """A polygon around whole pixels."""
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def annotation(number, image, category, box, **others):
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": list(box), "segmentation": rectangle(*box),
        "area": box[2] * box[3], "iscrowd": 0, **others,
    }  # fmt: skip


def run_lengths(mask):
    """A mask (H, W) as COCO's annotations of crowds have it: runs of 0 and 1, column after column."""
    flat = mask.T.ravel().astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def make_coco(root: Path, train=8, test=4, change=None):
    """Images of a bright rectangle or two on noise. The last of each part has no object, the one before it a crowd.

    ``change``: function of the part and its content that breaks it.
    """
    rng = np.random.default_rng(0)
    for part, count in (("train2017", train), ("val2017", test)):
        (root / part).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for place in range(count):
            number = 100 * place + 7
            pixels = rng.integers(0, 90, (*SIZE, 3), dtype=np.uint8)
            for which in range(1 + place % 2 if place < count - 1 else 0):
                width, height = (int(side) for side in rng.integers(10, 20, 2))
                left, top = int(rng.integers(0, SIZE[1] - width)), int(rng.integers(0, SIZE[0] - height))
                pixels[top : top + height, left : left + width, which] += 150
                box = (left, top, width, height)
                annotations.append(annotation(len(annotations) + 1, number, (3, 17)[which], box))
            if place == count - 2:
                crowd = np.zeros(SIZE, bool)
                crowd[:8, :] = True
                annotations.append(
                    annotation(
                        len(annotations) + 1, number, 3, (0, 0, SIZE[1], 8), iscrowd=1, segmentation=run_lengths(crowd)
                    )
                )
            Image.fromarray(pixels).save(root / part / f"{number:012}.png")
            images.append({"id": number, "file_name": f"{number:012}.png", "height": SIZE[0], "width": SIZE[1]})
        content = {"images": images, "annotations": annotations, "categories": [dict(one) for one in CATEGORIES]}
        if change:
            change(part, content)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


def one_class(part, content):
    """A change that leaves the objects of one class."""
    content["categories"] = content["categories"][:1]
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] == 3]
