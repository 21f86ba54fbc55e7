"""The Lightning side of a training."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from roadmap.accelerator import synchronize
from roadmap.data.batches import EPOCH, Batcher, seed_everything
from roadmap.recipes.recipe import Recipe
from roadmap.tasks import default_task
from roadmap.tasks.task import Task

#: Seconds between two reports of a running epoch.
REPORT_INTERVAL = 0.5


class DivergedError(Exception):
    """The loss is no longer a number."""


class StoppedError(Exception):
    """The run was asked to stop, and has: it was saved at the end of an epoch."""


@dataclass(frozen=True)
class Progress:
    """How far a training is: epochs done, share of the running one, and of this one so far the mean loss, the task's
    figure of its augmented training images (per cent; of mixed images the larger share counts; 0 where the task has
    none) and images per second; and the score on the test images when they were last looked at."""

    epoch: int
    fraction: float
    loss: float
    trained: float
    images_per_second: float
    tested: float | None

    def named(self, task: Task) -> dict[str, Any]:
        """The same by the names that figures have in a history: ``train_top1``, ``test_top1``."""
        trained = {} if task.trained is None else {f"train_{task.trained.key}": self.trained}
        known = {name: getattr(self, name) for name in ("epoch", "fraction", "loss")}
        speed = {"images_per_second": self.images_per_second}
        return known | trained | speed | {f"test_{task.metric.key}": self.tested}


class Watcher(Protocol):
    """Hears of a training, and may end it."""

    def report(self, progress: Progress) -> None: ...
    def epoch_ended(self, history: list[dict[str, Any]]) -> None: ...
    def wants_checkpoint(self) -> bool: ...
    def wants_stop(self) -> bool: ...


class TaskModule(pl.LightningModule):
    """Trains a network for a task, by default classification, by a recipe; loads a fresh set of batches for each epoch.

    At the end of every epoch but the last, ``save`` is called where ``watcher`` wants a checkpoint or a stop.
    ``history`` collects one mapping an epoch. The network is tested after the epochs ``tested``, the last among them:
    ``metrics`` (the task's, per cent) and ``test_loss`` are those of the latest test, and ``correct``, bool (N,), says
    which test images it got right, in their order, where the task can tell; where the recipe averages the weights,
    ``last_score`` is that of the weights as the optimizer left them.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        batcher: Batcher,
        fused: bool,
        watcher: Watcher,
        save: Callable[[], None],
        tested: Collection[int],
        task: Task | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task or default_task()
        self.runtime = self.task.make_runtime()
        self.recipe, self.batcher, self.fused = recipe, batcher, fused
        self.watcher, self.save, self.tested = watcher, save, tested
        self.ema = None
        if recipe.ema is not None:
            self.ema = ModelEmaV3(network, recipe.ema, use_warmup=recipe.ema_warmup).requires_grad_(False)
        self.history: list[dict[str, Any]] = []
        self.resumed_at = 0
        self.train_seconds = 0.0
        self.train_images = 0
        self.last_score: float | None = None
        self._forget_test()

    def _forget_test(self) -> None:
        self.metrics: dict[str, float | None] = {metric.key: None for metric in self.task.metrics}
        self.test_loss: float | None = None
        self.correct: np.ndarray | None = None

    # --- data ---

    def train_dataloader(self) -> Any:
        self._batches = self.batcher.training(self.current_epoch)
        return self._batches

    def val_dataloader(self) -> Any:
        return self.batcher.testing()

    # --- training ---

    def setup(self, stage: str) -> None:
        self._on_terminate = signal.getsignal(signal.SIGTERM)

    def on_fit_start(self) -> None:
        # Lightning would end the fit on SIGTERM. Who started it says what that means; a study saves the epoch first.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_terminate)

    def configure_optimizers(self) -> Any:
        recipe, steps = self.recipe, self.batcher.steps
        options: dict[str, Any] = {"betas": tuple(recipe.betas)}
        if recipe.optimizer in ("sgd", "nesterov"):
            options = {"momentum": recipe.momentum}
        if self.fused and recipe.optimizer in ("sgd", "nesterov", "adam", "adamw"):
            options["fused"] = True
        optimizer = create_optimizer_v2(
            self.runtime.parameters(self.network, recipe),
            opt={"sgd": "momentum", "nesterov": "sgd"}.get(recipe.optimizer, recipe.optimizer),  # as timm calls them
            lr=recipe.peak_lr,
            weight_decay=recipe.weight_decay,
            filter_bias_and_bn=not recipe.decay_all,
            layer_decay=recipe.layer_decay,
            **options,
        )
        # The cosine follows the warm-up, as in the paper's released code; steps count from the first epoch.
        prefix = recipe.schedule != "step"
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched={"step": "multistep", "linear": "poly"}.get(recipe.schedule, recipe.schedule),
            # epochs may be fractions, though timm declares whole ones
            num_epochs=recipe.epochs - recipe.warmup_epochs if prefix else recipe.epochs,  # type: ignore[arg-type]
            # timm counts steps from 1 here, and would decay one early: half a step more is between the two
            decay_milestones=[epoch + 0.5 / steps for epoch in recipe.milestones],  # type: ignore[misc]
            decay_rate=1.0 if recipe.schedule == "linear" else recipe.step_factor,  # the power of timm's poly
            min_lr=recipe.min_lr,
            warmup_epochs=recipe.warmup_epochs,  # type: ignore[arg-type]
            warmup_lr=0.0,
            warmup_prefix=prefix,
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step_update(self.global_step)

    def on_train_epoch_start(self) -> None:
        rank = (self.batcher.rank,) if self.batcher.ranks > 1 else ()
        seed_everything(self.batcher.seed, self.current_epoch, EPOCH, *rank)
        if self.recipe.frozen_norms:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        self._sums = torch.zeros(2, device=self.device)  # of the losses of steps, of images told right
        self._seen = 0  # batches
        self._forget_test()
        # Lightning asks this at the end of the epoch.
        due = self.current_epoch + 1 in self.tested
        self.trainer.check_val_every_n_epoch = 1 if due else self.recipe.epochs + 1
        self._started = self._reported = time.perf_counter()

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss, right = self.runtime.loss(self.network, batch, self.recipe)
        with torch.no_grad():
            self._sums += torch.stack([loss, right])
        self._seen += 1
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        if self.ema is not None and self._seen % self.recipe.accumulate == 0:
            self.ema.update(self.network, step=self.global_step)
        if self._seen == self.batcher.batches:  # the test after the last epoch comes before its end, and is no training
            synchronize(self.device)
            self._seconds = time.perf_counter() - self._started
        if time.perf_counter() - self._reported > REPORT_INTERVAL:
            self._reported = time.perf_counter()
            self._report(self.current_epoch, self._seen / self.batcher.batches, self._reported - self._started)

    def on_train_epoch_end(self) -> None:
        if self.batcher.ranks > 1:
            torch.distributed.all_reduce(self._sums)
            self._sums /= self.batcher.ranks  # now means over the ranks, as each rank's own share would be
        loss, trained = self._so_far()
        images = self._seen * self.batcher.part_size
        self.train_seconds += self._seconds
        self.train_images += images
        lr = max(group["lr"] for group in self.trainer.optimizers[0].param_groups)
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": loss,
                **({f"train_{self.task.trained.key}": trained} if self.task.trained else {}),
                "test_loss": self.test_loss,
                **{f"test_{key}": value for key, value in self.metrics.items()},
                "lr_end": lr,
                "seconds": self._seconds,
                "data_seconds": self._batches.waited,
                "images": images,
            }
        )
        self._report(self.current_epoch + 1, 0.0, self._seconds)
        self.watcher.epoch_ended(self.history)
        # Not after the last one: what comes then is writing the result, and a fit that is over cannot go on.
        if self.current_epoch + 1 < self.recipe.epochs:
            # The first process decides for all that train this run.
            save, stop = self.trainer.strategy.broadcast((self.watcher.wants_checkpoint(), self.watcher.wants_stop()))
            if save or stop:
                self.save()
            if stop:
                raise StoppedError

    def _report(self, epochs: int, fraction: float, seconds: float) -> None:
        loss, trained = self._so_far()
        speed = self._seen * self.batcher.part_size / seconds
        scores = [epoch[f"test_{self.task.metric.key}"] for epoch in self.history]
        tested = [score for score in scores if score is not None]
        self.watcher.report(Progress(epochs, fraction, loss, trained, speed, tested[-1] if tested else None))

    @property
    def tested_network(self) -> nn.Module:
        """The network that is tested and kept: the average of the weights where the recipe has one."""
        return self.network if self.ema is None else self.ema.module

    def _so_far(self) -> tuple[float, float]:
        """(mean loss, the task's figure of training images in per cent) of this epoch's steps."""
        loss, right = self._sums.tolist()
        loss /= self._seen
        if not math.isfinite(loss):
            raise DivergedError(f"training loss is {loss} in epoch {self.current_epoch + 1}")
        return loss, 100 * right * self.batcher.ranks / (self._seen * self.batcher.part_size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["roadmap_history"] = self.history
        checkpoint["roadmap_threads"] = torch.get_num_threads()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        tests = ("loss", *(metric.key for metric in self.task.metrics))
        unknown = {f"test_{name}": None for name in tests} | {"data_seconds": 0.0}  # to earlier versions
        self.history = [unknown | epoch for epoch in checkpoint["roadmap_history"]]
        self.resumed_at = len(self.history)
        self.train_seconds = sum(epoch["seconds"] for epoch in self.history)
        self.train_images = sum(epoch["images"] for epoch in self.history)

    # --- testing ---

    def on_validation_epoch_start(self) -> None:
        self._networks = [self.tested_network] + [self.network] * (self.ema is not None)
        self._meters = [self.runtime.meter(self.batcher, self.device) for _ in self._networks]

    def validation_step(self, batch: Any, index: int) -> None:
        for meter, network in zip(self._meters, self._networks, strict=True):
            meter.update(network, batch)

    def on_validation_epoch_end(self) -> None:
        if self.batcher.ranks > 1:
            for meter in self._meters:
                meter.gather()
        found, *others = [meter.compute() for meter in self._meters]
        loss = found.pop("loss", None)
        self.last_score = (others or [found])[0][self.task.metric.key]
        if loss is None or math.isfinite(loss):
            self.metrics, self.test_loss, self.correct = {**found}, loss, self._meters[0].correct
        elif self.current_epoch + 1 == self.recipe.epochs:
            raise DivergedError(f"test loss is {loss}")
