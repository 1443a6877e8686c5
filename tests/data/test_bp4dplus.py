"""BP4D+: published folds, frames that count from 1 beside images that count from 0, and the rendered layout."""

import csv
import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
from layouts import bytes_of, stop_after
from test_bp4d import check_mutations, drawn_eyes

from aunce.data import bp4d, bp4dplus, layout, load
from aunce.data.frames import Protocol
from aunce.data.render.behaviour import AUS as DRAWN_AUS
from aunce.data.render.behaviour import NULL_AU
from aunce.data.render.difficulty import difficulty_of, seed_of
from aunce.data.render.population import Population
from aunce.errors import DataError, UsageError

# the columns that public readers of the files take, typed in again: after the frame number, no AU3, 8, 21, 25, 26
NAMES = "1,2,4,5,6,7,9,10,11,12,13,14,15,16,17,18,19,20,22,23,24,27,28,29,30,31,32,33,34,35,36,37,38,39"
COLUMNS, HEADER = NAMES.split(","), f"0,{NAMES}"
# places at which FMAE reads the AUs, counted from the frame number
FMAE = dict(zip(bp4dplus.AUS, (1, 2, 3, 5, 6, 8, 10, 12, 13, 15, 20, 21), strict=True))
# first and last of each fold's list as FMAE printed it
FOLDS = {"1": ("M040", "M020"), "2": ("F074", "M052"), "3": ("F029", "F068"), "4": ("M058", "F036")}


def write_labels(folder, subject="F001", frames=(40, 41, 42), *, tasks=bp4dplus.TASKS, cell="0"):
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        rows = [",".join([str(frame), *[cell] * len(COLUMNS)]) for frame in frames]
        (folder / f"{subject}_{task}.csv").write_text("\n".join([HEADER, *rows, ""]))


def write_images(folder, numbers=range(100), subject="F001", tasks=bp4dplus.TASKS, form="{:04}.jpg"):
    for task in tasks:
        (folder / subject / task).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (folder / subject / task / form.format(number)).touch()


@pytest.fixture
def root(tmp_path):
    """One subject, frames 40 to 42 of 100 (empty) images per task."""
    write_labels(tmp_path / "AUCoding" / "AU_OCC")
    write_images(tmp_path / "2D+3D")
    return tmp_path


# --------------------------------------------------------------------------------------------------------- protocols


def test_parts_are_four_folds_of_thirty_five_and_name_everybody_once():
    everybody = {f"F{n:03}" for n in range(1, 83)} | {f"M{n:03}" for n in range(1, 59)}
    assert {part: (people[0], people[-1]) for part, people in bp4dplus.PARTS.items()} == FOLDS
    assert [len(set(people)) for people in bp4dplus.PARTS.values()] == [35] * 4
    assert set().union(*bp4dplus.PARTS.values()) == everybody
    assert bp4dplus.PROTOCOL.parts == {part: frozenset(people) for part, people in bp4dplus.PARTS.items()}


def test_cross_protocol_tests_everybody_with_the_aus_of_bp4d(root):
    assert bp4dplus.CROSS.parts == {"all": frozenset(bp4dplus.PROTOCOL.part_of)}
    assert bp4dplus.CROSS.aus == bp4dplus.PROTOCOL.aus == bp4d.PROTOCOL.aus
    assert len({bp4dplus.CROSS.hash, bp4dplus.PROTOCOL.hash, bp4d.PROTOCOL.hash}) == 3
    table = load("bp4dplus", root, protocol=bp4dplus.CROSS)
    assert table.parts == {"all": {"F001"}}
    assert len(table.absent_subjects) == 139


