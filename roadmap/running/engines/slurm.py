"""Runs as Slurm jobs, one each, through submitit. The store must be on a file system that the nodes share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError, cause, check_choice, check_int, check_known, check_number
from roadmap.processes import clean_start
from roadmap.running.task import Outcome, RunTask
from roadmap.running.work import decisive, execute, record_failure
from roadmap.store.store import Store
from roadmap.tasks import task_named

if TYPE_CHECKING:
    from roadmap.planning.spec import StudySpec
    from roadmap.running.prepared import Prepared

#: Where jobs are started: by Slurm, or, to try things out, as processes of this machine.
CLUSTERS = ("slurm", "local")
#: Jobs at once where --jobs says nothing.
MOST_JOBS = 1000
#: Minutes that a job may take where --slurm says nothing; submitit's own answer is 5.
MINUTES = 24 * 60
#: Seconds to wait for what Slurm says of its nodes.
_PATIENCE = 20.0
#: Seconds until the result of a job that is over must have come through a shared file system.
_GRACE = 5.0
#: Seconds between two looks at the jobs' results.
_LOOK = 0.1
#: Of submitit's settings those that options of a study already say, and those that no word can say.
_TAKEN = {
    "nodes": "--num-nodes",
    "tasks_per_node": "--devices",
    "ntasks_per_node": "--devices",
    "cpus_per_task": "--threads",
    "gpus_per_node": "--gpus",
    "gpus_per_task": "--gpus",
    "num_gpus": "--gpus",
}
_WITHOUT_WORDS = {"additional_parameters", "array_parallelism", "use_srun"}
_LISTS = {"setup", "teardown", "srun_args"}


def job_settings(spec: StudySpec) -> tuple[str, dict[str, Any]]:
    """(cluster, parameters of `submitit.AutoExecutor`) of a study. Raises `RoadmapError` for what cannot be."""
    from submitit import AutoExecutor, SlurmExecutor

    given = dict(spec.slurm_settings)
    cluster = str(given.pop("cluster", "slurm"))
    check_choice("slurm setting cluster", cluster, CLUSTERS)
    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise RoadmapError("there is no Slurm (sbatch, srun) on this machine: start the study where jobs are submitted")
    if cluster == "local" and spec.num_nodes > 1:
        raise RoadmapError("--num-nodes above 1 needs Slurm, but cluster=local is this machine")
    general, own = set(AutoExecutor._valid_parameters()), set(SlurmExecutor._valid_parameters())
    for name in given:
        if name in _TAKEN:
            raise RoadmapError(f"slurm setting '{name}' is what {_TAKEN[name]} says: use that")
    check_known("slurm setting", given, sorted((general | own) - _WITHOUT_WORDS - set(_TAKEN)))
    given["timeout_min"] = given.pop("time", given.get("timeout_min", MINUTES))
    parameters = {name if name in general else f"slurm_{name}": _value(name, value) for name, value in given.items()}
    ask = spec.device == "auto" and "gres" not in given and cluster == "slurm" and _has_gpus(given.get("partition"))
    return cluster, {"name": "roadmap", **parameters, **_size(spec, ask)}


def _value(name: str, value: str | int) -> Any:
    """The value of a setting as submitit wants it."""
    if name == "timeout_min":
        check_int("slurm setting time", value, 1)
        return value
    if name == "mem_gb":
        with contextlib.suppress(ValueError):
            value = float(value)  # type: ignore[assignment]
        check_number("slurm setting mem_gb", value, 0)
        return value
    if name in _LISTS:
        return [str(value)]
    return {"true": True, "false": False}.get(str(value).lower(), str(value) if name == "name" else value)


def _has_gpus(partition: Any) -> bool:
    """Whether nodes of a partition, or of Slurm's own choice, have GPUs."""
    words = ["sinfo", "--noheader", "--format=%P %G", *([f"--partition={partition}"] if partition else [])]
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    rows = [line.partition(" ") for line in told.splitlines()]  # a star marks the partition of jobs that name none
    return any(re.search(r"\bgpu\b", gres) for name, _, gres in rows if partition or name.endswith("*"))


def _size(spec: StudySpec, ask: bool) -> dict[str, int | None]:
    gpus = float(ask or spec.device.startswith("cuda")) if spec.gpus is None else spec.gpus
    if gpus != int(gpus):
        raise RoadmapError(f"gpus is {gpus:g}, but Slurm hands out whole ones")
    return {
        "nodes": spec.num_nodes,
        "tasks_per_node": spec.devices,
        "cpus_per_task": spec.threads or 1,
        "gpus_per_node": int(gpus) * spec.devices or None,
    }


