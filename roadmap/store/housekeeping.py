"""What a store no longer needs, and what it takes on disk."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from pathlib import Path

#: Age in seconds from which temporary files have no owner any more.
_FORGOTTEN = 3600.0


def disk_bytes(path: str | Path) -> int:
    """Bytes of a file, or of all files under a folder; links are not followed, and what vanishes counts nothing."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return os.lstat(path).st_size
        with os.scandir(path) as entries:
            return sum(
                disk_bytes(entry.path)
                if entry.is_dir(follow_symlinks=False)
                else entry.stat(follow_symlinks=False).st_size
                for entry in entries
            )
    except OSError:
        return 0


def listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it has gone."""
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def forgotten(folder: Path) -> list[Path]:
    """What a process of this package left over in a folder, long ago, under a name such as ``.run.json.4711``."""
    long_ago = time.time() - _FORGOTTEN
    found = []
    for path in listed(folder):
        with contextlib.suppress(OSError):
            if re.fullmatch(r"\..+\.[0-9]+", path.name) and path.lstat().st_mtime < long_ago:
                found.append(path)
    return found


def delete(path: Path) -> None:
    """Remove a file, a link (and not what it points to) or a folder; whatever cannot be removed stays."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
