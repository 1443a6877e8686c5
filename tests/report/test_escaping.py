"""Texts from outside stay text on every page: names of studies, arms and people, settings, errors, provenance."""

import datetime
import html
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cells
import pandas as pd
import pytest
from test_sections import FakeStudy, finish, make_run

from aunce import data
from aunce.data import adapter
from aunce.errors import DataError, UsageError
from aunce.report import findings, index, page
from aunce.report.claims import Claim, Claims
from aunce.report.collect import collect
from aunce.report.findings import Findings
from aunce.report.sections import Report
from aunce.study import grid

EVIL = """\
<script>alert(1)</script><img src=x onerror=alert(2)> [a](javascript:alert(3)) ![b](https://evil.example/x.png) \
`touch x` "q" 'r' | $(touch x) $y$ $\\frac$ $x^$ &lt;b&gt; https://evil.example <https://evil.example> **w** ~~v~~

# head

- item

| a | b |
| --- | --- |
| c | d |

```
code
```
"""
LIVE = {"script", "iframe", "object", "embed", "form", "input", "svg", "math", "base", "meta", "link", "style", "del"}


class Live(HTMLParser):
    """What a text has made of a page, besides text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.cells: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [tag] if tag in LIVE else []
        self.cells += [0] if tag == "tr" else []
        if tag in ("td", "th"):
            self.cells[-1] += 1
        for name, value in attrs:
            outside = name in ("href", "src") and not (value or "").startswith(("#", "figures/", "../", "index", "r"))
            self.found += [f"{tag} {name}={value}"] if name.startswith("on") or outside else []


def body(text: str) -> Live:
    """A page of this Markdown, without its head."""
    made = page.from_markdown("A page", header="# A page", main=text, footer="")
    return Live(made[made.index("<body") :])


@pytest.mark.parametrize("made", [page.text, page.code])
@pytest.mark.parametrize(
    "form", ["{}", "a {} b", "- {}", "> {}", "**{}**", "| head |\n| --- |\n| {} |", "![{}](figures/x.svg)"]
)
def test_an_escaped_text_makes_nothing_but_text(made, form: str) -> None:
    harmless = body(form.format("plain" if made is page.text else "<code>plain</code>"))
    shown = body(form.format(made(EVIL)))
    assert shown.found == []
    assert shown.tags == harmless.tags
    assert shown.cells == harmless.cells


COMMANDS = ["aunce study laptop", "aunce study 'a`b|c'", "a\nb", "", "a $(b) <c> && d \\ e", "``", "` `"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_read_on_the_page_as_it_is_pasted(command: str) -> None:
    made = page.from_markdown("A page", header="# A page", main=f"| a |\n| --- |\n| {page.code(command)} |", footer="")
    (inside,) = re.findall(r"<code>(.*?)</code>", made, re.DOTALL)
    assert html.unescape(inside) == command


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Collected tables with the text wherever one may come from outside, and the same with harmless texts."""
    folders = []
    for text in (EVIL, "plain"):
        folder = tmp_path_factory.mktemp("reports") / "fake"
        runs = []
        for arm in ("BCE", "SupCon", "random encoder", "raw pixels"):
            for replicate in (0, 1):
                run = make_run(folder, arm.replace("raw pixels", "random encoder"), "none", replicate)
                if arm == "raw pixels":  # of the page of the difficulty
                    key = run.key.replace("random-encoder", "raw-pixels")
                    spec = run.spec.model_copy(update={"method": "pixels"})
                    run = replace(run, spec=spec, key=key, folder=run.folder.with_name(key))
                labels = {"replicate": str(replicate), "noise": f"noise {text}", "arm": f"{arm} {text}"}
                run = replace(run, labels=labels)
                finish(run, revision=text, hardware=text)
                path = run.folder / "metrics.json"
                metrics = json.loads(path.read_text())
                metrics["data"]["synthetic"] |= {"setting": text, "version": text}
                metrics["provenance"] |= {
                    "versions": {f"torch {text}": text},
                    "device": text,
                    "started": text,
                    "finished": text,
                }
                path.write_text(json.dumps(metrics))
                for name in ("counts", "auc"):
                    table = pd.read_parquet(run.folder / f"{name}.parquet")
                    table.assign(subject=table["subject"] + text).to_parquet(run.folder / f"{name}.parquet")
                runs.append(run)
        failed = make_run(folder, "AUNCE as_read", "none", 0)
        failed.folder.mkdir(parents=True)
        (failed.folder / "error.json").write_text(json.dumps({"error": text, "message": text, "attempt": 2}))
        failed = replace(failed, labels=runs[0].labels | {"arm": f"AUNCE {text}"})
        path = Path(f"/somewhere/fake {text.replace('/', ' ')}.toml")
        study = FakeStudy(
            folder,
            [*runs, failed],
            title=f"Title {text}",
            question=f"Question {text}",
            note=f"Note {text}",
            overrides={"epochs": 2, "detector": text, "setting": text},
            path=path,
            reference=str(path),
        )
        collect(study)  # type: ignore[arg-type]
        folders.append(folder)
    return folders[0], folders[1]


