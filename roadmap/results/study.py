"""A finished study, read from its folder: its runs, networks, effects, costs and curves as tables, and its figures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from roadmap.checks import RoadmapError, check_int, check_number
from roadmap.files import write_text
from roadmap.formatting import plural
from roadmap.ladders.rungs import ladder
from roadmap.planning.seeds import FIRST
from roadmap.plotting.style import CAPTIONS, KINDS, Drawn, save_figure
from roadmap.questions import default_question
from roadmap.questions.question import Question
from roadmap.reference import sections
from roadmap.results.comparison_figure import carry_over, compare_studies
from roadmap.results.curves import CURVES_TABLE, Curves, curves_of, no_curves, read_curves, write_curves
from roadmap.results.effects import (
    Measured,
    Standing,
    TrainedNetwork,
    arrange,
    effects_table,
    standing,
    trained_networks,
)
from roadmap.results.estimation import default_matters
from roadmap.results.figures import Figures
from roadmap.results.latency import read_latency, with_latency
from roadmap.results.schema import read_as_text
from roadmap.results.sentences import matched_text, trained_text
from roadmap.results.sequential import Rule
from roadmap.results.shown import as_html, as_text, counted, interval_text, readable, readable_steps
from roadmap.results.statistics import Agreement
from roadmap.results.tables import agreement, completed, costs_of, effects_of, question_of, regime_of, summarize
from roadmap.results.tested import TestedImages
from roadmap.store.folder import STUDY, TABLE, StudyFolder
from roadmap.store.store import Store
from roadmap.tasks import default_task, task_named
from roadmap.tasks.task import Task

#: Columns without which a table says nothing; others came later, or may be unknown.
NEEDED = (
    "regime",
    "step",
    "adopted",
    "seed",
    "status",
    "gmacs",
    "params",
    "data",
    "image_size",
    "width",
    "depth",
    "stem_stride",
    "epochs",
    "recipe",
)
#: The table of effects in a study's folder.
EFFECTS = "effects.csv"


@dataclass(frozen=True)
class Study(TestedImages, Figures):
    """The finished runs of one study folder, as tables and figures. docs/tables.md has every column.

    ``runs`` has one row a run, ``steps`` and ``costs`` one row a network, ``effects`` one a step, ``curves`` one a run
    and epoch. ``described`` is what study.json says of the design; ``asked`` are the runs that the study consists of,
    as (step, seed), where study.json is there. ``matters``: the smallest difference that matters, in percentage points.
    ``store`` is where the runs were read from; None where only the study's folder was kept. ``rule``: when a study that
    grew by seeds stopped to do so; None for any other.
    """

    path: Path
    runs: pd.DataFrame
    described: Mapping[str, Any] = field(default_factory=lambda: {"design": default_question().name})
    curves: Curves = field(default_factory=no_curves)
    asked: Sequence[tuple[str, int]] = ()
    matters: float = default_matters(None)
    store: Store | None = None
    rule: Rule | None = None

    @cached_property
    def task(self) -> Task:
        """What its networks were trained to do."""
        return task_named(completed(self.runs)["task"].iloc[0])

    @property
    def metric(self) -> str:  # type: ignore[override]
        """What the axis of its score says."""
        return self.task.metric.label

    @property
    def metric_short(self) -> str:  # type: ignore[override]
        """Its score in a column."""
        return self.task.metric.short

    @property
    def score(self) -> str:  # type: ignore[override]
        """What sentences call its score."""
        return self.task.score

    @cached_property
    def question(self) -> type[Question]:
        """What the study asks."""
        return question_of(self.runs, self.described)

    def __getattribute__(self, name: str) -> Any:
        """Every table is a copy: what is changed in it changes no figure and no other table."""
        value = super().__getattribute__(name)
        return type(value)(value.copy()) if isinstance(value, pd.DataFrame) else value

    @property
    def design(self) -> str:
        """The name of its question: ``ladder``, ``leave-one-out``, ..."""
        return self.question.name

    @property
    def file_names(self) -> list[str]:
        """What `save_results` writes: the files of the figures, the effects, and the learning curves if it has any."""
        tables = [EFFECTS, *([] if self.curves.empty else [CURVES_TABLE])]
        return [*(f"{figure}.{kind}" for figure in self.figures for kind in (*KINDS, *CAPTIONS)), *tables]

    @cached_property
    def missing(self) -> list[tuple[str, int]]:
        """(step, seed) of the runs that the study consists of and that are neither done nor failed."""
        present = {*zip(self.runs["step"], self.runs["seed"], strict=True)}
        asked = self.asked or itertools.product(*(dict.fromkeys(self.runs[name]) for name in ("step", "seed")))
        return [run for run in asked if run not in present]

    @cached_property
    def measured(self) -> list[Measured]:
        """Its effects, each with the values of its parts, see `roadmap.results.tables.effects_of`."""
        return effects_of(
            self.runs,
            self.described,
            matters=self.matters,
            missing=self.missing,
            correct=self.correct_alike(),
            asked=self.asked,
            rule=self.rule,
        )

    def standing(self, slots: int = 1) -> Standing:
        """Where a study that grows by seeds stands, and which networks to train next, ``slots`` runs at a time.
        Raises `RoadmapError` for any other study."""
        if self.rule is None:
            raise RoadmapError(f"{self.path.name} was not run with --until-resolved, so its seeds were planned at once")
        networks = trained_networks(self.runs, self.missing, self.correct_alike(), self.asked)
        return standing(arrange(self.question, self.described, networks), self.rule, self.matters, slots)

    @cached_property
    def steps(self) -> pd.DataFrame:
        """One row a network, see `summarize`."""
        return summarize(self.runs, self.described, self.measured, self.missing)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """What every network costs, counted and measured, see `costs_of`; with its latency, where that was measured."""
        costs = costs_of(self.runs, self.described)
        if self.latency is None:
            return costs
        known = self.latency.set_index("step").reindex(costs["step"])
        return costs.assign(**{name: known[name].to_numpy() for name in ("latency", "latency_p95")})

    @cached_property
    def latency(self) -> pd.DataFrame | None:
        """What `roadmap bench --study` measured: `roadmap.results.latency.LATENCIES`; None where it did not."""
        return read_latency(self.path, self.runs)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What every step is worth: a row an effect of the study's question, docs/tables.md."""
        effects = effects_table(self.measured)
        return effects if self.latency is None else with_latency(effects, self.latency)

    @property
    def agreement(self) -> Agreement:
        """How far the gains of a ladder rank as the paper's, see `roadmap.results.tables.agreement`."""
        return agreement(self.steps)

    @property
    def name(self) -> str:
        """What it is called: its folder's name."""
        return self.path.resolve().name

    @cached_property
    def networks(self) -> list[TrainedNetwork]:
        """Its networks, with the samples of their runs, in the order of `steps`."""
        found = {one.cell.name: one for one in trained_networks(completed(self.runs), self.missing)}
        return [found[name] for name in self.steps["step"]]

    @cached_property
    def scores(self) -> dict[str, list[float]]:
        """Network -> score of its runs that ended well, in per cent."""
        runs = completed(self.runs)
        done = runs[runs["status"] == "done"]
        return {str(step): [*map(float, group["score"])] for step, group in done.groupby("step")}

    @cached_property
    def printed(self) -> dict[str, float]:
        """Network -> top1 on ImageNet-1K that the paper prints of it, where it does."""
        known = self.steps[self.steps["printed_top1"].notna()]
        return dict(zip(known["step"], known["printed_top1"], strict=True))

    @cached_property
    def sections(self) -> dict[str, str]:
        """Network -> the title of the paper's section that its step is from, where it is from one."""
        rungs = {rung.name: rung.section for rung in ladder(regime_of(self.runs))}
        said = rungs | {step["name"]: step["section"] for step in self.described.get("steps", ())}
        titles = sections()
        return {name: titles[section].title for name, section in said.items() if section in titles}

    @cached_property
    def about(self) -> list[str]:
        """How its networks were trained, in sentences."""
        runs = completed(self.runs)
        return [trained_text(runs, "network"), *matched_text(runs)]

    def compare(self, *others: Study | str | Path, **look: Any) -> Drawn:
        """This study beside another one, given as such or by its folder, see
        `roadmap.results.comparison_figure.compare_studies`; beside several, or one of another task, see `carry_over`
        there."""
        found = [other if isinstance(other, Study) else load_study(other) for other in others]
        if len(found) == 1 and found[0].task is self.task:
            return compare_studies(self, found[0], **look)
        return carry_over([self, *found], **look)

    def __repr__(self) -> str:
        return as_text(*self._shown)

    def _repr_html_(self) -> str:
        return as_html(*self._shown)

    @property
    def _shown(self) -> tuple[list[str], pd.DataFrame]:
        """Lines about the study, and its most telling table."""
        step = "step" if self.question.cumulative else "network"
        counts, *lost = counted(self.runs, self.missing)
        lines = [
            f"Study {self.path.name} ({self.design}): {plural(len(self.steps), step)}, {counts}",
            *lost,
            trained_text(completed(self.runs), step),
        ]
        if self.question.cumulative and self.agreement.rungs > 1:
            lines.append(f"Kendall's tau with the paper's gains {self.agreement}.")
        lines.append(f"{self.worded(self.question.meaning)}. {interval_text(self.effects, self.matters, self.rule)}")
        return lines, readable_steps(self.steps, self.metric_short) if self.question.cumulative else readable(
            self.effects
        )


