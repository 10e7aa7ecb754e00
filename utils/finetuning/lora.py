"""LoRA adapters: made, kept with a link to their base that survives a move, continued, merged.

Two traps of the libraries are closed here. Chat tokens that pre-training never saw must start from
the row of EOS and be trained, or the model never learns to stop; with tied embeddings that
needs `ensure_weight_tying`, or merging unties the model. And an adapter names its base by a path:
ours is relative to the adapter, with the hash of the base beside it.
"""

import logging
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from utils.chat.templates import Template, TextEncoder
from utils.config.training import AdapterConfig
from utils.errors import CheckpointError, DataError
from utils.files import MANIFEST, atomic_folder, read_json, sha256_file, verify_folder, write_json
from utils.finetuning.run_folder import AdapterRun
from utils.model.checkpoints import (
    LUMI_FILE,
    LoadedModel,
    best_device,
    load_model,
    read_card,
    save_model_files,
    template_of,
)
from utils.tokenizers.tokenizer import MODEL_FILE, frozen_file, tokenizer_sha256

ADAPTER = "adapter"
"""Folder of the adapter in a run folder."""
EMBEDDING = "embed_tokens"
PROBES = 4
"""Rows on which the merged model is compared with the adapter."""
MAX_LOGIT_DIFFERENCE = 1e-3
"""Merging in fp32 changes logits by rounding only, about 1e-5 here; more is a mistake."""

log = logging.getLogger(__name__)


@dataclass
class AdaptedModel:
    """A model with a trainable adapter, and the checkpoint under it."""

    base: LoadedModel
    """The checkpoint; its `model` holds the adapter's layers too."""
    peft: PeftModel
    source: Path
    """The adapter or checkpoint that training starts from."""

    template: Template
    """The conversation layout that is trained."""

    def card(self, run: AdapterRun) -> dict[str, Any]:
        """Return the content of lumi.json for what comes out of a run."""
        return {
            "stage": run.stage,
            "template": self.template.name,
            "tokenizer_sha256": tokenizer_sha256(self.base.folder),
            "settings": run.cfg.resolved(),
            "parent": checkpoint_sha256(self.source),
            "dataset": read_card(self.source).get("dataset"),
            "heldout": run.heldout,
        }


def base_checkpoint(path: Path) -> LoadedModel:
    """Load a checkpoint to fine-tune, in fp32, its tokenizer checked.

    Raises:
        CheckpointError: there is none, it is damaged, or the tokenizer is another one.
    """
    loaded = load_model(path, device=best_device())
    recorded = loaded.card.get("tokenizer_sha256")
    try:
        frozen = frozen_file(loaded.folder)
    except DataError:
        frozen = None
    if frozen is None or (recorded is None and frozen.name != MODEL_FILE):
        raise CheckpointError(f"{loaded.folder} has no {MODEL_FILE}: pass a checkpoint of Lumi")
    if recorded is not None and recorded != sha256_file(frozen):
        raise CheckpointError(
            f"{frozen} is not the tokenizer the model was trained with (sha256 "
            f"{recorded[:12]} is recorded): restore it, or train again"
        )
    return loaded


def checkpoint_sha256(folder: Path) -> str:
    """Return what identifies a model folder: the hash of its manifest, else of its weights."""
    for name in (MANIFEST, "model.safetensors", "config.json"):
        if (folder / name).is_file():
            return sha256_file(folder / name)
    raise CheckpointError(f"{folder} holds no model: pass a checkpoint folder")


def start_chat_tokens(loaded: LoadedModel, template: Template) -> bool:
    """Copy the row of EOS into the chat tokens of a base model; return whether it was one.

    Raises:
        DataError: the tokenizer lacks a control token of the template.
    """
    encoder, eos_id = TextEncoder(loaded.tokenizer), loaded.tokenizer.eos_token_id
    tokens = filter(None, {template.stop, template.opening, template.closing})
    rows = sorted({encoder.control_id(token) for token in tokens} - {eos_id})
    if loaded.card.get("stage") != "pretrain" or not rows:
        return False
    matrices = {id(m): m for m in _vocabulary_matrices(loaded.model)}.values()
    with torch.no_grad():
        for matrix in matrices:  # [V, D]
            matrix[rows] = matrix[eos_id].clone()
    return True


def _vocabulary_matrices(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return [embedding.weight, head.weight]  # type: ignore[union-attr, list-item]


def new_adapter(
    loaded: LoadedModel,
    cfg: AdapterConfig,
    *,
    train_embedding: bool,
    template: Template | None = None,
) -> AdaptedModel:
    """Put a fresh LoRA adapter (a no-op until trained) on a checkpoint.

    `template` is what it will be trained in, the checkpoint's own when None.

    Raises:
        CheckpointError: the model has none of the target modules.
    """
    torch.manual_seed(cfg.seed)
    tied = bool(loaded.model.config.tie_word_embeddings)
    saved = [EMBEDDING] if tied else [EMBEDDING, "lm_head"]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=cfg.r,
        lora_alpha=cfg.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=cfg.lora_dropout,
        target_modules=list(cfg.target_modules),
        modules_to_save=saved if train_embedding else None,
        ensure_weight_tying=train_embedding and tied,
    )
    try:
        model = get_peft_model(loaded.model, config)
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"no adapter fits: {reason}: correct --target_modules") from error
    return AdaptedModel(loaded, model, loaded.folder, template or loaded.template)  # type: ignore[arg-type]


