"""Studies: one run's specification, the grid of runs that a TOML file describes, their keys and their state on disk.

Imports neither torch nor pandas: `aunce status` and the Snakefile read this module alone. What a run has reached is
read from its folder, never from memory: `metrics.json` alone says *done*.
"""

import contextlib
import difflib
import hashlib
import itertools
import json
import os
import re
import time
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aunce.data import DATASETS, dials, is_pack
from aunce.data.recipes import Recipe
from aunce.errors import DataError, UsageError

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = PROJECT / "notebooks"
REPORTS = Path(os.environ.get("AUNCE_REPORTS") or PROJECT / "reports")

SUPERVISED = ("bce", "bce_pos_weight", "bce_au_weight", "focal", "asymmetric", "label_smoothing")
CONTRASTIVE = ("infonce", "supcon", "aunce")
FLOORS = (
    "pixels",
    "random",
    "shuffled",
)  # what a method must beat: raw pixels, an untrained encoder, BCE on shuffled labels
CEILING = ("latent",)  # a probe on the intensities that the faces were drawn from


class StrictModel(BaseModel):
    """Exact types, no unknown names, no infinities: a typing slip is refused before a kernel starts."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def checked(cls, values: Mapping[str, Any], where: str) -> Self:
        """Build from `values`; `where` names the place in the error.

        Raises:
            UsageError: a name is unknown or missing, a type or a range is wrong; all of them in one message.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            problems = [cls._problem(detail) for detail in error.errors()]
            raise UsageError(f"{where}: " + "; ".join(problems)) from None

    @classmethod
    def _problem(cls, detail: Any) -> str:
        name = ".".join(str(part) for part in detail["loc"])
        if not name:  # a rule about several fields
            return str(detail["msg"]).removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, cls.model_fields, n=1)
            hint = f", did you mean '{close[0]}'?" if close else ""
            return f"unknown name '{name}'{hint} Valid names: {', '.join(cls.model_fields)}"
        if detail["type"] == "missing":
            return f"'{name}' is missing"
        value = detail["input"]
        hint = " (a number in quotes is text: write it without quotes)" if _is_number(value) else ""
        if detail["type"] == "string_type" and isinstance(value, int | float):
            hint = f""" (a text: write '"{value}"', after --set with both kinds of quotes)"""
        return f"'{name}' = {value!r}: {detail['msg'][0].lower() + detail['msg'][1:]}{hint}"


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


