"""What fits is found before training, and nothing of the trial stays."""

import pytest
import torch
from torch import nn

from tests.utils.training.toy import bits, settings, train
from utils.errors import BudgetError
from utils.model.architecture import build_model
from utils.training import trial_step as fitting
from utils.training.step.fast_paths import gradient_error
from utils.training.step.loss import LossKernel, loss_and_logit_gradient

GB = 10**9


def started(cfg):
    """The trainer of a run that has done nothing but fit."""

    class Fitted(Exception):
        pass

    found = []

    def stop(trainer):
        found.append(trainer)
        raise Fitted

    with pytest.raises(Fitted):
        train(cfg, stop)
    return found[0]


def events(trainer, name):
    return [event for event in trainer.plan.events if event["event"] == name]


def test_nothing_of_the_trial_step_stays(prepared_dir, tmp_path, monkeypatch):
    from utils.training import setup

    seen = {}

    def watched(trainer):
        fitting.fit(trainer)
        seen["state"] = trainer.optimizers.tensors()
        seen["weights"] = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        seen["gradients"] = [p.grad for p in trainer.model.parameters() if p.grad is not None]

    monkeypatch.setattr(setup, "fit", watched)
    cfg = settings(prepared_dir, tmp_path, max_steps=1)
    train(cfg)
    assert seen["state"] == {} and seen["gradients"] == []
    fresh = build_model(cfg, cfg.seed).state_dict()
    assert all(torch.equal(seen["weights"][name], value) for name, value in fresh.items())


def test_the_estimate_chooses_what_the_memory_holds(prepared_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "memory_bytes", lambda cfg, size, *rest, **options: size * GB)
    monkeypatch.setattr(fitting, "available_bytes", lambda device: 3 * GB)
    trainer = started(settings(prepared_dir, tmp_path, batch_size=8, gradient_accumulation_steps=1))
    assert [event["micro_batch"] for event in events(trainer, "micro_batch")] == [2]
    assert not trainer.model.is_activation_checkpointing


def test_activations_are_recomputed_where_one_row_does_not_fit_without(
    prepared_dir, tmp_path, monkeypatch, caplog
):
    def needed(cfg, size, *rest, gradient_checkpointing, **options):
        return size * (GB if gradient_checkpointing else 9 * GB)

    monkeypatch.setattr(fitting, "memory_bytes", needed)
    monkeypatch.setattr(fitting, "available_bytes", lambda device: 3 * GB)
    cfg = settings(prepared_dir, tmp_path / "a", max_steps=3)
    trainer = train(cfg)
    assert trainer.model.is_activation_checkpointing
    assert "activations are recomputed" in caplog.text
    assert [event["step"] for event in events(trainer, "gradient_checkpointing")] == [0]
    assert [event["micro_batch"] for event in events(trainer, "micro_batch")] == [2]
    asked = dict(output_dir=tmp_path / "b", gradient_checkpointing=True)
    assert bits(train(cfg.model_copy(update=asked))) == bits(trainer)


def test_a_row_that_does_not_fit_even_so_is_refused(prepared_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "available_bytes", lambda device: 1000)
    with pytest.raises(BudgetError, match="one row of 32 tokens does not fit"):
        train(settings(prepared_dir, tmp_path))


def test_a_measured_step_that_fills_the_memory_is_halved(prepared_dir, tmp_path, monkeypatch):
    taken = iter([10 * GB, 2 * GB])
    monkeypatch.setattr(fitting, "available_bytes", lambda device: 10 * GB)
    monkeypatch.setattr(fitting, "used_bytes", lambda device: 0)
    monkeypatch.setattr(fitting, "peak_bytes", lambda device: next(taken))
    trainer = started(settings(prepared_dir, tmp_path))
    assert [event["micro_batch"] for event in events(trainer, "micro_batch")] == [2]


def test_memory_that_runs_out_in_the_trial_is_halved_with_the_global_batch_kept(
    prepared_dir, tmp_path, monkeypatch
):
    loss = fitting.language_model_loss

    def failing(model, ids, *rest, **more):
        if len(ids) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return loss(model, ids, *rest, **more)

    monkeypatch.setattr(fitting, "language_model_loss", failing)
    trainer = started(settings(prepared_dir, tmp_path))
    assert trainer.state.micro_batch == 1 and trainer.state.tokens == 8 * 32


class Compiler:
    """Stands for torch.compile; a test can make it err in the blocks or in the loss."""

    def __init__(self):
        self.hidden = self.gradient = lambda tensor: tensor

    def layer(self, layer):
        def call(*args, **kwargs):
            hidden = layer.forward(*args, **kwargs)
            return self.hidden(hidden) if hidden.requires_grad else hidden

        layer._compiled_call_impl = call

    def kernel(self, *args):
        loss, gradient = loss_and_logit_gradient(*args)
        return loss, self.gradient(gradient)

    def compile_loss(self):
        LossKernel.run = self.kernel


