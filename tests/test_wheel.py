"""The package as somebody gets it who installs the wheel and has no clone."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from aunce.study.grid import PROJECT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="folders of a venv have other names"),
    pytest.mark.skipif(Version(version("setuptools")) < Version("77"), reason="needs setuptools 77 to build"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder is left in the project."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PROJECT / "aunce", folder / "source" / "aunce", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", folder, folder / "source"], check=True)
    (built,) = folder.glob("aunce-*.whl")
    return built


@pytest.fixture(scope="module")
def aunce(wheel, tmp_path_factory):
    """Call the installed command in an empty folder; the libraries are those of the running interpreter."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    libraries = [path for path in sys.path if path and Path(path).resolve() != PROJECT and Path(path).is_dir()]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and "AUNCE" not in name}
    empty = tmp_path_factory.mktemp("empty")

    def aunce(*words, code=0):
        command = [folder / "bin" / "aunce", *map(str, words)]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    aunce.folder = empty
    return aunce


def test_the_wheel_carries_what_the_package_reads_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    carried = {name for name in names if ".dist-info/" not in name}
    expected = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "aunce").rglob("*") if path.is_file()}
    assert carried == {name for name in expected if "__pycache__" not in name}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_works_from_an_empty_folder(aunce):
    assert version("aunce") in aunce("--version")
    assert "predict" in aunce("--help")
    aunce("data", "synth", "bp4d", "faces", "--subjects", 3, "--frames", 2, "--size", 32)
    assert "frames: 48" in aunce("data", "check", "bp4d", "faces")
    assert "48 crops" in aunce("data", "pack", "bp4d", "faces", "--pixels", 32)
    assert list((aunce.folder / "data").glob("*/pack/pack.json"))
    assert "no finished run" in aunce("predict", "nowhere", "faces", code=2)


@pytest.mark.parametrize(
    "words",
    [
        ("study", "laptop"),
        ("run", "laptop", "key"),
        ("status",),
        ("report", "claims"),
        ("data", "check", "bp4d", "faces", "--page", "p"),
    ],
    ids=" ".join,
)
def test_what_needs_a_clone_says_so(aunce, words):
    said = aunce(*words, code=2)
    assert "clone the project's repository" in said
    assert "Traceback" not in said
