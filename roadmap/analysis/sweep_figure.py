"""The figure of a sweep: accuracy against a level, over a grid of two, or a row a combination."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from roadmap.analysis.effects import Measured
from roadmap.analysis.estimation import FINDINGS
from roadmap.analysis.forest import Row, draw_forest
from roadmap.analysis.labels import apart
from roadmap.analysis.tables import summarize
from roadmap.look import (
    CAPTION_LINE,
    FAINT,
    INK,
    OURS,
    REFERENCE,
    SMALL,
    TITLE_LINE,
    WIDTH,
    NotebookFigure,
    add_words,
    caption_text,
    cost_text,
    headline,
    limits,
    matched_text,
    short,
    signed,
    styled,
    trained_text,
    values_of,
)  # fmt: skip

#: Two levels on an axis lie apart by at least this share of its length: else it is logarithmic, or not to scale.
LEAST_GAP = 0.08


def draw_sweep(
    runs: pd.DataFrame,
    ablation: Mapping[str, Any],
    measured: Sequence[Measured],
    title: str | None = None,
    width: str = "page",
) -> Figure:
    """Mean top1 of every level in per cent, from `completed` runs and the `measure`d rows of their effects.

    One factor whose levels are numbers: a line over them, whiskers being standard deviations and small dots seeds.
    Two factors, every combination: a heat map. Else, and at the width of a ``column``, where neither has room for its
    numbers, a row a combination. References are lines, or rows. Raises `RoadmapError` for a width that there is not.
    """
    levels: Mapping[str, Sequence[str]] = ablation["levels"]
    summary = summarize(runs, ablation, measured)
    references = summary[summary["reference"]]
    by_name = _by_level(summary, runs, measured)
    seeds = int(runs.loc[~runs["reference"], "seed"].nunique())
    grid = ablation.get("grid", True) and len(levels) > 1
    title = title or f"{(' × ' if grid else ' and ').join(levels)} on {values_of(runs, 'data')}"
    sentences = [trained_text(runs, "network")]
    base = ", ".join(dict.fromkeys(one.row["against"] for one in by_name.values() if one.row["against"]))
    if seeds > 1:
        sentences.append("Numbers: mean top1 on the test images in per cent ± sample standard deviation over seeds.")
    else:
        sentences.append("One seed: the spread is unknown, and a small difference may be noise.")
    mapped = grid and len(levels) == 2 and width == "page"
    if base and not mapped:
        dark = ", dark where its interval excludes zero, else pale" if seeds > 1 else ""
        sentences.append(f"Below, the difference to {base}{dark}.")
    sentences += matched_text(runs)
    places = _places([name.partition("=")[2] for name in next(iter(levels.values()))]) if len(levels) == 1 else None
    if places and width == "page":
        return _draw_line(by_name, levels, *places, references, seeds, headline(title), caption_text(sentences))
    if mapped:
        return _draw_map(by_name, levels, base, references, seeds, headline(title), sentences)
    return _draw_rows([*by_name.values()], references, seeds, title, sentences, width)


def _by_level(summary: pd.DataFrame, runs: pd.DataFrame, measured: Sequence[Measured]) -> dict[str, Measured]:
    """Network -> its accuracy, its effect where it has one, and the accuracies of its seeds; in the study's order."""
    effects = {one.row["effect"]: one.row for one in measured}
    unknown = {"estimate": math.nan, "low": math.nan, "verdict": None, "against": None, "gmacs": 0.0, "params": 0.0}
    done = runs[runs["status"] == "done"]
    levels = {}
    for step in summary[~summary["reference"]].to_dict("records"):
        row = {**unknown, **step, "effect": step["step"], **effects.get(step["step"], {})}
        if step["step"] not in effects:
            row |= {"gmacs": 0.0, "params": 0.0, "against": None}
        row["failed"] = step["failed"]
        seeds = done.loc[done["step"] == step["step"], "top1"].to_numpy(float)
        levels[step["step"]] = Measured(row, seeds)
    return levels


