from utils.session.state.folder import Session


def make(bench, name, status):
    session = Session.create(bench.config(name=name), {})
    session.start_clock()
    session.close(status)
    return session


def test_cleanup_lists_first_and_removes_only_failed_and_interrupted(bench, run_module):
    sessions = [make(bench, name, status) for name, status in (
        ("a", "finished"), ("b", "failed"), ("c", "interrupted"), ("d", "failed")
    )]  # fmt: skip
    listed = run_module("utils.session.cleanup", cwd=bench.folder)
    assert "would remove" in listed.stdout and "CONFIRM=yes" in listed.stdout
    assert all(session.folder.is_dir() for session in sessions)
    run_module("utils.session.cleanup", "--yes", cwd=bench.folder)
    there = {session.folder.name[-1] for session in sessions if session.folder.is_dir()}
    assert there == {"a", "d"}
