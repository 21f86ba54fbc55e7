"""A trained network as a folder that `timm.create_model("local-dir:FOLDER")` and the Hugging Face hub open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import torch

from roadmap.checks import RoadmapError, cause
from roadmap.data.sources import crop_share_of
from roadmap.explaining.findings import findings_of_step
from roadmap.explaining.words import measured
from roadmap.exporting.counterpart import counterpart
from roadmap.exporting.difference import relative_difference
from roadmap.files import aside
from roadmap.markup import printable
from roadmap.network.families import on_ladder
from roadmap.network.layers import find_layer
from roadmap.running.trained import TrainedWeights, find_trained, network_of
from roadmap.store.records import row_of
from roadmap.store.store import store_at
from roadmap.tasks import check_default

if TYPE_CHECKING:
    from roadmap.results.study import Study

#: What the two networks may differ by, relative to the largest logit: sums in another order.
TOLERANCE = 1e-4
#: What of a run's row stands on its card.
FACTS = (
    "data",
    "image_size",
    "recipe",
    "optimizer",
    "epochs",
    "batch_size",
    "lr",
    "seed",
    "top1",
    "top5",
    "gmacs",
    "params",
    "device_name",
    "torch",
    "timm",
    "roadmap",
    "command",
    "signature",
)


@dataclass(frozen=True)
class SavedNetwork:
    """Where a network was written, as which of timm's models, and how far its outputs are from the run's network's,
    relative to the largest."""

    folder: Path
    architecture: str
    difference: float


def save_for_timm(
    run_or_path: str | os.PathLike,
    folder: str | os.PathLike,
    store: str | os.PathLike | None = None,
    study: Study | None = None,
) -> SavedNetwork:
    """Write a trained network into a new folder: config.json, model.safetensors, and a model card as README.md.

    ``run_or_path`` as for `roadmap.load`; ``study`` is a study that the run is part of, whose findings go on the card.
    What is written is opened by timm and compared with the network before the folder gets its name. Raises
    `RoadmapError` where the folder is there already, and where the study has not this run.
    """
    import timm
    from timm.models import save_for_hf

    target = Path(folder)
    if target.exists():
        raise RoadmapError(f"{target} exists already: name a new folder")
    trained = find_trained(run_or_path, store, None, {}, "roadmap.load_weights(roadmap.build(STEP), FILE)")
    check_default(trained.task, "export-weights", trained.name)
    network = network_of(trained).eval()
    theirs, architecture, arguments = counterpart(network, trained.labels["regime"], trained.labels["step"])
    record = None if trained.identity is None else store_at(store).record(trained.name)
    if study is not None and trained.name not in set(study.runs["signature"]):
        raise RoadmapError(f"{study.path} has no run {trained.name}, so that its findings say nothing of it")
    card = _card(trained, architecture, None if record is None else row_of(record), study)
    unfinished = aside(target)
    try:
        # timm writes into a folder that is there; weights as safetensors alone
        save_for_hf(theirs, str(unfinished), _config(trained), arguments, safe_serialization=True)
        opened = timm.create_model(f"local-dir:{unfinished}", pretrained=True).eval()
        difference = _difference(network, opened, trained.description.image_size or 224)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        unfinished.rename(target)
    except OSError as error:
        raise RoadmapError(f"{target} cannot be written: {cause(error)}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return SavedNetwork(target, architecture, difference)


def _difference(network: Any, theirs: torch.nn.Module, size: int) -> float:
    """The largest difference of logits for two random images, relative to the largest. Raises `RoadmapError` where the
    two networks do not compute the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, network.design.in_channels, size, size, generator=generator)
    with torch.inference_mode():
        difference = relative_difference(network(images), theirs(images))
    if not difference <= TOLERANCE:
        raise RoadmapError(f"timm's network differs by {difference:.2g} of the largest output: nothing was written")
    return difference


def _config(trained: TrainedWeights) -> dict[str, Any]:
    """What timm's configuration says besides the architecture: how images are prepared, and what the classes are."""
    known = trained.description
    share = crop_share_of(str(trained.opened.get("name")), known.image_size or 224)
    prepared: dict[str, Any] = {"interpolation": "bicubic", "crop_pct": share, "crop_mode": "center"}
    prepared |= {name: list(value) for name, value in (("mean", known.mean), ("std", known.std)) if value}
    if known.image_size:
        prepared |= {"input_size": [known.design.in_channels, known.image_size, known.image_size], "pool_size": None}
    classes = {} if known.class_names is None else {"label_names": list(known.class_names)}
    return {"pretrained_cfg": prepared, **classes}


def _card(trained: TrainedWeights, architecture: str, row: Mapping[str, Any] | None, study: Study | None) -> str:
    step, design = trained.labels["step"], trained.description.design
    data = "unknown data" if row is None else str(row["data"])
    own = [name for name, _ in design.layers if not find_layer(name).shipped] if on_ladder(design) else []
    facts = [] if row is None else [(name.replace("_", " "), _cell(row[name])) for name in FACTS]
    environment = jinja2.Environment(  # noqa: S701  (Markdown)
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    return environment.from_string(files(__package__).joinpath("card.md").read_text(encoding="utf-8")).render(
        title=step if row is None else f"{step} on {data}",
        what=_what(step, on_ladder(design), row),
        data=data,
        top1=None if row is None else row["top1"],
        architecture=architecture,
        needs_roadmap=architecture.startswith("roadmap_"),
        layers=own,
        findings=[] if study is None else measured(findings_of_step(study, step, trained.labels["regime"])),
        facts=facts,
    )


def _what(step: str, is_rung: bool, row: Mapping[str, Any] | None) -> str:
    """Which network this is, and what is known of its training."""
    network = f"The network `{step}` of the road from ResNet to ConvNeXt" if is_rung else f"timm's `{step}`"
    if row is None:
        return f"{network}. How it was trained is not known: it is from a weights file."
    begun = "trained weights" if row["initial"] else "scratch"
    how = f"trained from {begun} on {row['data']} with roadmap"
    return f"{network}, {how}, which measures what each design choice is worth."


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else printable(value)
    return text.replace("|", "\\|")


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and "\n" not in value else value
