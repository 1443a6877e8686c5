"""Study files, run specifications, keys and states: what a typo, another process or a kill could break."""

import dataclasses
import json
import pickle
import re
import subprocess
import sys
from functools import partial
from typing import Any

import pandas as pd
import pytest
from finished import finish
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import create_model

from aunce.data import adapter
from aunce.data.recipes import Recipe
from aunce.data.render import difficulty
from aunce.data.render.behaviour import stream
from aunce.data.render.population import generator
from aunce.errors import UsageError
from aunce.study import grid, spec
from aunce.study.grid import AGAIN, PROJECT, Study, load_study, progress, without_size
from aunce.study.spec import NOT_IN_KEY, DataSpec, RunSpec

STUDY = """
[study]
title = "Test"
question = "Does it work?"
report = "laptop"
seconds_per_run = 10

[data]
subjects = 6
frames = 2

[base]
epochs = 3
learning_rate = 1e-3

[axes]
replicate = [0, 1]

[axes.arm]
"BCE" = { method = "bce" }
"AUNCE {odd} name" = { method = "aunce", preset = "as_read" }
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a study file with replacements and load it; its runs stay in the test's folder."""
    monkeypatch.setattr("aunce.study.grid.REPORTS", tmp_path / "reports")

    def write(*replacements):
        text = STUDY
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "small.toml"
        path.write_text(text)
        return load_study(str(path))

    return write


def test_grid_is_the_product_of_the_axes_in_file_order(write):
    runs = write().runs
    assert [run.labels for run in runs] == [
        {"replicate": "0", "arm": "BCE"},
        {"replicate": "0", "arm": "AUNCE {odd} name"},
        {"replicate": "1", "arm": "BCE"},
        {"replicate": "1", "arm": "AUNCE {odd} name"},
    ]
    assert runs[0].spec.method == "bce"
    assert runs[1].spec.preset == "as_read"
    assert runs[2].spec.epochs == 3
    assert not runs[0].spec.smoke


def test_one_replicate_is_one_population_for_all_arms(write):
    runs = write().runs
    assert runs[0].data == runs[1].data != runs[2].data == runs[3].data


def test_a_field_of_the_data_may_be_an_axis(write):
    study = write(
        ("[axes.arm]", '[axes.faces]\n"easy" = { setting = "easy" }\n"hard" = { setting = "hard" }\n[axes.arm]')
    )
    assert {data.render["setting"] for run in study.runs for data in run.data} == {"easy", "hard"}
    assert len({data.name for run in study.runs for data in run.data}) == 4


def test_the_drawn_faces_keep_their_keys_and_the_modelled_have_data_of_their_own(write, monkeypatch):
    runs = write().runs
    assert [run.key for run in write(("frames = 2", 'frames = 2\nfaces = "drawn"')).runs] == [run.key for run in runs]
    modelled = write(("frames = 2", 'frames = 2\nfaces = "modelled"'))
    assert {run.data[0].render["faces"] for run in modelled.runs} == {"modelled"}
    assert not {run.data[0].name for run in modelled.runs} & {run.data[0].name for run in runs}
    monkeypatch.setitem(difficulty.VERSIONS, "modelled", 2)  # a new version of one generator renames nothing of another
    again = load_study(str(modelled.path)).runs
    assert not {run.key for run in again} & {run.key for run in modelled.runs}
    assert [run.key for run in write().runs] == [run.key for run in runs]


def test_an_unknown_generator_is_refused_with_the_known_ones(write):
    with pytest.raises(UsageError, match=r"'data\.faces' = 'sculpted': input should be 'drawn' or 'modelled'"):
        _ = write(("frames = 2", 'frames = 2\nfaces = "sculpted"')).runs


def test_keys_are_readable_and_safe_in_paths_and_shells(write):
    for run in write().runs:
        readable, _, digest = run.key.rpartition("-")
        assert run.labels["arm"].lower().split()[0] in readable
        assert set(run.key) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
        assert len(digest) == 8
        int(digest, 16)


