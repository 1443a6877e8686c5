"""The `aunce` command: thin, so that `aunce --help` is quick; everything heavy is imported where it is needed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from aunce.errors import AunceError
from aunce.study import NOTEBOOKS, Progress, Run, Study, load_study, progress


class ErrorsInOneLine(click.Group):
    """What a user can mend is shown as one message; exit code 2 for usage, 1 for a failed run; --debug shows more."""

    def invoke(self, ctx: click.Context) -> None:
        try:
            super().invoke(ctx)
        except AunceError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"aunce: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:  # the reader, `head` for instance, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would complain
            ctx.exit(0)
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"aunce: {error.strerror or error}: {error.filename or ''}".rstrip(": "), err=True)
            ctx.exit(1)


@click.group(cls=ErrorsInOneLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="aunce")
def main(debug: bool) -> None:
    """A reproducibility study of AUNCE, a contrastive loss for facial action unit detection."""


@main.command()
@click.argument("study")
@click.option("--profile", default="laptop", show_default=True, help="A folder in notebooks/profiles, or a path.")
@click.option("--only", multiple=True, metavar="AXIS=VALUE", help="Do a part of the grid; may be given several times.")
@click.option("--dry-run", is_flag=True, help="Count the runs and estimate hours and disk; start nothing.")
def study(study: str, profile: str, only: tuple[str, ...], dry_run: bool) -> None:
    """Do all runs of STUDY that are not done yet, then write its report.

    STUDY is a name in notebooks/studies or the path of a TOML file. Running again continues.
    """
    plan = load_study(study)
    runs = plan.select(only)
    state = progress(plan, runs)
    side_by_side = max(1, cores() // max(run.spec.threads for run in runs))
    click.echo(
        f"{plan.title}: {len(runs)} runs, {state.done} done, about {duration(state.seconds_left / side_by_side)} to go"
    )
    if dry_run:
        gigabytes = sum(map(disk_of_data, {run.data.name: run for run in runs}.values())) + 2e-3 * len(runs)
        click.echo(f"{side_by_side} runs side by side; about {gigabytes:.1f} GB of disk in all. Nothing was started.")
        return
    to_do = [run for run in runs if run.state != "done"]
    started = time.monotonic()
    failed = bool(to_do) and not engine(plan, to_do, profile)
    click.echo(f"runs finished in {duration(time.monotonic() - started)}; writing the report")
    page = write_report(plan)
    if failed:
        raise AunceError(f"some runs failed, the report is marked partial: {page}\nSee them with: aunce status {study}")
    click.echo(str(page))


def engine(plan: Study, runs: list[Run], profile: str) -> bool:
    """Let Snakemake do `runs`; True if all of them ended well."""
    folder = (
        NOTEBOOKS / "profiles" / profile if (NOTEBOOKS / "profiles" / profile).is_dir() else Path(profile).resolve()
    )
    # A working directory for each call: Snakemake's own records are never needed twice. Below the study, where all
    # nodes of a cluster see it.
    plan.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".engine-", dir=plan.folder) as work:
        keys = Path(work) / "keys"
        keys.write_text("\n".join(run.key for run in runs))
        command = [sys.executable, "-m", "snakemake", "--snakefile", NOTEBOOKS / "Snakefile", "--directory", work]
        command += ["--profile", folder, "--config", f"study={plan.path}", f"keys={keys}"]
        return subprocess.run([str(word) for word in command]).returncode == 0


@main.command()
@click.argument("study")
@click.argument("key")
def run(study: str, key: str) -> None:
    """Execute the run KEY of STUDY in a fresh kernel, unless it is done."""
    from aunce import execution

    plan = load_study(study)
    this = plan.run(key)
    if not execution.execute(plan, this, workers=cores()):
        click.echo(f"{key}: done already")
        return
    state = progress(plan, plan.runs)
    left = state.seconds_left / max(1, cores() // this.spec.threads)
    seconds = this.read("metrics.json")["duration_s"]
    click.echo(f"[{state.done}/{state.total}] {key}: {seconds:.0f} s, about {duration(left)} left")


@main.command(hidden=True)
@click.argument("study")
@click.argument("key")
@click.option("--workers", default=1)
def prepare(study: str, key: str, workers: int) -> None:
    """Render and pack the data that the run KEY of STUDY needs; the engine calls this before the runs."""
    from aunce import execution

    data = load_study(study).run(key).data
    started = time.monotonic()
    execution.make_data(data, workers=workers)
    click.echo(f"data {data.name}: {duration(time.monotonic() - started)}")


@main.command()
@click.argument("study", required=False)
def status(study: str | None) -> None:
    """Show what is done, running, failed and to do; without STUDY, one line for each."""
    if study is None:
        for path in sorted((NOTEBOOKS / "studies").glob("*.toml")):
            plan = Study(path)
            click.echo(f"{plan.name}: {in_words(progress(plan, plan.runs))}")
        return
    plan = load_study(study)
    click.echo(f"{plan.title}: {in_words(progress(plan, plan.runs))}")
    for one in plan.runs:
        click.echo(f"  {one.state:8} {one.key}{_detail(one)}")


def _detail(one: Run) -> str:
    if one.state == "failed":
        return f"  {one.read('error.json').get('message', '')}"
    log = one.folder / "log.txt"
    if one.state == "running" and log.is_file():
        lines = log.read_text().strip().splitlines()
        return f"  {lines[-1]}" if lines else ""
    return ""


@main.command()
@click.argument("study")
def report(study: str) -> None:
    """Write the report of STUDY from the runs that are done; nothing is trained."""
    click.echo(str(write_report(load_study(study))))


def write_report(plan: Study) -> Path:
    """Collect the tables, render the page; returns its path."""
    from aunce import report as reports

    if any((plan.folder / "runs").glob("*/*.json")):
        reports.collect(plan)
    return reports.render(plan)


@main.group()
def data() -> None:
    """Render, check and pack data sets."""


@data.command()
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--subjects", default=41, show_default=True, help="Subjects, dealt evenly over the parts.")
@click.option(
    "--frames", default=None, type=int, help="Frames per sequence, spread over its coded segment. Default: all."
)
@click.option("--seed", default=0, show_default=True, help="Another seed is another population.")
@click.option("--size", default=96, show_default=True, help="Side of the frames in pixels.")
@click.option("--setting", default="easy", show_default=True, type=click.Choice(["easy", "hard"]))
def synth(name: str, out: Path, subjects: int, frames: int | None, seed: int, size: int, setting: str) -> None:
    """Render faces in the raw layout of the data set NAME into OUT."""
    from aunce.data import adapter

    write = adapter(name).write
    write(
        out,
        setting=setting,
        subjects=subjects,
        frames=frames,
        seed=seed,
        size=size,
        workers=cores(),
        progress=_ticker("rendered"),
    )
    click.echo(f"{out}: rendered faces in the layout of {name}")


@data.command()
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
def check(name: str, root: Path) -> None:
    """Print the data card of the data set NAME at ROOT; exit 1, with file and line, if something is wrong."""
    from aunce.data import load

    table = load(name, root, images="optional")
    for title, value in table.summary().items():
        click.echo(f"{title}: {value}")
    click.echo(table.card().to_string(index=False, float_format="{:.3f}".format))


@data.command()
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--pixels", default=48, show_default=True, help="Side of the crops.")
def pack(name: str, root: Path, pixels: int) -> None:
    """Crop the faces of the data set NAME at ROOT once, into one memory-mapped file beside their labels."""
    from aunce.data import prepare

    made = prepare(name, root, pixels=pixels, workers=cores(), progress=_ticker("packed"))
    click.echo(f"{made.folder}: {len(made.table.frames)} crops of {pixels} px, hash {made.hash}")


def _ticker(verb: str) -> Callable[[int, int], None]:
    """A progress callback: a line at most every five seconds, with the time left."""
    started = last = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 5:
            last = now
            click.echo(
                f"{verb} {done} of {total}, about {duration((now - started) / done * (total - done))} left", err=True
            )

    return tick


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def duration(seconds: float) -> str:
    """`seconds` in words that a person reads at a glance."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_words(state: Progress) -> str:
    left = f", about {duration(state.seconds_left)} of work left" if state.running + state.to_do else ""
    return f"{state.done} done, {state.running} running, {state.failed} failed, {state.to_do} to do{left}"


def disk_of_data(run: Run) -> float:
    """Gigabytes that the data of `run` takes: JPEG at about half a byte a pixel, crops at three."""
    if run.data.spec.root:
        return 0.0
    frames = run.data.spec.subjects * 8 * run.data.spec.frames
    return frames * (0.5 * run.data.spec.size**2 + 3 * run.spec.pixels**2) / 1e9
