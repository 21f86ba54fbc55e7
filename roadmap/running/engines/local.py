"""Runs side by side in processes of this machine, each with cores or a GPU of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError
from roadmap.processes import SIGNALS, prepare_processes, start
from roadmap.running.task import Outcome
from roadmap.running.work import decisive, execute
from roadmap.store.store import Store

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData

#: A task and the data -> what came out.
Work = Callable[[Any, "ImageData"], Any]
#: Seconds that the processes of a run have to say why, when one of them has lost another.
_GRACE = 2.0


@dataclass(frozen=True)
class Place:
    """Where a slot works: the device, the CPU threads of a process, the cores it is pinned to (none: any), and the
    cards that its processes see (none: all), as CUDA_VISIBLE_DEVICES names them."""

    device: str
    threads: int | None
    cores: tuple[int, ...] = ()
    cards: tuple[str, ...] = ()


class LocalEngine:
    """Keeps a process, or as many as train one run together, for each place; replaces it when it dies, and after
    whatever went wrong: a CUDA context is dead after its first error, and memory may not be free again.

    ``work`` is what the processes do with what is submitted, and ``fresh`` gives every task a process of its own:
    estimates want that.
    """

    def __init__(
        self, data: ImageData, places: list[Place], processes: int = 1, work: Work = execute, fresh: bool = False
    ) -> None:
        from roadmap.data.shared import SharedData

        self.slots = len(places)
        self._places, self._processes, self._work, self._fresh = places, processes, work, fresh
        self._data = SharedData(data)
        self._groups: list[_WorkerGroup | None] = [None] * len(places)

    def __enter__(self) -> LocalEngine:
        self._context = prepare_processes()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def submit(self, task: Any) -> None:
        """Begin a task in a free place."""
        index = next(index for index, group in enumerate(self._groups) if group is None or group.task is None)
        group = self._groups[index]
        if group is None or not group.alive():
            self._end(group)
            group = _WorkerGroup(self._context, self._data, self._places[index], self._processes, self._work)
            self._groups[index] = group
        group.begin(task)

    def _end(self, group: _WorkerGroup | None) -> None:
        if group:
            group.end()
            self._groups[self._groups.index(group)] = None

    def wait(self, seconds: float) -> list[tuple[Any, Any]]:
        """Tasks that ended, with what came out of each; `Outcome` ``died`` where its process did."""
        busy = [group for group in self._groups if group and group.task is not None]
        if not busy:
            time.sleep(seconds)
            return []
        wait([handle for group in busy for handle in group.handles()], seconds)
        ended = []
        for group in busy:
            outcome = group.outcome()
            if outcome is not None:
                ended.append((group.task, outcome))
                group.task = None
                if self._fresh or (isinstance(outcome, Outcome) and outcome.went_wrong):
                    self._end(group)
        return ended

    def end_idle(self) -> None:
        """End processes that have no task, so that the next one finds the memory that they hold."""
        for group in self._groups:
            if group and group.task is None:
                self._end(group)

    def stop(self) -> None:
        """Ask every task at work to end after its epoch, saved."""
        for group in self._groups:
            if group and group.task is not None:
                Store(group.task.store).ask_to_stop(group.task.run.signature)

    def kill(self) -> None:
        """End every process at once."""
        for group in self._groups:
            self._end(group)


class _WorkerGroup:
    """The processes of one place. One trains a run alone; several train it together: the answer is that of rank 0, or
    of the one that something happened to."""

    def __init__(self, context: Any, data: Any, place: Place, ranks: int, work: Work) -> None:
        self.task: Any = None
        self._place = place
        self._answers: dict[int, Any] = {}  # rank -> what it says of the task
        self.processes, self.pipes = [], []
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            arguments = (theirs, data, place.cores[rank::ranks], place.cards, rank, ranks, work)
            process = context.Process(target=_serve, args=arguments, daemon=False, name="roadmap worker")
            _start(process)
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def begin(self, task: Any) -> None:
        """Hand a task to the processes."""
        self.task, self._answers = task, {}
        here = dataclasses.replace(task.execution, device=self._place.device, threads=self._place.threads)
        task = dataclasses.replace(task, execution=here)
        port = _free_port() if len(self.processes) > 1 else 0
        for pipe in self.pipes:
            with contextlib.suppress(OSError):  # a process that died: `outcome` says so
                pipe.send((task, port))

    def handles(self) -> list[Any]:
        """What becomes ready when there may be an outcome."""
        return [*self.pipes, *(process.sentinel for process in self.processes)]

    def alive(self) -> bool:
        """Whether all processes can still work."""
        return all(process.is_alive() for process in self.processes)

    def outcome(self) -> Any:
        """What came out of the task; None while it is at work."""
        dead = next((process for process in self.processes if not process.is_alive()), None)
        self._listen()  # after that look: what a process said with its last breath counts
        failure = self._failure()
        if failure is None and len(self._answers) == len(self.processes):
            return self._answers[0]
        if failure is None and dead is None:
            return None
        failure = failure or Outcome("died", _death(dead.exitcode if dead else None))
        if failure.kind == "died" and len(self.processes) > 1:  # another one may know why
            wait(
                [
                    self.pipes[rank]
                    for rank, process in enumerate(self.processes)
                    if rank not in self._answers and process.is_alive()
                ],
                _GRACE,
            )
            self._listen()
            failure = self._failure() or failure
        if len(self.processes) > 1:
            self.end()  # the others may wait for it for ever
        return failure

    def _failure(self) -> Outcome | None:
        return decisive(answer for answer in self._answers.values() if isinstance(answer, Outcome))

    def _listen(self) -> None:
        for rank, pipe in enumerate(self.pipes):
            with contextlib.suppress(EOFError, OSError):
                if rank not in self._answers and pipe.poll():
                    self._answers[rank] = pipe.recv()

    def end(self) -> None:
        """End the processes at once."""
        for process in self.processes:
            try:  # with the loaders of images that it started
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError, AttributeError):  # no group yet, or none at all on this system
                process.kill()
        for process in self.processes:
            process.join()
        for pipe in self.pipes:
            pipe.close()


def _start(process: Any) -> None:
    """Start a process. The server that it is forked from may die meanwhile: another try starts another server."""
    for patience in (0.5, 0.5, 0.0):
        try:
            start(process)
            return
        except (EOFError, OSError):
            time.sleep(patience)
    raise RoadmapError(
        "no worker process could be started: its server ended at once, for example because memory ran out"
    )


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        hint = ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
        return f"its process was ended by signal {name}{hint}"
    return f"its process ended with exit code {code}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _serve(
    pipe: Connection, data: Any, cores: tuple[int, ...], cards: tuple[str, ...], rank: int, ranks: int, work: Work
) -> None:
    """The life of a worker: tasks in, outcomes out. Ends at once when the process that started it does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if grouped := hasattr(os, "setpgrp"):
        os.setpgrp()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if cards:  # CUDA reads this when it is first used, which is later
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(cards)
    tasks: queue.SimpleQueue = queue.SimpleQueue()

    def listen() -> None:
        while True:
            try:
                tasks.put(pipe.recv())
            except (EOFError, OSError):
                if grouped:
                    os.killpg(0, signal.SIGKILL)
                os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    from roadmap.accelerator import release_memory

    images = data.open()
    while True:
        task, port = tasks.get()
        if ranks > 1:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
                "GROUP_RANK": "0",
            }
        outcome = work(task, images)
        release_memory()
        pipe.send(outcome)
