"""What a study will take on this machine, measured: a few real steps of each network, packed as in the study."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from statistics import mean
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError
from roadmap.files import STORE_MARK as MARK
from roadmap.formatting import plural
from roadmap.network.layers import load_plugins
from roadmap.phases import phase
from roadmap.running.engines.local import LocalEngine, Place
from roadmap.running.forecast import schedule
from roadmap.running.packing import MEMORY_SHARE, cpu_need, places
from roadmap.running.task import Outcome
from roadmap.store.store import Store
from roadmap.training.spec import Execution, RunSpec

if TYPE_CHECKING:
    from roadmap.data.sources import ImageData
    from roadmap.running.prepared import Prepared
    from roadmap.training.rehearsal import Rehearsed

#: How long the steps of one network are timed.
SECONDS = 2.0
#: On the CPU a timed step has at most about this many operations (one to three seconds on a core); larger batches
#: are timed in part, for a step's time is in proportion to its images.
STEP_OPERATIONS, FEWEST_IMAGES = 4e10, 8
#: One more run on a card must bring at least so much of the throughput without it.
WORTHWHILE = 1.1
CARD_JOBS = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Rehearse:
    """A task for `LocalEngine`: rehearse a run."""

    run: RunSpec
    execution: Execution
    batch_size: int
    seconds: float
    plugins: tuple[str, ...] = ()


def execute_rehearsal(task: Rehearse, data: ImageData) -> Rehearsed | Outcome:
    """What was measured, or the `Outcome` that says why nothing was."""
    from roadmap.training.device import is_memory_error
    from roadmap.training.rehearsal import rehearse

    try:
        load_plugins(task.plugins)
        return rehearse(task.run, data, task.execution, task.batch_size, task.seconds)
    except Exception as error:
        if is_memory_error(error):
            return Outcome("memory", str(error) or "not enough memory")
        return Outcome("failed", f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Estimate:
    """What one run will take: seconds (None: it cannot run, for ``reason``), bytes of memory; ``scaled`` where both
    were measured with smaller batches and scaled up."""

    seconds: float | None
    memory_bytes: float | None
    scaled: bool = False
    reason: str = ""


def local_places(study: Prepared, store: Store) -> list[Place]:
    """Where the runs of a study are carried out on this machine."""
    spec = study.spec
    jobs = None if spec.jobs == "auto" else int(spec.jobs)
    if study.device.startswith("cuda"):
        return _card_places(study, store, jobs)
    if study.device == "mps":  # there is one, and runs side by side on it only share it out
        jobs = jobs or 1
    need = max(cpu_need(run, study.cost(run)) for run in study.runs)
    return places(jobs, spec.threads, study.device, len(study.trainings), need, spec.devices)


def _card_places(study: Prepared, store: Store, jobs: int | None) -> list[Place]:
    import torch

    spec = study.spec
    count = torch.cuda.device_count()
    if spec.devices > count:
        raise RoadmapError(f"--devices is {spec.devices}, but this machine has {count}: ask for fewer")
    cards = [study.device] if ":" in spec.device else [f"cuda:{index}" for index in range(count)]
    groups = len(cards) // spec.devices
    if jobs is None:
        jobs = groups * (_card_jobs(study, store, cards[0]) if spec.devices == 1 else 1)
    jobs = min(jobs, len(study.trainings)) or 1
    share = places(jobs, spec.threads, study.device, len(study.trainings), 0.0, spec.devices)[0].threads
    if spec.devices == 1:
        return [Place(cards[slot % len(cards)], share) for slot in range(jobs)]
    names = _visible_cards(count)
    firsts = [slot % groups * spec.devices for slot in range(jobs)]
    return [Place("cuda", share, cards=tuple(names[first : first + spec.devices])) for first in firsts]


def _visible_cards(count: int) -> list[str]:
    """How CUDA_VISIBLE_DEVICES names the cards that torch counts: by numbers, UUIDs or those of MIG instances."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if visible is None else (name.strip() for name in visible.split(","))
    return list(names)[:count]


