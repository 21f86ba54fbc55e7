"""Decoded images that several processes read from one piece of memory."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.data.sources import ImageData
from roadmap.files import REFUSALS, temporary_folder

#: Where Linux keeps the memory through which loaders hand over their images.
SHARED_MEMORY = Path("/dev/shm")


class SharedMemoryError(MemoryError):
    """The processes that load images have no room to hand them over."""

    def __init__(self) -> None:
        size = (
            f", which has {shutil.disk_usage(SHARED_MEMORY).total / 2**20:,.0f} MiB" if SHARED_MEMORY.is_dir() else ""
        )
        super().__init__(
            f"the images that workers load do not fit into shared memory ({SHARED_MEMORY}{size}): give the container "
            "more (docker run --shm-size=8g), or load with fewer --workers, or none (--workers 0)"
        )


def lacks_shared_memory(error: BaseException | None) -> bool:
    """Whether an error of processes that load images means that: they write nowhere else."""
    while error is not None:
        if any(words in str(error) for words in ("Bus error", *REFUSALS)):
            return True
        error = error.__cause__
    return False


class SharedData:
    """An opened data set that can be handed to new processes without a copy of its images.

    The arrays lie in a temporary file that has no name any more: the system keeps them in memory once for all
    processes, and frees them with the last of these, however it ends. Images that are streamed stay where they are.
    Only for the arguments of a ``multiprocessing`` process.
    """

    def __init__(self, data: ImageData) -> None:
        self._data = data
        self._file = None
        if data.in_memory:
            folder = temporary_folder()
            try:
                self._file = tempfile.TemporaryFile(prefix="roadmap-", dir=folder)  # noqa: SIM115  (lives as long as this)
                for array in self._named(data).values():
                    self._file.write(array.data)
                    self._file.write(bytes(-array.nbytes % 64))
                self._file.flush()
            except OSError as error:
                size = sum(array.nbytes for array in self._named(data).values()) / 2**20
                raise RoadmapError(
                    f"{folder} cannot take the {size:,.0f} MiB of decoded images that the processes share: "
                    f"{error.strerror}; let TMPDIR name a folder with more room"
                ) from None

    @staticmethod
    def _named(data: ImageData) -> dict[tuple[str, str], np.ndarray]:
        """The arrays of the images that train and of those that test, by part and field of its split."""
        return {
            (part, field.name): np.ascontiguousarray(value)
            for part in ("train", "test")
            for field in dataclasses.fields(getattr(data, part))
            if isinstance(value := getattr(getattr(data, part), field.name), np.ndarray)
        }

    def __getstate__(self) -> dict[str, Any]:
        if self._file is None:
            return {"data": self._data, "file": None}
        named = self._named(self._data)
        return {
            "data": _with_arrays(self._data, dict.fromkeys(named, np.zeros(0, np.int64))),
            "file": DupFd(self._file.fileno()),
            "shapes": {name: (array.shape, array.dtype.str) for name, array in named.items()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._data, self._file = state["data"], None
        if state["file"] is None:
            return
        arrays, offset = {}, 0
        with os.fdopen(state["file"].detach(), "rb") as file:
            for name, (shape, kind) in state["shapes"].items():
                # copy-on-write: torch wants arrays that could be written, and nobody writes them
                arrays[name] = np.memmap(file, kind, mode="c", offset=offset, shape=shape)
                offset += arrays[name].nbytes + -arrays[name].nbytes % 64
        self._data = _with_arrays(self._data, arrays)

    def open(self) -> ImageData:
        """The data set, as it was handed in."""
        return self._data


def _with_arrays(data: ImageData, arrays: Mapping[tuple[str, str], np.ndarray]) -> ImageData:
    """The data set with other arrays, by part and field of its split."""
    splits = {
        part: dataclasses.replace(
            getattr(data, part), **{name: array for (one, name), array in arrays.items() if one == part}
        )
        for part in ("train", "test")
    }
    return dataclasses.replace(data, **splits)
