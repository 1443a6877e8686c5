"""The frame table: its guards, its splits and its card."""

import doctest
import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import aunce.data
from aunce.data import frames as module
from aunce.data.frames import FrameTable, Protocol, Split, effective_sample_size, guard_subjects
from aunce.errors import DataError, UsageError

PARTS = {"1": frozenset({"A", "B", "C"}), "2": frozenset({"D", "E", "F"}), "3": frozenset({"G", "H"})}
PROTOCOL = Protocol("toy", (1, 4), PARTS)


def rows(length=4, seed=0, aus=(1, 4)):
    generator = np.random.default_rng(seed)
    listed = [
        (subject, sequence, frame, f"{subject}/{sequence}/{frame}.jpg", part)
        for part, subjects in PARTS.items()
        for subject in sorted(subjects)
        for sequence in ("T1", "T2")
        for frame in range(10, 10 + length)
    ]
    table = pd.DataFrame(listed, columns=["subject", "sequence", "frame", "image", "part"])
    for au in aus:
        table[f"AU{au}"] = generator.integers(-1, 2, len(table)).astype(np.int8)
    return table


@pytest.fixture
def frames():
    return rows()


def test_labels_keep_values_order_and_type(frames):
    table = FrameTable(frames, PROTOCOL)
    assert table.labels.dtype == np.int8
    assert table.labels.tolist() == frames[["AU1", "AU4"]].to_numpy().tolist()
    assert table.aus == (1, 4)
    assert table.parts == PARTS
    assert len(table) == len(frames)


def test_null_aus_come_after_the_aus_of_the_protocol():
    assert FrameTable(rows(aus=(1, 4, 28)), PROTOCOL, (28,)).aus == (1, 4, 28)
    with pytest.raises(DataError, match="Expected, in this order"):
        FrameTable(rows(aus=(28, 1, 4)), PROTOCOL, (28,))
    with pytest.raises(DataError, match="repeat AUs"):
        FrameTable(rows(), PROTOCOL, (4,))


def test_later_changes_by_the_caller_do_not_reach_the_table(frames):
    table = FrameTable(frames, PROTOCOL)
    before = table.labels
    frames.loc[:, "AU1"] = np.int8(7)
    table.labels[:] = 9
    assert (table.labels == before).all()


