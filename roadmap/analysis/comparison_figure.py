"""Two studies in one figure: two ladders, or what the same steps are worth in two other ablations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from roadmap.analysis.comparison import (
    Compared,
    Finished,
    are_ladders,
    compared,
    differences,
    settings_that_differ,
)
from roadmap.analysis.estimation import FINDINGS
from roadmap.analysis.figure import facts_of, limits_of
from roadmap.analysis.rows import PAD, SIZES, Sheet, Sizes, draw_groups, draw_names, lay_out, titles_of
from roadmap.analysis.tables import regime_of
from roadmap.look import (
    BEYOND,
    EDGE,
    FAINT,
    INK,
    OURS,
    PAPER,
    cost_text,
    fold,
    inches_of,
    label,
    matched_text,
    number,
    signed,
    span,
    styled,
    trained_text,
)  # fmt: skip
from roadmap.rungs import ladder

#: Of both studies' axes.
Limits = tuple[tuple[float, float], tuple[float, float]]
#: How the two are drawn, told apart in grey as well, and by how much of a row they stand above and below its middle.
LOOKS: tuple[dict[str, Any], ...] = (
    {"color": OURS, "marker": "o", "linestyle": "-"},
    {"color": PAPER, "marker": "s", "linestyle": (0, (4, 1.5))},
)
SHIFTS = (-0.17, 0.17)
#: Two ladders share an axis where that makes it at most this many times as long as the longer of their own.
MAX_SHARED = 2.0


@dataclass(frozen=True)
class Places:
    """Inches: room for the titles of groups, and for names; left end and width of the panel of both studies; left ends
    of the columns of their numbers, of the panel of differences with its width, if there is one, of their numbers, and
    of what networks cost."""

    groups: float
    names: float
    panel: tuple[float, float]
    numbers: tuple[float, ...]
    differences: tuple[float, float] | None
    difference: float
    cost: float


#: By width, of two ladders and of others, which have no groups.
PLACES = {
    ("page", True): Places(0.8, 1.2, (2.35, 2.4), (4.87, 5.72), (6.2, 1.0), 7.3, 8.27),
    ("page", False): Places(0, 2.1, (2.35, 2.4), (4.87,), (6.4, 0.85), 7.35, 8.27),
    ("column", True): Places(0.4, 0.72, (1.38, 0.86), (2.3,), None, 2.66, 3.0),
    ("column", False): Places(0, 0.87, (1.12, 0.82), (2.0,), None, 2.42, 2.86),
}


@dataclass(frozen=True)
class Side:
    """What one study has of a row: a value in per cent or points with its interval, its texts, and its cost as text.
    ``solid`` is how it is drawn, ``joined`` says that the line goes through it, ``lost`` how many runs it lacks."""

    value: float
    low: float
    high: float
    texts: tuple[str, ...]
    cost: str
    solid: bool = True
    joined: bool = False
    lost: str = ""


@dataclass(frozen=True)
class Row:
    """A rung or a step: what both studies have of it, and their difference, a row of `differences`, if there is one."""

    name: str
    section: str
    sides: tuple[Side | None, Side | None]
    difference: Mapping[str, Any] | None
    bold: bool = True


def draw_comparison(first: Finished, second: Finished, title: str | None = None, width: str = "page") -> Figure:
    """Two studies, a row a step of either of them: of other regimes, data, recipes or sizes.

    Two ladders: mean top1 of every rung in per cent with its 95 % interval, joined along the adopted rungs; mean and
    sample standard deviation, gain, and GMACs of both as numbers; and the difference of their gains. Starts stand in
    one row, whatever they are called. Where accuracies lie far apart the second study has an axis of its own above, on
    which a point is as long as on the first one's, so that lines of equal slope are equal gains. Other designs, or two
    of different kinds: the effect of every step in both with its 95 % interval, and the difference.

    Differences are second - first, see `differences`; there is none where a gain is over other rungs. ``width``:
    ``page``, or ``column`` for a column of a paper or a phone, with fewer numbers.

    Raises `RoadmapError` where the studies share no step, where a study cannot be summarised, and for a width that
    there is not.
    """
    inches = inches_of(width)
    studies = one, other = compared(first, second)
    names = one.name, other.name
    ladders = are_ladders(one, other)
    places, sizes, short = PLACES[width, ladders], SIZES[width], width == "column"
    table = differences(one, other)
    rows = (_rungs if ladders else _steps)(one, other, _by_effect(table), short)
    groups = titles_of([row.section for row in rows], width)
    room = places.names if any(groups) else places.panel[0] - PAD - EDGE
    limits = _limits_of_ladders(studies) if ladders else _limits_of_effects(rows)
    two = limits[0] != limits[1]
    with styled():
        sheet = lay_out(
            width, title or _title(studies), _sentences(studies, rows, table, limits, ladders),
            _legend(names, inches), sizes.row * len(rows),
            above=1.35 if two else 0.8, below=0.2 if two else 0.08,
        )  # fmt: skip
        panel = sheet.panel("comparison", *places.panel)
        draw_names(panel, [row.name for row in rows], [""] * len(rows), [row.bold for row in rows], room, sizes)
        draw_groups(sheet, panel, groups, places.groups)
        both = _axes_of_both(panel, limits, names, places.panel[1], sizes)
        if not ladders:
            panel.set_xlabel("effect on top1 in points")
            panel.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for axes in both:
            axes.xaxis.set_major_locator(MaxNLocator(3 if short else 6))
        _draw_sides(panel, rows, both, sizes)
        if places.differences and table["difference"].notna().any():
            _draw_differences(sheet, rows, table, places.differences)
        headers = ["mean ± std", "gain"][short:] if ladders else ["effect" if short else "effect [95 % interval]"]
        headers += ["diff." if short else "difference\n[95 % interval]", "GMACs"]
        _draw_texts(sheet, panel, rows, places, headers, sizes.name + 10 if two else 5)
    return sheet.figure


def _title(studies: tuple[Compared, Compared]) -> str:
    """Both studies, and what they were not trained alike in."""
    names = " and ".join(study.name for study in studies)
    other = settings_that_differ(*studies)
    return f"{names}: different {', '.join(other)}" if other else names


# --- rows


def _by_effect(table: pd.DataFrame) -> dict[str, Mapping[str, Any]]:
    records: Sequence[Mapping[Any, Any]] = table.to_dict("records")
    return {row["effect"]: row for row in records if not math.isnan(row["difference"])}


def _in_both_orders(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """All names in the first one's order; one that only the second has stands after that before it there."""
    names, place = [*first], 0
    for name in second:
        if name in names:
            place = names.index(name) + 1
        else:
            names.insert(place, name)
            place += 1
    return names


