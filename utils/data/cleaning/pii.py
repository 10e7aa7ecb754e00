"""Put stand-ins in the place of what may lead to a person: e-mail and public IP addresses.

The stand-ins are addresses that nobody can have: a domain of RFC 2606, a network of RFC 5737 and
one of RFC 3849. Private addresses (192.168.0.1, ::1) and version numbers stay.
"""

import ipaddress
import re

EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])"
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:.])")
UNICAST = ipaddress.ip_network("2000::/3")
"""Where public IPv6 addresses are; elsewhere `a::b` is code."""
EMAIL_STAND_IN = "email@example.com"
STAND_INS = {4: "192.0.2.1", 6: "2001:db8::1"}


def redact(text: str) -> str:
    """Return `text` with stand-ins for e-mail addresses and public IP addresses."""
    if "@" in text:
        text = EMAIL.sub(EMAIL_STAND_IN, text)
    if "." in text:
        text = IPV4.sub(_stand_in, text)
    if ":" in text:
        text = IPV6.sub(_stand_in, text)
    return text


def _stand_in(found: re.Match[str]) -> str:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found[0]
    is_public = address.is_global and (address.version == 4 or address in UNICAST)
    return STAND_INS[address.version] if is_public else found[0]
