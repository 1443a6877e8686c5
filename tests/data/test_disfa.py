"""DISFA: what the reader accepts and refuses, and that the rendered layout is the real one."""

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
from layouts import bytes_of, stop_after
from scipy.io import loadmat, savemat

from aunce.data import disfa, images, layout, load
from aunce.data.frames import Protocol
from aunce.data.recipes import Recipe
from aunce.data.render import writing
from aunce.data.render.behaviour import AUS as DRAWN_AUS
from aunce.data.render.behaviour import NULL_AU
from aunce.data.render.difficulty import difficulty_of, seed_of
from aunce.data.render.population import Population
from aunce.data.render.writing import Rendered
from aunce.errors import DataError, RunError, UsageError

# facts of the published lists, typed in again here
FIRST_PART = "SN001 SN002 SN009 SN010 SN016 SN026 SN027 SN030 SN032"
SECOND_PART = "SN006 SN011 SN012 SN013 SN018 SN021 SN024 SN028 SN031"
THIRD_PART = "SN003 SN004 SN005 SN007 SN008 SN017 SN023 SN025 SN029"
FRAMES = {"1": 43_604, "2": 43_605, "3": 43_605}
FRAMES_JAA = {"1": 43_173, "2": 40_344, "3": 42_627}
POSITIVES = {1: 6_506, 2: 5_644, 4: 19_933, 6: 10_327, 9: 5_473, 12: 16_851, 25: 36_247, 26: 11_533}
# relative rates of the training parts as the shipped weight files give them: parts -> one number per AU
RELATIVE = {
    ("1", "2"): [0.138, 0.083, 0.489, 0.246, 0.104, 0.444, 1, 0.375],
    ("1", "3"): [0.219, 0.207, 0.576, 0.294, 0.182, 0.463, 1, 0.322],
    ("2", "3"): [0.184, 0.178, 0.583, 0.314, 0.168, 0.486, 1, 0.261],
}
LABELLED = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
KNOWN = (1, 2, 3, 4845)


def write_labels(root, subject="SN001", frames=KNOWN, *, aus=disfa.AUS, level="0"):
    folder = root / "ActionUnit_Labels" / subject
    folder.mkdir(parents=True, exist_ok=True)
    for au in aus:
        text = "\n".join([*(f"{frame},{level}" for frame in frames), ""])
        (folder / f"{subject}_au{au}.txt").write_text(text, newline="")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def label(root, au=1, subject="SN001"):
    return root / "ActionUnit_Labels" / subject / f"{subject}_au{au}.txt"


