"""The commands of `aunce`. Slow imports stand where they are needed, so that `aunce --help` is quick."""

import difflib
import functools
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from filelock import FileLock

from aunce import files
from aunce.cli_data import data, refuse_committed, root_of_table, say_left_out, ticker, with_table
from aunce.errors import AunceError, DataError, RunError, UsageError, machine_remedy
from aunce.processes import ENGINE, first_process, leave_with_engine, safe_path
from aunce.study.grid import (
    NOTEBOOKS,
    REPORTS,
    Progress,
    Run,
    Study,
    duration,
    load_study,
    need_clone,
    progress,
    without_size,
)
from aunce.study.guess import at_once, cores, costs, frames_of
from aunce.study.spec import DataSpec, RunSpec
from aunce.study.state import State

PAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "anatomy": ("Anatomy of the loss", {}),
    "audit": ("Audit of the published numbers", {}),
    "claims": ("What has become of each claim", {}),
    "looks": ("Looks at the decisive study", {"repetitions": 10_000}),
    "loss": ("The loss in a training of your own", {}),
    "reliability": ("What survives", {}),
    "simulation": ("What the intervals cover", {"repetitions": 2000}),
    "speed": ("How fast it is", {"full": True}),
    "summary": ("AUNCE in two minutes", {}),
}
"""Reports that need no runs: name of notebook and page -> title, and parameters of the notebook."""

WATCH_S = 5.0  # between two looks of `aunce status --watch`


class ErrorsInOneLine(click.Group):
    """Shows an error that a user can mend as one message: exit code 2 for usage, 1 for data and runs."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command. `--debug` keeps the traceback; Ctrl-C is exit code 130, a closed pipe 0."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt:
            if ENGINE not in os.environ:  # else the study says it
                click.echo("\naunce: stopped; what is done is kept, and the same command goes on", err=True)
            ctx.exit(130)
        except BrokenPipeError:  # `head`, for instance, has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would complain
            ctx.exit(0)
        except AunceError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"aunce: {error}", err=True)
            ctx.exit(error.exit_code)
        except (OSError, MemoryError, ImportError, RuntimeError) as error:
            said, number = f"{type(error).__name__}: {error}", None
            if isinstance(error, OSError):
                said, number = f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), error.errno
            remedy = machine_remedy(said, number)
            if ctx.params.get("debug") or not (remedy or isinstance(error, OSError)):
                raise
            click.echo(f"aunce: {said}. {remedy}".rstrip(), err=True)
            ctx.exit(1)


@click.group(cls=ErrorsInOneLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="aunce")
def main(debug: bool) -> None:
    """A reproducibility study of AUNCE, a contrastive loss for facial action unit detection."""
    os.environ.update(safe_path())
    click.get_current_context().with_resource(files.temporary())


def with_overrides(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --root, --test-root and --set; the command gets them as `overrides` for `load_study`."""

    @functools.wraps(command)
    def call(*args: Any, root: str | None, test_root: str | None, set: tuple[str, ...], **options: Any) -> None:
        overrides: dict[str, Any] = dict(map(_assignment, set))
        overrides |= {name: place for name, place in (("root", root), ("test_root", test_root)) if place}
        for name in ("root", "test_root", "backbone", "detector"):  # runs are executed in another folder
            if isinstance(place := overrides.get(name), str) and place and Path(place).exists():
                overrides[name] = str(Path(place).resolve())
        command(*args, overrides=overrides, **options)

    help_text = (
        "Give a field of every run another value, such as epochs=5; may be given several times. The fields are those "
        "of the first code cell of notebooks/train.ipynb."
    )
    call = click.option("--set", multiple=True, metavar="FIELD=VALUE", help=help_text)(call)
    for option, what in (("--test-root", "of the other data set to test on"), ("--root", "of the data set")):
        place = click.Path(exists=True, file_okay=False)
        call = click.option(option, type=place, help=f"Folder {what}, in place of rendered faces.")(call)
    return call


only_option = click.option(
    "--only", multiple=True, metavar="AXIS=VALUE", help="A part of the grid alone; may be given several times."
)


add_option = click.option(
    "--add",
    is_flag=True,
    help="Add to the report's tables: runs that they hold are neither done again nor dropped, though not on this disk.",
)


