"""Whatever can be trained, of any family of networks, by one road. Imports torch where it builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from roadmap.network.families import NetworkDesign, family_in, family_of

if TYPE_CHECKING:
    from torch import nn


def build_network(design: NetworkDesign) -> nn.Module:
    """The network, freshly initialised: (N, in_channels, H, W) -> (N, num_classes); `design_of` it is this one.

    Raises `RoadmapError` where its family cannot build it.
    """
    return family_of(design).build(design)


def design_of(network: nn.Module) -> NetworkDesign:
    """The design that `build_network` has built a network from."""
    return cast(NetworkDesign, network.design)


def design_from_dict(values: Mapping[str, Any]) -> NetworkDesign:
    """The design with these plain values, as ``dataclasses.asdict`` gives them; those that came later may be missing.

    Raises `RoadmapError` for values that cannot be, and ``TypeError`` for names that are none of its own.
    """
    family = family_in(values)
    return family.settings(**{**family.later, **values})


def normalises_over_batch(design: NetworkDesign) -> bool:
    """Whether what an image comes to depends on the others of its batch in training. May have to ask timm or torch."""
    return family_of(design).normalises_over_batch(design)


def classifier_names(design: NetworkDesign) -> tuple[str, ...]:
    """The names of the last linear layers. May have to ask timm."""
    return family_of(design).classifiers(design)
