"""One line of a failure, or silence."""

import pytest

from utils.errors import PreflightError
from utils.preflight.result import CheckResult, require

GOOD = CheckResult("cache", "0", "0", True, "repair it")
BAD = CheckResult("initial loss near ln V", "11.2", "10.4", False, "check vocab_size")


def test_good_results_are_counted():
    assert require([GOOD, GOOD, GOOD]) == 3


def test_the_first_failure_is_one_line_with_value_expectation_and_remedy():
    with pytest.raises(PreflightError) as failure:
        require([GOOD, BAD, GOOD])
    assert str(failure.value) == (
        "preflight failed: initial loss near ln V: found 11.2, expected 10.4: check vocab_size"
    )


def test_no_proof_runs_after_a_failure():
    def results():
        yield BAD
        raise AssertionError("went on")

    with pytest.raises(PreflightError):
        require(results())
