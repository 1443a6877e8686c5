"""Pages: which cells of a notebook that several studies share are on the page of which."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from aunce.report import page


@pytest.mark.parametrize(
    ("study", "shown"),
    [("a", ["all", "a", "a and b"]), ("b", ["all", "a and b"]), ("c", ["all"]), ("", ["all", "a", "a and b"])],
)
def test_a_tagged_cell_is_on_the_pages_of_the_studies_that_its_tags_name(tmp_path, study, shown):
    tags = {"all": ["header"], "a": ["only-a"], "a and b": ["only-a", "header", "only-b"]}
    cells = [new_code_cell(source, metadata={"tags": of}) for source, of in tags.items()]
    (tmp_path / "aside").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path / "shared.ipynb")
    path = page._of_study(tmp_path / "shared.ipynb", study, tmp_path / "aside")
    assert [cell.source for cell in nbformat.read(path, 4).cells] == shown
