"""From the runs of a study to its tables, and from these to its page.

Whatever a report shows comes from the tables that `collect` wrote, so a report is drawn again without a run. Failed
and missing runs have a row.
"""

import contextlib
import json
import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from aunce import files
from aunce.data.faces import NAMED
from aunce.errors import AunceError, UsageError
from aunce.report import page
from aunce.report.verification import changed, hashes
from aunce.study.grid import NOTEBOOKS, Run, Study, load_study
from aunce.study.spec import CEILING, FLOORS
from aunce.study.state import State

PRIMARY = {"head": "probe", "epoch_rule": "last", "labels": "clean"}
THRESHOLD = "tuned"
ARM_AXES = ("arm", "method", "preset")
NOISE_AXES = ("noise", "noise_kind", "noise_rate")
POINT = ["noise", "arm", "kind", "replicate"]
READING = ["head", "epoch_rule", "threshold", "labels"]


def primary_reading(table: pd.DataFrame) -> dict[str, str]:
    """Head, epoch rule and labels that decide: the ridge probe where it was fitted, last epoch, clean labels."""
    return PRIMARY | ({"head": "ridge"} if len(table) and (table["head"] == "ridge").any() else {})


def is_primary(table: pd.DataFrame) -> "pd.Series[bool]":
    """Mask of the rows in the primary reading, see `primary_reading`."""
    return (table[list(PRIMARY)] == pd.Series(primary_reading(table))).all(axis=1)


def collect(study: Study, *, add: bool = False) -> Path:
    """Gather the runs of `study` into `runs`, `counts`, `auc`, `history` and `ridge.parquet` and `provenance.json`.

    Only what a report reads is kept: of the heads other than the probe, and of scores on noisy labels, the last epoch
    alone; concordance counts subject by subject for the primary reading (probe, last epoch, clean labels), summed over
    subjects for the others (`subject` and `other` empty, `within` tells pairs of one subject from pairs of two).

    Args:
        study: whose finished runs are gathered.
        add: keep the rows of runs that the tables have and that are not done here: they were done elsewhere.

    Returns:
        The folder of the tables, `reports/<study>`.

    Raises:
        UsageError: a run was made with smoke settings, runs on the same data saw other images, or two runs differ in
            nothing that the report tells apart; with `add`, the tables are damaged.
    """
    known = collected(study) if add else frozenset()
    rows, tables = [], {"counts": [], "auc": [], "history": [], "ridge": []}  # type: ignore[var-annotated]
    seen: dict[tuple[str, ...], dict[str, list[str]]] = {}
    kept = []
    for run in study.runs:
        state = run.reach()
        if run.key in known and state.name != "done":
            kept.append(run.key)
            continue
        found: dict[str, pd.DataFrame] = {}
        if state.name == "done":
            try:
                found = _tables_of(run)
            except Exception as error:  # of a run without hashes, where anything may stand in a table
                why = f"its tables cannot be read ({type(error).__name__}: {error}); remove {run.folder}"
                state = State("damaged", why=why)
        row = _row(run, state)
        if state.name == "done":
            if run.spec.smoke or state.metrics["spec"].get("smoke", False):
                raise UsageError(
                    f"study '{study.name}', run {run.key}: made with smoke settings, which reports refuse; remove "
                    f"{run.folder} and run the study again with smoke = false"
                )
            pixels = seen.setdefault(tuple(data.name for data in run.data), {})
            pixels.setdefault(str(state.metrics["data"].get("hash", "")), []).append(run.key)
            place = {name: row[name] for name in ("key", "arm", "kind", "noise", "replicate", "part")}
            for name, table in found.items():
                table = table.drop(columns=[column for column in place if column in table])
                tables[name].append(pd.DataFrame(place, index=table.index).join(table))
        rows.append(row)
    folder = study.folder
    folder.mkdir(parents=True, exist_ok=True)
    runs = pd.DataFrame(rows)
    if kept:
        place = {run.key: number for number, run in enumerate(study.runs)}
        old = _kept(folder / "runs.parquet", kept)
        runs = pd.concat([runs, old]).sort_values("key", key=lambda keys: keys.map(place), ignore_index=True)
        for name, parts in tables.items():
            if len(table := pd.concat([*parts, _kept(folder / f"{name}.parquet", kept)])):
                tables[name] = [table.sort_values("key", key=lambda keys: keys.map(place), kind="stable")]
        data = {run.key: tuple(one.name for one in run.data) for run in study.runs}
        for key, facts in old[["key", "data"]].itertuples(index=False):
            seen.setdefault(data[key], {}).setdefault(str(json.loads(facts).get("hash", "")), []).append(key)
    _check_pixels(study, seen)
    point = ["arm", "noise", "replicate", "part"]
    for _, same in runs.groupby(point):
        if len(same) > 1:
            keys = " and ".join(same["key"])
            raise UsageError(f"study '{study.name}': {keys} share {', '.join(point)}; tell them apart by an axis 'arm'")
    for name, parts in tables.items():
        if parts:
            _write_parquet(folder / f"{name}.parquet", pd.concat(parts, ignore_index=True))
        else:  # left from an earlier call, when runs were done that this study no longer has
            (folder / f"{name}.parquet").unlink(missing_ok=True)
    _write_parquet(folder / "runs.parquet", runs)
    provenance = _provenance(study, runs) | {"files": hashes(folder)}
    files.write(folder / "provenance.json", json.dumps(provenance, indent=1, ensure_ascii=False) + "\n")
    return folder


