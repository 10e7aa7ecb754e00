"""The family of errors a user sees."""

import inspect

from utils import errors


def test_every_error_is_a_lumi_error_with_a_reason_to_exist():
    family = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(family) >= 6
    for kind in family:
        assert issubclass(kind, errors.LumiError) and kind.__doc__
