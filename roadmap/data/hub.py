"""Data sets of the Hugging Face hub, and local ones in any layout that its package reads, through timm's reader."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.data import HUB
from roadmap.data.folders import beside
from roadmap.data.listings import EVALUATIONS, Listing
from roadmap.data.readers import Rows
from roadmap.imports import is_installed


def list_hub(name: str, cache: Path | None) -> list[Listing]:
    """The split train of the data set ``name`` (``hfds/`` and its name there) and, if there is one, the one that tests.

    ``cache`` is the folder that it is kept in, by default the package's own. No code of a data set is ever run.
    Raises `RoadmapError` where the package is missing, the data set cannot be had, or has no images with classes.
    """
    if not is_installed("datasets"):
        raise RoadmapError(f"--data {name} needs the package datasets: pip install 'roadmap-ablation[hf]'")
    splits = _load(name, cache)
    test = next((part for part in EVALUATIONS if part in splits), None)
    if "train" not in splits or (test is None and len(splits) > 1):
        raise RoadmapError(
            f"{name} must have the splits train and {', '.join(EVALUATIONS[:-1])} or {EVALUATIONS[-1]}, "
            f"but has {', '.join(splits)}"
        )
    unused = [part for part in splits if part not in ("train", test)]
    return beside([_list(name, cache, part, splits[part].features) for part in ("train", test) if part], unused)


def _load(name: str, cache: Path | None) -> Any:
    import datasets

    if re.match(r"[./~]", name.removeprefix(HUB)) and not Path(_path(name)).exists():
        raise RoadmapError(f"there is no folder {_path(name)}")  # the hub would be asked for it
    with _told_in_one_sentence(name):
        return datasets.load_dataset(_path(name), cache_dir=str(cache) if cache else None)


@contextlib.contextmanager
def _told_in_one_sentence(name: str) -> Iterator[None]:
    """What the package raises becomes a `RoadmapError`."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        yield
    except DatasetNotFoundError:
        raise RoadmapError(
            f"'{_path(name)}' is neither a folder nor a data set of the Hugging Face hub that you have access to"
        ) from None
    except ConnectionError as error:
        raise RoadmapError(f"the Hugging Face hub cannot be reached for '{_path(name)}': {_line(error)}") from None
    except Exception as error:  # files of any kind, read by packages of any kind
        raise RoadmapError(f"{name} cannot be loaded: {_line(error.__cause__ or error)}") from None


def _path(name: str) -> str:
    return str(Path(name.removeprefix(HUB)).expanduser())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _list(name: str, cache: Path | None, part: str, features: dict[str, Any]) -> Listing:
    import datasets
    from timm.data.readers import create_reader

    where = f"{name}, split {part}"
    image = _column(where, features, datasets.Image, ("image", "img"))
    label = _label_column(where, features)
    root = str(cache) if cache else None
    with _told_in_one_sentence(name):
        reader: Any = create_reader(HUB + _path(name), root=root, split=part, input_key=image, target_key=label)
    reader.dataset = reader.dataset.select_columns([image, label])  # others would be decoded with every image
    if not len(reader):
        raise RoadmapError(f"{where} is empty")
    values = reader.dataset[label][:]
    missing = [n for n, value in enumerate(values) if value in (None, "") or (isinstance(value, int) and value < 0)]
    if missing:
        raise RoadmapError(f"{where} has images without a class, such as image {missing[0]}")
    found, labels = np.unique(np.array(values), return_inverse=True)  # numbers by size, names as text
    names = getattr(features[label], "names", None)
    class_names = tuple(names[value] if names else str(value) for value in found.tolist())
    rows = np.arange(len(labels))
    sizes, outside = _sizes(reader, image)
    return Listing(part, where, class_names, labels, Rows(reader, where, rows, sizes, outside), rows.astype(bytes))


def _label_column(where: str, features: dict[str, Any]) -> str:
    """The column of classes: of kind ClassLabel, else one of whole numbers or text that is called as usual."""
    import datasets

    usual = ("label", "fine_label")
    if not any(isinstance(feature, datasets.ClassLabel) for feature in features.values()):
        for name in usual:
            kind = getattr(features.get(name), "dtype", "")
            if isinstance(features.get(name), datasets.Value) and re.fullmatch(
                "u?int[0-9]+|bool|(large_)?string", kind
            ):
                return name
    return _column(where, features, datasets.ClassLabel, usual)


def _column(where: str, features: dict[str, Any], kind: type, usual: tuple[str, ...]) -> str:
    """The only column of a kind, or the one that is called as usual."""
    columns = [name for name, feature in features.items() if isinstance(feature, kind)]
    for name in (*(columns if len(columns) == 1 else ()), *usual):
        if name in columns:
            return name
    what = f"the {kind.__name__} columns {', '.join(columns)}" if columns else f"the columns {', '.join(features)}"
    raise RoadmapError(f"{where} has {what}, but must have one of kind {kind.__name__}, or of the name {usual[0]}")


def _sizes(reader: Any, image: str) -> tuple[np.ndarray, bool]:
    """Bytes of each encoded image, int64 (N,), and whether some lie in files of their own; no content is read."""
    import pyarrow.compute as pc

    column = reader.dataset.data.column(image)
    sizes = pc.binary_length(pc.struct_field(column, "bytes")).fill_null(0).to_numpy().astype(np.int64)
    outside = np.flatnonzero(sizes == 0)
    paths = pc.struct_field(column, "path")
    for row in outside:
        path = paths[row].as_py()
        if path and os.path.isfile(path):  # noqa: PTH113
            sizes[row] = os.stat(path).st_size  # noqa: PTH116
    return sizes, len(outside) > 0