def collected(study: Study) -> frozenset[str]:
    """Keys of the runs that the study's tables hold as done.

    Raises:
        UsageError: the tables are not those that were collected.
    """
    if not (study.folder / "provenance.json").is_file():
        return frozenset()
    _check_tables(study)
    runs = pd.read_parquet(study.folder / "runs.parquet", columns=["key", "status"])
    return frozenset(runs.loc[runs["status"] == "done", "key"])


def _kept(path: Path, keys: list[str]) -> pd.DataFrame:
    """Rows of these runs in a table, categories as texts; a table that no run has is empty."""
    if not path.is_file():
        return pd.DataFrame({"key": []})
    table = pd.read_parquet(path)
    table = table[table["key"].isin(keys)]
    return table.assign(**{name: plain(table[name]) for name in table.select_dtypes("category")})


def _check_pixels(study: Study, seen: Mapping[tuple[str, ...], Mapping[str, list[str]]]) -> None:
    """Refuse runs on the same data that saw different crops: an image was replaced between them, or drawn elsewhere.

    Args:
        study: for the message.
        seen: names of the data of a run -> hash of its crops -> keys of the runs.
    """
    for names, crops in seen.items():
        if len(crops) > 1:
            runs = "; ".join(f"{', '.join(keys)} saw {value}" for value, keys in crops.items())
            raise UsageError(
                f"study '{study.name}': runs on {' and '.join(names)} did not see the same images ({runs}). Find out "
                "which are right, remove the folders of the other runs, and of the data if they are wrong now, and run "
                "the study again"
            )


