import pytest

from utils.serving.schemas import MAX_BODY_BYTES


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "LOCALHOST:1"])
def test_this_machine_is_served(ask, host):
    assert ask("GET", "/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["example.com", "127.0.0.1.example.com", "192.168.0.5:8000", "", "[::1", "a@b"]
)
def test_other_names_are_refused(ask, host):
    response = ask("GET", "/health", headers={"Host": host})
    assert response.status_code == 403
    assert "refused" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:3000", 200), ("https://example.com", 403), ("null", 403)],
)
def test_only_pages_of_this_machine_may_ask(ask, origin, status):
    assert ask("GET", "/health", headers={"Origin": origin}).status_code == status


def test_a_large_body_is_refused_by_its_length_and_while_it_is_read(ask):
    large = b"x" * (MAX_BODY_BYTES + 1)
    header = {"Content-Type": "application/json"}
    assert ask("POST", "/generate", content=large, headers=header).status_code == 413

    async def parts():
        for _ in range(3):
            yield large[: MAX_BODY_BYTES // 2]

    assert ask("POST", "/generate", content=parts(), headers=header).status_code == 413
