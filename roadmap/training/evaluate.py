"""A trained network tested on a data set: the figures of the training's own test, and what else its task tells."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from torch import nn

from roadmap.checks import RoadmapError
from roadmap.data.batches import TEST_BATCH
from roadmap.data.shared import SharedMemoryError
from roadmap.data.sources import ImageData
from roadmap.recipes.recipe import Recipe
from roadmap.tasks import default_task
from roadmap.tasks.task import Evaluation, Meter, Task
from roadmap.training.device import is_memory_error, loader_workers, resolve_device
from roadmap.training.spec import Execution

AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def evaluate_network(
    network: nn.Module,
    data: ImageData,
    weights: str,
    batch_size: int | None = None,
    execution: Execution | None = None,
    precision: str = "32",
    task: Task | None = None,
    part_size: int = TEST_BATCH,
) -> Evaluation:
    """Test a network on the test images of ``data``, normalised with its constants, as a training does at its end.

    ``weights`` is what the result calls them; ``batch_size`` is by default that of a training's test, whose training
    images come in batches of ``part_size``; ``task`` what it is tested at, by default classification. The classes of
    the data are the network's, in their order. Raises `RoadmapError` where the device is not there or has not enough
    memory, where an image cannot be read, and where the loss is no number.
    """
    return evaluate_networks({weights: network}, data, batch_size, execution, precision, task, part_size)[weights]


def evaluate_networks(
    networks: Mapping[str, nn.Module],
    data: ImageData,
    batch_size: int | None = None,
    execution: Execution | None = None,
    precision: str = "32",
    task: Task | None = None,
    part_size: int = TEST_BATCH,
) -> dict[str, Evaluation]:
    """Test networks, by what their weights are called, as `evaluate_network` does one: each image is read, and changed
    where ``data`` changes it, once for all of them."""
    execution, task = execution or Execution(), task or default_task()
    device = resolve_device(execution, precision)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    runtime, recipe = task.make_runtime(), Recipe("none", batch_size=part_size)
    batcher = runtime.batcher(data, recipe, seed=0, device=device, workers=loader_workers(execution))
    size = batcher.test_size(batch_size)
    cast = torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else contextlib.nullcontext()
    try:
        tested = [network.to(device, memory_format=torch.channels_last).eval() for network in networks.values()]  # type: ignore[call-overload]
        meters = [runtime.meter(batcher, device) for _ in tested]
        with torch.inference_mode(), cast:
            for batch in batcher.testing(batch_size):
                moved = move_data_to_device(batch, device)
                for network, meter in zip(tested, meters, strict=True):
                    meter.update(network, moved)
    except SharedMemoryError as error:
        raise RoadmapError(str(error)) from None
    except Exception as error:
        if not is_memory_error(error):
            raise
        raise RoadmapError(
            f"batches of {size} images of {data.image_size} px do not fit into the memory of {device}: "
            "give a smaller --batch-size"
        ) from None
    how: dict[str, Any] = {"data": data, "device": str(device), "precision": precision, "task": task}
    return {name: _evaluation(name, meter, **how) for name, meter in zip(networks, meters, strict=True)}


def _evaluation(weights: str, meter: Meter, data: ImageData, device: str, precision: str, task: Task) -> Evaluation:
    found = meter.compute()
    loss = found.pop("loss", None)
    if loss is not None and not math.isfinite(loss):
        raise RoadmapError(
            f"the loss is {loss} at precision {precision}: the weights are not those of a trained network, or "
            "need --precision 32"
        )
    return meter.evaluation(
        task=task.name,
        weights=weights,
        data=data.name,
        image_size=data.image_size,
        device=device,
        precision=precision,
        metrics=found,
        loss=loss,
        class_names=data.class_names,
        images=len(data.test),
        remarks=tuple(data.remarks),
    )
