"""From the runs of a study to its report: `collect` writes small tables, `render` draws them as a page and as Markdown.

Runs write data, reports read data: whatever a report shows comes from the tables that `collect` wrote, so a report is
drawn again without a run. Failed and missing runs are rows, never gaps.
"""

import functools
import json
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import pandas as pd

from aunce.data.noise import is_noise
from aunce.errors import UsageError
from aunce.report import page
from aunce.report.collect import POINT, PRIMARY, READING, THRESHOLD, plain
from aunce.report.findings import Findings
from aunce.report.findings import write as write_findings
from aunce.statistics import (
    Estimate,
    always_positive_f1,
    guess_f1,
    jackknife_interval,
    leave_one_out_auc,
    leave_one_out_f1,
    sign_flip_p,
    t_interval,
)
from aunce.study.grid import duration

if TYPE_CHECKING:
    from IPython.display import Markdown

P = ParamSpec("P")

SMALL = ("small", "resnet-18")  # bundled backbones of the laptop and of the GPU size of studies, with random weights
TRIED = ("learning_rate", "temperature", "weight_decay")
"""What tuning varies."""
F1_WANTED, PIXELS_WANTED = (0.5, 0.9), (0.0, 0.75)
"""What the dials of the renderer were to give for each AU: F1 of supervised training, AUC of a probe on raw pixels."""
SCORES = {"auc": "Macro-AUC", "f1": "Macro-F1"}


def _section(
    method: Callable[Concatenate["Report", P], "Markdown"],
) -> Callable[Concatenate["Report", P], "Markdown"]:
    """A part of the report that says so plainly if no run has finished."""

    @functools.wraps(method)
    def wrapped(self: "Report", /, *args: P.args, **kwargs: P.kwargs) -> "Markdown":
        if not self.done:
            return page.markdown("No run has finished yet.")
        if not len(self.macro):
            return page.markdown(self.why_empty)
        return method(self, *args, **kwargs)

    return wrapped


