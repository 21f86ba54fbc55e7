"""Multiply-accumulates, parameters and activations of a network. Needs torch only for those that are not known.

A cost is a fact of a design and an image size, and tracing a network takes half a second to two: those of the published
ladders at 224 px are shipped (`known.csv`, which `python tests/known_costs.py` writes).
"""

from __future__ import annotations

import csv
import json
from functools import cache
from importlib.resources import files

from roadmap.cost.cost import Cost
from roadmap.network.families import NetworkDesign, digest


def count(design: NetworkDesign, image_size: int | tuple[int, int] = 224) -> Cost:
    """The cost of a design for images of ``image_size`` pixels (a side, or height and width).

    Raises `RoadmapError` where the strides reduce that size to nothing, and where a timm model does not take it.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if shipped := _shipped().get((digest(design), size)):
        return shipped
    from roadmap.cost.tracing import trace

    return trace(design, size)


def count_params(design: NetworkDesign) -> int:
    """The parameters of a design's network, as `count` has them, in a tenth of its time."""
    import torch

    from roadmap.network.building import build_network

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(design).parameters())


@cache
def _shipped() -> dict[tuple[str, tuple[int, int]], Cost]:
    with files(__package__).joinpath("known.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["design"], (size := (int(row["height"]), int(row["width"])))): Cost(
            size, float(row["gmacs"]), int(row["params"]), int(row["activations"]), json.loads(row["macs_by_operator"])
        )
        for row in rows
    }
