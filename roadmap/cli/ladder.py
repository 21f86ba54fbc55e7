"""Commands on the ladder itself: steps, check-step and family; and the shipped recipes."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError, check_int, check_number
from roadmap.cli.group import cli, print_table
from roadmap.cli.study import PLUGIN_OPTION
from roadmap.ladders.ladder import REGIMES, Ladder, start_design
from roadmap.ladders.rungs import FULL_WIDTH, ladder
from roadmap.ladders.steps import Step, compose
from roadmap.network.design import STEM_STRIDES
from roadmap.phases import phase
from roadmap.recipes.recipe import FOLLOWED, load_recipe

#: Base widths, of which the first that a step can have is taken, and depth of the networks in which it is checked.
CHECKED_WIDTHS, CHECKED_DEPTH = (8, 32), 1 / 6


def ladder_options(command: Any) -> Any:
    """Options for a ladder of some size, which the command receives as ``rungs``, and for the size of its images."""

    @functools.wraps(command)
    def with_ladder(regime: str, width: int, depth: float, stem_stride: str, image_size: int, **options: Any) -> None:
        check_int("image size", image_size, 1, 4096)
        rungs = ladder(regime).scaled(width, depth, stem_stride=int(stem_stride))
        command(rungs=rungs, image_size=image_size, **options)

    strides = click.Choice([str(stride) for stride in STEM_STRIDES])
    for flag, kind, default, text in (
        ("--stem-stride", strides, "4", "Stride of the stem."),
        ("--depth", float, 1.0, "Factor on the number of blocks in every stage."),
        ("--width", int, FULL_WIDTH, "Base width of the start in channels."),
        ("--image-size", int, 224, "Side of the images in pixels."),
        ("--regime", click.Choice(list(REGIMES)), "resnet50", "The paper's ladder: from ResNet-50 or ResNet-200."),
    ):
        with_ladder = click.option(flag, type=kind, default=default, show_default=True, help=text)(with_ladder)
    return with_ladder


def measuring_options(command: Any, least: int = 2) -> Any:
    """Options for how speed is measured, which the command receives by these names, of at least this many images."""

    @functools.wraps(command)
    def measuring(batch_size: int, seconds: float, **options: Any) -> None:
        check_int("batch size", batch_size, least, 100_000)
        check_number("seconds", seconds, 0.01, 3600)
        command(batch_size=batch_size, seconds=seconds, **options)

    for option in (
        click.option("--seconds", type=float, default=2.0, show_default=True, help="Seconds for each measurement."),
        click.option("--threads", type=int, help="CPU threads [default: torch's choice]."),
        click.option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:N or mps."),
        click.option("--batch-size", type=int, default=8, show_default=True, help="Images in a batch."),
    ):
        measuring = option(measuring)
    return measuring


@cli.command()
@ladder_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with reasons, changes and MACs per operator.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--why", is_flag=True, help="Print the reason for each step, and no costs.")
def steps(rungs: Ladder, image_size: int, as_json: bool, as_csv: bool, why: bool) -> None:
    """List the steps of the ladder: what each changes and costs.

    The paper's printed figures stand beside the counted ones; they are always for 224 px, width 64, depth 1 and
    ImageNet-1K. Where they are marked * the printed GFLOPs contradict the network.
    """
    if as_json + as_csv + why > 1:
        raise RoadmapError("--json, --csv and --why exclude each other")
    if why:
        for rung in rungs:
            click.secho(f"{rung.name} ({rung.section}): {rung.change}", bold=True)
            click.echo(click.wrap_text(rung.why, width=100, initial_indent="    ", subsequent_indent="    "))
        return
    for rung in rungs:
        rung.design.feature_sizes(image_size)
    with phase("counting the cost of every step"):
        from roadmap.cost.cost import CONVENTION
        from roadmap.cost.counting import count

        full = [(rung, count(rung.design, image_size)) for rung in rungs]
    if not as_json and not as_csv:
        print_table([_step_row(rungs, rung, cost) for rung, cost in full])
        click.echo(f"{CONVENTION}. Counted at {image_size} x {image_size} px. (...): road not taken.")
        click.echo("paper: top-1 % on ImageNet-1K and GFLOPs as printed; * contradicts the network.")
        return
    records = [
        {
            "regime": rungs.regime,
            "step": rung.name,
            "adopted": rung.adopted,
            "section": rung.section,
            "changes": dict(rung.changes),
            "classic_recipe": rung.classic_recipe,
            "why": rung.why,
            "image_size": image_size,
            "gmacs": cost.gmacs,
            "params": cost.params,
            "activations": cost.activations,
            "macs_by_operator": cost.macs_by_operator,
            "printed_gflops": rung.printed.gflops,
            "network_gmacs": rung.printed.gmacs,
            "printed_top1": rung.printed.top1,
            "printed_top1_std": rung.printed.top1_std,
        }
        for rung, cost in full
    ]
    if as_json:
        click.echo(json.dumps(records, indent=1))
        return
    import csv

    writer = csv.DictWriter(
        sys.stdout,
        [name for name in records[0] if not isinstance(records[0][name], dict)],
        extrasaction="ignore",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(records)


def _step_row(rungs: Ladder, rung: Any, cost: Any) -> dict[str, Any]:
    printed = rung.printed
    return {
        "step": rung.name if rung.adopted else f"({rung.name})",
        "changes": rung.change,
        "GMACs": f"{cost.gmacs:.2f}" if cost.gmacs >= 0.1 else f"{cost.gmacs:.4f}",
        "params M": f"{cost.params / 1e6:.2f}",
        "activations M": f"{cost.activations / 1e6:.2f}",
        "paper GFLOPs": f"{printed.gflops:.2f}" + ("*" if printed.gflops != printed.gmacs else ""),
        "paper top-1": f"{printed.top1:.2f}" + (f" ±{printed.top1_std:.2f}" if printed.top1_std else ""),
    }


@cli.command("check-step")
@click.argument("names", metavar="STEP...", nargs=-1)
@PLUGIN_OPTION
@click.option("--study", type=click.Path(path_type=Path), metavar="STUDY.yaml", help="Study whose own steps to check.")
@click.option("--width", type=int, help="Base width of the networks [default: 8, or 32 if a step needs it].")
@click.option("--verbose", is_flag=True, help="Print the findings of every check.")
def check_step_command(
    names: tuple[str, ...], plugin: tuple[str, ...], study: Path | None, width: int | None, verbose: bool
) -> None:
    """Check whether a step can be trusted in a study: the ladder's own, a plug-in's or a study's.

    Each step is put into small networks at both ends of the ladder: it must build and change something, keep its
    layers' shapes at odd resolutions, give every parameter a gradient, keep the images of a batch apart, stay the same
    when it is saved, copied or cast to another precision, and learn. Without a STEP: all steps of the plug-ins and the
    study, or of the ladder. The exit code is 1 if a check fails.
    """
    with phase("preparing to check"):
        from roadmap.checking.design import check_step  # noqa: F401  (slow, as it imports torch)
        from roadmap.planning.networks import checked_steps
        from roadmap.planning.reading import load_spec

    spec = load_spec(study, **({"plugin": plugin} if plugin else {})) if study else None
    steps = checked_steps(names, spec, plugin)
    failed = sum(not _is_sound(step, (width,) if width else CHECKED_WIDTHS, verbose) for step in steps)
    if failed:
        click.echo(f"{failed} of {len(steps)} {'step' if len(steps) == 1 else 'steps'} failed", err=True)
        sys.exit(1)


def _is_sound(step: Step, widths: tuple[int, ...], verbose: bool) -> bool:
    """Check one step and print what was found."""
    from roadmap.checking.design import check_step

    cases: list[tuple[str, Any, Any]] = []
    notes: list[str] = []
    if step.training or not step.changes:
        settings = dict(step.training)
        own = {name: settings.pop(name) for name in FOLLOWED if name in settings}
        load_recipe("small").with_training(**own, settings=settings)
        notes.append("its training settings are valid; their effect takes a study")
    if step.changes:
        for rung in (ladder().start, ladder().rungs[-1]):
            designs, why = _without_and_with(step, rung, widths)
            cases += [(rung.name, *designs)] if designs else []
            notes += [f"impossible at {rung.name}: {why}"] if why else []
    with phase(f"checking {step.name}"):
        found = check_step(cases) if cases else {}
    sound = all(finding.ok for findings in found.values() for finding in findings) and bool(cases or not step.changes)
    click.echo(
        f"{step.name}: {click.style('ok', fg='green') if sound else click.style('FAILED', fg='red')} ({step.change})"
    )
    for note in notes:
        click.echo(f"    {note}")
    for name, findings in found.items():
        for finding in findings:
            if verbose or not finding.ok or finding.check == "place":
                click.echo(f"    at {name}, {finding.check}{'' if finding.ok else ' FAILED'}: {finding.sentence}")
    return sound


def _without_and_with(step: Step, rung: Any, widths: tuple[int, ...]) -> tuple[list[Any], str]:
    """The small designs of a rung without a step and with it; none, and why, where it cannot be in one."""
    why = ""
    path = [one for one in rung.path if one.name != step.name]
    for width in widths:
        start = start_design("resnet50").replace(stem_stride=2)
        try:
            return [compose(start, steps, width, CHECKED_DEPTH) for steps in (path, [*path, step])], ""
        except RoadmapError as error:
            why = str(error)
    return [], why


@cli.command()
@click.option("--image-size", type=int, default=224, show_default=True, help="Side of the images in pixels.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every flag of each network.")
def family(image_size: int, as_json: bool) -> None:
    """List the published networks at either end of the ladder, and their cost.

    roadmap.build(NAME) builds one; its weights can be loaded in timm's and in the released code's layout.
    """
    check_int("image size", image_size, 1, 4096)
    with phase("counting the cost of every network"):
        from roadmap.cost.cost import CONVENTION
        from roadmap.cost.counting import count
        from roadmap.ladders.family import FAMILY

        costs = {name: count(design, image_size) for name, design in FAMILY.items()}
    if as_json:
        records = [
            {"name": name, "gmacs": costs[name].gmacs, "params": costs[name].params, **dataclasses.asdict(design)}
            for name, design in FAMILY.items()
        ]
        click.echo(json.dumps(records, indent=1))
        return
    rows = [
        {
            "network": name,
            "blocks": "-".join(map(str, design.blocks)),
            "width": design.widths[0],
            "GMACs": f"{costs[name].gmacs:.2f}",
            "params M": f"{costs[name].params / 1e6:.2f}",
        }
        for name, design in FAMILY.items()
    ]
    print_table(rows)
    click.echo(f"{CONVENTION}. Counted at {image_size} x {image_size} px.")


@cli.command()
@click.argument("name", required=False, metavar="[RECIPE]")
def recipes(name: str | None) -> None:
    """List the training recipes that are shipped, or print all settings of one.

    RECIPE is a name or a .yaml file. The printed settings can be saved to a .yaml file, changed, and used as --recipe.
    """
    from roadmap.recipes.recipe import describe, recipe_names

    if name:
        click.echo(describe(load_recipe(name)), nl=False)
        return
    print_table(
        [
            {
                "recipe": recipe.name,
                "optimizer": recipe.optimizer,
                "lr": f"{recipe.peak_lr:g}",
                "batch": recipe.batch_size,
                "epochs": recipe.epochs,
                "start trains with": recipe.classic or "",
                "why": _short(recipe.why),
            }
            for recipe in map(load_recipe, recipe_names())
        ]
    )
    click.echo("roadmap recipes NAME prints all settings of one")


def _short(text: str) -> str:
    """The beginning of a text, in whole words."""
    return textwrap.shorten(text, 70, placeholder=" ...")