def test_keys_are_the_same_in_another_process(write):
    study = write()
    code = (
        "import sys; from aunce.study.grid import load_study; print([run.key for run in load_study(sys.argv[1]).runs])"
    )
    command = [sys.executable, "-c", code, str(study.path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == str([run.key for run in study.runs])


def test_keys_ignore_the_order_of_fields(write):
    one = write().runs[1].key
    assert (
        write(('{ method = "aunce", preset = "as_read" }', '{ preset = "as_read", method = "aunce" }')).runs[1].key
        == one
    )


@pytest.mark.parametrize("change", [("epochs = 3", "epochs = 4"), ("frames = 2", "frames = 3"), ("1e-3", "2e-3")])
def test_keys_change_with_whatever_changes_numbers(write, change):
    assert write().runs[0].key[-8:] != write(change).runs[0].key[-8:]


@pytest.mark.parametrize("field", sorted(NOT_IN_KEY - {"smoke"}))
def test_keys_do_not_change_with_place_or_speed(write, field):
    value = {"threads": "2", "device": '"cpu"', "compiled": "true", "other_roots": '["/x"]'}.get(field, '"/x"')
    if field == "root":  # root belongs to [data]; in [base] it would point all runs at one folder
        return
    assert write(("epochs = 3", f"epochs = 3\n{field} = {value}")).runs[0].key == write().runs[0].key


def test_exclude_takes_points_out(write):
    study = write(("[axes]\n", '[[exclude]]\narm = "BCE"\nreplicate = 1\n[axes]\n'))
    assert len(study.runs) == 3
    several = write(("[axes]\n", '[[exclude]]\narm = ["BCE"]\nreplicate = [0, 1]\n[axes]\n'))
    assert {run.labels["arm"] for run in several.runs} == {run.labels["arm"] for run in study.runs} - {"BCE"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("epochs = 3", "epoch = 3"), "unknown name 'epoch', did you mean 'epochs'"),
        (("epochs = 3", 'epochs = "3"'), "write it without quotes"),
        (("epochs = 3", "epochs = 0"), "greater than or equal to 1"),
        (("epochs = 3", "epochs = nan"), "epochs"),
        (("1e-3", "inf"), "learning_rate"),
        (('method = "bce"', 'method = "bcee"'), "method"),
        (('title = "Test"', 'titel = "Test"'), "title"),
        (('report = "laptop"', 'report = "nothing"'), "nothing"),
        (("subjects = 6", "subjects = 5"), "subjects"),
        (("subjects = 6", "subject = 6"), "unknown name 'data.subject', did you mean 'subjects'?"),
        (("replicate = [0, 1]", "replicate = []"), "no values"),
        (("replicate = [0, 1]", "replicate = [0, 0]"), "same run"),
        (("[axes]\n", '[[exclude]]\narms = "BCE"\n[axes]\n'), "[[exclude]] names the axis 'arms'"),
        (("[axes]\n", '[[exclude]]\narm = "BCEE"\n[axes]\n'), "BCEE"),
        (("[axes]\n", "[[exclude]]\nreplicate = 0\n[[exclude]]\nreplicate = 1\n[axes]\n"), "leaves no run"),
        (("[axes]\n", "[axes\n"), "not a TOML file"),
    ],
)
def test_a_typo_in_a_study_is_refused_with_place_and_remedy(write, change, expected):
    with pytest.raises(UsageError) as error:
        _ = write(change).runs
    assert expected in str(error.value)
    assert "small.toml" in str(error.value)


def test_unknown_study_lists_the_known(tmp_path):
    with pytest.raises(UsageError, match="laptop"):
        load_study("lptop")
    with pytest.raises(UsageError, match="laptop"):
        load_study("../../laptop")
    with pytest.raises(UsageError, match="no study file"):
        load_study(str(tmp_path / "none.toml"))