@pytest.fixture
def root(tmp_path):
    """One subject, four frames, with an (empty) video."""
    write_labels(tmp_path)
    touch(tmp_path, "Videos_LeftCamera/LeftVideoSN001_comp.avi")
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Label files of all subjects with random intensities."""
    root = tmp_path_factory.mktemp("disfa")
    generator = np.random.default_rng(0)
    for subject in disfa.PROTOCOL.part_of:
        folder = root / "ActionUnit_Labels" / subject
        folder.mkdir(parents=True)
        frames = [frame for frame in range(1, 4846) if (subject, frame) != ("SN010", 3000)]
        for au in LABELLED:
            levels = generator.choice(6, len(frames), p=[0.7, 0.1, 0.1, 0.05, 0.03, 0.02]).tolist()
            lines = [f"{frame},{level}" for frame, level in zip(frames, levels, strict=True)]
            (folder / f"{subject}_au{au}.txt").write_text("\n".join([*lines, ""]))
    return root


def by_csv(path):
    """(frame, intensity) of each line, with the csv module alone."""
    text = io.StringIO(path.read_bytes().decode("utf-8-sig", errors="replace"), newline="")
    rows = [[cell.strip() for cell in row] for row in csv.reader(text, quoting=csv.QUOTE_NONE) if row]
    return sorted((int(frame), int(level)) for frame, level in rows)


# ---------------------------------------------------------------------------------------------------- published facts


def test_parts_are_the_published_subjects():
    parts = {"1": FIRST_PART, "2": SECOND_PART, "3": THIRD_PART}
    assert disfa.PROTOCOL.parts == {part: frozenset(names.split()) for part, names in parts.items()}
    assert {part: set(names) for part, names in disfa.PARTS.items()} == {p: set(n.split()) for p, n in parts.items()}
    numbers = {*range(1, 14), *range(16, 19), 21, *range(23, 33)}
    assert set(disfa.PROTOCOL.part_of) == {f"SN{number:03}" for number in numbers}
    assert tuple(POSITIVES) == disfa.AUS


def test_rates_give_back_the_published_positives_and_weights():
    for au, count in POSITIVES.items():
        assert sum(FRAMES[part] * disfa.RATES[part][au] for part in FRAMES) == pytest.approx(count, abs=5)
    for parts, relative in RELATIVE.items():
        counts = np.array([sum(FRAMES[part] * disfa.RATES[part][au] for part in parts) for au in disfa.AUS])
        assert counts / counts.max() == pytest.approx(relative, abs=8e-4)


def test_lost_frames_are_as_many_as_jaa_net_leaves_out():
    count = {subject: sum(last - first + 1 for first, last in spans) for subject, spans in disfa.LOST.items()}
    assert (sum(count.values()), count["SN021"]) == (4_670, 3_052)
    for spans in disfa.LOST.values():
        edges = [edge for span in spans for edge in span]
        assert edges == sorted(edges)
        assert 1 <= edges[0] <= edges[-1] <= 4845


def test_whole_data_set_has_the_published_frame_counts_under_both_rules(whole):
    table = load("disfa", whole, images="optional")
    assert table.frames.groupby("part").size().to_dict() == FRAMES
    assert (len(table), table.summary()["sequences"], len(table.missing_images)) == (130_814, 27, 130_814)
    assert (table.aus, table.null_aus, table.synthetic, table.absent_subjects) == (disfa.AUS, (), None, ())
    jaa = load("disfa", whole, protocol=disfa.protocol(frame_rule="jaa"), images="optional")
    assert jaa.frames.groupby("part").size().to_dict() == FRAMES_JAA
    assert len(jaa) == 126_144
    mine = jaa.frames.loc[jaa.frames["subject"] == "SN002", "frame"]
    assert mine.tolist() == [*range(1, 800), *range(827, 4846)]
    assert jaa.protocol.hash != table.protocol.hash


def test_whole_data_set_equals_an_independent_reading_in_the_published_order(whole):
    table = load("disfa", whole, images="optional")
    assert list(table.frames["subject"].unique()) == [s for subjects in disfa.PARTS.values() for s in subjects]
    for subject in ("SN010", "SN021"):
        mine = (table.frames["subject"] == subject).to_numpy()
        expected = [np.array(by_csv(label(whole, au, subject))) for au in disfa.AUS]
        assert np.array_equal(table.frames["frame"][mine], expected[0][:, 0])
        assert np.array_equal(table.labels[mine], np.column_stack([rows[:, 1] >= 2 for rows in expected]))


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("threshold", [1, 2, 3, 4, 5])
def test_labels_are_positive_from_the_threshold_on(tmp_path, threshold):
    write_labels(tmp_path, frames=range(1, 7))
    label(tmp_path, 12).write_text("".join(f"{frame},{frame - 1}\n" for frame in range(1, 7)))
    table = load("disfa", tmp_path, protocol=disfa.protocol(threshold=threshold), images="optional")
    assert table.frames["AU12"].tolist() == [int(level >= threshold) for level in range(6)]
    assert table.labels.sum() == 6 - threshold
    assert table.protocol.settings["threshold"] == threshold


def test_protocols_of_other_frames_and_labels_have_other_hashes_and_names(tmp_path):
    every = disfa.protocols(tmp_path)
    assert list(every) == ["disfa", "disfa-jaa", "disfa-from1", "disfa-right"]
    assert every["disfa"] == disfa.PROTOCOL == disfa.protocol()
    assert all(name == one.name for name, one in every.items())
    assert len({one.hash for one in every.values()}) == 4
    assert Protocol.from_dict(json.loads(json.dumps(every["disfa-jaa"].to_dict()))) == every["disfa-jaa"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, "threshold = 0. Expected a whole number from 1 to 5"),
        ({"threshold": 6}, "threshold = 6"),
        ({"threshold": 2.0}, r"threshold = 2\.0"),
        ({"threshold": True}, "threshold = True"),
        ({"camera": "middle"}, "camera = 'middle'. Expected 'left' or 'right'"),
        ({"frame_rule": "tracked"}, "frame rule 'tracked'. DISFA knows all, jaa"),
    ],
)
def test_settings_that_do_not_exist_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        disfa.protocol(**options)


def test_own_protocol_chooses_subjects_and_aus_and_gets_the_usual_settings(root):
    write_labels(root, "SN003", aus=(5, 17), level="3")
    write_labels(root, "SN001", aus=(5, 17))
    own = Protocol("own", (5, 17), {"late": frozenset({"SN003"}), "early": frozenset({"SN001", "SN002"})})
    table = load("disfa", root, protocol=own, images="optional")
    assert list(table.frames["subject"].unique()) == ["SN003", "SN001"]
    assert table.labels.tolist() == [[1, 1]] * 4 + [[0, 0]] * 4
    assert (table.aus, table.absent_subjects) == ((5, 17), ("SN002",))
    assert table.protocol == dataclasses.replace(own, settings={"threshold": 2, "camera": "left"})
    with pytest.raises(UsageError, match=r"settings side\. DISFA knows threshold and camera"):
        load("disfa", root, protocol=dataclasses.replace(own, settings={"side": "left"}))
    with pytest.raises(UsageError, match="SN014 is no subject of DISFA"):
        load("disfa", root, protocol=Protocol("own", (1,), {"1": frozenset({"SN014"})}))
    with pytest.raises(DataError, match="holds no subject of protocol 'own'"):
        load("disfa", root, protocol=Protocol("own", (1,), {"1": frozenset({"SN002"})}))


def test_names_are_read_in_upper_and_lower_case_and_others_passed_by(root):
    plain = load("disfa", root).frames
    folder = root / "ActionUnit_Labels" / "SN001"
    (folder / "SN001_au1.txt").rename(folder / "sn001_AU01.TXT")
    touch(folder, "._SN001_au1.txt", "readme.txt", ".DS_Store")
    touch(root, "ActionUnit_Labels/readme.txt", "ReadMe DISFA.pdf")
    folder.rename(folder.with_name("sn001"))
    (root / "ActionUnit_Labels").rename(root / "actionunit_labels")
    (root / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi").rename(root / "Videos_LeftCamera/leftvideosn001_Comp.AVI")
    (root / "Videos_LeftCamera").rename(root / "video_leftcamera")
    table = load("disfa", root).frames
    assert table["image"].iloc[0] == "video_leftcamera/leftvideosn001_Comp.AVI#0"
    pd.testing.assert_frame_equal(table.drop(columns="image"), plain.drop(columns="image"))


@pytest.mark.parametrize("au", disfa.AUS)
def test_missing_label_file_of_a_present_subject_is_refused_by_name(root, au):
    label(root, au).unlink()
    with pytest.raises(DataError, match=rf"SN001_au{au}\.txt: no such file. Expected one for each of AU1, AU2.*SN001"):
        load("disfa", root)


def test_the_label_folder_of_public_code_is_read_and_leads_back_to_its_root(root):
    (root / "ActionUnit_Labels").rename(root / "AU_Labels")
    assert len(load("disfa", root)) == 4
    with pytest.raises(
        DataError, match=f"this looks like the label folder itself. Name the folder above it, {root}\\."
    ):
        load("disfa", root / "AU_Labels")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["SN014/SN014_au1.txt"], "SN014: SN014 is no subject of DISFA"),
        (["sn001/a.txt"], "two folders of subject SN001"),
        (["SN001/SN002_au1.txt"], r"SN002_au1\.txt: in the folder of SN001"),
        (["SN001/SN001_au01.txt"], r"SN001_au1\.txt: AU1 of SN001 again, as in SN001_au01\.txt"),
    ],
)
def test_foreign_and_doubled_label_files_are_refused_by_name(root, names, message):
    touch(root / "ActionUnit_Labels", *names)
    with pytest.raises(DataError, match=message):
        load("disfa", root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the folder is empty"),
        (["AUCoding/F001_T1.csv"], "this looks like BP4D"),
        (["Third ABAW/AU_Detection_Challenge/Train_Set/a.txt"], "this looks like Aff-Wild2"),
        (["SN001/SN001_au1.txt"], "this looks like the label folder itself"),
        (["SN001/0.png"], r"no label files of DISFA. Expected ActionUnit_Labels/<subject>/<subject>_au<n>\.txt"),
        (["ActionUnit_Labels/readme.txt"], "ActionUnit_Labels: no folders of subjects.* It holds readme.txt"),
        (["ActionUnit_Labels/a.zip", "Videos_LeftCamera.zip"], r"Still packed is Videos_LeftCamera\.zip and 1 more"),
        (["codes/SN001/SN001_AU1.TXT"], "codes looks like the label folder. Call it ActionUnit_Labels"),
    ],
)
def test_folder_of_something_else_is_named_for_what_it_is(tmp_path, content, message):
    touch(tmp_path, *content)
    with pytest.raises(DataError, match=message):
        load("disfa", tmp_path)


LINES = ["1,0", "2,5", "3,1", "4845,0"]
SPELLINGS = {
    "CRLF": "\r\n".join([*LINES, ""]).encode(),
    "BOM": "\ufeff".encode() + "\n".join(LINES).encode(),
    "old Mac": "\r".join(LINES).encode(),
    "no last line end": "\n".join(LINES).encode(),
    "empty lines": "\n\n".join([*LINES, ""]).encode(),
    "spaces": "\n".join(LINES).replace(",", " ,\t").encode(),
    "descending": "\n".join(reversed(LINES)).encode(),
    "zeros": "\n".join(LINES).replace("2,", "0002,").encode(),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_harmless_spellings_read_like_the_plain_file(root, case):
    label(root).write_bytes(SPELLINGS[case])
    table = load("disfa", root)
    assert table.frames["frame"].tolist() == [1, 2, 3, 4845]
    assert table.frames["AU1"].tolist() == [0, 1, 0, 0]


MALFORMED = {
    "intensity six": ("1,0\n2,6\n3,0", "line 2: AU1 is '6'. Expected an intensity, a whole number from 0 to 5"),
    "nine": ("1,9", "line 1: AU1 is '9'"),
    "negative": ("1,0\n2,-1", "line 2: AU1 is '-1'"),
    "fraction": ("1,0\n2,2.0", r"line 2: AU1 is '2\.0'"),
    "empty cell": ("1,0\n2,", "line 2: AU1 is ''"),
    "text": ("1,0\n2,x", "line 2: AU1 is 'x'"),
    "hexadecimal": ("1,0\n2,0x2", "line 2: AU1 is '0x2'"),
    "other digits": ("1,0\n2,２", "line 2: AU1 is '２'"),
    "frame zero": ("0,0\n1,0", "line 1: frame number '0'. Expected a whole number from 1"),
    "columns swapped": ("0,1\n0,2", "line 1: frame number '0'"),
    "fractional frame": ("1,0\n2.5,0", r"line 2: frame number '2\.5'"),
    "huge frame": ("1,0\n" + "9" * 5000 + ",0", "line 2: frame number '9999999999"),
    "frame twice": ("1,0\n2,0\n3,0\n2,1", "line 4: frame 2 again, first on line 2"),
    "one cell": ("1,0\n2\n3,0", r"line 2: 1 cell. Expected 2"),
    "three cells": ("1,0\n2,0,0", r"line 2: 3 cells. Expected 2"),
    "semicolons": ("1;0\n2;0", r"line 1: 1 cell. Expected 2"),
    "header": ("frame,intensity\n1,0", "line 1: frame number 'frame'"),
    "quotes": ('"1","0"', "line 1: frame number '\"1\"'"),
    "empty file": ("", "no coded frames. Expected one row per coded frame; a label file has lines frame,intensity"),
    "empty lines alone": ("\n\n", "no coded frames"),
    "binary": ("\x00\x01\x02\xff", "line 1"),
    "fewer frames": ("1,0\n2,0\n3,0", r"no line of frame 4845, which .*SN001_au2\.txt has; 1 frame\(s\) differ"),
    "other frames": ("1,0\n2,0\n4,0\n4845,0", r"no line of frame 3, which .*; 2 frame\(s\) differ"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_label_file_is_refused_with_file_and_line(root, case):
    text, message = MALFORMED[case]
    label(root).write_bytes(text.encode())
    with pytest.raises(DataError, match=rf"SN001_au1\.txt.*({message})"):
        load("disfa", root)


def test_a_frame_too_many_is_named_with_both_files(root):
    label(root, 26).write_text("1,0\n2,0\n3,0\n4,0\n4845,0\n")
    with pytest.raises(DataError, match=r"SN001_au1\.txt: no line of frame 4, which .*SN001_au26\.txt has"):
        load("disfa", root)


def test_an_unreadable_label_file_is_named(root):
    label(root, 4).unlink()
    label(root, 4).mkdir()
    with pytest.raises(DataError, match=r"SN001_au4\.txt: cannot be read"):
        load("disfa", root)


def mutate(data, draw):
    """The bytes of a label file with one thing done to them."""
    lines = data.split(b"\n")
    row, place = draw.randrange(len(lines)), draw.randrange(len(data) + 1)
    cells = lines[row].split(b",")

    def with_row(*rows):
        return b"\n".join([*lines[:row], *rows, *lines[row + 1 :]])

    odd = (b"6", b"9", b"-1", b"2.5", b"", b"5", b"1e0", b"+1", b"0x1", b"nan", b"\xef\xbc\x92", b" 3 ", b"03", b"1_0")
    numbers = (b"0", b"41", b"4845", b"99999999", b"9" * 30, b"-3", b"2147483648", b"007", b"1.0", b"", b"\xd9\xa3")
    return draw.choice(
        [
            lambda: data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :],
            lambda: data[:place] + bytes([draw.choice(b"0123456789,,\n\r ;\"'.-+\t\x00")]) + data[place:],
            lambda: data[:place] + data[place + draw.randrange(1, 9) :],
            lambda: data[:place],
            lambda: with_row(),
            lambda: with_row(lines[row], lines[row]),
            lambda: with_row(lines[row], b""),
            lambda: with_row(b",".join(reversed(cells))),
            lambda: with_row(b",".join([*cells[:1], draw.choice(odd)])),
            lambda: with_row(b",".join([draw.choice(numbers), *cells[1:]])),
            lambda: b"\n".join(b",".join(reversed(line.split(b","))) for line in lines),
            lambda: b"\n".join(draw.sample(lines, len(lines))),
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\n", b"\r"),
            lambda: data.replace(b",", draw.choice([b";", b"\t", b" , ", b",,"])),
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.decode("latin-1").encode(draw.choice(["utf-16", "utf-16-le", "utf-32", "utf-8"])),
            lambda: b"frame,intensity\n" + data,
            lambda: draw.randbytes(40),
        ]
    )()


def test_a_mutated_label_file_is_either_refused_by_name_or_read_like_a_plain_csv(tmp_path, mutations):
    draw = random.Random(7)
    parts = {"1": frozenset({"SN001"})}
    write_labels(tmp_path, frames=range(1, 41), aus=(1, 2))
    read = 0
    for turn in range(mutations):
        data = b"".join(b"%d,%d\n" % (frame, draw.choice((0, 0, 1, 2, 3, 4, 5))) for frame in range(1, 41))
        for _ in range(draw.randint(1, 2)):
            data = mutate(data, draw)
        label(tmp_path).write_bytes(data)
        threshold = draw.randint(1, 5)
        # With one AU, no other file says which frames there are.
        own = Protocol("own", ((1,), (1, 2))[turn % 2], parts, settings={"threshold": threshold})
        refusal = ""
        try:
            table = disfa.read(tmp_path, protocol=own, images="optional")
        except DataError as error:
            refusal = str(error)
        if refusal:
            assert "SN001_au1.txt" in refusal, (turn, data)
            continue
        read += 1
        expected = [(frame, int(level >= threshold)) for frame, level in by_csv(label(tmp_path))]
        assert list(map(tuple, table.frames[["frame", "AU1"]].to_numpy().tolist())) == expected, (turn, data)
    assert 0.15 * mutations < read < 0.85 * mutations  # neither side is empty


# ------------------------------------------------------------------------------------------------------------- images


def test_frames_are_those_of_the_video_counted_from_0(root):
    touch(root, "Video_RightCamera/RightVideoSN001_Comp.avi")
    assert load("disfa", root).frames["image"].tolist() == [
        f"Videos_LeftCamera/LeftVideoSN001_comp.avi#{frame - 1}" for frame in KNOWN
    ]
    right = load("disfa", root, protocol=disfa.protocol(camera="right")).frames["image"]
    assert right.tolist() == [f"Video_RightCamera/RightVideoSN001_Comp.avi#{frame - 1}" for frame in KNOWN]


def test_two_videos_of_a_subject_are_refused(root):
    touch(root, "Videos_LeftCamera/leftVideoSN001_Comp.avi")
    with pytest.raises(DataError, match=r"two videos of SN001, LeftVideoSN001_comp\.avi and leftVideoSN001_Comp\.avi"):
        load("disfa", root)


def test_missing_videos_are_counted_and_dropped_only_when_required(root):
    write_labels(root, "SN002")
    missing = tuple(f"SN002/video/{frame}" for frame in KNOWN)
    required, optional = load("disfa", root), load("disfa", root, images="optional")
    assert required.missing_images == optional.missing_images == missing
    assert (len(required), len(optional)) == (4, 8)
    shutil.rmtree(root / "Videos_LeftCamera")
    with pytest.raises(DataError, match=r"none of the 8 labelled.*Videos_LeftCamera/LeftVideoSN002_comp\.avi, .*SN002"):
        load("disfa", root)


@pytest.mark.parametrize("folder", ["SN001", "sn001", "images/SN001", "Images/SN001", "img/SN001"])
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("{}.png", 0),
        ("{}.jpg", 1),
        ("LeftVideoSN001_comp_{:08}.jpg", 0),
        ("leftvideoSN001_Comp_{:05}.jpg", 1),
        ("SN001_{:04}.JPG", 0),
        ("frame_det_00_{:06}.bmp", 1),
    ],
)
def test_extracted_images_are_matched_whatever_they_count_from(root, folder, name, first):
    names = [f"{folder}/{name.format(frame - 1 + first)}" for frame in KNOWN]
    touch(root, *names, f"{folder}/Thumbs.db", f"{folder}/RightVideoSN001_comp_00002.jpg")
    table = load("disfa", root)
    assert table.frames["image"].tolist() == names
    assert all((root / image).exists() for image in table.frames["image"])


def test_extracted_images_that_tell_nothing_or_two_things_are_refused(root):
    touch(root, "SN001/1.png", "SN001/2.png")
    with pytest.raises(DataError, match="have neither number 0 nor 4845 in any folder"):
        load("disfa", root)
    touch(root, "SN001/0.png", "SN001/4845.png")
    with pytest.raises(DataError, match=r"SN001/0\.png, .*SN001/4845\.png: 4846 images, one more than frames"):
        load("disfa", root)
    (root / "SN001" / "4845.png").unlink()
    write_labels(root, "SN002")
    touch(root, "SN002/1.png", "SN002/4845.png")
    with pytest.raises(DataError, match=r"SN001 count from 0 \(SN001/0\.png\).*SN002 from 1 \(SN002/4845\.png\)"):
        load("disfa", root)
    (root / "SN002" / "4845.png").unlink()
    table = load("disfa", root)  # the one folder tells for the other
    assert table.frames["image"].tolist() == ["SN002/1.png", "SN001/0.png", "SN001/1.png", "SN001/2.png"]
    touch(root, "SN001/00.png")
    with pytest.raises(DataError, match=r"two images of frame 0, 0\.png and 00\.png"):
        load("disfa", root)


def test_extracted_images_are_not_mixed_with_videos_and_those_of_the_other_camera_are_none(root):
    write_labels(root, "SN002")
    touch(root, "Videos_LeftCamera/LeftVideoSN002_comp.avi", "SN002/RightVideoSN002_comp_0.jpg")
    assert set(load("disfa", root).frames["image"].str.partition("#")[0]) == {
        f"Videos_LeftCamera/LeftVideoSN00{number}_comp.avi" for number in (1, 2)
    }
    right = load("disfa", root, protocol=disfa.protocol(camera="right"))
    assert right.frames["image"].tolist() == ["SN002/RightVideoSN002_comp_0.jpg"]
    touch(root, "SN001/0.jpg")
    table = load("disfa", root)
    assert table.frames["image"].tolist() == ["SN001/0.jpg"]
    assert len(table.missing_images) == 7


# ---------------------------------------------------------------------------------------------------------- landmarks


def write_points(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def points(number):
    """66 points that say where they stand: x is 100 for the row, and the file's number with it."""
    return np.column_stack([100.0 * np.arange(66) + number, np.arange(66.0)])