def _places(levels: Sequence[str]) -> tuple[list[float], str] | None:
    """Where levels stand on an axis, and its scale: ``linear``, ``log`` or ``not to scale``; None unless numbers."""
    try:
        values = [float(level) for level in levels]
    except ValueError:
        return None
    if len(values) < 2 or not all(map(math.isfinite, values)) or len(set(values)) < len(values):
        return None
    scales = {"linear": values} | ({"log": [math.log(value) for value in values]} if min(values) > 0 else {})
    for scale, scaled in scales.items():
        ordered = sorted(scaled)
        gaps = [after - before for before, after in zip(ordered, ordered[1:], strict=False)]
        if min(gaps) >= LEAST_GAP * (ordered[-1] - ordered[0]):
            return values, scale
    return [float(place) for place in range(len(values))], "not to scale"


# --- one factor


def _draw_line(
    by_name: Mapping[str, Measured],
    factors: Mapping[str, Sequence[str]],
    places: Sequence[float],
    scale: str,
    references: pd.DataFrame,
    seeds: int,
    title: str,
    caption: str,
) -> Figure:
    ((name, levels),) = factors.items()
    foot = 1.25 + CAPTION_LINE * (caption.count("\n") + 1)
    height = foot + 3.3 + 0.6 + TITLE_LINE * title.count("\n")
    lines = [
        (one.row["effect"], one.row["top1_mean"], OURS) for one in by_name.values() if one.row["effect"] not in levels
    ]
    lines += [(step, mean, REFERENCE) for step, mean in zip(references["step"], references["top1_mean"], strict=True)]
    lines = sorted((line for line in lines if not math.isnan(line[1])), key=lambda line: line[1])
    with styled():
        figure = NotebookFigure(figsize=(WIDTH, height))
        width = WIDTH - 0.85 - (2.1 if lines else 0.3)
        axes = figure.add_axes((0.85 / WIDTH, foot / height, width / WIDTH, 3.3 / height), label="sweep")
        points = [by_name[level] for level in levels]
        rows = [one.row for one in points]
        ordered = sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])
        axes.set_xscale("log" if scale == "log" else "linear")
        axes.plot(*zip(*[(place, row["top1_mean"]) for place, row in ordered], strict=True), color=OURS, linewidth=1.6,
                  alpha=0.55, zorder=2, label="means")  # fmt: skip
        for place, one in zip(places, points, strict=True):
            _draw_level(axes, place, one, seeds)
        everything = [value for one in points for value in one.parts] + [mean for _, mean, _ in lines]
        low, high = limits(pd.Series(everything, dtype=float))
        axes.set_ylim(low, high + 0.16 * (high - low))
        _draw_lines(axes, lines)
        axes.set_xticks(list(places), [_tick(row) for row in rows])
        axes.minorticks_off()
        words = {"linear": "", "log": " (logarithmic)", "not to scale": " (not to scale)"}[scale]
        changes = any(row["gmacs"] for row in rows if not math.isnan(row["gmacs"]))
        axes.set_xlabel(f"{name}{words}" + ("; below each, the change in GMACs" if changes else ""))
        axes.set_ylabel("top1 on the test images (%)", color=OURS)
        axes.tick_params(axis="y", labelcolor=OURS)
        ends = min(places), max(places)
        beside = (ends[1] / ends[0]) ** 0.07 if scale == "log" else 0.07 * (ends[1] - ends[0])
        axes.set_xlim(
            *((ends[0] / beside, ends[1] * beside) if scale == "log" else (ends[0] - beside, ends[1] + beside))
        )
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        handles = [Line2D([], [], color=OURS, marker="o", markersize=7, label="mean of a level")]
        if any(len(one.parts) > 1 for one in points):
            handles.append(Line2D([], [], color=INK, marker=".", linestyle="none", label="each seed"))
        add_words(figure, title, caption, handles, foot - 0.2)
    return figure


