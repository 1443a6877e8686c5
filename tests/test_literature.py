"""Published numbers: read again with the csv module, closed forms by hand, and scipy's paired interval as oracle."""

import csv
import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from aunce import literature
from aunce.data import bp4d
from aunce.errors import UsageError
from aunce.literature import DATASETS, LEGEND, MARKS, did_i_match, fold_logs, marked, results

FOLDER = Path(literature.__file__).parent / "data" / "published"
AUS = {
    "BP4D": "1 2 4 6 7 10 12 14 15 17 23 24",
    "DISFA": "1 2 4 6 9 12 25 26",
    "GFT": "1 2 4 6 10 12 14 15 23 24",
    "Aff-Wild2": "1 2 4 6 7 10 12 15 23 24 25 26",
    "BP4D+": "1 2 4 6 7 10 12 14 15 17 23 24",
}
STATUSES = {
    "BP4D": {"verified": 34, "by eye": 5, "unverified": 3},
    "DISFA": {"verified": 24, "by eye": 7, "unverified": 7},
    "GFT": {"unverified": 88},
    "Aff-Wild2": {"verified": 58, "unverified": 40},
    "BP4D+": {"by eye": 117, "unverified": 4},
}
# val_mean_f1_score of the six logs, which print it beside the AUs
FOLD_MEANS = {
    ("BP4D", "3"): 65.35,
    ("BP4D", "2"): 67.14,
    ("BP4D", "1"): 65.84,
    ("DISFA", "3"): 62.30,
    ("DISFA", "2"): 66.36,
    ("DISFA", "1"): 70.61,
}
# printed means that the printed AUs don't have: (dataset, method) -> printed, mean of the AUs
OFF = {("BP4D+", "ViT"): (61.6, 61.76), ("BP4D+", "CLEF"): (63.1, 62.71)}


def rows(name):
    with open(FOLDER / name, newline="") as file:
        return list(csv.DictReader(file))


def mean(numbers):
    numbers = [float(number) for number in numbers]
    return math.fsum(numbers) / len(numbers)


def tables():
    """(dataset, protocol, method) -> au -> f1 as the text of the file."""
    found = defaultdict(dict)
    for row in rows("results.csv"):
        found[row["dataset"], row["protocol"], row["method"]][row["au"]] = row["f1"]
    return found


def frame(f1):
    """Part -> F1 of AU 1, 2, ... as the frame that `did_i_match` takes."""
    return pd.DataFrame(
        [(part, au, value) for part, values in f1.items() for au, value in enumerate(values, 1)],
        columns=["test_part", "au", "f1"],
    )


# ------------------------------------------------------------------------------------------------- published numbers


def test_results_equal_an_independent_reading():
    table, read = results(), rows("results.csv")
    assert list(table.columns) == list(read[0])
    for row, expected in zip(table.itertuples(), read, strict=True):
        assert {**expected, "f1": float(expected["f1"]), "year": int(expected["year"] or 0)} == {
            **{name: getattr(row, name) for name in expected},
            "year": 0 if pd.isna(row.year) else row.year,
        }


def test_each_method_has_a_mean_alone_or_with_all_aus_once():
    read = rows("results.csv")
    keys = Counter((row["dataset"], row["protocol"], row["method"], row["au"]) for row in read)
    assert set(keys.values()) == {1}
    assert {dataset for dataset, _, _ in tables()} == set(DATASETS)
    for (dataset, _, method), f1 in tables().items():
        assert list(f1) in (["mean"], [*AUS[dataset].split(), "mean"]), (dataset, method)


def test_each_data_set_has_a_method_with_all_its_aus():
    for dataset in DATASETS:
        assert any(key[0] == dataset and len(f1) > 1 for key, f1 in tables().items()), dataset


