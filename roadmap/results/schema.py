"""The columns of a study's tables: their dtypes, units and meanings, the same with pandas 2 and 3. docs/tables.md shows
them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from roadmap.checks import RoadmapError

#: pandas' own dtype of text: ``object`` in pandas 2, ``str`` in pandas 3.
TEXT = pd.Series([""]).dtype
#: Times of day.
TIME = "datetime64[us, UTC]"


@dataclass(frozen=True)
class Column:
    """A column: its dtype (``text`` stands for `TEXT`), what is in it, and in which unit. ``Int64`` and ``boolean`` are
    those that can be missing; text, numbers and times always can."""

    dtype: str
    meaning: str
    unit: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers."""
        return self.dtype in ("int64", "Int64")

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers with a fraction."""
        return self.dtype == "float64"

    @property
    def is_flag(self) -> bool:
        """Whether it holds true or false."""
        return self.dtype in ("bool", "boolean")


Schema = Mapping[str, Column]

_STEP = Column("text", "name of the rung or network")
_ADOPTED = Column("bool", "false for a road not taken")
_REFERENCE = Column("bool", "whether it is a model that ran in the same race and is no part of the ablation")
_SEED = Column("int64", "of everything random")
_STATUS = Column("text", "`done` or `failed`")
_GMACS = Column(
    "float64",
    "multiply-accumulates of convolution and linear layers, and of attention, for one image of the study's size",
    "1e9",
)
_PARAMS = Column("int64", "parameters")
_ACTIVATIONS = Column("Int64", "elements of the outputs of convolution and linear layers, for one image")
_MATCH_FACTOR = Column(
    "float64", "what its widths or blocks were multiplied by, to bring it to the cost that all share"
)
_DATA_SECONDS = Column("float64", "of them: waiting for batches", "s")
_P = Column(
    "float64",
    "two-sided p-value for a true difference of zero (Student's t, with this standard error and "
    "these degrees of freedom); missing without an interval",
)
_P_ALL = Column(
    "float64",
    "the same for all m effects of the study at once, 1 - (1 - p)^m: below 0.05 where the "
    "interval excludes zero, and only there",
)
_VERDICT = Column(
    "text",
    "from the interval alone: `gain` or `loss` if it excludes zero, `negligible` if it lies within "
    "the smallest difference that matters, otherwise `open`; missing without an interval",
)
_TOP1_MEAN = Column("float64", "mean top1 over seeds", "%")
_TOP1_STD = Column(
    "float64", "sample standard deviation s over seeds, sqrt(sum (x_i - mean)^2 / (n - 1)); missing for one seed", "%"
)
_TOP1_LOW = Column(
    "float64",
    "lower end of the mean's own 95 % interval over seeds, from the moderated variance that "
    "its effects have, and not below 0; that of a single mean, not of all at once",
    "%",
)
_TOP1_HIGH = Column("float64", "its upper end", "%")

#: A row a run: the columns of trajectory.csv.
RUNS: Schema = {
    "regime": Column("text", "the ladder: `resnet50` or `resnet200`"),
    "step": _STEP,
    "adopted": _ADOPTED,
    "seed": _SEED,
    "status": _STATUS,
    "gmacs": _GMACS,
    "params": _PARAMS,
    "activations": _ACTIVATIONS,
    "top1": Column("float64", "accuracy on the test images after the last epoch; missing where the run failed", "%"),
    "top5": Column("float64", "the same, within the first five", "%"),
    "loss": Column("float64", "mean cross-entropy on the test images", "nats"),
    "train_loss": Column("float64", "mean training loss of the last epoch", "nats"),
    "epochs": Column("Int64", "epochs trained; missing where the run ended with an error"),
    "seconds": Column("float64", "of training, without tests", "s"),
    "images_per_second": Column("float64", "speed of training, as it was with whatever ran beside it", "images/s"),
    "data_seconds": _DATA_SECONDS,
    "wall_seconds": Column("float64", "of the whole run, with start and tests", "s"),
    "estimated_seconds": Column(
        "float64", "what was measured before for the whole run; missing where nothing was", "s"
    ),
    "data": Column("text", "name of the data set"),
    "image_size": Column("int64", "side of the images", "px"),
    "width": Column("Int64", "base width of the ladder's start", "channels"),
    "depth": Column("float64", "factor on the blocks"),
    "ablation": Column("text", "the design of the study: `ladder`, `leave-one-out`, ..."),
    "reference": _REFERENCE,
    "steps": Column("text", "names of all steps that are in the network, joined by `+`; missing for a reference"),
    "match": Column("text", "what its cost was matched in and by, such as `gmacs by width`; missing: not at all"),
    "match_factor": _MATCH_FACTOR,
    "stem_stride": Column("Int64", "stride of the stem"),
    "recipe": Column("text", "name of the recipe"),
    "optimizer": Column("text", "of the recipe"),
    "batch_size": Column("Int64", "of the recipe", "images"),
    "lr": Column("float64", "peak learning rate at that batch size"),
    "precision": Column("text", "`32`, `16-mixed` or `bf16-mixed`"),
    "initial": Column("text", "hash of the weights that the training started from; missing: fresh ones"),
    "compile": Column("boolean", "whether torch.compile was used"),
    "device": Column("text", "`cpu`, `cuda` or `mps`"),
    "device_name": Column("text", "name of the processor or graphics card"),
    "devices": Column("Int64", "processes that trained the run together"),
    "threads": Column("Int64", "CPU threads of torch"),
    "platform": Column("text", "operating system"),
    "python": Column("text", "version"),
    "torch": Column("text", "version"),
    "timm": Column("text", "version"),
    "pytorch_lightning": Column("text", "version"),
    "roadmap": Column("text", "version"),
    "started": Column(TIME, "when its last try began"),
    "attempts": Column("Int64", "how many tries it took"),
    "command": Column("text", "what was typed, or the call"),
    "commit": Column("text", "of the git repository that the code is in; missing where there is none"),
    "dirty": Column("boolean", "whether that repository's tree differed from its commit"),
    "source": Column("text", "hash of the package's own files"),
    "signature": Column("text", "the run's name in the store"),
    "reason": Column("text", "why it failed; missing where it is done"),
}

#: A row a network.
STEPS: Schema = {
    "step": _STEP,
    "adopted": _ADOPTED,
    "reference": _REFERENCE,
    "seeds": Column("int64", "n: runs that ended well; no other enters a mean"),
    "failed": Column("int64", "runs that failed"),
    "missing": Column("int64", "of the study's seeds those that there is no run of yet"),
    "gmacs": _GMACS,
    "params": _PARAMS,
    "match_factor": _MATCH_FACTOR,
    "top1_mean": _TOP1_MEAN,
    "top1_std": _TOP1_STD,
    "top1_low": _TOP1_LOW,
    "top1_high": _TOP1_HIGH,
    "against": Column(
        "text",
        "the network that the gain compares with, on a ladder: of those with a result, the one whose steps are the "
        "longest beginning of this one's. So a rung compares with the last adopted one before it, and a road not taken "
        "with what the adopted rung beside it compares with (`kernel_9` is another answer to the question of "
        "`large_kernel`, not an addition to it). Where rungs between are missing from the study, the gain is that of "
        "all their changes together. Missing where no effect of the study is named after this network: see effects",
    ),
    "gain": Column(
        "float64",
        "top1_mean minus that of `against`: the network's row of the table of effects, as are the next five",
        "points",
    ),
    "gain_low": Column(
        "float64", "lower end of its interval; all intervals of the study hold at once with 95 %", "points"
    ),
    "gain_high": Column("float64", "its upper end", "points"),
    "p": _P,
    "p_all": _P_ALL,
    "verdict": _VERDICT,
    "printed_top1": Column("float64", "what the paper prints for a network of just these steps, on ImageNet-1K", "%"),
    "printed_gflops": Column("float64", "the same: multiply-accumulates at 224 px", "1e9"),
}

#: A row a network.
COSTS: Schema = {
    "step": _STEP,
    "adopted": _ADOPTED,
    "reference": _REFERENCE,
    "gmacs": _GMACS,
    "params": _PARAMS,
    "activations": _ACTIVATIONS,
    "match_factor": _MATCH_FACTOR,
    "images_per_second": Column(
        "float64",
        "mean speed of training over the runs that ended well, as it was with whatever ran beside them; `roadmap "
        "bench` measures it undisturbed",
        "images/s",
    ),
    "images_per_second_std": Column("float64", "its sample standard deviation; missing for one run", "images/s"),
    "seconds": Column("float64", "mean training time of a run, without tests", "s"),
    "device_name": Column("text", "name of the processor or graphics card; joined by ` / ` where there were several"),
    "latency": Column("float64", "median time for a batch, where `roadmap bench` measured it", "ms"),
    "latency_p95": Column("float64", "the time that 95 % of the batches take at most, where it was measured", "ms"),
}

#: A row a network that `roadmap bench` measured: the columns of latency.csv.
LATENCIES: Schema = {
    "step": _STEP,
    "latency": Column("float64", "median time that a batch takes to pass through the network in evaluation", "ms"),
    "latency_p95": Column("float64", "the time that 95 % of the batches take at most", "ms"),
    "latency_error": Column("float64", "standard error of the median, from its turns", "ms"),
    "calls": Column("int64", "batches that were timed"),
    "batch_size": Column("int64", "images in a batch"),
    "image_size": Column("int64", "side of the images", "px"),
    "device_name": Column("text", "name of the processor or graphics card"),
    "threads": Column("Int64", "CPU threads; missing: torch's choice"),
    "torch": Column("text", "version"),
    "measured": Column(TIME, "when it was"),
}

#: What is known of every epoch of a run: the columns of its history.csv.
EPOCH: Schema = {
    "epoch": Column("int64", "from 1"),
    "train_loss": Column("float64", "mean over the epoch", "nats"),
    "train_top1": Column("float64", "accuracy on the augmented training images", "%"),
    "test_loss": Column(
        "float64", "mean cross-entropy on the test images; missing where the epoch was not tested", "nats"
    ),
    "test_top1": Column("float64", "accuracy on the test images", "%"),
    "test_top5": Column("float64", "the same, within the first five", "%"),
    "lr_end": Column("float64", "learning rate after the last step"),
    "seconds": Column("float64", "of training", "s"),
    "data_seconds": _DATA_SECONDS,
    "images": Column("Int64", "training images seen"),
}

#: A row a run and epoch; a run that failed has the epochs that it ended.
CURVES: Schema = {
    "step": _STEP,
    "adopted": _ADOPTED,
    "reference": _REFERENCE,
    "seed": _SEED,
    "status": _STATUS,
    **EPOCH,
}

#: A row a step, or an effect of several. What is here after ``params`` is there in the designs that it speaks of.
EFFECTS: Schema = {
    "effect": Column("text", "the step or network; `a × b` for an interaction"),
    "against": Column("text", "the network that it is compared with, where it is the difference of two"),
    "estimate": Column("float64", "a weighted sum of mean accuracies; which, says the question", "points"),
    "std_error": Column(
        "float64",
        "its standard error, from moderated variances; missing where a run failed, since "
        "the runs left are a selection, and where no variance is known",
        "points",
    ),
    "freedom": Column("float64", "its degrees of freedom, by Satterthwaite's formula"),
    "low": Column("float64", "lower end of its interval; all intervals of the study hold at once with 95 %", "points"),
    "high": Column("float64", "its upper end", "points"),
    "p": _P,
    "p_all": _P_ALL,
    "verdict": _VERDICT,
    "apart": Column("text", "those of its networks whose variance is an outlier, which then stands for itself"),
    "seeds": Column("int64", "runs of the network of it that has fewest"),
    "images": Column("bool", "whether the interval holds for new test images, too, and not for new seeds alone"),
    "network": Column("text", "the network that is compared with `against`"),
    "networks": Column("int64", "networks compared"),
    "failed": Column("int64", "runs of those networks that failed"),
    "missing": Column("int64", "runs of those networks that have no result yet"),
    "gmacs": Column("float64", "the same difference in multiply-accumulates for an image", "1e9"),
    "params": Column("float64", "the same difference in parameters"),
    "latency": Column(
        "float64",
        "the same difference in latency, where `roadmap bench` measured the two networks",
        "ms",
    ),
    "points_per_ms": Column(
        "float64", "estimate / latency; missing where the latencies are within three standard errors", "points/ms"
    ),
    "orders": Column("int64", "of order designs: orders that enter"),
    "least": Column(
        "float64",
        "of order designs: the smallest contribution of the step in any of them, as a mean over seeds",
        "points",
    ),
    "greatest": Column("float64", "of order designs: the largest", "points"),
    "spread": Column("float64", "of order designs: standard deviation of the contributions", "points"),
    "noise": Column(
        "float64",
        "of order designs: the spread that seeds alone would give them; where `spread` is well "
        "above it, it matters when the step is added",
        "points",
    ),
    "kind": Column("text", "of factorial designs: `main` or `interaction`"),
    "aliases": Column(
        "text",
        "of factorial designs: effects that this fraction of the networks cannot tell from this "
        "one, such as `+ b × c`; the estimate is that of their sum",
    ),
}

#: A row a test image that a step gains or loses, the surest gains first.
FLIPS: Schema = {
    "image": Column("int64", "its place among the test images, from 0"),
    "name": Column("text", "its name in the data set; missing where that has none or is not at hand"),
    "label": Column("text", "its class; missing where the data set is not at hand"),
    "before": Column("float64", "share of the seeds that get it right without the step", "0 to 1"),
    "after": Column("float64", "share of the seeds that get it right with the step", "0 to 1"),
    "change": Column("float64", "`after` - `before`", "-1 to 1"),
}

#: Every table of a study.
TABLES: Mapping[str, Schema] = {"runs": RUNS, "steps": STEPS, "curves": CURVES, "costs": COSTS, "effects": EFFECTS}


def read_as_text(path: Path, needed: Iterable[str], what: str) -> pd.DataFrame:
    """A table of ``what`` from a file, its values as text: a hash may look like a number, and pandas' own floats may
    miss the last digit. Raises `RoadmapError` where the file cannot be read or lacks a column that is ``needed``."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise RoadmapError(f"{path} cannot be read: {error}") from None
    missing = [name for name in needed if name not in table]
    if missing:
        raise RoadmapError(f"{path} is not a table of {what}: it has no column {missing[0]}")
    return table


