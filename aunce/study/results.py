"""What a run leaves behind: its tables, and `metrics.json` with the specification and where every number comes from."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch

from aunce import files
from aunce.data.frames import FrameTable
from aunce.evaluation import Array
from aunce.model import Encoder
from aunce.processes import first_process
from aunce.study.grid import BACKBONE, PROBE, WEIGHTS

FORMAT = 1
LIBRARIES = ("torch", "transformers", "numpy", "pandas", "scikit-learn", "opencv-python-headless", "papermill")


class Recorder:
    """Saves what a run leaves behind. It is made at the start of the run, and counts its duration from then on.

    Of several processes that share a run the first alone writes.

    Args:
        out: folder of the run; empty takes a temporary one.
        spec: every field of the run's specification.
    """

    def __init__(self, out: str, spec: Mapping[str, Any]) -> None:
        self.folder = Path(out or tempfile.mkdtemp(prefix="aunce-run-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spec = dict(spec)
        self._started = datetime.datetime.now(datetime.UTC)
        self._clock = time.monotonic()

    def weights(self, encoder: Encoder | None, probe: torch.nn.Module | None) -> None:
        """Write the weights of the encoder, if there is one, and of its probe as safetensors, for `aunce predict`.

        Those of the encoder carry the configuration of its backbone, so that they are read without the folder that it
        came from.
        """
        if not first_process() or encoder is None:
            return
        configuration = {BACKBONE: encoder.backbone.config.to_json_string()}
        for name, module, metadata in ((WEIGHTS, encoder, configuration), (PROBE, probe, None)):
            if module is not None:
                tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
                with files.beside(self.folder / name) as partial:
                    safetensors.torch.save_file(tensors, partial, metadata)

    def save(
        self,
        *,
        tables: Mapping[str, pd.DataFrame],
        history: pd.DataFrame,
        data: Mapping[str, Any],
        scores: Mapping[str, Any],
        device: str,
    ) -> Path:
        """Write the tables as Parquet, the history as CSV, and last `metrics.json.partial`.

        `aunce run` renames that file to `metrics.json` once the notebook has ended well: that name alone says *done*.

        Args:
            tables: name -> table, each written to `<name>.parquet`.
            history: one row an epoch, empty for a run without training.
            data: what the run was trained and tested on.
            scores: summary scores of the run; NaN becomes null.
            device: where it ran.

        Returns:
            The folder.
        """
        if not first_process():
            return self.folder
        for name, table in tables.items():
            with files.beside(self.folder / f"{name}.parquet") as partial:
                table.to_parquet(partial, index=False, compression="zstd")
        files.write(self.folder / "history.csv", history.to_csv(index=False))
        metrics = {
            "format": FORMAT,
            "key": self.folder.name,
            "spec": self.spec,
            "data": data,
            **scores,
            "duration_s": round(time.monotonic() - self._clock, 1),
            "provenance": provenance(device, int(self.spec["threads"]))
            | {
                "started": self._started.isoformat(timespec="seconds"),
                "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            },
        }
        files.write(self.folder / "metrics.json.partial", json.dumps(_plain(metrics), indent=1, allow_nan=False))
        return self.folder


def predictions(
    table: FrameTable, rows: Array, clean: Array, noisy: Array, heads: Mapping[str, tuple[Array, Array]]
) -> pd.DataFrame:
    """One row per test frame, AU and head: subject, sequence, frame, au, head, score, clean and noisy label.

    Args:
        table: the frames.
        rows: the test rows (n,).
        clean: (m, K) labels of the whole table; `noisy` likewise.
        heads: head -> scores of (validation, test), as one epoch rule of `probe.Monitor.scores`; kNN is left out.
    """
    frames = table.frames.loc[rows, ["subject", "sequence", "frame"]]
    parts = []
    for head, (_, scores) in heads.items():
        for k, au in enumerate(table.aus):
            if head != "knn":
                columns = {"au": au, "head": head, "score": scores[:, k].astype(np.float32)}
                parts.append(frames.assign(**columns, clean=clean[rows, k], noisy=noisy[rows, k]))
    return pd.concat(parts, ignore_index=True)


def provenance(device: str, threads: int) -> dict[str, Any]:
    """Revision of the code, versions of the libraries, and the hardware."""
    return {
        "revision": _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "modified": bool(
            _git("status", "--porcelain", "--untracked-files=no", "--", "aunce", "notebooks", "environment.yml")
        ),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
        "hardware": hardware(device),
        "device": device,
        "threads": threads,
    }


def hardware(device: str) -> str:
    """The GPU, or the processor with its cores."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.*)", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else None
    name = model[1].strip() if model else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _git(*words: str) -> str:
    try:
        here = Path(__file__).parents[2]
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _plain(value: Any) -> Any:
    """A value as JSON takes it: null for NaN and infinities, Python's numbers for NumPy's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
