"""UPerNet on the feature maps of any backbone: segmentation-models-pytorch's decoder with heads of our own.

Its ready-made network chooses the norms on the maps itself, and enlarges the classes of a pixel by a fixed 4.
"""

from __future__ import annotations

import torch
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn.functional import interpolate

from roadmap.network.building import build_network
from roadmap.network.families import NetworkDesign
from roadmap.network.features import Features
from roadmap.tasks.segment import UPerNet


class Segmenter(nn.Module):
    """Images (N, 3, H, W) -> logits (N, C, H / r, W / r), where r is the reduction of the first stage.

    In training (logits, those of the auxiliary head on the third stage); either is as large as its feature map.
    """

    def __init__(self, design: NetworkDesign, head: UPerNet) -> None:
        super().__init__()
        self.design, self.head, self.num_classes = design, head, design.num_classes
        self.features = Features(build_network(design), head.norm)
        channels = self.features.channels
        # its list begins with the image and a map of half its size, and it leaves these two out
        self.decoder = UPerNetDecoder([0, 0, *channels], len(channels) + 1, head.channels)
        self.decoder.feature_norms = nn.ModuleList(nn.Identity() for _ in channels)  # the maps have theirs already
        self.classifier = nn.Sequential(nn.Dropout2d(head.dropout), nn.Conv2d(head.channels, self.num_classes, 1))
        half = head.channels // 2
        self.auxiliary = nn.Sequential(
            nn.Conv2d(channels[2], half, 3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Dropout2d(head.dropout),
            nn.Conv2d(half, self.num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        maps = self.features(images)
        logits: Tensor = self.classifier(self.decoder([images, images, *maps]))
        return (logits, self.auxiliary(maps[2])) if self.training else logits


def predict(network: nn.Module, images: Tensor, head: UPerNet) -> Tensor:
    """Images (N, 3, H, W) -> logits (N, C, H, W), of a sliding window where the head has one.

    The last window of a row or column ends where the image does. Where several windows see a pixel its logits are their
    mean; where one covers the image the result is that of the whole image.
    """
    size = images.shape[-2:]
    if head.window is None or max(size) <= head.window:
        return enlarged(network(images), size)
    stride = head.stride or head.window * 2 // 3
    total: Tensor | None = None
    seen = images.new_zeros(1, 1, *size)
    for top in _starts(size[0], head.window, stride):
        for left in _starts(size[1], head.window, stride):
            place = (..., slice(top, top + head.window), slice(left, left + head.window))
            piece = images[place]
            logits = enlarged(network(piece), piece.shape[-2:])
            if total is None:
                total = logits.new_zeros(len(images), logits.shape[1], *size)
            total[place] += logits
            seen[place] += 1
    assert total is not None  # an image has a window
    return total / seen


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side."""
    last = max(length - window, 0)
    return [min(start, last) for start in range(0, last + stride, stride)] if last else [0]


def enlarged(logits: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Logits in single precision at another size (bilinear)."""
    return interpolate(logits.float(), tuple(size), mode="bilinear", align_corners=False)
