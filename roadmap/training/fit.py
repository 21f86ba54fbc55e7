"""`fit_run`: one run, from its spec to its result, with PyTorch Lightning."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from timm.layers import convert_sync_batchnorm
from torch import nn

from roadmap.checks import RoadmapError
from roadmap.data.batches import seed_everything
from roadmap.data.shared import SharedMemoryError
from roadmap.data.sources import ImageData
from roadmap.files import refusal, whole_file
from roadmap.network.weights import open_weights
from roadmap.tasks import task_named
from roadmap.training.device import is_memory_error, loader_workers, resolve_device
from roadmap.training.module import DivergedError, Progress, TaskModule
from roadmap.training.spec import Execution, RunSpec
from roadmap.training.start import StartingWeights, scale_classifier

#: A checkpoint is written at the end of the first epoch (but the last) after this many seconds.
CHECKPOINT_INTERVAL = 10.0
CHECKPOINT = "epoch.ckpt"


class SaveError(Exception):
    """The checkpoint could not be written, for the reason that the system gave."""


class Watch:
    """Hears nothing, never stops, and wants a checkpoint every `CHECKPOINT_INTERVAL` seconds."""

    def __init__(self) -> None:
        self._saved = time.monotonic()

    def report(self, progress: Progress) -> None:
        pass

    def epoch_ended(self, history: list[dict[str, Any]]) -> None:
        pass

    def wants_stop(self) -> bool:
        return False

    def wants_checkpoint(self) -> bool:
        if time.monotonic() - self._saved < CHECKPOINT_INTERVAL:
            return False
        self._saved = time.monotonic()
        return True


@dataclass(frozen=True)
class RunResult:
    """What came out of a run: ``metrics`` as plain values, the ``history`` of its epochs, the trained network, and
    ``correct``: which test images it gets right, bool (N,), in their order; None where it failed."""

    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    network: nn.Module
    correct: np.ndarray | None


def fit_run(
    run: RunSpec,
    data: ImageData,
    folder: Path,
    execution: Execution | None = None,
    watch: Watch | None = None,
    initial: Path | None = None,
) -> RunResult:
    """Train one network, and test it: its result is what the test after the last epoch says.

    ``folder`` takes the checkpoint of the running epoch; a run that finds one there continues from it, with as many
    threads as it was begun with, and ends with the same weights as a run that was never stopped. A loss that is no
    number ends the run with status ``failed``. ``initial``: file of the weights that it starts from, where its spec
    names some. Raises `StoppedError` when ``watch`` wanted it to stop, `MemoryError`
    when the device has not enough, and `RoadmapError` where the execution cannot be.
    """
    started = time.perf_counter()
    execution = execution or Execution()
    checkpoint = folder / CHECKPOINT
    threads = _threads_of(checkpoint)
    module, trainer = make_fit(run, data, folder, execution, watch or Watch(), threads, initial)
    task = module.task
    last = f"last_{task.metric.key}"
    metrics: dict[str, Any] = {"status": "done", "reason": None, last: None}
    try:
        trainer.fit(module, ckpt_path=checkpoint if threads else None, weights_only=True)
        metrics |= {**module.metrics, "score": module.metrics[task.metric.key], "loss": module.test_loss}
        if module.ema is not None:
            metrics[last] = module.last_score
    except DivergedError as error:
        nothing = dict.fromkeys((*(metric.key for metric in task.metrics), "score", "loss"))
        metrics |= {"status": "failed", "reason": f"diverged: {error}", **nothing}
    except SharedMemoryError:
        raise
    except Exception as error:
        if not is_memory_error(error):
            raise
        where = module.batcher.device
        raise MemoryError(f"batches of {run.recipe.part_size} images do not fit into the memory of {where}") from None
    except SystemExit:  # Lightning's answer to Ctrl-C, which it then leaves ignored
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    history = module.history
    metrics |= {
        "train_loss": history[-1]["train_loss"] if history else None,
        "epochs": len(history),
        "seconds": module.train_seconds or time.perf_counter() - started,
        "data_seconds": sum(epoch["data_seconds"] for epoch in history),
        "images_per_second": module.train_images / module.train_seconds if module.train_seconds else None,
        # what an interrupted run had trained before counts, too
        "wall_seconds": time.perf_counter() - started + sum(epoch["seconds"] for epoch in history[: module.resumed_at]),
    }
    correct = module.correct if metrics["status"] == "done" else None
    return RunResult(metrics, history, module.tested_network, correct)


def make_fit(
    run: RunSpec,
    data: ImageData,
    folder: Path,
    execution: Execution,
    watch: Watch,
    threads: int | None = None,
    initial: Path | None = None,
    kind: Callable[..., TaskModule] = TaskModule,
) -> tuple[Any, pl.Trainer]:
    """The LightningModule of a run and the Trainer that fits it. Raises `RoadmapError` where it cannot be executed.

    ``threads`` are those of the checkpoint that it goes on with; None: it begins, from ``initial`` if its spec says so.
    """
    begins = threads is None
    device = resolve_device(execution, run.precision)
    threads = threads or execution.threads
    if threads:
        torch.set_num_threads(threads)
    _be_quiet()
    together = execution.processes > 1
    rank = int(os.environ["RANK"]) if together else 0
    execution.check_shares(run, device.type)
    task = task_named(run.task)
    runtime = task.make_runtime()
    seed_everything(run.seed)
    network = runtime.build(run.design, run.head)
    if not run.initial:
        scale_classifier(network, run.recipe.head_scale)
    elif begins:
        if initial is None:
            raise RoadmapError("this run starts from trained weights, but their file is not named")
        scale = run.recipe.head_scale if run.head is None else None  # of a classifier
        StartingWeights(open_weights(initial), run.design).load_into(runtime.backbone(network), run.initial, scale)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if together and device.type == "cuda":
        # The batch is normalised as a whole, as one process would: the meaning of a run is not the number of devices.
        # Lightning's own conversion takes the activations out of timm's norms.
        network = convert_sync_batchnorm(network)
    if together and device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    workers = loader_workers(execution)
    batcher = runtime.batcher(data, run.recipe, run.seed, device, workers, rank, execution.processes)

    def save() -> None:
        if rank == 0:
            try:
                with whole_file(folder / CHECKPOINT) as temporary:
                    trainer.save_checkpoint(temporary)
            except Exception as error:
                if problem := refusal(error):
                    raise SaveError(problem) from error
                raise
        else:  # takes part in gathering it, and writes nothing
            trainer.save_checkpoint(folder / CHECKPOINT)

    module = kind(
        network,
        run.recipe,
        batcher,
        fused=_may_fuse(run),
        watcher=watch,
        save=save,
        tested=set(execution.tested(run.recipe.epochs, len(data.train), len(data.test))),
        task=task,
    )
    if execution.compile:
        network.compile()  # the inner network alone, in place: names of parameters stay as they are
    # Which processes train a run is said here, whatever the variables of a cluster, of torchrun or of MPI say.
    card = [device.index] if device.type == "cuda" else 1
    options: dict[str, Any] = {"devices": card, "plugins": [LightningEnvironment()]}
    if together:
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # that of a torchrun around this is not ours
        options = {
            "devices": execution.devices,
            "num_nodes": execution.num_nodes,
            "strategy": "ddp",
            "plugins": [TorchElasticEnvironment()],
            "use_distributed_sampler": False,
        }
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        precision="32-true" if run.precision == "32" else run.precision,  # type: ignore[arg-type]
        max_epochs=run.recipe.epochs,
        gradient_clip_val=run.recipe.clip_gradient,
        accumulate_grad_batches=run.recipe.accumulate,
        reload_dataloaders_every_n_epochs=1,
        # torch's remedies cost the CPU time and bring it nothing: it computes the same bits anyway.
        deterministic=execution.deterministic and device.type == "cuda",
        barebones=True,  # no logging, bars, summaries or checkpoints of Lightning's own: a tenth of a small step
        default_root_dir=folder,
        **options,
    )
    return module, trainer


def _may_fuse(run: RunSpec) -> bool:
    """Whether the optimizer's steps may be fused into one kernel. Under mixed precision Lightning refuses to clip
    gradients around a fused optimizer; 16-mixed has never fused, and its checkpoints go on as they began."""
    return run.precision == "32" or (run.precision == "bf16-mixed" and run.recipe.clip_gradient is None)


def _threads_of(checkpoint: Path) -> int | None:
    """The threads that a checkpoint was made with; None where there is none, or one that was cut off."""
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["roadmap_threads"])
    except Exception:  # torch raises a dozen kinds for a broken file
        return None


def _be_quiet() -> None:
    """Lightning's and torch's remarks on settings that are chosen here on purpose."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*worker processes in total.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    warnings.filterwarnings("ignore", message=".*NumPy array is not writable.*")
