"""The page about the use of the loss: presets, options and values, with what the ledger says of them."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.metrics import roc_auc_score
from torch import Tensor

from aunce.analyses import anatomy
from aunce.losses import AUNCELoss, aunce_loss, infonce, supcon
from aunce.report import findings, page
from aunce.report.claims import Ledger, effect
from aunce.study.grid import REPORTS

if TYPE_CHECKING:
    from IPython.display import Markdown

READINGS: Mapping[str, Any] = {
    **{name: getattr(AUNCELoss, name) for name in ("released", "early", "as_read", "hcl")},
    "supcon": supcon,
    "infonce": infonce,
}
"""Presets of `AUNCELoss`, and two other contrastive losses."""

OPTIONS = {
    "exponents": ("C3", "D4", "D5"),
    "positive": ("C4", "D3"),
    "positive_probs": ("C5",),
    "exclude": ("D1",),
    "positive_mean": ("D2",),
    "au_weights": ("D8",),
}
"""Options of the loss, with the claims and gaps of the ledger that are about them."""


class Guide:
    """What the loss notebook shows.

    Args:
        out: folder that gets what the index shows of the page; empty saves nothing.
        reports: folder of the reports, whose findings are read.

    Raises:
        UsageError: see `Ledger`.
    """

    def __init__(self, *, out: str | Path = "", reports: Path = REPORTS) -> None:
        self.out = Path(out) if str(out) else None
        self.ledger = Ledger(reports=reports)

    def title(self) -> "Markdown":
        """Heading; writes the findings for the index."""
        title, question = "The loss in a training of your own", "How is the loss used, and which preset when?"
        found = (
            "AUNCELoss takes two views, one vector per label, and labels 1, 0 and -1 for unknown; with an example on a "
            "multi-label problem that scikit-learn makes."
        )
        findings.write(self.out, findings.Findings(title=title, question=question, found=found, kind="computation"))
        return page.markdown(f"# {title}\n\n**Asked.** {question} **Found.** {found}")

    def banner(self) -> "Markdown":
        """The quoted verdicts that rest on rendered faces."""
        return self.ledger.banner()

    def readings(self) -> "Markdown":
        """Table: the presets and other losses, a description, and the claims of the ledger that name each."""
        rows = []
        for name, made in READINGS.items():
            what = (made.__doc__ or "").partition("\n")[0].partition(". In all")[0].rstrip(".")
            rows.append([f"`{name}`", what, self._named(name)])
        return page.markdown(page.table(["Preset or function", "What it is", "What the ledger says"], rows, "lll"))

    def options(self) -> "Markdown":
        """Table: the options that the ledger speaks of, with their values in each preset."""
        presets = anatomy.presets("sampled")
        rows = []
        for option, names in OPTIONS.items():
            default = inspect.signature(aunce_loss).parameters[option].default
            values = [f"{preset} {options.get(option, default)}" for preset, options in presets.items()]
            rows.append([f"`{option}`", page.text("; ".join(values)), "<br>".join(map(self._line, names))])
        return page.markdown(page.table(["Option", "In the presets", "What the ledger says"], rows, "lll"))

    def equal(self) -> "Markdown":
        """Table: the loss if all embeddings are equal, by preset and kind of positive."""
        table = anatomy.values()
        wide = table.pivot(index="preset", columns="positive", values="equal").loc[[*anatomy.presets()]]
        kinds = ["max", "mean", "view", "expected"]
        rows = [[f"`{name}`", *(page.number(row[kind]) for kind in kinds)] for name, row in wide.iterrows()]
        return page.markdown(
            f"{page.table(['Preset', *kinds], rows, 'lrrrr')}\n\n"
            f"{anatomy.IMAGES} images, 6 of them with the label, tau {anatomy.TAU:g}, mean over the anchors. Computed, "
            f"and equal to the formula to {table['error'].max():.0e}."
        )

    def scores(self, scores: Mapping[str, Tensor], truth: Tensor) -> "Markdown":
        """Table: AUC of some scores, label by label.

        Args:
            scores: name -> (n, K).
            truth: (n, K) in {0, 1}.
        """
        rows = []
        for name, x in scores.items():
            values = [roc_auc_score(truth[:, k], x[:, k].detach()) for k in range(truth.shape[1])]
            rows.append([page.text(name), *map(page.number, values), page.number(sum(values) / len(values))])
        headers = ["Scores", *(f"Label {k + 1}" for k in range(truth.shape[1])), "Mean"]
        return page.markdown(page.table(headers, rows, "l" + "r" * (len(headers) - 1)))

    def _named(self, reading: str) -> str:
        """The claims about this preset or compared with it, and the gaps whose home names it."""
        first, second = (
            [
                claim.id
                for claim in self.ledger.claims.claim
                if any(reading in contrast[side].lower().split() for contrast in claim.contrasts)
            ]
            for side in (0, 1)
        )
        gaps = [gap.id for gap in self.ledger.claims.gap if re.search(rf"\b{reading}\b", gap.home)]
        said = [self._line(name) for name in [*first, *gaps]]
        said += [f"{name} compares `released` with it: see there" for name in second if name not in first]
        return "<br>".join(said) or "no claim of its own; see its options"

    def _line(self, name: str) -> str:
        """A claim or gap with its verdict, and links to the evidence."""
        claims = self.ledger.claims
        wordings = {claim.id: claim.wording for claim in claims.claim} | {gap.id: gap.wording for gap in claims.gap}
        behind = self.ledger.said[name]
        places = ", ".join(f"[{page.text(said.report)}]({said.place})" for said in behind)
        linked = f" ({places})" if places else ""
        measured = [said.entry for said in behind if said.entry.replicates is not None]
        # the reason of a gap has its numbers
        texts = [[*(effect(entry) if name.startswith("C") else []), page.text(entry.reason)] for entry in measured]
        shown = "".join(f", {', '.join(one)}" for one in texts)
        return f"{name} {page.text(wordings[name])} **{page.text(self.ledger.verdicts(name))}**{shown}{linked}"