def save_results(study: Study, folder: str | Path | None = None, paper: bool = False) -> list[Path]:
    """Write a study's figures and the tables that go with them into a folder, by default its own.

    They are `Study.file_names`, and each appears whole or not at all. Returns their paths. Raises `RoadmapError` where
    the runs cannot be summarised.
    """
    folder = Path(folder or study.path)
    names = study.file_names
    write_text(folder / EFFECTS, study.effects.to_csv(index=False, lineterminator="\n"))
    if CURVES_TABLE in names:
        write_curves(study.curves, folder)
    for name in study.figures:
        save_figure(_drawn(study, name, paper), folder, name)
    return [folder / name for name in names]


def save_drawn(
    study: Study,
    name: str,
    others: Sequence[str | Path] = (),
    folder: str | Path | None = None,
    paper: bool = False,
    **look: Any,
) -> list[Path]:
    """Write one figure into a folder, by default the study's own: the method of `Study` of that name, or with
    ``others`` the comparison with the studies of these folders. ``look``: the fields of `roadmap.plotting.style.Look`.

    Returns the paths; those of other widths than a page's end in it. Raises as the methods do.
    """
    if others:
        name, figure = "comparison", study.compare(*others, **look)
    else:
        figure = _drawn(study, name, paper, **look)
    width = look.get("width", "page")
    return save_figure(figure, folder or study.path, name if width == "page" else f"{name}-{width}")


