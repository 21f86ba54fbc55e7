"""A study as a reader sees it in a terminal and in a notebook."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from roadmap.formatting import macs_unit, number, plain, plural, signed
from roadmap.planning.seeds import FIRST
from roadmap.results.estimation import FINDINGS
from roadmap.results.sequential import Rule

#: Most missing or failed runs that are named.
_NAMED = 5
#: Columns whose cells are words; all others are numbers and stand on the right.
_WORDS = ("step", "effect", "verdict", "and", "against")
#: Those that may be longer than a line.
_LONG = ("effect", "and", "against")
#: Columns that a verdict speaks of.
_JUDGED = ("points", "interval", "gain [interval], points", "verdict")


def readable(effects: pd.DataFrame) -> pd.DataFrame:
    """`effects` for the eye, as text: points with their interval and verdict, what was lost, the change in cost, and
    what a design has beside these."""

    largest = effects["estimate"].abs().max()
    decimals = 2 if not largest < 1 else min(2 - math.floor(math.log10(largest or 1)), 8)
    factor, unit = macs_unit(effects.get("gmacs", ()))

    def row(effect: Mapping[Any, Any]) -> dict[str, str]:
        interval = f"{signed(effect['low'], decimals)} to {signed(effect['high'], decimals)}"
        shown = {
            "effect": str(effect["effect"]),
            "points": signed(effect["estimate"], decimals),
            "interval": "" if pd.isna(effect["low"]) else interval,
            "verdict": effect["verdict"] if isinstance(effect["verdict"], str) else "",
            "seeds": number(effect["seeds"], "d"),
            "failed": number(effect["failed"] or None, "d"),
            "missing": number(effect["missing"] or None, "d"),
        }
        if "gmacs" in effect:
            shown[unit] = plain(factor * effect["gmacs"], "+")
            shown["params M"] = number(effect["params"] / 1e6, "+.3g")
        if "latency" in effect:
            shown["ms"] = number(effect["latency"], "+.3g").replace("-", "−")
            shown["points/ms"] = signed(effect["points_per_ms"])
        if "orders" in effect:
            between = f"{signed(effect['least'])} to {signed(effect['greatest'])}"
            shown |= {
                "in any order": "" if pd.isna(effect["least"]) else between,
                "orders": number(effect["orders"], "d"),
            }
        if effect.get("aliases"):
            shown["and"] = str(effect["aliases"])
        if isinstance(effect["against"], str):
            shown["against"] = effect["against"]
        return shown

    rows = pd.DataFrame([row(effect) for effect in effects.to_dict("records")]).fillna("")
    return rows.loc[:, [column for column in rows if rows[column].any()]]


def readable_steps(steps: pd.DataFrame) -> pd.DataFrame:
    """`summarize`d networks for the eye, as text: accuracy with its spread, gain with interval and verdict, cost."""

    def row(step: Mapping[Any, Any]) -> dict[str, str]:
        kind = " (reference)" if step["reference"] else "" if step["adopted"] else " (not taken)"
        interval = "" if pd.isna(step["gain_low"]) else f" [{signed(step['gain_low'])}, {signed(step['gain_high'])}]"
        spread = "" if pd.isna(step["top1_std"]) else f" ± {step['top1_std']:.2f}"
        lost = [f"{step[what]} {what}" for what in ("failed", "missing") if step[what]]
        return {
            "step": step["step"] + kind,
            "top-1 ± std, %": number(step["top1_mean"], ".2f") + spread,
            "gain [interval], points": signed(step["gain"]) + interval,
            "verdict": step["verdict"] if isinstance(step["verdict"], str) else "",
            "GMACs": number(step["gmacs"], ".3g"),
            "params, M": number(step["params"] / 1e6, ".3g"),
            "seeds": ", ".join([f"{step['seeds']}", *lost]),
        }

    return pd.DataFrame([row(step) for step in steps.to_dict("records")])


def interval_text(effects: pd.DataFrame, matters: float, rule: Rule | None = None) -> str:
    """What the intervals and verdicts of a table of effects mean, in a few sentences; ``rule``: of a study that grew by
    seeds."""
    if effects["low"].isna().all():
        needed = f"{FIRST} seeds of every network" if rule else "two seeds of some network"
        return f"No interval is known, and so no verdict: it takes {needed}."
    images = effects.loc[effects["low"].notna(), "images"].all()
    source = "new seeds and new test images" if images else "new seeds on the same test images"
    return (
        f"All intervals hold at once with 95 %, for {source}. A verdict is gain or loss where the interval excludes "
        f"zero, negligible where it lies within ±{matters:g} points, else open."
        + (f" {grown_text(rule)}" if rule else "")
    )


def grown_text(rule: Rule) -> str:
    """How the intervals of a study that grew by seeds differ from others."""
    return (
        f"Seeds were added until each effect was decided or known to ±{rule.width:g} points, up to {rule.most_seeds} a "
        "network: these are repeated confidence intervals, which allow for every look at the growing study, and each "
        "effect stands as it was when it was last looked at."
    )


def counted(runs: pd.DataFrame, missing: Collection[tuple[str, int]]) -> list[str]:
    """How many runs there are, how many of them failed and how many are missing; and a line for each of these two that
    says which, the first few by name."""
    failed = [(run["step"], run["seed"]) for run in runs[runs["status"] != "done"].to_dict("records")]
    lost = {what: those for what, those in (("failed", failed), ("missing", missing)) if those}
    if not lost:
        return [f"{plural(len(runs), 'run')}, all done"]
    counts = [f"{len(runs) - len(failed)} done", *(f"{len(those)} {what}" for what, those in lost.items())]
    names = [f"{what.capitalize()}: {_names(those)}." for what, those in lost.items()]
    return [f"{plural(len(runs), 'run')}: {', '.join(counts)}", *names]


def _names(lost: Collection[tuple[str, int]]) -> str:
    names = [f"{step} seed {seed}" for step, seed in lost]
    return "; ".join(names if len(names) <= _NAMED else [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"])


def as_text(lines: Sequence[str], table: pd.DataFrame) -> str:
    """Lines, and a table of texts below them, words on the left and numbers on the right."""
    rows = [list(table.columns), *table.to_numpy().tolist()]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    sides = [str.ljust if name in _WORDS else str.rjust for name in table]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(side(cell, width) for cell, side, width in zip(cells, sides, widths, strict=True)).rstrip()

    return "\n".join([*lines, *map(line, rows)])


def as_html(lines: Sequence[str], table: pd.DataFrame) -> str:
    """The same for a notebook, light or dark: the first line is a heading, findings are bold, all else is pale."""
    heading, *rest = (escape(line) for line in lines)
    head = "".join(f"<th style='{_side(name)}'>{escape(name)}</th>" for name in map(str, table))
    body = "".join(_html_row(row) for row in table.to_dict("records"))
    below = "".join(f"<div style='font-size:90%;opacity:.75'>{line}</div>" for line in rest)
    return (
        f"<div style='max-width:60em'><div style='font-weight:bold'>{heading}</div>{below}"
        f"<table style='border-collapse:collapse;margin-top:.5em'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _html_row(row: Mapping[Any, str]) -> str:
    verdict = row.get("verdict", "")
    judged = ("font-weight:bold" if verdict in FINDINGS else "opacity:.6") if verdict else ""

    def cell(name: str, text: str) -> str:
        look = judged if name in _JUDGED else ""
        return f"<td style='{_side(name)};{look}'>{escape(text)}</td>"

    return f"<tr>{''.join(cell(str(name), text) for name, text in row.items())}</tr>"


def _side(name: str) -> str:
    wrapped = "normal" if name in _LONG else "nowrap"
    side = "left" if name in _WORDS else "right"
    return f"padding:.15em .7em;vertical-align:top;text-align:{side};white-space:{wrapped}"
