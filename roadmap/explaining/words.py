"""An `Explanation` in words and rows of words, without any layout: what a terminal, a page and a notebook share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadmap.explaining.explanation import BuiltNetwork, Explanation, StudyFindings
    from roadmap.explaining.outline import Difference, Piece

#: Where the formula for receptive fields is from, see `roadmap.explaining.reach`.
SOURCE = "Araujo et al., Distill 2019, doi 10.23915/distill.00021"


# --- what changes


def changes(explanation: Explanation) -> list[tuple[str, str, str]]:
    """Flags of the design and settings of the recipe that change: name, and the values before and after."""
    changed = {**explanation.flags, **{f"recipe: {name}": values for name, values in explanation.training.items()}}
    return [(name, shown(old), shown(new)) for name, (old, new) in changed.items()]


def remark_on_changes(explanation: Explanation) -> str:
    """Notes beside the flags that change; usually none."""
    if explanation.before is None:
        return "The start: nothing stands before it."
    if not explanation.flags and not explanation.training:
        return "Nothing, at this size."
    return "" if explanation.flags else "The training alone; the network stays as it is."


def shown(value: Any) -> str:
    """A flag or setting for readers: `3-3-9-3`, `yes`, `none`."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, (tuple, list)):
        if value and isinstance(value[0], (tuple, list)):  # layers, with their options
            return ", ".join(" ".join([name, *(f"{o}={v}" for o, v in options)]) for name, options in value)
        return "-".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


# --- layers that differ


def count_layers(before: BuiltNetwork, after: BuiltNetwork) -> int:
    """How many layers there are in either network, by name."""
    return len({piece.name for network in (before, after) for piece in network.layers})


def every_layer(explanation: Explanation) -> Iterator[str]:
    """Every layer that differs, by its own name."""
    for layer in explanation.layers:
        old, new = (piece.words if piece else "none" for piece in (layer.before, layer.after))
        yield f"{layer.name}: {old} → {new}"


def grouped_layers(explanation: Explanation) -> Iterator[str]:
    """The layers that differ, those with the same place and the same change in one sentence."""
    groups: dict[tuple[str, tuple[str, ...], str], list[Difference]] = {}
    for layer in explanation.layers:
        place = re.sub(
            r"^stages\.\d+(\.blocks\.\d+)?", lambda found: "stages.*" + (".blocks.*" if found[1] else ""), layer.name
        )
        kinds = " → ".join(dict.fromkeys(piece.kind for piece in (layer.before, layer.after) if piece))
        groups.setdefault((place, layer.changed, kinds), []).append(layer)
    blocks = [_blocks(network) for network in (explanation.before, explanation.after) if network]
    for (place, changed, kinds), layers in groups.items():
        names = _names(place, layers, {name for one in blocks for name in one})
        count = f" ({len(layers)})" if len(layers) > 1 else ""
        yield f"{names}{count}: {'; '.join(_facts(layers, changed, kinds))}"


def _blocks(network: BuiltNetwork) -> set[tuple[int, int]]:
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
    return "x".join(map(str, value)) if isinstance(value, tuple) else shown(value)


# --- figures


def costs(before: BuiltNetwork | None, after: BuiltNetwork) -> list[tuple[str, ...]]:
    """Rows of costs: name, before, after and their ratio; name and value where nothing stands before."""
    rows: list[tuple[str, str, float | None, float]] = []
    for name, form, scale in (
        ("gmacs", "GMACs", 1.0),
        ("params", "parameters, M", 1e6),
        ("activations", "activations, M", 1e6),
    ):
        rows.append((form, ".4g", getattr(before, name) / scale if before else None, getattr(after, name) / scale))
    if after.speed:
        words = {
            "inference_images_per_second": "inference, img/s",
            "inference_memory_mib": "inference, MiB",
            "training_images_per_second": "training, img/s",
            "training_memory_mib": "training, MiB",
        }
        for name, form in words.items():
            old = getattr(before.speed, name) if before and before.speed else None
            rows.append((form, ".1f", old, getattr(after.speed, name)))
    return [cost_row(*row) for row in rows]