def _rungs(first: Compared, second: Compared, table: Mapping[str, Mapping[str, Any]], short: bool) -> list[Row]:
    """The rows of two ladders; references come last."""
    sides: list[dict[str, Side]] = []
    own: list[list[str]] = []
    references: list[list[str]] = []
    sections: dict[str, str] = {}
    titles: dict[str, list[str]] = {}
    for study in (first, second):
        facts = facts_of(study.summary, ladder(regime_of(study.runs)), study.described)
        found: dict[str, Side] = {}
        kinds: dict[bool, list[str]] = {True: [], False: []}
        for step, (section, _) in zip(study.summary.to_dict("records"), facts, strict=True):
            key = study.key(step["step"])
            found[key] = _rung_side(step, short)
            kinds[step["reference"]].append(key)
            sections.setdefault(key, section)
            name = step["step"] if step["reference"] else label(step["step"])
            titles.setdefault(key, []).append(name)
        sides.append(found)
        own.append(kinds[False])
        references.append(kinds[True])
    keys = _in_both_orders(*own)
    return [
        Row(
            " / ".join(dict.fromkeys(titles[key])), sections[key], (sides[0].get(key), sides[1].get(key)),
            table.get(key), bold=key in keys and any(side[key].joined for side in sides if key in side),
        )
        for key in [*keys, *_in_both_orders(*references)]
    ]  # fmt: skip


def _rung_side(step: Mapping[Any, Any], short: bool) -> Side:
    mean = number(step["top1_mean"], ".2f") or "–"
    deviation = "" if math.isnan(step["top1_std"]) else f" ± {step['top1_std']:.2f}"
    lost = _lost(step)
    star = "*" if lost else ""
    gain = signed(step["gain"])
    return Side(
        step["top1_mean"],
        step["top1_low"],
        step["top1_high"],
        (gain + star,) if short else (mean + deviation + star, gain),
        f"{step['gmacs']:#.3g}".rstrip("."),
        solid=step["adopted"],
        joined=step["adopted"] and not step["reference"],
        lost=lost,
    )


