"""The index of all reports, `index.html` and `README.md`, from what each report says it found."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from aunce import files
from aunce.report import findings, page
from aunce.report.findings import Findings
from aunce.study.grid import without_size

TITLE = "All reports"
GROUPS = ("What is decided", "Studies", "Tuning", "Data cards", "Statistics", "For your own work")
FIRST = ("summary", "claims")


def draw(reports: Path) -> Path:
    """Write `index.html`, whose rows lead to the pages of the reports, and `README.md`, which leads to their Markdown.

    Returns:
        The path of `index.html`.

    Raises:
        UsageError: a file of findings holds none.
    """
    found = findings.read_all(reports)
    header = (
        f"# {TITLE}\n\nWhat each report asks, what its numbers rest on, and what it found. **Rendered faces** were "
        "drawn by this project's renderer: what is found on them says nothing about recorded faces. *Partial*: runs "
        "failed or are still to come, and the report lists them. *Empty*: no run has finished."
    )
    footer = "Every `aunce report` and `aunce study` writes this page again; so does `aunce report index`."
    files.write(reports / "README.md", "\n\n".join([header, *_tables(found, "report.md"), footer]) + "\n")
    main = "\n\n".join(_tables(found, "index.html"))
    files.write(reports / "index.html", page.from_markdown(TITLE, header=header, main=main, footer=footer))
    return reports / "index.html"


def _tables(found: Mapping[str, Findings], target: str) -> list[str]:
    """A heading and a Markdown table for each group of reports; `target` is the file that a title leads to."""
    groups: dict[str, list[str]] = {}
    places = {folder: _place(folder, one) for folder, one in found.items()}
    for folder in sorted(found, key=lambda name: (places[name], name)):
        groups.setdefault(GROUPS[places[folder][0]], []).append(folder)
    headers = ["Report", "Status", "Found", "Numbers", "Runs", "Hours", "Hardware"]
    return [
        f"## {group}\n\n{page.table(headers, [_row(name, found[name], target) for name in names], 'llllrrl')}"
        for group, names in groups.items()
    ]


def _row(folder: str, one: Findings, target: str) -> list[str]:
    return [
        f"[{page.text(one.title)}]({quote(folder)}/{target})<br>{page.text(one.question)}",
        one.status if one.status == "whole" else f"**{one.status}**",
        page.text(one.found),
        one.kind,
        f"{one.runs:,}" if one.runs else "none",
        f"{one.hours:.1f}" if one.runs else "",
        page.text(one.hardware),
    ]


def _place(folder: str, one: Findings) -> tuple[int, int]:
    """Number of the group of a report, and its place in the group: summaries first, then what decides something."""
    name = without_size(folder)
    if name in FIRST or one.entries:
        return 0, FIRST.index(name) if name in FIRST else len(FIRST)
    if name in ("simulation", "looks", "loss"):
        return (5 if name == "loss" else 4), 0
    return (3 if name.startswith("data/") else 2 if name.endswith("tune") else 1), 0
