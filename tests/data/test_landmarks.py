"""Landmark files: read as public readers of BP4D do, refused when damaged, and matched to images by number."""

import h5py
import numpy as np
import pandas as pd
import pytest

from aunce.data import landmarks
from aunce.data.frames import FrameTable, Protocol
from aunce.errors import DataError

LEFT, RIGHT = list(range(20, 26)), list(range(26, 32))  # counted from 1, as the literature has them


def matlab(path, entries, *, dtype="float64"):
    """What MATLAB writes for a struct array with 49 x 2 points, or [], in the field pred."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        references = []
        for row, points in enumerate(entries):
            entry = file.create_dataset(f"#refs#/{row}", data=[0, 0] if points is None else np.array(points, dtype).T)
            if points is None:
                entry.attrs["MATLAB_empty"] = np.uint8(1)
            references.append([entry.ref])
        file.create_dataset("fit/pred", data=references, dtype=h5py.ref_dtype)


def some_points(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 1000, (count, 49, 2))


def centres(points):
    """Eyes (T, 2, 2) of points counted from 0, without the module's slices."""
    return np.array([[np.mean([face[n - 1] for n in eye], axis=0) for eye in (LEFT, RIGHT)] for face in points])


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16"])
def test_eyes_are_means_of_six_points_less_the_one_that_matlab_counts_from(tmp_path, dtype):
    stored = some_points(5).astype(dtype)
    matlab(tmp_path / "F001_T1.mat", [*stored[:2], None, *stored[2:]], dtype=dtype)
    found = landmarks.read(tmp_path / "F001_T1.mat")
    assert (found.dtype, found.shape) == (np.float32, (6, 2, 2))
    assert np.isnan(found[2]).all()
    assert np.allclose(np.delete(found, 2, axis=0), centres(stored.astype(float)) - 1, rtol=1e-6)


def test_written_files_read_with_the_expression_of_public_readers(tmp_path):
    points = some_points(12)
    points[7, 30, 1] = np.nan
    landmarks.write(tmp_path / "2DFeatures" / "M001_T8.mat", points)
    with h5py.File(tmp_path / "2DFeatures" / "M001_T8.mat") as file:
        references = file.get("fit/pred")
        assert (references.shape, file.userblock_size) == ((12, 1), 512)
        for row in range(12):
            entry = file[references[row][0]]
            if row == 7:
                assert entry.attrs["MATLAB_empty"] == 1
                assert entry[()].tolist() == [0, 0]
            else:
                assert np.allclose(entry[()].transpose(), points[row] + 1, rtol=1e-6)
    assert [path.name for path in (tmp_path / "2DFeatures").iterdir()] == ["M001_T8.mat"]


def test_equal_points_give_equal_bytes_and_read_back(tmp_path):
    points = some_points(300)
    for name in ("a", "b"):
        landmarks.write(tmp_path / name, points)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().startswith(b"MATLAB 7.3 MAT-file")
    assert np.allclose(landmarks.read(tmp_path / "a"), centres(points), rtol=1e-6)


@pytest.mark.parametrize("values", [np.nan, np.inf, [np.inf, -np.inf], 1e308, 1e7])
def test_eyes_that_are_no_places_in_an_image_are_unknown(tmp_path, values):
    stored = some_points(3)
    stored[1, 22:24, 0] = values
    matlab(tmp_path / "F001_T1.mat", stored)
    assert np.isnan(landmarks.read(tmp_path / "F001_T1.mat")).all(axis=(1, 2)).tolist() == [False, True, False]


def h5(path, **content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name.replace("_", "/")] = value


def dangling(path):
    matlab(path, some_points(3))
    with h5py.File(path, "r+") as file:
        file["fit/pred"][1] = [h5py.Reference()]


