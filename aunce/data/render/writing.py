"""Writes the raw layout of a data set with rendered faces: who is drawn, in which order, by how many processes.

What the files look like is said by a `Layout` in the adapter of the data set, beside the reader of the same files.
A root is complete when `synthetic.json` is there; until then `synthetic.json.partial` holds the options it was begun
with, and the same command continues after the last whole sequence.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aunce import files
from aunce.data.layout import LATENTS, MARKER, UNFINISHED, read_marker
from aunce.data.render.behaviour import AUS, NULL_AU, Behaviour
from aunce.data.render.difficulty import SETTINGS, VERSIONS, difficulty_of, seed_of
from aunce.data.render.population import Population, generator
from aunce.errors import RunError, UsageError
from aunce.processes import leave_with_parent

RATES = ("own", "dealt")
OFTEN, RARE = 0.5, 0.02
"""The largest and the smallest of the rates "dealt"."""
PIXELS_A_WORKER = 4_000_000
"""Fewer are rendered sooner by one process: on 2 cores of an Intel Xeon two overtook one between 1 and 8 million, at
sides of 32 to 128."""


@dataclass(frozen=True)
class Job:
    """One sequence to write.

    Attributes:
        subject: its subject.
        sequence: its name within the subject, as the reader gives it.
        frames: frame numbers (T,), as the reader gives them.
        times: seconds since the start of the sequence (T,).
        elicits: the task of `behaviour.TASKS` that sets the mood; any other name is neutral.
        padding: width of the image names, where a layout pads with zeros.
    """

    subject: str
    sequence: str
    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    elicits: str = ""
    padding: int = 0

    @property
    def name(self) -> str:
        """Stem of the files of the sequence: subject and sequence, joined by an underscore."""
        return f"{self.subject}_{self.sequence}"


@dataclass(frozen=True)
class Rendered:
    """What a layout writes to files for one job; images and landmarks are drawn when they are asked for."""

    job: Job
    behaviour: Behaviour
    population: Population
    size: int

    def images(self) -> NDArray[np.uint8]:
        """(T, size, size, 3), RGB."""
        return self.population.images(self.job.subject, self.behaviour, size=self.size)

    def landmarks(self) -> NDArray[np.float64]:
        """(T, 49, 2): x and y in pixels of `images`, see `Population.landmarks`."""
        return self.population.landmarks(self.job.subject, self.behaviour, size=self.size)


class Layout(ABC):
    """The files of one data set, as far as writing them goes.

    Attributes:
        dataset: name of the data set.
        parts: part -> its subjects, in the published order.
        rates: part -> AU -> positive rate.
        folders: what a rendering leaves in the root besides its markers.
        size: side of the images in pixels, unless asked otherwise.
    """

    dataset: str
    parts: Mapping[str, Sequence[str]]
    rates: Mapping[str, Mapping[int, float]]
    folders: tuple[str, ...]
    size = 96

    @functools.cached_property
    def part_of(self) -> dict[str, str]:
        """Subject -> its part, in the published order."""
        return {subject: part for part, subjects in self.parts.items() for subject in subjects}

    def people(self, count: int) -> list[str]:
        """The first `count` subjects, taken from each part in turn; in the published order."""
        order = list(self.part_of)
        longest = max(map(len, self.parts.values()))
        turns = [some[turn] for turn in range(longest) for some in self.parts.values() if turn < len(some)]
        return sorted(turns[:count], key=order.index)

    @abstractmethod
    def plan(self, people: list[str], frames: int | None) -> list[Job]:
        """The sequences of these people, with `frames` frames each, or as many as published."""

    @abstractmethod
    def labels(self, out: Path, job: Job) -> Path:
        """The label file of a sequence, the last one if there are several: it says that the sequence is complete."""

    @abstractmethod
    def write(self, out: Path, rendered: Rendered) -> None:
        """Writes one sequence: images, landmarks if the layout has any, then, by `write_file`, the labels."""

    def finish(self, out: Path) -> None:  # noqa: B027 - most layouts have nothing of the kind
        """Writes what is there once for all sequences, such as a list of subjects."""

    def render(self, out: str | PathLike[str], **options: Any) -> None:
        """Writes rendered faces in this layout. Options and errors are those of the function `render`."""
        render(self, out, **options)


def render(
    layout: Layout,
    out: str | PathLike[str],
    *,
    setting: str = "easy",
    subjects: int | None = None,
    frames: int | None = None,
    seed: int = 0,
    size: int | None = None,
    rates: str = "own",
    faces: str = "drawn",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a layout with rendered faces.

    A finished root with the same options is left alone, an unfinished one is continued, and an unfinished one that was
    begun with other options is begun anew. `synthetic.json`, written last, says that the root is rendered and complete.

    Args:
        layout: of the data set.
        out: the root to write.
        setting: a name in `difficulty.SETTINGS`.
        subjects: how many, spread evenly over the parts. Default: all.
        frames: frames per sequence, spread evenly over the published ones. Default: all.
        seed: of everything random. The bytes do not depend on `workers`.
        size: side of the square images in pixels, 16 to 512. Default: the layout's.
        rates: "own", those of each subject's part; or "dealt": from 50 % to 2 % in equal ratios, assigned at random to
            the AUs that have a rate, the same for all parts. So the rarity of an AU says nothing about its kind.
        faces: name of the generator, one of `difficulty.VERSIONS`.
        workers: processes at most; few faces are rendered sooner by one.
        progress: called with sequences done and sequences in all.

    Raises:
        UsageError: an option out of range, or a folder that holds something else.
        DataError: a file of the generator is damaged.
        RunError: a worker process died.
    """
    out, size = Path(out), layout.size if size is None else size
    subjects = len(layout.part_of) if subjects is None else subjects
    if setting not in SETTINGS:
        raise UsageError(f"unknown setting {setting!r}. Known: {', '.join(SETTINGS)}.")
    if not 1 <= subjects <= len(layout.part_of):
        raise UsageError(f"subjects is {subjects}. Expected 1 to {len(layout.part_of)}.")
    if rates not in RATES:
        raise UsageError(f"unknown rates {rates!r}. Known: {', '.join(RATES)}.")
    if not 16 <= size <= 512:
        raise UsageError(f"size is {size}. Expected 16 to 512.")
    for name, value, least in (("frames", frames, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}. Expected {least} or more.")
    people = layout.people(subjects)
    jobs = layout.plan(people, frames)
    of_person = {subject: layout.rates[layout.part_of[subject]] for subject in people}
    if rates == "dealt":
        of_person = dict.fromkeys(people, dealt_rates(of_person[people[0]], seed))
    generator(faces)  # refuses an unknown one before its version is asked for
    difficulty = difficulty_of(layout.dataset, setting, faces)
    settings = {
        "format": 1,
        "dataset": layout.dataset,
        "setting": setting,
        "dials": difficulty.content,
        "seed": seed,
        "version": VERSIONS[faces],
        "null_au": NULL_AU,
        "subjects": people,
        "frames": frames,
        "size": size,
    }
    if rates != "own":  # so that what was rendered before there was a choice stays what it was
        settings["rates"] = rates
    if faces != "drawn":
        settings["faces"] = faces
    if not _prepare(layout, out, settings):
        return
    population = Population(
        people, rates=of_person, difficulty=difficulty, seed=seed_of(layout.dataset, seed), faces=faces
    )
    arguments = (layout, out, population, size)
    pixels = sum(len(job.frames) for job in jobs) * size**2
    workers = min(workers, len(jobs), 1 + pixels // PIXELS_A_WORKER)
    intensities = {}
    for done, (name, intensity) in enumerate(_run(arguments, jobs, workers), start=1):
        intensities[name] = intensity
        if progress is not None:
            progress(done, len(jobs))
    layout.finish(out)
    _write_latents(out / LATENTS, jobs, intensities, AUS)
    os.sync()  # all files are on the disk before the marker
    files.write(out / MARKER, _as_json(settings))
    (out / UNFINISHED).unlink(missing_ok=True)


def dealt_rates(aus: Iterable[int], seed: int) -> dict[int, float]:
    """AU -> rate: from `OFTEN` to `RARE` in equal ratios, assigned to the AUs at random by `seed`."""
    order = np.random.default_rng([seed, zlib.crc32(b"rates")]).permutation(sorted(aus))
    return dict(zip(order.tolist(), np.geomspace(OFTEN, RARE, len(order)).tolist(), strict=True))


def evenly_spaced(length: int, frames: int | None) -> NDArray[np.int64]:
    """`frames` places in a sequence of `length`: the middles of as many equal stretches; all without `frames`."""
    count = length if frames is None else min(frames, length)
    return ((np.arange(count) + 0.5) * length / count).astype(np.int64)


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file that is whole or absent, and makes its folder. Not flushed: `render` does that once, for all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content, flush=False)


def write_jpegs(folder: Path, images: NDArray[np.uint8], names: list[str]) -> None:
    """Writes images (T, H, W, 3) RGB as JPEG of quality 95."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
        (folder / name).write_bytes(data.tobytes())


def _prepare(layout: Layout, out: Path, settings: dict[str, Any]) -> bool:
    """Makes the folder ready for writing. False if it is finished already."""
    marker, unfinished = out / MARKER, out / UNFINISHED
    # The unfinished marker is taken away after the finished one is there, so the finished one decides.
    if marker.exists():
        if read_marker(out, layout.dataset, layout.dataset) != json.loads(_as_json(settings)):
            raise UsageError(f"{out}: holds faces rendered with other options. Name another folder or remove this one.")
        unfinished.unlink(missing_ok=True)
        return False
    if out.exists() and not unfinished.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already, and was not rendered by this command. Name a new folder.")
    if unfinished.exists() and unfinished.read_text(encoding="utf-8") != _as_json(settings):
        for name in layout.folders:  # whatever stays would be taken for a sequence of this rendering
            if (out / name).exists():
                shutil.rmtree(out / name)
    out.mkdir(parents=True, exist_ok=True)
    write_file(unfinished, _as_json(settings))
    return True


Arguments = tuple[Layout, Path, Population, int]


def _run(arguments: Arguments, jobs: list[Job], workers: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Writes the sequences and yields the intensities of each as it is done."""
    if workers == 1:  # one process is enough, and keeps errors and debuggers close
        yield from (_write(*arguments, job) for job in jobs)
        return
    # Spawned, not forked: the parent may hold threads of OpenCV or torch, and forked locks hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, arguments) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RunError(
                "a rendering process died, perhaps for lack of memory. Run the same command again, with fewer workers "
                "if it dies again: finished sequences are kept."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _write(layout: Layout, out: Path, population: Population, size: int, job: Job) -> tuple[str, NDArray[np.float32]]:
    """Writes one sequence, unless it is there, and returns its name and its intensities."""
    behaviour = population.sequence(job.subject, job.elicits or job.sequence, job.times)
    if not layout.labels(out, job).exists():
        layout.write(out, Rendered(job, behaviour, population, size))
    return job.name, behaviour.intensity


_arguments: Arguments | None = None


def _start_worker(*arguments: Any) -> None:
    """Once per process. OpenCV gets one thread, because there is a process per core."""
    global _arguments
    leave_with_parent()
    cv2.setNumThreads(1)
    _arguments = arguments


def _work(job: Job) -> tuple[str, NDArray[np.float32]]:
    assert _arguments is not None
    return _write(*_arguments, job)


def _write_latents(
    path: Path, jobs: list[Job], intensities: Mapping[str, NDArray[np.float32]], aus: tuple[int, ...]
) -> None:
    length = [len(job.frames) for job in jobs]
    intensity = np.concatenate([intensities[job.name] for job in jobs])
    table = pd.DataFrame(
        {
            "subject": np.repeat([job.subject for job in jobs], length),
            "sequence": np.repeat([job.sequence for job in jobs], length),
            "frame": np.concatenate([job.frames for job in jobs]),
            **{f"AU{au}": intensity[:, k] for k, au in enumerate(aus)},
        }
    )
    with files.beside(path) as partial:
        table.to_parquet(partial, index=False)


def _as_json(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"
