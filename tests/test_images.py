"""Packs: the pixels, what broken images lead to, and that a pack is whole or refused."""

import collections
import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from aunce.data import bp4d, images, load, synthetic
from aunce.data.frames import FrameTable, Protocol
from aunce.data.images import Recipe, open_pack, pack
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
    assert (again.hash, again.recipe, again.latents) == (made.hash, Recipe(16), None)
    assert isinstance(again.images, np.memmap)
    assert not again.images.flags.writeable
    assert (again.images == made.images).all()
    pd.testing.assert_frame_equal(again.table.frames, table.frames)
    assert {path.name for path in (tmp_path / "pack").iterdir()} == {"images.npy", "frames.parquet", "pack.json"}


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
    with pytest.raises(DataError, match=r"1 of 6 images cannot be used\. .*4\.jpg: .*Copy them again"):
        pack(table, root, tmp_path / "pack")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "the file is truncated"),
        (lambda path: path.write_bytes(b""), "no image that OpenCV can read"),
        (lambda path: path.write_text("<html>login</html>"), "no image that OpenCV can read"),
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
    ids=["truncated PNG", "empty", "web page", "gone", "folder"],
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
    with pytest.raises(DataError, match=r"frames\.parquet is not the table of this pack"):
        open_pack(place)
    spoil("images.npy", kept["images.npy"][:500])
    with pytest.raises(DataError, match=r"images\.npy: cannot be opened"):
        open_pack(place)
    np.save(tmp_path / "other.npy", np.zeros((6, 16, 16), np.uint8))
    spoil("images.npy", (tmp_path / "other.npy").read_bytes())
    with pytest.raises(DataError, match=r"images.npy: uint8 \(6, 16, 16\). Expected uint8 \(6, 16, 16, 3\)"):
        open_pack(place)
    for content, message in ((b"{", "not JSON"), (b"{}", "lacks hash, pixels, recipe, source")):
        spoil("pack.json", content)
        with pytest.raises(DataError, match=message):
            open_pack(place)


def test_a_folder_without_pack_and_a_bad_recipe_are_refused(tmp_path, root):
    with pytest.raises(DataError, match=r"no pack \(pack.json is not there\)"):
        open_pack(tmp_path)
    with pytest.raises(UsageError, match="size of the crops is 0"):
        Recipe(0)
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
    some = synthetic.latents(tmp_path / "faces").iloc[:-1]
    some.to_parquet(tmp_path / "faces" / "synthetic_latents.parquet")
    with pytest.raises(DataError, match="no latent intensities of 1 frames"):
        pack(table, tmp_path / "faces", tmp_path / "another")


def test_rendered_pack_of_another_rendering_with_equal_labels_is_not_taken_for_it(root, tmp_path, monkeypatch):
    plain = toy(root)
    latents = plain.frames[["subject", "sequence", "frame"]].assign(AU1=np.float32(0))
    monkeypatch.setattr(synthetic, "latents", lambda place: latents)
    one, two = (FrameTable(plain.frames, PROTOCOL, synthetic={"version": version}) for version in (1, 2))
    pack(one, root, tmp_path / "pack")
    with pytest.raises(UsageError, match="holds a pack of other"):
        pack(two, root, tmp_path / "pack")
    assert json.loads((tmp_path / "pack" / "pack.json").read_text())["hash"] == open_pack(tmp_path / "pack").hash
