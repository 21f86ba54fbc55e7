"""`RunSpec`: one training, complete in itself; and `Execution`: where and how it runs, which is no part of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from roadmap.checks import RoadmapError, check_int, keep_plain, said
from roadmap.network.building import design_from_dict
from roadmap.network.families import NetworkDesign, family_of
from roadmap.recipes.recipe import Recipe
from roadmap.tasks import default_task, task_named

PRECISIONS = ("32", "16-mixed", "bf16-mixed")
#: Tests between epochs take at most this share of the training's time.
TEST_SHARE = 0.1
#: Part of every signature: raised when the same settings come to mean another training.
SIGNATURE_FORMAT = 1
#: Settings that came later, each with the value that means the training as it was before it came. At that value they
#: are left out of the signature, so that a new setting renames no old run. Never a default: those may change. Those of
#: a network are its family's.
WITHOUT: dict[str, dict[str, Any]] = {
    "recipe": {
        "accumulate": 1,
        "layer_decay": None,
        "head_scale": None,
        "min_lr": 0.0,
        "ema": None,
        "ema_warmup": False,
        "frozen_norms": False,
        "photometric": False,
        "scale": (1.0, 1.0),
    },
    "run": {"initial": None, "plugins": {}, "task": default_task().name, "head": None},
}


@dataclass(frozen=True)
class RunSpec:
    """What has to be trained: a design of any family for a task, and a recipe on a data set with a seed.

    ``regime``, ``step`` and ``adopted`` say which rung it stands for, ``width`` (of the start, in channels) and
    ``depth`` (factor on the blocks) how the ladder was scaled; ``ablation`` is the study's design, ``reference`` says
    that it is no part of that but runs in the same race, ``steps`` are the names of all steps that are in the network,
    ``match`` and ``match_factor`` say how its cost was matched. All of these are labels. ``data_fingerprint`` names the
    images, ``plugins`` the source of every layer from outside this package (layer -> digest), and ``initial`` the
    weights that the training starts from (`StartingWeights.digest`; None: fresh ones). ``head``: settings of the task's
    head, of one of `Task.heads`; None where the design's classifier is the head.
    """

    regime: str
    step: str
    adopted: bool
    width: int
    depth: float
    design: NetworkDesign
    recipe: Recipe
    data: str
    data_fingerprint: str
    image_size: int
    seed: int
    precision: str = "32"
    initial: str | None = None
    plugins: dict[str, str] = field(default_factory=dict)
    task: str = field(default_factory=lambda: default_task().name)
    head: Any = None
    ablation: str = "ladder"
    reference: bool = False
    steps: tuple[str, ...] | None = None
    match: str | None = None
    match_factor: float | None = None

    def __post_init__(self) -> None:
        keep_plain(self)
        if self.steps is not None:
            object.__setattr__(self, "steps", tuple(self.steps))
        task_named(self.task).check_recipe(self.recipe)

    @cached_property
    def signature(self) -> str:
        """16 hexadecimal digits that name everything the result depends on, defaults included; labels are left out."""
        plain = self._plain
        recipe = dataclasses.asdict(self.recipe)
        for label in ("name", "why", "classic", "image_size", "lr", "lr_batch_size"):
            del recipe[label]
        content = {
            "format": SIGNATURE_FORMAT,
            "design": _known_of_old(family_of(self.design).later, dataclasses.asdict(self.design)),
            "recipe": _known_of_old(WITHOUT["recipe"], recipe | {"peak_lr": self.recipe.peak_lr}),
            "data": self.data_fingerprint,
            "image_size": self.image_size,
            "seed": self.seed,
            "precision": self.precision,
            **_known_of_old(WITHOUT["run"], {name: plain[name] for name in WITHOUT["run"]}),
        }
        return hashlib.sha256(json.dumps(_as_floats(content), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def normalises_over_batch(self) -> bool:
        """Whether in training what an image comes to depends on the others of its batch. May have to ask torch."""
        return task_named(self.task).make_runtime().normalises_over_batch(self.design, self.head)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """The run of `to_dict`. Raises `RoadmapError` where another version wrote it, or somebody changed it."""
        try:
            known = {name: value for name, value in values.items() if name != "signature"}
            run = cls(
                **{
                    **WITHOUT["run"],
                    **known,
                    "design": design_from_dict(values["design"]),
                    "recipe": Recipe(**{**WITHOUT["recipe"], **values["recipe"]}),
                    "head": task_named(values.get("task", WITHOUT["run"]["task"])).head_of(values.get("head")),
                }
            )
        except (TypeError, KeyError):
            raise RoadmapError("the run's settings are those of another version of roadmap: use that one") from None
        if run.signature != values["signature"]:
            raise RoadmapError(f"the settings are not those of run {values['signature']}: they make {run.signature}")
        return run

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return self._plain | {"signature": self.signature}

    @property
    def _plain(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"head": task_named(self.task).head_values(self.head)}


def _known_of_old(later: Mapping[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that came ``later`` and are as if they had not."""
    return {name: value for name, value in settings.items() if name not in later or value != later[name]}


