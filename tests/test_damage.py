"""The harness of damage: that it damages what it names, and that its judge does not take the program's word."""

import json

import pytest
from faults import damage


@pytest.fixture
def study(tmp_path):
    """Files by the names of those that a small study leaves."""
    for number, key in enumerate(("a-1", "b-2")):
        run = tmp_path / "reports" / "tiny" / "runs" / key
        run.mkdir(parents=True)
        (run / "metrics.json").write_text(json.dumps({"key": key, "spec": {}, "duration_s": 1.5}))
        (run / "history.csv").write_text(f"epoch,val_auc\n1,0.{number}\n")
        (run / ".lock").touch()
    (tmp_path / "reports" / "tiny" / "provenance.json").write_text("{}")
    (tmp_path / "tiny.toml").touch()
    return tmp_path


def test_the_same_seed_gives_the_same_damages_and_every_sort_of_file_has_its_share(study):
    planned = damage.plan(study, ("run", "tables and page"), kinds_each=4, seed=3)
    assert planned == damage.plan(study, ("run", "tables and page"), kinds_each=4, seed=3)
    assert planned != damage.plan(study, ("run", "tables and page"), kinds_each=4, seed=4)
    sorts = [one.path.rpartition("/")[2] for one in planned]
    assert {name: sorts.count(name) for name in sorts} == {
        ".lock": 4,
        "history.csv": 4,
        "metrics.json": 4,
        "provenance.json": 4,
    }


@pytest.mark.parametrize("kind", [kind for kind in damage.KINDS if kind != "unreadable"])
def test_each_kind_changes_the_file_that_it_names_and_no_other(study, kind):
    def state():
        files = (path for path in study.rglob("*") if path.is_file())
        return {path.relative_to(study).as_posix(): path.read_bytes() for path in files}

    before, path = state(), "reports/tiny/runs/a-1/metrics.json"
    damage.apply(damage.Damage("run", path, kind, 5), study)
    after = state()
    assert {name for name in before | after if before.get(name) != after.get(name)} == {path}
    if kind == "replaced by another":
        assert after[path] == before[path.replace("a-1", "b-2")]


@pytest.mark.parametrize(
    ("said", "code", "alike", "back", "crashed", "outcome"),
    [
        (False, 0, False, False, False, damage.TAKEN),
        (False, 0, False, True, False, damage.TAKEN),
        (True, 0, False, False, False, damage.FOUND),
        (False, 1, False, False, False, damage.FOUND),
        (True, 0, True, False, False, damage.FOUND),
        (True, 0, True, True, False, damage.HEALED),
        (False, 0, True, False, False, damage.HARMLESS),
        (True, 1, True, True, True, damage.TRACEBACK),
    ],
)
def test_what_differs_and_is_not_said_is_taken_for_valid(said, code, alike, back, crashed, outcome):
    assert damage.judge(said, code, alike=alike, back=back, crashed=crashed) == outcome