def test_only_selects_and_refuses_what_is_not_there(write):
    study = write()
    assert len(study.select(["arm=BCE"])) == 2
    assert len(study.select(["arm=BCE", "replicate=1"])) == 1
    assert len(study.select(["replicate=0", "replicate=1"])) == 4
    for condition in ("arm", "arms=BCE", "arm=BCEE"):
        with pytest.raises(UsageError, match="--only"):
            study.select([condition])
    excluding = write(("[axes]\n", '[[exclude]]\narm = "BCE"\nreplicate = 1\n[axes]\n'))
    with pytest.raises(UsageError, match="takes this combination out"):
        excluding.select(["arm=BCE", "replicate=1"])


def test_overrides_have_to_suit_what_is_selected_and_nothing_else(write):
    path = write(('"BCE" = {', '"crops" = { method = "supcon", crop = 32 }\n"BCE" = {')).path
    assert len(load_study(str(path)).select(["arm=crops"])) == 2
    small = load_study(str(path), {"pixels": 16})
    assert {run.spec.pixels for run in small.select(["arm=BCE"])} == {16}
    assert "crops" not in {run.labels["arm"] for run in small.runs}
    for only in ([], ["arm=crops"], ["arm=crops", "arm=BCE"]):
        with pytest.raises(UsageError, match=r"'crops'.*crop = 32 does not fit into pixels = 16"):
            small.select(only)
    same = load_study(str(path), {"replicate": 5})
    assert len(same.select(["arm=BCE", "replicate=0"])) == 1
    with pytest.raises(UsageError, match="are the same run"):
        same.select([])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("replicate = [0, 1]", f"replicate = {list(range(1000))}\nepochs = {list(range(1, 1001))}", "2,000,000 points"),
        ('"BCE" = {', f'"{"B" * 250}" = {{', "a folder's name of 27. characters"),
        ("epochs = 3", f"epochs = {'[' * 5000}{']' * 5000}", "not a TOML file"),
    ],
    ids=["points", "name", "nesting"],
)
def test_a_study_file_that_no_machine_could_do_is_refused_at_once(write, old, new, message):
    with pytest.raises(UsageError, match=message):
        write((old, new)).runs  # noqa: B018


def test_unknown_key_names_close_ones(write):
    study = write()
    with pytest.raises(UsageError, match=study.runs[0].key):
        study.run(study.runs[0].key[:-1] + "x")


def test_state_is_read_from_disk_and_metrics_alone_say_done(write):
    run = write().runs[0]
    assert run.state == "to do"
    run.folder.mkdir(parents=True)
    for name in ("notebook.ipynb", "metrics.json.partial", "counts.parquet"):
        (run.folder / name).write_text("{}")
    assert run.state == "to do"
    (run.folder / "error.json").write_text("{}")
    assert run.state == "failed"
    with run.lock:
        assert write().runs[0].state == "running"
    finish(run)
    assert run.state == "done"


def test_progress_counts_and_estimates_by_method(write):
    study = write()
    assert progress(study, study.runs).seconds_left == 40
    finish(study.runs[0], seconds=4)
    state = progress(study, study.runs)
    assert (state.done, state.to_do, state.seconds_left) == (1, 3, 12)
    (study.runs[0].folder / "metrics.json").write_text("{")
    state = progress(study, study.runs)
    assert (state.done, state.damaged, state.to_do, state.total) == (0, 1, 3, 4)


def test_notebook_parameters_unknown_missing_or_mistyped_are_refused():
    cell = RunSpec().model_dump()
    assert RunSpec.from_notebook(cell | {"_hidden": 1, "In": [], "print": print, "json": json}) == RunSpec()
    with pytest.raises(UsageError, match="unknown name 'lrr'"):
        RunSpec.from_notebook(cell | {"lrr": 1e-3})
    with pytest.raises(UsageError, match="without quotes"):
        RunSpec.from_notebook(cell | {"learning_rate": "1e-4"})
    with pytest.raises(UsageError, match="missing epochs"):
        RunSpec.from_notebook({name: value for name, value in cell.items() if name != "epochs"})


