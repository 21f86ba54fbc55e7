"""The command group that every command joins, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from roadmap import __version__
from roadmap.checks import RoadmapError, nearest
from roadmap.cli.encoding import as_written
from roadmap.markup import printable


class OneSentence(click.Group):
    """Unknown commands are answered with the nearest one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise RoadmapError(f"unknown command '{args[0]}'{nearest(args[0], self.commands)}; see roadmap --help")
        return super().resolve_command(ctx, args)


class PartOption(click.Option):
    """An option that the help shows in a section of its own, ``part``; unless ``common`` only that with --help-all."""

    def __init__(self, *words: Any, part: str = "", common: bool = False, **options: Any) -> None:
        super().__init__(*words, **options)
        self.part, self.common = part, common


#: Part of a command's options -> the title of its section.
PARTS = {
    "networks": "Networks",
    "ablation": "Ablation design",
    "data": "Data",
    "training": "Training",
    "recipe": "Settings that replace the recipe's",
    "machine": "Machines",
    "": "Other options",
}
#: Set in a context whose help is to show every option.
ALL = "roadmap.all_options"


class Sections(click.Command):
    """A command whose --help shows the common options, and --help-all every one, grouped in `PARTS`."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show every option and exit.",
            )
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        parts: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (ctx.meta.get(ALL) or getattr(option, "common", True)):
                record = option.get_help_record(ctx)
                parts[getattr(option, "part", "")] += [record] if record else []
        for part, records in parts.items():
            if records:
                with formatter.section(PARTS[part]):
                    formatter.write_dl(records)


def _show_all(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


@click.group(cls=OneSentence, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """The road from ResNet to ConvNeXt, one design choice at a time: what each changes, costs and gains.

    \b
    roadmap steps                        the ladder as a table: what each step changes and costs
    roadmap explain depthwise_conv       one step: before and after, why, its cost, questions
    roadmap run --upto large_kernel      train every step up to that one, and draw the trajectory
    roadmap plan --upto large_kernel     measure here how long that would take, and when it would end
    roadmap run experiments/ladder.yaml  train the study in a file
    roadmap status                       how many runs are done, running, interrupted or failed
    roadmap report results/ladder        write a study's results as one page for the browser
    roadmap demo results/ladder          try its networks on images, in the browser
    roadmap eval 3f2a                    test a run's weights again, on any images, at any resolution
    roadmap finetune 3f2a --data ...     train its network further
    roadmap reproduce 3f2a               train the run again, and compare
    """


def with_rows(place: str, rows: Sequence[tuple[str, str]]) -> Any:
    """A decorator that puts a line about each of something, its name and what it is, in the place of ``{place}`` in a
    command's help."""
    width = max(len(name) for name, _ in rows)
    lines = "\n".join(f"    {name:{width}}   {words}" for name, words in rows)

    def decorate(function: Any) -> Any:
        function.__doc__ = function.__doc__.replace(f"    {{{place}}}", f"    \b\n{lines}")
        return function

    return decorate


def print_table(rows: list[dict[str, Any]]) -> None:
    """Columns aligned with spaces: words to the left, numbers to the right."""
    columns = []
    for name in rows[0]:
        header, *cells = [as_written(printable(text)) for text in (name, *(row[name] for row in rows))]
        width = max(map(len, (header, *cells)))
        numbers = all(cell[:1].isdigit() for cell in cells if cell)
        columns.append([cell.rjust(width) if numbers else cell.ljust(width) for cell in (header, *cells)])
    for line in zip(*columns, strict=True):
        click.echo("  ".join(line).rstrip())


def print_effects(study: Any) -> None:
    """The effects of a study, or of a table of runs, what their intervals mean, and the answer in three sentences."""
    from roadmap.results.sentences import answer
    from roadmap.results.shown import interval_text, readable

    rows = readable(study.effects).to_dict("records")
    print_table([{str(name): value for name, value in row.items()} for row in rows])
    click.echo(interval_text(study.effects, study.matters, study.rule))
    if (latency := getattr(study, "latency", None)) is not None:
        from roadmap.results.latency import measured_on

        click.echo(f"ms: {measured_on(latency)}.")
    click.echo(" ".join(answer(study)))
