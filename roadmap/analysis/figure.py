"""The trajectory, Figure 2 of the paper, drawn from a study's own numbers.

Everything goes through matplotlib's objects and nothing through pyplot: no display, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.estimation import FINDINGS
from roadmap.analysis.rows import PAD, SIZES, Sizes, draw_groups, draw_names, lay_out, row_height, titles_of
from roadmap.analysis.tables import agreement, completed, regime_of, summarize
from roadmap.checks import check_choice
from roadmap.look import (
    ADOPTED_MARKER,
    BEYOND,
    EDGE,
    FAINT,
    INK,
    OURS,
    PAPER,
    REFERENCE,
    REFERENCE_MARKER,
    ROAD_MARKER,
    fold,
    label,
    limits,
    matched_text,
    save_figure,
    signed,
    span,
    styled,
    text_width,
    trained_text,
    values_of,
)  # fmt: skip
from roadmap.rungs import FULL_WIDTH, Ladder, ladder

HATCH = "//////"
#: The paper's accuracies share the study's scale where that makes its axis at most this many times as long.
MAX_SHARED = 1.5
#: Dashes of the lines of reference models, so that those of like accuracy are told apart.
DASHES = ((0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Places:
    """Inches: room for the titles of groups, and for names; left end and width of the panels. Numbers stand between."""

    groups: float
    names: float
    accuracy: tuple[float, float]
    cost: tuple[float, float]


PLACES = {
    "page": Places(0.8, 1.95, (3.1, 2.85), (7.5, 1.4)),
    "column": Places(0.4, 0.72, (1.38, 0.98), (2.84, 0.5)),
}


def draw_trajectory(
    runs: pd.DataFrame,
    paper: bool = False,
    title: str | None = None,
    ablation: Mapping[str, Any] | None = None,
    width: str = "page",
) -> Figure:
    """The trajectory of a study: one row a rung, top to bottom, accuracy on the left and cost on the right.

    ``runs`` has one row a run, as in `roadmap.analysis.study.Study`; ``ablation`` is what study.json says of the steps,
    which need not be the paper's. Large dots are mean top1 in per cent, whiskers the 95 % interval of the mean over
    seeds, small dots the seeds; the line joins the adopted rungs and breaks at one that failed. Accuracies are dots
    and not bars, because a bar is read by its length, and differences of a point or two are seen only on an axis that
    does not begin at 0. Roads not taken are hollow and hatched; reference models stand below, off the line, and each
    sends a dashed line up through the rungs. Bars are GMACs (convolution and linear layers, 1e9), with the factor by
    which a network was rescaled to a common cost. Groups of rungs bear the titles of the paper's sections.

    ``paper`` adds Table 10 or 11 of the paper: top1 on ImageNet-1K on a second axis above, and, where the study has the
    paper's size (224 px, base width 64, every block), the printed GFLOPs beside the bars. ``width``: ``page``, or
    ``column`` for a column of a paper or a phone, where what each rung changes, and the intervals as numbers, are left
    to the table.

    Raises `RoadmapError` where `summarize` does, and for a width that there is not.
    """
    check_choice("width", width, PLACES)
    runs, ablation = completed(runs), ablation or {}
    summary = summarize(runs, ablation)
    steps = _trained_ladder(runs)
    facts = facts_of(summary, steps, ablation)
    places, sizes, short = PLACES[width], SIZES[width], width == "column"
    groups, names = titles_of([section for section, _ in facts], width), _names(summary)
    room = places.names if any(groups) else places.accuracy[0] - PAD - EDGE
    with styled():
        sheet = lay_out(
            width, title or _title(runs, summary), _sentences(runs, summary, groups, paper, short),
            _legend_handles(summary, paper), row_height(names, room, sizes) * len(summary),
            above=1.2 if paper else 0.8, below=0.08,
        )  # fmt: skip
        accuracy, cost = sheet.panel("accuracy", *places.accuracy), sheet.panel("cost", *places.cost)
        cost.sharey(accuracy)
        notes = [""] * len(names) if short else _notes(summary, facts)
        draw_names(accuracy, names, notes, _on_path(summary).tolist(), room, sizes)
        cost.tick_params(axis="y", length=0, labelleft=False)
        draw_groups(sheet, accuracy, groups, places.groups)
        _draw_accuracy(accuracy, summary, runs, sizes)
        _draw_references(accuracy, summary)
        _draw_numbers(accuracy, summary, sizes, short, sizes.name + 10 if paper else 5)
        _draw_cost(cost, summary, sizes, short)
        if paper:
            _draw_paper_accuracy(accuracy, summary, steps, sizes, places.accuracy[1])
            if _has_paper_size(runs):
                _draw_paper_cost(cost, summary, sizes, short)
    return sheet.figure


def save_trajectory(
    runs: pd.DataFrame, folder: str | Path, paper: bool = False, ablation: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write ``trajectory.png``, ``.svg`` and ``.pdf`` into an existing folder, as `save_figure` does."""
    return save_figure(draw_trajectory(runs, paper=paper, ablation=ablation), folder, "trajectory")


