"""What the test processes, and all processes that they start, need so that many of them share few cores.

One torch thread each. Where Python is told to write no bytecode, as in containers, and what was installed has none, as
with uv, each would compile torch, timm and Lightning anew, which takes longer than most tests: there they share what
the first one compiled.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
torch = importlib.util.find_spec("torch")
if sys.dont_write_bytecode and torch and torch.cached and not Path(torch.cached).exists():
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")
    sys.dont_write_bytecode = False
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch sees none on this machine")
