"""The ladder: every rung from ResNet to ConvNeXt as data, in both of the paper's regimes.

A rung is a step in its place: a name, the change it makes to the network or to its training, why, and the row that the
paper printed for it. This module needs neither torch nor timm, so that listing or planning the ladder is instant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, check_choice, check_int, check_known, check_number
from roadmap.ladders.family import FAMILY
from roadmap.ladders.steps import FACTORS, FULL_WIDTH, STUDY_RECIPE, Step, compose, is_alternative, registered_steps
from roadmap.markup import element, table
from roadmap.network.design import Design
from roadmap.network.layers import find_layer, layer_names
from roadmap.reference import PrintedRow, printed_table
from roadmap.settings import show_keywords

if TYPE_CHECKING:
    from roadmap.network.model import RoadmapNet

#: Every stage is this many times as wide as the first.
WIDTH_MULTIPLES = (1, 2, 4, 8)


def stage_widths(base: int) -> tuple[int, ...]:
    """Widths of the four stages, in channels, of a network with this base width."""
    return tuple(base * multiple for multiple in WIDTH_MULTIPLES)


@dataclass(frozen=True)
class Rung:
    """One named step of the ladder, in its place.

    ``path``: the steps that make its network of the start, its own last; none for the start. ``design`` is the whole
    network at this rung, ``before`` the one it changes: the adopted rung before it (None for the start). ``printed`` is
    the paper's row; a rung that is not ``adopted`` is a road not taken.
    """

    name: str
    why: str
    section: str
    path: tuple[Step, ...]
    design: Design
    before: Design | None
    printed: PrintedRow
    adopted: bool = True

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps of its ``path``."""
        return tuple(step.name for step in self.path)

    @property
    def classic_recipe(self) -> bool:
        """Whether it trains with the classic recipe rather than the modern one."""
        return not any(step.recipe for step in self.path)

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
        if self.path[-1].recipe:
            parts.append("recipe classic → modern")
        return ", ".join(parts) or "changes nothing at this size"

    def _repr_html_(self) -> str:
        from roadmap.cost.counting import count

        road = "" if self.adopted else ", a road not taken"
        rows = [("changes", self.change), ("in the paper", printed_text(self.printed))]
        costs = [count(design) for design in (self.before, self.design) if design]
        for name, scale in (("gmacs", 1), ("params", 1e6), ("activations", 1e6)):
            values = " → ".join(f"{getattr(cost, name) / scale:.4g}" for cost in costs)
            rows.append((COSTS[name], values))
        head = f"{self.name} ({self.section}{road})"
        return f"<div>{element('h4', head)}{element('p', self.why)}{table(rows)}</div>"

    def _differences(self) -> dict[str, tuple[Any, Any]]:
        if self.before is None:
            return {}
        old, new = vars(self.before), vars(self.design)
        return {flag: (old[flag], new[flag]) for flag in new if old[flag] != new[flag]}


#: What a rung's costs are called, for one image of 224 px.
COSTS = {"gmacs": "GMACs at 224 px", "params": "parameters, M", "activations": "activations at 224 px, M"}


def printed_text(row: PrintedRow) -> str:
    """What the paper printed for a rung, on one line."""
    deviation = f" ±{row.top1_std:.2f}" if row.top1_std else ""
    return f"{row.top1:.2f}{deviation} %, {row.gflops:.2f} GFLOPs"


def _words(flag: str, value: Any) -> str:
    if flag == "widths" and value == stage_widths(value[0]):
        return f"width {value[0]}"
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f"{flag} {'-'.join(map(str, value)) if isinstance(value, tuple) else value}"


