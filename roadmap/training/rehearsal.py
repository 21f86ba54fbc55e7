"""A few real steps of a training, timed: what a run will take, before it is paid for."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning_fabric.utilities.apply_func import move_data_to_device

from roadmap.accelerator import reserved_memory, synchronize
from roadmap.cost.measuring import peak_resident
from roadmap.data.shared import SharedMemoryError
from roadmap.data.sources import ImageData
from roadmap.training.device import is_memory_error
from roadmap.training.fit import Watch, make_fit
from roadmap.training.module import TaskModule
from roadmap.training.spec import Execution, RunSpec

#: Steps that warm up, and the fewest that are timed after them.
WARM, TIMED = 3, 4


@dataclass(frozen=True)
class Rehearsed:
    """What was measured: seconds until the first step and test (torch.compile's included), of a training image, of a
    test image; and the peak memory in bytes: on a GPU what torch had reserved, on the CPU the growth of the process.
    ``batch_size`` it was measured with.
    """

    setup_seconds: float
    image_seconds: float
    test_image_seconds: float
    memory_bytes: float
    batch_size: int

    def seconds(self, run: RunSpec, train: int, test: int, execution: Execution) -> float:
        """Seconds of a whole run on this many training and test images."""
        images = run.recipe.epochs * (train // run.recipe.batch_size * run.recipe.batch_size)
        tested = test * len(execution.tested(run.recipe.epochs, train, test))
        return self.setup_seconds + images * self.image_seconds + tested * self.test_image_seconds


class _EnoughError(Exception):
    """Enough steps have been timed."""


class _Rehearsal(TaskModule):
    """Ends when its steps have been timed for this many ``seconds``; of several processes, the first decides."""

    seconds = 2.0

    def _so_far(self) -> tuple[float, float]:
        """Nothing is asked of the loss: a network that diverges is as fast as any other."""
        return math.nan, math.nan

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.marks: list[float] = []

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        synchronize(self.device)
        self.marks.append(time.perf_counter())
        timed = len(self.marks) - WARM
        if timed >= TIMED:
            enough = self.marks[-1] - self.marks[WARM - 1] >= self.seconds
            if self.trainer.strategy.broadcast(enough):
                raise _EnoughError
        super().on_train_batch_end(outputs, batch, index)


def rehearse(run: RunSpec, data: ImageData, execution: Execution, batch_size: int, seconds: float) -> Rehearsed:
    """Train ``run`` with batches of ``batch_size`` for about this many seconds, and measure it; its result is dropped.

    Raises `MemoryError` where the device has not enough.
    """
    recipe = dataclasses.replace(
        run.recipe,
        batch_size=batch_size,
        accumulate=1,
        min_lr=0.0,
        epochs=100_000,
        warmup_epochs=0.0,
        schedule="cosine",
        milestones=(),
    )
    before, started = peak_resident(), time.perf_counter()
    with TemporaryDirectory(prefix="roadmap-") as folder:
        module, trainer = make_fit(
            dataclasses.replace(run, recipe=recipe, initial=None),
            data,
            Path(folder),
            dataclasses.replace(execution, test_every=recipe.epochs),
            _NullWatch(),
            kind=_Rehearsal,
        )
        module.seconds = seconds
        try:
            trainer.fit(module)
        except _EnoughError:
            pass
        except SharedMemoryError:
            raise
        except Exception as error:
            if not is_memory_error(error):
                raise
            raise MemoryError(f"batches of {batch_size} images do not fit into memory") from None
    marks = module.marks
    step = (marks[-1] - marks[WARM - 1]) / (len(marks) - WARM)
    device = module.batcher.device
    memory = reserved_memory(device)
    if memory is None:
        memory = peak_resident() - before
    test_setup, test_image = _test_seconds(module, trainer, seconds / 4)
    return Rehearsed(
        setup_seconds=max(0.0, marks[0] - started - step) + test_setup,
        image_seconds=step / batch_size,
        test_image_seconds=test_image,
        memory_bytes=memory,
        batch_size=batch_size,
    )


class _NullWatch(Watch):
    def wants_checkpoint(self) -> bool:
        return False


def _test_seconds(module: TaskModule, trainer: Any, seconds: float) -> tuple[float, float]:
    """Seconds that the first test batch takes more than others, and of one test image, timed for this many seconds."""
    device = module.batcher.device
    module.to(device).eval()

    def test(most: float) -> tuple[float, int]:
        """(seconds, images) of some test batches, at least one."""
        module.on_validation_epoch_start()  # every pass begins with the first image
        begun, count, size = time.perf_counter(), 0, 0
        for batch in module.batcher.testing():
            if len(batch[0]) < size:  # the last batch, which would be compiled anew
                break
            module.validation_step(move_data_to_device(batch, device), 0)
            count, size = count + len(batch[0]), len(batch[0])
            if time.perf_counter() - begun > most:
                break
        synchronize(device)
        return time.perf_counter() - begun, count

    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        first, images = test(0.0)  # compiles
        spent, count = test(seconds)
    return max(0.0, first - spent / count * images), spent / count