def _tick(row: Mapping[str, Any]) -> str:
    """A level, and below it by how much it changes the GMACs."""
    level = short(row["effect"].partition("=")[2], 12)
    change = cost_text(row["gmacs"], row["params"], "+")[0]
    return level if change in ("", "0") else f"{level}\n{change}"


def _draw_level(axes: Axes, place: float, one: Measured, seeds: int) -> None:
    row = one.row
    if math.isnan(row["top1_mean"]):
        axes.text(place, 0.03, "failed" if row["failed"] else "not trained", transform=axes.get_xaxis_transform(),
                  ha="center", style="italic", rotation=90)  # fmt: skip
        return
    deviation = 0.0 if math.isnan(row["top1_std"]) else row["top1_std"]
    axes.errorbar(place, row["top1_mean"], yerr=deviation or None, color=OURS, marker="o", markersize=7, elinewidth=1.5,
                  capsize=3.5, zorder=3, label=f"mean of {row['effect']}")  # fmt: skip
    if len(one.parts) > 1:
        beside = axes.transData + ScaledTranslation(8 / 72, 0, axes.figure.dpi_scale_trans)
        axes.plot([place] * len(one.parts), one.parts, ".", color=INK, markersize=4, alpha=0.7, transform=beside)
    top = max(row["top1_mean"] + deviation, *one.parts)
    found = row["verdict"] in FINDINGS
    notes = [_difference(row) if row["against"] else "base", _lost(one, seeds)]
    box = {"color": "white", "alpha": 0.8, "pad": 0.5}
    axes.annotate(f"{row['top1_mean']:.2f}", (place, top), xytext=(0, 5 + 10 * sum(map(bool, notes))), va="bottom",
                  textcoords="offset points", ha="center", fontsize=8.5, bbox=box)  # fmt: skip
    axes.annotate("\n".join(filter(None, notes)), (place, top), xytext=(0, 5), textcoords="offset points", ha="center",
                  va="bottom", fontsize=SMALL, color=INK if found else FAINT, bbox=box)  # fmt: skip


def _difference(row: Mapping[str, Any]) -> str:
    return "" if math.isnan(row["estimate"]) else signed(row["estimate"])


def _lost(one: Measured, seeds: int) -> str:
    """How many of the study's seeds a mean is of, where it is not all."""
    return "" if len(one.parts) in (0, seeds) else f"{len(one.parts)} of {seeds} seeds"


