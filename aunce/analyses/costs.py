"""Parameters and operations of one training step, AUNCE and binary cross-entropy."""

from functools import cache

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from aunce.analyses.anatomy import IMAGES
from aunce.backbones import build_backbone
from aunce.losses import aunce_loss
from aunce.model import Encoder, count_operations


def costs(backbone: str, *, pixels: int, channels: int, aus: int = 12, images: int = IMAGES) -> pd.DataFrame:
    """Parameters and operations of one training step on `images` labelled images, AUNCE and binary cross-entropy (BCE).

    Operations are multiplications and additions of matrix products and convolutions, forward and backward, as torch
    counts them on tensors without values (the loss on real ones). What works element by element is not counted, except
    for the head of BCE, whose 3 x 2 B K D are added.

    Args:
        backbone: a key of `aunce.backbones.BACKBONES`.
        pixels: side of the images.
        channels: D.
        aus: K.
        images: B.

    Returns:
        One row per method ("AUNCE", "BCE, one view", "BCE, two views"): backbone, method, parameters, forward (images
        through the encoder), operations, of_loss (operations of the loss or of the head), ratio (to one-view BCE).
    """
    with torch.device("meta"):
        encoder = Encoder(build_backbone(backbone), aus=aus, channels=channels)
        one = count_operations(encoder, images=images, pixels=pixels)
    two = 2 * one  # twice the images, twice the operations
    parameters = sum(p.numel() for p in encoder.parameters())
    z = torch.zeros(2, images, aus, channels, requires_grad=True)
    labels = (torch.arange(images)[:, None] % 2).to(torch.int8).expand(-1, aus)
    with FlopCounterMode(display=False) as counter:
        aunce_loss(z, labels, positive="expected").backward()  # type: ignore[no-untyped-call]
    of_loss = int(counter.get_total_flops())
    head = 3 * 2 * images * aus * channels
    rows = [
        ("AUNCE", parameters, 2 * images, two + of_loss, of_loss),
        ("BCE, one view", parameters + aus * (channels + 1), images, one + head, head),
        ("BCE, two views", parameters + aus * (channels + 1), 2 * images, two + 2 * head, 2 * head),
    ]
    table = pd.DataFrame(rows, columns=["method", "parameters", "forward", "operations", "of_loss"])
    table.insert(0, "backbone", backbone)
    return table.assign(ratio=table["operations"] / (one + head))


@cache
def all_costs() -> pd.DataFrame:
    """`costs` of the small backbone at 48 px and of Swin-B at 224 px, as in the paper."""
    settings = (("small", 48, 64), ("swin-base", 224, 1024))
    return pd.concat(
        [costs(name, pixels=pixels, channels=channels) for name, pixels, channels in settings], ignore_index=True
    )


def more_than(table: pd.DataFrame, column: str, other: str = "BCE, one view") -> bool:
    """Whether AUNCE needs at least one percent more than `other` with any backbone."""
    wide = table.pivot_table(index="backbone", columns="method", values=column)
    return bool((wide["AUNCE"] > 1.01 * wide[other]).any())
