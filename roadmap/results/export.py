"""Runs as a table for other programs and for papers: csv, parquet, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from roadmap.checks import RoadmapError, cause
from roadmap.files import whole_file, write_text
from roadmap.imports import is_installed
from roadmap.results.schema import METRIC, RUNS, Column
from roadmap.store.records import columns_of, csv_text
from roadmap.tasks import default_task, task_named

#: Kinds of table, and the package that writes each.
KINDS = {"csv": None, "parquet": "pyarrow", "md": "tabulate", "latex": "tabulate"}
#: What is shown in text, where pages are narrow: before the metrics of the runs' tasks, and behind them.
COMPACT = ("step", "seed", "status"), ("gmacs", "params", "epochs", "seconds", "signature")

#: Digits in text; six where nothing is said.
DIGITS = {"top1": ".2f", "top5": ".2f", "gmacs": ".4g", "seconds": ".1f"}


def export(rows: Iterable[dict[str, Any]], kind: str, output: Path | None = None, all_columns: bool = False) -> str:
    """Runs, one mapping of `COLUMNS` each, as a table of a kind of `KINDS`: written to ``output``, or returned.

    csv and parquet have every column with all its digits; the others are text, with `COMPACT` columns unless
    ``all_columns``. Raises `RoadmapError` where a package is missing or the file cannot be written.
    """
    package = KINDS[kind]
    if package and not is_installed(package):
        raise RoadmapError(f"{kind} is written with {package}, which is not installed: pip install {package}")
    if kind == "parquet" and output is None:
        raise RoadmapError("parquet is a binary format: name the file to write with --out")
    rows = list(rows)
    try:
        if kind == "parquet" and output is not None:
            with whole_file(output) as temporary:
                _write_parquet(rows, temporary)
            return ""
        text = csv_text(rows, columns_of(rows)) if kind == "csv" else _text(rows, kind, _columns(rows, all_columns))
        if output is None:
            return text
        write_text(output, text)
    except OSError as error:
        raise RoadmapError(f"{output} cannot be written: {cause(error)}") from None
    return ""


def _columns(rows: list[dict[str, Any]], everything: bool) -> list[str]:
    """What is shown in text: of matched networks also what they were rescaled by."""
    matched = any(row["match"] for row in rows)
    if everything:
        return columns_of(rows)
    metrics = dict.fromkeys(one.key for row in rows for one in task_named(row["task"] or default_task().name).metrics)
    metrics = metrics or dict.fromkeys(one.key for one in default_task().metrics)
    return [*COMPACT[0], *metrics, *COMPACT[1], *(["match", "match_factor"] if matched else [])]


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Every column has the same type whatever the runs are, and what is unknown is missing."""
    import pyarrow
    import pyarrow.parquet

    def kind(column: Column) -> Any:
        if column.is_whole:
            return pyarrow.int64()
        return pyarrow.float64() if column.is_number else pyarrow.bool_() if column.is_flag else pyarrow.string()

    columns = {name: RUNS.get(name, METRIC) for name in dict.fromkeys((*RUNS, *columns_of(rows)))}
    schema = pyarrow.schema([(name, kind(column)) for name, column in columns.items()])
    try:
        table = pyarrow.Table.from_pylist(rows, schema)
    except (pyarrow.ArrowException, TypeError) as error:
        raise RoadmapError(f"a run of the store has text instead of a number: {error}") from None
    pyarrow.parquet.write_table(table, path)


def _text(rows: list[dict[str, Any]], kind: str, columns: list[str]) -> str:
    from tabulate import tabulate

    words = {name for name in columns if kind == "md" and not _counts(name)}
    shown = [[(name, _cell(row[name], name)) for name in columns] for row in rows]
    cells = [[_escape_markdown(cell) if name in words else cell for name, cell in row] for row in shown]
    sides = ["right" if _counts(name) else "left" for name in columns]
    form = {"md": "pipe", "latex": "latex_booktabs"}[kind]  # which escapes what LaTeX would take for its own
    return f"{tabulate(cells, columns, form, disable_numparse=True, colalign=sides if cells else None)}\n"


def _counts(name: str) -> bool:
    column = RUNS.get(name, METRIC)
    return column.is_whole or column.is_number


def _cell(value: Any, name: str) -> str:
    if value is None:
        return ""
    if RUNS.get(name, METRIC).is_number and isinstance(value, (int, float)):
        return format(value, DIGITS.get(name, ".6g" if name in RUNS else ".2f"))
    return " ".join(str(value).split())


def _escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is; an underscore within a word means nothing to it."""
    return re.sub(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
