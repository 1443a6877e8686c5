"""The audit page: verdicts that follow what was computed or read, its sections, and its figures."""

import itertools
import re

import pandas as pd
import pytest
from matplotlib.figure import Figure

from aunce.analyses import published
from aunce.analyses.published import DATASETS
from aunce.report import audit, figures, findings, page
from aunce.report.audit import released_code
from aunce.study.grid import NOTEBOOKS


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of the page, drawn once."""
    folder = tmp_path_factory.mktemp("audit")
    page.render(NOTEBOOKS / "audit.ipynb", {}, folder, title="Audit")
    return folder


def test_every_section_is_shown_and_figures_are_saved_with_their_data(drawn):
    text = (drawn / "report.md").read_text(encoding="utf-8")
    head, *sections = text.split("\n## ")
    shown = {section.splitlines()[0]: section for section in sections}
    assert {path.name for path in (drawn / "figures").iterdir()} == {
        *("ways.svg", "ways.csv", "prevalence.svg", "prevalence.csv")
    }
    assert len(pd.read_csv(drawn / "figures" / "prevalence.csv")) == 60
    for number in ("66.11", "66.33", "66.42", "65.47", "48.0", "18.6"):
        assert number in head
    for name, section in shown.items():
        rows = [line for line in section.splitlines() if line.startswith("|")]
        assert rows or name in ("Scores and prevalence", "How the numbers are computed")
        assert not any("nan" in row.lower() for row in rows), name
    assert {audit.AVERAGED, audit.TESTED_ON, audit.IN_CODE, audit.CHOSEN_ON} <= set(shown)
    for row in released_code()["undecidable"]:
        assert row["statement"] in shown["Undecidable here"]
        assert f"undecidable here: {row['why']}" in shown["Undecidable here"]


def test_gaps_are_decided_by_what_was_computed_or_read(drawn, monkeypatch):
    facts = released_code()
    decided = audit.entries(facts)
    assert findings.read(drawn).entries == decided
    found = {entry.id: entry for entry in decided}
    assert {entry.verdict for entry in found.values()} == {"holds"}
    read = facts["gaps"]
    assert set(read) == set(found) - {"D13", "D14", "D15"}
    for number in ("66.11", "66.33", "66.42", "65.47"):
        assert number in found["D14"].reason
    assert all("commit bade385" in found[gap].reason for gap in read)
    for gap in ("D12", "D13"):
        assert "unverified" in found[gap].reason
    printed = published.compared("DISFA")
    printed.loc["AUNCE", "mean"] = 65.5  # as if the pooled score had been printed
    monkeypatch.setattr(published, "compared", lambda dataset: printed)
    assert {entry.id: entry.verdict for entry in audit.entries(facts)}["D14"] == "does not hold"
    table = published.assignments("DISFA").assign(impossible=0)
    monkeypatch.setattr(published, "assignments", lambda dataset: table)
    assert {entry.id: entry.verdict for entry in audit.entries(facts)}["D15"] == "does not hold"


def test_where_others_choose_is_counted_from_the_table():
    facts = released_code()
    (entry,) = [entry for entry in audit.entries(facts) if entry.id == "D13"]
    best = [row for row in facts["chosen"] if row["epoch"] == audit.BEST]
    assert f"in {len(best)} (" in entry.reason
    assert "FMAE-IAT; " in entry.reason
    assert all(row["repository"].split("/")[1].split(" at ")[0] in entry.reason for row in best)
    facts["chosen"] = [row | {"epoch": audit.HELD_OUT, "threshold": "0.5"} for row in facts["chosen"]]
    (entry,) = [entry for entry in audit.entries(facts) if entry.id == "D13"]
    assert entry.verdict == "does not hold"


def test_the_swin_base_of_the_library_drops_as_many_blocks_as_the_release():
    from aunce.backbones import BACKBONES

    assert BACKBONES["swin-base"]["drop_path_rate"] == 0.5
    assert "0.5 in the last" in released_code()["gaps"]["D22"]["what"]


def test_tables_of_what_was_read_are_whole():
    facts = released_code()
    tested, lacks, chosen = (facts[name] for name in ("tested", "lacks", "chosen"))
    assert {row["status"] for row in (*tested, *lacks, *chosen)} <= set(facts["statuses"])
    # the columns of a table are the fields in the order of the file
    assert {tuple(row) for row in lacks} == {("missing", "where", "follows", "status")}
    assert {tuple(row) for row in chosen} == {("repository", "where", "epoch", "threshold", "status")}
    assert all(cell for row in (*lacks, *chosen, *facts["gaps"].values()) for cell in row.values())
    assert {row["epoch"] for row in chosen} == {audit.BEST, audit.SCORED, audit.HELD_OUT}
    assert all(re.search(r" at [0-9a-f]{7}", row["repository"]) for row in chosen)
    assert all(len(row.get("parts", "123")) == 3 and row["rule"] for row in tested)


def test_frames_of_the_protocols_are_those_of_the_lists():
    shown = {(row["dataset"], who): row for row in released_code()["tested"] for who in row["whose"].split(", ")}
    for dataset, lists in published.FRAMES.items():
        for who, parts in lists.items():
            assert shown[dataset, who]["parts"] == [*parts.values()]
            assert shown[dataset, who]["total"] == f"{sum(parts.values()):,}"


@pytest.fixture
def ways() -> pd.DataFrame:
    rows = [(dataset, way, 60.0 + 5 * k) for dataset in DATASETS for k, way in enumerate(("mean", "pooled"))]
    table = pd.DataFrame(rows, columns=["dataset", "way", "aunce"])
    return table.assign(other="MMA-Net", printed=66.0)


@pytest.fixture
def points() -> pd.DataFrame:
    rows = [
        {
            "dataset": dataset,
            "part": part,
            "au": au,
            "prevalence": au / 20,
            "score": score,
            "value": 0.5 + sign,
            "floor": 0.1,
        }
        for dataset, part, au in itertools.product(DATASETS, "12", (1, 2, 4))
        for score, sign in (("F1", 0.1), ("kappa", -0.7))
    ]
    return pd.DataFrame(rows)


def test_averaging_shows_every_way_and_what_it_is_compared_with(ways):
    figure = figures.averaging(ways)
    assert isinstance(figure, Figure)
    for axes, dataset in zip(figure.axes, DATASETS, strict=True):
        assert axes.get_title(loc="left") == dataset
        assert [text.get_text() for text in axes.texts] == ["60.0", "65.0"]
        assert "MMA-Net, 66.0" in axes.get_xlabel()
        line, dots = axes.lines
        assert list(line.get_xdata()) == [66.0, 66.0]
        assert list(dots.get_xdata()) == [60.0, 65.0]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["mean", "pooled"]


def test_against_prevalence_shows_every_point_in_percent(points):
    figure = figures.against_prevalence(points)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        floor, *parts = axes.lines
        assert list(floor.get_ydata()) == pytest.approx([10.0] * 6)
        assert [list(part.get_xdata()) for part in parts] == [[5, 10, 20]] * 2
        # a value below 0 is inside the axes
        assert axes.get_ylim()[0] < -20
    assert [label.get_text() for label in figure.legends[0].get_texts()] == ["part 1", "part 2", "always positive"]


def test_the_same_table_gives_the_same_bytes(ways, points):
    for draw, table in ((figures.averaging, ways), (figures.against_prevalence, points)):
        assert figures.to_svg(draw(table)) == figures.to_svg(draw(table))