@pytest.mark.filterwarnings("ignore:constrained_layout")  # names are longer than the figure
@pytest.mark.parametrize("notebook", ["laptop", "benchmark", "tune", "main", "pilot", "dials"])
def test_no_text_of_a_study_is_live_on_its_page(
    notebook: str, planted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []
    for tables, text in zip(planted, (EVIL, "plain"), strict=True):
        about = {"wording": text, "source": text, "decided_by": "each", "limit": text, "experiment": "fake"}
        claim = Claim(id="C1", contrasts=[[f"BCE {text}", f"SupCon {text}"]], **about)
        about = {"name": "first", "hash": "0123abcd", "written": datetime.date(2026, 1, 1)}
        claims = Claims(delta=0.005, score="auc", claim=[claim], **about)
        monkeypatch.setattr("aunce.report.decide.claims_of", lambda experiment, claims=claims: claims)
        pages.append(cells.shown(notebook, tables=tables, out=tmp_path / tables.parent.name))
    evil, plain = pages
    footers = [Report(tables).footer().data for tables in planted]
    shown, expected = (body(f"{text}\n\n{footer}") for text, footer in zip((evil, plain), footers, strict=True))
    assert "evil" in evil
    assert shown.found == []
    assert shown.tags == expected.tags
    assert shown.cells == expected.cells
    for drawn in (tmp_path / planted[0].parent.name / "figures").glob("*.svg"):
        assert not {"script", "image", "a", "foreignobject"} & set(Live(drawn.read_text()).tags)


def marked(root: Path, **entries: object) -> Path:
    """A rendered root whose marker says something else."""
    adapter("bp4d").write(root, subjects=3, frames=4, size=32)
    marker = root / "synthetic.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | entries))
    return root


def test_no_entry_of_a_marker_is_live_on_a_data_card(tmp_path: Path) -> None:
    text, plain = (
        cells.shown("data", root=marked(tmp_path / name, setting=setting), out=tmp_path / f"{name} card")
        for name, setting in (("evil", EVIL), ("plain", "easy"))
    )
    assert "evil.example" in text
    shown, expected = body(text), body(plain)
    assert shown.found == []
    assert shown.tags == expected.tags


@pytest.mark.parametrize(
    "entries",
    [{"version": "<b>"}, {"setting": ["easy"]}, {"seed": "1"}, {"size": True}, {"frames": "4"}, {"null_au": "28"}],
)
def test_an_entry_of_a_marker_of_another_type_is_said(entries: dict[str, object], tmp_path: Path) -> None:
    root = marked(tmp_path / "faces", **entries)
    with pytest.raises(DataError, match=f"synthetic.json: .*its '{next(iter(entries))}' is"):
        data.load("bp4d", root)


def test_no_finding_is_live_on_the_index(tmp_path: Path) -> None:
    numbers = {"kind": "rendered faces", "runs": 3, "hours": 1.0}
    pages = []
    for text in (EVIL, "plain"):
        reports = tmp_path / str(len(pages))
        (reports / "fake").mkdir(parents=True)
        findings.write(reports / "fake", Findings(title=text, question=text, found=text, hardware=text, **numbers))
        made = index.draw(reports).read_text()
        pages.append((Live(made[made.index("<body") :]), body((reports / "README.md").read_text())))
    for evil, plain in zip(*pages, strict=True):
        assert evil.found == plain.found
        assert evil.tags == plain.tags
        assert evil.cells == plain.cells


def test_a_character_that_no_page_can_show_is_refused_with_the_study(tmp_path: Path) -> None:
    path = tmp_path / "fake.toml"
    path.write_text((grid.NOTEBOOKS / "studies" / "laptop.toml").read_text().replace('"BCE" =', r'"BCE\u001b" ='))
    with pytest.raises(UsageError, match=r"U\+001B"):
        grid.load_study(str(path))


def test_the_command_that_rebuilds_a_study_is_one_command_for_a_shell(planted: tuple[Path, Path]) -> None:
    words = shlex.split(json.loads((planted[0] / "provenance.json").read_text())["rebuild"])
    assert words[:2] == ["aunce", "study"]
    assert words[2] == f"fake {EVIL.replace('/', ' ')}.toml"
    assert words[3:] == ["--set", "epochs=2", "--set", "detector=FILE", "--set", f"setting={json.dumps(EVIL)}"]
