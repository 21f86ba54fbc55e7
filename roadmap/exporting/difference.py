"""How far the outputs of two networks are apart."""

from __future__ import annotations

from torch import Tensor


def relative_difference(expected: Tensor, found: Tensor) -> float:
    """The largest difference of outputs, relative to the largest expected one."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