def _row(run: Run, state: State) -> dict[str, Any]:
    """The row of a run in `runs.parquet`."""
    spec, metrics = run.spec, state.metrics
    reason = ""
    if state.name == "damaged":
        reason = f"{state.why}; the next `aunce study` does it again"
    elif state.name == "failed":
        reason = state.why or " ".join(str(state.error.get(name, "")) for name in ("message", "remedy")).strip()
    return {
        "key": run.key,
        "arm": " ".join(run.labels[axis] for axis in ARM_AXES if axis in run.labels) or spec.method,
        "kind": "floor" if spec.method in FLOORS else "ceiling" if spec.method in CEILING else "arm",
        "noise": _noise_label(run),
        "replicate": spec.replicate,
        "part": spec.test_part,
        "method": spec.method,
        "status": state.name.replace("to do", "missing"),
        "reason": reason,
        "duration_s": metrics.get("duration_s", math.nan),
        "flat": metrics.get("flat"),
        "val_f1": _number(metrics.get("val_f1")),
        "val_auc": _number(metrics.get("val_auc")),
        "data": json.dumps(metrics.get("data", {}), sort_keys=True),
        "spec": spec.model_dump_json(exclude={"root", "test_root", "detector", "out"}),
        "provenance": json.dumps(metrics.get("provenance", {}), sort_keys=True),
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _noise_label(run: Run) -> str:
    """Kind and rate of the label noise; the labels of axes other than arm, noise, replicate and part follow."""
    spec = run.spec
    noise = "none" if spec.noise_kind == "none" else f"{spec.noise_kind} {spec.noise_rate:g}"
    if not spec.noise_keeps_rates:
        noise += ", rates not kept"
    known = {*ARM_AXES, *NOISE_AXES, "replicate", "test_part"}
    others = [f"{axis} {value}" for axis, value in run.labels.items() if axis not in known]
    # A study of clean labels alone is told apart by its other axes.
    clean = noise == "none" and others and not any(axis in run.labels for axis in NOISE_AXES)
    return ", ".join(others if clean else [noise, *others])


def _tables_of(run: Run) -> dict[str, pd.DataFrame]:
    """What the report reads of the tables of one finished run."""
    counts = pd.read_parquet(run.folder / "counts.parquet")
    clean, last, probe = _parts_of_reading(counts)
    counts = counts[(clean & probe) | (last & (counts["threshold"] == THRESHOLD) & (clean | probe))]
    auc = pd.read_parquet(run.folder / "auc.parquet")
    clean, last, probe = _parts_of_reading(auc)
    auc = auc[(clean & probe) | (last & (clean | probe))].assign(within=auc["subject"] == auc["other"])
    primary = is_primary(auc)
    by = [*PRIMARY, *(["target"] if "target" in auc else []), "au", "within"]
    summed = auc[~primary].groupby(by, sort=False, observed=True)[["concordant", "pairs"]].sum().reset_index()
    tables = {"counts": counts, "auc": pd.concat([auc[primary], summed.assign(subject="", other="")])}
    with contextlib.suppress(FileNotFoundError):  # a run without the ridge probe has none
        path = pd.read_parquet(run.folder / "ridge.parquet")
        tables["ridge"] = path[path["chosen"]].drop(columns="chosen")
    if not all(pd.api.types.is_integer_dtype(tables[name]["au"]) for name in ("counts", "auc")):
        raise TypeError("the action units are not numbers")
    with contextlib.suppress(pd.errors.EmptyDataError, FileNotFoundError):  # a run without training has no curve
        checks = pd.read_csv(run.folder / "history.csv").dropna(subset="val_auc")
        tables["history"] = checks[[name for name in ("epoch", "val_auc", "val_f1", "own_view") if name in checks]]
    return tables


def _parts_of_reading(table: pd.DataFrame) -> "tuple[pd.Series[bool], pd.Series[bool], pd.Series[bool]]":
    """Masks of clean labels, of the last epoch and of the head that decides."""
    reading = primary_reading(table)
    return (
        table["labels"] == reading["labels"],
        table["epoch_rule"] == reading["epoch_rule"],
        table["head"] == reading["head"],
    )


def _provenance(study: Study, runs: pd.DataFrame) -> dict[str, Any]:
    done = runs[runs["status"] == "done"]
    facts = [json.loads(text) for text in done["provenance"]]
    versions: dict[str, list[str]] = {}
    for fact in facts:
        for package, version in fact.get("versions", {}).items():
            if str(version) not in versions.setdefault(package, []):
                versions[package].append(str(version))
    states = runs["status"].value_counts()
    return {
        "format": 1,
        "study": study.name,
        "title": study.title,
        "question": study.question,
        **({"note": study.note} if study.note else {}),
        "study_file": study.path.name,
        "study_hash": study.hash,
        "runs": {status: int(states.get(status, 0)) for status in ("done", "failed", "damaged", "running", "missing")},
        "revisions": _tally(facts, "revision", "modified"),
        "hardware": _tally(facts, "hardware", "device", "threads"),
        "versions": dict(sorted(versions.items())),
        "duration_s": float(done["duration_s"].sum()),
        "started": min((str(fact["started"]) for fact in facts if fact.get("started")), default=""),
        "finished": max((str(fact["finished"]) for fact in facts if fact.get("finished")), default=""),
        "rebuild": _rebuild(study),
        "keys": list(runs["key"]),
    }


def renamed(provenance: Mapping[str, Any]) -> bool:
    """Whether today's code gives runs of the same study file other names, so that it would not find them done.

    Args:
        provenance: content of `provenance.json`.
    """
    command = shlex.split(provenance["rebuild"])
    if len(command) != 3:  # settings of a lab's own: its folders may not be here
        return False
    try:
        study = load_study(command[2])
        return study.hash == provenance["study_hash"] and not {run.key for run in study.runs} >= {*provenance["keys"]}
    except AunceError:
        return False


def _rebuild(study: Study) -> str:
    """The command that makes the study again; folders of the machine that it ran on are no part of it."""
    size = study.reference.removeprefix(str(study.path))  # empty, or :gpu
    name = study.path.stem if study.path.parent == NOTEBOOKS / "studies" else study.path.name
    words = ["aunce", "study", name + size]
    for name, value in study.overrides.items():
        if name in ("root", "test_root"):
            words += [f"--{name.replace('_', '-')}", "FOLDER"]
        else:
            shown = "FILE" if name == "detector" and value not in NAMED else json.dumps(value)
            words += ["--set", f"{name}={shown}"]
    return shlex.join(words)


def _tally(facts: Iterable[Mapping[str, Any]], *names: str) -> list[dict[str, Any]]:
    """The different values of `names` in the runs, and how many runs have each."""
    counted: dict[str, dict[str, Any]] = {}
    for fact in facts:
        values = {name: fact.get(name) for name in names}
        counted.setdefault(json.dumps(values, sort_keys=True), {**values, "runs": 0})["runs"] += 1
    return list(counted.values())


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    """Small on disk: texts alone as dictionaries, whole numbers as small as they fit, zstd; replaced as a whole."""
    table = table.copy()
    for name in table.columns:
        if pd.api.types.is_bool_dtype(table[name]) or name == "flat":
            continue
        if pd.api.types.is_integer_dtype(table[name]):
            table[name] = pd.to_numeric(table[name], downcast="integer")
        elif not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].astype("category")
    texts = [name for name in table.columns if isinstance(table[name].dtype, pd.CategoricalDtype)]
    wide = [name for name in table.columns if table[name].dtype in ("float64", "int64", "int32")]
    options: dict[str, Any] = {"use_dictionary": texts, "use_byte_stream_split": wide, "compression_level": 19}
    with files.beside(path) as partial:
        table.to_parquet(partial, index=False, compression="zstd", **options)


