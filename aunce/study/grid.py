"""The grid of runs that a study file describes, their keys, and their state on disk.

Imports neither torch nor pandas: `aunce status` and the Snakefile read this module alone. What a run has reached is
read from its folder, never from memory: `metrics.json` alone says *done*.
"""

import contextlib
import difflib
import hashlib
import itertools
import math
import os
import re
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from aunce.data import DATASETS, TEST, TRAIN, is_pack
from aunce.data.recipes import Recipe
from aunce.data.render import difficulty
from aunce.errors import AunceError, DataError, UsageError
from aunce.identity import digest
from aunce.study.spec import MOST_POPULATIONS, OF_PRETEXT, DataSpec, RunSpec, StudyFile
from aunce.study.state import LOCK, METRICS, State, read_state

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOKS = PROJECT / "notebooks"
REPORTS = Path(os.environ.get("AUNCE_REPORTS") or PROJECT / "reports")


AGAIN = 10_000
"""Added to every replicate by the size "again"."""

LONGEST_KEY = 200
"""Characters of a run's key, which names its folder: file systems allow 255 bytes, of which locks and partial files
take some."""

MOST_POINTS = 100_000
"""Points of a grid, excluded ones included; more is a slip, and counting them would take minutes."""

EVERY = "every"
"""As the only value of the axis test_part: each part of the data in turn."""
OWN = "own"
"""As the replicate of `[pretext]`: each replicate of the grid has a pretext of its own."""
FIRST_OWN = 100_000
"""Added to a replicate by its own pretext."""

POPULATION = 1_000_000
"""From the seed of one population of a replicate to that of the next: training 0, validation 1, tests from 2 on."""
FIRST_TARGET = 2 + MOST_POPULATIONS

REPEAT = 1_000
"""Offset between replicates of the GPU size that have the same conditions."""

WEIGHTS = "encoder.safetensors"  # of the trained encoder, in the folder of its run
BACKBONE = "backbone"  # the entry of that file for the configuration of the backbone, as JSON
PROBE = "probe.safetensors"  # of the linear probe on its features