def _as_floats(value: Any) -> Any:
    """The same value with every number a float, so that 1 and 1.0, which train alike, are named alike."""
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Execution:
    """Where and how one run is executed: ``device`` such as ``cpu`` or ``cuda:1`` (``auto`` takes a GPU if there is
    one), ``compile`` the network with torch.compile, loader ``workers`` (None: one a core, four at most, where images
    are streamed), CPU ``threads`` (None: torch's own choice).

    ``deterministic`` has a GPU compute the same bits every time, which takes longer; a CPU always does.

    The network is tested after every ``test_every`` epochs (None: as often as takes at most `TEST_SHARE` of the
    training) and after the last one, whose accuracy is the result.

    ``devices`` on each of ``num_nodes`` machines train it together (DistributedDataParallel), each in a process of its
    own that has torch.distributed's variables MASTER_ADDR, MASTER_PORT, RANK, LOCAL_RANK and WORLD_SIZE set. The batch
    is shared out among them.
    """

    device: str = "auto"
    compile: bool = False
    workers: int | None = None
    threads: int | None = None
    devices: int = 1
    num_nodes: int = 1
    test_every: int | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        keep_plain(self)
        if not isinstance(self.device, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", self.device):
            raise RoadmapError(f"device is {said(self.device)}, but must be auto, cpu, cuda, cuda:N or mps")
        if self.workers is not None:
            check_int("workers", self.workers, 0, 1024)
        if self.threads is not None:
            check_int("threads", self.threads, 1, 1024)
        if self.test_every is not None:
            check_int("test_every", self.test_every, 1, 100_000)
        check_int("devices", self.devices, 1, 1024)
        check_int("num_nodes", self.num_nodes, 1, 100_000)
        if self.devices > 1 and ":" in self.device:
            raise RoadmapError(
                f"device '{self.device}' is one device, but devices is {self.devices}: leave its number out"
            )

    def tested(self, epochs: int, train: int, test: int) -> list[int]:
        """The epochs, from 1 on, after which a run on this many training and test images is tested."""
        every = self.test_every or math.ceil(test / (3 * TEST_SHARE * train))  # an image costs a third of a trained one
        return [epoch for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs]

    @property
    def processes(self) -> int:
        """How many processes train one run together."""
        return self.devices * self.num_nodes

    def check_shares(self, run: RunSpec, device: str) -> None:
        """Raise `RoadmapError` where this many processes cannot train the run together with the same result as one, or
        BatchNorm would see too few images."""
        least = task_named(run.task).fewest_images
        if run.recipe.part_size < least and not run.recipe.frozen_norms and run.normalises_over_batch:
            raise RoadmapError(
                f"{run.step} has BatchNorm, which cannot normalise over {run.recipe.part_size} images at a time: give "
                f"a --batch-size of {least} or more, to be shared out by --devices, or keep its statistics with "
                "--frozen-norms"
            )
        if self.processes == 1:
            return
        if run.recipe.part_size % self.processes:
            raise RoadmapError(
                f"batches of {run.recipe.part_size} images cannot be shared out evenly to {self.processes} "
                "processes: give another --batch-size, or other --devices"
            )
        if run.recipe.mixes and run.recipe.part_size // self.processes % 2:
            raise RoadmapError(
                f"batches of {run.recipe.part_size} images leave each of {self.processes} processes an odd number, but "
                "Mixup and CutMix pair images: give another --batch-size"
            )
        if device != "cuda" and not run.recipe.frozen_norms and run.normalises_over_batch:
            raise RoadmapError(
                f"{run.step} normalises over the whole batch, which several processes can do on GPUs alone: "
                "use one device"
            )
