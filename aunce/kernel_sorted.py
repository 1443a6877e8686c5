"""One AU of a large batch on a CPU. Its rows are sorted by label, so that nothing has to be masked.

The similarities of rows with one label are a symmetric block, and only a mean needs its exponentials. Those of rows
with different labels are another block, and one product of matrices serves the anchors of both labels.
"""

import math

import torch
from torch import Tensor

from aunce.inputs import Plan


class SortedRows:
    """The n known rows of an AU after the forward pass: n0 without the AU, then n1 with it, none of them 0.

    Attributes:
        sums: (5, n), for each anchor: the sum over its negatives of exp(e l) and of their weights; over the positives
            of a mean, of exp(l); the largest l of a positive; and l with its own view. 1 where nothing needs it.
    """

    def __init__(self, x: Tensor, absent: int, e: tuple[Tensor, Tensor], branches: set[str], plan: Plan) -> None:
        """From rows x (n, D) of length 1 / sqrt(tau), n0 = `absent`, the exponents of both labels, and the branches."""
        self.x, self.views, self.counts = x, plan.views, [absent, len(x) - absent]
        self.sums = x.new_ones(5, len(x))  # (5, n)
        other, of_weights, same, largest, view = self.sums
        self.halves = without, having = torch.split(x, self.counts)  # (n0, D), (n1, D)
        logits = without @ having.mT  # (n0, n1)
        self.negatives = self._exponentials(logits, e, other)  # (n0, n1) each
        self.weights: tuple[Tensor, ...] = ()
        if plan.normalize_weights:
            weights = self._exponentials(logits, (e[0] - 1, e[1] - 1), of_weights)  # (n0, n1) each
            self.weights = () if plan.detach_weights else weights
        self.positives: list[Tensor] = []
        self.nearest: Tensor | None = None
        self.viewed = "view" in branches
        if "max" in branches and plan.exclude == "none":
            largest.copy_(torch.linalg.vecdot(x, x))  # nothing is closer to an anchor than itself: it attracts nothing
        elif "max" in branches:
            self.nearest = torch.empty(len(x), dtype=torch.int64)  # (n,)
        if "mean" in branches or self.nearest is not None:
            for first, half in zip((0, absent), self.halves, strict=True):
                rows = slice(first, first + len(half))
                logits = self._similarities(half, plan.exclude)  # (h, h)
                if self.nearest is not None:
                    torch.max(logits, dim=1, out=(largest[rows], self.nearest[rows]))
                    self.nearest[rows] += first
                if "mean" in branches:
                    self.positives.append(logits.exp_())
                    torch.sum(logits, 1, out=same[rows])
        if self.viewed:
            view.copy_(torch.linalg.vecdot(x, self._other_views(x)))

    def gradient(self, factors: Tensor) -> Tensor:
        """The gradient (n, D) by x, in place of the matrices, from the factors (5, n) of `kernel.Factors`."""
        repulsion, attraction, weighing, own_view, to_nearest = factors
        by_logit, of_having = self.negatives
        n0 = len(by_logit)
        by_logit.mul_(repulsion[:n0, None]).addcmul_(of_having, repulsion[n0:])
        if self.weights:
            by_logit.addcmul_(self.weights[0], weighing[:n0, None]).addcmul_(self.weights[1], weighing[n0:])
        gradient = torch.empty_like(self.x)  # (n, D)
        of_halves = torch.split(gradient, self.counts)
        torch.mm(by_logit, self.halves[1], out=of_halves[0])
        torch.mm(by_logit.mT, self.halves[0], out=of_halves[1])
        of_each = zip(self.positives, self.halves, torch.split(attraction, self.counts), of_halves, strict=False)
        for scores, half, each, part in of_each:  # none without a mean
            part.addmm_(scores.mul_(each[:, None] + each), half, alpha=-1)
        if self.viewed:
            both = own_view + self._other_views(own_view)  # (n,)
            gradient.addcmul_(self._other_views(self.x), both[:, None], value=-1)
        if self.nearest is not None:
            gradient.addcmul_(self.x[self.nearest], to_nearest[:, None], value=-1)
            gradient.index_add_(0, self.nearest, self.x * to_nearest[:, None], alpha=-1)
        return gradient

    def _exponentials(self, logits: Tensor, e: tuple[Tensor, Tensor], sums: Tensor) -> tuple[Tensor, Tensor]:
        """exp(e l) for the e of either label, (n0, n1) each; their sums over the negatives of each anchor (n,)."""
        of_without, of_having = (torch.mul(logits, one).exp_() for one in e)  # (n0, n1) each
        sums.copy_(torch.cat([of_without.sum(1), of_having.sum(0)]))
        return of_without, of_having

    def _similarities(self, half: Tensor, exclude: str) -> Tensor:
        """The logits (h, h) of the rows of a label, -inf where an anchor excludes a row."""
        logits = half @ half.mT  # (h, h)
        offset = len(half) // self.views
        for diagonal in {"none": (), "self": (0,), "image": (-offset, 0, offset)}[exclude]:
            logits.diagonal(diagonal).fill_(-math.inf)
        return logits

    def _other_views(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of the own other views; of a single view the rows themselves."""
        return torch.cat([half.roll(len(half) // self.views, 0) for half in torch.split(rows, self.counts)])
