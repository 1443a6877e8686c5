"""The audit: what the published numbers say by themselves, recomputed in seconds without any data set.

Two sources carry it: AUNCE's fold logs and the printed tables of `aunce.literature`, and the frames and positive rates
of the parts in `aunce.data`. A log that prints F1 and accuracy of a part whose size and positive rate are known has
printed the whole confusion matrix: see `solve`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from aunce import literature
from aunce.data import bp4d, disfa
from aunce.errors import UsageError
from aunce.report import page
from aunce.report.findings import Entry, Findings
from aunce.report.findings import write as write_findings

if TYPE_CHECKING:
    from IPython.display import Markdown

DATASETS = ("BP4D", "DISFA")
"""The data sets that AUNCE released fold logs of."""

RATES: Mapping[str, Mapping[str, Mapping[int, float]]] = {"BP4D": bp4d.RATES, "DISFA": disfa.RATES}
"""Data set -> part -> AU -> positive rate, printed to 4 digits."""

FRAMES: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "BP4D": {
        "AUNCE": bp4d.PUBLISHED_FRAMES["bp4d"],
        "JAA-Net": {"1": 50_601, "2": 50_166, "3": 45_809},
        "AU-Net": {"1": 50_589, "2": 50_154, "3": 45_795},
    },
    "DISFA": {
        "AUNCE": disfa.PUBLISHED_FRAMES["disfa"],
        "JAA-Net": disfa.PUBLISHED_FRAMES["disfa-jaa"],
        "AU-Net": disfa.PUBLISHED_FRAMES["disfa-jaa"],
    },
}
"""Data set -> whose test lists -> part -> frames. Counted in the lists of Ziqiao-Shang/AUNCE at bade385,
ZhiwenShao/PyTorch-JAANet at 9a0cedc and jingyang2017/AU-Net at d447837; AUNCE's image lists are those of ME-GraphAU."""

HALF_RATE = 0.00005
"""Half a unit in the last digit of `RATES`."""


# ------------------------------------------------------------------------------------------------ confusion matrices


class Confusion(NamedTuple):
    """Counts of frames; fractions of frames where a closed form gives them."""

    tp: float
    fp: float
    fn: float
    tn: float


def solve(f1: float, accuracy: float, prevalence: float, frames: float = 1.0) -> Confusion:
    """The confusion matrix behind F1 and accuracy.

    With P = prevalence x frames positives and E = (1 - accuracy) x frames errors, F1 = 2 TP / (2 TP + E) gives

        TP = F1 E / (2 (1 - F1)),   FN = P - TP,   FP = E - FN,   TN = frames - P - FP.

    F1 = 1 leaves no errors, so that TP = P. A negative entry says that no classifier has these numbers at this
    prevalence.

    Args:
        f1: 0 to 1, of the positive class.
        accuracy: 0 to 1.
        prevalence: share of positive frames, 0 to 1.
        frames: their number; 1 gives shares.

    Example:
        >>> solve(f1=0.5, accuracy=0.8, prevalence=0.2, frames=100)
        Confusion(tp=10.0, fp=10.0, fn=10.0, tn=70.0)
    """
    positives, errors = prevalence * frames, round(1 - accuracy, 12) * frames
    tp = positives if f1 == 1 else f1 * errors / (2 * (1 - f1))
    fp = errors - (positives - tp)
    return Confusion(tp, fp, positives - tp, frames - positives - fp)


def consistent(f1: float, accuracy: float, rate: float, frames: int) -> pd.DataFrame:
    """Every whole-number confusion matrix that would be printed like this.

    Args:
        f1: percent as printed, two decimals: the value behind it is at most 0.005 away.
        accuracy: percent as printed, likewise.
        rate: share of positive frames, at most `HALF_RATE` away from the value behind it.
        frames: their exact number.

    Returns:
        Columns tp, fp, fn, tn; no rows if no matrix fits. No positives and none predicted is F1 = 0, as in the
        released code.
    """
    slack = 1e-9  # a value that lies on the edge belongs to both neighbours, whichever way it was rounded
    low, high = ((f1 + step) / 100 for step in (-0.005 - slack, 0.005 + slack))
    errors = _whole((1 - (accuracy + 0.005) / 100) * frames, (1 - (accuracy - 0.005) / 100) * frames, frames)
    positives = _whole((rate - HALF_RATE) * frames, (rate + HALF_RATE) * frames, frames)
    found = []
    for e, p in itertools.product(errors, positives):
        # FN and FP are 0 or more; F1 then narrows TP down to a few dozen values
        least, most = max(p - e, 0), min(p, frames - e)
        least = max(least, int(np.floor(low * e / (2 * (1 - low)))) if low > 0 else 0)
        most = min(most, int(np.ceil(high * e / (2 * (1 - high)))) if high < 1 else most)
        tp = np.arange(least, most + 1)
        value = np.divide(2 * tp, 2 * tp + e, out=np.zeros(len(tp)), where=2 * tp + e > 0)
        tp = tp[(value >= low) & (value <= high)]
        found += [(t, e - (p - t), p - t, frames - p - e + (p - t)) for t in tp.tolist()]
    return pd.DataFrame(found, columns=["tp", "fp", "fn", "tn"], dtype=np.int64)


def _whole(low: float, high: float, most: int) -> range:
    """Whole numbers from low to high within 0 to `most`."""
    return range(max(0, int(np.ceil(low - 1e-6))), min(most, int(np.floor(high + 1e-6))) + 1)


def scores(counts: pd.DataFrame) -> pd.DataFrame:
    """Scores of confusion matrices, as shares; kappa from -1 to 1.

    Columns: prevalence; f1; accuracy; precision; recall; balanced_accuracy, the mean of recall R and specificity S;
    kappa, Cohen's, 2 (TP TN - FP FN) / ((TP + FP)(FP + TN) + (TP + FN)(FN + TN)); f1_even, the F1 of the same R and S
    if half of the frames were positive, 2 R / (2 R + (1 - S) + (1 - R)); f1_always = 2 p / (1 + p) and f1_guess = p,
    the F1 of calling every frame positive and of guessing at the prevalence p (expected); accuracy_constant, the
    accuracy of the more frequent label.

    Args:
        counts: columns tp, fp, fn, tn. Both labels must occur; without any positive prediction precision is NaN.
    """
    tp, fp, fn, tn = (counts[name].astype(float) for name in ("tp", "fp", "fn", "tn"))
    frames = tp + fp + fn + tn
    p, recall, specificity = (tp + fn) / frames, tp / (tp + fn), tn / (tn + fp)
    return pd.DataFrame(
        {
            "prevalence": p,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "accuracy": (tp + tn) / frames,
            "precision": tp / (tp + fp),
            "recall": recall,
            "balanced_accuracy": (recall + specificity) / 2,
            "kappa": 2 * (tp * tn - fp * fn) / ((tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)),
            "f1_even": 2 * recall / (1 + recall + (1 - specificity)),
            "f1_always": 2 * p / (1 + p),
            "f1_guess": p,
            "accuracy_constant": np.maximum(p, 1 - p),
        }
    )


