"""The table of a paper: a row a step, as in Table 10 of arXiv 2201.03545, as Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from roadmap.formatting import decimals_of, macs_unit, name_of, number, plain, signed
from roadmap.markup import latex
from roadmap.questions.question import Question
from roadmap.results.effects import Measured, TrainedNetwork
from roadmap.results.sentences import effect_label

#: Columns of words; all others are numbers.
WORDS = ("step", "network", "verdict", "against")


class Printed(Protocol):
    """What is asked of a study."""

    metric_short: str
    unit: str

    @property
    def question(self) -> type[Question]: ...
    @property
    def networks(self) -> Sequence[TrainedNetwork]: ...
    @property
    def measured(self) -> Sequence[Measured]: ...


def paper_table(study: Printed) -> pd.DataFrame:
    """The results of a study as text, one row a step. Columns, as far as they are known: the score as mean ± sample
    standard deviation over seeds (of steps that build upon each other), the effect with its interval and verdict, and
    what the network costs, or by how much the step changes that."""
    gains = {one.row["effect"]: one.row for one in study.measured}
    decimals = decimals_of(row["estimate"] for row in gains.values())
    unit = f" ({study.unit})" if study.unit else ""
    title = f"{study.question.effect.lower()}{unit}"

    def effect(row: Mapping[str, Any]) -> dict[str, str]:
        known = "low" in row and row["low"] == row["low"]
        return {
            title: signed(row["estimate"], decimals) if row else "",
            "interval": f"[{signed(row['low'], decimals)}, {signed(row['high'], decimals)}]" if known else "",
            "verdict": row.get("verdict") or "",
        }

    rows: list[dict[str, str]]
    if study.question.cumulative:
        factor, macs = macs_unit(one.gmacs for one in study.networks)
        rows = [
            {
                "step": name_of(one.cell.name, one.cell.reference) + ("" if one.cell.adopted else " (not taken)"),
                study.metric_short: _score(one, decimals),
                **effect(gains.get(one.cell.name, {})),
                macs: plain(one.gmacs * factor),
                "params (M)": plain(one.params / 1e6),
            }
            for one in study.networks
        ]
    else:
        factor, macs = macs_unit(row["gmacs"] for row in gains.values())
        rows = [
            {
                "step": effect_label(name),
                **effect(row),
                macs: plain(row["gmacs"] * factor, "+"),
                "params (M)": plain(row["params"] / 1e6, "+"),
            }
            for name, row in gains.items()
        ]
    table = pd.DataFrame(rows)
    return table.loc[:, [column for column in table if table[column].any()]]


def _score(network: TrainedNetwork, decimals: int) -> str:
    sample = network.sample
    spread = "" if sample.count < 2 else f" ± {sample.variance**0.5:.{decimals}f}"
    return (number(sample.mean, f".{decimals}f") or "failed") + spread


def as_markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    rows = [[*table], [":--" if name in WORDS else "--:" for name in table], *table.to_numpy().tolist()]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def as_latex(table: pd.DataFrame) -> str:
    """A table of text as LaTeX with booktabs."""
    lines = [" & ".join(latex(str(cell)) for cell in row) + r" \\" for row in [[*table], *table.to_numpy().tolist()]]
    sides = "".join("l" if name in WORDS else "r" for name in table)
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    return f"\\begin{{tabular}}{{{sides}}}\n{body}\n\\end{{tabular}}\n"
