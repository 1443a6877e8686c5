"""Two augmented views of a batch of images, computed for the whole batch at once on its device.

The transformations are those of the released AUNCE code (commit bade385), in its order:

* a crop of 75 to 100 % of the area, ratio .9 to 1.1, resized back (released, and here by `crop`: 224 px of 256 px),
* a horizontal flip, p = .5,
* jitter of brightness, contrast and saturation by .6 to 1.4, in an order of its own for each view, p = .8,
* greyscale, p = .2,
* a Gaussian blur of 3 x 3 pixels, p = .5 (released: always).

The released turn of the hue by at most a tenth is left out: its way through HSV takes longer than a small network.

Kornia has all of these, and the tests hold both to the same pixels. It is not used because the host waits while it
moves the parameters of each to the device, and because it cannot draw for a whole batch and work on a share of it.
Here all parameters go to the device in one piece. A crop with its resizing and its flip is one matrix for each axis.
Brightness, contrast, saturation and greyscale are one formula: a mixture of the image with a base.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aunce.devices import send

Array = NDArray[np.float64]

LUMA = (0.299, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION = range(3)


def two_views(images: Tensor, *, seed: int, crop: int = 0, first: int = 0, of: int | None = None) -> Tensor:
    """Draw two independent views of every image.

    A seed means the same views on every device (up to rounding).

    Args:
        images: (B, H, W, 3) uint8, RGB.
        seed: the only source of randomness; no global generator moves.
        crop: side of square crops at random places, not resized, as released; 0 resizes crops of random size.
        first: place of the first image in a batch of `of` images, of which these are a share; an image has the same
            views in a share as in the whole.
        of: images of the whole batch, B if left out.

    Returns:
        (V=2, B, 3, H, W) or (V=2, B, 3, crop, crop) float32 in [0, 1] on the images' device.

    Raises:
        ValueError: `images` is not uint8 of shape (B, H, W, 3), or smaller than `crop`.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"two_views takes uint8 images (B, H, W, 3), got {images.dtype} {tuple(images.shape)}")
    batch, height, width, _ = images.shape
    if crop > min(height, width):
        raise ValueError(f"two_views: crops of {crop} px from images of {height} x {width} px")
    drawn = draw(batch if of is None else of, height, width, seed=seed, crop=crop)[:, first : first + batch]
    parameters = send(torch.from_numpy(drawn).float(), images.device)  # (2, B, P)
    with torch.no_grad():
        window, colour, side = parameters[..., :5], parameters[..., 5:-1], parameters[..., -1]
        views = windows(images, window, (crop or height, crop or width))  # (2, B, 3, H', W')
        for weights in torch.split(colour, 3, dim=2):
            views = mix(views, weights)
        return blur(views, side)


def draw(images: int, height: int, width: int, *, seed: int, crop: int) -> Array:
    """The parameters of the views of a batch.

    Args:
        images: number of images in the batch.
        height: of the images, in pixels.
        width: of the images, in pixels.
        seed: the only source of randomness.
        crop: side of square crops in pixels, at most `height` and `width`; 0 draws windows of random size.

    Returns:
        (V=2, images, 18) float64, in this order: top, left, height and width of the window in pixels, and whether it is
        mirrored; for each of four rounds of `mix` the three weights that it takes; and the outer weight of the blur.
    """
    random = np.random.default_rng(seed)
    shape = (2, images)
    if crop:
        high = wide = np.full(shape, crop)
        top, left = (random.integers(0, side - crop + 1, shape) for side in (height, width))
    else:
        area = random.uniform(0.75, 1, shape)
        # The ratio of the sides in units of the image's own, as far as the window fits into the image.
        low, high_ratio = np.log(np.maximum(0.9, area)), np.log(np.minimum(1.1, 1 / area))
        ratio = np.exp(random.uniform(low, high_ratio))
        high, wide = height * np.sqrt(area / ratio), width * np.sqrt(area * ratio)
        top, left = (random.uniform(0, 1, shape) * (side - part) for side, part in ((height, high), (width, wide)))
    mirrored = random.random(shape) < 0.5
    strength = random.uniform(0.6, 1.4, (*shape, 3))
    strength[random.random(shape) >= 0.8] = 1
    order = random.permuted(np.broadcast_to(np.arange(3), (*shape, 3)), axis=-1)  # (2, B, 3)
    rounds = [np.take_along_axis(strength, order, -1), order == CONTRAST, order == SATURATION]
    grey = random.random(shape) < 0.2
    last = [1 - grey, np.zeros(shape), np.ones(shape)]  # to the pixel's own grey
    colour = np.concatenate([np.stack(rounds, -1).reshape(*shape, 9), np.stack(last, -1)], axis=-1)
    neighbour = np.exp(-0.5 / random.uniform(0.1, 2, shape) ** 2)  # of a Gaussian, the middle being 1
    side_weight = np.where(random.random(shape) < 0.5, neighbour / (1 + 2 * neighbour), 0)
    place = np.stack([top, left, high, wide, mirrored], axis=-1)
    return np.concatenate([place, colour, side_weight[..., None]], axis=-1).astype(np.float64)


