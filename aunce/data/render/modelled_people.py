"""The people of the modelled faces: shape of the head, resting face, wrinkles, and what is drawn on and beside it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from aunce.data.render.behaviour import AUS
from aunce.data.render.difficulty import Difficulty
from aunce.data.render.modelled_head import LOWER_TEETH, TONGUE, UPPER_TEETH, Head, head, reliefs, sphere
from aunce.data.render.modelled_paint import Traits, linear, paint
from aunce.data.render.modelled_raster import Array, Indices
from aunce.data.render.modelled_tables import HAIRS, IRISES, MIMICS, SKINS
from aunce.data.render.modelled_things import STYLES, Things, hairline, hanging_hair, puffed, spectacles

_SPAN = 0.70  # eyes to mouth, decimetres, of everybody but for 3 %


@dataclass(frozen=True)
class Identity:
    """What stays the same of one person; V vertices with hair and glasses, F triangles, N furrows and bulges a side.

    Attributes:
        base: the resting head (3, V); the first vertices are those of `Head`.
        scale: factor on what units move.
        triangles: of everything opaque (3, F).
        incidence: 1 where one of the first G triangles has a vertex, sparse (V, G). The others are back sides.
        texture, relief: place of each vertex in the atlas and in the charts of furrows (2, V).
        occlusion: share of ambient light, mouth closed and open (2, V).
        atlas: red, green, blue and gloss (rows, columns, 4).
        lash: colour of the lashes, linear (3,).
        rest_shape, rest_furrows: resting activation of units and of furrows and bulges (17,).
        lids: skin around each eye: its vertices, centre of the eye (3, 1), and how near to it each may come.
        sides: strength of each AU on the person's right and left (2, 17).
        furrows: strength of each furrow and bulge on the right and left (2, N).
        seal: how far the jaw drops before the lips part, 0..1.
        traits: what was drawn of the person, by name, for figures and tests.
    """

    base: Array
    scale: float
    triangles: Indices
    incidence: Any
    texture: Array
    relief: Array
    occlusion: Array
    atlas: np.ndarray
    lash: Array
    rest_shape: Array
    rest_furrows: Array
    lids: tuple[tuple[Indices, Array, Array], ...]
    sides: Array
    furrows: Array
    seal: float
    traits: dict[str, str | float | bool]


def traits(rng: np.random.Generator, difficulty: Difficulty) -> Traits:
    """Draw sex, age, ancestry, colours, hair and accessories."""
    male, age = bool(rng.uniform() < 0.5), float(np.clip(rng.beta(1.2, 1.8), 0, 0.95))
    heavy = float(np.clip(rng.normal(0, 0.45), -1, 1))
    ancestry = rng.dirichlet([0.5, 0.5, 0.7])
    tone = float(ancestry @ (3.1, 1.5, 0.7) + rng.normal(0, 0.45))
    tone = float(np.clip(tone, 0, 4))
    table = np.array(SKINS, dtype=np.float64)
    skin = np.array([np.interp(tone, range(len(table)), table[:, c]) for c in range(3)])
    warm = rng.normal(0, 0.018)
    skin = skin * rng.normal(1, 0.025) * (1 + warm, 1, 1 - warm)
    light = ancestry[2] > 0.55 and tone < 1.7
    hair = linear(HAIRS[int(rng.choice(5, p=[0.15, 0.3, 0.3, 0.18, 0.07]) if light else rng.integers(2))])
    hair = hair * np.float32(rng.uniform(0.75, 1.2))
    grey = float(np.clip((age - 0.45) * 2.0, 0, 1) * rng.uniform(0, 1))
    if not male and rng.uniform() < 0.5:
        grey *= 0.2  # coloured
    ash = linear((168, 164, 160))
    brow = hair * (1 - 0.6 * grey) + ash * 0.6 * grey
    hair = hair * (1 - grey) + ash * grey
    iris = IRISES[int(rng.choice(5, p=[0.1, 0.25, 0.2, 0.3, 0.15]) if light else rng.integers(2))]
    recede = float(rng.uniform() ** 2 * age * 1.3) if male else 0.0
    names = list(STYLES)
    chance = np.array([STYLES[name].men if male else STYLES[name].women for name in names])
    if male:
        chance[names.index("bald")] *= 0.4 + 2.2 * age
    style = str(rng.choice(names, p=chance / chance.sum()))
    beard = ""
    if male and rng.uniform() < min(1.0, 2 * difficulty.accessories):
        beard = str(rng.choice(["full", "moustache", "goatee"], p=[0.5, 0.2, 0.3]))
    elif male and rng.uniform() < 0.4:
        beard = "stubble"
    return Traits(
        male, age, heavy, ancestry.astype(np.float32), linear(skin), hair, brow, linear(iris), tone, grey, recede,
        style, beard, bool(rng.uniform() < difficulty.accessories), int(rng.integers(2**31)),
    )  # fmt: skip


@functools.cache
def _limits() -> Array:
    """SD of each identity pair, as a share of its target (S,): narrower where the whole width looks like no one."""
    out = []
    for name in head().shape_names:
        limit = 0.26
        if "trans" in name and not name.startswith(("eyes", "mouth", "nose")):
            limit *= 0.2
        if name.startswith("head:head-a") or "ears" in name or "temple" in name:
            limit *= 0.4
        if any(part in name for part in ("angle", "scale-horiz", "septum", "trans")):
            limit *= 0.6
        if name.startswith("head:") and "-scale" not in name:
            limit *= 0.5
        if name.startswith("mouth"):
            limit *= 0.6
        out.append(limit)
    return np.array(out, dtype=np.float32)


def _skull(it: Head, rng: np.random.Generator, who: Traits, spread: float) -> tuple[Array, Array]:
    """The head of a person, without and with the shape of its features (3, V)."""
    weight = np.zeros(len(it.macro_names), dtype=np.float32)
    man = float(np.clip(who.male + rng.normal(0, 0.12), 0, 1))
    mass = {"min": max(-who.heavy, 0), "average": 1 - abs(who.heavy), "max": max(who.heavy, 0)}
    for sex, share in (("female", 1 - man), ("male", man)):
        for age, part in (("young", 1 - who.age), ("old", who.age)):
            for name, amount in mass.items():
                weight[it.macro_names.index(f"u-{sex}-{age}-{name}")] += share * part * amount
            for name, amount in zip(("african", "asian", "caucasian"), who.ancestry, strict=True):
                weight[it.macro_names.index(f"r-{name}-{sex}-{age}")] += share * part * amount
    whole = it.base + (it.macro @ weight).reshape(3, -1)
    limit = _limits() * spread
    k = np.clip(limit * rng.standard_normal(len(limit)), -2.6 * limit, 2.6 * limit).astype(np.float32)
    pairs = np.stack([np.maximum(-k, 0), np.maximum(k, 0)], axis=1).ravel()
    return whole, whole + (it.shape @ pairs).reshape(3, -1)


def identity(rng: np.random.Generator, difficulty: Difficulty) -> Identity:
    """Draw a person."""
    it, who = head(), traits(rng, difficulty)
    whole, v = _skull(it, rng, who, difficulty.identity_spread)
    mimic = np.array([au in MIMICS for au in AUS])
    shape, marks = (np.maximum(0, rng.normal(-0.1, 1.0, len(AUS))) * mimic * difficulty.mimicry for _ in range(2))
    table = reliefs()[1]
    strength = np.exp(rng.normal(0, 0.45, table.shape[1])) * np.where(rng.random(table.shape[1]) < 0.15, 0.25, 1.0)
    furrows = strength * np.exp(rng.normal(0, 0.12, (2, table.shape[1])))
    # Eyes to mouth is the same in everybody's picture; the scalp carries the hair, the teeth follow the mouth.
    right, left = (v[:, eye].mean(1) for eye in it.eyes)
    lips = it.skin & (it.masks["lips"] > 0.5)
    eyes, mouth = (right + left) / 2, v[:, lips].mean(1)
    scale = float(_SPAN / np.linalg.norm(eyes - mouth) * (1 + 0.03 * rng.standard_normal()))
    inner = np.isin(it.kind, (UPPER_TEETH, LOWER_TEETH, TONGUE))
    v[:, inner] += (mouth - whole[:, lips].mean(1))[:, None] - (v[:, inner].mean(1) - whole[:, inner].mean(1))[:, None]
    width = np.ptp(v[0, lips]) / np.ptp(it.template[0, lips])
    v[0, inner] = mouth[0] + (v[0, inner] - mouth[0]) * 0.86 * min(width, 1.05)
    v[1, inner] -= 0.02
    v[2, inner] -= 0.03
    style, line = STYLES[who.style], hairline(rng, who.style, who.recede)
    v = puffed(it, v, line, style, rng)
    things = [hanging_hair(it, v, style, rng)] if style.length else []
    if who.glasses:
        things.append(spectacles(v, right, left, rng))
    base, triangles, fronts, texture, relief, occlusion = _joined(it, v, things, rng)
    origin = (eyes * 0.55 + mouth * 0.45)[:, None]
    base = ((base - origin) * np.float32(scale)).astype(np.float32)
    return Identity(
        base=base,
        scale=scale,
        triangles=triangles,
        incidence=_incidence(triangles[:, :fronts], base.shape[1]),
        texture=texture,
        relief=relief,
        occlusion=occlusion,
        atlas=paint(who, style, line),
        lash=np.minimum(who.hair * 0.4, 0.02).astype(np.float32),
        rest_shape=(0.18 * shape).astype(np.float32),
        rest_furrows=(0.06 * shape + (0.05 + 0.30 * who.age) * marks).astype(np.float32),
        lids=tuple(_lids(it, base, eye) for eye in it.eyes),
        sides=np.clip(1 + 0.08 * rng.standard_normal((2, len(AUS))), 0.7, 1.3).astype(np.float32),
        furrows=furrows.astype(np.float32),
        seal=float(rng.uniform(0.2, 1.0)),
        traits={"male": who.male, "age": who.age, "style": who.style, "beard": who.beard, "glasses": who.glasses,
                "tone": who.tone, "grey": who.grey},
    )  # fmt: skip


def _lids(it: Head, base: Array, eye: Indices) -> tuple[Indices, Array, Array]:
    """Skin around an eye, and how near to the eye's centre it may come: lids slide over the eye, not into it."""
    centre, radius = sphere(base[:, eye])
    off = base[:, : len(it.kind)] - centre
    away = np.linalg.norm(off, axis=0)
    near = np.flatnonzero(it.skin & (away < 2 * radius) & (off[2] > 0))
    return near, centre, np.minimum(away[near], np.float32(1.06 * radius))