def test_own_protocol_chooses_subjects_aus_and_order(root):
    write_labels(root / "AUCoding" / "AU_OCC", "M058", cell="1")
    protocol = Protocol("own", (5, 39), {"late": frozenset({"M058"}), "early": frozenset({"F001", "F002"})})
    table = load("bp4dplus", root, protocol=protocol, images="optional")
    assert list(table.frames["subject"].unique()) == ["M058", "F001"]
    assert (table.aus, table.absent_subjects) == ((5, 39), ("F002",))
    with pytest.raises(DataError, match=r"M058_T1\.csv, line 1: 0 columns for AU25"):
        load("bp4dplus", root, protocol=dataclasses.replace(protocol, aus=(25,)))
    with pytest.raises(UsageError, match=r"SN001 is no subject of BP4D\+"):
        load("bp4dplus", root, protocol=Protocol("disfa", (1,), {"1": frozenset({"SN001"})}))
    with pytest.raises(UsageError, match="frame rule 'tracked'"):
        load("bp4dplus", root, protocol=dataclasses.replace(protocol, frame_rule="tracked"))
    with pytest.raises(DataError, match="holds no subject of protocol"):
        load("bp4dplus", root, protocol=Protocol("absent", (1,), {"1": frozenset({"F002"})}))


def test_rates_are_labelled_as_nobodys_and_lie_between_those_of_bp4d():
    assert bp4dplus.RATES_STATUS.startswith("unverified")
    for au, rate in bp4dplus.RATES.items():
        assert min(part[au] for part in bp4d.RATES.values()) <= rate <= max(part[au] for part in bp4d.RATES.values())
    assert set(sorted(bp4dplus.RATES, key=bp4dplus.RATES.get)[-5:]) == {7, 10, 14, 12, 6}


# ------------------------------------------------------------------------------------------- columns, frames and images


