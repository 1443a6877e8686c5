"""The commands `aunce data ...`, and what other commands need of them."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aunce.data import data_set
from aunce.data.render.difficulty import VERSIONS
from aunce.errors import UsageError
from aunce.study.grid import NOTEBOOKS, REPORTS, duration, need_clone
from aunce.study.guess import cores

if TYPE_CHECKING:
    from aunce.data.images import FaceCrops


def with_table(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that describe a table of labels; the command gets them as `described`, for `table.describe`."""

    @functools.wraps(command)
    def call(*args: Any, columns: str | None, unknown: tuple[str, ...], **options: Any) -> None:
        names = ("images", "folds", "seed", "positive_from")
        described = {name: options.pop(name) for name in names}
        if described["images"]:
            described["images"] = str(Path(described["images"]).resolve())
        described["columns"] = [name.strip() for name in columns.split(",")] if columns else None
        described["unknown"] = list(unknown) or None
        command(*args, described={name: value for name, value in described.items() if value is not None}, **options)

    place = click.Path(exists=True, file_okay=False)
    for option, kind, help_text in (
        ("--columns", str, "Label columns, with commas between. Default: AU1, AU2, ..."),
        ("--positive-from", float, "Cells are intensities, present from this value on."),
        ("--seed", int, "Of dealing the people."),
        ("--folds", int, "Parts that people are dealt to, where no column 'part' is. Default: 3."),
        ("--images", place, "Folder of the images."),
    ):
        call = click.option(option, type=kind, help=f"Of a table of labels: {help_text}")(call)
    return click.option("--unknown", multiple=True, help="Of a table of labels: a code of unknown labels.")(call)


def root_of_table(labels: Path | None, described: Mapping[str, Any]) -> Path:
    """The folder of a table of labels, described by the options given."""
    from aunce.data import table

    if labels is None:
        raise UsageError(
            f"--{next(iter(described)).replace('_', '-')} describes a table of labels; name it: --labels FILE"
        )
    return table.describe(labels, **described)


def say_left_out(pack: "FaceCrops") -> None:
    """What the pack of a real data set lacks."""
    if said := pack.table.without_image():
        click.echo(f"left out: {said}")
    for frames, why in ((pack.no_face, "no face was found"), (pack.broken, "the image cannot be read")):
        if frames:
            click.echo(f"left out, because {why}: {len(frames):,} frames, listed in {pack.folder / 'skipped.csv'}")


def refuse_committed(folder: Path, option: str) -> None:
    """Refuse a folder below the reports for faces of people."""
    if REPORTS.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise UsageError(
            f"{option}, --show-faces: pages in {REPORTS} are committed; name a folder that is not, such as card"
        )


@click.group()
def data() -> None:
    """Render, check and pack data sets."""


@data.command()
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--subjects", type=int, help="Subjects, dealt evenly over the parts. Default: all.")
@click.option("--frames", type=int, help="Frames per sequence, spread over its published ones. Default: all.")
@click.option("--seed", default=0, show_default=True, help="Another seed is another population.")
@click.option("--size", type=int, help="Side of the frames in pixels. Default: 96, and 112 for affwild2.")
@click.option("--setting", default="easy", show_default=True, type=click.Choice(["easy", "hard"]))
@click.option(
    "--faces",
    default="drawn",
    show_default=True,
    type=click.Choice([*VERSIONS]),
    help="Drawn in 2D, or a modelled 3D head.",
)
def synth(name: str, out: Path, **options: Any) -> None:
    """Render faces in the raw layout of the data set NAME into OUT."""
    from aunce.data import renderer

    renderer(name).write(out, workers=cores(), progress=ticker("rendered"), **options)
    click.echo(f"{out}: rendered faces in the layout of {name}")


