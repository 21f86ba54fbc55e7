"""The trajectory, Figure 2 of the paper, drawn from a study's own numbers.

Everything goes through matplotlib's objects and nothing through pyplot: no display, no global state.
"""

from __future__ import annotations

import io
import re
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.style import context
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.tables import regime_of, summarize
from roadmap.files import whole_file
from roadmap.rungs import FULL_WIDTH, Ladder, ladder

#: Colours of Okabe and Ito, told apart by the colour-blind and in grey print.
OURS, PAPER = "#0072B2", "#D55E00"
INK, FAINT = "#222222", "#666666"
HATCH = "//////"
#: The paper's accuracies share the study's scale where that makes its axis at most this many times as long.
MAX_SHARED = 1.5

#: Inches. 9 are 900 pixels at the 100 dpi of a notebook and the width of a README; the PNG file has twice that.
WIDTH = 9.0
ROW, CAPTION_LINE, TITLE_LINE = 0.44, 0.155, 0.22
#: Left end and width of both panels, in inches: names stand left of the first, numbers left of the second.
PANELS = {"accuracy": (2.2, 3.55), "cost": (7.4, 1.45)}
SCREEN_DPI, FILE_DPI = 100, 200
#: Font size in points of what is written below a name or a number, and of the caption.
SMALL = 7.6

#: On top of matplotlib's defaults, so that a reader's own matplotlibrc changes nothing.
STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.7,
    "svg.hashsalt": "roadmap",
    "text.color": INK,
    "xtick.color": INK,
}


class TrajectoryFigure(Figure):
    """A Figure that a notebook shows by itself, without pyplot having been imported."""

    def _repr_png_(self) -> bytes:
        return _render(self, "png", SCREEN_DPI)


def draw_trajectory(runs: pd.DataFrame, paper: bool = False, title: str | None = None) -> Figure:
    """The trajectory of a study: one row a rung, top to bottom, accuracy on the left and cost on the right.

    ``runs`` has one row a run, as in `roadmap.analysis.tables.Study`. Large dots are mean top1 in per cent, whiskers
    the sample standard deviation over seeds, small dots the seeds; the line joins the adopted rungs and breaks at one
    that failed. Roads not taken are hollow and hatched. Bars are GMACs (convolution and linear layers, 1e9).

    ``paper`` adds Table 10 or 11 of the paper: top1 on ImageNet-1K on a second axis above, and, where the study has the
    paper's size (224 px, base width 64, every block), the printed GFLOPs beside the bars.

    Raises `RoadmapError` where `summarize` does.
    """
    summary = summarize(runs)
    steps = _trained_ladder(runs)
    caption = _caption(runs, paper)
    body = ROW * len(summary)
    foot = 1.0 + CAPTION_LINE * (caption.count("\n") + 1)
    headline = textwrap.fill(title or _title(runs, summary), 78)
    height = foot + body + (0.98 if paper else 0.8) + TITLE_LINE * headline.count("\n")
    with context(["default", STYLE]):
        figure = TrajectoryFigure(figsize=(WIDTH, height))
        accuracy, cost = (
            figure.add_axes((left / WIDTH, foot / height, width / WIDTH, body / height), label=name)
            for name, (left, width) in PANELS.items()
        )
        _draw_rows(accuracy, cost, summary, steps)
        _draw_accuracy(accuracy, summary, runs)
        _draw_numbers(accuracy, summary)
        _draw_cost(cost, summary)
        if paper:
            _draw_paper_accuracy(accuracy, summary, steps)
            if _has_paper_size(runs):
                cost.plot(summary["printed_gflops"], summary.index, **_PAPER_MARKER, label="paper")
        handles = _legend_handles(summary, paper)
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0.1 / WIDTH, (foot - 0.84) / height),
            bbox_transform=figure.transFigure, ncols=len(handles), frameon=False, fontsize=8.5, borderpad=0.2,
        )  # fmt: skip
        figure.text(0.14 / WIDTH, 0.08 / height, caption, va="bottom", fontsize=SMALL, color=FAINT, linespacing=1.3)
        figure.suptitle(headline, x=0.14 / WIDTH, y=1 - 0.12 / height, ha="left", va="top", size=13, weight="bold")
    return figure


