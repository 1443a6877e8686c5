"""What a run is written as for other programs gives the numbers that `aunce predict` gives."""

import json
import tarfile

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import scipy.stats
import torch
from click.testing import CliRunner

from aunce import cli, export, prediction
from aunce.errors import UsageError


@pytest.fixture(scope="module")
def run():
    return prediction.tiny_run()


@pytest.fixture(scope="module")
def expected(run):
    """Crops (5, H, W, 3), and their probabilities (5, K) by the library."""
    model = prediction.load(run)
    size = model.spec.pixels
    images = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    faces = [prediction.Face("", 1, 0.0, crop=image) for image in images]
    return images, prediction.table(model, faces)[model.columns].to_numpy(np.float32)


def test_a_torch_program_gives_the_same_probabilities_for_any_number_of_crops(run, expected, tmp_path):
    images, scores = expected
    path = export.export(run, "torch", tmp_path / "aus.pt2")
    program = torch.export.load(path).module()
    for count in (1, 5):
        found = program(torch.from_numpy(images[:count])).detach().numpy()
        np.testing.assert_allclose(found, scores[:count], atol=1e-6)
    about = json.loads((tmp_path / "aus.json").read_text())
    model = prediction.load(run)
    assert about["labels"] == model.columns
    assert len(about["thresholds"]) == len(model.columns) == scores.shape[1]
    assert about["crop"] == {"size": model.spec.pixels, "align": model.spec.align}
    assert about["trained_on"] == prediction.RENDERED
    assert "**Licence of these weights:** not stated" in (tmp_path / "aus.md").read_text()


@pytest.mark.long
def test_an_onnx_program_gives_the_same_probabilities(run, expected, tmp_path):
    images, scores = expected
    path = export.export(run, "onnx", tmp_path / "aus.onnx")
    session = onnxruntime.InferenceSession(path)
    for count in (1, 5):
        (found,) = session.run(["probabilities"], {"images": images[:count]})
        np.testing.assert_allclose(found, scores[:count], atol=1e-5)
    assert not list(tmp_path.glob("*.data")), "one file"


def test_the_card_has_the_scores_of_the_run_with_intervals_over_people(run):
    shown = export.card(run)
    pairs = pd.read_parquet(run / "auc.parquet").query("head == 'probe' and epoch_rule == 'last' and labels == 'clean'")
    model = prediction.load(run)
    au, name = model.shown[0], model.columns[0]
    mine = pairs[pairs["au"] == au]
    value = mine["concordant"].sum() / mine["pairs"].sum()
    people = sorted({*mine["subject"], *mine["other"]})
    left = [mine[(mine["subject"] != one) & (mine["other"] != one)] for one in people]
    without = [part["concordant"].sum() / part["pairs"].sum() for part in left if part["pairs"].sum()]
    half = scipy.stats.t.ppf(0.975, len(without) - 1) * np.sqrt((len(without) - 1) * np.var(without))
    assert f"| {name} | {value:.3f} ({value - half:.3f} to {value + half:.3f}) |" in shown
    assert "Rendered faces: no person was seen in training" in shown


def test_an_archive_is_a_run_again_once_it_is_unpacked(run, tmp_path):
    path = export.export(run, "archive", tmp_path / "run.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "elsewhere", filter="data")
    (unpacked,) = (tmp_path / "elsewhere").iterdir()
    assert (unpacked / "card.md").read_text() == export.card(run)
    model, first = prediction.load(unpacked), prediction.load(run)
    assert model.columns == first.columns
    for name, weight in first.encoder.state_dict().items():
        assert torch.equal(weight, model.encoder.state_dict()[name])


def test_what_cannot_be_written_is_one_message_and_leaves_nothing(run, tmp_path):
    with pytest.raises(UsageError, match="no finished run"):
        export.export(tmp_path, "torch")
    with pytest.raises(UsageError, match="unknown form 'keras'; known: torch, onnx, archive"):
        export.export(run, "keras")
    said = CliRunner().invoke(cli.main, ["export", str(run), "--to", "torch", "--out", str(tmp_path / "no" / "x.pt2")])
    assert said.exit_code == 2
    assert "no such folder" in said.output
    assert not list(tmp_path.iterdir())
