"""Tables of runs from elsewhere (W&B, MLflow, scripts of one's own), and the effects of a question on them."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roadmap.checks import RoadmapError, check_number, nearest
from roadmap.questions import default_question, question_named
from roadmap.questions.question import Cell, Question
from roadmap.results.effects import TrainedNetwork, effects_table, measure
from roadmap.results.estimation import Sample, default_matters

#: What trackers call the state of a run. Whatever is not listed is taken for a run that did not end well.
ENDED_WELL = ("finished", "done", "completed", "complete", "success", "succeeded", "ok")
NOT_YET = ("running", "pending", "queued", "scheduled", "preempting", "initializing")
STATES = ("status", "state")
TRUE, FALSE = ("true", "1", "1.0", "yes", "on"), ("false", "0", "0.0", "no", "off", "")
#: Most names in one remark.
NAMED = 3


@dataclass(frozen=True)
class ForeignRuns:
    """A table of runs from elsewhere, understood: the ``question`` with its ``facts``, the ``networks`` in the order of
    their first appearance, a tidy table of ``runs`` (step, seed, status, score), ``remarks`` on what was left out or
    is uneven, and the smallest difference that ``matters`` in units of the metric."""

    question: type[Question]
    facts: Mapping[str, Any]
    networks: Sequence[TrainedNetwork]
    runs: pd.DataFrame
    remarks: Sequence[str]
    matters: float
    metric: str
    lower_is_better: bool


def effects(
    table: pd.DataFrame,
    design: str = default_question().name,
    *,
    metric: str = "top1",
    step: str = "step",
    seed: str | None = "seed",
    against: str | None = None,
    baseline: str | None = None,
    steps: str | Sequence[str] | None = None,
    lower_is_better: bool = False,
    matters: float | None = None,
) -> pd.DataFrame:
    """What every step is worth, from anybody's table of runs: one row an effect, as in `Study.effects`.

    Parameters
    ----------
    table
        One row a run, from any source. Rows whose metric is missing or infinite, or whose column ``status`` or
        ``state`` says that they did not end well, are failed runs: their effects have no verdict.
    design
        The question, by default a ladder: `roadmap.questions`.
    metric, step, seed
        Names of the columns with the score, the network's name, and the seed (None: every row is a seed of its own).
        The last part of a nested name is enough: ``val_acc`` finds ``metrics.val_acc`` or ``summary/val_acc``.
    against
        For ladder and baseline: the column naming what each network is compared with; by default the network before, or
        the ``baseline``.
    baseline
        The network that all others are compared with, where the question has one; by default the first.
    steps
        For the other designs: the column with the names of the steps in a network, joined by ``+`` (empty: none), or a
        list of boolean columns, one a step.
    lower_is_better
        Whether a smaller score is a gain, as of a loss.
    matters
        The smallest difference that matters, in the metric's units. By default 0.5 for scores in per cent, 0.005 for
        scores between 0 and 1, and none for others.

    Returns
    -------
    DataFrame
        The table of effects; its ``attrs`` hold ``remarks`` and ``matters``. Every remark is a warning, too.

    Raises
    ------
    RoadmapError
        For an unknown or ambiguous column, text in the metric, two runs of one network and seed, a network whose rows
        contradict each other, and networks that are not those of the question.

    Examples
    --------
    >>> import pandas, roadmap
    >>> runs = pandas.DataFrame({"step": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "top1": [70.0, 70.4, 75.1, 74.9]})
    >>> roadmap.effects(runs)["verdict"].tolist()
    ['gain']
    """
    found = read_runs(
        table,
        design,
        metric=metric,
        step=step,
        seed=seed,
        against=against,
        baseline=baseline,
        steps=steps,
        lower_is_better=lower_is_better,
        matters=matters,
    )
    for remark in found.remarks:
        warnings.warn(remark, stacklevel=2)
    result = effects_of_foreign(found)
    result.attrs.update(remarks=list(found.remarks), matters=found.matters)
    return result


def effects_of_foreign(found: ForeignRuns) -> pd.DataFrame:
    """The table of effects, without the columns of cost, which such a table does not know."""
    measured = measure(found.question, found.facts, found.networks, found.matters, found.lower_is_better)
    return effects_table(measured).drop(columns=["gmacs", "params"])


def read_runs(
    table: pd.DataFrame,
    design: str = default_question().name,
    *,
    metric: str = "top1",
    step: str = "step",
    seed: str | None = "seed",
    against: str | None = None,
    baseline: str | None = None,
    steps: str | Sequence[str] | None = None,
    lower_is_better: bool = False,
    matters: float | None = None,
) -> ForeignRuns:
    """Understand a table of runs; arguments and errors as of `effects`."""
    question = question_named(design)
    if not isinstance(table, pd.DataFrame):
        raise RoadmapError(f"the table of runs is a {type(table).__name__}, but must be a pandas DataFrame")
    remarks: list[str] = []
    table = _flattened(table.dropna(how="all"))
    if not len(table):
        raise RoadmapError("the table has no runs")
    factors = [steps] if isinstance(steps, str) else list(steps or ())
    columns = [_column(table, one) for one in factors]
    combined = not isinstance(steps, str) and bool(columns)
    table = table.reset_index(drop=True)
    chosen = dict(enumerate(_steps_of(table, columns, combined))) if columns else {}
    rows = pd.DataFrame({"score": _scores(table, _column(table, metric)), "status": _states(table)}, index=table.index)
    rows["step"] = (
        pd.Series({index: "+".join(taken) or "none" for index, taken in chosen.items()})
        if combined
        else _names(table, _column(table, step))
    )
    rows["seed"] = table[_column(table, seed)] if seed is not None else rows.groupby("step").cumcount()
    if chosen:
        rows["steps"] = pd.Series(chosen)
    if against is not None:
        rows["against"] = _names(table, _column(table, against))
    rows = _without(rows, rows["step"].isna(), "without the name of a network", remarks)
    rows = _without(rows, rows["status"] == "not yet", "still at work", remarks)
    if not len(rows):
        raise RoadmapError("the table has no run that ended")
    failed = (rows["status"] != "done") | ~np.isfinite(rows["score"])
    rows["status"] = np.where(failed, "failed", "done")
    if failed.any():
        named = [f"'{one}' {int(count)}" for one, count in rows.loc[failed, "step"].value_counts(sort=False).items()]
        remarks.append(f"{_runs(int(failed.sum()))} failed, and their effects have no verdict: {_listed(named)}")
    _check_duplicates(rows)
    networks = [_network(str(name), group) for name, group in rows.groupby("step", sort=False)]
    cells = question.compared([one.cell for one in networks], baseline)
    networks = [TrainedNetwork(cell, one.sample) for cell, one in zip(cells, networks, strict=True)]
    if chosen:
        _check_twins(cells)
    if len(networks) < 2:
        raise RoadmapError(f"the table has one network, '{networks[0].cell.name}': effects need at least two")
    facts = question.facts_of(cells, baseline)
    counts = {one.cell.name: one.sample.count + one.sample.failed for one in networks}
    usual = max(counts.values(), key=[*counts.values()].count)
    uneven = [f"'{name}' {count}" for name, count in counts.items() if count != usual]
    if uneven:
        remarks.append(f"most networks have {_runs(usual)}, but others have more or fewer: {_listed(uneven)}")
    absent = [one.effect for one in question.contrasts(cells, facts) if not one.weights]
    if absent:
        remarks.append(
            f"{len(absent)} effects cannot be told, since their networks are not in the table: {_listed(absent)}"
        )
    smallest = _matters(rows["score"], lower_is_better) if matters is None else matters
    check_number("matters", smallest, 0, math.inf)
    return ForeignRuns(
        question, facts, networks, rows.reset_index(drop=True), remarks, smallest, metric, lower_is_better
    )


def read_table(path: str | Path) -> pd.DataFrame:
    """The table of runs in a CSV or Parquet file. Raises `RoadmapError` where it cannot be read."""
    path = Path(path)
    if not path.is_file():
        raise RoadmapError(f"{path} is not a file: name a table of runs, as CSV or Parquet")
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        return pd.read_parquet(path) if parquet else pd.read_csv(path, skipinitialspace=True)
    except ImportError:
        raise RoadmapError(
            f"{path} is Parquet, which needs the package pyarrow: pip install 'roadmap-ablation[export]'"
        ) from None
    except (OSError, ValueError) as error:
        reason = "it cannot be opened" if isinstance(error, OSError) else "it is neither CSV nor Parquet"
        raise RoadmapError(f"{path} cannot be read as a table of runs: {reason}") from None


# --- columns


def _flattened(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of mappings, as the W&B API exports its summary and config, spread into ``name.key``."""
    for name in table.columns:
        values = table[name].dropna()
        if not len(values) or not values.map(lambda value: isinstance(value, dict) or str(value)[:1] == "{").all():
            continue
        parsed = table[name].map(_mapping)
        if parsed.dropna().map(lambda value: isinstance(value, dict)).all():
            spread = pd.json_normalize([value or {} for value in parsed]).add_prefix(f"{name}.").set_index(table.index)
            table = pd.concat([table.drop(columns=name), spread], axis=1)
    return table


