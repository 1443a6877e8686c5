"""Prediction: the action units of faces in images and videos of one's own, by a finished run.

Faces are found, aligned and cropped as they were for the training of the run. Columns are named as in OpenFace (frame,
face_id, timestamp, confidence, success, AU01_c) and py-feat (FaceRectX, AU01). AU01, AU02, ... are probabilities of
occurrence by the frozen probe of the last epoch.
"""

import contextlib
import errno
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import cv2
import numpy as np
import pandas as pd
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aunce import files
from aunce.data import data_set, images, layout
from aunce.data.faces import FaceDetector, face_detector
from aunce.devices import pick_device
from aunce.errors import DataError, UsageError
from aunce.evaluation import thresholds, unscored_unknown
from aunce.methods import crops, score_tables, train, untrained_encoder
from aunce.model import Encoder, LinearProbe
from aunce.probe import centre, embed, probabilities
from aunce.report import overlay
from aunce.study.grid import BACKBONE, PROBE, WEIGHTS
from aunce.study.results import Recorder
from aunce.study.spec import RunSpec
from aunce.study.state import UNSEALED, read_json, read_state

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
RENDERED = "rendered faces (not fit for photographs)"
PANELS = 4  # faces of a frame whose bars are drawn; all have their boxes
BATCH = 64  # faces that go through the network together
ABOUT = ("input", "frame", "face_id", "track", "timestamp", "confidence")
PLACES = (
    "FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight",
    "left_eye_x", "left_eye_y", "right_eye_x", "right_eye_y",
)  # fmt: skip
GAP = 25  # frames that a face may be missing in before it is another one
OVERLAP = 0.3  # intersection over union of the boxes of a face in two frames
WINDOW = 6  # a patch that `regions` covers is this part of the side of a crop


@dataclass(frozen=True)
class Model:
    """A finished run, ready to predict."""

    spec: RunSpec
    aus: tuple[int, ...]  # the K AU numbers that encoder and probe are for
    thresholds: tuple[float, ...]  # (K), chosen on inner validation; NaN of a run that does not hold them
    shown: tuple[int, ...]  # those of them that are predicted: one that was labelled and never drawn is not
    trained_on: str  # the data set, or `RENDERED`
    encoder: Encoder  # with the weights of the last epoch
    probe: LinearProbe  # fitted on its features
    find: FaceDetector | None  # finds the faces; None takes each image for one
    device: str
    labels: Mapping[str, str]  # AU number -> name, of labels that are no AUs

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the AUs that are predicted: AU01, AU02, ..., or those of labels that are no AUs."""
        return [self.labels.get(str(au), f"AU{au:02}") for au in self.shown]


class Face(NamedTuple):
    """A face, or a frame in which none was found."""

    input: str  # the file
    frame: int  # of a video, from 1 as in OpenFace; 1 of an image
    timestamp: float  # seconds from the start of the video, 0 of an image
    face_id: int = 0  # among the faces of a frame, 0 is the largest
    track: int = -1  # the same face over the frames of a video, from 0; -1 if there is no face
    confidence: float = float("nan")  # of the face detector, 0 if it found no face, NaN if it was not asked
    box: NDArray[np.float32] = np.full(4, np.nan, np.float32)  # left, top, width, height in pixels
    eyes: NDArray[np.float32] = np.full((2, 2), np.nan, np.float32)  # x, y; that at the image's left first
    crop: NDArray[np.uint8] | None = None  # (size, size, 3) RGB; None if there is no face


def load(run: str | Path, *, detector: str = "") -> Model:
    """Read a finished run from its folder.

    Args:
        run: the folder, with `metrics.json`, `encoder.safetensors` and `probe.safetensors`.
        detector: a face detector, see `aunce.data.faces`; the eyes come to lie where they lay in training. Without one
            that of the run is taken, and mtcnn where the run's faces were aligned by landmarks, or where its cascade
            finds none. A run that took images as they are (align none) detects only if it is told to.

    Raises:
        UsageError: no finished run, one without an encoder, or an unknown detector.
        DataError: files that do not belong together.
    """
    run = Path(run)
    path = run / "metrics.json"
    if path.is_file():
        state = read_state(run)
        if state.name == "damaged":
            raise DataError(f"{run}: damaged, {state.why}; the command that made the run does it again")
        metrics: Any = state.metrics
    elif (path := run / UNSEALED).is_file():  # of the notebook alone, which writes it last
        metrics = read_json(path)
    else:
        raise UsageError(
            f"{run}: no finished run, metrics.json is not there. Name a folder reports/STUDY/runs/KEY; `aunce status "
            "STUDY`, with the --root and --set of the study, lists those that are done."
        )
    try:
        facts = metrics["data"]
        aus = tuple(int(au) for au in facts["rates"])
        shown = tuple(au for au in aus if au not in facts["null_aus"])
        chosen = metrics.get("thresholds", {})
        cuts = tuple(float(chosen.get(str(au), "nan")) for au in aus)
        labels = {str(au): str(name) for au, name in facts.get("labels", {}).items()}
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
    find, device = _detector(spec, detector), pick_device("auto")
    network, probe = encoder.to(device).eval(), probe.to(device).eval()
    return Model(spec, aus, cuts, shown, trained_on, network, probe, find, device, labels)


def _detector(spec: RunSpec, detector: str) -> FaceDetector | None:
    """What finds the faces: the detector named, else what is nearest to how the faces of the run were found."""
    if detector or spec.align == "landmarks":  # both give the eyes themselves
        return face_detector(detector or "mtcnn")
    if spec.align == "none":
        return None
    own = face_detector(spec.detector)
    if spec.detector != "cascade":
        return own
    finer = face_detector("mtcnn")
    return lambda image: own(image) or finer(image)  # the cascade finds no small faces


def sources(paths: Iterable[str | Path], *, note: Callable[[str], None] = print) -> list[Path]:
    """The images and videos that `paths` name, in their order; those of a folder, at any depth, by name.

    Linked folders are followed, each folder once. In a folder, hidden files and folders (.ipynb_checkpoints, ._a.jpg)
    are left out, and `note` is told how many images and videos they hold.

    Raises:
        UsageError: a path that is not there, a file of another kind, or a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        known = (*IMAGES, *VIDEOS)
        if path.is_dir():
            inside = [file for file in _files_in(path) if file.suffix.lower() in known]
            seen = [file for file in inside if not any(map(_hidden, file.relative_to(path).parts))]
            if len(seen) < len(inside):
                first = next(file for file in inside if file not in seen)
                note(f"{path}: {len(inside) - len(seen)} hidden images or videos are left out, such as {first}")
            if not seen:
                raise UsageError(f"{path}: no image or video in there; known: {', '.join(known)}")
            found += seen
        elif not path.is_file():
            raise UsageError(f"{path}: no such file or folder")
        elif path.suffix.lower() not in known:
            raise UsageError(f"{path}: neither an image nor a video; known: {', '.join(known)}")
        else:
            found.append(path)
    return found


