"""The loss of the loops is added to that of the pairs, with one weight however batches are cut."""

import pytest
import torch

from utils.config.dpo import DPOConfig
from utils.finetuning import runner
from utils.finetuning.datasets import IGNORE, DPORows
from utils.finetuning.dpo import build_trainer, load_data, policy
from utils.finetuning.loops import PAIRS_PER_LOOP
from utils.finetuning.lora import row_logits
from utils.finetuning.pair_trainer import PairCollator

WEIGHT = 0.7


@pytest.fixture(scope="module")
def build(project, sft_run):
    def make(**changes):
        cfg = DPOConfig.build(
            {
                "model_path": sft_run,
                "dataset_path": project / "data" / "pairs.json",
                "max_steps": 2,
                "loop_loss_weight": WEIGHT,
                **changes,
            }
        )
        adapted = policy(cfg)
        rows = load_data(cfg, adapted).train
        order = list(range(16))
        rows = DPORows(rows.prompt_ids[:16], rows.chosen_ids[:16], rows.rejected_ids[:16])
        return adapted, build_trainer(cfg, adapted, rows, runner.first_plan(cfg, len(rows)), order)

    return make


def _losses(trainer):
    batches = [trainer._prepare_inputs(batch) for batch in trainer.get_train_dataloader()]
    with torch.no_grad():
        return [float(trainer.compute_loss(trainer.model, batch)) for batch in batches]


def test_the_loop_loss_is_the_mean_over_learned_places(build):
    adapted, trainer = build()
    rows = [row for row in trainer.train_dataset if row["loop_ids"]]
    assert len(rows) == 16 / PAIRS_PER_LOOP
    (ids, labels) = rows[0]["loop_ids"], torch.tensor(rows[0]["loop_labels"])
    log_probs = row_logits(adapted.peft, ids).log_softmax(-1)
    learned = (labels != IGNORE).nonzero()[:, 0]
    wanted = -float(log_probs[learned - 1, labels[learned]].mean())
    with_loops = _losses(trainer)
    trainer.loop_loss_weight = 0.0
    without = _losses(trainer)
    batches = PAIRS_PER_LOOP // trainer.args.per_device_train_batch_size
    assert with_loops[0] - without[0] == pytest.approx(batches * WEIGHT * wanted, rel=1e-4)
    assert with_loops[1] == without[1]  # no loop beside its pairs


def test_the_step_is_the_same_however_it_is_cut_into_batches(build):
    sums = []
    for batch_size in (2, 4, 8, 16):
        _, trainer = build(batch_size=batch_size, sft_loss_weight=0.0)
        losses = _losses(trainer)
        sums.append(sum(losses) / len(losses))
    assert sums == pytest.approx([sums[0]] * 4, rel=1e-5)
    _, trainer = build(sft_loss_weight=0.0, loop_loss_weight=0.0)
    assert "loop_ids" not in trainer.train_dataset.column_names
    assert sums[0] > sum(_losses(trainer)) / 4 + 0.1


def test_the_preference_loss_leaves_the_weights_as_they_were(build):
    _, trainer = build(sft_loss_weight=0.5)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        assert float(trainer.preference_loss(trainer.model, batch)) == pytest.approx(
            0.6931, abs=1e-3
        )
    assert (trainer.loss_weights, trainer.loop_loss_weight) == ([1.0, 0.5], WEIGHT)


def test_loops_of_a_batch_are_padded_and_the_padding_is_not_learned():
    pair = {"prompt_ids": [5], "chosen_ids": [6, 2], "rejected_ids": [7, 2]}
    loops = [([5, 6, 6, 2], [IGNORE, IGNORE, 2, 2]), ([], []), ([5, 2], [IGNORE, 2])]
    collate = PairCollator(pad_token_id=3)
    batch = collate([{**pair, "loop_ids": ids, "loop_labels": labels} for ids, labels in loops])
    assert batch["loop_ids"].tolist() == [[5, 6, 6, 2], [5, 2, 3, 3]]
    assert batch["loop_labels"].tolist() == [[IGNORE, IGNORE, 2, 2], [IGNORE, 2, IGNORE, IGNORE]]
    assert "loop_ids" not in collate([{**pair, "loop_ids": [], "loop_labels": []}])
    assert "loop_ids" not in collate([pair])
