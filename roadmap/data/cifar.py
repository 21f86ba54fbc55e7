"""CIFAR-10 and CIFAR-100 in the layout that they are published in: pickled batches, read without unpickling objects."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError, cause

LAYOUTS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "folder": "cifar-10-batches-py",
        "train": [f"data_batch_{n}" for n in range(1, 6)],
        "test": ["test_batch"],
        "names": ("batches.meta", "label_names"),
        "labels": "labels",
        "classes": 10,
    },
    "cifar100": {
        "folder": "cifar-100-python",
        "train": ["train"],
        "test": ["test"],
        "names": ("meta", "fine_label_names"),
        "labels": "fine_labels",
        "classes": 100,
    },
}


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR's pickled batches and builds arrays from them, but looks up and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _empty_array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"{module}.{name} is not data")


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def read_cifar(name: str, folder: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Class names, training images uint8 (N, 32, 32, 3), their labels int64 (N,), test images and labels.

    Raises `RoadmapError` for a file that is missing or holds something else.
    """
    layout = LAYOUTS[name]

    def read(file: str) -> dict[str, Any]:
        path = folder / file
        try:
            content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        except FileNotFoundError:
            raise RoadmapError(f"{folder} has no file {file}: the data set is not complete") from None
        except Exception:  # a damaged pickle raises almost anything
            raise RoadmapError(f"{path} is not a batch of {name}: fetch the data set again, with --download") from None
        if not isinstance(content, dict):
            raise RoadmapError(f"{path} is not a batch of {name}")
        return content

    def split(files: list[str]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = [], []
        for file in files:
            batch = read(file)
            try:
                images.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
                labels.append(np.asarray(batch[layout["labels"]], dtype=np.int64))
            except (KeyError, ValueError):
                raise RoadmapError(f"{folder / file} is not a batch of {name}") from None
        return np.concatenate(images), np.concatenate(labels)

    file, key = layout["names"]
    class_names = tuple(read(file).get(key, ()))
    train, test = split(layout["train"]), split(layout["test"])
    if len(class_names) < 2 or max(train[1].max(), test[1].max()) >= len(class_names):
        raise RoadmapError(f"{folder / file} does not name the classes of {name}")
    return class_names, *train, *test


def download_cifar(name: str, root: Path) -> None:
    """Fetch the data set into ``root`` if it is not there. Raises `RoadmapError` where that cannot be."""
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import download_and_extract_archive

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    if (root / kind.base_folder).is_dir():
        return
    try:
        download_and_extract_archive(kind.url, str(root), filename=kind.filename, md5=kind.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise RoadmapError(f"{name} could not be downloaded to {root}: {cause(error)}") from None