DAMAGED = {
    "text": (lambda path: path.write_text("0,1,2\n"), "cannot be read.*Expected a MATLAB 7.3 file with `fit/pred`"),
    "empty file": (lambda path: path.write_bytes(b""), "cannot be read"),
    "MATLAB 5": (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"), "cannot be read"),
    "cut": (lambda path: (matlab(path, some_points(3)), path.write_bytes(path.read_bytes()[:2000])), "cannot be read"),
    "nothing in it": (lambda path: h5(path), "cannot be read"),
    "another field": (lambda path: h5(path, fit_pose=[1.0]), "cannot be read"),
    "a folder": (lambda path: h5(path, fit_pred_a=[1.0]), "cannot be read"),
    "no references": (lambda path: h5(path, fit_pred=np.zeros((2, 49))), "fit/pred holds no references"),
    "null reference": (dangling, "cannot be read"),
    "66 points": (lambda path: matlab(path, [np.ones((66, 2))]), r"entry 1 is float64 of shape \(2, 66\)"),
    "not transposed": (lambda path: matlab(path, [np.ones((2, 49))]), r"entry 1 is float64 of shape \(49, 2\)"),
    "text in it": (lambda path: matlab(path, [np.full((49, 2), b"x")], dtype="S1"), r"entry 1 is \|S1 of shape"),
    "no entry": (lambda path: matlab(path, []), "fit/pred is empty"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_file_is_refused_with_its_name_and_a_remedy(tmp_path, case):
    damage, message = DAMAGED[case]
    damage(tmp_path / "F001_T5.mat")
    with pytest.raises(DataError, match=f"F001_T5.mat: .*{message}.*Copy it again"):
        landmarks.read(tmp_path / "F001_T5.mat")


def test_flipped_bytes_are_read_as_numbers_or_refused_by_name(tmp_path, mutations):
    generator = np.random.default_rng(0)
    points, path = some_points(4), tmp_path / "F001_T5.mat"
    points[1] = np.nan
    landmarks.write(path, points)
    whole = path.read_bytes()
    read, refusals = 0, []
    for _ in range(mutations):
        data = bytearray(whole)
        for place in generator.integers(512, len(data), generator.integers(1, 20)):
            data[place] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        try:
            found = landmarks.read(path)
        except DataError as error:
            refusals.append(str(error))
        else:
            read += 1
            assert found.shape[1:] == (2, 2)
            assert not np.isinf(found).any()
    assert read
    assert refusals
    assert all("F001_T5.mat" in refusal for refusal in refusals)


# ------------------------------------------------------------------------------------------------- images and entries

NAMES = ("9.jpg", "010.jpg", "11.jpg", "100.png")


@pytest.fixture
def root(tmp_path):
    """Two sequences of four images each, named so that their order by name is not that by number."""
    for sequence, seed in (("T1", 1), ("T2", 2)):
        (tmp_path / "F001" / sequence).mkdir(parents=True)
        for name in (*NAMES, "Thumbs.db"):
            (tmp_path / "F001" / sequence / name).touch()
        landmarks.write(tmp_path / "2DFeatures" / f"F001_{sequence}.mat", some_points(4, seed))
    return tmp_path


def table_of(rows):
    """A table of (sequence, image name) of subject F001; the frame is the row, as only the image matters here."""
    images = [f"F001/{sequence}/{name}" if name else "" for sequence, name in rows]
    frames = pd.DataFrame(
        {"subject": "F001", "sequence": [sequence for sequence, _ in rows], "frame": range(len(rows))}
    )
    frames = frames.assign(image=pd.Series(images, dtype=str), part="1", AU1=np.int8(0))
    return FrameTable(frames, Protocol("one", (1,), {"1": frozenset({"F001"})}))


def test_entries_belong_to_images_in_the_order_of_their_numbers(root):
    table = table_of([("T2", "100.png"), ("T2", "9.jpg"), ("T2", ""), ("T1", "11.jpg"), ("T1", "010.jpg")])
    first, second = centres(some_points(4, 1)), centres(some_points(4, 2))
    found = landmarks.eyes(root, table)
    assert found.dtype == np.float32
    assert np.isnan(found[2]).all()
    assert np.allclose(found[[0, 1, 3, 4]], [second[3], second[0], first[2], first[1]], rtol=1e-6)


def test_sequences_without_images_need_no_landmarks(root):
    (root / "2DFeatures" / "F001_T2.mat").unlink()
    found = landmarks.eyes(root, table_of([("T1", "9.jpg"), ("T2", ""), ("T2", "")]))
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [False, True, True]


def test_root_without_landmarks_has_no_eyes_and_any_case_of_the_folder_is_found(root):
    table = table_of([("T1", "9.jpg")])
    (root / "2DFeatures").rename(root / "2dfeatures")
    assert np.isfinite(landmarks.eyes(root, table)).all()
    (root / "2dfeatures").rename(root / "elsewhere")
    assert landmarks.eyes(root, table) is None


def test_missing_file_and_another_count_of_entries_are_refused(root):
    table = table_of([("T1", "9.jpg"), ("T2", "9.jpg")])
    (root / "F001" / "T2" / "11.jpg").unlink()
    with pytest.raises(DataError, match=r"F001_T2\.mat: 4 entries, but .*T2 holds 3 images.*align by the detector"):
        landmarks.eyes(root, table)
    (root / "2DFeatures" / "F001_T2.mat").unlink()
    with pytest.raises(DataError, match=r"F001_T2\.mat: no such file.*align by the detector"):
        landmarks.eyes(root, table)
