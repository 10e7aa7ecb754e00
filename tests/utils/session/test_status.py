from utils.session.state.folder import Session


def make(bench, name, status, bpb=None):
    session = Session.create(bench.config(name=name), {})
    session.start_clock(already_s=90)
    session.summary["pretrain"] = {"val_bpb": bpb} if bpb else {}
    session.close(status)
    return session


def test_status_lists_sessions_with_state_box_time_and_result(bench, run_module):
    make(bench, "good", "finished", 1.234)
    make(bench, "bad", "failed")
    dead = make(bench, "killed", "running")
    dead.state |= {"pid": 2**22 + 1}
    dead.save()
    result = run_module("utils.session.status", cwd=bench.folder)
    assert result.returncode == 0
    assert "1.234" in result.stdout and "12 min" in result.stdout and "1.5 min" in result.stdout
    assert "finished" in result.stdout and "failed" in result.stdout
    assert "interrupted" in result.stdout and "make resume" in result.stdout


def test_status_of_nothing_says_what_to_run(run_module):
    result = run_module("utils.session.status")
    assert (result.returncode, result.stderr) == (0, "")
    assert "make session-quick" in result.stdout


def test_damaged_records_are_named_and_skipped(bench, run_module):
    make(bench, "good", "finished", 1.5)
    broken = make(bench, "torn", "finished")
    (broken.folder / "plan.json").write_text("{")
    result = run_module("utils.session.status", cwd=bench.folder)
    assert result.returncode == 0
    assert "1.500" in result.stdout and "torn" in result.stderr
