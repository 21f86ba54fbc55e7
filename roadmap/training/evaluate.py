"""A trained network tested on a data set: the figures of the training's own test, and what it takes for what."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from roadmap.checks import RoadmapError
from roadmap.data.batches import TEST_BATCH, Batcher
from roadmap.data.shared import SharedMemoryError
from roadmap.data.sources import ImageData
from roadmap.recipes.recipe import Recipe
from roadmap.training.device import is_memory_error, loader_workers, resolve_device
from roadmap.training.spec import Execution

#: Of more classes the confusion table would have millions of cells: it is not written then.
CONFUSION_CLASSES = 2000
AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network makes of the test images of a data set.

    ``top1`` and ``top5`` are in per cent, ``loss`` is the mean cross-entropy. ``labels`` and ``guesses``: true class
    and first guess of each image, int64 (N,), as places in ``class_names``, whose order is the network's.
    ``remarks``: what a reader should know of the images and classes, in sentences.
    """

    weights: str
    data: str
    image_size: int
    device: str
    precision: str
    top1: float
    top5: float
    loss: float
    class_names: tuple[str, ...]
    labels: np.ndarray
    guesses: np.ndarray
    remarks: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        """Whether the first guess is right, by image: bool (N,)."""
        return self.labels == self.guesses

    @cached_property
    def confusion(self) -> np.ndarray:
        """Images by true class (row) and first guess (column): int64 (C, C)."""
        classes = len(self.class_names)
        return np.bincount(self.labels * classes + self.guesses, minlength=classes**2).reshape(classes, classes)

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Name, number of images and top-1 in per cent of each class; None where it has no image."""
        classes = len(self.class_names)
        images = np.bincount(self.labels, minlength=classes).tolist()
        right = np.bincount(self.labels[self.labels == self.guesses], minlength=classes).tolist()
        return [
            {"class": name, "images": count, "top1": 100 * hits / count if count else None}
            for name, hits, count in zip(self.class_names, right, images, strict=True)
        ]

    def mistakes(self, most: int) -> list[dict[str, Any]]:
        """The most common confusions, ``most`` at most: true class, predicted class, number of images."""
        wrong = self.labels != self.guesses
        pairs, counts = np.unique(np.stack([self.labels[wrong], self.guesses[wrong]]), axis=1, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:most]
        return [
            {"true": self.class_names[row], "predicted": self.class_names[column], "images": int(count)}
            for row, column, count in zip(*pairs[:, order].tolist(), counts[order], strict=True)
        ]

    def confusion_csv(self) -> str:
        """The confusion table as comma-separated values, with class names as first line and first column.

        Raises `RoadmapError` above `CONFUSION_CLASSES`.
        """
        if len(self.class_names) > CONFUSION_CLASSES:
            raise RoadmapError(f"a confusion table of {len(self.class_names)} classes is too large to be written")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["true", *self.class_names])
        writer.writerows(zip(self.class_names, *self.confusion.T.tolist(), strict=True))
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        facts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("labels", "guesses", "remarks")
        }
        few = len(self.class_names) <= CONFUSION_CLASSES
        return facts | {
            "class_names": list(self.class_names),
            "images": self.images,
            "classes": self.classes,
            "confusion": self.confusion.tolist() if few else None,
            "mistakes": self.mistakes(CONFUSION_CLASSES),
        }


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Images (N, 3, S, S) -> logits (N, C) in single precision."""
    return network(images.contiguous(memory_format=torch.channels_last)).float()


def topk_counts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(first guesses (N,), counts (4,): right at the first guess, among the first five, sum of losses, images)."""
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
    ranked = guesses == labels[:, None]
    loss = cross_entropy(logits, labels, reduction="sum")
    counts = torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, torch.tensor(len(labels), device=loss.device)])
    return guesses[:, 0], counts


def evaluate_network(
    network: nn.Module,
    data: ImageData,
    weights: str,
    batch_size: int | None = None,
    execution: Execution | None = None,
    precision: str = "32",
) -> Evaluation:
    """Test a network on the test images of ``data``, normalised with its constants, as a training does at its end.

    ``weights`` is what the result calls them; ``batch_size`` is by default a test's. The classes of the data are the
    network's outputs, in their order. Raises `RoadmapError` where the device is not there or has not enough memory,
    where an image cannot be read, and where the loss is no number.
    """
    execution = execution or Execution()
    device = resolve_device(execution, precision)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    size = batch_size or TEST_BATCH
    batcher = Batcher(data, Recipe("none"), seed=0, device=device, workers=loader_workers(execution))
    cast = torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else contextlib.nullcontext()
    guesses, totals = [], torch.zeros(4, dtype=torch.float64)
    try:
        network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        with torch.inference_mode(), cast:
            for images, labels in batcher.testing(size):
                guessed, counts = topk_counts(logits_of(network, images.to(device)), labels.to(device))
                guesses.append(guessed.cpu())
                totals += counts.cpu().double()
    except SharedMemoryError as error:
        raise RoadmapError(str(error)) from None
    except Exception as error:
        if not is_memory_error(error):
            raise
        raise RoadmapError(
            f"batches of {size} images of {data.image_size} px do not fit into the memory of {device}: "
            "give a smaller --batch-size"
        ) from None
    first, five, loss, count = totals.tolist()
    if not math.isfinite(loss):
        raise RoadmapError(
            f"the loss is {loss} at precision {precision}: the weights are not those of a trained network, or "
            "need --precision 32"
        )
    return Evaluation(
        weights=weights,
        data=data.name,
        image_size=data.image_size,
        device=str(device),
        precision=precision,
        top1=100 * first / count,
        top5=100 * five / count,
        loss=loss / count,
        class_names=data.class_names,
        labels=data.test.labels,
        guesses=torch.cat(guesses).numpy(),
        remarks=tuple(data.remarks),
    )