def _incidence(triangles: Indices, vertices: int) -> Any:
    count = triangles.shape[1]
    ones, owner = np.ones(3 * count, dtype=np.float32), np.tile(np.arange(count), 3)
    return csr_array((ones, (triangles.ravel(), owner)), shape=(vertices, count))


def _joined(
    it: Head, v: Array, things: list[Things], rng: np.random.Generator
) -> tuple[Array, Indices, int, Array, Array, Array]:
    """Head, hair and glasses as one mesh; how many triangles are no back sides; the person's places of furrows."""
    # A smooth field of a few waves moves the furrows over the face, differently on both sides.
    waves, phases = rng.normal(0, 2.6, (3, 6)), rng.uniform(0, 2 * np.pi, (2, 6))
    ways = rng.normal(0, 1.6, (2, 6))
    angle = np.tensordot(waves, it.template - np.array([[0.0], [7.2], [1.2]]), (0, 0))  # (6, V)
    moved = np.stack([(ways[c][:, None] * np.sin(angle + phases[c][:, None])).sum(0) for c in (0, 1)])
    relief = it.texture + moved.astype(np.float32)
    off_skin = ~it.skin
    relief[:, off_skin] = -10.0
    start, bases, triangles, backs = v.shape[1], [v], [it.triangles], []
    textures, reliefs_, occlusions = [it.texture], [relief], [it.occlusion]
    for thing in things:
        bases.append(thing.vertices)
        triangles.append(thing.triangles + start)
        backs.append(triangles[-1][::-1])
        textures.append(thing.texture)
        reliefs_.append(np.full_like(thing.texture, -10.0))
        occlusions.append(np.broadcast_to(thing.occlusion, (2, thing.vertices.shape[1])))
        start += thing.vertices.shape[1]
    arrays = [np.concatenate(parts, axis=1).astype(np.float32) for parts in (bases, textures, reliefs_, occlusions)]
    fronts = sum(part.shape[1] for part in triangles)
    both = np.ascontiguousarray(np.concatenate(triangles + backs, axis=1))
    return arrays[0], both, fronts, arrays[1], arrays[2], arrays[3]
