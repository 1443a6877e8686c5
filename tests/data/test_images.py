"""Packs: the pixels, what broken images lead to, and that a pack is whole or refused."""

import collections
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from aunce import cli
from aunce.data import bp4d, faces, images, layout, load
from aunce.data.frames import FrameTable, Protocol
from aunce.data.images import open_pack, pack
from aunce.data.recipes import EYES, Recipe
from aunce.data.render.difficulty import SETTINGS
from aunce.data.render.population import Population
from aunce.data.render.population import faces as draw_faces
from aunce.errors import DataError, UsageError

PROTOCOL = Protocol("toy", (1, 2), {"1": frozenset({"A"}), "2": frozenset({"B"})})
DETAIL = np.random.default_rng(0).integers(0, 256, (6, 40, 60, 3), dtype=np.uint8)  # wider than high


def encode(rgb, suffix, quality=95):
    _, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


def toy(root, suffix=".png", contents=DETAIL):
    """Six frames of two subjects."""
    rows = []
    for i, rgb in enumerate(contents):
        subject, name = "AAABBB"[i], f"{i}{suffix}"
        (root / name).write_bytes(encode(rgb, suffix))
        rows.append((subject, "T1", i, name, PROTOCOL.part_of[subject], np.int8(i % 2), np.int8(-(i % 2))))
    frames = pd.DataFrame(rows, columns=["subject", "sequence", "frame", "image", "part", "AU1", "AU2"])
    return FrameTable(frames.astype({"AU1": "int8", "AU2": "int8"}), PROTOCOL)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_crop_is_the_centred_square_averaged_over_areas_in_rgb(root, tmp_path):
    made = pack(toy(root), root, tmp_path / "pack", recipe=Recipe(20))
    square = DETAIL[:, :, 10:50].astype(float)
    expected = square.reshape(6, 20, 2, 20, 2, 3).mean(axis=(2, 4))
    assert made.images.shape == (6, 20, 20, 3)
    assert np.abs(made.images - expected).max() <= 0.5


def test_portrait_landscape_and_fitting_images_keep_their_middle(root, tmp_path):
    marked = np.zeros((6, 48, 48, 3), np.uint8)
    marked[:, 20:28, 20:28] = (255, 128, 0)
    padded = [
        np.pad(m, ((p, p), (q, q), (0, 0))) for m, (p, q) in zip(marked, [(0, 0), (9, 0), (0, 9)] * 2, strict=True)
    ]
    made = pack(toy(root, contents=padded), root, tmp_path / "pack")
    assert (made.images == marked).all()


def test_open_pack_returns_what_was_packed_without_reading_the_images(root, tmp_path):
    table = toy(root)
    made, again = pack(table, root, tmp_path / "pack", recipe=Recipe(16)), open_pack(tmp_path / "pack")
    assert (again.hash, again.recipe, again.latents) == (made.hash, Recipe(16).content, None)
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert (again.images == made.images).all()
    pd.testing.assert_frame_equal(again.table.frames, table.frames)
    files = {"checked.json", "images.npy", "frames.parquet", "pack.json", "skipped.csv"}
    assert {path.name for path in (tmp_path / "pack").iterdir()} == files


def test_threads_change_no_byte_and_progress_reaches_the_end(root, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 2)
    table, seen = toy(root), []
    one = pack(table, root, tmp_path / "one", progress=lambda done, total: seen.append((done, total)))
    many = pack(table, root, tmp_path / "many", workers=3)
    assert seen == [(2, 6), (4, 6), (6, 6)]
    assert many.hash == one.hash
    assert (tmp_path / "one" / "images.npy").read_bytes() == (tmp_path / "many" / "images.npy").read_bytes()


