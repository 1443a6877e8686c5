"""What is painted on the modelled heads: skin, lips, brows, beard, hair, eyes and teeth, in one picture per person."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from aunce.data.render.modelled_head import CHART, PATCH, blurred, charts
from aunce.data.render.modelled_raster import Array
from aunce.data.render.modelled_things import Hairline, Style

GLOSS = 20.0  # steps of the atlas's fourth channel to a gloss of 1, that of skin
Rng = np.random.Generator


@dataclass
class Traits:
    """What is drawn first of a person."""

    male: bool
    age: float  # 0 young, 1 old
    heavy: float  # -1..1
    ancestry: Array  # african, asian, caucasian; sums to 1
    skin: Array  # linear colours (3,)
    hair: Array
    brow: Array
    iris: Array
    tone: float  # 0 light .. 4 dark
    grey: float
    recede: float  # share of the hairline that has gone back
    style: str
    beard: str  # "", "stubble", "full", "moustache", "goatee"
    glasses: bool
    seed: int  # of what is painted


def linear(rgb: object) -> Array:
    """Linear light of colours 0..255."""
    return np.asarray((np.asarray(rgb, dtype=np.float64) / 255) ** 2.2, dtype=np.float32)


def _edge(distance: Array, width: float) -> Array:
    """0 to 1 where a distance passes 0."""
    return np.asarray(np.clip(distance / (4 * width) + 0.5, 0, 1))


def _noise(rng: Rng, cells: int, rows: int | None = None) -> Array:
    """Smooth noise over the chart, SD near 0.6."""
    coarse = rng.standard_normal((rows or cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (CHART, CHART), interpolation=cv2.INTER_LINEAR))


def _mixed(image: Array, colour: Array, share: Array) -> Array:
    """Colour (3,) or (H, W, 3) laid over an image with opacity `share` (H, W)."""
    return image + (colour - image) * share[..., None]


@functools.cache
def _places() -> dict[str, Array]:
    """Maps over the chart that do not depend on the person."""
    at = charts()
    side = np.abs(at.x)

    def spot(x: float, y: float, wide: float, high: float) -> Array:
        return np.exp(-(((side - x) / wide) ** 2) - ((at.y - y) / high) ** 2)

    front = (at.z > 0.8).astype(np.float32)
    jaw = np.interp(side, [0, 0.2, 0.33, 0.5, 0.7], [6.90, 6.87, 6.70, 6.80, 7.15]) - at.y
    no_lips = 1 - np.clip(at.lips * 1.5, 0, 1)
    cheeks = _edge(jaw, 0.03) * (np.abs(at.angle) < 1.25) * (1 - at.ears) * (at.y > 6.0)
    lip = np.interp(side, [0, 0.05, 0.2, 0.33, 0.36], [6.85, 6.86, 6.83, 6.70, 6.5]) - at.y
    moustache = _edge(lip, 0.02) * (at.y > 6.66) * (side < 0.34) * front
    goatee = spot(0.0, 6.40, 0.22, 0.17) > 0.35
    ring = ((side > 0.24) & (side < 0.33) & (at.y < 6.75) & (at.y > 6.40)) | goatee
    areas = {"full": cheeks, "stubble": cheeks, "moustache": moustache, "goatee": np.maximum(moustache, ring * front)}
    return {
        "red": (0.35 * spot(0.38, 7.02, 0.17, 0.14) + 0.4 * spot(0, 6.98, 0.12, 0.12)) * front + 0.3 * at.ears,
        "dark": 0.30 * spot(0.27, 7.22, 0.15, 0.06) + 0.2 * at.lids,
        "seam": np.exp(-(((at.y - 6.679) / 0.012) ** 2)) * at.lips,
        "freckles": spot(0.22, 7.08, 0.28, 0.16) + 0.2 * spot(0, 7.8, 0.4, 0.3),
        **{name: cv2.GaussianBlur((area * no_lips).astype(np.float32), (0, 0), 2.5) for name, area in areas.items()},
    }


def _skin(rng: Rng, who: Traits) -> Array:
    places = _places()
    fine = rng.standard_normal((CHART, CHART)).astype(np.float32)
    blotches = 0.6 * _noise(rng, 8) + 0.5 * _noise(rng, 24) + 0.3 * _noise(rng, 70) + 0.10 * fine
    pale = max(0.25, 1 - who.tone / 5) * rng.uniform(0.5, 1.5)
    red = pale * 0.45 * (places["red"] * rng.uniform(0.6, 1.6) + 0.16 * _noise(rng, 14))
    dark = places["dark"] * rng.uniform(0.2, 0.7)
    image = who.skin * (1 + (0.05 + 0.03 * who.age) * blotches[..., None])
    image = image * (1 + red[..., None] * np.array([0.2, -0.40, -0.35], dtype=np.float32))
    image = image * (1 - dark[..., None] * np.array([0.7, 1, 0.9], dtype=np.float32))
    if who.tone < 1.8 and rng.uniform() < 0.3:
        dots = cv2.GaussianBlur((rng.random((CHART, CHART)) < 0.025).astype(np.float32), (0, 0), 0.8)
        share = np.clip(3 * rng.uniform(0.4, 1) * dots * places["freckles"], 0, 0.6)
        image = image * (1 - share[..., None] * np.array([0.35, 0.55, 0.7], dtype=np.float32))
    at = charts()
    spots = np.zeros((CHART, CHART), dtype=np.float32)
    for _ in range(int(rng.poisson(2.5 + 3 * who.age))):
        x, y = rng.uniform(-0.5, 0.5), rng.uniform(6.3, 7.9)
        place = at.at(np.array([x], dtype=np.float32), np.array([y], dtype=np.float32))[:, 0]
        radius, depth = rng.uniform(0.5, 1.4), rng.uniform(0.3, 0.9)
        _dot(spots, place, radius, depth)
    return _mixed(image, who.skin * (0.35, 0.28, 0.28), blurred(spots, 0.6))


def _dot(canvas: Array, place: Array, radius: float, value: float) -> None:
    centre = (round(float(place[0]) * 16), round(float(place[1]) * 16))
    cv2.circle(canvas, centre, round(radius * 16), value, -1, cv2.LINE_AA, 4)


def _lips(rng: Rng, image: Array, who: Traits) -> Array:
    at, places = charts(), _places()
    rouge = rng.uniform(0, 1) ** (3 if who.male else 1.2)
    lip = who.skin * np.array([0.88, 0.60, 0.60], dtype=np.float32)
    lip = lip * (1 - 0.3 * rouge) + linear((168, 52, 62)) * 0.3 * rouge * (0.4 + 0.6 * float(who.skin.mean()) / 0.45)
    grain = 1 + 0.06 * _noise(rng, 120, 12)
    image = _mixed(image, lip * grain[..., None], 0.9 * at.lips)
    return image * (1 - 0.55 * places["seam"])[..., None]


def _hair(rng: Rng, image: Array, who: Traits, style: Style, line: Hairline) -> tuple[Array, Array, Array]:
    """The scalp's hair laid over an image; also its strands and how much of each pixel it covers."""
    at = charts()
    strands = 0.6 * _noise(rng, 190, 8) + 0.5 * _noise(rng, 40)
    if style.curl > 0.5:
        strands = 0.4 * strands + 0.7 * _noise(rng, 90)
    # Uneven in both directions: noise along the line alone looks like a comb.
    ragged = (0.02 + 0.03 * style.curl) * _noise(rng, 22, 9) + 0.018 * _noise(rng, 170, 120)
    low = line(at.angle).astype(np.float32)
    if style.fringe:
        reach = np.exp(-((at.angle / 0.62) ** 4))
        low = low - style.fringe * reach * (1 + 0.16 * _noise(rng, 14, 3) + 0.12 * _noise(rng, 110, 12))
    cover = _edge(at.y - low - ragged, 0.024 if style.top < 0.3 else 0.03) * (1 - np.clip(2 * at.ears, 0, 1))
    roots = _edge(at.y - low - ragged - 0.02, 0.05)
    bare = 0.65 if style.top < 0.15 else 0.2  # at the roots; thick hair hides them
    cover = cover * (1 - bare + bare * roots) * style.cover
    if style.cover < 0.9:  # the scalp shows between short hairs
        cover = cover * np.clip(0.75 + 0.4 * rng.standard_normal((CHART, CHART)).astype(np.float32), 0.2, 1)
    colour = who.hair * np.exp(0.40 * strands)[..., None]
    return _mixed(image, colour, cover), strands, cover