@pytest.mark.parametrize("first", ["0", "frame", "Frame#"])
def test_columns_go_by_name_and_the_first_is_the_frame_by_any_of_its_names(root, first):
    path = root / "AUCoding" / "AU_OCC" / "F001_T1.csv"
    cells = [str((17 * place) % 3 // 2 + 9 * (place == FMAE[17])) for place in range(1, len(COLUMNS) + 1)]
    path.write_text("\n".join([",".join([first, *COLUMNS]), ",".join(["40", *cells])]))
    line = load("bp4dplus", root).frames.iloc[0]
    with open(path, newline="") as file:
        _, row = csv.reader(file)
    expected = {au: {"0": 0, "1": 1, "9": -1}[row[place]] for au, place in FMAE.items()}
    assert {au: int(line[f"AU{au}"]) for au in bp4dplus.AUS} == expected
    assert expected[17] == -1
    assert {0, 1} < set(expected.values())


def test_frame_f_is_image_f_less_one_whatever_the_padding_and_place(tmp_path):
    for images, form in ((".", "{:04}.jpg"), ("2d+3d", "{}.JPG")):
        place = tmp_path / form[2]
        write_labels(place / "AU_OCC", frames=(1, 7, 42))
        write_images(place / images, form=form)
        table = load("bp4dplus", place)
        mine = table.frames.query("sequence == 'T6'")
        prefix = "" if images == "." else f"{images}/"
        assert mine["frame"].tolist() == [1, 7, 42]
        assert mine["image"].tolist() == [f"{prefix}F001/T6/{form.format(number)}" for number in (0, 6, 41)]


@pytest.mark.parametrize("labels", ["AUCoding/AU_OCC", "aucoding/au_occ", "AU_OCC", "AUCoding"])
def test_known_places_of_labels_are_found(tmp_path, labels):
    write_labels(tmp_path / labels)
    (tmp_path / labels / "._F001_T1.csv").write_bytes(b"\x00")
    write_images(tmp_path)
    assert len(load("bp4dplus", tmp_path)) == 12


def test_missing_images_are_counted_and_dropped_only_when_required(root):
    (root / "2D+3D" / "F001" / "T6" / "0040.jpg").unlink()
    shutil.rmtree(root / "2D+3D" / "F001" / "T8")
    missing = ("F001/T6/41", "F001/T8/40", "F001/T8/41", "F001/T8/42")
    required, optional = load("bp4dplus", root), load("bp4dplus", root, images="optional")
    assert required.missing_images == optional.missing_images == missing
    assert (len(required), len(optional)) == (8, 12)
    shutil.rmtree(root / "2D+3D")
    with pytest.raises(DataError, match=r"none of the 12 labelled frames has an image.*2D\+3D/F001/T1"):
        load("bp4dplus", root)


@pytest.mark.parametrize("numbers", [range(1, 101), range(40, 43), range(1, 43)], ids=["video", "coded", "up to coded"])
def test_images_numbered_from_one_are_refused(root, numbers):
    shutil.rmtree(root / "2D+3D")
    write_images(root / "2D+3D", numbers)
    message = rf"T1: its first image is {numbers[0]:04}\.jpg, and 0042\.jpg is there for frame 42.*numbered from 0"
    with pytest.raises(DataError, match=message):
        load("bp4dplus", root)


@pytest.mark.parametrize("frames", [(1, 2, 3), (2, 3, 4), (40, 41, 42)])
def test_images_of_coded_frames_alone_are_read_when_they_count_from_zero(tmp_path, frames):
    write_labels(tmp_path / "AU_OCC", frames=frames)
    write_images(tmp_path, [frame - 1 for frame in frames])
    assert load("bp4dplus", tmp_path).frames["image"].iloc[0] == f"F001/T1/{frames[0] - 1:04}.jpg"


def test_two_images_of_one_number_are_refused(root):
    (root / "2D+3D" / "F001" / "T7" / "39.jpg").touch()
    with pytest.raises(DataError, match=r"T7: two images of frame 39, 0039\.jpg and 39\.jpg"):
        load("bp4dplus", root)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("line", "column", "value", "message"),
    [
        (1, 0, "0", "there is a frame 0. Expected frames numbered from 1"),
        (3, 0, "41", "line 4: frame 41 again, first on line 3"),
        (2, 0, "-41", "line 3: frame number '-41'"),
        (2, 1, "2", "line 3: AU1 is '2'. Expected 0 absent, 1 present or 9 not coded"),
        (3, 21, "x", "line 4: AU24 is 'x'"),
        (1, 34, "0,0", "line 2: 36 cells. Expected 35, as in the header"),
        (0, 12, "1", "line 1: 2 columns for AU1. Expected one: the header of a label file is 0"),
        (0, 10, "120", "line 1: 0 columns for AU12"),
    ],
)
def test_malformed_label_file_is_refused_with_file_and_line(root, line, column, value, message):
    path = root / "AUCoding" / "AU_OCC" / "F001_T7.csv"
    lines = [text.split(",") for text in path.read_text().splitlines()]
    lines[line][column] = value
    path.write_text("\n".join(map(",".join, lines)))
    with pytest.raises(DataError, match=rf"F001_T7\.csv.*{message}"):
        load("bp4dplus", root)


def test_a_mutated_label_file_is_read_like_a_plain_csv_or_refused_by_name(root, mutations):
    check_mutations(root / "AUCoding" / "AU_OCC" / "F001_T7.csv", bp4dplus._FORMAT, None, bp4dplus.AUS, mutations)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("F001_T2.csv", r"F001_T2\.csv: not a label file of BP4D\+.*This looks like BP4D: its adapter is bp4d"),
        ("F082_T2.csv", r"F082_T2\.csv: not a label file of BP4D\+.*coded tasks T1, T6, T7, T8\.$"),
        ("F083_T1.csv", r"F083_T1\.csv: not a label file"),
        ("notes.csv", r"notes\.csv: not a label file of BP4D\+. Expected <subject>_<task>\.csv"),
    ],
)
def test_foreign_file_among_the_labels_is_refused_by_name(root, name, message):
    (root / "AUCoding" / "AU_OCC" / name).write_text(HEADER)
    with pytest.raises(DataError, match=message):
        load("bp4dplus", root)


