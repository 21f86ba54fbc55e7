"""The road from ResNet to ConvNeXt, one design choice at a time.

Importing this package is instant: torch, timm and the rest are loaded when a name that needs them is used.
``import roadmap.timm`` makes every rung one of timm's models: ``timm.create_model("roadmap_large_kernel")``.
"""

from __future__ import annotations

import sys

from roadmap.imports import import_path, is_command

if is_command():  # before anything else is imported
    sys.path[:] = import_path()

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what is loaded when it is used, for type checkers and completion
    from roadmap.api import run as run
    from roadmap.checks import RoadmapError as RoadmapError
    from roadmap.explaining.content import diff as diff
    from roadmap.explaining.content import explain as explain
    from roadmap.ladders.rungs import build as build
    from roadmap.ladders.rungs import ladder as ladder
    from roadmap.ladders.steps import step as step
    from roadmap.network.design import Design as Design
    from roadmap.network.layers import layer as layer
    from roadmap.network.weights import load_weights as load_weights
    from roadmap.reporting.page import report as report
    from roadmap.results.foreign import effects as effects
    from roadmap.results.study import load_study as load_study
    from roadmap.running.trained import evaluate as evaluate
    from roadmap.running.trained import load as load

__version__ = "0.2.0"

_HOMES = {
    "Design": "roadmap.network.design",
    "RoadmapError": "roadmap.checks",
    "build": "roadmap.ladders.rungs",
    "diff": "roadmap.explaining.content",
    "effects": "roadmap.results.foreign",
    "evaluate": "roadmap.running.trained",
    "explain": "roadmap.explaining.content",
    "ladder": "roadmap.ladders.rungs",
    "layer": "roadmap.network.layers",
    "load": "roadmap.running.trained",
    "load_study": "roadmap.results.study",
    "load_weights": "roadmap.network.weights",
    "report": "roadmap.reporting.page",
    "run": "roadmap.api",
    "step": "roadmap.ladders.steps",
}
__all__ = [
    "Design",
    "RoadmapError",
    "build",
    "diff",
    "effects",
    "evaluate",
    "explain",
    "ladder",
    "layer",
    "load",
    "load_study",
    "load_weights",
    "report",
    "run",
    "step",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'roadmap' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
