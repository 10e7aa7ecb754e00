"""Stage 02 as a user runs it, and in process where that is enough."""

import hashlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from utils.config.pretrain import PretrainConfig
from utils.errors import CheckpointError, ConfigError, LumiError
from utils.files import read_json, read_lines
from utils.machine.matmul_speed import Peak

TOY = dict(
    n_layer=1,
    d_model=32,
    n_head=2,
    d_ff=48,
    vocab_size=600,
    sequence_length=32,
    batch_size=4,
    gradient_accumulation_steps=2,
    warmup_steps=2,
    save_steps=4,
    eval_tokens=400,
    max_steps=12,
    cpu=True,
    compile=False,
    preflight=False,
)
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def flags(**changes):
    """The toy settings as command-line flags."""
    for name, value in (TOY | changes).items():
        yield from ([f"--{name}"] if value is True else [f"--{name}", str(value)])


def settings(prepared_dir, tmp_path, **changes):
    return PretrainConfig(**(TOY | dict(data_dir=prepared_dir, output_dir=tmp_path) | changes))


def weights_hash(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(prepared_dir, tmp_path_factory):
    """A finished run of twelve steps."""
    main = importlib.import_module("scripts.02_pretrain").main
    return main(settings(prepared_dir, tmp_path_factory.mktemp("run"))).parent


def test_progress_says_at_which_step_the_model_was_validated(
    prepared_dir, tmp_path, monkeypatch, caplog
):
    """First weights made of pairs score worse than random ones; later numbers are others."""
    monkeypatch.setattr("utils.log.PLAIN_INTERVAL_S", 0.0)
    main = importlib.import_module("scripts.02_pretrain").main
    with caplog.at_level("INFO"):
        main(settings(prepared_dir, tmp_path, eval_steps=8, initialization="bigram"))
    found = [re.search(r"held out ([0-9.]+) at step (\d+)", line) for line in caplog.messages]
    found = [(float(match[1]), int(match[2])) for match in found if match]
    steps = [step for _, step in found]
    assert steps == sorted(steps) and set(steps) == {0, 8}
    told = {
        r["step"]: r["val_bpb"]
        for r in read_lines(tmp_path / "tiny" / "metrics.jsonl")
        if "val_bpb" in r
    }
    assert all(bpb == round(told[step], 3) for bpb, step in found)


def test_a_run_leaves_what_the_other_stages_read(undisturbed):
    from utils.model.checkpoints import load_model

    loaded = load_model(undisturbed)
    assert loaded.folder.name == "final" and loaded.card["stage"] == "pretrain"
    assert loaded.model.config._attn_implementation == "sdpa"
    run = read_json(undisturbed / "run.json")
    assert run["status"] == "finished" and run["environment"]["compiled"] is False
    summary = run["summary"]
    assert (summary["steps"], summary["tokens"]) == (12, 12 * 8 * 32)
    assert summary["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert {path.name for path in undisturbed.glob("step_*")} == {"step_4", "step_8"}
    assert (undisturbed / "best").is_dir()


def test_metrics_hold_the_curves_and_samples(undisturbed):
    records = read_lines(undisturbed / "metrics.jsonl")
    losses = [(r["step"], r["learning_rate"]) for r in records if "loss" in r]
    assert [step for step, _ in losses] == list(range(1, 13))
    assert max(rate for _, rate in losses) == 3e-3 and losses[-1][1] < 0.15 * 3e-3
    bits = [r["val_bpb"] for r in records if "val_bpb" in r]
    assert bits[-1] < bits[0]
    assert all("step" in r and "time_s" in r for r in records)
    assert len([r for r in records if r.get("event") == "sample" and r["step"] == 12]) == 3


def test_a_peak_that_was_measured_too_low_never_shows_more_than_all_of_it(
    prepared_dir, tmp_path, monkeypatch, caplog
):
    too_low = Peak("cpu", 1e6, "measured product in float32", looks_left=0)
    monkeypatch.setattr("utils.training.reporting.device_peak", lambda device: too_low)
    monkeypatch.setattr("utils.log.PLAIN_INTERVAL_S", 0.0)
    main = importlib.import_module("scripts.02_pretrain").main
    with caplog.at_level("INFO"):
        folder = main(settings(prepared_dir, tmp_path)).parent
    logged = [record for record in read_lines(folder / "metrics.jsonl") if "loss" in record]
    assert len(logged) == 12 and not any("mfu" in record for record in logged)
    run = read_json(folder / "run.json")
    assert run["summary"]["mfu"] is None and run["environment"]["peak_tflops"] is None
    assert "MFU not known" in caplog.text and not re.search(r"MFU \d", caplog.text)
    assert not re.search(r"MFU \d", (folder / "report.html").read_text(encoding="utf-8"))


def test_every_record_has_what_a_person_wants_to_see(undisturbed):
    records = read_lines(undisturbed / "metrics.jsonl")
    logged = [record for record in records if "loss" in record]
    names = {"loss", "train_bpb", "learning_rate", "muon_learning_rate", "grad_norm", "tokens",
             "tokens_per_s", "mfu", "memory_mb"}  # fmt: skip
    for record in logged:
        assert names <= set(record) and 0 < record["mfu"] < 1 and record["memory_mb"] > 50
    rates = {round(r["muon_learning_rate"] / r["learning_rate"], 6) for r in logged}
    assert rates == {round(0.02 / 3e-3, 6)}
    assert len({round(r["loss"] / r["train_bpb"], 3) for r in logged}) == 1  # a unit, no more
    summary = read_json(undisturbed / "run.json")["summary"]
    assert summary["peak_memory_mb"] >= max(r["memory_mb"] for r in logged) - 1
    best = min(r["val_bpb"] for r in records if "val_bpb" in r)
    assert summary["best_bpb"] == pytest.approx(best, abs=1e-5)
    assert summary["cost"] is None and "energy_wh" in summary
    assert "<svg" in (undisturbed / "report.html").read_text()


def test_a_run_that_no_longer_improves_decays_and_ends(prepared_dir, tmp_path, load_script):
    main = load_script("02_pretrain").main
    changes = dict(max_steps=40, eval_steps=2, save_steps=7, decay_ratio=0.5, cost_per_hour=3600)
    changes |= dict(early_stopping_patience=2, early_stopping_min_delta=9.0)
    final = main(settings(prepared_dir, tmp_path, **changes))
    events = read_json(final.parent / "plan.json")["events"]
    lengths = [(e["event"], e["step"], e["total"]) for e in events if "total" in e]
    # 2 is the first after warm-up, 4 and 6 are no 9 bits better: 12 steps have 6 before the decay;
    # there 6 counts as the first, 8 and 10 are no better
    assert lengths == [("plan", 0, 40), ("early_stop", 6, 12), ("early_stop", 10, 10)]
    records = read_lines(final.parent / "metrics.jsonl")
    rates = {r["step"]: r["learning_rate"] for r in records if "loss" in r}
    assert rates[6] == 3e-3 and rates[8] < 3e-3 and max(rates) == 10
    summary = read_json(final.parent / "run.json")["summary"]
    assert summary["steps"] == 10
    assert summary["cost"] == pytest.approx(summary["seconds"], rel=0.02)
    changes["resume_from_checkpoint"] = final.parent / "step_7"
    again = main(settings(prepared_dir, tmp_path / "b", **changes))
    assert weights_hash(again) == weights_hash(final)


def test_a_recorded_plan_gives_the_same_bytes(prepared_dir, tmp_path, load_script):
    main, path = load_script("02_pretrain").main, tmp_path / "plan.json"
    # the plan of a box: begun without a length, shortened twice, once inside the decay
    events = [{"event": "micro_batch", "step": 0, "micro_batch": 2},
              {"event": "plan", "step": 4, "total": 30},
              {"event": "replan", "step": 9, "total": 20},
              {"event": "replan", "step": 13, "total": 16}]  # fmt: skip
    path.write_text(json.dumps({"format": 1, "events": events}))
    first = main(settings(prepared_dir, tmp_path / "a", max_steps=None, plan=path))
    assert read_json(first.parent / "run.json")["summary"]["steps"] == 16
    assert read_json(first.parent / "step_12" / "state.json")["micro_batch"] == 2
    changes = dict(max_steps=None, plan=first.parent)
    again = main(settings(prepared_dir, tmp_path / "b", **changes))
    assert weights_hash(again) == weights_hash(first)
    changes["resume_from_checkpoint"] = first.parent / "step_12"
    later = main(settings(prepared_dir, tmp_path / "c", **changes))
    assert weights_hash(later) == weights_hash(first)
    events[1]["total"] = 24
    path.write_text(json.dumps({"format": 1, "events": events}))
    with pytest.raises(ConfigError, match="was not reached by the plan"):
        main(settings(prepared_dir, tmp_path / "d", **changes | dict(plan=path)))


def test_a_plan_says_how_long_the_run_is(tmp_path):
    with pytest.raises(ConfigError, match="leave out max_steps"):
        PretrainConfig.build(dict(plan=tmp_path, max_steps=3))


def test_the_reported_bits_per_byte_are_those_of_evaluation(undisturbed, prepared_dir):
    heldout = pytest.importorskip("utils.evaluation.heldout")
    from utils.model.checkpoints import load_model

    reported = read_json(undisturbed / "run.json")["summary"]["val_bpb"]
    found = heldout.heldout_bits_per_byte(load_model(undisturbed), prepared_dir, 400)
    assert found.bits_per_byte == pytest.approx(reported, rel=5e-3)  # bf16 against fp32


def test_resume_from_a_step_is_bit_identical(undisturbed, prepared_dir, tmp_path, load_script):
    resumed = load_script("02_pretrain").main(
        settings(prepared_dir, tmp_path, resume_from_checkpoint=undisturbed / "step_8")
    )
    assert weights_hash(resumed) == weights_hash(undisturbed / "final")
    assert resumed.parent.parent == tmp_path


@pytest.mark.parametrize(
    "changes",
    [dict(bf16=False), dict(dropout=0.1), dict(optimizer="adamw"), dict(batch_size=2)],
    ids=lambda changes: next(iter(changes)),
)
def test_resume_is_bit_identical_in_every_mode(changes, prepared_dir, tmp_path, load_script):
    main = load_script("02_pretrain").main
    cfg = settings(prepared_dir, tmp_path / "a", max_steps=6, **changes)
    through = main(cfg)
    again = dict(output_dir=tmp_path / "b", resume_from_checkpoint=through.parent / "step_4")
    assert weights_hash(main(cfg.model_copy(update=again))) == weights_hash(through)


def killed(command, folder, number, cwd, env):
    """Start `command`, send signal `number` when its run folder has step_20, return its log."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (folder / "step_20").is_dir() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, log = process.communicate(timeout=120)
    assert not (folder / "final").exists(), log
    return process.returncode, log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(number, long_run, tmp_path, root, run_script):
    arguments, whole = long_run
    arguments = [*arguments, "--output_dir", tmp_path]
    command = [sys.executable, root / "scripts" / "02_pretrain.py", *arguments]
    code, log = killed(command, tmp_path / "tiny", number, tmp_path, ONE_THREAD)
    assert "Traceback" not in log
    if number == signal.SIGTERM:
        assert code == 75 and "make resume" in log
        assert read_json(tmp_path / "tiny" / "run.json")["status"] == "interrupted"
    again = run_script("02_pretrain", *arguments, env=ONE_THREAD)
    assert "continuing the unfinished run" in again.stderr, again.stderr
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "tiny" / "final" / name).read_bytes() == (whole / name).read_bytes()
    steps = [r["step"] for r in read_lines(tmp_path / "tiny" / "metrics.jsonl") if "loss" in r]
    assert steps == sorted(set(steps)) and steps[-1] == 150


@pytest.fixture(scope="module")
def long_run(prepared_dir, tmp_path_factory, root):
    """(flags, final folder) of 150 steps in a process of its own, never disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = [*flags(max_steps=150, save_steps=10), "--data_dir", str(prepared_dir)]
    command = [sys.executable, root / "scripts" / "02_pretrain.py", *arguments]
    done = subprocess.run(
        [*map(str, command), "--output_dir", str(folder)],
        cwd=folder, env={**os.environ, **ONE_THREAD}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return arguments, folder / "tiny" / "final"


@pytest.mark.slow
def test_a_time_box_is_kept_and_used(prepared_dir, tmp_path, run_script):
    started = time.monotonic()
    done = run_script(
        "02_pretrain", *flags(max_steps=10**7, max_minutes=1, save_steps=1000),
        "--data_dir", prepared_dir, "--output_dir", tmp_path, env=ONE_THREAD,
    )  # fmt: skip
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert 0.9 * 60 < seconds <= 60, done.stderr
    records = read_lines(tmp_path / "tiny" / "metrics.jsonl")
    rates = [r["learning_rate"] for r in records if "learning_rate" in r]
    assert rates[-1] < 0.05 * max(rates)
    plan = read_json(tmp_path / "tiny" / "plan.json")["events"]
    totals = [event["total"] for event in plan if "total" in event]
    assert totals[-1] == read_json(tmp_path / "tiny" / "run.json")["summary"]["steps"]
    replayed = [*flags(plan=tmp_path / "tiny"), "--data_dir", prepared_dir]
    place = replayed.index("--max_steps")
    del replayed[place : place + 2]
    again = run_script("02_pretrain", *replayed, "--output_dir", tmp_path / "again", env=ONE_THREAD)
    assert again.returncode == 0, again.stderr
    first, second = (folder / "tiny" / "final" for folder in (tmp_path, tmp_path / "again"))
    assert weights_hash(first) == weights_hash(second)


def test_a_box_too_small_says_the_minimum(prepared_dir, tmp_path, run_script):
    done = run_script(
        "02_pretrain", *flags(max_minutes=0.02), "--data_dir", prepared_dir, env=ONE_THREAD
    )
    assert done.returncode == 1 and "too small" in done.stderr and "--max_minutes" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_finished_run_is_never_written_over(undisturbed, prepared_dir, tmp_path, load_script):
    main = load_script("02_pretrain").main
    first = main(settings(prepared_dir, tmp_path, max_steps=2))
    before = weights_hash(first)
    second = main(settings(prepared_dir, tmp_path, max_steps=2, seed=1))
    aside = [path for path in tmp_path.iterdir() if path.name.startswith("tiny.")]
    assert len(aside) == 1 and weights_hash(aside[0] / "final") == before != weights_hash(second)


def test_a_flipped_bit_is_refused_by_name_and_walked_past(
    undisturbed, prepared_dir, tmp_path, load_script, caplog
):
    import shutil

    run = shutil.copytree(undisturbed, tmp_path / "copy" / "tiny")
    for name in ("final", "best"):
        shutil.rmtree(run / name)
    weights = run / "step_8" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-7] ^= 4
    weights.write_bytes(data)
    main = load_script("02_pretrain").main
    with pytest.raises(CheckpointError, match=r"model\.safetensors: sha256 differs"):
        main(settings(prepared_dir, tmp_path / "x", resume_from_checkpoint=run / "step_8"))
    resumed = main(settings(prepared_dir, tmp_path / "y", resume_from_checkpoint=run))
    assert "skipping" in caplog.text and "step_8" in caplog.text
    assert weights_hash(resumed) == weights_hash(undisturbed / "final")


def test_a_loss_that_is_no_number_stops_and_names_the_step(prepared_dir, tmp_path, load_script):
    cfg = settings(prepared_dir, tmp_path, learning_rate=1e30, muon_learning_rate=1e30)
    with pytest.raises(LumiError, match=r"step \d+: the loss is"):
        load_script("02_pretrain").main(cfg)
    assert read_json(tmp_path / "tiny" / "run.json")["status"] == "failed"


def test_the_vocabulary_follows_the_tokenizer(prepared_dir, tmp_path, load_script):
    main = load_script("02_pretrain").main
    final = main(settings(prepared_dir, tmp_path, vocab_size=32768, max_steps=1))
    assert json.loads((final / "config.json").read_text())["vocab_size"] == 600
    with pytest.raises(ConfigError, match="pass --vocab_size 600"):
        main(settings(prepared_dir, tmp_path, vocab_size=500))


def test_missing_data_names_the_remedy(run_script, tmp_path):
    done = run_script("02_pretrain", "--data_dir", tmp_path / "nothing", "--no_preflight")
    assert done.returncode == 1
    assert "make prepare" in done.stderr and "Traceback" not in done.stderr


def test_a_finished_run_can_be_made_longer(prepared_dir, tmp_path, load_script):
    main = load_script("02_pretrain").main
    cfg = settings(prepared_dir, tmp_path, max_steps=4)
    final = main(cfg)
    longer = dict(max_steps=8, resume_from_checkpoint=final.parent)
    main(cfg.model_copy(update=longer))
    records = read_lines(final.parent / "metrics.jsonl")
    rates = {r["step"]: r["learning_rate"] for r in records if "loss" in r}
    assert rates[5] > rates[4] and rates[8] < rates[5]
    assert read_json(final.parent / "run.json")["summary"]["steps"] == 8


@pytest.mark.slow
def test_a_killed_box_goes_on_with_what_is_left_of_it(prepared_dir, tmp_path, root, run_script):
    arguments = [*flags(max_steps=10**7, max_minutes=1, save_steps=20)]
    arguments += ["--data_dir", str(prepared_dir), "--output_dir", str(tmp_path)]
    command = [sys.executable, root / "scripts" / "02_pretrain.py", *arguments]
    killed(command, tmp_path / "tiny", signal.SIGKILL, tmp_path, ONE_THREAD)
    used_s = max(r["time_s"] for r in read_lines(tmp_path / "tiny" / "metrics.jsonl"))
    started = time.monotonic()
    done = run_script("02_pretrain", *arguments, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert 0.85 * 60 < used_s + time.monotonic() - started <= 60


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(prepared_dir, tmp_path, root, run_script):
    common = [*flags(gradient_accumulation_steps=1, bf16="false"), "--data_dir", prepared_dir]
    one = run_script(
        "02_pretrain", *common, "--batch_size", 8, "--output_dir", tmp_path / "a", env=ONE_THREAD
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2]
    command = [
        *launch,
        root / "scripts" / "02_pretrain.py",
        *common,
        "--output_dir",
        tmp_path / "b",
    ]
    env = {**os.environ, **ONE_THREAD}
    two = subprocess.run(list(map(str, command)), cwd=tmp_path, env=env, capture_output=True)
    assert one.returncode == two.returncode == 0, two.stderr
    left, right = (
        [r["loss"] for r in read_lines(tmp_path / name / "tiny" / "metrics.jsonl") if "loss" in r]
        for name in "ab"
    )
    assert len(left) == 12 and right == pytest.approx(left, abs=5e-3)


@pytest.mark.slow
def test_two_processes_refuse_bad_steps_alike(prepared_dir, tmp_path, root):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2]
    rates = flags(learning_rate=1e30, muon_learning_rate=1e30, gradient_accumulation_steps=1)
    command = [*launch, root / "scripts" / "02_pretrain.py", *rates, "--data_dir", prepared_dir]
    done = subprocess.run(
        [*map(str, command), "--output_dir", str(tmp_path)], cwd=tmp_path,
        env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert "after 5 windows were skipped: lower --learning_rate" in done.stderr, done.stderr
    events = read_json(tmp_path / "tiny" / "plan.json")["events"]
    assert len([event for event in events if event["event"] == "skip"]) == 5


@pytest.mark.slow
def test_fewer_processes_than_asked_for_are_refused(prepared_dir, tmp_path, root):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", 2]
    command = [*launch, root / "scripts" / "02_pretrain.py", *flags(), "--data_dir", prepared_dir]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "2 processes were asked for, 1 came together" in done.stderr


@pytest.mark.slow
def test_a_killed_compiled_run_goes_on_to_the_same_bytes(prepared_dir, tmp_path, root, run_script):
    env = {**ONE_THREAD, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    arguments = [*flags(compile=True, max_steps=150, save_steps=10, dropout=0.1)]
    arguments += ["--data_dir", str(prepared_dir)]
    whole = run_script(
        "02_pretrain", *arguments, "--output_dir", tmp_path / "a", env=env, timeout=600
    )
    assert whole.returncode == 0 and "compiled the decoder" in whole.stderr, whole.stderr
    command = [sys.executable, root / "scripts" / "02_pretrain.py", *arguments]
    command += ["--output_dir", tmp_path / "b"]
    killed(command, tmp_path / "b" / "tiny", signal.SIGKILL, tmp_path, env)
    again = run_script("02_pretrain", *command[2:], env=env, timeout=600)
    assert again.returncode == 0, again.stderr
    left, right = (weights_hash(tmp_path / name / "tiny" / "final") for name in "ab")
    assert left == right