def test_subject_with_some_tasks_is_refused(root):
    write_labels(root / "AUCoding" / "AU_OCC", "F041", tasks=("T1", "T6", "T8"))
    with pytest.raises(DataError, match=r"AU_OCC: subject F041 has no F041_T7\.csv\. Expected all of T1, T6, T7, T8"):
        load("bp4dplus", root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the folder is empty"),
        (["ActionUnit_Labels/SN001/SN001_au1.txt"], "this looks like DISFA"),
        (["AU_Detection_Challenge/Train_Set/a.txt"], "this looks like Aff-Wild2"),
        (["Sequences(2D+3D)/F001/T1/0001.jpg"], r"this looks like BP4D \("),
        (["images.npy", "frames.parquet"], "this looks like a pack"),
        (["F001_T1.csv"], "this looks like the label folder itself"),
        (["holiday.jpg"], r"no label files of BP4D\+"),
        (["2D+3D/F001/T1/0000.jpg"], r"no label files of BP4D\+"),
        (["AUCoding/AU_OCC/readme.txt"], r"no label files of BP4D\+ in AU_OCC"),
    ],
)
def test_folder_of_something_else_is_named_for_what_it_is(tmp_path, content, message):
    for name in content:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for read in (bp4dplus.read, bp4dplus.fingerprint):
        with pytest.raises(DataError, match=message):
            read(tmp_path)


def test_missing_folder_and_rendering_of_another_data_set_are_refused(root):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load("bp4dplus", root / "nowhere")
    (root / "synthetic.json").write_text(json.dumps({"null_au": 28, "dataset": "bp4d"}))
    for read in (bp4dplus.read, bp4dplus.fingerprint):
        with pytest.raises(DataError, match=r"in the layout of bp4d. Expected bp4dplus"):
            read(root)


# ----------------------------------------------------------------------------------------------------------- writer

OPTIONS = {"subjects": 5, "frames": 4, "seed": 3, "size": 32}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "bp4dplus"
    bp4dplus.write(root, **OPTIONS)
    return root


@pytest.fixture(scope="module")
def population(rendered):
    people = json.loads((rendered / "synthetic.json").read_text())["subjects"]
    rates = dict.fromkeys(people, bp4dplus.RATES)
    return Population(people, rates=rates, difficulty=difficulty_of("bp4dplus", "easy"), seed=seed_of("bp4dplus", 3))


def test_rendered_root_reads_like_the_real_one_with_labels_and_latents_of_the_population(rendered, population):
    table, latents = load("bp4dplus", rendered), layout.latents(rendered)
    assert (len(table), table.missing_images) == (5 * 4 * 4, ())
    assert table.aus == (*bp4dplus.AUS, NULL_AU)
    assert sorted(map(len, table.parts.values())) == [1, 1, 1, 2]
    assert latents[["subject", "sequence", "frame"]].equals(table.frames[["subject", "sequence", "frame"]])
    columns = [DRAWN_AUS.index(au) for au in bp4dplus.AUS]
    jobs = bp4dplus.LAYOUT.plan(list(population.subjects), OPTIONS["frames"])
    assert [(job.subject, job.sequence) for job in jobs] == list(
        table.frames[["subject", "sequence"]].drop_duplicates().itertuples(index=False, name=None)
    )
    for row, job in enumerate(jobs):
        elicits = {"T1": "T1", "T6": "T4", "T7": "T5", "T8": "T6"}[job.sequence]
        behaviour = population.sequence(job.subject, elicits, job.times)
        mine = slice(4 * row, 4 * row + 4)
        assert np.array_equal(table.labels[mine], np.column_stack([behaviour.occurrence[:, columns], behaviour.null]))
        assert np.array_equal(latents.loc[:, "AU1":].to_numpy()[mine], behaviour.intensity)


def test_rendered_images_show_the_frame_that_the_label_file_numbers(rendered, population):
    frames = load("bp4dplus", rendered).frames
    job = bp4dplus.LAYOUT.plan(list(population.subjects), OPTIONS["frames"])[5]
    drawn = population.images(job.subject, population.sequence(job.subject, job.elicits, job.times), size=32)
    mine = frames[(frames["subject"] == job.subject) & (frames["sequence"] == job.sequence)]
    for line, image in zip(mine.itertuples(), drawn, strict=True):
        assert line.image == f"2D+3D/{job.subject}/{job.sequence}/{line.frame - 1:04}.jpg"
        stored = cv2.imread(str(rendered / line.image))[:, :, ::-1]
        errors = [np.abs(stored.astype(int) - other).mean() for other in drawn]
        assert np.abs(stored.astype(int) - image).mean() == min(errors) < 6