def _drawn(study: Study, name: str, paper: bool, **look: Any) -> Drawn:
    return study.figure(name, **({"paper": True} if paper else {}), **look)


def load_study(path: str | Path, matters: float | None = None) -> Study:
    """The finished runs under a study folder, as tables: from its store, or, where of the study only the folder was
    kept, from its trajectory.csv and curves.csv. A table that has no study.json beside it is that of a ladder.

    ``matters``: the smallest difference that matters, in percentage points; by default the study's own, else one that
    suits its number of test images.

    Raises `RoadmapError` with one sentence where the folder does not exist, holds no study or no finished run, or where
    a file of it is damaged.
    """
    path = Path(path)
    if matters is not None:
        check_number("matters", matters, 0, 100)
    table, folder = path / TABLE, StudyFolder(path)
    if table.is_file() and not (path / STUDY).exists():
        runs = _read_table(table)
        question = question_of(runs, {})
        if question is not default_question():
            raise RoadmapError(f"{path} holds the runs of a {question.name} study, but no {STUDY} that describes it")
        return Study(path, runs, curves=_kept_curves(path, runs), matters=_matters(matters, {}))
    said = folder.study()
    described = _described(path, said)
    asked = [(run["step"], run["seed"]) for run in said["runs"] if {"step", "seed"} <= run.keys()]
    smallest, rule = _matters(matters, said), _rule(path, said)
    rows = folder.rows()
    if rows:
        runs = completed(pd.DataFrame(rows))
        return Study(path, runs, described, curves_of(runs, folder.store.history), asked, smallest, folder.store, rule)
    if table.is_file():
        runs = _read_table(table)
        return Study(path, runs, described, _kept_curves(path, runs), asked, smallest, rule=rule)
    raise RoadmapError(f"{path} holds no finished run yet")


def _matters(given: float | None, said: Mapping[str, Any]) -> float:
    """The smallest difference that matters: the given one, the study's own, or what suits its test images."""
    spec = said["spec"] if isinstance(said.get("spec"), dict) else {}
    images = said.get("test_images") if task_named(spec.get("task") or default_task().name).counted else None
    known = (float(one) for one in (given, spec.get("matters")) if one is not None)
    return next(known, default_matters(images))


def _rule(path: Path, said: Mapping[str, Any]) -> Rule | None:
    """When a study that grows by seeds stops to; None for one whose seeds were all planned before."""
    asked = said.get("spec")
    if not isinstance(asked, dict) or asked.get("until_resolved") is None:
        return None
    try:
        check_number("until_resolved", asked["until_resolved"], 0)
        check_int("most_seeds", asked.get("most_seeds"), FIRST)
    except RoadmapError as error:
        raise RoadmapError(f"{path / STUDY} is damaged: {error}") from None
    return Rule(float(asked["until_resolved"]), asked["most_seeds"])


def _described(path: Path, study: Mapping[str, Any]) -> Mapping[str, Any]:
    described = study.get("ablation", {"design": default_question().name})
    if not isinstance(described, dict) or "design" not in described:
        raise RoadmapError(f"{path / STUDY} is damaged: its ablation has no design")
    kinds = {"steps": _is_step, "base": _is_name, "factors": _is_name}
    lists = [(described.get(key, []), is_kind) for key, is_kind in kinds.items()]
    if not all(isinstance(those, list) and all(map(is_kind, those)) for those, is_kind in lists):
        raise RoadmapError(f"{path / STUDY} is damaged: its ablation does not say what its steps are")
    return described


def _is_name(said: Any) -> bool:
    return isinstance(said, str)


def _is_step(said: Any) -> bool:
    """Whether this describes a step as study.json does; older ones do not say why it is taken, and what it sets."""
    needed = {"why": "", "settings": {}} | said if isinstance(said, dict) else {}
    texts = ("name", "section", "change", "why")
    return all(isinstance(needed.get(key), str) for key in texts) and isinstance(needed["settings"], dict)


def _kept_curves(path: Path, runs: pd.DataFrame) -> Curves:
    file = path / CURVES_TABLE
    return read_curves(file, runs) if file.exists() else no_curves()


def _read_table(path: Path) -> pd.DataFrame:
    runs = read_as_text(path, NEEDED, "runs")
    if not len(runs):
        raise RoadmapError(f"{path.parent} holds no finished run yet")
    try:
        return completed(runs)
    except RoadmapError as error:
        raise RoadmapError(f"{path}: {error}") from None
