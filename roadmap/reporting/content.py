"""What the report of a study says, as plain data: facts, sections of steps, tables, notes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from roadmap import __version__
from roadmap.formatting import label, macs_unit, number, plural
from roadmap.ladders.rungs import FULL_WIDTH
from roadmap.planning.reading import yaml_text
from roadmap.reporting.sections import Section, sections_of
from roadmap.results.figures import Figures
from roadmap.results.foreign_study import ForeignStudy
from roadmap.results.sentences import answer, headline, values_of
from roadmap.results.shown import counted, interval_text, readable
from roadmap.results.study import Study
from roadmap.results.tables import regime_of
from roadmap.store.folder import STUDY, StudyFolder

#: Columns of runs that say where and by what they were made, by the words for each.
ENVIRONMENT = {
    "device": "device",
    "device_name": "machine",
    "devices": "devices a run",
    "threads": "threads a run",
    "precision": "precision",
    "compile": "compiled",
    "platform": "platform",
    "python": "Python",
    "torch": "torch",
    "timm": "timm",
    "pytorch_lightning": "Lightning",
    "roadmap": "roadmap",
    "commit": "git commit",
    "dirty": "uncommitted changes",
    "source": "digest of the code",
}
#: Columns of the table of runs, and the words and the form for each; all others are in its CSV. In the place of the
#: score stand the metrics of the task.
RUN_COLUMNS = {
    "step": ("step", ""),
    "seed": ("seed", "d"),
    "signature": ("signature", ""),
    "status": ("status", ""),
    "score": ("", ""),
    "loss": ("test loss", ".3f"),
    "train_loss": ("train loss", ".3f"),
    "epochs": ("epochs", "d"),
    "seconds": ("seconds", ".0f"),
    "images_per_second": ("img/s", ".0f"),
    "reason": ("why it failed", ""),
}
#: Side of the paper's images; what is smaller is a small study.
FULL_SIZE = 224


@dataclass(frozen=True)
class Table:
    """A table for the eye, all cells text, and the same with every column and digit as CSV. ``links``: name in the
    first column -> id of its section."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    csv: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def right(self) -> tuple[bool, ...]:
        """Of every column whether it holds figures alone, which stand on the right."""
        figures = re.compile(r"[+−]?[\d.,]*\d[\d.e+-]*(?: to [+−]?[\d.]+)?|x?[\d.]+|nan|–|")
        columns = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.columns)
        return tuple(any(column) and all(figures.fullmatch(cell) for cell in column) for column in columns)


@dataclass(frozen=True)
class Content:
    """All that a report says, figures aside. ``headline`` and ``answer``: what was found; ``deciding``: what intervals
    and verdicts mean."""

    title: str
    heading: str
    question: str
    headline: str
    answer: tuple[str, ...]
    deciding: str
    version: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    tables: tuple[Table, ...]
    commands: tuple[str, ...]
    commits: tuple[str, ...]
    signature: str
    spec: str
    notes: tuple[str, ...]
    ours: bool


def content_of(study: Figures, diagrams: bool = True) -> Content:
    """What the report says of a study, or of a table of runs from elsewhere; ``diagrams``: every step is explained."""
    ours = study if isinstance(study, Study) else None
    said = _said(ours) if ours else {}
    sections = tuple(sections_of(study, said, diagrams))
    runs = ours.runs if ours else pd.DataFrame(columns=["command", "commit", "signature", "status"])
    done = runs.loc[(runs["status"] == "done") & runs["signature"].notna(), "signature"]
    return Content(
        title=study.name,
        heading=study.question.title,
        question=study.question.asks,
        headline=headline(study.effects),
        answer=tuple(answer(study)) if len(study.effects) else (),
        deciding=interval_text(study.effects, study.matters, study.rule) if len(study.effects) else "",
        version=__version__,
        facts=tuple(_facts(ours, said)) if ours else (),
        sections=sections,
        tables=tuple(_tables(study, sections)),
        commands=tuple(str(command) for command in runs["command"].dropna().unique()),
        commits=tuple(str(commit) for commit in runs["commit"].dropna().unique()),
        signature=str(done.iloc[0]) if len(done) else "",
        spec=yaml_text(said["spec"]) if isinstance(said.get("spec"), dict) else "",
        notes=tuple(_notes(ours, diagrams)) if ours else (),
        ours=ours is not None,
    )