def load_adapter(folder: Path) -> AdaptedModel:
    """Load an adapter on its base, trainable.

    Raises:
        CheckpointError: the adapter is damaged, or its base is missing or another one.
    """
    verify_folder(folder)
    base = base_checkpoint(find_base(folder))
    model = PeftModel.from_pretrained(base.model, folder, is_trainable=True)
    return AdaptedModel(base, model, folder, template_of(read_card(folder)))


def find_base(adapter: Path) -> Path:
    """Return the checkpoint an adapter was trained on, where it is now.

    Raises:
        CheckpointError: it is missing or has changed; the message says what to do.
    """
    recorded = read_card(adapter).get("base")
    if not isinstance(recorded, dict) or not {"path", "sha256"} <= recorded.keys():
        raise CheckpointError(f"{adapter} does not name its base: pass its run folder's final/")
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path") or "."
    tried = [adapter / recorded["path"], Path(named)]
    found = [path for path in tried if (path / "config.json").is_file()]
    for path in found:
        if checkpoint_sha256(path) == recorded["sha256"]:
            return Path(os.path.relpath(path))
    what = "has changed since" if found else "is missing"
    remedy = f"put it back, or pass --model_path {adapter.parent / 'final'} (the merged model)"
    raise CheckpointError(f"{tried[0].resolve()}, the base of {adapter}, {what}: {remedy}")


def adapter_of(run: Path) -> Path | None:
    """Return the adapter folder that a run folder holds, or that `run` itself is."""
    for folder in (run / ADAPTER, run):
        if (folder / "adapter_config.json").is_file():
            return folder
    return None


def save(adapted: AdaptedModel, run: AdapterRun, probes: list[list[int]]) -> LoadedModel:
    """Write adapter/ and final/ (merged) into the run folder; return the merged model, reloaded.

    Raises:
        LumiError: the disk is full, or merging has changed the logits on `probes`.
    """
    save_adapter(adapted, run)
    return save_merged(adapted, run.folder / "final", adapted.card(run), probes[:PROBES])


def save_adapter(adapted: AdaptedModel, run: AdapterRun) -> Path:
    """Write the adapter atomically, with lumi.json that names its base by relative path and hash.

    Raises:
        LumiError: the disk is full or not writable.
    """
    folder, base = run.folder / ADAPTER, adapted.base.folder.resolve()
    config = adapted.peft.peft_config["default"]
    # For plain PEFT, which resolves it against the working directory.
    config.base_model_name_or_path = os.path.relpath(base)
    link = {
        "path": Path(os.path.relpath(base, folder.resolve())).as_posix(),
        "sha256": checkpoint_sha256(base),
    }
    with atomic_folder(folder, kind=ADAPTER) as partial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted.peft.save_pretrained(
                str(partial), selected_adapters=["default"], save_embedding_layers=False
            )
        (partial / "README.md").unlink(missing_ok=True)  # an empty form
        shutil.copyfile(frozen_file(base), partial / frozen_file(base).name)
        write_json(partial / LUMI_FILE, {"format": 1, **adapted.card(run), "base": link})
    return folder


def save_merged(
    adapted: AdaptedModel, folder: Path, card: dict[str, Any], probes: list[list[int]]
) -> LoadedModel:
    """Merge the adapter into the base (which is consumed), write the model, return it reloaded.

    Raises:
        CheckpointError: the reloaded model does not give the adapter model's logits on `probes`,
            or is no longer tied.
    """
    inner = adapted.base.model
    tied = bool(inner.config.tie_word_embeddings)
    before = [row_logits(inner, ids) for ids in probes]
    merged = adapted.peft.merge_and_unload(safe_merge=True, adapter_names=["default"])
    merged.__dict__.pop("forward", None)  # TRL's, which must not outlive the trainer
    if tied:
        merged.tie_weights()
    with atomic_folder(folder, kind="model") as partial:
        save_model_files(merged, partial, tokenizer_dir=adapted.base.folder, card=card)
    reloaded = load_model(folder, device=adapted.base.device)
    check_merge(reloaded.model, before, probes, folder)
    return reloaded


def check_merge(
    model: PreTrainedModel, before: list[torch.Tensor], probes: list[list[int]], folder: Path
) -> None:
    """Check that a reloaded model gives the logits of the adapter model.

    Raises:
        CheckpointError: a logit differs by more than MAX_LOGIT_DIFFERENCE, or weights are untied.
    """
    pairs = zip(before, probes, strict=True)
    worst = max(float((row_logits(model, ids) - old).abs().max()) for old, ids in pairs)
    if not worst <= MAX_LOGIT_DIFFERENCE:
        raise CheckpointError(
            f"{folder} differs from the adapter it was merged from (logits by {worst:.2g}): "
            "use the adapter, and report this"
        )
    embedding, head = _vocabulary_matrices(model)
    if model.config.tie_word_embeddings and embedding is not head:
        raise CheckpointError(f"{folder}: merging untied the embeddings: report this")
    log.info("merged model equals base + adapter (largest logit difference %.1e)", worst)


def row_logits(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """Return the fp32 logits [T, V] of one row, on the CPU."""
    model.eval()
    with torch.no_grad():
        inputs = torch.tensor([ids], device=model.device)
        return model(input_ids=inputs, use_cache=False).logits[0].float().cpu()
