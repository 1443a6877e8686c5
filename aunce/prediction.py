"""Prediction: the action units of faces in images and videos of one's own, by a finished run.

Faces are found, aligned and cropped as they were for the training of the run. Columns are named as in OpenFace and
py-feat. AU01, AU02, ... are probabilities of occurrence by the frozen probe of the last epoch.
"""

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import cv2
import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aunce import files
from aunce.data import data_set, images
from aunce.data.faces import FaceDetector, face_detector
from aunce.devices import pick_device
from aunce.errors import DataError, UsageError
from aunce.methods import crops, train, untrained_encoder
from aunce.model import Encoder, LinearProbe
from aunce.probe import centre, embed, probabilities
from aunce.study.grid import BACKBONE, PROBE, WEIGHTS
from aunce.study.results import Recorder
from aunce.study.spec import RunSpec
from aunce.study.state import read_state

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
RENDERED = "rendered faces (not fit for photographs)"
BATCH = 64  # faces that go through the network together
WINDOW = 6  # a patch that `regions` covers is this part of the side of a crop


@dataclass(frozen=True)
class Model:
    """A finished run, ready to predict."""

    spec: RunSpec
    aus: tuple[int, ...]  # the K AU numbers that encoder and probe are for
    shown: tuple[int, ...]  # those of them that are predicted: one that was labelled and never drawn is not
    trained_on: str  # the data set, or `RENDERED`
    encoder: Encoder  # with the weights of the last epoch
    probe: LinearProbe  # fitted on its features
    find: FaceDetector | None  # finds the faces; None takes each image for one
    device: str

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the AUs that are predicted: AU01, AU02, ..."""
        return [f"AU{au:02}" for au in self.shown]


class Face(NamedTuple):
    """A face, or a frame in which none was found."""

    input: str  # the file
    frame: int  # of a video, from 1 as in OpenFace; 1 of an image
    face_id: int  # among the faces of a frame, 0 is the largest; it does not follow a person from frame to frame
    timestamp: float  # seconds from the start of the video, 0 of an image
    confidence: float  # of the face detector, 0 if there is no face, NaN if no detector was asked
    crop: NDArray[np.uint8] | None  # (size, size, 3) RGB; None if there is no face


def load(run: str | Path, *, detector: str = "") -> Model:
    """Read a finished run from its folder.

    Args:
        run: the folder, with `metrics.json`, `encoder.safetensors` and `probe.safetensors`.
        detector: a face detector in place of that of the run, "cascade" or the path of a YuNet file. A run whose faces
            were aligned by shipped landmarks needs one, too: the eyes come to lie where those landmarks had them.

    Raises:
        UsageError: no finished run, one without an encoder, or an unknown detector.
        DataError: files that do not belong together.
    """
    run = Path(run)
    path = run / "metrics.json"
    if not path.is_file():
        raise UsageError(
            f"{run}: no finished run, metrics.json is not there. Name a folder reports/STUDY/runs/KEY; `aunce status "
            "STUDY`, with the --root and --set of the study, lists those that are done. A run of the notebook alone is "
            "done if it ended well: rename its metrics.json.partial to metrics.json."
        )
    state = read_state(run)
    if state.name == "damaged":
        raise DataError(f"{run}: damaged, {state.why}; the command that made the run does it again")
    try:
        metrics = state.metrics
        facts = metrics["data"]
        aus = tuple(int(au) for au in facts["rates"])
        shown = tuple(au for au in aus if au not in facts["null_aus"])
        values, rendered = dict(metrics["spec"]), bool(facts["synthetic"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not the metrics of a run ({error!r})") from None
    spec = RunSpec.checked(values, str(path))
    trained_on = RENDERED if rendered else data_set(spec.dataset).title
    for name in (WEIGHTS, PROBE):
        if not (run / name).is_file():
            why = (
                "its features are not learned, so that there is no encoder"
                if spec.method in ("pixels", "latent")
                else "move metrics.json away and let `aunce run STUDY KEY` do the run again"
            )
            raise UsageError(f"{run / name}: not there, method '{spec.method}'; {why}")
    probe = LinearProbe(len(aus), spec.channels)
    try:
        encoder = _trained_encoder(spec, len(aus), run / WEIGHTS)
        probe.load_state_dict(safetensors.torch.load_file(run / PROBE))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"{run}: the weights are not those of metrics.json ({error})") from None
    find = None if spec.align == "none" else face_detector(detector or spec.detector)
    device = pick_device("auto")
    return Model(spec, aus, shown, trained_on, encoder.to(device).eval(), probe.to(device).eval(), find, device)


def sources(paths: Iterable[str | Path]) -> list[Path]:
    """The images and videos that `paths` name, in their order; those of a folder, at any depth, by name.

    Raises:
        UsageError: a path that is not there, a file of another kind, or a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        known = (*IMAGES, *VIDEOS)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in known and file.is_file())
            if not inside:
                raise UsageError(f"{path}: no image or video in there; known: {', '.join(known)}")
            found += inside
        elif not path.is_file():
            raise UsageError(f"{path}: no such file or folder")
        elif path.suffix.lower() not in known:
            raise UsageError(f"{path}: neither an image nor a video; known: {', '.join(known)}")
        else:
            found.append(path)
    return found


