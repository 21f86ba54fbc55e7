"""The ladder: every rung from ResNet to ConvNeXt as data, in both of the paper's regimes.

A rung is a name, the change it makes to the network or to its training, why, and the row that the paper printed for
it. This module needs neither torch nor timm, so that listing or planning the ladder is instant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, check_choice, check_int, check_known, check_number
from roadmap.network.design import Design
from roadmap.reference import PrintedRow, printed_table

if TYPE_CHECKING:
    from roadmap.network.model import RoadmapNet

#: Every stage is this many times as wide as the first.
WIDTH_MULTIPLES = (1, 2, 4, 8)
#: Base width of ResNet-50 and ResNet-200, to which `Ladder.scaled` refers.
FULL_WIDTH = 64


def stage_widths(base: int) -> tuple[int, ...]:
    """Widths of the four stages, in channels, of a network with this base width."""
    return tuple(base * multiple for multiple in WIDTH_MULTIPLES)


@dataclass(frozen=True)
class Rung:
    """One named step of the ladder.

    ``design`` is the whole network at this rung, ``before`` the one it changes: the adopted rung before it (None for
    the start). ``printed`` is the paper's row; ``classic_recipe`` says that the rung trains with the classic recipe
    rather than the modern one; a rung that is not ``adopted`` is a road not taken.
    """

    name: str
    why: str
    section: str
    design: Design
    before: Design | None
    printed: PrintedRow
    adopted: bool = True
    classic_recipe: bool = False

    @property
    def changes(self) -> dict[str, Any]:
        """The flags of the `Design` that this rung changes, with their new values."""
        return {name: values[1] for name, values in self._differences().items()}

    @property
    def change(self) -> str:
        """What it changes, in a few words, such as ``kernel_size 3 → 7``; of the start, what it is."""
        if self.before is None:
            return f"{_words('blocks', self.design.blocks)}, {_words('widths', self.design.widths)}"
        parts = [
            f"{_words(flag, old)} → {_words(flag, new).rpartition(' ')[2]}"
            for flag, (old, new) in self._differences().items()
        ]
        if self.name == "modern_recipe":
            parts.append("recipe classic → modern")
        return ", ".join(parts) or "changes nothing at this size"

    def _differences(self) -> dict[str, tuple[Any, Any]]:
        if self.before is None:
            return {}
        old, new = vars(self.before), vars(self.design)
        return {flag: (old[flag], new[flag]) for flag in new if old[flag] != new[flag]}


def _words(flag: str, value: Any) -> str:
    if flag == "widths" and value == stage_widths(value[0]):
        return f"width {value[0]}"
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f"{flag} {'-'.join(map(str, value)) if isinstance(value, tuple) else value}"


@dataclass(frozen=True)
class Ladder:
    """All rungs of one regime, in order; the roads not taken stand where Figure 2 draws them."""

    regime: str
    rungs: tuple[Rung, ...]

    @property
    def names(self) -> list[str]:
        """Names of all rungs, roads not taken included."""
        return [rung.name for rung in self.rungs]

    @property
    def start(self) -> Rung:
        """The rung that everything is compared with."""
        return self.rungs[0]

    def __getitem__(self, name: str) -> Rung:
        """The rung of that name. Raises `RoadmapError` with the nearest name where there is none."""
        check_known("step", [name], self.names)
        return next(rung for rung in self.rungs if rung.name == name)

    def __iter__(self) -> Iterator[Rung]:
        return iter(self.rungs)

    def __len__(self) -> int:
        return len(self.rungs)

    def between(self, first: str | None = None, last: str | None = None, roads: bool = False) -> list[Rung]:
        """The rungs from ``first`` to ``last``, both included, with or without the roads not taken between them.

        Raises `RoadmapError` for an unknown name, and where ``first`` comes after ``last``.
        """
        low = self.names.index(self[first].name) if first else 0
        high = self.names.index(self[last].name) if last else len(self.rungs) - 1
        if low > high:
            raise RoadmapError(f"the ladder cannot go from '{first}' up to '{last}': '{first}' comes after '{last}'")
        ends = {low, high}
        return [
            rung
            for index, rung in enumerate(self.rungs)
            if low <= index <= high and (rung.adopted or roads or index in ends)
        ]

    def scaled(self, width: int = FULL_WIDTH, depth: float = 1.0, **changes: Any) -> Ladder:
        """The same ladder for networks of another size.

        ``width``: base width of the start in channels (64 in the paper); every rung's width keeps its ratio to it.
        ``depth``: factor on the blocks of every stage, at least one block each. ``changes``: further flags for all
        rungs alike, such as ``stem_stride`` or ``num_classes``.
        """
        check_int("width", width, 4, 4096)
        check_number("depth", depth, 0.01, 16)

        def scale(design: Design) -> Design:
            return design.replace(
                widths=stage_widths(_half_up(design.widths[0] * width / FULL_WIDTH)),
                blocks=tuple(max(1, _half_up(count * depth)) for count in design.blocks),
                **changes,
            )

        return Ladder(
            self.regime,
            tuple(
                dataclasses.replace(rung, design=scale(rung.design), before=rung.before and scale(rung.before))
                for rung in self.rungs
            ),
        )


def _half_up(value: float) -> int:
    return int(value + 0.5)


@dataclass(frozen=True)
class Regime:
    """The few numbers in which the two regimes of the paper differ (Tables 10 and 11)."""

    start_blocks: tuple[int, ...]
    final_blocks: tuple[int, ...]
    width_after_stage_ratio: int
    final_width: int
    stochastic_depth: float
    prefix: str


#: No stochastic depth is printed for the ResNet-200 regime; 0.5 is ConvNeXt-B's (Table 5).
REGIMES = {
    "resnet50": Regime((3, 4, 6, 3), (3, 3, 9, 3), 64, 96, 0.1, "roadmap_"),
    "resnet200": Regime((3, 24, 36, 3), (3, 3, 27, 3), 84, 128, 0.5, "roadmap_r200_"),
}


@cache
def ladder(regime: str = "resnet50") -> Ladder:
    """The ladder of a regime: ``resnet50`` (to ConvNeXt-T) or ``resnet200`` (to ConvNeXt-B).

    Source: §2 of the paper, Tables 10 and 11. Raises `RoadmapError` for another regime.
    """
    check_choice("regime", regime, REGIMES)
    numbers = REGIMES[regime]
    printed = printed_table(regime)
    design = Design(blocks=numbers.start_blocks, widths=stage_widths(FULL_WIDTH))
    rungs: list[Rung] = []

    def rung(name: str, section: str, why: str, before: Design | None = None, **changes: Any) -> None:
        nonlocal design
        before = before or design
        changed = before.replace(**changes)
        adopted = printed[name].adopted == "yes"
        start = not rungs
        rungs.append(Rung(name, why, section, changed, None if start else before, printed[name], adopted, start))
        if adopted:
            design = changed

    rung(
        regime,
        "§2",
        "The starting point: the residual network of 2015, trained as it was then.",
    )
    rung(
        "modern_recipe",
        "§2.1",
        "Train the same network as Transformers are trained (AdamW, longer, Mixup, CutMix, label smoothing, stochastic "
        "depth): part of what newer networks gain is their training, not their architecture.",
    )
    rung(
        "stage_ratio",
        "§2.2",
        "Spend most blocks in the third stage, about 1:1:3:1, as Swin Transformers distribute their computation.",
        blocks=numbers.final_blocks,
        widths=stage_widths(numbers.width_after_stage_ratio),
    )
    rung(
        "patchify_stem",
        "§2.2",
        "Cut the image into non-overlapping patches with one convolution, as a vision Transformer does, instead of an "
        "overlapping convolution and a pooling.",
        stem="patchify",
    )
    rung(
        "depthwise_conv",
        "§2.3",
        "Give each channel its own spatial filter and leave the mixing of channels to the 1x1 convolutions: much "
        "cheaper, and the same separation of space and channels as self-attention.",
        groups="depthwise",
    )
    rung(
        "increase_width",
        "§2.3",
        "Spend what the depthwise convolution saved on more channels, as ResNeXt does: more groups, wider network.",
        widths=stage_widths(numbers.final_width),
    )
    rung(
        "inverted_bottleneck",
        "§2.4",
        "Make the block's hidden layer four times as wide as its input, as a Transformer's MLP and MobileNetV2 do.",
        block="inverted",
    )
    rung(
        "move_up_depthwise",
        "§2.5",
        "Put the spatial convolution first, where the block is narrow, as self-attention comes before the MLP: the "
        "prerequisite for affordable large kernels.",
        spatial_position="first",
    )
    small_kernel = design
    kernels = {
        5: "A 5x5 kernel, measured beside the adopted 7x7 to see where the gain saturates.",
        7: "Look further with each convolution: 7x7, the size of Swin's windows, where the gain saturates.",
        9: "A 9x9 kernel, measured beside the adopted 7x7: no gain.",
        11: "An 11x11 kernel, measured beside the adopted 7x7: no gain.",
    }
    for size, why in kernels.items():
        name = "large_kernel" if size == 7 else f"kernel_{size}"
        rung(name, "§2.5", why, before=small_kernel, kernel_size=size)
    rung(
        "gelu",
        "§2.6",
        "Use the smoother activation of modern Transformers; on accuracy it makes little difference.",
        activation="gelu",
    )
    rung(
        "fewer_activations",
        "§2.6",
        "Keep a single activation a block, between the two 1x1 convolutions, as a Transformer block has just one in "
        "its MLP.",
        fewer_activations=True,
    )
    rung(
        "fewer_norms",
        "§2.6",
        "Keep a single norm a block, after the spatial convolution: even fewer than a Transformer block has.",
        fewer_norms=True,
    )
    rung(
        "layer_norm",
        "§2.6",
        "Normalise over the channels of each position (LayerNorm) instead of over the batch (BatchNorm), so that an "
        "image's result does not depend on the others in its batch.",
        norm="layer",
    )
    rung(
        "separate_downsample",
        "§2.6",
        "Halve the resolution between the stages with a norm and a 2x2 stride-2 convolution, as Swin does, instead of "
        "inside a residual block; the added norms keep training stable.",
        separate_downsample=True,
    )
    return Ladder(regime, tuple(rungs))


def build(step: str, regime: str = "resnet50", **changes: Any) -> RoadmapNet:
    """The network of a rung, freshly initialised: an ``nn.Module``, (N, in_channels, H, W) -> (N, num_classes).

    ``changes`` are any flags of the `Design`: ``build("large_kernel", num_classes=10, kernel_size=5)``.
    Raises `RoadmapError` for an unknown step, regime or flag.
    """
    design = ladder(regime)[step].design.replace(**changes)
    from roadmap.network.model import RoadmapNet

    return RoadmapNet(design)


def timm_names() -> dict[str, tuple[str, str]]:
    """timm model name -> (regime, step), for every rung of both regimes."""
    return {
        f"{numbers.prefix}{name}": (regime, name)
        for regime, numbers in REGIMES.items()
        for name in ladder(regime).names
    }
