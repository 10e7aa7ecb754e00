import math
import subprocess
import sys
import time

import pytest

from utils.time_box import Clock, TimeBox, process_age_s


def test_a_clock_counts_from_the_start_of_the_process(root):
    code = (
        "import time; time.sleep(0.4); from utils.time_box import Clock, process_age_s\n"
        "print(process_age_s(), Clock(100.0).elapsed_s(), time.monotonic())"
    )
    before_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    age_s, used_s, at_s = map(float, done.stdout.split())
    assert 0.4 <= age_s <= at_s - before_s + 0.02  # a tick is a hundredth of a second
    assert age_s <= used_s - 100.0


def test_the_age_of_a_process_is_that_of_the_system():
    psutil = pytest.importorskip("psutil")
    assert process_age_s() == pytest.approx(time.time() - psutil.Process().create_time(), abs=2)


def test_what_is_left_is_counted_with_and_without_the_reserve():
    born = time.monotonic()
    box = TimeBox(2.0, Clock(used_before_s=30.0, born=born), reserve_s=20.0)
    left_s, work_left_s, elapsed_s = box.left_s, box.work_left_s, box.elapsed_s
    assert 30.0 <= elapsed_s <= 30.0 + time.monotonic() - born
    assert left_s == pytest.approx(120.0 - elapsed_s, abs=0.1)
    assert work_left_s == pytest.approx(left_s - 20.0, abs=0.1)


def test_without_minutes_it_never_ends():
    assert TimeBox(None, reserve_s=5.0).work_left_s == math.inf
