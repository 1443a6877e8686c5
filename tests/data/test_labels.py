"""Label files that another program has saved again: its row numbers are never taken for frame numbers."""

import importlib

import pandas as pd
import pytest

from aunce.data import gft
from aunce.data.labels import read_labels
from aunce.errors import DataError

FORMS = {name: importlib.import_module(f"aunce.data.{name}")._FORMAT for name in ("bp4d", "bp4dplus", "affwild2")}
FORMS["gft"] = gft._format(gft.Config())
NAMES = {
    "bp4d": ["0", "1", "2"],
    "bp4dplus": ["0", "1", "2"],
    "gft": ["frame", "AU1", "AU2"],
    "affwild2": ["AU1", "AU2"],
}
ROWS = [[7, 1, 0], [9, 0, 1]]


@pytest.fixture
def saved(tmp_path):
    """Write the label file of a data set with pandas, and these options; returns its path."""

    def saved(name, **options):
        path = tmp_path / f"{name}.csv"
        rows = [row[-len(NAMES[name]) :] for row in ROWS]
        pd.DataFrame(rows, columns=NAMES[name]).to_csv(path, **{"index": False, **options})
        return path

    return saved


@pytest.mark.parametrize("name", FORMS)
def test_a_file_saved_again_without_row_numbers_is_as_it_was(saved, name):
    frames = [7, 9] if FORMS[name].frame else [0, 1]
    assert read_labels(saved(name), (1, 2), FORMS[name]).tolist() == [[frames[0], 1, 0], [frames[1], 0, 1]]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("label", ["", '""', "Unnamed: 0"])
def test_row_numbers_before_the_columns_are_refused_with_the_option_that_leaves_them_out(saved, name, label):
    path = saved(name, index=True)
    path.write_text(label + path.read_text())
    with pytest.raises(DataError, match=r"csv, line 1: the first column has no name.*row\.names = FALSE.*index=False"):
        read_labels(path, (1, 2), FORMS[name])


@pytest.mark.parametrize("name", ["bp4d", "bp4dplus", "affwild2"])
def test_a_first_column_that_is_neither_frame_nor_action_unit_is_refused(saved, name):
    with pytest.raises(DataError, match=r"csv, line 1: the first column is 'row'\. Expected '(0|au1)'"):
        read_labels(saved(name, index=True, index_label="row"), (1, 2), FORMS[name])
