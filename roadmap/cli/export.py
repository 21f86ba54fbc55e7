"""Commands that write for other programs: export and export-weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from roadmap.checks import RoadmapError, check_int
from roadmap.cli.entries import open_store, open_study
from roadmap.cli.group import cli
from roadmap.cli.study import PLUGIN_OPTION, STORE_OPTION
from roadmap.formatting import plural
from roadmap.phases import phase
from roadmap.store.records import Entry, row_of

#: Kinds of table, of runs, and of graph, of one run's network, with the ending of a graph's file.
TABLES = ("csv", "parquet", "md", "latex")
GRAPHS = {"onnx": ".onnx", "torch-export": ".pt2"}


@cli.command()
@click.argument("what", required=False, metavar="[STUDY_FOLDER | RUN]")
@STORE_OPTION
@click.option(
    "--to",
    "kind",
    type=click.Choice([*TABLES, *GRAPHS]),
    default="csv",
    show_default=True,
    help="Format: of a table of runs, or of a run's network.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File to write [default: print the table; RUN.onnx or RUN.pt2].",
)
@click.option("--all-columns", is_flag=True, help="Write every column in md and latex, too.")
@click.option("--image-size", type=int, metavar="N", help="Side of a network's images in pixels [default: as trained].")
@PLUGIN_OPTION
def export(
    what: str | None,
    store: Path | None,
    kind: str,
    out: Path | None,
    all_columns: bool,
    image_size: int | None,
    plugin: tuple[str, ...],
) -> None:
    """Export runs as a table, or the trained network of one run.

    csv and parquet have a column for everything that is known of a run, of the store or of one study, with all digits;
    md (Markdown) and latex have selected columns, rounded, for a page. parquet, md and latex need the packages of `pip
    install 'roadmap-ablation[export]'`.

    onnx and torch-export record the network of a run, or of a weights file, as a graph for any number of images, which
    runs without roadmap. It is compared with the network before it is kept. onnx needs the packages of `pip install
    'roadmap-ablation[onnx]'`.

    \b
    roadmap export --to parquet --out runs.parquet
    roadmap export results/resnet50-to-gelu --to latex
    roadmap export 3f2a --to onnx
    """
    if kind in GRAPHS:
        if all_columns:
            raise RoadmapError(f"--all-columns is for a table: leave it out for {kind}")
        if what is None:
            raise RoadmapError(f"{kind} is of one network: name its run, as roadmap list shows it, or its weights file")
        _export_network(what, store, kind, out, image_size, plugin)
        return
    if image_size is not None or plugin:
        raise RoadmapError(f"--{'plugin' if plugin else 'image-size'} is for a network: leave it out for {kind}")
    _export_table(None if what is None else Path(what), store, kind, out, all_columns)


def _export_network(
    run: str, store: Path | None, kind: str, out: Path | None, image_size: int | None, plugin: tuple[str, ...]
) -> None:
    with phase("reading the weights"):
        from roadmap.exporting.graph import save_graph
        from roadmap.running.trained import load

        network: Any = load(run, store, plugin)
    own = network.description.image_size or 224
    size = own if image_size is None else check_int("image size", image_size, 1, 4096)
    network.description.design.feature_sizes(size)
    path = out or Path(f"{Path(run).stem}{GRAPHS[kind]}")
    with phase("recording the network and comparing it"):
        graph = save_graph(network, kind, path, size)
    click.echo(
        f"{graph.path}: any number of images of {size} px; outputs differ from the network's by at most "
        f"{graph.difference:.1e} of the largest"
    )


def _export_table(study: Path | None, store: Path | None, kind: str, out: Path | None, all_columns: bool) -> None:
    with phase("reading the runs"):
        from roadmap.results.export import export as export_table

    entries: Iterable[tuple[Entry | None, dict[str, Any]]]
    if study is None:
        entries = ((entry, {}) for entry in open_store(store).entries())
    else:
        runs, place = open_study(study)
        # The labels are the study's: another one may have asked for the same training by another name.
        entries = ((place.entry(run["signature"]), run) for run in runs)
    rows, left_out = [], 0
    with phase("reading the runs"):
        for entry, labels in entries:
            if entry is None or entry.status in ("running", "interrupted"):
                continue
            if entry.record is None:
                left_out += 1
            else:
                rows.append(row_of(entry.record | {"run": entry.record["run"] | labels}))
        table = export_table(rows, kind, out, all_columns)
    click.echo(table, nl=False)
    if out is not None:
        click.echo(f"{out}: {plural(len(rows), 'run')}")
    if left_out:
        click.echo(f"left out: {plural(left_out, 'run')} that cannot be read; see roadmap status", err=True)


@cli.command("export-weights")
@click.argument("run", metavar="RUN")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@STORE_OPTION
@click.option("--study", type=click.Path(path_type=Path), metavar="FOLDER", help="Study to quote on the model card.")
@PLUGIN_OPTION
def export_weights(run: str, folder: Path, store: Path | None, study: Path | None, plugin: tuple[str, ...]) -> None:
    """Write a trained network as a folder that timm and the Hugging Face hub open.

    FOLDER gets config.json, model.safetensors and a model card with what is known of the run. A network that timm has
    (both ends of the ladder, at any size) is written as timm's own, which needs no roadmap; any other as roadmap_STEP,
    which `import roadmap.timm` registers. RUN is a run of the store, or a weights file that roadmap wrote.

    \b
    roadmap export-weights 3f2a exported
    python -c "import timm; timm.create_model('local-dir:exported', pretrained=True)"
    """
    with phase("reading the weights"):
        from roadmap.exporting.hub import save_for_timm
        from roadmap.network.layers import load_plugins
        from roadmap.results.study import load_study

        load_plugins(plugin)
        quoted = None if study is None else load_study(study)
    with phase("writing the network and comparing it"):
        saved = save_for_timm(run, folder, store, quoted)
    click.echo(
        f"{saved.folder}: timm's model {saved.architecture}; outputs differ from the network's by at most "
        f"{saved.difference:.1e} of the largest"
    )
