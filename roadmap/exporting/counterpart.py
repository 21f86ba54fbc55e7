"""The network of timm's that computes what one of ours does, by what `timm.create_model` takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from roadmap.checks import RoadmapError
from roadmap.ladders.rungs import ladder, timm_names
from roadmap.network.building import design_of
from roadmap.network.design import Design
from roadmap.network.families import on_ladder
from roadmap.network.weights import to_timm


def counterpart(network: nn.Module, regime: str, step: str) -> tuple[nn.Module, str, dict[str, Any]]:
    """(network of timm's with the weights of ``network``, its name, its arguments).

    A network that timm itself has, at either end of the ladder, becomes timm's ``convnext_tiny`` or ``resnet50`` at its
    own size, which needs no roadmap; any other the model ``roadmap_STEP`` that ``import roadmap.timm`` registers, with
    the flags in which it differs from that rung. One of timm's own models is its own counterpart.
    """
    import timm

    import roadmap.timm  # noqa: F401  (registers the rungs)

    design = design_of(network)
    if not on_ladder(design):
        return network, design.timm_model, {}  # type: ignore[attr-defined]
    try:
        tensors = to_timm(network)  # type: ignore[arg-type]
        name, arguments = _convnext(design) if design.separate_downsample else _resnet(design)
    except RoadmapError:
        tensors, (name, arguments) = network.state_dict(), _rung(design, regime, step)
    with torch.device("meta"):
        theirs = timm.create_model(name, **arguments)
    theirs.to_empty(device="cpu")
    theirs.load_state_dict({**_ones(theirs, tensors), **tensors}, strict=True, assign=True)
    return theirs.eval(), name, arguments


def _ones(theirs: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layer scale of 1 for networks that have none: `timm.create_model` cannot leave it out."""
    return {
        key: torch.ones_like(tensor, device="cpu")
        for key, tensor in theirs.state_dict().items()
        if key.endswith(".gamma") and key not in tensors
    }


def _convnext(design: Design) -> tuple[str, dict[str, Any]]:
    common = {"depths": list(design.blocks), "dims": list(design.widths), "act_layer": design.activation}
    name = "convnextv2_tiny" if "grn" in dict(design.layers) else "convnext_tiny"
    scale = {} if design.layer_scale is None else {"ls_init_value": design.layer_scale}
    return name, _shared(design) | common | {"kernel_sizes": design.kernel_size} | scale


def _resnet(design: Design) -> tuple[str, dict[str, Any]]:
    """Widths of timm's ResNet are a quarter of what a stage puts out; those of its groups count in 64ths of these."""
    layers = dict(design.layers)
    arguments: dict[str, Any] = {
        "layers": list(design.blocks),
        "channels": [width * design.expansion // 4 for width in design.widths],
        "act_layer": design.activation,
    }
    if design.groups != 1 or design.expansion != 4:
        arguments |= {"cardinality": design.groups, "base_width": 256 // (int(design.groups) * design.expansion)}
    if "resnet_d_stem" in layers:
        arguments |= {"stem_type": "deep", "stem_width": design.stem_channels // 2}
    return "seresnet50" if "se" in layers else "resnet50", _shared(design) | arguments


def _shared(design: Design) -> dict[str, Any]:
    return {
        "num_classes": design.num_classes,
        "in_chans": design.in_channels,
        "drop_path_rate": design.stochastic_depth,
    }


def _rung(design: Design, regime: str, step: str) -> tuple[str, dict[str, Any]]:
    """The rung ``step`` of a ladder, or its start for a step of somebody's own, and all flags that differ from it."""
    known = {place: name for name, place in timm_names().items()}
    place = (regime, step) if (regime, step) in known else (regime, ladder(regime).start.name)
    base = ladder(regime)[place[1]].design
    flags = dataclasses.asdict(design)
    changed = {name: value for name, value in flags.items() if value != getattr(base, name)}
    # timm reads these two itself
    words = {"in_channels": "in_chans", "stochastic_depth": "drop_path_rate"}
    changed = {words.get(name, name): value for name, value in changed.items()}
    return known[place], {"num_classes": design.num_classes} | changed
