"""Rows decoded together: left padding, masks and the key/value cache.

Shapes: B rows, T tokens, V vocabulary. The forward pass is the Hugging Face model's own.
Knows nothing about sampling or stopping.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel


class Batch:
    """Rows that are decoded together, with their cache."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        longest = max(map(len, prompts))
        padding = torch.tensor([longest - len(prompt) for prompt in prompts])
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)  # [B, T]
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        self._mask: Tensor | None = None  # [B, T so far]; None: no padding
        if padding.any():
            self._mask = (torch.arange(longest) >= padding[:, None]).long().to(model.device)
        self.logits = self._forward(ids)
        """Logits [B, V] of each row's next token."""

    def step(self, tokens: list[int], rows: list[int]) -> None:
        """Go on with `rows` (places in the batch so far) only, each by its token."""
        if len(rows) < len(self.logits):
            places = torch.tensor(rows, device=self._model.device)
            self._cache.batch_select_indices(places)
            self._mask = self._mask[places] if self._mask is not None else None
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=1)
        self.logits = self._forward(torch.tensor(tokens)[:, None])

    @torch.inference_mode()
    def _forward(self, ids: Tensor) -> Tensor:
        inputs = {"input_ids": ids.to(self._model.device)}
        if self._mask is not None:
            positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
            inputs["attention_mask"] = self._mask
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        output = self._model(
            **inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        return output.logits[:, -1].float()
