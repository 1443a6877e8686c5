"""Write the pins of environment.yml: resolve pyproject's ranges in an empty environment and list what was installed.

`make lock` runs it. TORCH is the one version chosen by hand, because its builds differ by platform. Run it with the
oldest Python that is supported (`make lock PYTHON=...`): the newest releases of others may refuse that one.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
HEADER = f"""\
# The versions that the committed reports were made with, but for the runs of one (CONTRIBUTING.md): for conda users
# (`conda env create -f environment.yml`) and, read by the Makefile, for `.venv`. One source of pins; pyproject.toml
# holds the ranges. Written by `make lock`.
name: aunce
channels:
  - conda-forge
dependencies:
  - python>=3.11
  - pip
  - pip:
      # The small CPU build on Linux. For CUDA leave this line out: PyPI's own build of torch carries it.
      - --extra-index-url https://download.pytorch.org/whl/cpu
      - torch=={TORCH}
"""
EXTRAS = "[study,notebooks,test,slurm,export]"
NOT_EVERYWHERE = {"pexpect": "sys_platform != 'win32'", "ptyprocess": "sys_platform != 'win32'"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder) / "bin" / "python"), "-m", "pip", "--quiet"]
        subprocess.run([*pip, "install", f"torch=={TORCH}"], check=True)
        subprocess.run([*pip, "install", f"{ROOT}{EXTRAS}"], check=True)
        freeze = subprocess.run(
            [*pip, "freeze", "--exclude", "aunce"], check=True, capture_output=True, text=True
        ).stdout
    lines = []
    for pin in sorted(freeze.split("\n"), key=str.lower):
        name = pin.partition("==")[0]
        if "==" in pin and name != "torch":
            marker = f" ; {NOT_EVERYWHERE[name]}" if name in NOT_EVERYWHERE else ""
            lines.append(f"      - {pin}{marker}\n")
    (ROOT / "environment.yml").write_text(HEADER + "".join(lines) + f"      - -e .{EXTRAS}\n")


if __name__ == "__main__":
    sys.exit(main())