def _said(study: Study) -> dict[str, Any]:
    """What study.json says, if it is there."""
    return StudyFolder(study.path).study() if (study.path / STUDY).is_file() else {}


# --- facts and notes


def _facts(study: Study, said: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    runs = study.runs
    own = runs[~runs["reference"]] if not runs["reference"].all() else runs
    classes = said.get("classes")
    yield (
        "Data",
        f"{values_of(own, 'data')}, {values_of(own, 'image_size')} px"
        + (f", {plural(len(classes), 'class')}" if isinstance(classes, list) else ""),
    )
    yield (
        "Networks",
        (
            f"{plural(len(study.steps), 'network')} of the {label(regime_of(runs))} regime: base width "
            f"{values_of(own, 'width')}, depth ×{values_of(own, 'depth')}, stem stride {values_of(own, 'stem_stride')}"
        ),
    )
    training = [f"recipe {values_of(own, 'recipe')}", f"{values_of(own, 'epochs')} epochs"]
    for column, words_for in (("optimizer", "optimizer {}"), ("batch_size", "batches of {}")):
        known = own.dropna(subset=[column])
        training += [words_for.format(values_of(known, column))] if len(known) else []
    yield "Training", ", ".join(training)
    yield "Seeds", ", ".join(str(seed) for seed in sorted(own["seed"].unique()))
    yield "Runs", counted(runs, study.missing)[0]
    started = sorted(str(day)[:10] for day in runs["started"].dropna())
    if started:
        yield "Trained", " to ".join(dict.fromkeys((started[0], started[-1])))
    if runs["device_name"].notna().any():
        yield "Machine", values_of(runs.dropna(subset=["device_name"]), "device_name")


def _notes(study: Study, diagrams: bool) -> Iterable[str]:
    """What a reader must know so as not to read too much into the figures."""
    runs = study.runs
    if (runs["status"] != "done").any():
        yield "No mean and no difference has a failed run in it; the table of runs says why each of them failed."
    if runs.groupby("step")["seed"].nunique().max() == 1:
        yield "One seed: how far another one would lie from it is unknown, and a small difference may be noise."
    own = runs[~runs["reference"]] if not runs["reference"].all() else runs
    small = []
    if own["width"].dropna().astype(float).max() < FULL_WIDTH:
        small.append(f"base width {values_of(own, 'width')} instead of {FULL_WIDTH}")
    if own["image_size"].astype(float).max() < FULL_SIZE:
        small.append(f"images of {values_of(own, 'image_size')} px instead of {FULL_SIZE}")
    if small:
        cpu = ", trained on CPUs" if set(runs["device"].dropna()) == {"cpu"} else ""
        yield (
            f"A small study: {' and '.join(small)}, {values_of(own, 'epochs')} epochs{cpu}. What holds here need not "
            "hold at the paper's size."
        )
    if study.question.cumulative and study.agreement.rungs > 1:
        yield f"Kendall's tau with the paper's gains {study.agreement}."
    if diagrams and runs["match"].notna().any():
        yield "Diagrams, layers and receptive fields show the networks before they were rescaled."
    dirty = int((runs["dirty"].astype(str) == "True").sum())
    if dirty:
        yield f"{plural(dirty, 'run')} made by code with uncommitted changes, which its git commit does not bring back."
    if study.curves.empty:
        yield "There are no learning curves: the tables of the study were kept, its store was not."


# --- tables


def _tables(study: Figures, sections: Sequence[Section]) -> Iterable[Table]:
    links = {section.step: section.id for section in sections}
    if len(study.effects):
        effects = readable(study.effects)
        yield Table(
            "effects",
            "Effects",
            tuple(map(str, effects.columns)),
            tuple(map(tuple, effects.to_numpy().tolist())),
            _csv(study.effects),
            links,
        )
    yield _networks_table(study, links)
    if isinstance(study, ForeignStudy):
        runs = study.found.runs
        known = {str(name): (str(name), "") for name in runs}
    elif isinstance(study, Study):
        runs = study.runs
        metrics = {metric.key: (f"{metric.short} %", ".2f") for metric in study.task.metrics}
        places = ((metrics if name == "score" else {name: form}) for name, form in RUN_COLUMNS.items())
        forms = {name: form for some in places for name, form in some.items()}
        known = {name: form for name, form in forms.items() if name in runs and runs[name].notna().any()}
    rows = (tuple(_cell(run[name], form) for name, (_, form) in known.items()) for run in runs.to_dict("records"))
    yield Table("runs", "Runs", tuple(title for title, _ in known.values()), tuple(rows), _csv(runs), links)
    if isinstance(study, Study):
        yield _environment(runs)


def _networks_table(study: Figures, links: Mapping[str, str]) -> Table:
    """The score over seeds, and cost as far as it is known."""
    known = isinstance(study, Study)
    steps = {row["step"]: row for row in study.steps.to_dict("records")} if isinstance(study, Study) else {}
    costs = {row["step"]: row for row in study.costs.to_dict("records")} if isinstance(study, Study) else {}
    rows = []
    factor, unit = macs_unit(one.gmacs for one in study.networks)
    for one in study.networks:
        name, sample = one.cell.name, one.sample
        step, cost = (table.get(name, {}) for table in (steps, costs))
        low, high = (number(step.get(end), ".2f") for end in ("score_low", "score_high"))
        rows.append(
            {
                "network": name,
                study.metric_short: number(sample.mean, ".4g" if not known else ".2f"),
                "± std": number(sample.variance**0.5, ".2g" if not known else ".2f"),
                "95 % interval": f"{low} to {high}" if low else "",
                "paper": number(study.printed.get(name), ".1f"),
                "seeds": str(sample.count),
                "failed": str(sample.failed or ""),
                "missing": str(one.missing or ""),
                unit: number(factor * one.gmacs, ".4g"),
                "params, M": number(one.params / 1e6, ".4g"),
                "activations, M": number(_millions(cost.get("activations")), ".4g"),
                "rescaled by": number(step.get("match_factor"), ".3f"),
                "training, img/s": number(cost.get("images_per_second"), ".0f"),
                f"backbone, {unit}": number(factor * cost.get("backbone_gmacs", math.nan), ".4g"),
                "seconds a run": number(cost.get("seconds"), ".0f"),
            }
        )
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = pd.DataFrame(rows)[columns]
    cells = tuple(map(tuple, table.to_numpy().tolist()))
    if isinstance(study, Study):
        more = ["step", *(name for name in study.costs if name not in study.steps)]
        table = study.steps.merge(study.costs[more], on="step")
    return Table("networks", f"Networks: {study.score} over seeds, and cost", tuple(columns), cells, _csv(table), links)


def _millions(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value) / 1e6


def _cell(value: Any, form: str) -> str:
    if pd.isna(value):
        return ""
    return format(int(value) if form == "d" else float(value), form) if form else str(value)


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")


def _environment(runs: pd.DataFrame) -> Table:
    """Where and by what the runs were made: every value, and of how many runs, where there are several."""
    rows = []
    for column, name in ENVIRONMENT.items():
        counts = runs[column].dropna().astype(str).value_counts(sort=False) if column in runs else pd.Series(dtype=int)
        several = len(counts) > 1
        values = [
            f"{value} ({plural(int(count), 'run')})" if several else str(value) for value, count in counts.items()
        ]
        if values:
            rows.append((name, "; ".join(values)))
    return Table("environment", "What the runs were made with", ("", "value"), tuple(rows))
