"""AUNCE, a contrastive loss for facial action unit (AU) detection, and the study that puts its claims to the test.

`from aunce import AUNCELoss` gives the loss; `SupConLoss` and `InfoNCELoss` are its relatives. The package alone does
not import torch, so that the command line starts quickly.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aunce.losses import AUNCELoss, InfoNCELoss, SupConLoss, aunce_loss, infonce, supcon

__all__ = ["AUNCELoss", "InfoNCELoss", "SupConLoss", "aunce_loss", "infonce", "supcon"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from aunce import losses

        return getattr(losses, name)
    raise AttributeError(f"module 'aunce' has no attribute {name!r}")
