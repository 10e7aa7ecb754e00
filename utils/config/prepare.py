"""Settings of stage 01, and of the data sets that it can mix."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from utils.checkout import PROCESSED
from utils.config.base import Section, StageConfig
from utils.config.kinds import CommandLine, FileOnly, Indirect, Manner, OutputFolder, Shaping

LanguageDetector = Literal["py3langid", "langdetect"]
DedupEngine = Literal["rensa", "datasketch"]
TokenCompression = Literal["none", "lz4"]
Executor = Literal["local", "ray"]
TokenizerType = Literal["bpe", "unigram", "byte_level"]


class MixtureSource(Section):
    """One data set of a mixture."""

    name: Shaping[str]
    """Name of the source in documents, counts and the data card."""
    input_path: Indirect[str]
    """Hub data set, local file or folder, or `pydocs`."""
    input_config: Indirect[str | None] = None
    """Configuration of a hub data set, such as wikitext-2-raw-v1."""
    input_split: Indirect[str] = "train"
    """Split of a hub data set."""
    weight: Shaping[PositiveFloat] = 1.0
    """Wanted share of the characters relative to the other sources."""
    max_share: Shaping[float] = Field(default=1.0, gt=0, le=1)
    """Share of the characters at most; what it takes away goes to the other sources."""
    max_characters: Shaping[PositiveInt | None] = None
    """Characters at most, after deduplication; such a source never limits the others."""
    max_samples: Shaping[PositiveInt | None] = None
    """Documents taken at most."""

    @property
    def file_stem(self) -> str:
        """Return the name of the source as the name of a file."""
        return re.sub(r"[^\w.-]+", "_", self.name)


class PrepareConfig(StageConfig):
    """Clean, deduplicate, tokenize and shard a corpus."""

    dataset_name: Shaping[str | None] = None
    """Name of the prepared folder; the stem of the input when unset."""
    input_path: Indirect[str] = "pydocs"
    """Hub data set, local file or folder, or `pydocs` (the docstrings on this machine)."""
    input_config: Shaping[str | None] = None
    """Configuration of a hub data set, such as wikitext-2-raw-v1."""
    input_split: Shaping[str] = "train"
    """Split of a hub data set."""
    text_key: Shaping[str] = "text"
    """Field or column that holds the text."""
    mix_datasets: Indirect[FileOnly[tuple[MixtureSource, ...]]] = ()
    """Several sources instead of one input_path (config file only)."""
    max_samples: Shaping[PositiveInt | None] = None
    """Documents read at most (all when unset)."""
    output_dir: OutputFolder[Path | None] = None
    """Folder of the result (data/processed/<dataset_name> when unset)."""
    tokenizer_type: Shaping[TokenizerType] = "bpe"
    """Of a new tokenizer: SentencePiece bpe or unigram, or byte_level BPE (as GPT-2's)."""
    tokenizer_path: Indirect[Path | None] = None
    """Where a finished tokenizer lies for --reuse_tokenizer, or an extra copy of a new one goes."""
    reuse_tokenizer: Shaping[bool] = False
    """Encode with the tokenizer in tokenizer_path: Lumi's, Hugging Face's or a tokenizer.model."""
    vocab_size: Shaping[int] = Field(32768, ge=300)
    """Size of the vocabulary; at least 300 (256 bytes + control tokens + some text)."""
    sequence_length: Shaping[PositiveInt] = 1024
    """Context the shards are meant for, in tokens (recorded; 02 may read any length)."""
    min_length: Shaping[PositiveInt] = 50
    """Shortest document kept, in characters."""
    max_length: Shaping[PositiveInt] = 10_000
    """Longest document, in characters; longer ones are split at paragraphs, never dropped."""
    language: Shaping[CommandLine[str | None]] = "en"
    """ISO code of the language to keep; null keeps all."""
    language_detector: Shaping[LanguageDetector] = "py3langid"
    """py3langid (fast) or langdetect."""
    language_threshold: Shaping[float] = Field(0.4, ge=0, le=1)
    """Probability of `language` below which a document is dropped (lists of names score low)."""
    filter_profile: Shaping[str] = "none"
    """Limits for odd documents: web, wiki, books, docs, code, none, or a JSON file of your own."""
    redact_pii: Shaping[bool] = False
    """Put stand-ins in the place of e-mail addresses and public IP addresses."""
    use_minhash: Shaping[bool] = True
    """Drop near-duplicates by MinHash besides the exact ones."""
    minhash_threshold: Shaping[float] = Field(0.8, gt=0, le=1)
    """Jaccard similarity of word 5-grams from which two documents count as duplicates."""
    dedup_engine: Shaping[DedupEngine] = "rensa"
    """rensa, or datasketch: slow and in memory, the plain reference for small corpora."""
    decontaminate: Shaping[bool] = True
    """Cut out of the training documents what stage 05 measures on, and the validation split."""
    eval_data_dir: Indirect[Path | None] = None
    """Local evaluation files to decontaminate against (as stage 05's); the hub when unset."""
    train_ratio: Shaping[float] = Field(0.98, gt=0, lt=1)
    """Share of the documents in the training split; the rest is for validation."""
    shard_tokens: Shaping[PositiveInt] = 50_000_000
    """Tokens after which a new shard begins."""
    token_compression: Indirect[TokenCompression] = "none"
    """none, or lz4: token shards of about 0.6 times the size that give the same ids."""
    download_workers: Manner[PositiveInt] = 4
    """Files of a hub data set that are fetched at the same time."""
    num_workers: Manner[PositiveInt | None] = None
    """Processes for cleaning; all cores when unset. The result does not depend on it."""
    executor: Manner[Executor] = "local"
    """local: processes on this machine; ray: tasks on a cluster that shares the folders."""
    ray_address: Manner[str | None] = None
    """Of a running Ray cluster (such as `auto`); a new one on this machine when unset."""
    grow: Manner[bool] = True
    """Make new shards for files that came since, and keep the others; false prepares all anew."""
    keep_cache: Manner[bool] = True
    """Keep what the steps made beside the result, so that other settings or files cost less."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_length >= self.max_length:
            raise ValueError(
                f"min_length ({self.min_length}) must be below max_length ({self.max_length})"
            )
        if self.reuse_tokenizer and self.tokenizer_path is None:
            raise ValueError(
                "reuse_tokenizer needs tokenizer_path: a folder with tokenizer.model or "
                "tokenizer.json"
            )
        if self.mix_datasets and sum(one.max_share for one in self.mix_datasets) < 1 - 1e-9:
            raise ValueError("mix_datasets: the max_share of all sources must make 1 or more")
        stems = [source.file_stem.casefold() for source in self.mix_datasets]
        for source in self.mix_datasets:
            if stems.count(source.file_stem.casefold()) > 1:
                raise ValueError(
                    f"mix_datasets has two sources called {source.name!r}: give each its own name"
                )
        return self

    @property
    def sources(self) -> tuple[MixtureSource, ...]:
        """The data sets to read: the mixture, or the single input as a mixture of one."""
        if self.mix_datasets:
            return self.mix_datasets
        single = MixtureSource(
            name=self.name,
            input_path=self.input_path,
            input_config=self.input_config,
            input_split=self.input_split,
            max_samples=self.max_samples,
        )
        return (single,)

    @property
    def name(self) -> str:
        """Name of the prepared data set."""
        stem = Path(self.input_config or self.input_path).name.split(".")[0]
        return self.dataset_name or stem or "corpus"

    @property
    def folder(self) -> Path:
        """Folder of the result."""
        return self.output_dir or PROCESSED / self.name


class SampleConfig(StageConfig):
    """Write the SFT and DPO practice sets that are made from the docstrings on this machine."""

    output_dir: OutputFolder[Path] = Path("data")
    """Folder for sft_dataset.json and dpo_dataset.json and their held-out parts."""
    num_sft: Shaping[PositiveInt] = 12_000
    """Conversations in the SFT training set at most."""
    num_dpo: Shaping[PositiveInt] = 6000
    """Pairs in the DPO training set at most."""
    num_heldout: Shaping[PositiveInt] = 500
    """Held-out conversations and pairs, of functions that no training row is about."""
    max_answer_characters: Shaping[PositiveInt] = 240
    """Longest answer; longer paragraphs are left out, never cut."""
    seed: Shaping[int] = 42
    """Seeds the question forms and the pairing."""