def _assignment(text: str) -> tuple[str, Any]:
    """Name and value of FIELD=VALUE. The value is read as TOML if it is valid TOML, else as text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text}: expected FIELD=VALUE")
    known = [*RunSpec.model_fields, *DataSpec.model_fields]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        said = f"did you mean '{close[0]}'?" if close else f"the fields are {', '.join(sorted({*known}))}"
        raise UsageError(f"--set {text}: there is no field '{name}'; {said}")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


@main.command()
@click.argument("study")
@with_overrides
@click.option("--profile", default="laptop", show_default=True, help="A folder in notebooks/profiles, or a path.")
@only_option
@add_option
@click.option("--labels", type=click.Path(path_type=Path), help="A table of labels, CSV or Parquet, of any data set.")
@with_table
@click.option("--dry-run", is_flag=True, help="Count the runs and estimate hours and disk; start nothing.")
def study(
    study: str, overrides: dict[str, Any], profile: str, dry_run: bool, labels: Path | None, **given: Any
) -> None:
    """Do all runs of STUDY that are not done yet, then write its report.

    STUDY is a name in notebooks/studies or the path of a TOML file. NAME:gpu is the study in the size of a GPU,
    NAME:again the same study on newly rendered faces. The same command continues what was stopped.
    """
    from aunce.report.claims import decided_by
    from aunce.report.collect import collected
    from aunce.study import engine

    if labels or given["described"]:
        overrides["root"] = str(root_of_table(labels, given["described"]))
    plan = load_study(study, overrides)
    runs = plan.select(given["only"])
    elsewhere = collected(plan) if given["add"] else frozenset()
    here = [run for run in runs if run.key not in elsewhere]
    state = progress(plan, here)
    to_do = [run for run in here if run.state != "done"]
    for one in to_do:
        if one.state == "damaged":
            click.echo(f"{one.key} is damaged and is done again: {one.reach().why}", err=True)
    side_by_side = min(at_once(runs), len(to_do) or 1)
    data = {name: frames_of(one) for name, one in {one.name: one for run in runs for one in run.data}.items()}
    guessed = {run.key: costs(run, data[run.data[0].name][0]) for run in runs}
    weights = [gigabytes for gigabytes, _ in guessed.values()]
    # Weights and tables of all runs, and checkpoints (three times the weights) of those at work.
    gigabytes = sum(disk for _, disk in data.values()) + sum(weights) + 2e-3 * len(runs)
    gigabytes += 3 * side_by_side * max(weights)
    left = state.seconds_left if state.done else sum(guessed[run.key][1] for run in to_do)
    done = len(runs) - len(to_do)
    click.echo(
        f"{plan.title}: {len(runs)} runs, {done} done, about {duration(left / side_by_side)} to go with "
        f"{side_by_side} side by side{'' if state.done else ' (a guess)'}, about {gigabytes:.1f} GB of disk in all"
    )
    arms = list(dict.fromkeys(run.labels["arm"] for run in plan.runs if "arm" in run.labels))
    decides = decided_by(without_size(plan.name), arms)
    click.echo(decides)
    if dry_run:
        click.echo("Nothing was started.")
        return
    _keep_recorded(plan)
    started = time.monotonic()
    failed = not engine.execute_all(plan, to_do, profile)
    see_them = f"See them with: {shlex.join(['aunce', 'status', study, *_options(overrides)])}"
    states = {run.state for run in plan.runs}
    if failed and states == {"to do"}:
        raise AunceError("the data of these runs could not be made, see above; no run was started")
    if "done" not in states and any((plan.folder / "runs").glob("*/metrics.json")):
        raise AunceError(f"no run with these settings was done; the report is as it was, of others\n{see_them}")
    click.echo(f"runs finished in {duration(time.monotonic() - started)}; writing the report")
    page = write_report(plan, add=given["add"])
    draw_index(page.parent.parent)
    if failed:
        raise AunceError(f"some runs failed, the report is marked partial: {page}\n{see_them}")
    if not decides.startswith("Decides no"):
        click.echo("To show its verdicts there: aunce report claims; aunce report summary")
    click.echo(str(page))


def _keep_recorded(plan: Study) -> None:
    """Refuse settings of one's own where they would replace a page whose runs are not here, as those of the clone."""
    if plan.overrides and (plan.folder / "provenance.json").is_file() and not (plan.folder / "runs").is_dir():
        raise UsageError(
            f"{plan.folder} holds a report whose runs are not here, and these settings would replace it; copy the "
            "study file under another name, or name another folder for reports: AUNCE_REPORTS=FOLDER"
        )


