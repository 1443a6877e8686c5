"""Every committed page comes out of today's code byte for byte, but for lines that golden.toml lists with a reason."""

import difflib
import re
import tomllib
from pathlib import Path

import pytest

from aunce.cli import PAGES
from aunce.report import page
from aunce.report.verification import _alike
from aunce.study.grid import NOTEBOOKS, REPORTS, load_study

EXCEPTIONS = tomllib.loads((Path(__file__).parent / "golden.toml").read_text())
MEASURED = {"speed", "reliability"}  # bound to the machine where they were measured
STUDIES = sorted(path.parent.name for path in REPORTS.glob("*/provenance.json"))


@pytest.mark.long
@pytest.mark.parametrize("name", [*STUDIES, *sorted(PAGES.keys() - MEASURED)])
def test_committed_page_comes_out_of_the_code_of_today(name, tmp_path):
    if name in PAGES:
        title, parameters = PAGES[name]
        notebook = name
    else:
        study = load_study(name.replace("-", ":"))
        title, parameters, notebook = study.title, {"tables": str(study.folder)}, study.report
    of_study = "" if name in PAGES else study.name
    page.render(NOTEBOOKS / f"{notebook}.ipynb", parameters, tmp_path, title=title, study=of_study)
    committed = REPORTS / name
    files = {path.relative_to(at) for at in (committed, tmp_path) for path in at.glob("figures/*.csv")}
    unexplained = []
    for file in sorted({Path("report.md"), Path("findings.json"), *files}):
        old, new = ((at / file).read_text(encoding="utf-8").splitlines() for at in (committed, tmp_path))
        for line in difflib.unified_diff(old, new, lineterm="", n=0):
            if not line.startswith(("---", "+++", "@@")) and not _explained(name, file, line, old, new):
                unexplained.append(f"{file}: {line}")
    assert unexplained == []


def _explained(name, file, line, old, new):
    for rule in EXCEPTIONS["line"]:
        if re.fullmatch(rule["page"], name) and re.fullmatch(rule["file"], str(file)):
            if "pattern" in rule:
                if re.search(rule["pattern"], line[1:]):
                    return True
            elif any(_alike(line[1:], other) for other in (new if line[0] == "-" else old)):
                return True
    return False