class RunSpec(StrictModel):
    """One training run. The defaults are the committed notebook's smoke setting: tiny, rendered, seconds on a CPU."""

    dataset: Literal[tuple(DATASETS)] = Field("bp4d", description="data set whose layout root has")  # type: ignore[valid-type]
    root: str = Field("", description="folder of the data set or a pack made from it, empty renders a tiny one")
    test_dataset: Literal[("", *DATASETS)] = Field(  # type: ignore[valid-type]
        "", description="another data set to test on, by the AUs of both; its frames are part test"
    )
    test_root: str = Field("", description="folder or pack of test_dataset, empty renders a tiny one")
    out: str = Field("", description="folder for the results, empty keeps them in a temporary folder")
    protocol: str = Field("", description="a protocol of the data set by name, empty takes its first")
    pixels: int = Field(48, ge=16, le=512, description="side of the square crops in pixels")
    align: Literal["none", "landmarks", "detector"] = Field("none", description="how faces are brought to one place")
    detector: str = Field("cascade", description="face detector of align detector, or the path of a YuNet file")
    crop: int = Field(0, ge=0, le=512, description="side of fixed crops for views as released, 0 resizes a random part")
    test_part: str = Field("3", description="part whose subjects are held out for the test")
    replicate: int = Field(0, ge=0, description="seed of split, annotator noise, initialisation and views")
    noise_kind: Literal["none", "miss", "jitter", "confuse", "shift", "flip"] = Field(
        "none", description="annotator noise on the training labels"
    )
    noise_rate: float = Field(0.0, ge=0, lt=1, description="share of events or frames that the noise touches")
    noise_keeps_rates: bool = Field(True, description="what the noise takes from an AU it gives back elsewhere")
    method: Literal[SUPERVISED + CONTRASTIVE + FLOORS + CEILING] = Field(  # type: ignore[valid-type]
        "aunce", description="what trains the encoder"
    )
    preset: Literal["released", "early", "as_read", "hcl"] = Field("released", description="reading of the AUNCE loss")
    temperature: float = Field(0.5, gt=0, description="temperature of the contrastive losses")
    exponents: list[float] = Field([], description="of absent and present anchors in AUNCE, empty takes the preset's")
    rarer_label: bool = Field(False, description="the second exponent goes with an AU's rarer label, not with present")
    weights: Literal["", "attached", "detached", "normalised"] = Field(
        "", description="how negatives are weighted in AUNCE, empty takes the preset's"
    )
    positive: Literal["", "sampled", "expected", "max", "mean", "view"] = Field(
        "", description="kind of positive of AUNCE, empty takes the preset's"
    )
    positive_probs: list[float] = Field([], description="shares of max, mean and view, empty takes the preset's")
    exclude: Literal["", "none", "self", "image"] = Field(
        "", description="what is no positive for max and mean, empty takes the preset's"
    )
    positive_mean: Literal["", "row", "positives"] = Field(
        "", description="divisor of the mean over positives, empty takes the preset's"
    )
    draw: Literal["", "au", "anchor"] = Field(
        "", description="for what a kind of positive is drawn, empty takes the preset's"
    )
    au_weighted: bool = Field(False, description="weigh AUs by one over their rate, as preset early always does")
    backbone: str = Field("small", description="bundled configuration, local folder or hub name")
    revision: str = Field("", description="pinned revision of a hub backbone")
    pretext: bool = Field(False, description="take the backbone of the study's pretext, a training without labels")
    start: str = Field("", description="weights that the pretext left, needed by pretext")
    channels: int = Field(64, ge=1, description="channels of the features of one AU")
    final_relu: bool = Field(True, description="ReLU after the graph layer as released, so that no cosine is negative")
    epochs: int = Field(2, ge=1, description="training epochs")
    batch_size: int = Field(32, ge=2, description="images a step, each seen in two views")
    sampler: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="every frame once an epoch, or drawn by the rarest AU that it shows"
    )
    learning_rate: float = Field(2e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay of AdamW")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="learning rate after the warm-up; constant has no warm-up, as released"
    )
    two_forwards: bool = Field(False, description="one forward pass per view as released, BatchNorm per view")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="precision of the network's forward pass")
    compiled: bool = Field(False, description="compile the network first, for a GPU")
    checks: int = Field(2, ge=1, description="how often inner validation is scored during training")
    probe_epochs: int = Field(20, ge=1, description="epochs of the linear probe")
    probe_learning_rate: float = Field(1e-2, gt=0, description="learning rate of the linear probe")
    moving_probe: bool = Field(False, description="score the probe as released, too: on a network in training mode")
    threads: int = Field(1, ge=1, description="CPU threads of the run")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    smoke: bool = Field(True, description="tiny setting that reports refuse")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, length in (("exponents", 2), ("positive_probs", 3)):
            if len(getattr(self, name)) not in (0, length):
                raise ValueError(f"{name} needs {length} numbers, or none for the preset's")
        if self.crop > self.pixels:
            raise ValueError(f"crop = {self.crop} does not fit into pixels = {self.pixels}; make pixels larger")
        if self.switches and self.method != "aunce":
            raise ValueError(f"{', '.join(self.switches)}: only method 'aunce' has them")
        return self

    @property
    def switches(self) -> dict[str, Any]:
        """The settings of the AUNCE loss that differ from its preset's, by the names of the fields."""
        return {name: value for name in SWITCHES if (value := getattr(self, name))}

    @property
    def trains(self) -> bool:
        """False for the methods that take seconds: features that nothing has learned."""
        return self.method not in ("pixels", "random", "latent")

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """Check the values that a notebook's cells have set so far, those injected by papermill included.

        Args:
            namespace: `globals()` of the notebook.

        Raises:
            UsageError: an unknown, missing or mistyped parameter.
        """
        values = {name: value for name, value in namespace.items() if _is_parameter(name, value)}
        missing = [name for name in cls.model_fields if name not in values]
        if missing:
            raise UsageError(
                f"notebook parameters: missing {', '.join(missing)}; run the cell tagged 'parameters' first"
            )
        return cls.checked(values, "notebook parameters")


