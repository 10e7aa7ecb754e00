"""Short texts from fixed prompts at a few steps of a run, to see what has been learned."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from utils.data.tokens.shards import iter_documents
from utils.tokenizers.load import load_tokenizer
from utils.tokenizers.tokenizer import Tokenizer
from utils.training.step.seeding import seed_for

NEW_TOKENS = 40
TEMPERATURE = 0.8
TOP_K = 50
PROMPT_WORDS = 6


def is_sample_step(step: int) -> bool:
    """Return whether `step` is one of 10, 30, 100, 300, 1000, ..."""
    digits = str(step)
    return step >= 10 and digits[0] in "13" and set(digits[1:]) == {"0"}


def fixed_prompts(folder: Path) -> list[str]:
    """Return `The` and the first words of two held-out documents."""
    prompts = ["The"]
    for document in iter_documents(folder, "val"):
        words = document["text"].split(" ")
        if len(words) > 2 * PROMPT_WORDS and len(prompts) < 3:
            prompts.append(" ".join(words[:PROMPT_WORDS]))
        if len(prompts) == 3:
            break
    return prompts


def sample_texts(
    model: PreTrainedModel, data_dir: Path, tokenizer_dir: Path, seed: int
) -> dict[str, str]:
    """Return prompt -> continuation for the fixed prompts of a prepared folder."""
    tokenizer = load_tokenizer(tokenizer_dir)
    return {
        prompt: sample_text(model, tokenizer, prompt, seed) for prompt in fixed_prompts(data_dir)
    }


def sample_text(model: PreTrainedModel, tokenizer: Tokenizer, prompt: str, seed: int) -> str:
    """Return what the model says after `prompt`: up to 40 tokens at temperature 0.8."""
    room = int(model.config.max_position_embeddings)
    kept = tokenizer.encode(prompt)[: max(1, room - NEW_TOKENS)]
    ids = torch.tensor([kept], device=model.device)  # (1, T)
    was_training = model.training
    model.eval()
    torch.manual_seed(seed_for(seed, "sample", prompt))
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            out = model.generate(  # pyright: ignore[reportCallIssue]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(NEW_TOKENS, max(1, room - len(kept))),
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=TOP_K,
            )
    finally:
        model.train(was_training)
    return tokenizer.decode(out[0, ids.shape[1] :].tolist())
