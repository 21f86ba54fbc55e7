"""The 1x1 convolutions of the blocks, which are matrix products on the CPU where that is faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

#: Multiply-accumulates from which on a 1x1 convolution is a matrix product on the CPU.
LARGE_PRODUCT = 2**28
#: Whether torch.export is at work; older versions of torch only tell that they compile or export.
is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, (N, C, H, W) -> (N, C', H, W). On the CPU a large one is computed as a matrix product.

    At 224 px, with two threads and batches of 8, this makes a training step of timm's ResNet-50 and ConvNeXt-T, as the
    ladder's ends, 9 % faster; of products as small as CIFAR's it slows some down, and speeds up others. What records
    the network, for images of any size (FX, TorchScript, torch.export, ONNX), finds the convolution alone.
    """

    def __init__(self, incoming: int, outgoing: int, bias: bool) -> None:
        super().__init__(incoming, outgoing, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        is_product = False if torch.jit.is_scripting() else self._is_product(x)
        if is_product:
            return linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return self._conv_forward(x, self.weight, self.bias)

    def _is_product(self, x: Tensor) -> bool:
        if not isinstance(x, Tensor) or torch.jit.is_tracing() or is_exporting():  # FX has no tensor
            return False
        return x.is_cpu and x.stride(1) == 1 and x.numel() * self.out_channels >= LARGE_PRODUCT