def assignments(dataset: str) -> pd.DataFrame:
    """Which part each fold of the logs can have been tested on, by arithmetic alone.

    Args:
        dataset: one of `DATASETS`.

    Returns:
        One row per assignment of the three folds to the three parts. Columns: assignment, the parts of folds 1, 2, 3 in
        this order; impossible, how many of the numbers that two decimals print have no confusion matrix; worst, the
        most negative entry of the closed forms in frames (0 if none is); where, fold and AU of it; pooled, the mean F1
        over AUs pooled over folds, in percent, NaN where impossible.
    """
    logs = _logs(dataset)
    cases = {}
    for row, part in itertools.product(logs.itertuples(), FRAMES[dataset]["AUNCE"]):
        frames, rate = FRAMES[dataset]["AUNCE"][part], RATES[dataset][part][row.au]
        closed = solve(row.f1 / 100, row.accuracy / 100, rate, frames)
        fits = len(consistent(row.f1, row.accuracy, rate, frames)) > 0
        cases[row.fold, part, row.au] = (closed, fits)
    rows = []
    aus = logs["au"].unique()
    for parts in itertools.permutations(FRAMES[dataset]["AUNCE"]):
        chosen = {(fold, au): cases[fold, part, au] for fold, part in enumerate(parts, 1) for au in aus}
        impossible = [key for key, (_, fits) in chosen.items() if not fits]
        fold, au = min(chosen, key=lambda key: min(chosen[key][0]))
        sums = [np.sum([chosen[k, au][0] for k in (1, 2, 3)], axis=0) for au in aus]
        pooled = np.nan if impossible else 100 * float(np.mean([2 * s[0] / (2 * s[0] + s[1] + s[2]) for s in sums]))
        rows.append(
            {
                "assignment": ", ".join(parts),
                "impossible": len(impossible),
                "worst": min(0.0, min(chosen[fold, au][0])),
                "where": f"fold {fold}, AU{au}" if impossible else "",
                "pooled": pooled,
            }
        )
    return pd.DataFrame(rows)


def recovered(dataset: str) -> pd.DataFrame:
    """The confusion matrices of AUNCE's fold logs, one row per part and AU.

    Args:
        dataset: one of `DATASETS`.

    Returns:
        Columns: dataset, fold, part, au, frames; printed_f1 and printed_accuracy in percent; tp, fp, fn, tn, the closed
        form of `solve`; for each of them and for kappa and balanced_accuracy `_low` and `_high`, the range over the
        matrices that would be printed like this; matrices, how many there are; and what `scores` gives.
    """
    return _recovered(dataset)[0].copy()


@cache
def _recovered(dataset: str) -> tuple[pd.DataFrame, dict[tuple[str, int], pd.DataFrame]]:
    rows, candidates = [], {}
    for row in _logs(dataset).itertuples():
        part, frames = row.test_part, FRAMES[dataset]["AUNCE"][row.test_part]
        rate = RATES[dataset][part][row.au]
        fits = consistent(row.f1, row.accuracy, rate, frames)
        ranges = pd.concat([fits, scores(fits)[["kappa", "balanced_accuracy"]]], axis=1).agg(["min", "max"])
        ranges = {
            f"{name}_{end}": ranges.loc[of, name] for name in ranges for end, of in (("low", "min"), ("high", "max"))
        }
        key = {"dataset": dataset, "fold": row.fold, "part": part, "au": row.au, "frames": frames}
        key |= {"printed_f1": row.f1, "printed_accuracy": row.accuracy}
        closed = solve(row.f1 / 100, row.accuracy / 100, rate, frames)
        rows.append(key | closed._asdict() | ranges | {"matrices": len(fits)})
        candidates[part, row.au] = fits
    table = pd.DataFrame(rows)
    return pd.concat([table, scores(table)], axis=1), candidates


def pooled(dataset: str) -> pd.DataFrame:
    """The matrices of the three parts added up, one row per AU.

    Returns:
        Columns: au; tp, fp, fn, tn; what `scores` gives; f1_low and f1_high, the range of F1 over all matrices that
        would be printed like the logs; mean_f1, the mean of the printed F1 of the parts, as a share. The closed form
        takes printed decimals as exact, so that it may lie a few thousandths of a point outside the range.
    """
    table, candidates = _recovered(dataset)
    sums = table.groupby("au", sort=False)[["tp", "fp", "fn", "tn"]].sum()
    of_parts = {au: [fits for (_, other), fits in candidates.items() if other == au] for au in sums.index}
    return (
        sums.join(scores(sums))
        .assign(
            f1_low=[_extreme_f1(of_parts[au], -1) for au in sums.index],
            f1_high=[_extreme_f1(of_parts[au], 1) for au in sums.index],
            mean_f1=table.groupby("au", sort=False)["printed_f1"].mean() / 100,
        )
        .reset_index()
    )


def _extreme_f1(parts: Sequence[pd.DataFrame], sign: int) -> float:
    """Largest (sign 1) or smallest (-1) F1 of one matrix per part added up.

    F1 rises with the ratio q = TP / E of true positives to errors. Dinkelbach: the choice with the best sum of
    TP - q E, which each part makes alone, has a better ratio than q until q is the best there is.
    """
    pairs = [(fits["tp"].to_numpy(), (fits["fp"] + fits["fn"]).to_numpy()) for fits in parts]
    ratio = sum(tp[0] for tp, _ in pairs) / sum(errors[0] for _, errors in pairs)
    while True:
        best = [np.argmax(sign * (tp - ratio * errors)) for tp, errors in pairs]
        tp = sum(tp[place] for (tp, _), place in zip(pairs, best, strict=True))
        errors = sum(errors[place] for (_, errors), place in zip(pairs, best, strict=True))
        if sign * (tp / errors - ratio) <= 1e-15:
            return float(2 * tp / (2 * tp + errors))
        ratio = tp / errors


MEAN, POOLED = "mean of folds (published)", "pooled over folds"
WAYS = (
    MEAN,
    "folds weighted by frames",
    "F1 of mean precision and recall",
    POOLED,
    "median over AUs",
    "pooled over folds and AUs",
    "pooled, half the frames positive",
)
"""Ways to make one number of folds and AUs; where nothing else is said, the last step is the mean over AUs. `MEAN` is
what AUNCE's README printed, `POOLED` the second column of this project's reports."""


def averages(dataset: str) -> pd.DataFrame:
    """One number for AUNCE and for calling every frame positive, by each of `WAYS`, in percent.

    Returns:
        Columns: dataset, way, aunce, always (NaN where there is nothing new to say).
    """
    parts, together = recovered(dataset), pooled(dataset)
    mean = parts.groupby("au")[["precision", "recall"]].mean()
    total = scores(together[["tp", "fp", "fn", "tn"]].sum().to_frame().T).iloc[0]
    of_au = parts.groupby("au")
    always_parts = of_au["f1_always"].mean()
    aunce = {
        MEAN: parts["printed_f1"].mean() / 100,
        "folds weighted by frames": _weighted(parts, "f1"),
        "F1 of mean precision and recall": (2 * mean.prod(axis=1) / mean.sum(axis=1)).mean(),
        POOLED: together["f1"].mean(),
        "median over AUs": of_au["printed_f1"].mean().median() / 100,
        "pooled over folds and AUs": total["f1"],
        "pooled, half the frames positive": together["f1_even"].mean(),
    }
    always = {
        MEAN: parts["f1_always"].mean(),
        "folds weighted by frames": _weighted(parts, "f1_always"),
        # recall 1 and precision p
        "F1 of mean precision and recall": (2 * (p := of_au["prevalence"].mean()) / (1 + p)).mean(),
        POOLED: together["f1_always"].mean(),
        "median over AUs": always_parts.median(),
        "pooled over folds and AUs": total["f1_always"],
        "pooled, half the frames positive": 2 / 3,
    }
    return pd.DataFrame(
        [{"dataset": dataset, "way": way, "aunce": 100 * aunce[way], "always": 100 * always[way]} for way in WAYS]
    )


