"""From the tables of a study to values and intervals: macro scores of each method, replicate and reading.

A *method* is a row of a report (column `arm` of the tables): what was trained, with its settings. A *condition* is a
value of the column `noise`: a label noise, or a level of another axis of the study. A *reading* says how the same runs
are scored: by which head, epoch, threshold and labels. Nothing here writes Markdown.
"""

import functools
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from aunce import evaluation
from aunce.data.noise import is_noise
from aunce.report.collect import POINT, READING, THRESHOLD, is_primary, plain, primary_reading
from aunce.statistics import (
    Estimate,
    guess_f1,
    jackknife_interval,
    leave_one_out_auc,
    leave_one_out_f1,
    sign_flip_p,
    t_interval,
)


class Scores:
    """The tables of one study, with values and intervals of its methods.

    Args:
        tables: folder that `collect` has filled; one that is not there gives tables without rows.

    Attributes:
        runs, counts, auc, history: the tables, of the test alone.
        targets: counts and auc of the further data sets that encoders were scored on; empty without any.
        reading: the primary one, see `collect.primary_reading`.
        done: True if a run has finished. The attributes below are set only then; before, `labels` and `methods` are
            empty.
        scored_aus, null_aus: AUs in the macro scores of every replicate; AUs that are labelled but never drawn.
        facts: key of a run -> what it recorded about its data.
        synthetic: what the runs recorded about the renderer; empty for recorded faces.
        labels: condition -> the words for it, with Cohen's kappa between clean and noisy labels.
        condition, at: what all conditions are called; what stands before one in a sentence.
        dropped: (condition, replicate) that some method has not finished; left out for all methods.
        per_au, macro: F1, AUC and AUC within subjects of every AU, and their means over the AUs that are scored.
        methods, bounds: names of the methods that compete; of the ceiling and the floors.
        reference: the method that others are compared with, supervised training; None without one.
    """

    def __init__(self, tables: str | Path) -> None:
        self.folder = Path(tables)
        known = self.folder / "provenance.json"
        self.provenance: dict[str, Any] = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
        self.runs, self.counts, self.auc, self.history = (
            self._table(name) for name in ("runs", "counts", "auc", "history")
        )
        self.reading = primary_reading(self.counts)
        self.targets: dict[str, pd.DataFrame] = {}
        if "target" in self.counts:
            self.targets = {
                name: table[table["target"] != ""] for name, table in (("counts", self.counts), ("auc", self.auc))
            }
            self.counts, self.auc = self.counts[self.counts["target"] == ""], self.auc[self.auc["target"] == ""]
        self.done = len(self.runs) > 0 and bool((self.runs["status"] == "done").any()) and len(self.counts) > 0
        self.labels: dict[str, str] = {}
        self.methods: list[str] = []
        if self.done:
            self._score()

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.parquet"
        table = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        texts = {column: plain(table[column]) for column in table.select_dtypes("category").columns}
        # As small as they fit on disk; sums of them would not fit.
        numbers = table.select_dtypes("integer").columns
        return table.assign(**texts).astype(dict.fromkeys(numbers, "int64"))

    def _score(self) -> None:
        """Scores per AU and macro scores of each replicate, over the replicates in which every method finished."""
        finished = self.finished
        facts = [json.loads(text) for text in finished["data"]]
        # one set of AUs for all replicates, so that they estimate the same quantity
        self.scored_aus = sorted(set.intersection(*(set(fact["entering_aus"]) for fact in facts)))
        self.synthetic = [fact["synthetic"] for fact in facts if fact.get("synthetic")]
        self.null_aus = sorted({int(au) for fact in facts for au in fact["null_aus"]})
        self.facts = dict(zip(finished["key"], facts, strict=True))
        ended = dict(list(finished.groupby("noise", sort=False)))
        order = [noise for noise in pd.unique(self.runs["noise"]) if noise in ended]  # of the study, whatever failed
        self.labels = {noise: self._label(noise, ended[noise]) for noise in order}
        of_noise = all(is_noise(noise) for noise in order)
        self.condition, self.at = ("Label noise", "at noise ") if of_noise else ("Condition", "in ")
        competing = self.runs[self.runs["kind"] == "arm"]
        whole = competing.assign(done=competing["status"] == "done").groupby(["noise", "replicate"], sort=False)
        self.dropped = [point for point, complete in whole["done"].all().items() if not complete]
        self.per_au = self._per_au()
        self.macro = self._macro(self.per_au)
        self.methods = list(pd.unique(competing["arm"]))
        measured = self.runs[self.runs["kind"] != "arm"].sort_values("kind", kind="stable")  # ceiling before floors
        self.bounds = list(pd.unique(measured["arm"]))
        references = competing.loc[competing["method"] == "bce", "arm"]
        self.reference = str(references.iloc[0]) if len(references) else None

    @functools.cached_property
    def finished(self) -> pd.DataFrame:
        """The runs that are done."""
        return self.runs[self.runs["status"] == "done"]

    @property
    def curves(self) -> pd.DataFrame:
        """The finished runs of methods, which have a learning curve each; `flat` is a text."""
        curves = self.finished[self.finished["kind"] == "arm"]
        return curves.assign(flat=curves["flat"].astype("str"))

    @functools.cached_property
    def primary_counts(self) -> pd.DataFrame:
        """The counts in the primary reading, at every threshold."""
        return self.counts[is_primary(self.counts)]

    @functools.cached_property
    def primary_per_au(self) -> pd.DataFrame:
        """The scores per AU in the primary reading, at every threshold."""
        return self.per_au[is_primary(self.per_au)]

    def _label(self, noise: str, rows: pd.DataFrame) -> str:
        """The condition with Cohen's kappa between clean and noisy labels, mean over scored AUs and runs."""
        kappas = self.kappas(rows)
        shown = bool(kappas) and (noise.startswith("none") or min(kappas) < 1)
        return f"{noise} (κ {sum(kappas) / len(kappas):.2f})" if shown else noise

    def kappas(self, rows: pd.DataFrame) -> list[float]:
        """Cohen's kappa between clean and noisy labels of each run in `rows` and each AU that is scored there."""
        scored = {key: self._scored_in(int(at)) for key, at in zip(rows["key"], rows["replicate"], strict=True)}
        return [
            float(value)
            for key in rows["key"]
            for au, value in (self.facts[key].get("kappa") or {}).items()
            if int(str(au).removeprefix("AU")) in scored[key] and value is not None
        ]

    def _scored_in(self, replicate: int) -> Collection[int]:
        """The AUs in the means of a replicate."""
        return self.scored_aus

    def is_scored(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """Mask of the rows whose AU is in the means of its replicate."""
        return table["au"].isin(self.scored_aus)

    def _kept(self, table: pd.DataFrame) -> pd.DataFrame:
        """Without the replicates that a method has not finished: they are dropped for all methods alike."""
        if not self.dropped:
            return table
        points = pd.MultiIndex.from_frame(table[["noise", "replicate"]])
        return table[~points.isin(self.dropped)]

    def _per_au(self, *, by: Sequence[str] = ()) -> pd.DataFrame:
        """F1 and AUC of every AU; over parts counts and concordant pairs are summed, unless `by` names the part."""
        place = [*POINT, *by, "head", "epoch_rule", "labels", "au"]
        counts, auc = self._kept(self.counts), self._kept(self.auc)
        scores = {
            "f1": evaluation.f1(counts, [*place, "threshold"]),
            "auc": evaluation.auc(auc, place),
            "auc_within": evaluation.auc(auc[auc["within"]], place),
        }
        frames = [values.rename("value").reset_index().assign(score=name) for name, values in scores.items()]
        return pd.concat(frames, ignore_index=True).fillna({"threshold": ""})

    def _macro(self, per_au: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
        """Mean over the scored AUs; not defined as soon as one of them is not."""
        scored = per_au[self.is_scored(per_au)]
        groups = scored.groupby([*POINT, *by, *READING, "score"], sort=False)["value"]
        return groups.agg(mean_of_all).reset_index()

    def values(self, method: str, noise: str, score: str, **reading: str) -> pd.Series:
        """A macro score of a method in one condition, indexed by replicate; the primary reading unless told otherwise.

        Args:
            method: name of the method, a ceiling or a floor.
            noise: the condition.
            score: "auc", "auc_within" or "f1".
            reading: of `READING`, those that differ from the primary reading.
        """
        wanted = self.reading | {"threshold": THRESHOLD if score == "f1" else ""} | reading
        rows = self._rows_of.get((method, noise, score, *(wanted[name] for name in READING)), [])
        return self.macro.iloc[rows].set_index("replicate")["value"].sort_index()

    @functools.cached_property
    def _rows_of(self) -> dict[tuple[str, ...], Any]:
        """Method, condition, score and reading -> their rows in `macro`: a page asks for hundreds of them."""
        return dict(self.macro.groupby(["arm", "noise", "score", *READING], sort=False).indices)

    def interval(self, method: str, noise: str, score: str, *, minus: str = "") -> Estimate:
        """The primary macro score of a method, or its difference to the method `minus`, with its interval.

        Replicates of rendered faces are the unit; on recorded ones, which come once, subjects and seeds are.
        """
        values = self.values(method, noise, score)
        left_out = None if self.synthetic else self._left_out(method, noise, score)
        if minus:
            values = (values - self.values(minus, noise, score)).dropna()
            left_out = None if left_out is None else left_out - self._left_out(minus, noise, score)
        if left_out is None:
            return t_interval(values.tolist())
        return jackknife_interval(values.tolist(), left_out.loc[values.index].to_numpy().reshape(len(values), -1))

    def difference(self, method: str, noise: str, score: str) -> tuple[Estimate, float] | None:
        """Paired difference to the reference method with its sign-flip p value; None for the reference itself.

        Seeds of recorded faces are no replicates: there the p value is NaN.
        """
        if self.reference is None or method == self.reference or method not in self.methods:
            return None
        one, other = self.values(method, noise, score).align(self.values(self.reference, noise, score), join="inner")
        p = sign_flip_p((one - other).tolist()) if self.synthetic else math.nan
        return self.interval(method, noise, score, minus=self.reference), p

    def _left_out(self, method: str, noise: str, score: str) -> "pd.Series[float]":
        """The primary macro score of each replicate without each of the test subjects, indexed by both, sorted."""
        table = self._kept(self.auc[is_primary(self.auc)] if score == "auc" else self.primary_counts)
        table = table[self.is_scored(table) & (table["arm"] == method) & (table["noise"] == noise)]
        if score == "f1":
            table = table[table["threshold"] == THRESHOLD]
        place = ["replicate", "au"]
        if score == "auc":
            whole, rest = evaluation.auc(table, place), leave_one_out_auc(table, place)
        else:
            whole, rest = evaluation.f1(table, place), leave_one_out_f1(table, place)
        subjects = sorted(set(rest.index.get_level_values("subject")))
        every = pd.MultiIndex.from_tuples(
            [(*at, one) for at in whole.index for one in subjects], names=rest.index.names
        )
        # the score of an AU without known frames of a subject is the same without it
        values = rest.reindex(every).where(every.isin(rest.index), whole.loc[every.droplevel("subject")].to_numpy())
        return values.groupby(["replicate", "subject"]).agg(mean_of_all)

    def blind(self, score: str = "", noise: str = "") -> pd.DataFrame:
        """Macro scores, one per replicate, of answers that look at no image: arm, kind, noise, replicate, score, value.

        They answer "present" always, or at the prevalence; their AUC is one half. The noise is "any" where all
        conditions of the study are tested on the same clean labels.

        Args:
            score: "auc" or "f1"; empty for both.
            noise: the condition; empty for all.
        """
        rows = self._blind
        rows = rows[rows["score"] == score] if score else rows
        return rows[rows["noise"].isin(["any", noise])] if noise else rows

    @functools.cached_property
    def _blind(self) -> pd.DataFrame:
        clean = self._kept(self.primary_counts)
        place = ["noise", "replicate", "part", "subject", "au"]
        clean = clean[self.is_scored(clean)].drop_duplicates(place)
        clean = clean.assign(p=clean["tp"] + clean["fn"], n=clean["fp"] + clean["tn"])
        if not clean.drop_duplicates([*place[1:], "p", "n"]).duplicated(place[1:]).any():
            clean = clean.drop_duplicates(place[1:]).assign(noise="any")
        truth = clean.groupby(["noise", "replicate", "au"], sort=False)[["p", "n"]].sum().reset_index()
        rows = []
        for (noise, replicate), aus in truth.groupby(["noise", "replicate"], sort=False):
            pairs = list(zip(aus["p"], aus["n"], strict=True))
            f1 = {
                "always positive": [guess_f1(p, n, rate=1) for p, n in pairs],
                "prevalence guess": [guess_f1(p, n, rate=p / (p + n)) for p, n in pairs],
            }
            for name, values in f1.items():
                one = {"arm": name, "kind": "floor", "noise": noise, "replicate": replicate}
                rows += [
                    one | {"score": "auc", "value": 0.5},
                    one | {"score": "f1", "value": sum(values) / len(values)},
                ]
        return pd.DataFrame(rows)

    def methods_in(self, noise: str) -> list[tuple[str, str]]:
        """Methods, then ceiling and floors, with their kind, that the study runs in this condition."""
        runs = self.runs[self.runs["noise"] == noise].drop_duplicates("arm").set_index("arm")["kind"]
        return [(method, str(runs[method])) for method in [*self.methods, *self.bounds] if method in runs.index]

    def of_au(self, method: str, score: str) -> "pd.Series[float]":
        """Scores of one method in the primary reading by (noise, au), means over replicates."""
        table = self.primary_per_au
        threshold = THRESHOLD if score == "f1" else ""
        table = table[(table["score"] == score) & (table["threshold"] == threshold) & (table["arm"] == method)]
        return table.groupby(["noise", "au"])["value"].mean()

    def by_part(self) -> "pd.Series[float]":
        """Macro-F1 by (noise, arm) as the mean over parts and replicates."""
        table = self._macro(self._per_au(by=["part"]), by=["part"])
        chosen = table[is_primary(table) & (table["threshold"] == THRESHOLD)]
        return chosen.groupby(["noise", "arm"])["value"].mean()

    def positives(self) -> pd.DataFrame:
        """Per AU, smallest over conditions, parts and replicates: positive test frames, subjects with enough of them.

        Enough are `evaluation.ENOUGH_POSITIVES`.
        """
        clean = self.primary_counts.drop_duplicates(["noise", "replicate", "part", "subject", "au"])
        positives = clean["tp"] + clean["fn"]
        clean = clean.assign(positives=positives, subjects=positives >= evaluation.ENOUGH_POSITIVES)
        return clean.groupby(["noise", "replicate", "part", "au"])[["positives", "subjects"]].sum().groupby("au").min()

    @property
    def unit(self) -> str:
        """What the intervals are over."""
        return "replicates" if self.synthetic else "subjects and seeds"


def mean_of_all(values: "pd.Series[float]") -> float:
    """The mean, NaN as soon as one value is."""
    return float(values.to_numpy().mean()) if len(values) else math.nan


def estimate_of(sample: "pd.Series[float]") -> Estimate:
    """Mean over the replicates of a sample with Student's interval."""
    return t_interval(sample.tolist())


def estimated(sample: "pd.Series[float]") -> dict[str, float]:
    """Mean over replicates with its interval, for a row of a table."""
    estimate = estimate_of(sample)
    return {"estimate": estimate.value, "low": estimate.low, "high": estimate.high, "replicates": estimate.n}