def test_printed_means_are_those_of_the_printed_aus_but_for_the_known():
    for (dataset, _, method), f1 in tables().items():
        if len(f1) > 1:
            of_aus = mean(value for au, value in f1.items() if au != "mean")
            printed, expected = OFF.get((dataset, method), (float(f1["mean"]), float(f1["mean"])))
            assert float(f1["mean"]) == printed
            assert of_aus == pytest.approx(expected, abs=0.005 if (dataset, method) in OFF else 0.055), method


def test_statuses_are_those_of_the_sources():
    for dataset, expected in STATUSES.items():
        assert Counter(results(dataset)["status"]) == expected
    table = results().set_index("source")
    assert set(table.filter(like="memory", axis="index")["status"]) == {"unverified"}
    assert set(table.filter(like="not read", axis="index")["status"]) == {"unverified"}
    assert set(table.filter(like="figure", axis="index")["status"]) == {"by eye"}


def test_aunce_has_no_row_where_its_numbers_could_not_be_read():
    table = results()
    assert set(table.loc[table["method"].str.contains("AUNCE"), "dataset"]) == {"BP4D", "DISFA"}


@pytest.mark.parametrize(
    ("dataset", "mean_of_logs", "printed", "corrected"),
    [("BP4D", 66.11, 66.1, {"2": 49.8, "15": 55.1}), ("DISFA", 66.42, 66.4, {})],
)
def test_aunces_rows_are_the_means_of_its_folds(dataset, mean_of_logs, printed, corrected):
    protocol = "12 AUs, 3 subject folds" if dataset == "BP4D" else "8 AUs, 3 subject folds"
    logs, readme = tables()[dataset, protocol, "AUNCE"], tables()[dataset, protocol, "AUNCE (README)"]
    folds = [row for row in rows("aunce_fold_logs.csv") if row["dataset"] == dataset]
    for au in AUS[dataset].split():
        of_folds = mean(row["f1"] for row in folds if row["au"] == au)
        assert float(logs[au]) == pytest.approx(of_folds, abs=0.00501)
        assert float(readme[au]) == corrected.get(au, pytest.approx(of_folds, abs=0.0501))
    assert mean(row["f1"] for row in folds) == pytest.approx(mean_of_logs, abs=0.005)
    assert (float(logs["mean"]), float(readme["mean"])) == (mean_of_logs, printed)


def test_fold_logs_equal_an_independent_reading_and_the_printed_fold_means():
    table, read = fold_logs(), rows("aunce_fold_logs.csv")
    assert list(table.columns) == ["dataset", "fold", "test_part", "au", "f1", "accuracy"]
    types = (str, int, str, int, float, float)
    expected = [tuple(kind(cell) for kind, cell in zip(types, row.values(), strict=True)) for row in read]
    assert list(table.itertuples(index=False, name=None)) == expected
    assert set(table["test_part"]) == set(bp4d.PARTS)
    for (dataset, part), printed in FOLD_MEANS.items():
        fold = [row for row in read if (row["dataset"], row["test_part"]) == (dataset, part)]
        assert [row["au"] for row in fold] == AUS[dataset].split()
        assert {int(row["fold"]) for row in fold} == {4 - int(part)}
        assert mean(row["f1"] for row in fold) == pytest.approx(printed, abs=0.00501)


def test_a_data_set_goes_by_both_its_names_and_the_kept_table_is_out_of_reach():
    for dataset, adapter in zip(DATASETS, ("bp4d", "disfa", "gft", "affwild2", "bp4dplus"), strict=True):
        assert set(results(dataset)["dataset"]) == {dataset}
        pd.testing.assert_frame_equal(results(adapter), results(dataset))
    for read in (results, fold_logs):
        for dataset in (None, "BP4D"):
            before, spoilt = read(dataset), read(dataset)
            spoilt["f1"] = 0.0
            pd.testing.assert_frame_equal(read(dataset), before)


