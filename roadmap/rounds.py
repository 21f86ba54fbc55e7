"""A study that grows by seeds until its effects are known: rounds of runs, with a look at the results after each.

The state of such a study is its stored runs alone, see `roadmap.results.sequential`: a start after a kill trains what
the last round lacks, looks again, and goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from roadmap.formatting import plural
from roadmap.planning.runs import steps_of
from roadmap.planning.seeds import FIRST, extended, parse_budget
from roadmap.planning.spec import StudySpec
from roadmap.results.effects import Standing
from roadmap.results.sequential import DECIDED, EXHAUSTED, SETTLED, UNTESTABLE
from roadmap.results.study import Study, load_study
from roadmap.running.display import Display
from roadmap.running.prepared import Prepared
from roadmap.running.progress import clock
from roadmap.running.runner import run_study
from roadmap.store.folder import STUDY, StudyFolder
from roadmap.store.records import DamagedError
from roadmap.store.store import Store

#: Effects are named up to this many.
NAMED = 6


def run_rounds(
    study: Prepared,
    folder: Path,
    store: Store,
    resume: bool,
    display: Display,
    command: str,
    retrain: str | None = None,
) -> None:
    """Train a study, then more seeds of its networks, until every effect is closed or the budget is used up.

    Each round fills the engine's slots with the runs that close effects soonest. A failed run is tried again by the
    next start, not by the next round. Raises as `run_study`.
    """
    spec, place = study.spec, StudyFolder(folder)
    budget = math.inf if spec.budget is None else parse_budget(spec.budget)
    wanted = _begun(study, place)
    tried: set[str] = set()
    while True:
        grown = _with_seeds(study, wanted)
        left = budget - _spent(place, store)
        slots = run_study(grown, folder, store, resume, display, command, retrain, tried=tried, seconds=left)
        tried |= {run.signature for run in grown.trainings}
        retrain = None
        results = load_study(folder)
        found = results.standing(slots)
        left = budget - _spent(place, store)
        going_on = bool(found.next) and left > 0
        display.say(_told(results, found, spec, slots, going_on))
        if not going_on:
            return
        if found.forecast is not None:
            wanted = wanted + Counter(twin for step in found.next for twin in _twins(study, step))


def _begun(study: Prepared, place: StudyFolder) -> Counter[str]:
    """How many seeds of each network the study consists of: those it begins with, and those of earlier rounds."""
    wanted = Counter(run.step for run in study.runs)
    if (place.folder / STUDY).is_file():
        for run in place.study()["runs"]:
            seeds = _seeds(study, study.spec.most_seeds)
            if run.get("step") in wanted and run.get("seed") in seeds:
                wanted[run["step"]] = max(wanted[run["step"]], seeds.index(run["seed"]) + 1)
    return wanted


def _seeds(study: Prepared, count: int) -> Sequence[int]:
    return extended(study.spec.seeds, count)


def _with_seeds(study: Prepared, wanted: Mapping[str, int]) -> Prepared:
    """The study with this many seeds of each network."""
    first = {run.step: run for run in reversed(study.runs)}
    runs = [
        dataclasses.replace(first[step], seed=seed)
        for step in steps_of(study.runs)
        for seed in _seeds(study, wanted[step])
    ]
    return dataclasses.replace(study, runs=runs)


def _twins(study: Prepared, step: str) -> list[str]:
    """The networks that are the same training as this one, itself among them."""
    signatures = {run.signature for run in study.runs if run.step == step}
    return steps_of([run for run in study.runs if run.signature in signatures])


def _spent(place: StudyFolder, store: Store) -> float:
    """Seconds in which at least one of the study's runs was at work, since it was begun, as their records say."""
    said = place.study() if (place.folder / STUDY).is_file() else {}
    if "begun" not in said:
        return 0.0
    end, seconds = datetime.fromisoformat(said["begun"]), 0.0
    spans = []
    for signature in {run["signature"] for run in said["runs"]}:
        with contextlib.suppress(DamagedError):
            if record := store.record(signature):
                times = [datetime.fromisoformat(record["origin"][name]) for name in ("started", "finished")]
                spans += [times] if times[0] >= end else []
    for started, finished in sorted(spans):
        seconds += max(0.0, (finished - max(started, end)).total_seconds())
        end = max(end, finished)
    return seconds


def _told(results: Study, found: Standing, spec: StudySpec, slots: int, going_on: bool) -> str:
    """What a look found: which effects are closed and why, which are open, and what it would still take."""
    after = f"after {plural(results.runs['signature'].nunique(), 'run')}"
    if found.forecast is None:
        text = f"{after}: no look yet, since not every network has {FIRST} seeds"
        return text if going_on else f"{text}; {_budget(spec)}"
    width = f"±{spec.until_resolved:g} points"
    kinds = {
        DECIDED: "decided",
        SETTLED: f"known to {width}",
        EXHAUSTED: f"not resolved with {spec.most_seeds} seeds",
        UNTESTABLE: "untestable, since a run failed",
        None: "open",
    }
    groups = []
    for why, words in kinds.items():
        these = [(name, verdict) for name, (verdict, closed) in found.effects.items() if closed == why]
        names = [f"{name} {verdict}" if why == DECIDED else name for name, verdict in these]
        if names:
            more = f", {len(names) - NAMED} more" if len(names) > NAMED else ""
            groups.append(f"{len(names)} {words} ({', '.join(names[:NAMED])}{more})")
    text = f"{after}, of {plural(len(found.effects), 'effect')}: {'; '.join(groups)}"
    if not found.next:
        return f"{text}: every effect is closed"
    seconds = results.runs["wall_seconds"].mean() * math.ceil(found.forecast / slots)
    waiting = sum(why is None for _, why in found.effects.values())
    text += f"; about {plural(found.forecast, 'more run')} would close {'it' if waiting == 1 else 'them'}"
    text += f", {clock(seconds)}"
    return f"{text}; next are {len(found.next)}" if going_on else f"{text}; {_budget(spec)}"


def _budget(spec: StudySpec) -> str:
    return f"the budget of {spec.budget} is used up, and a larger --budget goes on from here"
