"""A trained network recorded as a graph that runs without roadmap and timm: ONNX, or torch.export."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from roadmap.checks import RoadmapError, cause, check_choice
from roadmap.exporting.difference import relative_difference
from roadmap.files import whole_file
from roadmap.imports import is_installed
from roadmap.markup import printable

#: What a recorded network's outputs may differ by, relative to the largest: its kernels sum in another order.
TOLERANCE = 1e-3
#: Numbers of images that are tried; the graph is recorded with two, and takes any number.
TRIED = (1, 2, 5)
#: The key of the network's description in a graph's metadata.
METADATA_KEY = "roadmap"
#: Kind -> packages that it needs.
GRAPHS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": ()}


@dataclass(frozen=True)
class Graph:
    """A recorded network: its file, and how far its outputs are from the network's, relative to the largest."""

    path: Path
    difference: float


def save_graph(network: Any, kind: str, path: str | os.PathLike, image_size: int) -> Graph:
    """Record a network that `roadmap.load` returned, for any number of images of ``image_size`` pixels.

    ``kind``: ``onnx`` (input ``images``, output ``logits``) or ``torch-export``, for `torch.export.load`. The file
    holds the network's description as JSON: class names, image size, mean and deviation. It is kept only if it gives
    the network's own outputs, by ONNX Runtime or loaded again, for `TRIED` numbers of images. Raises `RoadmapError`
    where packages are missing, outputs differ, or the file cannot be written.
    """
    check_choice("kind", kind, GRAPHS)
    if missing := [package for package in GRAPHS[kind] if not is_installed(package)]:
        raise RoadmapError(f"{kind} needs the package {missing[0]}: pip install 'roadmap-ablation[onnx]'")
    if kind == "onnx" and torch.__version__.startswith("2.5."):
        raise RoadmapError("onnx needs torch 2.6 or newer: torch 2.5 records no batch of any size")
    if network.description.head is not None:
        raise RoadmapError(f"{kind} takes classifiers, but this network has a head of another task")
    network = network.eval().to(memory_format=torch.contiguous_format)
    record, run = {"onnx": (_record_onnx, _run_onnx), "torch-export": (_record_torch, _run_torch)}[kind]
    path = Path(path)
    try:
        with whole_file(path) as temporary, _quiet():
            try:
                record(network, _images(network, 2, image_size), temporary)
            except (OSError, MemoryError):
                raise
            except Exception as error:  # torch has a dozen kinds for what it cannot record
                raise RoadmapError(f"torch cannot record this network for {kind}: {_first_line(error)}") from error
            difference = _difference(network, run(temporary), image_size)
    except OSError as error:
        raise RoadmapError(f"{path} cannot be written: {cause(error)}") from None
    return Graph(path, difference)


def _first_line(error: Exception) -> str:
    """The beginning of an error of torch, whose texts go on for pages."""
    text = str(error).strip() or type(error).__name__
    return printable(text.splitlines()[0][:200])


def _images(network: Any, count: int, size: int) -> Tensor:
    channels = network.description.design.in_channels
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def _difference(network: Any, recorded: Callable[[Tensor], Tensor], size: int) -> float:
    """The largest difference of outputs, relative to the largest. Raises `RoadmapError` where it is no rounding."""
    worst = 0.0
    for count in TRIED:
        images = _images(network, count, size)
        with torch.inference_mode():
            expected = network(images)
        worst = max(worst, relative_difference(expected, recorded(images)))
    if not worst <= TOLERANCE:
        raise RoadmapError(f"the recorded network differs by {worst:.2g} of the largest output: nothing was written")
    return worst


def _any_number() -> Any:
    return ({0: torch.export.Dim("images")},)


def _record_onnx(network: Any, images: Tensor, path: Path) -> None:
    import onnx

    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    torch.onnx.export(
        network, (images,), path, dynamo=True, dynamic_shapes=_any_number(), external_data=False, verbose=False, **names
    )
    model = onnx.load(path)
    model.metadata_props.add(key=METADATA_KEY, value=network.description.to_text())
    onnx.save(model, path)


def _run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _record_torch(network: Any, images: Tensor, path: Path) -> None:
    program = torch.export.export(network, (images,), dynamic_shapes=_any_number())
    text = network.description.to_text()
    content = io.BytesIO()  # torch looks at the ending of a path
    torch.export.save(program, content, extra_files={METADATA_KEY: text})
    path.write_bytes(content.getvalue())


def _run_torch(path: Path) -> Callable[[Tensor], Tensor]:
    loaded = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            outputs: Tensor = loaded(images)
        return outputs

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnxscript remark while they record."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
