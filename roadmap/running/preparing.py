"""`prepare`: opens a study's data, loads its plug-ins, plans its runs and counts their cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.checks import RoadmapError
from roadmap.network.design import Design
from roadmap.phases import phase
from roadmap.planning.networks import plan_networks
from roadmap.planning.red_flags import refuse_empty_training
from roadmap.planning.runs import plan as plan_study
from roadmap.planning.spec import StudySpec
from roadmap.processes import in_clean_process, prepare_processes
from roadmap.running.finetuning import find_start, plan_finetuning
from roadmap.running.matching import rescale
from roadmap.running.prepared import Prepared
from roadmap.store.store import Store, store_at
from roadmap.training.spec import RunSpec

if TYPE_CHECKING:
    from roadmap.cost.counting import Cost
    from roadmap.cost.matching import Matched
    from roadmap.data.sources import ImageData
    from roadmap.network.families import NetworkDesign


def prepare(
    spec: StudySpec,
    store: Store | None = None,
    plan: Callable[[StudySpec, ImageData], list[RunSpec]] | None = None,
    initial: Path | None = None,
) -> Prepared:
    """Open the data, resolve every run of the ``plan``, by default the study's own, and count its cost.

    ``store`` is where a study that starts from a run finds it; ``initial`` a file that the runs of a plan start from.
    Writes nothing, but that times measured for a match are kept in the store. Raises `RoadmapError`.
    """
    spec.asked_task.check_installed()
    ablation = None if spec.start_from else plan_networks(spec)  # before anything slow
    prepare_processes()  # what workers need is imported once, there, while the data is opened here
    from roadmap.running.engines import check_engine
    from roadmap.running.loggers import check_logger

    check_logger(spec.logger)
    check_engine(spec)
    place = store or store_at()
    if spec.start_from and initial is None:
        with phase("reading the weights to start from"):
            start = in_clean_process(find_start, spec, place.folder)
        plan, initial = partial(plan_finetuning, start=start), start.path
    with phase("reading the data"):
        data = spec.asked_task.open_data(**spec.opened)
    with phase("planning the runs"):
        runs = plan(spec, data) if plan else plan_study(spec, data, LocalResolver(spec, place), ablation)
    refuse_empty_training(runs, len(data.train))
    with phase("building the networks and counting their cost"):
        device, name, costs = in_clean_process(_look, spec, runs, data.image_size)
    for run in runs:
        spec.execution.check_shares(run, device.partition(":")[0])
    return Prepared(spec, data, runs, costs, device, name, ablation, initial)


@dataclass(frozen=True)
class LocalResolver:
    """The `NetworkResolver` of this machine: it builds networks in clean processes."""

    spec: StudySpec
    store: Store

    def rescale(
        self, image_size: int, batch_size: int, designs: list[Design], target: Design, head: Any
    ) -> list[Matched]:
        """See `rescale`."""
        return rescale(self.spec, self.store, image_size, batch_size, designs, target, head)

    def unified(self, designs: list[Design]) -> list[Design]:
        """See `roadmap.network.equality.unified`."""
        return in_clean_process(_unified, self.spec.plugin, designs)

    def references(self, num_classes: int, image_size: int, stem_stride: int) -> list[NetworkDesign]:
        """See `reference_design`."""
        from roadmap.ladders.rungs import timm_names
        from roadmap.network.timm_model import reference_design

        if rungs := [name for name in self.spec.reference if name in timm_names()]:
            raise RoadmapError(f"'{rungs[0]}' is a rung of the ladder and no reference: --only trains single rungs")
        how = (num_classes, image_size, stem_stride)
        return [in_clean_process(reference_design, name, *how) for name in self.spec.reference]


def _unified(plugins: tuple[str, ...], designs: list[Design]) -> list[Design]:
    from roadmap.network.equality import unified
    from roadmap.network.layers import load_plugins

    load_plugins(plugins)
    return unified(designs)


def _look(spec: StudySpec, runs: list[RunSpec], image_size: int) -> tuple[str, str, dict[str, Cost]]:
    """The device of a study, its name, and what each step costs."""
    import torch

    from roadmap.checking.design import check_layers
    from roadmap.network.layers import load_plugins
    from roadmap.training.device import device_name, resolve_device

    load_plugins(spec.plugin)
    for design in {run.design for run in runs}:
        check_layers(design, image_size)
    # On a cluster the devices are others' than this machine's.
    local = spec.engine == "local"
    device = str(resolve_device(spec.execution, spec.precision)) if local else spec.device
    runtime = spec.asked_task.make_runtime()
    costs = {run.step: runtime.cost(run.design, run.head, image_size) for run in runs}
    return device, device_name(torch.device(device)) if local else device, costs