def _is_parameter(name: str, value: object) -> bool:
    jupyter = {"In", "Out", "get_ipython", "exit", "quit"}
    return not (name.startswith("_") or name in jupyter or callable(value) or isinstance(value, types.ModuleType))


SWITCHES = (
    "exponents",
    "rarer_label",
    "weights",
    "positive",
    "positive_probs",
    "exclude",
    "positive_mean",
    "draw",
    "au_weighted",
)
"""Fields of a RunSpec that change the AUNCE loss of a preset."""

NOT_IN_KEY = {"root", "test_root", "detector", "start", "out", "compiled", "threads", "device", "smoke"}
"""Fields of a RunSpec that change where or how fast a run is computed, but not its numbers, or that the name of the
data or the key of the pretext stands for."""


OF_PRETEXT = (
    "pixels",
    "backbone",
    "revision",
    "channels",
    "final_relu",
    "batch_size",
    "precision",
    "compiled",
    "threads",
    "device",
)
"""Fields that a pretext has in common with the runs that start from it."""

AGAIN = 10_000
"""What the size "again" adds to every replicate."""

REPEAT = 1_000
"""What lies between replicates of the GPU size that share their conditions."""

WEIGHTS = "encoder.safetensors"  # of the trained encoder, in the folder of its run
BACKBONE = "backbone"  # the entry of that file for the configuration of the backbone, as JSON
PROBE = "probe.safetensors"  # of the linear probe on its features


class DataSpec(StrictModel):
    """What a study trains on: faces to render (one population a replicate), or the folder of a real data set."""

    dataset: Literal[tuple(DATASETS)] = "bp4d"  # type: ignore[valid-type]
    root: str = Field("", description="folder of the real data set, or a pack made from it; empty: render")
    test_root: str = Field("", description="folder of the real data set that runs name as test_dataset; empty: render")
    setting: Literal["easy", "hard"] = "easy"
    subjects: int | None = Field(None, ge=6, description="subjects to render; default: all of the data set")
    frames: int = Field(10, ge=2, description="frames per sequence, spread over its published ones")
    test_frames: int | None = Field(None, ge=2, description="those of a rendered test_dataset; default: as frames")
    size: int = Field(64, ge=32, le=512, description="side of the rendered frames in pixels")
    rates: Literal["own", "dealt"] = Field(
        "own", description="how often AUs are rendered: as in the data set, or from half to 2 %, dealt by chance"
    )


class StudyHead(StrictModel):
    """The `[study]` table."""

    title: str
    question: str
    notebook: str = Field("train", pattern="^[A-Za-z0-9_]+$")  # names, never paths that lead elsewhere
    report: str = Field(pattern="^[A-Za-z0-9_]+$")
    seconds_per_run: float = Field(60.0, gt=0, description="first guess for --dry-run, until runs of its own are done")
    limit_minutes: float | None = Field(None, gt=0, description="a run that takes longer is ended and tried once more")