def _options(overrides: Mapping[str, Any]) -> list[str]:
    """The options of the command line that give these overrides."""
    words = []
    for name, value in overrides.items():
        place = name in ("root", "test_root")
        words += [f"--{name.replace('_', '-')}", value] if place else ["--set", f"{name}={json.dumps(value)}"]
    return words


@functools.cache
@main.command()
@click.argument("study")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@with_overrides
@only_option
def run(study: str, keys: tuple[str, ...], overrides: dict[str, Any], only: tuple[str, ...]) -> None:
    """Execute the run KEY of STUDY in a fresh kernel, unless it is done. Several keys are executed in turn.

    On several GPUs at once: torchrun --nproc-per-node GPUS -m aunce run STUDY KEY.
    """
    leave_with_engine()
    plan = load_study(study, overrides)
    asked = plan.select(only) if only else plan.runs
    failed = 0
    for this in list(map(plan.run, keys)):
        try:
            _execute(plan, this, asked)
        except RunError as error:
            if len(keys) == 1:
                raise
            click.echo(f"aunce: {error}", err=True)
            failed += 1
    if failed:
        raise AunceError(f"{failed} of {len(keys)} runs failed")


def _execute(plan: Study, this: Run, asked: list[Run]) -> None:
    """Execute one run and say how far those that were asked for have come."""
    from aunce.study import execution

    key = this.key
    executed = execution.execute(plan, this, workers=cores())
    if not first_process():
        return
    if not executed:
        click.echo(f"{key}: done already")
        return
    state = progress(plan, asked, hashes=False)
    left = state.seconds_left / at_once([this])
    seconds = this.reach().metrics["duration_s"]
    click.echo(f"[{state.done}/{state.total}] {key}: {seconds:.0f} s, about {duration(left)} left")


@main.command(hidden=True)
@click.argument("study")
@click.argument("key")
@click.argument("name")
@with_overrides
@click.option("--workers", default=1)
def prepare(study: str, key: str, name: str, overrides: dict[str, Any], workers: int) -> None:
    """Render and crop the data NAME that the run KEY of STUDY needs. The engine calls this before the runs."""
    from aunce.study import execution

    leave_with_engine()
    data = next(data for data in load_study(study, overrides).run(key).data if data.name == name)
    started = time.monotonic()
    folder = execution.make_data(data, workers=workers, look=True, progress=ticker("packed"))
    click.echo(f"data {data.name}: {duration(time.monotonic() - started)}")
    if data.root:
        from aunce.data import images

        say_left_out(images.open_pack(folder))


@main.command()
@click.argument("study", required=False)
@with_overrides
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until all is done or Ctrl-C.")
def status(study: str | None, overrides: dict[str, Any], watch: bool) -> None:
    """Show what is done, running, failed and to do; without STUDY, one line for each."""
    need_clone()
    paths = sorted((NOTEBOOKS / "studies").glob("*.toml"))
    plans = [Study(path) for path in paths if path.stem != "table"]  # whose folds are those of its folder
    plans = plans if study is None else [load_study(study, overrides)]
    while True:
        states, lines = [], []
        for plan in plans:
            reached = {run.key: run.reach() for run in plan.runs}
            states.append(progress(plan, plan.runs, states=reached))
            lines.append(f"{plan.name if study is None else plan.title}: {in_words(states[-1])}")
            if study is not None:
                lines += [f"  {reached[run.key].name:8} {run.key}{_detail(run, reached[run.key])}" for run in plan.runs]
        if watch:
            click.clear()
        click.echo("\n".join(lines))
        if not watch or not any(state.running + state.to_do for state in states):
            return
        time.sleep(WATCH_S)