LEFT, RIGHT = np.arange(36, 42), np.arange(42, 48)


@pytest.mark.parametrize(
    ("name", "shift", "numbers"),
    [
        ("SN001_{:04}_lm.mat", 1, (0, 2, 4844)),
        ("sn001_{:04}_LM.mat", 1, (0, 2)),
        ("l0{:04}_lm.mat", 0, (0, 1, 3, 4845)),
        ("SN001_{:04}_lm.mat", 0, (1, 3, 4845)),
    ],
)
def test_landmarks_of_both_namings_and_bases_find_their_frame(root, name, shift, numbers):
    folder = root / "Landmark_Points" / "SN001" / "tmp_frame_lm"
    for number in numbers:
        write_points(folder / name.format(number), pts=points(number), other=np.zeros(3))
    touch(folder, "._SN001_0001_lm.mat", "readme.txt")
    table = load("disfa", root)
    found = disfa.eyes(root, table)
    assert (found.shape, found.dtype) == ((4, 2, 2), np.float32)
    for frame, centres in zip(KNOWN, found, strict=True):
        if frame - shift not in numbers:
            assert np.isnan(centres).all()
            continue
        expected = [[100 * rows.mean() + frame - shift, rows.mean()] for rows in (LEFT, RIGHT)]
        assert centres == pytest.approx(np.array(expected))


