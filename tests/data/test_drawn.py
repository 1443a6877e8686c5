"""Rendered faces and behaviour: determinism, appearance of the AUs, no private markers, structure of the labels."""

import hashlib
import re
import subprocess
import sys
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from aunce.data.render import behaviour, drawn
from aunce.data.render.behaviour import AUS, NULL_AU
from aunce.data.render.difficulty import SETTINGS, Difficulty
from aunce.data.render.population import Population, faces
from aunce.errors import UsageError

RATES = {1: 0.2, 2: 0.15, 4: 0.2, 6: 0.45, 7: 0.55, 10: 0.6, 12: 0.55, 14: 0.45, 15: 0.17, 17: 0.35, 23: 0.17, 24: 0.15}
NAMES = ("F001", "F002", "M001")
TIMES = np.array([0.4, 3.0, 3.04, 11.2])
MIMICKED = (4, 6, 9, 10, 15, 17, 23, 24)
# Where each AU acts, as (left, top, right, bottom) shares of the image, and AUs that are active beside it.
REGIONS = {
    1: ((0.2, 0.0, 0.8, 0.48), {2: 2, 4: 2}),
    2: ((0.1, 0.0, 0.9, 0.48), {1: 2, 4: 2}),
    4: ((0.1, 0.1, 0.9, 0.5), {1: 2, 2: 2}),
    5: ((0.2, 0.25, 0.8, 0.52), {7: 2}),
    6: ((0.1, 0.25, 0.9, 0.66), {7: 2}),
    7: ((0.15, 0.3, 0.85, 0.55), {6: 2}),
    9: ((0.2, 0.2, 0.8, 0.75), {10: 2, 4: 2}),
    10: ((0.2, 0.45, 0.8, 0.82), {9: 2, 12: 2}),
    12: ((0.1, 0.4, 0.9, 0.9), {6: 2, 15: 2}),
    14: ((0.15, 0.5, 0.85, 0.9), {12: 2}),
    15: ((0.2, 0.6, 0.8, 1.0), {12: 2, 17: 2}),
    17: ((0.25, 0.6, 0.75, 1.0), {24: 2}),
    20: ((0.15, 0.5, 0.85, 1.0), {25: 2}),
    23: ((0.25, 0.58, 0.75, 0.88), {24: 2}),
    24: ((0.25, 0.58, 0.75, 0.9), {23: 2}),
    25: ((0.25, 0.62, 0.75, 0.9), {26: 2}),
    26: ((0.15, 0.6, 0.85, 1.0), {25: 2}),
}


def levels(*rows: dict[int, float]) -> np.ndarray:
    return np.array([[row.get(au, 0.0) for au in AUS] for row in rows])


def population(names=NAMES, difficulty=SETTINGS["easy"], seed=7, rates=RATES) -> Population:
    return Population(names, rates=dict.fromkeys(names, rates), difficulty=difficulty, seed=seed)


