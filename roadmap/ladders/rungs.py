"""The ladder: every rung from ResNet to ConvNeXt as data, in both of the paper's regimes.

A rung is a step in its place: a name, the change it makes to the network or to its training, why, and the row that the
paper printed for it. This module needs neither torch nor timm, so that listing or planning the ladder is instant.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, check_choice, check_known
from roadmap.ladders.family import FAMILY
from roadmap.ladders.steps import FACTORS, FULL_WIDTH, STUDY_RECIPE, Step, compose, is_alternative, registered_steps
from roadmap.network.design import Design
from roadmap.network.layers import find_layer, layer_names
from roadmap.reference import printed_table
from roadmap.settings import show_keywords

if TYPE_CHECKING:
    from roadmap.network.model import RoadmapNet

from roadmap.ladders.ladder import REGIMES, Ladder, Rung, start_design

#: Kernel sizes measured in place of the adopted one, and why.
KERNELS = {
    5: "A 5x5 kernel, measured beside the adopted 7x7 to see where the gain saturates.",
    7: "Look further with each convolution: 7x7, the size of Swin's windows, where the gain saturates.",
    9: "A 9x9 kernel, measured beside the adopted 7x7: no gain.",
    11: "An 11x11 kernel, measured beside the adopted 7x7: no gain.",
}


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
        )
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