def _detail(one: Run, state: State) -> str:
    """Why a run failed, or the last line that a running one has printed; without control characters."""
    said = state.why or f"{state.error.get('message', '')} {state.error.get('remedy', '')}"
    log = one.folder / "log.txt"
    if state.name == "running" and log.is_file():
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            said = (file.read().decode(errors="replace").strip().splitlines() or [""])[-1]
    said = " ".join("".join(character if character.isprintable() else " " for character in said).split())
    return f"  {said}" if said else ""


@main.command()
@click.argument("name")
@with_overrides
@add_option
def report(name: str, overrides: dict[str, Any], add: bool) -> None:
    """Write the report NAME, and the index of all reports; nothing is trained.

    NAME is a study, whose finished runs are collected, or one that needs no runs: anatomy, audit, claims (the ledger),
    looks, loss, reliability (what tests/faults/record.py recorded), simulation, speed (ten minutes on an idle machine),
    summary (the ledger on one page), or index alone.
    """
    from aunce.report import index

    need_clone()
    studies = sorted(file.stem for file in (NOTEBOOKS / "studies").glob("*.toml"))
    if ".toml" in name or name.partition(":")[0] in studies:
        plan = load_study(name, overrides)
        _refuse_other_settings(plan)
        written = write_report(plan, add=add)
    elif name not in (*PAGES, "index"):
        base, _, size = name.rpartition("-")
        sized = base in studies and size in ("again", "gpu")
        meant = f"; meant '{base}:{size}', which writes that folder?" if sized else ""
        known = f"studies: {', '.join(studies)}; without runs: {', '.join(PAGES)}, index"
        raise UsageError(f"no report '{name}'{meant}; {known}")
    elif overrides:
        raise UsageError(f"report '{name}' needs no runs, so that it takes neither --root, --test-root nor --set")
    elif name == "index":
        click.echo(str(index.draw(REPORTS)))
        return
    else:
        written = write_page(name)
    draw_index(written.parent.parent)
    click.echo(str(written))


def _refuse_other_settings(plan: Study) -> None:
    """Refuse settings that no finished run has: collecting them would replace the tables by empty ones."""
    made = list((plan.folder / "runs").glob("*/metrics.json"))
    if made and not {path.parent.name for path in made} & {one.key for one in plan.runs}:
        raise UsageError(
            f"study '{plan.name}': none of the {len(made)} finished runs in {plan.folder / 'runs'} has these settings; "
            "give the --root, --test-root and --set that they were made with; the line Rebuild of the report names "
            "them"
        )


@main.command()
@click.argument("name")
def verify(name: str) -> None:
    """Compare the report of the study NAME with its tables, and all files with their hashes; exit 1 if any differs.

    A page without runs, such as claims or data/bp4d, is compared with its hashes alone.
    """
    from aunce.report import verification

    without_runs = name in PAGES or name.startswith("data/")
    found = verification.verify_page(REPORTS / name) if without_runs else verification.verify(load_study(name))
    for line in found.wrong:
        click.echo(line)
    for line in found.unchecked:
        click.echo(f"not checked: {line}")
    if found.wrong:
        raise AunceError(
            f"{len(found.wrong)} of the files above are not what they should be; `git checkout` brings committed ones "
            f"back, `aunce report {shlex.quote(name)}` draws the page again, and `aunce study` does damaged runs again"
        )
    click.echo(f"all as it should be: {'; '.join(found.checked) or 'nothing'}")


def write_report(plan: Study, *, add: bool = False) -> Path:
    """Collect the tables and draw the page, one process at a time; returns the path of the page. `add` as `collect`."""
    from aunce.report.collect import collect, render

    if not plan.folder.is_dir():
        return render(plan)  # refuses, with what to do
    with FileLock(plan.folder / ".lock", is_singleton=True):  # the lock of `page.render`
        if any((plan.folder / "runs").glob("*/*.json")):
            collect(plan, add=add)
        return render(plan)


def write_page(name: str) -> Path:
    """Draw one of `PAGES`; returns the path of the page."""
    from aunce.report import page

    title, parameters = PAGES[name]
    return page.render(NOTEBOOKS / f"{name}.ipynb", parameters, REPORTS / name, title=title)


