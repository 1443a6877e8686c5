"""What every report of a study shows, section by section, as Markdown; `scores.Scores` computes the numbers."""

import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import pandas as pd

from aunce import evaluation, literature
from aunce.data.noise import is_noise
from aunce.errors import UsageError
from aunce.report import figures, findings, page
from aunce.report.collect import THRESHOLD, is_primary, renamed
from aunce.report.findings import Findings
from aunce.report.scores import Scores, estimate_of
from aunce.report.style import Figure
from aunce.statistics import Estimate
from aunce.study.grid import duration

if TYPE_CHECKING:
    from IPython.display import Markdown

P = ParamSpec("P")
R = TypeVar("R", bound="Report")
Column = tuple[str, str, dict[str, str]]
"""Heading of a column, its score, and how its reading differs from the primary one."""

SMALL = (
    "small",
    "patch",
    "resnet-18",
)  # bundled backbones of the laptop and of the GPU size of studies, with random weights
SCORES = {"auc": "Macro-AUC", "f1": "Macro-F1"}
NO_RUN = "No run has finished yet."


def shown_unless(
    nothing: Callable[[Any], str],
) -> Callable[[Callable[Concatenate[R, P], str]], Callable[Concatenate[R, P], "Markdown"]]:
    """Decorator of a section: what it returns is shown as Markdown, or why there is nothing to show.

    Args:
        nothing: says of a report why it has nothing to show; empty if it has.
    """

    def decorate(section: Callable[Concatenate[R, P], str]) -> Callable[Concatenate[R, P], "Markdown"]:
        @functools.wraps(section)
        def shown(report: R, /, *args: P.args, **kwargs: P.kwargs) -> "Markdown":
            return page.markdown(nothing(report) or section(report, *args, **kwargs))

        return shown

    return decorate


always = shown_unless(lambda report: "")
with_runs = shown_unless(lambda report: "" if report.done else NO_RUN)
with_scores = shown_unless(lambda report: report.why_empty)


