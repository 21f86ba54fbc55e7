"""How the runs of a study are laid over this machine's cores and cards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.running.engines.local import Place

if TYPE_CHECKING:
    from roadmap.cost.cost import Cost
    from roadmap.training.spec import RunSpec

#: Share of a device's memory that runs may be planned to take.
MEMORY_SHARE = 0.85
#: Bytes that a process of ours takes on the CPU with torch, timm and Lightning imported, beyond what it shares.
PROCESS_BYTES = 0.4 * 2**30


def places(
    jobs: int | None, threads: int | None, device: str, runs: int, need: float, processes: int = 1
) -> list[Place]:
    """Where the runs of a study are carried out side by side, on CPU cores or one card.

    ``jobs`` None fills the machine: as many runs as cores, if there are enough and each finds the ``need`` bytes it
    takes. (Four one-thread trainings side by side make 1.5 to 1.9 times the images per second of one with four
    threads: benchmarks/packing.py.) Every run has the same number of threads, which depends on the machine and on the
    whole study alone, so that a study which goes on later trains as it did before. Where the runs fill the machine,
    each is pinned to cores of its own. ``processes`` train one run together.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if jobs is None:
        fit = max(1, int(MEMORY_SHARE * memory() // max(need * processes, 1)))
        jobs = max(1, min(len(cores) // (processes * (threads or 1)), runs, fit))
    threads = threads or max(1, len(cores) // (jobs * processes))
    share = threads * processes
    fills = share * jobs == len(cores) // share * share and jobs > 1
    return [
        Place(device, threads, tuple(cores[slot * share : (slot + 1) * share]) if fills else ()) for slot in range(jobs)
    ]


def cpu_need(run: RunSpec, cost: Cost) -> float:
    """Bytes that a training takes at most on the CPU: the process, weights with gradients and optimizer state, and of
    every activation itself, its gradient and what layers keep beside it (measured: tests/test_packing.py)."""
    return PROCESS_BYTES + 4 * (5 * cost.params + 4 * cost.activations * run.recipe.part_size)


def memory() -> float:
    """Bytes of memory that this machine, or the container around this process, has in all."""
    whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 8.0 * 2**30
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            whole = min(whole, float(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return whole