def _card_jobs(study: Prepared, store: Store, card: str) -> int:
    """How many runs share a card: measured with the largest, more while they bring throughput and find memory.

    Kept in the store with how many were ``tried``: a larger study may gain by more than a small one could try.
    """
    import torch

    largest = max(study.runs, key=lambda run: study.cost(run).activations * run.recipe.part_size)
    known = store.measured()
    key = "jobs:" + _key(study, largest, [Place(card, study.spec.threads)])
    most = len(study.trainings)
    if key in known:
        jobs, tried = int(known[key]["jobs"]), int(known[key].get("tried", 0))
        if tried > jobs or not any(tried < more <= most for more in CARD_JOBS):
            return jobs
    whole = torch.cuda.get_device_properties(card).total_memory
    best, tried, fastest = 1, 0, 0.0
    for jobs in CARD_JOBS:
        if jobs > most:
            break
        tried = jobs
        with phase(f"measuring {plural(jobs, 'run')} on one card"):
            results = _rehearse(study, [largest] * jobs, [Place(card, study.spec.threads)] * jobs)
        measured = [result for result in results if not isinstance(result, Outcome)]
        speed = sum(1 / result.image_seconds for result in measured)
        if len(measured) < jobs or speed < WORTHWHILE * fastest:
            break
        best, fastest = jobs, speed
        if max(result.memory_bytes for result in measured) * (jobs + 1) > MEMORY_SHARE * whole:
            tried = jobs + 1
            break
    store.keep_measured({key: {"jobs": best, "tried": tried}})
    return best


