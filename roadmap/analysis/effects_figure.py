"""The figure of what every step of an ablation is worth, by its design."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from roadmap.analysis.effects import Measured
from roadmap.analysis.estimation import FINDINGS
from roadmap.analysis.forest import Row, beyond_text, draw_forest
from roadmap.analysis.shown import plural
from roadmap.analysis.tables import completed, question_of, regime_of, summarize
from roadmap.checks import RoadmapError
from roadmap.look import cost_text, label, matched_text, signed, trained_text, values_of
from roadmap.questions.question import Question
from roadmap.rungs import ladder

#: Effects of a forest are sorted; what cannot be told comes last, and then the networks themselves.
_LAST = -math.inf


def draw_ablation(
    runs: pd.DataFrame,
    ablation: Mapping[str, Any],
    measured: Sequence[Measured],
    title: str | None = None,
    width: str = "page",
) -> Figure:
    """The ``measured`` effects of a study, see `roadmap.analysis.effects.measure`.

    One row an effect, by size where its question ranks them, with its interval, small dots for its parts, such as
    orders, and a pale bar for their range, and what it costs; below, the networks that all are measured by, and the
    reference models. ``width``: ``page``, or ``column`` for a column of a paper or a phone, with fewer words.

    Raises `RoadmapError` where there are no two networks to compare, and for an unknown width.
    """
    runs = completed(runs)
    question = question_of(runs, ablation)
    if not measured:
        raise RoadmapError("a figure of effects needs at least two networks to compare")
    notes = {rung.name: rung.change for rung in ladder(regime_of(runs))} if question.cumulative else {}
    notes |= {step["name"]: step["change"] for step in ablation.get("steps", ())}
    ranked = ranked_effects(question, measured)
    spread = any("least" in one.row for one in measured)
    rows = [_effect_row(one, spread, notes) for one in ranked]
    compared = _compared(runs, ablation, measured, spread)
    headers = ["effect\n[interval]", "GMACs\nparameters"]
    if spread:
        headers.insert(1, "range over orders\nspread; of it by seeds")
    sentences = [
        trained_text(runs, "network"),
        question.meaning + _uncertainty(measured),
        "GMACs: multiply-accumulates of convolutions and linear layers in 1e9; the column on the right says by how "
        "much a step changes them, and the parameters.",
        *beyond_text(rows, zero=True),
        *matched_text(runs),
    ]
    title = title or f"{question.title}: {plural(len(measured), 'effect')} on {values_of(runs, 'data')}"
    return draw_forest([*rows, *compared], headers, question.axis, title, sentences, "each order", width=width)


def ranked_effects(question: type[Question], measured: Sequence[Measured]) -> list[Measured]:
    """The effects in the order of their rows in a figure: by size, or as the question lists them."""
    if not question.ranked:
        return list(measured)
    return sorted(measured, key=lambda one: _or(abs(one.row["estimate"]), _LAST), reverse=True)


def _or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def _effect_row(one: Measured, spread: bool, notes: Mapping[str, str]) -> Row:
    row = one.row
    steps = row["effect"].split(" × ")
    interval = "" if math.isnan(row["low"]) else f"[{signed(row['low'])}, {signed(row['high'])}]"
    lost = ", ".join(f"{row[what]} {what}" for what in ("failed", "missing") if row[what])
    columns = [(_number(row["estimate"]), "; ".join(filter(None, [interval, lost if not spread else ""])))]
    if spread:
        span = (
            ""
            if "least" not in row or math.isnan(row["least"])
            else f"{signed(row['least'])} to {signed(row['greatest'])}"
        )
        parts = [row.get(name, math.nan) for name in ("spread", "noise")]
        columns.append((span, "; ".join(f"{value:.2f}" for value in parts if not math.isnan(value))))
    columns.append(cost_text(row["gmacs"], row["params"], sign="+"))
    aliases = " ".join(label(word) for word in row.get("aliases", "").split())
    return Row(
        name=" × ".join(label(step) for step in steps),
        note=f"with {aliases}" if aliases else notes.get(row["effect"], ""),
        bold=len(steps) == 1,
        estimate=row["estimate"],
        low=row["low"],
        high=row["high"],
        values=one.parts.tolist(),
        span=(row["least"], row["greatest"]) if "least" in row and not math.isnan(row["least"]) else None,
        columns=tuple(columns),
        found=row["verdict"] in FINDINGS,
        remark="failed" if row["failed"] else "not trained yet",
        section="effects",
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else signed(value)


def _compared(runs: pd.DataFrame, ablation: Mapping[str, Any], measured: Sequence[Measured], spread: bool) -> list[Row]:
    """The network that all effects are compared with, if there is one, and the references."""
    summary = {step["step"]: step for step in summarize(runs, ablation, measured).to_dict("records")}
    pairs = [{one.row["network"], one.row["against"]} for one in measured]
    shared = set.intersection(*pairs) - {None} if len(pairs) > 1 else set()
    rows = [(str(name), "all are compared with it") for name in shared]
    rows += [(str(name), "reference") for name, step in summary.items() if step["reference"]]
    return [_network_row(summary[name], what, spread) for name, what in rows]


def _network_row(step: Mapping[Hashable, Any], what: str, spread: bool) -> Row:
    top1 = "–" if math.isnan(step["top1_mean"]) else f"{step['top1_mean']:.2f}"
    top1 += "" if math.isnan(step["top1_std"]) else f" ± {step['top1_std']:.2f}"
    columns = [(top1, "top1 in %" + (f"; {step['failed']} failed" if step["failed"] else ""))]
    columns += [("", "")] * spread
    columns.append(cost_text(step["gmacs"], step["params"]))
    return Row(name=step["step"], note=what, bold=False, columns=tuple(columns), section="networks")


def _uncertainty(measured: Sequence[Measured]) -> str:
    """What the intervals say."""
    rows = [one.row for one in measured]
    failed = "; no interval where a run failed" if any(row["failed"] for row in rows) else ""
    if all(math.isnan(row["low"]) for row in rows):
        return f"{failed}. No interval is known: a small effect may be noise."
    return (
        f"{failed}. Whiskers: intervals that all hold at once with 95 %; solid where they exclude zero, else "
        "hollow and pale."
    )
