"""Execute a notebook by papermill in a fresh kernel of this very interpreter."""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from aunce.errors import TimeLimitError
from aunce.processes import CHECKOUT

if TYPE_CHECKING:
    from nbformat import NotebookNode

# jsonschema, which checks notebooks, compiles a grammar of IRIs when it is imported. That takes more than a second of
# every run and page, and no notebook holds an IRI. Without this package jsonschema leaves that check out.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

ARGUMENTS = ["--IPKernelApp.log_level=50"]  # the kernel's own chatter at start and end
if CHECKOUT is not None:  # ipykernel takes the folder that one stands in out of the path, even if PYTHONPATH names it
    ARGUMENTS.append(f"--IPKernelApp.exec_lines=import sys; sys.path.insert(0, {str(CHECKOUT)!r})")


def execute_notebook(
    source: Path,
    target: Path | None,
    parameters: Mapping[str, Any],
    *,
    log: IO[str] | None = None,
    limit_s: float | None = None,
) -> "NotebookNode":
    """Execute `source` with `parameters`, writing it to `target` as it goes.

    Args:
        source: the notebook.
        target: where the executed notebook goes; None keeps it in memory.
        parameters: values for its cell tagged `parameters`.
        log: takes what the cells print.
        limit_s: seconds after which the kernel is ended; None is no limit.

    Returns:
        The executed notebook.

    Raises:
        papermill.exceptions.PapermillExecutionError: a cell failed.
        nbclient.exceptions.DeadKernelError: the kernel died.
        TimeLimitError: it was ended.
    """
    # Imported here: they take seconds, which a run that is done already and a data set need not wait for.
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    from aunce.study.tied import TiedKernel

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aunce-") as sockets:
        config = Config()
        config.TiedKernel.seconds = limit_s or 0.0
        if os.name == "posix":
            # Kernels that start together race for free ports; sockets in a folder of their own cannot meet.
            config.TiedKernel.transport = "ipc"
            config.TiedKernel.ip = str(Path(sockets) / "kernel")
        try:
            notebook: NotebookNode = papermill.execute_notebook(
                _literal(source),
                None if target is None else _literal(target),
                parameters=dict(parameters),
                kernel_name="python3",
                kernel_manager_class=TiedKernel,
                progress_bar=False,
                # papermill would write the notebook before and after every cell; it still does in a failure, at the
                # end and every 30 s of a long cell.
                request_save_on_cell_execute=False,
                config=config,
                shutdown_kernel="immediate",  # every cell is done; a kernel that leaves politely takes two seconds more
                extra_arguments=ARGUMENTS,
                stdout_file=log,
                stderr_file=log,
            )
        except DeadKernelError as error:
            if limit_s and time.monotonic() - started >= limit_s:
                raise TimeLimitError(f"{source.name} was ended after {limit_s / 60:g} minutes.") from error
            raise
    return notebook


def _literal(path: Path) -> str:
    """papermill passes paths through `str.format`, so braces are doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")
