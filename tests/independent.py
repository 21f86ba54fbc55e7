"""The ladder's networks a second time, written from the description of each rung and not from the package.

Plain functions on tensors, with the norms and the GELU by their formulas. Every tensor's shape is asserted against what
the description says, so that a wrong width, kernel or number of groups cannot hide in the weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LADDER = [
    "resnet50", "modern_recipe", "stage_ratio", "patchify_stem", "depthwise_conv", "increase_width",
    "inverted_bottleneck", "move_up_depthwise", "large_kernel", "gelu", "fewer_activations", "fewer_norms",
    "layer_norm", "separate_downsample",
]  # fmt: skip
ROADS = {"kernel_5": 5, "kernel_9": 9, "kernel_11": 11}


class Reference:
    """The network of one rung: ``Reference(step, blocks, base, weights)(images)`` gives logits, as in evaluation."""

    def __init__(self, step: str, blocks: tuple[int, ...], base: int, weights: dict[str, Tensor]) -> None:
        self.step, self.blocks, self.base, self.weights = step, blocks, base, weights
        self.used: set[str] = set()

    def has(self, rung: str) -> bool:
        own = "large_kernel" if self.step in ROADS else self.step
        return LADDER.index(own) >= LADDER.index(rung)

    def tensor(self, name: str, *shape: int) -> Tensor:
        self.used.add(name)
        assert tuple(self.weights[name].shape) == shape, f"{name} is {tuple(self.weights[name].shape)}, not {shape}"
        return self.weights[name]

    def convolve(self, x: Tensor, name: str, out: int, kernel=1, stride=1, padding=0, groups=1, bias=False) -> Tensor:
        weight = self.tensor(f"{name}.weight", out, x.shape[1] // groups, kernel, kernel)
        offset = self.tensor(f"{name}.bias", out) if bias else None
        return F.conv2d(x, weight, offset, stride, padding, groups=groups)

    def normalise(self, x: Tensor, name: str) -> Tensor:
        if self.has("layer_norm"):
            return self.layer_norm(x, name)
        mean, variance, weight, bias = (
            self.tensor(f"{name}.{part}", x.shape[1])[:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred**2).mean(dim=1, keepdim=True)
        weight, bias = (self.tensor(f"{name}.{part}", x.shape[1])[:, None, None] for part in ("weight", "bias"))
        return centred / torch.sqrt(variance + 1e-6) * weight + bias

    def activate(self, x: Tensor) -> Tensor:
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2 if self.has("gelu") else x.clamp(min=0)

    def stem(self, x: Tensor) -> Tensor:
        if not self.has("patchify_stem"):
            x = self.convolve(x, "stem.conv", self.base, kernel=7, stride=2, padding=3)
            return F.max_pool2d(self.activate(self.normalise(x, "stem.norm")), 3, stride=2, padding=1)
        x = self.convolve(x, "stem.conv", self.base, kernel=4, stride=4, bias=True)
        return self.layer_norm(x, "stem.norm_out") if self.has("separate_downsample") else x

    def bottleneck(self, x: Tensor, name: str, width: int, stride: int) -> Tensor:
        """1x1, 3x3, 1x1: narrow in the middle, or from `inverted_bottleneck` on wide in the middle."""
        inverted = self.has("inverted_bottleneck")
        hidden, out = (4 * width, width) if inverted else (width, 4 * width)
        groups = hidden if self.has("depthwise_conv") else 1
        y = self.activate(self.normalise(self.convolve(x, f"{name}.conv1", hidden), f"{name}.norm1"))
        y = self.convolve(y, f"{name}.conv2", hidden, kernel=3, stride=stride, padding=1, groups=groups)
        y = self.activate(self.normalise(y, f"{name}.norm2"))
        y = self.normalise(self.convolve(y, f"{name}.conv3", out), f"{name}.norm3")
        return self.activate(y + self.shortcut(x, name, out, stride))

    def depthwise_first(self, x: Tensor, name: str, width: int, stride: int) -> Tensor:
        """The depthwise convolution at the input's width, then 1x1 to 4C and 1x1 to C."""
        every_norm, every_activation = not self.has("fewer_norms"), not self.has("fewer_activations")
        bias, incoming = self.has("layer_norm"), x.shape[1]
        kernel = ROADS.get(self.step, 7 if self.has("large_kernel") else 3)
        y = self.convolve(x, f"{name}.conv1", incoming, kernel, stride, kernel // 2, groups=incoming, bias=bias)
        y = self.normalise(y, f"{name}.norm1")
        y = self.activate(y) if every_activation else y
        y = self.convolve(y, f"{name}.conv2", 4 * width, bias=bias)
        y = self.activate(self.normalise(y, f"{name}.norm2") if every_norm else y)
        y = self.convolve(y, f"{name}.conv3", width, bias=bias)
        y = self.normalise(y, f"{name}.norm3") if every_norm else y
        y = y + self.shortcut(x, name, width, stride)
        return self.activate(y) if every_activation else y

    def shortcut(self, x: Tensor, name: str, out: int, stride: int) -> Tensor:
        if stride == 1 and x.shape[1] == out:
            return x
        return self.normalise(self.convolve(x, f"{name}.shortcut.0", out, stride=stride), f"{name}.shortcut.1")

    def __call__(self, images: Tensor) -> Tensor:
        block = self.depthwise_first if self.has("move_up_depthwise") else self.bottleneck
        x = self.stem(images)
        for stage, count in enumerate(self.blocks):
            width, stride = self.base * 2**stage, 1 if stage == 0 else 2
            if stage and self.has("separate_downsample"):
                x = self.layer_norm(x, f"stages.{stage}.downsample.0")
                x = self.convolve(x, f"stages.{stage}.downsample.1", width, kernel=2, stride=2, bias=True)
                stride = 1
            for number in range(count):
                x = block(x, f"stages.{stage}.blocks.{number}", width, stride if number == 0 else 1)
        return self.classify(x)

    def classify(self, x: Tensor) -> Tensor:
        x = x.mean(dim=(2, 3), keepdim=True)
        if self.has("separate_downsample"):
            x = self.layer_norm(x, "head.norm")
        x = x.flatten(1)
        classes = self.weights["head.fc.bias"].shape[0]
        weight, bias = self.tensor("head.fc.weight", classes, x.shape[1]), self.tensor("head.fc.bias", classes)
        return x @ weight.T + bias


class Isotropic(Reference):
    """The isotropic ConvNeXt of §3.3: 16x16 patches, then blocks of one width and one resolution."""

    def __init__(self, depth: int, width: int, weights: dict[str, Tensor]) -> None:
        super().__init__("separate_downsample", (depth,), width, weights)

    def __call__(self, images: Tensor) -> Tensor:
        x = self.convolve(images, "stem.conv", self.base, kernel=16, stride=16, bias=True)
        for number in range(self.blocks[0]):
            x = self.depthwise_first(x, f"stages.0.blocks.{number}", self.base, 1)
        return self.classify(x)


@torch.no_grad()
def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Fill every parameter and statistic with values that matter, and return the network in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name.endswith("num_batches_tracked"):
            tensor.fill_(17)
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.ndim > 1:
            tensor.copy_(noise / math.sqrt(tensor[0].numel()))
        elif name.endswith("weight"):
            tensor.copy_(1 + 0.2 * noise)
        elif name.endswith("gamma"):
            tensor.copy_(0.5 + 0.2 * noise)
        else:
            tensor.copy_(0.2 * noise)
    return network.eval()
