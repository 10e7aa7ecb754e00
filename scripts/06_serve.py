"""Stage 06: talk to a model in the terminal, or serve it over HTTP on this machine.

    python scripts/06_serve.py --model_path checkpoints/dpo --mode interactive
    python scripts/06_serve.py --model_path checkpoints/dpo --mode api --port 8000

Reads    the checkpoint at --model_path (a run folder means its final/).
Writes   nothing; answers go to stdout, everything else to stderr.
Resumes  not at all: each start is a new conversation.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

from utils.config.serve import ServeConfig
from utils.stage import run_stage

log = logging.getLogger("serve")


def main(cfg: ServeConfig) -> None:
    """Refuse what can be refused at once, load the model, talk until the end."""
    from utils.serving.checks import check_model_exists, listen

    check_model_exists(cfg.model_path)
    server = listen(cfg.host, cfg.port) if cfg.mode == "api" else None

    log.info("loading %s", cfg.model_path)
    from utils.serving.model import open_model

    loaded, cfg = open_model(cfg)
    if server is None:
        from utils.serving.chat import run_chat

        run_chat(loaded, cfg)
    else:
        from utils.serving.server import run_server

        run_server(loaded, cfg, server)


if __name__ == "__main__":
    sys.exit(run_stage(main, ServeConfig))
