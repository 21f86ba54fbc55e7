"""Commands that remove from the store: rm and gc."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from roadmap.checks import RoadmapError
from roadmap.cli.entries import (
    description,
    find_entry,
    open_store,
    size_text,
)
from roadmap.cli.group import cli
from roadmap.cli.study import STORE_OPTION
from roadmap.formatting import plural
from roadmap.store.housekeeping import disk_bytes
from roadmap.store.store import Store


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@STORE_OPTION
@click.option("--yes", is_flag=True, help="Remove without confirmation.")
def rm(runs: tuple[str, ...], store: Path | None, yes: bool) -> None:
    """Remove runs from the store.

    Removes record, weights and checkpoint; a study that needs such a run trains it again. RUN is a signature or its
    beginning. If one of the runs does not exist or is being trained, none is removed.

    \b
    roadmap rm 08c8 1264
    """
    place = open_store(store)
    found = [find_entry(place, run) for run in dict.fromkeys(map(place.find, runs))]
    for entry in found:
        if entry.status == "running":
            raise RoadmapError(f"run {entry.signature} is being trained: stop that first")
    freed = sum(_run_bytes(place, entry.signature) for entry in found)
    if not yes:
        if not sys.stdin.isatty():
            raise RoadmapError("confirming needs a terminal: add --yes to remove without confirmation")
        for entry in found:
            click.echo(description(entry))
        if not click.confirm(f"Remove {plural(len(found), 'run')}, {size_text(freed)}?"):
            click.echo("nothing was removed")
            return
    place.remove(*(entry.signature for entry in found))
    for entry in found:
        click.echo(f"removed {description(entry)}")
    click.echo(f"{plural(len(found), 'run')}, {size_text(freed)}")


@cli.command()
@STORE_OPTION
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option("--failed", is_flag=True, help="Also remove failed runs.")
@click.option("--interrupted", is_flag=True, help="Also remove runs that were begun and are not being trained now.")
@click.option("--damaged", is_flag=True, help="Also remove damaged runs.")
def gc(store: Path | None, dry_run: bool, failed: bool, interrupted: bool, damaged: bool) -> None:
    """Remove what no run needs.

    Removes the leftovers of processes that have ended and, with the options, unfinished or damaged runs. Whatever a
    running process uses is kept.

    \b
    roadmap gc --dry-run --failed --damaged
    """
    place = open_store(store)
    wanted = {"failed": failed, "interrupted": interrupted, "damaged": damaged}
    entries = [entry for entry in place.entries() if wanted.get(entry.status)] if any(wanted.values()) else []
    going = {entry.signature for entry in entries}
    freed = number = 0
    for entry in entries:
        count = _run_bytes(place, entry.signature)
        if dry_run or place.remove_if(entry.signature, entry.status):
            freed, number = freed + count, number + 1
            click.echo(f"{description(entry)}, {size_text(count)}")
    for path in place.garbage():
        if going.isdisjoint(path.parts):
            count = disk_bytes(path)
            if dry_run or place.discard(path):
                freed, number = freed + count, number + 1
                click.echo(f"{path}, {size_text(count)}")
    if number:
        click.echo(f"{'would remove' if dry_run else 'removed'} {plural(number, 'item')}, {size_text(freed)}")
    else:
        click.echo("nothing to remove")


def _run_bytes(store: Store, signature: str) -> int:
    return sum(map(disk_bytes, store.folders(signature)))
