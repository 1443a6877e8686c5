"""A finished run for other programs: one file that takes crops and gives probabilities, or the whole run as an archive.

The program holds all that follows the crop: scaling, the centre that the network sees, encoder and probe. Beside it
stands a JSON with what it cannot hold: how faces are cropped, the names of its outputs, and their thresholds.
"""

import json
import math
import tarfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aunce import files
from aunce.errors import UsageError
from aunce.prediction import Model, load
from aunce.probe import centre

FORMS = {"torch": ".pt2", "onnx": ".onnx", "archive": ".tar.gz"}
"""What a run is written as -> the suffix of the file."""
CHECKED_IMAGES = 3
IN_ARCHIVE = ("metrics.json", "encoder.safetensors", "probe.safetensors", "counts.parquet", "auc.parquet")


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
        The path of the file. A program has a JSON of the same name beside it.

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
    return path


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
    left = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("files") or dict.fromkeys(IN_ARCHIVE[1:])
    names = ["metrics.json", *(name for name in left if (run / name).is_file())]
    with files.beside(path) as partial, tarfile.open(partial, "w:gz") as archive:
        for name in names:
            archive.add(run / name, arcname=f"{run.name}/{name}")
    return path