def _weighted(parts: pd.DataFrame, name: str) -> float:
    """Mean over AUs of the mean over parts, each with the weight of its frames."""
    frames = parts.groupby("au")["frames"].sum()
    return float(((parts[name] * parts["frames"]).groupby(parts["au"]).sum() / frames).mean())


def dropped(dataset: str, whose: str) -> pd.DataFrame:
    """How far AUNCE's F1 could move if only the frames in another list counted, whatever the dropped frames hold.

    Of m dropped frames, F1 is highest if as many as possible are errors, lowest if they are true positives.

    Args:
        dataset: one of `DATASETS`.
        whose: a list of `FRAMES`.

    Returns:
        One row per part. Columns: part, dropped, share (of the frames), f1, low, high: the mean over AUs, in percent.
        The bounds hold for each AU alone, so that for the mean they are on the safe side.
    """
    table = recovered(dataset)
    m = table["frames"] - table["part"].map(FRAMES[dataset][whose])
    errors = table["fp"] + table["fn"]
    most = 2 * table["tp"] / (2 * table["tp"] + (errors - m).clip(lower=0))
    least_tp = (table["tp"] - m).clip(lower=0)
    table = table.assign(dropped=m, low=100 * 2 * least_tp / (2 * least_tp + errors), high=100 * most)
    rows = table.groupby("part").agg(
        dropped=("dropped", "first"),
        frames=("frames", "first"),
        f1=("printed_f1", "mean"),
        low=("low", "mean"),
        high=("high", "mean"),
    )
    return rows.assign(share=rows["dropped"] / rows["frames"]).drop(columns="frames").reset_index()


def _logs(dataset: str) -> pd.DataFrame:
    if dataset not in DATASETS:
        raise UsageError(
            f"no audit of data set {dataset!r}: AUNCE released fold logs of {' and '.join(DATASETS)} only."
        )
    return literature.fold_logs(dataset)


# ---------------------------------------------------------------------------------------------------- printed tables

COMPARED_SOURCE = "README of Ziqiao-Shang/AUNCE at cc34fa4"


def compared(dataset: str) -> pd.DataFrame:
    """The comparison that AUNCE's README printed until July 2025, see `literature.readme`.

    Returns:
        Methods x AUs (numbers) and a last column "mean", the printed one, in percent.
    """
    _logs(dataset)
    table = literature.readme(dataset)
    wide = table.pivot_table(index="method", columns="au", values="f1", sort=False)
    return wide.rename(columns=lambda au: au if au == "mean" else int(au)).rename_axis(columns=None)


def tables() -> dict[tuple[str, str, str], pd.DataFrame]:
    """Every published table here whose rows print their AUs.

    Returns:
        (data set, protocol, status) -> methods x AUs and a last column "mean". Protocols differ in frames or folds, so
        that rows of two tables do not compare.
    """
    found = {(dataset, COMPARED_SOURCE, "verified"): compared(dataset) for dataset in DATASETS}
    rest = literature.results()
    # these rows stand in the tables above, or are the mean of the logs and not printed
    rest = rest[~rest["method"].str.startswith("AUNCE")]
    for (dataset, protocol), group in rest.groupby(["dataset", "protocol"], sort=False):
        wide = group.pivot_table(index="method", columns="au", values="f1", sort=False)
        wide = wide.dropna()  # a mean without its AUs
        if len(wide) and len(wide.columns) > 1:
            aus = sorted(int(au) for au in wide.columns if au != "mean")
            wide = wide[[*map(str, aus), "mean"]].set_axis([*aus, "mean"], axis=1)
            status = group.loc[group["method"].isin(wide.index), "status"].unique().item()
            found[str(dataset), str(protocol), str(status)] = wide
    return found


def reaveraged() -> pd.DataFrame:
    """Every row of `tables` averaged again.

    A mean of AUs that were rounded to d decimals, rounded itself to e decimals, lies within 0.5 (10^-d + 10^-e) of the
    mean of the printed AUs, whichever way each was rounded.

    Returns:
        Columns: dataset, protocol, status, method, printed, mean (of the printed AUs), difference, allowed, off (bool:
        more than rounding explains).
    """
    rows = []
    for (dataset, protocol, status), table in tables().items():
        for method, row in table.iterrows():
            aus, printed = row.drop("mean"), float(row["mean"])
            mean = float(aus.mean())
            # a mean that ends in .0 was printed with a decimal all the same
            allowed = 0.5 * (10.0 ** -_decimals(aus) + 10.0 ** -max(1, _decimals([printed])))
            key = {"dataset": dataset, "protocol": protocol, "status": status, "method": str(method)}
            rows.append(key | {"printed": printed, "mean": mean, "difference": printed - mean, "allowed": allowed})
    found = pd.DataFrame(rows)
    return found.assign(off=found["difference"].abs() > found["allowed"] + 1e-9)


def _decimals(values: Sequence[float] | pd.Series) -> int:
    """Decimals that the numbers need: those they were printed with, if one of several does not end in 0."""
    return next(d for d in range(7) if np.allclose(values, np.round(values, d), rtol=0, atol=1e-9))


def _floor_gain(table: pd.DataFrame, dataset: str) -> pd.Series:
    floor = pd.Series({au: 100 * floor for au, floor in pooled(dataset).set_index("au")["f1_always"].items()})
    return ((table - floor) / (100 - floor)).mean(axis=1)


ORDERS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "mean": lambda f1: f1.mean(axis=1),
    "median": lambda f1: f1.median(axis=1),
    "geometric mean": lambda f1: np.exp(np.log(f1).mean(axis=1)),
    "mean rank": lambda f1: -f1.rank(ascending=False).mean(axis=1),
}
"""Ways to make one number of a method's AUs; more is better. A fifth, for BP4D and DISFA: the mean of
(F1 - floor) / (100 - floor), the floor being the F1 of calling every frame positive."""

GAIN = "gain over always positive"


