"""Each of the five data sets on its whole way: rendered, checked, packed, trained on; and from one to another."""

import inspect
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from aunce import cli, methods
from aunce import data as door
from aunce.data import Adapter, adapter, gft, images, load, noise, pack_faces, prepare, transfer
from aunce.data.recipes import Recipe
from aunce.data.render.difficulty import SETTINGS, seed_of
from aunce.data.render.population import Population
from aunce.data.render.writing import dealt_rates
from aunce.errors import DataError, UsageError
from aunce.model import build_encoder
from aunce.report.card import DataCard
from aunce.study.grid import REPORTS, load_study
from aunce.study.spec import RunSpec

DATASETS = {name: one for name, one in door.DATASETS.items() if hasattr(adapter(name), "write")}
SMALL = {"subjects": 8, "frames": 6, "size": 48}
# Every AU needs a positive frame to train on, and some are rare in these.
SIZES = {
    "disfa": {"subjects": 12, "frames": 60},
    "gft": {"frames": 40},
    "affwild2": {"subjects": 16, "frames": 40},
}
TINY = {"backbone": "small", "channels": 8, "pixels": 32, "crop": 0, "epochs": 1, "checks": 1, "batch_size": 16,
        "probe_epochs": 2, "threads": 1}  # fmt: skip
TEST_PARTS = {"bp4d": "3", "bp4dplus": "4", "disfa": "3", "gft": "test", "affwild2": "validation"}


