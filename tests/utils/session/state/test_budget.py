import pytest

from utils.errors import BudgetError
from utils.session.state.budget import (
    Costs,
    estimate_costs,
    margin_s,
    minimum_minutes,
    plan_seconds,
)

ALL = ["prepare", "samples", "pretrain", "sft", "dpo", "evaluate"]
SHARES = {"pretrain": 0.66, "sft": 0.2, "dpo": 0.14}
COSTS = Costs(
    fixed={
        "prepare": 100, "samples": 10, "pretrain": 50, "sft": 40, "dpo": 40, "evaluate": 60,
        "report": 20,
    },
    least={"pretrain": 40, "sft": 15, "dpo": 10},
)  # fmt: skip


def test_the_margin_of_12_minutes_is_15_s_and_3_percent():
    assert margin_s(720) == pytest.approx(15 + 21.6)
    assert margin_s(4 * 3600) == 120


def test_the_plan_uses_the_box_up_to_its_margin_and_never_more():
    planned = plan_seconds(720, 720, ALL, COSTS, SHARES, {})
    assert sum(planned.values()) == pytest.approx(720 - margin_s(720))
    assert planned["prepare"] == 100
    assert planned["report"] == 20


def test_what_is_left_after_fixed_costs_is_divided_by_the_shares():
    planned = plan_seconds(1800, 1800, ALL, COSTS, SHARES, {})
    training = {stage: planned[stage] - COSTS.fixed[stage] for stage in SHARES}
    assert training["sft"] / training["pretrain"] == pytest.approx(0.2 / 0.66)
    assert training["dpo"] / training["sft"] == pytest.approx(0.14 / 0.2)


def test_time_a_stage_cannot_use_goes_to_the_others():
    planned = plan_seconds(7200, 7200, ALL, COSTS, SHARES, {"sft": 100.0, "dpo": 30.0})
    free = plan_seconds(7200, 7200, ALL, COSTS, SHARES, {})
    assert planned["sft"] == pytest.approx(140)
    assert planned["dpo"] == pytest.approx(70)
    assert planned["pretrain"] > free["pretrain"]
    assert sum(planned.values()) == pytest.approx(sum(free.values()))


def test_after_pretraining_the_rest_is_planned_again_from_what_is_left():
    planned = plan_seconds(300, 720, ["sft", "dpo", "evaluate"], COSTS, SHARES, {})
    assert set(planned) == {"sft", "dpo", "evaluate", "report"}
    assert sum(planned.values()) == pytest.approx(300 - margin_s(720))


def test_without_training_the_last_stage_gets_all_that_is_left():
    planned = plan_seconds(3600, 3600, ["evaluate"], COSTS, SHARES, {})
    assert planned == {"evaluate": 3600 - margin_s(3600) - 20, "report": 20}
    last = plan_seconds(200, 720, ["evaluate"], COSTS, SHARES, {})
    assert last["evaluate"] == pytest.approx(200 - margin_s(720) - 20)


def test_a_tight_box_squeezes_fixed_costs_but_keeps_the_least_training():
    planned = plan_seconds(350, 350, ALL, COSTS, SHARES, {})
    assert 60 <= planned["prepare"] < 100
    assert sum(planned.values()) <= 350 - margin_s(350) + 1e-6


def test_a_box_too_small_says_how_large_it_must_be_and_that_size_is_enough():
    with pytest.raises(BudgetError, match=r"time box of 1 min is too small.*SESSION_MINUTES=(\d+)"):
        plan_seconds(60, 60, ALL, COSTS, SHARES, {})
    minutes = minimum_minutes(ALL, COSTS)
    assert minutes == 5
    plan_seconds(60 * minutes, 60 * minutes, ALL, COSTS, SHARES, {})
    with pytest.raises(BudgetError):
        plan_seconds(60 * minutes - 60, 60 * minutes - 60, ALL, COSTS, SHARES, {})


def test_a_machine_twice_as_slow_needs_twice_the_fixed_time_and_a_larger_box():
    fast, slow = estimate_costs(1.0, 6.0, 36.0), estimate_costs(2.0, 12.0, 36.0)
    assert slow.fixed["prepare"] == pytest.approx(2 * fast.fixed["prepare"])
    assert minimum_minutes(ALL, slow) > minimum_minutes(ALL, fast)


def test_a_corpus_that_is_prepared_costs_no_cleaning_again():
    prepared, raw = (estimate_costs(1.0, 6.0, mb).fixed["prepare"] for mb in (0.0, 36.0))
    assert prepared < 30
    assert raw == pytest.approx(prepared + 0.8 * 36)
