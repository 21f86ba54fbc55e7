"""An `Explanation` for the terminal, 80 columns wide; `click.echo` leaves its colours out where they do not belong."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from roadmap.explaining.lines import Line, aligned, lines_after

if TYPE_CHECKING:
    from roadmap.explaining.content import Explanation, Measured, Network
    from roadmap.explaining.outline import Difference, Piece, View

COLUMNS = 80
#: Where the formula for receptive fields is from, see `roadmap.explaining.reach`.
SOURCE = "Araujo et al., Distill 2019, doi 10.23915/distill.00021"
#: Between two columns of a diagram: lines that differ, and lines that do not.
CHANGED, SAME = " ≠ ", "   "


def plain(explanation: Explanation) -> str:
    """The text without colours."""
    return click.unstyle(styled(explanation))


def styled(explanation: Explanation, every_layer: bool = False) -> str:
    """The text with colours; with ``every_layer`` each layer that differs by its own name."""
    before, after = explanation.before, explanation.after
    section = f" ({explanation.section})" if explanation.section else ""
    lines = [click.style(f"{explanation.title}{section}", bold=True)]
    if explanation.why:
        lines += ["", *_wrapped(explanation.why)]
    lines += ["", _heading("What changes"), *_changes(explanation)]
    for view in explanation.views:
        lines += ["", *_diagram(view, before, after)]
    if before:
        lines += ["", _heading(f"Layers that differ: {len(explanation.layers)} of {_total(before, after)}")]
        lines += _every(explanation.layers) if every_layer else _grouped(explanation)
    lines += ["", _heading(f"What it costs, for one image of {explanation.image_size} px"), *_costs(before, after)]
    if explanation.measured_on:
        lines += _wrapped(f"Measured: {explanation.measured_on}.")
    lines += [
        "",
        _heading("What a position sees: resolution, and theoretical receptive field"),
        *_stages(before, after),
    ]
    lines += _wrapped(f"Receptive fields: {SOURCE}; all: the whole image.")
    if explanation.printed:
        lines += ["", _heading("In the paper: ImageNet-1K, at full size"), *_printed(explanation)]
    for study in explanation.studies:
        lines += ["", _heading(f"In the study {study.study} ({study.design}; {study.setting})"), *_measured(study)]
    if explanation.questions:
        other = explanation.regime != "resnet50"
        lines += [
            "",
            _heading("Questions" + (" (figures: ResNet-50 regime, where no other is named)" if other else "")),
        ]
    for number, asked in enumerate(explanation.questions, 1):
        lines += _wrapped(f"{number}. {asked.question}", hanging="     ")
        lines += _wrapped(f"{asked.answer} ({asked.section})", indent="     ")
    return "\n".join(lines)


def _heading(text: str) -> str:
    return click.style(text, bold=True, fg="cyan")


def _wrapped(text: str, indent: str = "  ", hanging: str | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), COLUMNS, initial_indent=indent, subsequent_indent=hanging or indent,
        break_on_hyphens=False,
    )  # fmt: skip


def _changes(explanation: Explanation) -> Iterator[str]:
    changes = {**explanation.flags, **{f"recipe: {name}": values for name, values in explanation.training.items()}}
    if explanation.before is None:
        yield from _wrapped("The start: nothing stands before it.")
    elif not changes:
        yield from _wrapped("Nothing, at this size.")
    elif not explanation.flags:
        yield from _wrapped("The training alone; the network stays as it is.")
    for name, (old, new) in changes.items():
        yield from _wrapped(f"{name}: {_value(old)} → {_value(new)}", hanging="      ")


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, (tuple, list)):
        if value and isinstance(value[0], (tuple, list)):  # layers, with their options
            return ", ".join(" ".join([name, *(f"{o}={v}" for o, v in options)]) for name, options in value)
        return "-".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


# --- diagrams


def _diagram(view: View, before: Network | None, after: Network) -> Iterator[str]:
    """A part of the network, before and after beside each other; once where it stays."""
    if before is None or view.same:
        stays = "" if before is None else ", which stays"
        yield click.style(f"  {view.name}{stays}", bold=True)
        yield from (f"  {_drawn(line)}" for line in lines_after(view))
        return
    half = (COLUMNS - len(CHANGED)) // 2
    yield click.style(view.name, bold=True)
    names = [network.name if part else f"{network.name} has none"
             for network, part in ((before, view.before), (after, view.after))]  # fmt: skip
    yield from _beside(names[0], names[1], half, SAME)
    for left, right in aligned(view):
        changed = left != right
        for line in _beside(_drawn(left), _drawn(right), half, CHANGED if changed else SAME):
            yield click.style(line, fg="yellow") if changed else line


#: What stands in front of a line, by its role within a residual block, and elsewhere.
IN_BLOCK = {"input": "┌", "layer": "│", "shortcut": "├", "sum": "└", "behind": " ", "output": " "}
ELSEWHERE = dict.fromkeys(IN_BLOCK, "│")


def _drawn(line: Line | None) -> str:
    if line is None:
        return ""
    return f"{(IN_BLOCK if line.block else ELSEWHERE)[line.role]} {line.text}"


def _beside(left: str, right: str, half: int, between: str) -> Iterator[str]:
    columns = [
        textwrap.wrap(text, half, subsequent_indent="│   " if text[0] in "│├" else "    ")
        if len(text) > half
        else [text]
        for text in (left, right)
    ]
    for number in range(max(map(len, columns))):
        one, two = (column[number] if number < len(column) else "" for column in columns)
        yield f"{one:{half}}{between if not number else SAME}{two}".rstrip()


# --- layers that differ


def _total(before: Network, after: Network) -> int:
    return len({piece.name for network in (before, after) for piece in network.layers})


def _every(layers: Iterable[Difference]) -> Iterator[str]:
    for layer in layers:
        old, new = (piece.words if piece else "none" for piece in (layer.before, layer.after))
        yield from _wrapped(f"{layer.name}: {old} → {new}", hanging="      ")


def _grouped(explanation: Explanation) -> Iterator[str]:
    """The layers that differ, those with the same place and the same change on one line."""
    groups: dict[tuple[str, tuple[str, ...], str], list[Difference]] = {}
    for layer in explanation.layers:
        place = re.sub(r"^stages\.\d+(\.blocks\.\d+)?", lambda found: "stages.*" + (".blocks.*" if found[1] else ""),
                       layer.name)  # fmt: skip
        kinds = " → ".join(dict.fromkeys(piece.kind for piece in (layer.before, layer.after) if piece))
        groups.setdefault((place, layer.changed, kinds), []).append(layer)
    blocks = [_blocks(network) for network in (explanation.before, explanation.after) if network]
    for (place, changed, kinds), layers in groups.items():
        names = _names(place, layers, {name for one in blocks for name in one})
        count = f" ({len(layers)})" if len(layers) > 1 else ""
        yield from _wrapped(f"{names}{count}: {'; '.join(_facts(layers, changed, kinds))}", hanging="      ")


def _blocks(network: Network) -> set[tuple[int, int]]:
    return {(stage, block) for stage, count in enumerate(network.design["blocks"]) for block in range(count)}


def _names(place: str, layers: Sequence[Difference], blocks: set[tuple[int, int]]) -> str:
    """The modules of a group in few words: ``stages.1-3.blocks.0.conv1``; * for all blocks of a stage."""
    if not place.startswith("stages.*"):
        return place
    rest = place.removeprefix("stages.*").removeprefix(".blocks.*")
    found: dict[int, list[int]] = {}
    for layer in layers:
        numbers = re.match(r"stages\.(\d+)(?:\.blocks\.(\d+))?", layer.name)
        assert numbers
        found.setdefault(int(numbers[1]), []).extend([int(numbers[2])] if numbers[2] else [])
    which = {}
    for stage, there in found.items():
        whole = {(stage, block) for block in there} == {pair for pair in blocks if pair[0] == stage}
        which[stage] = ("*" if whole else _ranges(there)) if there else ""
    parts = []
    for said in dict.fromkeys(which.values()):
        stages = _ranges([stage for stage in which if which[stage] == said])
        parts.append(f"stages.{stages}" + (f".blocks.{said}" if said else ""))
    return ", ".join(part + rest for part in parts)


def _ranges(numbers: Iterable[int]) -> str:
    """``0-2,5`` for 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _facts(layers: Sequence[Difference], changed: tuple[str, ...], kinds: str) -> Iterator[str]:
    """What changes in a group: one value, or those from the first layer to the last."""
    if changed in (("new",), ("gone",), ("kind",)):
        pieces = [layer.after or layer.before for layer in layers] if changed != ("kind",) else []
        words = list(dict.fromkeys(piece.words for piece in pieces if piece))
        yield kinds if changed == ("kind",) else f"{changed[0]}, {' ... '.join(dict.fromkeys([words[0], words[-1]]))}"
        return
    for fact in changed:
        sides = []
        for piece in ("before", "after"):
            values = list(dict.fromkeys(_fact(getattr(layer, piece), fact) for layer in layers))
            sides.append(values[0] if len(values) == 1 else f"{values[0]} ... {values[-1]}")
        yield f"{fact} {sides[0]} to {sides[1]}" if fact == "channels" else f"{fact} {sides[0]} → {sides[1]}"


