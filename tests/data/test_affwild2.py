"""Aff-Wild2: what the reader accepts and refuses, and that the rendered layout is the real one."""

import csv
import dataclasses
import io
import json
import random
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from layouts import bytes_of, stop_after

from aunce import cli
from aunce.data import affwild2, bp4d, layout
from aunce.data.frames import Protocol
from aunce.data.labels import read_labels
from aunce.data.render.behaviour import AUS as DRAWN_AUS
from aunce.data.render.behaviour import NULL_AU
from aunce.data.render.difficulty import difficulty_of, seed_of
from aunce.data.render.population import Population
from aunce.errors import DataError, UsageError

# facts of public sources, typed in again here
AUS = [1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26]
HEADER = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
TRAIN_FRAMES, VALIDATION_FRAMES = 1_359_523, 445_845
POSITIVES = [160_633, 67_678, 209_314, 361_761, 539_743, 468_260, 332_956, 38_216, 42_738, 34_824, 851_836, 100_971]
PERCENT_OF_BOTH = [12.36, 6.01, 15.40, 26.23, 39.74, 34.60, 24.69, 2.85, 2.98, 2.65, 63.21, 8.21]
ANNOTATIONS = "5th ABAW Annotations"


def labels_of(root, part="Train_Set"):
    return root / ANNOTATIONS / "AU_Detection_Challenge" / part


def write_labels(folder, video, rows, *, header=HEADER):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{video}.txt").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows), ""]))


def bits(number):
    """A row of labels that says which row it is."""
    return [number >> k & 1 for k in range(12)]


