"""The network itself. Tensors are (N, C, H, W); H and W are free. "A ConvNet for the 2020s", §2, Figures 2 to 4."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import ClassifierHead, DropPath, LayerNorm2d, NormMlpClassifierHead
from timm.models import checkpoint_seq
from torch import Tensor, nn
from torch.nn.functional import linear

from roadmap.checks import RoadmapError, check_choice, check_int, plain
from roadmap.network.design import Design
from roadmap.network.layers import PLACES, NoPlaceError, Site, check_places, find_layer, layers_at, replacement, site_of

POOLINGS = ("avg", "max", "avgmax", "")
LAYER_NORM_EPSILON = 1e-6  # the released ConvNeXt code's
#: Multiply-accumulates from which on a 1x1 convolution is a matrix product on the CPU.
LARGE_PRODUCT = 2**28
#: Whether torch.export is at work; older versions of torch only tell that they compile or export.
is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def norm_layer(design: Design, channels: int, **where: Any) -> nn.Module:
    """The design's norm over (N, channels, H, W). LayerNorm is over the channels of each position, never over H, W.

    ``where``: path, stage and block of the `Site`, for a plug-in that replaces it.
    """
    own = nn.BatchNorm2d if design.norm == "batch" else partial(LayerNorm2d, eps=LAYER_NORM_EPSILON)
    return replacement(Site(design, "norm", channels, channels, **where), partial(own, channels))


def activation_layer(design: Design, channels: int, **where: Any) -> nn.Module:
    """A fresh activation of the design's kind for (N, channels, H, W); ``where`` as in `norm_layer`."""
    kinds: dict[str, Callable[[], nn.Module]] = {
        "relu": partial(nn.ReLU, inplace=True),
        "gelu": nn.GELU,
        "silu": nn.SiLU,
    }
    return replacement(Site(design, "activation", channels, channels, **where), kinds[design.activation])


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


class LayerScale(nn.Module):
    """Multiplies each channel of (N, C, H, W) by a learned factor, at first ``value``."""

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), float(value)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.view(-1, 1, 1)


class Block(nn.Module):
    """The residual block of every rung: (N, incoming, H, W) -> (N, output_width, H / stride, W / stride).

    ==================  =======================================================
    bottleneck, middle  1x1 in->C,   kxk C->C,    1x1 C->4C     (ResNet)
    inverted, middle    1x1 in->4C,  kxk 4C->4C,  1x1 4C->C     (Figure 3b)
    inverted, first     kxk in->in,  1x1 in->4C,  1x1 4C->C     (Figure 3c, ConvNeXt)
    bottleneck, first   kxk in->in,  1x1 in->C,   1x1 C->4C
    ==================  =======================================================

    With all activations and norms each convolution is followed by a norm, the first two also by an activation, and
    the last activation stands after the residual addition. Plug-in layers are in `hidden` and `branch`, or stand for
    the spatial convolution or the shortcut.
    """

    def __init__(self, design: Design, stage: int, index: int) -> None:
        super().__init__()
        width, incoming = design.widths[stage], design.block_inputs()[stage][index]
        hidden, outgoing = design.hidden_width(width), design.output_width(width)
        stride = 2 if stage > 0 and index == 0 and not design.separate_downsample else 1
        if design.spatial_position == "middle":
            spatial, channels = 2, (incoming, hidden, hidden, outgoing)
        else:
            spatial, channels = 1, (incoming, incoming, hidden, outgoing)

        def where(name: str) -> dict[str, Any]:
            return {"path": f"stages.{stage}.blocks.{index}.{name}", "stage": stage, "block": index}

        def layer(n: int) -> tuple[nn.Module, nn.Module, nn.Module]:
            """The n-th convolution, its norm and its activation."""
            has_norm = n == spatial or not design.fewer_norms
            has_activation = n == 2 or not design.fewer_activations
            bias = design.norm == "layer"
            return (
                spatial_convolution(design, channels[n], stride, bias, **where(f"conv{n}"))
                if n == spatial
                else Pointwise(channels[n - 1], channels[n], bias),
                norm_layer(design, channels[n], **where(f"norm{n}")) if has_norm else nn.Identity(),
                activation_layer(design, channels[n], **where(f"act{n}")) if has_activation else nn.Identity(),
            )

        self.conv1, self.norm1, self.act1 = layer(1)
        self.conv2, self.norm2, self.act2 = layer(2)
        self.hidden = nn.Sequential(OrderedDict(layers_at(Site(design, "hidden", hidden, hidden, **where("hidden")))))
        self.conv3, self.norm3, self.act3 = layer(3)
        branch = Site(design, "branch", outgoing, outgoing, **where("branch"))
        self.branch = nn.Sequential(OrderedDict(layers_at(branch)))
        self.layer_scale = nn.Identity() if design.layer_scale is None else LayerScale(outgoing, design.layer_scale)
        drop_rate = design.stochastic_depths()[stage][index]
        self.drop_path = DropPath(drop_rate) if drop_rate else nn.Identity()
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or incoming != outgoing:
            self.shortcut = replacement(
                Site(design, "shortcut", incoming, outgoing, stride, **where("shortcut")),
                lambda: nn.Sequential(
                    nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False),
                    norm_layer(design, outgoing, **where("shortcut.1")),
                ),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.hidden(self.act2(self.norm2(self.conv2(x))))
        x = self.branch(self.norm3(self.conv3(x)))
        x = shortcut + self.drop_path(self.layer_scale(x))
        return self.act3(x)


