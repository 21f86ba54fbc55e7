"""A study from beginning to end, for notebooks and for the command line: train it, then read and draw it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roadmap.analysis.figure import save_trajectory
from roadmap.analysis.study import Study, load_study
from roadmap.study.display import Display, PlainDisplay
from roadmap.study.runner import Prepared, default_folder, prepare, run_study
from roadmap.study.spec import load_spec


def run(study: str | Path | None = None, out: str | Path | None = None, resume: bool = False, **settings: Any) -> Study:
    """Train a study and return its results; ``roadmap run`` from Python.

    ``study`` is a study's YAML file; ``settings`` are fields of `StudySpec`, such as ``upto="large_kernel"``,
    ``seeds=3``, ``data="folder"``, ``data_dir="images"``. Results go to ``out``, by default ``results/NAME``.
    Raises `RoadmapError` with one sentence where something asked for cannot be.
    """
    spec = load_spec(Path(study) if study else None, **settings)
    words = ", ".join(f"{name}={value!r}" for name, value in ({"study": study, "out": out} | settings).items() if value)
    folder = Path(out) if out else default_folder(spec)
    return carry_out(prepare(spec), folder, resume, PlainDisplay(), f"roadmap.run({words})")


def carry_out(
    prepared: Prepared, folder: Path, resume: bool, display: Display, command: str, paper: bool = False
) -> Study:
    """Train a prepared study into ``folder``, draw its trajectory, and return its results. Raises as `run_study`."""
    run_study(prepared, folder, resume, display, command)
    study = load_study(folder)
    save_trajectory(study.runs, folder, paper=paper)
    return study
