"""Effects as figures draw them: in which order, with which names, and by how much they tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from roadmap.formatting import macs_unit
from roadmap.plotting.forest import Interval
from roadmap.questions.question import Question
from roadmap.results.effects import Measured
from roadmap.results.sentences import effect_label

#: Columns of the costs that accuracy can be drawn against: the label of the axis, and whether less is better.
COSTS = {
    "gmacs": ("GMACs per image", True),
    "params": ("parameters", True),
    "activations": ("activations per image", True),
    "images_per_second": ("images per second in training", False),
    "latency": ("median latency (ms)", True),
    "latency_p95": ("95th percentile of latency (ms)", True),
}


def ranked_effects(question: type[Question], measured: Sequence[Measured]) -> list[Measured]:
    """The effects in the order of their rows in a figure: the largest gain first, or as the question lists them."""
    if not question.ranked:
        return list(measured)
    return sorted(
        measured, key=lambda one: -one.row["estimate"] if one.row["estimate"] == one.row["estimate"] else math.inf
    )


def effect_interval(one: Measured) -> Interval:
    """An effect as figures draw it."""
    row = one.row
    return Interval(row["estimate"], row["low"], row["high"], row["verdict"], 0.0, one.parts.tolist())


def weight_of(row: Mapping[str, Any]) -> float:
    """How telling an effect is: what is decided before what is not, the larger before the smaller."""
    size = abs(row["estimate"]) if row["estimate"] == row["estimate"] else -1.0
    return size + 1e6 * (row["verdict"] in ("gain", "loss"))


def aliased_label(row: Mapping[str, Any]) -> str:
    """The name of an effect, with an asterisk where it stands for others too."""
    return effect_label(row["effect"]) + (" *" if row.get("aliases") else "")


def alias_of(rows: Mapping[str, Measured], names: Sequence[str]) -> Measured | None:
    """The effect that stands for this one, since the fraction of the networks cannot tell them apart."""
    for one in rows.values():
        for sign in "+−":
            if any(f"{sign} {name}" in f"{one.row.get('aliases') or ''}" for name in names):
                return _negated(one) if sign == "−" else one
    return None


def _negated(one: Measured) -> Measured:
    row = one.row
    turned = {"gain": "loss", "loss": "gain"}.get(row["verdict"], row["verdict"])
    return Measured(
        row | {"estimate": -row["estimate"], "low": -row["high"], "high": -row["low"], "verdict": turned},
        -one.parts,
        one.weights,
    )


def level_text(name: str) -> str:
    """A level without its flag."""
    return name.rpartition("=")[2]


def scaled(cost: str, axis: str, values: Sequence[float]) -> tuple[float, str]:
    """(factor, label) with which a cost is drawn."""
    if cost == "gmacs":
        factor, unit = macs_unit(values)
        return factor, axis.replace("GMACs", unit)
    for scale, word in ((1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if max(values) >= scale:
            return 1 / (1e3 if word == "thousand" else scale), f"{axis}, {word}"
    return 1.0, axis