def _files_in(folder: Path) -> list[Path]:
    """All files below a folder, those of linked folders, too; each folder once, so that a circle of links ends."""
    found: list[Path] = []
    entered, to_enter = set(), [folder]

    def refuse(error: OSError) -> None:
        raise error

    while to_enter:
        for place, folders, names in os.walk(to_enter.pop(0), onerror=refuse):
            if (real := os.path.realpath(place)) in entered:
                folders.clear()
                continue
            entered.add(real)
            to_enter += sorted(Path(place, name) for name in folders if os.path.islink(os.path.join(place, name)))
            found += [Path(place, name) for name in names]
    return sorted(file for file in found if file.is_file())


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def predict(
    model: Model,
    paths: Iterable[str | Path],
    *,
    every: int = 1,
    fps: float = float("inf"),
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = print,
    note: Callable[[str], None] = print,
) -> Iterator[pd.DataFrame]:
    """Predict the AUs of all faces in images, folders and videos.

    Args:
        model: see `load`.
        paths: see `sources`.
        every: of this many frames of a video the first is taken.
        fps: at most this many frames of a second of a video are taken.
        progress: called with frames done and frames in all, as far as the videos say.
        warn: takes one line for each file or frame that cannot be used; it has a row without a face.
        note: takes one line for what may be as it should be, see `sources`; a video that ends before the time that its
            header says, which is an estimate in many formats.

    Yields:
        Tables as of `table`, `BATCH` rows at a time; the first has no rows.

    Raises:
        UsageError: see `sources`.
    """
    found = find_faces(model, paths, every=every, fps=fps, progress=progress, warn=warn, note=note)
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
    every: int = 1,
    fps: float = float("inf"),
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = print,
    note: Callable[[str], None] = print,
) -> Iterator[Face]:
    """The faces of images, folders and videos, in order; arguments are those of `predict`."""
    files = sources(paths, note=note)
    frames = list(map(_frames_in, files))
    for place, path in enumerate(files):
        done, number, tracks = sum(frames[:place]), 1, _Tracks()
        try:
            for number, timestamp, image in _decoded(path, every, fps, note):
                cut = list(_faces_of(model, image, Face(str(path), number, timestamp), warn))
                yield from tracks.follow(cut)
                if progress is not None:
                    progress(done + number, max(done + number, sum(frames)))
        except DataError as error:
            warn(str(error))
            yield Face(str(path), number, 0.0)
        frames[place] = number