def change(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(image.astype(float) - other).mean(-1)


def digest(order: tuple[str, ...]) -> str:
    people = population()
    parts = {}
    for name in order:
        for task in ("T3", "T1"):
            shown = people.sequence(name, task, TIMES)
            parts[name, task] = people.images(name, shown, size=48).tobytes() + shown.intensity.tobytes()
    return hashlib.sha256(b"".join(parts[key] for key in sorted(parts))).hexdigest()


@pytest.fixture(scope="module")
def many() -> tuple[np.ndarray, np.ndarray]:
    """Intensities (S, 8, T, 18) of many subjects, sparse times over 20 s, and the subjects' rates (S, 18)."""
    people = [behaviour.Subject(f"S{i}", RATES, SETTINGS["easy"], 1) for i in range(150)]
    times = np.linspace(0, 20, 12)
    shown = [[who.intensity(who.tails(task, times)) for task in behaviour.TASKS] for who in people]
    return np.array(shown), np.array([who.rates for who in people])


# --- determinism -----------------------------------------------------------------------------------------------------
def test_bytes_do_not_depend_on_the_order_of_asking_nor_on_the_process():
    here = digest(NAMES)
    assert here == digest(NAMES[::-1])
    code = (
        "import sys; sys.path.insert(0, 'tests/data'); import test_drawn as t; print(t.digest(t.NAMES), *sys.modules)"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    found, *modules = there.stdout.split()
    assert found == here
    assert "aunce.data.render.modelled" not in modules  # nobody waits for what was not asked for


def test_people_are_not_all_kept_and_come_back_as_they_were(monkeypatch):
    monkeypatch.setattr("aunce.data.render.population.KEPT", 2)
    people = population()
    shown = people.sequence("F001", "T1", TIMES)
    first = people.images("F001", shown, size=32)
    for name in NAMES[1:]:
        people.images(name, shown, size=32)
    assert len(people._identities) == 2
    assert np.array_equal(people.images("F001", shown, size=32), first)


def test_a_frame_does_not_depend_on_the_other_frames_asked_for():
    people = population(difficulty=SETTINGS["hard"])
    whole, some = people.sequence("F001", "T2", TIMES), people.sequence("F001", "T2", TIMES[[2, 0]])
    assert np.array_equal(whole.intensity[[2, 0]], some.intensity)
    pictures = people.images("F001", whole, size=48)
    assert np.array_equal(pictures[[2, 0]], people.images("F001", some, size=48))


def test_another_seed_or_subject_is_another_person_with_other_behaviour():
    first, second = population(seed=1), population(seed=2)
    shown = [
        first.sequence("F001", "T1", TIMES),
        first.sequence("F002", "T1", TIMES),
        second.sequence("F001", "T1", TIMES),
    ]
    assert not np.array_equal(shown[0].intensity, shown[1].intensity)
    assert not np.array_equal(shown[0].intensity, shown[2].intensity)
    neutral = faces(levels({}), identity_seed=1), faces(levels({}), identity_seed=2)
    assert change(*neutral).mean() > 3


# --- appearance ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("au", AUS)
def test_each_au_changes_its_own_region_and_the_more_the_stronger_given_its_neighbours(au):
    (left, top, right, bottom), neighbours = REGIONS[au]
    size = 96
    inside = np.zeros((size, size), dtype=bool)
    inside[round(top * size) : round(bottom * size), round(left * size) : round(right * size)] = True
    for seed in (0, 2, 3):
        rows = levels(*({**neighbours, au: level} for level in (0, 1, 2, 3, 5)))
        pictures = faces(rows, identity_seed=seed, size=size)
        amounts = [change(picture, pictures[0]) for picture in pictures[1:]]
        assert amounts[0][inside].mean() > 0.1  # level A is visible
        assert all(amount[inside].sum() > 0.8 * amount.sum() for amount in amounts[1:])
        totals = [amount.sum() for amount in amounts]
        assert totals == sorted(totals)


@pytest.mark.parametrize(("first", "second"), [(6, 7), (1, 2), (1, 4), (12, 15), (23, 24), (25, 26), (24, 25)])
def test_aus_that_share_geometry_mask_each_other(first, second):
    overlap = []
    for seed in range(4):
        neutral, one, other = faces(levels({}, {first: 4}, {second: 4}), identity_seed=seed, size=64)
        a, b = change(one, neutral) > 4, change(other, neutral) > 4
        overlap.append((a & b).sum() / min(a.sum(), b.sum()))
    assert np.mean(overlap) > 0.2


def test_pressed_lips_hardly_open():
    neutral, apart, pressed, both = faces(levels({}, {25: 4}, {24: 5}, {24: 5, 25: 4}), identity_seed=2, size=64)
    assert change(both, pressed).sum() < 0.6 * change(apart, neutral).sum()


def test_the_picture_jumps_no_more_at_level_a_than_elsewhere():
    steps = np.arange(0.7, 1.3, 0.02)
    for au in AUS:
        pictures = faces(levels(*({au: level} for level in steps)), identity_seed=3, size=64)
        moves = np.array([change(after, before).sum() for before, after in pairwise(pictures)])
        near = np.abs(steps[1:] - 1.0) < 0.025
        assert moves[near].max() <= 1.5 * moves[~near].max(), au


def test_nothing_jumps_in_the_picture_at_level_a():
    across, around = np.zeros(len(AUS)), np.zeros(len(AUS))
    for index, au in enumerate(AUS):
        for seed in (0, 3, 5):
            pictures = faces(levels(*({au: level} for level in (0.9, 0.999, 1.001, 1.1))), identity_seed=seed, size=64)
            across[index] += change(pictures[1], pictures[2]).sum()
            around[index] += change(pictures[0], pictures[3]).sum()
    assert across.sum() < 0.05 * around.sum()  # the step itself is 0.01 of the way
    assert (across < 0.1 * around).all()  # grey levels are whole numbers, so single steps are uneven


@pytest.mark.parametrize("size", [32, 48, 64, 96, 256])
def test_sizes_show_the_same_face(size):
    rows = levels({12: 4, 6: 3})
    picture, large = (faces(rows, identity_seed=5, size=s)[0] for s in (size, 128))
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    small = cv2.resize(large, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    same = cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    assert np.corrcoef(small.ravel(), same.ravel())[0, 1] > 0.97


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UsageError, match="16 to 512"):
        faces(levels({}), identity_seed=0, size=8)
    for wrong in (levels({1: 6}), levels({1: -1}), levels({})[0], np.full((1, 17), np.nan)):
        with pytest.raises(UsageError, match=r"in 0\.\.5"):
            faces(wrong, identity_seed=0)


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"mimicry": 1.1, "yaw": -1.0}, "difficulty: mimicry = 1.1, yaw = -1.0. Expected 0 or more, and at most 1 of"),
        ({"noise": float("nan")}, "difficulty: noise = nan"),
        ({"accessories": 2}, "difficulty: accessories = 2"),
    ],
)
def test_dials_out_of_range_are_refused_in_one_message(dials, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Difficulty(**dials)


@pytest.mark.parametrize("rate", [1.2, -0.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(UsageError, match=r"subject F001: rates of AUs \{4: .*Expected 0 to 1"):
        population(rates={**RATES, 4: rate})


def test_faces_in_a_drawn_scene_differ_from_the_plain_one():
    plain, scene = (faces(levels({}), identity_seed=4, neutral_scene=neutral) for neutral in (True, False))
    assert change(plain[0], scene[0]).mean() > 3


@pytest.mark.parametrize("factor", [0.0, 4.0])
def test_extreme_dials_do_not_crash(factor):
    values = {f.name: getattr(Difficulty(), f.name) * factor for f in fields(Difficulty)}
    values |= {name: min(values[name], 1.0) for name in ("trace", "mimicry", "accessories", "light_strength")}
    people = population(difficulty=Difficulty(**values))
    for name in NAMES:
        shown = people.sequence(name, "T1", TIMES)
        assert np.isfinite(shown.intensity).all()
        assert people.images(name, shown, size=32).std() > 1


# --- no private markers ----------------------------------------------------------------------------------------------
def test_intensity_is_continuous_at_the_threshold_and_skewed_to_low_levels(many):
    who = behaviour.Subject("S1", RATES, SETTINGS["easy"], 1)
    for step in (-1e-6, 0.0, 1e-6):
        assert who.intensity(np.clip(who.rates + step, 0, 1)[None]) == pytest.approx(np.ones((1, 18)), abs=0.01)
    intensity = many[0][..., :-1].reshape(-1, len(AUS))
    below, above = ((intensity > 0.75) & (intensity < 1)).mean(0), ((intensity >= 1) & (intensity < 1.25)).mean(0)
    assert (below > 0.005).all()
    assert (above > 0.005).all()
    present = intensity[intensity >= 1]
    assert np.median(present) < 2.7
    assert (present < 2).mean() > 2 * (present > 4).mean()


def test_occurrence_is_intensity_of_at_least_one():
    shown = population().sequence("F001", "T1", np.arange(500) / 25)
    assert shown.intensity.dtype == np.float32
    assert (shown.intensity.shape, shown.occurrence.shape, shown.null.shape) == ((500, 17), (500, 17), (500,))
    assert np.array_equal(shown.occurrence, (shown.intensity >= 1).astype(np.int8))
    assert shown.intensity.min() >= 0
    assert shown.intensity.max() <= 5


@pytest.mark.parametrize("au", MIMICKED)
def test_resting_faces_mimic_aus_by_the_same_geometry_and_furrows(au):
    index, difficulty = AUS.index(au), SETTINGS["hard"]
    people = [drawn.identity(behaviour.stream(seed, "face"), difficulty) for seed in range(200)]
    # A good share of the people rest at least 40 % as far as the AU moves at level A.
    assert np.mean([who.rest_shape[index] > 0.4 * 0.2**0.8 for who in people]) > 0.1
    calm = replace(people[0], rest_shape=np.zeros(17), rest_furrows=np.zeros(17), sides=np.ones((2, 17)))
    rest = np.eye(17)[index] * 0.4**0.8 * difficulty.expression_gain
    mimic = replace(calm, rest_shape=rest, rest_furrows=rest)
    scene = behaviour.plain_scene(2)
    neutral, shown = drawn.render(levels({}, {au: 2}), calm, scene, difficulty, 64)
    assert np.array_equal(drawn.render(levels({}, {}), mimic, scene, difficulty, 64)[0], shown)
    assert not np.array_equal(neutral, shown)


def test_without_mimicry_people_rest_neutrally():
    who = drawn.identity(behaviour.stream(1, "face"), Difficulty(mimicry=0.0))
    assert not who.rest_shape.any()
    assert not who.rest_furrows.any()


def test_the_null_au_never_changes_a_pixel_nor_another_label():
    often, rarely = (population(rates={**RATES, NULL_AU: rate}) for rate in (0.7, 0.02))
    for name in NAMES:
        a, b = (people.sequence(name, "T4", np.linspace(0, 20, 40)) for people in (often, rarely))
        assert a.null.mean() > b.null.mean()
        assert np.array_equal(a.occurrence, b.occurrence)
        assert np.array_equal(often.images(name, a, size=32), rarely.images(name, b, size=32))


# --- labels ----------------------------------------------------------------------------------------------------------
def test_rates_hit_the_target_of_the_part_and_subjects_differ(many):
    intensity, rates = many
    present = (intensity >= 1).mean(axis=(1, 2))  # (S, 18)
    for au, target in RATES.items():
        column = AUS.index(au)
        error = present[:, column].std() / np.sqrt(len(present))
        assert abs(present[:, column].mean() - target) < 3.5 * error + 0.005, au
        assert abs(rates[:, column].mean() - target) < 3.5 * rates[:, column].std() / np.sqrt(len(rates)), au
        assert rates[:, column].std() > 0.03, au
    assert 0.05 < present[:, -1].mean() < 0.25  # the null AU has rates too
    assert (present.mean(0) > 0.02).all()  # AUs without a target are distractors


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_the_logit_correction_keeps_the_mean_rate(rate):
    draws = behaviour.centred_logit(rate, 0.9) + 0.9 * np.random.default_rng(0).standard_normal(200_000)
    assert np.mean(1 / (1 + np.exp(-draws))) == pytest.approx(rate, rel=0.01)


def test_aus_of_one_expression_occur_together_and_the_dial_turns_it_off(many):
    flat = (many[0] >= 1).reshape(-1, 18)
    table = np.corrcoef(flat.T)
    at = {au: i for i, au in enumerate((*AUS, NULL_AU))}
    for a, b in ((6, 12), (1, 2), (9, 10), (15, 17), (23, 24), (24, NULL_AU)):
        assert table[at[a], at[b]] > 0.1, (a, b)
    assert table[at[6], at[12]] > table[at[6], at[15]] + 0.15
    loose = [behaviour.Subject(f"S{i}", RATES, Difficulty(cooccurrence=0.0), 1) for i in range(40)]
    assert not any(who.loadings("T1").any() for who in loose)


def test_co_occurrence_and_rates_differ_between_tasks_and_parts(many):
    smile = (many[0][..., AUS.index(12)] >= 1).mean(axis=(0, 2))
    assert smile.max() - smile.min() > 0.1
    here, there = (behaviour.Subject("S1", {**RATES, 1: rate}, SETTINGS["easy"], 1) for rate in (0.2, 0.3))
    assert not np.allclose(here.loadings("T1"), there.loadings("T1"))
    assert not np.allclose(here.loadings("T1"), here.loadings("T2"))


def test_events_have_onset_apex_and_offset_of_half_a_second_to_four_seconds():
    people = [behaviour.Subject(f"S{i}", dict.fromkeys(AUS, 0.1), SETTINGS["easy"], 3) for i in range(25)]
    lengths, speed = [], []
    for who in people:
        intensity = who.intensity(who.tails("T1", np.arange(750) / 25))[:, :-1]
        speed.append(np.abs(np.diff(intensity, axis=0)).max())
        for column in (intensity >= 1).T:
            edges = np.flatnonzero(np.diff(np.concatenate([[0], column, [0]])))
            runs = edges.reshape(-1, 2)
            lengths += [(b - a) / 25 for a, b in runs if a > 0 and b < len(column)]
    lengths = np.array(lengths)
    assert len(lengths) > 200
    assert 0.5 < np.median(lengths) < 4
    assert ((lengths > 0.4) & (lengths < 4.2)).mean() > 0.88
    assert np.max(speed) < 3  # no frame switches an AU on or off at once


def test_scene_is_fixed_within_a_sequence_and_differs_between_tasks():
    people = population()
    one, other = (people.sequence("F001", task, np.arange(250) / 25).scene for task in ("T1", "T2"))
    assert np.ptp(one.yaw) < 2.5 * SETTINGS["easy"].drift
    assert np.abs(np.diff(one.yaw)).max() < 0.2
    assert not np.allclose(one.light, other.light)
