"""What a network costs, as a value, and by which convention it is counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: One sentence that stands wherever a figure is shown.
CONVENTION = (
    "GMACs: multiply-accumulates of convolution and linear layers, and of attention, for one image, in 1e9 (the "
    "paper's 'GFLOPs'); norms and activations are not counted"
)


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass of one image.

    ``gmacs``: multiply-accumulates of convolution and linear layers, and of attention's matrix products, in 1e9.
    ``macs_by_operator``: fvcore's count of every operator it knows, in 1 (norms and pooling by fvcore's own rules).
    ``activations``: outputs of convolution and linear layers, in 1. ``backbone``: where a task's head stands on a
    backbone, ``backbone_gmacs`` and ``backbone_params``.
    """

    image_size: tuple[int, int]
    gmacs: float
    params: int
    activations: int
    macs_by_operator: dict[str, int]
    backbone: dict[str, Any] | None = None
