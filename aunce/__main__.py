"""The command `aunce`, also `python -m aunce`.

`pip install aunce` installs the loss and torch. What the command needs comes with extras, and a call without them says
which one to install.
"""

import sys

EXTRAS = {"captum": "notebooks", "ipywidgets": "notebooks", "jupyterlab": "notebooks"}
"""Packages of an extra other than `study`."""


def main() -> None:
    """Run the command; a missing package ends it with exit code 1 and one line that names the extra."""
    try:
        from aunce.cli import main as command

        command()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package == "aunce" or package in sys.stdlib_module_names:
            raise
        extra = EXTRAS.get(package, "study")
        sys.exit(f"aunce: '{package}' is not installed, and this command needs it: pip install \"aunce[{extra}]\"")


if __name__ == "__main__":
    main()
