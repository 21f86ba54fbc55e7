"""Writes the costs that roadmap is shipped with: ``python tests/known_costs.py``, after a change of the networks."""

import csv
import json
from pathlib import Path

import roadmap
from roadmap.cost import counting, tracing
from roadmap.ladders.ladder import REGIMES
from roadmap.network.families import digest

FILE = Path(counting.__file__).with_name("known.csv")
SIZE = 224
COLUMNS = ("regime", "step", "design", "height", "width", "gmacs", "params", "activations", "macs_by_operator")


def row(regime: str, step: str) -> dict[str, str]:
    """What a rung's line says, as text."""
    design = roadmap.ladder(regime)[step].design
    cost = tracing.trace(design, (SIZE, SIZE))
    counts = (cost.gmacs, cost.params, cost.activations, json.dumps(cost.macs_by_operator))
    return dict(zip(COLUMNS, map(str, (regime, step, digest(design), SIZE, SIZE, *counts)), strict=True))


if __name__ == "__main__":
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row(regime, step) for regime in REGIMES for step in roadmap.ladder(regime).names)
