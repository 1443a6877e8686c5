"""What README shows in Python runs as it stands."""

import re

import pytest

from aunce.study import PROJECT

SNIPPETS = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), flags=re.S)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet):
    exec(snippet, {})


def test_there_are_snippets():
    assert SNIPPETS
