import io

from utils.session.state.display import Clock, Display


def test_in_a_pipe_every_line_stands_with_the_time_left_and_without_the_childs_prefix():
    out = io.StringIO()
    display = Display(out)
    display.begin("[2/6] pretrain")
    display.line("12:00:00 INFO    utils.training.trainer: loss 3.1, 40% (4 of 10)", "9.5 min left")
    display.line("12:00:01 WARNING utils.files: disk is slow", "9.4 min left")
    display.line("Traceback [bold]", "9.4 min left")
    display.end()
    assert out.getvalue().splitlines() == [
        "[2/6] pretrain",
        "    9.5 min left | loss 3.1, 40% (4 of 10)",
        "    9.4 min left | warning: disk is slow",
        "    9.4 min left | Traceback [bold]",
    ]


def test_long_lines_are_not_cut():
    out = io.StringIO()
    Display(out).say("x" * 3000)
    assert out.getvalue() == "x" * 3000 + "\n"


def test_the_clock_says_what_is_left_or_without_a_box_what_was_used():
    assert Clock(720.0, 300.0).left() == "5.0 min left"
    assert Clock(720.0, -3.0).left() == "0.0 min left"
    assert Clock(None, float("inf")).left() == "0.0 min so far"