def predict(
    model: Model,
    paths: Iterable[str | Path],
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = print,
) -> Iterator[pd.DataFrame]:
    """Predict the AUs of all faces in images, folders and videos.

    Args:
        model: see `load`.
        paths: see `sources`.
        progress: called with frames done and frames in all, as far as the videos say.
        warn: takes one line for each file, or end of a video, that cannot be decoded; the others are predicted.

    Yields:
        Tables as of `table`, `BATCH` rows at a time; one without rows if no file could be read.

    Raises:
        UsageError: see `sources`.
    """
    found = find_faces(model, paths, progress=progress, warn=warn)
    batches = iter(lambda: list(itertools.islice(found, BATCH)), [])
    yield table(model, [])
    # One thread decodes and finds the next faces while this one lets the network work on the last.
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield table(model, batch)


def find_faces(
    model: Model,
    paths: Iterable[str | Path],
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = print,
) -> Iterator[Face]:
    """The faces of images, folders and videos, in order; arguments are those of `predict`."""
    files = sources(paths)
    total = sum(map(_frames_in, files))
    done = 0
    for path in files:
        try:
            for number, timestamp, image in _decoded(path):
                cut = images.crop_faces(image, model.spec.pixels, model.find)
                for face_id, (crop, confidence) in enumerate(cut):
                    yield Face(str(path), number, face_id, timestamp, confidence, crop)
                if not cut:
                    yield Face(str(path), number, 0, timestamp, 0.0, None)
                done += 1
                if progress is not None:
                    progress(done, max(done, total))
        except DataError as error:
            warn(str(error))


def table(model: Model, batch: list[Face]) -> pd.DataFrame:
    """The predictions for some faces.

    Returns:
        One row per face: input, frame, face_id, timestamp, confidence as in `Face`, the probabilities AU01, AU02, ...
        in [0, 1], NaN where there is no face, and trained_on.
    """
    scores = np.full((len(batch), len(model.shown)), np.nan, dtype=np.float32)  # (n, K)
    rows = [row for row, face in enumerate(batch) if face.crop is not None]
    if rows:
        pixels = np.stack([face.crop for face in batch if face.crop is not None])  # (m, size, size, 3)
        features = embed(model.encoder, pixels, device=model.device, crop=model.spec.crop)  # (m, K, D)
        scores[rows] = probabilities(model.probe, features)[:, [model.aus.index(au) for au in model.shown]]
    about = pd.DataFrame([face[:-1] for face in batch], columns=Face._fields[:-1])
    about = about.astype({"frame": int, "face_id": int, "timestamp": float, "confidence": float})
    return pd.concat([about, pd.DataFrame(scores, columns=model.columns)], axis=1).assign(trained_on=model.trained_on)


def check_out(out: Path | None) -> str:
    """The suffix that says how to write to `out`; None is CSV.

    Raises:
        UsageError: another suffix than .csv and .parquet.
    """
    suffix = ".csv" if out is None else out.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(f"{out}: expected a name that ends with .csv or .parquet")
    return suffix


def write(tables: Iterable[pd.DataFrame], out: Path | None) -> int:
    """Write tables below each other, as CSV or Parquet by the suffix of `out`; None is CSV to the standard output.

    A CSV grows beside its place (`.partial`) and is renamed at its end.

    Returns:
        The number of rows.

    Raises:
        UsageError: another suffix.
    """
    suffix = check_out(out)
    if out is None:
        return _write_csv(tables, sys.stdout)
    with files.beside(out) as partial:
        if suffix == ".csv":
            with partial.open("w", encoding="utf-8", newline="") as stream:
                return _write_csv(tables, stream)
        whole = pd.concat(tables, ignore_index=True)
        whole.to_parquet(partial, index=False)
        return len(whole)


