"""Annotator noise: what it keeps, what it changes, and what it depends on."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from aunce.data.frames import FrameTable, Protocol
from aunce.data.noise import KINDS, annotate, kappa
from aunce.errors import DataError, UsageError

AUS = (1, 2, 6, 7, 12, 23, 24)
RATES = (0.2, 0.12, 0.45, 0.6, 0.85, 0.15, 0.05)
SUBJECTS = tuple("ABCDEF")
PROTOCOL = Protocol("toy", AUS, {"1": frozenset(SUBJECTS[:3]), "2": frozenset(SUBJECTS[3:])})
NOISES = [kind for kind in KINDS if kind != "none"]
PAIRED = [0, 1, 2, 3, 5, 6]  # columns of AUs that belong to a pair
KEY = ["subject", "sequence", "frame"]


def events(generator, length, rate, mean=8.0):
    """A two-state Markov chain: runs of about `mean` rows."""
    state, label = generator.random() < rate, np.empty(length, np.int8)
    for t in range(length):
        label[t] = state
        change = 1 / mean if state else rate / (1 - rate) / mean
        state ^= generator.random() < change
    return label


def rows(subjects=SUBJECTS, seed=0, length=120, sequences=4):
    """Each subject's labels follow from its name."""
    listed = []
    for subject in subjects:
        for sequence in range(sequences):
            generator = np.random.default_rng([seed, ord(subject), sequence])
            labels = {f"AU{au}": events(generator, length, rate) for au, rate in zip(AUS, RATES, strict=True)}
            part = PROTOCOL.part_of[subject]
            listed.append(pd.DataFrame({
                "subject": subject, "sequence": f"T{sequence}", "frame": np.arange(length) * 3, "image": "",
                "part": part, **labels,
            }))  # fmt: skip
    return pd.concat(listed, ignore_index=True)


@pytest.fixture(scope="module")
def table():
    return FrameTable(rows(), PROTOCOL)


@pytest.fixture(scope="module")
def intensity(table):
    """Continuous, 1 at the threshold, and higher in some events than in others."""
    generator = np.random.default_rng(4)
    labels = table.labels
    level = np.where(
        labels == 1, 1 + 3 * generator.random(labels.shape) ** 2, 0.9 * generator.random(labels.shape) - 0.4
    )
    return table.frames[KEY].assign(**{f"AU{au}": np.maximum(level[:, k], 0) for k, au in enumerate(AUS)})


def runs(label):
    """(first, stop) of the runs of ones, by walking."""
    found, start = [], None
    for i, value in enumerate([*label, 0]):
        if value == 1 and start is None:
            start = i
        elif value != 1 and start is not None:
            found.append((start, i))
            start = None
    return found


@pytest.mark.parametrize(
    ("kind", "graded"), [*((kind, False) for kind in NOISES), ("miss", True), ("shift", True)], ids=str
)
def test_expected_prevalence_of_every_au_is_kept(table, intensity, kind, graded):
    given = {"intensity": intensity} if graded else {}
    shares = np.array([
        (annotate(table, kind=kind, rate=0.35, seed=seed, **given) == 1).mean(axis=0) for seed in range(60)
    ])  # fmt: skip
    error = shares.mean(axis=0) - (table.labels == 1).mean(axis=0)
    standard_error = shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
    assert (np.abs(error) <= 4 * standard_error + 1e-9).all()
    assert (np.abs(error) < 0.02).all()  # and the standard errors are no excuse


def test_without_rate_preservation_misses_only_remove_and_flips_pull_to_one_half(table):
    clean = table.labels
    missed = annotate(table, kind="miss", rate=0.4, seed=0, preserve_rate=False)
    assert (missed <= clean).all()
    flipped = annotate(table, kind="flip", rate=0.4, seed=0, preserve_rate=False)
    for k in range(len(AUS)):
        prevalence = clean[:, k].mean()
        assert flipped[:, k].mean() == pytest.approx(prevalence * 0.6 + (1 - prevalence) * 0.4, abs=0.04)
        assert (flipped[:, k] != clean[:, k]).mean() == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize("kind", NOISES)
