"""What the sessions of these tests run as a stage: it writes what the real one would, or fails."""

import json
import shutil
import signal
import sys
import time
from pathlib import Path

SFT = {"heldout_loss_before": 3.0, "heldout_loss_after": 1.2, "stop_rate": 0.97}
DPO = {"first_loss": 0.6931, "heldout_accuracy_before": 0.6, "heldout_accuracy_after": 0.8}
SHARE = {"value": 0.8, "low": 0.7, "high": 0.9, "count": 60}


def write(path, value):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def say(line):
    sys.stderr.write(f"12:00:00 {line}\n")
    sys.stderr.flush()


def hang(stage):
    def stop(number, frame):
        write(f"stopped-{stage}", "saved")
        say("WARNING stage: saved at step 7")
        sys.exit(75)

    signal.signal(signal.SIGTERM, stop)
    say("INFO    stage: hanging")
    Path("hanging").touch()
    time.sleep(60)


def make_samples(folder):
    for name in ("sft", "dpo"):
        rows = [{"prompt": f"What does f{n} do?", "response": "It works."} for n in range(20)]
        write(folder / "data" / f"{name}_dataset.json", rows)
        write(folder / "data" / f"{name}_dataset_heldout.json", rows[:4])


def train(run, summary):
    settings = {"eval_tokens": 2048}
    write(f"{run}/run.json", {"status": "finished", "settings": settings, "summary": summary})
    lines = [
        {"step": step, "loss": 9 / (step + 1), "learning_rate": 1e-3 * step, "time_s": step}
        for step in range(1, 9)
    ]
    lines += [{"step": 4, "val_bpb": 2.5}, {"step": 8, "val_bpb": 1.5}]
    text = " <script>alert(1)</script>"
    lines += [{"event": "sample", "step": 8, "prompt": "The", "text": text}]
    Path(run, "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{torn")


def evaluate(folder):
    preferences = {"title": "Held-out preferences", "status": "ok", "measures": {"accuracy": SHARE}}
    boolq = {"title": "BoolQ", "status": "not run", "reason": "no data & no hub"}
    results = {"results": {"preferences": preferences, "boolq": boolq}}
    write(f"evaluation/results/{folder.name}/evaluation_results.json", results)


def answer(folder):
    said = [
        {"question": f"q{n} <i>?", "answer": "a </blockquote>", "stopped": n > 0} for n in range(3)
    ]
    write(folder / "answers.json", {"sft": said, "dpo": said})


def main(stage, how, folder, corpus, prepared):
    say(f"INFO    stage: {stage} begins <b>")
    with Path("calls.txt").open("a") as calls:
        calls.write(f"{stage}\n")
    if how == "fail":
        say("ERROR   stage: the corpus is empty: give it text")
        sys.exit(1)
    if how == "crash":
        raise KeyError("boom")
    if how == "hang":
        hang(stage)
    pretrain = {"parameters": 8400000, "tokens": 4000000, "val_bpb": 1.5}
    work = {
        "prepare": lambda: shutil.copytree(prepared, corpus, dirs_exist_ok=True),
        "samples": lambda: make_samples(folder),
        "pretrain": lambda: train(sys.argv[6], pretrain),
        "sft": lambda: train("checkpoints/sft", SFT),
        "dpo": lambda: train("checkpoints/dpo", DPO),
        "evaluate": lambda: evaluate(folder),
        "answers": lambda: answer(folder),
    }
    if stage in work and how != "nothing":
        work[stage]()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(Path, sys.argv[3:6]))
