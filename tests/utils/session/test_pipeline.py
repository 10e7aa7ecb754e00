import pytest

from utils.config.session import PipelineConfig
from utils.session.pipeline import full_session, run_pipeline, trial_session
from utils.session.runner import StageFailed


def test_the_full_pipeline_runs_all_stages_without_a_box_at_the_wanted_size():
    session = full_session(PipelineConfig.build({"size": "small"}))
    assert session.minutes is None
    assert session.model_sizes == ("small",)
    assert session.stages == ("prepare", "samples", "pretrain", "sft", "dpo", "evaluate")


def test_the_trial_works_in_its_own_folder_and_asks_the_server(tmp_path):
    session = trial_session(PipelineConfig.build({"test": True}), tmp_path)
    assert session.work_dir == tmp_path
    assert session.stages[-1] == "serve"


def test_the_trial_runs_every_stage_without_boxes(bench, root, monkeypatch):
    monkeypatch.chdir(root)
    run_pipeline(PipelineConfig.build({"test": True}), bench.tools)
    assert set(bench.minutes.values()) == {None}
    assert list(bench.minutes) == [
        "prepare", "samples", "pretrain", "sft", "dpo", "evaluate", "serve", "answers",
    ]  # fmt: skip


def test_a_failing_stage_of_the_pipeline_is_named(bench, root, monkeypatch):
    monkeypatch.chdir(root)
    bench.order = {"dpo": "fail"}
    with pytest.raises(StageFailed, match="step 5 of 7: dpo"):
        run_pipeline(PipelineConfig.build({"test": True}), bench.tools)
