"""Commands on the store: status, list, show, export, rm and gc."""

from __future__ import annotations