def _darker(colour: Array, skin: Array, most: float) -> Array:
    """A colour of hair, at most so bright in shares of the skin; its hue stays."""
    return colour * min(1.0, most * float(skin.mean()) / (float(colour.mean()) + 1e-6))


def _brows(rng: Rng, image: Array, who: Traits) -> tuple[Array, Array]:
    """The brows laid over an image; also how much of each pixel they cover."""
    at, twice = charts(), 2 * CHART
    hairs = np.zeros((twice, twice), dtype=np.uint8)
    arch, gap, height = rng.normal(0, 0.018), rng.normal(0.105, 0.014), rng.normal(0, 0.015)
    thick = rng.uniform(0.024, 0.044) * (1.25 if who.male else 0.85)
    for side in (-1, 1):
        s = rng.random(230) ** 0.9
        rise = np.interp(s, [0, 0.3, 0.65, 1], [7.525, 7.572, 7.60 + arch, 7.525 + 0.3 * arch]) + height
        x, y = gap + s * (0.545 - gap), rise + rng.uniform(-1, 1, len(s)) * thick * (1 - 0.65 * s**1.5)
        lean = np.interp(s, [0, 0.25, 1], [1.3, 0.55, -0.35]) + rng.normal(0, 0.2, len(s))
        ends = np.stack([x, x + 0.05 * np.cos(lean)]), np.stack([y, y + 0.05 * np.sin(lean)])
        pixels = at.at(side * ends[0].astype(np.float32), ends[1].astype(np.float32))  # (2, 2, hairs)
        strokes = np.rint(pixels.transpose(2, 1, 0) * 32).astype(np.int32)
        for stroke, value in zip(strokes, rng.integers(120, 230, len(s)), strict=True):
            cv2.polylines(hairs, [stroke], False, int(value), 1, cv2.LINE_AA, 4)
    small = cv2.resize(hairs, (CHART, CHART), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    share = np.clip(cv2.GaussianBlur(small, (0, 0), 0.7) * rng.uniform(1.3, 2.2), 0, 0.92)
    return _mixed(image, _darker(who.brow * 0.7, who.skin, 0.30), share), share


def _beard(rng: Rng, image: Array, who: Traits, strands: Array) -> Array:
    if not who.beard:
        return image
    area, grain = _places()[who.beard], rng.standard_normal((CHART, CHART)).astype(np.float32)
    if who.beard == "stubble":
        share = area * np.clip(0.5 + 0.3 * _noise(rng, 100) + 0.25 * grain, 0, 1) * rng.uniform(0.12, 0.4)
    else:
        share = area * np.clip(0.85 + 0.2 * strands + 0.12 * grain, 0, 1) * rng.uniform(0.8, 0.95)
    return _mixed(image, _darker(who.brow, who.skin, 0.5) * np.exp(0.3 * strands)[..., None], share)


def _eye(rng: Rng, who: Traits) -> Array:
    y, x = (np.mgrid[:PATCH, :PATCH].astype(np.float32) - PATCH / 2) / 46
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    iris_radius = 0.47
    rays = np.interp(angle, np.linspace(-np.pi, np.pi, 65), rng.uniform(0.75, 1.25, 65))
    iris = who.iris * (rays * (0.7 + 0.7 * np.clip(radius / iris_radius, 0, 1)))[..., None]
    iris = iris * (1 - 0.65 * _edge(radius - iris_radius * 0.9, 0.02))[..., None]
    iris = iris * (1 - _edge(iris_radius * rng.uniform(0.36, 0.46) - radius, 0.012))[..., None]
    veins = 0.30 * np.clip((radius - 0.6) / 0.4, 0, 1)[..., None] * np.array([0.3, 1, 1], dtype=np.float32)
    white = linear((222, 214, 208)) * (1 - veins)
    return _mixed(iris, white, _edge(radius - iris_radius, 0.014))


def _teeth(rng: Rng) -> Array:
    teeth = np.ones((PATCH, PATCH, 3), dtype=np.float32) * linear((234, 222, 198)) * np.float32(rng.uniform(0.8, 1.0))
    for x in (0, 0.085, 0.155, 0.225, 0.285, 0.33):
        for side in (-1, 1):
            teeth[:, int(PATCH / 2 + side * x / 0.34 * 45)] *= 0.65
    away = np.abs(np.arange(PATCH) - PATCH / 2) / 45
    teeth *= (1 - 0.94 * np.clip((away - 0.40) / 0.45, 0, 1) ** 0.8)[None, :, None]  # in the dark of the corners
    gum = np.zeros((PATCH, 1, 1), dtype=np.float32)
    gum[:11] = gum[-11:] = 0.85
    return np.asarray(cv2.GaussianBlur(teeth * (1 - gum) + linear((150, 76, 76)) * gum * 0.8, (0, 0), 0.7))


_GAMMA = (255 * (np.arange(4097) / 4096) ** (1 / 2.2) + 0.5).astype(np.uint8)


def encoded(light: Array) -> np.ndarray:
    """Linear light as bytes, clipped to 0..1."""
    return _GAMMA.take(np.clip(light * 4096, 0, 4096).astype(np.int16))


def paint(who: Traits, style: Style, line: Hairline) -> np.ndarray:
    """The atlas of a person (CHART + PATCH, CHART, 4): red, green, blue, and gloss in steps of 1 / `GLOSS`."""
    rng, at = np.random.default_rng(who.seed), charts()
    image = _lips(rng, _skin(rng, who), who)
    image, strands, cover = _hair(rng, image, who, style, line)
    image, brows = _brows(rng, _beard(rng, image, who, strands), who)
    cover = np.maximum(cover, brows)  # hair shines less than skin
    atlas = np.zeros((CHART + PATCH, CHART, 4), dtype=np.uint8)
    shirt = _edge(5.78 + 0.12 * np.cos(at.angle * 1.3) - at.y, 0.02)
    atlas[:CHART, :, :3] = encoded(
        _mixed(image, linear(np.clip(rng.uniform(30, 215) + rng.normal(0, 22, 3), 15, 235)), shirt)
    )
    oil = rng.uniform(0.6, 1.3)
    atlas[:CHART, :, 3] = GLOSS * oil * (1 + 0.9 * at.lips) * (1 - 0.75 * cover) * (1 - shirt)
    grid = rng.standard_normal((18 if style.curl > 0.5 else 5, 56)).astype(np.float32)
    locks = cv2.resize(grid, (PATCH, PATCH), interpolation=cv2.INTER_LINEAR)
    patches = (
        (_eye(rng, who), 6.0),
        (_teeth(rng), 0.6),
        (np.ones((PATCH, PATCH, 3), dtype=np.float32) * linear((140, 58, 58)), 1.0),
        (who.hair * np.exp(0.42 * locks)[..., None], 0.25),
    )
    for column, (patch, gloss) in enumerate(patches):
        box = np.s_[CHART:, column * PATCH : (column + 1) * PATCH]
        atlas[*box, :3], atlas[*box, 3] = encoded(patch), gloss * GLOSS
    atlas[CHART : CHART + PATCH // 2, 2 * PATCH : 3 * PATCH, :3] = encoded(linear((88, 30, 30)))  # cheeks from inside
    frames = ((24, 22, 22), (58, 38, 26), (120, 112, 100), (40, 44, 62), (96, 30, 34))[int(rng.integers(5))]
    atlas[CHART + PATCH - 6 :, 3 * PATCH :, :3] = np.array(frames, dtype=np.uint8)
    atlas[CHART + PATCH - 6 :, 3 * PATCH :, 3] = 3 * GLOSS
    return atlas
