"""Where the bytes of an image come from: a file, a member of a tar, a row of a Hugging Face data set.

A reader is small for millions of images (names are NumPy bytes, not Python objects), can be pickled, and keeps no file
open: the position of an open file would be shared by the loader workers that are forked from its process.
"""

from __future__ import annotations

import dataclasses
import io
import os
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np


class Reader(Protocol):
    """Encoded images by number; ``sizes``: bytes of each, int64 (N,), 0 for an empty image."""

    @property
    def sizes(self) -> np.ndarray: ...

    def name(self, index: int) -> bytes:
        """Where an image lies within its part of the data set: the same on every machine."""

    def place(self, index: int) -> str:
        """Where a user finds it."""

    def open(self, index: int) -> IO[bytes]:
        """Its bytes. Raises `OSError`."""

    def select(self, indices: np.ndarray) -> Reader:
        """A reader of these images alone."""

    def stamps(self) -> np.ndarray | None:
        """What changes with the bytes of an image, int64 (N, 5): `stamp` of the file that they are in, and where in
        it; None where that cannot be told."""


def stamp(path: str | os.PathLike) -> tuple[int, ...]:
    """Size, times of the last change of content and of anything, and number of a file; zeros where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@dataclass(frozen=True)
class Files:
    """Files of their own: ``names`` below ``folder``, an absolute path; bytes (N,)."""

    folder: str
    names: np.ndarray
    sizes: np.ndarray

    def name(self, index: int) -> bytes:
        return bytes(self.names[index])

    def place(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.name(index)))

    def open(self, index: int) -> IO[bytes]:
        return open(self.place(index), "rb")  # noqa: PTH123, SIM115

    def select(self, indices: np.ndarray) -> Files:
        return Files(self.folder, self.names[indices], self.sizes[indices])

    def stamps(self) -> np.ndarray:
        return np.array([(*stamp(self.place(index)), 0) for index in range(len(self.names))], np.int64)


@dataclass(frozen=True)
class Members:
    """Members of uncompressed tars, read at random by ``offsets`` and ``sizes`` in bytes, int64 (N,).

    ``tars`` lie in ``folder``, an absolute path; ``owners``: which of them an image is in, (N,); ``names`` within it.
    """

    folder: str
    tars: tuple[str, ...]
    owners: np.ndarray
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def name(self, index: int) -> bytes:
        return os.fsencode(self.tars[self.owners[index]]) + b"/" + bytes(self.names[index])

    def place(self, index: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.name(index)))

    def open(self, index: int) -> IO[bytes]:
        with open(os.path.join(self.folder, self.tars[self.owners[index]]), "rb") as tar:  # noqa: PTH123
            tar.seek(int(self.offsets[index]))
            return io.BytesIO(tar.read(int(self.sizes[index])))

    def select(self, indices: np.ndarray) -> Members:
        kept = {name: getattr(self, name)[indices] for name in ("owners", "names", "offsets", "sizes")}
        return dataclasses.replace(self, **kept)

    def stamps(self) -> np.ndarray:
        tars = np.array([stamp(os.path.join(self.folder, tar)) for tar in self.tars], np.int64)
        return np.column_stack([tars[self.owners], self.offsets])


@dataclass(frozen=True)
class Rows:
    """``rows``, int64 (N,), of what ``hub``, timm's reader of Hugging Face data sets, reads; ``title`` says which, and
    ``outside`` whether some of the images are files of their own."""

    hub: Any
    title: str
    rows: np.ndarray
    sizes: np.ndarray
    outside: bool = False

    def name(self, index: int) -> bytes:
        return b"%d" % self.rows[index]

    def place(self, index: int) -> str:
        return f"image {self.rows[index]} of {self.title}"

    def open(self, index: int) -> IO[bytes]:
        if not self.sizes[index]:
            raise OSError(f"{self.place(index)} is empty")
        return self.hub[int(self.rows[index])][0]

    def select(self, indices: np.ndarray) -> Rows:
        return dataclasses.replace(self, rows=self.rows[indices], sizes=self.sizes[indices])

    def stamps(self) -> np.ndarray | None:
        files = [stamp(file["filename"]) for file in self.hub.dataset.cache_files]
        if not files or self.outside:
            return None
        table = (sum(size for size, *_ in files), *np.array(files)[:, 1:].max(0).tolist())
        return np.column_stack([np.tile(np.array(table, np.int64), (len(self.rows), 1)), self.rows])
