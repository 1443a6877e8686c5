"""Populations joined into one pack: who is in which part, what targets label, and noise that they have no part in."""

import dataclasses

import numpy as np
import pytest

from aunce import methods
from aunce.data import adapter, pack_faces, transfer
from aunce.data.recipes import Recipe
from aunce.errors import DataError, UsageError
from aunce.study.spec import RunSpec

PEOPLE = {"train": 8, "validation": 6, "test 1": 6, "test 2": 7, "drawn:disfa": 6}


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Population -> pack, each rendered with a seed of its own."""
    folder, made = tmp_path_factory.mktemp("populations"), {}
    for seed, (name, count) in enumerate(PEOPLE.items()):
        dataset, frames = ("disfa", 8) if "disfa" in name else ("bp4d", 3)
        adapter(dataset).write(folder / name, subjects=count, frames=frames, size=32, seed=seed)
        made[name] = pack_faces(dataset, folder / name, folder / f"{name} pack", recipe=Recipe(32))
    return made


def join(packs, targets=("drawn:disfa",)):
    tests = [packs["test 1"], packs["test 2"]]
    return transfer.join_populations(
        packs["train"], packs["validation"], tests, {name: packs[name] for name in targets}
    )


def test_everybody_of_a_population_has_one_use_and_a_name_of_their_own(packs):
    table = join(packs).table
    split = transfer.split(table)
    assert list(table.parts) == ["train", "validation", "test", "drawn:disfa"]
    assert {part: len(people) for part, people in table.parts.items()} == {
        "train": 8, "validation": 6, "test": 13, "drawn:disfa": 6,
    }  # fmt: skip
    first = {name: transfer.population_of(table.frames["subject"].iloc[getattr(split, name)]) for name in vars(split)}
    assert {name: set(values) for name, values in first.items()} == {
        "train": {"train"}, "validation": {"validation"}, "test": {"test 1", "test 2"},
    }  # fmt: skip
    assert sum(len(getattr(split, name)) for name in vars(split)) == sum(
        len(pack.table) for name, pack in packs.items() if ":" not in name
    )


def test_images_of_populations_are_those_of_their_packs_and_no_face_is_in_two(packs):
    joined = join(packs)
    assert np.array_equal(
        joined.images[np.arange(len(joined.table))], np.concatenate([p.images for p in packs.values()])
    )
    faces = [image.tobytes() for image in joined.images]
    assert len(set(faces)) == len(faces)


def test_an_au_that_a_target_does_not_label_is_unknown_there(packs):
    table = join(packs).table
    assert table.aus == packs["train"].table.aus
    assert join(packs, targets=()).table.aus == table.aus
    rows = table.frames["part"] == "drawn:disfa"
    for au in table.aus:
        labels, own = table.frames.loc[rows, f"AU{au}"], packs["drawn:disfa"].table.frames
        assert (labels == (own[f"AU{au}"].to_numpy() if f"AU{au}" in own else -1)).all()
    trained = packs["train"].table
    others = [f"AU{au}" for au in trained.protocol.aus if au not in (23, 24)]
    only = dataclasses.replace(trained.protocol, aus=(23, 24))
    few = dataclasses.replace(trained, protocol=only, frames=trained.frames.drop(columns=others))
    with pytest.raises(UsageError, match="label no AU in common"):
        join(packs | {"train": dataclasses.replace(packs["train"], table=few)})


def test_the_noise_of_a_population_does_not_depend_on_the_targets_which_stay_clean(packs):
    spec = RunSpec(noise_kind="miss", noise_rate=0.4, populations=2, test_part="test")
    alone, beside = join(packs, targets=()), join(packs)
    noisy = methods.noisy_labels(spec.model_copy(update={"targets": ["drawn:disfa"]}), beside)
    home = len(alone.table)
    assert np.array_equal(noisy[:home], methods.noisy_labels(spec, alone))
    assert (noisy[:home] != alone.table.labels).any(axis=0).all()
    assert np.array_equal(noisy[home:], beside.table.labels[home:])


def test_a_training_population_without_a_positive_frame_of_an_au_is_refused(packs):
    table = join(packs).table
    frames = table.frames.copy()
    frames.loc[frames["part"] == "train", "AU2"] = 0
    with pytest.raises(DataError, match="no positive frame of AU2 to train on"):
        transfer.split(dataclasses.replace(table, frames=frames))


def test_a_run_opens_the_packs_of_its_populations_in_their_order(packs, tmp_path):
    roots = [str(pack.folder) for pack in packs.values()]
    spec = RunSpec(
        root=roots[0], other_roots=roots[1:], populations=2, targets=["drawn:disfa"], test_part="test", pixels=32
    )
    assert methods.crops(spec).hash == join(packs).hash
    with pytest.raises(UsageError, match="need 4 packs in other_roots, and there are 3"):
        methods.crops(spec.model_copy(update={"other_roots": roots[2:]}))
    with pytest.raises(DataError, match="a pack of disfa, expected one of bp4d"):
        methods.crops(spec.model_copy(update={"other_roots": roots[:0:-1]}))
