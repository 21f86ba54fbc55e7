"""Runs a study: what its plan asks for and the store does not hold yet, on an engine, until every run is settled."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.files import in_words
from roadmap.phases import phase
from roadmap.processes import SIGNALS
from roadmap.provenance import code_record
from roadmap.running.display import Display
from roadmap.running.engines import Engine
from roadmap.running.prepared import Prepared
from roadmap.running.task import Outcome
from roadmap.running.work import record_failure
from roadmap.store.folder import StudyFolder
from roadmap.store.records import DEFAULT_STORE, DamagedError, is_settled
from roadmap.store.store import Store
from roadmap.training.spec import RunSpec

#: Seconds between two looks at the runs at work, and at those that another process has.
LOOK, LOOK_ELSEWHERE = 0.5, 2.0
#: Seconds to wait for the lock of a run that is to be recorded as failed: Slurm ends jobs slowly.
_PATIENCE = 60.0
#: Seconds between two writings of a growing table.
TABLE_INTERVAL = 5.0


class Stopped(KeyboardInterrupt):  # noqa: N818  (as KeyboardInterrupt)
    """The study was stopped by Ctrl-C or a signal; everything finished is kept, and what was at work is saved."""


def default_folder(study: Prepared) -> Path:
    """Where a study's table and figure go unless it is said."""
    return DEFAULT_STORE.parent / study.title


def run_study(
    study: Prepared,
    folder: Path,
    store: Store,
    resume: bool,
    display: Display,
    command: str,
    retrain: str | None = None,
    engine: Engine | None = None,
    tried: Collection[str] = (),
    seconds: float = math.inf,
) -> int:
    """Train the runs that the store does not hold yet, and write the table. ``command`` is kept with each run.

    A run that diverges, raises an error or does not fit into memory is recorded as failed, and the rest go on. One
    whose process died or that ran out of memory is tried again first, ``spec.retries`` times: out of memory at once
    with nothing beside it, otherwise so at the last try. ``retrain`` forgets ``failed`` or ``all`` runs of this study
    before. ``tried`` are signatures of runs that are over, failed or not, and are not told of again. No run is begun
    after this many ``seconds``; those at work are finished. Returns how many runs the engine works on at once.

    Raises `RoadmapError` where the store or folder cannot be used, and `Stopped` when stopped by Ctrl-C.
    """
    from roadmap.running.estimate import known_seconds

    place = StudyFolder(folder)
    place.check({run.signature for run in study.runs}, store, resume)
    store.begin()
    asked = dataclasses.asdict(study.spec) | {"fingerprint": study.data.fingerprint}
    content = {
        "spec": asked,
        "command": command,
        "classes": study.data.class_names,
        "test_images": len(study.data.test),
    }
    if study.ablation is not None:
        content["ablation"] = study.ablation.facts
    place.begin(content | {"runs": [run.to_dict() for run in study.runs]}, store)
    if retrain:
        _forget(study.trainings, store, retrain)
    with phase("preparing to train"):
        engine = engine or make_engine(study, store)
    try:
        with phase("preparing to train"):
            measured = known_seconds(study, store)
        _Round(study, place, store, engine, display, command, measured, tried, seconds).go()
    except OSError as error:
        raise RoadmapError(f"the study in {folder} had to stop: {in_words(error)}") from None
    return engine.slots


def make_engine(study: Prepared, store: Store) -> Engine:
    """The engine that a study asks for. Raises `RoadmapError` where its package is not installed."""
    if study.spec.engine == "ray":
        from roadmap.running.engines.ray import RayEngine

        return RayEngine(study)
    if study.spec.engine == "slurm":
        from roadmap.running.engines.slurm import SlurmEngine

        return SlurmEngine(study)
    from roadmap.running.engines.local import LocalEngine
    from roadmap.running.estimate import local_places

    return LocalEngine(study.data, local_places(study, store), study.spec.devices)


def _forget(runs: list[RunSpec], store: Store, which: str) -> None:
    for run in runs:
        try:
            record = store.record(run.signature)
        except DamagedError:
            record = None
        if record is not None and (which == "all" or record["result"]["status"] == "failed"):
            store.remove(run.signature)


