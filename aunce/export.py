"""A finished run for other programs: one file that takes crops and gives probabilities, or the whole run as an archive.

The program holds all that follows the crop: scaling, the centre that the network sees, encoder and probe. Beside it
stands a JSON with what it cannot hold: how faces are cropped, the names of its outputs, and their thresholds.
"""

import io
import json
import math
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from aunce import evaluation, files
from aunce.errors import UsageError
from aunce.prediction import Model, load
from aunce.probe import centre
from aunce.report import page
from aunce.report.collect import THRESHOLD, is_primary
from aunce.statistics import leave_one_out_auc, leave_one_out_f1
from aunce.study.state import METRICS, UNSEALED, read_json

FORMS = {"torch": ".pt2", "onnx": ".onnx", "archive": ".tar.gz"}
"""What a run is written as -> the suffix of the file."""
CHECKED_IMAGES = 3
IN_ARCHIVE = ("encoder.safetensors", "probe.safetensors", "counts.parquet", "auc.parquet")


class Program(nn.Module):
    """Probabilities of AUs from crops: what `aunce predict` computes once a face is cropped.

    Args:
        model: a finished run.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder, self.probe, self.crop = model.encoder.cpu(), model.probe.cpu(), model.spec.crop
        self.register_buffer("shown", torch.tensor([model.aus.index(au) for au in model.shown]))

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (n, K) float32 of crops (n, H, W, 3) uint8, RGB."""
        pixels = images.permute(0, 3, 1, 2).float() / 255  # (n, 3, H, W)
        features = self.encoder(centre(pixels, self.crop))  # (n, K, D)
        return torch.sigmoid(self.probe(features)).index_select(1, self.shown)  # type: ignore[arg-type]


