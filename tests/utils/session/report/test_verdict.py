from utils.session.report.verdict import next_command, verdict

SUMMARY = {
    "status": "finished",
    "stages": [{"name": "dpo"}],
    "evaluation": {},
    "pretrain": {"parameters": 8.4e6, "tokens": 8.5e6, "val_bpb": 1.4, "bigram_bpb": 2.1},
    "sft": {"heldout_loss_before": 3.0, "heldout_loss_after": 1.5, "stop_rate": 0.97},
    "dpo": {"heldout_accuracy_before": 0.6, "heldout_accuracy_after": 0.5},
}


def test_a_small_model_is_not_praised():
    size, language, chat, preferences = verdict(SUMMARY)
    assert "does not know facts" in size
    assert "33% fewer than a table of neighbouring pairs (2.100)" in language
    assert "ends 97% of its answers by itself" in chat
    assert (
        "changed nothing for the better (60% of held-out pairs right before, 50% after)"
        in preferences
    )


def test_how_answers_end_is_said_of_the_model_that_came_out():
    evaluation = {"conversations": {"measures": {"stop_rate": {"value": 0.82}}}}
    ends = verdict(SUMMARY | {"evaluation": evaluation})[2]
    assert "ends 82% of its answers" in ends and "empty" not in ends
    evaluation["conversations"]["measures"]["empty_rate"] = {"value": 0.14}
    assert "14% of its answers are empty" in verdict(SUMMARY | {"evaluation": evaluation})[2]
    not_run = {"conversations": {"status": "not run", "reason": "no time left"}}
    assert "ends 97% of its answers" in verdict(SUMMARY | {"evaluation": not_run})[2]


def test_a_model_worse_than_the_bigram_is_told_so():
    worse = SUMMARY | {"pretrain": SUMMARY["pretrain"] | {"val_bpb": 2.5}}
    assert "has not learned the language yet" in verdict(worse)[1]


def test_what_was_not_measured_is_said():
    unknown = {"heldout_loss_before": None, "heldout_loss_after": None, "stop_rate": None}
    assert "not measured" in verdict(SUMMARY | {"sft": unknown})[2]


def test_no_model_no_verdict():
    assert verdict(SUMMARY | {"pretrain": {}}) == []


def test_the_next_command_fits_the_outcome():
    assert next_command(SUMMARY).startswith("make serve")
    assert "make resume" in next_command(SUMMARY | {"status": "failed"})