def render(study: Study) -> Path:
    """Execute the report notebook on the collected tables and write `index.html`, `report.md` and `figures/`.

    Returns:
        The path of `index.html`.

    Raises:
        UsageError: the tables have not been collected, or one of them is gone or damaged.
        RunError: the notebook failed; the last report is as it was.
    """
    folder = study.folder
    if not (folder / "provenance.json").is_file():
        raise UsageError(f"study '{study.name}': no tables in {folder}; collect them first: `{_rebuild(study)}`")
    _check_tables(study)
    notebook, parameters = NOTEBOOKS / f"{study.report}.ipynb", {"tables": str(folder)}
    return page.render(notebook, parameters, folder, title=study.title, study=study.name)


def _check_tables(study: Study) -> None:
    """Refuse tables that are not those which were collected: a page would say what no run has found."""
    try:
        collected = json.loads((study.folder / "provenance.json").read_text(encoding="utf-8"))["files"]
        wrong = changed(study.folder, dict(collected))
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = [f"provenance.json: cannot be read ({error})"]
    if wrong:
        raise UsageError(
            f"study '{study.name}': tables in {study.folder} are not what was collected ({'; '.join(wrong)}); restore "
            f"them, or make them again: `{_rebuild(study)}`"
        )


def plain(column: pd.Series) -> pd.Series:
    """Categories as texts, which `astype` would make one by one."""
    texts = column.cat.categories.astype("str").array.take(column.cat.codes.to_numpy(), allow_fill=True)
    return pd.Series(texts, column.index, name=column.name)
