"""What reports of ablations show beside verdicts: rarity, own views, identity; and the study beside this one."""

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from aunce.data.render.writing import OFTEN, RARE
from aunce.errors import UsageError
from aunce.report import figures, page
from aunce.report.claims_report import NOTHING, ClaimsReport, with_replicates
from aunce.report.decide import FEWEST, Comparison, Decisions, lines, rises
from aunce.report.scores import estimate_of
from aunce.report.sections import in_cells, in_text
from aunce.report.verification import changed
from aunce.statistics import Estimate
from aunce.study.grid import without_size


class Ablation(ClaimsReport):
    """Sections of the ablation reports; see `ClaimsReport` for the arguments."""

    def sibling(self, name: str) -> Decisions:
        """Another study, by its name, whose tables in the same size lie beside these.

        Raises:
            UsageError: its tables are not those that were collected.
        """
        size = self.folder.name.removeprefix(without_size(self.folder.name))
        beside = self.folder.with_name(name + size)
        known = beside / "provenance.json"
        collected = json.loads(known.read_text(encoding="utf-8"))["files"] if known.is_file() else {}
        if wrong := changed(beside, collected):
            raise UsageError(
                f"tables in {beside}, with which this study is compared, are not what was collected "
                f"({'; '.join(wrong)}); restore them, or collect them again"
            )
        return Decisions(beside)

    @with_replicates
    def rarity(self, *pairs: tuple[str, str]) -> str:
        """Gain of one method over another, AU by AU, against prevalence, with the mean line of each pair."""
        comparisons = [Comparison(*pair, "rarity") for pair in pairs]
        gains = {f"{one.better} minus {one.worse}": self.gains(one) for one in comparisons}
        table = pd.concat([own.assign(contrast=name, enters=self.is_scored(own)) for name, own in gains.items()])
        means = [
            {"contrast": name, "prevalence": at, "gain": float(np.mean([line(at) for line in lines(own).values()]))}
            for name, own in gains.items()
            for at in np.geomspace(RARE, OFTEN, 20).tolist()
        ]
        said = [f"{one}: {in_text(estimate_of(self.sample(one)), '+.3f')}" for one in comparisons]
        strict = {name: own[self.is_scored(own)] for name, own in gains.items()}
        slopes = [f"{name} {in_text(estimate_of(rises(own)), '+.3f')}" for name, own in strict.items()]
        dots, few = (len(next(iter(of.values()))) for of in (gains, strict))
        return self._figure(
            "rarity",
            figures.gains(table, pd.DataFrame(means)),
            table,
            alt=f"Gain in AUC of each AU against its prevalence. {'; '.join(said)}.",
            caption=(
                "One dot is one AU in one replicate: how rare it was, and how much more AUC the first arm has than the "
                f"second. Lines are means over replicates of the lines of least squares from {RARE:.0%} to {OFTEN:.0%}."
                f" An AU has a dot from {FEWEST} positive test frames on, of however many people: {dots} "
                f"dots, pale for AUs too rare for the means. With the {few} alone that enter the means, the "
                f"lines are higher at {RARE:.0%} than at {OFTEN:.0%} by (looked at after the runs, decides nothing): "
                f"{'; '.join(slopes)}."
            ),
        )

    @with_replicates
    def own_views(self) -> str:
        """Share of anchors whose most similar positive is their own view, over training, and where it ends."""
        if "own_view" not in self.history:
            return NOTHING
        table = self.history.dropna(subset="own_view")[["key", "arm", "replicate", "epoch", "own_view"]]
        means = table.groupby(["arm", "epoch"], sort=False)["own_view"].mean().rename("value").reset_index()
        last = table.sort_values("epoch").groupby(["arm", "replicate"], sort=False)["own_view"].last()
        ends = {method: estimate_of(last[method]) for method in self.methods if method in last.index}
        drawn = self._figure(
            "own_views",
            figures.shares(means, label="Share of anchors"),
            table,
            alt="Share of anchors whose nearest positive is their own view, against epoch; at the end of training: "
            + "; ".join(f"{method} {end.value:.2f}" for method, end in ends.items()),
            caption=(
                "Share of anchors whose most similar positive, themselves excluded, is their own other view: means "
                "over replicates, on the last batch of the epochs that were checked."
            ),
        )
        return f"{drawn}\n\n{_shares('Share at the end', ends)}"

    @with_replicates
    def identity(self) -> str:
        """How well the subject is read from the frozen features of the test, per method."""
        found = [
            {"arm": str(run.arm), "replicate": int(run.replicate), "read": identity}
            for run in self.finished.itertuples()
            if (identity := json.loads(str(run.data)).get("identity")) is not None
        ]
        table = pd.DataFrame(found, columns=["arm", "replicate", "read"]).groupby(["arm", "replicate"])["read"].mean()
        named = [method for method in [*self.methods, *self.bounds] if method in table.index]
        return _shares("Subject read", {method: estimate_of(table[method]) for method in named})

    def scores_of(self, methods: Sequence[str], score: str = "auc", *, noise: str = "", **reading: str) -> pd.DataFrame:
        """Macro scores (replicates, methods) of the replicates that all methods have, see `Decisions.scores`."""
        return pd.DataFrame({method: self.scores(method, score, noise=noise, **reading) for method in methods}).dropna()


def _shares(what: str, shares: Mapping[str, Estimate]) -> str:
    """A table of shares by method."""
    rows = [[page.text(method), *in_cells(share, ".2f"), str(share.n)] for method, share in shares.items()]
    return page.table(["Arm", what, "95 % interval", "Replicates"], rows, "lrrr")


def flipped(usual: pd.DataFrame, changed: pd.DataFrame) -> "pd.Series[float]":
    """Per replicate that both have, the share of pairs of columns whose order is another one."""
    shared = usual.index.intersection(changed.index)
    turned = [
        np.sign(usual.loc[shared, one] - usual.loc[shared, other])
        != np.sign(changed.loc[shared, one] - changed.loc[shared, other])
        for one, other in itertools.combinations(usual.columns, 2)
    ]
    return pd.concat(turned, axis=1).mean(axis=1)