def test_no_field_of_data_and_run_share_a_name_by_accident():
    shared = {"dataset", "root", "test_root", "populations", "targets"}
    assert DataSpec.model_fields.keys() & RunSpec.model_fields.keys() == shared


def test_importing_studies_and_what_executes_them_is_light():
    heavy = "{'torch', 'pandas', 'cv2', 'papermill', 'nbformat', 'jupyter_client'}"
    code = f"import sys, aunce.cli, aunce.study.execution, aunce.study.engine; print({heavy} & sys.modules.keys())"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "set()"
    )


def test_committed_studies_are_valid_and_within_the_budget_in_every_size():
    from aunce.study.grid import NOTEBOOKS

    for path in (NOTEBOOKS / "studies").glob("*.toml"):
        if path.stem == "table":  # its parts are those of the data: see tests/data/test_table.py
            continue
        for size in ("cpu", "gpu") if Study(path).file.gpu else ("cpu",):
            # floors and ceiling that train no encoder take seconds: the budget is for what takes hours
            trained = [
                run for run in Study(path, size=size).runs if run.spec.method not in ("pixels", "random", "latent")
            ]
            assert 0 < len(trained) <= 450, f"{path.name}, size {size}"


def test_what_was_tuned_may_depend_on_the_arm_and_on_a_field(write):
    rules = """
[[tuned]]
where = { arm = "BCE", replicate = 1 }
learning_rate = 5e-3
[[tuned]]
where = { setting = "easy", method = "aunce" }
temperature = 0.1
"""
    runs = write(('preset = "as_read" }\n', 'preset = "as_read" }\n' + rules)).runs
    assert [run.spec.learning_rate for run in runs] == [1e-3, 1e-3, 5e-3, 1e-3]
    assert [run.spec.temperature for run in runs] == [0.5, 0.1, 0.5, 0.1]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ('where = { arm = "BSE" }', "the values are BCE"),
        ('where = { aus = "BCE" }', "neither an axis nor a field"),
        ("learning_rate = 1e-3", "needs a table where"),
        ('where = { arm = "BCE" }\nlearning_rat = 1e-3', "did you mean 'learning_rate'"),
    ],
)
def test_a_tuned_rule_that_would_reach_nothing_is_refused(write, rule, expected):
    study = write(('preset = "as_read" }\n', f'preset = "as_read" }}\n[[tuned]]\n{rule}\n'))
    with pytest.raises(UsageError, match=expected):
        _ = study.runs


PRETEXT = """
[pretext]
method = "infonce"
replicate = 9
epochs = 7
"""


def test_runs_of_one_population_share_a_pretext_on_other_people(write):
    axis = '[axes]\nsetting = ["easy", "hard"]\npretext = [false, true]'
    study = write(("[axes]", axis), ('preset = "as_read" }\n', 'preset = "as_read" }\n' + PRETEXT))
    assert len(study.runs) == 16
    starts = {run.labels["setting"]: run.start for run in study.runs if run.spec.pretext}
    assert {run.start.key for run in study.runs if run.start} == {run.key for run in study.pretexts}
    assert len(study.pretexts) == 2
    for setting, start in starts.items():
        assert (start.spec.method, start.spec.replicate, start.spec.epochs) == ("infonce", 9, 7)
        assert start.spec.noise_kind == "none"
        assert start.spec.learning_rate == RunSpec().learning_rate, "the grid's own values are not the pretext's"
        assert start.data[0].seed == 9
        assert start.data[0].render["setting"] == setting
        assert study.run(start.key) == start
    assert all(run.start is None for run in study.runs if not run.spec.pretext)


