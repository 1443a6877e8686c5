"""How fast a pack is made beside the image decoder alone, and how much memory many frames take.

    python tools/benchmark_pack.py rate     [--frames 400] [--pixels 256]
    python tools/benchmark_pack.py memory   [--frames 1400000]

`rate` renders faces with shipped landmarks, enlarges them to the size of BP4D's images, and times in turn, on as many
threads as there are cores, the decoder alone and the whole pack. `memory` packs a table that repeats the frames of a
small data set, because what counts is their number, and says the largest resident size that the process had.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from aunce.data import adapter, images, load
from aunce.data.frames import FrameTable

CORES = len(os.sched_getaffinity(0))
ROUNDS = 5
RENDERED, WIDTH, HEIGHT = 512, 1040, 1392  # pixels; the latter two are those of BP4D


def rate(folder: Path, *, frames: int, pixels: int) -> dict[str, float]:
    """Frames per second of the decoder alone and of the pack, medians of pairs, and their ratio."""
    root = folder / "raw"
    adapter("bp4d").write(root, subjects=3, frames=-(-frames // 24), size=RENDERED, workers=CORES)
    table = load("bp4d", root)
    eyes = adapter("bp4d").eyes(root, table) * (WIDTH / RENDERED, HEIGHT / RENDERED)
    paths = [root / name for name in table.frames["image"]]
    for path in paths:
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (WIDTH, HEIGHT)))
    seconds: dict[str, list[float]] = {"decode": [], "pack": []}
    for turn in range(ROUNDS):
        started = time.perf_counter()
        with ThreadPoolExecutor(CORES) as pool:
            for image in pool.map(_decode, paths):
                assert image is not None
        seconds["decode"].append(time.perf_counter() - started)
        started = time.perf_counter()
        recipe = images.Recipe(pixels, "landmarks")
        images.pack(table, root, folder / f"pack{turn}", recipe=recipe, eyes=eyes, workers=CORES)
        seconds["pack"].append(time.perf_counter() - started)
    pairs = [decode / pack for decode, pack in zip(*seconds.values(), strict=True)]
    found = {f"{name}_frames_per_s": len(paths) / statistics.median(values) for name, values in seconds.items()}
    return found | {"pack_over_decode": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}


def _decode(path: Path) -> object:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)


def memory(folder: Path, *, frames: int) -> dict[str, float]:
    """Seconds and largest resident size in GB of packing `frames` frames, and before the pack was begun."""
    root = folder / "raw"
    adapter("affwild2").write(root, subjects=12, frames=200, size=32, workers=1)
    table = _repeated(load("affwild2", root), frames)
    before, started = _resident(), time.perf_counter()
    made = images.pack(table, root, folder / "pack", recipe=images.Recipe(16), workers=CORES, progress=_line())
    assert len(made.images) == frames
    return {"seconds": time.perf_counter() - started, "before_gb": before, "largest_gb": _resident()}


def _repeated(table: FrameTable, frames: int) -> FrameTable:
    """The table again and again, with new sequences and the old images."""
    part = table.frames.iloc[np.arange(frames) % len(table)].reset_index(drop=True)
    turn = (np.arange(frames) // len(table)).astype(str)
    part["sequence"] = part["sequence"].str.cat(turn, sep="-")
    part = part.sort_values(["part", "subject", "sequence", "frame"], kind="stable")
    return FrameTable(part, table.protocol, table.null_aus)


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _line() -> Callable[[int, int], None]:
    last = [time.monotonic()]

    def tick(done: int, total: int) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            print(f"{done} of {total}, {_resident():.2f} GB", file=sys.stderr, flush=True)

    return tick


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["rate", "memory"])
    parser.add_argument("--frames", type=int)
    parser.add_argument("--pixels", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aunce-benchmark-") as folder:
        if options.what == "rate":
            found = rate(Path(folder), frames=options.frames or 400, pixels=options.pixels)
        else:
            found = memory(Path(folder), frames=options.frames or 1_400_000)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
