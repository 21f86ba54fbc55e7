"""`Prepared`: a study that has been looked at and can start: its data opened, its runs planned, their cost counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.planning.networks import title_of
from roadmap.planning.red_flags import optimizer_steps, red_flags
from roadmap.planning.spec import StudySpec
from roadmap.questions.question import Plan
from roadmap.running.task import RunTask
from roadmap.store.store import Store
from roadmap.tasks import task_named
from roadmap.training.spec import RunSpec

if TYPE_CHECKING:
    from roadmap.cost.cost import Cost
    from roadmap.data.sources import ImageData

#: Forward and backward pass together cost three forward passes; a multiply-accumulate is two operations.
TRAINING_FLOPS_PER_MAC = 6
#: Most left-out images named in a record.
NAMED_IMAGES = 100


@dataclass(frozen=True)
class Prepared:
    """A study that has been looked at and can start: its opened data, its runs, what each step costs, the device with
    its name, the ``ablation`` (its networks and what they answer; None where it trains one network further), and, by
    the signatures of runs that start from trained weights, the files of these."""

    spec: StudySpec
    data: ImageData
    runs: list[RunSpec]
    costs: dict[str, Cost]
    device: str
    device_name: str
    ablation: Plan | None = None
    initial: Mapping[str, Path] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name of the study, and of its folder."""
        return title_of(self.spec, self.ablation)

    @cached_property
    def trainings(self) -> list[RunSpec]:
        """The runs, each training once: two networks of a study may turn out to be the same."""
        first: dict[str, RunSpec] = {}
        for run in self.runs:
            first.setdefault(run.signature, run)
        return list(first.values())

    @property
    def remarks(self) -> list[str]:
        """What to know before it is started, in sentences, the red flags of its numbers among them."""
        names: dict[str, list[str]] = {}
        for run in self.runs:
            names.setdefault(run.signature, []).append(run.step)
        twins = dict.fromkeys((first, other) for first, *others in names.values() for other in others)
        same = [f"{other} is the same training as {first}: one run" for first, other in twins]
        return [*self.data.remarks, *same, *red_flags(self.spec, self.data, self.runs)]

    def cost(self, run: RunSpec) -> Cost:
        """The counted cost of a run's network."""
        return self.costs[run.step]

    def steps(self, run: RunSpec) -> int:
        """Steps of the optimizer in the whole training of a run."""
        return optimizer_steps(run, len(self.data.train))

    def petaflops(self, run: RunSpec) -> float:
        """Floating-point operations of the whole training of a run, in 1e15."""
        images = len(self.data.train) * run.recipe.epochs
        return TRAINING_FLOPS_PER_MAC * self.cost(run).gmacs * 1e9 * images / 1e15

    def task(self, run: RunSpec, store: Store) -> RunTask:
        """A run with everything needed to execute it."""
        cost, recipe, data, task = self.cost(run), run.recipe, self.data, task_named(run.task)
        return RunTask(
            run=run,
            store=str(store.folder.absolute()),
            execution=self.spec.execution,
            initial=str(self.initial[run.signature]) if run.signature in self.initial else None,
            plugins=self.spec.plugin,
            cost={
                "gmacs": cost.gmacs,
                "params": cost.params,
                "activations": cost.activations,
                "macs_by_operator": cost.macs_by_operator,
                **(cost.backbone or dict.fromkeys(("backbone_gmacs", "backbone_params"))),
            },
            facts={
                "labels": {
                    "stem_stride": run.design.stem_stride,
                    "recipe": recipe.name,
                    "optimizer": recipe.optimizer,
                    "batch_size": recipe.batch_size,
                    "lr": recipe.peak_lr,
                    "compile": self.spec.compile,
                    "deterministic": self.spec.deterministic,
                    "metric": task.metric.key,
                    "metrics": [metric.key for metric in task.metrics],
                },
                "data": {
                    "opened": self.spec.opened_anywhere,
                    "classes": data.class_names,
                    "train": len(data.train),
                    "test": len(data.test),
                    "mean": data.mean,
                    "std": data.std,
                    "evaluation": data.evaluation,
                    "skipped": {"count": len(data.skipped), "names": data.skipped[:NAMED_IMAGES]},
                    "test_fingerprint": data.test_fingerprint,
                },
            },
        )
