"""`StudySpec`: what is asked for; `plan` turns it into the runs that answer it. Needs no torch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from roadmap.checks import RoadmapError, check_known, keep_plain, said
from roadmap.cost.matching import MATCHED_BY, MATCHED_COSTS
from roadmap.data import LOADINGS
from roadmap.ladders.ladder import REGIMES
from roadmap.network.design import STEM_STRIDES
from roadmap.planning.seeds import FIRST, parse_budget, parse_seeds, parse_seeds_for, usual_seeds
from roadmap.questions import asked_question, owners_of, question_settings, questions
from roadmap.questions.question import Question
from roadmap.recipes.recipe import SETTINGS, load_recipe
from roadmap.settings import Setting, check_settings, setting, settings_in
from roadmap.tasks import data_text, default_task, heads_text, parse_head_settings, task_named, tasks
from roadmap.tasks.task import Task
from roadmap.training.spec import PRECISIONS, Execution

#: Argument of `open_data` -> the setting of a study that it is.
OPENED = {"name": "data", "directory": "data_dir"} | {
    name: name for name in ("image_size", "download", "loading", "skip_corrupt")
}

#: Engine, as ``--engine`` takes it, and logger -> the package that it needs.
ENGINES = {"local": None, "ray": "ray", "slurm": "submitit"}
LOGGERS = {"csv": None, "tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}

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

    name: str | None = _networks(
        "name of the study and of its folder in results [default: from its steps and data]", metavar="NAME"
    )
    regime: str = _networks(
        "the paper's ladder: from ResNet-50 to ConvNeXt-T, or from ResNet-200", "resnet50", choices=tuple(REGIMES)
    )
    from_: str | None = _networks("first rung to train [default: the start]", metavar="STEP")
    upto: str | None = _networks("last rung to train [default: the end]", metavar="STEP")
    only: tuple[str, ...] = _networks(
        "train these rungs only (repeat, or separate by commas)", (), metavar="STEP", repeat=True
    )
    roads: bool = _networks("also train the roads not taken: kernel_5, kernel_9 and kernel_11", False)
    design: str | None = _ablation(
        "question to ask, which decides what networks are made of the steps [default: ladder, or what --sweep implies]",
        choices=tuple(questions()),
    )
    steps: tuple[Any, ...] = _ablation(
        "steps to study, in order: rungs, steps of plug-ins or, in a study's file, your own; the word ladder stands "
        "for all rungs up to --upto [default: ladder]",
        (),
        metavar="STEP",
        repeat=True,
    )
    base: str | None = _ablation(
        "rung to add the steps to, or for leave-one-out and sweep to take them from; start and end stand for the "
        "ladder's [default: start; where steps are taken away, end]",
        metavar="STEP",
    )
    reference: tuple[str, ...] = _networks(
        "model of timm to train beside them with the same recipe, such as deit_small_patch16_224",
        (),
        metavar="MODEL",
        repeat=True,
    )
    plugin: tuple[str, ...] = _networks("Python file with your own layers or steps", (), metavar="FILE.py", repeat=True)
    match: str | None = _ablation(
        "rescale every network to the cost of the study's start: multiply-accumulates, "
        "parameters, or measured time of a training step",
        choices=MATCHED_COSTS,
    )
    match_by: str = _ablation("what --match rescales", "width", choices=MATCHED_BY)
    task: str = _networks("what the networks are trained to do", default_task().name, choices=tuple(tasks()))
    head: str | None = _networks(
        f"head on the backbone, for tasks that have their own: {heads_text()} [default: the task's first]",
        metavar="HEAD",
    )
    head_settings: Mapping[str, Any] = _networks(
        "settings of the head, such as channels=24,norm=none", (), metavar="NAME=VALUE,..."
    )
    data: str = _data(f"data set: {data_text()}", "embedded", metavar="NAME")
    data_dir: str | None = _data("folder of the data set; for one from Hugging Face, its cache", metavar="PATH")
    download: bool = _data("download the data set to --data-dir if it is not there", False)
    loading: str = _data("keep decoded images in memory, or stream them from disk", "auto", choices=LOADINGS)
    skip_corrupt: bool = _data("decode every image once before the start, and leave out unreadable ones", False)
    image_size: int | None = _data(
        "side of the images in pixels [default: the data set's]", metavar="PIXELS", low=1, high=4096
    )
    start_from: str | None = _training(
        "train this network further: a run or a weights file; --only names its network if the file does not. A study's "
        "folder: start each network and seed from its own run there",
        metavar="RUN|FILE|STUDY",
    )
    recipe: str | None = _training(
        "training recipe: a name or a .yaml file [default: by size and number of images]", metavar="RECIPE"
    )
    seeds: tuple[int, ...] = _training(
        "number of seeds (3 means 0,1,2), or the seeds (0,4,7) [default: 3, on the embedded set 5]", metavar="N|LIST"
    )
    base_seeds: int | None = _ablation(
        "seeds of the network that all others are compared with [default: those of the "
        "others times about the square root of the number of effects]",
        metavar="N",
        low=1,
        high=10_000,
    )
    seeds_for: Mapping[str, Any] = _training(
        "seeds of one network, by its name in the plan", (), metavar="NETWORK=N", repeat=True
    )
    until_resolved: float | None = _ablation(
        "add seeds until every effect is a gain, a loss, or known to within this many percentage points",
        metavar="POINTS",
        low=0.001,
        high=100,
    )
    most_seeds: int = _ablation(
        "most seeds of a network with --until-resolved", 12, metavar="N", low=FIRST, high=10_000
    )
    budget: str | None = _ablation(
        "training time after which --until-resolved starts no more runs, such as 6h, 90m or 2d", metavar="TIME"
    )
    matters: float | None = _training(
        "smallest difference in accuracy that matters, in percentage points [default: by the number of test images]",
        metavar="POINTS",
        low=0,
        high=100,
    )
    epochs: int | None = _training("epochs of every run [default: the recipe's]", metavar="N", low=1, high=100_000)
    batch_size: int | None = _training(
        "images in a batch [default: the recipe's, fewer on small sets]; the learning rate scales with it",
        metavar="N",
        low=2,
        high=1_000_000,
    )
    lr: float | None = _training(
        "peak learning rate of every run [default: the recipe's]", metavar="RATE", low=1e-12, high=1000
    )
    width: int | None = _networks(
        "base width of the start in channels (paper: 64) [default: 8 on the embedded set, "
        "16 below 128 px or 5000 images, else 64]",
        metavar="CHANNELS",
        low=4,
        high=4096,
    )
    depth: float | None = _networks(
        "factor on the number of blocks in every stage [default: 1/3 below 128 px or 5000 images, else 1]",
        metavar="FACTOR",
        low=0.01,
        high=16,
    )
    stem_stride: int | None = _networks(
        "stride of every stem [default: 2 below 128 px, on the embedded set below 32, else 4]", choices=STEM_STRIDES
    )
    test_every: int | None = _training(
        "epochs between two tests of a run, whose result is that of the last epoch "
        "[default: so that testing takes a tenth of the training]",
        metavar="N",
    )
    precision: str = _training("numerical precision of the training", "32", choices=PRECISIONS)
    device: str = _machine("device: auto, cpu, cuda, cuda:N or mps", "auto", metavar="DEVICE")
    compile: bool = _machine("compile the networks with torch.compile", False)
    deterministic: bool = _machine("give the same bits every time on a GPU, which is slower; a CPU always does", False)
    workers: int | None = _machine("processes that load streamed images [default: one a core, at most 4]", metavar="N")
    threads: int | None = _machine("CPU threads of a run [default: the cores, shared among the jobs]", metavar="N")
    jobs: str = _machine(
        "runs side by side; auto uses the whole machine: a run on every core, and as many on a GPU as "
        "raise its throughput",
        "auto",
        metavar="N|auto",
    )
    devices: int = _machine("GPUs (or CPU processes) on each machine that train one run together", 1, metavar="N")
    num_nodes: int = _machine("machines that train one run together, with --engine ray or slurm", 1, metavar="N")
    engine: str = _machine(
        "where to train: on this machine, on a Ray cluster, or in Slurm jobs", "local", choices=tuple(ENGINES)
    )
    address: str | None = _machine(
        "address of the Ray cluster, such as auto or HOST:6379 [default: start one on this machine]", metavar="ADDRESS"
    )
    gpus: float | None = _machine(
        "GPUs of a run on a cluster; 0.5 puts two runs on one [default: 1 for cuda, and for "
        "auto where the cluster, or Slurm's partition, has GPUs]",
        metavar="N",
        low=0,
        high=1024,
    )
    slurm: str | None = _machine(
        "settings of Slurm jobs, such as partition=gpu,time=600 (minutes)", metavar="NAME=VALUE,..."
    )
    retries: int = _machine(
        "how often to retry a run whose process died or ran out of memory", 2, metavar="N", low=0, high=1000
    )
    logger: str | None = _machine("Lightning logger for every run, grouped by study", choices=tuple(LOGGERS))
    #: Settings of the recipe, of every run: keys of the YAML file and options beside the others.
    recipe_settings: dict[str, Any] = field(default_factory=dict)
    #: Settings of the question, likewise.
    question_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keep_plain(self)
        for name, parse in PARSED.items():
            object.__setattr__(self, name, parse(getattr(self, name)))
        usual = usual_seeds(self.data, grows=self.until_resolved is not None)
        object.__setattr__(self, "seeds", parse_seeds(usual if self.seeds is None else self.seeds))
        check_settings(self, [name for name in study_settings() if name not in (*PARSED, "seeds", "budget")])
        check_known("setting of a recipe", self.recipe_settings, SETTINGS)
        for name in self.recipe_settings:
            self.recipe_settings[name] = SETTINGS[name].check(self.recipe_settings[name])
        self.asked_task.check_data(self.data)
        self.asked_task.head(self.head, self.head_settings)
        if self.only and (self.from_ or self.upto or self.roads):
            raise RoadmapError(
                "--only names the rungs one by one, --from, --upto and --roads a range: use one or the other"
            )
        self._check_ablation()
        if self.name is not None and not re.fullmatch(r"[\w.+ -]*\w[\w.+ -]*", self.name):
            raise RoadmapError(
                f"name is {said(self.name)}, but must be a name that a folder can have: letters, digits, spaces and "
                "any of _ . + -"
            )
        if not re.fullmatch(r"auto|[1-9][0-9]{0,3}", self.jobs):
            raise RoadmapError(f"jobs is {said(self.jobs)}, but must be auto or a number from 1 to 9999")
        for name, engine in (("address", "ray"), ("slurm", "slurm")):
            if getattr(self, name) is not None and self.engine != engine:
                raise RoadmapError(f"--{name} is for --engine {engine}, but the engine is {self.engine}")
        if self.gpus is not None and self.engine == "local":
            raise RoadmapError("--gpus is for --engine ray or slurm; on this machine --jobs says how many share a card")
        if self.num_nodes > 1 and self.engine == "local":
            raise RoadmapError("--num-nodes above 1 needs --engine ray or slurm")
        self.slurm_settings  # noqa: B018  (checks them)
        self.execution  # noqa: B018  (checks device, workers, threads, devices and num_nodes)

    def check_one_network(self) -> None:
        """Raise `RoadmapError` where this asks for several networks, but starts from the weights of one."""
        ablation = [name for name, one in study_settings().items() if one.part == "ablation"]
        of_ablation = bool(self.reference or self.question_settings or self.seeds_for) or any(
            getattr(self, name) != study_settings()[name].default for name in ablation
        )
        if self.from_ or self.upto or self.roads or of_ablation or len(self.only) > 1:
            raise RoadmapError(
                "a study that starts from trained weights trains one network: leave out --from, --upto, --roads "
                "and the options of ablations, and name one step at most with --only; to start each network from its "
                "own run, name the folder of a study"
            )

    def _check_ablation(self) -> None:
        """Raise `RoadmapError` for settings of an ablation that cannot be, or that its design has no use for."""
        question = self.question
        own = settings_in(type(question))
        for name, value in self.question_settings.items():
            if name not in own and value != question_settings()[name].default:
                raise RoadmapError(_not_for(name, owners_of(name), question.name))
        question.check()
        given = {name: getattr(question, name) for name in self.question_settings if name in own}
        kept = {name: value for name, value in given.items() if value != question_settings()[name].default}
        object.__setattr__(self, "question_settings", kept)
        for name in ("steps", "from_", "only", "roads"):
            if getattr(self, name) != study_settings()[name].default and name not in question.uses:
                owners = [one.name for one in questions().values() if name in one.uses]
                raise RoadmapError(_not_for(name, owners, question.name))
        if self.match_by != "width" and not self.match:
            raise RoadmapError("--match-by says what --match rescales: add --match")
        self._check_growth()
        if self.only and (self.steps or self.base):
            raise RoadmapError("--only names rungs of the whole ladder, --steps steps on --base: use one or the other")
        if self.base and "from_" in question.uses and not self.steps:
            raise RoadmapError("--base is what --steps are added to; for a part of the ladder say --from")

    @property
    def asked_task(self) -> Task:
        """What the networks are trained to do."""
        return task_named(self.task)

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
        return kind(**{name: value for name, value in self.question_settings.items() if name in settings_in(kind)})

    def _check_growth(self) -> None:
        """Raise `RoadmapError` for settings that contradict how a study grows by seeds."""
        if self.budget is not None:
            parse_budget(self.budget)
        if self.until_resolved is None:
            for name in ("most_seeds", "budget"):
                if getattr(self, name) != study_settings()[name].default:
                    raise RoadmapError(f"--{name.replace('_', '-')} is for --until-resolved: add that")
            return
        for name in ("seeds_for", "base_seeds"):
            if getattr(self, name):
                option = name.replace("_", "-")
                raise RoadmapError(f"--until-resolved chooses how many seeds each network gets: leave out --{option}")
        if len(self.seeds) > self.most_seeds:
            raise RoadmapError(f"--seeds are {len(self.seeds)}, but --most-seeds is {self.most_seeds}: raise that")


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
    option = name.rstrip("_").replace("_", "-")
    return f"--{option} is for --design {' or '.join(owners)}, but the design is {asked}"


def _plugins(value: Any) -> tuple[str, ...]:
    """Absolute paths of plug-in files, from one or several."""
    paths = (value,) if isinstance(value, str) else value
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, str) for path in paths):
        raise RoadmapError(f"plugin is {said(value)}, but must be a list of files")
    return tuple(str(Path(path).expanduser().absolute()) for path in paths)


#: Settings that are written in several ways, each with what reads it.
PARSED: dict[str, Callable[[Any], Any]] = {
    "only": lambda value: tuple(dict.fromkeys(_names("only", value))),
    "reference": lambda value: tuple(dict.fromkeys(_names("reference", value))),
    "steps": partial(_names, "steps", mappings=True),
    "plugin": _plugins,
    "seeds_for": parse_seeds_for,
    "head_settings": parse_head_settings,
}


@cache
def study_settings() -> dict[str, Setting]:
    """Name of the field -> setting, of a study's own settings: without those of its question and its recipe."""
    return {name: one for name, one in settings_in(StudySpec).items() if one.help}