def test_hash_moves_with_pixels_labels_frames_parts_and_recipe_and_not_with_names_of_files(root, tmp_path):
    table = toy(root)
    frames = table.frames
    hashes = [pack(table, root, tmp_path / "plain").hash, pack(table, root, tmp_path / "size", recipe=Recipe(47)).hash]
    changed = {
        "label": FrameTable(frames.assign(AU2=np.int8(0)), PROTOCOL),
        "frame": FrameTable(frames.assign(frame=frames["frame"] + 1), PROTOCOL),
        "protocol": FrameTable(frames, Protocol("same AUs", (1, 2), PROTOCOL.parts)),
        "null": FrameTable(frames, Protocol("toy", (1,), PROTOCOL.parts), (2,)),
        "fewer": FrameTable(frames.iloc[:5], PROTOCOL),
    }
    hashes += [pack(table, root, tmp_path / name).hash for name, table in changed.items()]
    (root / "moved").mkdir()
    for name in frames["image"]:
        shutil.copy(root / name, root / "moved" / name)
    moved = FrameTable(frames.assign(image="moved/" + frames["image"]), PROTOCOL)
    assert pack(moved, root, tmp_path / "moved").hash == hashes[0]
    (root / "3.png").write_bytes(encode(DETAIL[3] // 2, ".png"))
    hashes.append(pack(table, root, tmp_path / "pixels").hash)
    assert max(collections.Counter(hashes).values()) == 1
    assert all(len(name) == 8 for name in hashes)


def thumbnail_jpeg(rgb):
    """A JPEG with a whole JPEG in its header, as cameras write."""
    data, small = encode(rgb, ".jpg"), encode(rgb[:8, :8], ".jpg")
    return data[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2) + small + data[2:]


def test_whole_jpegs_with_thumbnail_or_trailing_bytes_are_accepted(root, tmp_path):
    table = toy(root, ".jpg")
    (root / "0.jpg").write_bytes(thumbnail_jpeg(DETAIL[0]))
    (root / "1.jpg").write_bytes(encode(DETAIL[1], ".jpg") + b"\x00" * 40)
    _, progressive = cv2.imencode(
        ".jpg", DETAIL[2], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    )
    (root / "2.jpg").write_bytes(progressive.tobytes())
    assert len(pack(table, root, tmp_path / "pack").images) == 6


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("make", [lambda rgb: encode(rgb, ".jpg"), thumbnail_jpeg], ids=["plain", "with thumbnail"])
def test_jpeg_cut_anywhere_is_refused_and_not_filled_with_grey(root, tmp_path, make, share):
    table = toy(root, ".jpg")
    data = make(DETAIL[4])
    (root / "4.jpg").write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"1 of 6 images cannot be used, more than 1%\. .*4\.jpg: .*Copy them again"):
        pack(table, root, tmp_path / "pack")


def png(width, height):
    """The header of a PNG of this size, and nothing that it promises."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "the file is truncated"),
        (lambda path: path.write_bytes(b""), "no image that OpenCV can read"),
        (lambda path: path.write_text("<html>login</html>"), "no image that OpenCV can read"),
        (lambda path: path.write_bytes(png(100_000, 100_000)), "images of more than 100,000,000 pixels are not read"),
        (lambda path: path.write_bytes(png(20_000, 20_000)), "images of more than 100,000,000 pixels are not read"),
        (lambda path: path.write_bytes(png(3, 3)), "no image that OpenCV can read"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
    ids=["truncated PNG", "empty", "web page", "bomb", "too large", "no pixels", "gone", "folder"],
)
def test_unusable_image_is_named_with_its_reason(root, tmp_path, spoil, message):
    table = toy(root)
    spoil(root / "2.png")
    with pytest.raises(DataError, match=rf"2\.png: {message}"):
        pack(table, root, tmp_path / "pack")
    with pytest.raises(DataError, match="packing was not finished"):
        open_pack(tmp_path / "pack")


def test_all_broken_images_are_counted_and_five_named_and_mending_them_is_enough(root, tmp_path):
    table = toy(root)
    whole = (root / "0.png").read_bytes()
    for i in range(6):
        (root / f"{i}.png").write_bytes(whole[:50])
    with pytest.raises(DataError, match="6 of 6 images") as error:
        pack(table, root, tmp_path / "pack", workers=2)
    assert [f"{i}.png" in str(error.value) for i in range(6)] == [True] * 5 + [False]
    for i in range(6):
        (root / f"{i}.png").write_bytes(whole)
    assert len(pack(table, root, tmp_path / "pack").images) == 6


def test_rows_without_image_are_refused_before_anything_is_written(root, tmp_path):
    frames = toy(root).frames
    frames.loc[[1, 4], "image"] = ""
    with pytest.raises(DataError, match="2 of 6 frames have no image: A/T1/1, B/T1/4"):
        pack(FrameTable(frames, PROTOCOL), root, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_too_little_disk_space_is_refused_before_anything_is_written(root, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: collections.namedtuple("U", "free")(60_000_000))
    with pytest.raises(DataError, match=r"a pack of 0\.1 GB does not fit, 0\.1 GB are free"):
        pack(toy(root), root, tmp_path / "deep" / "pack")
    assert not (tmp_path / "deep").exists()


def test_a_finished_pack_is_reused_and_one_of_something_else_is_not_overwritten(root, tmp_path):
    table = toy(root)
    made = pack(table, root, tmp_path / "pack")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "pack").iterdir()}
    assert pack(table, root, tmp_path / "pack").hash == made.hash
    for other, recipe in ((FrameTable(table.frames.iloc[:5], PROTOCOL), Recipe()), (table, Recipe(32))):
        with pytest.raises(UsageError, match="holds a pack of other"):
            pack(other, root, tmp_path / "pack", recipe=recipe)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "pack").iterdir()} == before
    (root / "thesis.txt").touch()
    with pytest.raises(UsageError, match="is no pack"):
        pack(table, root, root)


def test_whoever_comes_second_waits_and_finds_the_pack_of_the_first(root, tmp_path):
    table, reached, goes_on = toy(root), threading.Event(), threading.Event()

    def stop(done, total):
        reached.set()
        assert goes_on.wait(60)

    with ThreadPoolExecutor(2) as both:
        first = both.submit(pack, table, root, tmp_path / "pack", recipe=Recipe(16), progress=stop)
        assert reached.wait(60)
        cropped = []
        second = both.submit(
            pack, table, root, tmp_path / "pack", recipe=Recipe(16), progress=lambda *_: cropped.append(1)
        )
        goes_on.set()
        assert first.result().hash == second.result().hash
    assert cropped == []
    assert (open_pack(tmp_path / "pack").images == first.result().images).all()


def test_pack_whose_files_do_not_belong_together_is_refused(root, tmp_path):
    table, place = toy(root), tmp_path / "pack"
    pack(table, root, place, recipe=Recipe(16))
    kept = {path.name: path.read_bytes() for path in place.iterdir()}

    def spoil(name, content):
        for other, data in kept.items():
            (place / other).write_bytes(data)
        (place / name).write_bytes(content)

    FrameTable(table.frames.assign(AU2=np.int8(1)), PROTOCOL).to_parquet(tmp_path / "other.parquet")
    spoil("frames.parquet", (tmp_path / "other.parquet").read_bytes())
    with pytest.raises(DataError, match=r"frames\.parquet: .*not the file that was written with this pack"):
        open_pack(place)
    spoil("images.npy", kept["images.npy"][:500])
    with pytest.raises(DataError, match=r"images\.npy: cannot be used.*Remove the pack"):
        open_pack(place)
    np.save(tmp_path / "other.npy", np.zeros((6, 16, 16), np.uint8))
    spoil("images.npy", (tmp_path / "other.npy").read_bytes())
    with pytest.raises(DataError, match=r"images.npy: .*uint8 \(6, 16, 16\), and not uint8 \(6, 16, 16, 3\)"):
        open_pack(place)
    index = json.loads(kept["pack.json"])
    for content in (b"{", b"{}", b"null", b"[" * 100_000, b"\xff", json.dumps(index | {"recipe": 3}).encode()):
        spoil("pack.json", content)
        with pytest.raises(DataError, match=r"pack\.json: cannot be used.*Remove the pack"):
            open_pack(place)
    del index["files"]  # of an earlier version
    spoil("frames.parquet", (tmp_path / "other.parquet").read_bytes())
    (place / "pack.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"frames\.parquet: .*not the table of this pack"):
        open_pack(place)


def test_a_bit_that_is_flipped_in_any_file_of_a_pack_is_found(root, tmp_path):
    table, place = toy(root), tmp_path / "pack"
    made = pack(table, root, place, recipe=Recipe(16))
    for name in ("frames.parquet", "skipped.csv", "images.npy", "pack.json"):
        kept = (place / name).read_bytes()
        for at in np.linspace(0, len(kept) - 1, 25).astype(int):
            content = bytearray(kept)
            content[at] ^= 1
            (place / name).write_bytes(content)
            if name == "pack.json":  # where white space, and names of hashes that earlier versions lack, are harmless
                with contextlib.suppress(DataError):
                    assert open_pack(place).hash == made.hash
            else:
                with pytest.raises(DataError, match=re.escape(name)):
                    open_pack(place)
        (place / name).write_bytes(kept)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EMFILE, "raise the limit"), (errno.EACCES, "Make the place readable"), (errno.EIO, "nothing has to be")],
)
def test_a_pack_that_the_machine_cannot_open_is_not_to_be_removed(number, remedy, root, tmp_path, monkeypatch):
    pack(toy(root), root, tmp_path / "pack", recipe=Recipe(16))

    def refuse(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    for module, name in ((np, "load"), (pd, "read_csv"), (hashlib, "file_digest")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            with pytest.raises(DataError, match=remedy) as raised:
                open_pack(tmp_path / "pack")
            assert "Remove the pack" not in str(raised.value)


def test_a_folder_without_pack_and_a_bad_recipe_are_refused(tmp_path, root):
    with pytest.raises(DataError, match=r"no pack \(pack.json is not there\)"):
        open_pack(tmp_path)
    with pytest.raises(UsageError, match="size of the crops is 0"):
        Recipe(0)
    with pytest.raises(UsageError, match="alignment 'eyes' is unknown"):
        Recipe(align="eyes")
    with pytest.raises(UsageError, match="no such file"):
        pack(toy(root), root, tmp_path / "pack", recipe=Recipe(align="detector", detector="nowhere.onnx"))
    with pytest.raises(UsageError, match="landmarks of every frame, and the data set ships none"):
        pack(toy(root), root, tmp_path / "pack", recipe=Recipe(align="landmarks"))
    with pytest.raises(UsageError, match="workers is 0"):
        pack(toy(root), root, tmp_path / "pack", workers=0)
    assert Recipe().hash == Recipe(48).hash != Recipe(64).hash


def test_rendered_pack_carries_latents_in_the_order_of_its_rows_and_its_banner(tmp_path):
    bp4d.write(tmp_path / "faces", subjects=3, frames=2, size=32, seed=3)
    for name in (tmp_path / "faces" / "F001" / "T1").iterdir():
        name.unlink()  # the latents hold frames that the table lacks
    table = load("bp4d", tmp_path / "faces")
    made = pack(table, tmp_path / "faces", tmp_path / "pack", recipe=Recipe(24))
    assert made.table.synthetic == table.synthetic
    assert made.table.missing_images == table.missing_images != ()
    keys = ["subject", "sequence", "frame"]
    pd.testing.assert_frame_equal(made.latents[keys], table.frames[keys])
    present = made.latents[[f"AU{au}" for au in bp4d.AUS]].to_numpy() >= 1
    assert (present == (table.labels[:, :-1] == 1)).all()
    some, file = layout.latents(tmp_path / "faces").iloc[:-1], tmp_path / "faces" / "synthetic_latents.parquet"
    some.to_parquet(file)
    with pytest.raises(DataError, match="no latent intensities of 1 frames"):
        pack(table, tmp_path / "faces", tmp_path / "another")
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-20], whole[:4] + bytes(100) + whole[104:], b"PAR1PAR1"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"(?s)faces/synthetic_latents\.parquet: cannot be used, .* it again"):
            pack(table, tmp_path / "faces", tmp_path / "another")
    pd.concat([some, some]).to_parquet(file)
    with pytest.raises(DataError, match=r"latents\.parquet: cannot be used"):
        pack(table, tmp_path / "faces", tmp_path / "another")
    some.drop(columns="frame").to_parquet(file)
    with pytest.raises(DataError, match=r"latents\.parquet: cannot be used"):
        pack(table, tmp_path / "faces", tmp_path / "another")


def test_rendered_pack_of_another_rendering_with_equal_labels_is_not_taken_for_it(root, tmp_path, monkeypatch):
    plain = toy(root)
    latents = plain.frames[["subject", "sequence", "frame"]].assign(AU1=np.float32(0))
    monkeypatch.setattr(layout, "latents", lambda place: latents)
    one, two = (FrameTable(plain.frames, PROTOCOL, synthetic={"version": version}) for version in (1, 2))
    pack(one, root, tmp_path / "pack")
    with pytest.raises(UsageError, match="holds a pack of other"):
        pack(two, root, tmp_path / "pack")
    assert json.loads((tmp_path / "pack" / "pack.json").read_text())["hash"] == open_pack(tmp_path / "pack").hash


# Alignment


def dotted(eyes, size=(300, 400), radius=4):
    """A black image with a red dot for the left eye and a green one for the right eye."""
    image = np.zeros((*size, 3), np.uint8)
    for (x, y), colour in zip(eyes, ((255, 0, 0), (0, 255, 0)), strict=True):
        cv2.circle(image, (round(x * 16), round(y * 16)), radius * 16, colour, -1, cv2.LINE_AA, 4)
    return image


def centre_of(crop, channel):
    weight = np.maximum(crop[..., channel].astype(float) - crop[..., 2], 0)  # grey, outside the image, weighs nothing
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("size", [32, 112, 256])
@pytest.mark.parametrize("eyes", [[(150, 140), (250, 140)], [(160.5, 150.25), (220, 120)], [(170, 150), (200, 160)]])
def test_eyes_come_to_lie_where_the_recipe_says_at_any_scale_and_tilt(size, eyes):
    distance = np.hypot(*np.subtract(*eyes))
    crop = images.align(dotted(eyes, radius=max(2, round(distance / 12))), np.array(eyes), size)
    assert crop.shape == (size, size, 3)
    for channel, wanted in enumerate(EYES):
        assert centre_of(crop, channel) == pytest.approx(np.array(wanted) * size - 0.5, abs=0.35 + 0.004 * size)


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = images.align(stripes, np.array([(250.0, 300.0), (550.0, 300.0)]), 64)
    assert np.abs(crop[20:44, 20:44].astype(float) - 127.5).max() < 40


def test_outside_the_image_is_grey_and_never_an_error():
    for eyes in ([(5, 5), (60, 5)], [(-400, -400), (-300, -400)], [(2000, 100), (2900, 100)]):
        crop = images.align(np.full((80, 80, 3), 9, np.uint8), np.array(eyes, float), 48)
        assert set(np.unique(crop[0])) <= {*range(9, 129)}
    assert (crop == 128).all()


def test_landmarks_align_and_frames_without_them_are_left_out_and_listed(root, tmp_path):
    eyes = np.array([[[20, 15], [40, 15]]] * 6, dtype=np.float32)
    eyes[4] = np.nan
    contents = [dotted(pair, (40, 60), 2) if np.isfinite(pair).all() else DETAIL[0] for pair in eyes]
    table = toy(root, contents=contents)
    made = pack(table, root, tmp_path / "pack", recipe=Recipe(64, "landmarks"), eyes=eyes)
    assert (made.no_face, made.broken) == (("B/T1/4",), ())
    assert made.table.frames["frame"].tolist() == [0, 1, 2, 3, 5]
    assert made.images.shape == (5, 64, 64, 3)
    plain = pack(table, root, tmp_path / "plain", recipe=Recipe(64))
    assert plain.hash != made.hash
    for crop in made.images:
        assert centre_of(crop, 0) == pytest.approx(np.array(EYES[0]) * 64 - 0.5, abs=0.6)
    again = pack(table, root, tmp_path / "pack", recipe=Recipe(64, "landmarks"), eyes=eyes)
    assert (again.hash, again.no_face) == (made.hash, made.no_face)


@pytest.mark.parametrize(("side", "reduced"), [(100, 1), (151, 2), (301, 4)])
def test_a_large_face_is_reduced_while_it_is_decoded_and_looks_the_same(tmp_path, monkeypatch, side, reduced):
    """Against the whole image, averaged and turned by `align` alone, for odd sides too."""
    intensities = np.zeros((1, 17))
    intensities[0, 4] = 4
    face = cv2.resize(draw_faces(intensities, identity_seed=1, size=512)[0], (side, side), interpolation=cv2.INTER_AREA)
    (tmp_path / "F001" / "T1").mkdir(parents=True)
    name = "F001/T1/1.jpg"
    cv2.imwrite(str(tmp_path / name), face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    frames = pd.DataFrame({"subject": ["F001"], "sequence": ["T1"], "frame": [1], "image": [name], "part": ["1"]})
    table = FrameTable(frames.assign(AU1=np.int8(1)), Protocol("one", (1,), {"1": frozenset({"F001"})}))
    eyes = np.array([[[0.36, 0.41], [0.64, 0.45]]], dtype=np.float32) * side
    decode, scales = images._decode, []
    monkeypatch.setattr(images, "_decode", lambda path, scale: scales.append(scale) or decode(path, scale))
    made = images.pack(table, tmp_path, tmp_path / "pack", recipe=Recipe(48, "landmarks"), eyes=eyes)
    assert scales == [reduced]
    whole = images.align(face, eyes[0], 48)
    assert np.abs(made.images[0].astype(int) - whole).mean() < 2.5
    moved = images.align(face, eyes[0] + side / 48, 48)
    assert np.abs(moved.astype(int) - whole).mean() > 2 * np.abs(made.images[0].astype(int) - whole).mean()


def test_the_detector_finds_rendered_faces_and_puts_their_eyes_near_the_true_ones(tmp_path):
    population = Population(
        bp4d.LAYOUT.people(6),
        rates={name: {} for name in bp4d.LAYOUT.people(6)},
        difficulty=SETTINGS["easy"],
        seed=1,
    )
    detect, found, errors = faces.face_detector("cascade"), 0, []
    for subject in population.subjects:
        behaviour = population.sequence(subject, "T1", np.array([1.0, 4.0]))
        shown = population.images(subject, behaviour, size=128)
        for image, marks in zip(shown, population.landmarks(subject, behaviour, size=128), strict=True):
            detected, true = detect(image), np.array([marks[19:25].mean(0), marks[25:31].mean(0)])
            if detected:
                found += 1
                errors.append(np.abs(detected[0].eyes - true).max() / np.hypot(*(true[1] - true[0])))
    assert found >= 8
    assert np.median(errors) < 0.2
    assert detect(np.full((100, 100, 3), 90, np.uint8)) == []


def test_an_image_without_room_for_a_face_is_listed_and_ends_nothing(tmp_path):
    drawn = draw_faces(np.zeros((2, 17)), identity_seed=1, size=96)
    shown = [drawn[0], np.zeros((1, 1, 3), np.uint8), np.zeros((500, 1, 3), np.uint8), drawn[1]]
    for number, image in enumerate(shown):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[..., ::-1])
    names = [f"{number}.png" for number in range(4)]
    frames = pd.DataFrame({"subject": "A", "sequence": "T1", "frame": range(4), "image": names, "part": "1"})
    frames = frames.assign(AU1=np.array([0, 1, 0, 1], np.int8))
    table = FrameTable(frames, Protocol("one", (1,), {"1": frozenset({"A"})}))
    made = pack(table, tmp_path, tmp_path / "pack", recipe=Recipe(32, "detector"))
    assert made.no_face == ("A/T1/1", "A/T1/2")
    assert list(made.table.frames["frame"]) == [0, 3]


def test_an_image_that_opencv_refuses_is_a_data_error():
    with pytest.raises(DataError, match="no face can be found in"):
        images.crop_faces(np.zeros((40, 40, 3), np.uint8), 32, lambda image: cv2.resize(image, (0, 0)))


def test_a_detector_that_finds_nothing_says_so(root, tmp_path):
    with pytest.raises(DataError, match="no face was found in any of the 6 images"):
        pack(toy(root), root, tmp_path / "pack", recipe=Recipe(32, "detector"))


# Large and broken data sets


def repeated(root, count):
    """A table of `count` frames that share a few images."""
    names = np.array([f"{i}.png" for i in range(6)])[np.arange(count) % 6]
    frames = pd.DataFrame({"subject": "A", "sequence": "T1", "frame": np.arange(count), "image": names, "part": "1"})
    frames = frames.assign(AU1=np.int8(0), AU2=np.int8(1)).astype({"subject": str, "sequence": str, "part": str})
    toy(root)
    return FrameTable(frames, PROTOCOL)


def test_few_broken_images_are_left_out_and_listed_and_the_rest_closes_up(root, tmp_path):
    table = repeated(root, 400)
    (root / "broken.png").write_bytes(b"")
    frames = table.frames.copy()
    frames.loc[[0, 7, 250], "image"] = "broken.png"
    made = pack(FrameTable(frames, PROTOCOL), root, tmp_path / "pack", recipe=Recipe(16), workers=2)
    assert made.broken == ("A/T1/0", "A/T1/7", "A/T1/250")
    whole = pack(table, root, tmp_path / "whole", recipe=Recipe(16))
    kept = np.setdiff1d(np.arange(400), [0, 7, 250])
    assert (made.images == whole.images[kept]).all()
    assert (made.table.frames["frame"] == kept).all()
    frames.loc[[8, 9], "image"] = "broken.png"
    with pytest.raises(DataError, match="5 of 400 images cannot be used, more than 1%"):
        pack(FrameTable(frames, PROTOCOL), root, tmp_path / "other", recipe=Recipe(16))


def test_an_interrupted_pack_continues_where_it_was_and_ends_with_the_same_bytes(root, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 10)
    table, seen = repeated(root, 100), []
    whole = pack(table, root, tmp_path / "whole", recipe=Recipe(16))

    def stop(done, total):
        if done >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(table, root, tmp_path / "pack", recipe=Recipe(16), progress=stop)
    with pytest.raises(DataError, match="packing was not finished"):
        open_pack(tmp_path / "pack")
    decoded = []
    decode = images._decode
    monkeypatch.setattr(images, "_decode", lambda path, *scale: decoded.append(path) or decode(path, *scale))
    made = pack(
        table, root, tmp_path / "pack", recipe=Recipe(16), progress=lambda done, total: seen.append((done, total))
    )
    assert len(decoded) <= 50
    assert seen[0][0] >= 50
    assert seen[-1] == (100, 100)
    assert made.hash == whole.hash
    assert (tmp_path / "pack" / "images.npy").read_bytes() == (tmp_path / "whole" / "images.npy").read_bytes()


def test_an_interrupted_pack_of_other_crops_begins_anew(root, tmp_path):
    table = repeated(root, 100)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(table, root, tmp_path / "pack", recipe=Recipe(16), progress=stop)
    made = pack(table, root, tmp_path / "pack", recipe=Recipe(20))
    assert made.hash == pack(table, root, tmp_path / "whole", recipe=Recipe(20)).hash


def video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (64, 48))
    for level in frames:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()


def of_video(name, numbers):
    frames = pd.DataFrame({"subject": "A", "sequence": "video", "frame": np.array(numbers) + 1, "part": "1"})
    frames.insert(3, "image", [f"{name}#{number}" for number in numbers])
    frames = frames.assign(AU1=np.int8(0), AU2=np.int8(1)).astype({"subject": str, "sequence": str, "part": str})
    return FrameTable(frames, PROTOCOL)


def test_frames_of_a_video_are_decoded_by_their_number(root, tmp_path):
    video(root / "one.avi", range(0, 250, 10))
    numbers = [0, 1, 5, 6, 20, 24]
    made = pack(of_video("one.avi", numbers), root, tmp_path / "pack", recipe=Recipe(16))
    assert np.abs(made.images.mean(axis=(1, 2, 3)) - 10 * np.array(numbers)).max() < 4


def test_a_video_that_ends_early_or_cannot_be_opened_is_named(root, tmp_path):
    video(root / "one.avi", range(10))
    with pytest.raises(DataError, match=r"1 of 3 images.*one\.avi: frame 10 of the video cannot be decoded"):
        pack(of_video("one.avi", [8, 9, 10]), root, tmp_path / "pack", recipe=Recipe(16))
    (root / "two.avi").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"two\.avi: frame 0 of the video cannot be decoded"):
        pack(of_video("two.avi", [0]), root, tmp_path / "other", recipe=Recipe(16))


def test_pixels_that_were_not_packed_are_refused_once_the_file_has_changed(root, tmp_path):
    made = pack(toy(root), root, tmp_path / "pack")
    path = tmp_path / "pack" / "images.npy"
    hashed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_hash_pixels", lambda crops: hashed.append(1) or made.hash)
        open_pack(tmp_path / "pack")  # nothing has changed since it was made
    assert hashed == []
    whole = path.read_bytes()
    path.write_bytes(whole[:128] + bytes(255 - byte for byte in whole[128:]))
    for _ in range(2):
        with pytest.raises(DataError, match="not the pixels that were packed"):
            open_pack(tmp_path / "pack")
    path.write_bytes(whole)
    assert open_pack(tmp_path / "pack").hash == made.hash
    state = path.stat()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    result = CliRunner().invoke(cli.main, ["data", "verify", str(tmp_path / "pack")])
    assert result.exit_code == 1
    assert "not the pixels that were packed" in result.output
    path.write_bytes(whole)
    result = CliRunner().invoke(cli.main, ["data", "verify", str(tmp_path / "pack")])
    assert result.exit_code == 0, result.output
    assert "labels and pixels of 6 crops are what was packed" in result.output


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", "[" * 100_000])
def test_a_damaged_note_of_what_was_compared_is_no_obstacle(root, tmp_path, content):
    made = pack(toy(root), root, tmp_path / "pack")
    (tmp_path / "pack" / "checked.json").write_text(content)
    assert open_pack(tmp_path / "pack").hash == made.hash
