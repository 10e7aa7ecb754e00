"""Settings for a card keep the global batch and load into stage 02."""

import pytest

from utils.config.machine import HardwareConfig
from utils.config.pretrain import PretrainConfig
from utils.errors import BudgetError
from utils.planning.hardware_config import main, settings_for
from utils.planning.sizes import read_size, standard_sizes, step_bytes


def test_24_gb_hold_all_sizes_with_their_global_batch(root, tmp_path, capsys):
    main(HardwareConfig(config_dir=root / "config", output_dir=tmp_path / "generated"))
    batches = {}
    for size in standard_sizes(root / "config")[1:]:
        path = tmp_path / "generated" / f"rtx4090_{size.name}.json"
        cfg = PretrainConfig.from_cli(["--config", str(path)])
        assert cfg.n_layer == size.model.n_layer
        assert cfg.bf16
        assert cfg.compile
        assert cfg.batch_size * cfg.gradient_accumulation_steps == 64
        assert step_bytes(read_size(path), cfg.batch_size, gpu=True) < 24e9
        batches[size.name] = cfg.batch_size
    assert batches["tiny"] > batches["small"] > batches["base"] >= 4
    assert "train: python scripts/02_pretrain.py --config" in capsys.readouterr().out


def test_a_small_card_gets_small_micro_batches(root):
    tiny = read_size(root / "config/tiny.json")
    settings = settings_for(tiny, 2e9)
    assert settings["batch_size"] < 16
    assert settings["batch_size"] * settings["gradient_accumulation_steps"] == 64


def test_a_card_too_small_for_all_is_an_error_and_writes_nothing(root, tmp_path, capsys):
    cfg = HardwareConfig(config_dir=root / "config", output_dir=tmp_path / "out", vram_gb=0.1)
    with pytest.raises(BudgetError, match="pass a larger --vram_gb"):
        main(cfg)
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().out.count("does not fit") == 3