def test_another_pretext_is_another_run(write):
    def keys(change):
        text = 'preset = "as_read" }\n' + PRETEXT.replace(*change)
        study = write(("epochs = 3", "epochs = 3\npretext = true"), ('preset = "as_read" }\n', text))
        return [run.key for run in study.runs]

    assert keys(("epochs = 7", "epochs = 8")) != keys(("", ""))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", r"no table \[pretext\]"),
        (PRETEXT.replace("= 9", "= 1"), "one of the grid"),
        (PRETEXT.replace("infonce", "supcon"), "sees no labels"),
    ],
)
def test_a_pretext_that_knows_labels_or_test_subjects_is_refused(write, table, expected):
    text = 'preset = "as_read" }\n' + table
    study = write(("epochs = 3", "epochs = 3\npretext = true"), ('preset = "as_read" }\n', text))
    with pytest.raises(UsageError, match=expected):
        _ = study.runs


def test_a_pretext_of_a_real_data_set_is_refused(write, tmp_path):
    text = 'preset = "as_read" }\n' + PRETEXT
    study = write(
        ("epochs = 3", "epochs = 3\nalign = 'landmarks'\npretext = true"),
        ('preset = "as_read" }\n', text),
        ("subjects = 6", f"root = {str(tmp_path)!r}"),
    )
    with pytest.raises(UsageError, match="backbone of the hub"):
        _ = study.runs


POPULATIONS = """frames = 2
populations = 2
validation_subjects = 7
test_frames = 3
targets = { "modelled:bp4d" = { subjects = 6, frames = 5 }, "drawn:disfa" = { frames = 9 } }
"""
OWN_PRETEXT = PRETEXT.replace("= 9", '= "own"') + "populations = 1\n"


@pytest.fixture
def populated(write):
    """Write a study on populations, whose replicates have pretexts of their own, with replacements."""
    written = (("frames = 2", POPULATIONS), ("epochs = 3", "epochs = 3\npretext = true"))
    table = ('preset = "as_read" }\n', 'preset = "as_read" }\n' + OWN_PRETEXT)
    return lambda *replacements: write(*written, table, *replacements)


def people(runs):
    """Who is in the populations of runs: data set, seed and generator of each; the generator draws from these."""
    return [(data.dataset, data.seed, data.render.get("faces", "drawn")) for run in runs for data in run.data]


def test_a_run_on_populations_has_one_to_train_one_to_validate_more_to_test_and_the_targets(populated):
    run = populated().runs[0]
    sizes = [(data.dataset, data.render["subjects"], data.render["frames"]) for data in run.data]
    assert sizes == [
        ("bp4d", 6, 2),  # trains
        ("bp4d", 7, 3),  # validates
        ("bp4d", 6, 3),
        ("bp4d", 6, 3),
        ("bp4d", 6, 5),
        ("disfa", None, 9),
    ]
    assert [data.render.get("faces", "drawn") for data in run.data] == [*["drawn"] * 4, "modelled", "drawn"]
    assert (run.spec.test_part, run.spec.populations) == ("test", 2)
    assert run.spec.targets == ["modelled:bp4d", "drawn:disfa"]
    start = run.start
    assert (start.spec.method, start.spec.populations, start.spec.targets) == ("infonce", 1, [])
    assert len(start.data) == 3


def test_methods_of_a_replicate_share_every_population_and_the_pretext_and_replicates_share_none(populated):
    first, second, third, _ = populated().runs
    assert first.data == second.data
    assert first.start == second.start
    assert not {*people([first, first.start])} & {*people([third, third.start])}
    # What a list of targets has in common with another one is rendered once.
    fewer = populated(('"modelled:bp4d" = { subjects = 6, frames = 5 }, ', "")).runs[0]
    assert {data.name for data in fewer.data} < {data.name for data in first.data} | {fewer.data[-1].name}
    assert fewer.key[-8:] != first.key[-8:]


def test_the_faces_of_all_populations_are_those_of_different_people(populated):
    """Names such as F001 are in every population: what the generators draw for them must differ."""
    run = populated(("frames = 9", "frames = 9, subjects = 5")).runs[0]
    drawn = []
    for data in [*run.data, *run.start.data]:
        faces, layout = data.render.get("faces", "drawn"), adapter(data.dataset).LAYOUT
        dials = difficulty.difficulty_of(data.dataset, data.render["setting"], faces)
        for name in layout.people(data.render["subjects"]):
            rng = stream(difficulty.seed_of(data.dataset, data.seed), name, "identity")
            drawn.append(pickle.dumps(generator(faces).identity(rng, dials)))
    assert len(set(drawn)) == len(drawn) == 6 + 7 + 6 + 6 + 6 + 5 + (6 + 7 + 6)


