import pytest

from utils.config.serve import ServeConfig
from utils.errors import LumiError
from utils.session.serve_check import free_port, main


def test_a_free_port_is_a_port():
    assert 1024 <= free_port() <= 65535


@pytest.mark.slow
def test_a_checkpoint_answers_over_http(checkpoint_dir, caplog, capsys):
    with caplog.at_level("INFO"):
        main(ServeConfig.build({"model_path": checkpoint_dir, "port": 0}))
    assert caplog.text + capsys.readouterr().out


@pytest.mark.slow
def test_a_server_that_does_not_start_is_an_error(tmp_path):
    with pytest.raises(LumiError, match="the API did not start"):
        main(ServeConfig.build({"model_path": tmp_path, "port": 0}))
