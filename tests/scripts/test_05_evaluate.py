import json


def test_a_checkpoint_is_evaluated_as_documented(
    run_script, checkpoint_dir, prepared_dir, tmp_path, root
):
    prompts = tmp_path / "mine.json"
    prompts.write_text(json.dumps({"mine": ["What is a list?"]}), encoding="utf-8")
    done = run_script(
        "05_evaluate", "--model_path", checkpoint_dir.parent, "--output_dir", "out",
        "--corpus_dir", prepared_dir, "--max_boolq_samples", 100, "--detailed_output",
        "--custom_prompts", prompts, "--max_new_tokens", 8, "--cpu",
        "--config", root / "config/evaluate.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out/evaluation_results.json"
    assert done.stdout == f"{path}\n"
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert results["heldout"]["status"] == results["smoke"]["status"] == "ok"
    assert list(results["smoke"]["measures"]["categories"]) == ["mine"]
    # no files, no hub, no held-out sets: reasons, not numbers
    for name in ("wikitext", "boolq", "lambada", "conversations", "preferences"):
        assert results[name]["status"] == "not run"
    assert "What is a list?" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


def test_a_missing_checkpoint_and_a_mistyped_flag_are_one_line(run_script):
    done = run_script("05_evaluate", "--model_path", "nowhere")
    assert done.returncode == 1
    assert "no checkpoint at nowhere" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    done = run_script("05_evaluate", "--fast_mod")
    assert done.returncode == 2
    assert "did you mean '--fast_mode'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