def draw_index(reports: Path) -> None:
    """Draw the index of all reports. If the findings of one cannot be read, say so and leave the index as it is."""
    from aunce.report import index

    try:
        index.draw(reports)
    except UsageError as error:
        click.echo(f"aunce: the index is as it was: {error}", err=True)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .csv or .parquet file. Default: CSV to the screen.",
)
@click.option(
    "--detector", default="", help="Face detector in place of the run's: mtcnn, cascade, or the path of a YuNet file."
)
@click.option("--skip", default=1, type=click.IntRange(min=1), help="Take the first of this many frames of a video.")
@click.option("--fps", default=float("inf"), type=click.FloatRange(0, min_open=True), help="At most so many a second.")
@click.option(
    "--draw", type=click.Path(path_type=Path, file_okay=False), help="Also write the pictures and videos, with boxes."
)
@click.option("--show-faces", is_flag=True, help="Draw faces that are not rendered, too. Keep them to yourself.")
def predict(
    run: Path,
    paths: tuple[Path, ...],
    out: Path | None,
    detector: str,
    skip: int,
    fps: float,
    draw: Path | None,
    show_faces: bool,
) -> None:
    """Predict the action units of all faces in images, folders and videos.

    RUN is the folder of a finished run, reports/STUDY/runs/KEY. One row per face and frame: input, frame (from 1),
    face_id (0 is the largest), track (the same face over a video), timestamp (seconds), confidence (of the face
    detector; 0: no face), success (1: a face), the face's box and eyes in pixels, the probabilities AU01, AU02, ...,
    AU01_c, AU02_c, ... (1: above the threshold chosen in training), and trained_on. Faces are found and aligned as for
    the training of the run; if that took images as they were (align none), the centred square of each image is taken
    for a face, unless --detector names one. --draw needs --show-faces for faces that are not rendered.
    """
    from aunce import prediction

    say = functools.partial(click.echo, err=True)
    prediction.check_out(out)
    files = prediction.sources(paths, note=say)
    if draw is not None and not (show_faces or all(map(prediction.is_rendered, files))):
        raise UsageError("--draw: these faces are not rendered; add --show-faces, and keep what is drawn to yourself")
    if draw is not None and show_faces:
        refuse_committed(draw, "--draw")
    model = prediction.load(run, detector=detector)
    if model.trained_on == prediction.RENDERED:
        say(f"aunce: this model was trained on {model.trained_on}")
    if model.find is None:
        say("aunce: no face is looked for, as in the training of this run; --detector mtcnn finds them")
    if all(map(math.isnan, model.thresholds)):
        say("aunce: this run was made before thresholds were kept; the columns AU01_c, AU02_c, ... are empty")
    broken: list[str] = []
    options: dict[str, Any] = {"every": skip, "fps": fps, "warn": broken.append, "note": say}
    tables = prediction.predict(model, files, progress=ticker("predicted"), **options)
    made = prediction.write(tables if draw is None else prediction.draw(model, tables, draw), out)
    if out is not None:
        click.echo(f"{out}: {made.rows:,} rows")
    if model.find is not None or made.without:
        where = f", listed in {out or 'the table'} with success 0" if made.without else ""
        say(f"no face in {made.without:,} of {made.frames:,} frames{where}")
    if broken:
        raise DataError("\n".join([*broken, f"{made.rows:,} rows are written; these images have one without a face"]))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(["torch", "onnx", "archive"]), help="What to write.")
@click.option("--out", type=click.Path(path_type=Path), help="The file. Default: beside RUN, named after it.")
def export(run: Path, to: str, out: Path | None) -> None:
    """Write the finished run RUN for other programs: from crops to probabilities, or the run as one archive."""
    from aunce.export import export as write

    click.echo(str(write(run, to, out)))


main.add_command(data)


def in_words(state: Progress) -> str:
    """How far a study has come, in one line: runs by state, and the time left with those that run now."""
    said = f"{state.done} done, {state.running} running, {state.failed} failed, {state.to_do} to do"
    if state.damaged:
        said += f", {state.damaged} damaged"
    if state.unchecked:
        said += f" ({state.unchecked} of those done have no hashes and were not checked)"
    if state.last_hour:
        said += f"; {state.last_hour} in the last hour"
    if state.running:
        return f"{said}; about {duration(state.seconds_left / state.running)} left with {state.running} side by side"
    return f"{said}; about {duration(state.seconds_left)} of work left" if state.to_do else said
