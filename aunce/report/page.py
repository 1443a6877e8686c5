"""Pages: a notebook becomes `index.html` and `report.md` with its figures beside them, without code or outside links.

A cell shows what it returns as Markdown: the helpers here write it. Cells tagged `header` and `footer` go to these
landmarks of the page, cells tagged `remove-cell` nowhere; of cells tagged `show-code` the page shows the code as well.
Several studies may share a notebook: a cell with tags `only-NAME` is left out for every study that none of them names.
"""

import hashlib
import html
import itertools
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from aunce import files
from aunce.errors import RunError
from aunce.study.grid import REPORTS, without_size
from aunce.study.kernels import execute_notebook

if TYPE_CHECKING:
    from IPython.display import Markdown
    from nbformat import NotebookNode

    from aunce.report.style import Figure

TEMPLATES = Path(__file__).parent / "templates"

ONLY = "only-"  # with the name of a study: the tag of a cell for that study alone
DRAWN = "drawn.json"  # hashes of the page's files
LONG = 90  # characters of a cell that gets a width of its own


def render(notebook: Path, parameters: Mapping[str, Any], folder: Path, *, title: str, study: str = "") -> Path:
    """Execute a notebook and write `index.html`, `report.md`, `figures/` and the files that it writes itself.

    Everything is made aside and put in place when it is whole: a notebook that fails leaves the last page as it was.

    Args:
        notebook: it has a parameter `out`, the folder that gets its figures.
        parameters: its other parameters.
        folder: where the page goes.
        title: of the page.
        study: or another name, whose cells tagged `only-NAME` stay, in any size; empty keeps all cells.

    Returns:
        The path of `index.html`.

    Raises:
        RunError: the notebook failed, or its kernel died.
    """
    with files.workplace(folder, ".render-") as staging:
        try:
            _render(notebook, parameters, folder, title, staging, without_size(study))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return folder / "index.html"


def _render(notebook: Path, parameters: Mapping[str, Any], folder: Path, title: str, staging: Path, study: str) -> None:
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        with TemporaryDirectory(prefix="aunce-page-") as aside:
            source = _of_study(notebook, study, Path(aside))
            executed = execute_notebook(source, None, {**parameters, "out": str(staging)})
    except PapermillExecutionError as error:
        place = f"{notebook.name}, cell {error.cell_index}"
        raise RunError(f"{place}: {error.ename}: {error.evalue}; the page in {folder} is as it was") from error
    except DeadKernelError as error:
        said = f"{notebook.name}: its kernel died, perhaps for lack of memory; run it again"
        raise RunError(f"{said}; the page in {folder} is as it was") from error
    parts = _convert(executed)
    inside = REPORTS.resolve() in folder.resolve().parents
    made = _page(title, parts, home=Path(os.path.relpath(REPORTS, folder), "index.html").as_posix() if inside else "")
    (staging / "figures").mkdir(exist_ok=True)
    shutil.rmtree(folder / "figures", ignore_errors=True)
    os.replace(staging / "figures", folder / "figures")
    for file in (path for path in staging.iterdir() if path.is_file() and path.name != ".lock"):
        os.replace(file, folder / file.name)
    files.write(folder / "report.md", between_markdown(parts["markdown"]))
    files.write(folder / "index.html", made)
    record_drawn(folder)