def test_kappa_falls_as_the_rate_grows(table, intensity, kind):
    given = {"intensity": intensity} if kind == "shift" else {}
    by_rate = np.array([
        np.mean([kappa(table.labels, annotate(table, kind=kind, rate=rate, seed=s, **given)) for s in range(6)], axis=0)
        for rate in (0, 0.1, 0.25, 0.5, 0.8)
    ])  # fmt: skip
    if kind == "confuse":
        assert (by_rate[:, 4] == 1).all()  # AU12 is in no pair
        by_rate = by_rate[:, PAIRED]
    assert (by_rate[0] == 1).all()
    assert (np.diff(by_rate.mean(axis=1)) < -0.02).all()
    falls = np.diff(by_rate, axis=0)
    # Where the rate passes 1 - prevalence the coder is at chance already and cannot get worse.
    assert (falls < 0.03).all()


def test_kappa_of_flips_is_the_closed_form(table):
    for rate in (0.1, 0.3, 0.6):
        noisy = annotate(table, kind="flip", rate=rate, seed=1)
        prevalence = table.labels.mean(axis=0)
        assert kappa(table.labels, noisy) == pytest.approx(1 - np.minimum(rate / (1 - prevalence), 1), abs=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_same_labels_and_another_seed_others(table, kind):
    one, again, other = (annotate(table, kind=kind, rate=0.3, seed=seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any() == (kind != "none")


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("preserve", [True, False])
def test_labels_of_a_sequence_follow_its_own_name_and_not_who_else_is_there(table, intensity, kind, preserve):
    # The same rows, but five of six subjects have changed names and places; the summary numbers of the table stay.
    frames = table.frames
    renamed = frames.assign(subject=frames["subject"].map(dict(zip("ABCDEF", "CBADFE", strict=True))))
    renamed = renamed.sort_values("subject", kind="stable").reset_index(drop=True)
    renamed["part"] = renamed["subject"].map(PROTOCOL.part_of)
    other = FrameTable(renamed, PROTOCOL)
    one = annotate(table, kind=kind, rate=0.3, seed=7, preserve_rate=preserve)
    two = annotate(other, kind=kind, rate=0.3, seed=7, preserve_rate=preserve)
    mine, theirs = ((t.frames["subject"] == "B").to_numpy() for t in (table, other))
    assert (table.labels[mine] == other.labels[theirs]).all()
    assert (one[mine] == two[theirs]).all()
    moved, left = ((t.frames["subject"] == name).to_numpy() for t, name in ((table, "A"), (other, "C")))
    assert (table.labels[moved] == other.labels[left]).all()
    assert (one[moved] != two[left]).any()  # the same behaviour under another name draws anew


@pytest.mark.parametrize("kind", ["miss", "confuse", "flip"])
def test_plain_noise_of_a_sequence_is_the_same_when_it_is_alone(table, kind):
    alone = FrameTable(table.frames.query("subject == 'D' and sequence == 'T2'"), PROTOCOL)
    mine = ((table.frames["subject"] == "D") & (table.frames["sequence"] == "T2")).to_numpy()
    one, two = (annotate(t, kind=kind, rate=0.4, seed=3, preserve_rate=False) for t in (table, alone))
    assert (one[mine] == two).all()


@pytest.mark.parametrize("kind", ["miss", "jitter", "shift", "flip"])
def test_noise_of_an_au_does_not_depend_on_which_others_are_labelled(table, kind):
    fewer = FrameTable(table.frames.drop(columns=["AU1", "AU23"]), Protocol("few", (2, 6, 7, 12, 24), PROTOCOL.parts))
    one, two = (annotate(t, kind=kind, rate=0.4, seed=3) for t in (table, fewer))
    assert (one[:, [1, 2, 3, 4, 6]] == two).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preserve", [True, False])
def test_unknown_labels_stay_unknown_and_known_ones_known(kind, preserve):
    frames = rows(length=60)
    hidden = np.random.default_rng(0).random((len(frames), len(AUS))) < 0.2
    for k, au in enumerate(AUS):
        frames.loc[hidden[:, k], f"AU{au}"] = np.int8(-1)
    table = FrameTable(frames, PROTOCOL)
    noisy = annotate(table, kind=kind, rate=0.6, seed=2, preserve_rate=preserve)
    assert ((noisy == -1) == hidden).all()
    assert noisy.dtype == np.int8
    assert set(np.unique(noisy)) <= {-1, 0, 1}


def test_no_noise_and_rate_zero_change_nothing_and_leave_the_table_alone(table):
    before = table.labels
    for kind in KINDS:
        assert (annotate(table, kind=kind, rate=0, seed=0) == before).all()
        annotate(table, kind=kind, rate=0.5, seed=0)
    assert (annotate(table, kind="none", rate=0.5, seed=0) == before).all()
    assert (table.labels == before).all()


def each_sequence(table, labels, noisy):
    for (_, _), index in table.frames.groupby(["subject", "sequence"]).indices.items():
        for k in range(len(AUS)):
            yield k, labels[index, k], noisy[index, k]


def test_missed_events_go_as_a_whole(table):
    lost, events = np.zeros(len(AUS)), np.zeros(len(AUS))
    for seed in range(8):
        noisy = annotate(table, kind="miss", rate=0.4, seed=seed)
        for k, clean, dirty in each_sequence(table, table.labels, noisy):
            for first, stop in runs(clean):
                assert len(set(dirty[first:stop])) == 1
                lost[k] += dirty[first] == 0
                events[k] += 1
    # An AU that is there most of the time can lose no more than it is absent, or its coder would be worse than chance.
    expected = np.minimum(0.4, 1 - table.labels.mean(axis=0))
    assert (np.abs(lost / events - expected) < 4 * np.sqrt(expected * (1 - expected) / events)).all()


def test_false_events_last_about_as_long_as_true_ones(table):
    noisy = annotate(table, kind="miss", rate=0.5, seed=5)
    k = AUS.index(1)
    true = [
        stop - first
        for j, clean, _ in each_sequence(table, table.labels, noisy)
        if j == k
        for first, stop in runs(clean)
    ]
    false = [
        stop - first
        for j, clean, dirty in each_sequence(table, table.labels, noisy)
        if j == k
        for first, stop in runs((dirty == 1) & (clean == 0))
    ]
    assert len(false) > 10
    assert 0.5 < np.mean(false) / np.mean(true) < 1.5


def test_weak_events_are_missed_more_often(table, intensity):
    peaks = {True: [], False: []}
    for seed in range(5):
        noisy = annotate(table, kind="miss", rate=0.3, seed=seed, intensity=intensity)
        for index in table.frames.groupby(["subject", "sequence"]).indices.values():
            for k, au in enumerate(AUS):
                level = intensity[f"AU{au}"].to_numpy()[index]
                for first, stop in runs(table.labels[index, k]):
                    peaks[bool(noisy[index[first], k] == 0)].append(level[first:stop].max())
    assert np.mean(peaks[True]) < np.mean(peaks[False]) - 0.2


def test_jitter_moves_borders_and_leaves_the_middle_of_long_events(table):
    noisy = annotate(table, kind="jitter", rate=0.1, seed=5)
    changed, far = 0, 0
    for _, clean, dirty in each_sequence(table, table.labels, noisy):
        borders = np.flatnonzero(np.diff(clean)) + 0.5
        wrong = np.flatnonzero(clean != dirty)
        assert len(borders) or not len(wrong)
        changed += len(wrong)
        far += sum(np.abs(borders - row).min() > 8 for row in wrong)
    assert changed > 100
    assert far / changed < 0.02


def test_confusion_moves_labels_inside_a_pair_and_nowhere_else(table):
    clean, noisy = table.labels, annotate(table, kind="confuse", rate=0.5, seed=5)
    for one, other in ((0, 1), (2, 3), (5, 6)):
        assert (clean[:, one] + clean[:, other] == noisy[:, one] + noisy[:, other]).all()
        assert (clean[:, one] != noisy[:, one]).any()
        both_or_none = clean[:, one] == clean[:, other]
        assert (clean[both_or_none, one] == noisy[both_or_none, one]).all()
    assert (clean[:, 4] == noisy[:, 4]).all()


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_shift_hits_the_given_share_of_sequences_with_one_direction_each(table, intensity, rate):
    touched, pairs = 0, 0
    for seed in range(4):
        noisy = annotate(table, kind="shift", rate=rate, seed=seed, intensity=intensity)
        for _, clean, dirty in each_sequence(table, table.labels, noisy):
            lost, added = ((clean == 1) & (dirty == 0)).any(), ((clean == 0) & (dirty == 1)).any()
            assert not (lost and added)
            touched += lost or added
            pairs += 1
    assert touched / pairs == pytest.approx(rate, abs=0.06)


def test_shift_of_the_threshold_takes_weak_positives_or_adds_visible_negatives(table, intensity):
    clean, noisy = table.labels, annotate(table, kind="shift", rate=0.9, seed=1, intensity=intensity)
    level = intensity[[f"AU{au}" for au in AUS]].to_numpy()
    threshold = np.array([level[clean[:, k] == 1, k].min() for k in range(len(AUS))])
    lost, added = (clean == 1) & (noisy == 0), (clean == 0) & (noisy == 1)
    assert lost.any()
    assert added.any()
    assert (level < threshold + 1)[lost].all()
    assert (level > 0)[added].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 1, -1])
def test_aus_that_are_constant_do_not_break_any_kind(kind, value):
    frames = rows(subjects="A", length=20)
    for au in AUS:
        frames[f"AU{au}"] = np.int8(value)
    noisy = annotate(FrameTable(frames, PROTOCOL), kind=kind, rate=0.5, seed=0)
    assert (noisy == value).all()


def test_kappa_agrees_with_scikit_learn_on_known_rows():
    generator = np.random.default_rng(0)
    clean = generator.choice([-1, 0, 1], (500, 4), p=[0.1, 0.7, 0.2]).astype(np.int8)
    noisy = np.where(generator.random(clean.shape) < 0.3, generator.choice([-1, 0, 1], clean.shape), clean)
    for k, value in enumerate(kappa(clean, noisy.astype(np.int8))):
        known = (clean[:, k] >= 0) & (noisy[:, k] >= 0)
        assert value == pytest.approx(cohen_kappa_score(clean[known, k], noisy[known, k]), abs=1e-12)


def test_kappa_is_undefined_and_not_one_where_nothing_can_disagree():
    labels = np.array([[1, 0, -1, 1], [1, 0, -1, 0]], dtype=np.int8)
    assert np.isnan(kappa(labels, labels)).tolist() == [True, True, True, False]


def test_bad_arguments_are_refused(table, intensity):
    for rate in (-0.1, 1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="noise rate"):
            annotate(table, kind="flip", rate=rate, seed=0)
    with pytest.raises(UsageError, match=r"unknown kind of noise 'flop'.*none, miss, jitter"):
        annotate(table, kind="flop", rate=0.1, seed=0)
    few = FrameTable(table.frames.drop(columns=["AU1", "AU6", "AU23"]), Protocol("few", (2, 7, 12, 24), PROTOCOL.parts))
    with pytest.raises(UsageError, match="has none of these pairs"):
        annotate(few, kind="confuse", rate=0.1, seed=0)
    for other in (intensity.iloc[::-1], intensity.iloc[:-1]):
        with pytest.raises(DataError, match="not those of the table's rows"):
            annotate(table, kind="miss", rate=0.1, seed=0, intensity=other)
    with pytest.raises(DataError, match="1 intensities of AU6 are undefined"):
        annotate(table, kind="miss", rate=0.1, seed=0, intensity=intensity.assign(
            AU6=intensity["AU6"].where(intensity.index != 3)))  # fmt: skip


def test_an_au_without_intensities_is_treated_as_without(table, intensity):
    for kind in ("miss", "shift"):
        plain, partial = (
            annotate(table, kind=kind, rate=0.4, seed=1, intensity=given) for given in (None, intensity[[*KEY, "AU12"]])
        )
        assert (plain[:, :4] == partial[:, :4]).all()
        assert (plain[:, 4] != partial[:, 4]).any()
