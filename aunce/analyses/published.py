"""The audit: what follows from the published numbers alone, recomputed in seconds without any data set.

Two sources carry it: AUNCE's fold logs and the printed tables of `aunce.literature`, and the frames and positive rates
of the parts in `aunce.data`. F1 and accuracy of a part whose size and positive rate are known
determine the confusion matrix: see `solve`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from aunce import literature
from aunce.data import bp4d, disfa
from aunce.errors import UsageError

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
    """Counts of frames. A closed form may give fractions of frames."""

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
    """Every whole-number confusion matrix that is printed as these numbers.

    Args:
        f1: percent as printed, two decimals: the value behind it is at most 0.005 away.
        accuracy: percent as printed, likewise.
        rate: share of positive frames, at most `HALF_RATE` away from the value behind it.
        frames: their exact number.

    Returns:
        Columns tp, fp, fn, tn; no rows if no matrix fits. No positives and none predicted is F1 = 0, as in the
        released code.
    """
    slack = 1e-9  # a value on the edge belongs to both neighbours: how it was rounded is not known
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
    """The parts that each fold of the logs can have been tested on, by arithmetic alone.

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
        matrices that are printed as the logs are; matrices, their number; and the columns of `scores`.
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
        Columns: au; tp, fp, fn, tn; those of `scores`; f1_low and f1_high, the range of F1 over all matrices that are
        printed as the logs are; mean_f1, the mean of the printed F1 of the parts, as a share. The closed form takes
        printed decimals as exact, so that it may lie a few thousandths of a point outside the range.
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
    """The largest (sign 1) or smallest (-1) F1 of a sum of one matrix of each part.

    F1 rises with the ratio q = TP / E of true positives to errors. Dinkelbach's method: the choice with the best sum of
    TP - q E, found in each part alone, has a better ratio than q until q is the best ratio.
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
"""Ways to average over folds and AUs. Unless the name says otherwise, the last step is the mean over AUs. `MEAN` stands
in AUNCE's README; the second column of this project's reports is `POOLED`."""


def averages(dataset: str) -> pd.DataFrame:
    """F1 of AUNCE and of calling every frame positive by each of `WAYS`, in percent.

    Returns:
        Columns: dataset, way, aunce, always.
    """
    parts, together = recovered(dataset), pooled(dataset)
    of_au = parts.groupby("au")
    mean, p = of_au[["precision", "recall"]].mean(), of_au["prevalence"].mean()
    total = scores(together[["tp", "fp", "fn", "tn"]].sum().to_frame().T).iloc[0]
    values = {
        MEAN: (parts["printed_f1"].mean() / 100, parts["f1_always"].mean()),
        "folds weighted by frames": (_weighted(parts, "f1"), _weighted(parts, "f1_always")),
        # always positive has the recall 1 and the precision p
        "F1 of mean precision and recall": (
            (2 * mean.prod(axis=1) / mean.sum(axis=1)).mean(),
            (2 * p / (1 + p)).mean(),
        ),
        POOLED: (together["f1"].mean(), together["f1_always"].mean()),
        "median over AUs": (of_au["printed_f1"].mean().median() / 100, of_au["f1_always"].mean().median()),
        "pooled over folds and AUs": (total["f1"], total["f1_always"]),
        "pooled, half the frames positive": (together["f1_even"].mean(), 2 / 3),
    }
    rows = [(dataset, way, 100 * values[way][0], 100 * values[way][1]) for way in WAYS]
    return pd.DataFrame(rows, columns=["dataset", "way", "aunce", "always"])


def _weighted(parts: pd.DataFrame, name: str) -> float:
    """Mean over AUs of the mean over parts, each with the weight of its frames."""
    frames = parts.groupby("au")["frames"].sum()
    return float(((parts[name] * parts["frames"]).groupby(parts["au"]).sum() / frames).mean())


def dropped(dataset: str, whose: str) -> pd.DataFrame:
    """Bounds on AUNCE's F1 if only the frames of another list counted, whatever the labels of the dropped frames are.

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
    """The mean of every row of `tables`, computed again.

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
    """The decimals that the numbers were printed with, unless all of them end in 0."""
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
"""Ways to average over a method's AUs; more is better."""

GAIN = "gain over always positive"
"""One more way, for BP4D and DISFA: mean of (F1 - floor) / (100 - floor), the floor being the F1 of always positive."""

OTHER_ORDERS = (*(name for name in ORDERS if name != "mean"), GAIN)
"""The ways that are compared with the mean."""


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
    """Shares of pairs of methods whose order is the same by another way of averaging.

    Returns:
        One row per table of at least three methods. Columns: dataset, protocol, status, methods, pairs (whose means
        differ); one per way of `OTHER_ORDERS` with the share of pairs in the same order (NaN where there is no floor);
        "one AU less", the share whose order is the same without any one AU; all, the share whose order is always the
        same; and winners, the best method by each way, each once.
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
    """AUNCE beside each method that its README compared it with.

    Returns:
        Columns: method; printed; margin, AUNCE's printed mean less this one; ahead, the number of AUs on which AUNCE's
        F1 is higher, and aus, of how many; one per way of `OTHER_ORDERS`, whether AUNCE is ahead; one_au_less, whether
        AUNCE is ahead without any one AU; survives, whether it is ahead by all of these; way_moves, whether pooling
        changes AUNCE's own F1 by more than the margin.
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
            **{name: ahead[name] for name in OTHER_ORDERS},
            "one_au_less": ahead[less].all(axis=1),
            "survives": ahead[[*OTHER_ORDERS, *less]].all(axis=1),
        }
    ).drop(index="AUNCE")
    return rows.assign(way_moves=rows["margin"].abs() < moved).sort_values("margin").reset_index()


def differing() -> pd.DataFrame:
    """Methods whose means on the same data set and parts differ between two sources.

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
