"""Strict models of a study file and of one run; every error names its place, all of them in one message.

Imports neither torch nor pandas.
"""

import difflib
import itertools
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aunce.data import DATASETS, TEST
from aunce.data.render.difficulty import VERSIONS
from aunce.errors import UsageError
from aunce.identity import hashed_fields

SUPERVISED = ("bce", "bce_pos_weight", "bce_au_weight", "focal", "asymmetric", "label_smoothing")
CONTRASTIVE = ("infonce", "supcon", "aunce")
FLOORS = ("pixels", "random", "shuffled")  # to beat: raw pixels, an untrained encoder, BCE on shuffled labels
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
            known = cls._names_at(detail["loc"][:-1])
            close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
            hint = f", did you mean '{close[0]}'?" if close else "."
            return f"unknown name '{name}'{hint} Valid names: {', '.join(known)}"
        if detail["type"] == "missing":
            return f"'{name}' is missing"
        value = detail["input"]
        hint = " (a number in quotes is text: write it without quotes)" if _is_number(value) else ""
        if detail["type"] == "string_type" and isinstance(value, int | float):
            hint = f""" (a text: write '"{value}"', after --set with both kinds of quotes)"""
        return f"'{name}' = {value!r}: {detail['msg'][0].lower() + detail['msg'][1:]}{hint}"

    @classmethod
    def _names_at(cls, place: Sequence[str | int]) -> Sequence[str]:
        """The names that the table at this place may hold."""
        kind: Any = cls
        for part in place:
            fields = getattr(kind, "model_fields", {})
            kind = fields[part].annotation if part in fields else get_args(kind)[-1]
        return list(kind.model_fields)


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.default for name, field in model.model_fields.items()}


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


MOST_POPULATIONS = 8


class RunSpec(StrictModel):
    """One training run. The defaults are the committed notebook's smoke setting: tiny, rendered, seconds on a CPU."""

    dataset: Literal[tuple(DATASETS)] = Field("bp4d", description="data set whose layout root has")  # type: ignore[valid-type]
    root: str = Field("", description="folder of the data set or a pack made from it, empty renders a tiny one")
    test_dataset: Literal[("", *DATASETS)] = Field(  # type: ignore[valid-type]
        "", description="another data set to test on, by the AUs of both; its frames are part test"
    )
    test_root: str = Field("", description="folder or pack of test_dataset, empty renders a tiny one")
    populations: int = Field(0, ge=0, le=MOST_POPULATIONS, description="further populations whose people are the test")
    targets: list[str] = Field([], description="populations to score the encoder on besides, as generator:data set")
    other_roots: list[str] = Field([], description="packs of validation, populations and targets, in this order")
    out: str = Field("", description="folder for the results, empty keeps them in a temporary folder")
    protocol: str = Field("", description="a protocol of the data set by name, empty takes its first")
    pixels: int = Field(48, ge=16, le=512, description="side of the square crops in pixels")
    align: Literal["none", "landmarks", "detector"] = Field("none", description="how faces are brought to one place")
    detector: str = Field("mtcnn", description="face detector of align detector: mtcnn, cascade, or a YuNet file")
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
    schedule: Literal["cosine", "constant", "wsd"] = Field(
        "cosine", description="learning rate after the warm-up; constant has no warm-up, as released"
    )
    lengths: list[int] = Field([], description="epochs to which wsd cools down and is scored, empty takes the last")
    two_forwards: bool = Field(False, description="one forward pass per view as released, BatchNorm per view")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="precision of the network's forward pass")
    compiled: bool = Field(False, description="compile the network first, for a GPU")
    checks: int = Field(2, ge=1, description="how often inner validation is scored during training")
    probe_epochs: int = Field(20, ge=1, description="epochs of the linear probe")
    probe_learning_rate: float = Field(1e-2, gt=0, description="learning rate of the linear probe")
    probe: Literal["linear", "ridge", "ridge alone"] = Field(
        "linear", description="what decides: a probe by Adam, a ridge probe beside it, or alone"
    )
    moving_probe: bool = Field(False, description="score the probe as released, too: on a network in training mode")
    threads: int = Field(1, ge=1, description="CPU threads of the run")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    smoke: bool = Field(True, description="tiny setting that reports refuse")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, length in (("exponents", 2), ("positive_probs", 3)):
            if len(getattr(self, name)) not in (0, length):
                raise ValueError(f"{name} needs {length} numbers, or none for the preset's")
        if self.test_dataset and self.populations:
            raise ValueError(f"test_dataset = {self.test_dataset} and populations = {self.populations}; leave out one")
        if self.targets and not self.populations:
            raise ValueError("targets are scored beside a test on other people; give populations = 1 or more")
        if self.populations and self.test_part != TEST:
            raise ValueError(f"test_part = {self.test_part}: with populations it is '{TEST}'")
        if self.crop > self.pixels:
            raise ValueError(f"crop = {self.crop} does not fit into pixels = {self.pixels}; make pixels larger")
        rising = all(first < second for first, second in itertools.pairwise((1, *self.lengths)))
        if self.lengths and not (self.schedule == "wsd" and rising and self.lengths[-1] == self.epochs):
            raise ValueError(
                f"lengths = {self.lengths}: for schedule wsd only, rising from at least 2 to {self.epochs} epochs"
            )
        if self.switches and self.method != "aunce":
            raise ValueError(f"{', '.join(self.switches)}: only method 'aunce' has them")
        return self

    @property
    def switches(self) -> dict[str, Any]:
        """The settings of the AUNCE loss that differ from its preset's, by the names of the fields."""
        return {name: value for name in SWITCHES if (value := getattr(self, name))}

    @property
    def content(self) -> dict[str, Any]:
        """The fields that enter the key of the run, see `identity.hashed_fields`."""
        return hashed_fields(self.model_dump(exclude=NOT_IN_KEY), FIRST_FIELDS, _defaults(type(self)))

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


