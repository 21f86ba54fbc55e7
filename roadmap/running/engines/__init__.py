"""Where runs are carried out: in processes of this machine, on a Ray cluster, or as Slurm jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from roadmap.checks import RoadmapError
from roadmap.imports import is_installed
from roadmap.planning.spec import ENGINES, StudySpec

if TYPE_CHECKING:
    from roadmap.running.task import Outcome, RunTask


class Engine(Protocol):
    """Carries out tasks; made for one study, its data and its packing, and used as a context."""

    @property
    def slots(self) -> int:
        """How many tasks it works on at once; may change while it works."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: object) -> None: ...

    def submit(self, task: RunTask) -> None:
        """Begin a task. Not called while ``slots`` tasks are at work."""

    def wait(self, seconds: float) -> list[tuple[RunTask, Outcome]]:
        """Tasks that ended, as soon as there is one; none after this many seconds."""

    def end_idle(self) -> None:
        """End processes that have no task, so that the next one finds the memory that they hold."""

    def stop(self) -> None:
        """Ask every task at work to end after its epoch, saved."""

    def kill(self) -> None:
        """End every task at once."""


def check_engine(spec: StudySpec) -> None:
    """Raise `RoadmapError` where the engine that a study asks for lacks its package, or its settings cannot be."""
    package = ENGINES[spec.engine]
    if package and not is_installed(package):
        raise RoadmapError(
            f"--engine {spec.engine} needs the package {package}: pip install 'roadmap-ablation[{spec.engine}]'"
        )
    if spec.engine == "ray":
        from roadmap.running.engines.ray import import_ray

        import_ray(spec.address)
    elif spec.engine == "slurm":
        from roadmap.running.engines.slurm import job_settings

        job_settings(spec)