def aunce(*words):
    result = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Data set -> root of a small rendering, made by the command."""
    folder = tmp_path_factory.mktemp("roots")
    for name in DATASETS:
        options = SMALL | SIZES.get(name, {})
        aunce("data", "synth", name, folder / name, *(f"--{key}={value}" for key, value in options.items()))
    return {name: folder / name for name in DATASETS}


@pytest.fixture(scope="module")
def packs(roots, tmp_path_factory):
    """Data set -> folder of a pack, made by the command as a lab would, but for small crops."""
    folder = tmp_path_factory.mktemp("packs")
    for name, root in roots.items():
        aunce("data", "pack", name, root, "--pixels", 32, "--out", folder / name)
    return {name: folder / name for name in roots}


def test_faces_of_people_are_never_drawn_among_the_reports(roots):
    words = ["data", "check", "bp4d", str(roots["bp4d"]), "--show-faces", "--page", str(REPORTS / "card")]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 2
    assert "are committed; name a folder that is not" in result.output


@pytest.mark.parametrize("name", DATASETS)
def test_a_rendering_passes_its_own_check_and_packs(name, roots, packs):
    text = aunce("data", "check", name, roots[name])
    module, pack = adapter(name), images.open_pack(packs[name])
    assert "synthetic: True" in text
    assert f"protocol_hash: {load(name, roots[name]).protocol.hash}" in text
    assert getattr(module, "RATES_STATUS", f"aunce/data/{name}.py") in text
    assert pack.recipe == Recipe(32, DATASETS[name].align).content
    assert pack.images.shape[1:] == (32, 32, 3)
    assert set(pack.table.parts) == set(load(name, roots[name], images="optional").parts)
    lost = len(load(name, roots[name])) - len(pack.table)
    assert lost == len(pack.no_face)
    # The cascade of the detector finds most rendered faces; shipped landmarks are almost always there.
    assert lost <= {"detector": 0.35, "landmarks": 0.1, "none": 0}[DATASETS[name].align] * len(pack.table)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("member", ["read", "protocols", "fingerprint"])
def test_an_adapter_has_what_it_must_have(name, member):
    _, *wanted = inspect.signature(getattr(Adapter, member)).parameters  # without self
    assert list(inspect.signature(getattr(adapter(name), member)).parameters) == wanted


def test_every_named_protocol_reads_and_foreign_names_list_the_known(roots):
    for name, root in roots.items():
        for protocol in adapter(name).protocols(root):
            assert load(name, root, protocol=protocol, images="optional").protocol.name == protocol
    with pytest.raises(UsageError, match="Known: bp4dplus, bp4dplus-cross"):
        load("bp4dplus", roots["bp4dplus"], protocol="folds")


def test_five_data_sets_are_five_populations_seen_by_five_cameras(packs):
    """Else transfer between them would mean nothing: brightness, contrast and the people differ."""
    looks = {}
    for name, folder in packs.items():
        pixels = images.open_pack(folder).images.astype(float)
        looks[name] = np.array([pixels.mean(), pixels.std(axis=(1, 2, 3)).mean()])
    names = list(looks)
    distances = [np.abs(looks[a] - looks[b]).max() for i, a in enumerate(names) for b in names[:i]]
    assert min(distances) > 0.5  # grey levels


def test_one_name_is_two_people_in_two_data_sets():
    """BP4D and BP4D+ both have a subject F001: on rendered faces too, training on one must not show the other."""
    people = []
    for name in ("bp4d", "bp4dplus"):
        difficulty = SETTINGS["easy"]
        population = Population(["F001"], rates={"F001": {}}, difficulty=difficulty, seed=seed_of(name, 0))
        people.append(population.images("F001", population.sequence("F001", "T1", np.zeros(1)), size=32).astype(float))
    assert np.abs(people[0] - people[1]).mean() > 3


@pytest.mark.parametrize("name", DATASETS)
def test_the_card_compares_with_what_is_published(name, roots):
    card = DataCard(name, roots[name])
    numbers = card.numbers[~card.numbers["au"].isin(card.table.null_aus)]
    assert numbers["published_rate"].between(0, 1).all()
    assert np.allclose(numbers["difference"], numbers["rate"] - numbers["published_rate"])
    for section in (card.title(), card.summary(), card.parts(), card.action_units(), card.sequence_lengths()):
        assert section.data
    assert "Rendered faces" in card.title().data


def test_faces_that_are_not_rendered_are_shown_only_if_asked_for(roots, tmp_path):
    card = DataCard("bp4d", roots["bp4d"], out=tmp_path)
    assert "figures/faces.svg" in card.faces().data
    object.__setattr__(card.table, "synthetic", None)
    (tmp_path / "figures" / "faces.svg").unlink()
    assert "not shown" in card.faces().data
    assert not (tmp_path / "figures" / "faces.svg").exists()


def test_dealt_rates_are_a_ladder_that_the_seed_deals_to_the_aus_of_everybody(tmp_path):
    dealt = dealt_rates((1, 2, 4, 6), 0)
    assert sorted(dealt.values(), reverse=True) == pytest.approx(np.geomspace(0.5, 0.02, 4))
    assert any(dealt_rates((1, 2, 4, 6), seed) != dealt for seed in (1, 2, 3))
    gft.write(tmp_path / "faces", subjects=24, frames=32, size=16, seed=3, rates="dealt", workers=1)
    table = load("gft", tmp_path / "faces", images="optional")
    rates = dealt_rates(gft.RATES, 3)
    found = {au: (table.frames[f"AU{au}"] == 1).mean() for au in rates}
    assert np.corrcoef([found[au] for au in rates], list(rates.values()))[0, 1] > 0.9
    assert table.synthetic["rates"] == "dealt"
    with pytest.raises(UsageError, match="unknown rates 'even'"):
        gft.write(tmp_path / "other", rates="even")


def test_landmarks_that_are_asked_for_and_not_there_are_refused_with_the_way_out(roots, tmp_path):
    with pytest.raises(UsageError, match="align by 'detector'"):
        pack_faces("gft", roots["gft"], tmp_path / "pack", recipe=Recipe(32, "landmarks"))


# ------------------------------------------------------------------------------------------------- damaged trees


def lose(path, draw):
    path.unlink()


def rename(path, draw):
    path.rename(path.with_name(draw.choice([path.name.swapcase(), f"copy of {path.name}", path.stem, "x" + path.name])))


def make_folder(path, draw):
    path.unlink()
    path.mkdir()


def link_nowhere(path, draw):
    path.unlink()
    path.symlink_to("nowhere")


def link_out_of_the_root(path, draw):
    outside = next(folder for folder in path.parents if folder.name == "root").parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def add_junk(path, draw):
    name = draw.choice([f"._{path.name}", ".DS_Store", "Thumbs.db", f"{path.name}~", f"{path.name}.bak"])
    path.with_name(name).write_bytes(b"\x00\x05\x16\x07")


def empty(path, draw):
    path.write_bytes(b"")


def double(path, draw):
    path.with_name(draw.choice([path.name.upper(), path.name.lower(), f"{path.stem} (1){path.suffix}"])).write_bytes(
        path.read_bytes()
    )


def forbid(path, draw):
    path.chmod(0)


def lose_all_of_its_kind(path, draw):
    for other in path.parent.glob(f"{path.name[:5]}*"):
        other.unlink()


DAMAGES = (lose, rename, make_folder, link_nowhere, link_out_of_the_root, add_junk, empty, double, forbid,
           lose_all_of_its_kind)  # fmt: skip


def blocks(table):
    """(subject, sequence) -> frame numbers and labels."""
    columns = ["frame", *(f"AU{au}" for au in table.aus)]
    return {key: rows[columns].to_numpy().tolist() for key, rows in table.frames.groupby(["subject", "sequence"])}


@pytest.mark.parametrize("name", DATASETS)
def test_a_damaged_tree_is_refused_with_its_place_or_read_as_far_as_it_is_whole(name, roots, tmp_path, mutations):
    """One subject of each part, so that a turn is quick."""
    parts = load(name, roots[name], images="optional").parts
    others = {subject for subjects in parts.values() for subject in sorted(subjects)[1:]}
    files = sorted(
        path.relative_to(roots[name])
        for path in roots[name].rglob("*")
        if path.suffix in (".csv", ".txt")
        and "Landmark" not in str(path)
        and not others & {path.stem, path.parent.name, path.stem.rpartition("_")[0]}
    )
    for file in [*files, Path("synthetic.json")]:
        (tmp_path / "whole" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(roots[name] / file, tmp_path / "whole" / file)
    whole = blocks(load(name, tmp_path / "whole", images="optional"))
    draw = random.Random(3)
    read = 0
    for turn in range(mutations // 8):
        root = tmp_path / str(turn) / "root"
        shutil.copytree(tmp_path / "whole", root)
        damage, file = DAMAGES[turn % len(DAMAGES)], draw.choice(files)
        damage(root / file, draw)
        refusal = ""
        try:
            table = load(name, root, images="optional")
        except DataError as error:
            refusal = str(error)
        shutil.rmtree(tmp_path / str(turn))
        if refusal:
            assert str(root) in refusal, (damage.__name__, file)
            continue
        read += 1
        # Aff-Wild2 publishes no names of videos: a file of any name is one.
        found = {key: rows for key, rows in blocks(table).items() if name != "affwild2" or key in whole}
        assert all(found[key] == whole[key] for key in found), (damage.__name__, file)
        gone = whole.keys() - found.keys()
        # Nobody is left out but who was taken out as a whole.
        assert not gone or damage in (lose, rename, lose_all_of_its_kind), (damage.__name__, file)
        assert {subject for subject, _ in gone} <= {*table.absent_subjects} or name == "affwild2"
    assert 0 < read < mutations // 8


# ---------------------------------------------------------------------------------------------- from one to another


def test_joined_packs_share_aus_and_keep_everybody_apart(packs):
    train, test = (images.open_pack(packs[name]) for name in ("bp4d", "bp4dplus"))
    joined = transfer.join(train, test)
    assert joined.table.protocol.aus == train.table.protocol.aus
    assert list(joined.table.parts) == ["train", "test"]
    split = joined.table.split("test", seed=0)
    assert len(split.test) == len(test.table)
    assert len(split.train) + len(split.validation) == len(train.table)
    rows = np.array([len(train.table), 0, len(train.table) + 5, 3])
    expected = np.stack([test.images[0], train.images[0], test.images[5], train.images[3]])
    assert np.array_equal(joined.images[rows], expected)
    assert np.array_equal(np.stack(list(joined.images))[rows], expected)
    names = [f"AU{au}" for au in joined.table.aus]
    both = np.concatenate([pack.table.frames[names].to_numpy() for pack in (train, test)])
    assert np.array_equal(joined.table.labels, both)
    assert joined.hash not in (train.hash, test.hash)
    assert joined.hash != transfer.join(test, train).hash


def test_only_shared_aus_are_trained_and_tested(packs):
    joined = transfer.join(*(images.open_pack(packs[name]) for name in ("bp4d", "disfa")))
    assert joined.table.protocol.aus == (1, 2, 4, 6, 12)
    assert joined.latents is not None
    assert len(joined.latents) == len(joined.table)


@pytest.mark.parametrize("kind", ["miss", "jitter", "shift"])  # those that ask how strong an action is
def test_a_joined_rendering_can_have_annotator_noise(packs, kind):
    joined = transfer.join(*(images.open_pack(packs[name]) for name in ("bp4d", "bp4dplus")))
    options = {"kind": kind, "rate": 0.3, "seed": 0, "intensity": joined.latents}
    assert not np.array_equal(noise.annotate(joined.table, **options), joined.table.labels)


def test_a_pack_of_another_data_set_or_protocol_is_refused(packs, roots, tmp_path):
    recipe = Recipe(32, DATASETS["bp4d"].align)
    assert prepare("bp4d", packs["bp4d"], recipe=recipe).table.protocol.name == "bp4d"
    with pytest.raises(DataError, match="a pack of bp4d, expected one of bp4dplus"):
        prepare("bp4dplus", packs["bp4d"], recipe=recipe)
    other = pack_faces("disfa", roots["disfa"], tmp_path / "pack", recipe=Recipe(16), protocol="disfa-jaa")
    assert prepare("disfa", other.folder, recipe=Recipe(16)).hash == other.hash
    assert prepare("disfa", other.folder, recipe=Recipe(16), protocol="disfa-jaa").hash == other.hash
    with pytest.raises(DataError, match="a pack of disfa-jaa, expected one of disfa-right"):
        prepare("disfa", other.folder, recipe=Recipe(16), protocol="disfa-right")


def test_packs_of_other_crops_are_not_joined(packs, roots, tmp_path):
    other = pack_faces("disfa", roots["disfa"], tmp_path / "pack", recipe=Recipe(16))
    with pytest.raises(UsageError, match="differ"):
        transfer.join(images.open_pack(packs["bp4d"]), other)


@pytest.mark.parametrize(
    "name", ["bp4d", *(pytest.param(one, marks=pytest.mark.long) for one in DATASETS if one != "bp4d")]
)
def test_modelled_faces_go_the_whole_way_in_the_same_layout(name, roots, tmp_path):
    options = SMALL | SIZES.get(name, {}) | {"faces": "modelled"}
    root = tmp_path / "modelled"
    aunce("data", "synth", name, root, *(f"--{key}={value}" for key, value in options.items()))
    assert "synthetic: True" in aunce("data", "check", name, root)
    aunce("data", "pack", name, root, "--pixels", 32, "--out", tmp_path / "pack")
    files = [{path.relative_to(one) for path in one.rglob("*") if path.is_file()} for one in (root, roots[name])]
    assert files[0] == files[1]
    modelled, drawn = (load(name, one) for one in (root, roots[name]))
    assert (modelled.synthetic["faces"], drawn.synthetic.get("faces")) == ("modelled", None)
    assert (modelled.aus, modelled.null_aus, modelled.parts) == (drawn.aus, drawn.null_aus, drawn.parts)
    pack = images.open_pack(tmp_path / "pack")
    assert pack.table.synthetic == modelled.synthetic
    assert len(pack.table) > 0.6 * len(modelled)
    spec = RunSpec(
        **TINY,
        dataset=name,
        root=str(pack.folder),
        align=DATASETS[name].align,
        test_part=TEST_PARTS[name],
        method="bce",
    )
    crops = methods.crops(spec)
    split = crops.table.split(spec.test_part, seed=0)
    trained = methods.train(spec, crops, split, crops.table.labels, folder=tmp_path, log=lambda line: None)
    validation, test = trained.monitor.scores["last"]["probe"]
    assert (len(validation), test.shape) == (len(split.validation), (len(split.test), len(crops.table.aus)))
    assert np.isfinite(test).all()


def test_a_run_on_two_data_sets_trains_on_one_and_scores_the_other(packs, tmp_path):
    spec = RunSpec(
        root=str(packs["bp4d"]),
        test_dataset="bp4dplus",
        test_root=str(packs["bp4dplus"]),
        pixels=32,
        align="landmarks",
        test_part="test",
        method="bce",
        epochs=1,
        checks=1,
        channels=8,
        probe_epochs=2,
    )
    pack = methods.crops(spec)
    split = pack.table.split("test", seed=0)
    trained = methods.train(spec, pack, split, pack.table.labels, folder=tmp_path, log=lambda line: None)
    validation, test = trained.monitor.scores["last"]["probe"]
    assert test.shape == (len(split.test), len(pack.table.aus))
    assert len(validation) == len(split.validation)


def test_a_transfer_study_prepares_both_data_sets():
    run = load_study("across").select(["pair=BP4D to DISFA", "arm=BCE"])[0]
    assert [data.dataset for data in run.data] == ["bp4d", "disfa"]
    moved = load_study("across", {"test_root": ""}).select(["pair=BP4D to DISFA", "arm=BCE"])[0]
    assert moved.key == run.key


# ------------------------------------------------------------------------------------------------- the study files


@pytest.mark.parametrize("name", DATASETS)
def test_a_study_file_holds_the_released_setting_beside_a_fair_one(name):
    study = load_study(name)
    assert {run.spec.dataset for run in study.runs} == {name}
    released = [run.spec for run in study.runs if run.labels["setting"] == "released"]
    assert {spec.method for spec in released} == {"aunce"}
    for spec in released:
        found = (spec.preset, spec.backbone, spec.learning_rate, spec.batch_size, spec.epochs, spec.temperature)
        assert found == ("released", "swin-base", 1e-5, 32, 60, 0.5)
        assert (spec.probe_learning_rate, spec.probe_epochs) == (1e-3, 100)
        assert spec.crop == (0 if name == "affwild2" else 224)
    fair = [run for run in study.runs if run.labels["setting"] == "fair"]
    assert len({run.labels["arm"] for run in fair}) == 4
    common = {json.dumps(run.spec.model_dump(include={"epochs", "batch_size", "schedule", "crop"})) for run in fair}
    assert len(common) == 1


@pytest.mark.long
def test_the_backbone_takes_the_images_of_every_study_file():
    encoder = build_encoder("swin-base", aus=2, channels=8, seed=0).eval()
    specs = [run.spec for name in DATASETS for run in load_study(name).runs]
    assert {spec.backbone for spec in specs} == {"swin-base"}
    for side in {spec.crop or spec.pixels for spec in specs}:
        with torch.inference_mode():
            assert encoder(torch.rand(1, 3, side, side)).shape == (1, 2, 8)


def run_study(name, root, project, *, only=()):
    words = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    words += [word for condition in only for word in ("--only", condition)]
    words = [sys.executable, "-m", "aunce", "study", name, "--root", str(root), *words]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "reports" / name


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AUNCE_REPORTS", str(tmp_path / "reports"))
    return tmp_path


@pytest.mark.long
def test_a_lab_names_its_folder_and_gets_a_report(roots, project):
    """DISFA has the longest way: videos, landmarks in small files, fold logs to compare with."""
    folder = run_study("disfa", roots["disfa"], project, only=("setting=released", "test_part=3"))
    text = (folder / "report.md").read_text()
    assert "PARTIAL" in text
    assert str(roots["disfa"]) not in text + (folder / "provenance.json").read_text()
    assert "--root FOLDER" in text
    assert "so the comparison says nothing about the published numbers" in text
    assert "| AU26 |" in text.split("## Did I match?")[1]


@pytest.mark.long
@pytest.mark.parametrize("name", DATASETS)
def test_all_study_files_run_on_rendered_layouts(name, roots, project):
    part = f"test_part={TEST_PARTS[name]}"
    text = (run_study(name, roots[name], project, only=(part,)) / "report.md").read_text()
    assert f"# {DATASETS[name].title}: released and fair" in text
    assert "Did I match?" in text