class StudyFile(StrictModel):
    """A whole study file. An axis lists values for the field of its name, or is a table of named bundles of fields.

    `pretext` are fields of one more run for each population, whose backbone the runs with `pretext = true` start from.
    A `tuned` rule gives fields to the points of the grid that its table `where` names, by axes or by fields of theirs:
    what was tuned for an arm may depend on the noise. A later rule goes over an earlier one.

    `gpu` are fields that make the study as large as a CUDA GPU can do, in place of those of data and base. Of
    `gpu.axes` a list takes the place of the axis of its name, and a table adds its bundles to it; `gpu.repeat` is how
    many replicates it has for each of the smaller one, whose conditions they share.
    """

    study: StudyHead
    data: DataSpec = DataSpec()
    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any] | dict[str, dict[str, Any]]]
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    tuned: list[dict[str, Any]] = Field(default_factory=list)
    pretext: dict[str, Any] = Field(default_factory=dict)
    gpu: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """One data set of a study, as crops: rendered with `seed`, or the real one at `root`.

    Attributes:
        dataset: its name.
        root: folder of the real data set, or a pack made from it; empty: render.
        render: setting, subjects, frames, size and rates of rendered faces.
        seed: of the rendered population.
        protocol: by name; empty takes the data set's first.
        crops: size, align and detector of the `recipes.Recipe`.
    """

    dataset: str
    root: str
    render: Mapping[str, Any]
    seed: int
    protocol: str
    crops: Mapping[str, Any]

    @cached_property
    def name(self) -> str:
        """Readable name with 8 hex digits over everything that the crops depend on."""
        if self.root:
            return f"{self.dataset}-{self._digest}"
        return f"{self.dataset}-{self.render['setting']}-{self.seed}-{self._digest}"

    @cached_property
    def _digest(self) -> str:
        from aunce.data import fingerprint

        crops = [Recipe(**self.crops).hash, *([self.protocol] if self.protocol else [])]
        if self.root:
            return digest([self.dataset, fingerprint(self.dataset, self.root), *crops])
        turned = _dials(self.dataset, self.render["setting"])
        return digest([{"dataset": self.dataset, **self.render}, self.seed, turned, dials.VERSION, *crops])


@cache
def _dials(dataset: str, setting: str) -> dict[str, Any]:
    return asdict(dials.dials_of(dataset, setting))


@dataclass(frozen=True)
class Run:
    """One run of a study: its key, specification, data (to train on, then to test on if another), labels and folder.

    `start` is the run whose backbone it takes, if any.
    """

    key: str
    spec: RunSpec
    data: tuple[Data, ...]
    labels: Mapping[str, str]
    folder: Path
    start: "Run | None" = None

    @property
    def state(self) -> Literal["done", "failed", "running", "to do"]:
        """Read from the folder: `metrics.json` says done, a held lock running, `error.json` failed."""
        if (self.folder / "metrics.json").is_file():
            return "done"
        if self.locked:
            return "running"
        return "failed" if (self.folder / "error.json").is_file() else "to do"

    @property
    def lock(self) -> FileLock:
        """The lock that whoever executes this run holds; it falls with its holder's process."""
        return FileLock(self.folder / ".lock")

    @property
    def locked(self) -> bool:
        """True while another process executes this run."""
        if not (self.folder / ".lock").exists():
            return False
        try:
            with self.lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def read(self, name: str) -> dict[str, Any]:
        """The JSON file `name` of this run (`metrics.json`, `error.json`); empty if it is not there."""
        path = self.folder / name
        return dict(json.loads(path.read_text())) if path.is_file() else {}


