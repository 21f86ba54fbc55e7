"""`StudySpec`: what is asked for; `plan` turns it into the runs that answer it. Needs no torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from roadmap.checks import (
    RoadmapError,
    check_bool,
    check_choice,
    check_int,
    check_known,
    check_number,
    check_text,
    keep_plain,
    said,
)
from roadmap.cost.matching import MATCHED_BY, MATCHED_COSTS
from roadmap.data import HUB, LOADINGS, check_data
from roadmap.data.known import data_sets
from roadmap.files import read_yaml
from roadmap.network.design import STEM_STRIDES
from roadmap.network.layers import load_plugins
from roadmap.questions import asked_question, owners_of, question_settings, questions
from roadmap.questions.question import Plan, Question
from roadmap.recipes.recipe import SETTINGS, load_recipe
from roadmap.rungs import REGIMES, ladder
from roadmap.settings import from_yaml, setting
from roadmap.study.engines import ENGINES
from roadmap.study.loggers import LOGGERS
from roadmap.study.networks import plan_networks
from roadmap.study.seeds import (
    check_growth,
    check_seeds,
    first_seeds,
    parse_seeds,
    parse_seeds_for,
    seeds_by_network,
    usual_seeds,
)
from roadmap.training.spec import PRECISIONS, Execution

#: Argument of `open_data` -> the setting of a study that it is.
OPENED = {
    "name": "data", "directory": "data_dir", "image_size": "image_size", "download": "download", "loading": "loading",
    "skip_corrupt": "skip_corrupt",
}  # fmt: skip

#: A setting that the help shows in this part.
_networks, _ablation, _data, _training, _machine = (
    partial(setting, part=part) for part in ("networks", "ablation", "data", "training", "machine")
)


@dataclass(frozen=True)
class StudySpec:
    """Which rungs are trained, on what, how. Every field is a key of a study's YAML file and an option of
    ``roadmap run``; a name that ends in an underscore is written without it there.

    Raises `RoadmapError` with one sentence for a value that cannot be.
    """

    name: str | None = _networks("name of the study and of its folder in results [default: from its steps and data]",
                                 metavar="NAME")  # fmt: skip
    regime: str = _networks("the paper's ladder: from ResNet-50 to ConvNeXt-T, or from ResNet-200", "resnet50",
                            choices=tuple(REGIMES))  # fmt: skip
    from_: str | None = _networks("first rung to train [default: the start]", metavar="STEP")
    upto: str | None = _networks("last rung to train [default: the end]", metavar="STEP")
    only: tuple[str, ...] = _networks("train these rungs only (repeat, or separate by commas)", (), metavar="STEP",
                                      many=True)  # fmt: skip
    roads: bool = _networks("also train the roads not taken: kernel_5, kernel_9 and kernel_11", False)
    design: str | None = _ablation(
        "ablation design, which says what networks are made of the steps [default: ladder, or what --sweep implies]",
        choices=tuple(questions()),
    )
    steps: tuple[Any, ...] = _ablation(
        "steps to study, in order: rungs, steps of plug-ins or, in a study's file, your own; the word ladder stands "
        "for all rungs up to --upto [default: ladder]", (), metavar="STEP", many=True,
    )  # fmt: skip
    base: str | None = _ablation(
        "rung that the steps are added to, or that leave-one-out and sweep take them from; or start, or end [default: "
        "start, or where steps are taken away end]", metavar="STEP",
    )  # fmt: skip
    reference: tuple[str, ...] = _networks("timm model to train beside them by the same recipe, such as "
                                           "deit_small_patch16_224", (), metavar="MODEL", many=True)  # fmt: skip
    plugin: tuple[str, ...] = _networks("Python file with your own layers or steps", (), metavar="FILE.py", many=True)
    match: str | None = _ablation("rescale every network to the cost of the study's start: multiply-accumulates, "
                                  "parameters, or measured time of a training step", choices=MATCHED_COSTS)  # fmt: skip
    match_by: str = _ablation("what --match rescales", "width", choices=MATCHED_BY)
    data: str = _data(f"data set: {', '.join(data_sets())}, or {HUB}NAME for one from Hugging Face", "embedded",
                      metavar="NAME")  # fmt: skip
    data_dir: str | None = _data("folder of the data set; for one from Hugging Face, its cache", metavar="PATH")
    download: bool = _data("download the data set to --data-dir if it is not there", False)
    loading: str = _data("keep decoded images in memory, or stream them from disk", "auto", choices=LOADINGS)
    skip_corrupt: bool = _data("decode every image once before the start, and leave out unreadable ones", False)
    image_size: int | None = _data("side of the images in pixels [default: the data set's]", metavar="PIXELS")
    start_from: str | None = _training("train this network further: a run or a weights file; --only names its network "
                                       "if the file does not", metavar="RUN|FILE")  # fmt: skip
    recipe: str | None = _training("training recipe: a name or a .yaml file [default: by size and number of images]",
                                   metavar="RECIPE")  # fmt: skip
    seeds: tuple[int, ...] = _training(
        "number of seeds (3 means 0,1,2), or the seeds (0,4,7) [default: 3, on the embedded set 5]", metavar="N|LIST"
    )
    base_seeds: int | None = _ablation("seeds of the network that all others are compared with [default: those of the "
                                       "others times about the square root of the number of effects]",
                                       metavar="N")  # fmt: skip
    seeds_for: Mapping[str, Any] = _training("seeds of one network, by its name in the plan", (),
                                             metavar="NETWORK=N", many=True)  # fmt: skip
    until_resolved: float | None = _ablation(
        "add seeds until every effect is a gain, a loss, or known to within this many percentage points",
        metavar="POINTS",
    )
    most_seeds: int = _ablation("most seeds of a network with --until-resolved", 12, metavar="N")
    budget: str | None = _ablation(
        "training time after which --until-resolved starts no more runs, such as 6h, 90m or 2d", metavar="TIME"
    )
    matters: float | None = _training("smallest difference in accuracy that matters, in percentage points [default: by "
                                      "the number of test images]", metavar="POINTS")  # fmt: skip
    epochs: int | None = _training("epochs of every run [default: the recipe's]", metavar="N")
    batch_size: int | None = _training(
        "images in a batch [default: the recipe's, fewer on small sets]; the learning rate scales with it", metavar="N"
    )
    lr: float | None = _training("peak learning rate of every run [default: the recipe's]", metavar="RATE")
    width: int | None = _networks("base width of the start in channels (paper: 64) [default: 8 on the embedded set, "
                                  "16 below 128 px or 5000 images, else 64]", metavar="CHANNELS")  # fmt: skip
    depth: float | None = _networks("factor on the number of blocks in every stage [default: 1/3 below 128 px or 5000 "
                                    "images, else 1]", metavar="FACTOR")  # fmt: skip
    stem_stride: int | None = _networks(
        "stride of every stem [default: 2 below 128 px, on the embedded set below 32, else 4]", choices=STEM_STRIDES
    )
    test_every: int | None = _training("epochs between two tests of a run, whose result is that of the last epoch "
                                       "[default: so that testing takes a tenth of the training]",
                                       metavar="N")  # fmt: skip
    precision: str = _training("numerical precision of the training", "32", choices=PRECISIONS)
    device: str = _machine("device: auto, cpu, cuda, cuda:N or mps", "auto", metavar="DEVICE")
    compile: bool = _machine("compile the networks with torch.compile", False)
    deterministic: bool = _machine("give the same bits every time on a GPU, which is slower; a CPU always does", False)
    workers: int | None = _machine("processes that load streamed images [default: one a core, at most 4]", metavar="N")
    threads: int | None = _machine("CPU threads of a run [default: the cores, shared among the jobs]", metavar="N")
    jobs: str = _machine("runs side by side; auto uses the whole machine: a run on every core, and as many on a GPU as "
                         "raise its throughput", "auto", metavar="N|auto")  # fmt: skip
    devices: int = _machine("GPUs (or CPU processes) on each machine that train one run together", 1, metavar="N")
    num_nodes: int = _machine("machines that train one run together, with --engine ray or slurm", 1, metavar="N")
    engine: str = _machine("where to train: on this machine, on a Ray cluster, or in Slurm jobs", "local",
                           choices=ENGINES)  # fmt: skip
    address: str | None = _machine("address of the Ray cluster, such as auto or HOST:6379 [default: start one on this "
                                   "machine]", metavar="ADDRESS")  # fmt: skip
    gpus: float | None = _machine("GPUs of a run on a cluster; 0.5 puts two runs on one [default: 1 for cuda, and for "
                                  "auto where the cluster, or Slurm's partition, has GPUs]", metavar="N")  # fmt: skip
    slurm: str | None = _machine("settings of Slurm jobs, such as partition=gpu,time=600 (minutes)",
                                 metavar="NAME=VALUE,...")  # fmt: skip
    retries: int = _machine("how often to retry a run whose process died or ran out of memory", 2, metavar="N")
    logger: str | None = _machine("Lightning logger for every run, grouped by study", choices=tuple(LOGGERS))
    #: Settings of the recipe, of every run: keys of the YAML file and options beside the others.
    recipe_settings: dict[str, Any] = field(default_factory=dict)
    #: Settings of the question, likewise.
    question_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keep_plain(self)
        object.__setattr__(self, "only", tuple(dict.fromkeys(_names("only", self.only))))
        object.__setattr__(self, "reference", tuple(dict.fromkeys(_names("reference", self.reference))))
        object.__setattr__(self, "steps", _names("steps", self.steps, mappings=True))
        if self.precision == 32 and not isinstance(self.precision, str):  # as YAML reads it
            object.__setattr__(self, "precision", "32")
        object.__setattr__(self, "seeds", parse_seeds(usual_seeds(self) if self.seeds is None else self.seeds))
        object.__setattr__(self, "seeds_for", parse_seeds_for(self.seeds_for))
        check_choice("regime", self.regime, REGIMES)
        check_data(self.data)
        check_choice("loading", self.loading, LOADINGS)
        check_choice("precision", self.precision, PRECISIONS)
        if self.only and (self.from_ or self.upto or self.roads):
            raise RoadmapError(
                "--only names the rungs one by one, --from, --upto and --roads a range: use one or the other"
            )
        if isinstance(self.plugin, str):
            object.__setattr__(self, "plugin", (self.plugin,))
        if not isinstance(self.plugin, (list, tuple)) or not all(isinstance(path, str) for path in self.plugin):
            raise RoadmapError(f"plugin is {said(self.plugin)}, but must be a list of files")
        load_plugins(self.plugin)
        object.__setattr__(self, "plugin", tuple(str(Path(path).expanduser().absolute()) for path in self.plugin))
        self._check_ablation()
        if self.start_from is not None:
            check_text("start_from", self.start_from)
            fields = [one for one in dataclasses.fields(self) if one.metadata.get("part") == "ablation"]
            of_ablation = bool(self.reference or self.question_settings or self.seeds_for) or any(
                getattr(self, one.name) != one.default for one in fields
            )
            if self.from_ or self.upto or self.roads or of_ablation or len(self.only) > 1:
                raise RoadmapError(
                    "a study that starts from trained weights trains one network: leave out --from, --upto, --roads "
                    "and the options of ablations, and name one step at most with --only"
                )
        for name in ("roads", "download", "skip_corrupt", "compile", "deterministic"):
            check_bool(name, getattr(self, name))
        for name, high in (("image_size", 4096), ("epochs", 100_000), ("batch_size", 1_000_000), ("width", 4096)):
            if getattr(self, name) is not None:
                check_int(name.replace("_", " "), getattr(self, name), 4 if name == "width" else 1, high)
        if self.depth is not None:
            check_number("depth", self.depth, 0.01, 16)
        if self.lr is not None:
            check_number("lr", self.lr, 1e-12, 1000)
        if self.base_seeds is not None:
            check_int("base_seeds", self.base_seeds, 1, 10_000)
        if self.matters is not None:
            check_number("matters", self.matters, 0, 100)
        if self.stem_stride is not None:
            check_choice("stem_stride", self.stem_stride, STEM_STRIDES)
        for name in ("name", "from_", "upto", "base", "data_dir", "recipe", "device"):
            if getattr(self, name) is not None:
                check_text(option_name(name), getattr(self, name))
        if self.name is not None and not re.fullmatch(r"[\w.+ -]*\w[\w.+ -]*", self.name):
            raise RoadmapError(
                f"name is {said(self.name)}, but must be a name that a folder can have: letters, digits, spaces and "
                "any of _ . + -"
            )
        if isinstance(self.jobs, int) and not isinstance(self.jobs, bool):  # as YAML reads it
            object.__setattr__(self, "jobs", str(self.jobs))
        if not isinstance(self.jobs, str) or not re.fullmatch(r"auto|[1-9][0-9]{0,3}", self.jobs):
            raise RoadmapError(f"jobs is {said(self.jobs)}, but must be auto or a number from 1 to 9999")
        check_choice("engine", self.engine, ENGINES)
        check_int("retries", self.retries, 0, 1000)
        if self.logger is not None:
            check_choice("logger", self.logger, LOGGERS)
        if self.gpus is not None:
            check_number("gpus", self.gpus, 0, 1024)
        for name, engine in (("address", "ray"), ("slurm", "slurm")):
            if getattr(self, name) is not None:
                check_text(name, getattr(self, name))
                if self.engine != engine:
                    raise RoadmapError(f"--{name} is for --engine {engine}, but the engine is {self.engine}")
        if self.gpus is not None and self.engine == "local":
            raise RoadmapError("--gpus is for --engine ray or slurm; on this machine --jobs says how many share a card")
        if self.num_nodes > 1 and self.engine == "local":
            raise RoadmapError("--num-nodes above 1 needs --engine ray or slurm")
        self.slurm_settings  # noqa: B018  (checks them)
        self.execution  # noqa: B018  (checks device, workers, threads, devices and num_nodes)
        if not self.start_from:
            self.ablation  # noqa: B018  (checks the steps)
            check_seeds(self)
        elif self.only:
            ladder(self.regime)[self.only[0]]

    def _check_ablation(self) -> None:
        """Raise `RoadmapError` for settings of an ablation that cannot be, or that its design has no use for."""
        if self.design is not None:
            check_choice("design", self.design, tuple(questions()))
        question = self.question
        own = {one.name for one in dataclasses.fields(question)}
        for name, value in self.question_settings.items():
            if name not in own and value != question_settings()[name].default:
                raise RoadmapError(_not_for(name, owners_of(name), question.name))
        question.check()
        given = {name: getattr(question, name) for name in self.question_settings if name in own}
        kept = {name: value for name, value in given.items() if value != question_settings()[name].default}
        object.__setattr__(self, "question_settings", kept)
        if self.match is not None:
            check_choice("match", self.match, MATCHED_COSTS)
        check_choice("match_by", self.match_by, MATCHED_BY)
        default = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("steps", "from_", "only", "roads"):
            if getattr(self, name) != default[name] and name not in question.uses:
                owners = [one.name for one in questions().values() if name in one.uses]
                raise RoadmapError(_not_for(name, owners, question.name))
        if self.match_by != "width" and not self.match:
            raise RoadmapError("--match-by says what --match rescales: add --match")
        check_growth(self)
        if self.only and (self.steps or self.base):
            raise RoadmapError("--only names rungs of the whole ladder, --steps steps on --base: use one or the other")
        if self.base and "from_" in question.uses and not self.steps:
            raise RoadmapError("--base is what --steps are added to; for a part of the ladder say --from")

    @property
    def execution(self) -> Execution:
        """Where and how the runs are executed."""
        return Execution(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Execution)})

    @property
    def opened(self) -> dict[str, Any]:
        """How the data set is opened: the arguments of `open_data`."""
        opened = {argument: getattr(self, name) for argument, name in OPENED.items()}
        if self.image_size is None and self.recipe:
            opened["image_size"] = load_recipe(self.recipe).image_size
        return opened

    @property
    def opened_anywhere(self) -> dict[str, Any]:
        """As `opened`, from whatever folder a process works in."""
        directory = self.data_dir and str(Path(self.data_dir).expanduser().absolute())
        return self.opened | {"directory": directory}

    @property
    def slurm_settings(self) -> dict[str, str | int]:
        """The settings of Slurm jobs, by name."""
        pairs = [pair.partition("=") for pair in (self.slurm or "").split(",") if pair.strip()]
        for name, _, value in pairs:
            if not re.fullmatch(r"\w+", name.strip()) or not value.strip():
                raise RoadmapError(f"slurm is '{self.slurm}', but must be like partition=gpu,time=600")
        values = {name.strip(): value.strip() for name, _, value in pairs}
        return {name: int(value) if value.isdigit() else value for name, value in values.items()}

    @cached_property
    def question(self) -> Question:
        """What is asked: the given design, or what the other settings mean. Raises `RoadmapError` for a setting that
        does not exist."""
        check_known("setting of a question", self.question_settings, question_settings())
        kind = asked_question(self.design, self.question_settings)
        own = {one.name for one in dataclasses.fields(kind)}
        return kind(**{name: value for name, value in self.question_settings.items() if name in own})

    @cached_property
    def ablation(self) -> Plan:
        """The networks asked for, each as the steps that make it of the start, and what they answer.

        Raises `RoadmapError` for a step that does not exist, and for steps that contradict each other.
        """
        return plan_networks(self)

    @cached_property
    def seeds_of(self) -> dict[str, tuple[int, ...]]:
        """Network -> its seeds, of every network of the plan; those that it begins with where the study grows. Raises
        `RoadmapError` where ``seeds_for`` names a network that the study does not have."""
        if self.until_resolved is not None:
            return first_seeds(self.ablation, self.seeds, self.reference)
        return seeds_by_network(self.ablation, self.seeds, self.base_seeds, self.seeds_for, self.reference)

    @property
    def title(self) -> str:
        """Name of the study, and of its folder: the given one, or what is trained, on what."""
        if self.name:
            return self.name
        data = re.sub(r"[^\w.+-]+", "-", self.data)  # of names with slashes
        if self.start_from:
            return f"{data}-from-{Path(self.start_from).stem}"
        steps = "+".join(self.only) or self.question.short_title(self.ablation, self.upto)
        steps += f"-by-{self.match}" if self.match else ""
        prefix = "" if self.regime == "resnet50" else f"{self.regime}-"
        return re.sub(r"[^\w.+-]+", "-", steps if self.data == "embedded" and not prefix else f"{prefix}{data}-{steps}")


def _names(what: str, value: Any, mappings: bool = False) -> tuple[Any, ...]:
    """Names in a list or separated by commas; with ``mappings`` there may be these, too."""
    items = [value] if isinstance(value, (str, Mapping)) else value
    if not isinstance(items, (list, tuple)):
        raise RoadmapError(f"{what} is {said(value)}, but must be a list of names")
    found: list[Any] = []
    for item in items:
        if isinstance(item, str):
            found += [name.strip() for name in item.split(",") if name.strip()]
        elif mappings and isinstance(item, Mapping) and all(isinstance(key, str) for key in item):
            found.append(dict(item))
        else:
            raise RoadmapError(f"{what} holds {said(item)}, but must be a list of names{' and own steps' * mappings}")
    if items and not found:
        raise RoadmapError(f"{what} is empty: give at least one name")
    return tuple(found)


def _not_for(name: str, owners: list[str], asked: str) -> str:
    option = option_name(name).replace("_", "-")
    return f"--{option} is for --design {' or '.join(owners)}, but the design is {asked}"


def option_name(name: str) -> str:
    """A field's name as a key of the YAML file."""
    return name.rstrip("_")


