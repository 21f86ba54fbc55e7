"""Data sets of the Hugging Face hub, and local ones in any layout that its package reads, through timm's reader."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.data import HUB
from roadmap.data.listings import EVALUATIONS, Listing
from roadmap.data.readers import Rows


def list_hub(name: str, cache: Path | None) -> list[Listing]:
    """The split train of the data set ``name`` (``hfds/`` and its name there) and, if there is one, the one that tests.

    ``cache`` is the folder that it is kept in, by default the package's own. No code of a data set is ever run.
    Raises `RoadmapError` where the package is missing, the data set cannot be had, or has no images with classes.
    """
    if importlib.util.find_spec("datasets") is None:
        raise RoadmapError(f"--data {name} needs the package datasets: pip install 'roadmap-ablation[hf]'")
    splits = _load(name, cache)
    test = next((part for part in EVALUATIONS if part in splits), None)
    if "train" not in splits or (test is None and len(splits) > 1):
        raise RoadmapError(
            f"{name} must have the splits train and {', '.join(EVALUATIONS[:-1])} or {EVALUATIONS[-1]}, "
            f"but has {', '.join(splits)}"
        )
    return [_list(name, cache, part, splits[part].features) for part in ("train", test) if part]


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
    label = _column(where, features, datasets.ClassLabel, ("label", "fine_label"))
    root = str(cache) if cache else None
    with _told_in_one_sentence(name):
        reader: Any = create_reader(HUB + _path(name), root=root, split=part, input_key=image, target_key=label)
    reader.dataset = reader.dataset.select_columns([image, label])  # others would be decoded with every image
    if not len(reader):
        raise RoadmapError(f"{where} is empty")
    numbers = np.array([-1 if number is None else number for number in reader.dataset[label][:]], np.int64)
    if numbers.min() < 0:
        raise RoadmapError(f"{where} has images without a class, such as image {numbers.argmin()}")
    found, labels = np.unique(numbers, return_inverse=True)
    class_names = tuple(features[label].names[number] for number in found)
    rows = np.arange(len(labels))
    keys = rows.astype(bytes)
    return Listing(part, where, class_names, labels, Rows(reader, where, rows, _sizes(reader, image)), keys)


def _column(where: str, features: dict[str, Any], kind: type, usual: tuple[str, ...]) -> str:
    """The only column of a kind, or the one that is called as usual."""
    columns = [name for name, feature in features.items() if isinstance(feature, kind)]
    for name in (*(columns if len(columns) == 1 else ()), *usual):
        if name in columns:
            return name
    what = f"the {kind.__name__} columns {', '.join(columns)}" if columns else f"the columns {', '.join(features)}"
    raise RoadmapError(f"{where} has {what}, but must have one of kind {kind.__name__}, or of the name {usual[0]}")


def _sizes(reader: Any, image: str) -> np.ndarray:
    """Bytes of each encoded image, int64 (N,); its content is not read."""
    import pyarrow.compute as pc

    column = reader.dataset.data.column(image)
    sizes = pc.binary_length(pc.struct_field(column, "bytes")).fill_null(0).to_numpy().astype(np.int64)
    outside = np.flatnonzero(sizes == 0)
    paths = pc.struct_field(column, "path")
    for row in outside:
        path = paths[row].as_py()
        if path and os.path.isfile(path):  # noqa: PTH113
            sizes[row] = os.stat(path).st_size  # noqa: PTH116
    return sizes
