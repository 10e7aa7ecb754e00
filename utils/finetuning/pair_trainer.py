"""TRL's DPO trainer on our ids, with rows beside the pairs that show the way out of a loop."""

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from utils.finetuning.datasets import IGNORE
from utils.finetuning.loops import PAIRS_PER_LOOP

PAIR_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
LOOP_COLUMNS = ("loop_ids", "loop_labels")
"""Empty beside a pair that has no loop; there are none where loops are not learned."""


class PairCollator(DataCollatorForPreference):
    """TRL's collator of pairs, which pads the loops of a batch too, [rows with a loop, T]."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch; `loop_ids` and `loop_labels` are in it where an example has a loop."""
        batch = super().torch_call(examples)
        for name, filler in zip(LOOP_COLUMNS, (self.pad_token_id, IGNORE), strict=True):
            rows = [torch.tensor(example[name]) for example in examples if example.get(name)]
            if rows:
                batch[name] = pad_sequence(rows, batch_first=True, padding_value=filler)
        return batch


class PairTrainer(DPOTrainer):
    """TRL's trainer on ids that are made already.

    TRL 1.16 tokenizes rendered text itself, and ids of a rendered conversation differ from those
    built piece by piece; its collator takes prompt_ids, chosen_ids and rejected_ids as they are.
    """

    loop_loss_weight: float = 0.0

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        assert set(PAIR_COLUMNS) <= set(dataset.column_names), dataset.column_names
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*PAIR_COLUMNS, *LOOP_COLUMNS]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return TRL's loss of the pairs plus `loop_loss_weight` x that of the loops beside them.

        About every PAIRS_PER_LOOP-th pair has a loop; where a batch has one, the loss counts as
        often as there are pairs for it, so the sum over a step is the same however it is cut into
        batches.
        """
        assert not return_outputs, "only training reads this loss"
        pairs = {name: value for name, value in inputs.items() if name not in LOOP_COLUMNS}
        loss: Any = super().compute_loss(model, pairs, num_items_in_batch=num_items_in_batch)
        if not self.loop_loss_weight or "loop_ids" not in inputs:
            return loss
        labels = inputs["loop_labels"]
        scores = model(input_ids=inputs["loop_ids"], labels=labels, fused_lm_head=True)
        loops_per_pair = len(labels) / (len(pairs["input_ids"]) // 2)
        factor = self.loop_loss_weight * loops_per_pair * PAIRS_PER_LOOP
        return loss - factor * scores.log_probs.sum() / scores.label_mask.sum()

    def preference_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the preference loss alone."""
        weights, self.loss_weights = self.loss_weights, [1.0, 0.0]
        loop_weight, self.loop_loss_weight = self.loop_loss_weight, 0.0
        loss = self.compute_loss(model, inputs)
        self.loss_weights, self.loop_loss_weight = weights, loop_weight
        return loss
