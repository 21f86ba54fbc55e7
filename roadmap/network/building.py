"""Whatever can be trained, a rung's `Design` or a `TimmModel`, by one road. Imports torch where it builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from roadmap.network.design import Design
from roadmap.network.timm_model import TimmModel, facts_of

if TYPE_CHECKING:
    from torch import nn

#: The key that only the plain values of a `TimmModel` have.
TIMM_KEY = "timm_model"


def build_network(design: Design | TimmModel) -> nn.Module:
    """The network, freshly initialised: (N, in_channels, H, W) -> (N, num_classes). Its ``design`` is this one.

    Raises `RoadmapError` where timm cannot build a model.
    """
    if isinstance(design, TimmModel):
        return design.build()
    from roadmap.network.model import RoadmapNet

    return RoadmapNet(design)


def design_from_dict(values: Mapping[str, Any]) -> Design | TimmModel:
    """The design with these plain values, as ``dataclasses.asdict`` gives them. Raises `RoadmapError` for values that
    cannot be, and ``TypeError`` for names that are none of its own."""
    return TimmModel(**values) if TIMM_KEY in values else Design(**values)


def normalises_over_batch(design: Design | TimmModel) -> bool:
    """Whether what an image comes to depends on the others of its batch in training. Asks timm for a `TimmModel`."""
    return facts_of(design.timm_model).batch_norm if isinstance(design, TimmModel) else design.norm == "batch"


def classifier_names(design: Design | TimmModel) -> tuple[str, ...]:
    """The names of the last linear layers. Asks timm for a `TimmModel`."""
    return facts_of(design.timm_model).classifiers if isinstance(design, TimmModel) else ("head.fc",)
