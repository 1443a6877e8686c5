"""Which vertices of the modelled head are the 49 landmarks of `Population.landmarks`."""

from __future__ import annotations

import functools

import numpy as np

from aunce.data.render.modelled_head import head
from aunce.data.render.modelled_raster import Indices

# Places of the points on the template, for the person's left; those of the right are mirrored. Order: outwards.
_BROW = ((0.12, 7.535), (0.22, 7.575), (0.33, 7.60), (0.44, 7.59), (0.54, 7.525))
_BRIDGE, _BASE = ((0.0, 7.36), (0.0, 7.24), (0.0, 7.12), (0.0, 7.02)), ((0.145, 6.97), (0.07, 6.935), (0.0, 6.915))
_LIPS_UP, _LIPS_LOW = (
    ((0.255, 6.695), (0.15, 6.775), (0.06, 6.815), (0.0, 6.80)),
    ((0.15, 6.585), (0.08, 6.55), (0.0, 6.535)),
)
_INNER = 0.12


@functools.cache
def POINTS_49() -> Indices:
    """Vertices (49,), in the order of `Population.landmarks`."""
    it = head()
    x, y, z = it.template
    jaw = it.units[[*range(it.template.shape[1], 2 * it.template.shape[1])], :][:, [it.at["jawOpen"]]].toarray()[:, 0]
    front = it.skin & (z > 0.9) & ~it.inner

    def nearest(place: tuple[float, float], among: np.ndarray) -> int:
        some = np.flatnonzero(among)
        # Of two layers of skin the outer one is meant.
        return int(some[np.argmin((x[some] - place[0]) ** 2 + (y[some] - place[1]) ** 2 - 0.02 * z[some])])

    def side(places: tuple[tuple[float, float], ...], sign: int, among: np.ndarray) -> list[int]:
        return [nearest((sign * px, py), among) for px, py in places]

    brows = [*side(_BROW, -1, front)[::-1], *side(_BROW, 1, front)]
    nose = [*side(_BRIDGE, 1, front)]
    base = [*side(_BASE[:2], -1, front), *side(_BASE[::-1], 1, front)]
    lips = front & (it.masks["lips"] > 0.2) | front & (np.abs(x) < 0.3) & (np.abs(y - 6.68) < 0.2)
    up, low = lips & (jaw > -0.12), lips & (jaw < -0.12)
    outer = [*side(_LIPS_UP[:3], -1, up), *side(_LIPS_UP[::-1], 1, up)]
    outer += [*side(_LIPS_LOW, 1, low), *side(_LIPS_LOW[1::-1], -1, low)]
    seam = 6.679
    inner = [nearest((s * _INNER, seam), up) for s in (-1, 0, 1)] + [
        nearest((s * _INNER, seam), low) for s in (1, 0, -1)
    ]
    eyes = [_eye(sign, front) for sign in (-1, 1)]
    return np.array([*brows, *nose, *base, *eyes[0], *eyes[1], *outer, *inner], dtype=np.intp)


def _eye(sign: int, front: np.ndarray) -> list[int]:
    """Six vertices of the lids' margin, from the corner at the image's left over the upper lid."""
    it = head()
    x, y, _ = it.template
    lash = it.lash_opacity > 0.30
    roots = np.flatnonzero(lash & (x * sign > 0) & (it.lash_opacity > 0.36))
    some = np.flatnonzero(front & (x * sign > 0))
    gaps = ((it.template[:, roots, None] - it.template[:, None, some]) ** 2).sum(0)
    margin = some[np.unique(gaps.argmin(1))]
    middle = (y[margin].max() + y[margin].min()) / 2
    first, last = (margin[np.argmin(x[margin])], margin[np.argmax(x[margin])])
    span = x[last] - x[first]
    upper, lower = margin[y[margin] > middle], margin[y[margin] < middle]

    def on(lid: np.ndarray, share: float) -> int:
        return int(lid[np.argmin(np.abs(x[lid] - x[first] - share * span))])

    return [int(first), on(upper, 1 / 3), on(upper, 2 / 3), int(last), on(lower, 2 / 3), on(lower, 1 / 3)]
