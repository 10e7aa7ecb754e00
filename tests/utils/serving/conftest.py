"""A checkpoint whose answers vary and end, behind the API in this process."""

import asyncio

import httpx
import pytest
import torch

from utils.config.serve import ServeConfig
from utils.model.checkpoints import LoadedModel, load_model
from utils.serving.api import create_app


@pytest.fixture(scope="session")
def loaded(checkpoint_dir) -> LoadedModel:
    model = load_model(checkpoint_dir, device="cpu")
    torch.manual_seed(3)
    for name, weight in model.model.named_parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else 0.15)
    return model


@pytest.fixture(scope="session")
def cfg() -> ServeConfig:
    return ServeConfig(max_new_tokens=32, request_timeout_s=20)


@pytest.fixture
def ask(loaded, cfg):
    """Send one request to the application: `ask("POST", "/generate", json=...)`."""

    def send(method, path, *, app=None, **options):
        async def request():
            transport = httpx.ASGITransport(app=app or create_app(loaded, cfg))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                return await http.request(method, path, **options)

        return asyncio.run(request())

    return send
