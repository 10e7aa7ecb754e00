"""Names the control tokens of a conversation and of a document, and their ids. Knows no library.

A tokenizer that Lumi trains has the ids of this module, whatever its type; one that is taken over
has its own, which stand in the manifest of what was prepared with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

UNK_ID, BOS_ID, EOS_ID, PAD_ID = 0, 1, 2, 3
UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
SPARE_TOKENS = tuple(f"<|spare_{number}|>" for number in range(6))
"""Reserved for later fine-tuning, so that the embedding need not grow."""
CONTROL_TOKENS = (UNK, BOS, EOS, PAD, *CHAT_TOKENS, *SPARE_TOKENS)


@dataclass(frozen=True)
class ControlIds:
    """Ids that a model must know of its tokenizer."""

    eos: int = EOS_ID
    """Ends each document, and begins a text (BOS) as well."""
    pad: int = PAD_ID
    """Never learned; never the same as `eos`."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """Return the ids of a prepared folder; one without them is of a tokenizer of Lumi."""
        return cls(manifest.get("eos_id", EOS_ID), manifest.get("pad_id", PAD_ID))