class SlurmEngine:
    """Submits one job a run. Each opens the data itself and works in the study's store, which it must see.

    submitit exchanges pickles with its jobs: they lie in a private folder under the user's cache, never in the store.
    That folder must be visible to the nodes, too, and is removed when all jobs have ended well.
    """

    def __init__(self, study: Prepared) -> None:
        spec = study.spec
        self._cluster, self._parameters = job_settings(spec)
        self._opening = spec.opened_anywhere | {"download": False}
        self.slots = min(len(study.trainings), MOST_JOBS) if spec.jobs == "auto" else int(spec.jobs)
        self._jobs: list[tuple[RunTask, Any]] = []
        self._over: dict[str, float] = {}  # job -> since when it is over, without a result that says why
        self._all_well = True

    def __enter__(self) -> SlurmEngine:
        from submitit import AutoExecutor

        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadmap" / "slurm"
        try:
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder = Path(tempfile.mkdtemp(dir=cache))
        except OSError as error:
            raise RoadmapError(f"{cache} cannot be written: {cause(error)}; XDG_CACHE_HOME names another") from None
        self._executor = AutoExecutor(folder=self.folder, cluster=self._cluster)
        self._executor.update_parameters(**self._parameters)
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        if self._all_well:
            shutil.rmtree(self.folder, ignore_errors=True)

    def submit(self, task: RunTask) -> None:
        """Submit a job. Raises `RoadmapError` where Slurm does not take it."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        execution = dataclasses.replace(task.execution, threads=self._parameters["cpus_per_task"])
        task = dataclasses.replace(task, execution=execution)
        try:
            with clean_start(elsewhere=sys.version_info < (3, 11)):
                job = self._executor.submit(execute_job, task, self._opening)
        except (FailedJobError, FailedSubmissionError) as error:
            raise RoadmapError(f"Slurm does not take the job: {' '.join(str(error).split())[:300]}") from None
        self._jobs.append((task, job))

    def wait(self, seconds: float) -> list[tuple[RunTask, Outcome]]:
        """Tasks that ended, as soon as there is one; none after this many seconds."""
        until = time.monotonic() + seconds
        while True:
            ended = [(task, job, outcome) for task, job in self._jobs if (outcome := self._outcome(job))]
            if ended or time.monotonic() > until:
                break
            time.sleep(_LOOK)
        for task, job, outcome in ended:
            self._jobs.remove((task, job))
            if outcome.kind == "died":
                self._all_well = False
            # One process may wait for another that has gone, and Slurm may put a preempted job back into its queue.
            if outcome.kind != "finished" and (job.num_tasks > 1 or job.state == "PREEMPTED"):
                job.cancel(check=False)
        return [(task, outcome) for task, _, outcome in ended]

    def _outcome(self, job: Any) -> Outcome | None:
        """What came out of a job; None while it waits or works."""
        over = job.done() or job.state == "PREEMPTED"
        answers = [_result(job.task(number)) for number in range(job.num_tasks)]
        outcome = decisive(answer for answer in answers if answer) or answers[0]
        lost = outcome is not None and outcome.kind == "died" and None in answers  # another process may know why
        if outcome and not lost:
            return outcome
        if not (over or lost) or time.monotonic() - self._over.setdefault(job.job_id, time.monotonic()) < _GRACE:
            return None
        log = job.task(0).paths.stderr
        return outcome or Outcome("died", f"job {job.job_id} ended without a result ({job.state}): see {log}")

    def end_idle(self) -> None:
        """Nothing: a job is one run's."""

    def stop(self) -> None:
        """Ask every job at work to end after its epoch, saved, and cancel those that have not begun."""
        for task, job in self._jobs:
            store, signature = Store(task.store), task.run.signature
            if store.is_claimed(signature):
                store.ask_to_stop(signature)
            else:
                job.cancel(check=False)

    def kill(self) -> None:
        """Cancel every job."""
        for _, job in self._jobs:
            job.cancel(check=False)
        self._jobs = []


def _result(job: Any) -> Outcome | None:
    """What a process of a job has returned; None if nothing yet."""
    from submitit.core.utils import pickle_load

    try:
        kind, value = pickle_load(job.paths.result_pickle)
    except (FileNotFoundError, EOFError):
        return None
    return value if kind == "success" else Outcome("died", value.strip().splitlines()[-1])


# --- what a job does ---


def execute_job(task: RunTask, opening: dict[str, Any]) -> Outcome:
    """Open the data and carry out a task, alone or as one of the job's processes.

    The signal that Slurm sends some time before it ends a job is taken for a request to stop after the epoch: the run
    goes on in another job. SIGTERM leaves no time for that: it ends the job, which counts as a try.
    """
    from submitit import JobEnvironment

    store = Store(task.store)
    number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
    signal.signal(number, lambda *_: store.ask_to_stop(task.run.signature))
    _announce(task)
    try:
        store.check()
        data = task_named(task.run.task).open_data(**opening)
        if data.identity != task.run.data_fingerprint:
            raise RoadmapError(
                f"{opening['directory'] or opening['name']} holds other images than where the study was started"
            )
    except RoadmapError as error:
        return _refuse(task, store, str(error))
    try:
        return execute(task, data)
    except KeyboardInterrupt:  # what Lightning makes of SIGTERM
        return Outcome("died", "its job was told to end: cancelled, preempted or out of time")


def _announce(task: RunTask) -> None:
    """Tell torch.distributed of the job's processes."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if task.execution.processes > 1:
        os.environ["GROUP_RANK"] = str(JobEnvironment().node)
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def _refuse(task: RunTask, store: Store, reason: str) -> Outcome:
    """Record that the run cannot be trained on this machine, if the store can be reached."""
    reason = f"error: on {platform.node()}, {reason}"
    with contextlib.suppress(RoadmapError):
        store.check()
        with store.claim(task.run.signature, 1.0) as mine:
            if mine:
                record_failure(task, store, reason)
            return Outcome("finished" if mine else "busy")
    return Outcome("died", reason)
