"""Which code made a result."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


@cache
def code_record() -> dict[str, Any]:
    """``source``: see `source`. ``commit``, and ``dirty`` where the tree differs
    from it: of the git repository that the package is in, else of the working directory's; None where there is none."""
    folder = PACKAGE if _git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py") else Path()
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "commit": commit.strip() if commit else None,
        "dirty": None if changes is None else bool(changes),
        "source": _digest(),
    }


@cache
def source() -> str:
    """16 hexadecimal digits of the package's own files, as this process found them when it first asked."""
    return _digest()


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".yaml", ".csv")):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _git(folder: Path, *words: str) -> str | None:
    """What git prints, or None where it is not there or fails."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *words], cwd=folder, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