class Report:
    """What a report notebook shows, section by section, from the tables of one study.

    Args:
        tables: folder that `collect` has filled; one that is not there gives a report that says so.
        out: folder that gets `figures/<name>.svg` with `<name>.csv` beside it, and `findings.json`; empty: figures are
            displayed, nothing is saved.
        tuning: the runs are trials of settings, so that no test score of theirs is found.
    """

    def __init__(self, tables: str | Path, *, out: str | Path = "", tuning: bool = False) -> None:
        self.folder = Path(tables)
        self.tuning = tuning
        self.out = Path(out) if str(out) else None
        self.provenance = json.loads(self._text("provenance.json") or "{}")
        self.runs = self._table("runs")
        self.counts, self.auc, self.history = (self._table(name) for name in ("counts", "auc", "history"))
        self.done = len(self.runs) > 0 and bool((self.runs["status"] == "done").any()) and len(self.counts) > 0
        if self.done:
            self._score()

    def _text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.parquet"
        table = pd.read_parquet(path) if path.is_file() else pd.DataFrame()
        texts = {column: plain(table[column]) for column in table.select_dtypes("category").columns}
        # As small as they fit on disk; sums of them would not fit.
        numbers = table.select_dtypes("integer").columns
        return table.assign(**texts).astype(dict.fromkeys(numbers, "int64"))

    def _score(self) -> None:
        """Scores per AU and macro scores of each replicate, over the replicates in which every arm finished."""
        finished = self.runs[self.runs["status"] == "done"]
        facts = [json.loads(text) for text in finished["data"]]
        # one set of AUs for all replicates, so that they estimate the same quantity
        self.entering = sorted(set.intersection(*(set(fact["entering_aus"]) for fact in facts)))
        self.synthetic = [fact["synthetic"] for fact in facts if fact.get("synthetic")]
        self.null_aus = sorted({int(au) for fact in facts for au in fact["null_aus"]})
        self.facts = dict(zip(finished["key"], facts, strict=True))
        ended = dict(list(finished.groupby("noise", sort=False)))
        order = [noise for noise in pd.unique(self.runs["noise"]) if noise in ended]  # of the study, whatever failed
        self.labels = {noise: self._label(noise, ended[noise]) for noise in order}
        of_noise = all(is_noise(noise) for noise in order)
        self.condition, self.at = ("Label noise", "at noise ") if of_noise else ("Condition", "in ")
        arms = self.runs[self.runs["kind"] == "arm"]
        whole = arms.assign(done=arms["status"] == "done").groupby(["noise", "replicate"], sort=False)["done"].all()
        self.dropped = [point for point, complete in whole.items() if not complete]
        self.per_au = self._per_au(self.counts, self.auc)
        self.macro = self._macro(self.per_au)
        self.why_empty = (
            "No replicate has finished in every arm yet."
            if self.entering
            else "No AU has enough positive test frames (10 in each of 5 people) in every run: there is no macro score."
        )
        self.arms = list(pd.unique(arms["arm"]))
        measured = self.runs[self.runs["kind"] != "arm"].sort_values("kind", kind="stable")  # ceiling before floors
        self.others = list(pd.unique(measured["arm"]))
        references = arms.loc[arms["method"] == "bce", "arm"]
        self.reference = str(references.iloc[0]) if len(references) else None

    def _label(self, noise: str, rows: pd.DataFrame) -> str:
        """Noise with Cohen's kappa between clean and noisy labels, mean over entering AUs and runs."""
        kappas = self._kappas(rows)
        shown = bool(kappas) and (noise.startswith("none") or min(kappas) < 1)
        return f"{noise} (κ {sum(kappas) / len(kappas):.2f})" if shown else noise

    def _kappas(self, rows: pd.DataFrame) -> list[float]:
        """Cohen's kappa between clean and noisy labels of each run in `rows` and each AU that enters its mean."""
        entering = {key: self._entering(int(at)) for key, at in zip(rows["key"], rows["replicate"], strict=True)}
        return [
            float(value)
            for key in rows["key"]
            for au, value in (self.facts[key].get("kappa") or {}).items()
            if int(str(au).removeprefix("AU")) in entering[key] and value is not None
        ]

    def _entering(self, replicate: int) -> Collection[int]:
        """The AUs that enter the means of a replicate."""
        return self.entering

    def _kept(self, table: pd.DataFrame) -> pd.DataFrame:
        """Without the replicates that an arm has not finished: they are dropped for all arms alike."""
        if not self.dropped:
            return table
        points = pd.MultiIndex.from_frame(table[["noise", "replicate"]])
        return table[~points.isin(self.dropped)]

    def _per_au(self, counts: pd.DataFrame, auc: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
        """F1 and AUC of every AU; over parts counts and concordant pairs are summed, unless `by` names the part."""
        from aunce import evaluation

        place = [*POINT, *by, "head", "epoch_rule", "labels", "au"]
        counts, auc = self._kept(counts), self._kept(auc)
        scores = {
            "f1": evaluation.f1(counts, [*place, "threshold"]),
            "auc": evaluation.auc(auc, place),
            "auc_within": evaluation.auc(auc[auc["within"]], place),
        }
        frames = [values.rename("value").reset_index().assign(score=name) for name, values in scores.items()]
        return pd.concat(frames, ignore_index=True).fillna({"threshold": ""})

    def _enters(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """The rows whose AU enters the means of its replicate."""
        return table["au"].isin(self.entering)

    def _macro(self, per_au: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
        """Mean over the entering AUs; not defined as soon as one of them is not."""
        entering = per_au[self._enters(per_au)]
        groups = entering.groupby([*POINT, *by, *READING, "score"], sort=False)["value"]
        return groups.agg(lambda values: values.mean(skipna=False)).reset_index()

    def _values(self, arm: str, noise: str, score: str, **reading: str) -> pd.Series:
        """A macro score per replicate; the primary reading unless told otherwise."""
        wanted = PRIMARY | {"threshold": THRESHOLD if score == "f1" else ""} | reading
        rows = self._places.get((arm, noise, score, *(wanted[name] for name in READING)), [])
        return self.macro.iloc[rows].set_index("replicate")["value"].sort_index()

    @functools.cached_property
    def _places(self) -> dict[tuple[str, ...], Any]:
        """Arm, noise, score and reading -> their rows in `macro`: a page asks for hundreds of them."""
        return dict(self.macro.groupby(["arm", "noise", "score", *READING], sort=False).indices)

    def _difference(self, arm: str, noise: str, score: str) -> tuple[Estimate, float] | None:
        """Paired difference to the reference arm with its sign-flip p value; None for the reference itself.

        Seeds of recorded faces are no replicates: there the p value is NaN.
        """
        if self.reference is None or arm == self.reference or arm not in self.arms:
            return None
        one, other = self._values(arm, noise, score).align(self._values(self.reference, noise, score), join="inner")
        p = sign_flip_p((one - other).tolist()) if self.synthetic else math.nan
        return self._interval(arm, noise, score, minus=self.reference), p

    def _interval(self, arm: str, noise: str, score: str, *, minus: str = "") -> Estimate:
        """The primary macro score of an arm, or its difference to the arm `minus`, with its interval.

        Replicates of rendered faces are the unit; on recorded ones, which come once, subjects and seeds are.
        """
        values = self._values(arm, noise, score)
        left_out = None if self.synthetic else self._left_out(arm, noise, score)
        if minus:
            values = (values - self._values(minus, noise, score)).dropna()
            left_out = None if left_out is None else left_out - self._left_out(minus, noise, score)
        if left_out is None:
            return t_interval(values.tolist())
        return jackknife_interval(values.tolist(), left_out.loc[values.index].to_numpy().reshape(len(values), -1))

    def _unit(self) -> str:
        return "replicates" if self.synthetic else "subjects and seeds"

    def _left_out(self, arm: str, noise: str, score: str) -> "pd.Series[float]":
        """The primary macro score of each replicate without each of the test subjects, indexed by both, sorted."""
        from aunce import evaluation

        table = self._kept(self.auc if score == "auc" else self.counts)
        table = table[(table[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1) & self._enters(table)]
        table = table[(table["arm"] == arm) & (table["noise"] == noise)]
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
        # an AU that knows nothing of a subject is the same without it
        values = rest.reindex(every).where(every.isin(rest.index), whole.loc[every.droplevel("subject")].to_numpy())
        return values.groupby(["replicate", "subject"]).agg(lambda values: values.mean(skipna=False))

    @functools.cached_property
    def _blind(self) -> pd.DataFrame:
        """What needs no run: always "present", and a guess at the prevalence; macro scores per replicate.

        The noise is "any" where all conditions of the study are tested on the same clean labels.
        """
        clean = self._kept(self.counts[(self.counts[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)])
        place = ["noise", "replicate", "part", "subject", "au"]
        clean = clean[self._enters(clean)].drop_duplicates(place)
        clean = clean.assign(p=clean["tp"] + clean["fn"], n=clean["fp"] + clean["tn"])
        if not clean.drop_duplicates([*place[1:], "p", "n"]).duplicated(place[1:]).any():
            clean = clean.drop_duplicates(place[1:]).assign(noise="any")
        truth = clean.groupby(["noise", "replicate", "au"], sort=False)[["p", "n"]].sum().reset_index()
        rows = []
        for (noise, replicate), aus in truth.groupby(["noise", "replicate"], sort=False):
            f1 = {
                "always positive": [always_positive_f1(p, n) for p, n in zip(aus["p"], aus["n"], strict=True)],
                "prevalence guess": [guess_f1(p, n, rate=p / (p + n)) for p, n in zip(aus["p"], aus["n"], strict=True)],
            }
            for arm, values in f1.items():
                one = {"arm": arm, "kind": "floor", "noise": noise, "replicate": replicate}
                rows += [
                    one | {"score": "auc", "value": 0.5},
                    one | {"score": "f1", "value": sum(values) / len(values)},
                ]
        return pd.DataFrame(rows)

    def title(self) -> "Markdown":
        """The study's title, marked if runs are not finished; writes what the index shows of the report."""
        if not self.provenance:
            return page.markdown(
                f"# No runs yet\n\nThere are no tables in `{page.text(self.folder.name)}`: `aunce study` makes them."
            )
        write_findings(self.out, self.summary())
        states = self.provenance["runs"]
        total = sum(states.values())
        text = f"# {page.text(self.provenance['title'])}"
        if states["done"] < total:
            text += f"\n\n**PARTIAL: {states['done']} of {total} runs finished.** What is missing is listed below."
        return page.markdown(text)

    def summary(self) -> Findings:
        """The report in one line, for the index. It decides no claim."""
        states = self.provenance["runs"]
        hardware = dict.fromkeys(str(entry["hardware"]) for entry in self.provenance["hardware"])
        return Findings(
            title=self.provenance["title"],
            question=self.provenance["question"],
            found=self._found(),
            kind="none yet" if not self.done else "rendered faces" if self.synthetic else "recorded faces",
            status="empty" if not self.done else "whole" if states["done"] == sum(states.values()) else "partial",
            runs=states["done"],
            hours=round(self.provenance["duration_s"] / 3600, 1),
            hardware="; ".join(hardware),
            curves=len(self._curves()),
            unflat=int((self._curves()["flat"].astype("str") == "False").sum()),
        )

    def _curves(self) -> pd.DataFrame:
        """The finished runs of arms, which have a curve each."""
        return self.runs[(self.runs["status"] == "done") & (self.runs["kind"] == "arm")]

    def _found(self) -> str:
        """The findings as plain text."""
        if not self.done:
            return "No run has finished yet."
        if self.tuning:
            trials = self.runs[(self.runs["status"] == "done") & (self.runs["kind"] == "arm")]
            return (
                f"{page.count(trials['arm'].nunique(), 'trial')} at {page.count(len(self.labels), 'noise level')}. "
                "AUC on inner validation chose among them: settings for other studies, and no result about any arm."
            )
        if not len(self.macro):
            return self.why_empty
        return " ".join(self._sentences())

    def findings(self) -> "Markdown":
        """What was asked, and what was found in numbers with intervals."""
        if not self.provenance:
            return page.markdown("")
        text = f"**Asked.** {page.text(self.provenance['question'])}\n\n**Found.** "
        if not self.done:
            return page.markdown(text + f"No run has finished yet: `{self.provenance['rebuild']}` goes on.")
        if not len(self.macro):
            return page.markdown(text + self.why_empty)
        listed = "\n".join(f"- {page.text(sentence)}" for sentence in self._sentences())
        return page.markdown(f"{text.strip()}\n\n{listed}\n\n{self._not_flat()}")

    def _sentences(self) -> list[str]:
        return [self._sentence(noise) for noise in self.labels if noise in set(self.macro["noise"])]

    def _sentence(self, noise: str) -> str:
        reference = self.reference or self.arms[0]
        estimate = self._interval(reference, noise, "auc")
        kind = "label noise " if is_noise(noise) else ""  # else an axis of a study without noise
        text = f"With {kind}{self.labels[noise]}, {reference} reached macro-AUC {in_text(estimate)}"
        pairs = [(arm, pair[0]) for arm in self.arms if (pair := self._difference(arm, noise, "auc")) is not None]
        if pairs:
            text += "; differences to it: " + ", ".join(f"{arm} {in_text(pair, '+.3f')}" for arm, pair in pairs)
        unit = page.count(estimate.n, "replicate" if self.synthetic else "seed")
        condition = f", {estimate.condition}" if estimate.condition else ""
        return f"{text} (mean over {unit}, 95 % interval{condition})."

    def _not_flat(self) -> str:
        curves = self._curves()
        unfinished = curves[curves["flat"].astype("str") == "False"]
        if not len(curves):
            return "No curve of an arm is there yet."
        if not len(unfinished):
            return "All inner-validation curves had flattened."
        if len(unfinished) == len(curves):
            return f"None of the {len(curves)} inner-validation curves had flattened."
        shares = [
            f"{page.text(arm)} ({sum(unfinished['arm'] == arm)} of {len(rows)} runs)"
            for arm, rows in curves.groupby("arm", sort=False)
            if arm in set(unfinished["arm"])
        ]
        return f"Inner-validation curves had not flattened for {', '.join(shares)}."

    def banner(self) -> "Markdown":
        """Whether the faces were rendered; decided by what the runs recorded."""
        if not self.done:
            return page.markdown("No run has finished yet.")
        drawn, total = len(self.synthetic), len(self.facts)
        if not drawn:
            return page.markdown(
                "Faces: " + ", ".join(sorted({page.text(fact["dataset"]) for fact in self.facts.values()})) + "."
            )
        settings = sorted({str(entry.get("setting", "?")) for entry in self.synthetic})
        versions = sorted({str(entry.get("version", "?")) for entry in self.synthetic})
        share = "every run" if drawn == total else f"{drawn} of {total} runs"
        text = (
            "**Rendered faces: no person and no licensed image is in this report.** "
            f"The images of {share} were drawn by this project's renderer "
            f"(version {page.text(', '.join(versions))}, setting {page.text(', '.join(settings))}). "
            "These numbers say nothing about the same method on recorded faces."
        )
        if all(json.loads(spec)["backbone"] in SMALL for spec in self.runs["spec"]):
            text += (
                " Encoders are small and start from random weights or a pretext on these faces: what is concluded from "
                "them says nothing of a fine-tuned Swin-B, as the paper has it."
            )
        return page.markdown(f"> {text}")

    @_section
    def headline(self) -> "Markdown":
        """Arms, floors and ceiling by noise level."""
        from aunce.report import figures

        macro = self.macro
        primary = (macro[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1) & macro["threshold"].isin(["", THRESHOLD])
        table = macro[primary & macro["score"].isin(SCORES)]
        order = {arm: index for index, arm in enumerate([*self.arms, *self.others])}
        blind = self._blind
        table = pd.concat([table.sort_values("arm", key=lambda arms: arms.map(order), kind="stable"), blind])
        table = table[["arm", "kind", "noise", "score", "replicate", "value"]].reset_index(drop=True)
        without_runs = set(blind["arm"])
        estimates = {
            (arm, noise, score): (
                t_interval(values.tolist()) if arm in without_runs else self._interval(arm, noise, score)
            )
            for (arm, noise, score), values in table.groupby(["arm", "noise", "score"])["value"]
        }
        for name, attribute in (("estimate", "value"), ("low", "low"), ("high", "high")):
            places = zip(table["arm"], table["noise"], table["score"], strict=True)
            table[name] = [getattr(estimates[place], attribute) for place in places]
        table["noise"] = table["noise"].map(self.labels | {"any": "any"})
        table["score"] = table["score"].map(SCORES)
        table = table.sort_values("score", kind="stable")
        spoken = [
            f"{arm} {estimates[arm, noise, 'auc'].value:.3f} {self.at}{self.labels[noise]}"
            for arm in self.arms
            for noise in self.labels
            if (arm, noise, "auc") in estimates
        ]
        return page.figure(
            self.out,
            "headline",
            figures.headline(table),
            table,
            alt=f"Macro-AUC and macro-F1 of each arm, ceiling and floor. Macro-AUC: {'; '.join(spoken)}.",
            caption=(
                f"Small dots are replicates, large marks their mean, lines 95 % intervals over {self._unit()}; "
                f"an arrow means that the interval goes on. Below the gap: {_and(table['kind'])}. The dashed line is "
                "chance."
            ),
        )

    @_section
    def comparison(self, score: str, *, verdict: str) -> "Markdown":
        """One table per noise level: arms with their difference to the reference, then ceiling and floors.

        Args:
            score: "auc" or "f1".
            verdict: what the verdict column says of each arm.
        """
        reference = f"minus {page.text(self.reference or 'reference')}"
        headers = ["Arm", SCORES[score], "95 % interval", reference, "95 % interval", "p", "Replicates", "Verdict"]
        blind = self._blind
        texts = []
        for noise, label in self.labels.items():
            rows = []
            for arm, kind in self._rows(noise):
                estimate = self._interval(arm, noise, score)
                pair = self._difference(arm, noise, score)
                difference = (
                    [*in_cells(pair[0], "+.3f"), "" if math.isnan(pair[1]) else f"{pair[1]:.2f}"]
                    if pair
                    else ["", "", ""]
                )
                role = "" if kind == "arm" else f" ({kind})"
                cells = [*in_cells(estimate), *difference, str(estimate.n), verdict if pair else ""]
                rows.append([page.text(arm) + role, *cells])
            here = blind[blind["noise"].isin(["any", noise]) & (blind["score"] == score)]
            for arm, values in here.groupby("arm", sort=False)["value"]:
                shown = ["0.500", "by definition"] if score == "auc" else in_cells(t_interval(values.tolist()))
                rows.append([f"{arm} (floor)", *shown, "", "", "", str(len(values)), ""])
            texts.append(f"**{self.condition} {page.text(label)}**\n\n{page.table(headers, rows, 'lrrrrrrl')}")
        return page.markdown("\n\n".join(texts))

    @_section
    def behind(self) -> "Markdown":
        """What stands behind the scores: runs, whether their curves have flattened, inner validation."""
        headers = [self.condition, "Arm", "Runs finished", "Curves flat", "Inner-validation macro-F1"]
        checks = self.history["key"].value_counts() if len(self.history) else pd.Series(dtype=int)
        curves = set(checks.index[checks > 1])
        rows = []
        for noise, label in self.labels.items():
            for arm, _ in self._rows(noise):
                runs = self.runs[(self.runs["arm"] == arm) & (self.runs["noise"] == noise)]
                done = runs[runs["status"] == "done"]
                trained = done[done["key"].isin(curves)]
                flat = (
                    f"{(trained['flat'].astype('str') == 'True').sum()} of {len(trained)}"
                    if len(trained)
                    else "no curve"
                )
                f1 = page.number(done["val_f1"].mean()) if done["val_f1"].notna().any() else ""
                rows.append([page.text(label), page.text(arm), f"{len(done)} of {len(runs)}", flat, f1])
        return page.markdown(page.table(headers, rows, "llrrr"))

    def _rows(self, noise: str) -> list[tuple[str, str]]:
        """Arms, then ceiling and floors, with their kind, that the study runs at this noise level."""
        runs = self.runs[self.runs["noise"] == noise].drop_duplicates("arm").set_index("arm")["kind"]
        return [(arm, str(runs[arm])) for arm in [*self.arms, *self.others] if arm in runs.index]

    @_section
    def learning_curves(self) -> "Markdown":
        """Inner-validation AUC against epoch."""
        from aunce.evaluation import FLAT_GAIN
        from aunce.report import figures

        if not len(self.history):
            return page.markdown("No run has recorded a curve.")
        flat = self.runs.set_index("key")["flat"].astype("str") == "True"
        table = self.history[self.history["kind"] == "arm"][["key", "arm", "noise", "replicate", "epoch", "val_auc"]]
        table = table.assign(noise=table["noise"].map(self.labels), flat=table["key"].map(flat))
        means = table.groupby(["noise", "arm", "epoch"], sort=False)["val_auc"].mean()
        last = means.sort_index(level="epoch", sort_remaining=False).groupby(level=["noise", "arm"], sort=False).last()
        ends = [f"{arm} {value:.3f} {self.at}{noise}" for (noise, arm), value in last.items()]
        return page.figure(
            self.out,
            "learning_curves",
            figures.learning_curves(table),
            table,
            alt=f"Inner-validation AUC against epoch, one line per arm. Means at the last check: {'; '.join(ends)}.",
            caption=(
                "Inner-validation macro-AUC on noisy labels; thin lines are runs, thick lines their mean. "
                + self._not_flat()
                + f" One has if the best of the last third of its checks is less than {FLAT_GAIN:g} above the best "
                "before. An arm that has not flattened may look robust to noise only because it is undertrained."
            ),
        )

    @_section
    def per_au_forest(self) -> "Markdown":
        """AUC of each AU, arm and noise level."""
        from aunce.report import figures

        rows = []
        table = self.per_au[(self.per_au[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)]
        table = table[(table["score"] == "auc") & (table["kind"] == "arm") & ~table["au"].isin(self.null_aus)]
        counts = self._positives()
        for (au, noise, arm), part in table.groupby(["au", "noise", "arm"], sort=False):
            estimate = t_interval(part["value"].tolist())
            rows.append(
                {
                    "au": au,
                    "arm": arm,
                    "noise": self.labels[noise],
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n": estimate.n,
                    "enters": au in self.entering,
                    "positives": counts.loc[au, "positives"],
                    "subjects": counts.loc[au, "subjects"],
                }
            )
        result = pd.DataFrame(rows).sort_values("au", kind="stable")
        outside = [f"AU{au}" for au in pd.unique(result["au"]) if au not in self.entering]
        grey = "Every AU enters the macro scores"
        if outside:
            grey = (
                f"Grey: {', '.join(outside)}, outside the macro scores, with the smallest number over replicates of "
                "positive test frames and of subjects with at least 10"
            )
        return page.figure(
            self.out,
            "per_au",
            figures.forest(result),
            result,
            alt=f"AUC of {result['au'].nunique()} AUs for each arm, one panel per condition. {grey}.",
            caption=(
                f"AUC per AU on clean labels with 95 % intervals over {'replicates' if self.synthetic else 'seeds'}. "
                f"{grey}."
            ),
        )

    def _positives(self) -> pd.DataFrame:
        """Per AU, smallest over conditions, parts and replicates: positive test frames, subjects with 10 of them."""
        from aunce.evaluation import ENOUGH_POSITIVES

        clean = self.counts[(self.counts[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)]
        clean = clean.drop_duplicates(["noise", "replicate", "part", "subject", "au"])
        positives = clean["tp"] + clean["fn"]
        clean = clean.assign(positives=positives, subjects=positives >= ENOUGH_POSITIVES)
        return clean.groupby(["noise", "replicate", "part", "au"])[["positives", "subjects"]].sum().groupby("au").min()

    @_section
    def dials(self) -> "Markdown":
        """Per AU and setting, means over replicates: F1 of the trained arm, AUC of the linear probe on raw pixels."""
        arm_of = dict(zip(self.runs["method"], self.runs["arm"], strict=True))
        trained, pixels = self._primary("f1", THRESHOLD, arm_of["bce"]), self._primary("auc", "", arm_of["pixels"])
        rows = []
        for au in sorted(self.per_au["au"].unique()):
            note = "null AU" if au in self.null_aus else "" if au in self.entering else "too rare"
            missed = [
                f"{what} ({noise})"
                for noise in self.labels
                for what, value, (low, high) in (
                    ("F1", trained.get((noise, au), math.nan), F1_WANTED),
                    ("pixels", pixels.get((noise, au), math.nan), PIXELS_WANTED),
                )
                if not (note or low <= value <= high)
            ]
            cells = [
                page.number(table.get((noise, au), math.nan)) for noise in self.labels for table in (trained, pixels)
            ]
            rows.append([f"AU{au}", *cells, note, ", ".join(missed)])
        columns = [f"{name}, {noise}" for noise in self.labels for name in ("F1 of BCE", "AUC of raw pixels")]
        headers = ["AU", *columns, "Outside the means", "Target missed"]
        return page.markdown(page.table(headers, rows, "l" + "r" * len(columns) + "ll"))

    def _primary(self, score: str, threshold: str, arm: str) -> "pd.Series[float]":
        """Scores of one arm in the primary reading by (noise, au), means over replicates."""
        table = self.per_au[(self.per_au[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)]
        table = table[(table["score"] == score) & (table["threshold"] == threshold) & (table["arm"] == arm)]
        return table.groupby(["noise", "au"])["value"].mean()

    @_section
    def trials(self) -> "Markdown":
        """Inner-validation AUC (noisy labels) of every trial; the highest of those that differ in `TRIED` is marked.

        The trials of an arm are arms of the study; the numbers are means over replicates. No test score has a part.
        """
        runs = self.runs[self.runs["status"] == "done"]
        specs = pd.DataFrame([json.loads(text) for text in runs["spec"]], index=runs.index)
        family = specs.drop(columns=[*TRIED, "replicate"]).astype("str").agg(" ".join, axis=1)
        runs = runs.assign(family=family, flat=runs["flat"].astype("str"))
        rows = []
        for (noise, _), family in runs.groupby(["noise", "family"], sort=False):
            means = family.groupby("arm", sort=False)["val_auc"].mean()
            for arm, value in means.items():
                mine = family[family["arm"] == arm]
                flat = f"{(mine['flat'] == 'True').sum()} of {len(mine)}" if (mine["kind"] == "arm").all() else ""
                chosen = "chosen" if len(means) > 1 and arm == means.idxmax() else ""
                rows.append([page.text(self.labels[noise]), page.text(arm), page.number(float(value)), flat, chosen])
        return page.markdown(
            page.table([self.condition, "Trial", "Inner-validation AUC", "Curves flat", "Choice"], rows, "llrrl")
        )

    @_section
    def readings(self) -> "Markdown":
        """The same runs by other thresholds, epoch rules, labels and heads."""
        f1 = [("F1 at 0.5", {"threshold": "0.5"}), ("F1 tuned", {}), ("F1 oracle", {"threshold": "oracle"})]
        f1 += [("F1 tuned, noisy labels", {"labels": "noisy"})]
        auc = [("AUC last epoch", {}), ("AUC inner-val. epoch", {"epoch_rule": "inner_val"})]
        auc += [("AUC oracle epoch", {"epoch_rule": "oracle"}), ("AUC noisy labels", {"labels": "noisy"})]
        heads = [(f"AUC {head} head", "auc", {"head": head}) for head in ("own", "knn")]
        heads += [(f"F1 {head} head", "f1", {"head": head}) for head in ("own", "knn")]
        tables = [
            ("Thresholds: macro-F1.", [(name, "f1", reading) for name, reading in f1]),
            (
                "Epochs and labels: macro-AUC.",
                [*((name, "auc", reading) for name, reading in auc), ("AUC within subject", "auc_within", {})],
            ),
            ("Other heads than the frozen probe.", heads),
        ]
        return page.markdown("\n\n".join(f"**{title}**\n\n{self._readings(columns)}" for title, columns in tables))

    def _readings(self, columns: Sequence[tuple[str, str, dict[str, str]]]) -> str:
        rows = []
        for noise, label in self.labels.items():
            for arm in [*self.arms, *self.others]:
                cells = []
                for _, score, reading in columns:
                    values = self._values(arm, noise, score, **reading)
                    cells.append(page.number(float(values.mean())) if len(values) else "")
                if any(cells):
                    rows.append([page.text(label), page.text(arm), *cells])
        return page.table([self.condition, "Arm", *(name for name, *_ in columns)], rows, "ll" + "r" * len(columns))

    @_section
    def leak(self) -> "Markdown":
        """AUC of the AU that is labelled but never drawn."""
        if not self.null_aus:
            return page.markdown("These data hold no AU that is labelled but never drawn.")
        table = self.per_au[(self.per_au[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)]
        table = table[(table["score"] == "auc") & table["au"].isin(self.null_aus)]
        rows = [
            [
                page.text(self.labels[noise]),
                page.text(arm),
                in_text(t_interval((part["value"] - 0.5).tolist()), "+.3f"),
            ]
            for (noise, arm), part in table.groupby(["noise", "arm"], sort=False)
        ]
        text = (
            f"AU{self.null_aus[0]} is labelled but never drawn: whatever its AUC has above 0.5 comes from "
            "co-occurrence and identity, not from the face's action."
        )
        return page.markdown(
            f"{text}\n\n" + page.table([self.condition, "Arm", "AUC minus 0.5 (95 % interval)"], rows, "llr")
        )

    @_section
    def parts(self) -> "Markdown":
        """Macro-F1 as mean of parts and pooled over parts."""
        names = sorted(pd.unique(self.counts["part"]))
        if len(names) == 1:
            return page.markdown(
                f"One part was held out (part {page.text(names[0])}): mean of parts and pooled are the same number."
            )
        by_part = self._macro(self._per_au(self.counts, self.auc, by=["part"]), by=["part"])
        chosen = by_part[
            (by_part[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1) & (by_part["threshold"] == THRESHOLD)
        ]
        mean = chosen.groupby(["noise", "arm"])["value"].mean()
        rows = [
            [
                page.text(label),
                page.text(arm),
                page.number(mean[noise, arm]),
                page.number(float(self._values(arm, noise, "f1").mean())),
            ]
            for noise, label in self.labels.items()
            for arm in self.arms
            if (noise, arm) in mean.index
        ]
        text = "The literature averages F1 over parts; everything above pools the counts of all parts first."
        headers = [self.condition, "Arm", "F1 mean of parts", "F1 pooled"]
        return page.markdown(f"{text}\n\n{page.table(headers, rows, 'llrr')}")

    def match(self, *, arm: str, setting: str) -> "Markdown":
        """F1 at 0.5 per AU of one arm in one setting against AUNCE's fold logs, over the parts that both have."""
        from aunce import evaluation, literature

        if not self.done:
            return page.markdown("No run has finished yet.")
        noise = f"setting {setting}"
        counts = self.counts[(self.counts[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)]
        counts = counts[(counts["arm"] == arm) & (counts["noise"] == noise) & (counts["threshold"] == "0.5")]
        if not len(counts):
            return page.markdown(f"No run of {page.text(arm)} in the setting {page.text(setting)} has finished yet.")
        (dataset,) = {fact["dataset"] for fact in self.facts.values()}
        try:
            logs = literature.fold_logs(dataset)
        except UsageError:
            return page.markdown(
                "AUNCE released no fold logs of this data set: whether anything matches is undecidable."
            )
        f1 = 100 * evaluation.f1(counts, ["replicate", "part", "au"])
        own = f1.groupby(["part", "au"]).mean().rename("f1").reset_index().rename(columns={"part": "test_part"})
        undefined = sorted(set(own.loc[own["f1"].isna() & own["au"].isin(logs["au"]), "au"]))
        if undefined:
            names = ", ".join(f"AU{au}" for au in undefined)
            return page.markdown(f"F1 of {names} is not defined: too few positive frames to compare with the logs.")
        table = literature.did_i_match(own[own["au"].isin(logs["au"])], logs)
        rows = [
            [
                "**mean**" if row.au == "mean" else f"AU{row.au}",
                *(page.number(value, ".1f") for value in (row.own, row.published)),
                page.number(row.difference, "+.1f"),
                "" if math.isnan(row.low) else f"{page.number(row.low, '+.1f')} to {page.number(row.high, '+.1f')}",
                row.reading,
            ]
            for row in table.itertuples()
        ]
        folds = int(table["folds"].iloc[-1])
        said = f"Over {page.count(folds, 'part')} that both have. Intervals are over parts, paired, and *within* is no "
        said += "proof of equality: three parts show only differences above 2.5 SD of theirs."
        if self.synthetic:
            said = f"**These faces are rendered, so the comparison says nothing about the published numbers.** {said}"
        headers = ["AU", "Own F1", "Published F1", "Difference", "95 % interval", "Reading"]
        return page.markdown(f"{said}\n\n{page.table(headers, rows, 'lrrrrl')}")

    def published(self) -> "Markdown":
        """Published macro-F1 on the data set, each with the mark of how far it may be trusted."""
        from aunce import literature

        datasets = {fact["dataset"] for fact in self.facts.values()} if self.done else set()
        if self.done and any(json.loads(text).get("test_dataset") for text in self.runs["spec"]):
            return page.markdown(
                "Published scores are of training and testing on one data set: none compares with these."
            )
        if len(datasets) != 1:
            return page.markdown("")
        table = literature.results(datasets.pop())
        table = table[table["au"] == "mean"].sort_values("f1", ascending=False, kind="stable")
        rows = [
            [
                page.text(row.method),
                "" if pd.isna(row.year) else str(row.year),
                literature.marked(row.f1, row.status).replace("*", "\\*"),
                page.text(row.protocol),
                page.text(row.source),
            ]
            for row in table.itertuples()
        ]
        headers = ["Method", "Year", "Mean F1", "Protocol", "Read in"]
        legend = literature.LEGEND.replace("*", "\\*")
        return page.markdown(f"{page.table(headers, rows, 'llrll')}\n\n{legend}")

    def unfinished(self) -> "Markdown":
        """Runs that have failed or are missing, and the replicates that go with them."""
        if not len(self.runs):
            return page.markdown("There are no runs yet.")
        rest = self.runs[self.runs["status"] != "done"]
        if not len(rest):
            return page.markdown(f"All {len(self.runs)} runs finished.")
        rows = [[page.text(row.key), row.status, page.text(row.reason)] for row in rest.itertuples()]
        text = f"{len(self.runs) - len(rest)} of {len(self.runs)} runs finished."
        if self.done and self.dropped:
            dropped = "; ".join(
                f"replicate {replicate} {self.at}{page.text(noise)}" for noise, replicate in self.dropped
            )
            text += f" Left out for every arm, so that all are compared on the same replicates: {dropped}."
        return page.markdown(f"{text}\n\n{page.table(['Run', 'Status', 'Reason'], rows, 'lll')}")

    @_section
    def method(self) -> "Markdown":
        """The AUs that enter, and the encoder."""
        specs = [json.loads(text) for text in self.runs["spec"]]
        backbones = sorted({spec["backbone"] for spec in specs})
        aus = ", ".join(f"AU{au}" for au in self.entering)
        text = f"AUs in the macro scores: {aus or 'none'}. Encoder: {page.text(', '.join(backbones))}"
        if not any("/" in name for name in backbones):  # neither from a hub nor from a folder
            text += ", from random weights: nothing here speaks of an encoder with pretrained weights"
        return page.markdown(f"{text}.")

    def footer(self) -> "Markdown":
        """Provenance of the runs used."""
        facts = self.provenance
        if not facts:
            return page.markdown("")
        revisions = [
            f"{page.text(entry['revision'])}{' (modified)' if entry['modified'] else ''} "
            f"({page.count(entry['runs'], 'run')})"
            for entry in facts["revisions"]
        ]
        hardware = [
            f"{page.text(entry['hardware'])}, {page.text(entry['device'])}, "
            f"{page.count(entry['threads'], 'thread')} a run ({page.count(entry['runs'], 'run')})"
            for entry in facts["hardware"]
        ]
        mixed = [name for name, values in (("revisions", revisions), ("hardware", hardware)) if len(values) > 1]
        versions = ", ".join(
            f"{page.text(name)} {page.text(' / '.join(values))}" for name, values in facts["versions"].items()
        )
        rows = [
            ["Code revision", "; ".join(revisions) or "none"],
            ["Study file", f"{page.text(facts['study_file'])}, hash {page.text(facts['study_hash'])}"],
            ["Runs", ", ".join(f"{count} {status}" for status, count in facts["runs"].items() if count)],
            ["Hardware", "; ".join(hardware) or "none"],
            ["Versions", versions or "none"],
            ["Work of all runs", duration(facts["duration_s"])],
            ["First start, last end", f"{page.text(facts['started'])} to {page.text(facts['finished'])}"],
            ["Rebuild", f"`{facts['rebuild']}`"],
            [
                "Data",
                "runs.parquet, counts.parquet, auc.parquet, history.parquet; each figure has a CSV file beside it. "
                "The AUC of an AU is the sum of concordant over the sum of pairs, in rows with head probe, epoch_rule "
                "last and labels clean; its mean over the AUs that count is the score of a replicate",
            ],
        ]
        said = f"**Mixed {' and '.join(mixed)}**: the runs below were not all made alike.\n\n" if mixed else ""
        return page.markdown(said + page.table(["What", "Value"], rows, "ll"))


def _and(kinds: "pd.Series[str]") -> str:
    """What stands below the arms of the headline figure."""
    return "ceiling and floors" if (kinds == "ceiling").any() else "floors"


def in_text(estimate: Estimate, form: str = ".3f") -> str:
    """A value with its interval, for a sentence."""
    if math.isnan(estimate.value):
        return "not defined"
    if not estimate.defined:
        return f"{page.number(estimate.value, form)} (interval not defined)"
    return (
        f"{page.number(estimate.value, form)} ({page.number(estimate.low, form)} to {page.number(estimate.high, form)})"
    )


def in_cells(estimate: Estimate, form: str = ".3f") -> list[str]:
    """Value and interval for two columns of a table."""
    if not estimate.defined:
        return [page.number(estimate.value, form), "not defined"]
    return [
        page.number(estimate.value, form),
        f"{page.number(estimate.low, form)} to {page.number(estimate.high, form)}",
    ]
