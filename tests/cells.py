"""The code cells of a committed notebook, run in this process on what a test makes up."""

import ast
from typing import Any

import nbformat

from aunce.study.grid import NOTEBOOKS


def show(notebook: str, *names: str, **given: Any) -> str:
    """The Markdown that the last of some cells shows.

    Args:
        notebook: its name without the suffix.
        names: ids of the cells.
        given: variables that cells before these would have made.
    """
    sources = {cell.id: cell.source for cell in _cells(notebook)}
    return _run("\n".join(sources[name] for name in names), notebook, given).data


def shown(notebook: str, **parameters: Any) -> str:
    """The Markdown cells before the footer and what the code cells return as Markdown, with blank lines between.

    Args:
        notebook: its name without the suffix.
        parameters: values for its cell tagged `parameters`.
    """
    texts: list[str] = []
    # IPython has it ready in every cell.
    names: dict[str, Any] = {"display": lambda shown: texts.append(getattr(shown, "data", ""))}
    for cell in _cells(notebook):
        tags = cell.metadata.get("tags", [])
        if "footer" in tags:
            continue
        if cell.cell_type == "markdown":
            texts.append(cell.source)
            continue
        texts.append(getattr(_run(cell.source, cell.id, names), "data", ""))
        if "parameters" in tags:
            names |= {name: str(value) for name, value in parameters.items()}
    return "\n\n".join(texts)


def _cells(notebook: str) -> list[Any]:
    return nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", 4).cells


def _run(source: str, name: str, names: dict[str, Any]) -> Any:
    """Execute the lines with these variables; the value of the last one, if it is an expression."""
    code = ast.parse(source)
    last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
    exec(compile(code, name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names) if isinstance(last, ast.Expr) else None