@dataclass(frozen=True)
class Data:
    """One data set of a study, as crops: rendered with `seed`, or the real one at `root`.

    Attributes:
        dataset: its name.
        root: folder of the real data set, or a pack made from it; empty: render.
        render: setting, subjects, frames, size, rates and generator of rendered faces.
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
        """Readable name, ending in 8 hex digits over everything that decides the crops."""
        if self.root:
            return f"{self.dataset}-{self._digest}"
        return f"{self.dataset}-{self.render['setting']}-{self.seed}-{self._digest}"

    @cached_property
    def _digest(self) -> str:
        from aunce.data import fingerprint

        crops = [Recipe(**self.crops).hash, *([self.protocol] if self.protocol else [])]
        if self.root:
            return digest([self.dataset, fingerprint(self.dataset, self.root), *crops])
        faces = self.render.get("faces", "drawn")
        turned, version = _dials(self.dataset, self.render["setting"], faces), difficulty.VERSIONS[faces]
        return digest([{"dataset": self.dataset, **self.render}, self.seed, turned, version, *crops])


@cache
def _dials(dataset: str, setting: str, faces: str) -> dict[str, Any]:
    return difficulty.difficulty_of(dataset, setting, faces).content


@dataclass(frozen=True)
class Run:
    """One run of a study: its key, specification, data, labels and folder.

    The data are what it trains on, then, if there are any, the other data set that it tests on; or the populations of
    inner validation and test, and the targets. `start` is the run whose backbone it takes, if any.
    """

    key: str
    spec: RunSpec
    data: tuple[Data, ...]
    labels: Mapping[str, str]
    folder: Path
    start: "Run | None" = None

    def reach(self, *, hashes: bool = True) -> State:
        """What the run has reached, read from its folder; arguments as in `state.read_state`."""
        return read_state(self.folder, self.key, self.spec.content, hashes=hashes)

    @property
    def state(self) -> str:
        """The name of what the run has reached: done, failed, running, to do or damaged."""
        return self.reach().name

    @property
    def lock(self) -> FileLock:
        """Held by the process that executes this run; the system releases it when that process ends."""
        return FileLock(self.folder / LOCK)


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
        self.only: tuple[str, ...] = ()  # what `select` was last asked for
        self._refused: list[tuple[Mapping[str, str], AunceError]] = []
        text = path.read_bytes()
        self.hash = hashlib.sha256(text).hexdigest()[:8]
        try:
            content = tomllib.loads(text.decode())
            controls = re.search("[\0-\x08\x0b-\x1f\x7f\ufffe\uffff]", " ".join(_texts(content)))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{path}: not a TOML file: {error}") from None
        if controls:
            raise UsageError(f"{path}: a text has the character U+{ord(controls[0]):04X}, which no page can show")
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
    def note(self) -> str:
        """What a reader of the page has to know; may be empty."""
        return self.file.study.note

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

        Points of the grid that do not go with a folder of one's own, or with other `overrides`, are left out here;
        `select` refuses them unless it is asked for others only.

        Raises:
            DataError: no point goes with the folder.
            UsageError: `exclude` leaves no point, or two are the same run.
        """
        runs = []
        seen: dict[str, Run] = {}
        for point in self._points():
            labels = {axis: label for axis, (label, _) in point.items()}
            try:
                run = self._run(point)
                if (first := seen.setdefault(run.key[-8:], run)) is not run:
                    raise UsageError(
                        f"{self.path}: {dict(first.labels)} and {labels} are the same run; each point of the grid must "
                        "differ"
                    )
                runs.append(run)
            except (DataError, UsageError) as error:
                if isinstance(error, UsageError) and not self.overrides:  # the file by itself is whole
                    raise
                self._refused.append((labels, error))
        if self._refused and not runs:
            raise self._refused[0][1]
        if not runs:
            raise UsageError(f"{self.path}: [[exclude]] leaves no run of the grid")
        people = {data.seed for run in runs if run.start for data in run.start.data}
        if shared := people & {data.seed for run in runs for data in run.data}:
            raise UsageError(
                f"{self.path}: [pretext] has the replicate {shared.pop() % POPULATION}, which is one of the grid; give "
                "it another, so that no test subject took part in the pretext"
            )
        return runs

    @cached_property
    def pretexts(self) -> list[Run]:
        """The pretexts that runs of the grid start from."""
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
            DataError, UsageError: a run that is wanted does not go with the folder of its data, or with `overrides`.
        """
        wanted: dict[str, set[str]] = {}
        self.only = tuple(only)
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
        if (axis, values) == ("test_part", [EVERY]):
            values = self._parts
        return [(str(value), {axis: value}) for value in values]

    @cached_property
    def _parts(self) -> list[str]:
        """The parts of the folder that a run may test on: all but one that is named train."""
        from aunce.data import adapter
        from aunce.data.frames import FrameTable

        root = self.overrides.get("root") or self.file.data.root
        if not root:
            raise UsageError(
                f"{self.path}: the parts to test on are those of the data; name its folder: --root, or --labels"
            )
        if is_pack(root):
            parts = FrameTable.from_parquet(Path(root) / "frames.parquet").protocol.parts
        else:
            parts = next(iter(adapter(self.file.data.dataset).protocols(root).values())).parts
        return sorted(set(parts) - {TRAIN})

    def _points(self) -> Iterable[dict[str, tuple[str, dict[str, Any]]]]:
        axes = self.file.axes
        points = math.prod(len(self._values(axis)) for axis in axes)
        if points > MOST_POINTS:
            raise UsageError(
                f"{self.path}: its axes span {points:,} points; {MOST_POINTS:,} are allowed, take some out"
            )
        for values in itertools.product(*(self._values(axis) for axis in axes)):
            point = dict(zip(axes, values, strict=True))
            labels = {axis: label for axis, (label, _) in point.items()}
            if not any(self._matches("exclude", rule, labels) for rule in self.file.exclude):
                yield point

    def _matches(
        self, table: str, rule: Mapping[str, Any], labels: Mapping[str, str], fields: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether a rule of table `table` applies to a grid point: every axis or field that it names has that value.

        A list names several values of an axis or a field.
        """
        matches = True
        for name, value in rule.items():
            if name in labels:
                known = [label for label, _ in self._values(name)]
                wanted = [str(one) for one in (value if isinstance(value, list) else [value])]
                if unknown := [one for one in wanted if one not in known]:
                    raise UsageError(
                        f"{self.path}: [[{table}]] {name} = {', '.join(unknown)}; the values are {', '.join(known)}"
                    )
                matches &= labels[name] in wanted
            elif fields is not None and name in fields:
                matches &= fields[name] == value or (isinstance(value, list) and fields[name] in value)
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
        """Build the run with these fields; `readable` is the first part of its key."""
        fields = dict(fields)
        if self.again and isinstance(at := fields.get("replicate", 0), int):
            fields["replicate"] = at + AGAIN
        # A field of [data] may be an axis too: whatever DataSpec knows and RunSpec does not goes there.
        of_data = {name: fields.pop(name) for name in list(fields) if name in DataSpec.model_fields}
        where = f"{self.path}: run {dict(labels)}"
        data_spec = DataSpec.checked(self.file.data.model_dump() | of_data, where)
        of_both = {name: getattr(data_spec, name) for name in ("dataset", "populations")}
        of_both |= {"targets": list(data_spec.targets)}
        first = {"smoke": False} | ({"test_part": TEST} if data_spec.populations else {})
        spec = RunSpec.checked(first | fields | of_both, where)
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
        test = data_spec.render | {"frames": data_spec.test_frames or data_spec.frames}
        data = [
            Data(dataset, root, faces, 0 if root else spec.replicate, protocol, crops)
            for (dataset, root, protocol), faces in zip(places, [data_spec.render, test], strict=False)
        ]
        if spec.populations:
            if spec.replicate >= POPULATION:
                raise UsageError(f"{where}: replicate = {spec.replicate}; with populations it is below {POPULATION:,}")
            inner = test | {"subjects": data_spec.validation_subjects}
            others = list(enumerate([(spec.dataset, inner), *[(spec.dataset, test)] * spec.populations], 1))
            others += enumerate(data_spec.renders_of_targets, FIRST_TARGET)
            for place, (dataset, faces) in others:
                protocol = spec.protocol if dataset == spec.dataset else ""
                data.append(Data(dataset, "", faces, spec.replicate + place * POPULATION, protocol, crops))
        start = self._pretext(fields | of_data, data_spec, where) if spec.pretext else None
        identity = [self.file.study.notebook, spec.content, *(one.name for one in data)]
        key = f"{readable}-{digest([*identity, *([start.key] if start else [])])}"
        if len(key) > LONGEST_KEY:
            raise UsageError(
                f"{where}: the labels make a folder's name of {len(key)} characters; {LONGEST_KEY} are allowed"
            )
        return Run(key, spec, tuple(data), labels, self.folder / "runs" / key, start)

    def _pretext(self, fields: Mapping[str, Any], data: DataSpec, where: str) -> Run:
        """The pretext of a run with `fields`: a training without labels, on other people."""
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
        shared |= {"targets": {}} | self.file.pretext  # those of the runs are for what starts from it
        if shared.get("replicate") == OWN:
            replicate = fields.get("replicate", 0) - AGAIN * self.again  # which is added below
            if replicate >= FIRST_OWN - AGAIN:
                most = f"{FIRST_OWN - AGAIN:,}"
                raise UsageError(f"{where}: replicate = {replicate!r}; with a pretext of its own it is below {most}")
            shared["replicate"] = replicate + FIRST_OWN
        return self._made(shared, f"pretext_{data.dataset}-{data.setting}", {"run": "pretext"})