@settings(max_examples=25, deadline=None)
@given(replicates=st.lists(st.integers(0, grid.FIRST_OWN - AGAIN - 1), min_size=2, max_size=4, unique=True))
def test_nobody_is_in_two_populations_of_a_study_pretexts_included(tmp_path_factory, replicates):
    text = STUDY.replace("frames = 2", POPULATIONS).replace("epochs = 3", "epochs = 3\npretext = true")
    path = tmp_path_factory.getbasetemp() / "populated.toml"
    path.write_text(text.replace("[0, 1]", str(replicates)) + OWN_PRETEXT)
    for size in ("", ":again"):
        study = load_study(f"{path}{size}")
        alone = [run for run in study.runs if run.spec.method == "bce"]  # the others share these
        seeds = [data.seed for run in [*alone, *study.pretexts] for data in run.data]
        assert len(set(seeds)) == len(seeds) == len(replicates) * (6 + 3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("populations = 2\n", ""), "targets are scored beside a test on other people"),
        (("populations = 2", "populations = 9"), "less than or equal to 8"),
        (("modelled:bp4d", "sculpted:bp4d"), "targets: sculpted:bp4d unknown. Known: drawn:bp4d"),
        (
            ("subjects = 6, frames = 5", "people = 6"),
            "'data.targets.modelled:bp4d.people'. Valid names: subjects, frames",
        ),
        (("frames = 9", "frames = 1"), "'data.targets.drawn:disfa.frames' = 1"),
        (("subjects = 6\n", 'subjects = 6\nroot = "/x"\n'), "populations = 2 are rendered, and the data set of root"),
        (("epochs = 3", 'epochs = 3\ntest_dataset = "disfa"'), "test_dataset = disfa and populations = 2"),
        (("epochs = 3", 'epochs = 3\ntest_part = "3"'), "with populations it is 'test'"),
        (("replicate = [0, 1]", "replicate = [90000]"), "replicate = 90000; with a pretext of its own it is below"),
        (('replicate = "own"', 'replicate = "mine"'), "'replicate' = 'mine'"),
        (
            ("epochs = 3\npretext = true\n", "epochs = 3\nreplicate = 1000000\n"),
            "replicate = 1000000; with populations it is below 1,000,000",
        ),
    ],
)
def test_populations_that_no_run_could_have_are_refused(populated, change, expected):
    changes = [change] if "replicate = 1000000" not in change[1] else [change, ("replicate = [0, 1]", "channels = [8]")]
    with pytest.raises(UsageError) as error:
        _ = populated(*changes).runs
    assert expected in str(error.value)
    assert "populated.toml" in str(error.value) or "small.toml" in str(error.value)


def test_the_gpu_size_replaces_fields_and_axes_and_has_a_report_of_its_own(write):
    gpu = "[gpu]\nepochs = 30\nsize = 128\n[gpu.axes]\nreplicate = [0, 1, 2]\n"
    small = write(('preset = "as_read" }\n', 'preset = "as_read" }\n' + gpu))
    large = load_study(small.reference + ":gpu")
    assert (len(small.runs), len(large.runs)) == (4, 6)
    assert {run.spec.epochs for run in large.runs} == {30}
    assert large.runs[0].data[0].render["size"] == 128
    assert large.folder != small.folder
    assert load_study(large.reference).runs[0].key == large.runs[0].key, "the engine finds the same study"


def test_a_table_of_the_gpu_size_adds_to_its_axis(write):
    gpu = '[gpu]\nepochs = 30\n[gpu.axes.arm]\n"InfoNCE" = { method = "infonce" }\n'
    reference = write(('preset = "as_read" }\n', 'preset = "as_read" }\n' + gpu)).reference
    arms = [run.labels["arm"] for run in load_study(f"{reference}:gpu").runs[:3]]
    assert arms == ["BCE", "AUNCE {odd} name", "InfoNCE"]


