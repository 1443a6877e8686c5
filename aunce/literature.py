"""Published F1 on the five data sets, AUNCE's own fold logs, and the question whether a run matches them.

Nothing here was measured by this project. How far a number may be trusted is its `status`, and no number is drawn
without the mark of its status: see `marked`.
"""

from functools import cache
from importlib import resources

import numpy as np
import pandas as pd
from scipy import stats

from aunce.errors import UsageError

DATASETS = ("BP4D", "DISFA", "GFT", "Aff-Wild2", "BP4D+")
"""The data sets of AUNCE's paper, as `results` and `fold_logs` name them."""

MARKS = {"verified": "", "by eye": "*", "unverified": "?"}
"""Status -> the mark behind the number."""

LEGEND = (
    "No mark: read as text in the source that is named. "
    "* read by eye from a picture of a table. "
    "? unverified: from memory or from a third party, the paper not read, or at odds with its own AUs."
)
"""What the marks mean; belongs under every table and figure with published numbers."""

WITHIN, ABOVE, BELOW, ONE_FOLD = "within the folds' spread", "above", "below", "one fold: no interval"
"""The readings of `did_i_match`."""

_TYPES: dict[str, dict[str, type | str]] = {
    "results.csv": {"au": str, "year": "Int64"},
    "aunce_fold_logs.csv": {"test_part": str},
    "aunce_readme.csv": {"au": str},
}
"""File of published numbers -> types of the columns that pandas would read as another type."""


def results(dataset: str | None = None) -> pd.DataFrame:
    """F1 as published: nothing is rounded, repaired or averaged again.

    The mean is the printed one, which need not be the mean of the printed AUs. A row without its AUs is a mean only.
    AUNCE stands twice: "AUNCE" is the mean over the three folds of its logs (see `fold_logs`), "AUNCE (README)" the
    table that its README printed. No number of AUNCE's own on GFT, Aff-Wild2 or BP4D+ could be read, nor any verified
    number on GFT.

    Args:
        dataset: one of `DATASETS`, or the name of its adapter, such as "bp4dplus". Default: all.

    Returns:
        One row per method and AU. Columns: dataset; protocol (two rows compare only where it is the same, and even then
        papers differ in frames); method; year of the method (missing where unknown); au, a number as text or "mean";
        f1 in percent; source, where the number was read; status, one of `MARKS`.

    Raises:
        UsageError: an unknown data set.

    Example:
        >>> bp4d = results("BP4D")
        >>> bp4d.loc[(bp4d["method"] == "AUNCE (README)") & (bp4d["au"] == "mean"), "f1"].item()
        66.1
    """
    return _of("results.csv", dataset)


def fold_logs(dataset: str | None = None) -> pd.DataFrame:
    """AUNCE's own test logs, one fold each.

    Source: results/Graphau_{bp4d,disfa}_swin_nce_step_{1,2,3}/linear_test.log of github.com/Ziqiao-Shang/AUNCE at
    commit bade385. Its fold numbers run against the parts (fold 1 tests on part 3), and other repositories number folds
    the other way round: match by `test_part`. The logs don't say which epoch they are of or how it was chosen.

    Args:
        dataset: "BP4D" or "DISFA", or "bp4d" or "disfa". Default: both.

    Returns:
        One row per data set, fold and AU. Columns: dataset; fold, AUNCE's number; test_part, the part's name as in
        `aunce.data`; au; f1 and accuracy in percent.

    Raises:
        UsageError: an unknown data set, or one that AUNCE released no logs of.
    """
    return _of("aunce_fold_logs.csv", dataset)


def readme(dataset: str | None = None) -> pd.DataFrame:
    """The comparison that AUNCE's README printed until July 2025.

    Source: README.md of github.com/Ziqiao-Shang/AUNCE at commit cc34fa4, which took all rows but its own from the
    papers; they were not checked against those. It calls ME-GraphAU "MEGraph".

    Args:
        dataset: "BP4D" or "DISFA", or "bp4d" or "disfa". Default: both.

    Returns:
        One row per data set, method and AU. Columns: dataset; method; au, a number as text or "mean", the printed one;
        f1 in percent.

    Raises:
        UsageError: an unknown data set, or one that the README has no table of.
    """
    return _of("aunce_readme.csv", dataset)


def marked(f1: float, status: str) -> str:
    """The number with one decimal and the mark of its status. `LEGEND` explains the marks.

    Args:
        f1: percent.
        status: one of `MARKS`.

    Raises:
        UsageError: an unknown status.

    Example:
        >>> marked(63.4, "by eye"), marked(63.4, "unverified"), marked(66.11, "verified")
        ('63.4*', '63.4?', '66.1')
    """
    if status not in MARKS:
        raise UsageError(f"status is {status!r}. Expected one of: {', '.join(MARKS)}.")
    return f"{f1:.1f}{MARKS[status]}"


