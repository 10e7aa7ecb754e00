"""The line of a failure."""

from utils.preflight.result import CheckResult


def test_a_failure_is_one_line_with_value_expectation_and_remedy():
    failure = CheckResult("initial loss near ln V", "11.2", "10.4", False, "check vocab_size")
    assert failure.line() == ("initial loss near ln V: found 11.2, expected 10.4: check vocab_size")