def _fact(piece: Piece, fact: str) -> str:
    value = piece.facts.get(fact)
    if fact == "channels":
        return "→".join(map(str, value or ()))
    return "x".join(map(str, value)) if isinstance(value, tuple) else _value(value)


# --- figures


def _costs(before: Network | None, after: Network) -> list[str]:
    rows: list[tuple[str, str, float | None, float]] = []
    for name, form, scale in (
        ("gmacs", "GMACs", 1.0),
        ("params", "parameters, M", 1e6),
        ("activations", "activations, M", 1e6),
    ):
        rows.append((form, ".4g", getattr(before, name) / scale if before else None, getattr(after, name) / scale))
    if after.speed:
        words = {"inference_images_per_second": "inference, img/s", "inference_memory_mib": "inference, MiB",
                 "training_images_per_second": "training, img/s", "training_memory_mib": "training, MiB"}  # fmt: skip
        for name, form in words.items():
            old = getattr(before.speed, name) if before and before.speed else None
            rows.append((form, ".1f", old, getattr(after.speed, name)))
    shown = [("", *(("before", "after", "ratio") if before else ("",)))]
    for form, digits, old, new in rows:
        shown.append((form, f"{old:{digits}}", f"{new:{digits}}", f"x{new / old:.2f}" if old else "") if old is not None
                     else (form, f"{new:{digits}}"))  # fmt: skip
    return _table(shown if before else shown[1:])