def _mapping(value: Any) -> Any:
    """A mapping, from itself or from its JSON or Python text."""
    if isinstance(value, dict) or not isinstance(value, str):
        return value if isinstance(value, dict) else None
    for parse in (json.loads, lambda text: ast.literal_eval(re.sub(r"\b(nan|inf)\b", "None", text))):
        try:
            return parse(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return value


def _column(table: pd.DataFrame, name: str) -> Hashable:
    """The column of that name, or the only one whose nested name ends in it."""
    columns: list[Hashable] = [*table.columns]
    names = {".".join(map(str, one)) if isinstance(one, tuple) else str(one): one for one in columns}
    if name in names:
        return names[name]
    ends = [full for full in names if re.split(r"[./]", full)[-1] == name or full.lower() == str(name).lower()]
    if len(ends) == 1:
        return names[ends[0]]
    if ends:
        raise RoadmapError(f"the table has several columns for '{name}', {', '.join(ends)}: give the full name")
    raise RoadmapError(
        f"the table has no column '{name}'{nearest(str(name), list(names))}; it has {', '.join(list(names)[:20])}"
    )


def _scores(table: pd.DataFrame, column: Hashable) -> pd.Series:
    values = table[column]
    scores = pd.to_numeric(values, errors="coerce")
    text = (
        scores.isna() & values.notna() & ~values.astype(str).str.strip().str.lower().isin(["", "nan", "none", "null"])
    )
    if text.any():
        raise RoadmapError(
            f"the metric {column} is {str(values[text].iloc[0])!r} in row {_row_number(table, text)}, "
            "but must be a number"
        )
    return scores.astype(float)


def _row_number(table: pd.DataFrame, which: pd.Series) -> int:
    return int(np.flatnonzero(which.to_numpy())[0]) + 1


def _states(table: pd.DataFrame) -> pd.Series:
    """done, failed or not yet, by a column called status or state."""
    named = [name for name in table.columns if str(name).lower() in STATES]
    if not named:
        return pd.Series("done", index=table.index)

    def state(value: Any) -> str:
        word = str(value).strip().lower()
        return "not yet" if word in NOT_YET else "done" if word in ENDED_WELL or pd.isna(value) else "failed"

    return table[named[0]].map(state)


def _names(table: pd.DataFrame, column: Hashable) -> pd.Series:
    """A column of names, as text; whole numbers without a fraction."""

    def name(value: Any) -> str | None:
        if pd.isna(value) or not str(value).strip():
            return None
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()

    return table[column].map(name).astype(object)


def _steps_of(table: pd.DataFrame, columns: Sequence[Hashable], combined: bool) -> list[tuple[str, ...]]:
    """The steps in every row's network: from one column of names joined by +, or from boolean columns."""
    if not combined:
        texts = table[columns[0]].map(lambda value: "" if pd.isna(value) else str(value))
        return [tuple(word.strip() for word in text.split("+") if word.strip()) for text in texts]
    flags = {}
    for column in columns:
        words = table[column].map(lambda value: "" if pd.isna(value) else str(value).strip().lower())
        wrong = ~words.isin([*TRUE, *FALSE])
        if wrong.any():
            raise RoadmapError(
                f"the column {column} is '{table[column][wrong].iloc[0]}' in row {_row_number(table, wrong)}, but "
                "must be true or false"
            )
        flags[str(column)] = words.isin(TRUE)
    return [tuple(name for name, flag in flags.items() if flag.iloc[row]) for row in range(len(table))]


# --- rows


def _without(rows: pd.DataFrame, which: pd.Series, what: str, remarks: list[str]) -> pd.DataFrame:
    if which.any():
        remarks.append(f"left out: {_runs(int(which.sum()))} {what}")
    return rows[~which]


def _check_duplicates(rows: pd.DataFrame) -> None:
    known = rows["seed"].notna()
    for step, seed in rows.loc[known & rows.duplicated(["step", "seed"]), ["step", "seed"]].to_numpy():
        raise RoadmapError(
            f"the table has two runs of '{step}' with seed {seed}: give each run its own seed, or leave one out"
        )


def _network(name: str, rows: pd.DataFrame) -> TrainedNetwork:
    for column in ("steps", "against"):
        if column in rows and rows[column].dropna().nunique() > 1:
            one, other = rows[column].dropna().unique()[:2]
            shown = [" + ".join(value) if isinstance(value, tuple) else str(value) for value in (one, other)]
            raise RoadmapError(f"the rows of '{name}' contradict each other in {column}: {' and '.join(shown)}")
    done = rows.loc[rows["status"] == "done", "score"]
    against = [str(one) for one in rows["against"].dropna()] if "against" in rows else []
    steps = rows["steps"].iloc[0] if "steps" in rows else ()
    cell = Cell(name, steps, against=against[0] if against else None, done=len(done))
    return TrainedNetwork(cell, Sample.of(done, failed=len(rows) - len(done)))


def _check_twins(cells: Sequence[Cell]) -> None:
    names: dict[frozenset[str], str] = {}
    for cell in cells:
        other = names.setdefault(frozenset(cell.steps), cell.name)
        if other != cell.name:
            steps = " + ".join(cell.steps) or "no steps"
            raise RoadmapError(f"'{other}' and '{cell.name}' are the same network, {steps}: give both one name")


def _matters(scores: pd.Series, lower_is_better: bool) -> float:
    known = scores[np.isfinite(scores)]
    if lower_is_better or not len(known) or not known.between(0, 100).all():
        return 0.0
    return default_matters(None) / (100 if known.max() <= 1 else 1)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names if len(names) <= NAMED else [*names[:NAMED], f"and {len(names) - NAMED} more"])
