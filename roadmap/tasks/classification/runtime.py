"""Training and testing of classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from roadmap.cost.counting import Cost, count
from roadmap.data.batches import Batch, Batcher
from roadmap.network.building import build_network, normalises_over_batch
from roadmap.network.families import NetworkDesign
from roadmap.recipes.recipe import Recipe
from roadmap.tasks.classification.evaluation import Classified


class Classification:
    """The `roadmap.tasks.task.TaskRuntime` of classification: the network is the classifier of its design."""

    batcher = Batcher

    def build(self, design: NetworkDesign, head: None = None) -> nn.Module:
        """The network: (N, in_channels, H, W) -> (N, num_classes)."""
        return build_network(design)

    def loss(self, network: nn.Module, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """(cross-entropy, images told right; mixed images count for the larger share)."""
        images, targets = batch
        smoothing = 0.0 if recipe.mixes else recipe.label_smoothing  # Mixup's targets are smooth already
        logits = logits_of(network, images)
        loss = cross_entropy(logits, targets, label_smoothing=smoothing)
        with torch.no_grad():
            labels = targets.argmax(1) if targets.ndim == 2 else targets
            return loss, (logits.argmax(1) == labels).sum()

    def meter(self, batcher: Batcher, device: torch.device) -> ClassificationMeter:
        """Counts images told right at the first guess and among the first five."""
        return ClassificationMeter(batcher, device)

    def parameters(self, network: nn.Module, recipe: Recipe) -> nn.Module:
        """The network, whose groups timm makes."""
        return network

    def cost(self, design: NetworkDesign, head: None, image_size: int | tuple[int, int]) -> Cost:
        """The cost of the network, all of which is the backbone."""
        return count(design, image_size)

    def normalises_over_batch(self, design: NetworkDesign, head: None) -> bool:
        """Whether the network does."""
        return normalises_over_batch(design)


class ClassificationMeter:
    """Counts over the test images: right at the first guess, among the first five, sum of losses, images."""

    def __init__(self, batcher: Batcher, device: torch.device) -> None:
        self._device = device
        self._counts = torch.zeros(4, dtype=torch.float64 if device.type != "mps" else torch.float32)
        self._guesses = torch.zeros(len(batcher.data.test), dtype=torch.int64, device=device)
        self._labels = batcher.data.test.labels
        self._places = torch.from_numpy(batcher.test_places()).to(device)  # of the images that are to come

    def update(self, network: nn.Module, batch: Batch) -> None:
        """Test images (N, 3, S, S) with labels (N,)."""
        images, labels = batch
        guesses, counts = topk_counts(logits_of(network, images), labels)
        places, self._places = self._places.tensor_split([len(labels)])
        self._guesses[places] = guesses
        self._counts += counts.to(self._counts)

    def gather(self) -> None:
        """Sum over all ranks; every image is one rank's alone."""
        counts = self._counts.to(self._device)
        torch.distributed.all_reduce(counts)
        torch.distributed.all_reduce(self._guesses)
        self._counts = counts

    def compute(self) -> dict[str, float]:
        """``top1`` and ``top5`` in per cent and the mean ``loss``."""
        first, five, loss, images = self._counts.tolist()
        return {"loss": loss / images, "top1": 100 * first / images, "top5": 100 * five / images}

    @property
    def correct(self) -> np.ndarray:
        """Whether the first guess is right, by test image: bool (N,)."""
        return self._labels == self._guesses.cpu().numpy()

    def evaluation(self, **facts: Any) -> Classified:
        """The test as a value."""
        return Classified(**facts, labels=self._labels, guesses=self._guesses.cpu().numpy())


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
