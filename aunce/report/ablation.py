"""What reports of ablations show beside contrasts: rarity, kappa, length, flips of the ranking, own views, identity."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from aunce.data.render.writing import OFTEN, RARE
from aunce.errors import UsageError
from aunce.report import page
from aunce.report.collect import PRIMARY, THRESHOLD
from aunce.report.decide import FEWEST, NOTHING, Comparison, Contrast, estimated, lines, rises
from aunce.report.sections import in_cells, in_text
from aunce.report.verification import changed
from aunce.statistics import Estimate, share_interval, t_interval
from aunce.study.grid import without_size

if TYPE_CHECKING:
    from IPython.display import Markdown


class Change(NamedTuple):
    """Something that is done in another way: macro scores (replicates, arms) as usual and as changed."""

    group: str
    name: str
    usual: pd.DataFrame
    changed: pd.DataFrame


class Ablation(Comparison):
    """Sections of the ablation reports.

    Args:
        tables: see `Comparison`, as are the other options.
        ranked: arms in whose order the study is interested, see `flips`.
        retrained: words for a change of training -> what the names of the arms trained so end in, after a comma; an arm
            without such a variant stays as it is.
        shorter: name of the study of which this one is a longer training; its tables, in the same size, lie beside
            these. The contrasts of its claims are compared, see `by_length`.

    Raises:
        UsageError: the tables of the shorter study are not those that were collected.
    """

    def __init__(
        self,
        tables: str | Path,
        *,
        ranked: Sequence[str] = (),
        retrained: Mapping[str, str] | None = None,
        shorter: str = "",
        **options: Any,
    ) -> None:
        self.ranked, self.retrained = list(ranked), dict(retrained or {})
        super().__init__(tables, **options)
        self.shorter: Comparison | None = None
        if shorter:
            size = self.folder.name.removeprefix(without_size(self.folder.name))
            beside = self.folder.with_name(shorter + size)
            known = beside / "provenance.json"
            collected = json.loads(known.read_text(encoding="utf-8"))["files"] if known.is_file() else {}
            if wrong := changed(beside, collected):
                raise UsageError(
                    f"tables in {beside}, with which this study is compared, are not what was collected "
                    f"({'; '.join(wrong)}); restore them, or collect them again"
                )
            self.shorter = Comparison(beside)

    def _sentences(self) -> list[str]:
        if self.shorter is not None:
            return [*self._over_lengths(self.shorter), *super()._sentences()]
        if not self.ranked or self.empty:
            return super()._sentences()
        *changes, between = self._flips.itertuples()
        shares, widest = [change.estimate for change in changes], max(change.high for change in changes)
        return [
            f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of the pairs of {', '.join(self.ranked)} change "
            f"places by one of {len(changes)} other ways of scoring or training (the widest interval ends at "
            f"{100 * widest:.0f} %), and {100 * between.estimate:.0f} % (up to {100 * between.high:.0f} %) between "
            "replicates.",
            *super()._sentences(),
        ]

    def rarity(self, *pairs: tuple[str, str]) -> "Markdown":
        """Gain of one arm over another, AU by AU, against prevalence, with the mean line of each pair."""
        from aunce.report import figures

        if self.empty:
            return page.markdown(NOTHING)
        contrasts = [Contrast(*pair, "rarity") for pair in pairs]
        names = [f"{one.better} minus {one.worse}" for one in contrasts]
        points = [
            gains.assign(contrast=name, enters=self._enters(gains))
            for gains, name in zip(map(self.gains, contrasts), names, strict=True)
        ]
        means = [
            {"contrast": name, "prevalence": at, "gain": float(np.mean([line(at) for line in lines(table).values()]))}
            for name, table in zip(names, points, strict=True)
            for at in np.geomspace(RARE, OFTEN, 20).tolist()
        ]
        table = pd.concat(points, ignore_index=True)
        spoken = [f"{one}: {in_text(t_interval(self.sample(one).tolist()), '+.3f')}" for one in contrasts]
        strict = [gains[gains["enters"]] for gains in points]
        slopes = [
            f"{name} {in_text(t_interval(rises(gains).tolist()), '+.3f')}"
            for name, gains in zip(names, strict, strict=True)
        ]
        return page.figure(
            self.out,
            "rarity",
            figures.gains(table, pd.DataFrame(means)),
            table,
            alt=f"Gain in AUC of each AU against its prevalence. {'; '.join(spoken)}.",
            caption=(
                "One dot is one AU in one replicate: how rare it was, and how much more AUC the first arm has than the "
                f"second. Lines are means over replicates of the lines of least squares from {RARE:.0%} to {OFTEN:.0%}."
                f" An AU has a dot from {FEWEST} positive test frames on, of however many people: {len(points[0])} "
                f"dots, pale for AUs too rare for the means. With the {len(strict[0])} alone that enter the means, the "
                f"lines are higher at {RARE:.0%} than at {OFTEN:.0%} by (looked at after the runs, decides nothing): "
                f"{'; '.join(slopes)}."
            ),
        )

    def against_kappa(self, better: str, worse: str) -> "Markdown":
        """Every arm at every noise, and what `better` gains on `worse` beyond what it gains without, by kappa.

        One row per noise, the least kappa at the bottom. The caption has the rise of a line of least squares through
        the gains of a replicate, which is 0 at a kappa of 1 by definition, per 0.1 of kappa that is lost.
        """
        from aunce.report import figures

        if self.empty:
            return page.markdown(NOTHING)
        ended = self.runs[(self.runs["status"] == "done") & self.runs["noise"].isin(self.labels)]
        kappa = pd.Series(
            {
                place: float(np.mean(self._kappas(rows) or [np.nan]))
                for place, rows in ended.groupby(["noise", "replicate"])
            }
        )
        rows, gains = [], {}
        for noise in self.labels:
            samples = {arm: self.scores(arm, self.score, noise=noise) for arm in self.arms}
            if noise != self.first:
                gains[noise] = samples["gain"] = self.sample(Contrast(better, worse, "noise", noise))
            for name, sample in samples.items():
                if len(sample):
                    at = {"noise": self.labels[noise], "kappa": float(kappa[noise].mean())}
                    rows.append({"measure": name} | at | estimated(sample))
        if not any(map(len, gains.values())):  # as long as no replicate has ended with noise and without
            return page.markdown(NOTHING)
        # without noise first, then from the noise that changes least on
        table = pd.DataFrame(rows).sort_values("kappa", ascending=False, kind="stable").reset_index(drop=True)
        lost = {noise: 1 - kappa[noise].reindex(gain.index) for noise, gain in gains.items()}
        over = pd.concat([gains[noise] * lost[noise] for noise in gains]).groupby(level=0).sum()
        rise = 0.1 * over / pd.concat([one**2 for one in lost.values()]).groupby(level=0).sum()
        spoken = [
            f"{row.noise} {row.estimate:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
            for row in table[table["measure"] == "gain"].itertuples()
        ]
        return page.figure(
            self.out,
            "against_kappa",
            figures.against_kappa(table, gain=f"{better} minus {worse}", delta=self.delta),
            table,
            alt=(
                f"Macro-AUC of each arm at each noise, and {better} minus {worse} at it more than without noise: "
                f"{'; '.join(spoken)}."
            ),
            caption=(
                f"Left: macro-AUC of each arm. Right: how much more {better} has than {worse}, beyond what it has "
                "without noise; the band counts as nothing. Means over "
                f"{page.count(len(self.conditions), 'replicate')} with 95 % intervals, each by itself: those that "
                "decide the claim stand under Verdicts. For each 0.1 of κ that noise takes, whatever its kind, the "
                f"right side rises by {in_text(t_interval(rise.dropna().tolist()), '+.4f')} (a line of least squares "
                "in each replicate; it decides nothing)."
            ),
        )

    def by_length(self) -> "Markdown":
        """Contrasts and arms at the end of this training and of the shorter one, in the replicates that both have."""
        from aunce.report import figures

        if self.shorter is None or self.empty or self.shorter.empty:
            return page.markdown(NOTHING)
        short, long = (f"{int(one.history['epoch'].max())} epochs" for one in (self.shorter, self))
        if not (samples := self._by_length(self.shorter)):
            return page.markdown(NOTHING)
        many = page.count(min(len(one) for one, _ in samples.values()), "replicate")
        table = pd.DataFrame(
            {"contrast": str(contrast), "condition": "all" if level == "change" else "epochs", "level": level}
            | estimated(sample)
            for contrast, pair in samples.items()
            for level, sample in zip((short, long, "change"), (*pair, pair[1] - pair[0]), strict=True)
        )
        spoken = [
            f"{row.contrast} {row.estimate:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
            for row in table[table["level"] == "change"].itertuples()
        ]
        drawn = page.figure(
            self.out,
            "by_length",
            figures.conditions(table, delta=self.delta),
            table,
            alt=f"Each contrast after {short} and after {long}; what it changes by: {'; '.join(spoken)}.",
            caption=(
                f"Each contrast in macro-AUC at the end of a training of {short} and of one of {long}, each with its "
                f"own decay of the learning rate, on the same people and labels; in black, what it changes by. Means "
                f"over {many} with 95 % intervals, each by itself; they decide nothing. The band counts as nothing."
            ),
        )
        rows, curves = [], self._both_curves(self.shorter)
        for noise, label in self.labels.items():
            for arm in self.arms:
                one, other = self.shorter.scores(arm, noise=noise), self.scores(arm, noise=noise)
                shared = one.index.intersection(other.index)
                flat = curves[(curves["arm"] == arm) & (curves["noise"] == noise)]
                rows.append(
                    [
                        page.text(label),
                        page.text(arm),
                        *(page.number(float(values[shared].mean())) for values in (one, other)),
                        *in_cells(t_interval((other[shared] - one[shared]).tolist()), "+.3f"),
                        *(f"{flat[name].sum()} of {len(flat)}" for name in ("there", "here")),
                    ]
                )
        headers = [self.condition, "Arm", f"AUC, {short}", f"AUC, {long}", "Change", "95 % interval"]
        headers += [f"Curves flat, {short}", f"Curves flat, {long}"]
        return page.markdown(f"{drawn.data}\n\n{page.table(headers, rows, 'llrrrlrr')}")

    def _by_length(self, shorter: Comparison) -> dict[Contrast, tuple["pd.Series[float]", "pd.Series[float]"]]:
        """The arms of the shorter study's claims, without noise, and its claims' contrasts: samples there and here."""
        asked = list(shorter.samples)
        plain = dict.fromkeys(Contrast(one.better, one.worse) for one in asked)
        pairs = {}
        for contrast in [*plain, *asked]:
            there, here = shorter.sample(contrast), self.sample(contrast)
            shared = there.index.intersection(here.index)
            if len(shared):
                pairs[contrast] = there[shared], here[shared]
        return pairs

    def _over_lengths(self, shorter: Comparison) -> list[str]:
        """What changes from the shorter training to this one."""
        if self.empty or shorter.empty:
            return []
        short, long = (int(one.history["epoch"].max()) for one in (shorter, self))
        said = [
            f"{contrast}: {in_text(t_interval(there.tolist()), '+.3f')} AUC after {short} epochs, "
            f"{in_text(t_interval(here.tolist()), '+.3f')} after {long}, changed by "
            f"{in_text(t_interval((here - there).tolist()), '+.3f')}, {page.count(len(here), 'replicate')}."
            for contrast, (there, here) in self._by_length(shorter).items()
        ]
        curves = self._both_curves(shorter)
        flat = (
            f"Of {page.count(len(curves), 'curve')}, {curves['there'].sum()} are flat after {short} epochs and "
            f"{curves['here'].sum()} after {long}."
        )
        return [flat, *said]

    def _both_curves(self, shorter: Comparison) -> pd.DataFrame:
        """Arm, noise and replicate of the runs that both studies have, and whether the curve is flat there and here."""
        place = ["arm", "noise", "replicate"]
        there, here = (
            one._curves()[place].assign(**{name: one._curves()["flat"].astype("str") == "True"})
            for name, one in (("there", shorter), ("here", self))
        )
        return there.merge(here, on=place)

    def own_views(self) -> "Markdown":
        """Share of anchors whose most similar positive is their own view, over training, and where it ends."""
        from aunce.report import figures

        if self.empty or "own_view" not in self.history:
            return page.markdown(NOTHING)
        table = self.history.dropna(subset="own_view")[["key", "arm", "replicate", "epoch", "own_view"]]
        means = table.groupby(["arm", "epoch"], sort=False)["own_view"].mean().rename("value").reset_index()
        last = table.sort_values("epoch").groupby(["arm", "replicate"], sort=False)["own_view"].last()
        ends = {arm: t_interval(last[arm].tolist()) for arm in self.arms if arm in last.index}
        drawn = page.figure(
            self.out,
            "own_views",
            figures.shares(means, label="Share of anchors"),
            table,
            alt="Share of anchors whose nearest positive is their own view, against epoch; at the end of training: "
            + "; ".join(f"{arm} {end.value:.2f}" for arm, end in ends.items()),
            caption=(
                "Share of anchors whose most similar positive, themselves excluded, is their own other view: means "
                "over replicates, on the last batch of the epochs that were checked."
            ),
        )
        rows = [[page.text(arm), *in_cells(end, ".2f"), str(end.n)] for arm, end in ends.items()]
        headers = ["Arm", "Share at the end", "95 % interval", "Replicates"]
        return page.markdown(f"{drawn.data}\n\n{page.table(headers, rows, 'lrrr')}")

    def identity(self) -> "Markdown":
        """How well the subject is read from the frozen features of the test, per arm."""
        if self.empty:
            return page.markdown(NOTHING)
        found = [
            {"arm": str(run.arm), "replicate": int(run.replicate), "read": identity}
            for run in self.runs[self.runs["status"] == "done"].itertuples()
            if (identity := json.loads(str(run.data)).get("identity")) is not None
        ]
        table = pd.DataFrame(found, columns=["arm", "replicate", "read"]).groupby(["arm", "replicate"])["read"].mean()
        rows = [
            [page.text(arm), *in_cells(t_interval(table[arm].tolist()), ".2f"), str(len(table[arm]))]
            for arm in [*self.arms, *self.others]
            if arm in table.index
        ]
        return page.markdown(page.table(["Arm", "Subject read", "95 % interval", "Replicates"], rows, "lrrr"))

    @cached_property
    def _flips(self) -> pd.DataFrame:
        """Share of the ranked pairs that change places by each change, the last row by taking another replicate."""
        rows = []
        for change in [*self._scorings(), *self._trainings()]:
            shares = _flipped(change.usual, change.changed)
            if len(shares):  # a head, say, that these runs do not have
                rows.append(_flip_row(change.group, change.name, share_interval(float(shares.mean()), len(shares))))
        usual = self._each(self.ranked)
        others = [_flipped(usual, pd.DataFrame([usual.loc[other]] * len(usual), usual.index)) for other in usual.index]
        # a replicate beside itself does not flip, and is no other replicate
        chance = float(np.mean(others)) * len(usual) / max(len(usual) - 1, 1)
        # Pairs of replicates share replicates: independent are half as many as there are of these (Hoeffding 1963).
        between = share_interval(chance, max(len(usual) // 2, 1))
        return pd.DataFrame([*rows, _flip_row("everything anew", "another replicate", between)])

    def flips(self) -> "Markdown":
        """How often two ranked arms change places when something is done in another way: all on one scale."""
        from aunce.report import figures

        if self.empty:
            return page.markdown(NOTHING)
        table, arms, usual = self._flips, self.ranked, self._each(self.ranked)
        spoken = [f"{row.change} {100 * row.estimate:.0f} %" for row in table.itertuples()]
        return page.figure(
            self.out,
            "flips",
            figures.flips(table),
            table,
            alt=f"Share of pairs of arms that change places: {'; '.join(spoken)}.",
            caption=(
                f"Share of the {page.count(len(arms) * (len(arms) - 1) // 2, 'pair')} of {', '.join(arms)} that change "
                f"places, mean over {page.count(len(usual), 'replicate')} with its 95 % interval. The last row is how "
                "often two replicates disagree in which nothing but people, labels and seeds differs. Intervals are "
                "those of Clopper and Pearson with a replicate, in the last row two, as one toss of a coin: too wide "
                "rather than too narrow, and no narrower where no pair changed places."
            ),
        )

    def _each(self, arms: Sequence[str], score: str = "auc", **reading: str) -> pd.DataFrame:
        """Macro scores (replicates, arms) in the usual condition."""
        return pd.DataFrame({arm: self.scores(arm, score, **reading) for arm in arms}).dropna()

    def _scorings(self) -> Iterator[Change]:
        """The same runs scored in another way."""
        arms = self.ranked
        usual, f1 = self._each(arms), self._each(arms, "f1")
        for name, reading in (
            ("epoch: best on inner validation", {"epoch_rule": "inner_val"}),
            ("epoch: best on the test", {"epoch_rule": "oracle"}),
            ("labels of the test: noisy", {"labels": "noisy"}),
            ("head: kNN", {"head": "knn"}),
            ("head: probe in training mode", {"head": "moving"}),
        ):
            yield Change("scored otherwise", name, usual, self._each(arms, **reading))
        yield Change("scored otherwise", "F1 instead of AUC", usual, f1)
        yield Change("scored otherwise", "F1: threshold 0.5", f1, self._each(arms, "f1", threshold="0.5"))
        yield Change(
            "scored otherwise", "F1: best threshold on the test", f1, self._each(arms, "f1", threshold="oracle")
        )
        if self.crossed:
            pooled, mean = (pd.DataFrame({arm: self._over_deals(arm, by) for arm in arms}) for by in ([], ["part"]))
            yield Change("scored otherwise", "F1: mean of parts, not pooled", pooled, mean)

    def _trainings(self) -> Iterator[Change]:
        """Other runs: other subjects held out, or trained in another way."""
        arms = self.ranked
        usual = self._each(arms)
        for name, ending in self.retrained.items():
            variants = [one if (one := f"{arm}, {ending}") in self.arms else arm for arm in arms]
            yield Change("trained otherwise", name, usual, self._each(variants).set_axis(arms, axis=1))
        for noise in (noise for noise in self.labels if noise != self.first):
            dealt = pd.DataFrame({arm: self.scores(arm, noise=noise) for arm in arms}).dropna()
            yield Change("trained otherwise", f"subjects dealt anew ({noise.rpartition(', deal ')[2]})", usual, dealt)

    def averages(self) -> "Markdown":
        """Macro-F1 of the ranked arms over all parts that were held out: pooled, and as the mean of parts."""
        if self.empty:
            return page.markdown(NOTHING)
        rows = []
        for arm in self.ranked:
            pooled, mean = self._over_deals(arm, []), self._over_deals(arm, ["part"])
            apart = in_cells(t_interval((mean - pooled).tolist()), "+.4f")
            rows.append([page.text(arm), page.number(pooled.mean()), page.number(mean.mean()), *apart, str(len(mean))])
        headers = [
            "Arm",
            "F1 pooled over parts",
            "F1 mean of parts",
            "Mean minus pooled",
            "95 % interval",
            "Replicates",
        ]
        return page.markdown(page.table(headers, rows, "lrrrlr"))

    def _over_deals(self, arm: str, by: list[str]) -> "pd.Series[float]":
        """Macro-F1 by replicate over all parts that were held out: counts pooled, or the mean over `by`."""
        from aunce import evaluation

        counts = self.counts[(self.counts[list(PRIMARY)] == pd.Series(PRIMARY)).all(axis=1)]
        counts = counts[(counts["arm"] == arm) & (counts["threshold"] == THRESHOLD) & self._enters(counts)]
        return evaluation.f1(counts, ["replicate", *by, "au"]).groupby("replicate").mean()


def _flipped(usual: pd.DataFrame, changed: pd.DataFrame) -> "pd.Series[float]":
    """Per replicate that both have, the share of pairs of columns whose order is another one."""
    shared = usual.index.intersection(changed.index)
    pairs = list(itertools.combinations(usual.columns, 2))
    turned = [
        np.sign(usual.loc[shared, one] - usual.loc[shared, other])
        != np.sign(changed.loc[shared, one] - changed.loc[shared, other])
        for one, other in pairs
    ]
    return pd.concat(turned, axis=1).mean(axis=1)


def _flip_row(group: str, name: str, share: Estimate) -> dict[str, object]:
    return {"group": group, "change": name, "estimate": share.value, "low": share.low, "high": share.high, "n": share.n}
