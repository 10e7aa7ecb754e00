"""Opens the checkpoint that is served, and says in plain words what it is."""

import logging
from dataclasses import replace

from utils.chat.templates import TEMPLATES
from utils.config.serve import ServeConfig
from utils.generation.sampling import Sampling
from utils.model.checkpoints import LoadedModel, best_device, load_model

log = logging.getLogger(__name__)


def open_model(cfg: ServeConfig) -> tuple[LoadedModel, ServeConfig]:
    """Return the model in fp32 and the settings as far as it can follow them.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    loaded = load_model(cfg.model_path, device=best_device(cfg.cpu))
    if cfg.template is not None:
        loaded = _with_template(loaded, cfg.template)
    if not can_chat(loaded):
        log.warning(
            "%s is a base model: it continues a text and was never taught to chat "
            "(`make sft` does that)",
            loaded.folder,
        )
    return loaded, cfg.model_copy(update={"max_new_tokens": _answer_length(loaded, cfg)})


def _with_template(loaded: LoadedModel, name: str) -> LoadedModel:
    """Return the same model with another conversation layout."""
    own = loaded.card.get("template")
    if own is not None and own != name:
        log.warning("template %s asked for, but the model was trained with %s", name, own)
    return replace(loaded, card={**loaded.card, "template": name})


def can_chat(loaded: LoadedModel) -> bool:
    """Return whether the model has a conversation layout."""
    return loaded.card.get("template") in TEMPLATES


def _answer_length(loaded: LoadedModel, cfg: ServeConfig) -> int:
    """Return max_new_tokens, or half of the context where it would leave less than a quarter."""
    context = loaded.context_length
    if cfg.max_new_tokens <= context * 3 // 4:
        return cfg.max_new_tokens
    log.warning(
        "max_new_tokens lowered from %d to %d: the context of this model is %d tokens",
        cfg.max_new_tokens,
        context // 2,
        context,
    )
    return context // 2


def sampling_of(cfg: ServeConfig) -> Sampling:
    """Return the sampling part of the settings."""
    return Sampling(
        temperature=cfg.temperature,
        top_p=cfg.top_p,
        top_k=cfg.top_k,
        max_new_tokens=cfg.max_new_tokens,
        seed=cfg.seed,
    )


def name_of(loaded: LoadedModel) -> str:
    """Return a short name: the run's folder for its final/ or best/."""
    folder = loaded.folder.resolve()
    return folder.parent.name if folder.name in ("final", "best") else folder.name


def describe(loaded: LoadedModel) -> str:
    """Return one line: folder, size, layout, context, where it runs."""
    parameters = sum(weight.numel() for weight in loaded.model.parameters())
    layout = f"template {loaded.template.name}" if can_chat(loaded) else "base model, no template"
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    return (
        f"{loaded.folder}: {parameters / 1e6:.1f}M parameters, {layout}, "
        f"context {loaded.context_length}, {loaded.device.type} {dtype}"
    )