def save_trajectory(runs: pd.DataFrame, folder: str | Path, paper: bool = False) -> list[Path]:
    """Write ``trajectory.png`` and ``trajectory.svg`` into an existing folder; returns their paths.

    Each file appears whole or not at all, and the same runs give the same bytes of SVG.
    """
    figure = draw_trajectory(runs, paper=paper)
    paths = []
    for kind in ("png", "svg"):
        path = Path(folder) / f"trajectory.{kind}"
        with whole_file(path) as temporary:
            temporary.write_bytes(_render(figure, kind, FILE_DPI))
        paths.append(path)
    return paths


def _render(figure: Figure, kind: str, dpi: int) -> bytes:
    buffer = io.BytesIO()
    with context(["default", STYLE]):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _trained_ladder(runs: pd.DataFrame) -> Ladder:
    """The ladder at the size of these runs."""
    first = runs.iloc[0]
    return ladder(regime_of(runs)).scaled(
        int(first["width"]), float(first["depth"]), stem_stride=int(first["stem_stride"])
    )


def _has_paper_size(runs: pd.DataFrame) -> bool:
    size = runs[["image_size", "width", "depth", "stem_stride"]].drop_duplicates().to_numpy().tolist()
    return size == [[224, FULL_WIDTH, 1, 4]]


def _label(step: str) -> str:
    return re.sub(r"^resnet(\d+)$", r"ResNet-\1", step).replace("_", " ")


def _draw_rows(accuracy: Axes, cost: Axes, summary: pd.DataFrame, steps: Ladder) -> None:
    """Names and changes on the left, and a band behind every other section of the paper."""
    sections = [steps[step].section for step in summary["step"]]
    shaded = False
    for row, section in enumerate(sections):
        shaded ^= row > 0 and section != sections[row - 1]
        for axes in (accuracy, cost):
            if shaded:
                axes.axhspan(row - 0.5, row + 0.5, color=INK, alpha=0.05, linewidth=0, zorder=0)
    cost.sharey(accuracy)
    accuracy.set_ylim(len(summary) - 0.5, -0.5)
    accuracy.set_yticks(range(len(summary)), [_label(step) for step in summary["step"]])
    accuracy.tick_params(axis="y", length=0, pad=8, labelcolor=INK)
    cost.tick_params(axis="y", length=0, labelleft=False)
    for row, (label, step) in enumerate(zip(accuracy.get_yticklabels(), summary["step"], strict=True)):
        rung = steps[step]
        label.set(fontweight="bold" if rung.adopted else "normal", va="bottom")
        change = ("" if rung.adopted else "not adopted: ") + rung.change
        accuracy.annotate(
            change if len(change) < 40 else change.replace(", ", ",\n"),
            (0, row),
            xycoords=accuracy.get_yaxis_transform(),
            xytext=(-8, -1),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=SMALL,
            color=FAINT,
        )


_ADOPTED_MARKER: dict[str, Any] = {"color": OURS, "marker": "o", "markersize": 7}
_ROAD_MARKER: dict[str, Any] = {"color": OURS, "marker": "D", "markersize": 6, "markerfacecolor": "white"}
_PAPER_MARKER: dict[str, Any] = {
    "linestyle": "none",
    "marker": "s",
    "markersize": 5,
    "markerfacecolor": "white",
    "markeredgecolor": PAPER,
    "markeredgewidth": 1.3,
}