def test_a_root_without_landmarks_has_none_and_a_subject_without_is_unknown(root):
    assert disfa.eyes(root, load("disfa", root)) is None
    (root / "Landmark_Points").mkdir()
    assert np.isnan(disfa.eyes(root, load("disfa", root))).all()


def test_damaged_landmark_files_are_named_with_the_remedy(root):
    path = root / "Landmark_Points" / "SN001" / "tmp_frame_lm" / "SN001_0000_lm.mat"
    write_points(path, pts=points(0))
    good, table = path.read_bytes(), load("disfa", root)
    for data in (b"", b"\x00" * 300, good[:100], good[:200], b"MATLAB 7.3 MAT-file".ljust(600)):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"SN001_0000_lm\.mat: cannot be read.*copy it again, or remove it"):
            disfa.eyes(root, table)
    write_points(path, other=points(0))
    with pytest.raises(DataError, match=r"cannot be read .*no variable pts"):
        disfa.eyes(root, table)
    write_points(path, pts=points(0)[:49])
    with pytest.raises(DataError, match=r"SN001_0000_lm\.mat: pts has shape \(49, 2\). Expected .* 66 points"):
        disfa.eyes(root, table)
    write_points(path.with_name("l00000_lm.mat"), pts=points(0))
    with pytest.raises(DataError, match=r"SN001_0000_lm\.mat and l00000_lm\.mat have one number"):
        disfa.eyes(root, table)


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint16])
def test_matlab_files_of_all_kinds_are_read_as_scipy_reads_them(tmp_path, options, dtype):
    marks = points(7).astype(dtype)
    savemat(tmp_path / "a.mat", {"before": np.arange(5.0), "text": "words", "pts": marks, "z": 1}, **options)
    mine = disfa._pts_of((tmp_path / "a.mat").read_bytes())
    assert np.array_equal(mine, loadmat(tmp_path / "a.mat")["pts"])
    assert np.array_equal(mine, marks)


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}])
def test_a_mutated_landmark_file_is_refused_by_name_or_read_and_never_a_crash(tmp_path, options, mutations):
    path, draw = tmp_path / "l00001_lm.mat", random.Random(11)
    savemat(path, {"pts": points(7)}, **options)
    good, refused = path.read_bytes(), 0
    for _ in range(mutations):
        data = bytearray(good)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(min(len(data), draw.choice((200, 1300))))] = draw.randrange(256)
        path.write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        message = ""
        try:
            assert disfa._eyes_of(path).shape == (2, 2)
        except DataError as error:
            message = str(error)
        refused += bool(message)
        assert "l00001_lm.mat" in (message or path.name)
    assert 0 < refused < mutations


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1e9])
def test_eyes_that_are_nowhere_are_unknown(root, value):
    marks = points(0)
    marks[40, 1] = value
    write_points(root / "Landmark_Points" / "SN001" / "tmp_frame_lm" / "SN001_0000_lm.mat", pts=marks)
    assert np.isnan(disfa.eyes(root, load("disfa", root))).all()


