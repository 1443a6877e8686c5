"""Execute one run of a study: papermill in a fresh kernel, a log, a GPU if one is free, `metrics.json` last.

An executed notebook proves nothing: papermill leaves one behind after a kill as well. Only the rename of
`metrics.json.partial` says that a run is done.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from aunce import files
from aunce.errors import RunError, TimeLimitError, UsageError, machine_remedy
from aunce.processes import first_process
from aunce.study.grid import NOTEBOOKS, WEIGHTS, Data, Run, Study
from aunce.study.kernels import execute_notebook
from aunce.study.state import ERROR, LOCK, METRICS, UNSEALED, seal, set_aside

DEAD_KERNEL, GPU_MEMORY, TIME_LIMIT = "the kernel died", "GPU memory ran out", "the time limit"
TRIED_AGAIN = (DEAD_KERNEL, GPU_MEMORY, TIME_LIMIT)
"""Causes that may lie in what else the machine did at the time. A second try continues from the last checkpoint."""


def make_data(
    data: Data, *, workers: int, look: bool = False, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Render (or find) and pack one data set of a study; what is finished is left alone.

    Args:
        data: the data set.
        workers: processes that render, threads that crop.
        look: whether the images of a real data set are still those of its pack; once a study, not for each run.
        progress: called with images cropped and images in all.

    Returns:
        The folder of the pack.

    Raises:
        UsageError: the pack that is there is one of other images.
    """
    from aunce.data import cache_folder, is_pack, pack_faces, place_of_pack, prepare, renderer
    from aunce.data.recipes import Recipe

    recipe = Recipe(**data.crops)
    options: dict[str, Any] = {"recipe": recipe, "protocol": data.protocol, "workers": workers, "progress": progress}
    if data.root:
        root = Path(data.root)
        made = root if is_pack(root) else place_of_pack(data.dataset, root, recipe, data.protocol)
        # Looking at every image of a large data set for each run would take minutes.
        return made if is_pack(made) and not look else prepare(data.dataset, root, **options).folder
    folder = cache_folder() / data.name
    folder.mkdir(parents=True, exist_ok=True)
    pack = folder / "pack"
    with FileLock(folder / ".lock"):
        if not is_pack(pack):
            renderer(data.dataset).write(folder / "raw", seed=data.seed, workers=workers, **data.render)
            pack_faces(data.dataset, folder / "raw", pack, **options)
    return pack


