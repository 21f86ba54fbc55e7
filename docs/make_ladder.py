"""Makes docs/ladder.md and its pictures: every rung of the ladder, drawn from the built networks.

python docs/make_ladder.py
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import matplotlib

from roadmap.explaining import words
from roadmap.explaining.content import explain
from roadmap.explaining.diagram import draw_blocks
from roadmap.explaining.explanation import Explanation
from roadmap.explaining.spatial import draw_fields, draw_operations, effective_field
from roadmap.explaining.text import layer_by_layer
from roadmap.files import write_text
from roadmap.formatting import label, signed
from roadmap.ladders.ladder import REGIMES, Rung
from roadmap.ladders.rungs import ladder
from roadmap.plotting.style import Drawn, styled
from roadmap.reference import PrintedRow

#: What the paper calls the parts of its road, and what each is about.
PARTS = {
    "§2": (
        "Where it starts",
        "A ResNet-50 with the recipe of its time, and with the stride on its 3x3 convolution, as it is built today.",
    ),
    "§2.1": ("Training techniques", "First of all, train as Transformers are trained, and change nothing else."),
    "§2.2": ("Macro design", "How the blocks are distributed, and how the image comes in."),
    "§2.3": ("ResNeXt-ify", "Use more groups, expand width."),
    "§2.4": ("Inverted bottleneck", "Wide in the middle, as a Transformer's MLP is."),
    "§2.5": ("Large kernel sizes", "Look further, once that is cheap."),
    "§2.6": ("Micro design", "Activations, norms, and what stands between the stages."),
}

#: Texts stay texts in the pictures, so that these are small and can be searched. Verdana is as wide as DejaVu.
TEXTS: Any = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"]}

#: Networks whose effective receptive fields are drawn, at a quarter of the paper's width.
SEEING, WIDTH = ("patchify_stem", "move_up_depthwise", "large_kernel", "kernel_11"), 16

INTRODUCTION = """\
# The ladder, step by step

