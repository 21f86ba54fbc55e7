"""`reproduce`: make a finished run again from its record, and say whether it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from roadmap.checks import RoadmapError
from roadmap.network.layers import digest_of, load_plugins
from roadmap.planning.reading import load_spec
from roadmap.planning.spec import OPENED
from roadmap.processes import in_clean_process
from roadmap.provenance import code_record
from roadmap.running.display import Display
from roadmap.running.preparing import prepare
from roadmap.running.runner import run_study
from roadmap.store.records import WEIGHTS, metrics_of
from roadmap.store.store import Store
from roadmap.training.spec import RunSpec

#: What a run's numbers are beside its metrics, and what may change them.
REPRODUCED = ("loss", "train_loss", "epochs")
CIRCUMSTANCES = (
    "device",
    "device_name",
    "devices",
    "threads",
    "python",
    "torch",
    "timm",
    "pytorch_lightning",
    "roadmap",
    "platform",
)


@dataclass(frozen=True)
class Reproduction:
    """What came out of making a run again.

    ``metrics`` and ``circumstances`` (hardware, versions and code, where they differ): name -> (recorded, now).
    ``weights`` is the largest difference between two weights, 0.0 where all are equal bit for bit, and None where
    no values can be compared. ``flipped`` is the number of test images that only one of the two got right, and None
    where the run has no record of them.
    """

    signature: str
    metrics: dict[str, tuple[Any, Any]]
    weights: float | None
    flipped: int | None
    circumstances: dict[str, tuple[Any, Any]]

    @property
    def matches(self) -> bool:
        """Whether all numbers are the same, and, where they could be compared, all weights bit for bit and the test
        images that it gets right."""
        return all(old == new for old, new in self.metrics.values()) and not self.weights and not self.flipped


def reproduce(
    signature: str,
    store: Store,
    display: Display,
    data_dir: str | None = None,
    device: str | None = None,
    plugin: Sequence[str] = (),
) -> Reproduction:
    """Train a finished run of the store again, in a temporary store, and compare.

    ``data_dir``: where the data set lies now, if not where it lay. ``device``: another one than the recorded kind.
    ``plugin``: the files of its layers from outside the package.
    Raises `RoadmapError` where the run is not finished, its record is of another version, or the data are others.
    """
    record = store.record(signature)
    if record is None:
        raise RoadmapError(f"run {signature} is not finished: reproduce it when it is")
    run = RunSpec.from_dict(record["run"])
    opened = record["data"].get("opened") or {"name": run.data, "image_size": run.image_size}
    environment, labels = record["environment"], record["labels"]
    settings = {OPENED.get(name, name): value for name, value in opened.items()} | {
        "regime": run.regime,
        "task": run.task,
        "seeds": (run.seed,),
        "precision": run.precision,
        "jobs": "1",
        "device": device or environment["device"],
        "threads": environment["threads"],
        "compile": labels["compile"],
        "deterministic": bool(labels.get("deterministic")),
    }
    load_plugins(plugin)
    for layer, digest in digest_of(run.plugins).items():
        if digest != run.plugins[layer]:
            raise RoadmapError(
                f"the layer '{layer}' is not the one that run {signature} had: its file has changed, so name "
                "the one it had with --plugin"
            )
    settings["plugin"] = tuple(plugin)
    if data_dir is not None:
        settings["data_dir"] = data_dir
    initial = record["origin"].get("initial")
    if run.initial and not (initial and Path(initial).is_file()):
        raise RoadmapError(
            f"run {signature} started from the weights in {initial}, a file that no longer exists: put it back there"
        )
    study = prepare(load_spec(**settings), plan=lambda spec, data: [run], initial=Path(initial) if initial else None)
    if study.data.identity != run.data_fingerprint:
        raise RoadmapError(
            f"the images are not those that run {signature} was trained on ({len(study.data.train)} training and "
            f"{len(study.data.test)} test images here; {record['data']['train']} and {record['data']['test']} then): "
            "--data-dir says where those are"
        )
    with TemporaryDirectory(prefix="roadmap-") as folder:
        again = Store(Path(folder) / "store")
        run_study(study, Path(folder) / "study", again, False, display, f"roadmap reproduce {signature}")
        made = again.record(run.signature)
        assert made is not None  # run_study raises where it could not be trained
        files = [place.path(run.signature) / WEIGHTS for place in (store, again)]
        both = all(path.is_file() for path in files)
        weights = in_clean_process(largest_difference, *files) if both else None
        one, two = (place.correct(run.signature) for place in (store, again))
        flipped = None if one is None or two is None else int((one != two).sum())
    old, new = ({**one["environment"], **one["origin"]} for one in (record, made))
    compared = (*CIRCUMSTANCES, *code_record())
    differing = {name: (old.get(name), new.get(name)) for name in compared if old.get(name) != new.get(name)}
    metrics = {
        name: (record["result"][name], made["result"][name]) for name in ("status", *metrics_of(record), *REPRODUCED)
    }
    return Reproduction(signature, metrics, weights, flipped, differing)


def largest_difference(one: Path, two: Path) -> float:
    """The largest difference between two weights of two files of the same network; 0.0: equal bit for bit."""
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(two)
    differences = [
        (first[name].double() - second[name].double()).abs().max().item()
        for name in first
        if first[name].numel() and not first[name].equal(second[name])
    ]
    return max(differences, default=0.0)
