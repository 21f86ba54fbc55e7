"""What is seen of every image of a part before it is decoded; remembered of large parts, whose bytes are read once."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL

from roadmap.data.images import SEEN, cores, see
from roadmap.data.readers import Reader
from roadmap.files import whole_file

#: Parts of at least this many bytes are remembered: fewer are read again within a second.
REMEMBERED_FROM = 512 * 2**20
#: A file that changed less than this many seconds before it was read could change again at the same time of day.
SETTLED = 2.0
#: Images that are handed to threads at a time.
_AT_ONCE = 10_000


def seen_of(reader: Reader, where: str) -> np.ndarray:
    """What is seen of each image, `SEEN` (N,); ``where`` names the part.

    Every byte is read. Of large parts what was seen is kept in ``$XDG_CACHE_HOME/roadmap`` (``~/.cache/roadmap``), and
    only files whose size, times or place on disk are others are read again.
    """
    stamps = reader.stamps() if reader.sizes.sum() >= REMEMBERED_FROM else None
    if stamps is None:
        return _look(reader, np.arange(len(reader.sizes)))
    names = np.array([reader.name(index) for index in range(len(stamps))])
    key = hashlib.sha256(repr((where, PIL.__version__, SEEN.descr)).encode()).hexdigest()[:32]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roadmap" / f"{key}.npz"
    begun = time.time()
    seen, known = _remembered(cache, names, stamps)
    new = np.flatnonzero(~known)
    seen[new] = _look(reader, new)
    if len(new):
        settled = stamps[:, 1:3].max(1) < (begun - SETTLED) * 1e9
        _remember(cache, names[settled], stamps[settled], seen[settled])
    return seen


def _look(reader: Reader, indices: np.ndarray) -> np.ndarray:
    def look(index: int) -> tuple:
        try:
            with reader.open(index) as file:
                return see(file.read())
        except OSError:
            return see(b"")

    rows = iter(indices.tolist())
    found = [np.zeros(0, SEEN)]
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        while some := list(itertools.islice(rows, _AT_ONCE)):
            found.append(np.array(list(pool.map(look, some)), SEEN))
    return np.concatenate(found)


def _remembered(cache: Path, names: np.ndarray, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What was seen of images (N,), and of which it is known (N,)."""
    seen, known = np.zeros(len(names), SEEN), np.zeros(len(names), bool)
    try:
        with np.load(cache, allow_pickle=False) as kept:
            old_names, old_stamps, old_seen = kept["names"], kept["stamps"], kept["seen"]
        if len(old_names):
            places = np.searchsorted(old_names, names).clip(max=len(old_names) - 1)
            known = (old_names[places] == names) & (old_stamps[places] == stamps).all(1)
            seen[known] = old_seen[places][known]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # none yet, or it is damaged
        known[:] = False
    return seen, known


def _remember(cache: Path, names: np.ndarray, stamps: np.ndarray, seen: np.ndarray) -> None:
    order = np.argsort(names, kind="stable")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(cache) as temporary, temporary.open("wb") as file:
            np.savez(file, names=names[order], stamps=stamps[order], seen=seen[order])
    except OSError:  # such as a home that cannot be written: it is only slower
        pass
