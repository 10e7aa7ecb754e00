"""Stage 01: turn raw text into a clean, deduplicated, tokenized data set with train and validation.

    python scripts/01_prepare_data.py --config config/datasets/pydocs.json
    python scripts/01_prepare_data.py --input_path ~/texts --vocab_size 8192

Reads    a hub data set, a local file or folder (txt, md, html, epub, jsonl, json, csv, parquet;
         packed as .zip, .gz or .zst too), or `pydocs`, the docstrings on this machine.
Writes   data/processed/NAME/: train_*.jsonl, val_*.jsonl, tokens/, tokenizer/, rejected/,
         manifest.json, stats.json, DATA_CARD.md, settings.json.
Resumes  from what its steps left in .cache-NAME beside it; the folder itself is there whole or not
         at all, and one that is there stays.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file from anywhere

from utils.checkout import CONFIG
from utils.config.prepare import PrepareConfig
from utils.stage import run_stage, stop_request

if TYPE_CHECKING:
    from utils.data.corpus.decontamination import ItemSet

log = logging.getLogger("prepare")


def main(cfg: PrepareConfig) -> Path:
    """Prepare the corpus and return its folder, which is also printed."""
    stop_request.install()

    from utils.evaluation.benchmark_items import benchmark_items
    from utils.planning.corpus_advice import corpus_advice

    folder = prepare(cfg, partial(benchmark_items, cfg.eval_data_dir))
    log.info("read %s", folder / "DATA_CARD.md")
    for line in corpus_advice(folder, CONFIG):
        log.info("%s", line)
    sys.stdout.write(f"{folder}\n")
    return folder


def prepare(cfg: PrepareConfig, find_protected: Callable[[], "Sequence[ItemSet]"] = tuple) -> Path:
    """Prepare the corpus and return its folder; it may be there already.

    `find_protected` returns the texts that are cut out of the training documents.
    """
    from utils.data.build import check_enough, open_build
    from utils.data.clean_sources import clean_sources
    from utils.data.cleaning.language import check_language
    from utils.data.corpus.corpus import Corpus
    from utils.data.corpus.fates import Decisions, decide
    from utils.data.corpus.rejected import Rejected
    from utils.data.corpus.sources import find_sources
    from utils.data.description import Outcome, describe
    from utils.data.encoding import write_shards
    from utils.data.make_tokenizer import make_tokenizer

    check_language(cfg.language, cfg.language_detector)
    sources = find_sources(cfg)
    protected = find_protected() if cfg.decontaminate else ()
    with open_build(cfg, sources, protected) as build:
        if build.is_done:
            return build.folder
        store, corpus, decisions = build.store, Corpus(), Decisions()
        with build.workers() as workers, closing(Rejected(build.result)) as rejected:
            for files in build.rounds or [None]:  # a corpus that grew has several
                corpus.grow(clean_sources(cfg, sources, files, store, workers, rejected))
                build.lap("read and clean")
                decisions = decide(cfg, corpus, protected, store, workers, decisions)
                rejected.merge_all(decisions.losses)
                build.lap("decide")
            check_enough(corpus, rejected)

            tokenizer, trained_on = make_tokenizer(cfg, corpus, store, build.result / "tokenizer")
            build.lap("tokenizer")
            splits = write_shards(cfg, corpus, workers, build.result, build.take_shards())
            build.lap("encode and write")

        describe(
            Outcome(
                cfg, sources, build.rounds, rejected, corpus, decisions.report, tokenizer,
                trained_on, splits,
            ),
            build.result,
        )  # fmt: skip
        build.publish(tokenizer, splits, corpus)
    return build.folder


if __name__ == "__main__":
    sys.exit(run_stage(main, PrepareConfig))
