"""From a study, or anybody's runs, to its figures: which rows, numbers and words; `roadmap.plotting` draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from roadmap.checks import RoadmapError, check_known
from roadmap.formatting import UNKNOWN, decimals_of, label, listed, macs_unit, name_of, number, plain, signed
from roadmap.plotting.forest import Effects, Interval, draw_forest, number_column
from roadmap.plotting.heatmap import HeatCell, draw_grid, draw_triangle
from roadmap.plotting.line import Level, draw_levels, places_of
from roadmap.plotting.rows import Name, TextColumn
from roadmap.plotting.scatter import Point, draw_scatter, pareto_front
from roadmap.plotting.style import FAINT, REFERENCE, Drawn, Look
from roadmap.plotting.trajectory import draw_trajectory, trajectory_panel
from roadmap.questions.question import Question
from roadmap.results.drawings import figures
from roadmap.results.effect_rows import (
    COSTS,
    alias_of,
    aliased_label,
    effect_interval,
    level_text,
    ranked_effects,
    scaled,
    weight_of,
)
from roadmap.results.effects import Measured, TrainedNetwork
from roadmap.results.latency import measured_on
from roadmap.results.printing import paper_table
from roadmap.results.sentences import headline, how_decided, lost_text
from roadmap.results.sequential import Rule


class Figures:
    """The figures of a study; every one takes the fields of `roadmap.plotting.style.Look`: ``width``, ``title``,
    ``caption`` and ``font``."""

    if TYPE_CHECKING:
        described: Mapping[str, Any]
        matters: float

        @property
        def name(self) -> str: ...
        @property
        def question(self) -> type[Question]: ...
        @property
        def networks(self) -> Sequence[TrainedNetwork]: ...
        @property
        def measured(self) -> Sequence[Measured]: ...
        @property
        def effects(self) -> pd.DataFrame: ...
        @property
        def rule(self) -> Rule | None: ...
        @property
        def scores(self) -> Mapping[str, Sequence[float]]: ...
        @property
        def printed(self) -> Mapping[str, float]: ...
        @property
        def sections(self) -> Mapping[str, str]: ...
        @property
        def about(self) -> list[str]: ...

        #: The score: what its axis says, its name in a column, and what sentences call it.
        metric: str
        metric_short: str
        score: str

    #: The unit of differences of the score, and which is better.
    unit, lower_is_better = "pp", False

    def worded(self, text: str) -> str:
        """The words of a question about this study's score: theirs speak of accuracy."""
        return text.replace("accuracy", self.score).replace("Accuracy", self.score[:1].upper() + self.score[1:])

    @property
    def figures(self) -> list[str]:
        """The figures that answer the study's question, by their methods, the most telling first."""
        return list(self.question.figures)

    def figure(self, name: str, **options: Any) -> Drawn:
        """The figure of that name: a method of the study, or one of `roadmap.results.drawings` with its own code.
        ``options`` are its own, and the fields of `roadmap.plotting.style.Look`."""
        check_known("figure", [name], figures())
        drawn = figures()[name].draw
        shown: Drawn = drawn(self, **options) if drawn else getattr(self, name)(**options)
        return shown

    def _check_figure(self, name: str) -> None:
        """Raise `RoadmapError` where a figure does not suit the study's question."""
        if name not in self.figures:
            raise RoadmapError(
                f"{self.name} is a {self.question.name} study, which has no {name}: its figures are "
                f"{', '.join(self.figures)}"
            )

    @property
    def _axis(self) -> str:
        """The label of the axis of effects."""
        return (
            self.worded(self.question.axis) if self.unit == Figures.unit else f"{self.question.effect} in {self.metric}"
        )

    def _caption(self, *first: str) -> str:
        lost = lost_text((one.cell.name, one.sample.failed, one.missing) for one in self.networks)
        return " ".join([*first, how_decided(self.effects, self.matters, self.unit), *lost, *self.about])

    @property
    def _form(self) -> Any:
        """How its differences are written."""
        return partial(signed, decimals=decimals_of(one.row["estimate"] for one in self.measured))

    @property
    def _means(self) -> dict[str, float]:
        return {one.cell.name: one.sample.mean for one in self.networks}

    @property
    def _meaning(self) -> str:
        """What an effect is, in a sentence about its score."""
        return f"{self.worded(self.question.meaning)}."

    def table(self) -> pd.DataFrame:
        """The table of a paper, as text, see `roadmap.results.printing.paper_table`."""
        return paper_table(self)

    # --- rows

    def trajectory(self, paper: bool = False, **look: Any) -> Drawn:
        """Where a ladder led, step by step: bars from the network that a step builds upon to the one that has it, with
        the interval that decides its gain; the paper's gain, where it prints one, and what each network costs.

        ``paper`` adds a panel with the paper's own accuracies. Raises `RoadmapError` for a study of another design.
        """
        self._check_figure("trajectory")
        gains = {one.row["effect"]: one.row for one in self.measured}
        means, form = self._means, self._form
        rows = [one.cell for one in self.networks]
        intervals = [self._standing(one, gains.get(one.cell.name, {}), means) for one in self.networks]
        printed = [
            self.printed.get(one.name, math.nan)
            - self.printed.get(gains.get(one.name, {}).get("against") or "", math.nan)
            for one in rows
        ]
        names = [
            Name(
                one.name,
                name_of(one.name, one.reference),
                self.sections.get(one.name, ""),
                abs(gains.get(one.name, {}).get("estimate", math.inf)),
                not one.adopted,
            )
            for one in rows
        ]
        steps = [
            Interval(row.get("estimate", math.nan), verdict=row.get("verdict"))
            for row in (gains.get(one.name, {}) for one in rows)
        ]
        decimals = decimals_of(one.value for one in steps)
        columns = [
            TextColumn(
                self.metric_short, [number(one.sample.mean, f".{decimals}f") or "failed" for one in self.networks]
            ),
            number_column(f"gain ({self.unit})" if self.unit else "gain", steps, form),
            TextColumn("paper", [signed(value, 1) for value in printed], 1, [FAINT] * len(rows)),
            *self._cost_columns([one.gmacs for one in self.networks]),
        ]
        adopted = [one.adopted for one in rows]
        references = [one.reference for one in rows]
        panels = [trajectory_panel("accuracy", self.metric, intervals, adopted, references)]
        if paper and self.printed:
            theirs = [
                Interval(self.printed.get(one.name, math.nan), start=self._printed_start(gains.get(one.name, {})))
                for one in rows
            ]
            panels.append(trajectory_panel("paper", "the paper: ImageNet-1K (%)", theirs, adopted, references, rank=2))
        caption = self._caption(
            "A bar goes from the network that a step builds upon to the one that has it; its line is the interval "
            "of the gain."
            + ("" if all(adopted) else " Hollow: not taken.")
            + (" Paper: its gain on ImageNet-1K." if any(value == value for value in printed) else "")
        )
        shown = [one.verdict for one in steps if one.value == one.value]
        return draw_trajectory(names, panels, columns, Look(**look), headline(self.effects), caption, shown)

    def _standing(self, network: TrainedNetwork, gain: Mapping[str, Any], means: Mapping[str, float]) -> Interval:
        start = means.get(gain.get("against") or "", math.nan)
        return Interval(
            network.sample.mean,
            start + gain.get("low", math.nan),
            start + gain.get("high", math.nan),
            gain.get("verdict"),
            start,
            self.scores.get(network.cell.name, ()),
        )

    def _printed_start(self, gain: Mapping[str, Any]) -> float:
        return self.printed.get(gain.get("against") or "", math.nan)

    def _cost_columns(self, gmacs: Sequence[float], sign: str = "") -> list[TextColumn]:
        factor, unit = macs_unit(gmacs)
        return [TextColumn(unit, [plain(value * factor, sign) for value in gmacs], 2, [FAINT] * len(gmacs))]

    def ablation(self, **look: Any) -> Drawn:
        """What every step is worth: its effect with the interval that decides it, and what it costs; small dots are its
        parts, such as the orders. Largest gain first where the question ranks its effects.

        Raises `RoadmapError` where there are no two networks to compare.
        """
        if not self.measured:
            raise RoadmapError("a figure of effects needs at least two networks to compare")
        ranked = ranked_effects(self.question, self.measured)
        intervals = [effect_interval(one) for one in ranked]
        names = [Name(one.row["effect"], aliased_label(one.row), weight=weight_of(one.row)) for one in ranked]
        references = [one for one in self.networks if one.cell.reference]
        names += [Name(one.cell.name, one.cell.name, "references") for one in references]
        intervals += [Interval()] * len(references)
        gmacs = [one.row["gmacs"] for one in ranked] + [math.nan] * len(references)
        values = [""] * len(ranked) + [number(one.sample.mean, ".1f") or UNKNOWN for one in references]
        columns = [*self._cost_columns(gmacs, "+"), TextColumn(self.metric_short, values, 1, [REFERENCE] * len(values))]
        effects = Effects("forest", self._axis, intervals)
        dots = " Dots: the parts that it is the mean of." if any(len(one.dots) for one in intervals) else ""
        return draw_forest(
            names,
            [effects],
            columns,
            Look(**look),
            headline(self.effects),
            self._caption(f"{self._meaning}{dots}"),
            self.matters,
            self._form,
        )

    # --- cells and lines

    def interactions(self, **look: Any) -> Drawn:
        """What steps bring alone, on the diagonal, and two of them together. Raises `RoadmapError` for a study whose
        question has no such effects."""
        self._check_figure("interactions")
        if not self.measured:
            raise RoadmapError("a figure of effects needs at least two networks to compare")
        rows = {one.row["effect"]: one for one in self.measured}
        factors = list(dict.fromkeys(name for effect in rows for name in effect.split(" × ")))
        cells, aliased = [], False
        for place, first in enumerate(factors):
            cells.append(self._cell(place, place, first, rows.get(first)))
            for column in range(place):
                names = f"{factors[column]} × {first}", f"{first} × {factors[column]}"
                found = next((rows[name] for name in names if name in rows), None)
                cells.append(self._cell(place, column, names[0], found or alias_of(rows, names)))
        aliased = any(cell.aliased for cell in cells)
        caption = self._caption(
            f"{self._meaning} Diagonal: main effects; below it: interactions of the steps that head column "
            "and row." + (" Hatched: a sum that this fraction cannot take apart." if aliased else "")
        )
        return draw_triangle(
            cells, [label(name) for name in factors], Look(**look), headline(self.effects), caption, self._form
        )

    def _cell(self, row: int, column: int, name: str, found: Measured | None) -> HeatCell:
        if found is None:
            return HeatCell(row, column, name, Interval(), "–")
        return HeatCell(
            row,
            column,
            name,
            effect_interval(found),
            "failed" * bool(found.row["failed"] and math.isnan(found.row["estimate"])),
            bool(found.row.get("aliases")),
        )

    def levels(self, **look: Any) -> Drawn:
        """Accuracy over the levels of a flag: a line where they are numbers, a map over two flags in every combination,
        else a row a level, as `ablation`."""
        self._check_figure("levels")
        levels: Mapping[str, Sequence[str]] = self.described["levels"]
        effects = {one.row["effect"]: one for one in self.measured}
        grid = self.described.get("grid", True) and len(levels) > 1
        caption = self._caption(self._meaning)
        chosen, form = Look(**look), self._form
        if grid and len(levels) == 2:
            (down, downs), (across, acrosses) = levels.items()
            cells = [
                self._grid_cell(row, column, self._network_of({one, other}), effects)
                for row, one in enumerate(downs)
                for column, other in enumerate(acrosses)
            ]
            shown = [[level_text(name) for name in names] for names in (downs, acrosses)]
            return draw_grid(
                cells,
                shown[0],
                shown[1],
                (label(down), label(across)),
                chosen,
                headline(self.effects),
                f"Numbers: {self.metric}; intervals: of the difference to the first level. {caption}",
                form,
            )
        ((flag, names), *others) = levels.items()
        found = None if others else places_of([level_text(name) for name in names])
        if found is None:
            return self.ablation(**look)
        references = [(one.cell.name, one.sample.mean) for one in self.networks if one.cell.reference]
        points = [self._level(name, effects) for name in names]
        return draw_levels(
            points, *found, (label(flag), self.metric), references, chosen, headline(self.effects), caption
        )

    def _network_of(self, steps: set[str]) -> str:
        """The network that has exactly these of the levels."""
        every = {name for names in self.described["levels"].values() for name in names}
        return next((one.cell.name for one in self.networks if every & {*one.cell.steps} == steps), " & ".join(steps))

    def _grid_cell(self, row: int, column: int, name: str, effects: Mapping[str, Measured]) -> HeatCell:
        mean = number(self._means.get(name, math.nan), ".1f") or "failed"
        effect = next((one for one in effects.values() if one.row["network"] == name), None)
        return HeatCell(row, column, name, effect_interval(effect) if effect else Interval(), mean)

    def _level(self, name: str, effects: Mapping[str, Measured]) -> Level:
        network = self._network_of({name})
        mean, found = self._means.get(network, math.nan), effects.get(name)
        start = math.nan if found is None else mean - found.row["estimate"]
        row: Mapping[str, Any] = {} if found is None else found.row
        effect = Interval(
            mean,
            start + row.get("low", math.nan),
            start + row.get("high", math.nan),
            row.get("verdict"),
            start,
            self.scores.get(network, ()),
        )
        text = number(mean, ".1f") if found is None or math.isnan(row["estimate"]) else self._form(row["estimate"])
        return Level(name, level_text(name), effect, text)

    # --- cost

    def pareto(self, against: str = "gmacs", budget: float | None = None, **look: Any) -> Drawn:
        """Accuracy against a cost, one of `COSTS` or any other column of the study's ``costs``; the networks that no
        other beats in both are joined and named. ``budget``, in the column's unit, is what a network may cost at most
        (of a speed: at least): a line, and the headline says which network is best within it. Raises `RoadmapError`
        where that cost is not known of any."""
        table, latency = getattr(self, "costs", pd.DataFrame(columns=["step"])), getattr(self, "latency", None)
        measured = [] if latency is None else [f"Latency: {measured_on(latency)}."]
        table = table.drop(columns=["adopted", "reference", "device_name"], errors="ignore")
        check_known("cost", [against], [name for name in (COSTS | dict.fromkeys(table)) if name != "step"])
        costs = dict(zip(table["step"], table[against].astype(float), strict=True))
        known = [one for one in self.networks if math.isfinite(one.sample.mean) and math.isfinite(costs[one.cell.name])]
        axis, less = COSTS.get(against, (against.replace("_", " "), True))
        if not known:
            remedy = ": roadmap bench --study measures it" if against.startswith("latency") else ""
            raise RoadmapError(f"no network of {self.name} has both a score and its {axis}{remedy}")
        values = [costs[one.cell.name] for one in known]
        factor, axis = scaled(against, axis, values)
        front = pareto_front(values, [one.sample.mean for one in known], less)
        steps = getattr(self, "steps").to_dict("records")  # noqa: B009  (what a table from elsewhere lacks)
        spans = {row["step"]: (row["score_low"], row["score_high"]) for row in steps}
        points = [
            Point(
                one.cell.name,
                name_of(one.cell.name, one.cell.reference),
                value * factor,
                one.sample.mean,
                *spans[one.cell.name],
                one.cell.adopted,
                one.cell.reference,
                on,
            )
            for one, value, on in zip(known, values, front, strict=True)
        ]
        best = [point.label for point in sorted(points, key=lambda point: point.x) if point.front]
        caption = " ".join(
            [
                f"The line joins the networks that no other beats in {self.score} and cost by their means; those "
                "within noise of one another cannot be told apart. Vertical lines: 95 % interval of each mean.",
                *(measured if against.startswith("latency") else []),
                *lost_text((one.cell.name, one.sample.failed, one.missing) for one in self.networks),
                *self.about,
            ]
        )
        count = len(points) - len(best)
        title = f"Unbeaten: {listed(best, 4)}" + (f"; {count} others cost more or reach less" if count else "")
        limit = None if budget is None else budget * factor
        if limit is not None:
            within = [point for point in points if (point.x <= limit if less else point.x >= limit)]
            top = max(within, key=lambda point: point.y, default=None)
            title = f"{axis[0].upper()}{axis[1:]} {'at most' if less else 'at least'} {limit:.4g}: " + (
                f"{top.label} is best, {top.y:.1f} %" if top else "no network"
            )
        return draw_scatter(points, (axis, self.metric), less, Look(**look), title, caption, limit)