@dataclass(frozen=True)
class Ladder:
    """All rungs of one regime, in order; the roads not taken stand where Figure 2 draws them.

    ``width``, ``depth`` and ``flags`` are those of `scaled`.
    """

    regime: str
    rungs: tuple[Rung, ...]
    width: int = FULL_WIDTH
    depth: float = 1.0
    flags: Mapping[str, Any] = field(default_factory=dict)

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

    def _repr_html_(self) -> str:
        rows = [
            (rung.name if rung.adopted else f"({rung.name})", rung.section, rung.change, printed_text(rung.printed))
            for rung in self.rungs
        ]
        size = f"base width {self.width}, depth {self.depth:g}"
        what = f"{self.regime}: {len(self)} rungs, {size}; roads not taken in brackets"
        return f"<div>{element('p', what)}{table(rows, ('step', 'section', 'changes', 'in the paper'))}</div>"

    def between(self, first: str | None = None, last: str | None = None, roads: bool = False) -> list[Rung]:
        """The rungs from ``first`` to ``last``, both included, with or without the roads not taken between them.

        Raises `RoadmapError` for an unknown name, and where ``first`` comes after ``last``.
        """
        low = self.names.index(self[first].name) if first is not None else 0
        high = self.names.index(self[last].name) if last is not None else len(self.rungs) - 1
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
        width, depth = check_int("width", width, 4, 4096), check_number("depth", depth, 0.01, 16)
        sized = dataclasses.replace(self, width=width, depth=depth, flags=changes)
        rungs = (
            dataclasses.replace(
                rung, design=sized.design_of(rung.path), before=rung.before and sized.design_of(rung.path[:-1])
            )
            for rung in self.rungs
        )
        return dataclasses.replace(sized, rungs=tuple(rungs))

    def design_of(self, steps: Iterable[Step]) -> Design:
        """The network that steps make of the regime's start, at this ladder's size. Raises as `compose`."""
        return compose(start_design(self.regime), steps, self.width, self.depth).replace(**self.flags)


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


#: Kernel sizes measured in place of the adopted one, and why.
KERNELS = {
    5: "A 5x5 kernel, measured beside the adopted 7x7 to see where the gain saturates.",
    7: "Look further with each convolution: 7x7, the size of Swin's windows, where the gain saturates.",
    9: "A 9x9 kernel, measured beside the adopted 7x7: no gain.",
    11: "An 11x11 kernel, measured beside the adopted 7x7: no gain.",
}


def start_design(regime: str) -> Design:
    """The ResNet that a regime starts from, at the paper's size. Raises `RoadmapError` for another regime."""
    check_choice("regime", regime, REGIMES)
    return Design(blocks=REGIMES[regime].start_blocks, widths=stage_widths(FULL_WIDTH))


@cache
def ladder_steps(regime: str = "resnet50") -> tuple[Step, ...]:
    """The steps of a regime's ladder, in order, roads not taken included. Source: §2 of the paper.

    Raises `RoadmapError` for another regime.
    """
    check_choice("regime", regime, REGIMES)
    numbers = REGIMES[regime]
    printed = printed_table(regime)
    steps: list[Step] = []

    def add(name: str, section: str, why: str, recipe: str | None = None, **changes: Any) -> None:
        changes = {flag: value for flag, value in changes.items() if not (flag in FACTORS and value == 1)}
        steps.append(Step(name, why, section, changes, recipe, adopted=printed[name].adopted == "yes"))

    add(
        "modern_recipe",
        "§2.1",
        "Train the same network as Transformers are trained (AdamW, longer, Mixup, CutMix, label smoothing, stochastic "
        "depth): part of what newer networks gain is their training, not their architecture.",
        recipe=STUDY_RECIPE,
    )
    add(
        "stage_ratio",
        "§2.2",
        "Spend most blocks in the third stage, about 1:1:3:1, as Swin Transformers distribute their computation.",
        blocks=numbers.final_blocks,
        width_factor=Fraction(numbers.width_after_stage_ratio, FULL_WIDTH),
    )
    add(
        "patchify_stem",
        "§2.2",
        "Cut the image into non-overlapping patches with one convolution, as a vision Transformer does, instead of an "
        "overlapping convolution and a pooling.",
        stem="patchify",
    )
    add(
        "depthwise_conv",
        "§2.3",
        "Give each channel its own spatial filter and leave the mixing of channels to the 1x1 convolutions: much "
        "cheaper, and the same separation of space and channels as self-attention.",
        groups="depthwise",
    )
    add(
        "increase_width",
        "§2.3",
        "Spend what the depthwise convolution saved on more channels, as ResNeXt does: more groups, wider network.",
        width_factor=Fraction(numbers.final_width, numbers.width_after_stage_ratio),
    )
    add(
        "inverted_bottleneck",
        "§2.4",
        "Make the block's hidden layer four times as wide as its input, as a Transformer's MLP and MobileNetV2 do.",
        block="inverted",
    )
    add(
        "move_up_depthwise",
        "§2.5",
        "Put the spatial convolution first, where the block is narrow, as self-attention comes before the MLP: the "
        "prerequisite for affordable large kernels.",
        spatial_position="first",
    )
    for size, why in KERNELS.items():
        add("large_kernel" if size == 7 else f"kernel_{size}", "§2.5", why, kernel_size=size)
    add(
        "gelu",
        "§2.6",
        "Use the smoother activation of modern Transformers; on accuracy it makes little difference.",
        activation="gelu",
    )
    add(
        "fewer_activations",
        "§2.6",
        "Keep a single activation a block, between the two 1x1 convolutions, as a Transformer block has just one in "
        "its MLP.",
        fewer_activations=True,
    )
    add(
        "fewer_norms",
        "§2.6",
        "Keep a single norm a block, after the spatial convolution: even fewer than a Transformer block has.",
        fewer_norms=True,
    )
    add(
        "layer_norm",
        "§2.6",
        "Normalise over the channels of each position (LayerNorm) instead of over the batch (BatchNorm), so that an "
        "image's result does not depend on the others in its batch.",
        norm="layer",
    )
    add(
        "separate_downsample",
        "§2.6",
        "Halve the resolution between the stages with a norm and a 2x2 stride-2 convolution, as Swin does, instead of "
        "inside a residual block; the added norms keep training stable.",
        separate_downsample=True,
    )
    return tuple(steps)


