"""A hub that answers on this machine."""

import pytest

from tests.utils.reading.hub_server import Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine, with an empty cache; `hub.env` leads other processes there."""
    import datasets.config
    from huggingface_hub import constants

    with Hub().running() as running:
        running.env = {
            "HF_ENDPOINT": running.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
        }  # fmt: skip
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", running.url)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
        for module in (constants, datasets.config):
            monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
        yield running
