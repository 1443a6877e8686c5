"""GFT: what the reader accepts and refuses, what `gft.toml` sets, and that the documented layout is rendered."""

import csv
import dataclasses
import io
import json
import re
import shutil
import tomllib

import cv2
import numpy as np
import pandas as pd
import pytest
from layouts import bytes_of, stop_after
from test_affwild2 import check_mutations

from aunce.data import bp4d, gft, layout
from aunce.data.frames import Protocol
from aunce.data.labels import read_labels
from aunce.data.render.behaviour import AUS as DRAWN_AUS
from aunce.data.render.behaviour import NULL_AU
from aunce.data.render.difficulty import difficulty_of, seed_of
from aunce.data.render.population import Population
from aunce.errors import DataError, UsageError

# facts of public sources, typed in again here
AUS = [1, 2, 4, 6, 10, 12, 14, 15, 23, 24]
HEADER = "frame,AU1,AU2,AU4,AU6,AU10,AU12,AU14,AU15,AU23,AU24"


def bits(number):
    """Labels that say which frame they belong to."""
    return [number >> k & 1 for k in range(10)]


def write_labels(root, subject, frames=range(1, 6), *, header=HEADER, folder="labels"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    rows = [",".join(map(str, [frame, *bits(frame)])) for frame in frames]
    (root / folder / f"{subject}.csv").write_text("\n".join([header, *rows, ""]))


def write_images(folder, numbers=range(1, 6), names="{}.jpg"):
    """Images that show their own number as a level of grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / names.format(number)), np.full((8, 8, 3), 10 * number, np.uint8))


def shown(root, name):
    return round(cv2.imread(str(root / name)).mean() / 10)


@pytest.fixture
def root(tmp_path):
    """Two people to train on and one to test on; 007C is in a list and has no files."""
    for subject in ("001A", "001B", "002A"):
        write_labels(tmp_path, subject)
        write_images(tmp_path / "images" / subject)
    (tmp_path / "gft_train.txt").write_text("001B\n001A\n")
    (tmp_path / "gft_test.txt").write_text("002A\n007C\n")
    return tmp_path


# ------------------------------------------------------------------------------------------------------------ facts


def test_aus_people_and_frames_are_the_published_ones():
    assert list(gft.AUS) == AUS
    jobs = gft.LAYOUT.plan(gft.LAYOUT.people(96), None)
    assert len(jobs) == len({job.subject for job in jobs}) == 96
    assert sum(len(job.frames) for job in jobs) == 172_800
    groups = pd.Series([job.subject for job in jobs]).str.extract(r"^(\d{3})([ABC])$")
    assert groups.groupby(0).size().tolist() == [3] * 32


def test_rates_are_those_of_bp4d_and_said_to_be_unverified():
    assert list(gft.RATES) == AUS
    for au in AUS:
        assert gft.RATES[au] == pytest.approx(np.mean([bp4d.RATES[part][au] for part in "123"]), abs=1e-4)
    assert gft.RATES_STATUS.startswith("unverified")
    assert "BP4D" in gft.RATES_STATUS


def test_split_of_rendered_faces_has_the_published_sizes_and_divides_no_group():
    train, test = (gft._RENDERED_PARTS[part] for part in ("train", "test"))
    assert (len(train), len(test)) == (78, 18)
    assert not {subject[:3] for subject in train} & {subject[:3] for subject in test}


def test_documented_keys_and_defaults_of_the_settings_are_the_true_ones():
    text = gft.__doc__.split("what holds without them:")[1]
    assert gft.Config(**tomllib.loads(text)) == gft.Config()
    assert set(tomllib.loads(text)) == set(gft.Config.model_fields)


# ---------------------------------------------------------------------------------------------------------- reading


def test_rows_meet_the_images_of_their_number_in_the_order_of_the_lists(root):
    (root / "images" / "001A" / "3.jpg").unlink()
    table = gft.read(root)
    assert table.aus == gft.AUS
    assert table.parts == {"train": {"001A", "001B"}, "test": {"002A"}}
    assert table.frames["subject"].unique().tolist() == ["001B", "001A", "002A"]
    assert (table.missing_images, table.absent_subjects) == (("001A/session/3",), ("007C",))
    assert len(table) == 14
    for row, labels in zip(table.frames.itertuples(), table.labels.tolist(), strict=True):
        assert row.frame == shown(root, row.image)
        assert labels == bits(row.frame)
    optional = gft.read(root, images="optional")
    assert (len(optional), optional.missing_images) == (15, table.missing_images)


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        HEADER.replace("AU", ""),
        re.sub(r"AU(\d)\b", r"AU0\1", HEADER),
        HEADER.lower(),
        HEADER.replace("frame", "0"),
        HEADER.replace("frame", " Frame "),
        "frame,AU01,2,AU04,6,10,AU12,au14,15,AU23,24",
    ],
)
def test_columns_are_found_by_name_however_it_is_spelled(root, header):
    plain = gft.read(root).frames
    write_labels(root, "001A", header=header)
    pd.testing.assert_frame_equal(gft.read(root).frames, plain)


def test_swapped_columns_are_read_by_name(root):
    plain = gft.read(root).frames
    path = root / "labels" / "001A.csv"
    path.write_text("\n".join(",".join(reversed(line.split(","))) for line in path.read_text().split()))
    pd.testing.assert_frame_equal(gft.read(root).frames, plain)


@pytest.mark.parametrize("code", ["9", "-1", "999", "", " 9 "])
def test_known_codes_of_unknown_labels_become_minus_one(root, code):
    path = root / "labels" / "001A.csv"
    path.write_text(path.read_text().replace("\n3,1,1,", f"\n3,1,{code},"))
    labels = gft.read(root).labels
    assert (labels == -1).sum() == 1
    assert labels[7].tolist() == [1, -1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_codes_of_unknown_labels_are_settings_that_enter_the_protocol(root):
    plain = gft.protocol(root)
    assert plain.settings == {"missing": ["", "-1", "9", "999"]}
    assert gft.protocols(root) == {"gft": plain}
    assert gft.read(root).protocol == plain
    (root / "gft.toml").write_text('missing = ["NaN"]')
    path = root / "labels" / "001A.csv"
    text = path.read_text()
    path.write_text(text.replace("\n3,1,1,", "\n3,1,NaN,"))
    table = gft.read(root)
    assert (table.labels == -1).sum() == 1
    assert table.protocol.settings == {"missing": ["NaN"]}
    assert table.protocol.hash == gft.protocol(root).hash != plain.hash
    with pytest.raises(DataError, match=r"001A\.csv, line 4: AU2 is 'NaN'. Expected 0 absent, 1 present or.*'999'"):
        gft.read(root, protocol=plain)
    path.write_text(text.replace("\n3,1,1,", "\n3,1,9,"))
    with pytest.raises(DataError, match=r"line 4: AU2 is '9'.*not coded, 'NaN'; missing in gft.toml sets these codes"):
        gft.read(root)
    assert (gft.read(root, protocol=plain).labels == -1).sum() == 1
    nothing = dataclasses.replace(plain, settings={"missing": []})
    with pytest.raises(DataError, match=r"line 4: AU2 is '9'.*not coded, nothing else"):
        gft.read(root, protocol=nothing)
    for settings, message in (
        ({"threshold": 2}, "settings threshold. GFT knows missing"),
        ({"missing": ["1"]}, "settings: missing = .*'1' is no code"),
        ({"missing": "9"}, "settings: missing = '9': .*list"),
    ):
        with pytest.raises(UsageError, match=message):
            gft.read(root, protocol=dataclasses.replace(plain, settings=settings))


def test_places_frame_column_and_offset_are_settings(root):
    (root / "labels").rename(root / "codes")
    (root / "images").rename(root / "video frames")
    (root / "gft_train.txt").rename(root / "first.txt")
    (root / "gft_test.txt").rename(root / "second.txt")
    for subject in ("001A", "001B", "002A"):
        shutil.rmtree(root / "video frames" / subject)
        write_images(root / "video frames" / subject, range(5, 10), "{:06}.png")
        write_labels(root, subject, header=HEADER.replace("frame", "Time"), folder="codes")
    (root / "gft.toml").write_bytes(
        b'\xef\xbb\xbflabels = "codes"\r\nimages = "./video frames"\r\ntrain = "first.txt"\r\ntest = "second.txt"\r\n'
        b'frame = ["TIME"]\r\nframe_offset = 4\r\n'
    )
    table = gft.read(root)
    assert len(table) == 15
    assert table.frames["image"].iloc[0] == "video frames/001B/000005.png"
    for row in table.frames.itertuples():
        assert shown(root, row.image) == row.frame + 4


def test_rows_without_a_frame_column_count_from_zero_and_an_empty_line_is_refused(root):
    (root / "gft.toml").write_text("frame = []\nframe_offset = 1")
    for subject in ("001A", "001B", "002A"):
        path = root / "labels" / f"{subject}.csv"
        path.write_text("\n".join(line.split(",", 1)[1] for line in path.read_text().split()))
    table = gft.read(root)
    assert table.frames["frame"].tolist() == [0, 1, 2, 3, 4] * 3
    for row, labels in zip(table.frames.itertuples(), table.labels.tolist(), strict=True):
        assert labels == bits(shown(root, row.image))
    path.write_text(path.read_text().replace("\n1,1", "\n\n1,1"))
    with pytest.raises(DataError, match=r"002A\.csv, line 4: an empty line"):
        gft.read(root)


def test_own_protocol_chooses_subjects_and_aus(root):
    own = Protocol("own", (12,), {"late": frozenset({"002A"}), "early": frozenset({"001A", "007C"})})
    table = gft.read(root, protocol=own)
    assert (table.aus, table.absent_subjects) == ((12,), ("007C",))
    assert table.frames["subject"].unique().tolist() == ["002A", "001A"]
    assert table.protocol.settings == gft.protocol(root).settings
    with pytest.raises(UsageError, match=r"F001 is no subject of gft_train\.txt and gft_test\.txt"):
        gft.read(root, protocol=dataclasses.replace(own, parts={"1": frozenset({"F001"})}))
    with pytest.raises(UsageError, match=r"frame rule 'known'\. .* knows all"):
        gft.read(root, protocol=dataclasses.replace(own, frame_rule="known"))
    with pytest.raises(DataError, match="holds no subject of protocol 'own'"):
        gft.read(root, protocol=dataclasses.replace(own, parts={"1": frozenset({"007C"})}))
    with pytest.raises(DataError, match=r"001B\.csv, line 1: 0 columns for AU5"):
        gft.read(root, protocol=dataclasses.replace(gft.protocol(root), aus=(1, 5)))


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", " , "),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: "\n".join([HEADER, *reversed(text.split()[1:])]),
        lambda text: text.replace("AU24", "AU24,note").replace("0\n", "0,é\n"),
        lambda text: text.replace("\n3,", "\n0003,"),
    ],
    ids=["CRLF", "BOM", "padded", "no last line end", "empty lines", "descending", "unused column", "padded frame"],
)
def test_harmless_spellings_read_like_the_plain_file(root, spell):
    plain = gft.read(root).frames
    path = root / "labels" / "001A.csv"
    path.write_bytes(spell(path.read_text()).encode())
    pd.testing.assert_frame_equal(gft.read(root).frames, plain)


MALFORMED = {
    "cut row": (lambda text: text.replace("\n3,1,1,0", "\n3,1"), "line 4: 9 cells. Expected 11"),
    "long row": (lambda text: text.replace("\n3,", "\n3,1,"), "line 4: 12 cells"),
    "code two": (lambda text: text.replace("\n3,1,1", "\n3,1,2"), "line 4: AU2 is '2'. Expected 0 absent, 1 present"),
    "intensity": (lambda text: text.replace("\n3,1", "\n3,0.5"), r"line 4: AU1 is '0\.5'"),
    "huge label": (lambda text: text.replace("\n3,1", "\n3," + "1" * 50), "line 4: AU1 is '1111"),
    "huge frame": (lambda text: text.replace("\n3,", "\n1" + "0" * 30 + ","), "line 4: frame number '1000"),
    "late frame": (lambda text: text.replace("\n3,", "\n1000000001,"), "line 4: frame number '1000000001'"),
    "negative frame": (lambda text: text.replace("\n3,", "\n-3,"), "line 4: frame number '-3'"),
    "fraction of a frame": (lambda text: text.replace("\n3,", "\n3.5,"), r"line 4: frame number '3\.5'"),
    "frame twice": (lambda text: text.replace("\n3,", "\n2,"), "line 4: frame 2 again, first on line 3"),
    "semicolons": (lambda text: text.replace(",", ";"), "line 1: 0 columns for the frame number"),
    "AU missing": (lambda text: text.replace("AU12", "AU11"), "line 1: 0 columns for AU12"),
    "AU twice": (lambda text: text.replace("AU12", "AU01"), "line 1: 2 columns for AU1"),
    "two frame columns": (lambda text: text.replace("AU24", "0"), "line 1: 2 columns for the frame number"),
    "no header": (lambda text: text.split("\n", 1)[1], "line 1: 9 columns for the frame number"),
    "no rows": (lambda text: HEADER, "no coded frames"),
    "empty file": (lambda text: "", "line 1: 0 columns for the frame number"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_label_file_is_refused_with_file_and_line(root, case):
    change, message = MALFORMED[case]
    path = root / "labels" / "001A.csv"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(DataError, match=f"001A.csv.*{message}"):
        gft.read(root)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_label_file_of_another_encoding_is_refused_by_name(root, encoding):
    path = root / "labels" / "001A.csv"
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(DataError, match=r"001A\.csv, line 1: 0 columns for the frame number"):
        gft.read(root)


def plain_reading(path):
    """Frame number and labels of each row, frames ascending, by the csv module alone."""
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    header, *rows = [cells for cells in csv.reader(io.StringIO(text, newline=""), quoting=csv.QUOTE_NONE) if cells]
    header = [name.strip().lower() for name in header]
    frame = header.index("frame") if "frame" in header else header.index("0")
    places = [next(place for place, name in enumerate(header) if name.lstrip("au0") == str(au)) for au in AUS]
    known = {"0": 0, "1": 1, "9": -1, "-1": -1, "999": -1, "": -1}
    assert {len(cells) for cells in rows} == {len(header)}
    return sorted([int(cells[frame]), *(known[cells[place].strip()] for place in places)] for cells in rows)


def test_a_mutated_label_file_is_either_refused_by_name_or_read_like_a_plain_csv(root, mutations):
    path, form = root / "labels" / "001A.csv", gft._format(gft.Config())
    check_mutations(path, mutations, lambda: read_labels(path, AUS, form).tolist(), plain_reading)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"001A\n001B\n002A\n", r"gft_test\.txt, line 1: subject 002A again, first in gft_train\.txt, line 3"),
        (b"001A\n001B\n001A\n", r"gft_train\.txt, line 3: subject 001A again, first in gft_train\.txt, line 1"),
        (b"001A\n../001B\n", r"gft_train\.txt, line 2: '\.\./001B'. Expected one subject per line, such as 001A"),
        (b"001A,001B\n", r"gft_train\.txt, line 1: '001A,001B'"),
        (b"001A 001B\n", r"gft_train\.txt, line 1: '001A 001B'"),
        (b"\n \r\n", r"gft_train\.txt: no subjects"),
        (b"001A\n", r"labels/001B\.csv: subject 001B is neither in gft_train\.txt nor in gft_test\.txt"),
        (b"001a\n001B\n", r"labels/001A\.csv: subject 001A is neither"),
        ("001A\n001B\n".encode("utf-16"), r"gft_train\.txt: cannot be read"),
        ("001A\n001B\n".encode("utf-16-le"), r"gft_train\.txt, line 1: '0\\x00"),
        (None, r"gft_train\.txt: cannot be read.*Expected the subjects of part 'train', one per line"),
    ],
)
def test_bad_split_list_is_refused_with_file_and_line(root, content, message):
    (root / "gft_train.txt").unlink()
    if content is not None:
        (root / "gft_train.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        gft.read(root)


def test_split_list_with_mark_spaces_and_windows_lines_is_read(root):
    plain = gft.protocol(root)
    (root / "gft_train.txt").write_bytes(b"\xef\xbb\xbf 001B \r\n\r\n001A")
    assert gft.protocol(root).hash == plain.hash
    (root / "gft_train.txt").write_text("001B\n001A\n003A\n")
    assert gft.protocol(root).hash != plain.hash


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'label = "codes"',
            "unknown name 'label'. Valid names: labels, images, train, test, missing, frame, frame_off",
        ),
        ("missing = 9", "missing = 9: .*list"),
        ("missing = [9]", r"missing\.0 = 9: .*string"),
        ('missing = ["0"]', "'0' is no code"),
        ('missing = [" 9"]', "' 9' is no code"),
        ('missing = ["9,9"]', "'9,9' is no code"),
        ('frame = "frame"', "frame = 'frame': .*list"),
        ('frame = ["AU01"]', "'AU01' is the name of an AU column"),
        ('frame_offset = "1"', "frame_offset = '1': .*integer"),
        ("frame_offset = true", "frame_offset = True: .*integer"),
        ("frame_offset = 1.0", r"frame_offset = 1\.0: .*integer"),
        (f"frame_offset = 1{'0' * 30}", "less than or equal to 1000000000"),
        ('labels = "../codes"', "labels = '../codes': Expected a path below the root"),
        ('images = "/images"', "images = '/images': Expected a path below the root"),
        ('images = "a\\\\b"', "Expected a path below the root, with forward slashes"),
        ('train = "a\\u0000"', "train = 'a.x00': Expected a path below the root"),
        ('test = ""', "test = '': Expected a path below the root"),
        ("labels = codes", r"no TOML \(Invalid value \(at line 1, column 10\)\). Expected lines such as"),
        ("\xff", r"no TOML \(.*codec can't decode"),
    ],
)
def test_bad_settings_are_refused_by_name(root, content, message):
    (root / "gft.toml").write_bytes(content.encode("latin-1"))
    for look in (gft.read, gft.protocol, gft.fingerprint):
        with pytest.raises(DataError, match=f"gft.toml: .*{message}"):
            look(root)


# ------------------------------------------------------------------------------------------------------------ trees


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the folder is empty"),
        (["AUCoding/AU_OCC/F001_T1.csv"], "this looks like BP4D"),
        (["ActionUnit_Labels/SN001/SN001_au1.txt"], "this looks like DISFA"),
        (["x/AU_Detection_Challenge/Train_Set/a.txt"], "this looks like Aff-Wild2"),
        (["Physiology/F001/T1/a.txt"], r"this looks like BP4D\+"),
        (["images.npy", "frames.parquet"], "this looks like a pack"),
        (["001A.csv"], r"this looks like the label folder itself\. Call it labels and name the folder that it is in"),
        (["labels/001A.txt"], "no label files of GFT.*<subject>.csv in .*/labels; gft.toml may name another folder"),
        (["labels/001A.csv"], r"gft_train\.txt: cannot be read"),
    ],
)
def test_folder_of_something_else_is_named_for_what_it_is(tmp_path, content, message):
    for name in content:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for look in (gft.read, gft.fingerprint):
        with pytest.raises(DataError, match=message):
            look(tmp_path)


def test_missing_folder_and_rendering_of_another_data_set_are_refused(root):
    for look in (gft.read, gft.protocol, gft.fingerprint):
        with pytest.raises(DataError, match=r"nowhere: no such folder\. Expected the root of GFT"):
            look(root / "nowhere")
    (root / "synthetic.json").write_text(json.dumps({"dataset": "bp4d", "null_au": 28}))
    with pytest.raises(DataError, match="holds rendered faces in the layout of bp4d"):
        gft.read(root)


def test_a_root_without_any_image_is_refused_unless_images_are_optional(root):
    (root / "gft.toml").write_text("frame_offset = 100")
    with pytest.raises(
        DataError, match=r"none of the 15 labelled frames has an image.*images/001B \(images and frame_o"
    ):
        gft.read(root)
    assert len(gft.read(root, images="optional")) == 15


def test_two_images_of_one_frame_are_refused(root):
    write_images(root / "images" / "001A", (3,), "{:04}.jpg")
    with pytest.raises(DataError, match=r"001A: two images of frame 3, 0003\.jpg and 3\.jpg"):
        gft.read(root)


def test_hidden_and_other_files_among_the_labels_are_ignored(root):
    plain = gft.fingerprint(root)
    for name in ("._001A.csv", ".DS_Store", "readme.txt"):
        (root / "labels" / name).write_bytes(b"\x00")
    assert len(gft.read(root)) == 15
    assert gft.fingerprint(root) == plain


def test_links_are_followed_and_those_to_nowhere_are_named(root, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    plain = gft.read(root).frames
    for name in ("labels", "images", "gft_train.txt"):
        shutil.move(root / name, away / name)
        (root / name).symlink_to(away / name)
    pd.testing.assert_frame_equal(gft.read(root).frames, plain)
    (root / "labels" / "007C.csv").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match=r"007C\.csv: cannot be read"):
        gft.read(root)
    (root / "gft.toml").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match=r"gft\.toml: no TOML .*No such file"):
        gft.read(root)


def test_fingerprint_follows_labels_lists_and_settings(root):
    seen = {gft.fingerprint(root)}
    write_images(root / "images" / "001A", (9,))
    assert gft.fingerprint(root) in seen
    for name, text in (("gft.toml", "frame_offset = 1"), ("gft_test.txt", "002A\n"), ("labels/001A.csv", HEADER)):
        (root / name).write_text(text)
        assert gft.fingerprint(root) not in seen
        seen.add(gft.fingerprint(root))


# ----------------------------------------------------------------------------------------------------------- writer

OPTIONS = {"subjects": 4, "frames": 12, "seed": 5, "size": 32}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "gft"
    gft.write(root, **OPTIONS)
    return root


@pytest.fixture(scope="module")
def population():
    people = gft.LAYOUT.people(OPTIONS["subjects"])
    difficulty = difficulty_of("gft", "easy")
    return Population(
        people, rates=dict.fromkeys(people, gft.RATES), difficulty=difficulty, seed=seed_of("gft", OPTIONS["seed"])
    )


def test_rendered_root_has_the_documented_layout(rendered):
    people = gft.LAYOUT.people(4)
    assert {path.name for path in (rendered / "labels").iterdir()} == {f"{person}.csv" for person in people}
    train, test = ((rendered / f"gft_{part}.txt").read_text().split() for part in ("train", "test"))
    assert (len(train), len(test)) == (78, 18)
    assert sum(person in train for person in people) == sum(person in test for person in people) == 2
    headers = [path.read_text().split("\n")[0] for path in (rendered / "labels").iterdir()]
    assert {"AU01" in header for header in headers} == {True, False}
    labelled = [*DRAWN_AUS, NULL_AU]
    assert all([int(name.removeprefix("AU")) for name in header.split(",")[1:]] == labelled for header in headers)
    assert cv2.imread(str(rendered / "images" / people[0] / "76.jpg")).shape == (32, 32, 3)


def test_rendered_labels_and_images_are_those_of_the_population(rendered, population):
    table = gft.read(rendered)
    assert (table.null_aus, table.missing_images) == ((NULL_AU,), ())
    assert table.synthetic["dials"] == json.loads(json.dumps(dataclasses.asdict(population.difficulty)))
    assert {part: len(subjects) for part, subjects in table.parts.items()} == {"train": 2, "test": 2}
    assert len(table) == 48
    assert len(table.absent_subjects) == 92
    columns = [DRAWN_AUS.index(au) for au in AUS]
    for subject in population.subjects:
        mine = (table.frames["subject"] == subject).to_numpy()
        frames = table.frames["frame"][mine].to_numpy()
        assert frames.tolist() == list(range(76, 1801, 150))  # the middles of twelve stretches, counted from 1
        behaviour = population.sequence(subject, "session", (frames - 1) / 30)
        expected = np.column_stack([behaviour.occurrence[:, columns], behaviour.null])
        known = table.labels[mine] >= 0
        assert np.array_equal(table.labels[mine][known], expected[known])
        assert known[:, -1].all()
        assert (~known).any(1).sum() <= 1
        faces = population.images(subject, behaviour, size=32).astype(float)
        read = np.stack([cv2.imread(str(rendered / name))[..., ::-1] for name in table.frames["image"][mine]])
        distance = np.abs(faces[:, None] - read[None].astype(float)).mean((2, 3, 4))  # (T, T)
        assert (distance.argmin(1) == np.arange(len(frames))).all()


def test_each_whole_label_file_has_one_stretch_of_36_unknown_frames(root, population):
    (root / "gft_train.txt").write_text("\n".join(population.subjects))
    (root / "gft_test.txt").write_text("032C")
    shutil.rmtree(root / "labels")
    (root / "labels").mkdir()
    starts = set()
    for job in gft.LAYOUT.plan(list(population.subjects), None):
        behaviour = population.sequence(job.subject, job.sequence, job.times)
        text = gft._label_file(gft.Rendered(job, behaviour, population, 32))
        (root / "labels" / f"{job.subject}.csv").write_text(text)
        mine = gft.read(root, images="optional").frames.query(f"subject == '{job.subject}'")
        assert mine["frame"].tolist() == list(range(1, 1801))
        labels = mine[[f"AU{au}" for au in AUS]].to_numpy()
        unknown = labels == -1
        assert (unknown.any(1) == unknown.all(1)).all()
        gap = np.flatnonzero(unknown.any(1))
        assert len(gap) == 36 == gap[-1] - gap[0] + 1
        columns = [DRAWN_AUS.index(au) for au in AUS]
        assert np.array_equal(labels[~unknown.any(1)], behaviour.occurrence[~unknown.any(1)][:, columns])
        starts.add(gap[0])
    assert len(starts) == 4


def test_latents_name_every_frame_of_the_table(rendered):
    keys = ["subject", "sequence", "frame"]
    frames = gft.read(rendered).frames
    assert set(map(tuple, layout.latents(rendered)[keys].to_numpy())) == set(map(tuple, frames[keys].to_numpy()))


def test_protocol_of_rendered_faces_does_not_depend_on_how_many_are_drawn(rendered, tmp_path):
    gft.write(tmp_path / "one", subjects=1, frames=2, size=32)
    assert gft.protocol(tmp_path / "one").hash == gft.protocol(rendered).hash
    assert gft.read(tmp_path / "one").parts == {"train": {"001A"}}


def test_interrupted_rendering_is_refused_by_the_reader_and_continued_by_the_writer(rendered, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        gft.write(tmp_path / "cut", **OPTIONS, progress=stop_after(2))
    for look in (gft.read, gft.protocol):
        with pytest.raises(DataError, match="rendering was not finished"):
            look(tmp_path / "cut")
    gft.write(tmp_path / "cut", **OPTIONS)
    assert bytes_of(tmp_path / "cut") == bytes_of(rendered)
