"""The figure of what every step of an ablation is worth, by its design."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from roadmap.analysis.ablation import Measured, Results, measure
from roadmap.analysis.forest import Row, beyond_text, draw_forest
from roadmap.analysis.statistics import FINDINGS
from roadmap.analysis.sweep_figure import draw_sweep
from roadmap.analysis.tables import completed, design_of, regime_of, summarize
from roadmap.checks import RoadmapError
from roadmap.look import (
    cost_text,
    label,
    matched_text,
    signed,
    trained_text,
    values_of,
)  # fmt: skip
from roadmap.rungs import ladder

#: Design -> title, what its figure's axis shows, and the sentence on what an estimate is.
DESIGNS = {
    "ladder": (
        "Step by step",
        "points of top1 that the step has over the one before",
        "The effect of a step is its gain over the last adopted step before it",
    ),
    "leave-one-out": (
        "Leaving one out",
        "points of top1 that all steps have over all but this one",
        "The effect of a step is what the network with all steps has over the one without it",
    ),
    "one-at-a-time": (
        "One at a time",
        "points of top1 that the step alone adds to the base",
        "The effect of a step is what it adds, alone, to the base",
    ),
    "order": (
        "One after the other, in many orders",
        "points of top1 that the step adds",
        "The effect of a step is what it adds to the steps before it, as a mean over orders: its Shapley value, and "
        "all of them sum to the difference between all steps and none",
    ),
    "factorial": (
        "Factorial",
        "effect on top1 in points",
        "A main effect is the mean of the networks with the step minus that of those without; the interaction a × b is "
        "half the difference between the effect of a with and without b",
    ),
}
#: Effects of a forest are sorted; what cannot be told comes last, and then the networks themselves.
_LAST = -math.inf


def draw_ablation(
    runs: pd.DataFrame, ablation: Mapping[str, Any], title: str | None = None, width: str = "page"
) -> Figure:
    """The effects of a study, see `roadmap.analysis.ablation.effects`.

    Of all designs but sweeps: one row an effect, by size, with its 95 % interval, small dots for seeds (of order
    designs for orders, and a pale bar for their range), and what it costs; below, the networks that all are measured
    by, and the reference models. Sweeps: see `roadmap.analysis.sweep_figure.draw_sweep`.
    ``width``: ``page``, or ``column`` for a column of a paper or a phone, with fewer words.

    Raises `RoadmapError` where `effects` does, where a ladder has no two steps to compare, and for an unknown width.
    """
    runs = completed(runs)
    design = design_of(runs, ablation)
    measured = measure(runs, ablation)
    if design == "sweep":
        return draw_sweep(runs, ablation, measured, title, width)
    if not measured:
        raise RoadmapError("there are no two steps to compare")
    heading, axis, meaning = DESIGNS[design]
    notes = {rung.name: rung.change for rung in ladder(regime_of(runs))} if design == "ladder" else {}
    notes |= {step["name"]: step["change"] for step in ablation.get("steps", ())}
    ranked = sorted(measured, key=lambda one: _or(abs(one.row["estimate"]), _LAST), reverse=True)
    rows = [_effect_row(one, design, notes) for one in ranked]
    compared = _compared(runs, ablation, design)
    headers = ["effect\n[95 % interval]", "GMACs\nparameters"]
    if design == "order":
        headers.insert(1, "range over orders\nspread; of it by seeds")
    sentences = [
        trained_text(runs, "network"),
        meaning + _uncertainty(measured, design, ablation),
        "GMACs: multiply-accumulates of convolutions and linear layers in 1e9; the column on the right says by how "
        "much a step changes them, and the parameters.",
        *beyond_text(rows, zero=True),
        *matched_text(runs),
    ]
    title = title or f"{heading}: {_count(measured, design)} on {values_of(runs, 'data')}"
    return draw_forest(
        [*rows, *compared], headers, axis, title, sentences, _dots(design, ablation), width=width,
    )  # fmt: skip


def _dots(design: str, ablation: Mapping[str, Any]) -> str:
    if design != "order":
        return "each seed"
    return "each set that it is added to" if ablation.get("exact") else "each order"


def _or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def _count(measured: Sequence[Measured], design: str) -> str:
    what = "effect" if design == "factorial" else "step"
    return f"{len(measured)} {what}{'' if len(measured) == 1 else 's'}"


def _effect_row(one: Measured, design: str, notes: Mapping[str, str]) -> Row:
    row = one.row
    steps = row["effect"].split(" × ")
    interval = "" if math.isnan(row["low"]) else f"[{signed(row['low'])}, {signed(row['high'])}]"
    lost = ", ".join(f"{row[what]} {what}" for what in ("failed", "missing") if row[what])
    columns = [(_number(row["estimate"]), "; ".join(filter(None, [interval, lost if design != "order" else ""])))]
    if design == "order":
        span = "" if math.isnan(row["least"]) else f"{signed(row['least'])} to {signed(row['greatest'])}"
        spread = "; ".join(f"{value:.2f}" for value in (row["spread"], row["noise"]) if not math.isnan(value))
        columns.append((span, spread))
    columns.append(cost_text(row["gmacs"], row["params"], sign="+"))
    aliases = " ".join(label(word) for word in row.get("aliases", "").split())
    return Row(
        name=" × ".join(label(step) for step in steps),
        note=f"with {aliases}" if aliases else notes.get(row["effect"], ""),
        bold=len(steps) == 1,
        estimate=row["estimate"],
        low=row["low"],
        high=row["high"],
        values=one.values.tolist(),
        span=(row["least"], row["greatest"]) if "least" in row and not math.isnan(row["least"]) else None,
        columns=tuple(columns),
        found=row["verdict"] in FINDINGS,
        remark="failed" if row["failed"] else "not trained yet",
        section="effects",
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else signed(value)


def _compared(runs: pd.DataFrame, ablation: Mapping[str, Any], design: str) -> list[Row]:
    """The networks with all factors and with none, as far as the design's effects refer to them, and the references."""
    names = Results(runs, ablation).names if design != "ladder" else {}
    whole = names.get(frozenset(ablation.get("factors", ()))) if design != "one-at-a-time" else None
    none = names.get(frozenset()) if design != "leave-one-out" else None
    summary = {step["step"]: step for step in summarize(runs, ablation).to_dict("records")}
    rows = [(whole, "all steps"), (none, "none of the steps")]
    rows += [(name, "reference") for name, step in summary.items() if step["reference"]]
    return [_network_row(summary[name], what, design) for name, what in rows if name is not None]