def test_unknown_data_sets_are_refused_with_the_known():
    with pytest.raises(UsageError, match=r"'BP5D'.*Known: BP4D, DISFA, GFT, Aff-Wild2, BP4D\+"):
        results("BP5D")
    with pytest.raises(UsageError, match=r"'GFT' here. Known: BP4D, DISFA\.$"):
        fold_logs("GFT")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("results.csv", ["dataset", "protocol", "method", "au"]),
        ("aunce_readme.csv", ["dataset", "method", "au"]),
        ("aunce_fold_logs.csv", ["dataset", "test_part", "au"]),
    ],
)
def test_every_cell_of_the_tables_is_filled_and_in_its_range(name, key):
    read = rows(name)
    assert len({tuple(row[column] for column in key) for row in read}) == len(read)
    for row in read:
        assert all(cell for column, cell in row.items() if column != "year"), row
        assert row["dataset"] in DATASETS
        assert re.fullmatch(r"[1-9]\d?" if "test_part" in row else r"[1-9]\d?|mean", row["au"])
        assert 0 <= float(row["f1"]) <= 100
        assert 0 <= float(row.get("accuracy", 0)) <= 100
        assert row.get("status", "verified") in MARKS
        assert 2000 <= int(row.get("year") or 2000) <= 2100


def test_every_number_that_is_not_verified_has_a_mark_of_the_legend():
    shown = {status: marked(63.4, status) for status in MARKS}
    assert shown == {"verified": "63.4", "by eye": "63.4*", "unverified": "63.4?"}
    assert marked(66.11, "verified") == "66.1"
    assert "* read by eye" in LEGEND
    assert "? unverified" in LEGEND
    with pytest.raises(UsageError, match=r"'checked'. Expected one of: verified, by eye, unverified"):
        marked(63.4, "checked")


# ------------------------------------------------------------------------------------------------------- did_i_match


def test_match_by_hand():
    published = frame({"1": [50, 60, 40, 30], "2": [52, 66, 44, 30], "3": [54, 60, 42, 30]})
    own = frame({"3": [57, 58, 42, 30], "1": [51, 61, 33, 30], "2": [54, 67, 36, 30]})
    table = did_i_match(own, published).set_index("au")
    # d of AU1 is 1, 2, 3: s = 1, half = 4.302653 / sqrt(3) = 2.484138
    assert list(table.loc["1"])[:-1] == pytest.approx([54, 52, 2, 1, 2 - 2.484138, 2 + 2.484138, 3], abs=1e-6)
    # d of AU2 is 1, 1, -2: mean 0, s = sqrt(3), half = 4.302653
    assert list(table.loc["2"])[:-1] == pytest.approx([62, 62, 0, math.sqrt(3), -4.302653, 4.302653, 3], abs=1e-6)
    # d of AU3 is -7, -8, 0; AU4 is equal to the last digit
    assert table.loc["3", "difference"] == pytest.approx(-5)
    assert list(table.loc["4"])[2:6] == [0, 0, 0, 0]
    # d of the mean is (1 + 1 - 7) / 4, (2 + 1 - 8) / 4, (3 - 2) / 4
    assert table.loc["mean", ["own", "published", "difference"]].tolist() == pytest.approx([45.75, 46.5, -0.75])
    assert table.loc["mean", "spread"] == pytest.approx(math.sqrt(3) / 2)
    assert list(table.index) == ["1", "2", "3", "4", "mean"]
    assert set(table["reading"]) == {"within the folds' spread"}


def test_match_says_above_and_below_only_outside_the_interval():
    # d = 3 -+ 1 has s = 1: half 2.484; d = 2 -+ 1 has the same half, and 0 is inside
    published = frame({"1": [50] * 4, "2": [50] * 4, "3": [50] * 4})
    own = frame({"1": [52, 51, 48, 49], "2": [53, 52, 47, 48], "3": [54, 53, 46, 47]})
    readings = did_i_match(own, published)["reading"].tolist()
    assert readings == [
        "above",
        "within the folds' spread",
        "below",
        "within the folds' spread",
        "within the folds' spread",
    ]