SPOILED = {
    "a value that is no label": (lambda t: t.assign(AU4=np.where(t.index == 5, 7, t["AU4"]).astype(np.int8)),
                                 r"row 5 \(A/T2/11\): AU4 is 7. Expected -1, 0 or 1"),
    "a wider label type": (lambda t: t.astype({"AU4": "int64"}), "column AU4 has type int64. Expected int8"),
    "a float frame number": (lambda t: t.astype({"frame": "float64"}), "column frame has type float64"),
    "a negative frame number": (lambda t: t.assign(frame=t["frame"].where(t.index != 0, -1)), r"row 0 \(A/T1/-1\)"),
    "a missing AU": (lambda t: t.drop(columns="AU1"), "Expected, in this order: .*AU1, AU4"),
    "an extra AU": (lambda t: t.assign(AU9=t["AU1"]), "Expected, in this order"),
    "AUs out of order": (lambda t: t[[*t.columns[:5], "AU4", "AU1"]], "Expected, in this order"),
    "a frame twice": (lambda t: t.assign(frame=t["frame"].where(t.index != 1, 10)), r"row 1 \(A/T1/10\) is there tw"),
    "a frame twice, far apart": (lambda t: pd.concat([t, t.iloc[[2]]]), r"\(A/T1/12\) is there twice"),
    "a descending frame": (lambda t: t.assign(frame=t["frame"].where(t.index != 1, 9)), r"row 1 \(A/T1/9\) follows"),
    "an interrupted sequence": (lambda t: t.iloc[[0, 4, 1]], r"row 2 \(A/T1/11\): the sequence began before"),
    "a subject in two parts": (lambda t: t.assign(part=t["part"].where(t.index != 3, "2")),
                               r"row 3 \(A/T1/13\): part is '2'. Expected part '1'"),
    "a subject outside the protocol": (lambda t: t.replace({"subject": {"H": "Z"}}), "Expected no part.*subject Z"),
    "a subject without name": (lambda t: t.replace({"subject": {"H": ""}}), "subject is ''. Expected a name"),
    "a subject that is missing": (lambda t: t.assign(subject=t["subject"].where(t.index != 6)), "Expected a name"),
    "an image that is missing": (lambda t: t.assign(image=t["image"].where(t.index != 6)), "row 6 .*Expected a path"),
    "numbers for names": (lambda t: t.assign(subject=1), "column subject has type int64. Expected text"),
    "two wrong values": (lambda t: t.assign(AU1=np.where(t.index > 6, 5, t["AU1"]).astype(np.int8), frame=-1),
                         r"row 0 .*frame is -1. Expected a number from 0. 121 value"),
    "no rows": (lambda t: t.iloc[:0], "no rows"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_table_is_refused_and_the_place_named(frames, case):
    spoil, message = SPOILED[case]
    with pytest.raises(DataError, match=message):
        FrameTable(spoil(frames), PROTOCOL)


def test_protocol_hash_moves_with_every_field_and_not_with_the_order_of_parts():
    other = [
        Protocol("other", (1, 4), PARTS),
        Protocol("toy", (1, 2), PARTS),
        Protocol("toy", (1, 4), {**PARTS, "3": frozenset({"G"})}),
        Protocol("toy", (1, 4), {"one": PARTS["1"], "2": PARTS["2"], "3": PARTS["3"]}),
        Protocol("toy", (1, 4), PARTS, "no tracker failures"),
    ]
    assert len({PROTOCOL.hash, *(protocol.hash for protocol in other)}) == 6
    assert Protocol("toy", (1, 4), dict(reversed(PARTS.items()))).hash == PROTOCOL.hash
    assert Protocol.from_dict(PROTOCOL.to_dict()) == PROTOCOL


@pytest.mark.parametrize(
    ("aus", "parts", "message"),
    [
        ((4, 1), PARTS, "ascending"),
        ((1, 1), PARTS, "each once"),
        ((), PARTS, "AU numbers"),
        ((1,), {}, "no parts"),
        ((1,), {"1": frozenset()}, "no subjects"),
        ((1,), {"1": {"A"}, "2": {"A"}}, "subject A is in parts '1' and '2'"),
    ],
)
def test_impossible_protocol_is_refused(aus, parts, message):
    with pytest.raises(UsageError, match=message):
        Protocol("bad", aus, parts)


@pytest.mark.parametrize("part", PARTS)
def test_split_covers_all_rows_once_and_shares_no_subject(frames, part):
    table = FrameTable(frames, PROTOCOL)
    split = table.split(part, seed=3)
    used = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(used).tolist()) == list(range(len(table)))
    people = [set(frames["subject"].iloc[rows]) for rows in used]
    assert not any(a & b for a, b in itertools.combinations(people, 2))
    assert people[2] == PARTS[part]
    assert len(people[1]) == 1  # 20 % of five or six


def test_split_follows_its_seed_and_part_alone(frames):
    table, shorter = FrameTable(frames, PROTOCOL), FrameTable(rows(length=2, seed=5), PROTOCOL)
    inner = {seed: set(frames["subject"].iloc[table.split("3", seed=seed).validation]) for seed in range(20)}
    assert len({tuple(names) for names in inner.values()}) > 3
    for seed in (0, 1):
        again = shorter.split("3", seed=seed).validation
        assert set(shorter.frames["subject"].iloc[again]) == inner[seed]


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.5, 3), (0.99, 5)])
def test_inner_validation_takes_its_fraction_and_leaves_someone_to_train_on(frames, fraction, count):
    table = FrameTable(frames, PROTOCOL)
    split = table.split("3", seed=1, inner_fraction=fraction)
    assert frames["subject"].iloc[split.validation].nunique() == count
    assert len(split.train)


def test_split_says_which_au_has_no_positive_to_train_on(frames):
    frames.loc[frames["part"] != "2", "AU4"] = np.int8(0)
    table = FrameTable(frames, PROTOCOL)
    with pytest.raises(DataError, match="no positive frame of AU4 to train on"):
        table.split("2", seed=0)
    assert table.card().query("au == 4 and part == '1'")["positives"].item() == 0


def test_split_refuses_unknown_parts_single_subjects_and_odd_fractions(frames):
    table = FrameTable(frames, PROTOCOL)
    with pytest.raises(DataError, match=r"part '4' has no frames.*1, 2, 3"):
        table.split("4", seed=0)
    with pytest.raises(DataError, match=r"only 1 subject\(s\) outside part '1'"):
        FrameTable(frames[frames["subject"].isin(["A", "B", "D"])], PROTOCOL).split("1", seed=0)
    for fraction in (0, 1, -0.2, float("nan")):
        with pytest.raises(UsageError, match="inner_fraction"):
            table.split("1", seed=0, inner_fraction=fraction)


def test_a_split_with_a_shared_subject_is_refused():
    subjects = np.array(["A", "A", "B", "C"])
    fine = Split(np.array([0, 1]), np.array([2]), np.array([3]))
    guard_subjects(subjects, fine)
    with pytest.raises(DataError, match="subject A is in both train and test"):
        guard_subjects(subjects, Split(np.array([0]), np.array([2]), np.array([1, 3])))
    with pytest.raises(DataError, match="subject A is in both train and validation"):
        guard_subjects(subjects, Split(np.array([0]), np.array([1]), np.array([3])))