def did_i_match(own: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Own F1 against published fold logs, paired by test part.

    Over the n parts that both have, d = own - published is averaged, and the 95 % interval is
    mean(d) +- t(n - 1) s / sqrt(n), s the standard deviation of d over the parts. The reading is "above" if the
    interval lies above 0, "below" if it lies below, "within the folds' spread" if it holds 0, and "one fold: no
    interval" for n = 1.

    "Within" says that the folds cannot tell the two apart, not that they are the same: three folds show only a
    difference above 2.5 s, two only one above 9 s. The intervals are of one row each, so that of 13 rows one may well
    be outside by chance. Folds share training subjects, and one run a side has no spread over seeds.

    Args:
        own: one row per part and AU. Columns: test_part, au, f1 in percent; others are ignored, like parts and AUs
            that the logs don't have. Of several seeds, give the mean.
        published: the logs of one data set, see `fold_logs`, with the same columns.

    Returns:
        One row per AU of the logs and a last one, "mean", whose d is of the means over AUs in each part. Columns: au,
        as text; own, published, their means over the shared parts; difference, the mean of d; spread, s; low, high, the
        interval; folds, n; reading. Spread and interval are NaN for n = 1. All but au, folds and reading are in
        percentage points.

    Raises:
        UsageError: columns missing, F1 outside 0 to 100, NaN or given as fractions, a part and AU twice, no part in
            common, or an AU missing in a shared part.
    """
    own, published = _by_part(own, "own F1"), _by_part(published, "published F1")
    if 0 < own["f1"].max() <= 1:
        raise UsageError(f"own F1 are at most {own['f1'].max():.3g}. Expected percent, 0 to 100, not fractions.")
    shared = published[published["test_part"].isin(own["test_part"])]
    if shared.empty:
        raise UsageError(
            f"own F1 are of part(s) {_names(own['test_part'])}, published of {_names(published['test_part'])}. "
            "Expected at least one in common; name parts, not folds."
        )
    pairs = shared.merge(own, on=["test_part", "au"], how="left", suffixes=("_published", "_own"))
    missing = pairs[pairs["f1_own"].isna()]
    if len(missing):
        first = missing.iloc[0]
        raise UsageError(
            f"own F1 of AU{first['au']} on part {first['test_part']} is missing, {len(missing)} in all. Expected every "
            "AU of the logs on each part that both have, because the mean is over all of them."
        )
    sides = pairs.pivot_table(index="test_part", columns="au", values=["f1_own", "f1_published"])
    mine, theirs = (_with_mean(sides[side]) for side in ("f1_own", "f1_published"))
    d, n = mine - theirs, len(sides)
    # One part has no standard deviation, so that spread, low and high are NaN and compare as neither above nor below.
    spread = d.std(ddof=1)
    half = stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n)
    low, high = d.mean() - half, d.mean() + half
    reading = np.select([low > 0, high < 0], [ABOVE, BELOW], WITHIN if n > 1 else ONE_FOLD)
    columns = {"own": mine.mean(), "published": theirs.mean(), "difference": d.mean()}
    columns |= {"spread": spread, "low": low, "high": high}
    table = pd.DataFrame(columns).assign(folds=n, reading=reading)
    return table.rename_axis("au").reset_index()


def _with_mean(f1: pd.DataFrame) -> pd.DataFrame:
    """Parts x AUs, with the mean over AUs as a last column; columns named by text."""
    return f1.rename(columns=str).assign(mean=f1.mean(axis=1))


def _names(column: "pd.Series[str]") -> str:
    return ", ".join(sorted(set(column)))


def _of(file: str, dataset: str | None) -> pd.DataFrame:
    """The rows of a data set, as a copy: the table itself is kept."""
    table = _read(file)
    if dataset is None:
        return table.copy()
    names = {_adapter(name): name for name in table["dataset"].unique()}
    if _adapter(dataset) not in names:
        raise UsageError(f"no published numbers of data set {dataset!r} here. Known: {', '.join(names.values())}.")
    return table[table["dataset"] == names[_adapter(dataset)]].reset_index(drop=True)


def _adapter(name: str) -> str:
    return name.casefold().replace("+", "plus").replace("-", "")


@cache
def _read(file: str) -> pd.DataFrame:
    with resources.files("aunce").joinpath("data/published", file).open("rb") as opened:
        return pd.read_csv(opened, dtype=_TYPES[file])


def _by_part(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The columns test_part, au and f1 in their types, each part and AU once."""
    expected = "Expected columns test_part, au (a number) and f1 in percent"
    missing = [column for column in ("test_part", "au", "f1") if column not in table]
    if missing:
        raise UsageError(f"{name}: no column {', '.join(missing)}. {expected}.")
    try:
        table = table[["test_part", "au", "f1"]].astype({"test_part": str, "au": "int64", "f1": float})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: {error}. {expected}.") from error
    outside = table[~table["f1"].between(0, 100)]  # NaN is outside, too
    if len(outside):
        raise UsageError(
            f"{name}, row {outside.index[0]}: f1 is {outside['f1'].iloc[0]:g}. Expected percent, 0 to 100."
        )
    twice = table[table.duplicated(["test_part", "au"])]
    if len(twice):
        part, au = twice.iloc[0][["test_part", "au"]]
        raise UsageError(f"{name}: AU{au} of part {part} is there twice. Expected each once.")
    return table