def test_landmarks_that_are_known_to_fail_are_not_used(tmp_path):
    write_labels(tmp_path, "SN002", frames=(799, 800, 826, 827))
    for frame in (799, 800, 826, 827):
        write_points(tmp_path / f"Landmark_Points/SN002/tmp_frame_lm/SN002_{frame - 1:04}_lm.mat", pts=points(0))
    found = disfa.eyes(tmp_path, load("disfa", tmp_path, images="optional"))
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [False, True, True, False]


def test_landmarks_are_refused_for_the_right_camera_and_for_crops(root):
    folder = root / "Landmark_Points" / "SN001" / "tmp_frame_lm"
    write_points(folder / "SN001_0000_lm.mat", pts=points(0))
    right = load("disfa", root, protocol=disfa.protocol(camera="right"), images="optional")
    with pytest.raises(UsageError, match="landmarks belong to the left camera"):
        disfa.eyes(root, right)
    for side, good in (((256, 256), False), ((768, 1024), True)):
        (root / "SN001").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "SN001" / "0.png"), np.zeros((*side, 3), np.uint8))
        table = load("disfa", root)
        if good:
            assert np.isfinite(disfa.eyes(root, table)).all()
        else:
            with pytest.raises(DataError, match=r"0\.png: 256 x 256 pixels. Landmarks belong to whole frames of 1024"):
                disfa.eyes(root, table)


