"""What is collected says where runs can be made again."""

import json

import pytest

from aunce.report.collect import renamed
from aunce.study.grid import REPORTS

RENAMED = {"dials", "laptop", "laptop_long", "laptop_tune", "main", "pilot", "tune"}


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in REPORTS.glob("*/provenance.json")))
def test_pages_of_studies_whose_runs_have_other_names_today_say_where_they_can_be_made_again(folder):
    provenance = json.loads((REPORTS / folder / "provenance.json").read_text())
    assert renamed(provenance) is (folder in RENAMED)
    text = (REPORTS / folder / "report.md").read_text()
    assert ("later revisions name them otherwise" in text) is (folder in RENAMED)
    assert not renamed(provenance | {"rebuild": f"{provenance['rebuild']} --root FOLDER"})
    assert not renamed(provenance | {"study_hash": "of another file"})
