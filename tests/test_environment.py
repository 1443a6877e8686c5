"""One source of pins: conda and .venv must give the same versions, and pyproject's ranges must allow them."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PINS = {
    canonicalize_name(pin.name): pin
    for line in (ROOT / "environment.yml").read_text().splitlines()
    if (match := re.match(r" +- ([A-Za-z][^ ]*==.*)$", line)) and (pin := Requirement(match[1]))
}


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = re.search(r"-e \.\[(.*)\]$", (ROOT / "environment.yml").read_text(), re.MULTILINE)[1].split(",")
    extras = [text for extra in pinned for text in project["optional-dependencies"][extra]]
    requirements = [Requirement(text) for text in project["dependencies"] + extras]
    return [one for one in requirements if one.name != "aunce"]  # an extra that takes another one in


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_each_dependency_has_a_pin_inside_its_range(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    (specifier,) = pin.specifier
    assert requirement.specifier.contains(specifier.version)


def test_the_core_needs_torch_alone_and_what_is_pinned_is_all_that_tests_and_runs_need():
    assert {"torch", "pandas", "snakemake", "jupyterlab", "pytest", "snakemake-executor-plugin-slurm"} <= {
        one.name for one in declared()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [Requirement(text).name for text in project["dependencies"]] == ["torch"]
    assert project["version"] in (ROOT / "CITATION.cff").read_text()


def test_make_and_conda_read_the_same_pins():
    command = next(
        line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if line.strip().startswith("sed -n")
    )
    command = command.replace("$$", "$").split(" > ")[0]
    read_by_make = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [canonicalize_name(Requirement(line).name) for line in read_by_make] == list(PINS)


def test_what_is_installed_is_what_is_pinned():
    wrong = {}
    for name, pin in PINS.items():
        if pin.marker is None or pin.marker.evaluate():
            installed = importlib.metadata.version(name).partition("+")[0]
            if not pin.specifier.contains(installed):
                wrong[name] = installed
    assert wrong == {}, "run `make test`, which installs the pins of environment.yml"
