"""The Lightning side of a training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from roadmap.data.batches import EPOCH, Batch, Batcher, seed_everything
from roadmap.recipes.recipe import Recipe

#: Seconds between two reports of a running epoch.
REPORT_INTERVAL = 0.5


class DivergedError(Exception):
    """The loss is no longer a number."""


class Classifier(pl.LightningModule):
    """Trains a network by a recipe; loads a fresh set of batches for each epoch.

    ``report`` is called with (epochs done, fraction of this one, mean training loss so far), ``save`` at the end of
    every epoch but the last. ``history`` collects one mapping an epoch; ``top1``, ``top5`` (per cent) and
    ``test_loss`` are there after the last.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        batcher: Batcher,
        fused: bool,
        report: Callable[[int, float, float], None],
        save: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.network = network
        self.recipe, self.batcher, self.fused = recipe, batcher, fused
        self.report, self.save = report, save
        self.history: list[dict[str, Any]] = []
        self.train_seconds = 0.0
        self.train_images = 0

    # --- data ---

    def train_dataloader(self) -> Any:
        return self.batcher.training(self.current_epoch)

    def val_dataloader(self) -> Any:
        return self.batcher.testing()

    # --- training ---

    def configure_optimizers(self) -> Any:
        recipe, steps = self.recipe, self.batcher.steps
        options: dict[str, Any] = {"betas": tuple(recipe.betas)}
        if recipe.optimizer == "sgd":
            options = {"momentum": recipe.momentum}
        if self.fused and recipe.optimizer in ("sgd", "adamw"):
            options["fused"] = True
        optimizer = create_optimizer_v2(
            self.network,
            opt="momentum" if recipe.optimizer == "sgd" else recipe.optimizer,  # timm's "sgd" is Nesterov's
            lr=recipe.peak_lr,
            weight_decay=recipe.weight_decay,
            filter_bias_and_bn=not recipe.decay_all,
            **options,
        )
        # The cosine follows the warm-up, as in the paper's released code; steps count from the first epoch.
        prefix = recipe.schedule == "cosine"
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="multistep" if recipe.schedule == "step" else recipe.schedule,
            # epochs may be fractions, though timm declares whole ones
            num_epochs=recipe.epochs - recipe.warmup_epochs if prefix else recipe.epochs,  # type: ignore[arg-type]
            # timm counts steps from 1 here, and would decay one early: half a step more is between the two
            decay_milestones=[epoch + 0.5 / steps for epoch in recipe.milestones],  # type: ignore[misc]
            decay_rate=recipe.step_factor,
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
        seed_everything(self.batcher.seed, self.current_epoch, EPOCH)
        self._loss = torch.zeros((), device=self.device)
        self._steps = 0
        self._started = self._reported = time.perf_counter()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        images, targets = batch
        smoothing = 0.0 if self.recipe.mixes else self.recipe.label_smoothing  # Mixup's targets are smooth already
        loss = cross_entropy(self._logits(images), targets, label_smoothing=smoothing)
        self._loss += loss.detach()
        self._steps += 1
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        if self._steps == self.batcher.steps:  # the test after the last epoch comes before its end, and is no training
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds = time.perf_counter() - self._started
        if time.perf_counter() - self._reported > REPORT_INTERVAL:
            self._reported = time.perf_counter()
            self.report(self.current_epoch, self._steps / self.batcher.steps, self._mean_loss())

    def on_train_epoch_end(self) -> None:
        loss = self._mean_loss()
        images = self._steps * self.batcher.batch_size
        self.train_seconds += self._seconds
        self.train_images += images
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": loss,
                "lr_end": lr,
                "seconds": self._seconds,
                "images": images,
            }
        )
        self.report(self.current_epoch + 1, 0.0, loss)
        # Not after the last one: what comes then is writing the result, and a fit that is over cannot go on.
        if self.current_epoch + 1 < self.recipe.epochs:
            self.save()

    def _logits(self, images: Tensor) -> Tensor:
        return self.network(images.contiguous(memory_format=torch.channels_last)).float()

    def _mean_loss(self) -> float:
        loss = float(self._loss) / max(1, self._steps)
        if not math.isfinite(loss):
            raise DivergedError(f"training loss is {loss} in epoch {self.current_epoch + 1}")
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["roadmap_history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["roadmap_history"])
        self.train_seconds = sum(epoch["seconds"] for epoch in self.history)
        self.train_images = sum(epoch["images"] for epoch in self.history)

    # --- testing ---

    def on_validation_epoch_start(self) -> None:
        self._counts = torch.zeros(4, dtype=torch.float64 if self.device.type != "mps" else torch.float32)

    def validation_step(self, batch: Batch, index: int) -> None:
        images, labels = batch
        logits = self._logits(images)
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        loss = cross_entropy(logits, labels, reduction="sum")
        counts = torch.stack([ranked[:, 0].sum(), ranked.sum(), loss, torch.tensor(len(labels), device=loss.device)])
        self._counts += counts.to(self._counts)

    def on_validation_epoch_end(self) -> None:
        first, five, loss, count = self._counts.tolist()
        self.top1, self.top5, self.test_loss = 100 * first / count, 100 * five / count, loss / count
        if not math.isfinite(self.test_loss):
            raise DivergedError(f"test loss is {self.test_loss}")