@cache
def ladder(regime: str = "resnet50") -> Ladder:
    """The ladder of a regime: ``resnet50`` (to ConvNeXt-T) or ``resnet200`` (to ConvNeXt-B).

    Source: §2 of the paper, Tables 10 and 11. Raises `RoadmapError` for another regime.
    """
    start = start_design(regime)
    printed = printed_table(regime)
    rungs = [
        Rung(
            regime,
            "The starting point: the residual network of 2015, trained as it was then.",
            "§2",
            (),
            start,
            None,
            printed[regime],
        )  # fmt: skip
    ]
    taken: tuple[Step, ...] = ()
    for step in ladder_steps(regime):
        # A road not taken is another answer to the question of the adopted step beside it, not an addition to it.
        path = tuple(one for one in taken if step.adopted or not is_alternative(step, one))
        before, design = compose(start, path), compose(start, [*path, step])
        rungs.append(
            Rung(step.name, step.why, step.section, (*path, step), design, before, printed[step.name], step.adopted)
        )
        if step.adopted:
            taken = (*path, step)
    return Ladder(regime, tuple(rungs))


def find_step(name: str, regime: str = "resnet50") -> Step:
    """The step of that name: of the regime's ladder, of a plug-in, or the one that adds a plug-in's layer.

    Raises `RoadmapError` with the nearest name where there is none.
    """
    known = {step.name: step for step in ladder_steps(regime)}
    if name in known and name not in registered_steps:
        return known[name]
    layers = layer_names()  # has installed plug-ins register their steps, too
    check_known("step", [name], [*known, *registered_steps, *layers])
    if name in registered_steps and (name in known or name in layers):
        other = "of the ladder" if name in known else "that adds a layer"
        raise RoadmapError(f"a plug-in has a step '{name}', as is the name of one {other}: give it another name")
    if name in layers:
        layer = find_layer(name)
        return Step(name, layer.why, layer.section, {"layers": {name: {}}})
    return registered_steps[name]


def step_names(regime: str = "resnet50") -> list[str]:
    """Names of all steps that `find_step` knows, and of the start."""
    return list(dict.fromkeys([*ladder(regime).names, *layer_names(), *registered_steps]))


def build(step: str, regime: str = "resnet50", **changes: Any) -> RoadmapNet:
    """The network of a rung or of the published `FAMILY`, such as ``convnext_base``, freshly initialised: an
    ``nn.Module``, (N, in_channels, H, W) -> (N, num_classes).

    ``changes`` are any flags of the `Design`: ``build("large_kernel", num_classes=10, kernel_size=5)``.
    Raises `RoadmapError` for an unknown step, regime or flag.
    """
    rungs = ladder(regime)
    check_known("step", [step], [*rungs.names, *FAMILY])
    design = rungs[step].design if step in rungs.names else FAMILY[step]
    from roadmap.network.model import RoadmapNet

    return RoadmapNet(design.replace(**changes))


show_keywords(build, {flag.name: (str(flag.type), ...) for flag in dataclasses.fields(Design)})


def timm_names() -> dict[str, tuple[str, str]]:
    """timm model name -> (regime, step), for every rung of both regimes."""
    return {
        f"{numbers.prefix}{name}": (regime, name)
        for regime, numbers in REGIMES.items()
        for name in ladder(regime).names
    }
