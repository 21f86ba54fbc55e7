"""What the networks of a study make of other images than their own: corrupted ones, and other test sets.

Testing a study writes a row a run and test into its folder; each such test is a metric of the study, as are the other
figures of its own test: ``roadmap effects STUDY --metric mce``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from roadmap.checks import RoadmapError, check_known
from roadmap.files import write_text
from roadmap.results.effects import trained_networks
from roadmap.results.foreign import ForeignRuns
from roadmap.results.foreign_study import ForeignStudy
from roadmap.results.schema import SEED, STEP, Column, Schema, read_as_text, typed
from roadmap.results.study import Study

#: The table of tests in a study's folder.
TABLE = "tests.csv"
#: A row a run and test, on other images than its own: the columns of tests.csv.
TESTS: Schema = {
    "signature": Column("text", "the run's name in the store"),
    "step": STEP,
    "seed": SEED,
    "test": Column("text", "`corrupted`, or the name of the data set"),
    "kind": Column("text", "of corruption, such as `gaussian_noise`"),
    "strength": Column("Int64", "of the corruption", "1 to 5"),
    "images": Column("int64", "that were tested"),
    "image_size": Column("int64", "side of the images", "px"),
    "score": Column("float64", "the score on these images", "%"),
}
#: What tests on corrupted images are called.
CORRUPTED = "corrupted"
#: Mean corruption error.
MCE = "mce"


def run_tests(
    study: Study,
    on: str | None = None,
    data: str | None = None,
    kinds: Sequence[str] | None = None,
    strengths: Sequence[int] | None = None,
    images: int | None = None,
    plugin: Sequence[str | os.PathLike[str]] = (),
    **how: Any,
) -> pd.DataFrame:
    """Test every finished run of a study on corrupted images (``on="corrupted"``) or on another data set, and write the
    scores into its folder, in the place of those of an earlier such test. Returns them: `TESTS`.

    ``kinds``, ``strengths``, ``images`` as `roadmap.running.testing.evaluate_corrupted` takes them; ``how``: device,
    threads, workers, batch_size and data_dir. Raises `RoadmapError` where the store is not there, and as the tests do.
    """
    from roadmap.data.corrupted import KINDS, STRENGTHS
    from roadmap.network.layers import load_plugins
    from roadmap.running.testing import evaluate, evaluate_corrupted
    from roadmap.running.trained import find_trained

    if study.store is None:
        raise RoadmapError(f"the store with the weights of {study.path} is not there: only its tables were kept")
    if on and data:
        raise RoadmapError("a study's own test images are corrupted: leave out --data, or --on")
    load_plugins(plugin)
    before = _read_before(study.path)
    done = study.runs[study.runs["status"] == "done"].drop_duplicates("signature").to_dict("records")
    store, name = study.store.folder, on or str(data)
    rows = []
    if on == CORRUPTED:
        trained = [find_trained(run["signature"], store, None, {}) for run in done]
        found = evaluate_corrupted(trained, kinds or KINDS, strengths or STRENGTHS, images, data, **how)
        for run in done:
            for (kind, strength), score in found.scores[run["signature"]].items():
                rows.append(_row(run, name, kind, strength, found.images, found.image_size, score))
    else:
        for run in done:
            result = evaluate(run["signature"], data, store=store, **how)
            score = result.metrics[study.task.metric.key]
            rows.append(_row(run, name, None, None, result.images, result.image_size, score))
    table = typed(pd.DataFrame(rows, columns=list(TESTS)), TESTS)
    kept = table if before is None else pd.concat([before[before["test"] != name], table], ignore_index=True)
    write_text(study.path / TABLE, kept.to_csv(index=False, lineterminator="\n"))
    return table


def _read_before(folder: Path) -> pd.DataFrame | None:
    """The table that is to be replaced; a damaged one is none. Raises `RoadmapError` where none can be written, before
    anything is tested."""
    path = folder / TABLE
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise RoadmapError(f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'permission denied'}")
    try:
        return read_tests(folder)
    except RoadmapError:
        return None


def _row(
    run: Mapping[str, Any], test: str, kind: str | None, strength: int | None, images: int, size: int, score: float
) -> list[Any]:
    return [run["signature"], run["step"], run["seed"], test, kind, strength, images, size, score]


def read_tests(folder: Path) -> pd.DataFrame | None:
    """The tests in a study's folder: `TESTS`; None where there was none. Raises `RoadmapError` for a damaged
    table."""
    path = folder / TABLE
    if not path.is_file():
        return None
    try:
        return typed(read_as_text(path, TESTS, "tests"), TESTS)
    except RoadmapError as error:
        raise RoadmapError(f"{path} is damaged: {error}; roadmap eval {folder} makes it anew") from None


def metrics_of(study: Study) -> list[str]:
    """What effects of a study can be of: the figures of its own test, and its tests on other images."""
    own = [metric.key for metric in study.task.metrics if study.runs[metric.key].notna().any()]
    tests = read_tests(study.path)
    others = [] if tests is None else [*dict.fromkeys(tests["test"])]
    return [*own, *([MCE] if CORRUPTED in others else []), *others]


def with_metric(study: Study, metric: str) -> ForeignStudy:
    """The study with another figure than its score: its effects, figures and verdicts are of that, by the same rule.

    ``mce`` is the mean corruption error of Hendrycks and Dietterich, section 4: over the kinds of corruption the mean
    of a run's errors, summed over the strengths, relative to those of the study's first network; in per cent, less is
    better. ``corrupted`` is the mean score over all corrupted images. Raises `RoadmapError` for an unknown metric, with
    those that there are, and where a run was not tested.
    """
    known = metrics_of(study)
    hint = "" if CORRUPTED in known else f" (roadmap eval {study.path} --on corrupted adds mce and corrupted)"
    try:
        check_known("metric", [metric], known)
    except RoadmapError as error:
        raise RoadmapError(f"{error}{hint}") from None
    own = {one.key: one for one in study.task.metrics}
    if metric in own:
        label, values = own[metric].label, dict(zip(study.runs["signature"], study.runs[metric], strict=True))
    else:
        tests = read_tests(study.path)
        assert tests is not None
        tests = tests[tests["signature"].isin(study.runs["signature"])]
        start = str(study.steps["step"].iloc[0])
        of_start = study.runs[(study.runs["step"] == start) & (study.runs["status"] == "done")]["signature"]
        short = study.task.metric.short
        if metric == MCE:
            label = f"mean corruption error (%, {start}: 100)"
            values = _mean_corruption_errors(tests[tests["test"] == CORRUPTED], start, {*of_start})
        else:
            label = f"{short} on corrupted images (%)" if metric == CORRUPTED else f"{short} on {metric} (%)"
            values = tests[tests["test"] == metric].groupby("signature")["score"].mean().to_dict()
    runs = study.runs.assign(score=study.runs["signature"].map(values))
    untested = runs[(runs["status"] == "done") & runs["score"].isna()]
    for run in untested.to_dict("records"):
        raise RoadmapError(
            f"{run['step']} seed {run['seed']} was not tested for {metric}: roadmap eval {study.path} tests all runs"
        )
    networks = trained_networks(runs, study.missing, None, study.asked)
    facts = study.described
    return ForeignStudy(
        ForeignRuns(study.question, facts, networks, runs, [], study.matters, label, metric == MCE), metric
    )


def _mean_corruption_errors(tests: pd.DataFrame, start: str, runs: Collection[str]) -> dict[str, float]:
    """Signature -> mean corruption error in per cent; ``runs``: signatures of the network ``start``."""
    errors = tests.assign(error=100 - tests["score"]).groupby(["signature", "kind"])["error"].sum()
    of_start = errors[errors.index.get_level_values("signature").isin([*runs])].groupby("kind").mean()
    if of_start.empty:
        raise RoadmapError(f"no run of {start} was tested on corrupted images, so that nothing is relative to it")
    if (of_start == 0).any():
        raise RoadmapError(f"{start} makes no error on {of_start.idxmin()}, so that nothing is relative to it")
    found: dict[str, float] = {}
    for signature, own in errors.groupby("signature"):
        ratios = own.droplevel("signature") / of_start
        found[str(signature)] = math.nan if ratios.isna().any() else 100 * float(ratios.mean())
    return found
