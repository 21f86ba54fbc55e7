"""`Design`: every choice of the network as one frozen, validated value. Needs neither torch nor timm."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roadmap.checks import (
    RoadmapError,
    check_bool,
    check_choice,
    check_int,
    check_known,
    check_number,
    keep_plain,
    said,
)
from roadmap.markup import element, table

STEMS = ("resnet", "patchify")
STEM_STRIDES = (1, 2, 4, 8, 16)
#: Beyond it only ``patchify`` goes: the resnet stem has a convolution and a pooling, and no third layer to halve.
LARGEST_RESNET_STRIDE = 4
BLOCKS = ("bottleneck", "inverted")
POSITIONS = ("middle", "first")
ACTIVATIONS = ("relu", "gelu", "silu")
NORMS = ("batch", "layer")
#: Flags that came later, each with the value that means "as before it came". Never a default: those may change.
LATER: dict[str, Any] = {"stem_width": None, "layers": ()}


@dataclass(frozen=True)
class Design:
    """All flags of the network. The defaults are ResNet-50; any combination builds ("A ConvNet for the 2020s", §2).

    ``C`` below is a stage's width. Every spatial size is divided by ``stem_stride`` and then halved between stages.
    Raises `RoadmapError`, a ``ValueError``, with one sentence for a value that cannot be.

    Attributes
    ----------
    blocks
        Blocks per stage (§2.2, stage compute ratio), such as ``(3, 4, 6, 3)``.
    widths
        ``C`` of each stage, in channels.
    stem_width
        Channels that the stem puts out; None: the first stage's width. ResNeXt keeps a stem of 64 before a first stage
        of 128.
    stem
        ``resnet``: convolution, norm, activation, max-pool. ``patchify``: one convolution whose stride is its kernel
        size, with bias, no norm, no activation, no pooling (§2.2).
    stem_stride
        What the stem divides height and width by, the same for both stems, so that ``patchify`` changes the stem and
        not the resolution. 4 is the paper's, for 224 px: a 7x7 stride-2 convolution and a 3x3 stride-2 max-pool, or
        4x4 patches. For small images, 2: the 7x7 stride-2 convolution without the pool, or 2x2 patches; and 1: a 3x3
        stride-1 convolution without the pool, or a 1x1 convolution. 8 and 16 are for ``patchify`` alone: 16x16 patches
        are those of the isotropic ConvNeXt (§3.3).
    groups
        Groups of the spatial convolution (§2.3): 1 is dense, 32 as in ResNeXt, ``"depthwise"`` one group a channel.
        A number must divide the channels of every spatial convolution.
    block
        ``bottleneck``: 1x1, kxk, 1x1 with hidden width C and output ``expansion * C``. ``inverted``: hidden width
        ``expansion * C`` and output C (§2.4).
    expansion
        Ratio of the block's widest to its narrowest width, 4 in the paper.
    spatial_position
        ``middle``: the kxk convolution stands between the two 1x1, at the hidden width. ``first``: it leads the block,
        at the block's input width (§2.5, moving up the depthwise convolution). It carries the block's stride.
    kernel_size
        k of the spatial convolution, odd (§2.5). Stem, shortcuts and downsampling keep theirs.
    activation
        ``relu``, ``gelu`` or ``silu``, everywhere (§2.6).
    fewer_activations
        False: after the first two convolutions and after the residual addition. True: only before the last 1x1 (§2.6).
    fewer_norms
        False: after each of the three convolutions. True: only after the spatial one (§2.6). A projection shortcut
        keeps its norm.
    norm
        ``batch``: BatchNorm, eps 1e-5. ``layer``: LayerNorm over the channels of each position, eps 1e-6; the block's
        convolutions then have a bias (§2.6).
    separate_downsample
        False: a stage's first block has stride 2 and a projection shortcut. True: a norm, then a 2x2 stride-2
        convolution with bias stand between stages, and there is a norm after the stem and one at the global average
        pooling (§2.6): LayerNorm after it, BatchNorm, which commutes with averaging, before it, where it has
        positions to take statistics over. Only where the stem is narrower than the first stage's output, as with
        ``bottleneck``, does that stage keep a projection shortcut. With a single stage, as in the isotropic ConvNeXt
        (§3.3), there is nothing to downsample and no norm after the stem: only the norm at the pooling.
    layer_scale
        Initial value of a learned factor per channel on each residual branch; None has no such factor. 1e-6 in the
        published ConvNeXt models, off on the ladder.
    stochastic_depth
        Probability that the last block's residual branch is dropped in training, rising linearly from 0 at the first
        block.
    layers
        Plug-in layers by name (`roadmap.network.layers`), each with its options: a mapping such as
        ``{"se": {"ratio": 0.25}}`` or a list of names. Kept as ``((name, ((option, value), ...)), ...)``, sorted by
        name, so that steps make the same network in any order; several that are added at one place stack in this
        order. Values of options are numbers, text, true, false, None or lists of such.
    in_channels
        Channels of the input image.
    num_classes
        Outputs of the classifier; 0 leaves it out and returns pooled features.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int | None = None
    stem: str = "resnet"
    stem_stride: int = 4
    groups: int | str = 1
    block: str = "bottleneck"
    expansion: int = 4
    spatial_position: str = "middle"
    kernel_size: int = 3
    activation: str = "relu"
    fewer_activations: bool = False
    fewer_norms: bool = False
    norm: str = "batch"
    separate_downsample: bool = False
    layer_scale: float | None = None
    stochastic_depth: float = 0.0
    layers: Any = ()
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        keep_plain(self)
        for name in ("blocks", "widths"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or not value:
                raise RoadmapError(f"{name} is {said(value)}, but must be a list of whole numbers, one a stage")
            object.__setattr__(self, name, tuple(value))
            for number in value:
                check_int(name, number, 1)
        if len(self.blocks) != len(self.widths):
            raise RoadmapError(f"blocks {self.blocks} and widths {self.widths} must have one number a stage each")
        if self.stem_width is not None:
            check_int("stem_width", self.stem_width, 1)
        check_choice("stem", self.stem, STEMS)
        check_choice("stem_stride", self.stem_stride, STEM_STRIDES)
        if self.stem == "resnet" and self.stem_stride > LARGEST_RESNET_STRIDE:
            raise RoadmapError(
                f"stem_stride is {self.stem_stride}, but the resnet stem goes to {LARGEST_RESNET_STRIDE} at most: "
                "say stem='patchify'"
            )
        check_choice("block", self.block, BLOCKS)
        check_int("expansion", self.expansion, 1)
        check_choice("spatial_position", self.spatial_position, POSITIONS)
        check_int("kernel_size", self.kernel_size, 1)
        if self.kernel_size % 2 == 0:
            raise RoadmapError(f"kernel_size is {self.kernel_size}, but must be odd, to keep height and width")
        check_choice("activation", self.activation, ACTIVATIONS)
        check_bool("fewer_activations", self.fewer_activations)
        check_bool("fewer_norms", self.fewer_norms)
        check_choice("norm", self.norm, NORMS)
        check_bool("separate_downsample", self.separate_downsample)
        if self.layer_scale is not None:
            check_number("layer_scale", self.layer_scale, 1e-12)
        check_number("stochastic_depth", self.stochastic_depth, 0.0, 1.0)
        if self.stochastic_depth == 1.0:
            raise RoadmapError("stochastic_depth is 1.0, which would always drop the last block: it must be below 1")
        object.__setattr__(self, "layers", _stored_layers(self.layers))
        check_int("in_channels", self.in_channels, 1)
        check_int("num_classes", self.num_classes, 0)
        if self.groups != "depthwise":
            if isinstance(self.groups, str):
                raise RoadmapError(f"groups is {said(self.groups)}, but must be a whole number or 'depthwise'")
            check_int("groups", self.groups, 1)
            for channels in self.spatial_widths():
                if channels % self.groups:
                    raise RoadmapError(
                        f"groups {self.groups} does not divide the {channels} channels of a spatial convolution; "
                        "for one group a channel say groups='depthwise'"
                    )

    def replace(self, **changes: Any) -> Design:
        """This design with some flags changed. Raises `RoadmapError` for a flag that does not exist."""
        check_known("flag of the design", changes, (field.name for field in dataclasses.fields(self)))
        return dataclasses.replace(self, **changes)

    def _repr_html_(self) -> str:
        default = Design()
        rows = [
            (field.name, repr(getattr(default, field.name)), repr(getattr(self, field.name)))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        ]
        if not rows:
            return f"<div>{element('p', 'Design: ResNet-50')}</div>"
        what = "Design: ResNet-50 but for these flags"
        return f"<div>{element('p', what)}{table(rows, ('flag', 'ResNet-50', 'here'))}</div>"

    @property
    def stem_channels(self) -> int:
        """Channels that the stem puts out."""
        return self.widths[0] if self.stem_width is None else self.stem_width

    def hidden_width(self, width: int) -> int:
        """Channels between the first and the last convolution of a block in a stage of ``width``."""
        return width if self.block == "bottleneck" else self.expansion * width

    def output_width(self, width: int) -> int:
        """Channels that a block in a stage of ``width`` puts out."""
        return self.expansion * width if self.block == "bottleneck" else width

    def block_inputs(self) -> list[list[int]]:
        """Input channels of every block, a list a stage."""
        inputs: list[list[int]] = []
        incoming = self.stem_channels
        for count, width in zip(self.blocks, self.widths, strict=True):
            outgoing = self.output_width(width)
            first = outgoing if self.separate_downsample and inputs else incoming
            inputs.append([first] + [outgoing] * (count - 1))
            incoming = outgoing
        return inputs

    def spatial_widths(self) -> list[int]:
        """Channels of every block's spatial convolution, first to last."""
        if self.spatial_position == "first":
            return [channels for stage in self.block_inputs() for channels in stage]
        return [self.hidden_width(w) for count, w in zip(self.blocks, self.widths, strict=True) for _ in range(count)]

    def stochastic_depths(self) -> list[list[float]]:
        """Drop probability of every block, a list a stage, linear over depth from 0 to ``stochastic_depth``."""
        total = sum(self.blocks)
        rates = iter([self.stochastic_depth * index / max(total - 1, 1) for index in range(total)])
        return [[next(rates) for _ in range(count)] for count in self.blocks]

    def feature_sizes(self, size: int) -> list[int]:
        """Height (or width) after the stem and after each stage, for an image of ``size`` pixels.

        A plug-in layer that halves may round the other way. Raises `RoadmapError` where the strides leave nothing.
        """

        def halve(value: int) -> int:
            return (value + 1) // 2

        if self.stem == "patchify":
            current = size // self.stem_stride
        else:
            current = size
            for _ in range(self.stem_stride.bit_length() - 1):
                current = halve(current)
        sizes = [current, current]
        for _ in self.blocks[1:]:
            sizes.append(sizes[-1] // 2 if self.separate_downsample else halve(sizes[-1]))
        if size < 1 or min(sizes) < 1:
            raise RoadmapError(
                f"an image of {size} pixels is reduced to nothing by the strides of this network "
                f"(stem {self.stem_stride}, then 2 between {len(self.blocks)} stages)"
            )
        return sizes


def _stored_layers(given: Any) -> tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]:
    """The one form in which plug-in layers are kept, of a mapping, a list of names, or that form as JSON has it."""
    pairs = given.items() if isinstance(given, Mapping) else given
    if isinstance(pairs, str) or not hasattr(pairs, "__iter__"):
        raise RoadmapError(f"layers is {said(given)}, but must be a list of names, or names with their options")
    stored: dict[str, tuple[tuple[str, Any], ...]] = {}
    for pair in _flat(pairs):
        name, options = (pair, ()) if isinstance(pair, str) else _pair("layers", pair)
        check_layer_name(name)
        if name in stored:
            raise RoadmapError(f"layers names '{name}' twice")
        what = f"the options of the layer '{name}'"
        listed = options.items() if isinstance(options, Mapping) else () if options is None else options
        if isinstance(listed, str) or not hasattr(listed, "__iter__"):
            raise RoadmapError(f"{what} are {said(options)}, but must be names with values")
        values = dict(_pair(what, option) for option in listed)
        stored[name] = tuple((option, _plain(f"{option} of {what}", values[option])) for option in sorted(values))
    return tuple(sorted(stored.items()))


def _flat(pairs: Any) -> Iterator[Any]:
    """The items of a list in which mappings stand for what they hold."""
    for pair in pairs:
        yield from pair.items() if isinstance(pair, Mapping) else (pair,)


def check_layer_name(name: Any) -> None:
    """Raise `RoadmapError` unless ``name`` can name a layer: small letters, digits and _, a letter first."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RoadmapError(
            f"a layer's name is {said(name)}, but must be of small letters, digits and _, a letter first"
        )


def _pair(what: str, pair: Any) -> tuple[str, Any]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
        raise RoadmapError(f"{what} holds {said(pair)}, but must hold names, each with what it is given")
    return pair[0], pair[1]


def _plain(what: str, value: Any) -> Any:
    """The value with tuples for lists, so that it can be hashed and is the same after JSON."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(what, item) for item in value)
    if isinstance(value, float):
        check_number(what, value, float("-inf"))
    elif value is not None and not isinstance(value, (bool, int, str)):
        raise RoadmapError(f"{what} is {said(value)}, but must be a number, text, true, false, none or a list of such")
    return value


#: What all ConvNeXts have in common: the end of the ladder (§2.2 to §2.6).
CONVNEXT = Design(
    stem="patchify",
    groups="depthwise",
    block="inverted",
    spatial_position="first",
    kernel_size=7,
    activation="gelu",
    fewer_activations=True,
    fewer_norms=True,
    norm="layer",
    separate_downsample=True,
)
