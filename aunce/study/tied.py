"""The kernel of a notebook that leaves with whoever started it. Imports Jupyter, which takes seconds."""

import contextlib
import os
import signal
import threading
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from traitlets import Float

from aunce.processes import die_with_starter, end, safe_path


class TiedKernel(AsyncKernelManager):
    """A kernel that leaves with this process, killed or not, and is ended with all that it started after `seconds`."""

    seconds = Float(0.0, help="0 is no limit").tag(config=True)

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        """Start the kernel, tied to the thread that starts it (on Linux), and the clock of `seconds` with it."""
        options["env"] = {**os.environ, **options.get("env", {}), **safe_path()}
        if os.name == "posix":
            options["preexec_fn"] = die_with_starter
        await super().start_kernel(**options)
        if self.seconds:
            self._timer = threading.Timer(self.seconds, end, [self.provisioner.pid])  # type: ignore[union-attr]
            self._timer.start()

    async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]
        """Stop the clock of `seconds`, and kill what is left of the kernel's process group."""
        if self.seconds:
            self._timer.cancel()
        # What a kernel started outlives one that died by itself. Its group is its own, or else this process is in it.
        group, kernel = (getattr(self.provisioner, name, None) for name in ("pgid", "pid"))
        if group and group == kernel:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        await super().cleanup_resources(restart)
