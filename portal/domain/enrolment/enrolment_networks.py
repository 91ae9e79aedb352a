"""The networks that an enrolment key may be used from: read as people write them, and addresses found in them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

MOST = 50  # of one key
WRITTEN_AT_MOST = 64  # characters of one network; the column's


def problems(networks: Sequence[str]) -> list[str]:
    """What is wrong with these networks, the first three; empty when nothing is."""
    if len(networks) > MOST:
        return [f"Too many networks: {len(networks)}. Keep to {MOST}."]
    found = []
    for written in networks:
        try:
            read(written)
        except ValueError as wrong:
            found.append(str(wrong))
    return found[:3]


def read(written: str) -> str:
    """A network as it is stored: `10.0.0.0/8`, `2001:db8::/32`; one address is a network of one.

    An IPv4 network that is written inside IPv6 (`::ffff:…`) is the IPv4 network. Raises ValueError with a sentence.
    """
    text = written.strip()
    try:
        network = ipaddress.ip_network(text) if len(text) <= WRITTEN_AT_MOST and "%" not in text else None
    except ValueError:
        network = None
    if network is None:
        raise ValueError(_not_a_network(text))
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return str(ipaddress.ip_network((int(mapped), network.prefixlen - 96)))
    return str(network)


def _not_a_network(text: str) -> str:
    """What is wrong with it; bits behind the prefix are the usual slip, so the network that was meant is named."""
    try:
        meant = str(ipaddress.ip_network(text, strict=False)) if len(text) <= WRITTEN_AT_MOST else ""
    except ValueError:
        meant = ""
    if meant and "%" not in text:
        return f"{text} has bits set behind its prefix: write {meant} for the network, or the address alone."
    return f"{text[:WRITTEN_AT_MOST]} is no network. Write it as 192.0.2.0/24 or 2001:db8::/32, or one address."


def split(text: str) -> tuple[str, ...]:
    """Networks from a text, one a line or separated by commas or blanks; each once, in the order written."""
    return tuple(dict.fromkeys(text.replace(",", " ").replace(";", " ").split()))


def is_within(address: str, networks: Iterable[str]) -> bool:
    """Whether the address lies in one of the networks; an IPv4 address written inside IPv6 is the IPv4 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in ipaddress.ip_network(each) for each in networks)
