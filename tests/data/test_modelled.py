"""Modelled faces: the asset, determinism, appearance of the AUs, landmarks, what cannot be drawn."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from aunce.data.render import behaviour, modelled, modelled_head
from aunce.data.render.behaviour import AUS, NULL_AU, plain_scene
from aunce.data.render.difficulty import SETTINGS, Difficulty
from aunce.data.render.modelled_raster import raster
from aunce.data.render.modelled_tables import unit_names
from aunce.data.render.modelled_things import STYLES
from aunce.errors import DataError, UsageError

EASY = SETTINGS["easy"]
# Where each AU acts, as (left, top, right, bottom) shares of the image, and AUs that are active beside it.
BROWS, EYES, NOSE, MOUTH = (0.1, 0.0, 0.9, 0.5), (0.1, 0.15, 0.9, 0.6), (0.15, 0.1, 0.85, 0.85), (0.1, 0.45, 0.9, 1.0)
REGIONS = {
    1: (BROWS, {2: 2, 4: 2}),
    2: (BROWS, {1: 2, 4: 2}),
    4: (BROWS, {1: 2, 2: 2}),
    5: (EYES, {7: 2}),
    6: (EYES, {7: 2}),
    7: (EYES, {6: 2}),
    9: (NOSE, {10: 2, 4: 2}),
    10: (NOSE, {9: 2, 12: 2}),
    12: (MOUTH, {6: 2, 15: 2}),
    14: (MOUTH, {12: 2}),
    15: (MOUTH, {12: 2, 17: 2}),
    17: (MOUTH, {24: 2}),
    20: (MOUTH, {25: 2}),
    23: (MOUTH, {24: 2}),
    24: (MOUTH, {23: 2}),
    25: (MOUTH, {26: 2}),
    26: (MOUTH, {25: 2}),
}


def levels(*rows: dict[int, float]) -> np.ndarray:
    return np.array([[row.get(au, 0.0) for au in AUS] for row in rows])


@cache
def person(seed: int, difficulty: Difficulty = EASY) -> modelled.Identity:
    return modelled.identity(behaviour.stream(seed, "face"), difficulty)


def plain(rows: np.ndarray, seed: int = 0, size: int = 64) -> np.ndarray:
    return modelled.render(rows, person(seed), plain_scene(len(rows)), EASY, size)


def change(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(image.astype(float) - other).mean(-1)


def shown(setting: str = "hard", name: str = "S1") -> behaviour.Behaviour:
    return behaviour.Subject(name, {}, SETTINGS[setting], 3).sequence("T2", np.array([0.4, 3.0, 3.04, 11.2]))


def digest() -> str:
    what = shown()
    return hashlib.sha256(
        modelled.render(what.intensity, person(3), what.scene, SETTINGS["hard"], 48).tobytes()
    ).hexdigest()


# --- the asset -------------------------------------------------------------------------------------------------------
def test_the_asset_is_the_one_that_the_code_was_written_for():
    arrays = modelled_head.load()
    assert [str(name) for name in arrays["unit_names"]] == unit_names()
    assert modelled_head.ASSET.stat().st_size < 1_000_000
    assert modelled_head.ASSET.with_name("head.md").read_text().count("CC0") >= 2


def test_a_damaged_or_missing_asset_is_one_message(tmp_path):
    damaged = tmp_path / "head.npz"
    data = bytearray(modelled_head.ASSET.read_bytes())
    data[1000] ^= 1
    damaged.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"damaged.*Install aunce again"):
        modelled_head.load(damaged)
    with pytest.raises(DataError, match=r"cannot be read.*Install aunce again"):
        modelled_head.load(tmp_path / "none.npz")


# --- determinism -----------------------------------------------------------------------------------------------------
def test_a_frame_does_not_depend_on_the_other_frames_asked_for():
    what, some = shown(), [2, 0]
    scene = behaviour.Subject("S1", {}, SETTINGS["hard"], 3).sequence("T2", np.array([3.04, 0.4])).scene
    arguments = person(3), what.scene, SETTINGS["hard"], 48
    pictures, points = modelled.render(what.intensity, *arguments), modelled.landmarks(what.intensity, *arguments)
    few = what.intensity[some], person(3), scene, SETTINGS["hard"], 48
    assert pictures.shape == (4, 48, 48, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures[some], modelled.render(*few))
    assert np.array_equal(points[some], modelled.landmarks(*few))


def test_bytes_do_not_depend_on_the_process():
    code = "import sys; sys.path.insert(0, 'tests/data'); import test_modelled as t; print(t.digest())"
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert there.stdout.strip() == digest()


# --- appearance ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("au", AUS)
def test_each_au_changes_its_own_region_and_the_more_the_stronger_given_its_neighbours(au):
    (left, top, right, bottom), neighbours = REGIONS[au]
    inside = np.zeros((64, 64), dtype=bool)
    inside[round(top * 64) : round(bottom * 64), round(left * 64) : round(right * 64)] = True
    for seed in (0, 2):
        pictures = plain(levels(*({**neighbours, au: level} for level in (0, 1, 3, 5))), seed)
        amounts = [change(picture, pictures[0]) for picture in pictures[1:]]
        assert amounts[0][inside].mean() > 0.1  # level A is visible
        assert all(amount[inside].sum() > 0.75 * amount.sum() for amount in amounts[1:])
        totals = [amount.sum() for amount in amounts]
        assert totals == sorted(totals)


@pytest.mark.parametrize(("first", "second"), [(6, 7), (1, 2), (1, 4), (12, 15), (23, 24), (25, 26), (24, 25)])
def test_aus_that_share_geometry_mask_each_other(first, second):
    overlap = []
    for seed in range(3):
        neutral, one, other = plain(levels({}, {first: 4}, {second: 4}), seed)
        a, b = change(one, neutral) > 4, change(other, neutral) > 4
        overlap.append((a & b).sum() / min(a.sum(), b.sum()))
    assert np.mean(overlap) > 0.2


def test_pressed_lips_hardly_open():
    neutral, apart, pressed, both = plain(levels({}, {25: 4}, {24: 5}, {24: 5, 25: 4}), 2)
    assert change(both, pressed).sum() < 0.6 * change(apart, neutral).sum()


def test_the_picture_jumps_no_more_at_level_a_than_elsewhere():
    steps = np.arange(0.8, 1.2, 0.04)
    for au in AUS:
        pictures = plain(levels(*({au: level} for level in steps)), 3)
        moves = np.array([change(after, before).sum() for before, after in pairwise(pictures)])
        near = np.abs(steps[1:] - 1.0) < 0.045
        assert moves[near].max() <= 1.6 * moves[~near].max(), au


def test_the_null_au_is_never_drawn():
    assert NULL_AU not in AUS
    times = np.linspace(0, 20, 12)
    what = [behaviour.Subject("S1", {NULL_AU: rate}, EASY, 3).sequence("T4", times) for rate in (0.02, 0.9)]
    assert what[0].null.mean() < what[1].null.mean()
    one, other = (modelled.render(w.intensity, person(1), w.scene, EASY, 32) for w in what)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("au", [4, 6, 9, 10, 15, 17, 23, 24])
def test_resting_faces_mimic_aus_by_the_same_shapes_and_furrows(au):
    index, who = AUS.index(au), person(0)
    calm = replace(who, rest_shape=np.zeros(17), rest_furrows=np.zeros(17), sides=np.ones((2, 17)))
    rest = np.eye(17)[index] * 0.4**0.8 * EASY.expression_gain
    mimic, scene = replace(calm, rest_shape=rest, rest_furrows=rest), plain_scene(2)
    neutral, shape = modelled.render(levels({}, {au: 2}), calm, scene, EASY, 48)
    resting = modelled.render(levels({}), mimic, plain_scene(1), EASY, 48)[0]
    assert change(resting, shape).mean() < 0.1 * change(neutral, shape).mean()


def test_people_differ_in_shape_wrinkles_hair_and_glasses():
    people = [person(seed) for seed in range(40)]
    assert len(STYLES) >= 8
    assert len({who.traits["style"] for who in people}) >= 7
    assert 0.3 < np.mean([who.traits["male"] for who in people]) < 0.7
    assert np.mean([who.rest_shape > 0 for who in people]) > 0.3
    assert np.ptp([who.relief[0, :4000] for who in people], axis=0).max() > 3  # furrows lie elsewhere in everybody
    wearing = [person(seed, replace(EASY, accessories=1.0)).traits["glasses"] for seed in range(3)]
    assert wearing == [True] * 3
    assert not any(person(seed, replace(EASY, accessories=0.0)).traits["glasses"] for seed in range(3))
    assert not person(1, replace(EASY, mimicry=0.0)).rest_shape.any()


@pytest.mark.parametrize(("seed", "row"), [(3, {6: 5, 12: 5}), (7, {6: 5, 12: 5}), (7, {7: 4})])
def test_the_eye_never_shows_through_the_skin_below_its_lid(seed, row):
    scene, who, where = plain_scene(1), person(seed), levels(row)
    (pose,) = modelled._poses(scene)
    x, y, depth = modelled._project(modelled._shape(modelled._activation(where[0], who, EASY), who, pose)[0], pose, 384)
    hits = raster(x, y, depth, who.triangles, 384)
    eye = hits.pixel[np.isin(who.triangles[0, hits.triangle], np.concatenate(modelled_head.head().eyes))]
    lids = modelled.landmarks(where, who, scene, EASY, 384)[0, 19:31, 1]
    assert len(eye) > 30
    assert (eye // 384).max() < lids.max() + 1.5


def test_hanging_hair_is_lit_on_its_outer_side():
    long = (person(seed) for seed in range(40) if STYLES[str(person(seed).traits["style"])].length)
    who = next(one for one in long if not one.traits["glasses"])
    hair = slice(len(modelled_head.head().kind), None)
    (x, _, z), off = modelled._normals(who.base, who)[:, hair], who.base[:, hair]
    off = off - off.mean(1, keepdims=True)
    assert np.mean(x * off[0] + z * off[2] > 0) > 0.9


@pytest.mark.parametrize("size", [16, 32, 96, 160])
def test_sizes_show_the_same_face(size):
    picture, other = (plain(levels({12: 4, 6: 3}), 5, s)[0] for s in (size, 128))
    small, same = (cv2.resize(p, (16, 16), interpolation=cv2.INTER_AREA).astype(float) for p in (picture, other))
    assert np.corrcoef(small.ravel(), same.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("size", [15, 513])
def test_sizes_out_of_range_are_one_message(size):
    with pytest.raises(UsageError, match="16 to 512"):
        plain(levels({}), 0, size)


# --- landmarks -------------------------------------------------------------------------------------------------------
def test_landmarks_lie_in_the_face_in_order_and_follow_it():
    rows = levels({}, {26: 5, 25: 5}, {12: 5}, {1: 5, 2: 5})
    still, dropped, smiling, raised = modelled.landmarks(rows, person(4), plain_scene(4), EASY, 100)
    assert ((still > 5) & (still < 95)).all()
    assert (np.diff(still[:10, 0]) > 0).all()  # brows, from the image's left to its right
    assert still[31, 0] < still[34, 0] < still[37, 0]  # the lips' left corner, top, right corner
    assert dropped[40, 1] > still[40, 1] + 4  # the lower lip
    assert (smiling[[31, 37], 1] < still[[31, 37], 1] - 1).all()  # both corners
    assert (raised[:10, 1] < still[:10, 1] - 0.5).all()
    assert still[:10, 1].mean() < still[19:31, 1].mean() < still[14:19, 1].mean() < still[31:43, 1].mean()


def test_landmarks_follow_the_pose():
    scene = replace(plain_scene(2), roll=np.array([0.0, 15.0]), shift=np.array([[0, 0], [0.05, 0.0]]))
    level, tilted = modelled.landmarks(levels({}, {}), person(4), scene, EASY, 100)
    assert tilted[:, 0].mean() > level[:, 0].mean()
    assert tilted[28, 1] - tilted[19, 1] > level[28, 1] - level[19, 1] + 5  # clockwise: the image's right eye sinks