@pytest.mark.parametrize("dataset", ["BP4D", "DISFA"])
@pytest.mark.parametrize("parts", [("1", "2", "3"), ("1", "3"), ("2", "3")])
def test_match_equals_scipys_paired_interval(dataset, parts):
    logs = fold_logs(dataset)
    # fold 1 against part 1: the wrong pairing would show in spread and interval
    own = logs.sample(frac=1, random_state=0).drop(columns=["dataset", "accuracy"])
    own["f1"] = own["f1"] + own["au"] / 10 * (own["test_part"].astype(int) - 1.5) + own["fold"] ** 2 / 7
    own["fold"] = 4 - own["fold"]
    own = own[own["test_part"].isin(parts)]
    table = did_i_match(own, logs).set_index("au")
    for au in [*AUS[dataset].split(), "mean"]:
        sides = [
            [
                mean(side[(side["test_part"] == part) & ((side["au"].astype(str) == au) | (au == "mean"))]["f1"])
                for part in parts
            ]
            for side in (own, logs)
        ]
        interval = stats.ttest_rel(*sides).confidence_interval(0.95)
        assert (table.loc[au, "low"], table.loc[au, "high"]) == pytest.approx((interval.low, interval.high))
        assert (table.loc[au, "own"], table.loc[au, "published"]) == pytest.approx((mean(sides[0]), mean(sides[1])))
        word = "above" if interval.low > 0 else "below" if interval.high < 0 else "within the folds' spread"
        assert (table.loc[au, "reading"], table.loc[au, "folds"]) == (word, len(parts))


def test_one_fold_has_a_difference_and_no_interval():
    logs = fold_logs("DISFA")
    own = logs[logs["test_part"] == "2"].assign(f1=50.0)
    table = did_i_match(own, logs)
    assert set(table["reading"]) == {"one fold: no interval"}
    assert set(table["folds"]) == {1}
    assert table[["spread", "low", "high"]].isna().all(axis=None)
    assert table["difference"].iloc[-1] == pytest.approx(50 - 66.36, abs=0.0051)


def test_match_ignores_other_parts_aus_and_columns_and_takes_numbers_as_parts():
    logs = fold_logs("BP4D")
    own = logs.assign(test_part=logs["test_part"].astype(int), f1=logs["f1"] + 1, f1_published="a column of mine")
    more = pd.concat(
        [own, own[own["fold"] == 1].assign(test_part=4), own[own["au"] == 1].assign(au=99)], ignore_index=True
    )
    pd.testing.assert_frame_equal(did_i_match(more, logs), did_i_match(own, logs))
    assert list(own["f1_published"].unique()) == ["a column of mine"]


def test_a_model_that_finds_nothing_is_compared_too():
    logs = fold_logs("BP4D")
    table = did_i_match(logs.assign(f1=0.0), logs)
    assert table["own"].tolist() == [0.0] * 13
    assert table["reading"].iloc[-1] == "below"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.assign(f1=own["f1"] / 100), "Expected percent"),
        (lambda own: own.assign(f1=own["f1"] + 50), r"own F1, row \d+: f1 is 10[\d.]+. Expected percent, 0 to 100"),
        (lambda own: own.assign(f1=math.nan), "row 0: f1 is nan"),
        (lambda own: own.drop(columns="f1"), "no column f1. Expected columns test_part, au"),
        (lambda own: own.assign(au="mean"), "column 'au'. Expected columns test_part, au .a number."),
        (lambda own: own.assign(test_part="fold1").drop_duplicates("au"), "of part.s. fold1, published of 1, 2, 3"),
        (lambda own: pd.concat([own, own]), "own F1: AU1 of part 3 is there twice"),
        (lambda own: own.iloc[1:-1], "AU1 on part 3 is missing, 2 in all"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    logs = fold_logs("BP4D")
    with pytest.raises(UsageError, match=message):
        did_i_match(change(logs), logs)


def test_logs_of_two_data_sets_are_refused():
    with pytest.raises(UsageError, match="published F1: AU1 of part 3 is there twice"):
        did_i_match(fold_logs("BP4D"), fold_logs())