class _Round:
    """One start of a study: hands out tasks and hears what becomes of them, until every run is settled."""

    def __init__(
        self,
        study: Prepared,
        folder: StudyFolder,
        store: Store,
        engine: Engine,
        display: Display,
        command: str,
        measured: dict[str, float],
        tried: Collection[str],
        seconds: float,
    ) -> None:
        self.study, self.folder, self.store, self.engine, self.display = study, folder, store, engine, display
        self.measured, self.tried, self.until = measured, tried, time.monotonic() + seconds
        self.origin = {
            "command": command,
            "engine": study.spec.engine,
            **code_record(),
        }
        self.log_folder = str((folder.folder / "logs").absolute())
        self.waiting: deque[RunSpec] = deque()
        self.alone: deque[RunSpec] = deque()  # to be tried again with nothing beside them
        self.exclusive: set[str] = set()  # those that are, or were
        self.running: dict[str, RunSpec] = {}
        self.elsewhere: dict[str, RunSpec] = {}  # another process is at them
        self.tries: Counter[str] = Counter()
        self.stops = 0
        self._looked = self._tabled = 0.0

    def go(self) -> None:
        study = self.study
        with self.display:
            petaflops = {run.signature: study.petaflops(run) for run in study.trainings}
            self.display.begin(study.trainings, petaflops, self.engine.slots, self.measured)
            for run in study.trainings:
                if run.signature in self.tried and self._settled(run, failed_too=True):
                    continue
                record = self._settled(run)
                if record is None:
                    self.waiting.append(run)
                else:
                    self.display.finish(run, record["result"], trained=False)
            if self.waiting:
                with self._hearing_signals(), self.engine:
                    self._work()
        self.folder.write_table()
        if self.stops:
            raise Stopped

    def _work(self) -> None:
        while self.waiting or self.alone or self.running or self.elsewhere:
            over = self.stops > 0 or time.monotonic() > self.until
            if over and not self.running:
                self.display.refresh([*self.waiting, *self.alone], len(self.elsewhere))
                return
            if not over:
                self._hand_out()
            for task, outcome in self.engine.wait(LOOK):
                self._hear(task.run, outcome)
            self._look()

    def _hand_out(self) -> None:
        if self.alone and not self.running:
            self.engine.end_idle()
            self._submit(self.alone.popleft())
        while self.waiting and len(self.running) < self.engine.slots:
            if self.alone or self.exclusive & self.running.keys():
                return
            self._submit(self.waiting.popleft())

    def _submit(self, run: RunSpec) -> None:
        if self.store.is_claimed(run.signature):
            self.elsewhere[run.signature] = run
            return
        self.tries[run.signature] += 1
        self.running[run.signature] = run
        task = self.study.task(run, self.store)
        seconds = self.measured.get(run.signature)
        origin = {**self.origin, "attempts": self.tries[run.signature], "estimated_seconds": seconds}
        spec = self.study.spec
        logs: dict[str, Any] = {
            "logger": spec.logger,
            "log_folder": self.log_folder,
            "study": self.folder.folder.absolute().name,
        }
        self.engine.submit(dataclasses.replace(task, origin=origin, **logs))
        self.display.start(run)

    def _hear(self, run: RunSpec, outcome: Outcome) -> None:
        del self.running[run.signature]
        if outcome.kind == "storage":
            self.engine.kill()
            raise RoadmapError(
                f"the study had to stop because {self.store.folder} cannot be written: {outcome.reason}; "
                "finished runs are kept, and the same command continues"
            )
        if outcome.kind == "finished":
            record = self._settled(run, failed_too=True)
            if record is None:
                raise RoadmapError(
                    f"run {run.signature} disappeared from {self.store.folder} while the study ran: start it again"
                )
            self.display.finish(run, record["result"], trained=True)
            if time.monotonic() - self._tabled > TABLE_INTERVAL:
                self.folder.write_table()
                self._tabled = time.monotonic()
        elif outcome.kind == "busy":
            self.tries[run.signature] -= 1
            self.elsewhere[run.signature] = run
            self.display.pause(run, "another process has it")
        elif outcome.kind == "stopped":
            self.tries[run.signature] -= 1
            self.waiting.appendleft(run)
            self.display.pause(run, "stopped, saved" if self.stops else "stopped by another process, saved")
        else:
            self._try_again(run, outcome)

    def _try_again(self, run: RunSpec, outcome: Outcome) -> None:
        if self.stops:
            self.waiting.appendleft(run)
            self.display.pause(run, outcome.reason)
            return
        tries, most = self.tries[run.signature], self.study.spec.retries + 1
        what = {"memory": "out of memory", "failed": "error"}.get(outcome.kind, "died")
        was_alone = self.engine.slots == 1 or run.signature in self.exclusive
        if tries < most and outcome.kind != "failed" and not (outcome.kind == "memory" and was_alone):
            exclusive = self.engine.slots > 1 and (outcome.kind == "memory" or tries + 1 == most)
            if exclusive:
                self.exclusive.add(run.signature)
            (self.alone if exclusive else self.waiting).appendleft(run)
            beside = ", with nothing beside it" if exclusive else ""
            self.display.pause(run, f"{what}: {outcome.reason}; try {tries + 1} of {most}{beside}")
            return
        task = self.study.task(run, self.store)
        with self.store.claim(run.signature, _PATIENCE) as mine:
            if mine:
                origin = {**self.origin, "attempts": tries, "estimated_seconds": self.measured.get(run.signature)}
                record_failure(dataclasses.replace(task, origin=origin), self.store, f"{what}: {outcome.reason}")
        record = self._settled(run, failed_too=True)
        if record is not None:
            self.display.finish(run, record["result"], trained=True)
        else:
            self.elsewhere[run.signature] = run

    def _look(self) -> None:
        """See how far the runs are, here and elsewhere."""
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            if self.stops:  # again, for one that was only about to begin may not have heard
                self.engine.stop()
            for signature, run in self.running.items():
                self.display.progress(run, self.store.progress(signature))
            self.display.refresh(list(self.waiting) + list(self.alone), len(self.elsewhere))
        for signature, run in list(self.elsewhere.items()):
            if self.store.is_claimed(signature):
                continue
            del self.elsewhere[signature]
            record = self._settled(run, failed_too=True)
            if record is None:
                self.waiting.append(run)
            else:
                self.display.finish(run, record["result"], trained=False)
        if self.elsewhere and not self.running:
            time.sleep(LOOK)

    def _settled(self, run: RunSpec, failed_too: bool = False) -> dict[str, Any] | None:
        """The run's record if it need not be trained; ``failed_too``: in this round."""
        try:
            record = self.store.record(run.signature)
        except DamagedError as error:
            self.display.say(f"{error}: it is trained again")
            return None
        return record if is_settled(record) or failed_too else None

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        """Ctrl-C once: finish the running epochs, save, stop; twice: stop now. A request to terminate is the former."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, frame: object) -> None:
            self.stops += 1
            if self.stops > 1:
                self.engine.kill()
                raise Stopped
            self.engine.stop()
            self.display.say("stopping after the running epochs; Ctrl-C again stops now")

        before = {number: signal.signal(number, hear) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