def load_spec(path: Path | None = None, **overrides: Any) -> StudySpec:
    """The study in a YAML file, or the default one, with some settings replaced.

    Raises `RoadmapError` for a file that cannot be read and for a setting that does not exist.
    """
    names = {option_name(field.name): field.name for field in dataclasses.fields(StudySpec) if field.metadata}
    known = [*names, *question_settings(), *SETTINGS]
    settings = read_yaml(path) if path else {}
    check_known("setting of a study", settings, known)
    fields = {option_name(field.name): field for field in dataclasses.fields(StudySpec)}
    fields |= question_settings() | SETTINGS
    settings = {name: from_yaml(fields[name], value) for name, value in settings.items()}
    settings |= {option_name(name): value for name, value in overrides.items()}
    check_known("setting of a study", settings, known)
    of_recipe, of_question = (
        {name: value for name, value in settings.items() if name in own} for own in (SETTINGS, question_settings())
    )
    given = {names[name]: value for name, value in settings.items() if name in names}
    return StudySpec(**given, recipe_settings=of_recipe, question_settings=of_question)


def settings_of(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, of study and recipe, that are not as by default, of a `StudySpec` as plain values or of what a
    study.json keeps of it. `load_spec` makes an equal one of them."""
    kept = {}
    fields = {one.name: one for one in dataclasses.fields(StudySpec) if one.metadata} | question_settings()
    for name, field_ in fields.items():
        value, default = asked.get(name), field_.default
        usual = list(default) if isinstance(default, tuple) else default
        if value not in (None, (), [], {}, default, usual):
            kept[option_name(name)] = value
    for part in ("question_settings", "recipe_settings"):
        kept |= dict(asked.get(part) or {})
    return kept


def yaml_text(asked: Mapping[str, Any]) -> str:
    """The YAML file of a study whose study.json says that this was asked: all settings that are not as by default."""
    return yaml.safe_dump(settings_of(asked), sort_keys=False, allow_unicode=True)
