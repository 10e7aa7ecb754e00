import socket

import pytest

from utils.errors import CheckpointError, ConfigError, LumiError
from utils.serving.checks import check_model_exists, is_loopback, listen, url_of


def test_loopback_names():
    assert all(map(is_loopback, ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"]))
    assert not any(map(is_loopback, ["0.0.0.0", "192.168.1.2", "example.com", "", "::"]))


def test_only_loopback_addresses_are_listened_on():
    with pytest.raises(ConfigError, match=r"host = 0\.0\.0\.0: only this machine"):
        listen("0.0.0.0", 0)


def test_a_free_port_is_chosen_and_a_taken_one_refused():
    with listen("localhost", 0) as server:
        port = server.getsockname()[1]
        assert url_of(server) == f"http://127.0.0.1:{port}"
        with pytest.raises(LumiError, match=f"port {port} on 127.0.0.1 is in use"):
            listen("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_a_missing_model_is_told_with_what_to_run(tmp_path, monkeypatch, checkpoint_dir):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no model at .*: run `make session-quick` first"):
        check_model_exists(tmp_path / "checkpoints" / "dpo")
    sft = tmp_path / "checkpoints" / "sft" / "final"
    sft.parent.mkdir(parents=True)
    sft.symlink_to(checkpoint_dir)
    with pytest.raises(CheckpointError, match="MODEL_PATH=checkpoints/sft/final"):
        check_model_exists(tmp_path / "checkpoints" / "dpo")
    check_model_exists(sft)
    check_model_exists(sft.parent)