def test_replicates_of_the_gpu_size_share_the_conditions_of_the_smaller_one(write):
    rows = '[axes.replicate]\n"4" = { replicate = 4, setting = "hard" }\n"5" = { replicate = 5 }\n\n[axes.arm]'
    one = write(("replicate = [0, 1]\n", ""), ("[axes.arm]", rows))
    text = one.path.read_text() + "\n[gpu]\nepochs = 9\nrepeat = 2\n"
    one.path.write_text(text)
    runs = load_study(f"{one.path}:gpu").select(["arm=BCE"])
    assert [run.spec.replicate for run in runs] == [4, 5, 1004, 1005]
    assert [run.data[0].render["setting"] for run in runs] == ["hard", "easy"] * 2
    assert {run.spec.epochs for run in runs} == {9}
    for wrong in ("repeat = 0", "repeat = 11", 'repeat = "2"'):
        one.path.write_text(text.replace("repeat = 2", wrong))
        with pytest.raises(UsageError, match="repeat is a number from 1 to 10"):
            load_study(f"{one.path}:gpu")


def test_the_size_again_is_the_same_study_on_other_people(write):
    study = write(('"aunce", preset', '"aunce", pretext = true, preset'), ("[axes]", PRETEXT + "\n[axes]"))
    again = load_study(f"{study.reference}:again")
    assert again.name == f"{study.name}-again"
    assert without_size(again.name) == without_size(f"{study.name}-gpu") == study.name
    assert [run.spec.replicate for run in again.runs] == [run.spec.replicate + AGAIN for run in study.runs]
    assert [run.labels for run in again.runs] == [run.labels for run in study.runs]
    assert not {run.key for run in again.runs} & {run.key for run in study.runs}
    assert [run.spec.replicate for run in again.pretexts] == [run.spec.replicate + AGAIN for run in study.pretexts]
    others = {"replicate"}
    for one, other in zip(again.runs, study.runs, strict=True):
        assert one.spec.model_dump(exclude=others) == other.spec.model_dump(exclude=others)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ('method = "aunce", exponents = [1.0]', "exponents needs 2 numbers"),
        ('method = "aunce", positive_probs = [0.5, 0.5]', "positive_probs needs 3 numbers"),
        ('method = "bce", exclude = "self"', "exclude: only method 'aunce' has them"),
        ('method = "aunce", weights = "heavy"', "'weights' = 'heavy'"),
        ('method = "bce", lengths = [1, 2]', "lengths = [1, 2]: for schedule wsd only"),
        ('method = "bce", schedule = "wsd", epochs = 8, lengths = [4, 6]', "rising from at least 2 to 8 epochs"),
    ],
)
def test_switches_of_the_loss_that_do_not_fit_are_refused(write, fields, expected):
    with pytest.raises(UsageError, match=re.escape(expected)):
        _ = write(('{ method = "bce" }', f"{{ {fields} }}")).runs


def test_the_frames_of_a_test_data_set_may_be_others(write):
    (run, *_) = write(
        ("frames = 2", "frames = 2\ntest_frames = 5"), ("epochs = 3", 'epochs = 3\ntest_dataset = "disfa"')
    ).runs
    assert [data.render["frames"] for data in run.data] == [2, 5]


def test_a_size_that_a_study_does_not_have_is_refused(write):
    reference = write().reference
    for size in ("gpu", "tpu"):
        with pytest.raises(UsageError, match=f"no size '{size}'"):
            load_study(f"{reference}:{size}")


