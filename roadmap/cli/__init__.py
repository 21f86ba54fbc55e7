"""The command line: words to calls, and one sentence for every mistake."""

from __future__ import annotations

from roadmap.cli.main import main

__all__ = ["main"]
