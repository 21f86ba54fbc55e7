"""What engines hand out and hear of: a run with everything needed to execute it, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from roadmap.training.spec import Execution, RunSpec


@dataclass(frozen=True)
class RunTask:
    """A run with everything needed to execute it, as plain values.

    ``initial``: file of the weights that it starts from. ``plugins``: files that its layers are from. ``cost``,
    ``facts`` (labels and data), ``origin`` go into the run's record. ``logger``: a name of `LOGGERS`, whose logs go to
    ``log_folder`` under the name of the ``study``.
    """

    run: RunSpec
    store: str
    execution: Execution
    cost: dict[str, Any]
    facts: dict[str, dict[str, Any]]
    initial: str | None = None
    plugins: tuple[str, ...] = ()
    origin: dict[str, Any] = field(default_factory=dict)
    logger: str | None = None
    log_folder: str = ""
    study: str = ""


class Outcome(NamedTuple):
    """What became of a task: ``finished`` (its record says how), ``stopped`` (saved, to go on later), ``busy`` (another
    process has it), ``memory`` or ``died`` (not enough memory, or its process ended; to be tried again), ``failed`` (it
    raised an error that is not recorded yet), ``storage`` (the store cannot be written). ``reason``: what went wrong,
    also where the record says it."""

    kind: str
    reason: str = ""

    @property
    def went_wrong(self) -> bool:
        """Whether the process that says so is not to be used again."""
        return bool(self.reason) or self.kind not in ("finished", "stopped")
