"""Members: who has which role, given here or above; adding, changing, removing, leaving."""

import re

import pytest
from flask.testing import FlaskClient

from portal.models import Role
from tests.cast import Cast, csrf_of, send, sign_in
from tests.web.reading import part, read, words

MEMBERS = {"group": ("alice", "/groups/acme/-/members"), "project": ("bob", "/acme/web/-/members")}


@pytest.fixture(params=MEMBERS)
def room(request: pytest.FixtureRequest, cast: Cast, client: FlaskClient) -> tuple[FlaskClient, str]:
    """A client of somebody who may manage the members of a group, or of a project; and the address."""
    who, address = MEMBERS[request.param]
    return sign_in(client, who), address


def rows(page: str) -> list[str]:
    found = re.findall(r"<tr>.*?</tr>", page[page.index("<tbody>") :], re.S)
    return [words(re.sub(r"<option(?![^>]*selected)[^>]*>[^<]*</option>", "", row)) for row in found]


def test_the_page_lists_roles_given_here_first_and_where_others_come_from(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "bob"), "/acme/web/-/members")
    assert [row.split()[0] for row in rows(page)] == ["Bob", "Alice", "Erin"]
    assert "Maintainer" in rows(page)[0]
    assert "Here" in rows(page)[0]
    assert rows(page)[1].startswith("Alice Lam alice Owner acme")


def test_a_person_is_added_with_a_role_and_may_enter_at_once(room: tuple[FlaskClient, str], cast: Cast) -> None:
    client, address = room
    charlie = sign_in(client.application.test_client(), "charlie")
    read(charlie, address, expect=404)
    send(client, address, login="charlie", role=str(Role.REPORTER.value), expect=302)
    page = read(client, address)
    assert "Charlie Fox is now reporter here." in words(page)
    assert any(row.startswith("Charlie Fox charlie") and "Reporter" in row for row in rows(page))
    read(charlie, address)


def test_a_person_is_found_by_e_mail_whatever_the_case(room: tuple[FlaskClient, str]) -> None:
    client, address = room
    send(client, address, login=" CHARLIE@Acme.example ", role="10", expect=302)
    assert "Charlie Fox is now guest here." in words(read(client, address))


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"login": "nobody"}, "login", "There is nobody called 'nobody'."),
        ({"login": ""}, "login", "There is nobody called ''."),
        ({"role": "45"}, "role", "Choose a role from the list."),
        ({"role": "0"}, "role", "Choose a role from the list."),
        ({"role": "x"}, "role", "Choose a role from the list."),
    ],
)
def test_a_wrong_name_or_role_is_named_and_what_was_typed_stays(
    room: tuple[FlaskClient, str], fields: dict[str, str], field: str, sentence: str
) -> None:
    client, address = room
    typed = {"login": "charlie", "role": "20", **fields}
    page = send(client, address, **typed, expect=422).get_data(as_text=True)
    assert sentence in words(part(page, f"{field}-help")[:600])
    assert f'value="{typed["login"]}"' in page
    assert not any(row.startswith("Charlie") for row in rows(page))


def test_nobody_is_added_twice(room: tuple[FlaskClient, str]) -> None:
    client, address = room
    for expect in (302, 422):
        answer = send(client, address, login="charlie", role="20", expect=expect)
    assert "Charlie Fox is a member already. Change the role instead." in words(answer.get_data(as_text=True))


def test_a_role_is_changed_in_the_list(room: tuple[FlaskClient, str], cast: Cast) -> None:
    client, address = room
    send(client, address, login="charlie", role="10", expect=302)
    send(client, f"{address}/{cast.charlie.id}/role", form_at=address, role="30", expect=302)
    page = read(client, address)
    assert "Charlie Fox is now developer here." in words(page)
    assert any(row.startswith("Charlie Fox charlie") and "Developer" in row for row in rows(page))
    trail = words(read(client, address.replace("members", "trail")))
    assert "changed the role of Charlie Fox" in trail
    assert "role: guest → developer" in trail