def _faces_of(model: Model, image: NDArray[np.uint8], nobody: Face, warn: Callable[[str], None]) -> Iterator[Face]:
    """The faces of an image; `nobody` stands for it if there is none."""
    try:
        cut = images.crop_faces(image, model.spec.pixels, model.find)
    except DataError as error:
        warn(f"{nobody.input}, frame {nobody.frame}: {error}")
        yield nobody
        return
    for face_id, (crop, face) in enumerate(cut):
        yield nobody._replace(face_id=face_id, confidence=face.confidence, box=face.box, eyes=face.eyes, crop=crop)
    if not cut:
        yield nobody._replace(confidence=0.0)


class _Tracks:
    """Follows faces over the frames of a video: a box is that which it overlaps most of those seen a little before."""

    def __init__(self) -> None:
        self.boxes: dict[int, tuple[int, NDArray[np.float32]]] = {}  # track -> when and where it was last seen
        self.now, self.tracks = 0, 0

    def follow(self, cut: list[Face]) -> Iterator[Face]:
        """The faces of the next frame, the largest first, with their tracks."""
        self.now += 1
        self.boxes = {track: seen for track, seen in self.boxes.items() if self.now - seen[0] <= GAP}
        for face in cut:
            if face.crop is None:
                yield face
                continue
            free = {track: _overlap(face.box, box) for track, (when, box) in self.boxes.items() if when < self.now}
            track = max(free, key=free.__getitem__, default=-1)
            if track < 0 or free[track] < OVERLAP:
                track, self.tracks = self.tracks, self.tracks + 1
            self.boxes[track] = self.now, face.box
            yield face._replace(track=track)


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes."""
    near, far = np.maximum(one[:2], other[:2]), np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = float(np.prod(np.maximum(far - near, 0)))
    return shared / (float(np.prod(one[2:]) + np.prod(other[2:])) - shared)


def is_rendered(path: Path) -> bool:
    """Whether a file lies in a rendered data set."""
    return any((folder / layout.MARKER).is_file() for folder in path.resolve().parents)


def draw(model: Model, tables: Iterable[pd.DataFrame], folder: Path) -> Iterator[pd.DataFrame]:
    """Write each image and video into a folder, as PNG and MP4, with boxes and bars on it; the tables go through."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for part in tables:
        parts.append(part)
        yield part
    whole = pd.concat(parts, ignore_index=True)
    for number, (name, rows) in enumerate(whole.groupby("input", sort=False)):
        path, by_frame = Path(str(name)), dict(list(rows.groupby("frame")))
        out = folder / f"{number:04}_{path.stem}"
        panels = min(PANELS, int(rows["face_id"].max()) + 1)
        seconds = float(rows["timestamp"].max() - rows["timestamp"].min())
        rate = (len(by_frame) - 1) / seconds if seconds > 0 else 25.0
        writer = None
        try:
            for frame, _, image in _decoded(path, 1, float("inf"), lambda said: None):
                if frame not in by_frame:
                    continue
                bgr = overlay.draw_faces(image, by_frame[frame], model.columns, panels=panels)[..., ::-1]
                if path.suffix.lower() in IMAGES:
                    written = cv2.imwrite(f"{out}.png", bgr)
                else:
                    if writer is None:
                        code = cv2.VideoWriter.fourcc(*"mp4v")
                        writer = cv2.VideoWriter(f"{out}.mp4", code, rate, (bgr.shape[1], bgr.shape[0]))
                    writer.write(np.ascontiguousarray(bgr))
                    written = writer.isOpened()
                if not written:
                    raise OSError(errno.EACCES, "OpenCV cannot write there", str(folder))
        except DataError:
            continue  # `predict` has said it
        finally:
            if writer is not None:
                writer.release()


