"""Runs as a table for other programs and for papers: csv, parquet, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from roadmap.checks import RoadmapError, cause
from roadmap.files import whole_file, write_text
from roadmap.imports import is_installed
from roadmap.results.schema import RUNS, Column
from roadmap.store.records import COLUMNS, csv_text

#: Kinds of table, and the package that writes each.
KINDS = {"csv": None, "parquet": "pyarrow", "md": "tabulate", "latex": "tabulate"}
#: What is shown in text, where pages are narrow.
COMPACT = ("step", "seed", "status", "top1", "top5", "gmacs", "params", "epochs", "seconds", "signature")

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
        text = csv_text(rows, COLUMNS) if kind == "csv" else _text(rows, kind, _columns(rows, all_columns))
        if output is None:
            return text
        write_text(output, text)
    except OSError as error:
        raise RoadmapError(f"{output} cannot be written: {cause(error)}") from None
    return ""


def _columns(rows: list[dict[str, Any]], everything: bool) -> list[str]:
    """What is shown in text: of matched networks also what they were rescaled by."""
    matched = any(row["match"] for row in rows)
    return list(COLUMNS) if everything else [*COMPACT, *(["match", "match_factor"] if matched else [])]


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Every column has the same type whatever the runs are, and what is unknown is missing."""
    import pyarrow
    import pyarrow.parquet

    def kind(column: Column) -> Any:
        if column.is_whole:
            return pyarrow.int64()
        return pyarrow.float64() if column.is_number else pyarrow.bool_() if column.is_flag else pyarrow.string()

    schema = pyarrow.schema([(name, kind(column)) for name, column in RUNS.items()])
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
    return RUNS[name].is_whole or RUNS[name].is_number


def _cell(value: Any, name: str) -> str:
    if value is None:
        return ""
    if RUNS[name].is_number and isinstance(value, (int, float)):
        return format(value, DIGITS.get(name, ".6g"))
    return " ".join(str(value).split())


def _escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is; an underscore within a word means nothing to it."""
    return re.sub(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
