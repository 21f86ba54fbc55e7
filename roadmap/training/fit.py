"""`fit_run`: one run, from its spec to its result, with PyTorch Lightning."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from roadmap.checks import RoadmapError
from roadmap.data.batches import Batcher, seed_everything
from roadmap.data.sources import ImageData, cores
from roadmap.files import whole_file
from roadmap.network.model import RoadmapNet
from roadmap.training.device import resolve_device
from roadmap.training.module import Classifier, DivergedError
from roadmap.training.spec import Execution, RunSpec

#: A checkpoint is written at the first end of an epoch (but the last) after so many seconds.
CHECKPOINT_INTERVAL = 10.0
CHECKPOINT = "epoch.ckpt"

Report = Callable[[int, float, float], None]


@dataclass(frozen=True)
class RunResult:
    """What came out of a run: ``metrics`` as plain values, the ``history`` of its epochs, and the trained network."""

    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    network: RoadmapNet


def fit_run(
    run: RunSpec,
    data: ImageData,
    folder: Path,
    execution: Execution | None = None,
    report: Report = lambda epoch, fraction, loss: None,
) -> RunResult:
    """Train one network and test it once, after the last epoch.

    ``folder`` takes the checkpoint of the running epoch; a run that finds one there continues from it and ends with
    the same weights as a run that was never stopped. A loss that is no number ends the run with status ``diverged``.
    ``report`` hears (epochs done, fraction of this one, mean training loss).
    """
    execution = execution or Execution()
    device = resolve_device(execution, run.precision)
    if execution.threads:
        torch.set_num_threads(execution.threads)
    _be_quiet()
    seed_everything(run.seed)
    network = RoadmapNet(run.design)
    network.to(memory_format=torch.channels_last)
    workers = min(4, cores()) if execution.workers is None else execution.workers
    batcher = Batcher(data, run.recipe, run.seed, device, workers)
    checkpoint = folder / CHECKPOINT
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        if time.monotonic() - saved >= CHECKPOINT_INTERVAL:
            with whole_file(checkpoint) as temporary:
                trainer.save_checkpoint(temporary)
            saved = time.monotonic()

    # Lightning cannot clip gradients around a fused optimizer in 16-mixed precision.
    module = Classifier(network, run.recipe, batcher, fused=run.precision != "16-mixed", report=report, save=save)
    if execution.compile:
        network.compile()  # the inner network alone, in place: names of parameters stay as they are
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index] if device.type == "cuda" else 1,
        precision="32-true" if run.precision == "32" else run.precision,  # type: ignore[arg-type]
        max_epochs=run.recipe.epochs,
        gradient_clip_val=run.recipe.clip_gradient,
        check_val_every_n_epoch=run.recipe.epochs,
        reload_dataloaders_every_n_epochs=1,
        barebones=True,  # no logging, bars, summaries or checkpoints of Lightning's own: a tenth of a small step
        default_root_dir=folder,
    )
    resumed = checkpoint if _is_whole(checkpoint) else None
    started = time.perf_counter()
    metrics: dict[str, Any] = {"status": "done", "reason": None}
    try:
        trainer.fit(module, ckpt_path=resumed, weights_only=True)
        metrics |= {"top1": module.top1, "top5": module.top5, "loss": module.test_loss}
    except DivergedError as error:
        metrics = {"status": "diverged", "reason": str(error), "top1": None, "top5": None, "loss": None}
    except torch.OutOfMemoryError:
        raise RoadmapError(
            f"{run.step} does not fit into the memory of {device} with batches of {run.recipe.batch_size}: "
            "choose a smaller --batch-size"
        ) from None
    except SystemExit:  # Lightning's answer to Ctrl-C, which it then leaves ignored
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    history = module.history
    metrics |= {
        "train_loss": history[-1]["train_loss"] if history else None,
        "epochs": len(history),
        "seconds": module.train_seconds or time.perf_counter() - started,
        "images_per_second": module.train_images / module.train_seconds if module.train_seconds else None,
    }
    return RunResult(metrics, history, network)


def _is_whole(checkpoint: Path) -> bool:
    """Whether there is a checkpoint that can be read; one that was cut off is not gone on with."""
    try:
        return "state_dict" in torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen kinds for a broken file
        return False


def _be_quiet() -> None:
    """Lightning's and torch's remarks on settings that are chosen here on purpose."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*worker processes in total.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