def typed(table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """The table with every column of the schema that it has in its dtype; values may be text, as a file holds them.

    Raises `RoadmapError` for a value that is no such thing, and for one that lacks where none can be missing.
    """
    return table.assign(**{name: _typed(table[name], schema[name]) for name in table.columns if name in schema})


def empty(schema: Schema) -> pd.DataFrame:
    """A table without rows."""
    return typed(pd.DataFrame(columns=list(schema)), schema)


def dtype_of(column: Column) -> Any:
    """The dtype as pandas has it."""
    return TEXT if column.dtype == "text" else pd.api.types.pandas_dtype(column.dtype)


def _typed(values: pd.Series, column: Column) -> pd.Series:
    parse, words = _KINDS[column.dtype.lower()]
    parsed = []
    for value, lacks in zip(values, values.isna(), strict=True):
        if lacks and column.dtype in ("int64", "bool"):
            raise RoadmapError(f"the column {values.name} has no value in one of its rows")
        try:
            parsed.append(None if lacks else parse(value))
        except (LookupError, TypeError, ValueError):
            raise RoadmapError(f"the column {values.name} has {value!r}, which is no {words}") from None
    return pd.Series(parsed, values.index, dtype_of(column), name=values.name)


def _flag(value: Any) -> bool:
    return {"true": True, "false": False}[str(value).lower()]


def _whole(value: Any) -> int:
    number = float(value)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _time(value: Any) -> pd.Timestamp:
    return pd.to_datetime(value, utc=True)


_KINDS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "text": (str, "text"),
    "int64": (_whole, "whole number"),
    "float64": (float, "number"),
    "bool": (_flag, "true or false"),
    "boolean": (_flag, "true or false"),
    TIME.lower(): (_time, "time of day"),
}
