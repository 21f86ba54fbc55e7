"""The trajectory, Figure 2 of the paper, drawn from a study's own numbers.

Everything goes through matplotlib's objects and nothing through pyplot: no display, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.statistics import FINDINGS
from roadmap.analysis.tables import agreement, completed, regime_of, summarize
from roadmap.look import (
    CAPTION_LINE,
    FAINT,
    INK,
    OURS,
    PAPER,
    REFERENCE,
    SMALL,
    TITLE_LINE,
    WIDTH,
    NotebookFigure,
    add_words,
    caption_text,
    draw_names,
    headline,
    label,
    limits,
    matched_text,
    row_height,
    save_figure,
    shade,
    signed,
    styled,
    trained_text,
    values_of,
)  # fmt: skip
from roadmap.rungs import FULL_WIDTH, Ladder, ladder

HATCH = "//////"
#: The paper's accuracies share the study's scale where that makes its axis at most this many times as long.
MAX_SHARED = 1.5

#: Left end and width of both panels, in inches: names stand left of the first, numbers left of the second.
PANELS = {"accuracy": (2.2, 3.55), "cost": (7.4, 1.45)}


def draw_trajectory(
    runs: pd.DataFrame, paper: bool = False, title: str | None = None, ablation: Mapping[str, Any] | None = None
) -> Figure:
    """The trajectory of a study: one row a rung, top to bottom, accuracy on the left and cost on the right.

    ``runs`` has one row a run, as in `roadmap.analysis.study.Study`; ``ablation`` is what study.json says of the steps,
    which need not be the paper's. Large dots are mean top1 in per cent, whiskers
    the sample standard deviation over seeds, small dots the seeds; the line joins the adopted rungs and breaks at one
    that failed. Roads not taken are hollow and hatched; reference models stand below, off the line. Bars are GMACs
    (convolution and linear layers, 1e9), with the factor by which a network was rescaled to a common cost.

    ``paper`` adds Table 10 or 11 of the paper: top1 on ImageNet-1K on a second axis above, and, where the study has the
    paper's size (224 px, base width 64, every block), the printed GFLOPs beside the bars.

    Raises `RoadmapError` where `summarize` does.
    """
    runs, ablation = completed(runs), ablation or {}
    summary = summarize(runs, ablation)
    steps = _trained_ladder(runs)
    caption = caption_text(_sentences(runs, summary, paper))
    body = row_height(_names(summary)) * len(summary)
    foot = 1.0 + CAPTION_LINE * (caption.count("\n") + 1)
    words = headline(title or _title(runs, summary))
    height = foot + body + (0.98 if paper else 0.8) + TITLE_LINE * words.count("\n")
    with styled():
        figure = NotebookFigure(figsize=(WIDTH, height))
        accuracy, cost = (
            figure.add_axes((left / WIDTH, foot / height, width / WIDTH, body / height), label=name)
            for name, (left, width) in PANELS.items()
        )
        _draw_rows(accuracy, cost, summary, _facts(summary, steps, ablation))
        _draw_accuracy(accuracy, summary, runs)
        _draw_numbers(accuracy, summary)
        _draw_cost(cost, summary)
        if paper:
            _draw_paper_accuracy(accuracy, summary, steps)
            if _has_paper_size(runs):
                cost.plot(summary["printed_gflops"], summary.index, **_PAPER_MARKER, label="paper")
        add_words(figure, words, caption, _legend_handles(summary, paper), foot)
    return figure


def save_trajectory(
    runs: pd.DataFrame, folder: str | Path, paper: bool = False, ablation: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write ``trajectory.png``, ``.svg`` and ``.pdf`` into an existing folder, as `save_figure` does."""
    return save_figure(draw_trajectory(runs, paper=paper, ablation=ablation), folder, "trajectory")


def _trained_ladder(runs: pd.DataFrame) -> Ladder:
    """The ladder at the size of these runs."""
    own = runs[~runs["reference"]]
    first = (own if len(own) else runs).iloc[0]
    return ladder(regime_of(runs)).scaled(
        int(first["width"]), float(first["depth"]), stem_stride=int(first["stem_stride"])
    )


def _has_paper_size(runs: pd.DataFrame) -> bool:
    own = runs[~runs["reference"]]
    size = own[["image_size", "width", "depth", "stem_stride"]].drop_duplicates().to_numpy().tolist()
    return size == [[224, FULL_WIDTH, 1, 4]] and own["match"].isna().all().item()


