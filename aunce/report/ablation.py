"""What reports of ablations show beside verdicts: own views, identity; and the study beside this one."""

import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from aunce.errors import UsageError
from aunce.report import figures, page
from aunce.report.claims_report import NOTHING, ClaimsReport, with_replicates
from aunce.report.decide import Decisions
from aunce.report.scores import estimate_of
from aunce.report.sections import in_cells
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