def test_card_counts_agree_with_counting_by_hand():
    frames = rows(length=30, seed=2)
    card = FrameTable(frames, PROTOCOL).card()
    assert len(card) == 6
    for line in card.to_dict("records"):
        mine = [row for row in frames.to_dict("records") if row["part"] == line["part"]]
        labels = [row[f"AU{line['au']}"] for row in mine]
        assert line["frames"] == len(labels)
        assert line["known"] == sum(label >= 0 for label in labels)
        assert line["unknown"] == labels.count(-1)
        assert line["positives"] == labels.count(1)
        assert line["rate"] == labels.count(1) / line["known"]
        people = {row["subject"] for row in mine}
        ten = [sum(row["subject"] == p and row[f"AU{line['au']}"] == 1 for row in mine) >= 10 for p in people]
        assert (line["subjects"], line["subjects_with_10_positives"]) == (len(people), sum(ten))


def test_card_shows_an_unknown_part_as_nan_and_not_as_zero(frames):
    frames.loc[frames["part"] == "3", "AU1"] = np.int8(-1)
    line = FrameTable(frames, PROTOCOL).card().query("part == '3' and au == 1").iloc[0]
    assert np.isnan(line["rate"])
    assert line["effective_sample_size"] == 0


def test_summary_counts_subjects_sequences_and_losses(frames):
    table = FrameTable(frames, PROTOCOL, missing_images=("A/T1/9",), absent_subjects=("I",), synthetic={"seed": 1})
    assert table.summary() == {
        "subjects": 8,
        "sequences": 16,
        "frames": 64,
        "missing_images": 1,
        "absent_subjects": ["I"],
        "protocol": "toy",
        "protocol_hash": PROTOCOL.hash,
        "synthetic": True,
    }


def test_effective_sample_size_of_one_label_throughout_is_one_per_sequence():
    label = np.array([1] * 9 + [0] * 5, dtype=np.int8)
    assert effective_sample_size(label, np.array([0] * 9 + [1] * 5)) == 2


def test_effective_sample_size_leaves_unknown_rows_out():
    label = np.array([1, -1, 0, 0, -1, 1, 1, 0], dtype=np.int8)
    known = label >= 0
    ids = np.zeros(len(label), dtype=np.int64)
    assert effective_sample_size(label, ids) == effective_sample_size(label[known], ids[known])


@pytest.mark.parametrize("stay", [0.5, 0.8, 0.95])
def test_effective_sample_size_predicts_the_variance_of_the_mean_of_markov_chains(stay):
    generator, length, chains = np.random.default_rng(1), 2000, 300
    state = np.empty((chains, length), dtype=np.int8)
    state[:, 0] = generator.random(chains) < 0.5
    for t in range(1, length):
        state[:, t] = np.where(generator.random(chains) < stay, state[:, t - 1], 1 - state[:, t - 1])
    observed = 0.25 / state.mean(axis=1).var()
    ids = np.repeat(np.arange(chains), length)
    predicted = effective_sample_size(state.ravel(), ids) / chains
    assert predicted == pytest.approx(observed, rel=0.25)
    assert predicted == pytest.approx(length * (1 - stay) / stay, rel=0.05)


def test_parquet_brings_everything_back(frames, tmp_path):
    table = FrameTable(frames.assign(AU28=frames["AU1"]), PROTOCOL, (28,), {"seed": 4}, ("A/T1/9",), ("I",))
    table.to_parquet(tmp_path / "frames.parquet")
    again = FrameTable.from_parquet(tmp_path / "frames.parquet")
    pd.testing.assert_frame_equal(again.frames, table.frames)
    for name in ("protocol", "null_aus", "synthetic", "missing_images", "absent_subjects", "aus"):
        assert getattr(again, name) == getattr(table, name)


def test_a_file_that_is_no_frame_table_is_refused(frames, tmp_path):
    frames.to_parquet(tmp_path / "plain.parquet")
    (tmp_path / "text.parquet").write_text("AU1,AU2")
    for name in ("plain.parquet", "text.parquet", "absent.parquet"):
        with pytest.raises(DataError, match=f"{name}: not the frame table of a pack"):
            FrameTable.from_parquet(tmp_path / name)


def test_load_refuses_unknown_names_and_modes(tmp_path):
    with pytest.raises(UsageError, match=r"unknown data set 'bp5d'\. Known: bp4d"):
        aunce.data.load("bp5d", tmp_path)
    with pytest.raises(UsageError, match="'required' or 'optional'"):
        aunce.data.load("bp4d", tmp_path, images="some")


def test_importing_the_door_loads_neither_pandas_nor_torch():
    code = "import sys, aunce.data; print(sorted({'pandas', 'torch', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("documented", [module, aunce.data])
def test_examples_in_docstrings_hold(documented):
    tried = doctest.testmod(documented, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert (tried.failed, tried.attempted > 0) == (0, True)