def _stages(before: Network | None, after: Network) -> list[str]:
    networks = [network for network in (before, after) if network]
    names = list(dict.fromkeys(stage.name for network in networks for stage in network.stages))
    titles = ("blocks", "channels", "size", "sees px")
    rows = [("", *(title for _ in networks for title in titles))]
    for name in names:
        cells: list[str] = [name]
        for network in networks:
            stage = next((stage for stage in network.stages if stage.name == name), None)
            cells += [""] * len(titles) if stage is None else [
                str(stage.blocks or ""), str(stage.channels), f"{stage.height}x{stage.width}",
                "all" if stage.receptive_field is None else str(stage.receptive_field),
            ]  # fmt: skip
        rows.append(tuple(cells))
    lines = _table(rows)
    if len(networks) == 2:
        start = lines[0].index("blocks", lines[0].index("sees px"))
        lines.insert(0, f"{'':{lines[0].index('blocks')}}{'before':{start - lines[0].index('blocks')}}after")
    return lines


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of cells: the first column to the left, figures to the right."""
    widths = [max(len(row[index]) for row in rows if index < len(row)) for index in range(max(map(len, rows)))]
    return [
        "  " + "  ".join(cell.ljust(width) if not index else cell.rjust(width)
                         for index, (cell, width) in enumerate(zip(row, widths, strict=False))).rstrip()
        for row in rows
    ]  # fmt: skip


def _printed(explanation: Explanation) -> Iterator[str]:
    printed = explanation.printed
    assert printed
    new = f"{printed.after.step} {_with_error(printed.after.top1, printed.after.top1_std)} %"
    if printed.before is None or printed.gain is None:
        yield from _wrapped(f"top-1: {new}")
    else:
        old = f"{printed.before.step} {_with_error(printed.before.top1, printed.before.top1_std)} %"
        yield from _wrapped(f"top-1: {old} → {new}")
        unknown = "" if printed.gain_std is not None else " (not both deviations are printed)"
        yield from _wrapped(f"gain: {_signed(printed.gain)}{_deviation(printed.gain_std)} points{unknown}")
    for row in (printed.before, printed.after):
        if row and row.gflops != row.gmacs:
            yield from _wrapped(f"Of {row.step}, {row.gflops:.2f} GFLOPs are printed; the network has {row.gmacs:.2f}.")


def _measured(study: Measured) -> Iterator[str]:
    if study.remark:
        yield from _wrapped(f"{study.remark[0].upper()}{study.remark[1:]}.")
    for network in study.networks:
        if network.top1_mean is not None:
            mean = _with_error(network.top1_mean, network.top1_std)
            yield from _wrapped(f"{network.name}: {mean} %, {_seeds(network.seeds)}")
    for effect in study.effects:
        if effect.estimate is None:
            yield from _wrapped(f"{effect.effect}: no result, {effect.failed} runs failed")
            continue
        against = f" against {effect.against}" if effect.against else ""
        interval = "no interval" if effect.low is None or effect.high is None else (
            f"95 % interval {_signed(effect.low)} to {_signed(effect.high)}"
        )  # fmt: skip
        yield from _wrapped(
            f"{effect.effect}{against}: {_signed(effect.estimate)} points, {interval}, {_seeds(effect.seeds)}"
        )


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.2f}{_deviation(error)}"


def _deviation(error: float | None) -> str:
    return "" if error is None else f" ±{error:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _seeds(number: int) -> str:
    return f"{number} {'seed' if number == 1 else 'seeds'}"