def spatial_convolution(design: Design, channels: int, stride: int, bias: bool, **where: Any) -> nn.Module:
    """The block's spatial convolution, (N, channels, H, W) -> (N, channels, H / stride, W / stride)."""
    kernel, groups = design.kernel_size, channels if design.groups == "depthwise" else int(design.groups)
    return replacement(
        Site(design, "spatial", channels, channels, stride, kernel_size=kernel, groups=groups, bias=bias, **where),
        partial(nn.Conv2d, channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias),
    )


def make_stem(design: Design) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, stem_channels, H / stem_stride, W / stem_stride)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, width, stride = design.in_channels, design.stem_channels, design.stem_stride
    patches = design.stem == "patchify"
    kernel, conv_stride = (stride, stride) if patches else (7, 2) if stride > 1 else (3, 1)
    layers.update(layers_at(Site(design, "stem", channels, width, stride, "stem", kernel_size=kernel, bias=patches)))
    if not layers and patches:
        layers["conv"] = nn.Conv2d(channels, width, kernel, stride=conv_stride)
    elif not layers:
        layers["conv"] = nn.Conv2d(channels, width, kernel, stride=conv_stride, padding=kernel // 2, bias=False)
        layers["norm"] = norm_layer(design, width, path="stem.norm")
        layers["act"] = activation_layer(design, width, path="stem.act")
        if stride == 4:
            layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    if design.separate_downsample and len(design.blocks) > 1:
        layers["norm_out"] = norm_layer(design, width, path="stem.norm_out")
    return nn.Sequential(layers)


class Stage(nn.Module):
    """A downsampling layer, where the design has one, and the blocks of one resolution."""

    def __init__(self, design: Design, index: int, incoming: int) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Sequential()
        if index > 0 and design.separate_downsample:
            outgoing, path = design.block_inputs()[index][0], f"stages.{index}.downsample"
            self.downsample = replacement(
                Site(design, "downsample", incoming, outgoing, 2, path, index, kernel_size=2, bias=True),
                lambda: nn.Sequential(
                    norm_layer(design, incoming, path=f"{path}.0", stage=index),
                    nn.Conv2d(incoming, outgoing, 2, stride=2),
                ),
            )
        self.blocks = nn.Sequential(*(Block(design, index, n) for n in range(design.blocks[index])))
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


class RoadmapNet(nn.Module):
    """The parametric network: images (N, in_channels, H, W) -> logits (N, num_classes).

    It keeps the conventions of a timm backbone: ``forward_features`` gives the last stage's (N, C, H', W'),
    ``forward_head`` pools and classifies, ``feature_info`` describes the stages. Raises `RoadmapError` for plug-in
    layers of the design that are unknown, fail, replace the same or have no place in this network.
    """

    def __init__(self, design: Design, global_pool: str = "avg", drop_rate: float = 0.0) -> None:
        super().__init__()
        check_choice("global_pool", global_pool, POOLINGS)
        check_places(design)
        self.design = design
        self.num_classes, self.in_chans, self.drop_rate = design.num_classes, design.in_channels, drop_rate
        self.stem = make_stem(design)
        self.stages: nn.Sequential = nn.Sequential()
        self.feature_info: list[dict] = []
        incoming, reduction = design.stem_channels, design.stem_stride
        for index, width in enumerate(design.widths):
            self.stages.append(Stage(design, index, incoming))
            incoming = design.output_width(width)
            reduction *= 2 if index else 1
            self.feature_info.append({"num_chs": incoming, "reduction": reduction, "module": f"stages.{index}"})
        self.num_features = self.head_hidden_size = incoming

        self.norm_pre: nn.Module = nn.Identity()
        normed = design.separate_downsample and design.norm == "layer"
        head = NormMlpClassifierHead if normed else ClassifierHead
        if design.separate_downsample and not normed:
            self.norm_pre = norm_layer(design, incoming, path="norm_pre")
        self.head = head(incoming, design.num_classes, pool_type=global_pool, drop_rate=drop_rate)
        if normed:
            self.head.norm = norm_layer(design, incoming, path="head.norm")
        for name, _ in design.layers:
            if not any(site.layer == name for site in map(site_of, self.modules()) if site is not None):
                place = find_layer(name).place
                raise NoPlaceError(f"the layer '{name}' has no place '{place}' in this network: {PLACES[place]}")
        initialize(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> the last stage's (N, C, H', W')."""
        return self.norm_pre(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last stage's (N, C, H', W') -> logits (N, num_classes), or with ``pre_logits`` the classifier's input."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's interface: the outputs of the stages named by ``indices``, and the final features with them."""
        check_choice("output_fmt", output_fmt, ["NCHW"])
        taken = taken_stages("indices", indices, len(self.stages))
        last = max(taken)
        intermediates = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            final = index == len(self.stages) - 1
            if index in taken:
                intermediates.append(self.norm_pre(x) if norm and final else x)
        if intermediates_only:
            return intermediates
        return (self.norm_pre(x) if final else x), intermediates

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """timm's interface: drop the stages behind the last of ``indices``, and the head."""
        taken = taken_stages("indices", indices, len(self.stages))
        last = max(taken)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_norm or shortened:
            self.norm_pre = nn.Identity()
        if shortened:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if shortened or prune_head:
            self.head = ClassifierHead(self.num_features, 0, pool_type="")
            self.num_classes = 0
        return taken

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc  # type: ignore[return-value]

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier of ``num_classes`` outputs; 0 leaves it out. ``global_pool`` "" leaves out the pooling."""
        check_choice("global_pool", "avg" if global_pool is None else global_pool, POOLINGS)
        self.design = self.design.replace(num_classes=num_classes)
        self.num_classes = num_classes
        like = next(self.parameters())
        self.head.reset(num_classes, global_pool)  # type: ignore[operator]
        self.head.to(device=like.device, dtype=like.dtype)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory: keep only each block's input for the backward pass."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's interface: parameter groups in order of depth, for layer-wise learning rates.

        Three consecutive blocks of a stage are a group, as where the paper decays learning rates (Appendix A.2).
        """
        deepest = max(self.design.blocks)
        blocks = [(r"^stages\.(\d+)\.downsample", (0,))]
        for first in range(0, deepest, 3):
            three = "|".join(str(first + n) for n in range(3))
            blocks.append((rf"^stages\.(\d+)\.blocks\.(?:{three})\.", (first // 3,)))
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else [*blocks, (r"^norm_pre", (99999,))]}


def taken_stages(name: str, indices: Any, count: int) -> list[int]:
    """Numbers of the stages that timm's ``indices`` name among ``count``: None all of them, n the last n, else these,
    counted from 0, or from the end as -1, -2, ... Raises `RoadmapError` where there are none such."""
    indices = count if indices is None else plain(indices)
    if not isinstance(indices, (list, tuple)):
        return list(range(count - check_int(f"{name}, as a number of stages,", indices, 1, count), count))
    taken = [check_int(name, index, -count, count - 1) % count for index in indices]
    if not taken or len(set(taken)) < len(taken):
        raise RoadmapError(f"{name} is {indices}, but must name one stage or more, each once")
    return taken


def initialize(network: nn.Module) -> None:
    """He initialisation of every convolution (normal, fan-out), zero biases: the one of ResNet's reference code.

    The paper's own, truncated normal 0.02, is for wide networks: measured at width 8 it left `layer_norm` at 61 % and
    `separate_downsample` at 65 %, where this one gives 79 and 75 %. Torch's default does as well on average, with a
    spread between seeds that is a third larger; dividing the fan-out by the groups lowers every depthwise rung.
    Modules of plug-in layers are left as they are; those may use this function themselves.
    """
    if site_of(network) is not None:
        return
    if isinstance(network, nn.Conv2d) and not network.weight.is_meta:
        nn.init.kaiming_normal_(network.weight, mode="fan_out", nonlinearity="relu")
        if network.bias is not None:
            nn.init.zeros_(network.bias)
    for module in network.children():
        initialize(module)