def execute(study: Study, run: Run, *, workers: int = 1) -> bool:
    """Execute `run` unless it is done; two callers never execute the same run.

    Under torchrun every process executes the notebook, and they share the training; the first one alone writes.

    Writes `notebook.ipynb` and `log.txt` as it goes, then `metrics.json`, or `error.json` with cause and remedy. A run
    that failed for one of the causes `TRIED_AGAIN` is tried once more.

    Returns:
        False if the run was done already.

    Raises:
        RunError: the notebook failed, the kernel died, or the notebook ended without its metrics.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    if not first_process():
        return _join(study, run, workers)
    set_aside(run.folder / LOCK, unless_file=True)
    with run.lock:
        reached = run.reach()
        if reached.name == "done":
            return False
        if reached.name == "damaged":
            set_aside(run.folder / METRICS)
        partial, error_file = run.folder / UNSEALED, run.folder / ERROR
        for path in (error_file, partial):
            set_aside(path, unless_file=True)
        error_file.unlink(missing_ok=True)
        tries = 1 if "LOCAL_RANK" in os.environ else 2  # torchrun ends all processes with the first that fails
        for number in range(1, tries + 1):
            partial.unlink(missing_ok=True)
            try:
                with (run.folder / "log.txt").open("a") as log:
                    _compute(study, run, workers, run.folder / "notebook.ipynb", log)
                if not partial.is_file():
                    raise RunError(f"run {run.key}: the notebook ended without saving its metrics; see {run.folder}")
                seal(run.folder, run.key)
            except Exception as error:
                failure = describe(error) | {"tries": number}
                with contextlib.suppress(OSError):  # a full disk may be what went wrong
                    files.write(error_file, json.dumps(failure, indent=1))
                if number == tries or failure["cause"] not in TRIED_AGAIN:
                    message = str(failure["message"])
                    message += "" if message.endswith((".", "?", "!")) else "."
                    said = f"{message} {failure['remedy']} Log: {run.folder / 'log.txt'}"
                    raise RunError(f"run {run.key}: {said}") from error
            else:
                break
        shutil.rmtree(run.folder / "checkpoint", ignore_errors=True)  # not before: the results may still be lost
        error_file.unlink(missing_ok=True)
    return True


def _join(study: Study, run: Run, workers: int) -> bool:
    """Take part in a run that the first process executes; return when it is done there, too."""
    if run.reach().name == "done":  # by hashes, as the first process: who disagrees would be waited for
        return False
    _compute(study, run, workers, None, None)
    while not (run.folder / METRICS).is_file():
        if (run.folder / ERROR).is_file():
            raise RunError(f"run {run.key}: the first process failed, see {run.folder / ERROR}")
        time.sleep(0.2)
    return True


def _compute(study: Study, run: Run, workers: int, target: Path | None, log: IO[str] | None) -> None:
    """Make what the run needs and execute its notebook into `target`."""
    threads = str(run.spec.threads)
    # A kernel reads these once, when it starts. Passive: spinning threads of two runs fight over the same cores.
    os.environ.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")
    # glibc gives large blocks back at once, and fetching fresh pages for each activation took a quarter of a step.
    os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**32))
    os.environ.setdefault("MPLBACKEND", "agg")
    if run.start:
        execute(study, run.start, workers=workers)
    root, *others = [str(make_data(data, workers=workers)) for data in run.data]
    places: dict[str, Any] = {"root": root, "out": str(run.folder)}
    places |= {"test_root": others[0]} if run.spec.test_dataset else {"other_roots": others}
    if run.start:
        places["start"] = str(run.start.folder / WEIGHTS)
    with gpu_lease(run.spec.device):
        notebook = NOTEBOOKS / f"{study.file.study.notebook}.ipynb"
        minutes = study.file.study.limit_minutes
        parameters = run.spec.model_dump() | places
        execute_notebook(notebook, target, parameters, log=log, limit_s=60 * minutes if minutes else None)


def describe(error: Exception) -> dict[str, Any]:
    """What went wrong: `message`, `cause`, `remedy`, and where papermill knows them the cell and the traceback."""
    from papermill.exceptions import PapermillExecutionError

    if isinstance(error, PapermillExecutionError):
        ours = error.ename in ("RunError", "DataError", "UsageError")  # their messages stand for themselves
        cause, remedy = error.ename, machine_remedy(f"{error.ename} {error.evalue}") or "Mend it and run again."
        if error.ename == "OutOfMemoryError" or "CUDA out of memory" in error.evalue:
            cause, remedy = GPU_MEMORY, "Use a smaller batch_size, or see with nvidia-smi who else uses this GPU."
        elif remedy.startswith("Memory"):
            cause = "memory ran out"
        return {
            "message": error.evalue if ours else f"{error.ename}: {error.evalue}",
            "cause": cause,
            "remedy": remedy,
            "cell": error.cell_index,
            "traceback": re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)),
        }
    if type(error).__name__ == "DeadKernelError" or str(error).startswith("Kernel died before replying"):
        remedy = "Usually memory ran out: use a smaller batch_size or fewer runs at once."
        return {"message": f"{DEAD_KERNEL}.", "cause": DEAD_KERNEL, "remedy": remedy}
    if isinstance(error, TimeLimitError):
        remedy = "If it was still at work, set a longer limit_minutes in [study]: it continues where it was."
        return {"message": str(error), "cause": TIME_LIMIT, "remedy": remedy}
    remedy = machine_remedy(str(error), getattr(error, "errno", None)) or "Run again once it is mended."
    return {"message": str(error), "cause": type(error).__name__, "remedy": remedy}


@contextlib.contextmanager
def gpu_lease(device: str) -> Iterator[None]:
    """Hold one GPU for the length of a run, by a file lock that falls with its holder.

    Nothing is leased on the CPU, without a GPU, when `CUDA_VISIBLE_DEVICES` is set already (a scheduler has chosen), or
    under torchrun, which counts the GPUs itself.

    Raises:
        UsageError: `device` is "cuda" and this machine shows no GPU.
    """
    if device == "cpu" or "CUDA_VISIBLE_DEVICES" in os.environ or "LOCAL_RANK" in os.environ:
        yield
        return
    gpus = list_gpus()
    if not gpus:
        if device == "cuda":
            raise UsageError("device = 'cuda', but nvidia-smi shows no GPU; use device = 'auto' or 'cpu'")
        yield
        return
    locks = {gpu: FileLock(files.temporary_root() / f"{gpu}.lock", mode=0o600) for gpu in gpus}
    while True:
        for gpu, lock in locks.items():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            try:
                yield
            finally:
                del os.environ["CUDA_VISIBLE_DEVICES"]
                lock.release()
            return
        time.sleep(1)


def list_gpus() -> list[str]:
    """UUIDs of the GPUs that `nvidia-smi` shows; none where there is no driver."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return re.findall(r"UUID: (GPU-[0-9a-f-]+)", listing)