def export(run: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write a finished run as `to`, one of `FORMS`.

    Args:
        run: its folder.
        to: "torch" (torch.export, read by `torch.export.load`), "onnx", or "archive", which `aunce predict` takes again
            once it is unpacked.
        out: the file. Default: beside the run, named after it.

    Returns:
        The path of the file. A program has a JSON of the same name beside it, and a card in Markdown, which the archive
        holds.

    Raises:
        UsageError: no finished run, no weights in it, an unknown form, or packages that are not installed.
        DataError: files of the run that do not belong together.
    """
    if to not in FORMS:
        raise UsageError(f"unknown form {to!r}; known: {', '.join(FORMS)}")
    model = load(run)
    place = Path(run).resolve()
    path = Path(out) if out else place.with_name(place.name + FORMS[to])
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder")
    if to == "archive":
        return _archive(place, path)
    program, size = Program(model).eval(), model.spec.pixels
    images = torch.randint(0, 256, (CHECKED_IMAGES, size, size, 3), dtype=torch.uint8)
    batch = {"images": {0: torch.export.Dim("n", min=1, max=4096)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about their own versions
        with files.beside(path) as partial:
            if to == "torch":
                torch.export.save(torch.export.export(program, (images,), dynamic_shapes=batch), partial)
            else:
                _onnx(program, images, batch, partial)
    files.write(path.with_suffix(".json"), json.dumps(_about(model, size), indent=1, ensure_ascii=False) + "\n")
    files.write(path.with_suffix(".md"), card(place))
    return path


def card(run: Path) -> str:
    """The model card of a finished run: data, protocol, scores, limits, and a place for the licence.

    Intervals are 95 %, from a jackknife over the people of the test. One seed is behind them: what another seed or
    training set would change is in none.
    """
    model, metrics = load(run), _metrics(run)
    spec, facts = model.spec, metrics["data"]
    tables = {name: pd.read_parquet(run / f"{name}.parquet") for name in ("auc", "counts")}
    for name, table in tables.items():
        kept = is_primary(table) & ((table["target"] == "") if "target" in table else True)
        tables[name] = table[kept & (table["threshold"] == THRESHOLD if name == "counts" else True)]
    scored = [au for au in model.shown if au in facts["entering_aus"]]
    values = (evaluation.auc(tables["auc"]), evaluation.f1(tables["counts"]))
    without = (leave_one_out_auc(tables["auc"]), leave_one_out_f1(tables["counts"]))
    rows = [
        [page.text(name), *(_with_interval(one, left, [au]) for one, left in zip(values, without, strict=True))]
        for name, au in zip(model.columns, model.shown, strict=True)
    ]
    means = [_with_interval(one, left, scored) for one, left in zip(values, without, strict=True)]
    rendered = "Rendered faces: no person was seen in training." if facts["synthetic"] else "Recorded faces."
    about = [
        f"Detects facial action units in cropped faces. Method {page.text(spec.method)}, backbone "
        f"{page.text(spec.backbone)}, {spec.pixels} px.",
        f"**Trained on** {page.text(model.trained_on)}, all parts but {page.text(spec.test_part)}, on which it was "
        f"tested; replicate {spec.replicate}, protocol {page.code(facts['protocol'])}, crops "
        f"{page.code(facts['hash'])}. {rendered}",
        page.table(["Label", "AUC (95 % interval)", "F1, tuned threshold"], [*rows, ["mean", *means]], "lrr"),
        "Intervals are from a jackknife over the people of the test. One seed is behind them: what another seed or "
        f"training set would change is in none. The mean is over {page.count(len(scored), 'label')} with enough "
        "positive frames. The threshold was chosen on inner validation.",
        f"**Limits.** {rendered} People, cameras and light unlike those of the training give other scores. Thresholds "
        "are those of one data set. The labels are movements of the face, not feelings.",
        "**Licence of these weights:** not stated. Whoever hands them on says it here, within the licence of the data.",
    ]
    return "\n\n".join([f"# Model card: {page.text(run.name)}", *about, ""])


def _metrics(run: Path) -> dict[str, Any]:
    found = read_json(run / (METRICS if (run / METRICS).is_file() else UNSEALED))
    if isinstance(found, str):
        raise UsageError(f"{run}: {found}")
    return found


def _with_interval(values: pd.Series, without: pd.Series, aus: list[int]) -> str:
    """The mean over AUs and its interval from the means without each person; empty where it is undefined."""
    left = without[without.index.get_level_values("au").isin(aus)].groupby("subject").mean().dropna()
    value, people = values.reindex(aus).mean(), len(left)
    if math.isnan(value):
        return ""
    if people < 2:
        return f"{value:.3f}"
    half = stats.t.ppf(0.975, people - 1) * math.sqrt((people - 1) * float(np.var(left)))
    return f"{value:.3f} ({value - half:.3f} to {value + half:.3f})"


def _onnx(program: nn.Module, images: Tensor, batch: dict[str, Any], path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"no package {error.name}: pip install 'aunce[export]'") from None
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["probabilities"], "external_data": False}
    torch.onnx.export(program, (images,), str(path), dynamo=True, dynamic_shapes=batch, verbose=False, **names)


def _about(model: Model, size: int) -> dict[str, Any]:
    """What stands beside the program."""
    thresholds = [model.thresholds[model.aus.index(au)] for au in model.shown]
    return {
        "input": f"images: uint8 (n, {size}, {size}, 3), RGB, faces cropped as said below",
        "output": "probabilities: float32 (n, K)",
        "labels": model.columns,
        "thresholds": [None if math.isnan(value) else value for value in thresholds],
        "crop": {"size": size, "align": model.spec.align},
        "trained_on": model.trained_on,
    }


def _archive(run: Path, path: Path) -> Path:
    """The files of a run without its notebook and logs, below a folder of its name."""
    said = card(run).encode()
    left = _metrics(run).get("files") or IN_ARCHIVE
    names = [name for name in (METRICS, UNSEALED, *left) if (run / name).is_file()]
    with files.beside(path) as partial, tarfile.open(partial, "w:gz") as archive:
        for name in names:
            archive.add(run / name, arcname=f"{run.name}/{name}")
        about = tarfile.TarInfo(f"{run.name}/card.md")
        about.size = len(said)
        archive.addfile(about, io.BytesIO(said))
    return path
