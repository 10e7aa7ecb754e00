"""What the bits depend on, and how a change is told."""

import torch

from utils.checkout import ROOT
from utils.training.records.provenance import changes, provenance


def test_it_holds_code_versions_and_machine():
    found = provenance(torch.device("cpu"))
    assert found["torch"] == str(torch.__version__)
    assert found["threads"] == torch.get_num_threads() and found["processor"]
    assert {"utils/training/step/loss.py", "utils/data/tokens/rows.py"} <= set(found["code"])
    assert all((ROOT / path).is_file() for path in found["code"])


def test_each_change_is_a_line():
    old = {"torch": "2.13.0", "threads": 2, "code": {"a.py": "1", "b.py": "2", "c.py": "3"}}
    new = {"torch": "2.14.0", "threads": 2, "code": {"a.py": "1", "b.py": "9", "d.py": "4"}}
    assert changes(old, new) == ["torch: 2.13.0 -> 2.14.0", "code: b.py, c.py, d.py changed"]
    assert changes({}, new) == [] == changes(old, old)
