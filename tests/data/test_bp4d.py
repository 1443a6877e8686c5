"""BP4D: what the reader accepts and refuses, and that the rendered layout is the real one."""

import csv
import dataclasses
import json
import shutil
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from layouts import bytes_of, stop_after

from aunce.data import bp4d, landmarks, layout, load
from aunce.data.frames import Protocol
from aunce.data.labels import read_labels
from aunce.data.render import writing
from aunce.data.render.behaviour import AUS as DRAWN_AUS
from aunce.data.render.behaviour import NULL_AU
from aunce.data.render.difficulty import SETTINGS, VERSIONS
from aunce.data.render.population import Population
from aunce.errors import DataError, UsageError

HEADER = ",".join(map(str, range(100)))
ALL = {"M": 18, "F": 23}
# facts of the published lists, typed in again here
FRAMES = {"1": 50_631, "2": 50_182, "3": 46_034}
FIRST_PART = "F001 F002 F008 F009 F010 F016 F018 F023 M001 M004 M007 M008 M012 M014"
SECOND_PART = "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018"
THIRD_PART = "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015"
POSITIVES = {1: 31_043, 2: 25_110, 4: 29_755, 6: 67_677, 7: 80_617, 10: 87_271, 12: 82_531, 14: 68_376, 15: 24_869,
             17: 50_407, 23: 24_288, 24: 22_229}  # fmt: skip
# relative rates of the training parts as the shipped weight files give them: parts -> one number per AU
RELATIVE = {
    ("1", "2"): [0.322, 0.256, 0.347, 0.771, 1, 0.994, 0.947, 0.800, 0.308, 0.599, 0.290, 0.260],
    ("1", "3"): [0.351, 0.313, 0.335, 0.748, 0.893, 1, 0.950, 0.718, 0.250, 0.540, 0.264, 0.242],
    ("2", "3"): [0.391, 0.292, 0.339, 0.803, 0.874, 1, 0.934, 0.828, 0.296, 0.591, 0.280, 0.261],
}


def write_labels(folder, subject="F001", frames=(90, 91, 92), *, tasks=bp4d.TASKS, cell="0", end="\n"):
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        rows = [",".join([str(frame), *[cell] * 99]) for frame in frames]
        (folder / f"{subject}_{task}.csv").write_text(end.join([HEADER, *rows, ""]), newline="")


def write_images(folder, names=("0090.jpg", "0091.jpg", "0092.jpg"), subject="F001", tasks=bp4d.TASKS):
    for task in tasks:
        (folder / subject / task).mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / subject / task / name).touch()


