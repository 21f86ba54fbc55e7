"""The command group that every command joins, and what they share."""

from __future__ import annotations

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
    """An option that the help shows in a section of its own, ``part``."""

    def __init__(self, *words: Any, part: str = "", **options: Any) -> None:
        super().__init__(*words, **options)
        self.part = part


#: Part of a command's options -> the title of its section.
PARTS = {
    "": "Options",
    "ablation": "The ablation: which networks, of which steps",
    "recipe": "Settings of the recipe, for every run",
}


class Sections(click.Command):
    """A command whose help shows its options in `PARTS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for part, title in PARTS.items():
            options = [option for option in self.get_params(ctx) if getattr(option, "part", "") == part]
            records = [record for option in options if (record := option.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


@click.group(cls=OneSentence, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """The road from ResNet to ConvNeXt, one design choice at a time: what each changes, costs and brings.

    \b
    roadmap steps                        the ladder as a table: what each step changes and costs
    roadmap explain depthwise_conv       one of them: before and after, why, costs, questions
    roadmap run --upto large_kernel      train every step up to that one, and draw the trajectory
    roadmap plan --upto large_kernel     what that would take here, measured, and when it would end
    roadmap run experiments/ladder.yaml  train the study in a file
    roadmap status                       where the runs stand, finished or in work
    roadmap report results/ladder        what came of a study, as one page for the browser
    roadmap eval 3f2a                    a run's weights tested again, on any images, at any resolution
    roadmap finetune 3f2a --data ...     its network trained further
    roadmap reproduce 3f2a               the run made again, and compared
    """


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