def write_crops(folder, numbers, names="{:05d}.jpg"):
    """Crops that show their own number as a level of grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / names.format(number)), np.full((8, 8, 3), 10 * number, np.uint8))


@pytest.fixture
def root(tmp_path):
    """A training and a validation video of six rows; frame 3 of the first has no crop, row 2 of the second no AU4."""
    write_labels(labels_of(tmp_path), "1-30-640x360", [bits(number) for number in range(1, 7)])
    write_crops(tmp_path / "cropped_aligned" / "1-30-640x360", (1, 2, 4, 5, 6))
    rows = [bits(number) for number in range(1, 7)]
    rows[1][2] = -1
    write_labels(labels_of(tmp_path, "Validation_Set"), "video9", rows)
    write_crops(tmp_path / "cropped_aligned" / "video9", range(1, 7))
    return tmp_path


# ------------------------------------------------------------------------------------------------------------ facts


def test_aus_and_rates_are_the_published_ones():
    train, validation = (affwild2.RATES[part] for part in ("train", "validation"))
    assert [list(affwild2.AUS), list(train), list(validation)] == [AUS] * 3
    for au, positives, percent in zip(AUS, POSITIVES, PERCENT_OF_BOTH, strict=True):
        assert train[au] * TRAIN_FRAMES == pytest.approx(positives, abs=0.5e-4 * TRAIN_FRAMES + 1)
        both = train[au] * TRAIN_FRAMES + validation[au] * VALIDATION_FRAMES
        assert 100 * both / (TRAIN_FRAMES + VALIDATION_FRAMES) == pytest.approx(percent, abs=0.02)
    assert "Validation set: approximate" in affwild2.RATES_STATUS


def test_plan_of_all_videos_has_the_published_number_of_label_files_and_crops():
    jobs = affwild2.LAYOUT.plan(affwild2.LAYOUT.people(375), 1)
    parts = pd.Series([affwild2.LAYOUT.part_of[job.subject] for job in jobs]).value_counts()
    assert parts.to_dict() == {"train": 295, "validation": 105}
    assert len({job.sequence for job in jobs}) == 400
    assert (affwild2.LAYOUT.size, {job.padding for job in jobs}) == (112, {5})
    first_people = {job.sequence for job in jobs if job.sequence.endswith("_right")}
    plain = {name.removesuffix("_right") for name in first_people} & {job.sequence for job in jobs}
    assert len(first_people) == 25
    assert 0 < len(plain) < 25, "the first of two people goes without suffix in some videos"


# ---------------------------------------------------------------------------------------------------------- reading


def test_row_i_is_image_i_plus_one_and_frames_without_a_crop_are_reported(root):
    table = affwild2.read(root)
    assert table.aus == affwild2.AUS
    assert table.missing_images == ("1-30-640x360/1-30-640x360/3",)
    assert table.parts == {"train": {"1-30-640x360"}, "validation": {"video9"}}
    assert len(table) == 11
    for row, labels in zip(table.frames.itertuples(), table.labels.tolist(), strict=True):
        shown = round(cv2.imread(str(root / row.image)).mean() / 10)
        assert row.frame == shown
        expected = bits(shown)
        if (row.subject, shown) == ("video9", 2):
            expected[2] = -1
        assert labels == expected
    optional = affwild2.read(root, images="optional")
    assert (len(optional), optional.missing_images) == (12, table.missing_images)
    assert optional.frames["image"].iloc[2] == ""


def test_frame_rule_known_drops_rows_with_any_unknown_au_of_the_protocol(root):
    every, known = affwild2.protocol(root), affwild2.protocol(root, frame_rule="known")
    assert (every.frame_rule, known.frame_rule) == ("all", "known")
    assert every.hash != known.hash
    assert affwild2.protocols(root) == {"affwild2": every, "affwild2-known": known}
    assert affwild2.read(root).protocol == every
    frames = affwild2.read(root, protocol=known).frames.query("subject == 'video9'")["frame"]
    assert frames.tolist() == [1, 3, 4, 5, 6]
    fewer = dataclasses.replace(known, aus=(1, 2))
    assert len(affwild2.read(root, protocol=fewer).frames.query("subject == 'video9'")) == 6
    with pytest.raises(UsageError, match=r"frame rule 'some'. Aff-Wild2 knows all, known"):
        affwild2.protocol(root, frame_rule="some")
    with pytest.raises(UsageError, match="frame rule 'some'"):
        affwild2.read(root, protocol=dataclasses.replace(known, frame_rule="some"))
    for part, video in (("Train_Set", "1-30-640x360"), ("Validation_Set", "video9")):
        write_labels(labels_of(root, part), video, [[-1] * 12] * 6)
    with pytest.raises(DataError, match=r"no frame in which all of AU1, .*AU26 are annotated"):
        affwild2.read(root, protocol=known)
    assert len(affwild2.read(root)) == 11


def test_two_people_of_a_video_are_two_sequences_of_one_subject(root):
    for name in ("video2", "video2_right", "a_left", "a_right"):
        write_labels(labels_of(root), name, [bits(5)])
        write_crops(root / "cropped_aligned" / name, (1,))
    table = affwild2.read(root)
    pairs = set(table.frames[["subject", "sequence"]].itertuples(index=False, name=None))
    pairs -= {("1-30-640x360", "1-30-640x360"), ("video9", "video9")}
    assert pairs == {("video2", "video2"), ("video2", "video2_right"), ("a", "a_left"), ("a", "a_right")}
    assert table.protocol.parts["train"] == {"1-30-640x360", "video2", "a"}


def test_two_people_of_a_video_that_the_official_sets_divide_are_two_subjects(root):
    write_labels(labels_of(root), "video2_left", [bits(5)])
    write_labels(labels_of(root, "Validation_Set"), "video2_right", [bits(6)])
    table = affwild2.read(root, images="optional")
    assert table.parts["train"] == {"1-30-640x360", "video2_left"}
    assert table.parts["validation"] == {"video9", "video2_right"}


def test_frames_without_an_image_are_said_by_all_commands_and_refused_unless_allowed_by_name(
    root, tmp_path, monkeypatch
):
    monkeypatch.setenv("AUNCE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports")

    def aunce(*words):
        return CliRunner().invoke(cli.main, [str(word) for word in words])

    shutil.rmtree(root / "cropped_aligned" / "video9")
    said = "7 of 12 labelled frames have no image, in 2 sequence(s); 1 of these have no image at all: video9/video9"
    words = [["data", "check", "affwild2", root], ["data", "pack", "affwild2", root, "--align", "none"]]
    study = ["study", "affwild2", "--root", root, "--set", "pixels=112", "--dry-run", "--only", "setting=fair"]
    words += [[*study, "--set", "backbone=small"]]
    for one in words:
        refused = aunce(*one)
        assert refused.exit_code == 1, refused.output
        assert f"{root}: {said}. Expected at most 5%" in refused.output
    packed = aunce(*words[1], "--allow-missing")
    assert packed.exit_code == 0
    assert f"left out: {said}" in packed.output
    for one in words[1:]:  # said once, it holds for this pack
        assert aunce(*one).exit_code == 0
    assert aunce(*study).exit_code == 0, "Swin-B does not take 112 px: the guess passes it by, and the run says so"


def test_names_with_dots_hyphens_and_sides_keep_all_but_the_last_suffix(root):
    for name in ("2-30.v1-640x360", "_left", "left"):
        write_labels(labels_of(root), name, [bits(5)])
        write_crops(root / "cropped_aligned" / name, (1,))
    assert affwild2.read(root).parts["train"] == {"1-30-640x360", "2-30.v1-640x360", "_left", "left"}


@pytest.mark.parametrize("place", [".", "annotations", "3rd ABAW Annotations/Third ABAW Annotations"])
def test_label_folder_is_found_below_any_name_and_in_any_case(root, place):
    target = root / place / "au_detection_challenge"
    target.parent.mkdir(parents=True, exist_ok=True)
    (root / ANNOTATIONS / "AU_Detection_Challenge").rename(target)
    (target / "Train_Set").rename(target / "TRAIN_SET")
    (root / "cropped_aligned").rename(root / "Cropped_Aligned")
    table = affwild2.read(root)
    assert len(table) == 11
    assert (root / table.frames["image"].iloc[0]).is_file()


def test_crops_of_the_second_batch_and_of_any_padding_are_found(root):
    shutil.rmtree(root / "cropped_aligned" / "video9")
    (root / "cropped_aligned" / "video9").mkdir()  # an empty folder hides nothing
    write_crops(root / "cropped_aligned_new_50_vids" / "video9", range(1, 7), "{}.PNG")
    (root / "cropped_aligned_new_50_vids" / "video9" / "Thumbs.db").touch()
    table = affwild2.read(root)
    assert len(table) == 11
    assert table.frames["image"].iloc[-1] == "cropped_aligned_new_50_vids/video9/6.PNG"


def test_crops_numbered_from_zero_and_two_crops_of_one_frame_are_refused(root):
    write_crops(root / "cropped_aligned" / "video9", (0,))
    with pytest.raises(DataError, match=r"video9: there is an image 00000\.jpg. Expected crops numbered from 00001"):
        affwild2.read(root)
    (root / "cropped_aligned" / "video9" / "00000.jpg").rename(root / "cropped_aligned" / "video9" / "1.jpg")
    with pytest.raises(DataError, match=r"two images of frame 1, 00001\.jpg and 1\.jpg"):
        affwild2.read(root)


def test_a_root_without_any_crop_is_refused_unless_images_are_optional(root):
    shutil.rmtree(root / "cropped_aligned")
    with pytest.raises(DataError, match=r"none of the 12 labelled frames has an image.*cropped_aligned/1-30-640x360"):
        affwild2.read(root)
    assert len(affwild2.read(root, images="optional")) == 12


def test_own_protocol_chooses_videos_and_aus(root):
    own = Protocol("own", (12,), {"mine": frozenset({"video9", "gone"})})
    table = affwild2.read(root, protocol=own)
    assert (table.aus, table.parts, table.absent_subjects) == ((12,), {"mine": {"video9"}}, ("gone",))
    with pytest.raises(DataError, match="holds no subject of protocol 'own'"):
        affwild2.read(root, protocol=dataclasses.replace(own, parts={"mine": frozenset({"gone"})}))
    with pytest.raises(DataError, match=r"1-30-640x360\.txt, line 1: 0 columns for AU17"):
        affwild2.read(root, protocol=dataclasses.replace(affwild2.protocol(root), aus=(1, 17)))


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", " , "),
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
        lambda text: text.replace("AU26", "AU26,note").replace("0\n", "0,é\n"),
    ],
    ids=["CRLF", "BOM", "padded cells", "no last line end", "empty lines at the end", "odd unused column"],
)
def test_harmless_spellings_read_like_the_plain_file(root, spell):
    plain = affwild2.read(root).frames
    path = labels_of(root) / "1-30-640x360.txt"
    path.write_bytes(spell(path.read_text()).encode())
    pd.testing.assert_frame_equal(affwild2.read(root).frames, plain)


def test_swapped_columns_are_read_by_name(root):
    plain = affwild2.read(root).frames
    path = labels_of(root) / "1-30-640x360.txt"
    lines = [line.split(",") for line in path.read_text().split()]
    path.write_text("\n".join(",".join([*reversed(cells)]) for cells in lines))
    pd.testing.assert_frame_equal(affwild2.read(root).frames, plain)


MALFORMED = {
    "cut row": (lambda text: text.replace("\n0,1,-1,0", "\n0,1", 1), "line 3: 10 cells. Expected 12"),
    "long row": (lambda text: text.replace("\n0,1", "\n0,1,0", 1), "line 3: 13 cells"),
    "empty line": (lambda text: text.replace("\n0,1", "\n\n0,1", 1), "line 3: an empty line. Expected one row per"),
    "line of blanks": (lambda text: text.replace("\n0,1", "\n  \n0,1", 1), "line 3: 1 cell. Expected 12"),
    "code nine": (
        lambda text: text.replace("\n0,1", "\n9,1", 1),
        "line 3: AU1 is '9'. Expected 0 absent, 1 present or",
    ),
    "huge number": (lambda text: text.replace("\n0,1", "\n" + "9" * 40 + ",1", 1), "line 3: AU1 is '9999"),
    "fraction": (lambda text: text.replace("\n0,1", "\n0.0,1", 1), r"line 3: AU1 is '0\.0'"),
    "quotes": (lambda text: text.replace("\n0,1", '\n"0",1', 1), "line 3: AU1 is"),
    "endless cell": (
        lambda text: text.replace("\n0,1", "\n" + "0" * 200_000 + ",1", 1),
        "line 3: AU1 is '0{40}'. Expected 0",
    ),
    "AU missing": (lambda text: text.replace("AU12", "AU14"), "line 1: 0 columns for AU12"),
    "AU twice": (lambda text: text.replace("AU12", "AU1"), "line 1: 2 columns for AU1"),
    "no header": (lambda text: text.split("\n", 1)[1], "line 1: 0 columns for AU1"),
    "no rows": (lambda text: HEADER, "no coded frames"),
    "empty file": (lambda text: "", "line 1: 0 columns for AU1"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_label_file_is_refused_with_file_and_line(root, case):
    change, message = MALFORMED[case]
    path = labels_of(root, "Validation_Set") / "video9.txt"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(DataError, match=f"video9.txt.*{message}"):
        affwild2.read(root)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_label_file_of_another_encoding_is_refused_by_name(root, encoding):
    path = labels_of(root) / "1-30-640x360.txt"
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(DataError, match=r"1-30-640x360\.txt, line 1: 0 columns for AU"):
        affwild2.read(root)


def mutate(data, rng):
    """What happens to files, once: lines and cells lost, doubled, swapped or retyped, ends cut, encodings changed."""
    lines = data.split(b"\n")
    line = rng.randrange(len(lines))
    cells = lines[line].split(b",")
    cell = rng.randrange(len(cells))
    kind = rng.randrange(15)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b"\n\r"]))
    if kind == 2:
        return rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b" ", b"\r"]) + data
    if kind == 3:
        return data.decode("latin-1").encode(rng.choice(["utf-16", "utf-16-be", "utf-32", "utf-8-sig"]))
    if kind == 4:
        place = rng.randrange(len(data))
        return data[:place] + bytes([rng.randrange(256)]) + data[place + rng.randrange(2) :]
    if kind == 5:  # swapped columns, names and cells alike
        other = rng.randrange(len(cells))
        rows = [row.split(b",") for row in lines]
        for row in rows:
            if max(cell, other) < len(row):
                row[cell], row[other] = row[other], row[cell]
        return b"\n".join(b",".join(row) for row in rows)
    if kind == 6:
        lines.insert(line, rng.choice([b"", b" ", b",", lines[line], lines[rng.randrange(len(lines))]]))
    elif kind == 7:
        del lines[line]
    elif kind == 8:
        body = lines[1:]
        rng.shuffle(body)
        lines[1:] = body
    elif kind == 9:
        del cells[cell]
        lines[line] = b",".join(cells)
    elif kind == 10:
        cells.insert(cell, rng.choice(cells))
        lines[line] = b",".join(cells)
    else:
        odd = [
            b"1",
            b"0",
            b"-1",
            b"9",
            b"",
            b" 1 ",
            b"+1",
            b"01",
            b"1.0",
            b"1e3",
            b"0x1",
            b"9" * 25,
            b"-0",
            b'"1"',
            b"nan",
        ]
        cells[cell] = rng.choice([*odd, b"\xc2\xa01", b"\xd9\xa1", b"\x00", b"AU1", b"AU26", b"frame"])
        lines[line] = b",".join(cells)
    return b"\n".join(lines)


def plain_reading(path):
    """Number of the image and labels of each row, by the csv module alone: the row of line n + 1 is image n."""
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    reader = csv.reader(io.StringIO(text, newline=""), quoting=csv.QUOTE_NONE)
    header = [name.strip().lower() for name in next(reader)]
    rows = []
    for cells in reader:
        if cells:
            known = {"0": 0, "1": 1, "-1": -1}
            rows.append([reader.line_num - 1, *(known[cells[header.index(f"au{au}")].strip()] for au in AUS)])
            assert len(cells) == len(header)
    return rows


def check_mutations(path, mutations, read, expected):
    """Each mutation of a label file is read as `expected` by the csv module alone, or refused by the file's name.

    Args:
        path: the file; it is written over.
        mutations: how many.
        read: gives frame numbers and labels, or raises DataError.
        expected: the same from the path, by an independent reader.
    """
    plain = path.read_bytes()
    refused = 0
    for seed in range(mutations):
        rng = random.Random(seed)
        data = plain
        while data == plain:
            data = mutate(plain, rng)
        if seed % 3 == 0 and data:
            data = mutate(data, rng)
        path.write_bytes(data)
        refusal = ""
        try:
            got = read()
        except DataError as error:
            refusal = str(error)
        if refusal:
            assert path.name in refusal, (seed, data)
            refused += 1
        else:
            assert got == expected(path), (seed, data)
    assert mutations / 4 < refused < mutations * 0.9, "mutations are too tame, or too wild"


def test_a_mutated_label_file_is_either_refused_by_name_or_read_like_a_plain_csv(root, mutations):
    path = labels_of(root) / "1-30-640x360.txt"

    def read():
        labels = read_labels(path, AUS, affwild2._FORMAT)
        return [[row + 1, *cells] for row, *cells in labels.tolist()]

    check_mutations(path, mutations, read, plain_reading)


# ------------------------------------------------------------------------------------------------------------ trees


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the folder is empty"),
        (["AUCoding/AU_OCC/F001_T1.csv"], "this looks like BP4D"),
        (["ActionUnit_Labels/SN001/SN001_au1.txt"], "this looks like DISFA"),
        (["Physiology/F001/T1/a.txt"], r"this looks like BP4D\+"),
        (["images.npy", "frames.parquet"], "this looks like a pack"),
        (["Train_Set/a.txt", "Validation_Set/b.txt"], "this looks like the label folder itself"),
        (["annotations/AU_Set/Training_Set/a.txt"], "no label files in Validation_Set"),
        (["cropped_aligned/video/00001.jpg"], "no label files of Aff-Wild2. Expected AU_Detection_Challenge"),
        (["a/b/c/AU_Detection_Challenge/Train_Set/a.txt"], "no label files of Aff-Wild2"),
        (["x/AU_Detection_Challenge/Train_Set/a.txt"], "no label files in Validation_Set"),
        (["x/AU_Detection_Challenge/readme.txt"], "no label files in Train_Set and Validation_Set"),
        (
            ["3rd/AU_Detection_Challenge/Train_Set/a.txt", "5th/AU_Detection_Challenge/Train_Set/a.txt"],
            "label folders of two releases, .*3rd/AU_Detection_Challenge and .*5th/AU_Detection_Challenge",
        ),
    ],
)
def test_folder_of_something_else_is_named_for_what_it_is(tmp_path, content, message):
    for name in content:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for look in (affwild2.read, affwild2.protocol, affwild2.fingerprint):
        with pytest.raises(DataError, match=message):
            look(tmp_path)


@pytest.mark.parametrize("train", ["Train_Set", "Training_Set"])
def test_the_label_folder_of_2021_is_read_and_that_of_2020_refused_by_its_header(root, train):
    before = affwild2.read(root)
    old = labels_of(root).parent.rename(root / ANNOTATIONS / "AU_Set")
    (old / "Train_Set").rename(old / train)
    assert affwild2.read(root).frames.equals(before.frames)
    few = "AU1,AU2,AU4,AU6,AU12,AU15,AU20,AU25"
    for path in old.glob("*/*.txt"):
        path.write_text(f"{few}\n{few.replace('AU', '')}\n")
    with pytest.raises(DataError, match=r"\.txt: labels of 8 AUs, without AU7, AU10, AU23, AU24, AU26, as in ABAW-1"):
        affwild2.read(root)


def test_crops_of_openface_count_from_one_like_those_of_the_release(root):
    before = affwild2.read(root).frames
    for path in (root / "cropped_aligned").glob("*/*.jpg"):
        path.rename(path.with_name(f"frame_det_00_{int(path.stem):06}.jpg"))
    after = affwild2.read(root).frames
    assert after["frame"].equals(before["frame"])
    assert after["image"].iloc[0].endswith(f"frame_det_00_{before['frame'][0]:06}.jpg")


@pytest.mark.parametrize(
    "place",
    ["cropped_aligned/cropped_aligned_new_50_vids", "cropped_aligned_new_50_vids", "cropped_aligned/batch2", "batch1"],
)
def test_crops_are_found_where_they_are_unpacked(root, place):
    before = affwild2.read(root)
    (root / place).mkdir(parents=True)
    (root / "cropped_aligned" / "video9").rename(root / place / "video9")
    table = affwild2.read(root)
    assert len(table) == len(before) == 11
    assert (root / table.frames["image"].iloc[-1]).parent == root / place / "video9"


def test_missing_folder_set_folder_and_rendering_of_another_data_set_are_refused(root, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder\. Expected the root of Aff-Wild2"):
        affwild2.read(root / "nowhere")
    with pytest.raises(DataError, match="Train_Set: this looks like the label folder itself"):
        affwild2.read(labels_of(root))
    (root / "synthetic.json").write_text(json.dumps({"dataset": "bp4d", "null_au": 28}))
    with pytest.raises(DataError, match="holds rendered faces in the layout of bp4d"):
        affwild2.read(root)


def test_one_video_in_both_sets_is_refused(root):
    write_labels(labels_of(root, "Validation_Set"), "1-30-640x360", [bits(1)])
    with pytest.raises(DataError, match="video 1-30-640x360 is in both sets, and would be trained and tested on"):
        affwild2.read(root)


def test_hidden_and_other_files_among_the_labels_are_ignored(root):
    plain = affwild2.fingerprint(root)
    for name in ("._video9.txt", ".DS_Store", "readme.pdf"):
        (labels_of(root) / name).write_bytes(b"\x00")
    copy = root / "__MACOSX" / ANNOTATIONS / "AU_Detection_Challenge" / "Train_Set"
    copy.mkdir(parents=True)
    (copy / "._a.txt").write_bytes(b"\x00")
    assert len(affwild2.read(root)) == 11
    assert affwild2.fingerprint(root) == plain


def test_links_are_followed_once_and_those_to_nowhere_are_named(root, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    plain = affwild2.read(root).frames
    for name in (ANNOTATIONS, "cropped_aligned"):
        shutil.move(root / name, away / name)
        (root / name).symlink_to(away / name)
    (root / "annotations").symlink_to(ANNOTATIONS)
    (root / "round").symlink_to(root / "round")
    (root / "back").symlink_to(root)
    pd.testing.assert_frame_equal(affwild2.read(root).frames, plain)
    (labels_of(root) / "lost.txt").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match=r"lost\.txt: cannot be read"):
        affwild2.read(root)


def test_a_copy_with_other_line_ends_has_the_same_fingerprint(root):
    before = affwild2.fingerprint(root)
    for path in root.rglob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    assert affwild2.fingerprint(root) == before


def test_fingerprint_follows_labels_alone(root):
    before = affwild2.fingerprint(root)
    write_crops(root / "cropped_aligned" / "1-30-640x360", (3,))
    assert affwild2.fingerprint(root) == before
    write_labels(labels_of(root), "1-30-640x360", [bits(7)] * 6)
    assert affwild2.fingerprint(root) != before


# ----------------------------------------------------------------------------------------------------------- writer

OPTIONS = {"subjects": 4, "frames": 60, "seed": 4, "size": 32}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "affwild2"
    affwild2.write(root, **OPTIONS)
    return root


@pytest.fixture(scope="module")
def truth():
    """Job and behaviour of each sequence of `rendered`, by the renderer alone."""
    people = affwild2.LAYOUT.people(OPTIONS["subjects"])
    rates = {person: affwild2.RATES["validation" if "27" in person else "train"] for person in people}
    difficulty = difficulty_of("affwild2", "easy")
    population = Population(people, rates=rates, difficulty=difficulty, seed=seed_of("affwild2", OPTIONS["seed"]))
    jobs = affwild2.LAYOUT.plan(people, OPTIONS["frames"])
    return population, {job.sequence: (job, population.sequence(job.subject, job.sequence, job.times)) for job in jobs}


def test_rendered_root_has_the_layout_of_the_release(rendered):
    names = {path.relative_to(rendered).as_posix() for path in rendered.rglob("*.txt")}
    challenge = "ABAW Annotations/AU_Detection_Challenge"
    train, validation = f"{challenge}/Train_Set", f"{challenge}/Validation_Set"
    assert names == {
        *(f"{train}/{name}.txt" for name in ("1-30-640x360", "video2", "video2_right")),
        *(f"{validation}/{name}.txt" for name in ("video278", "279-30-1280x720_left", "279-30-1280x720_right")),
    }
    first, *rows = (rendered / train / "video2.txt").read_text().splitlines()
    assert first == f"{HEADER},AU{NULL_AU}"
    assert len(rows) == 60
    image = cv2.imread(str(next((rendered / "cropped_aligned" / "video2").glob("000[0-9][0-9].jpg"))))
    assert image.shape == (32, 32, 3)


def test_rendered_labels_are_those_of_the_population_with_gaps_where_the_writer_put_them(rendered, truth):
    table = affwild2.read(rendered, images="optional")
    assert (table.null_aus, table.synthetic["dataset"]) == ((NULL_AU,), "affwild2")
    assert {part: len(subjects) for part, subjects in table.parts.items()} == {"train": 2, "validation": 2}
    columns = [DRAWN_AUS.index(au) for au in affwild2.AUS]
    unknown, lost = 0, []
    for name, (job, behaviour) in truth[1].items():
        mine = (table.frames["sequence"] == name).to_numpy()
        assert table.frames["frame"][mine].tolist() == list(range(1, 61))
        expected = np.column_stack([behaviour.occurrence[:, columns], behaviour.null])
        gap = affwild2.gaps(job, "annotation", 0.03, seed=truth[0].seed)
        expected[gap] = -1
        assert np.array_equal(table.labels[mine], expected)
        unknown += gap.sum()
        no_face = affwild2.gaps(job, "face", 0.01, seed=truth[0].seed)
        lost += [f"{job.subject}/{name}/{frame}" for frame in job.frames[no_face]]
    assert unknown > 5
    assert lost
    assert sorted(table.missing_images) == sorted(lost)
    known = affwild2.read(rendered, protocol=affwild2.protocol(rendered, frame_rule="known"), images="optional")
    assert len(known) == len(table) - unknown


def test_rendered_images_show_the_frame_of_their_row(rendered, truth):
    population, sequences = truth
    frames = affwild2.read(rendered).frames
    shown = frames["sequence"].value_counts()
    for name in (shown.idxmax(), shown.idxmin()):  # of the latter, some frames have no crop
        mine = frames[frames["sequence"] == name]
        job, behaviour = sequences[name]
        drawn = population.images(name, behaviour, size=32)[mine["frame"].to_numpy() - 1].astype(float)
        read = np.stack([cv2.imread(str(rendered / image))[..., ::-1] for image in mine["image"]]).astype(float)
        distance = np.abs(drawn[:, None] - read[None]).mean((2, 3, 4))  # (T, T)
        assert (distance.argmin(1) == np.arange(len(mine))).all()
    assert len(mine) < len(job.frames)


def test_two_rendered_people_of_a_video_differ(rendered, truth):
    first, second = (truth[0].images(f"video2{side}", truth[1]["video2"][1], size=32) for side in ("", "_right"))
    assert np.abs(first.astype(float) - second).mean() > 3
    assert affwild2.read(rendered).frames.query("subject == 'video2'")["sequence"].nunique() == 2


def test_some_videos_have_an_au_that_is_nowhere_annotated(truth):
    population, sequences = truth
    job, behaviour = sequences["video2"]
    constant = []
    for number in range(60):
        other = dataclasses.replace(job, sequence=f"other{number}")
        text = affwild2.label_file(affwild2.Rendered(other, behaviour, population, 32))
        cells = np.array([line.split(",") for line in text.split()[1:]])
        constant.append(np.flatnonzero((cells == "-1").all(0)).tolist())
    assert 1 <= sum(map(bool, constant)) <= 8
    assert max(map(len, constant)) == 1
    assert all(12 not in columns for columns in constant), "the null AU is annotated wherever the video is"


def test_latents_name_every_frame_of_the_table(rendered):
    keys = ["subject", "sequence", "frame"]
    frames = affwild2.read(rendered, images="optional").frames
    assert set(map(tuple, layout.latents(rendered)[keys].to_numpy())) == set(map(tuple, frames[keys].to_numpy()))


def test_interrupted_rendering_is_refused_by_the_reader_and_continued_by_the_writer(rendered, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        affwild2.write(tmp_path / "cut", **OPTIONS, progress=stop_after(3))
    with pytest.raises(DataError, match="rendering was not finished"):
        affwild2.read(tmp_path / "cut")
    affwild2.write(tmp_path / "cut", **OPTIONS)
    assert bytes_of(tmp_path / "cut") == bytes_of(rendered)


def test_a_single_rendered_video_is_read_and_other_options_are_refused(rendered, tmp_path):
    affwild2.write(tmp_path / "one", subjects=1, frames=2, size=32)
    assert affwild2.read(tmp_path / "one", images="optional").protocol.parts == {"train": {"1-30-640x360"}}
    with pytest.raises(UsageError, match="rendered with other options"):
        affwild2.write(rendered, **{**OPTIONS, "seed": 5})
    with pytest.raises(DataError, match=r"layout of affwild2\. Expected bp4d"):
        bp4d.read(rendered)


def test_plan_without_frames_is_long_and_has_gaps_of_two_seconds():
    job = affwild2.LAYOUT.plan(["1-30-640x360"], None)[0]
    assert 3000 <= len(job.frames) <= 6000
    assert job.frames.tolist() == list(range(1, len(job.frames) + 1))
    assert job.times[30] == 1.0
    gap = np.concatenate([affwild2.gaps(job, "face", 0.01, seed=seed) for seed in range(200)])
    assert gap.mean() == pytest.approx(0.01, abs=0.003)
    edges = np.flatnonzero(np.diff(affwild2.gaps(job, "face", 0.2, seed=0).astype(int)))
    assert ((edges + 1) % 60 == 0).all()
