"""A z-buffer in numpy: which triangle each pixel shows. No product here goes through BLAS, so sums keep their order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Indices = NDArray[np.intp]

_LAST = np.iinfo(np.int64).max
_DEPTH_STEPS = 1 << 18  # per unit of depth; the other 24 bits of a key number the candidates


class Hits(NamedTuple):
    """The pixels that show a triangle.

    Attributes:
        pixel: places in the flattened square image (M,).
        triangle: the nearest triangle there (M,).
        second, third: weights of its second and third corner (M,); that of the first is what is left to 1.
        depth: distance from the camera (M,).
    """

    pixel: Indices
    triangle: Indices
    second: Array
    third: Array
    depth: Array


def raster(x: Array, y: Array, depth: Array, triangles: Indices, size: int) -> Hits:
    """Draw triangles (3, F) over vertices at pixels `x`, `y` (V,), y down, into a square of `size`.

    Only triangles whose corners turn clockwise on the screen are drawn. Every triangle tries the pixels of its box;
    the nearest one wins.
    """
    first, second, third = triangles
    x0, y0 = x.take(first), y.take(first)
    ux, uy, wx, wy = x.take(second) - x0, y.take(second) - y0, x.take(third) - x0, y.take(third) - y0
    area = ux * wy - uy * wx
    left = np.ceil(x0 - 0.5 + np.minimum(np.minimum(ux, wx), 0)).clip(0).astype(np.int32)
    top = np.ceil(y0 - 0.5 + np.minimum(np.minimum(uy, wy), 0)).clip(0).astype(np.int32)
    right = np.floor(x0 - 0.5 + np.maximum(np.maximum(ux, wx), 0)).clip(-1, size - 1).astype(np.int32)
    bottom = np.floor(y0 - 0.5 + np.maximum(np.maximum(uy, wy), 0)).clip(-1, size - 1).astype(np.int32)
    kept = np.flatnonzero((area < -1e-7) & (right >= left) & (bottom >= top))
    x0, y0, ux, uy, wx, wy = (part.take(kept) for part in (x0, y0, ux, uy, wx, wy))
    left, top, right, bottom = (part.take(kept) for part in (left, top, right, bottom))
    inverse = 1 / area.take(kept)
    z0 = depth.take(first.take(kept))
    z1, z2 = depth.take(second.take(kept)) - z0, depth.take(third.take(kept)) - z0
    width = right - left + 1
    count = width * (bottom - top + 1)
    # Weights of the corners are linear in the pixel: a x + b y + c.
    a1, b1, a2, b2 = wy * inverse, -wx * inverse, -uy * inverse, ux * inverse
    from_x, from_y = left + np.float32(0.5) - x0, top + np.float32(0.5) - y0
    c1, c2 = a1 * from_x + b1 * from_y, a2 * from_x + b2 * from_y
    owner = np.repeat(np.arange(len(kept)), count)  # (N,) candidates
    place = np.arange(len(owner), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    wide = width.take(owner)
    down = place // wide
    across = place - down * wide
    dx, dy = across.astype(np.float32), down.astype(np.float32)
    l1 = a1.take(owner) * dx + b1.take(owner) * dy + c1.take(owner)
    l2 = a2.take(owner) * dx + b2.take(owner) * dy + c2.take(owner)
    inside = np.flatnonzero((l1 >= -1e-5) & (l2 >= -1e-5) & (l1 + l2 <= 1 + 1e-5))
    owner, l1, l2 = owner.take(inside), l1.take(inside), l2.take(inside)
    z = z0.take(owner) + l1 * z1.take(owner) + l2 * z2.take(owner)
    pixel = (top * size + left).take(owner) + down.take(inside) * size + across.take(inside)
    key = ((z * np.float32(_DEPTH_STEPS)).astype(np.int64) << 24) | np.arange(len(owner))
    nearest = np.full(size * size, _LAST)
    np.minimum.at(nearest, pixel, key)
    shown = np.flatnonzero(nearest != _LAST)
    winner = nearest.take(shown) & ((1 << 24) - 1)
    return Hits(shown, kept.take(owner.take(winner)), l1.take(winner), l2.take(winner), z.take(winner))