@data.command()
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--protocol", default="", help="A protocol of the data set by name. Default: its first.")
@click.option("--page", type=click.Path(path_type=Path), help="Also write the card as index.html into this folder.")
@click.option("--show-faces", is_flag=True, help="Show faces on the page that are not rendered. Keep it to yourself.")
@with_table
def check(name: str, root: Path, protocol: str, page: Path | None, show_faces: bool, described: dict[str, Any]) -> None:
    """Print the data card of the data set NAME at ROOT; exit 1, with file and line, if something is wrong.

    For `table` ROOT may be the table of labels, CSV or Parquet; its options are kept in table.json beside it.
    """
    from aunce.data import load, refuse_missing
    from aunce.evaluation import scored_aus
    from aunce.report.card import DataCard

    if page is not None:
        need_clone()
        if show_faces:
            refuse_committed(page, "--page")
    if described and name != "table":
        raise UsageError(f"--{next(iter(described)).replace('_', '-')} describes a table of labels; {name} has its own")
    if described or (name == "table" and root.is_file()):
        root = root_of_table(root, described)
    card = DataCard(name, root, protocol=protocol)
    click.echo(card.text())
    labels, subjects = card.table.labels, card.table.frames["subject"].to_numpy()
    rows = [(card.table.frames["part"] == part).to_numpy() for part in card.table.parts]
    if not any(scored_aus(labels[part], subjects[part], card.table.aus, card.table.null_aus) for part in rows):
        click.echo(
            "No part has an AU with 10 positive frames in each of 5 people: runs would have no macro score", err=True
        )
    if page is not None:
        from aunce.report import page as pages

        parameters = {"dataset": name, "root": str(root.resolve()), "protocol": protocol, "show_faces": show_faces}
        kind = "rendered" if card.table.synthetic else "recorded"  # faces of the generators are on rendered cards alone
        title = f"Data card: {data_set(name).title}"
        click.echo(pages.render(NOTEBOOKS / "data.ipynb", parameters, page, title=title, study=kind))
        if REPORTS.resolve() in page.resolve().parents:
            from aunce.cli import draw_index

            draw_index(REPORTS)
    load(name, root, protocol=protocol)  # says where the first image was looked for, if none is there
    if said := refuse_missing(card.table, root):
        click.echo(f"{said}; these would be left out", err=True)


@data.command()
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.option(
    "--pixels",
    type=click.IntRange(min=1),
    help="Side of the crops. Default: 256, and 112 for affwild2, its native size.",
)
@click.option(
    "--align",
    type=click.Choice(["landmarks", "detector", "none"]),
    help="What the eyes are brought to their place by. Default: landmarks where the data set ships them.",
)
@click.option("--detector", default="mtcnn", show_default=True, help="mtcnn, cascade, or the path of a YuNet file.")
@click.option("--protocol", default="", help="A protocol of the data set by name. Default: its first.")
@click.option("--allow-missing", is_flag=True, help="Leave labelled frames without an image out, however many.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the pack. Default: below $AUNCE_DATA.")
def pack(
    name: str, root: Path, pixels: int | None, align: str | None, detector: str, out: Path | None, **options: Any
) -> None:
    """Crop the faces of the data set NAME at ROOT once, into one memory-mapped file beside their labels."""
    from aunce.data import pack_faces, prepare
    from aunce.data.recipes import Recipe

    usual = data_set(name)
    recipe = Recipe(pixels or usual.pixels, align or usual.align, detector)  # type: ignore[arg-type]
    options |= {"recipe": recipe, "workers": cores(), "progress": ticker("packed")}
    made = prepare(name, root, **options) if out is None else pack_faces(name, root, out, **options)
    click.echo(f"{made.folder}: {len(made.table)} crops of {recipe.size} px, hash {made.hash}")
    say_left_out(made)


@data.command("verify")
@click.argument("pack", type=click.Path(path_type=Path))
def verify_pack(pack: Path) -> None:
    """Compare labels and all pixels of PACK with their hashes; exit 1 unless they are what was packed."""
    from aunce.data import images

    checked = images.open_pack(pack, check=True)
    click.echo(f"{pack}: labels and pixels of {len(checked.table):,} crops are what was packed, hash {checked.hash}")


def ticker(verb: str) -> Callable[[int, int], None]:
    """A progress callback that prints at most every five seconds; time left is by the pace since its first call."""
    first: tuple[float, int] | None = None
    last = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        if first is None:
            first = now, done
        if now - last > 5 and done > first[1]:
            last = now
            left = (now - first[0]) / (done - first[1]) * (total - done)
            click.echo(f"{verb} {done} of {total}, about {duration(left)} left", err=True)

    return tick
