"""What a trained network sees in one image: the probability of each class, and where the evidence for it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from roadmap.data.images import fit
from roadmap.data.sources import IMAGENET_MEAN, IMAGENET_STD, crop_share_of
from roadmap.network.description import Description

#: How far the class maps may be from adding up to the logits, as a share of the largest logit.
TOLERANCE = 1e-3
#: Side in pixels at which an image and its evidence are drawn.
DRAWN = 320
#: Colours of evidence for and against a class: Okabe and Ito's orange and blue, which all readers tell apart.
FOR, AGAINST = (230, 120, 0), (0, 100, 190)
#: How far the strongest evidence covers the image.
OPACITY = 0.8


@dataclass(frozen=True)
class Evidence:
    """What a network sees in an image.

    logits
        float (classes,).
    maps
        float (classes, H, W): what each position of the last feature map adds to each logit; None where the network
        does not end in global average pooling and a linear layer.
    offsets
        float (classes,): the rest of each logit, so that ``maps.mean((1, 2)) + offsets`` are the logits.
    """

    logits: np.ndarray
    maps: np.ndarray | None = None
    offsets: np.ndarray | None = None

    @property
    def placed(self) -> bool:
        """Whether there are several positions that tell where the evidence is."""
        return self.maps is not None and self.maps[0].size > 1

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, float (classes,)."""
        shares = np.exp(self.logits - self.logits.max())
        return shares / shares.sum()


def as_tested(picture: Image.Image, description: Description, data: str) -> Image.Image:
    """An RGB image cut and resized as the test images of the network's data set ``data`` were."""
    size = description.image_size or min(picture.size)
    return fit(picture, size, crop_share_of(data, size))


def as_input(picture: Image.Image, description: Description) -> Tensor:
    """The network's input of an image `as_tested`: float (1, 3, H, W), normalised as in its training."""
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (description.mean or IMAGENET_MEAN, description.std or IMAGENET_STD)
    )
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    return ((values - mean) / std)[None]


@torch.inference_mode()
def evidence_of(network: nn.Module, image: Tensor) -> Evidence:
    """What a network in evaluation mode sees in ``image`` (1, 3, H, W), with a class activation map of every class.

    The logit of a class is a weighted sum over the last feature map, averaged over its positions (Zhou et al. 2016,
    "Learning Deep Features for Discriminative Localization"), so each position's share in it is known exactly. Where
    a LayerNorm stands between pooling and classifier, as at the end of the ladder, its mean is taken off each position
    and its deviation is the one that it has for this image, with which the shares add up to the logit as well.
    """
    logits = network(image)[0]
    found = _class_maps(network, image)
    if found is not None:
        maps, offsets = found
        gap = (maps.mean((1, 2)) + offsets - logits).abs().max()
        if gap <= TOLERANCE * logits.abs().max().clamp(min=1):
            return Evidence(logits.numpy(), maps.numpy(), offsets.numpy())
    return Evidence(logits.numpy())


def _class_maps(network: Any, image: Tensor) -> tuple[Tensor, Tensor] | None:
    """Maps (classes, H, W) and offsets (classes,), right where the network is of the kind that `evidence_of` knows,
    ours or timm's; None where it cannot be."""
    if not hasattr(network, "forward_features") or not hasattr(network, "get_classifier"):
        return None
    features, classifier = network.forward_features(image), network.get_classifier()
    if not isinstance(classifier, nn.Linear) or not isinstance(features, Tensor) or features.ndim != 4:
        return None
    if features.shape[1] != classifier.in_features:
        return None
    values = features[0].flatten(1).T  # a row a position
    offsets: Tensor = values.new_zeros(classifier.out_features) if classifier.bias is None else classifier.bias
    norm = getattr(getattr(network, "head", None), "norm", None)
    if isinstance(norm, nn.LayerNorm) and norm.elementwise_affine:
        deviation = (values.mean(0).var(unbiased=False) + norm.eps).sqrt()
        values = (values - values.mean(1, keepdim=True)) / deviation * norm.weight
        offsets = offsets + classifier.weight @ norm.bias
    maps = (classifier.weight @ values.T).unflatten(1, features.shape[2:])
    return maps, offsets


def drawn(picture: Image.Image, evidence: np.ndarray | None = None) -> Image.Image:
    """A square image of `DRAWN` pixels; over it, in shades of grey then, the ``evidence`` (H, W): orange for the class,
    blue against it, the stronger the less of the image shows through. The scale is the map's own."""
    enlarged = picture.width < DRAWN
    image = picture.resize((DRAWN, DRAWN), Image.Resampling.NEAREST if enlarged else Image.Resampling.BICUBIC)
    if evidence is None:
        return image
    strongest = float(np.abs(evidence).max()) or 1.0
    scaled = Image.fromarray((evidence / strongest).astype(np.float32))
    strength = np.asarray(scaled.resize((DRAWN, DRAWN), Image.Resampling.BICUBIC))[..., None].clip(-1, 1)
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    colour = np.where(strength > 0, np.array(FOR), np.array(AGAINST))
    share = OPACITY * np.abs(strength)
    return Image.fromarray(((1 - share) * grey + share * colour).round().astype(np.uint8))