def windows(images: Tensor, window: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut windows out of images (B, H, W, 3) uint8 and bring them to `size` by linear interpolation.

    Args:
        images: each is cut V times.
        window: (V, B, 5) top, left, height, width, mirrored, see `draw`.
        size: height H' and width W' of the result.

    Returns:
        (V, B, 3, H', W') float32 in [0, 1].
    """
    batch, height, width, _ = images.shape
    top, left, high, wide, mirrored = window.unbind(-1)  # (V, B) each
    rows = _interpolation(top, high, torch.zeros_like(top), size[0], height)  # (V, B, H', H)
    columns = _interpolation(left, wide, mirrored, size[1], width)  # (V, B, W', W)
    views = len(window)
    flat = images.reshape(batch, height, width * 3).float() / 255  # (B, H, W * 3)
    cut = torch.bmm(rows.transpose(0, 1).reshape(batch, views * size[0], height), flat)  # (B, V * H', W * 3)
    cut = cut.view(batch, views, size[0], width, 3).permute(1, 0, 4, 2, 3)  # (V, B, 3, H', W)
    cut = torch.bmm(cut.reshape(views * batch, 3 * size[0], width), columns.flatten(0, 1).mT)  # (V * B, 3 * H', W')
    return cut.view(views, batch, 3, *size)


def _interpolation(start: Tensor, length: Tensor, mirrored: Tensor, size: int, of: int) -> Tensor:
    """(V, B, size, of): weights of an axis's pixels in those of a window of it, for start and length (V, B)."""
    place = torch.arange(size, device=start.device) + 0.5  # (size,)
    place = torch.where(mirrored[..., None] > 0, size - place, place)  # (V, B, size)
    source = start[..., None] + place * (length / size)[..., None] - 0.5  # (V, B, size)
    # Half a pixel at the rim has no second neighbour: there the outermost pixel stands alone.
    distance = source.clamp(0, of - 1)[..., None] - torch.arange(of, device=start.device)  # (V, B, size, of)
    return (1 - distance.abs_()).clamp_(min=0)


def mix(views: Tensor, weights: Tensor) -> Tensor:
    """f x + (1 - f) base, kept in [0, 1]: brightness, contrast, saturation or greyscale.

    Args:
        views: (V, B, 3, H, W).
        weights: (V, B, 3): f, and the shares of the image's mean grey and of the pixel's own grey in the base.
    """
    factor, of_mean, of_pixel = weights[..., None, None].unbind(2)  # (V, B, 1, 1) each
    red, green, blue = views.unbind(2)  # (V, B, H, W) each
    grey = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])  # (V, B, H, W)
    mean = grey.mean((-2, -1), keepdim=True)  # (V, B, 1, 1)
    base = grey.mul_(of_pixel).add_(mean * of_mean)  # (V, B, H, W)
    return torch.lerp(base[:, :, None], views, factor[:, :, None]).clamp_(0, 1)


def blur(views: Tensor, side: Tensor) -> Tensor:
    """A blur of 3 x 3 pixels, mirrored at the rim, of views (V, B, 3, H, W).

    Args:
        views: the images.
        side: (V, B) weight of a neighbour along an axis; the pixel itself keeps 1 - 2 `side`.
    """
    share = 2 * side[..., None, None, None]  # (V, B, 1, 1, 1)
    for axis in (-2, -1):
        size = views.shape[axis]
        ends = [views.narrow(axis, 1, 1), views, views.narrow(axis, size - 2, 1)]
        padded = torch.cat(ends, dim=axis)  # two longer along the axis
        neighbours = padded.narrow(axis, 0, size).add(padded.narrow(axis, 2, size)).mul_(0.5)  # (V, B, 3, H, W)
        views = torch.lerp(views, neighbours, share)
    return views