NOT_IN_KEY = {"root", "test_root", "other_roots", "detector", "start", "out", "compiled", "threads", "device", "smoke"}
"""Fields of a RunSpec that leave its numbers as they are: where and how fast it is computed. Folders and weights enter
the key by the name of the data and by the key of the pretext."""

FIRST_FIELDS = frozenset(
    {
        "dataset", "test_dataset", "protocol", "pixels", "align", "crop", "test_part", "replicate", "noise_kind",
        "noise_rate", "noise_keeps_rates", "method", "preset", "temperature", "exponents", "rarer_label", "weights",
        "positive", "positive_probs", "exclude", "positive_mean", "draw", "au_weighted", "backbone", "revision",
        "pretext", "channels", "final_relu", "epochs", "batch_size", "sampler", "learning_rate", "weight_decay",
        "schedule", "two_forwards", "precision", "checks", "probe_epochs", "probe_learning_rate", "moving_probe",
    }
)  # fmt: skip
"""Fields of a RunSpec of the first edition. Keys hash all of them, so this list never changes."""


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


NOT_RENDERED = {"dataset", "root", "test_root", "test_frames", "populations", "validation_subjects", "targets"}
"""Fields of a DataSpec that are no options of the renderer."""


class Target(StrictModel):
    """The size of one rendered population that encoders are scored on besides."""

    subjects: int | None = Field(None, ge=1, description="subjects to render; default: all of the data set")
    frames: int = Field(10, ge=2, description="frames per sequence, spread over its published ones")


class DataSpec(StrictModel):
    """What a study trains on: faces to render, or the folder of a real data set.

    A replicate renders one population, whose parts are split into training, inner validation and test. With
    `populations` all of it trains, a further one is the inner validation, and so many more are the test. Nobody is in
    two of them, nor in one of `targets`.
    """

    dataset: Literal[tuple(DATASETS)] = "bp4d"  # type: ignore[valid-type]
    root: str = Field("", description="folder of the real data set, or a pack made from it; empty: render")
    test_root: str = Field("", description="folder of the real data set that runs name as test_dataset; empty: render")
    faces: Literal[tuple(VERSIONS)] = Field("drawn", description="generator of rendered faces")  # type: ignore[valid-type]
    setting: Literal["easy", "hard"] = "easy"
    subjects: int | None = Field(None, ge=6, description="subjects to render; default: all of the data set")
    frames: int = Field(10, ge=2, description="frames per sequence, spread over its published ones")
    test_frames: int | None = Field(None, ge=2, description="those of validation and test; default: as frames")
    populations: int = Field(0, ge=0, le=MOST_POPULATIONS, description="further populations whose people are the test")
    validation_subjects: int = Field(20, ge=1, description="subjects of the population that is the inner validation")
    targets: dict[str, Target] = Field({}, description="generator:data set -> size; scored besides, nothing is trained")
    size: int = Field(64, ge=32, le=512, description="side of the rendered frames in pixels")
    rates: Literal["own", "dealt"] = Field(
        "own", description="how often AUs are rendered: as in the data set, or from half to 2 %, dealt by chance"
    )

    @model_validator(mode="after")
    def _targets_are_known(self) -> Self:
        known = [f"{faces}:{dataset}" for faces in VERSIONS for dataset in DATASETS]
        if unknown := [name for name in self.targets if name not in known]:
            raise ValueError(f"targets: {', '.join(unknown)} unknown. Known: {', '.join(known)}")
        if self.populations and self.root:
            raise ValueError(f"populations = {self.populations} are rendered, and the data set of root is not")
        return self

    @property
    def render(self) -> dict[str, Any]:
        """The options of the renderer. A later one appears where it is not at its default, see `hashed_fields`."""
        values = self.model_dump(exclude=NOT_RENDERED)
        return hashed_fields(values, ("setting", "subjects", "frames", "size", "rates"), _defaults(type(self)))

    @property
    def renders_of_targets(self) -> list[tuple[str, dict[str, Any]]]:
        """The data set of each target and the options of the renderer, in the setting of the others."""
        targets = []
        for name, size in self.targets.items():
            faces, _, dataset = name.partition(":")
            targets.append((dataset, self.model_copy(update={"faces": faces, **size.model_dump()}).render))
        return targets


class StudyHead(StrictModel):
    """The `[study]` table."""

    title: str
    question: str
    note: str = Field("", description="what a reader of the page has to know, such as that no arm was tuned")
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
