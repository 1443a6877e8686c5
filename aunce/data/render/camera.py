"""The camera that all generators of faces share: background, exposure, blur and noise of a scene."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aunce.data.render.behaviour import Scene

Pixels = NDArray[np.uint8]


def backdrop(scene: Scene, canvas: int) -> Pixels:
    """What lies behind the head: blurred patches (canvas, canvas, 3)."""
    rng = np.random.default_rng([scene.seed, 1])
    grey, tint = rng.uniform(70, 200), rng.normal(0, 12, 3)
    patches = 45 * rng.standard_normal((5, 5, 1)) + 12 * rng.standard_normal((5, 5, 3))
    coarse = grey + tint + scene.background * patches
    smooth = cv2.resize(np.clip(coarse, 0, 255).astype(np.uint8), (canvas, canvas), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth, dtype=np.uint8)


@functools.lru_cache(maxsize=1)
def _grain() -> NDArray[np.float32]:
    """One pool of noise for everybody: a frame takes a stretch of it, which is much faster than drawing anew."""
    return np.random.default_rng(20240206).standard_normal(1 << 20).astype(np.float32)


def response(scene: Scene) -> Pixels:
    """Exposure and colour cast of the camera as a table (256, 1, 3)."""
    levels = np.arange(256)[:, None] * scene.exposure * scene.cast
    return np.asarray(np.clip(levels, 0, 255).round(), dtype=np.uint8)[:, None]


def finish(canvas: Pixels, scene: Scene, frame: int, size: int, response: Pixels) -> Any:
    """Downsample, camera response, blur, noise: one image (size, size, 3)."""
    image: Any = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.LUT(image, response)
    sigma = scene.blur * size / 64
    if sigma > 0.05:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if scene.noise > 0:
        pool, need = _grain(), size * size * 3
        start = int((int(scene.key[frame]) * 2654435761 + scene.seed * 40503) % (len(pool) - need))
        grain = pool[start : start + need].reshape(size, size, 3)
        image = cv2.scaleAdd(grain, scene.noise, image.astype(np.float32))
        image = cv2.convertScaleAbs(np.maximum(image, 0))
    return image