def first_process() -> bool:
    """Whether this process writes what a run leaves: the only one, or the first of those that torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


class Study:
    """A study file, read and checked as a whole.

    Args:
        path: the TOML file.
        overrides: fields of `RunSpec` and `DataSpec` that take the place of the file's in every run, such as the root
            of a real data set.
        size: "cpu"; "gpu" for the larger one that the file's `gpu` table makes of it; or "again" for the same study on
            other replicates, people of a pretext included.

    Raises:
        UsageError: the file is no TOML, holds an unknown or mistyped name, or has no `gpu` table where that size is
            asked for; an axis has no values; two points of the grid are the same run.
    """

    def __init__(self, path: Path, overrides: Mapping[str, Any] | None = None, *, size: str = "cpu") -> None:
        if path.stem in (".", ".."):
            raise UsageError(f"{path}: its name would be that of a folder; rename it")
        self.path = path
        self.overrides = dict(overrides or {})
        self.name = path.stem if size == "cpu" else f"{path.stem}-{size}"
        self.reference = str(path) if size == "cpu" else f"{path}:{size}"
        self.again = size == "again"
        self._refused: list[tuple[Mapping[str, str], DataError]] = []
        text = path.read_bytes()
        self.hash = hashlib.sha256(text).hexdigest()[:8]
        try:
            content = tomllib.loads(text.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: not a TOML file: {error}") from None
        self.file = self._sized(StudyFile.checked(content, str(path)), size)
        for name in (self.file.study.notebook, self.file.study.report):
            if not (NOTEBOOKS / f"{name}.ipynb").is_file():
                raise UsageError(
                    f"{path}: [study] names the notebook '{name}', but {NOTEBOOKS / name}.ipynb does not exist"
                )

    def _sized(self, file: StudyFile, size: str) -> StudyFile:
        if size == "cpu":
            return file
        if size == "again":
            return file.model_copy(
                update={"study": file.study.model_copy(update={"title": f"{file.study.title}, again"})}
            )
        if size != "gpu" or not file.gpu:
            raise UsageError(f"{self.path}: no size '{size}'; sizes: cpu, again{', gpu' if file.gpu else ''}")
        axes = dict(file.gpu.get("axes", {}))
        fields = {name: value for name, value in file.gpu.items() if name not in ("axes", "repeat")}
        if "repeat" in file.gpu:
            axes["replicate"] = self._repeated(file, file.gpu["repeat"])
        if unknown := set(axes) - set(file.axes):
            raise UsageError(
                f"{self.path}: [gpu.axes] names {', '.join(sorted(unknown))}; the axes are {', '.join(file.axes)}"
            )
        for name, values in axes.items():
            if isinstance(values, dict) and isinstance(of_cpu := file.axes[name], dict):
                axes[name] = of_cpu | values
        head = file.study.model_copy(update={"title": f"{file.study.title}, GPU size"})
        whole = file.model_dump() | {"study": head.model_dump(), "base": file.base | fields, "axes": file.axes | axes}
        return StudyFile.checked(whole, f"{self.path} [gpu]")

    def _repeated(self, file: StudyFile, times: object) -> dict[str, dict[str, Any]]:
        rows = file.axes.get("replicate")
        if not isinstance(times, int) or not 1 <= times * REPEAT <= AGAIN or not isinstance(rows, dict):
            raise UsageError(
                f"{self.path}: [gpu] repeat is a number from 1 to {AGAIN // REPEAT}, and takes a table [axes.replicate]"
            )
        return {
            str(at): row | {"replicate": at}
            for turn in range(times)
            for row in rows.values()
            for at in [row["replicate"] + turn * REPEAT]
        }

    @property
    def title(self) -> str:
        """Heading of the report; it names the size, unless that is the file's own."""
        return self.file.study.title

    @property
    def question(self) -> str:
        """What the study asks, in one sentence of its file."""
        return self.file.study.question

    @property
    def report(self) -> str:
        """Name of the notebook that draws the report, without folder and ending."""
        return self.file.study.report

    @property
    def folder(self) -> Path:
        """Where the report stands; `runs/` below it holds the runs."""
        return REPORTS / self.name

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of the grid, in the order of the file, the last axis fastest.

        A folder of one's own is that of one data set; points of the grid with another one are left out here, and
        `select` refuses them unless it is asked for others only.

        Raises:
            DataError: no point goes with the folder.
            UsageError: `exclude` leaves no point, or two are the same run.
        """
        runs = []
        for point in self._points():
            try:
                runs.append(self._run(point))
            except DataError as error:
                self._refused.append(({axis: label for axis, (label, _) in point.items()}, error))
        if self._refused and not runs:
            raise self._refused[0][1]
        if not runs:
            raise UsageError(f"{self.path}: [[exclude]] leaves no run of the grid")
        seen: dict[str, Run] = {}
        for run in runs:
            identity = run.key[-8:]
            if identity in seen:
                first, second = dict(seen[identity].labels), dict(run.labels)
                raise UsageError(
                    f"{self.path}: {first} and {second} are the same run; each point of the grid must differ"
                )
            seen[identity] = run
        people = {run.start.spec.replicate for run in runs if run.start}
        if shared := people & {run.spec.replicate for run in runs}:
            raise UsageError(
                f"{self.path}: [pretext] has the replicate {shared.pop()}, which is one of the grid; give it another, "
                "so that no one who is tested on served the pretext"
            )
        return runs

    @cached_property
    def pretexts(self) -> list[Run]:
        """The runs that others start from; they are no points of the grid."""
        return list({run.start.key: run.start for run in self.runs if run.start}.values())

    def run(self, key: str) -> Run:
        """The run with this key, one of the grid or a pretext.

        Raises:
            UsageError: there is none.
        """
        for run in [*self.runs, *self.pretexts]:
            if run.key == key:
                return run
        close = difflib.get_close_matches(key, [run.key for run in self.runs], n=3)
        raise UsageError(f"study '{self.name}' has no run '{key}'" + (f"; close: {', '.join(close)}" if close else ""))

    def select(self, only: Sequence[str]) -> list[Run]:
        """The runs that match every `AXIS=VALUE` of `only`; several values of one axis are alternatives.

        Raises:
            UsageError: no such axis or value, with those there are; or all that match are excluded.
            DataError: a run that is wanted does not go with the folder of its data.
        """
        wanted: dict[str, set[str]] = {}
        for condition in only:
            axis, equals, value = condition.partition("=")
            if not equals or axis not in self.file.axes:
                raise UsageError(
                    f"--only {condition}: expected AXIS=VALUE with AXIS one of {', '.join(self.file.axes)}"
                )
            values = [label for label, _ in self._values(axis)]
            if value not in values:
                raise UsageError(f"--only {condition}: axis '{axis}' has the values {', '.join(values)}")
            wanted.setdefault(axis, set()).add(value)

        def is_wanted(labels: Mapping[str, str]) -> bool:
            return all(labels[axis] in values for axis, values in wanted.items())

        runs = [run for run in self.runs if is_wanted(run.labels)]
        for labels, error in self._refused:
            if is_wanted(labels):
                raise error
        if not runs:
            raise UsageError(f"--only {' --only '.join(only)}: [[exclude]] of {self.path} takes this combination out")
        return runs

    def _values(self, axis: str) -> list[tuple[str, dict[str, Any]]]:
        values = self.file.axes[axis]
        if not values:
            raise UsageError(f"{self.path}: axis '{axis}' has no values")
        if isinstance(values, dict):
            return list(values.items())
        return [(str(value), {axis: value}) for value in values]

    def _points(self) -> Iterable[dict[str, tuple[str, dict[str, Any]]]]:
        axes = self.file.axes
        for values in itertools.product(*(self._values(axis) for axis in axes)):
            point = dict(zip(axes, values, strict=True))
            labels = {axis: label for axis, (label, _) in point.items()}
            if not any(self._matches("exclude", rule, labels) for rule in self.file.exclude):
                yield point

    def _matches(
        self, table: str, rule: Mapping[str, Any], labels: Mapping[str, str], fields: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether a rule of a table of the file holds for a point of the grid: all that it names, by axes or fields."""
        matches = True
        for name, value in rule.items():
            if name in labels:
                known = [label for label, _ in self._values(name)]
                if str(value) not in known:
                    raise UsageError(f"{self.path}: [[{table}]] {name} = {value!r}; the values are {', '.join(known)}")
                matches &= labels[name] == str(value)
            elif fields is not None and name in fields:
                matches &= fields[name] == value
            else:
                what = f"the axis '{name}'" if fields is None else f"'{name}', neither an axis nor a field of a run"
                raise UsageError(f"{self.path}: [[{table}]] names {what}; the axes are {', '.join(labels)}")
        return matches

    def _run(self, point: Mapping[str, tuple[str, dict[str, Any]]]) -> Run:
        labels = {axis: label for axis, (label, _) in point.items()}
        fields = dict(self.file.base)
        for _, values in point.values():
            fields.update(values)
        known = {name: field.default for name, field in (RunSpec.model_fields | DataSpec.model_fields).items()}
        known |= self.file.data.model_dump()
        for rule in self.file.tuned:
            if not isinstance(where := rule.get("where"), dict):
                raise UsageError(f"{self.path}: [[tuned]] needs a table where, such as where = {{ arm = 'BCE' }}")
            if self._matches("tuned", where, labels, known | fields):
                fields.update((name, value) for name, value in rule.items() if name != "where")
        fields.update(self.overrides)
        readable = "_".join(_slug(axis, label, bundle) for axis, (label, bundle) in point.items())
        return self._made(fields, readable, labels)

    def _made(self, fields: dict[str, Any], readable: str, labels: Mapping[str, str]) -> Run:
        """The run of `fields`, whose key begins with `readable`."""
        fields = dict(fields)
        if self.again and isinstance(at := fields.get("replicate", 0), int):
            fields["replicate"] = at + AGAIN
        # A field of [data] may be an axis too: whatever DataSpec knows and RunSpec does not goes there.
        of_data = {name: fields.pop(name) for name in list(fields) if name in DataSpec.model_fields}
        where = f"{self.path}: run {dict(labels)}"
        data_spec = DataSpec.checked(self.file.data.model_dump() | of_data, where)
        spec = RunSpec.checked({"smoke": False} | fields | {"dataset": data_spec.dataset}, where)
        render = data_spec.model_dump(include={"setting", "subjects", "frames", "size", "rates"})
        crops = {"size": spec.pixels, "align": spec.align, "detector": spec.detector}
        places = [(spec.dataset, data_spec.root, spec.protocol)]
        if spec.test_dataset and bool(data_spec.root) != bool(data_spec.test_root):
            lacks = "--test-root" if data_spec.root else "--root"
            raise UsageError(
                f"{where}: one data set is real and the other would be rendered; name its folder with {lacks}"
            )
        if spec.test_dataset:
            places.append((spec.test_dataset, data_spec.test_root, ""))
        for dataset, root, _ in places:
            usual = DATASETS[dataset]
            whole_frames = root and not is_pack(root) and not (Path(root) / "synthetic.json").is_file()
            if whole_frames and spec.align == "none" != usual.align:
                raise UsageError(
                    f"{where}: {usual.title} hands out whole frames, and align = 'none' would take their middle for a "
                    f"face; add --set align={usual.align}"
                )
        renders = [render, render | {"frames": data_spec.test_frames or data_spec.frames}]
        data = tuple(
            Data(dataset, root, faces, 0 if root else spec.replicate, protocol, crops)
            for (dataset, root, protocol), faces in zip(places, renders, strict=False)
        )
        start = self._pretext(fields | of_data, data_spec, where) if spec.pretext else None
        identity = [self.file.study.notebook, spec.model_dump(exclude=NOT_IN_KEY), *(one.name for one in data)]
        key = f"{readable}-{digest([*identity, *([start.key] if start else [])])}"
        return Run(key, spec, data, labels, self.folder / "runs" / key, start)

    def _pretext(self, fields: Mapping[str, Any], data: DataSpec, where: str) -> Run:
        """The training without labels, on other people, whose backbone a run with `fields` starts from."""
        if not self.file.pretext:
            raise UsageError(f"{where}: pretext = true, but the file has no table [pretext]")
        if data.root:
            raise UsageError(
                f"{where}: a pretext trains on rendered people, and this data set is real; start from a backbone of "
                "the hub instead (pretext = false, backbone, revision)"
            )
        if self.file.pretext.get("method") != "infonce" or self.file.pretext.get("pretext"):
            raise UsageError(f"{self.path}: [pretext] needs method = 'infonce', the one that sees no labels")
        names = set(OF_PRETEXT) | set(DataSpec.model_fields)
        shared = {name: value for name, value in fields.items() if name in names}
        return self._made(shared | self.file.pretext, f"pretext_{data.dataset}-{data.setting}", {"run": "pretext"})


