import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from utils.generation.sampling import Sampling, candidates, new_generator, next_tokens

LOGITS = torch.tensor([0.1, 2.0, -1.0, 1.0, 0.5])


def draws(settings, logits=LOGITS, count=2000):
    generator = new_generator(0)
    return [next_tokens(logits[None], settings, [generator])[0] for _ in range(count)]


def full_distribution(logits, settings):
    probabilities, ids = candidates(logits, settings)
    return torch.zeros(len(logits)).index_put((ids,), probabilities.float())


def test_temperature_zero_takes_the_likeliest_token_of_each_row():
    rows = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert next_tokens(rows, Sampling(), [new_generator(0)] * 2) == [1, 0]


@pytest.mark.parametrize("vocab_size", [50, 1000, 5000])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 0, 0.9), (1.5, 10, 1.0), (0.8, 20, 0.6), (5.0, 0, 0.99), (1, 0, 0.01)],
)
def test_the_distribution_equals_the_filters_of_transformers(vocab_size, temperature, top_k, top_p):
    logits = 2 * torch.randn(1, vocab_size, generator=torch.Generator().manual_seed(vocab_size))
    expected = TemperatureLogitsWarper(float(temperature))(None, logits)
    expected = TopKLogitsWarper(top_k)(None, expected) if top_k else expected
    expected = TopPLogitsWarper(top_p)(None, expected).softmax(-1)[0]
    ours = full_distribution(logits[0], Sampling(temperature, top_p, top_k))
    assert torch.allclose(ours, expected, atol=1e-6)
    assert (ours > 0).sum() == (expected > 0).sum()


def test_a_flat_distribution_falls_back_to_the_full_sort():
    probabilities, ids = candidates(torch.zeros(2000), Sampling(1.0, top_p=0.5))
    assert len(ids) == 1000
    assert torch.allclose(probabilities, torch.full((1000,), 0.001))


def test_frequencies_follow_the_probabilities():
    counts = torch.bincount(torch.tensor(draws(Sampling(1.0), count=4000)), minlength=5) / 4000
    # softmax of LOGITS by hand: e^.1, e^2, e^-1, e^1, e^.5 over their sum 13.229
    expected = torch.tensor([0.0835, 0.5586, 0.0278, 0.2055, 0.1246])
    assert (counts - expected).abs().max() < 0.03


def test_a_seed_repeats_the_draws_and_another_one_does_not():
    settings = Sampling(1.0)
    first, again, other = (
        [next_tokens(LOGITS[None], settings, [generator])[0] for _ in range(50)]
        for generator in (new_generator(5), new_generator(5), new_generator(6))
    )
    assert first == again != other


def test_no_seed_means_a_new_stream_each_time():
    assert new_generator(None).initial_seed() != new_generator(None).initial_seed()


def test_top_k_one_is_greedy():
    assert set(draws(Sampling(3.0, top_k=1), count=50)) == {1}
