"""Networks of enrolment keys: how they are written, stored, and found to hold an address."""

import pytest

from portal.domain.enrolment import enrolment_networks


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        (" 2001:DB8::/32 ", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_a_network_is_stored_in_one_way(written: str, stored: str) -> None:
    assert enrolment_networks.read(written) == stored


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("192.0.2.7/24", "write 192.0.2.0/24"),
        ("example.com", "is no network"),
        ("fe80::1%eth0", "is no network"),
        ("", "is no network"),
        ("1" * 500, "is no network"),
        ("10.0.0.0/8/8", "is no network"),
    ],
)
def test_what_is_no_network_is_told_what_to_write(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        enrolment_networks.read(written)


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("192.0.2.0", True),
        ("192.0.2.255", True),
        ("::ffff:192.0.2.9", True),
        ("192.0.3.0", False),
        ("2001:db8::9", True),
        ("2001:db8::9%eth0", True),
        ("2001:db9::", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_an_address_lies_in_a_network_or_not(address: str, inside: bool) -> None:
    assert enrolment_networks.is_within(address, ["192.0.2.0/24", "2001:db8::/32"]) is inside


def test_networks_are_read_from_lines_and_commas() -> None:
    assert enrolment_networks.split("10.0.0.0/8,\n 10.0.0.0/8 ;192.0.2.1\n\n") == ("10.0.0.0/8", "192.0.2.1")
