import json

import pytest

from utils.config.session import AnswersConfig
from utils.errors import DataError
from utils.session.report.answers import main, questions


def write(tmp_path, rows):
    path = tmp_path / "heldout.json"
    path.write_text(json.dumps(rows))
    return path


def test_questions_are_spread_over_the_file_and_asked_once(tmp_path):
    rows = [{"prompt": f"q{n // 2}", "response": "a"} for n in range(12)]
    rows.append({"messages": [{"role": "user", "content": "last"}]})
    assert questions(write(tmp_path, rows), 3) == ["q0", "q2", "q4"]
    assert questions(write(tmp_path, rows[-1:]), 3) == ["last"]


def test_questions_are_found_in_every_layout_that_is_trained_on(tmp_path):
    rows = [
        {"instruction": "Add them.", "input": "1 and 2", "output": "3"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "a"}]},
        {"question": "What is 1 plus 2?", "answer": "3"},
    ]
    asked = ["Add them.\n\n1 and 2", "Hi", "What is 1 plus 2?"]
    assert questions(write(tmp_path, rows), 3) == asked


@pytest.mark.parametrize("rows", [[], {}, [{"text": "x"}], ["x"]])
def test_a_file_without_questions_is_refused(tmp_path, rows):
    with pytest.raises(DataError, match="holds no usable row"):
        questions(write(tmp_path, rows), 3)


def test_a_model_answers_and_says_whether_it_stopped(tmp_path, checkpoint_dir):
    heldout = write(tmp_path, [{"prompt": "Hi?", "response": "a"}])
    output = tmp_path / "answers.json"
    values = {"model_paths": [checkpoint_dir], "heldout_path": heldout, "output": output,
              "max_new_tokens": 4}  # fmt: skip
    main(AnswersConfig.build(values))
    (said,) = json.loads(output.read_text())[checkpoint_dir.name]
    assert said["question"] == "Hi?"
    assert isinstance(said["answer"], str) and isinstance(said["stopped"], bool)