def cost_row(name: str, digits: str, before: float | None, after: float) -> tuple[str, ...]:
    """One row of `costs`, from its numbers and the digits that are shown of them."""
    if before is None:
        return name, f"{after:{digits}}"
    return name, f"{before:{digits}}", f"{after:{digits}}", f"x{after / before:.2f}" if before else ""


#: What `stages` says of either network.
STAGE_COLUMNS = ("blocks", "channels", "size", "sees px")


def stages(before: BuiltNetwork | None, after: BuiltNetwork) -> list[tuple[str, ...]]:
    """Rows of stages: name, and of both networks, or of the one there is, `STAGE_COLUMNS`."""
    networks = [network for network in (before, after) if network]
    rows = []
    for name in dict.fromkeys(stage.name for network in networks for stage in network.stages):
        cells: list[str] = [name]
        for network in networks:
            stage = next((stage for stage in network.stages if stage.name == name), None)
            cells += (
                [""] * len(STAGE_COLUMNS)
                if stage is None
                else [
                    str(stage.blocks or ""),
                    str(stage.channels),
                    f"{stage.height}x{stage.width}",
                    "all" if stage.receptive_field is None else str(stage.receptive_field),
                ]
            )
        rows.append(tuple(cells))
    return rows


def printed(explanation: Explanation) -> Iterator[str]:
    """Sentences on what the paper printed, none where it printed nothing."""
    printed = explanation.printed
    if printed is None:
        return
    new = f"{printed.after.step} {_with_error(printed.after.top1, printed.after.top1_std)} %"
    if printed.before is None or printed.gain is None:
        yield f"top-1: {new}"
    else:
        old = f"{printed.before.step} {_with_error(printed.before.top1, printed.before.top1_std)} %"
        yield f"top-1: {old} → {new}"
        unknown = "" if printed.gain_std is not None else " (not both deviations are printed)"
        yield f"gain: {_signed(printed.gain)}{_deviation(printed.gain_std)} points{unknown}"
    for row in (printed.before, printed.after):
        if row and row.gflops != row.gmacs:
            yield f"Of {row.step}, {row.gflops:.2f} GFLOPs are printed; the network has {row.gmacs:.2f}."


def measured(study: StudyFindings) -> Iterator[str]:
    """Sentences on what a study measured."""
    if study.remark:
        yield f"{study.remark[0].upper()}{study.remark[1:]}."
    for network in study.networks:
        if network.top1_mean is not None:
            mean = _with_error(network.top1_mean, network.top1_std)
            yield f"{network.name}: {mean} %, {_seeds(network.seeds)}"
    if study.speed:
        old, new, device = study.speed
        yield f"training: {old:.4g} → {new:.4g} images/s, x{new / old:.2f}, on {device}"
    for effect in study.effects:
        if effect.estimate is None:
            yield f"{effect.effect}: no result, {effect.failed} runs failed"
            continue
        against = f" against {effect.against}" if effect.against else ""
        interval = (
            "no interval"
            if effect.low is None or effect.high is None
            else (f"interval {_signed(effect.low)} to {_signed(effect.high)}")
        )
        verdict = f"{effect.verdict}: " if effect.verdict else ""
        points = f"{_signed(effect.estimate)} points, {interval}, {_seeds(effect.seeds)}"
        yield f"{effect.effect}{against}: {verdict}{points}"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.2f}{_deviation(error)}"


def _deviation(error: float | None) -> str:
    return "" if error is None else f" ±{error:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _seeds(number: int) -> str:
    return f"{number} {'seed' if number == 1 else 'seeds'}"


def questions_heading(explanation: Explanation) -> str:
    """What stands above the questions, whose figures are those of one regime."""
    other = explanation.regime != "resnet50"
    return "Questions" + (" (figures: ResNet-50 regime, where no other is named)" if other else "")
