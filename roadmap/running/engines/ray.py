"""Runs as tasks of a Ray cluster: one that is started on this machine, or one that is there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from roadmap.checks import RoadmapError, cause
from roadmap.files import STORE_MARK as MARK
from roadmap.processes import clean_start, short_folder
from roadmap.running.task import Outcome, RunTask
from roadmap.running.work import decisive, execute
from roadmap.store.store import Store

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData
    from roadmap.running.prepared import Prepared

#: What a task returns: its outcome, and where the store is out of its sight the files of the run, by name.
Answer = tuple[Outcome, dict[str, bytes]]

#: Seconds to wait for an answer from the address of a cluster.
_PATIENCE = 5.0
#: Ray would print what it thinks of every process that dies, and report how it is used.
_QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_USAGE_STATS_ENABLED": "0"}
_SETTINGS: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
#: When joining a cluster: Ray would ask a dead one for a quarter of an hour.
_SOON = {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "5"}
#: Bytes that the folder of Ray's files may have: those of a socket's path but for the longest name in that folder.
_LONGEST_FOLDER = 103 - len("/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/raylet.12345")
#: Without it Ray takes this machine's name in the network for "127.0.0.1", also where the cluster listens there alone.
_STAY_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_LOCAL_HOSTS = ("127.0.0.1", "localhost")


class _Look(NamedTuple):
    """What a node says of itself: its address, a free port, and whether it sees the store."""

    address: str
    port: int
    sees_store: bool


@dataclass
class _Job:
    """A task at work: what its processes will answer, rank 0 first, and the resources set aside for several."""

    task: RunTask
    answers: list[Any]
    group: Any = None
    first: Any = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.answers[0]


class RayEngine:
    """Hands every run to Ray as a task with this many CPUs and GPUs; Ray finds the node.

    The opened data set is in Ray's object store, once on each node. Where a node sees the study's store, the worker
    there uses it as a process of this machine would; where it does not, the run is trained in a temporary store there,
    and its files are sent back. Whatever a node's or process's death ended is submitted again by the runner.
    """

    def __init__(self, study: Prepared) -> None:
        spec = study.spec
        self._spec, self._data, self._most = spec, study.data, len(study.trainings)
        if spec.jobs != "auto":
            self._most = min(self._most, int(spec.jobs))
        self._threads = spec.threads or 1
        self._gpus = float(spec.device.startswith("cuda")) if spec.gpus is None else spec.gpus
        self._jobs: list[_Job] = []
        self._token = f".token-{secrets.token_hex(8)}.{os.getpid()}"
        self._stores: set[Path] = set()
        self._ray: Any = None
        self._mine = False

    def __enter__(self) -> RayEngine:
        self._ray = ray = import_ray(self._spec.address)
        self._mine = not ray.is_initialized()
        if self._mine:
            _connect(ray, self._spec.address)
        if self._spec.device == "auto" and self._spec.gpus is None:
            self._gpus = float(ray.cluster_resources().get("GPU", 0) >= 1)
        if not self._room():
            self.__exit__()
            raise RoadmapError(f"no node of the Ray cluster has {self._need()} for a run: ask for fewer")
        self._shared = ray.put(self._data)
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        for store in self._stores:
            (store / "partial" / self._token).unlink(missing_ok=True)
        if self._mine:
            self._ray.shutdown()
        self._ray = None

    @property
    def slots(self) -> int:
        """How many tasks fit the cluster as it is now, at least 1: nodes may join and leave."""
        return max(1, min(self._most, self._room())) if self._ray else self._most

    def _room(self) -> int:
        bundle = {name: amount for name, amount in self._bundle().items() if amount}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fits = [min(int(node.get(name, 0) / amount) for name, amount in bundle.items()) for node in nodes]
        wanted = self._spec.num_nodes
        return sum(fits) if wanted == 1 else min(max(fits, default=0), sum(map(bool, fits)) // wanted)

    def _bundle(self) -> dict[str, float]:
        """What a run takes of a node."""
        return {"CPU": self._threads * self._spec.devices, "GPU": self._gpus * self._spec.devices}

    def _need(self) -> str:
        parts = [f"{amount:g} {name}s" for name, amount in self._bundle().items() if amount]
        return " and ".join(parts) + (f" on each of {self._spec.num_nodes} nodes" if self._spec.num_nodes > 1 else "")

    def submit(self, task: RunTask) -> None:
        """Begin a task; Ray lets it wait until a node has room."""
        store = Path(task.store)
        (store / "partial" / self._token).touch()
        self._stores.add(store)
        # Ray shows a task its own cards alone, the first of which is cuda:0.
        device = "cuda" if self._gpus else "cpu" if self._spec.device == "auto" else self._spec.device
        execution = dataclasses.replace(task.execution, device=device, threads=self._threads)
        task = dataclasses.replace(task, execution=execution)
        self._jobs.append(self._begin_together(task) if execution.processes > 1 else self._begin(task))

    def _begin(self, task: RunTask) -> _Job:
        work = self._ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_retries=0)(_work)
        return _Job(task, [work.remote(task, self._shared, self._token)])

    def _begin_together(self, task: RunTask) -> _Job:
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        devices, nodes = task.execution.devices, task.execution.num_nodes
        group = placement_group([self._bundle()] * nodes, strategy="STRICT_SPREAD" if nodes > 1 else "PACK")
        places = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node) for node in range(nodes)]
        look = self._ray.remote(num_cpus=0, max_retries=0)(_look)
        looks = [look.options(scheduling_strategy=place).remote(task.store, self._token) for place in places]
        # A process that has been in one process group cannot join another: each is for one task.
        work = self._ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_retries=0, max_calls=1)(_work_together)
        answers = [
            work.options(scheduling_strategy=places[rank // devices]).remote(task, self._shared, rank, *looks)
            for rank in range(task.execution.processes)
        ]
        return _Job(task, answers, group)

    def wait(self, seconds: float) -> list[tuple[RunTask, Outcome]]:
        """Tasks that ended, as soon as there is one; none after this many seconds."""
        if not self._jobs:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait([answer for job in self._jobs for answer in job.answers], timeout=seconds)
        ended = []
        for job in list(self._jobs):
            answered = {answer: self._outcome(job, answer) for answer in job.answers if answer in ready}
            job.answers = [answer for answer in job.answers if answer not in answered]
            outcome = decisive(answered.values()) or answered.get(job.first)
            if outcome and outcome.kind == "died" and job.answers:  # another process may know why
                late, _ = self._ray.wait(job.answers, timeout=_PATIENCE)
                outcome = decisive([outcome, *(self._outcome(job, answer) for answer in late)])
            if outcome:
                self._end(job)
                ended.append((job.task, outcome))
        return ended

    def _outcome(self, job: _Job, answer: Any) -> Outcome:
        from ray import exceptions

        try:
            outcome, files = self._ray.get(answer)
        except exceptions.OutOfMemoryError as error:
            return Outcome("memory", _sentence(error))
        except exceptions.RayError as error:
            return Outcome("died", _sentence(error))
        return _adopt(job.task, files) if files else outcome

    def _end(self, job: _Job) -> None:
        """End what is left of a job, at once."""
        self._jobs.remove(job)
        for answer in job.answers:
            self._ray.cancel(answer, force=True)
        if job.group is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(job.group)

    def end_idle(self) -> None:
        """Nothing: Ray ends a process that had a GPU when its task ends."""

    def stop(self) -> None:
        """Ask every task at work to end after its epoch, saved; end at once those that have not begun or that do not
        see the store, for nothing of them is saved."""
        for job in self._jobs:
            store, signature = Store(job.task.store), job.task.run.signature
            if store.is_claimed(signature):
                store.ask_to_stop(signature)
            else:
                for answer in job.answers:
                    self._ray.cancel(answer, force=True)

    def kill(self) -> None:
        """End every task at once."""
        for job in list(self._jobs):
            self._end(job)


def import_ray(address: str | None) -> Any:
    """The package, told before it is imported what it asks the environment.

    Raises `RoadmapError` for what is no address of a cluster, and where nobody answers at it.
    """
    if address not in (None, "auto") and not re.fullmatch(r"[^\s:/]+:[0-9]{1,5}", address or ""):
        raise RoadmapError(f"address is '{address}', but must be auto or HOST:PORT, such as 10.0.0.1:6379")
    os.environ.update(_QUIET | (_SOON if address else {}))
    host, _, port = (address or "").rpartition(":")
    if address is None or (host in _LOCAL_HOSTS and _answers(host, int(port))):
        os.environ.update(_STAY_LOCAL)
    if address is None:
        os.environ.setdefault("RAY_TMPDIR", short_folder(_LONGEST_FOLDER))
    import ray

    if host in _LOCAL_HOSTS:
        host = ray.util.get_node_ip_address()  # as Ray will understand it
    if host and not _answers(host, int(port)):
        raise RoadmapError(f"no Ray cluster answers at {address}: start one there with ray start --head")
    return ray


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except (OSError, OverflowError):
        return False
    return True


def _connect(ray: Any, address: str | None) -> None:
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        # Ray puts the folder that it is started in before all others, on every node.
        with clean_start(elsewhere=True):
            ray.init(address=address or "local", **_SETTINGS)
    except Exception as error:  # a dozen kinds
        what = f"the Ray cluster at {address} cannot be joined" if address else "Ray cannot be started on this machine"
        raise RoadmapError(f"{what}: {_sentence(error)}") from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)  # Ray takes it for itself


def _sentence(error: BaseException) -> str:
    """The first sentence of what Ray says at length."""
    text = " ".join(str(error).split())
    return (re.split(r"(?<=[a-z)])\. ", text)[0] or type(error).__name__)[:300]


def _adopt(task: RunTask, files: dict[str, bytes]) -> Outcome:
    """Put a run that was trained out of the store's sight into the store."""
    store, signature = Store(task.store), task.run.signature
    try:
        with store.claim(signature, _PATIENCE) as mine:
            if not mine:
                return Outcome("busy")
            if not store.settled(signature):
                store.adopt(signature, files)
    except OSError as error:
        return Outcome("storage", cause(error))
    return Outcome("finished")


