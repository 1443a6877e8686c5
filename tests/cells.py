"""The code cells of a committed notebook, run in this process on tables of a test."""

import ast
from pathlib import Path
from typing import Any

import nbformat

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def shown(notebook: str, **parameters: Any) -> str:
    """The Markdown cells before the footer and what the code cells return as Markdown, with blank lines between.

    Args:
        notebook: its name without the suffix.
        parameters: values for its cell tagged `parameters`.
    """
    names: dict[str, Any] = {}
    texts = []
    for cell in nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", 4).cells:
        tags = cell.metadata.get("tags", [])
        if "footer" in tags:
            continue
        if cell.cell_type == "markdown":
            texts.append(cell.source)
            continue
        code = ast.parse(cell.source)
        last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
        exec(compile(code, cell.id, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), cell.id, "eval"), names)
            texts.append(getattr(value, "data", ""))
        if "parameters" in tags:
            names |= {name: str(value) for name, value in parameters.items()}
    return "\n\n".join(texts)