def test_rendered_label_file_has_the_real_columns_then_those_that_only_the_renderer_codes(rendered, population):
    path = rendered / "AUCoding" / "AU_OCC" / f"{population.subjects[0]}_T1.csv"
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["0", *COLUMNS, "25", "26"]
    coded = {str(au) for au in (*DRAWN_AUS, NULL_AU)}
    assert all(
        (cell == "9") == (name not in coded) for row in rows for name, cell in zip(header[1:], row[1:], strict=True)
    )


def test_whole_plan_has_the_quoted_number_of_frames_from_one_on():
    jobs = bp4dplus.LAYOUT.plan(bp4dplus.LAYOUT.people(140), None)
    assert [(job.subject, job.sequence) for job in jobs] == [
        (subject, task) for people in bp4dplus.PARTS.values() for subject in people for task in bp4dplus.TASKS
    ]
    assert sum(len(job.frames) for job in jobs) == pytest.approx(197_756, rel=1e-3)
    assert min(int(job.frames[0]) for job in jobs) == 1
    assert all((np.diff(job.frames) == 1).all() for job in jobs)


@pytest.mark.parametrize("count", [1, 4, 6, 139, 140])
def test_subjects_are_dealt_evenly_and_kept_in_the_published_order(count):
    people = bp4dplus.LAYOUT.people(count)
    sizes = [len(set(people) & set(part)) for part in bp4dplus.PARTS.values()]
    assert len(people) == count
    assert max(sizes) - min(sizes) <= 1
    assert people == [subject for part in bp4dplus.PARTS.values() for subject in part if subject in people]


def test_rendered_root_ships_landmarks_of_its_images(rendered, population, tmp_path):
    table = load("bp4dplus", rendered)
    eyes = bp4dplus.eyes(rendered, table)
    known = np.isfinite(eyes).all(axis=(1, 2))
    drawn = drawn_eyes(bp4dplus, rendered, population)
    assert (eyes.dtype, eyes.shape) == (np.float32, (80, 2, 2))
    assert known.mean() > 0.9
    assert np.allclose(eyes[known], drawn[known], atol=1e-4)
    shutil.copytree(rendered, tmp_path / "copy")
    (tmp_path / "copy" / table.frames["image"].iloc[0]).unlink()
    with pytest.raises(DataError, match=r"_T1\.mat: 4 entries, but .*T1 holds 3 images"):
        bp4dplus.eyes(tmp_path / "copy", table)
    shutil.rmtree(tmp_path / "copy" / "2DFeatures")
    assert bp4dplus.eyes(tmp_path / "copy", table) is None


def test_interrupted_rendering_is_continued_to_the_same_bytes(rendered, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        bp4dplus.write(tmp_path / "cut", **OPTIONS, progress=stop_after(7))
    with pytest.raises(DataError, match="rendering was not finished"):
        load("bp4dplus", tmp_path / "cut")
    bp4dplus.write(tmp_path / "cut", **OPTIONS)
    assert bytes_of(tmp_path / "cut") == bytes_of(rendered)


def test_fingerprint_follows_labels_alone(rendered, tmp_path):
    shutil.copytree(rendered, tmp_path / "copy")
    before = bp4dplus.fingerprint(rendered)
    shutil.rmtree(tmp_path / "copy" / "2D+3D")
    assert bp4dplus.fingerprint(tmp_path / "copy") == before
    path = next((tmp_path / "copy" / "AUCoding" / "AU_OCC").iterdir())
    path.write_text(path.read_text().replace("0\n", "1\n").replace("9\n", "0\n"))
    assert bp4dplus.fingerprint(tmp_path / "copy") != before
