"""What the paper printed, as data: Tables 10 and 11 of "A ConvNet for the 2020s" (arXiv 2201.03545) and titles of its
sections; and what a teacher would ask about each of its steps."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

TABLES = {"resnet50": "table10-resnet50.csv", "resnet200": "table11-resnet200.csv"}

#: Printed GFLOPs that do not follow from the network the paper describes: (regime, step) -> what the network has.
#: Table 11 shows no cost for the same `layer_norm` step, and ConvNeXt-T is printed as 4.46 (4.5) elsewhere.
CONTRADICTED = {("resnet50", "layer_norm"): 4.15, ("resnet50", "separate_downsample"): 4.46}


@dataclass(frozen=True)
class PrintedRow:
    """One row of Table 10 or 11. top1 in per cent on ImageNet-1K; gflops are multiply-accumulates in 1e9, 224 px."""

    step: str
    adopted: str
    top1: float
    top1_std: float | None
    gflops: float
    #: What the network itself counts, where the printed cell contradicts it; else the printed figure.
    gmacs: float


@cache
def printed_table(regime: str) -> dict[str, PrintedRow]:
    """Step name -> printed row, in the paper's order. The start's classic row stands under the start's own name."""
    rows = {}
    with files(__package__).joinpath(TABLES[regime]).open(encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            step = cells["step"].removesuffix("_classic_recipe")
            gflops = float(cells["gflops"])
            rows[step] = PrintedRow(
                step=step,
                adopted=cells["adopted"],
                top1=float(cells["top1"]),
                top1_std=float(cells["top1_std"]) if cells["top1_std"] else None,
                gflops=gflops,
                gmacs=CONTRADICTED.get((regime, step), gflops),
            )
    return rows


@dataclass(frozen=True)
class PaperSection:
    """A section of the paper that groups steps: its title, and a word for it where there is no room."""

    section: str
    title: str
    short: str


@cache
def sections() -> dict[str, PaperSection]:
    """Section -> the group of steps that it is about, ``§2.2`` -> macro design; in the paper's order."""
    with files(__package__).joinpath("sections.csv").open(encoding="utf-8") as file:
        return {cells["section"]: PaperSection(**cells) for cells in csv.DictReader(file)}


@dataclass(frozen=True)
class QuizQuestion:
    """What a teacher would ask about a step, the answer, and where to read more: a section of the paper or another."""

    question: str
    answer: str
    section: str


@cache
def questions() -> dict[str, tuple[QuizQuestion, ...]]:
    """Rung -> two questions about it; the start's are under its name in each regime."""
    asked = yaml.safe_load(files(__package__).joinpath("questions.yaml").read_text(encoding="utf-8"))
    return {step: tuple(QuizQuestion(**question) for question in of_step) for step, of_step in asked.items()}
