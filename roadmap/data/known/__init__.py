"""The data sets that ``--data`` names: those below, and one in each further file of this folder, found there.

Nothing heavy is imported before a data set is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from roadmap.checks import RoadmapError
from roadmap.found import modules_of

if TYPE_CHECKING:
    import numpy as np

    from roadmap.data.listings import Listing


class Decoded(NamedTuple):
    """A small data set, decoded: images uint8 (N, H, W, 3), labels int64 (N,). ``flip``: whether a mirrored image keeps
    its class."""

    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    flip: bool = True


@dataclass(frozen=True)
class Source:
    """A data set that has a name.

    name
        What ``--data`` calls it.
    read
        From the folder of its files to its parts, one to train and, if there is one, one to test; or to all of it,
        decoded. Raises `RoadmapError` for files that are missing or hold something else.
    image_size
        Side in pixels where it is not the usual one of the images.
    crop_share
        Share of the shorter side that the test crop keeps.
    fetch
        Downloads it into a folder; None: ``--download`` cannot.
    test_only
        Whether it has test images alone, for networks that were trained on other images of its classes and more: its
        one part is that. Class names that are numbers count the classes of such a network.
    """

    name: str
    read: Callable[[Path], list[Listing] | Decoded]
    image_size: int | None = None
    crop_share: float = 1.0
    fetch: Callable[[Path], None] | None = None
    test_only: bool = False


@cache
def _composed() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from roadmap.data.embedded import compose

    return compose()


def compose_embedded(_: Path | None = None) -> Decoded:
    """The embedded data set, which needs no folder; composed once in a process, which takes seconds."""
    names = tuple(str(digit) for digit in range(10))
    images, labels, test_images, test_labels = _composed()
    copies = images.copy(), labels.copy(), test_images.copy(), test_labels.copy()
    return Decoded(names, *copies, flip=False)  # digits are not symmetric


def _class_folders(folder: Path) -> list[Listing]:
    from roadmap.data.folders import FOLDERS, list_parts

    return list_parts(folder, FOLDERS, tars=False)


def _imagenet(folder: Path) -> list[Listing]:
    from roadmap.data.folders import IMAGENET, list_parts

    return list_parts(folder, IMAGENET, tars=True)


def _imagenet22k(folder: Path) -> list[Listing]:
    from roadmap.data.folders import list_imagenet22k

    return list_imagenet22k(folder)


def _tars(folder: Path) -> list[Listing]:
    from roadmap.data.folders import TARS, list_parts

    return list_parts(folder, TARS, tars=True)


def _shards(folder: Path) -> list[Listing]:
    from roadmap.data.shards import list_shards

    return list_shards(folder)


def _cifar(name: str) -> Source:
    def read(folder: Path) -> list[Listing] | Decoded:
        from roadmap.data.cifar import LAYOUTS, read_cifar
        from roadmap.data.folders import FOLDERS, list_parts

        layout = LAYOUTS[name]
        if (folder / layout["folder"]).is_dir():
            return Decoded(*read_cifar(name, folder / layout["folder"]))
        parts = list_parts(folder, f"{layout['folder']}/ (--download fetches it) or {FOLDERS}", tars=False)
        if (classes := len(parts[0].class_names)) != layout["classes"]:
            raise RoadmapError(f"{parts[0].where} has {classes} classes, but {name} has {layout['classes']}")
        return parts

    def fetch(folder: Path) -> None:
        from roadmap.data.cifar import download_cifar

        download_cifar(name, folder)

    return Source(name, read, image_size=32, fetch=fetch)


EMBEDDED = Source("embedded", compose_embedded)
#: 0.875 is the usual test crop on ImageNet, 224 of 256.
SHIPPED = (
    EMBEDDED,
    Source("folder", _class_folders),
    _cifar("cifar10"),
    _cifar("cifar100"),
    Source("imagenet", _imagenet, image_size=224, crop_share=0.875),
    Source("imagenet22k", _imagenet22k, image_size=224, crop_share=0.875),
    Source("tar", _tars),
    Source("wds", _shards),
)


def trainable() -> list[str]:
    """The names of data sets that have images to train on."""
    return [source.name for source in data_sets().values() if not source.test_only]


@cache
def data_sets() -> dict[str, Source]:
    """Name -> data set."""
    found = [thing for module in modules_of(__name__) for thing in vars(module).values() if isinstance(thing, Source)]
    return {source.name: source for source in (*SHIPPED, *found)}
