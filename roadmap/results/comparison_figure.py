"""Two studies in one figure: what the same steps are worth in both, and by how much that differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pandas as pd

from roadmap.checks import RoadmapError
from roadmap.formatting import decimals_of, listed, signed
from roadmap.plotting.forest import Effects, Interval, draw_forest
from roadmap.plotting.rows import Name
from roadmap.plotting.style import Drawn, Look
from roadmap.questions.question import Question
from roadmap.results.comparison import Finished, compared, differences, settings_that_differ
from roadmap.results.effect_rows import effect_interval, ranked_effects
from roadmap.results.effects import Measured
from roadmap.results.estimation import GAIN, LOSS
from roadmap.results.figures import Figures
from roadmap.results.sentences import effect_label, headline, how_decided
from roadmap.results.statistics import Agreement, rank_agreement
from roadmap.tasks.task import Task


def compare_studies(first: Finished, second: Finished, **look: Any) -> Drawn:
    """What every step is worth in two studies, beside each other, and by how much they differ, see
    `roadmap.results.comparison.differences`. Raises `RoadmapError` where the studies share no step."""
    one, other = compared(first, second)
    table = differences(one, other)
    names = in_both_orders(
        *(
            [row.row["effect"] for row in ranked_effects(study.question, [*study.measured.values()])]
            for study in (one, other)
        )
    )
    sides = [
        [effect_interval(study.measured[name]) if name in study.measured else Interval() for name in names]
        for study in (one, other)
    ]
    rows = {row["effect"]: row for row in table.to_dict("records")}
    apart = [
        Interval(*(rows[name][part] for part in ("difference", "low", "high", "verdict")))
        if name in rows
        else Interval()
        for name in names
    ]
    form = partial(
        signed, decimals=decimals_of(row["estimate"] for study in (one, other) for row in study.effects.values())
    )
    look_of = Look(**look)
    panels = [
        Effects(
            "first",
            "",
            sides[0],
            look_of.fold(one.name, 0.24 * look_of.size.across, look_of.size.small, lines=1),
            number_rank=1,
        ),
        Effects(
            "second", "", sides[1], look_of.fold(other.name, 0.24 * look_of.size.across, look_of.size.small, lines=1)
        ),
        Effects("differences", "", apart, "difference", 2, 2),
    ]
    message = headline(table.rename(columns={"difference": "estimate"})) if len(table) else "no effect in common"
    differ = settings_that_differ(one, other)
    caption = " ".join(
        [
            f"{first.worded(one.question.meaning)}. Difference: {other.name} − {one.name}.",
            *([f"Trained with different {listed(differ)}."] if differ else []),
            how_decided(
                pd.DataFrame([row for study in (one, other) for row in study.effects.values()]),
                max(one.matters, other.matters),
                Figures.unit,
            ),
        ]
    )
    title = f"{other.name} against {one.name}: {message[:1].lower()}{message[1:]}"
    heads = [
        Name(name, effect_label(name), weight=abs(rows[name]["difference"]) if name in rows else 0.0) for name in names
    ]
    return draw_forest(heads, panels, [], look_of, title, caption, max(one.matters, other.matters), form)


def carry_over(studies: Sequence[Tasked], **look: Any) -> Drawn:
    """Whether what a step is worth in the first study is what it is worth in the others, such as of other tasks: all
    effects beside each other with their own intervals, and how far their ranks agree (Kendall's tau with its interval).

    Raises `RoadmapError` where one shares fewer than two effects with the first.
    """
    first, *others = studies
    tables = [{row["effect"]: one for one in study.measured for row in [one.row]} for study in studies]
    heads = _told_apart(studies)
    names: list[str] = []
    for study in studies:
        ranked = [one.row["effect"] for one in ranked_effects(study.question, study.measured)]
        names = in_both_orders(names, ranked) if names else ranked
    agreements: list[tuple[str, Agreement]] = []
    for head, table in zip(heads[1:], tables[1:], strict=True):
        shared = [name for name in tables[0] if name in table]
        if len(shared) < 2:
            raise RoadmapError(f"{heads[0]} and {head} share {len(shared)} effects, but ranks take at least two")
        values = ([one[name].row["estimate"] for name in shared] for one in (tables[0], table))
        agreements.append((head, rank_agreement(*values)))
    look_of = Look(**look)
    wide = 0.72 / len(studies) * look_of.size.across
    panels = [
        Effects(
            f"study {place + 1}",
            "",
            [effect_interval(table[name]) if name in table else Interval() for name in names],
            look_of.fold(head, wide, look_of.size.small, lines=2),
            number_rank=place,
        )
        for place, (head, table) in enumerate(zip(heads, tables, strict=True))
    ]
    matters = max(study.matters for study in studies)
    caption = " ".join(
        [
            f"{first.worded(first.question.meaning)}, in each study's own score (percentage points).",
            f"Kendall's tau of the effects with those of {heads[0]}: "
            f"{listed([f'{head} {agreement}' for head, agreement in agreements])}.",
            *verdicts_across(tables),
            how_decided(pd.DataFrame([one.row for table in tables for one in table.values()]), matters, Figures.unit),
        ]
    )
    form = partial(signed, decimals=decimals_of(one.row["estimate"] for table in tables for one in table.values()))
    weights = [max(abs(table[name].row["estimate"]) for table in tables if name in table) for name in names]
    rows = [Name(name, effect_label(name), weight=weight) for name, weight in zip(names, weights, strict=True)]
    title = f"Effects rank as in {heads[0]}? {_in_words(agreements)}"
    return draw_forest(rows, panels, [], look_of, title, caption, matters, form)


def _in_words(agreements: Sequence[tuple[str, Agreement]]) -> str:
    """Which rankings agree with the first, which are its reverse, and which are open."""
    groups: dict[str, list[str]] = {"alike": [], "in reverse": [], "open": []}
    for head, agreement in agreements:
        low, high = (agreement.tau if math.isnan(end) else end for end in (agreement.low, agreement.high))
        verdict = "alike" if low > 0 else "in reverse" if high < 0 else "open"
        groups[verdict].append(f"{head} (τ {signed(agreement.tau)})")
    return "; ".join(f"{verdict} in {listed(those)}" for verdict, those in groups.items() if those)


class Tasked(Finished, Protocol):
    """A study that knows its question and its task."""

    @property
    def question(self) -> type[Question]: ...
    @property
    def task(self) -> Task: ...


def _told_apart(studies: Sequence[Tasked]) -> list[str]:
    """What the studies are called: their tasks, where these tell them apart, else their folders."""
    tasks = [study.task.title for study in studies]
    if len({*tasks}) == len(tasks):
        return tasks
    parts = [study.path.resolve().parts for study in studies]
    names = [["/".join(part[-length:]) for part in parts] for length in range(1, max(map(len, parts)) + 1)]
    numbered = [f"{name} ({place + 1})" for place, name in enumerate(names[-1])]
    return next((those for those in names if len({*those}) == len(those)), numbered)


def verdicts_across(tables: Sequence[Mapping[str, Measured]]) -> list[str]:
    """Sentences on the effects with the same verdict in every study, and on those that gain in one and lose in
    another."""
    verdicts = {
        name: {table[name].row["verdict"] for table in tables if name in table}
        for name in tables[0]
        if all(name in table for table in tables)
    }
    said = []
    for found, words in (
        ({GAIN}, "A gain in every study"),
        ({LOSS}, "A loss in every study"),
        ({GAIN, LOSS}, "A gain in one and a loss in another"),
    ):
        if those := [
            effect_label(name)
            for name, seen in verdicts.items()
            if (seen >= found if len(found) > 1 else seen == found)
        ]:
            said.append(f"{words}: {listed(those)}.")
    return said or ["No effect is decided alike in every study, and none contradicts another."]


def in_both_orders(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """All names in the first one's order; one that only the second has stands after that before it there."""
    names, place = [*first], 0
    for name in second:
        if name in names:
            place = names.index(name) + 1
        else:
            names.insert(place, name)
            place += 1
    return names