def _draw_accuracy(axes: Axes, summary: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Means joined along the adopted rungs, standard deviations as whiskers, seeds as small dots."""
    adopted = summary[summary["adopted"]]
    axes.plot(adopted["top1_mean"], adopted.index, color=OURS, linewidth=1.6, alpha=0.55, zorder=2, label="path")
    for row, step in enumerate(summary.to_dict("records")):
        seeds = runs[(runs["step"] == step["step"]) & (runs["status"] == "done")]["top1"].astype(float)
        axes.errorbar(
            step["top1_mean"],
            row,
            xerr=None if pd.isna(step["top1_std"]) else step["top1_std"],
            **(_ADOPTED_MARKER if step["adopted"] else _ROAD_MARKER),
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
    low, high = _limits(runs["top1"])
    axes.set_xlim(low, high)
    axes.set_xlabel("top1 on the test images (%)" + ("; the axis does not begin at 0" if low else ""), color=OURS)
    axes.tick_params(axis="x", labelcolor=OURS)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _limits(values: pd.Series) -> tuple[float, float]:
    """Axis limits in per cent that leave a tenth of the range free, and at least 0.2, on either side."""
    values = values.dropna().astype(float)
    if values.empty:
        return 0.0, 100.0
    margin = max((values.max() - values.min()) / 10, 0.2)
    return max(float(values.min() - margin), 0.0), min(float(values.max() + margin), 100.0)


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
            notes.append(_signed(step["gain"]))
        if not pd.isna(step["gain_low"]):
            notes[-1] += f" [{_signed(step['gain_low'])}, {_signed(step['gain_high'])}]"
        if step["failed"]:
            notes.append(f"{step['failed']} of {step['seeds'] + step['failed']} failed")
        found = step["gain_low"] > 0 or step["gain_high"] < 0
        axes.annotate(main, (1, row), xytext=(9, 1), va="bottom", **place)
        axes.annotate(
            "\n".join(notes), (1, row), xytext=(9, -1), va="top", fontsize=SMALL, color=INK if found else FAINT, **place
        )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _draw_cost(axes: Axes, summary: pd.DataFrame) -> None:
    """GMACs as bars from zero, hatched for roads not taken."""
    for row, step in enumerate(summary.to_dict("records")):
        look: dict[str, Any] = (
            {"color": OURS, "alpha": 0.35} if step["adopted"] else {"fill": False, "hatch": HATCH, "edgecolor": OURS}
        )
        axes.barh(row, step["gmacs"], height=0.5, linewidth=0.8, label=step["step"], **look)
        axes.annotate(
            f"{step['gmacs']:#.3g}".rstrip("."),
            (step["gmacs"], row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
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
    path = summary[summary["adopted"]]
    axes.plot(
        path["printed_top1"], path.index, color=PAPER, linewidth=1, linestyle=(0, (4, 2)), alpha=0.7, label="path"
    )
    axes.plot(printed, summary.index, **_PAPER_MARKER, label="paper")
    own, theirs = below.get_xlim(), _limits(printed)
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
    if not summary["adopted"].all():
        handles.append(Line2D([], [], **_ROAD_MARKER, linestyle="none", label="road not taken"))
    if summary["seeds"].max() > 1:
        handles.append(Line2D([], [], color=INK, marker=".", linestyle="none", label="each seed"))
    if paper:
        look = {**_PAPER_MARKER, "linestyle": (0, (4, 2)), "color": PAPER}
        handles.append(Line2D([], [], **look, label="the paper's numbers"))
    return handles


def _title(runs: pd.DataFrame, summary: pd.DataFrame) -> str:
    first, last = summary["step"].iloc[[0, -1]]
    way = _label(first) if first == last else f"{_label(first)} to {_label(last)}"
    return f"{way} on {_values(runs, 'data')}"


def _values(runs: pd.DataFrame, column: str) -> str:
    """Every value of a column, in order of appearance: ``6`` or ``90 / 300``."""
    return " / ".join(
        dict.fromkeys(f"{value:.3g}" if isinstance(value, float) else f"{value}" for value in runs[column])
    )


def _caption(runs: pd.DataFrame, paper: bool) -> str:
    counts = runs.groupby("step")["seed"].nunique()
    seeds = f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
    sentences = [
        f"{_values(runs, 'data')} at {_values(runs, 'image_size')} px; base width {_values(runs, 'width')}, "
        f"depth ×{_values(runs, 'depth')}, stem stride {_values(runs, 'stem_stride')}; "
        f"epochs {_values(runs, 'epochs')}; seeds per rung {seeds}; recipe {_values(runs, 'recipe')}; "
        f"{_values(runs, 'device_name')}.",
    ]
    if counts.max() > 1:
        sentences.append(
            "Numbers: mean ± sample standard deviation over seeds (whiskers); below, the gain over the last adopted "
            "rung that has a result, with its 95 % interval paired by seed, dark where it excludes zero."
        )
    else:
        sentences.append("One seed: the spread is unknown, and a small difference may be noise.")
    sentences.append("GMACs: multiply-accumulates of convolutions and linear layers in 1e9; nothing else is counted.")
    if not runs["adopted"].all():
        sentences.append("A road not taken is compared with what the adopted rung beside it is compared with.")
    if paper:
        sentences.append(
            "The paper's points are ImageNet-1K at full size: compare directions, not heights, with a smaller study."
        )
    return textwrap.fill(" ".join(sentences), 146)