def test_a_role_is_taken_away_and_the_door_closes(room: tuple[FlaskClient, str], cast: Cast) -> None:
    client, address = room
    send(client, address, login="charlie", role="10", expect=302)
    charlie = sign_in(client.application.test_client(), "charlie")
    read(charlie, address)
    send(client, f"{address}/{cast.charlie.id}/remove", form_at=address, expect=302)
    assert "Charlie Fox has no role of their own here any more." in words(read(client, address))
    read(charlie, address, expect=404)


def test_an_inherited_role_cannot_be_changed_or_taken_away_below(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    address = f"/acme/web/-/members/{cast.erin.id}"
    assert address not in read(client, "/acme/web/-/members")
    send(client, f"{address}/role", form_at="/acme/web/-/members", role="10", expect=404)
    send(client, f"{address}/remove", form_at="/acme/web/-/members", expect=404)


def test_a_maintainer_hands_out_no_more_than_they_have(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "bob")
    answer = send(client, "/acme/web/-/members", login="charlie", role="50", expect=403)
    assert "it is above your own" in words(answer.get_data(as_text=True))
    assert "Charlie" not in read(client, "/acme/web/-/members")


def test_a_maintainer_does_not_touch_an_owner(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.web, Role.OWNER)
    cast.session.commit()
    sign_in(client, "bob")
    address = f"/acme/web/-/members/{cast.charlie.id}"
    send(client, f"{address}/role", form_at="/acme/web/-/members", role="10", expect=403)
    send(client, f"{address}/remove", form_at="/acme/web/-/members", expect=403)


def test_the_last_owner_stays(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    address = f"/groups/acme/-/members/{cast.alice.id}"
    for page, fields in (("role", {"role": "40"}), ("remove", {})):
        answer = send(client, f"{address}/{page}", form_at="/groups/acme/-/members", **fields, expect=422)
        assert "This is the group's last owner. Make somebody else an owner first." in words(
            answer.get_data(as_text=True)
        )
    assert rows(read(client, "/groups/acme/-/members"))[0].startswith("Alice Lam alice Role of Alice Lam Owner")


def test_an_owner_leaves_when_there_is_another(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.acme, Role.OWNER)
    cast.session.commit()
    sign_in(client, "alice")
    page = "/groups/acme/-/members"
    answer = send(client, f"{page}/{cast.alice.id}/remove", form_at=page, expect=302)
    assert answer.headers["Location"] == "/"
    assert "You have left acme." in words(read(client, "/"))
    read(client, page, expect=404)


def test_anybody_may_leave(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "erin")
    csrf = csrf_of(read(client, "/"))
    answer = client.post(f"/groups/acme/-/members/{cast.erin.id}/remove", data={"csrf_token": csrf})
    assert answer.status_code == 302
    read(client, "/groups/acme", expect=404)


def test_anybody_who_may_leave_finds_the_button(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "erin"), "/groups/acme/-/members")
    assert f"/groups/acme/-/members/{cast.erin.id}/remove" in page


def test_a_developer_reads_the_members_and_changes_none(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "erin")
    page = read(client, "/groups/acme/-/members")
    assert len(rows(page)) == 2
    assert "Add member" not in words(page)
    send(client, "/groups/acme/-/members", form_at="/", login="charlie", role="10", expect=403)
    for act in ("role", "remove"):
        address = f"/groups/acme/-/members/{cast.alice.id}/{act}"
        send(client, address, form_at="/", role="10", expect=403)


def test_a_stranger_sees_no_members(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "charlie")
    for _, address in MEMBERS.values():
        read(client, address, expect=404)


def test_a_group_without_members_says_what_to_do(cast: Cast, client: FlaskClient) -> None:
    says = words(read(sign_in(client, "dana"), "/groups/other/-/members"))
    assert "Nobody has a role here yet. Add people above" in says
