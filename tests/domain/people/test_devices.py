"""What browsers say they are, in words."""

import pytest

from portal.domain.people.devices import described

WEBKIT = "(KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox 128 on Linux"),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 {WEBKIT} Chrome/131.0.0.0 Safari/537.36",
            "Chrome 131 on Windows",
        ),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 {WEBKIT} Version/18.1 "
            "Mobile/15E148 Safari/604.1",
            "Mobile Safari 18 on iOS",
        ),
        ("curl/8.5.0", "curl 8"),
        ("", "An unknown browser"),
        ("x" * 512, "An unknown browser"),
        ("<script>alert(1)</script>", "An unknown browser"),
    ],
)
def test_a_browser_is_told_by_name_and_system(user_agent: str, words: str) -> None:
    assert described(user_agent) == words
