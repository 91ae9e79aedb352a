"""People who belong below a group that they may not see: no page sends them there."""

import re

import pytest
from flask.testing import FlaskClient

from tests.cast import Cast, sign_in


@pytest.mark.parametrize("room", ["", "/-/runners", "/-/members"])
def test_every_link_on_bobs_project_pages_opens(client: FlaskClient, cast: Cast, room: str) -> None:
    cast.runner(cast.acme)
    sign_in(client, "bob")
    html = client.get(f"/acme/web{room}").get_data(as_text=True)
    links = {link.replace("&amp;", "&") for link in re.findall(r'<a [^>]*href="(/[^"#]*)"', html)}
    assert links
    assert {link: client.get(link).status_code for link in links} == dict.fromkeys(links, 200)


def test_the_start_page_does_not_tell_bob_that_he_has_nothing(client: FlaskClient, cast: Cast) -> None:
    html = sign_in(client, "bob").get("/").get_data(as_text=True)
    assert "acme/web" in html
    assert "You are in no group yet" not in html