class Report(Scores):
    """What a report notebook shows, section by section, from the tables of one study.

    Args:
        tables: folder that `collect` has filled; one that is not there gives a report that says so.
        out: folder that gets `figures/<name>.svg` with `<name>.csv` beside it, and `findings.json`; empty: figures are
            displayed, nothing is saved.
        tuning: the runs are trials of settings, so that no test score of theirs is found.
    """

    def __init__(self, tables: str | Path, *, out: str | Path = "", tuning: bool = False, **options: Any) -> None:
        self.out = Path(out) if str(out) else None
        self.tuning = tuning
        super().__init__(tables, **options)  # a subclass may compute more than `Scores`

    @property
    def why_empty(self) -> str:
        """Why there is no macro score; empty if there is one."""
        if not self.done:
            return NO_RUN
        if len(self.macro):
            return ""
        if self.scored_aus:
            return "No replicate has finished in every arm yet."
        return "No AU has enough positive test frames (10 in each of 5 people) in every run: there is no macro score."

    def _figure(self, name: str, drawn: Figure, data: pd.DataFrame, *, alt: str, caption: str) -> str:
        return str(page.figure(self.out, name, drawn, data, alt=alt, caption=caption).data)

    @always
    def title(self) -> str:
        """The study's title, marked if runs are not finished; writes what the index shows of the report."""
        if not self.provenance:
            folder = page.code(self.folder.name)
            return f"# No runs yet\n\nThere are no tables in {folder}: `aunce study` makes them."
        findings.write(self.out, self.summary())
        states = self.provenance["runs"]
        total = sum(states.values())
        text = f"# {page.text(self.provenance['title'])}"
        if states["done"] < total:
            text += f"\n\n**PARTIAL: {states['done']} of {total} runs finished.** What is missing is listed below."
        return text

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
            curves=len(self.curves),
            unflat=int((self.curves["flat"] == "False").sum()),
        )

    def _found(self) -> str:
        """The findings as plain text."""
        if self.done and self.tuning:
            trials = page.count(self.curves["arm"].nunique(), "trial")
            return (
                f"{trials} at {page.count(len(self.labels), 'noise level')}. "
                "AUC on inner validation chose among them: settings for other studies, and no result about any arm."
            )
        return self.why_empty or " ".join(self._sentences())

    def _asked(self) -> str:
        """The question of the study, and the note of its file if there is one."""
        note = self.provenance.get("note", "")
        noted = f"**Note.** {page.text(note)}\n\n" if note else ""
        return f"**Asked.** {page.text(self.provenance['question'])}\n\n{noted}**Found.**"

    @always
    def findings(self) -> str:
        """What was asked, and what was found in numbers with intervals."""
        if not self.provenance:
            return ""
        text = f"{self._asked()} "
        if not self.done:
            return f"{text}{NO_RUN.rstrip('.')}: {page.code(self.provenance['rebuild'])} goes on."
        if self.why_empty:
            return text + self.why_empty
        listed = "\n".join(f"- {page.text(sentence)}" for sentence in self._sentences())
        return f"{text.strip()}\n\n{listed}\n\n{self._not_flat()}"

    def _sentences(self) -> list[str]:
        return [self._sentence(noise) for noise in self.labels if noise in set(self.macro["noise"])]

    def _sentence(self, noise: str) -> str:
        reference = self.reference or self.methods[0]
        estimate = self.interval(reference, noise, "auc")
        kind = "label noise " if is_noise(noise) else ""  # else an axis of a study without noise
        text = f"With {kind}{self.labels[noise]}, {reference} reached macro-AUC {in_text(estimate)}"
        pairs = [(method, pair[0]) for method in self.methods if (pair := self.difference(method, noise, "auc"))]
        if pairs:
            text += "; differences to it: " + ", ".join(f"{method} {in_text(pair, '+.3f')}" for method, pair in pairs)
        unit = page.count(estimate.n, "replicate" if self.synthetic else "seed")
        condition = f", {estimate.condition}" if estimate.condition else ""
        return f"{text} (mean over {unit}, 95 % interval{condition})."

    def _not_flat(self) -> str:
        """Of which methods the learning curves had not flattened."""
        curves = self.curves
        unfinished = curves[curves["flat"] == "False"]
        if not len(curves):
            return "No curve of an arm is there yet."
        if not len(unfinished):
            return "All inner-validation curves had flattened."
        if len(unfinished) == len(curves):
            return f"None of the {len(curves)} inner-validation curves had flattened."
        shares = [
            f"{page.text(method)} ({sum(unfinished['arm'] == method)} of {len(rows)} runs)"
            for method, rows in curves.groupby("arm", sort=False)
            if method in set(unfinished["arm"])
        ]
        return f"Inner-validation curves had not flattened for {', '.join(shares)}."

    @with_runs
    def banner(self) -> str:
        """Whether the faces were rendered; decided by what the runs recorded."""
        rendered, total = len(self.synthetic), len(self.facts)
        if not rendered:
            names = {
                f"AU{au} is {name}": None for fact in self.facts.values() for au, name in fact.get("labels", {}).items()
            }
            said = f" {page.text('; '.join(names))}." if names else ""
            return (
                "Faces: " + ", ".join(sorted({page.text(fact["dataset"]) for fact in self.facts.values()})) + "." + said
            )
        generators = sorted({str(entry.get("faces", "drawn")) for entry in self.synthetic})
        kinds = "" if generators == ["drawn"] else f"{page.text(' and '.join(generators))} faces, "
        settings = sorted({str(entry.get("setting", "?")) for entry in self.synthetic})
        versions = sorted({str(entry.get("version", "?")) for entry in self.synthetic})
        share = "every run" if rendered == total else f"{rendered} of {total} runs"
        text = (
            "**Rendered faces: no person and no licensed image is in this report.** "
            f"The images of {share} were drawn by this project's renderer "
            f"({kinds}version {page.text(', '.join(versions))}, setting {page.text(', '.join(settings))}). "
            "These numbers say nothing about the same method on recorded faces."
        )
        if all(json.loads(spec)["backbone"] in SMALL for spec in self.runs["spec"]):
            text += (
                " Encoders are small and start from random weights or a pretext on these faces: what is concluded from "
                "them says nothing of a fine-tuned Swin-B, as the paper has it."
            )
        return f"> {text}"

    @with_scores
    def headline(self) -> str:
        """Methods, floors and ceiling by condition."""
        macro = self.macro
        table = macro[is_primary(macro) & macro["threshold"].isin(["", THRESHOLD]) & macro["score"].isin(SCORES)]
        order = {method: index for index, method in enumerate([*self.methods, *self.bounds])}
        blind = self.blind()
        table = pd.concat([table.sort_values("arm", key=lambda names: names.map(order), kind="stable"), blind])
        table = table[["arm", "kind", "noise", "score", "replicate", "value"]].reset_index(drop=True)
        without_runs = set(blind["arm"])
        estimates = {
            place: estimate_of(values) if place[0] in without_runs else self.interval(*place)
            for place, values in table.groupby(["arm", "noise", "score"])["value"]
        }
        for name, attribute in (("estimate", "value"), ("low", "low"), ("high", "high")):
            places = zip(table["arm"], table["noise"], table["score"], strict=True)
            table[name] = [getattr(estimates[place], attribute) for place in places]
        table["noise"] = table["noise"].map(self.labels | {"any": "any"})
        table["score"] = table["score"].map(SCORES)
        table = table.sort_values("score", kind="stable")
        spoken = [
            f"{method} {estimates[method, noise, 'auc'].value:.3f} {self.at}{self.labels[noise]}"
            for method in self.methods
            for noise in self.labels
            if (method, noise, "auc") in estimates
        ]
        below = "ceiling and floors" if (table["kind"] == "ceiling").any() else "floors"
        return self._figure(
            "headline",
            figures.headline(table),
            table,
            alt=f"Macro-AUC and macro-F1 of each arm, ceiling and floor. Macro-AUC: {'; '.join(spoken)}.",
            caption=(
                f"Small dots are replicates, large marks their mean, lines 95 % intervals over {self.unit}; "
                f"an arrow means that the interval goes on. Below the gap: {below}. The dashed line is chance."
            ),
        )

    @with_scores
    def scores_table(self, score: str, *, verdict: str) -> str:
        """One table per condition: methods with their difference to the reference, then ceiling and floors.

        Args:
            score: "auc" or "f1".
            verdict: what the verdict column says of each method.
        """
        reference = f"minus {page.text(self.reference or 'reference')}"
        headers = ["Arm", SCORES[score], "95 % interval", reference, "95 % interval", "p", "Replicates", "Verdict"]
        texts = []
        for noise, label in self.labels.items():
            rows = []
            for method, kind in self.methods_in(noise):
                estimate = self.interval(method, noise, score)
                difference = ["", "", ""]
                if pair := self.difference(method, noise, score):
                    difference = [*in_cells(pair[0], "+.3f"), "" if math.isnan(pair[1]) else f"{pair[1]:.2f}"]
                role = "" if kind == "arm" else f" ({kind})"
                cells = [*in_cells(estimate), *difference, str(estimate.n), verdict if pair else ""]
                rows.append([page.text(method) + role, *cells])
            for name, values in self.blind(score, noise).groupby("arm", sort=False)["value"]:
                shown = ["0.500", "by definition"] if score == "auc" else in_cells(estimate_of(values))
                rows.append([f"{name} (floor)", *shown, "", "", "", str(len(values)), ""])
            texts.append(f"**{self.condition} {page.text(label)}**\n\n{page.table(headers, rows, 'lrrrrrrl')}")
        return "\n\n".join(texts)

    @with_scores
    def behind(self) -> str:
        """What stands behind the scores: runs, whether their curves have flattened, inner validation."""
        headers = [self.condition, "Arm", "Runs finished", "Curves flat", "Inner-validation macro-F1"]
        checks = self.history["key"].value_counts() if len(self.history) else pd.Series(dtype=int)
        curves = set(checks.index[checks > 1])
        rows = []
        for noise, label in self.labels.items():
            for method, _ in self.methods_in(noise):
                runs = self.runs[(self.runs["arm"] == method) & (self.runs["noise"] == noise)]
                done = runs[runs["status"] == "done"]
                trained = done[done["key"].isin(curves)]
                flat = flat_of(trained["flat"].astype("str")) if len(trained) else "no curve"
                f1 = page.number(done["val_f1"].mean()) if done["val_f1"].notna().any() else ""
                rows.append([page.text(label), page.text(method), f"{len(done)} of {len(runs)}", flat, f1])
        return page.table(headers, rows, "llrrr")

    @with_scores
    def learning_curves(self) -> str:
        """Inner-validation AUC against epoch."""
        if not len(self.history):
            return "No run has recorded a curve."
        flat = self.runs.set_index("key")["flat"].astype("str") == "True"
        table = self.history[self.history["kind"] == "arm"][["key", "arm", "noise", "replicate", "epoch", "val_auc"]]
        table = table.assign(noise=table["noise"].map(self.labels), flat=table["key"].map(flat))
        means = table.groupby(["noise", "arm", "epoch"], sort=False)["val_auc"].mean()
        last = means.sort_index(level="epoch", sort_remaining=False).groupby(level=["noise", "arm"], sort=False).last()
        ends = [f"{method} {value:.3f} {self.at}{noise}" for (noise, method), value in last.items()]
        return self._figure(
            "learning_curves",
            figures.learning_curves(table),
            table,
            alt=f"Inner-validation AUC against epoch, one line per arm. Means at the last check: {'; '.join(ends)}.",
            caption=(
                "Inner-validation macro-AUC on noisy labels; thin lines are runs, thick lines their mean. "
                f"{self._not_flat()} One has if the best of the last third of its checks is less than "
                f"{evaluation.FLAT_GAIN:g} above the best before. An arm that has not flattened may look robust to "
                "noise only because it is undertrained."
            ),
        )

    @with_scores
    def per_au_forest(self) -> str:
        """AUC of each AU, method and condition."""
        table = self.primary_per_au
        table = table[(table["score"] == "auc") & (table["kind"] == "arm") & ~table["au"].isin(self.null_aus)]
        counts = self.positives()
        rows = []
        for (au, noise, method), part in table.groupby(["au", "noise", "arm"], sort=False):
            estimate = estimate_of(part["value"])
            rows.append(
                {"au": au, "arm": method, "noise": self.labels[noise], "value": estimate.value}
                | {"low": estimate.low, "high": estimate.high, "n": estimate.n, "enters": au in self.scored_aus}
                | counts.loc[au].to_dict()
            )
        result = pd.DataFrame(rows).sort_values("au", kind="stable")
        outside = [f"AU{au}" for au in pd.unique(result["au"]) if au not in self.scored_aus]
        grey = "Every AU enters the macro scores"
        if outside:
            grey = (
                f"Grey: {', '.join(outside)}, outside the macro scores, with the smallest number over replicates of "
                "positive test frames and of subjects with at least 10"
            )
        over = "replicates" if self.synthetic else "seeds"
        return self._figure(
            "per_au",
            figures.forest(result),
            result,
            alt=f"AUC of {result['au'].nunique()} AUs for each arm, one panel per condition. {grey}.",
            caption=f"AUC per AU on clean labels with 95 % intervals over {over}. {grey}.",
        )

    @with_scores
    def readings(self) -> str:
        """The same runs by other thresholds, epoch rules, labels and heads."""
        thresholds: list[Column] = [
            ("F1 at 0.5", "f1", {"threshold": "0.5"}),
            ("F1 tuned", "f1", {}),
            ("F1 oracle", "f1", {"threshold": "oracle"}),
            ("F1 tuned, noisy labels", "f1", {"labels": "noisy"}),
        ]
        epochs: list[Column] = [
            ("AUC last epoch", "auc", {}),
            ("AUC inner-val. epoch", "auc", {"epoch_rule": "inner_val"}),
            ("AUC oracle epoch", "auc", {"epoch_rule": "oracle"}),
            ("AUC noisy labels", "auc", {"labels": "noisy"}),
            ("AUC within subject", "auc_within", {}),
        ]
        heads: list[Column] = [
            (f"{name} {head} head", score, {"head": head})
            for score, name in (("auc", "AUC"), ("f1", "F1"))
            for head in ("own", "knn")
        ]
        tables = [
            ("Thresholds: macro-F1.", thresholds),
            ("Epochs and labels: macro-AUC.", epochs),
            ("Other heads than the frozen probe.", heads),
        ]
        return "\n\n".join(f"**{title}**\n\n{self._readings(columns)}" for title, columns in tables)

    def _readings(self, columns: Sequence[Column]) -> str:
        rows = []
        for noise, label in self.labels.items():
            for method in [*self.methods, *self.bounds]:
                cells = [mean_of(self.values(method, noise, score, **reading)) for _, score, reading in columns]
                if any(cells):
                    rows.append([page.text(label), page.text(method), *cells])
        return page.table([self.condition, "Arm", *(name for name, *_ in columns)], rows, "ll" + "r" * len(columns))

    @with_scores
    def leak(self) -> str:
        """AUC of the AU that is labelled but never drawn."""
        if not self.null_aus:
            return "These data hold no AU that is labelled but never drawn."
        table = self.primary_per_au
        table = table[(table["score"] == "auc") & table["au"].isin(self.null_aus)]
        rows = [
            [page.text(self.labels[noise]), page.text(method), in_text(estimate_of(part["value"] - 0.5), "+.3f")]
            for (noise, method), part in table.groupby(["noise", "arm"], sort=False)
        ]
        text = (
            f"AU{self.null_aus[0]} is labelled but never drawn: whatever its AUC has above 0.5 comes from "
            "co-occurrence and identity, not from the face's action."
        )
        return f"{text}\n\n" + page.table([self.condition, "Arm", "AUC minus 0.5 (95 % interval)"], rows, "llr")

    @with_scores
    def parts(self) -> str:
        """Macro-F1 as mean of parts and pooled over parts."""
        names = sorted(pd.unique(self.counts["part"]))
        if len(names) == 1:
            return f"One part was held out (part {page.text(names[0])}): mean of parts and pooled are the same number."
        mean = self.by_part()
        rows = [
            [
                page.text(label),
                page.text(method),
                page.number(mean[noise, method]),
                mean_of(self.values(method, noise, "f1")),
            ]
            for noise, label in self.labels.items()
            for method in self.methods
            if (noise, method) in mean.index
        ]
        text = "The literature averages F1 over parts; everything above pools the counts of all parts first."
        return f"{text}\n\n{page.table([self.condition, 'Arm', 'F1 mean of parts', 'F1 pooled'], rows, 'llrr')}"

    @with_runs
    def match(self, *, arm: str, setting: str) -> str:
        """F1 at 0.5 per AU of one method in one setting against AUNCE's fold logs, over the parts that both have."""
        counts = self.primary_counts
        counts = counts[(counts["arm"] == arm) & (counts["noise"] == f"setting {setting}")]
        counts = counts[counts["threshold"] == "0.5"]
        if not len(counts):
            return f"No run of {page.text(arm)} in the setting {page.text(setting)} has finished yet."
        (dataset,) = {fact["dataset"] for fact in self.facts.values()}
        try:
            logs = literature.fold_logs(dataset)
        except UsageError:
            return "AUNCE released no fold logs of this data set: whether anything matches is undecidable."
        f1 = 100 * evaluation.f1(counts, ["replicate", "part", "au"])
        own = f1.groupby(["part", "au"]).mean().rename("f1").reset_index().rename(columns={"part": "test_part"})
        own = own[own["au"].isin(logs["au"])]
        undefined = sorted(set(own.loc[own["f1"].isna(), "au"]))
        if undefined:
            names = ", ".join(f"AU{au}" for au in undefined)
            return f"F1 of {names} is not defined: too few positive frames to compare with the logs."
        table = literature.did_i_match(own, logs)
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
        return f"{said}\n\n{page.table(headers, rows, 'lrrrrl')}"

    @always
    def published(self) -> str:
        """Published macro-F1 on the data set, each with the mark of how far it may be trusted."""
        datasets = {fact["dataset"] for fact in self.facts.values()} if self.done else set()
        if self.done and any(json.loads(text).get("test_dataset") for text in self.runs["spec"]):
            return "Published scores are of training and testing on one data set: none compares with these."
        if len(datasets) != 1:
            return ""
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
        legend = literature.LEGEND.replace("*", "\\*")
        return f"{page.table(['Method', 'Year', 'Mean F1', 'Protocol', 'Read in'], rows, 'llrll')}\n\n{legend}"

    @always
    def unfinished(self) -> str:
        """Runs that have failed or are missing, and the replicates that go with them."""
        if not len(self.runs):
            return "There are no runs yet."
        rest = self.runs[self.runs["status"] != "done"]
        if not len(rest):
            return f"All {len(self.runs)} runs finished."
        rows = [[page.text(cell) for cell in (row.key, row.status, row.reason)] for row in rest.itertuples()]
        text = f"{len(self.runs) - len(rest)} of {len(self.runs)} runs finished."
        if self.done and self.dropped:
            named = "; ".join(f"replicate {replicate} {self.at}{page.text(noise)}" for noise, replicate in self.dropped)
            text += f" Left out for every arm, so that all are compared on the same replicates: {named}."
        return f"{text}\n\n{page.table(['Run', 'Status', 'Reason'], rows, 'lll')}"

    @with_scores
    def method(self) -> str:
        """The AUs that are scored, and the encoder."""
        backbones = sorted({json.loads(text)["backbone"] for text in self.runs["spec"]})
        aus = ", ".join(f"AU{au}" for au in self.scored_aus)
        text = f"AUs in the macro scores: {aus or 'none'}. Encoder: {page.text(', '.join(backbones))}"
        if not any("/" in name for name in backbones):  # neither from a hub nor from a folder
            text += ", from random weights: nothing here speaks of an encoder with pretrained weights"
        return f"{text}."

    @always
    def footer(self) -> str:
        """Provenance of the runs used."""
        facts = self.provenance
        if not facts:
            return ""
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
            ["Runs", ", ".join(f"{count} {page.text(status)}" for status, count in facts["runs"].items() if count)],
            ["Hardware", "; ".join(hardware) or "none"],
            ["Versions", versions or "none"],
            ["Work of all runs", duration(facts["duration_s"])],
            ["First start, last end", f"{page.text(facts['started'])} to {page.text(facts['finished'])}"],
            ["Rebuild", page.code(facts["rebuild"]) + self._at_revision()],
            [
                "Data",
                "runs.parquet, counts.parquet, auc.parquet, history.parquet; each figure has a CSV file beside it. "
                "The AUC of an AU is the sum of concordant over the sum of pairs, in rows with head probe, epoch_rule "
                "last and labels clean; its mean over the AUs that count is the score of a replicate",
            ],
        ]
        said = f"**Mixed {' and '.join(mixed)}**: the runs below were not all made alike.\n\n" if mixed else ""
        return said + page.table(["What", "Value"], rows, "ll")

    def _at_revision(self) -> str:
        """Where the runs have to be made again if they are to be these, number by number."""
        if not renamed(self.provenance):
            return ""
        revisions = " or ".join(page.code(entry["revision"]) for entry in self.provenance["revisions"])
        return f" at revision {revisions} gives these runs number by number; later revisions name them otherwise"


def mean_of(values: "pd.Series[float]") -> str:
    """Mean over replicates for a cell of a table; empty without any."""
    return page.number(float(values.mean())) if len(values) else ""


def flat_of(flat: "pd.Series[str]") -> str:
    """How many of some learning curves are flat, for a cell of a table."""
    return f"{(flat == 'True').sum()} of {len(flat)}"


def in_text(estimate: Estimate, form: str = ".3f") -> str:
    """A value with its interval, for a sentence."""
    if math.isnan(estimate.value):
        return "not defined"
    value, interval = in_cells(estimate, form)
    return f"{value} ({interval})" if estimate.defined else f"{value} (interval not defined)"


def in_cells(estimate: Estimate, form: str = ".3f") -> list[str]:
    """Value and interval for two columns of a table."""
    value, low, high = (page.number(one, form) for one in (estimate.value, estimate.low, estimate.high))
    return [value, f"{low} to {high}" if estimate.defined else "not defined"]
