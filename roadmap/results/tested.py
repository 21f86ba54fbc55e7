"""Which test images the runs of a study got right, and which of them a step gains and loses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from roadmap.checks import RoadmapError, check_known, said
from roadmap.formatting import listed
from roadmap.results.flips import Flips, flips, reopened, together, told_of
from roadmap.tasks import default_task

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from roadmap.data.sources import ImageData
    from roadmap.store.store import Store


class TestedImages:
    """What a `Study` knows of single test images, from its store."""

    path: Path
    runs: pd.DataFrame
    store: Store | None
    if TYPE_CHECKING:

        @property
        def design(self) -> str: ...
        @property
        def steps(self) -> pd.DataFrame: ...
        @property
        def effects(self) -> pd.DataFrame: ...

    def correct_by_run(self, step: str | None = None) -> dict[tuple[str, int], tuple[np.ndarray, str] | None]:
        """Which test images every done run, of all networks or of one, got right in the test that gives its top1.

        (step, seed) -> bool (N,) and a fingerprint of these images and their order; None where the run kept no record
        of them, as those of earlier versions, or the store is not there.
        """
        done = self.runs[(self.runs["status"] == "done") & (self.runs["step"].eq(step) | (step is None))]
        return {(run["step"], run["seed"]): self._correct(run.get("signature")) for run in done.to_dict("records")}

    def _correct(self, signature: str | None) -> tuple[np.ndarray, str] | None:
        if self.store is None or signature is None:
            return None
        record = self.store.record(signature)
        if record is None or record["correct"] is None:
            return None
        correct = self.store.correct(signature)
        return None if correct is None else (correct, record["data"]["test_fingerprint"])

    def network(self, step: str, seed: int | None = None, plugin: str | Path | Sequence[str | Path] = ()) -> nn.Module:
        """A trained network of the study, as `roadmap.load` gives it: that of a ``seed``, by default of its first.

        Raises `RoadmapError` where there is none such, and where the store that has its weights is not there.
        """
        done = self.runs[self.runs["status"] == "done"]
        check_known("network", [step], list(dict.fromkeys(done["step"])))
        found = {run["seed"]: run["signature"] for run in done[done["step"] == step].to_dict("records")}
        chosen = next(iter(found)) if seed is None else seed
        if chosen not in found:
            known = listed([*map(str, found)])
            raise RoadmapError(f"{step} has no finished run of seed {said(seed)}; known seeds: {known}")
        if self.store is None:
            raise RoadmapError(f"the store with the weights of {self.path} is not there: only its tables were kept")
        from roadmap.running.trained import load

        return load(found[chosen], self.store.folder, plugin)

    def correct(self, step: str) -> np.ndarray | None:
        """Which test images the runs of a network got right: bool (seeds, N), the runs that are done in the order of
        `runs`. The mean of a row is that run's top1 / 100.

        None where no run is done, or one kept no record of its images or was tested on others than the rest. Raises
        `RoadmapError` for an unknown network.
        """
        check_known("network", [step], self.steps["step"])
        kept = self.correct_by_run(step)
        try:
            return together(step, kept)[0]
        except RoadmapError:
            return None

    def flips(self, step: str, against: str | None = None) -> Flips:
        """The test images that a step gains and loses, see `roadmap.results.flips.flips`.

        ``step`` is a step, which is compared as in `effects`, or a network, beside which another one may be named
        ``against``. Names, classes and pictures of the images are there where the data set is. Raises `RoadmapError`
        where no single network is what the step is compared with, and where runs kept no record of their images.
        """
        before, after = self._compared(step, against)
        if self.store is None:
            raise RoadmapError(
                f"only the store of {self.path.name} says which test images its runs got right, and it is not there"
            )
        (old, images), (new, others) = (together(name, self.correct_by_run(name)) for name in (before, after))
        if images != others:
            raise RoadmapError(f"'{before}' and '{after}' were tested on different images and cannot be compared")
        data, remark = self.test_data
        names, labels = told_of(data) if data else (None, None)
        return Flips(flips(old, new, names, labels), f"Test images: {after} against {before}", data, remark)

    def _compared(self, step: str, against: str | None) -> tuple[str, str]:
        """The network that a step is compared with, and the one that has it."""
        if against is not None:
            check_known("network", [step, against], self.steps["step"])
            return against, step
        effects = self.effects.set_index("effect")
        check_known("step", [step], effects.index)
        pair = effects.loc[step, ["against", "network"]]
        if pair.isna().any():
            raise RoadmapError(
                f"'{step}' is not the difference of two networks in this {self.design} study: name the network that "
                "has it, and with against= the one to compare it with"
            )
        return str(pair["against"]), str(pair["network"])

    @cached_property
    def test_data(self) -> tuple[ImageData | None, str]:
        """The data set, opened anew, or None and why not, see `reopened`."""
        done = self.runs.loc[self.runs["status"] == "done", "signature"]
        record = self.store.record(done.iloc[0]) if self.store else None
        if record is None:
            return None, "the study's store is not there"
        run = record["run"]
        return reopened(record["data"]["opened"], run["data_fingerprint"], run["task"] or default_task().name)

    def correct_alike(self) -> dict[tuple[str, int], np.ndarray]:
        """(network, seed) -> which test images the run got right, bool (N,), of all runs that kept a record, where they
        were all tested on the same images; empty where they were not."""
        kept = {run: record for run, record in self.correct_by_run().items() if record is not None}
        same = len({fingerprint for _, fingerprint in kept.values()}) == 1
        return {run: correct for run, (correct, _) in kept.items()} if same else {}
