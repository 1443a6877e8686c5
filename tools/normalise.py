"""Bring notebooks into the form in which they are committed.

Outputs stay only where a test compares them (cells tagged `nbval-check-output`); execution counts of those are
renumbered, because nbval fails on outputs without a count, and every other cell has neither. Metadata that changes with
each execution goes.

    python tools/normalise.py notebooks/*.ipynb            rewrite what is not normal
    python tools/normalise.py --check notebooks/*.ipynb    name what is not normal, exit 1 if there is any
"""

import argparse
import hashlib
from pathlib import Path

import nbformat

CHECKED = "nbval-check-output"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT_CELL_METADATA = ("tags", "jupyter")


def normal(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is committed; applying this twice changes nothing more."""
    cells, count = [], 0
    for position, cell in enumerate(notebook.cells):
        if "injected-parameters" in cell.metadata.get("tags", []):  # papermill's copy of a run's parameters
            continue
        metadata = {name: cell.metadata[name] for name in KEPT_CELL_METADATA if cell.metadata.get(name)}
        # notebooks older than format 4.5 have no ids: nbformat would draw new ones each time
        identity = cell.get("id") or hashlib.sha256(f"{position} {cell.source}".encode()).hexdigest()[:8]
        fields = {"cell_type": cell.cell_type, "id": identity, "metadata": metadata, "source": cell.source.strip("\n")}
        if cell.cell_type == "code":
            outputs = list(cell.outputs) if CHECKED in metadata.get("tags", []) else []
            count += bool(outputs)
            outputs = [_normal_output(output, count) for output in outputs]
            fields |= {"outputs": outputs, "execution_count": count if outputs else None}
        cells.append(fields)
    content = {"cells": cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}
    result: nbformat.NotebookNode = nbformat.from_dict(content)  # type: ignore[no-untyped-call]
    return result


def _normal_output(output: nbformat.NotebookNode, count: int) -> dict[str, object]:
    fields = dict(output)
    if "metadata" in fields:
        fields["metadata"] = {}
    if "execution_count" in fields:
        fields["execution_count"] = count
    return fields


def normalise(path: Path, *, check: bool = False) -> bool:
    """Rewrite `path` in its normal form, or with `check` only look.

    Returns:
        True if the file was normal already.
    """
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)  # type: ignore[no-untyped-call]
    # nbformat sorts the keys; the newline at the end is what editors and git expect
    after: str = nbformat.writes(normal(notebook)) + "\n"  # type: ignore[no-untyped-call]
    if before != after and not check:
        path.write_text(after, encoding="utf-8")
    return before == after


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Bring notebooks into the form in which they are committed.")
    parser.add_argument("notebooks", nargs="+", type=Path, help="notebook files")
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if a notebook is not normal")
    options = parser.parse_args(arguments)
    changed = [path for path in options.notebooks if not normalise(path, check=options.check)]
    for path in changed:
        print(
            f"{path}: " + ("not normal; run: python tools/normalise.py " + str(path) if options.check else "rewritten")
        )
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
