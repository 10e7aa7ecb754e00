"""What a mixture takes: shares by weight, caps kept, as much as these allow."""

import numpy as np
import pytest

from utils.config.prepare import MixtureSource
from utils.data.corpus.mixture import allotments, loss_message, wanted_shares
from utils.errors import DataError


def _sources(*settings):
    return [
        MixtureSource(name="abcdef"[n], input_path="x", **setting)
        for n, setting in enumerate(settings)
    ]


def _weights(*weights):
    return _sources(*({"weight": weight} for weight in weights))


@pytest.mark.parametrize(
    ("held", "settings", "taken"),
    [
        ([100, 1000], [{}, {}], [100, 100]),
        ([100, 1000], [{"weight": 1}, {"weight": 3}], [100, 300]),
        ([100, 0, 1000], [{}, {"weight": 9}, {}], [100, 0, 100]),
        ([100], [{"weight": 5}], [100]),
        ([100], [{"max_characters": 30}], [30]),
        ([0, 0], [{}, {}], [0, 0]),
        # A source with a cap in characters never limits the others, and gives them its rest.
        ([1000, 1000], [{"weight": 3, "max_characters": 100}, {}], [100, 1000]),
        ([1000, 1000], [{"weight": 3, "max_characters": 100}, {"max_characters": 200}], [100, 200]),
        # ... unless it does not hold so much.
        ([50, 1000], [{"max_characters": 100}, {}], [50, 50]),
        # A share above its cap goes to the others by their weights.
        ([900, 900, 900], [{"weight": 6, "max_share": 0.2}, {"weight": 3}, {}], [300, 900, 300]),
        # A cap on the share holds after others were cut by their characters, too.
        ([1000, 1000], [{"max_characters": 100}, {"max_share": 0.6}], [100, 150]),
    ],
)
def test_what_each_source_gives(held, settings, taken):
    found = allotments(np.array(held, float), _sources(*settings))
    assert found == pytest.approx(np.array(taken, float))


def test_caps_hold_and_something_is_always_at_its_limit():
    chance = np.random.default_rng(3)
    for _ in range(500):
        count = int(chance.integers(1, 6))
        caps = np.where(chance.random(count) < 0.5, 1.0, chance.uniform(0.05, 1, count))
        if caps.sum() < 1:
            continue
        held = chance.integers(1, 10_000, count).astype(float)
        limits = [
            int(n) if chance.random() < 0.4 else None for n in chance.integers(1, 9999, count)
        ]
        sources = _sources(
            *(
                {"weight": float(weight), "max_share": float(cap), "max_characters": limit}
                for weight, cap, limit in zip(
                    chance.uniform(0.1, 5, count), caps, limits, strict=True
                )
            )
        )
        taken = allotments(held, sources)
        assert (taken > 0).all() and (taken <= held * (1 + 1e-6)).all()
        assert (taken <= caps * taken.sum() * (1 + 1e-6)).all()
        most = np.array([min(h, limit or np.inf) for h, limit in zip(held, limits, strict=True)])
        assert (taken <= most * (1 + 1e-6)).all()
        assert (taken >= most * (1 - 1e-6)).any(), "more could be taken"
        shares = wanted_shares(sources)
        assert shares.sum() == pytest.approx(1) and (shares <= caps + 1e-6).all()


def test_without_caps_the_shares_are_exactly_the_wanted_ones():
    chance = np.random.default_rng(4)
    for _ in range(100):
        weights = chance.uniform(0.1, 5, 4)
        held = chance.uniform(1, 1000, 4)
        taken = allotments(held, _weights(*weights.tolist()))
        assert taken / taken.sum() == pytest.approx(weights / weights.sum())
        assert (held / taken).min() == pytest.approx(1)


def test_caps_that_leave_no_mixture_are_refused():
    sources = _sources({"max_share": 0.5}, {"max_share": 0.4}, {})
    assert allotments(np.array([9.0, 9.0, 9.0]), sources).sum() > 0
    with pytest.raises(DataError, match=r"\(a 0.5, b 0.4\) make less than the whole"):
        allotments(np.array([9.0, 9.0, 0.0]), sources)


def test_what_a_scarce_source_costs_is_told_with_the_way_out():
    held, sources = np.array([2e6, 36e6, 8e6]), _weights(1.0, 3.0, 4.0)
    taken = allotments(held, sources)
    assert taken == pytest.approx([2e6, 6e6, 8e6])
    message = loss_message(held, taken, sources)
    assert message == (
        "a, c scarce for the weight: left out because of it 83% of b (30M characters); "
        "weights a 1, b 18, c 4 would keep everything"
    )
    again = _weights(1.0, 18.0, 4.0)
    assert loss_message(held, allotments(held, again), again) is None


def test_what_a_cap_leaves_out_is_no_loss():
    held, sources = np.array([1e6, 5e6]), _sources({}, {"max_characters": 1000})
    assert loss_message(held, allotments(held, sources), sources) is None
