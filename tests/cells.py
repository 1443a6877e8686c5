"""Single cells of a notebook, run here on variables that a test makes up."""

import ast

import nbformat

from aunce.study.grid import NOTEBOOKS


def show(notebook, *names, **given):
    """What the last of some cells shows.

    Args:
        notebook: its name.
        names: ids of the cells.
        given: variables that cells before these would have made.

    Returns:
        The Markdown of the last line of the last cell.
    """
    sources = {cell.id: cell.source for cell in nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", 4).cells}
    tree = ast.parse("\n".join(sources[name] for name in names))
    last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, notebook, "exec"), given)
    return eval(compile(last, notebook, "eval"), given).data