def orders(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Each method's number by each of `ORDERS`, and by the mean without one AU.

    Args:
        table: methods x AUs, in percent, all above 0.
        dataset: BP4D and DISFA have floors, others do not.

    Returns:
        Methods x ways. The mean comes first; "mean without AU<n>" come last.
    """
    ways = {name: way(table) for name, way in ORDERS.items()}
    if dataset in DATASETS:
        ways[GAIN] = _floor_gain(table, dataset)
    return pd.DataFrame(ways | {f"mean without AU{au}": table.drop(columns=au).mean(axis=1) for au in table})


def survival() -> pd.DataFrame:
    """How many orders of two methods survive another way of averaging.

    Returns:
        One row per table of at least three methods. Columns: dataset, protocol, status, methods, pairs (whose means
        differ), one per way of `ORDERS` and `GAIN` with the share of pairs in the same order (NaN where there is no
        floor), `one AU less`, the share that no single AU turns, all, the share that nothing turns, and winners: the
        best method by each way, each once.
    """
    rows = []
    for (dataset, protocol, status), printed in tables().items():
        table = printed.drop(columns="mean")
        if len(table) < 3:
            continue
        ways = orders(table, dataset)
        kept = pd.DataFrame(
            {
                pair: np.sign((ways.loc[pair[0]] - ways.loc[pair[1]]).round(9))
                for pair in itertools.combinations(table.index, 2)
            }
        ).T
        kept = kept[kept["mean"] != 0]
        kept = kept.eq(kept["mean"], axis=0)
        less = [name for name in kept if name.startswith("mean without")]
        named = [name for name in kept if name not in less and name != "mean"]
        winners = dict.fromkeys(str(ways[name].idxmax()) for name in ways)
        row = {"dataset": dataset, "protocol": protocol, "status": status, "methods": len(table), "pairs": len(kept)}
        row |= {name: kept[name].mean() for name in named}
        row |= {"one AU less": kept[less].all(axis=1).mean(), "all": kept.all(axis=1).mean()}
        rows.append(row | {"winners": ", ".join(winners)})
    return pd.DataFrame(rows)


def rivals(dataset: str) -> pd.DataFrame:
    """AUNCE against each method that its README compared it with.

    Returns:
        Columns: method; printed; margin, AUNCE's printed mean less this one; ahead and aus, on how many of the AUs
        AUNCE's F1 is higher; by the other ways, bool: AUNCE still ahead; one_au_less, bool: ahead without any one AU;
        way_moves, bool: the margin is smaller than what the way of averaging moves AUNCE's own number by.
    """
    printed = compared(dataset)
    table = printed.drop(columns="mean")
    ways = orders(table, dataset)
    ahead = ways.loc["AUNCE"] > ways + 1e-9
    less = [name for name in ways if name.startswith("mean without")]
    moved = abs(pooled(dataset)["f1"].mean() - recovered(dataset)["printed_f1"].mean() / 100) * 100
    rows = pd.DataFrame(
        {
            "printed": printed["mean"],
            "margin": (printed.loc["AUNCE", "mean"] - printed["mean"]).round(9),
            "ahead": (table.loc["AUNCE"] > table).sum(axis=1),
            "aus": len(table.columns),
            **{name: ahead[name] for name in (*ORDERS, GAIN) if name != "mean"},
            "one_au_less": ahead[less].all(axis=1),
        }
    ).drop(index="AUNCE")
    return rows.assign(way_moves=rows["margin"].abs() < moved).sort_values("margin").reset_index()


def differing() -> pd.DataFrame:
    """Methods of which two sources print different means on the same data set and parts.

    Returns:
        Columns: dataset, method, readme (AUNCE's), elsewhere, source, status.
    """
    rows = []
    for dataset in DATASETS:
        readme, known = compared(dataset)["mean"], literature.results(dataset)
        known = known[(known["au"] == "mean") & known["method"].isin(readme.index.drop("AUNCE"))]
        known = known[known["protocol"].str.contains("3 subject folds")]
        for row in known.itertuples():
            if abs(readme[row.method] - row.f1) > 1e-9:
                rows.append((dataset, row.method, readme[row.method], row.f1, row.source, row.status))
    return pd.DataFrame(rows, columns=["dataset", "method", "readme", "elsewhere", "source", "status"])


def misprinted() -> pd.DataFrame:
    """Cells of AUNCE's own row in its README that are not the rounded mean of its fold logs.

    Returns:
        Columns: dataset, au, logs (mean of the three folds), printed.
    """
    rows = []
    for dataset in DATASETS:
        printed = compared(dataset).loc["AUNCE"].drop("mean")
        for au, logs in literature.fold_logs(dataset).groupby("au")["f1"].mean().items():
            # 0.05 for the printed decimal, 0.005 for those of the logs
            if abs(logs - printed[au]) > 0.055 + 1e-9:
                rows.append((dataset, au, logs, printed[au]))
    return pd.DataFrame(rows, columns=["dataset", "au", "logs", "printed"])


# ---------------------------------------------------------------------------------------------- read, not recomputed

STATUSES = {
    "counted": "counted by us in the lists of the repository",
    "read": "read by us in the repository at the commit that is named",
    "reported": "a statement of the repository or of its authors that we did not check",
    "unverified": "not found in anything that could be read, or remembered only",
}
"""Status of a row in `TESTED`, `LACKS` and `CHOSEN` -> what it means."""

_UNSPLIT = ("", "", "")
TESTED: tuple[tuple[str, str, tuple[str, str, str], str, str, str], ...] = (
    # data set, whose, frames of parts 1 to 3, all, rule, status
    ("BP4D", "AUNCE, ME-GraphAU", ("50,631", "50,182", "46,034"), "146,847", "every coded frame", "counted"),
    (
        *("BP4D", "JAA-Net", ("50,601", "50,166", "45,809"), "146,576"),
        *("271 frames of seven sequences less; nothing that AUNCE lacks", "counted"),
    ),
    ("BP4D", "AU-Net", ("50,589", "50,154", "45,795"), "146,538", "38 frames less than JAA-Net", "counted"),
    ("BP4D", "FMAE-IAT", _UNSPLIT, "146,654", "what its face detector found", "reported"),
    ("BP4D", "FG-Net", _UNSPLIT, "one fold of 50,579", "rule and other folds not known", "reported"),
    (
        *("DISFA", "AUNCE, ME-GraphAU", ("43,604", "43,605", "43,605"), "130,814"),
        *("every frame, present from intensity 2 on; the camera is not stated", "counted"),
    ),
    (
        *("DISFA", "JAA-Net, AU-Net", ("43,173", "40,344", "42,627"), "126,144"),
        *("without 4,670 frames in which the shipped landmarks fail; starts from a BP4D model", "counted"),
    ),
    ("DISFA", "AC2D, ARL", _UNSPLIT, "126,144", "by JAA-Net's lists", "reported"),
    ("DISFA", "OpenGraphAU", _UNSPLIT, "", "present from intensity 1 on: another task", "reported"),
    ("DISFA", "LibreFace", _UNSPLIT, "", "five folds", "reported"),
    ("DISFA", "OpenFace 3.0", _UNSPLIT, "", "trains and tests on one fold", "reported"),
    (
        *("BP4D+", "FMAE-IAT", _UNSPLIT, "197,756"),
        *("four random subject folds; 127 frames lost to its face detector", "reported"),
    ),
    ("BP4D+", "JAA-Net, ARL, AC2D", _UNSPLIT, "", "trained on BP4D, tested on all of BP4D+", "reported"),
    ("BP4D+", "AUNCE", _UNSPLIT, "", "which protocol is not known: no code, no lists", "unverified"),
    ("GFT", "all", _UNSPLIT, "", "one split, said to be 78 and 18 people; who they are is not known", "unverified"),
    (
        *("Aff-Wild2", "most", _UNSPLIT, "445,845"),
        *("official validation set, frames with every AU annotated; test labels are not public", "reported"),
    ),
    ("Aff-Wild2", "AUNCE", _UNSPLIT, "", "which frames is not known: no code, no lists", "unverified"),
)
"""Which frames each released protocol tests on."""

LACKS: tuple[tuple[str, str, str, str], ...] = (
    # what, where, consequence, status
    (
        "The linear probe, whose F1 is the published one",
        "`linear_graph_au.py`, deleted in afca05e (2025-01-18); the README points to the SimCLR repository",
        "the published scores cannot be computed with the release",
        "read",
    ),
    (
        "An evaluation of the contrastive stage, and a rule for its epoch",
        "`train_graph_au.py`: 60 epochs, each saved, none scored",
        "which epoch the logs are of is unknown",
        "read",
    ),
    (
        "Folders under the names that the code opens",
        "`data_loader.py` and `train_graph_au.py` open `list_256x256/` and `img_256x256/`; shipped is `list/`",
        "the commands of the README stop at once",
        "read",
    ),
    (
        "Class weights under the names that the code opens",
        "it opens `*_train_weight_fold*` and `*_test_weight_fold*`; shipped is `*_weight_fold*`; no tool writes the "
        "test weights",
        "it stops there too",
        "read",
    ),
    (
        "Labels",
        "`data/*/list/*_label_fold*.txt`: 5 sample rows each, beside complete image lists",
        "the data are licensed, so they must be made anew; image and label lists do not fit as shipped",
        "read",
    ),
    (
        "GFT, BP4D+ and Aff-Wild2",
        "no loader, list, weight or log of them, at no commit",
        "three of the five data sets cannot be checked",
        "read",
    ),
    (
        "The ablations",
        "`losses.py`: shares of the positive pairs and exponents are literals, the temperature a default",
        "which part does what cannot be asked of the release",
        "read",
    ),
    (
        "Logs of the released loss on DISFA",
        "DISFA's logs are of 2024-02-09, with exponent 0.4; since 2025-01-18 the loss has 0.8 (7eca4dc)",
        "the DISFA score is of another loss than the released one, or of code that was not public; BP4D's logs were "
        "replaced that day",
        "read",
    ),
    (
        "Logs that say how they were made",
        "`results/*/linear_test.log`: F1 and accuracy alone, without date, epoch, loss or settings",
        "nothing ties them to a run",
        "read",
    ),
    (
        "A validation set",
        "`linear_graph_au.py` at 702eb19 scores the test part after each of 100 epochs; at bade385 there are training "
        "and test lists only",
        "whatever was chosen was chosen on test data; that it was is unverified",
        "read",
    ),
    (
        "A frozen encoder in the probe that was deleted",
        "`linear_graph_au.py` at 702eb19 puts the whole network in training mode; BP4D gets colour jitter, DISFA does "
        "not",
        "normalisation statistics move with the data, and the two data sets are treated differently",
        "read",
    ),
    (
        "One numbering of the folds",
        "the README's Fold1 lists the subjects that `*_test_img_path_fold3.txt` tests on, and the other way round",
        "numbers of a fold cannot be matched by its number",
        "read",
    ),
    (
        "A meaning for unknown labels",
        "`utils.py` stops at any label but 0 and 1; in `losses.py` such a label is a class of its own",
        "how often they occur in the 12 AUs of BP4D is unverified",
        "read",
    ),
    (
        "A learning rate that can be set",
        "`lr_schedule.py`: from epoch 2 on the default 1e-5 holds, whatever `--init_lr` says",
        "a search over learning rates with this code is void",
        "read",
    ),
    (
        "A way to run without CUDA",
        "`losses.py` and `train_graph_au.py` call `.cuda()` without asking",
        "no test on a CPU",
        "read",
    ),
    (
        "Requirements that suffice",
        "`requirements.txt` lacks OpenCV and pandas, which are imported; `np.int` in `tool/` is gone from NumPy",
        "a fresh environment does not run it",
        "read",
    ),
    ("Tests, and a licence", "the whole repository", "no permission to reuse it; nothing shows that it works", "read"),
    (
        "The face aligner",
        "crops of 256 x 256 pixels are expected on disk; no tool makes them",
        "which aligner made them, and from which of DISFA's cameras, is unknown",
        "unverified",
    ),
    (
        "Trained weights in the repository",
        "the README links a cloud folder",
        "what it holds was not looked at",
        "unverified",
    ),
)
"""What the code of AUNCE at commit bade385 (2025-11-28) lacks."""

READ: Mapping[str, tuple[str, str]] = {
    # gap of notebooks/claims.toml -> (what stands there, where)
    "D9": (
        "images are normalised with the mean .491, .482, .447 and deviation .202, .199, .201 of CIFAR-10, the backbone "
        "is pretrained on ImageNet; a blur of 3 x 3 pixels is applied to every view",
        "`pre_process.py`",
    ),
    "D10": (
        "the linear probe was deleted in afca05e (2025-01-18), and nothing loads the pretrained weights into the "
        "classifier that is left",
        "`linear_graph_au.py` in the history",
    ),
    "D11": (
        "the probe that was deleted put the whole network in training mode, as of 702eb19",
        "`linear_graph_au.py` in the history",
    ),
    "D12": (
        "the probe that was deleted scored the test fold after each of 100 epochs and saved each, the contrastive "
        "stage saves each of 60 epochs without scoring one, and no rule says which was taken; that it was chosen on "
        "the test fold is unverified",
        "`linear_graph_au.py` at 702eb19; `train_graph_au.py`",
    ),
    "D17": (
        "frames are counted by line and not by the frame number in the file; an AU whose file is missing is absent in "
        "every frame",
        "`tool/`, the scripts for DISFA",
    ),
    "D19": (
        "there is no loader, list, weight or log of GFT, BP4D+ and Aff-Wild2 at any commit, and shares of the positive "
        "pairs and exponents are literals",
        "the whole repository; `losses.py`",
    ),
    "D20": (
        "from the second epoch on the rate is the default 1e-5, whatever was asked for",
        "`lr_schedule.py`",
    ),
    "D22": (
        "blocks of Swin-B are left out with a probability that rises to 0.5 in the last, and the contrastive stage has "
        "the network in training mode; the configuration swin-base of this library keeps the 0.5",
        "`model/swin_transformer.py`; `train_graph_au.py`",
    ),
    "D23": (
        "the supervised path has two linear layers for each AU, 1024 to 32 to 2; the probe that was deleted had one, "
        "1024 to 2",
        "the classifier; `linear_graph_au.py` in the history",
    ),
    "D24": (
        "there is one weight for each AU, in inverse proportion to its rate, and none for present against absent",
        "`*_weight_fold*.txt`",
    ),
}
"""Gaps that stand in the code of AUNCE at commit bade385 (2025-11-28) or its history, as we read it."""

BEST, SCORED, HELD_OUT = "the best on the test part", "each is scored on the test part", "there is a validation set"
CHOSEN: tuple[tuple[str, str, str, str, str], ...] = (
    # repository and commit, file, epoch, threshold, status
    ("CVI-SZU/MDHR at 29f68e4", "`train.py`, `dataset/dataset.py`", BEST, "0.5", "read"),
    ("ihp-lab/FG-Net at 6067ab2", "`code/train_interpreter.py`", BEST, "0 of a heat map", "read"),
    ("ihp-lab/LibreFace at 8828ec2", "`AU_Detection/solver_fm_distillation_grad.py`", BEST, "0.5", "read"),
    ("jingyang2017/AU-Net at 7c88a52", "`utils/utils_callbacks.py`, `data/data_load.py`", BEST, "0.5", "read"),
    (
        *("forever208/FMAE-IAT at 139b10c and 0813c40", "`DISFA_finetune.py`, `engine_finetune.py`", BEST),
        *("the best of 99 on the test part, beside 0.5", "read"),
    ),
    ("CVI-SZU/ME-GraphAU at 20cb149", "`train_stage1.py`", SCORED, "0.5", "read"),
    ("ZhiwenShao/PyTorch-JAANet at 8c71017", "`train_JAAv1.py`", SCORED, "0.5", "read"),
    ("ZhiwenShao/AC2D at 2abf1fd", "`train.py`", SCORED, "0.5", "read"),
    (
        *("dkollias/Fair-Consistent-Affect-Analysis at a95ea00", "`model_utils/validation.py`", HELD_OUT),
        *("the best on the validation set", "read"),
    ),
)
"""Where the released code of other methods chooses the epoch and the threshold. Which of the scores a paper printed
does not stand in the code."""

AVERAGED, TESTED_ON, IN_CODE = "One number, seven ways", "Confusion matrices from the logs", "Gaps in the released code"
CHOSEN_ON = "Where others choose"
"""Headings of the page below which the evidence for gaps stands."""

UNDECIDABLE = (
    (
        "Whether AUNCE reaches 66.1 / 66.4 on BP4D / DISFA or beats any published method",
        "no licensed data, no probe script, epoch unknown",
        "The logs are consistent with themselves and with the parts, which is all that arithmetic can say.",
    ),
    ("GFT, BP4D+, Aff-Wild2 results", "no code or logs", "Not one number of AUNCE's could be read."),
    (
        "C5 and C6 on real faces",
        "decided only for the stated noise processes and generator shifts",
        "C5: robust to noisy labels; C6: carries over to other data sets.",
    ),
    (
        "D3, D4, D5 and three-or-four positive kinds against the paper",
        "until its equations are read",
        "D3: one draw of the positive kind for each AU and batch; D4: the exponents 1.2 and 0.8, formerly 0.4; D5: "
        "present taken to be the minority for every AU.",
    ),
)
"""What no run or arithmetic here can decide, why, and a gloss."""


# ------------------------------------------------------------------------------------------------------------- page


class Audit:
    """What the audit notebook shows, section by section.

    Args:
        out: folder that gets the figures and their data; empty: they are displayed, nothing is saved.
    """

    def __init__(self, *, out: str | Path = "") -> None:
        self.out = Path(out) if str(out) else None

    @cached_property
    def cells(self) -> pd.DataFrame:
        """`recovered` of both data sets: one row per part and AU."""
        return pd.concat([recovered(dataset) for dataset in DATASETS], ignore_index=True)

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """`averages` of both data sets, by data set and way."""
        return pd.concat([averages(dataset) for dataset in DATASETS]).set_index(["dataset", "way"])

    def title(self) -> "Markdown":
        """What this is, and on what it rests; writes what the ledger and the index show of the audit."""
        write_findings(
            self.out,
            Findings(
                title="Audit of the published numbers",
                question="What do the published numbers say about themselves?",
                found=self._averaging(),
                kind="published numbers",
                entries=self.entries(),
            ),
        )
        return page.markdown(
            "# Audit of the published numbers\n\n"
            "No model was trained and no data set read: AUNCE's fold logs, the sizes and positive rates of the parts, "
            "and printed tables are enough. A number that is consistent is not thereby reproduced."
        )

    def entries(self) -> list[Entry]:
        """What the ledger says of the gaps: computed where there are numbers, else as read in the released code."""
        read = [
            Entry(
                id=gap,
                verdict="holds",
                reason=f"Read in the released code at commit bade385 and its history: {what}.",
                section=IN_CODE,
            )
            for gap, (what, _) in READ.items()
        ]
        others = [self._way_of_averaging(), self._numbering(), self._choosing()]
        return sorted([*others, *read], key=lambda entry: int(entry.id[1:]))

    def _way_of_averaging(self) -> Entry:
        holds, said = True, []
        for dataset in DATASETS:
            printed = float(compared(dataset).loc["AUNCE", "mean"])
            mean, together = (float(self.numbers.loc[(dataset, way), "aunce"]) for way in (MEAN, POOLED))
            # 0.05 for the printed decimal, 0.005 for those of the logs
            holds &= abs(printed - mean) <= 0.055 < abs(printed - together)
            said.append(
                f"{printed:.1f} is printed for {dataset}, where the mean of folds is {mean:.2f} and the pooled score "
                f"{together:.2f}"
            )
        return Entry(id="D14", verdict=_holds(holds), reason=f"Computed: {'; '.join(said)}.", section=AVERAGED)

    def _numbering(self) -> Entry:
        holds, said = True, []
        for dataset in DATASETS:
            table = assignments(dataset)
            possible = table.loc[table["impossible"] == 0, "assignment"]
            holds &= bool(len(possible)) and all(one.split(", ")[0] == "3" for one in possible)
            said.append(f"{dataset}'s folds 1, 2, 3 can only be parts {' or '.join(f'({one})' for one in possible)}")
        return Entry(
            id="D15",
            verdict=_holds(holds),
            reason=f"Computed from the logs: {'; '.join(said)}; the README calls part 1 Fold1.",
            section=TESTED_ON,
        )

    def _choosing(self) -> Entry:
        best, scored, held_out = ([row for row in CHOSEN if row[2] == rule] for rule in (BEST, SCORED, HELD_OUT))
        thresholds = [_name(row) for row in CHOSEN if "on the test part" in row[3]]
        return Entry(
            id="D13",
            verdict=_holds(len(best) > len(held_out) and bool(thresholds)),
            reason=f"Read in the released code of {len(CHOSEN)} others: the epoch that is best on the test part is "
            f"kept or named in {len(best)} ({', '.join(map(_name, best))}), with the best of 99 thresholds there in "
            f"{', '.join(thresholds)}; {len(scored)} score each epoch there and name no rule, {len(held_out)} has a "
            "validation set. Which of these scores was printed is unverified.",
            section=CHOSEN_ON,
        )

    def findings(self) -> "Markdown":
        """The findings, each with its numbers."""
        lines = {
            "Averaging": self._averaging(),
            "Floors": self._floors(),
            "Prevalence": self._prevalence(),
            "Folds": self._folds(),
            "Rankings": self._rankings(),
            "Printed means": self._means(),
            "Frames": self._frames(),
        }
        return page.markdown("\n".join(f"- **{name}.** {line}" for name, line in lines.items()))

    def _averaging(self) -> str:
        said = []
        for dataset in DATASETS:
            mean, pooled_f1 = (float(self.numbers.loc[(dataset, way), "aunce"]) for way in (MEAN, POOLED))
            rival = rivals(dataset).iloc[0]
            said.append(
                f"{dataset} is {mean:.2f} as mean of folds and {pooled_f1:.2f} pooled, a change of "
                f"{_signed(pooled_f1 - mean, 2)}, where the printed margin over {rival['method']} is "
                f"{rival['margin']:.1f}"
            )
        folds = [literature.fold_logs(dataset).groupby("fold")["f1"].mean().std() for dataset in DATASETS]
        spread = " and ".join(f"{sd:.1f} on {dataset}" for dataset, sd in zip(DATASETS, folds, strict=True))
        return (
            f"With the same predictions, {'; '.join(said)}. The other methods' pooled numbers are unknown. The three "
            f"folds differ by a standard deviation of {spread}."
        )

    def _floors(self) -> str:
        said = []
        for dataset, cells in self.cells.groupby("dataset", sort=False):
            below = int((cells["printed_f1"] < 100 * cells["f1_always"]).sum())
            idle = int((cells["printed_accuracy"] < 100 * cells["accuracy_constant"]).sum())
            said.append(
                f"{dataset}: always positive scores {self.numbers.loc[(dataset, MEAN), 'always']:.1f}; of {len(cells)} "
                f"pairs of part and AU, AUNCE's F1 is below that floor in {below} and its accuracy below that of the "
                f"more frequent label in {idle}"
            )
        return "; ".join(said) + "."

    def _prevalence(self) -> str:
        said = []
        for dataset, cells in self.cells.groupby("dataset", sort=False):
            f1, kappa = (stats.spearmanr(cells["prevalence"], cells[name]).statistic for name in ("f1", "kappa"))
            said.append(f"{page.number(f1, '.2f')} with F1 and {page.number(kappa, '.2f')} with kappa on {dataset}")
        return f"Rank correlation of a part's positive rate with its score, over parts and AUs: {', '.join(said)}."

    def _folds(self) -> str:
        said = []
        for dataset in DATASETS:
            table = assignments(dataset)
            possible = table.loc[table["impossible"] == 0, "assignment"]
            said.append(f"{dataset} on parts {' or '.join(f'({one})' for one in possible)}")
        return (
            f"By arithmetic alone, folds 1, 2, 3 were tested: {'; '.join(said)}. Fold 1 is part 3 on both, as the "
            "released lists have it, and not part 1, as the README's numbering suggests."
        )

    def _rankings(self) -> str:
        said = []
        for dataset in DATASETS:
            table = rivals(dataset)
            fallen = table.loc[~_survives(table), "method"].tolist()
            names = f", not over {', '.join(fallen)}" if fallen else ""
            said.append(f"{len(table) - len(fallen)} of {len(table)} methods on {dataset}{names}")
        return (
            "AUNCE's lead survives the median, the geometric mean, the mean rank, the gain over always positive and "
            f"leaving out any one AU over {'; '.join(said)}."
        )

    def _means(self) -> str:
        checked = reaveraged()
        off = [f"{row.method} on {row.dataset}" for row in checked[checked["off"]].itertuples()]
        return (
            f"{len(off)} of {len(checked)} printed rows have a mean that rounding cannot explain ({', '.join(off)}); "
            "AUNCE's own is not among them."
        )

    def _frames(self) -> str:
        said = []
        for dataset in DATASETS:
            table = dropped(dataset, "JAA-Net")
            ends = " to ".join(f"{table[end].mean():.1f}" for end in ("low", "high"))
            said.append(f"the {table['dropped'].sum():,} frames it leaves out of {dataset} bound it to {ends} only")
        return (
            "Papers with the same people test on different frames. What AUNCE would score on JAA-Net's frames is not "
            f"known: {'; '.join(said)}."
        )

    def means(self) -> "Markdown":
        """Rows whose printed mean their AUs do not have, and what was checked."""
        checked = reaveraged()
        off = [
            [
                # at odds with its AUs: not verified, whoever printed it
                *(row.dataset, page.text(row.method)),
                page.text(literature.marked(row.printed, "unverified" if row.status == "verified" else row.status)),
                *(f"{row.mean:.2f}", _signed(row.difference, 2), f"{row.allowed:.2f}"),
            ]
            for row in checked[checked["off"]].itertuples()
        ]
        of_table = checked.groupby(["dataset", "protocol", "status"], sort=False)["off"].agg(["size", "sum"])
        sources = [[*map(page.text, key), str(rows), str(bad)] for key, (rows, bad) in _items(of_table)]
        headers = ["Data set", "Method", "Printed", "Mean of its AUs", "Difference", "Rounding explains"]
        noted = literature.results()
        noted = noted[(noted["au"] == "mean") & noted["source"].str.contains("as printed, its AUs average")]
        known = set(zip(checked["dataset"], checked["method"], strict=True))
        others = [
            [
                row.dataset,
                page.text(row.method),
                page.text(literature.marked(row.f1, row.status)),
                page.text(row.source),
            ]
            for row in noted.itertuples()
            if (row.dataset, row.method) not in known
        ]
        return page.markdown(
            f"{page.table(headers, off, 'llrrrr')}\n\n"
            "Both rows of EAC-Net stand in ME-GraphAU's README (at dda53cb) with the same cells and means: the slip is "
            "older than AUNCE's table.\n\n"
            "Noted when other tables were copied; their AUs are not kept here, so that this was not computed again:\n\n"
            f"{page.table(['Data set', 'Method', 'Printed', 'Note'], others, 'llrl')}\n\n"
            "All rows that print their AUs:\n\n"
            f"{page.table(['Data set', 'Table', 'Status', 'Rows', 'Off'], sources, 'lllrr')}\n\n{_legend()}"
        )

    def sources(self) -> "Markdown":
        """Where two sources, or a table and its logs, print different numbers."""
        cells = [
            [row.dataset, f"AU{row.au}", f"{row.logs:.2f}", f"{row.printed:.1f}"] for row in misprinted().itertuples()
        ]
        other = [
            [
                *(
                    row.dataset,
                    row.method,
                    f"{row.readme:.1f}",
                    page.text(literature.marked(row.elsewhere, row.status)),
                ),
                page.text(row.source),
            ]
            for row in differing().itertuples()
        ]
        return page.markdown(
            "Cells of AUNCE's own row that are not the rounded mean of its fold logs:\n\n"
            f"{page.table(['Data set', 'AU', 'Mean of the logs', 'Printed'], cells, 'llrr')}\n\n"
            "Means of other methods that AUNCE's README and another source print differently, on the same data set "
            "and people. Both of ME-GraphAU's on DISFA stand in its own README (at dda53cb): 63.1 with ResNet-50, 62.4 "
            "with Swin-B.\n\n"
            f"{page.table(['Data set', 'Method', 'README', 'Elsewhere', 'Where'], other, 'llrrl')}"
        )

    def assignments(self) -> "Markdown":
        """Which fold can have been tested on which part."""
        rows = []
        for dataset in DATASETS:
            for row in assignments(dataset).itertuples():
                possible = row.impossible == 0
                worst = "" if possible else f"{row.where}: {_signed(row.worst, 0)} frames"
                rows.append(
                    [
                        *(
                            dataset,
                            row.assignment,
                            "possible" if possible else "impossible",
                            str(row.impossible),
                            worst,
                        ),
                        f"{row.pooled:.2f}" if possible else "",
                    ]
                )
        headers = ["Data set", "Folds 1, 2, 3 on parts", "Fits", "Numbers without a matrix", "Worst count", "Pooled F1"]
        return page.markdown(page.table(headers, rows, "lllrlr"))

    def pooled(self) -> "Markdown":
        """The recovered matrices added up over parts, one row per AU."""
        rows = []
        for dataset in DATASETS:
            for row in pooled(dataset).itertuples():
                counts = (f"{value:,.0f}" for value in (row.tp, row.fp, row.fn, row.tn))
                rows.append(
                    [
                        *(dataset, f"AU{row.au}", *counts, f"{100 * row.mean_f1:.2f}"),
                        f"{100 * row.f1:.2f} ({100 * row.f1_low:.2f} to {100 * row.f1_high:.2f})",
                        *(
                            page.number(100 * value, ".1f")
                            for value in (row.kappa, row.balanced_accuracy, row.f1_always)
                        ),
                    ]
                )
        headers = ["Data set", "AU", "TP", "FP", "FN", "TN", "Mean of folds", "Pooled (range)"]
        headers += ["Kappa", "Balanced accuracy", "Always positive"]
        return page.markdown(page.table(headers, rows, "ll" + "r" * 9))

    def ways(self) -> "Markdown":
        """Figure: AUNCE's number by each way of averaging, beside the best other method's printed mean."""
        from aunce.report import figures

        table = self.numbers.reset_index()
        others = rivals("BP4D").iloc[0], rivals("DISFA").iloc[0]
        best = dict(zip(DATASETS, others, strict=True))
        table = table.assign(
            other=[best[dataset]["method"] for dataset in table["dataset"]],
            printed=[best[dataset]["printed"] for dataset in table["dataset"]],
        )
        return page.figure(
            self.out,
            "ways",
            figures.averaging(table),
            table,
            alt="AUNCE's F1 on BP4D and DISFA by seven ways of averaging the same predictions, with a line at the "
            "printed mean of the next method.",
            caption="The same predictions, averaged in different ways. Dashed: the printed mean of the best other "
            "method in AUNCE's README; what it would be by the other ways is unknown.",
        )

    def ways_table(self) -> "Markdown":
        """The numbers of `ways`, with those of always positive."""
        rows = [
            [way, *(f"{self.numbers.loc[(d, way), name]:.2f}" for d in DATASETS for name in ("aunce", "always"))]
            for way in WAYS
        ]
        headers = ["Way", *(f"{d}: {name}" for d in DATASETS for name in ("AUNCE", "always positive"))]
        return page.markdown(page.table(headers, rows, "lrrrr"))

    def prevalence(self) -> "Markdown":
        """Figure: F1 and kappa against prevalence. Its data are the recovered matrices of all parts and AUs."""
        from aunce.report import figures

        wide = self.cells.assign(zero=0.0)
        shown = pd.concat(
            [
                wide.sort_values("part", kind="stable")[["dataset", "part", "au", "prevalence"]].assign(
                    score=score, value=wide[name], floor=wide[floor]
                )
                for score, name, floor in (("F1", "f1", "f1_always"), ("Cohen's kappa", "kappa", "zero"))
            ]
        )
        return page.figure(
            self.out,
            "prevalence",
            figures.against_prevalence(shown),
            self.cells,
            alt="AUNCE's F1 and Cohen's kappa against the positive rate, one point per part and action unit, with the "
            "line of always positive.",
            caption="AUNCE by part and action unit. Grey line: calling every frame positive. F1 rises with prevalence "
            "as that line does; kappa takes chance agreement out. The data are all recovered matrices.",
        )

    def below(self) -> "Markdown":
        """Parts and AUs where a constant answer does better."""
        rows = []
        for row in self.cells.itertuples():
            f1, accuracy = 100 * row.f1_always, 100 * row.accuracy_constant
            if row.printed_f1 < f1 or row.printed_accuracy < accuracy:
                rows.append(
                    [
                        *(row.dataset, row.part, f"AU{row.au}", f"{100 * row.prevalence:.1f}"),
                        *(_against(row.printed_f1, f1), _against(row.printed_accuracy, accuracy)),
                        f"{100 * row.kappa:.1f}",
                    ]
                )
        headers = [
            "Data set",
            "Part",
            "AU",
            "Positive (%)",
            "F1, always positive",
            "Accuracy, more frequent label",
            "Kappa",
        ]
        return page.markdown(page.table(headers, rows, "lllrrrr"))

    def survival(self) -> "Markdown":
        """How many pairs of methods keep their order."""
        rows = []
        names = [name for name in (*ORDERS, GAIN) if name != "mean"]
        for _, row in survival().iterrows():
            shares = [
                "" if np.isnan(row[name]) else f"{100 * row[name]:.0f}" for name in (*names, "one AU less", "all")
            ]
            table = f"{row['dataset']}, {row['protocol']}"
            rows.append(
                [page.text(table), row["status"], str(row["methods"]), str(row["pairs"]), *shares, row["winners"]]
            )
        headers = ["Table", "Status", "Methods", "Pairs", *(name.capitalize() for name in names)]
        headers += ["Without any one AU", "All of these", "First by some way"]
        return page.markdown(page.table(headers, rows, "llrr" + "r" * (len(names) + 2) + "l"))

    def rivals(self) -> "Markdown":
        """AUNCE against the methods that its README compared it with and that come within 3 points."""
        rows = []
        names = [name for name in (*ORDERS, GAIN) if name != "mean"]
        for dataset in DATASETS:
            table = rivals(dataset)
            for (_, row), survives in zip(table.iterrows(), _survives(table), strict=True):
                if row["margin"] <= 3:
                    marks = ["ahead" if row[name] else "behind" for name in (*names, "one_au_less")]
                    rows.append(
                        [
                            *(
                                dataset,
                                row["method"],
                                f"{row['margin']:.1f}",
                                f"{row['ahead']} of {row['aus']}",
                                *marks,
                            ),
                            *("yes" if survives else "no", "yes" if row["way_moves"] else "no"),
                        ]
                    )
        headers = ["Data set", "Method", "Printed margin", "AUs ahead", *(name.capitalize() for name in names)]
        headers += ["Without any one AU", "Lead survives", "Margin below what pooling moves AUNCE by"]
        return page.markdown(page.table(headers, rows, "llrr" + "l" * (len(names) + 3)))

    def tested(self) -> "Markdown":
        """Which frames each released protocol tests on."""
        rows = [[data, who, *parts, total, rule, status] for data, who, parts, total, rule, status in TESTED]
        headers = ["Data set", "Whose", "Part 1", "Part 2", "Part 3", "All", "Which frames", "Status"]
        return page.markdown(f"{page.table(headers, rows, 'llrrrrll')}\n\n{_statuses(row[-1] for row in rows)}")

    def dropped(self) -> "Markdown":
        """How far AUNCE's score could move on another list."""
        rows = []
        for dataset, whose in itertools.product(DATASETS, ("JAA-Net", "AU-Net")):
            for row in dropped(dataset, whose).itertuples():
                share = f"{100 * row.share:.2f}"
                rows.append(
                    [
                        dataset,
                        whose,
                        row.part,
                        f"{row.dropped:,}",
                        share,
                        f"{row.f1:.1f}",
                        f"{row.low:.1f} to {row.high:.1f}",
                    ]
                )
        headers = ["Data set", "List", "Part", "Frames less", "Share (%)", "AUNCE's F1", "On that list between"]
        return page.markdown(page.table(headers, rows, "lllrrrr"))

    def lacks(self) -> "Markdown":
        """What the released code lacks."""
        headers = ["Missing", "Where", "What follows", "Status"]
        return page.markdown(f"{page.table(headers, LACKS, 'llll')}\n\n{_statuses(row[-1] for row in LACKS)}")

    def gaps(self) -> "Markdown":
        """Gaps of the ledger that were read in the code."""
        rows = [[gap, what, where] for gap, (what, where) in READ.items()]
        return page.markdown(page.table(["Gap", "What stands there", "Where"], rows, "lll"))

    def chosen(self) -> "Markdown":
        """On which part others choose epochs and thresholds."""
        headers = ["Repository", "Where", "Epoch", "Threshold", "Status"]
        return page.markdown(f"{page.table(headers, CHOSEN, 'lllll')}\n\n{_statuses(row[-1] for row in CHOSEN)}")

    def undecidable(self) -> "Markdown":
        """What stays open."""
        rows = [[what, f"undecidable here: {why}", gloss] for what, why, gloss in UNDECIDABLE]
        return page.markdown(page.table(["Statement", "Verdict", "Note"], rows, "lll"))


def _name(row: tuple[str, str, str, str, str]) -> str:
    """Of a row of `CHOSEN`: the method, without owner and commit."""
    return row[0].split(" at ")[0].split("/")[1]


def _holds(found: bool) -> str:
    return "holds" if found else "does not hold"


def _survives(table: pd.DataFrame) -> pd.Series:
    """Rows of `rivals` in which AUNCE leads by every way."""
    return table[[name for name in (*ORDERS, GAIN, "one_au_less") if name != "mean"]].all(axis=1)


def _items(table: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    for row in table.reset_index().itertuples(index=False, name=None):
        yield row[: table.index.nlevels], row[table.index.nlevels :]


def _signed(value: float, decimals: int) -> str:
    return page.number(value, f"+,.{decimals}f")


def _against(value: float, constant: float) -> str:
    """A score beside that of a constant answer, bold where it is below."""
    text = f"{value:.1f}, {constant:.1f}"
    return f"**{text}**" if value < constant else text


def _legend() -> str:
    return page.text(literature.LEGEND)


def _statuses(used: Iterable[str]) -> str:
    names = set(used)
    return " ".join(f"*{name}*: {meaning}." for name, meaning in STATUSES.items() if name in names)
