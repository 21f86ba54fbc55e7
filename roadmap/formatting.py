"""How names, numbers and costs are written wherever a reader sees them. Imports neither matplotlib nor torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

#: What stands where a number is unknown.
UNKNOWN = "–"
#: Below this many GMACs a cost is written in MMACs.
SMALL_GMACS = 0.1


def _is_unknown(value: Any) -> bool:
    """Whether a value of a table is missing. Pandas is imported by then, and not by who only asks for `plural`."""
    import pandas as pd

    return bool(pd.isna(value))


def label(step: str) -> str:
    """A step's name as a reader sees it."""
    return re.sub(r"^resnet(\d+)$", r"ResNet-\1", step).replace("_", " ")


def name_of(step: str, reference: bool) -> str:
    """The name of a network as a reader sees it: a `label`, but of a reference model the name that it goes by."""
    return step if reference else label(step)


def number(value: float | None, form: str) -> str:
    """A number in a format of Python's, with a minus sign for the hyphen; nothing where there is none."""
    return "" if _is_unknown(value) else format(value, form).replace("-", "−")


def signed(value: float, decimals: int = 2) -> str:
    """A difference with its sign."""
    return number(value if _is_unknown(value) else round(value, decimals) + 0.0, f"+.{decimals}f")


def plain(value: float, sign: str = "") -> str:
    """A number with three digits, two decimals at most, and never an exponent; with ``sign="+"`` a difference."""
    if _is_unknown(value) or not value:
        return "" if _is_unknown(value) else "0"
    decimals = 2 if abs(value) < 1 else max(2 - math.floor(math.log10(abs(value))), 0)
    text = number(value, f"{sign}.{min(decimals, 2)}f")
    return "≈0" if not float(f"{abs(value):.2f}") else text


def decimals_of(values: Iterable[float]) -> int:
    """How many decimals tell these differences apart: one, and more only where all are small."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0)
    return 1 if largest >= 1 or not largest else min(1 - math.floor(math.log10(largest)), 8)


def macs_unit(gmacs: Iterable[float]) -> tuple[float, str]:
    """(factor, unit) in which costs in GMACs are written together: MMACs where all are below 0.1 GMACs."""
    largest = max((abs(value) for value in gmacs if math.isfinite(value)), default=0.0)
    return (1.0, "GMACs") if largest >= SMALL_GMACS else (1e3, "MMACs")


def cost_text(gmacs: float, params: float, sign: str = "") -> str:
    """The cost of a network in words, or with ``sign="+"`` a change in it; empty where it is unknown."""
    if math.isnan(gmacs):
        return ""
    factor, unit = macs_unit([gmacs])
    scale, letter = (1e6, " M") if abs(params) >= 1e6 else (1e3, " k")
    count = f"{plain(params / scale, sign)}{letter}" if params else "0"
    return f"{plain(gmacs * factor, sign)} {unit}, {count} parameters"


def plural(count: int, noun: str) -> str:
    """A number with its noun: ``1 run``, ``2 runs``, ``2 losses``."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"


def listed(names: Sequence[str], most: int | None = None) -> str:
    """Names as in a sentence, ``a, b and c``; of more than ``most`` the first ones and how many more there are."""
    shown = [*names]
    if most is not None and len(shown) > most + 1:
        shown = [*shown[:most], f"{len(shown) - most} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