# ------------------------------------------------------------------------------------------------------------- writer

OPTIONS = {"subjects": 4, "frames": 6, "seed": 5, "size": 33}
PEOPLE = ["SN002", "SN010", "SN013", "SN003"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "disfa"
    disfa.write(root, **OPTIONS)
    return root


@pytest.fixture(scope="module")
def population():
    rates = {subject: disfa.RATES[disfa.PROTOCOL.part_of[subject]] for subject in PEOPLE}
    return Population(PEOPLE, rates=rates, difficulty=difficulty_of("disfa", "easy"), seed=seed_of("disfa", 5))


def behaviour_of(population, subject, frames=6):
    return population.sequence(subject, "video", writing.evenly_spaced(4845, frames) / 20)


def test_rendered_root_reads_like_the_real_one_with_labels_and_latents_of_the_population(rendered, population):
    table = load("disfa", rendered)
    assert (len(table), table.missing_images, table.null_aus) == (24, (), (NULL_AU,))
    assert list(table.frames["subject"].unique()) == PEOPLE
    assert {part: len(subjects) for part, subjects in table.parts.items()} == {"1": 2, "2": 1, "3": 1}
    latents = layout.latents(rendered)
    keys = ["subject", "sequence", "frame"]
    assert latents[keys].to_numpy().tolist() == table.frames[keys].to_numpy().tolist()
    columns = [DRAWN_AUS.index(au) for au in disfa.AUS]
    for subject in PEOPLE:
        mine = (table.frames["subject"] == subject).to_numpy()
        behaviour = behaviour_of(population, subject)
        assert table.frames["frame"][mine].tolist() == [1, 2, 3, 4, 5, 6]
        assert np.array_equal(table.labels[mine][:, :-1], behaviour.occurrence[:, columns])
        assert np.array_equal(table.labels[mine][:, -1], behaviour.null)
        assert np.array_equal(latents.loc[mine, "AU1":].to_numpy(), behaviour.intensity)


def test_written_intensities_are_those_of_the_renderer_and_two_means_present(population):
    for subject, count in (("SN002", 4_845), ("SN010", 4_844)):
        job = disfa.LAYOUT.plan([subject], None)[0]
        behaviour = population.sequence(subject, "video", job.times)
        assert np.array_equal(job.times, np.arange(4845) / 20)
        *texts, null = disfa.label_files(Rendered(job, behaviour, population, 32))
        for au, text in zip(LABELLED, texts, strict=True):
            frames, levels = np.array([line.split(",") for line in text.split()], dtype=int).T
            latent = behaviour.intensity[frames - 1, DRAWN_AUS.index(au)]
            assert len(frames) == count
            assert (frames[0], frames[-1]) == (1, 4845)
            assert set(levels) <= set(range(6))
            assert np.array_equal(levels >= 2, behaviour.occurrence[frames - 1, DRAWN_AUS.index(au)] == 1)
            assert (np.diff(levels[np.argsort(latent)]) >= 0).all()
        assert set(null.split()) <= {f"{frame},{level}" for frame in range(1, 4846) for level in (0, 2)}


@pytest.mark.parametrize("camera", ["left", "right"])
def test_frames_of_the_videos_are_the_rendered_images_in_their_places(rendered, population, tmp_path, camera):
    table = load("disfa", rendered, protocol=disfa.protocol(camera=camera))
    made = images.pack(table, rendered, tmp_path / "pack", recipe=Recipe(33))
    for subject in PEOPLE:
        mine = (table.frames["subject"] == subject).to_numpy()
        behaviour = behaviour_of(population, subject)
        if camera == "right":
            scene = dataclasses.replace(behaviour.scene, yaw=behaviour.scene.yaw + 8)
            behaviour = dataclasses.replace(behaviour, scene=scene)
        true = population.images(subject, behaviour, size=33).astype(float)
        apart = np.abs(made.images[mine][:, None] - true[None]).mean(axis=(2, 3, 4))  # (frames, images)
        assert apart.diagonal().max() < 6
        assert (apart.argmin(axis=1) == np.arange(6)).all()


def test_rendered_landmarks_put_the_eyes_where_they_are(rendered, population, tmp_path):
    table = load("disfa", rendered)
    found = disfa.eyes(rendered, table)
    for subject in PEOPLE:
        mine = (table.frames["subject"] == subject).to_numpy()
        marks = population.landmarks(subject, behaviour_of(population, subject), size=33)
        true = np.stack([marks[:, 19:25].mean(1), marks[:, 25:31].mean(1)], axis=1)
        assert found[mine] == pytest.approx(true, abs=1e-4)
    assert (found[:, 0, 0] < found[:, 1, 0]).all()
    made = images.pack(table, rendered, tmp_path / "pack", recipe=Recipe(32, "landmarks"), eyes=found)
    assert len(made.table) == len(table)
    (rendered / "Landmark_Points/SN002/tmp_frame_lm/SN002_0003_lm.mat").rename(tmp_path / "lost.mat")
    again = disfa.eyes(rendered, table)
    (tmp_path / "lost.mat").rename(rendered / "Landmark_Points/SN002/tmp_frame_lm/SN002_0003_lm.mat")
    assert np.flatnonzero(np.isnan(again).any(axis=(1, 2))).tolist() == [3]


def test_rendered_root_has_the_traps_of_the_real_one(rendered):
    names = {folder.name: sorted(path.name for path in folder.rglob("*.*")) for folder in rendered.iterdir()}
    assert names["Videos_LeftCamera"] == sorted(
        ["LeftVideoSN002_comp.avi", "LeftVideoSN010_comp.avi", "LeftVideoSN013_comp.avi", "leftVideoSN003_comp.avi"]
    )
    assert names["Video_RightCamera"] == [f"RightVideo{subject}_Comp.avi" for subject in sorted(PEOPLE)]
    labels = names["ActionUnit_Labels"]
    assert len(labels) == 4 * 13
    assert {"SN002_AU1.txt", "SN003_au28.txt"} < set(labels)
    first = [path.name for path in sorted((rendered / "Landmark_Points/SN010/tmp_frame_lm").iterdir())]
    assert first == [f"l0{number:04}_lm.mat" for number in range(7)]  # one more than frames
    second = [path.name for path in sorted((rendered / "Landmark_Points/SN003/tmp_frame_lm").iterdir())]
    assert second == [f"SN003_{number:04}_lm.mat" for number in range(6)]
    content = loadmat(rendered / "Landmark_Points/SN003/tmp_frame_lm/SN003_0000_lm.mat")["pts"]
    assert (content.shape, content.dtype) == ((66, 2), np.float64)
    # The outline runs from the image's left to its right, below the mouth in the middle.
    assert content[0, 0] < content[8, 0] < content[16, 0]
    assert content[8, 1] > content[48:66, 1].max()


def test_interrupted_rendering_is_continued_to_the_same_bytes(rendered, tmp_path):
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        disfa.write(out, **OPTIONS, progress=stop_after(2))
    with pytest.raises(DataError, match="rendering was not finished"):
        load("disfa", out)
    cut = next((rendered / "Videos_LeftCamera").glob("*SN013*"))
    (out / "Videos_LeftCamera" / cut.name).write_bytes(cut.read_bytes()[:300])
    disfa.write(out, **OPTIONS)
    assert bytes_of(out) == bytes_of(rendered)
    assert disfa.fingerprint(out) == disfa.fingerprint(rendered)
    with label(out, 3 * 4, "SN003").open("a") as file:
        file.write("7,0\n")
    assert disfa.fingerprint(out) != disfa.fingerprint(rendered)


def test_a_video_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "a.avi").mkdir()
    with pytest.raises(RunError, match=r"a\.avi: the video could not be written. Free space"):
        disfa.write_video(tmp_path / "a.avi", np.zeros((2, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 27])
def test_subjects_are_dealt_evenly_and_a_plan_of_all_frames_has_the_published_length(count):
    people = disfa.LAYOUT.people(count)
    sizes = [len(set(people) & set(subjects)) for subjects in disfa.PARTS.values()]
    assert (len(people), max(sizes) - min(sizes) <= 1) == (count, True)
    jobs = disfa.LAYOUT.plan(people, None)
    assert [job.subject for job in jobs] == people
    assert all(np.array_equal(job.frames, np.arange(1, 4846)) for job in jobs)
