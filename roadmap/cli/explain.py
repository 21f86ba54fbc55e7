"""Commands that explain: a step, and the difference between two networks."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from roadmap.checks import RoadmapError
from roadmap.cli.group import cli
from roadmap.cli.ladder import ladder_options, measuring_options
from roadmap.cli.study import PLUGIN_OPTION
from roadmap.ladders.ladder import Ladder
from roadmap.phases import phase

if TYPE_CHECKING:
    from roadmap.explaining.explanation import Explanation


def explaining_options(command: Any) -> Any:
    """Options of both commands, which receive as ``asked`` what `explain` and `diff` have in common, and return an
    `Explanation`, which is printed."""

    @functools.wraps(command)
    def explaining(
        plugin: tuple[str, ...],
        study: tuple[Path, ...],
        measure: bool,
        batch_size: int,
        device: str,
        threads: int | None,
        seconds: float,
        verbose: bool,
        as_json: bool,
        rungs: Ladder,
        image_size: int,
        quiz: bool = False,
        **words: Any,
    ) -> None:
        if quiz and as_json:
            raise RoadmapError("--quiz asks a reader and --json prints for a program: give one of them")
        with phase("building and measuring the networks" if measure else "building the networks"):
            from roadmap.explaining.content import Measuring
            from roadmap.explaining.text import styled
            from roadmap.network.layers import load_plugins

            load_plugins(plugin)
            studies = []
            for folder in study:
                from roadmap.results.study import load_study

                studies.append(load_study(folder))
            asked = {
                "rungs": rungs,
                "image_size": image_size,
                "studies": studies,
                "measure": Measuring(batch_size, device, seconds, threads) if measure else None,
            }
            explanation = command(**words, asked=asked)
        if quiz:
            _ask(explanation)
            return
        click.echo(json.dumps(explanation.as_dict(), indent=1) if as_json else styled(explanation, verbose))

    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print everything as JSON."),
        click.option("--verbose", is_flag=True, help="List every layer that differs."),
        measuring_options,
        click.option("--measure", is_flag=True, help="Measure the speed and memory of both networks here."),
        click.option(
            "--study",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="Folder of a finished study, to show its results and know its own steps; may be repeated.",
        ),
        PLUGIN_OPTION,
        ladder_options,
    ):
        explaining = option(explaining)
    return explaining


def _ask(explanation: Explanation) -> None:
    """Ask the questions about a step. In a terminal each answer waits for Enter; elsewhere they stay hidden."""
    from roadmap.explaining.text import questions_and_answers

    if not explanation.questions:
        raise RoadmapError(
            f"no questions have been written about '{explanation.title}'; those of the ladder's steps: roadmap steps"
        )
    waits = sys.stdin.isatty()
    for question, answer in questions_and_answers(explanation):
        click.echo(question)
        if waits:
            click.prompt("     Enter: the answer", default="", show_default=False, prompt_suffix=" ")
            click.echo(f"{answer}\n")
    if not waits:
        click.echo(f"Answers: roadmap explain {explanation.title}")


@cli.command("explain")
@click.argument("step")
@explaining_options
@click.option("--quiz", is_flag=True, help="Ask the questions about the step alone; Enter shows each answer.")
@click.option(
    "--onto",
    metavar="NETWORK",
    help="Network that a step other than a rung is added to, named as for diff [default: as in the study "
    "that has it, else the last rung].",
)
def explain_command(step: str, onto: str | None, asked: dict[str, Any]) -> Any:
    """Explain a step: what it changes, why, its cost, and its effect.

    Shows the blocks before and after, drawn from the built networks; the layers that differ; costs; receptive fields;
    the paper's results and those of your studies (--study); two questions with answers. STEP is a rung, a step of a
    plug-in, or a study's own step.
    """
    from roadmap.explaining.content import explain

    return explain(step, onto=onto, **asked)


@cli.command("diff")
@click.argument("first")
@click.argument("second")
@explaining_options
def diff_command(first: str, second: str, asked: dict[str, Any]) -> Any:
    """Show how two networks differ, as `roadmap explain` does for a step.

    FIRST and SECOND are rungs, networks of `roadmap family`, scaled like the ladder, or steps of plug-ins or of a study
    (--study), added to the last rung. gelu+se is a rung with one more step.
    """
    from roadmap.explaining.content import diff

    return diff(first, second, **asked)