@pytest.mark.parametrize(
    ("name", "tuning"),
    [
        ("pilot", "tune"),
        ("main", "tune"),
        ("imbalance", "imbalance_tune"),
        ("positives", "positives_tune"),
        ("negatives", "negatives_tune"),
    ],
)
def test_what_a_study_runs_is_what_the_committed_trials_chose(name, tuning):
    """The highest inner-validation AUC of each arm at each noise level that was tuned; the first of equals."""
    runs = pd.read_parquet(PROJECT / "reports" / tuning / "runs.parquet")
    assert (runs["status"] == "done").all()
    specs = [json.loads(text) for text in runs["spec"]]
    trials = runs.assign(trial_of=[arm.partition(", rate ")[0] for arm in runs["arm"].astype(str)])
    chosen = {
        (specs[index]["noise_kind"], trials.loc[index, "trial_of"]): specs[index]
        for _, rows in trials.groupby(["noise", "trial_of"], observed=True)
        for index in [rows["val_auc"].idxmax()]
    }
    tuned_without_noise_alone = {level for level, _ in chosen} == {"none"}
    arms = {arm for _, arm in chosen}
    compared = 0
    for run in load_study(name).runs:
        if run.labels["arm"] in arms:
            level = "none" if tuned_without_noise_alone else run.spec.noise_kind
            best = chosen[level, run.labels["arm"]]
            for field in ("method", "preset", "learning_rate", "weight_decay", "temperature"):
                assert getattr(run.spec, field) == best[field], (run.labels, field)
            compared += 1
    assert compared >= 16


PINNED = {
    "imbalance": "700_exponents-.8-1.2-c4c9a0d5",
    "imbalance:again": "700_exponents-.8-1.2-c5e32931",
    "imbalance_tune": "replicate320_exponents-.8-1.2-rate-3e-3-tau-0.2-8b992098",
    "negatives": "740_exponents-.8-1.2-7c683867",
    "negatives_tune": "replicate330_exponents-1-1-rate-3e-3-tau-0.2-701e61b6",
    "noise": "760_none_share-of-own-views-.2-5fbc239d",
    "noise_long": "760_none_share-of-own-views-.2-47ce0256",
    "positives": "720_mixture-6900e735",
    "positives_tune": "replicate330_mixture-rate-3e-3-tau-0.2-e9634c05",
    "protocol": "780_part-3_bce-a280f6b5",
    "transfer": "800_bce-82717d7f",
}


@pytest.mark.parametrize("name", PINNED)
def test_committed_keys_come_out_of_the_code_of_today(name):
    study = load_study(name)
    keys = [run.key for run in study.runs]
    assert keys[0] == PINNED[name]
    assert sorted(keys) == sorted(json.loads((study.folder / "provenance.json").read_text())["keys"])


def _grown(cls, default):
    return dataclasses.make_dataclass("Grown", [("later", Any, default)], bases=(cls,), frozen=True)


VALUES = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=9))


@settings(max_examples=25, deadline=None)
@given(default=VALUES, other=VALUES)
@pytest.mark.parametrize("where", ["RunSpec", "DataSpec", "Recipe", "dials"])
def test_a_field_that_comes_later_moves_no_key_until_it_is_used(tmp_path_factory, where, default, other):
    path = tmp_path_factory.getbasetemp() / "small.toml"
    path.write_text(STUDY)
    before = [run.key for run in load_study(str(path)).runs]
    for value in (default, other):
        overrides = {}
        with pytest.MonkeyPatch.context() as patch:
            if where in ("RunSpec", "DataSpec"):
                patch.setattr(grid, where, create_model(where, __base__=getattr(spec, where), later=(Any, default)))
                overrides = {"later": value}
            elif where == "Recipe":
                patch.setattr(grid, "Recipe", partial(_grown(Recipe, default), later=value))
            else:
                patch.setattr(difficulty.Difficulty, "__post_init__", lambda self: None)  # a later dial may be anything
                grown = _grown(type(difficulty.SETTINGS["easy"]), default)
                patch.setitem(difficulty.SETTINGS, "easy", grown(later=value))
                grid._dials.cache_clear()
            after = [run.key for run in load_study(str(path), overrides).runs]
        grid._dials.cache_clear()
        assert (after == before) is (value == default)
