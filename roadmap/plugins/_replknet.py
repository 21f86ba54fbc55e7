"""The module of `replknet`, apart from it so that listing the layers needs no torch."""

from __future__ import annotations

from torch import Tensor, nn

from roadmap.network.model import initialize


class LargeKernel(nn.Module):
    """A large depthwise convolution and a small one beside it, each with its BatchNorm, added:
    (N, channels, H, W) -> (N, channels, H / stride, W / stride).

    BatchNorm whatever the design's norm is, because with it both are one convolution after the training: the sum of
    the kernels, each times weight / sqrt(variance + eps) of its norm, the smaller one in the middle (§4.1, "structural
    re-parameterization").
    """

    def __init__(self, channels: int, kernel: int, small: int | None, stride: int) -> None:
        super().__init__()

        def branch(size: int) -> nn.Sequential:
            convolution = nn.Conv2d(channels, channels, size, stride, size // 2, groups=channels, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(channels))

        self.large = branch(kernel)
        self.small = None if small is None else branch(small)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        large = self.large(x)
        return large if self.small is None else large + self.small(x)
