"""Two augmented views of a batch of images, by kornia for the whole batch at once on the batch's device.

The transformations are those of the released AUNCE code (commit bade385), in its order, with crops made for aligned
faces and without its turn of the hue by at most a tenth, whose way through HSV takes longer than a small network:

* a crop of 75 to 100 % of the area, ratio .9 to 1.1, resized back (released, and here by `crop`: 224 px of 256 px),
* a horizontal flip, p = .5,
* jitter of brightness, contrast and saturation by .6 to 1.4, p = .8,
* greyscale, p = .2,
* a Gaussian blur of 3 x 3 pixels, p = .5 (released: always).
"""

import functools
from typing import cast

import kornia.augmentation as K
import torch
from torch import Tensor, nn


def two_views(images: Tensor, *, seed: int, crop: int = 0) -> Tensor:
    """Draw two independent views of every image.

    Kornia draws its parameters on the CPU, so a seed means the same views on every device (up to rounding).

    Args:
        images: (B, H, W, 3) uint8, RGB.
        seed: the only source of randomness; no global generator moves.
        crop: side of square crops at random places, not resized, as released; 0 resizes crops of random size.

    Returns:
        (V=2, B, 3, H, W) or (V=2, B, 3, crop, crop) float32 in [0, 1] on the images' device.

    Raises:
        ValueError: `images` is not uint8 of shape (B, H, W, 3), or smaller than `crop`.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"two_views takes uint8 images (B, H, W, 3), got {images.dtype} {tuple(images.shape)}")
    if crop > min(images.shape[1:3]):
        raise ValueError(f"two_views: crops of {crop} px from images of {images.shape[1]} x {images.shape[2]} px")
    views = (images.permute(0, 3, 1, 2).float() / 255).repeat(2, 1, 1, 1)  # (2B, 3, H, W)
    # Kornia draws from the global generator of the CPU. Without gradients: the images need none.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        views = cast(Tensor, _augmentations(*views.shape[-2:], crop)(views))
    return views.clamp(0, 1).view(2, len(images), *views.shape[1:])  # (2, B, 3, H, W)


@functools.cache
def _augmentations(height: int, width: int, crop: int) -> nn.Module:
    return nn.Sequential(
        K.RandomCrop((crop, crop))
        if crop
        else K.RandomResizedCrop((height, width), scale=(0.75, 1.0), ratio=(0.9, 1.1)),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.5),
    )
