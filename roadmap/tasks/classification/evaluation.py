"""What a classifier makes of test images."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.tasks.task import Evaluation

#: Of more classes the confusion table would have millions of cells: it is not written then.
CONFUSION_CLASSES = 2000


@dataclass(frozen=True, eq=False)
class Classified(Evaluation):
    """What a network makes of the test images of a data set.

    ``top1`` and ``top5`` are in per cent, ``loss`` is the mean cross-entropy. ``labels`` and ``guesses``: true class
    and first guess of each image, int64 (N,), as places in ``class_names``, whose order is the network's.
    """

    labels: np.ndarray
    guesses: np.ndarray

    @property
    def top1(self) -> float:
        """Images told right, in per cent."""
        return self.metrics["top1"]

    @property
    def top5(self) -> float:
        """Images whose class is among the first five guesses, in per cent."""
        return self.metrics["top5"]

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
        few = len(self.class_names) <= CONFUSION_CLASSES
        return super().to_dict() | {
            "confusion": self.confusion.tolist() if few else None,
            "mistakes": self.mistakes(CONFUSION_CLASSES),
        }