How does one get from a ResNet to a ConvNeXt? One design choice at a time. Each of these steps takes over something that
vision Transformers do; at the end a network of nothing but convolutions is ahead of the Swin Transformer of its size
(81.97 against 81.30 % on ImageNet-1K). The ladder is that of "A ConvNet for the 2020s"
([arXiv 2201.03545](https://arxiv.org/abs/2201.03545), section 2); the networks are this package's own.

**How to read it.** Look at the picture first and say what changes. Then guess: will the network cost more or less, will
it be better or worse? The numbers tell you, and two questions ask why. A box is a feature map: as long as its channels
are many, as high and deep as its positions. The beam in it is what *one* output of the next layer reads: a dense
convolution reads a beam, a 1x1 one a rod, a depthwise one a plate. Bars are norms, bends activations, the line below a
row is the residual path. Orange is what changes. *Layer by layer* has every layer of the parts that change.

**The numbers.** GMACs (1e9 multiply-accumulates of convolution and linear layers), parameters, activations and
theoretical receptive fields are counted on the built networks, for one image of 224 px, in the ResNet-50 regime. Top-1
accuracies and their deviations over three seeds are the paper's (Tables 10 and 11), which prints no deviations for the
ResNet-200 regime. A difference that is smaller than its deviation is not a finding.

`roadmap explain STEP` prints the same in a terminal, for any step and size, and `roadmap explain STEP --quiz` asks its
questions first; in a notebook it is `roadmap.explain(STEP)`.
"""

LOOKING = """\
## Where the operations go, and how far a network sees

Up to the patchify stem almost half of all operations look at neighbours. From `depthwise_conv` on hardly any do: mixing
positions has become almost free, and mixing channels is the network. All that comes later is paid from that saving:
width, the wider hidden layer, even 7x7 kernels.

![Operations of every network by purpose: spatial convolutions, 1x1 convolutions, others](ladder/operations.svg)

And what are larger kernels for, if the receptive field of a ResNet exceeds the image long before its end? That field is
what a position *can* see. What it *does* see is far less: a hill around the middle, as wide as the square root of the
number of layers, but in proportion to the size of the kernel.

![Effective receptive fields of four networks](ladder/fields.png)
"""


def make(folder: Path) -> dict[str, Explanation]:
    """Write ``ladder.md`` into a folder and the pictures into ``ladder`` beside it; returns what was explained."""
    explained = {rung.name: explain(rung.name) for rung in ladder()}
    write_text(folder / "ladder.md", page(explained))
    (folder / "ladder").mkdir(exist_ok=True)
    for name, explanation in explained.items():
        _save(draw_blocks(explanation, caption=False), folder / "ladder" / f"{name}.svg")
    trained = {name: one.after for name, one in explained.items() if ladder()[name].adopted and name != "modern_recipe"}
    _save(
        draw_operations({label(name): network for name, network in trained.items()}), folder / "ladder/operations.svg"
    )
    designs = {name: ladder().scaled(WIDTH)[name].design for name in SEEING}
    fields = {name: effective_field(design, images=4) for name, design in designs.items()}
    draw_fields(fields).savefig(folder / "ladder" / "fields.png", dpi=110)
    return explained


def _save(figure: Drawn, path: Path) -> None:
    with styled(), matplotlib.rc_context(TEXTS):
        figure.savefig(path, metadata={"Date": None})


def page(explained: dict[str, Explanation]) -> str:
    """The page, in Markdown."""
    parts, section = [INTRODUCTION, _overview()], ""
    for rung in ladder():
        if rung.section != section:
            section = rung.section
            title, what = PARTS[section]
            parts.append(f"## {title} ({section})\n\n{what}\n")
        parts.append(_rung(rung, explained[rung.name]))
    return "\n".join([*parts, LOOKING])


def _overview() -> str:
    """All rungs in a table, with links."""
    lines = [
        "| step | changes | GMACs | ResNet-50 regime, top-1 % | ResNet-200 regime, top-1 % |",
        "|---|---|--:|--:|--:|",
    ]
    for rung in ladder():
        name = rung.name if rung.name not in REGIMES else "start"
        link = f"[{name}](#{rung.name})" if rung.adopted else f"*[{name}](#{rung.name}), not taken*"
        other = _of_regime("resnet200", rung).printed
        lines.append(f"| {link} | {rung.change} | {rung.printed.gmacs:.2f} | {_top1(rung.printed)} | {_top1(other)} |")
    return "\n".join([*lines, ""])


def _rung(rung: Rung, explanation: Explanation) -> str:
    before, after = explanation.before, explanation.after
    road = "" if rung.adopted else "Not taken: "
    lines = [f"### {rung.name}", "", f"**{road}{rung.change}.** {rung.why}", ""]
    alt = f"Feature maps: {before.name} and {after.name}" if before else f"Feature maps of {after.name}"
    lines += [f"![{alt}](ladder/{rung.name}.svg)", ""]
    lines += ["<details><summary>Layer by layer</summary>", "", "```text", layer_by_layer(explanation), "```", ""]
    lines += ["</details>", ""]
    fields = [network.stages[-1].receptive_field for network in (before, after) if network]
    known = [field for field in fields if field is not None]  # all are: no rung has a layer that sees the whole image
    field = words.cost_row("receptive field, px", "d", known[0] if before else None, known[-1])
    costs = [*words.costs(before, after), field]
    lines += _table(["one image of 224 px", *(["before", "after", "ratio"] if before else [rung.name])], costs)
    lines += _paper(rung)
    for number, asked in enumerate(explanation.questions, 1):
        question, answer = (" ".join(text.split()) for text in (asked.question, asked.answer))
        lines += [f"<details><summary><b>{number}.</b> {question}</summary>", "", f"{answer} *({asked.section})*", ""]
        lines += ["</details>", ""]
    return "\n".join(lines)


def _paper(rung: Rung) -> list[str]:
    """What the paper printed, in both regimes."""
    rows = []
    for regime, numbers in (("resnet50", "ResNet-50"), ("resnet200", "ResNet-200")):
        after = _of_regime(regime, rung)
        if not after.path:
            rows.append([numbers, _top1(after.printed), _gflops(after.printed)])
            continue
        before = ladder(regime)[after.path[-2].name if after.path[1:] else regime].printed
        gain = signed(after.printed.top1 - before.top1)
        if before.top1_std is not None and after.printed.top1_std is not None:
            gain += f" ± {math.hypot(before.top1_std, after.printed.top1_std):.2f}"
        rows.append([numbers, _top1(before), _top1(after.printed), gain, _gflops(before), _gflops(after.printed)])
    if not rung.path:
        return _table(["in the paper, by regime", "top-1 %", "GFLOPs"], rows)
    head = ["in the paper, by regime", "top-1 % before", "after", "gain", "GFLOPs before", "after"]
    return _table(head, rows)


def _of_regime(regime: str, rung: Rung) -> Rung:
    """The rung in the same place of a regime."""
    return ladder(regime)[rung.name if rung.path else regime]


def _top1(row: PrintedRow) -> str:
    return f"{row.top1:.2f}" + (f" ± {row.top1_std:.2f}" if row.top1_std is not None else "")


def _gflops(row: PrintedRow) -> str:
    return f"{row.gflops:.2f}" + (f" (network: {row.gmacs:.2f})" if row.gflops != row.gmacs else "")


def _table(header: list[str], rows: list) -> list[str]:
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


if __name__ == "__main__":
    make(Path(sys.argv[0]).parent)