def drawn_hashes(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the files of a page that drawing it has made."""
    places = [folder / name for name in ("findings.json", "index.html", "report.md")]
    places += sorted((folder / "figures").glob("*"))
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in places
        if path.is_file()
    }


def record_drawn(folder: Path) -> None:
    """Write the hashes of a page beside it: what is changed later is found, even where no page can be drawn again."""
    files.write(folder / DRAWN, json.dumps(drawn_hashes(folder), indent=1) + "\n")


def _of_study(notebook: Path, study: str, aside: Path) -> Path:
    """The notebook, or a copy in the folder `aside` without the cells of other studies, if it has such cells."""
    import nbformat

    content = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    named = [{tag for tag in cell.metadata.get("tags", []) if tag.startswith(ONLY)} for cell in content.cells]
    of_others = [
        cell for cell, tags in zip(content.cells, named, strict=True) if study and tags and ONLY + study not in tags
    ]
    if not of_others:
        return notebook
    content.cells = [cell for cell in content.cells if cell not in of_others]
    nbformat.write(content, aside / notebook.name)  # type: ignore[no-untyped-call]
    return aside / notebook.name


def between_markdown(text: str) -> str:
    """The text with links to the Markdown of other reports: a code host shows that, and the source of HTML."""
    return re.sub(r"(\]\((?:\.\./)+[\w/-]+)/index\.html", r"\1/report.md", text)


def _convert(notebook: "NotebookNode") -> dict[str, str]:
    """The executed notebook without code: HTML fragments of its header, main and footer cells, and all as Markdown."""
    from nbconvert import HTMLExporter, MarkdownExporter
    from nbformat.v4 import new_markdown_cell

    hidden = {"exclude_input": True, "exclude_input_prompt": True, "exclude_output_prompt": True}
    shown = []
    for cell in notebook.cells:
        if "remove-cell" in cell.metadata.get("tags", []):
            continue
        if "show-code" in cell.metadata.get("tags", []):
            shown.append(new_markdown_cell(f"```python\n{cell.source}\n```"))  # type: ignore[no-untyped-call]
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if "text/markdown" in output.get("data", {})]
            if not cell.outputs:
                continue
        shown.append(cell)
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_anchor_links=True, **hidden
    )
    parts: dict[str, str] = {}
    for name in ("header", "main", "footer"):
        cells = [cell for cell in shown if name == _landmark(cell)]
        parts[name], _ = exporter.from_notebook_node(type(notebook)(notebook | {"cells": cells}))
    to_markdown = MarkdownExporter(**hidden)  # type: ignore[no-untyped-call]
    markdown, _ = to_markdown.from_notebook_node(type(notebook)(notebook | {"cells": shown}))
    parts["markdown"] = re.sub(r"\n{3,}", "\n\n", markdown).strip() + "\n"
    return parts


def _landmark(cell: "NotebookNode") -> str:
    tags = cell.metadata.get("tags", [])
    return "header" if "header" in tags else "footer" if "footer" in tags else "main"


def _page(title: str, parts: Mapping[str, str], home: str = "") -> str:
    """The fragments in our page: figures with captions, tables that scroll in their own box, a contents list.

    `home` is the way to the index of all reports, if there is one.
    """
    fragments, contents = {}, []
    boxes = itertools.count(1)

    def box(shown: re.Match[str]) -> str:
        # a named region that the keyboard reaches: else the right half of a table could be seen with a mouse alone
        what = "Table" if shown[0] == "<table>" else "Code"
        label = f"{what}, box {next(boxes)} of this page, scrolls sideways"
        return f'<div class="box" role="region" aria-label="{label}" tabindex="0">{shown[0]}'

    for name in ("header", "main", "footer"):
        body = parts[name]
        body = re.sub(
            r"<p>(<img [^>]*>)</p>\s*<p>(.*?)</p>", r"<figure>\1<figcaption>\2</figcaption></figure>", body, flags=re.S
        )
        body = re.sub(r"<table>|<pre>", box, body)
        body = re.sub(r"(</table>|</pre>)", r"\1</div>", body)
        body = re.sub(r"<th(?=[ >])", '<th scope="col"', body)
        # on a narrow screen a cell of sentences would become a column of single words
        body = re.sub(rf"<td(?=[^>]*>(?:(?!</td>).){{{LONG},}})", '<td class="long"', body, flags=re.S)
        for heading in re.findall(r"<h2>(.*?)</h2>", body):
            place = anchor(html.unescape(re.sub(r"<[^>]+>", "", heading)))
            contents.append(f'<li><a href="#{place}">{heading}</a></li>')
            body = body.replace(f"<h2>{heading}</h2>", f'<h2 id="{place}">{heading}</h2>', 1)
        fragments[name] = body
    return Template((TEMPLATES / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        home=f'<a href="{html.escape(home)}">All reports</a>' if home else "",
        contents="\n".join(contents),
        **fragments,
    )


def anchor(heading: str) -> str:
    """The part of a link after # that leads to the section with this heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def from_markdown(title: str, *, header: str, main: str, footer: str) -> str:
    """A page like those of notebooks, from the Markdown of its three landmarks."""
    from nbformat.v4 import new_markdown_cell, new_notebook

    cells = [
        new_markdown_cell(text, id=name, metadata={"tags": [name]})  # type: ignore[no-untyped-call]
        for name, text in (("header", header), ("main", main), ("footer", footer))
    ]
    return _page(title, _convert(new_notebook(cells=cells)))  # type: ignore[no-untyped-call]


def markdown(text: str) -> "Markdown":
    """What a cell returns to be shown on the page."""
    from IPython.display import Markdown

    return Markdown(text)  # type: ignore[no-untyped-call]


def text(value: object) -> str:
    """`value` as text that neither HTML nor Markdown takes for markup, and that does not become a link."""
    escaped = html.escape(" ".join(str(value).split()))
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", escaped)
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)
    return escaped.replace("$", "&#36;").replace("://", "&#58;//")


def code(value: str) -> str:
    """`value` as code, exactly as it is read and pasted: a command, or a name."""
    if not re.search(r"[`|<>&$\\\r\n]", value):
        return f"`{value}`"
    # Within backticks a table would end its cell at a bar, and nothing escapes a backtick.
    return f"<code>{text(value)}</code>"


def number(value: float, form: str = ".3f") -> str:
    """`value` by a format, with a minus sign instead of a hyphen; NaN is "not defined".

    The floats next to 0 are what `statistics.holm_intervals` gives for an end at 0 that is itself excluded.
    """
    if 0 < abs(value) < sys.float_info.min:
        return f"just {'below' if value < 0 else 'above'} 0"
    return "not defined" if math.isnan(value) else format(value, form).replace("-", "−")


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A Markdown table; `align` has an l or r per column."""
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(headers), rule, *rows])


def figure(out: Path | None, name: str, drawn: "Figure", data: pd.DataFrame, *, alt: str, caption: str) -> "Markdown":
    """Save a figure with its data below `out` and refer to it, or display it if nothing is to be saved (None)."""
    from IPython.display import display

    from aunce.report import figures

    if out is None:
        display(drawn)  # type: ignore[no-untyped-call]
        return markdown(caption)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_bytes(figures.to_svg(drawn))
    data.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    return markdown(f"![{text(alt)}](figures/{name}.svg)\n\n{caption} [Data as CSV](figures/{name}.csv).")