def _facts(summary: pd.DataFrame, steps: Ladder, ablation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Section and change of every row: as the study says, else as the ladder does."""
    said = {step["name"]: (step["section"], step["change"]) for step in ablation.get("steps", ())}
    known = {rung.name: (rung.section, rung.change) for rung in steps} | said
    return [
        ("reference", "reference") if step["reference"] else known.get(step["step"], ("", ""))
        for step in summary.to_dict("records")
    ]


def _names(summary: pd.DataFrame) -> list[str]:
    return [step["step"] if step["reference"] else label(step["step"]) for step in summary.to_dict("records")]


def _draw_rows(accuracy: Axes, cost: Axes, summary: pd.DataFrame, facts: list[tuple[str, str]]) -> None:
    """Names and changes on the left, and a band behind every other section of the paper."""
    shade([accuracy, cost], [section for section, _ in facts])
    taken = (summary["adopted"] | summary["reference"]).tolist()
    notes = [("" if adopted else "not adopted: ") + change for (_, change), adopted in zip(facts, taken, strict=True)]
    cost.sharey(accuracy)
    draw_names(accuracy, _names(summary), notes, _on_path(summary).tolist())
    cost.tick_params(axis="y", length=0, labelleft=False)


_ADOPTED_MARKER: dict[str, Any] = {"color": OURS, "marker": "o", "markersize": 7}
_ROAD_MARKER: dict[str, Any] = {"color": OURS, "marker": "D", "markersize": 6, "markerfacecolor": "white"}
_REFERENCE_MARKER: dict[str, Any] = {"color": REFERENCE, "marker": "^", "markersize": 7}
_PAPER_MARKER: dict[str, Any] = {
    "linestyle": "none",
    "marker": "s",
    "markersize": 5,
    "markerfacecolor": "white",
    "markeredgecolor": PAPER,
    "markeredgewidth": 1.3,
}


def _on_path(summary: pd.DataFrame) -> pd.Series:
    return summary["adopted"] & ~summary["reference"]


def _marker(step: Mapping[Hashable, Any]) -> dict[str, Any]:
    if step["reference"]:
        return _REFERENCE_MARKER
    return _ADOPTED_MARKER if step["adopted"] else _ROAD_MARKER


def _draw_accuracy(axes: Axes, summary: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Means joined along the adopted rungs, standard deviations as whiskers, seeds as small dots."""
    adopted = summary[_on_path(summary)]
    axes.plot(adopted["top1_mean"], adopted.index, color=OURS, linewidth=1.6, alpha=0.55, zorder=2, label="path")
    for row, step in enumerate(summary.to_dict("records")):
        seeds = runs[(runs["step"] == step["step"]) & (runs["status"] == "done")]["top1"].astype(float)
        axes.errorbar(
            step["top1_mean"],
            row,
            xerr=None if pd.isna(step["top1_std"]) else step["top1_std"],
            **_marker(step),
            elinewidth=1.5,
            capsize=3.5,
            zorder=3,
            label=f"mean of {step['step']}",
        )
        if len(seeds) > 1:
            axes.plot(
                seeds,
                [row + 0.27] * len(seeds),
                ".",
                color=INK,
                markersize=4,
                alpha=0.7,
                label=f"seeds of {step['step']}",
            )
        if not len(seeds):
            axes.text(
                0.5, row, "failed", transform=axes.get_yaxis_transform(), ha="center", va="center", style="italic"
            )
    low, high = limits(runs["top1"])
    axes.set_xlim(low, high)
    axes.set_xlabel("top1 on the test images (%)" + ("; the axis does not begin at 0" if low else ""), color=OURS)
    axes.tick_params(axis="x", labelcolor=OURS)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_numbers(axes: Axes, summary: pd.DataFrame) -> None:
    """Mean, standard deviation and gain of every row, in a column between the panels."""
    several = summary["seeds"].max() > 1
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    header = "mean ± std\ngain [95 % interval]" if several else "top1\ngain"
    axes.annotate(header, (1, -0.5), xytext=(9, 5), va="bottom", fontsize=SMALL, color=FAINT, **place)
    for row, step in enumerate(summary.to_dict("records")):
        main = "–" if pd.isna(step["top1_mean"]) else f"{step['top1_mean']:.2f}"
        if not pd.isna(step["top1_std"]):
            main += f" ± {step['top1_std']:.2f}"
        notes = []
        if not pd.isna(step["gain"]):
            notes.append(signed(step["gain"]))
        if not pd.isna(step["gain_low"]):
            notes[-1] += f" [{signed(step['gain_low'])}, {signed(step['gain_high'])}]"
        if step["failed"]:
            notes.append(f"{step['failed']} of {step['seeds'] + step['failed']} failed")
        found = step["verdict"] in FINDINGS
        axes.annotate(main, (1, row), xytext=(9, 1), va="bottom", **place)
        axes.annotate(
            "\n".join(notes), (1, row), xytext=(9, -1), va="top", fontsize=SMALL, color=INK if found else FAINT, **place
        )


def _draw_cost(axes: Axes, summary: pd.DataFrame) -> None:
    """GMACs as bars from zero, hatched for roads not taken."""
    for row, step in enumerate(summary.to_dict("records")):
        look: dict[str, Any] = {"color": REFERENCE if step["reference"] else OURS, "alpha": 0.35}
        if not step["adopted"] and not step["reference"]:
            look = {"fill": False, "hatch": HATCH, "edgecolor": OURS}
        axes.barh(row, step["gmacs"], height=0.5, linewidth=0.8, label=step["step"], **look)
        axes.annotate(
            f"{step['gmacs']:#.3g}".rstrip("."),
            (step["gmacs"], row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
        if not math.isnan(step["match_factor"]):
            axes.annotate(
                f"×{step['match_factor']:.3g}",
                (step["gmacs"], row),
                xytext=(7, -7),
                textcoords="offset points",
                va="top",
                fontsize=SMALL,
                color=FAINT,
            )
    axes.set_xlim(0, summary["gmacs"].max() * 1.55)
    axes.xaxis.set_major_locator(MaxNLocator(2))
    axes.set_xlabel("GMACs per image")


def _draw_paper_accuracy(below: Axes, summary: pd.DataFrame, steps: Ladder) -> None:
    """The printed accuracies of the same rungs, on a second axis: with the study's limits where they nearly fit those,
    else with their own."""
    axes = below.twiny()
    axes.set_label("paper")
    printed = summary["printed_top1"]
    path = summary[_on_path(summary)]
    axes.plot(
        path["printed_top1"], path.index, color=PAPER, linewidth=1, linestyle=(0, (4, 2)), alpha=0.7, label="path"
    )
    axes.plot(printed, summary.index, **_PAPER_MARKER, label="paper")
    own, theirs = below.get_xlim(), limits(printed)
    both = min(own[0], theirs[0]), max(own[1], theirs[1])
    same = both[1] - both[0] <= MAX_SHARED * (own[1] - own[0])
    if same:
        below.set_xlim(both)
    axes.set_xlim(both if same else theirs)
    table = {"resnet50": "Table 10", "resnet200": "Table 11"}[steps.regime]
    axes.set_xlabel(f"paper, {table}: top1 on ImageNet-1K (%), {'same' if same else 'own'} scale", color=PAPER)
    axes.tick_params(axis="x", colors=PAPER)
    axes.spines["top"].set(visible=True, color=PAPER)
    axes.patch.set_visible(True)
    below.patch.set_visible(False)
    below.set_zorder(axes.get_zorder() + 1)


def _legend_handles(summary: pd.DataFrame, paper: bool) -> list[Line2D]:
    handles = [Line2D([], [], color=OURS, marker="o", markersize=7, label="adopted rung")]
    if not (summary["adopted"] | summary["reference"]).all():
        handles.append(Line2D([], [], **_ROAD_MARKER, linestyle="none", label="road not taken"))
    if summary["reference"].any():
        handles.append(Line2D([], [], **_REFERENCE_MARKER, linestyle="none", label="reference"))
    if summary["seeds"].max() > 1:
        handles.append(Line2D([], [], color=INK, marker=".", linestyle="none", label="each seed"))
    if paper:
        look = {**_PAPER_MARKER, "linestyle": (0, (4, 2)), "color": PAPER}
        handles.append(Line2D([], [], **look, label="the paper's numbers"))
    return handles


def _title(runs: pd.DataFrame, summary: pd.DataFrame) -> str:
    own = summary[~summary["reference"]]
    first, last = (own if len(own) else summary)["step"].iloc[[0, -1]]
    way = label(first) if first == last else f"{label(first)} to {label(last)}"
    return f"{way} on {values_of(runs, 'data')}"


def _sentences(runs: pd.DataFrame, summary: pd.DataFrame, paper: bool) -> list[str]:
    own = runs[~runs["reference"]]
    sentences = [trained_text(runs, "rung")]
    if runs.groupby("step")["seed"].nunique().max() > 1:
        sentences.append(
            "Numbers: mean ± sample standard deviation over seeds (whiskers); below, the gain over the last adopted "
            "rung that has a result, with its 95 % interval paired by seed; pale where it is within noise, dark "
            "where p is below 0.05 by Holm's correction over all gains."
        )
    else:
        sentences.append("One seed: the spread is unknown, and a small difference may be noise.")
    sentences.append("GMACs: multiply-accumulates of convolutions and linear layers in 1e9; nothing else is counted.")
    sentences += matched_text(runs)
    if not own["adopted"].all():
        sentences.append("A road not taken is compared with what the adopted rung beside it is compared with.")
    if paper:
        sentences.append(
            "The paper's points are ImageNet-1K at full size: compare directions, not heights, with a smaller study. "
            f"Kendall's tau between the gains here and there: {agreement(summary)}."
        )
    return sentences