@pytest.fixture
def compiler(monkeypatch):
    ours = Compiler()
    monkeypatch.setattr(nn.Module, "compile", lambda layer, **options: ours.layer(layer))
    monkeypatch.setattr(LossKernel, "compile", ours.compile_loss)
    monkeypatch.setattr(fitting, "can_compile", lambda *, wanted, left_s, startup_s: wanted)
    yield ours
    LossKernel.eager()


ERRORS = {
    "cut": dict(hidden=lambda hidden: hidden.clamp(max=0)),
    "shifted": dict(hidden=lambda hidden: hidden.roll(1, 1)),
    "not a number": dict(
        hidden=lambda hidden: hidden.masked_fill(
            torch.arange(len(hidden[0]))[:, None] == 3, torch.nan
        )
    ),
    "zero gradient": dict(hidden=lambda hidden: hidden.detach() + 0 * hidden),
    "no gradient": dict(hidden=lambda hidden: hidden.detach()),
    "last row": dict(hidden=lambda hidden: torch.cat([hidden[:-1], hidden[-1:].flip(1)])),
    "loss": dict(gradient=lambda gradient: gradient.roll(1, 1)),
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_compiled_step_that_computes_something_else_is_not_taken(
    compiler, error, prepared_dir, tmp_path, caplog
):
    plain = train(settings(prepared_dir, tmp_path / "plain", max_steps=2, compile=False))
    vars(compiler).update(ERRORS[error])
    trainer = train(settings(prepared_dir, tmp_path / "wrong", max_steps=2, compile=True))
    assert not trainer.fast.compiled and bits(trainer) == bits(plain)
    assert LossKernel.run is loss_and_logit_gradient
    assert "gives other gradients than the plain one (off by" in caplog.text


def test_a_compiled_step_that_computes_the_same_is_taken(
    compiler, prepared_dir, tmp_path, caplog, monkeypatch
):
    with caplog.at_level("INFO"):
        trainer = train(settings(prepared_dir, tmp_path / "a", max_steps=2, compile=True))
    assert trainer.fast.compiled and LossKernel.run == compiler.kernel
    assert "gives the gradients of the plain one (off by" in caplog.text

    def no_room(model, plain):
        raise MemoryError

    monkeypatch.setattr(fitting, "gradient_error", no_room)
    with caplog.at_level("INFO"):
        trainer = train(settings(prepared_dir, tmp_path / "b", max_steps=2, compile=True))
    assert trainer.fast.compiled and "no memory to compare" in caplog.text


def test_without_memory_for_a_second_set_of_gradients_nothing_is_compared(
    compiler, prepared_dir, tmp_path, caplog, monkeypatch
):
    vars(compiler).update(ERRORS["cut"])  # would be found
    monkeypatch.setattr(fitting, "available_bytes", lambda device: GB)
    monkeypatch.setattr(fitting, "used_bytes", lambda device: 0)
    monkeypatch.setattr(fitting, "peak_bytes", lambda device: 0.95 * GB - 1000)
    with caplog.at_level("INFO"):
        trainer = train(settings(prepared_dir, tmp_path, max_steps=1, compile=True))
    assert trainer.fast.compiled and "no memory to compare" in caplog.text


def test_nothing_of_the_comparison_stays_in_a_run_that_goes_on(compiler, prepared_dir, tmp_path):
    changes = dict(max_steps=3, compile=True)
    whole = train(settings(prepared_dir, tmp_path / "a", save_steps=1, **changes))
    start = whole.run.folder / "step_1"
    again = train(settings(prepared_dir, tmp_path / "b", resume_from_checkpoint=start, **changes))
    assert again.fast.compiled and bits(again) == bits(whole)


def test_with_dropout_nothing_is_compared(compiler, prepared_dir, tmp_path, caplog):
    cfg = settings(prepared_dir, tmp_path, max_steps=1, compile=True, dropout=0.1)
    with caplog.at_level("INFO"):
        assert train(cfg).fast.compiled
    assert "of the plain one" not in caplog.text


def test_the_error_of_gradients_is_that_of_the_worst_parameter():
    model = nn.Linear(2, 2)
    model.weight.grad, model.bias.grad = torch.full((2, 2), 3.0), torch.tensor([1e-9, 0.0])
    plain = [torch.full((2, 2), 2.0), torch.zeros(2)]
    assert gradient_error(model, plain) == pytest.approx(0.5)
    model.bias.grad = torch.tensor([0.004, 0.0])  # beside a thousandth of the largest norm, 4
    assert gradient_error(model, plain) == pytest.approx(1.0)
    assert gradient_error(model, [plain[0], None]) == float("inf")
    model.weight.grad[0, 0] = torch.nan
    assert gradient_error(model, plain) == float("inf")