def _network_row(step: Mapping[Hashable, Any], what: str, design: str) -> Row:
    top1 = "–" if math.isnan(step["top1_mean"]) else f"{step['top1_mean']:.2f}"
    top1 += "" if math.isnan(step["top1_std"]) else f" ± {step['top1_std']:.2f}"
    columns = [(top1, "top1 in %" + (f"; {step['failed']} failed" if step["failed"] else ""))]
    columns += [("", "")] * (design == "order")
    columns.append(cost_text(step["gmacs"], step["params"]))
    name, note = (step["step"], what) if step["reference"] else (what, step["step"])
    return Row(name=name, note=note, bold=False, columns=tuple(columns), section="networks")


def _uncertainty(measured: Sequence[Measured], design: str, ablation: Mapping[str, Any]) -> str:
    """How the intervals are made, and what is not in them."""
    rows = [one.row for one in measured]
    seeds = max(row["seeds"] for row in rows)
    intervals = any(not math.isnan(row["low"]) for row in rows)
    words = ""
    if design == "order":
        drawn = len(ablation.get("orders") or ()) or math.factorial(len(ablation["factors"]))
        kind = "all orders" if ablation.get("exact") else f"{drawn} orders drawn at random"
        words = f"; {kind}"
        if rows[0]["failed"] or rows[0]["missing"]:
            words += (
                f", of which {rows[0]['orders']} enter, with {rows[0]['seeds']} seeds: those whose runs are all there "
                f"(runs that failed: {rows[0]['failed']}, that are missing: {rows[0]['missing']})"
            )
        source = (
            "over seeds" if ablation.get("exact") else "over orders and seeds" if seeds > 1 else "over orders alone"
        )
    else:
        source = "over seeds"
        if any(row["failed"] for row in rows):
            words = "; no interval where a run failed"
    if not intervals:
        seed = "One seed: there" if seeds == 1 else "There"
        return f"{words}. {seed} are no intervals, and a small effect may be noise."
    judged = (
        "hollow and pale where the effect is within noise, solid where p is below 0.05 by Holm's correction over all"
        if any(row["verdict"] for row in rows)
        else "one seed says nothing of another, so that there is no verdict"
    )
    return f"{words}. Whiskers: 95 % interval {source}, paired by seed; {judged}."
