"""What a network makes of test images, counted by pixels."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from roadmap.data.batches import Batcher
from roadmap.data.masks import IGNORED
from roadmap.tasks.segment import UPerNet
from roadmap.tasks.segmentation.network import enlarged, predict
from roadmap.tasks.task import Evaluation


class SegmentationMeter:
    """Counts test pixels by true class and guess, sums their losses, and counts the images that have each class."""

    correct = None

    def __init__(self, batcher: Batcher, device: torch.device) -> None:
        self._classes = len(batcher.data.class_names)
        whole = torch.float32 if device.type == "mps" else torch.float64
        self._confusion = torch.zeros(self._classes, self._classes, dtype=torch.int64, device=device)
        self._images = torch.zeros(self._classes, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=whole, device=device)

    def update(self, network: nn.Module, batch: tuple[list[Tensor], list[Tensor]]) -> None:
        """Test images with masks, each in its own size: logits are enlarged to the mask's."""
        images, masks = batch
        head: UPerNet = network.head  # type: ignore[assignment]
        alike = len({tuple(image.shape) for image in images}) == 1
        parts = [torch.stack(images)] if alike else [image[None] for image in images]
        logits = [one for part in parts for one in predict(network, part, head)]
        for own, mask in zip(logits, masks, strict=True):
            self._count(enlarged(own[None], mask.shape)[0] if own.shape[-2:] != mask.shape else own, mask)

    def _count(self, logits: Tensor, mask: Tensor) -> None:
        """Logits (C, H, W) of an image, and its mask (H, W)."""
        known = mask != IGNORED
        true, guessed = mask[known], logits.argmax(0)[known]
        counts = torch.bincount(true * self._classes + guessed, minlength=self._classes**2)
        self._confusion += counts.reshape(self._classes, self._classes)
        self._images += torch.bincount(true, minlength=self._classes) > 0
        self._loss += cross_entropy(logits[None], mask[None], reduction="sum", ignore_index=IGNORED)

    def gather(self) -> None:
        """Sum over all ranks."""
        for counts in (self._confusion, self._images, self._loss):
            torch.distributed.all_reduce(counts)

    def compute(self) -> dict[str, float]:
        """``miou``, ``pixel_accuracy``, ``class_accuracy`` in per cent, and the mean ``loss`` of a labelled pixel."""
        confusion = self._confusion.double().cpu().numpy()
        pixels = confusion.sum()
        right, true, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        return {
            "loss": float(self._loss) / float(pixels) if pixels else float("nan"),
            "miou": _mean(right, true + guessed - right),
            "pixel_accuracy": _mean(right.sum(), pixels),
            "class_accuracy": _mean(right, true),
        }

    def evaluation(self, **facts: Any) -> Segmented:
        """The test as a value."""
        return Segmented(**facts, pixels=self._confusion.cpu().numpy(), images_with=self._images.cpu().numpy())


def _mean(counts: np.ndarray, totals: np.ndarray) -> float:
    """Mean of the shares in per cent, over those that are shares of something; 0 where none is."""
    counts, totals = np.atleast_1d(counts), np.atleast_1d(totals)
    known = totals > 0
    return float(100 * (counts[known] / totals[known]).mean()) if known.any() else 0.0


@dataclass(frozen=True, eq=False)
class Segmented(Evaluation):
    """What a network makes of the test images of a data set, by pixels.

    ``pixels``: labelled ones by true class (row) and guess (column), int64 (C, C); ``images_with``: images that have
    pixels of each class, int64 (C,).
    """

    pixels: np.ndarray
    images_with: np.ndarray

    @property
    def confusion(self) -> np.ndarray:
        """Labelled pixels by true class and guess."""
        return self.pixels

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Name, images that have it and IoU in per cent of each class; None where neither mask nor guess has it."""
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diagonal()
        columns = (self.class_names, self.images_with.tolist(), self.confusion.diagonal().tolist(), union.tolist())
        return [
            {"class": name, "images": images, "miou": 100 * right / all_of if all_of else None}
            for name, images, right, all_of in zip(*columns, strict=True)
        ]

    def mistakes(self, most: int) -> list[dict[str, Any]]:
        """The most common confusions, ``most`` at most: true class, predicted class, number of pixels."""
        wrong = self.confusion - np.diag(self.confusion.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [divmod(int(place), len(self.class_names)) for place in order if wrong.flat[place]]
        return [
            {"true": self.class_names[row], "predicted": self.class_names[column], "pixels": int(wrong[row, column])}
            for row, column in pairs
        ]

    def confusion_csv(self) -> str:
        """The confusion table as comma-separated values, with class names as first line and first column."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["true", *self.class_names])
        writer.writerows(zip(self.class_names, *self.confusion.T.tolist(), strict=True))
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return super().to_dict() | {"confusion": self.confusion.tolist()}