# --- what the nodes of the cluster do ---


def _sees_store(store: str, token: str) -> bool:
    """Whether the study's store is here: another machine may have a folder of the same name."""
    return (Path(store) / MARK).is_file() and (Path(store) / "partial" / token).is_file()


def _look(store: str, token: str) -> _Look:
    import ray

    address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return _Look(address, probe.getsockname()[1], _sees_store(store, token))


def _work(task: RunTask, data: ImageData, token: str) -> Answer:
    """Carry out a task alone."""
    return _execute(task, data, _sees_store(task.store, token))


def _work_together(task: RunTask, data: ImageData, rank: int, *looks: _Look) -> Answer:
    """Carry out a task as one of several processes.

    Ray shows each of them its own cards alone, so each is told that it is the only one of its machine.
    """
    processes = task.execution.processes
    os.environ |= {
        "MASTER_ADDR": looks[0].address,
        "MASTER_PORT": str(looks[0].port),
        "RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": str(rank),
    }
    execution = dataclasses.replace(task.execution, devices=1, num_nodes=processes)
    # A checkpoint must be there for all or for none.
    return _execute(dataclasses.replace(task, execution=execution), data, all(look.sees_store for look in looks))


def _execute(task: RunTask, data: ImageData, sees_store: bool) -> Answer:
    if sees_store:
        return execute(task, data), {}
    folder = tempfile.mkdtemp(prefix="roadmap-")
    try:
        store = Store(folder)
        store.begin()
        outcome = execute(dataclasses.replace(task, store=folder), data)
        files: dict[str, bytes] = {}
        with contextlib.suppress(FileNotFoundError):
            files = {path.name: path.read_bytes() for path in store.path(task.run.signature).iterdir()}
        return outcome, files
    finally:
        shutil.rmtree(folder, ignore_errors=True)