def table(model: Model, batch: list[Face]) -> pd.DataFrame:
    """The predictions for some faces.

    Returns:
        One row per face: input, frame, face_id, track, timestamp, confidence as in `Face`; success, 1 for a face, 0 for
        a frame without; its box FaceRectX, FaceRectY, FaceRectWidth, FaceRectHeight and its eyes left_eye_x, ... in
        pixels; the probabilities AU01, AU02, ... in [0, 1]; AU01_c, AU02_c, ..., 1 where the probability reaches the
        threshold that was chosen in training, else 0; and trained_on. What is not known is missing.
    """
    scores = np.full((len(batch), len(model.shown)), np.nan, dtype=np.float32)  # (n, K)
    rows = [row for row, face in enumerate(batch) if face.crop is not None]
    if rows:
        pixels = np.stack([face.crop for face in batch if face.crop is not None])  # (m, size, size, 3)
        features = embed(model.encoder, pixels, device=model.device, crop=model.spec.crop)  # (m, K, D)
        scores[rows] = probabilities(model.probe, features)[:, [model.aus.index(au) for au in model.shown]]
    about = pd.DataFrame({name: [getattr(face, name) for face in batch] for name in ABOUT})
    about = about.astype({"frame": int, "face_id": int, "track": int, "timestamp": float, "confidence": float})
    about["success"] = [int(face.crop is not None) for face in batch]
    places = np.array([[*face.box, *face.eyes.ravel()] for face in batch], np.float32).reshape(-1, len(PLACES))
    cuts = np.array(model.thresholds)[[model.aus.index(au) for au in model.shown]]  # (K)
    present = np.where(np.isnan(scores) | np.isnan(cuts), np.nan, scores >= cuts)  # (n, K)
    decisions = pd.DataFrame(present, columns=[f"{name}_c" for name in model.columns]).astype("Int8")
    found = pd.DataFrame(scores, columns=model.columns)
    parts = [about, pd.DataFrame(places, columns=[*PLACES]), found, decisions]
    return pd.concat(parts, axis=1).astype({"success": int}).assign(trained_on=model.trained_on)


def check_out(out: Path | None) -> str:
    """The suffix that says how to write to `out`; None is CSV.

    Raises:
        UsageError: another suffix than .csv and .parquet.
    """
    suffix = ".csv" if out is None else out.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(f"{out}: expected a name that ends with .csv or .parquet")
    return suffix


class Written(NamedTuple):
    """What was written: rows, the frames that they are of, and those of them without a face."""

    rows: int
    frames: int
    without: int


def write(tables: Iterable[pd.DataFrame], out: Path | None) -> Written:
    """Write tables below each other, as CSV or Parquet by the suffix of `out`; None is CSV to the standard output.

    A CSV grows beside its place (`.partial`) and is renamed at its end.

    Raises:
        UsageError: another suffix.
    """
    suffix, counts = check_out(out), np.zeros(3, int)

    def counted() -> Iterator[pd.DataFrame]:
        for part in tables:
            counts[:] += len(part), (part["face_id"] == 0).sum(), (part["success"] == 0).sum()
            yield part

    if out is None:
        _write_csv(counted(), sys.stdout)
    else:
        with files.beside(out) as partial:
            if suffix == ".csv":
                with partial.open("w", encoding="utf-8", newline="") as stream:
                    _write_csv(counted(), stream)
            else:
                pd.concat(counted(), ignore_index=True).to_parquet(partial, index=False)
    return Written(*counts.tolist())


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
    last = trained.monitor.scores["last"]["probe"][0]
    tuned = thresholds(*unscored_unknown(labels[split.validation], last))
    counts, pairs = score_tables(spec, pack.table, split, labels, trained.monitor.scores)
    facts = {
        "hash": pack.hash,
        "protocol": pack.table.protocol.hash,
        "entering_aus": trained.monitor.scored,
        "synthetic": pack.table.synthetic,
        "null_aus": pack.table.null_aus,
        "rates": dict(zip(pack.table.aus, (labels == 1).mean(axis=0), strict=True)),
    }
    record.save(
        tables={"counts": counts, "auc": pairs},
        history=trained.history,
        data=facts,
        scores={"thresholds": dict(zip(pack.table.aus, tuned, strict=True))},
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


def _write_csv(tables: Iterable[pd.DataFrame], stream: TextIO) -> None:
    for number, part in enumerate(tables):
        part.to_csv(stream, index=False, header=number == 0, float_format="%.6g", lineterminator="\n")
        stream.flush()


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


def _decoded(
    path: Path, every: int, fps: float, note: Callable[[str], None]
) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
    """Number, timestamp and RGB of each frame of a file that is taken; arguments are those of `predict`."""
    if path.suffix.lower() in IMAGES:
        yield 1, 0.0, images.read_image(path)
        return
    with _opened(path) as capture:
        promised, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        number, seconds, due = 0, 0.0, 0.0
        while capture.grab():
            number += 1
            seconds = round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 4)
            if (number - 1) % every or seconds < due - 1e-4:
                continue
            due = (np.floor(seconds * fps + 1e-3) + 1) / fps if np.isfinite(fps) else due
            good, bgr = capture.retrieve()
            if not good or bgr is None:
                break
            yield number, seconds, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    if number == 0:
        raise DataError(f"{path}: no video that OpenCV can read")
    # The count of frames is an estimate where the rate varies: what was decoded is whole if it lasts as long.
    if rate > 0 and seconds + 1.5 / rate < promised / rate:
        note(
            f"{path}: all {number} frames that can be decoded are taken, they end at {seconds:.2f} s; its header says "
            f"about {promised / rate:.2f} s. It starts late, or it is cut off: compare it with its source"
        )
