"""AUNCE, a contrastive loss for facial action unit (AU) detection, and the study that puts its claims to the test.

`from aunce import AUNCELoss` gives the loss. This package alone imports no torch, which keeps the command line quick.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aunce.losses import AUNCELoss, aunce_loss, infonce, supcon

__all__ = ["AUNCELoss", "aunce_loss", "infonce", "supcon"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from aunce import losses

        return getattr(losses, name)
    raise AttributeError(f"module 'aunce' has no attribute {name!r}")
