"""The folder of one study: what was asked, and tables and figures that are made again from the store at will.

::

    FOLDER/study.json                       what was asked, where its store is, and its runs in order
    FOLDER/trajectory.csv                   a row a run
    FOLDER/curves.csv                       a row a run and epoch
    FOLDER/effects.csv                      a row an effect
    FOLDER/trajectory.png, .svg, .pdf       the figure; of other designs ablation.png, .svg, .pdf
    FOLDER/logs/                            what a logger wrote, where one was asked for
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from roadmap.checks import RoadmapError, cause
from roadmap.files import STUDY_MARK as STUDY
from roadmap.files import write_text
from roadmap.store.records import DamagedError, columns_of, csv_text, read_json, row_of
from roadmap.store.store import Store

FORMAT = 2
TABLE = "trajectory.csv"


class StudyFolder:
    """What one study asked for, in a folder of its own; its runs are in the store."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def check(self, signatures: set[str], store: Store, resume: bool) -> None:
        """Raise `RoadmapError` unless the folder can be that of a study with these runs.

        A study that was begun here goes on, and may have grown by seeds or steps; another one's folder, or one that
        holds anything else, is refused. With ``resume`` there must be a study.
        """
        try:
            present = sorted(entry.name for entry in self.folder.iterdir()) if self.folder.exists() else []
        except OSError as error:
            raise RoadmapError(f"{self.folder} cannot be used as output folder: {cause(error)}") from None
        nearest = next(path for path in self.folder.absolute().parents if path.exists())
        if not nearest.is_dir():
            raise RoadmapError(f"{self.folder} cannot be used as output folder: {nearest.name} is a file, not a folder")
        if STUDY in present:
            if not {run["signature"] for run in self.study()["runs"]} <= signatures:
                raise RoadmapError(f"{self.folder} holds another study's results: choose another --out")
            return
        of_store = [self.folder / name in (store.folder, *store.folder.parents) for name in present]
        if not all(of_store) and self.folder.resolve() != store.folder.resolve():
            raise RoadmapError(f"{self.folder} is not empty and holds no study: choose another --out")
        if resume:
            raise RoadmapError(
                f"{self.folder} holds no study to resume: leave out --resume, or name its folder with --out"
            )

    def begin(self, study: dict[str, Any], store: Store) -> None:
        """Write down what a study asks for, as plain values with its ``runs``. `check` was called before."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            where = os.path.relpath(store.folder.resolve(), self.folder.resolve())
            facts = {"format": FORMAT, "store": where, "begun": self._begun()}
            write_text(self.folder / STUDY, json.dumps(facts | study, indent=1) + "\n")
        except (OSError, ValueError) as error:  # ValueError: another drive, on Windows
            raise RoadmapError(f"{self.folder} cannot be written: {cause(error)}") from None

    def _begun(self) -> str:
        """When the study was begun: as study.json has it, else now."""
        begun = self.study().get("begun") if (self.folder / STUDY).is_file() else None
        return begun or datetime.now(timezone.utc).isoformat(timespec="seconds")

    def study(self) -> dict[str, Any]:
        """What was asked. Raises `RoadmapError` where the folder holds no study, or one of another format."""
        if not self.folder.is_dir():
            raise RoadmapError(f"there is no folder {self.folder}")
        if not (self.folder / STUDY).is_file():
            raise RoadmapError(
                f"{self.folder} holds no study (no {STUDY}): name the folder that roadmap run wrote its results to"
            )
        content = read_json(self.folder / STUDY, FORMAT)
        runs = content.get("runs")
        if not isinstance(content.get("store"), str) or not isinstance(runs, list):
            raise RoadmapError(f"{self.folder / STUDY} is damaged: it has no store or no runs")
        if not all(isinstance(run, dict) and re.fullmatch("[0-9a-f]{16}", str(run.get("signature"))) for run in runs):
            raise RoadmapError(f"{self.folder / STUDY} is damaged: it has a run without a signature")
        return content

    @property
    def store(self) -> Store:
        """The store that the study's runs are in."""
        return Store(self.folder / self.study()["store"])

    def rows(self) -> list[dict[str, Any]]:
        """One flat mapping a run of the study that is finished or failed, in the study's order."""
        study = self.study()
        store = Store(self.folder / study["store"])
        rows = []
        for run in study["runs"]:
            try:
                record = store.record(run["signature"])
            except DamagedError:  # as if it were not there: the next start trains it again
                continue
            if record is not None:
                # The labels are this study's: another one may have asked for the same training by another name.
                record["run"] |= run
                rows.append(row_of(record))
        return rows

    def write_table(self) -> Path:
        """Write trajectory.csv from the runs in the store."""
        rows = self.rows()
        write_text(self.folder / TABLE, csv_text(rows, columns_of(rows)))
        return self.folder / TABLE