@dataclass(frozen=True)
class Ahead:
    """What lies before a study: the runs ``todo``, and, where they were measured, an estimate of each, the ``places``
    they are laid over, and of each that can run its (slot, start, end) in seconds from the beginning."""

    study: Prepared
    todo: list[RunSpec]
    estimates: dict[str, Estimate]
    places: list[Place]
    times: dict[str, tuple[int, float, float]]

    @property
    def end(self) -> float | None:
        """Seconds until the last run ends; None where nothing was measured or is to be trained."""
        return max((end for _, _, end in self.times.values()), default=None)

    @property
    def refused(self) -> dict[str, str]:
        """Step -> why it cannot run here."""
        estimates = {run.step: self.estimates[run.signature] for run in self.todo if self.estimates}
        return {step: estimate.reason for step, estimate in estimates.items() if estimate.seconds is None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        waiting = {run.signature for run in self.todo}
        runs = []
        for run in self.study.trainings:
            estimate = self.estimates.get(run.signature, Estimate(None, None))
            slot, start, end = self.times.get(run.signature, (None, None, None))
            runs.append(
                {
                    "step": run.step,
                    "seed": run.seed,
                    "signature": run.signature,
                    "in_store": run.signature not in waiting,
                    "petaflops": self.study.petaflops(run),
                    **dataclasses.asdict(estimate),
                    "slot": slot,
                    "starts_after": start,
                    "ends_after": end,
                }
            )
        return {
            "device": self.study.device,
            "runs": len(runs),
            "to_train": len(waiting),
            "in_store": len(runs) - len(waiting),
            "petaflops": sum(run["petaflops"] for run in runs),
            "petaflops_to_train": sum(self.study.petaflops(run) for run in self.todo),
            "slots": len(self.places),
            "ends_after": self.end,
            "remarks": self.study.remarks,
            "schedule": runs,
        }


def plan_ahead(study: Prepared, store: Store, again: bool = False, measure: bool = True) -> Ahead:
    """Look ahead at a study: what is to be trained and, with ``measure`` and on this machine, what that takes."""
    if (store.folder / MARK).exists():
        store.check()
    todo = [run for run in study.trainings if not store.settled(run.signature)]
    if not (measure and todo and study.spec.engine == "local"):
        return Ahead(study, todo, {}, [], {})
    store.begin()
    where = local_places(study, store)
    estimates = estimate(study, todo, store, where, again)
    able = [run for run in todo if estimates[run.signature].seconds is not None]
    seconds = [estimates[run.signature].seconds or 0.0 for run in able]
    times = schedule(seconds, [0.0] * len(where))
    return Ahead(study, todo, estimates, where, {run.signature: time for run, time in zip(able, times, strict=True)})


def estimate(
    study: Prepared, runs: list[RunSpec], store: Store, where: list[Place], again: bool = False
) -> dict[str, Estimate]:
    """Signature -> what each of these runs will take; measured now, unless the store knows it and not ``again``.

    Raises `RoadmapError` where a rehearsal fails for another reason than memory.
    """
    known = {} if again else store.measured()
    distinct = {_key(study, run, where): run for run in runs}
    missing = [key for key in distinct if key not in known]
    # As many at a time as the study will have, so that each is as slow as it will be then.
    padded = missing + [missing[i % len(missing)] for i in range(-len(missing) % len(where))] if missing else []
    found: dict[str, list[Any]] = {}
    with phase(f"measuring {plural(len(missing), 'network')}"):
        results = _rehearse(study, [distinct[key] for key in padded], where)
    for key, result in zip(padded, results, strict=True):
        found.setdefault(key, []).append(result)
    for key, results in found.items():
        if refused := next((result for result in results if isinstance(result, Outcome)), None):
            if refused.kind != "memory":
                raise RoadmapError(f"{distinct[key].step} could not be measured: {refused.reason}")
            known[key] = {"reason": refused.reason}
        else:
            facts = [dataclasses.asdict(result) for result in results]
            known[key] = {name: mean(fact[name] for fact in facts) for name in facts[0]}
    if found:
        store.keep_measured(known)
    return {run.signature: _estimate(study, run, known[_key(study, run, where)]) for run in runs}


def known_seconds(study: Prepared, store: Store) -> dict[str, float]:
    """Signature -> seconds that were measured before, of the runs of which they are known for this packing."""
    if study.spec.engine != "local":
        return {}
    known, where = store.measured(), local_places(study, store)
    facts = {run.signature: (run, known.get(_key(study, run, where))) for run in study.runs}
    estimates = {signature: _estimate(study, run, fact) for signature, (run, fact) in facts.items() if fact}
    return {signature: estimate.seconds for signature, estimate in estimates.items() if estimate.seconds is not None}


def _estimate(study: Prepared, run: RunSpec, facts: Any) -> Estimate:
    from roadmap.training.rehearsal import Rehearsed

    if "reason" in facts:
        return Estimate(None, None, reason=facts["reason"])
    measured = Rehearsed(**facts)
    scale = run.recipe.part_size / measured.batch_size
    fixed = 20.0 * study.cost(run).params
    memory = fixed + max(0.0, measured.memory_bytes - fixed) * scale
    return Estimate(
        measured.seconds(run, len(study.data.train), len(study.data.test), study.spec.execution),
        memory,
        scaled=scale > 1,
    )


def _rehearse(study: Prepared, runs: list[RunSpec], where: list[Place]) -> list[Any]:
    tasks = [Rehearse(run, study.spec.execution, _batch(study, run), SECONDS, study.spec.plugin) for run in runs]
    results: dict[int, Any] = {}
    with LocalEngine(study.data, where, study.spec.devices, execute_rehearsal, fresh=True) as engine:
        waiting = list(enumerate(tasks))
        at_work: dict[int, int] = {}
        while waiting or at_work:
            while waiting and len(at_work) < engine.slots:
                index, task = waiting.pop(0)
                at_work[id(task)] = index
                engine.submit(task)
            for task, result in engine.wait(1.0):
                results[at_work.pop(id(task))] = result
    return [results[index] for index in range(len(tasks))]


def _batch(study: Prepared, run: RunSpec) -> int:
    if study.device != "cpu":
        return run.recipe.part_size
    images = int(STEP_OPERATIONS / (6e9 * study.cost(run).gmacs)) // 2 * 2
    return min(run.recipe.part_size, max(FEWEST_IMAGES, images))


def _key(study: Prepared, run: RunSpec, where: Iterable[Place]) -> str:
    """Names all that a run's time depends on: the training but for its seed, how it is packed, machine and versions."""
    where = list(where)
    facts = [
        dataclasses.replace(run, seed=0).signature,
        len(where),
        where[0].device.partition(":")[0],
        where[0].threads,
        study.device_name,
        study.spec.devices,
        study.spec.compile,
        study.spec.workers,
        study.spec.deterministic,
        _torch_version(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@cache
def _torch_version() -> str:
    return version("torch")