def _slug(axis: str, label: str, bundle: Mapping[str, Any]) -> str:
    text = f"{axis}{label}" if list(bundle) == [axis] else label
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def need_clone() -> None:
    """Refuse a command that needs the notebooks where there are none, as after an installation from the wheel.

    Raises:
        UsageError: the notebooks are not there.
    """
    if not (PROJECT / "notebooks").is_dir():
        raise UsageError(
            "studies and reports execute the notebooks, which the installed package does not carry: clone the "
            "project's repository and call `make reproduce`, or `pip install -e '.[study]'` and `aunce`, in the clone. "
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


def _texts(content: Any) -> Iterator[str]:
    """All texts in the content of a study file, names included."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for one in [*content, *(content.values() if isinstance(content, dict) else ())]:
            yield from _texts(one)


def without_size(name: str) -> str:
    """Name of a study without its size."""
    return name.removesuffix("-gpu").removesuffix("-again")


@dataclass(frozen=True)
class Progress:
    """How many runs are in which state, and the seconds that the rest will take one after the other.

    `last_hour` is the number of runs that were finished within the last hour, `unchecked` that of finished runs without
    hashes.
    """

    done: int
    failed: int
    running: int
    to_do: int
    damaged: int
    seconds_left: float
    last_hour: int
    unchecked: int

    @property
    def total(self) -> int:
        """The number of runs, whatever their state."""
        return self.done + self.failed + self.running + self.to_do + self.damaged


def progress(
    study: Study, runs: list[Run], *, hashes: bool = True, states: Mapping[str, State] | None = None
) -> Progress:
    """Count the states of `runs` and estimate the work left.

    The cost of a run is the mean duration of the finished runs of its method; a method without one takes the mean of
    all finished, and before the first the guess of the study file.

    Args:
        study: the study.
        runs: those of it that count.
        hashes: see `state.read_state`.
        states: key -> what the run has reached, where it was read before.
    """
    durations: dict[str, list[float]] = {}
    count = dict.fromkeys(("done", "failed", "running", "to do", "damaged"), 0)
    left: list[Run] = []
    last_hour, unchecked, now = 0, 0, time.time()
    for run in runs:
        state = states[run.key] if states else run.reach(hashes=hashes)
        count[state.name] += 1
        if state.name == "done":
            durations.setdefault(run.spec.method, []).append(float(state.metrics["duration_s"]))
            unchecked += not state.checked
            with contextlib.suppress(OSError):  # removed since it was read
                last_hour += 0 <= now - (run.folder / METRICS).stat().st_mtime < 3600  # not of a clock since set back
        elif state.name != "failed":
            left.append(run)
    known = [seconds for values in durations.values() for seconds in values]
    default = [sum(known) / len(known)] if known else [study.file.study.seconds_per_run]
    costs = [durations.get(run.spec.method, default) for run in left]
    seconds_left = sum(sum(cost) / len(cost) for cost in costs)
    counts = {name.replace(" ", "_"): number for name, number in count.items()}
    return Progress(**counts, seconds_left=seconds_left, last_hour=last_hour, unchecked=unchecked)


def duration(seconds: float) -> str:
    """`seconds` as text, in the unit that suits its size."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
