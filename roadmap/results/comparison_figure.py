"""Two studies in one figure: what the same steps are worth in both, and by how much that differs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from roadmap.formatting import decimals_of, listed, signed
from roadmap.plotting.forest import Effects, Interval, draw_forest
from roadmap.plotting.rows import Name
from roadmap.plotting.style import Drawn, Look
from roadmap.results.comparison import Finished, compared, differences, settings_that_differ
from roadmap.results.effect_rows import effect_interval, ranked_effects
from roadmap.results.figures import Figures
from roadmap.results.sentences import effect_label, headline, how_decided


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
