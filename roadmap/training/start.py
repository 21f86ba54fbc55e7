"""Weights that a training starts from: those of another network, all or all but the classifier."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from roadmap.checks import RoadmapError
from roadmap.network.building import classifier_names, design_of
from roadmap.network.families import NetworkDesign
from roadmap.network.weights import Weights


class StartingWeights:
    """Weights that have been read for a network of this ``design``, whose number of classes may be another.

    Raises `RoadmapError` where the weights do not fit.
    """

    def __init__(self, weights: Weights, design: NetworkDesign) -> None:
        self._where = weights.where
        self._design = weights.completed(design)
        self._tensors = weights.of(self._design)

    def digest(self, classifier: bool) -> str:
        """16 hexadecimal digits that name the weights that are taken over, with or without the ``classifier``."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._taken(classifier).items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode() + tensor.float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def load_into(self, network: nn.Module, digest: str, head_scale: float | None) -> None:
        """Load those weights that ``digest`` names. A classifier that is not among them stays fresh, its weights times
        ``head_scale``. Raises `RoadmapError` where the file holds others by now.
        """
        classifier = self._design.num_classes == network.num_classes and digest == self.digest(classifier=True)
        if not classifier and digest != self.digest(classifier=False):
            raise RoadmapError(f"{self._where} no longer holds the weights that this run starts from")
        lacking = network.load_state_dict(self._taken(classifier), strict=False).missing_keys
        own = tuple(f"{name}." for name in classifier_names(self._design))
        if others := [key for key in lacking if not key.startswith(own)]:
            raise RoadmapError(f"{self._where} lacks {others[0]} of the network that is to start from it")
        if not classifier:
            scale_classifier(network, head_scale)

    def _taken(self, classifier: bool) -> dict[str, Tensor]:
        own = tuple(f"{name}." for name in classifier_names(self._design))
        return {name: tensor for name, tensor in self._tensors.items() if classifier or not name.startswith(own)}


def scale_classifier(network: nn.Module, head_scale: float | None) -> None:
    """Multiply a fresh classifier's weights by ``head_scale``, in place; None leaves them."""
    if head_scale is not None:
        with torch.no_grad():
            for name in classifier_names(design_of(network)):
                for parameter in network.get_submodule(name).parameters():
                    parameter.mul_(head_scale)