def regions(model: Model, faces: NDArray[np.uint8], aus: list[int]) -> NDArray[np.float32]:
    """Which regions of a face moved the decision: how far the log-odds of an AU fall if a patch is covered with grey.

    Source: occlusion (Zeiler and Fergus 2014) by captum, the mean of overlapping patches. It shows what this network
    goes by, not what the face does.

    Args:
        model: see `load`.
        faces: crops (n, size, size, 3) uint8 RGB.
        aus: one AU number for each face.

    Returns:
        (n, side, side), positive where the patch spoke for the AU; side is that of what the network sees.
    """
    from captum.attr import Occlusion

    pixels = torch.from_numpy(faces).to(model.device).permute(0, 3, 1, 2).float() / 255
    pixels = centre(pixels, model.spec.crop)  # (n, 3, side, side)
    patch = max(1, pixels.shape[-1] // WINDOW)

    def log_odds(batch: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model.probe(model.encoder(batch))  # (n, K)
        return logits

    heat = Occlusion(log_odds).attribute(  # (n, 3, side, side), the same in all channels
        pixels,
        sliding_window_shapes=(3, patch, patch),
        strides=(3, max(1, patch // 2), max(1, patch // 2)),
        baselines=0.5,
        target=torch.tensor([model.aus.index(au) for au in aus], device=model.device),
    )
    return np.asarray(heat[:, 0].cpu().numpy(), dtype=np.float32)


def tiny_run() -> Path:
    """The folder of a run on a tiny rendered data set, made in a temporary folder in some seconds; it learns little."""
    spec = RunSpec(method="bce", checks=1)
    record = Recorder("", spec.model_dump())
    pack = crops(spec)
    split, labels = pack.table.split(spec.test_part, seed=0), pack.table.labels
    trained = train(spec, pack, split, labels, folder=record.folder, log=lambda line: None)
    record.weights(trained.encoder, trained.monitor.probe)
    facts = {
        "synthetic": pack.table.synthetic,
        "null_aus": pack.table.null_aus,
        "rates": dict(zip(pack.table.aus, (labels == 1).mean(axis=0), strict=True)),
    }
    nothing = {"counts": pd.DataFrame(), "auc": pd.DataFrame()}  # what a finished run has to leave
    record.save(
        tables=nothing,
        history=trained.history,
        data=facts,
        scores={},
        device=pick_device(spec.device),
    )
    os.replace(record.folder / "metrics.json.partial", record.folder / "metrics.json")
    return record.folder


def _trained_encoder(spec: RunSpec, aus: int, path: Path) -> Encoder:
    with safe_open(path, "pt") as stored:
        configuration = (stored.metadata() or {}).get(BACKBONE)
    with tempfile.TemporaryDirectory() as folder:
        if configuration is not None:  # the folder that the backbone came from may lie on another machine
            (Path(folder) / "config.json").write_text(configuration, encoding="utf-8")
            spec = spec.model_copy(update={"backbone": folder, "revision": ""})
        try:
            encoder = untrained_encoder(spec, aus)
        except UsageError:
            if configuration is None:
                raise
            raise DataError(
                f"{path}: holds no configuration of a backbone that can be read; do the run again"
            ) from None
    encoder.load_state_dict(safetensors.torch.load_file(path))
    return encoder


def _write_csv(tables: Iterable[pd.DataFrame], stream: TextIO) -> int:
    rows = 0
    for number, part in enumerate(tables):
        part.to_csv(stream, index=False, header=number == 0, float_format="%.6g", lineterminator="\n")
        stream.flush()
        rows += len(part)
    return rows


def _frames_in(path: Path) -> int:
    if path.suffix.lower() in IMAGES:
        return 1
    with _opened(path) as capture:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    capture = cv2.VideoCapture(str(path))
    try:
        yield capture
    finally:
        capture.release()


def _decoded(path: Path) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
    """Number, timestamp and RGB of each frame of a file."""
    if path.suffix.lower() in IMAGES:
        yield 1, 0.0, images.read_image(path)
        return
    with _opened(path) as capture:
        promised, number = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
        while True:
            good, bgr = capture.read()
            if not good or bgr is None:
                break
            number += 1
            seconds = round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 4)
            yield number, seconds, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    if number == 0:
        raise DataError(f"{path}: no video that OpenCV can read")
    if number < promised:
        raise DataError(f"{path}: {number} of {promised} frames could be decoded; the file may be truncated")
