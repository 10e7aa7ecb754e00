"""Addresses of people go; what only looks like one stays."""

import pytest

from utils.data.cleaning.pii import redact


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to jane.doe+x@mail.example.org.", "Write to email@example.com."),
        ("<bob_1@uni-x.ac.uk>, a@b.de", "<email@example.com>, email@example.com"),
        ("mailto:x@y.info?subject=", "mailto:email@example.com?subject="),
        ("ping 8.8.8.8, then 93.184.216.34.", "ping 192.0.2.1, then 192.0.2.1."),
        ("http://8.8.4.4:80/", "http://192.0.2.1:80/"),
        ("at 2001:4860:4860::8888 now", "at 2001:db8::1 now"),
    ],
)
def test_addresses_are_replaced(text, wanted):
    assert redact(text) == wanted
    assert redact(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "@decorator and a @ b", "user@host", "x = a@b.T", "matrix@vector.",
        "192.168.0.1 and 127.0.0.1",
        "version 1.2.3.4.5", "300.400.500.600", "section 3.2.1", "10:20:30", "a::b", "std::vector",
        "::1 and fe80::1", "dict[1:2:3]", "ab:cd:ef:01:23:45",
    ],
)  # fmt: skip
def test_other_things_stay(text):
    assert redact(text) == text
