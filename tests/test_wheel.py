"""The package as somebody gets it who installs the wheel and has no clone."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from aunce.cli import main
from aunce.study.grid import PROJECT

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="folders of a venv have other names"),
    pytest.mark.skipif(
        Version(importlib.metadata.version("setuptools")) < Version("77"), reason="needs setuptools 77 to build"
    ),
]
PIP = [sys.executable, "-m", "pip", "--quiet"]
SUBCOMMANDS = [*main.commands, *(f"data {name}" for name in main.commands["data"].commands)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder is left in the project."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(PROJECT / "aunce", folder / "source" / "aunce", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder]
    subprocess.run([*PIP, "wheel", *options, folder / "source"], check=True)
    (built,) = folder.glob("aunce-*.whl")
    return built


def environment(folder, wheel):
    """A new virtual environment with the wheel and nothing else; a function that calls its programs in a new folder."""
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    programs, empty = folder / "venv" / "bin", folder / "empty"
    empty.mkdir()
    install = [*PIP, "--python", programs / "python", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and "AUNCE" not in name}

    def call(program, *words, code=0):
        command = [programs / program, *map(str, words)]
        done = subprocess.run(command, cwd=empty, env=variables, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    call.folder = empty
    (call.packages,) = (folder / "venv").glob("lib/python*/site-packages")
    return call


def required_by(name):
    """The distribution `name`, and all that it requires here."""
    found, to_do = set(), [name]
    while to_do:
        one = to_do.pop()
        if one not in found:
            found.add(one)
            requirements = map(Requirement, importlib.metadata.requires(one) or [])
            to_do += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory):
    """The wheel beside torch and what torch requires: what `pip install aunce` gives, without a download."""
    call = environment(tmp_path_factory.mktemp("core"), wheel)
    for name in required_by("torch"):
        distribution = importlib.metadata.distribution(name)
        for top in {Path(file).parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (call.packages / top).exists():
                (call.packages / top).symlink_to(distribution.locate_file(top))
    return call


@pytest.fixture(scope="module")
def aunce(wheel, tmp_path_factory):
    """Call the command of the wheel; the libraries are those of the running interpreter."""
    call = environment(tmp_path_factory.mktemp("whole"), wheel)
    libraries = [path for path in sys.path if path and Path(path).resolve() != PROJECT and Path(path).is_dir()]
    (call.packages / "libraries.pth").write_text("\n".join(libraries))

    def aunce(*words, **options):
        return call("aunce", *words, **options)

    aunce.folder = call.folder
    return aunce


SNIPPET = re.findall(r"^```python\n(.*?)^```$", (PROJECT / "README.md").read_text(), flags=re.S | re.M)[0]


@pytest.mark.parametrize("code", [SNIPPET, "from aunce.model import Encoder"], ids=["loss", "model"])
def test_with_torch_alone_the_loss_of_the_readme_and_the_model_are_there(core, code):
    # of numpy torch says by itself that it is missing
    assert core("python", "-W", "error", "-W", "ignore:Failed to initialize NumPy", "-c", code) == ""


@pytest.mark.parametrize("words", ["", "--help", "--version", *SUBCOMMANDS])
def test_with_torch_alone_the_command_says_in_one_line_which_extra_it_needs(core, words):
    said = core("aunce", *words.split(), code=1)
    assert re.fullmatch(r"aunce: '\w+' is not installed, and .*: pip install \"aunce\[study\]\"\n", said)


@pytest.mark.parametrize(("package", "extra"), [("pandas", "study"), ("captum", "notebooks")])
def test_a_package_that_is_missing_in_the_middle_of_a_command_is_named_with_its_extra(core, package, extra):
    code = f"import sys, types; sys.modules['aunce.cli'] = types.SimpleNamespace(main=lambda: __import__('{package}'))"
    said = core("python", "-c", f"{code}; from aunce.__main__ import main; main()", code=1)
    assert said == f"aunce: '{package}' is not installed, and this command needs it: pip install \"aunce[{extra}]\"\n"


def test_the_wheel_asks_for_torch_alone_and_carries_what_the_package_reads_and_nothing_else(wheel):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    carried = {name for name in names if ".dist-info/" not in name}
    expected = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "aunce").rglob("*") if path.is_file()}
    assert carried == {name for name in expected if "__pycache__" not in name}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (described,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    required = re.findall(r"^Requires-Dist: (.*)$", described, flags=re.MULTILINE)
    assert [one for one in required if "extra ==" not in one] == ["torch>=2.11"]


@pytest.mark.long
def test_the_command_works_from_an_empty_folder(aunce):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["version"] in aunce("--version")
    assert "predict" in aunce("--help")
    aunce("data", "synth", "bp4d", "faces", "--subjects", 3, "--frames", 2, "--size", 32)
    assert "frames: 48" in aunce("data", "check", "bp4d", "faces")
    assert "48 crops" in aunce("data", "pack", "bp4d", "faces", "--pixels", 32)
    assert list((aunce.folder / "data").glob("*/pack/pack.json"))
    assert "no finished run" in aunce("predict", "nowhere", "faces", code=2)


@pytest.mark.long
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