def _draw_lines(axes: Axes, lines: Sequence[tuple[str, float, str]]) -> None:
    """Horizontal lines with their names on the right, which keep apart from each other."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.11
    for (name, mean, colour), place in zip(lines, apart([mean for _, mean, _ in lines], gap, high), strict=True):
        axes.axhline(mean, color=colour, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1, label=name)
        across = axes.get_yaxis_transform()
        axes.add_artist(Line2D([1, 1.025], [mean, place], color=colour, linewidth=0.6, transform=across, clip_on=False))
        axes.text(
            1.03, place, f"{short(name, 24)}\n{mean:.2f}", transform=across, va="center", fontsize=SMALL, color=colour
        )


# --- two factors


def _draw_map(
    by_name: Mapping[str, Measured],
    levels: Mapping[str, Sequence[str]],
    base: str,
    references: pd.DataFrame,
    seeds: int,
    title: str,
    sentences: list[str],
) -> Figure:
    (down, downs), (across, acrosses) = levels.items()
    for step in references.to_dict("records"):
        sentences = [*sentences, f"Reference: {step['step']}, {_top1(step)}."]
    if base:
        sentences = [*sentences, f"Framed: {base}; the others' differences to it are in the table of effects."]
    caption = caption_text(sentences)
    foot = 0.95 + CAPTION_LINE * (caption.count("\n") + 1)
    left, cell = 1.9, 0.62
    body = max(cell * len(downs), 1.0)
    width = min(1.25 * len(acrosses), WIDTH - left - 0.3)
    height = foot + body + 0.6 + TITLE_LINE * title.count("\n")
    means = [[by_name[f"{one} & {other}"].row["top1_mean"] for other in acrosses] for one in downs]
    low, high = limits(pd.Series([mean for row in means for mean in row], dtype=float))
    colours = matplotlib.colormaps["Blues"]
    with styled():
        figure = NotebookFigure(figsize=(WIDTH, height))
        axes = figure.add_axes((left / WIDTH, foot / height, width / WIDTH, body / height), label="map")
        axes.set_xlim(-0.5, len(acrosses) - 0.5)
        axes.set_ylim(len(downs) - 0.5, -0.5)
        for row, one in enumerate(downs):
            for column, other in enumerate(acrosses):
                name = f"{one} & {other}"
                found = by_name[name].row
                share = (found["top1_mean"] - low) / (high - low)
                unknown = math.isnan(share)
                axes.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, edgecolor="white", linewidth=1.5,
                              facecolor="#EEEEEE" if unknown else colours(0.1 + 0.8 * share))
                )  # fmt: skip
                lines = [_top1(found).replace(" ±", "\n±"), _lost(by_name[name], seeds)]
                axes.text(column, row, "\n".join(filter(None, lines)), ha="center", va="center",
                          color="white" if share > 0.6 else INK,
                          fontsize=8.5 if width / len(acrosses) > 0.7 else SMALL - 1,
                          style="italic" if unknown else "normal")  # fmt: skip
                if base == name:
                    axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=INK))
        axes.set_xticks(
            range(len(acrosses)),
            [short(name.partition("=")[2], int(width / len(acrosses) / 0.075)) for name in acrosses],
        )
        axes.set_yticks(range(len(downs)), [short(name.partition("=")[2], 18) for name in downs])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(across)
        axes.set_ylabel(down)
        add_words(figure, title, caption, [], foot)
    return figure


def _top1(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["top1_mean"]):
        return "failed" if row["failed"] else "not trained"
    return f"{row['top1_mean']:.2f}" + ("" if math.isnan(row["top1_std"]) else f" ± {row['top1_std']:.2f}")


# --- anything else


def _draw_rows(
    measured: Sequence[Measured],
    references: pd.DataFrame,
    seeds: int,
    title: str,
    sentences: Sequence[str],
    width: str,
) -> Figure:
    rows = []
    for one in measured:
        row = one.row
        difference = _difference(row)
        if not math.isnan(row["low"]):
            difference += f" [{signed(row['low'])}, {signed(row['high'])}]"
        note = _lost(one, seeds)
        if width == "column":  # where there are no notes
            difference = "; ".join(filter(None, [difference, note]))
        rows.append(_top1_row(row, row["effect"], note, difference, one.parts.tolist()))
    rows += [
        _top1_row(step, step["step"], "reference", "", [], reference=True) for step in references.to_dict("records")
    ]
    headers = ["mean ± std\ndifference [95 % interval]", "GMACs\nparameters"]
    axis = "top1 on the test images (%)"
    return draw_forest(rows, headers, axis, title, sentences, "each seed", zero=False, width=width)


def _top1_row(
    row: Mapping[Any, Any], name: str, note: str, difference: str, values: Sequence[float], reference: bool = False
) -> Row:
    top1, deviation, unknown = row["top1_mean"], row["top1_std"], math.isnan(row["top1_mean"])
    return Row(
        name=name,
        note=note,
        bold=not reference,
        estimate=top1,
        low=top1 - deviation,
        high=top1 + deviation,
        values=values,
        columns=(
            ("–" if unknown else _top1(row), difference),
            ("", "") if reference else cost_text(row["gmacs"], row["params"], "+"),
        ),
        found=not reference and row["verdict"] in FINDINGS,
        remark=_top1(row),
        section="reference" if reference else row["against"] or name,
        reference=reference,
    )