def _trained_ladder(runs: pd.DataFrame) -> Ladder:
    """The ladder at the size of these runs, or where all are of references at the paper's."""
    steps, own = ladder(regime_of(runs)), runs[~runs["reference"]]
    if not len(own):
        return steps
    first = own.iloc[0]
    return steps.scaled(int(first["width"]), float(first["depth"]), stem_stride=int(first["stem_stride"]))


def _has_paper_size(runs: pd.DataFrame) -> bool:
    own = runs[~runs["reference"]]
    size = own[["image_size", "width", "depth", "stem_stride"]].drop_duplicates().to_numpy().tolist()
    return size == [[224, FULL_WIDTH, 1, 4]] and own["match"].isna().all().item()


def facts_of(summary: pd.DataFrame, steps: Ladder, ablation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Section and change of every row: as the study says, else as the ladder does."""
    said = {step["name"]: (step["section"], step["change"]) for step in ablation.get("steps", ())}
    known = {rung.name: (rung.section, rung.change) for rung in steps} | said
    return [
        ("reference", "reference") if step["reference"] else known.get(step["step"], ("", ""))
        for step in summary.to_dict("records")
    ]


def _names(summary: pd.DataFrame) -> list[str]:
    return [step["step"] if step["reference"] else label(step["step"]) for step in summary.to_dict("records")]


def _notes(summary: pd.DataFrame, facts: list[tuple[str, str]]) -> list[str]:
    taken = (summary["adopted"] | summary["reference"]).tolist()
    return [("" if adopted else "not adopted: ") + change for (_, change), adopted in zip(facts, taken, strict=True)]


_PAPER: dict[str, Any] = {"marker": "s", "markerfacecolor": "white", "markeredgecolor": PAPER, "markeredgewidth": 1.3}


def _on_path(summary: pd.DataFrame) -> pd.Series:
    return summary["adopted"] & ~summary["reference"]


def _marker(step: Mapping[Hashable, Any]) -> dict[str, Any]:
    if step["reference"]:
        return REFERENCE_MARKER
    return ADOPTED_MARKER if step["adopted"] else ROAD_MARKER


def limits_of(runs: pd.DataFrame, summary: pd.DataFrame) -> tuple[float, float]:
    """Limits of the accuracy's axis: all seeds, and of the intervals what is not far."""
    values = runs["top1"].astype(float)
    ends = span(values, [*summary["top1_low"], *summary["top1_high"]]) if values.notna().any() else ()
    return limits(pd.Series(ends, dtype=float))


def _draw_accuracy(axes: Axes, summary: pd.DataFrame, runs: pd.DataFrame, sizes: Sizes) -> None:
    """Means joined along the adopted rungs, their intervals as whiskers, seeds as small dots."""
    adopted = summary[_on_path(summary)]
    axes.plot(adopted["top1_mean"], adopted.index, color=OURS, linewidth=1.6, alpha=0.55, zorder=2, label="path")
    for row, step in enumerate(summary.to_dict("records")):
        seeds = runs[(runs["step"] == step["step"]) & (runs["status"] == "done")]["top1"].astype(float)
        whiskers = [[step["top1_mean"] - step["top1_low"]], [step["top1_high"] - step["top1_mean"]]]
        axes.errorbar(
            step["top1_mean"],
            row,
            xerr=None if pd.isna(step["top1_low"]) else whiskers,
            **_marker(step) | {"markersize": sizes.marker},
            elinewidth=sizes.marker / 5,
            capsize=sizes.marker / 2,
            zorder=3,
            label=f"mean of {step['step']}",
        )
        if len(seeds) > 1:
            axes.plot(
                seeds,
                [row + 0.27] * len(seeds),
                ".",
                color=INK,
                markersize=sizes.dot,
                alpha=0.7,
                label=f"seeds of {step['step']}",
            )
        if not len(seeds):
            axes.text(
                0.5, row, "failed", transform=axes.get_yaxis_transform(), ha="center", va="center", style="italic",
                fontsize=sizes.name,
            )  # fmt: skip
    low, high = limits_of(runs, summary)
    axes.set_xlim(low, high)
    if sizes.name < 9:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_xlabel("top1 on the test images (%)" + ("\nthe axis does not begin at 0" if low else ""), color=OURS)
    axes.tick_params(axis="x", labelcolor=OURS)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_references(axes: Axes, summary: pd.DataFrame) -> None:
    """From every reference's mean a line up through the rungs, as Figure 2 of the paper draws Swin's."""
    references = summary[summary["reference"] & summary["top1_mean"].notna()]
    for row, step, mean, dashes in zip(references.index, references["step"], references["top1_mean"], cycle(DASHES)):
        axes.plot([mean, mean], [row, -0.5], color=REFERENCE, linewidth=1.1, linestyle=dashes, zorder=1.5,
                  label=f"line of {step}")  # fmt: skip
    for row in summary.index[summary["reference"]]:
        axes.get_yticklabels()[row].set_color(REFERENCE)


def _draw_numbers(axes: Axes, summary: pd.DataFrame, sizes: Sizes, short: bool, above: float) -> None:
    """Mean and gain of every row in a column between the panels, in a short one without their uncertainty; its header
    is so many points ``above`` the first row."""
    several = summary["seeds"].max() > 1
    room = PLACES["page"].cost[0] - sum(PLACES["page"].accuracy) - 0.15
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    right = 4 if short else 9
    header = "mean\ngain" if short else "mean ± std\ngain [95 % interval]" if several else "top1\ngain"
    axes.annotate(header, (1, -0.5), xytext=(right, above), va="bottom", fontsize=sizes.small, color=FAINT, **place)
    for row, step in enumerate(summary.to_dict("records")):
        main = "–" if pd.isna(step["top1_mean"]) else f"{step['top1_mean']:.2f}"
        if short:
            main += "*" if _lost(step) else ""
        elif not pd.isna(step["top1_std"]):
            main += f" ± {step['top1_std']:.2f}"
        gain = signed(step["gain"])
        if not short and not pd.isna(step["gain_low"]):
            gain += f" [{signed(step['gain_low'])}, {signed(step['gain_high'])}]"
        notes = gain if short else fold("; ".join(filter(None, [gain, _lost(step)])), room, sizes.small, lines=2)
        found = step["verdict"] in FINDINGS
        axes.annotate(main, (1, row), xytext=(right, 1), va="bottom", fontsize=sizes.name, **place)
        axes.annotate(
            notes, (1, row), xytext=(right, -1), va="top", fontsize=sizes.small, color=INK if found else FAINT, **place
        )


def _lost(step: Mapping[Hashable, Any]) -> str:
    """How many of a row's runs failed or are missing: ``1 of 3 failed``."""
    runs = step["seeds"] + step["failed"] + step["missing"]
    return ", ".join(f"{step[what]} of {runs} {what}" for what in ("failed", "missing") if step[what])


def _draw_cost(axes: Axes, summary: pd.DataFrame, sizes: Sizes, short: bool) -> None:
    """GMACs as bars from zero, hatched for roads not taken; their numbers beside them, or in a short panel above."""
    numbers = [f"{gmacs:#.3g}".rstrip(".") for gmacs in summary["gmacs"]]
    beside = sizes.small + 1 if not short else sizes.small
    for row, step in enumerate(summary.to_dict("records")):
        look: dict[str, Any] = {"color": REFERENCE if step["reference"] else OURS, "alpha": 0.35}
        if not step["adopted"] and not step["reference"]:
            look = {"fill": False, "hatch": HATCH, "edgecolor": OURS}
        axes.barh(row + 0.2 * short, step["gmacs"], height=0.3 if short else 0.5, linewidth=0.8, label=step["step"],
                  **look)  # fmt: skip
        axes.annotate(
            numbers[row],
            (0, row) if short else (step["gmacs"], row),
            xytext=(1, 0) if short else (7, 0),
            textcoords="offset points",
            va="bottom" if short else "center",
            fontsize=beside,
        )
        if not short and not math.isnan(step["match_factor"]):
            axes.annotate(
                f"×{step['match_factor']:.3g}",
                (step["gmacs"], row),
                xytext=(7, -7),
                textcoords="offset points",
                va="top",
                fontsize=sizes.small,
                color=FAINT,
            )
    room = PLACES["page"].cost[1]
    free = 0.02 if short else max(text_width(number, beside) for number in numbers) + 0.16
    axes.set_xlim(0, summary["gmacs"].max() * room / (room - free))
    axes.set_xticks([]) if short else axes.xaxis.set_major_locator(MaxNLocator(2))
    axes.set_xlabel("GMACs" if short else "GMACs per image")


def _draw_paper_cost(axes: Axes, summary: pd.DataFrame, sizes: Sizes, short: bool) -> None:
    axes.plot(summary["printed_gflops"], summary.index + 0.2 * short, **_PAPER, linestyle="none",
              markersize=sizes.marker - 2, label="paper")  # fmt: skip


def _draw_paper_accuracy(below: Axes, summary: pd.DataFrame, steps: Ladder, sizes: Sizes, room: float) -> None:
    """The printed accuracies of the same rungs, on a second axis: with the study's limits where they nearly fit those,
    else with their own."""
    axes = below.twiny()
    axes.set_label("paper")
    printed = summary["printed_top1"]
    path = summary[_on_path(summary)]
    axes.plot(
        path["printed_top1"], path.index, color=PAPER, linewidth=1, linestyle=(0, (4, 2)), alpha=0.7, label="path"
    )
    axes.plot(printed, summary.index, **_PAPER, linestyle="none", markersize=sizes.marker - 2, label="paper")
    own, theirs = below.get_xlim(), limits(printed)
    both = min(own[0], theirs[0]), max(own[1], theirs[1])
    same = both[1] - both[0] <= MAX_SHARED * (own[1] - own[0])
    if same:
        below.set_xlim(both)
    axes.set_xlim(both if same else theirs)
    if sizes.name < 9:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    table = {"resnet50": "Table 10", "resnet200": "Table 11"}[steps.regime]
    words = f"paper, {table}: top1 on ImageNet-1K (%), {'same' if same else 'own'} scale"
    axes.set_xlabel(fold(words, room, sizes.name), color=PAPER, fontsize=sizes.name)
    axes.tick_params(axis="x", colors=PAPER, labelsize=sizes.name)
    axes.spines["top"].set(visible=True, color=PAPER)
    axes.set_facecolor("none")
    below.set_zorder(axes.get_zorder() + 1)


def _legend_handles(summary: pd.DataFrame, paper: bool) -> list[Line2D]:
    handles = [Line2D([], [], **ADOPTED_MARKER, label="adopted rung")]
    if not (summary["adopted"] | summary["reference"]).all():
        handles.append(Line2D([], [], **ROAD_MARKER, linestyle="none", label="road not taken"))
    if summary["reference"].any():
        handles.append(Line2D([], [], **REFERENCE_MARKER, linestyle=DASHES[0], label="reference"))
    if summary["seeds"].max() > 1:
        handles.append(Line2D([], [], color=INK, marker=".", linestyle="none", label="each seed"))
    if paper:
        handles.append(Line2D([], [], **_PAPER, markersize=5, linestyle=(0, (4, 2)), color=PAPER,
                              label="the paper's numbers"))  # fmt: skip
    return handles


def _title(runs: pd.DataFrame, summary: pd.DataFrame) -> str:
    own = summary[~summary["reference"]]
    first, last = (own if len(own) else summary).iloc[[0, -1]].to_dict("records")
    # Where the paper prints a figure, the network is made of the paper's steps.
    arrived = last["step"] == ladder(regime_of(runs)).names[-1] and not math.isnan(last["printed_top1"])
    end = "ConvNeXt" if arrived else label(last["step"])
    way = label(first["step"]) if first["step"] == last["step"] else f"{label(first['step'])} to {end}"
    return f"{way} on {values_of(runs, 'data')}"


def _sentences(runs: pd.DataFrame, summary: pd.DataFrame, groups: list[str], paper: bool, short: bool) -> list[str]:
    own = runs[~runs["reference"]]
    sentences = [trained_text(runs, "rung")]
    if runs.groupby("step")["seed"].nunique().max() > 1:
        numbers = "mean" if short else "mean ± sample standard deviation over seeds"
        interval = "" if short else ", with its 95 % interval paired by seed"
        sentences.append(
            f"Whiskers: 95 % interval of the mean over seeds. Numbers: {numbers}; below, the gain over the last "
            f"adopted rung that has a result{interval}; pale where it is within noise, dark where p, paired by seed, "
            "is below 0.05 by Holm's correction over all gains."
        )
    else:
        sentences.append("One seed: the spread is unknown, and a small difference may be noise.")
    low, high = limits_of(runs, summary)
    if (summary["top1_low"] < low).any() or (summary["top1_high"] > high).any():
        sentences.append(BEYOND)
    lost = [f"{label(step['step'])} {_lost(step)}" for step in summary.to_dict("records") if _lost(step)]
    if short and lost:
        sentences.append(f"*: {'; '.join(lost)}.")
    sentences.append("GMACs: multiply-accumulates of convolutions and linear layers in 1e9; nothing else is counted.")
    sentences += matched_text(runs)
    if any(groups):
        sentences.append("On the left the sections of the paper, arXiv 2201.03545, that the rungs are from.")
    if not own["adopted"].all():
        sentences.append("A road not taken is compared with what the adopted rung beside it is compared with.")
    if paper:
        sentences.append(
            "The paper's points are ImageNet-1K at full size: compare directions, not heights, with a smaller study. "
            f"Kendall's tau between the gains here and there: {agreement(summary)}."
        )
    return sentences
