import copy

import torch
from trl.trainer.utils import add_fused_lm_head

from utils.config.model import ModelConfig
from utils.finetuning import answer_head as head
from utils.finetuning.answer_head import use_answer_head
from utils.model.architecture import build_model

TOY = ModelConfig(
    model_name="toy", n_layer=1, d_model=32, n_head=2, d_ff=64, vocab_size=50, sequence_length=32
)
IDS = torch.arange(24).reshape(2, 12)
LABELS = torch.where((IDS % 12 > 4) & (IDS != 23), IDS, -100)
OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


def scored(model):
    out = model(input_ids=IDS, labels=LABELS, fused_lm_head=True)
    out.log_probs.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return out, gradients


def test_the_head_gives_the_numbers_and_gradients_of_trl(monkeypatch):
    theirs = build_model(TOY)
    add_fused_lm_head(theirs, outputs=OUTPUTS)
    ours = build_model(TOY)
    add_fused_lm_head(ours, outputs=OUTPUTS)
    use_answer_head(ours)
    monkeypatch.setattr(head, "CHUNK", 5)  # 13 learned positions: three chunks, checkpointed
    (a, grad_a), (b, grad_b) = scored(theirs), scored(ours)
    for name in (*OUTPUTS, "label_mask", "loss"):
        torch.testing.assert_close(getattr(b, name), getattr(a, name), rtol=1e-5, atol=1e-5)
    for one, other in zip(grad_a, grad_b, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_the_plain_forward_is_untouched():
    model = build_model(TOY).eval()
    wrapped = copy.deepcopy(model)
    use_answer_head(wrapped)
    with torch.no_grad():
        assert torch.equal(wrapped(input_ids=IDS).logits, model(input_ids=IDS).logits)
