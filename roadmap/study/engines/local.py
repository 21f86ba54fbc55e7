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
from roadmap.processes import SIGNALS, prepare_processes, without_main
from roadmap.study.store import Store
from roadmap.study.work import Outcome, carry_out

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData

#: A task and the data -> what came out.
Work = Callable[[Any, "ImageData"], Any]


@dataclass(frozen=True)
class Place:
    """Where a slot works: the device, the CPU threads of a process, and the cores it is pinned to (none: any)."""

    device: str
    threads: int | None
    cores: tuple[int, ...] = ()


class LocalEngine:
    """Keeps a process, or as many as train one run together, for each place; replaces it when it dies.

    ``work`` is what the processes do with what is submitted, and ``fresh`` gives every task a process of its own:
    estimates want that.
    """

    def __init__(
        self, data: ImageData, places: list[Place], processes: int = 1, work: Work = carry_out, fresh: bool = False
    ) -> None:
        from roadmap.data.shared import SharedData

        self.slots = len(places)
        self._places, self._processes, self._work, self._fresh = places, processes, work, fresh
        self._data = SharedData(data)
        self._gangs: list[_Gang | None] = [None] * len(places)

    def __enter__(self) -> LocalEngine:
        self._context = prepare_processes()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._gangs = [None] * self.slots

    def submit(self, task: Any) -> None:
        """Begin a task in a free place."""
        index = next(index for index, gang in enumerate(self._gangs) if gang is None or gang.task is None)
        gang = self._gangs[index]
        if gang is None or not gang.alive():
            if gang:
                gang.end()
            gang = _Gang(self._context, self._data, self._places[index], self._processes, self._work)
            self._gangs[index] = gang
        gang.begin(task)

    def wait(self, seconds: float) -> list[tuple[Any, Any]]:
        """Tasks that ended, with what came out of each; `Outcome` ``died`` where its process did."""
        busy = [gang for gang in self._gangs if gang and gang.task is not None]
        if not busy:
            time.sleep(seconds)
            return []
        wait([handle for gang in busy for handle in gang.handles()], seconds)
        ended = []
        for gang in busy:
            outcome = gang.outcome()
            if outcome is not None:
                ended.append((gang.task, outcome))
                gang.task = None
                if self._fresh:
                    gang.end()
        return ended

    def stop(self) -> None:
        """Ask every task at work to end after its epoch, saved."""
        for gang in self._gangs:
            if gang and gang.task is not None:
                Store(gang.task.store).ask_to_stop(gang.task.run.signature)

    def kill(self) -> None:
        """End every process at once."""
        for gang in self._gangs:
            if gang:
                gang.end()


class _Gang:
    """The processes of one place. One trains a run alone; several train it together, and rank 0 answers."""

    def __init__(self, context: Any, data: Any, place: Place, ranks: int, work: Work) -> None:
        self.task: Any = None
        self._place = place
        self.processes, self.pipes = [], []
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            arguments = (theirs, data, place.cores[rank::ranks], rank, ranks, work)
            process = context.Process(target=_serve, args=arguments, daemon=False, name="roadmap worker")
            _start(process)
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def begin(self, task: Any) -> None:
        """Hand a task to the processes."""
        self.task = task
        here = dataclasses.replace(task.execution, device=self._place.device, threads=self._place.threads)
        task = dataclasses.replace(task, execution=here)
        port = _free_port() if len(self.processes) > 1 else 0
        for pipe in self.pipes:
            with contextlib.suppress(OSError):  # a process that died: `outcome` says so
                pipe.send((task, port))

    def handles(self) -> list[Any]:
        """What becomes ready when there may be an outcome."""
        return [self.pipes[0], *(process.sentinel for process in self.processes)]

    def alive(self) -> bool:
        """Whether all processes can still work."""
        return all(process.is_alive() for process in self.processes)

    def outcome(self) -> Any:
        """What came out of the task; None while it is at work."""
        answer = self._answer()
        if answer is not None:
            if len(self.processes) > 1 and getattr(answer, "kind", "") != "finished":
                self.end()  # the others may wait for the first one for ever
            elif len(self.processes) > 1:
                for pipe in self.pipes[1:]:
                    if pipe.poll(60):
                        with contextlib.suppress(EOFError, OSError):
                            pipe.recv()
            return answer
        dead = next((process for process in self.processes if not process.is_alive()), None)
        if dead is None:
            return None
        answer = self._answer()  # what it said with its last breath
        self.end()
        return answer or Outcome("died", _death(dead.exitcode))

    def _answer(self) -> Any:
        try:
            return self.pipes[0].recv() if self.pipes[0].poll() else None
        except (EOFError, OSError):
            return None

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
            with without_main():
                process.start()
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


def _serve(pipe: Connection, data: Any, cores: tuple[int, ...], rank: int, ranks: int, work: Work) -> None:
    """The life of a worker: tasks in, outcomes out. Ends at once when the process that started it does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if grouped := hasattr(os, "setpgrp"):
        os.setpgrp()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
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
    images = data.open()
    while True:
        task, port = tasks.get()
        if ranks > 1:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0",
            }  # fmt: skip
        pipe.send(work(task, images))
