"""A study from beginning to end, for notebooks and for the command line: train it, then read and draw it."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.phases import listening, phase
from roadmap.planning.keywords import Settings, with_settings
from roadmap.planning.reading import load_spec, settings_of
from roadmap.planning.spec import StudySpec
from roadmap.results.study import Study, load_study, save_results
from roadmap.rounds import run_rounds
from roadmap.running.display import Display, display_in_python
from roadmap.running.prepared import Prepared
from roadmap.running.preparing import prepare
from roadmap.running.runner import default_folder, run_study
from roadmap.store.store import Store, store_at

if TYPE_CHECKING:
    from typing_extensions import Unpack


@with_settings
def run(
    study: str | Path | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    resume: bool = False,
    **settings: Unpack[Settings],
) -> Study:
    """Train a study and return its results; ``roadmap run`` from Python.

    ``study`` is a study's YAML file; settings replace those in it, such as ``seeds=3``, ``upto="large_kernel"``,
    ``data="folder"``, ``data_dir="images"``, ``mixup=0.8``. Tables and figure go to ``out``, by default
    ``results/NAME``; runs go to the ``store`` that all studies share, by default ``$ROADMAP_STORE``, else
    ``results/store``. With ``resume`` a study that was begun in ``out`` is continued, and no new one started.
    Raises `RoadmapError`, with one sentence, for a setting that is unknown or impossible.
    """
    spec = load_spec(Path(study) if study else None, **settings)
    place = store_at(store)
    with closing(display_in_python()) as display, listening(display.doing):
        prepared = prepare(spec, place)
        for remark in prepared.remarks:
            display.say(remark)
        folder = Path(out) if out else default_folder(prepared)
        return execute(prepared, folder, place, display, command_of(spec, out, store), resume)


def command_of(spec: StudySpec, out: str | Path | None = None, store: str | Path | None = None) -> str:
    """The call of `run` that asks for the same study: every setting that is not as by default, wherever it was read."""
    given = settings_of(dataclasses.asdict(spec))
    given |= {name: str(place) for name, place in (("out", out), ("store", store)) if place}
    words = (f"{'from_' if name == 'from' else name}={_plain(value)!r}" for name, value in given.items())
    return f"roadmap.run({', '.join(words)})"


def _plain(value: Any) -> Any:
    """A value whose ``repr`` is Python that makes it again: NumPy's floats as Python's."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return float(value) if isinstance(value, float) else value


def execute(
    prepared: Prepared,
    folder: Path,
    store: Store,
    display: Display,
    command: str,
    resume: bool = False,
    retrain: str | None = None,
    paper: bool = False,
) -> Study:
    """Train a prepared study, draw its figure into ``folder``, and return its results. Raises as `run_study`."""
    train = run_study if prepared.spec.until_resolved is None else run_rounds
    train(prepared, folder, store, resume, display, command, retrain)
    with phase("reading the results"):
        study = load_study(folder)
    with phase("estimating the effects and drawing the figure"):
        save_results(study, folder, paper=paper)
    return study