def _lost(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{counts[what]} {what}" for what in ("failed", "missing") if counts[what])


def _steps(first: Compared, second: Compared, table: Mapping[str, Mapping[str, Any]], short: bool) -> list[Row]:
    """The rows of other designs: the effects, the first one's largest first, then those that only the second has."""
    ours, theirs = first.effects, second.effects

    def size(effect: str) -> float:
        estimate = ours[effect]["estimate"] if effect in ours else math.nan
        return math.inf if math.isnan(estimate) else -estimate

    return [
        Row(
            " × ".join(label(step) for step in effect.split(" × ")), "",
            (_step_side(ours.get(effect), short), _step_side(theirs.get(effect), short)), table.get(effect),
        )
        for effect in sorted(dict.fromkeys([*ours, *theirs]), key=size)
    ]  # fmt: skip


def _step_side(effect: Mapping[str, Any] | None, short: bool) -> Side | None:
    if effect is None:
        return None
    lost = _lost(effect)
    text = (signed(effect["estimate"]) or "–") + ("*" if lost else "")
    if not short and not math.isnan(effect["low"]):
        text += f" [{signed(effect['low'])}, {signed(effect['high'])}]"
    found = effect["verdict"] in FINDINGS or effect["verdict"] is None
    cost, _ = cost_text(effect["gmacs"], effect["params"], "+")
    return Side(effect["estimate"], effect["low"], effect["high"], (text,), cost, solid=found, lost=lost)


# --- drawing


def _draw_sides(panel: Axes, rows: Sequence[Row], both: tuple[Axes, Axes], sizes: Sizes) -> None:
    """Values and intervals of both studies, each on its axes, and lines through those that are joined."""
    for number_, (axes, look, shift) in enumerate(zip(both, LOOKS, SHIFTS, strict=True)):
        which = ("first", "second")[number_]
        joined = [
            (side.value, row + shift) for row, one in enumerate(rows) if (side := one.sides[number_]) and side.joined
        ]
        if joined:
            axes.plot(*zip(*joined, strict=True), color=look["color"], linestyle=look["linestyle"], linewidth=1.4,
                      alpha=0.55, zorder=2, label=f"path of {which}")  # fmt: skip
        for row, one in enumerate(rows):
            side = one.sides[number_]
            if side is None:
                continue
            if math.isnan(side.value):
                panel.text(0.5, row + shift, "failed" if "failed" in side.lost else "not trained yet", style="italic",
                           transform=panel.get_yaxis_transform(), ha="center", va="center", fontsize=sizes.small,
                           color=look["color"])  # fmt: skip
                continue
            known = not math.isnan(side.low)
            axes.errorbar(
                side.value, row + shift, xerr=[[side.value - side.low], [side.high - side.value]] if known else None,
                color=look["color"], marker=look["marker"], markersize=sizes.marker - 1.5,
                markerfacecolor=look["color"] if side.solid else "white", elinewidth=sizes.marker / 6,
                capsize=sizes.marker / 3, zorder=3, label=f"{which} of {one.name}",
            )  # fmt: skip


def _limits_of_ladders(studies: tuple[Compared, Compared]) -> Limits:
    """Limits of both studies' axes: the same, or where that would be too long of the same length."""
    own = [limits_of(study.runs, study.summary) for study in studies]
    longest = max(high - low for low, high in own)
    union = min(low for low, _ in own), max(high for _, high in own)
    if union[1] - union[0] <= MAX_SHARED * longest:
        return union, union
    begins = [max(min((low + high - longest) / 2, 100 - longest), 0) for low, high in own]
    return (begins[0], begins[0] + longest), (begins[1], begins[1] + longest)


def _limits_of_effects(rows: Sequence[Row]) -> Limits:
    sides = [side for row in rows for side in row.sides if side]
    limits = _about_zero([side.value for side in sides], [end for side in sides for end in (side.low, side.high)])
    return limits, limits


def _limits_of_differences(table: pd.DataFrame) -> tuple[float, float]:
    return _about_zero([*table["difference"]], [*table["low"], *table["high"]])


def _about_zero(values: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    low, high = span([0.0, *values], ends)
    margin = max((high - low) / 20, 0.1)
    return low - margin, high + margin


def _axes_of_both(
    panel: Axes,
    limits: Limits,
    names: tuple[str, str],
    room: float,
    sizes: Sizes,
) -> tuple[Axes, Axes]:
    """The panel for both, or with a second axis above, on which a point is as long as on the first."""
    panel.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.set_xlim(limits[0])
    words = "top1 on the test images (%)"
    cut = "\nthe axis does not begin at 0"
    if limits[0] == limits[1]:
        panel.set_xlabel(words + (cut if limits[0][0] else ""))
        return panel, panel
    above = panel.twiny()
    above.set(label="second", facecolor="none", xlim=limits[1])
    above.spines["top"].set_visible(True)
    for axes, name, look in zip((panel, above), names, LOOKS, strict=True):
        title = fold(name, room, sizes.name, lines=1)
        axes.set_xlabel(f"{title}\ntop1 (%), cut axis", color=look["color"], fontsize=sizes.name)
        axes.tick_params(axis="x", labelcolor=look["color"], labelsize=sizes.name)
    return panel, above


def _draw_differences(sheet: Sheet, rows: Sequence[Row], table: pd.DataFrame, place: tuple[float, float]) -> None:
    """Second minus first, with its interval, and a line at zero; pale where its interval holds zero."""
    axes = sheet.panel("differences", *place)
    axes.set(ylim=(len(rows) - 0.5, -0.5), yticks=[])
    axes.set_xlim(_limits_of_differences(table))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=sheet.sizes.small)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
    for row, one in enumerate(rows):
        if one.difference is None:
            continue
        value, low = one.difference["difference"], one.difference["low"]
        colour = INK if _is_dark(one.difference) else "#999999"
        axes.errorbar(
            value, row, xerr=None if math.isnan(low) else value - low, color=colour, marker="D",
            markersize=sheet.sizes.marker - 2.5, elinewidth=1.2, capsize=2.5, label=f"difference of {one.name}",
        )  # fmt: skip
    axes.set_xlabel("difference\nin points")


def _is_dark(difference: Mapping[str, Any]) -> bool:
    return difference["verdict"] in FINDINGS or difference["verdict"] is None


def _draw_texts(
    sheet: Sheet, panel: Axes, rows: Sequence[Row], places: Places, headers: Sequence[str], above: float
) -> None:
    """The numbers of both studies, one above the other, their difference, and what their networks cost. Headers stand
    so many points ``above`` the first row."""
    right = sum(places.panel)

    def write(text: str, left: float, row: float, colour: str, shift: float | None = None) -> None:
        panel.annotate(
            text, (1, row), xycoords=panel.get_yaxis_transform(), xytext=((left - right) * 72, shift or 0),
            textcoords="offset points", va="bottom" if shift else "center", fontsize=sheet.sizes.small, color=colour,
        )  # fmt: skip

    numbers = places.numbers[: len(headers) - 2]
    for header, left in zip(headers, [*numbers, places.difference, places.cost], strict=True):
        write(header, left, -0.5, FAINT, above)
    for row, one in enumerate(rows):
        for side, look, shift in zip(one.sides, LOOKS, SHIFTS, strict=True):
            texts = zip([*side.texts, side.cost], [*numbers, places.cost], strict=True) if side else ()
            for text, left in texts:
                write(text, left, row + shift, look["color"])
        if one.difference is not None:
            text = signed(one.difference["difference"])
            if places.differences and not math.isnan(one.difference["low"]):
                text += f"\n[{signed(one.difference['low'])}, {signed(one.difference['high'])}]"
            write(text, places.difference, row, INK if _is_dark(one.difference) else FAINT)


def _legend(names: tuple[str, str], inches: float) -> list[Line2D]:
    return [
        Line2D([], [], **look, markersize=6, label=fold(name, inches - 1, 8.5, lines=1))
        for look, name in zip(LOOKS, names, strict=True)
    ]


def _sentences(
    studies: tuple[Compared, Compared], rows: Sequence[Row], table: pd.DataFrame, limits: Limits, ladders: bool
) -> list[str]:
    """The caption: what each study is, what its values are, and how they are compared."""
    sentences = []
    for number_, study in enumerate(studies):
        design = study.question.name
        what = f"{design} from {label(regime_of(study.runs))}" if ladders else design
        sentences += [f"{study.name}: {what}; {trained_text(study.runs, 'network')}", *matched_text(study.runs)]
        if not ladders:
            sentences.append(f"{study.question.meaning}.")
        lost = [f"{row.name} {side.lost}" for row in rows if (side := row.sides[number_]) and side.lost]
        if lost:
            sentences.append(f"*, runs of {study.name} that are not there: {'; '.join(lost)}.")
    if any(side and not math.isnan(side.low) for row in rows for side in row.sides):
        what = "the mean over seeds" if ladders else "the effect, hollow where its interval holds zero"
        sentences.append(f"Whiskers: 95 % interval of {what}.")
    low, high = _limits_of_differences(table)
    beyond = [side for row in rows for side, ends in zip(row.sides, limits, strict=True)
              if side and (side.low < ends[0] or side.high > ends[1])]  # fmt: skip
    if beyond or (table["low"] < low).any() or (table["high"] > high).any():
        sentences.append(BEYOND)
    if ladders and any(side and not side.solid for row in rows for side in row.sides):
        sentences.append("Hollow: roads not taken.")
    if len(table):
        what = "gains" if ladders else "effects"
        sentences.append(f"Differences: {studies[1].name} − {studies[0].name}, of {what}, in points" + _judged(table))
    if ladders:
        sentences.append("There is no difference where a gain is over other rungs than in the other study.")
    sentences.append("GMACs: multiply-accumulates of convolutions and linear layers in 1e9"
                     + ("." if ladders else "; by how much a step changes them."))  # fmt: skip
    return sentences


def _judged(table: pd.DataFrame) -> str:
    if table["verdict"].isna().all():
        return "; one seed says nothing of another, so that there is no interval."
    return (
        ", with intervals that all hold at once with 95 %; dark where they exclude zero, else pale. Runs that both "
        "studies share are no evidence of a difference."
    )
