"""What a study will take, before anything is started: frames, gigabytes and seconds, and how many runs side by side."""

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from aunce.study.grid import Data, Run

START_S = 10.0
"""Of a run before its first step and after its last one."""
RATES = {"cpu": 5e10, "cuda": 3e13}
"""Operations a second of a training, on a core and on a GPU. That of a core is what the runs of laptop and laptop_long
took on an Intel Xeon; that of a GPU was not measured and is half of what an H100 does at most in float32."""


@functools.cache
def _planned(dataset: str, subjects: int | None, frames: int | None) -> dict[str, int]:
    """Part -> frames of a rendered data set, whatever its seed."""
    from aunce.data import renderer

    layout, parts = renderer(dataset).LAYOUT, dict[str, int]()
    for job in layout.plan(layout.people(subjects or len(layout.part_of)), frames):
        part = layout.part_of[job.subject]
        parts[part] = parts.get(part, 0) + len(job.frames)
    return parts


def frames_of(data: Data) -> tuple[dict[str, int], float]:
    """Part -> labelled frames of a data set, and the gigabytes that it takes.

    These are three bytes for each pixel of a crop, and half a byte for each of a rendered JPEG.

    Raises:
        DataError: the folder is not what its layout promises, or too many of its labelled frames have no image.
    """
    from aunce.data import frames, is_pack, load, place_of_pack, refuse_missing
    from aunce.data.recipes import Recipe

    raw = 0.0
    if data.root and is_pack(data.root):
        return dict(
            frames.FrameTable.from_parquet(Path(data.root) / "frames.parquet").frames["part"].value_counts()
        ), 0.0
    if data.root:
        table = load(data.dataset, data.root, protocol=data.protocol, images="optional")
        if not is_pack(place_of_pack(data.dataset, Path(data.root), Recipe(**data.crops), data.protocol)):
            refuse_missing(table, data.root)  # now, and not once the runs wait for the crops
        parts = dict(table.frames["part"].value_counts())
    else:
        raw = 0.5 * data.render["size"] ** 2
        parts = _planned(data.dataset, data.render["subjects"], data.render["frames"])
    return parts, sum(parts.values()) * (raw + 3 * data.crops["size"] ** 2) / 1e9


@functools.cache
def size_of(backbone: str, channels: int, pixels: int) -> tuple[float, float]:
    """Gigabytes of an encoder's weights, and operations of a training for each image that goes through it; of 12 AUs.

    Raises:
        UsageError: a backbone that no run could read, see `backbones.outline`.
    """
    import torch

    from aunce.backbones import outline
    from aunce.model import Encoder, count_operations

    with torch.device("meta"):
        encoder = Encoder(outline(backbone), aus=12, channels=channels)
        operations = 0.0
        with contextlib.suppress(RuntimeError):  # a backbone that does not take such images: its run says so
            operations = count_operations(encoder, images=1, pixels=pixels)
    return 4e-9 * sum(weight.numel() for weight in encoder.parameters()), operations


def costs(run: Run, frames: Mapping[str, int]) -> tuple[float, float]:
    """Gigabytes of the weights of a run, and a guess at its seconds.

    Args:
        run: a run.
        frames: part -> frames of the data set that it trains on.
    """
    from aunce.study import execution

    if not run.spec.trains:
        return 0.0, START_S
    # Of a model on the hub nothing is known before it is downloaded.
    backbone = "swin-base" if run.spec.revision else run.spec.backbone
    weights, operations = size_of(backbone, run.spec.channels, run.spec.crop or run.spec.pixels)
    trained = sum(count for part, count in frames.items() if part != run.spec.test_part)
    on_gpu = run.spec.device == "cuda" or (run.spec.device == "auto" and bool(execution.list_gpus()))
    rate = RATES["cuda"] if on_gpu else RATES["cpu"] * min(run.spec.threads, cores())
    return weights, START_S + 2 * run.spec.epochs * trained * operations / rate


def at_once(runs: Sequence[Run]) -> int:
    """How many of these runs this machine executes side by side: by its cores, and by its GPUs if runs lease them."""
    from aunce.study import execution

    by_cores = max(1, cores() // max(run.spec.threads for run in runs))
    leased = "CUDA_VISIBLE_DEVICES" not in os.environ and any(run.spec.device != "cpu" for run in runs)
    return min(by_cores, len(execution.list_gpus()) or by_cores) if leased else by_cores


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
