"""The entry point."""

from __future__ import annotations

import sys
import warnings

import click

from roadmap.checks import RoadmapError, cause
from roadmap.cli import bench, demo, evaluate, explain, export, ladder, report, results, runs, status, store, study
from roadmap.cli.encoding import write_readably
from roadmap.cli.group import cli
from roadmap.phases import StatusLine, listening

#: Every module whose commands there are.
COMMANDS = (bench, demo, evaluate, explain, export, ladder, report, results, runs, status, store, study)


def main() -> None:
    """Entry point: whatever a user can get wrong ends in one sentence on stderr and exit code 2."""
    write_readably()
    # timm's own use of a function that torch has deprecated
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        with listening(StatusLine()):
            cli.main(prog_name="roadmap", standalone_mode=False)
    except RoadmapError as error:
        _fail(str(error))
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'the system'} cannot be used: {cause(error)}")


def _fail(message: str) -> None:
    click.echo(f"roadmap: {message[0].lower()}{message[1:].rstrip('.')}", err=True)
    sys.exit(2)
