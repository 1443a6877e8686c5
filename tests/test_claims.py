"""The claims: complete, named once, and undecided as long as nothing has run."""

import hashlib

import pytest

from aunce.claims import NOT_RUN, Ledger, load_claims
from aunce.errors import UsageError
from aunce.study import NOTEBOOKS

FILE = """
written = 2026-01-01
delta = 0.005
score = "auc"

[[claim]]
id = "C1"
wording = "One beats the other."
source = "us"
experiment = "main"
decided_by = "each"
contrasts = [["one", "other"]]

[[gap]]
id = "D1"
wording = "They differ."
home = "anatomy"
"""


@pytest.fixture
def write(tmp_path):
    def write(old="", new=""):
        path = tmp_path / "claims.toml"
        path.write_text(FILE.replace(old, new))
        return path

    return write


def test_the_committed_claims_are_those_of_the_protocol_and_their_hash_is_that_of_the_file():
    claims, digest = load_claims()
    assert {f"C{number}" for number in range(1, 8)} <= {claim.id for claim in claims.claim}
    assert [gap.id for gap in claims.gap] == [f"D{number}" for number in range(1, 25)]
    assert digest == hashlib.sha256((NOTEBOOKS / "claims.toml").read_bytes()).hexdigest()[:8]
    assert claims.delta == 0.005


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "D1"', 'id = "X1"', "id"),
        ("[[gap]]", '[[gap]]\nid = "D1"\nwording = "Again."\nhome = "audit"\n\n[[gap]]', "D1 stands twice"),
        ('contrasts = [["one", "other"]]', "", "decided by each of its contrasts and has none"),
        ('["one", "other"]', '["one", "one"]', "two different arms"),
        ('experiment = "main"', "", "needs experiment and decided_by"),
        ("delta", "dleta", "did you mean 'delta'"),
        ("2026-01-01", '"yesterday"', "written"),
        ("[[claim]]", "[[claim", "not a TOML file"),
    ],
)
def test_an_incomplete_claim_is_refused_with_its_file(write, old, new, message):
    path = write(old, new)
    with pytest.raises(UsageError, match=message) as error:
        load_claims(path)
    assert str(path) in str(error.value)


def test_a_claim_without_runs_has_no_verdict_and_an_undecidable_one_says_why(write):
    why = 'undecidable = "no data"'
    path = write('experiment = "main"\ndecided_by = "each"\ncontrasts = [["one", "other"]]', why)
    assert "undecidable here: no data" in Ledger(path).table().data
    ledger = Ledger(write())
    assert f"| {NOT_RUN} |" in ledger.table().data
    assert "supported" not in ledger.table().data
    assert ledger.hash in ledger.title().data
    assert "1 are not run yet and 0 are" in ledger.title().data