@pytest.fixture
def root(tmp_path):
    """One subject, three frames per task, with (empty) images."""
    write_labels(tmp_path / "AUCoding" / "AU_OCC")
    write_images(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The labels of all 328 sequences with random cells, as the segments say; and what is read from them."""
    root = tmp_path_factory.mktemp("bp4d")
    folder = root / "AUCoding" / "AU_OCC"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    tails = [",".join(map(str, cells)) for cells in generator.choice([0, 1, 9], (64, 99), p=[0.6, 0.3, 0.1])]
    with open(bp4d.__file__.replace("bp4d.py", "published/bp4d_segments.csv"), newline="") as file:
        for line in csv.DictReader(file):
            first, count = int(line["first_frame"]), int(line["frames"])
            rows = [f"{first + i},{tails[pick]}" for i, pick in enumerate(generator.integers(0, 64, count))]
            (folder / f"{line['subject']}_{line['task']}.csv").write_text("\n".join([HEADER, *rows, ""]))
    return root, load("bp4d", root, images="optional")


def test_whole_data_set_has_the_published_frame_counts_per_part(whole):
    _, table = whole
    assert table.frames.groupby("part").size().to_dict() == FRAMES
    assert len(table) == 146_847
    assert table.summary()["sequences"] == 328
    assert (table.aus, table.null_aus, table.synthetic, table.absent_subjects) == (bp4d.AUS, (), None, ())
    assert len(table.missing_images) == 146_847


def test_whole_data_set_equals_an_independent_reading_in_the_published_order(whole):
    root, table = whole
    order = list(bp4d.segments()[["subject", "task"]].itertuples(index=False, name=None))
    assert list(table.frames[["subject", "sequence"]].drop_duplicates().itertuples(index=False, name=None)) == order
    rows, labels, some = [], [], order[::9]
    for subject, task in some:
        with open(root / "AUCoding" / "AU_OCC" / f"{subject}_{task}.csv", newline="") as file:
            header, *lines = csv.reader(file)
        frame, *places = [header.index(str(name)) for name in (0, *bp4d.AUS)]
        rows += [(subject, task, int(cells[frame])) for cells in lines]
        labels += [[-1 if cells[place] == "9" else int(cells[place]) for place in places] for cells in lines]
    mine = pd.MultiIndex.from_frame(table.frames[["subject", "sequence"]]).isin(some)
    assert list(table.frames.loc[mine, ["subject", "sequence", "frame"]].itertuples(index=False, name=None)) == rows
    assert np.array_equal(table.labels[mine], np.array(labels))


def test_parts_are_the_published_subjects_and_protocol_names_them_all():
    parts = {"1": FIRST_PART, "2": SECOND_PART, "3": THIRD_PART}
    assert {part: set(subjects) for part, subjects in bp4d.PARTS.items()} == {
        p: set(s.split()) for p, s in parts.items()
    }
    assert bp4d.PROTOCOL.parts == {part: frozenset(names.split()) for part, names in parts.items()}
    assert set(bp4d.PROTOCOL.part_of) == {f"{sex}{n:03}" for sex, count in ALL.items() for n in range(1, count + 1)}
    assert list(bp4d.segments()["subject"].unique()) == [s for subjects in bp4d.PARTS.values() for s in subjects]


def test_rates_give_back_the_published_positives_and_weights():
    for au, count in POSITIVES.items():
        assert sum(FRAMES[part] * bp4d.RATES[part][au] for part in FRAMES) == pytest.approx(count, abs=10)
    for parts, relative in RELATIVE.items():
        counts = np.array([sum(FRAMES[part] * bp4d.RATES[part][au] for part in parts) for au in bp4d.AUS])
        assert counts / counts.max() == pytest.approx(relative, abs=6e-4)


def test_code_nine_becomes_unknown_and_columns_go_by_name(root):
    path = root / "AUCoding" / "AU_OCC" / "F001_T1.csv"
    order = [0, *reversed(range(1, 100))]
    cells = {0: 90, 1: 1, 2: 9, 24: 1}
    path.write_text("\n".join([",".join(map(str, order)), ",".join(str(cells.get(n, 0)) for n in order)]))
    line = load("bp4d", root).frames.iloc[0]
    assert {au: int(line[f"AU{au}"]) for au in bp4d.AUS} == {**dict.fromkeys(bp4d.AUS, 0), 1: 1, 2: -1, 24: 1}


@pytest.mark.parametrize("labels", ["AUCoding/AU_OCC", "AU_OCC", "AUCoding"])
@pytest.mark.parametrize("images", [".", "Sequences(2D+3D)", "BP4D-training"])
def test_known_places_of_labels_and_images_are_found(tmp_path, labels, images):
    write_labels(tmp_path / labels)
    (tmp_path / "AUCoding" / "AU_INT").mkdir(parents=True, exist_ok=True)
    write_images(tmp_path / images)
    table = load("bp4d", tmp_path)
    assert table.frames["image"].iloc[0] == f"{'' if images == '.' else images + '/'}F001/T1/0090.jpg"
    assert (len(table), table.missing_images) == (24, ())
    assert (tmp_path / table.frames["image"].iloc[-1]).exists()


def test_folders_are_found_in_upper_and_lower_case(root):
    (root / "AUCoding").rename(root / "aucoding")
    (root / "F001").rename(root / "f001")
    table = load("bp4d", root)
    assert (len(table), table.frames["image"].iloc[0]) == (24, "f001/T1/0090.jpg")


@pytest.mark.parametrize("name", ["90.jpg", "090.jpg", "0090.jpg", "0090.JPG", "00000090.png"])
def test_image_names_of_any_padding_match_by_number(tmp_path, name):
    write_labels(tmp_path / "AU_OCC", frames=(90,))
    write_images(tmp_path, names=(name, "0091.jpg", "Thumbs.db", "0090.obj", "mask_0090.jpg"))
    assert load("bp4d", tmp_path).frames["image"].iloc[0] == f"F001/T1/{name}"


def test_two_images_of_one_frame_are_refused(root):
    (root / "F001" / "T2" / "90.jpg").touch()
    with pytest.raises(DataError, match=r"T2: two images of frame 90, 0090\.jpg and 90\.jpg"):
        load("bp4d", root)


def test_missing_images_are_counted_and_dropped_only_when_required(root):
    (root / "F001" / "T2" / "0091.jpg").unlink()
    shutil.rmtree(root / "F001" / "T8")
    missing = ("F001/T2/91", "F001/T8/90", "F001/T8/91", "F001/T8/92")
    required, optional = load("bp4d", root), load("bp4d", root, images="optional")
    assert required.missing_images == optional.missing_images == missing
    assert (len(required), len(optional)) == (20, 24)
    assert (required.frames["image"] != "").all()
    assert (optional.frames["image"] == "").sum() == 4


def test_a_root_without_any_image_is_refused_unless_images_are_optional(root):
    shutil.rmtree(root / "F001")
    with pytest.raises(DataError, match=r"none of the 24 labelled frames has an image.*BP4D-training/F001/T1"):
        load("bp4d", root)
    assert len(load("bp4d", root, images="optional")) == 24


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", " , "),
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
        lambda text: "\n".join([HEADER, *reversed(text.splitlines()[1:])]),
        lambda text: text.replace("0\n", "x\n"),  # the last column, which no protocol reads
    ],
    ids=["CRLF", "BOM", "padded cells", "no last line end", "empty lines", "descending rows", "odd unused column"],
)
def test_harmless_spellings_read_like_the_plain_file(root, spell):
    plain = load("bp4d", root).frames
    path = root / "AUCoding" / "AU_OCC" / "F001_T3.csv"
    path.write_bytes(spell(path.read_text()).encode())
    pd.testing.assert_frame_equal(load("bp4d", root).frames, plain)


def edit(line, column, value):
    def change(lines):
        cells = lines[line].split(",")
        cells[column] = value
        return [*lines[:line], ",".join(cells), *lines[line + 1 :]]

    return change


ROW = ",".join(["91"] + ["0"] * 99)
MALFORMED = {
    "short row": (lambda lines: [*lines[:2], lines[2][:-2], lines[3]], "line 3: 99 cells. Expected 100"),
    "long row": (lambda lines: [*lines[:2], lines[2] + ",0", lines[3]], "line 3: 101 cells. Expected 100"),
    "short then long": (lambda lines: [*lines[:2], lines[2][:-2], lines[3] + ",0"], "line 3: 99 cells"),
    "value two": (edit(3, 12, "2"), "line 4: AU12 is '2'. Expected 0 absent, 1 present or 9 not coded"),
    "value minus one": (edit(1, 1, "-1"), "line 2: AU1 is '-1'"),
    "intensity float": (edit(1, 24, "0.5"), "line 2: AU24 is '0.5'"),
    "empty cell": (edit(2, 4, ""), "line 3: AU4 is ''"),
    "text": (edit(2, 4, "x"), "line 3: AU4 is 'x'"),
    "fractional frame": (edit(2, 0, "91.5"), "line 3: frame number '91.5'"),
    "negative frame": (edit(2, 0, "-91"), "line 3: frame number '-91'"),
    "frame twice": (edit(3, 0, "91"), "line 4: frame 91 again, first on line 3"),
    "no rows": (lambda lines: lines[:1], "no coded frames"),
    "empty file": (lambda lines: [], "line 1: 0 columns for the frame number"),
    "no header": (lambda lines: lines[1:], "line 1: 0 columns for AU1|line 1: 99 columns for the frame number"),
    "AU missing": (edit(0, 12, "112"), "line 1: 0 columns for AU12"),
    "AU twice": (edit(0, 11, "12"), "line 1: 2 columns for AU12"),
    "binary": (lambda lines: ["\x00\x01\x02"], "line 1: 0 columns for the frame number"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_label_file_is_refused_with_file_and_line(root, case):
    change, message = MALFORMED[case]
    path = root / "AUCoding" / "AU_OCC" / "F001_T5.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(DataError, match=f"F001_T5.csv.*({message})"):
        load("bp4d", root)


# ------------------------------------------------------------------------------ mutated label files, for BP4D+ as well

CELLS = ("0", "1", "9", "2", "-1", "", " 1", "1\t", "01", "1.0", "0.5", "1e0", "0x1", "+1", "x", "nan", "True", "é")
CELLS += ("１", "٣", "\x00", "9" * 5000, str(2**63))
NUMBERS = ("91.0", " 95 ", "0095", "-91", "0x5b", "9_1", "1e9", str(10**9), str(10**9 + 1), str(2**63), "9" * 400)
NUMBERS += ("٣", "0", "")
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp500")
SPLICES = (*"0129,\n\r -+.xXe\"'é\ufeff\u2028\x00", "\r\n", ",,")


def flip_bits(text, generator):
    data = bytearray(text.encode())
    for place in generator.integers(0, len(data), generator.integers(1, 5)):
        data[place] ^= 1 << generator.integers(8)
    return bytes(data)


def cut(text, generator):
    lines = text.splitlines(keepends=True)
    start, stop = sorted(generator.integers(0, len(lines) + 1, 2).tolist())
    ways = [lines[:start] + lines[stop:], lines[:start] + lines[:stop], list(text[: generator.integers(len(text))])]
    return "".join(ways[generator.integers(3)])


def swap_columns(text, generator):
    lines = [line.split(",") for line in text.splitlines()]
    first, second = generator.integers(0, len(lines[0]), 2)
    where = [slice(None), slice(1), slice(1, None), slice(2, 3)][generator.integers(4)]
    for cells in lines[where]:
        cells[first], cells[second] = cells[second], cells[first]
    return "\n".join(map(",".join, lines))


def change_cell(text, generator):
    lines = [line.split(",") for line in text.splitlines()]
    line, column = generator.integers(0, len(lines)), generator.choice([0, generator.integers(1, 25)])
    values = NUMBERS if column == 0 else CELLS
    lines[line][column] = values[generator.integers(len(values))]
    return "\n".join(map(",".join, lines))


def quote(text, generator):
    cells = text.split(",")
    place = generator.integers(len(cells))
    cells[place] = ['"' + cells[place] + '"', '"' + cells[place], cells[place] + '""'][generator.integers(3)]
    return ",".join(cells)


def end_lines(text, generator):
    ends = ["\r\n", "\r", "\n\n", "\r\r\n", "\n\r", ",\n", " \n"]
    return text.replace("\n", ends[generator.integers(len(ends))], generator.choice([1, 5, -1]))


def encode(text, generator):
    place = generator.integers(len(text))
    return (text[:place] + "é" * generator.integers(2) + text[place:]).encode(generator.choice(ENCODINGS))


def splice(text, generator):
    for _ in range(generator.integers(1, 4)):
        place, width = generator.integers(len(text)), generator.integers(4)
        text = text[:place] + "".join(generator.choice(SPLICES, generator.integers(4))) + text[place + width :]
    return text


WAYS = (flip_bits, cut, swap_columns, change_cell, quote, end_lines, encode, splice)


def check_mutations(path, form, frame, aus, mutations):
    """Each mutation of a label file is read with the codes that the csv module gives, or refused by the file's name.

    Args:
        path: the file, of which the header is kept to begin with.
        form: the adapter's `LabelFormat`.
        frame: name of the column of frame numbers; None for the first one.
        aus: AUs to read.
        mutations: how many.
    """
    generator = np.random.default_rng(7)
    refused = 0
    header = path.read_text().splitlines()[0]
    for trial in range(mutations):
        cells = generator.choice(["0", "1", "9"], (6, header.count(",")))
        text = "\n".join([header, *(",".join([str(90 + row), *line]) for row, line in enumerate(cells)), ""])
        way, refusal = WAYS[trial % len(WAYS)], ""
        data = way(text, generator)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        try:
            got = read_labels(path, aus, form)
        except DataError as error:
            refusal = str(error)
        if refusal:
            refused += 1
            assert path.name in refusal, f"trial {trial}"
            continue
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            lines = [[cell.strip() for cell in cells] for cells in csv.reader(file, quoting=csv.QUOTE_NONE) if cells]
        names, *rows = lines
        places = [names.index(frame) if frame else 0, *(names.index(str(au), 0 if frame else 1) for au in aus)]
        plain = sorted([int(cells[place]) for place in places] for cells in rows)
        assert np.where(got == -1, 9, got).tolist() == plain, f"trial {trial}"
    assert mutations // 8 < refused < mutations - mutations // 8


def test_a_mutated_label_file_is_read_like_a_plain_csv_or_refused_by_name(root, mutations):
    check_mutations(root / "AUCoding" / "AU_OCC" / "F001_T4.csv", bp4d._FORMAT, "0", bp4d.AUS, mutations)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("F024_T1.csv", "F024_T1.csv: not a label file of BP4D.*This looks like BP4D\\+"),
        ("F001_T9.csv", "F001_T9.csv: not a label file"),
        ("f001_T1.csv", "f001_T1.csv: F001_T1 again, as in F001_T1.csv. Expected one"),
        ("F001_T1 (1).csv", r"F001_T1 \(1\)\.csv: a second copy of a label file.* take one away"),
        ("F099_X.csv", r"F099_X\.csv: not a label file of BP4D\.[^+]*\Z"),
        ("notes.csv", "notes.csv: not a label file of BP4D. Expected <subject>_<task>.csv"),
    ],
)
def test_foreign_file_among_the_labels_is_refused_by_name(root, name, message):
    (root / "AUCoding" / "AU_OCC" / name).write_text(HEADER)
    with pytest.raises(DataError, match=message):
        load("bp4d", root)


def test_hidden_and_other_files_among_the_labels_are_ignored(root):
    for name in ("._F001_T1.csv", ".DS_Store", "readme.txt"):
        (root / "AUCoding" / "AU_OCC" / name).write_bytes(b"\x00")
    assert len(load("bp4d", root)) == 24


def test_subject_with_some_tasks_is_refused_and_absent_subject_is_listed(root):
    write_labels(root / "AUCoding" / "AU_OCC", "M018", tasks=bp4d.TASKS[:6])
    with pytest.raises(DataError, match=r"subject M018 has no M018_T7\.csv, M018_T8\.csv"):
        load("bp4d", root)
    write_labels(root / "AUCoding" / "AU_OCC", "M018")
    table = load("bp4d", root, images="optional")
    assert set(table.absent_subjects) == set(bp4d.PROTOCOL.part_of) - {"F001", "M018"}
    assert table.parts == {"1": {"F001"}, "2": {"M018"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the folder is empty"),
        (["ActionUnit_Labels/SN001/SN001_au1.txt"], "this looks like DISFA"),
        (["SN001/0.png"], "this looks like DISFA"),
        (["Third ABAW Annotations/AU_Detection_Challenge/Train_Set/a.txt"], "this looks like Aff-Wild2"),
        (["cropped_aligned/video/00001.jpg"], "this looks like Aff-Wild2"),
        (["Physiology/F001/T1/a.txt"], r"this looks like BP4D\+"),
        (["images.npy", "frames.parquet"], "this looks like a pack"),
        (["F001_T1.csv"], "this looks like the label folder itself"),
        (["ours/AUCoding/AU_OCC/F001_T1.csv"], "BP4D seems to lie in .*ours; name that folder"),
        (["sets/ours/AUCoding/AU_OCC/F001_T1.csv"], "BP4D seems to lie in .*sets/ours; name that folder"),
        (["holiday.jpg"], "no label files of BP4D"),
        (["AUCoding/AU_OCC/readme.txt"], "no label files of BP4D in AU_OCC.*It holds readme.txt"),
        (["AUCoding/AU_OCC/", "AUCoding.zip", "F001/T1.zip"], r"Still packed is AUCoding\.zip and 1 more: unpack it"),
        (["Codes/F001_T1.csv"], "Codes looks like the label folder. Call it AUCoding/AU_OCC"),
        (["aucoding-2/x.zip", "sequences(2d+3d)/F001.zip"], r"Still packed is aucoding-2/x\.zip and 1 more"),
    ],
)
def test_folder_of_something_else_is_named_for_what_it_is(tmp_path, content, message):
    for name in content:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        load("bp4d", tmp_path)


def test_names_in_lower_case_are_read_and_a_folder_that_is_named_is_a_root(root):
    labels = root / "AUCoding" / "AU_OCC"
    for path in labels.iterdir():
        path.rename(path.with_name(path.name.lower()))
    assert len(load("bp4d", root)) == 24
    with pytest.raises(
        DataError, match=f"this looks like the label folder itself. Name the folder above it, {root}\\."
    ):
        load("bp4d", labels)


def test_missing_folder_and_broken_marker_are_refused(root):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load("bp4d", root / "nowhere")
    whole = {"null_au": 28, "dataset": "bp4d"}
    for content in ({}, whole | {"faces": 3}, whole | {"faces": []}):
        (root / "synthetic.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"synthetic.json: not what the renderer writes"):
            load("bp4d", root)


def test_own_protocol_chooses_subjects_aus_and_order(root):
    write_labels(root / "AUCoding" / "AU_OCC", "M018", cell="1")
    write_labels(root / "AUCoding" / "AU_OCC", "F003", cell="9")
    protocol = Protocol("own", (5, 27), {"late": frozenset({"M018"}), "early": frozenset({"F001", "F002"})})
    table = load("bp4d", root, protocol=protocol, images="optional")
    assert list(table.frames["subject"].unique()) == ["M018", "F001"]
    assert (table.aus, table.absent_subjects) == ((5, 27), ("F002",))
    with pytest.raises(UsageError, match="SN001 is no subject of BP4D"):
        load("bp4d", root, protocol=Protocol("disfa", (1,), {"1": frozenset({"SN001"})}))
    with pytest.raises(UsageError, match="frame rule 'tracked'"):
        load("bp4d", root, protocol=dataclasses.replace(protocol, frame_rule="tracked"))
    with pytest.raises(DataError, match="holds no subject of protocol"):
        load("bp4d", root, protocol=Protocol("absent", (1,), {"1": frozenset({"F002"})}))


# ----------------------------------------------------------------------------------------------------------- writer

OPTIONS = {"subjects": 3, "frames": 3, "seed": 5, "size": 32}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "bp4d"
    bp4d.write(root, **OPTIONS)
    return root


def test_rendered_root_reads_like_the_real_one_with_its_null_au(rendered):
    table = load("bp4d", rendered)
    assert len(table) == 3 * 8 * 3
    assert table.missing_images == ()
    assert (table.null_aus, table.aus) == ((NULL_AU,), (*bp4d.AUS, NULL_AU))
    assert {part: len(subjects) for part, subjects in table.parts.items()} == {"1": 1, "2": 1, "3": 1}
    assert table.synthetic == json.loads((rendered / "synthetic.json").read_text())
    assert table.synthetic["dials"] == json.loads(json.dumps(dataclasses.asdict(SETTINGS["easy"])))
    expected = {"seed": 5, "frames": 3, "size": 32, "setting": "easy"}
    expected |= {"version": VERSIONS["drawn"], "null_au": NULL_AU}
    assert {name: table.synthetic[name] for name in expected} == expected
    image = cv2.imread(str(rendered / table.frames["image"].iloc[0]))
    assert image.shape == (32, 32, 3)


def test_rendered_labels_and_latents_are_those_of_the_population(rendered):
    table = load("bp4d", rendered)
    latents = layout.latents(rendered)
    keys = ["subject", "sequence", "frame"]
    assert list(latents.columns) == [*keys, *(f"AU{au}" for au in DRAWN_AUS)]
    assert latents[keys].to_numpy().tolist() == table.frames[keys].to_numpy().tolist()
    assert (latents.dtypes.iloc[3:] == np.float32).all()
    people = list(table.frames["subject"].unique())
    rates = {subject: bp4d.RATES[bp4d.PROTOCOL.part_of[subject]] for subject in people}
    population = Population(people, rates=rates, difficulty=SETTINGS["easy"], seed=5)
    first = bp4d.segments().set_index(["subject", "task"])["first_frame"]
    columns = [DRAWN_AUS.index(au) for au in bp4d.AUS]
    for subject, task in (("F001", "T1"), ("F007", "T8")):
        mine = ((table.frames["subject"] == subject) & (table.frames["sequence"] == task)).to_numpy()
        times = (table.frames["frame"][mine].to_numpy() - first[subject, task]) / 25
        behaviour = population.sequence(subject, task, times)
        assert np.array_equal(table.labels[mine][:, :-1], behaviour.occurrence[:, columns])
        assert np.array_equal(table.labels[mine][:, -1], behaviour.null)
        assert np.array_equal(latents.loc[mine, "AU1":].to_numpy(), behaviour.intensity)


def test_rendered_label_file_has_the_real_header_and_nines_where_nothing_is_coded(rendered):
    with open(rendered / "AUCoding" / "AU_OCC" / "F001_T1.csv", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == [str(n) for n in range(100)]
    coded = {*DRAWN_AUS, NULL_AU}
    assert len(rows) == 3
    for row in rows:
        assert len(row) == 100
        assert all((cell == "9") == (n not in coded) for n, cell in enumerate(row) if n)


def test_rendered_frames_spread_over_the_coded_segment_with_true_numbers(rendered):
    frames = load("bp4d", rendered).frames
    first, count = 2440, 553  # F001_T1 in the published lists
    mine = frames.query("subject == 'F001' and sequence == 'T1'")
    assert mine["frame"].tolist() == [first + count // 6, first + count // 2, first + 5 * count // 6]
    assert mine["image"].tolist() == [f"F001/T1/{frame:04}.jpg" for frame in mine["frame"]]
    widths = {(row.subject, row.sequence, len(row.image)) for row in frames.itertuples()}
    assert len(widths) == 24  # one per sequence


def test_paddings_have_the_published_frequencies_and_hold_every_number():
    padding = bp4d._paddings()
    assert sorted(padding.values()) == [2] + [3] * 124 + [4] * 203
    known = {("F001", "T1"): 4, ("F001", "T2"): 4, ("F001", "T8"): 3}
    assert {name: padding[name] for name in known} == known
    for line in bp4d.segments().itertuples():
        assert line.first_frame + line.frames - 1 < 10 ** padding[line.subject, line.task]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40, 41])
def test_subjects_are_dealt_evenly_and_kept_in_the_published_order(count):
    people = bp4d.LAYOUT.people(count)
    sizes = [len(set(people) & set(subjects)) for subjects in bp4d.PARTS.values()]
    order = [subject for subjects in bp4d.PARTS.values() for subject in subjects]
    assert len(people) == count
    assert max(sizes) - min(sizes) <= 1
    assert people == [subject for subject in order if subject in people]


def test_plan_of_all_frames_is_the_published_segments():
    jobs = bp4d.LAYOUT.plan(bp4d.LAYOUT.people(41), None)
    assert sum(len(job.frames) for job in jobs) == 146_847
    for job, line in zip(jobs, bp4d.segments().itertuples(), strict=True):
        assert (job.subject, job.sequence) == (line.subject, line.task)
        assert job.frames.tolist() == list(range(line.first_frame, line.first_frame + line.frames))
        assert job.times[-1] == (line.frames - 1) / 25


def test_processes_and_repetition_change_no_byte(rendered, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PIXELS_A_WORKER", 1)  # else so few faces are rendered by one process
    seen = []
    bp4d.write(tmp_path / "two", **OPTIONS, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert bytes_of(tmp_path / "two") == bytes_of(rendered)
    assert seen == [(done, 24) for done in range(1, 25)]
    before = {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}
    bp4d.write(rendered, **OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in rendered.rglob("*")} == before


def test_interrupted_rendering_is_refused_by_the_reader_and_continued_by_the_writer(rendered, tmp_path):
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        bp4d.write(out, **OPTIONS, progress=stop_after(5))
    with pytest.raises(DataError, match="rendering was not finished"):
        load("bp4d", out)
    done = {path: path.stat().st_mtime_ns for path in (out / "AUCoding").rglob("*.csv")}
    # The sixth sequence was cut in the middle of an image.
    cut = next((rendered / "F001" / "T6").iterdir())
    (out / "F001" / "T6").mkdir(parents=True, exist_ok=True)
    (out / "F001" / "T6" / cut.name).write_bytes(cut.read_bytes()[:300])
    bp4d.write(out, **OPTIONS)
    assert len(done) == 5
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert bytes_of(out) == bytes_of(rendered)


@pytest.mark.parametrize("other", [{"frames": 2, "seed": 6}, {"faces": "modelled"}])
def test_unfinished_rendering_with_other_options_is_begun_anew(rendered, tmp_path, other):
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        bp4d.write(out, **OPTIONS | other, progress=stop_after(5))
    bp4d.write(out, **OPTIONS)
    assert bytes_of(out) == bytes_of(rendered)


def test_what_cannot_be_taken_away_is_not_mixed_with_another_rendering(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        bp4d.write(tmp_path / "cut", **OPTIONS, progress=stop_after(2))
    before = bytes_of(tmp_path / "cut")

    def denied(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(writing.shutil, "rmtree", denied)
    with pytest.raises(PermissionError):
        bp4d.write(tmp_path / "cut", **OPTIONS, faces="modelled")
    assert bytes_of(tmp_path / "cut") == before


def test_finished_rendering_and_foreign_folders_are_never_overwritten(rendered, tmp_path):
    before = bytes_of(rendered)
    others = {"seed": 6, "frames": 4, "size": 33, "setting": "hard", "subjects": 4, "faces": "modelled"}
    for other in ({option: value} for option, value in others.items()):
        with pytest.raises(UsageError, match="rendered with other options"):
            bp4d.write(rendered, **{**OPTIONS, **other})
    assert bytes_of(rendered) == before
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(UsageError, match="is there already"):
            bp4d.write(out, **OPTIONS)
    assert bytes_of(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"setting": "medium"}, "unknown setting 'medium'. Known: easy, hard"),
        ({"subjects": 0}, "subjects is 0. Expected 1 to 41"),
        ({"subjects": 42}, "Expected 1 to 41"),
        ({"frames": 0}, "frames is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 0}, "size is 0. Expected 16 to 512"),
        ({"size": 513}, "size is 513. Expected 16 to 512"),
        ({"faces": "sculpted"}, "unknown faces 'sculpted'. Known: drawn, modelled"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(tmp_path, option, message):
    with pytest.raises(UsageError, match=message):
        bp4d.write(tmp_path / "new", **{**OPTIONS, **option})
    assert not (tmp_path / "new").exists()


# -------------------------------------------------------------------------------------------------------- landmarks


def drawn_eyes(module, root, population):
    """Eyes (n, 2, 2) of the population that a root was rendered from, rows as in its table; also for BP4D+."""
    options, eyes = json.loads((root / "synthetic.json").read_text()), []
    for job in module.LAYOUT.plan(options["subjects"], options["frames"]):
        behaviour = population.sequence(job.subject, job.elicits or job.sequence, job.times)
        points = population.landmarks(job.subject, behaviour, size=options["size"])
        eyes.append(np.stack([points[:, 19:25].mean(1), points[:, 25:31].mean(1)], axis=1))
    return np.concatenate(eyes)


def test_rendered_root_ships_landmarks_of_all_images_but_those_whose_face_was_lost(tmp_path):
    root = tmp_path / "bp4d"
    bp4d.write(root, subjects=3, frames=12, seed=5, size=32)
    table = bp4d.read(root)
    eyes = bp4d.eyes(root, table)
    people = list(table.frames["subject"].unique())
    rates = {subject: bp4d.RATES[bp4d.PROTOCOL.part_of[subject]] for subject in people}
    population = Population(people, rates=rates, difficulty=SETTINGS["easy"], seed=5)
    lost = np.isnan(eyes).all(axis=(1, 2))
    assert (eyes.dtype, eyes.shape) == (np.float32, (3 * 8 * 12, 2, 2))
    assert 0 < lost.sum() < 15
    assert np.allclose(eyes[~lost], drawn_eyes(bp4d, root, population)[~lost], atol=1e-4)
    assert (eyes[~lost, 0, 0] < eyes[~lost, 1, 0]).all()
    assert len(list((root / "2DFeatures").iterdir())) == 24


def test_about_one_labelled_frame_in_a_hundred_is_lost():
    named = [
        f"{line.subject}_{line.task}/{line.first_frame + frame}"
        for line in bp4d.segments().itertuples()
        for frame in range(line.frames)
    ]
    share = np.mean([zlib.crc32(name.encode()) % 1000 < landmarks.LOST_PER_MILLE for name in named])
    assert share == pytest.approx(0.01, abs=0.001)


def test_eyes_are_none_without_landmarks_and_refused_when_a_file_is_damaged(rendered, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(rendered, root)
    table = bp4d.read(root)
    (root / "2DFeatures" / "F001_T2.mat").write_bytes(b"MATLAB 7.3")
    with pytest.raises(DataError, match=r"F001_T2\.mat: cannot be read.*Copy it again"):
        bp4d.eyes(root, table)
    shutil.rmtree(root / "2DFeatures")
    assert bp4d.eyes(root, table) is None


def test_landmarks_are_no_part_of_the_fingerprint_and_are_written_before_the_labels(rendered, tmp_path):
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        bp4d.write(out, **OPTIONS, progress=stop_after(5))
    names = {path.stem for path in (out / "AUCoding").rglob("*.csv")}
    assert names == {path.stem for path in (out / "2DFeatures").iterdir()}
    shutil.copytree(rendered, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "2DFeatures")
    assert bp4d.fingerprint(tmp_path / "copy") == bp4d.fingerprint(rendered)


@pytest.mark.parametrize("place", ["nowhere", "unfinished"])
def test_fingerprint_of_a_root_that_cannot_be_read_is_refused(tmp_path, place):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "synthetic.json.partial").touch()
    with pytest.raises(DataError, match=r"no such folder|not finished"):
        bp4d.fingerprint(tmp_path / place)
