"""The network itself. Tensors are (N, C, H, W); H and W are free. "A ConvNet for the 2020s", §2, Figures 2 to 4."""

from __future__ import annotations

from collections import OrderedDict

import torch
from timm.layers import ClassifierHead, DropPath, NormMlpClassifierHead
from torch import Tensor, nn

from roadmap.checks import check_choice
from roadmap.network.backbone import POOLINGS, Backbone, Stage
from roadmap.network.design import Design
from roadmap.network.layers import site_of
from roadmap.network.parts import LayerScale, activation_layer, norm_layer
from roadmap.network.places import apply_layers
from roadmap.network.pointwise import Pointwise


class Block(nn.Module):
    """The residual block of every rung: (N, incoming, H, W) -> (N, output_width, H / stride, W / stride).

    ==================  =======================================================
    bottleneck, middle  1x1 in->C,   kxk C->C,    1x1 C->4C     (ResNet)
    inverted, middle    1x1 in->4C,  kxk 4C->4C,  1x1 4C->C     (Figure 3b)
    inverted, first     kxk in->in,  1x1 in->4C,  1x1 4C->C     (Figure 3c, ConvNeXt)
    bottleneck, first   kxk in->in,  1x1 in->C,   1x1 C->4C
    ==================  =======================================================

    With all activations and norms each convolution is followed by a norm, the first two also by an activation, and
    the last activation stands after the residual addition. Plug-in layers go into `hidden` and `branch`, or stand for
    the spatial convolution or the shortcut.
    """

    def __init__(self, design: Design, stage: int, index: int) -> None:
        super().__init__()
        incoming, width = design.block_inputs()[stage][index], design.widths[stage]
        hidden, outgoing = design.hidden_width(width), design.output_width(width)
        stride = 2 if stage > 0 and index == 0 and not design.separate_downsample else 1
        first, bias = design.spatial_position == "first", design.norm == "layer"
        leading = incoming if first else hidden  # channels behind the first convolution

        self.conv1 = spatial_layer(design, leading, stride) if first else Pointwise(incoming, leading, bias)
        self.norm1 = norm_layer(design, leading) if first or not design.fewer_norms else nn.Identity()
        self.act1 = nn.Identity() if design.fewer_activations else activation_layer(design)
        self.conv2 = Pointwise(leading, hidden, bias) if first else spatial_layer(design, hidden, stride)
        self.norm2 = nn.Identity() if first and design.fewer_norms else norm_layer(design, hidden)
        self.act2 = activation_layer(design)
        self.hidden = nn.Sequential()
        self.conv3 = Pointwise(hidden, outgoing, bias)
        self.norm3 = nn.Identity() if design.fewer_norms else norm_layer(design, outgoing)
        self.act3 = nn.Identity() if design.fewer_activations else activation_layer(design)
        self.branch = nn.Sequential()
        self.layer_scale = nn.Identity() if design.layer_scale is None else LayerScale(outgoing, design.layer_scale)
        drop_rate = design.stochastic_depths()[stage][index]
        self.drop_path = DropPath(drop_rate) if drop_rate else nn.Identity()
        self.shortcut = nn.Sequential()
        if stride != 1 or incoming != outgoing:
            projection = nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, norm_layer(design, outgoing))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.hidden(self.act2(self.norm2(self.conv2(x))))
        x = self.branch(self.norm3(self.conv3(x)))
        x = shortcut + self.drop_path(self.layer_scale(x))
        return self.act3(x)


def spatial_layer(design: Design, channels: int, stride: int) -> nn.Conv2d:
    """The block's spatial convolution, (N, channels, H, W) -> (N, channels, H / stride, W / stride)."""
    kernel, groups = design.kernel_size, channels if design.groups == "depthwise" else int(design.groups)
    bias = design.norm == "layer"
    return nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=bias)


def make_stem(design: Design) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, stem_channels, H / stem_stride, W / stem_stride)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, width, stride = design.in_channels, design.stem_channels, design.stem_stride
    if design.stem == "patchify":
        layers["conv"] = nn.Conv2d(channels, width, stride, stride=stride)
    else:
        kernel = 7 if stride > 1 else 3
        layers["conv"] = nn.Conv2d(channels, width, kernel, min(stride, 2), padding=kernel // 2, bias=False)
        layers["norm"], layers["act"] = norm_layer(design, width), activation_layer(design)
        if stride == 4:
            layers["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    if design.separate_downsample and len(design.blocks) > 1:
        layers["norm_out"] = norm_layer(design, width)
    return nn.Sequential(layers)


def make_stage(design: Design, index: int, incoming: int) -> Stage:
    """One resolution: (N, incoming, H, W) -> (N, C, H', W'), halved but in the first stage."""
    downsample = nn.Sequential()
    if index > 0 and design.separate_downsample:
        outgoing = design.block_inputs()[index][0]
        downsample = nn.Sequential(norm_layer(design, incoming), nn.Conv2d(incoming, outgoing, 2, stride=2))
    return Stage(downsample, nn.Sequential(*(Block(design, index, n) for n in range(design.blocks[index]))))


class RoadmapNet(Backbone):
    """The parametric network: images (N, in_channels, H, W) -> logits (N, num_classes).

    Raises `RoadmapError` for plug-in layers of the design that are unknown, fail, replace the same or have no place.
    """

    def __init__(self, design: Design, global_pool: str = "avg", drop_rate: float = 0.0) -> None:
        super().__init__()
        check_choice("global_pool", global_pool, POOLINGS)
        self.design = design
        self.num_classes, self.in_chans, self.drop_rate = design.num_classes, design.in_channels, drop_rate
        with torch.device("meta"):  # first the shape alone, without plug-in layers
            self.stem = make_stem(design)
            self.stages, self.feature_info = nn.Sequential(), []
            channels, reduction = design.stem_channels, design.stem_stride
            for index, width in enumerate(design.widths):
                self.stages.append(make_stage(design, index, channels))
                channels, reduction = design.output_width(width), reduction * (2 if index else 1)
                self.feature_info += [{"num_chs": channels, "reduction": reduction, "module": f"stages.{index}"}]
            self.num_features = self.head_hidden_size = channels
            normed = design.separate_downsample and design.norm == "layer"
            before_pooling = design.separate_downsample and not normed
            self.norm_pre = norm_layer(design, channels) if before_pooling else nn.Identity()
            head = NormMlpClassifierHead if normed else ClassifierHead
            self.head = head(channels, design.num_classes, pool_type=global_pool, drop_rate=drop_rate)
            if normed:
                self.head.norm = norm_layer(design, channels)
        apply_layers(self, design)
        initialize(self)


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
