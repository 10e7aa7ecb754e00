"""MinHash deduplication by text-dedup at a threshold of 0.8, one process.

    python text_dedup_run.py CORPUS FOLDER

Runs in an environment that has text-dedup and nothing of ours; prints one JSON line.
"""

import json
import resource
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from datasets import load_from_disk


def main() -> None:
    """Run its command and count the documents it keeps."""
    corpus, folder = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable, "-m", "text_dedup.minhash", "--path", "json", "--data_files", str(corpus),
        "--split", "train", "--column", "text", "--threshold", "0.8", "--num_perm", "256",
        "--num_proc", "1", "--output", str(folder / "kept"), "--cache_dir", str(folder / "cache"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = len(load_from_disk(str(folder / "kept")))
    line = {"cpu_s": spent.ru_utime + spent.ru_stime, "kept": kept}
    sys.stdout.write(json.dumps(line | {"version": version("text-dedup")}) + "\n")


if __name__ == "__main__":
    main()
