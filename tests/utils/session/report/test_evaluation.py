from utils.session.report.evaluation import evaluation_view, shares_chart

RESULTS = {
    "heldout": {
        "title": "Held-out text",
        "status": "ok",
        "measures": {
            "bits_per_byte": {"value": 1.4264, "low": 1.4, "high": 1.45, "count": 512},
            "bigram_bits_per_byte": 2.0942,
            "is_whole_split": True,
        },
    },
    "boolq": {
        "title": "BoolQ",
        "status": "ok",
        "measures": {"accuracy": {"value": 0.55, "low": 0.45, "high": 0.64, "count": 100}},
    },
    "lambada": {"title": "LAMBADA", "status": "not run", "reason": "no hub"},
}


def test_measures_become_rows_with_their_intervals():
    heldout, boolq, lambada = evaluation_view(RESULTS, None)["parts"]
    assert heldout["rows"] == [
        {"name": "bits per byte", "value": "1.426", "interval": "1.4 to 1.45", "count": "512"},
        {"name": "bits per byte, bigram baseline", "value": "2.094", "interval": "", "count": ""},
    ]
    assert boolq["rows"][0]["interval"] == "0.45 to 0.64"
    assert (lambada["rows"], lambada["reason"]) == ([], "no hub")


def test_shares_are_drawn_with_whiskers():
    svg = shares_chart(evaluation_view(RESULTS, None))
    assert svg.count("whisker") == 1
    assert "BoolQ: accuracy 0.55 (0.45 to 0.64)" in svg


def test_no_results_draw_nothing():
    view = evaluation_view({}, None)
    assert (view["parts"], shares_chart(view)) == ([], "")
