"""Groups of parameters whose learning rate falls from the head of a network to its stem, of networks around a backbone.

timm's own does nothing where the backbone is not the network itself.
"""

from __future__ import annotations

import re
from typing import Any

from timm.models import group_parameters
from torch import nn

from roadmap.network.building import design_of
from roadmap.network.families import on_ladder

#: The rules of the paper's released code: a stage is a layer, and all that is between stages is the first; or three
#: blocks of the third stage are one, as `roadmap.network.backbone.Backbone.group_matcher` has it.
STAGES, BLOCKS = "stages", "blocks"


def decayed_groups(
    network: nn.Module, backbone: str, rule: str, layer_decay: float | None, weight_decay: float, decay_all: bool
) -> list[dict[str, Any]]:
    """The parameters of a network in groups as timm's optimizers and schedules take them: ``params``, ``weight_decay``
    and ``lr_scale``, the ``layer_decay`` to the power of the layers behind them.

    ``backbone``: the name of the network's module that has the classifier's stages; what is outside is the last layer.
    Norms and biases are spared weight decay unless ``decay_all``. ``rule``: `STAGES` or `BLOCKS`.
    """
    inner = network.get_submodule(backbone)
    layers, last = _layers(inner, rule)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layers.get(name.removeprefix(f"{backbone}."), last)
        spared = not decay_all and (parameter.ndim < 2 or name.endswith(".bias"))
        group = groups.setdefault(
            (layer, spared),
            {
                "params": [],
                "weight_decay": 0.0 if spared else weight_decay,
                "lr_scale": (layer_decay or 1.0) ** (last - layer),
            },
        )
        group["params"].append(parameter)
    return [*groups.values()]


def _layers(network: nn.Module, rule: str) -> tuple[dict[str, int], int]:
    """Parameter -> number of its layer from the stem on, and that of what stands on the backbone."""
    design = design_of(network)
    if not on_ladder(design):  # whose layers timm knows
        grouped = group_parameters(network, network.group_matcher(coarse=rule == STAGES))  # type: ignore[operator]
        layers = {name: int(number) for number, names in grouped.items() for name in names}
        return layers, max(layers.values()) + 1
    middle = 3 + -(-design.blocks[2] // 3)  # the number of the last stage: 6 for 9 blocks, 12 for 27
    layers = {}
    for name, _ in network.named_parameters():
        part, *numbers = re.findall(r"^[a-z]+|\d+", name)
        if part != "stages":
            layers[name] = 0
            continue
        stage, within = int(numbers[0]), ".blocks." in name
        if rule == STAGES:
            layers[name] = stage + 1 if within else 0
        else:
            layers[name] = (1, 2, 3 + (int(numbers[1]) // 3 if within else 0), middle)[stage]
    return layers, middle + 1