def _slug(axis: str, label: str, bundle: Mapping[str, Any]) -> str:
    text = f"{axis}{label}" if list(bundle) == [axis] else label
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def digest(content: Any) -> str:
    """8 hex digits over `content`, the same in every process and for every order of dictionary entries."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def need_clone() -> None:
    """Refuse what executes the notebooks where there are none, as in a package that was installed from its wheel.

    Raises:
        UsageError: the notebooks are not there.
    """
    if not (PROJECT / "notebooks").is_dir():
        raise UsageError(
            "studies and reports execute the notebooks, which the installed package does not carry: clone the "
            "project's repository and call `make reproduce`, or `pip install -e .` and `aunce`, in the clone. "
            "`aunce predict` and `aunce data` work without."
        )


def load_study(name: str, overrides: Mapping[str, Any] | None = None) -> Study:
    """A study by its name in `notebooks/studies/`, or by the path of a TOML file; `overrides` as in `Study`.

    NAME:gpu is the study in its GPU size, NAME:again the same on other replicates.

    Raises:
        UsageError: there is no such study; the known ones are listed.
    """
    need_clone()
    sized = re.fullmatch("(?s)(.*):([a-z]+)", name)
    name, size = (sized[1], sized[2]) if sized else (name, "cpu")
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"no study file at {path}")
        return Study(path.resolve(), overrides, size=size)
    studies = {file.stem: file for file in sorted((NOTEBOOKS / "studies").glob("*.toml"))}
    if name not in studies:
        known = ", ".join(studies)
        raise UsageError(
            f"no study '{name}'; known: {known}; a study of your own is named by the path of its .toml file"
        )
    return Study(studies[name], overrides, size=size)


def without_size(name: str) -> str:
    """The study that a report is of, whatever its size."""
    return name.removesuffix("-gpu").removesuffix("-again")


@dataclass(frozen=True)
class Progress:
    """How far a set of runs has come, the seconds that the rest will take one after the other, and the rate.

    `last_hour` is the number of runs that were finished within the last hour.
    """

    done: int
    failed: int
    running: int
    to_do: int
    seconds_left: float
    last_hour: int

    @property
    def total(self) -> int:
        """The number of runs, whatever their state."""
        return self.done + self.failed + self.running + self.to_do


def progress(study: Study, runs: list[Run]) -> Progress:
    """Count the states of `runs` and estimate the work left.

    The cost of a run is the mean duration of the finished runs of its method; a method without one takes the mean of
    all finished, and before the first the guess of the study file.
    """
    durations: dict[str, list[float]] = {}
    states = {"done": 0, "failed": 0, "running": 0, "to do": 0}
    left: list[Run] = []
    last_hour, now = 0, time.time()
    for run in runs:
        state = run.state
        states[state] += 1
        if state == "done":
            with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged: the report says so
                seconds = float(run.read("metrics.json")["duration_s"])
                durations.setdefault(run.spec.method, []).append(seconds)
            last_hour += now - (run.folder / "metrics.json").stat().st_mtime < 3600
        elif state != "failed":
            left.append(run)
    known = [seconds for values in durations.values() for seconds in values]
    default = [sum(known) / len(known)] if known else [study.file.study.seconds_per_run]
    costs = [durations.get(run.spec.method, default) for run in left]
    seconds_left = sum(sum(cost) / len(cost) for cost in costs)
    return Progress(states["done"], states["failed"], states["running"], states["to do"], seconds_left, last_hour)


def duration(seconds: float) -> str:
    """`seconds` in words that a person reads at a glance."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
