"""The pages of enrolment keys: made and shown once, watched and revoked, in every scope, by who may."""

from __future__ import annotations

import html
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.enrolment import enrolment_keys, enrolment_use
from portal.domain.enrolment.enrolment_keys import IssuedEnrolmentKey
from portal.domain.enrolment.enrolment_use import Asked
from portal.domain.people import people
from portal.domain.runners import runner_rules
from portal.domain.runners.runner_rules import Registrars
from portal.domain.scopes import INSTANCE, Scope
from portal.models import EnrolmentKey, Role, Runner
from tests.api.people import block_on, token_on
from tests.cast import Cast, csrf_of, hidden, send, sign_in
from tests.domain.queries import asked
from tests.web.conftest import Place

SOON = (now().date() + timedelta(days=2)).isoformat()  # also when the tests go past midnight
CHOSEN = {"name": "Rack 7", "tags": "docker, linux", "most_runners": "3", "expires_at": SOON}


def keys(place: Place) -> str:
    return place.url.replace("/runners", "/enrolment-keys")


def create(place: Place, **fields: str):
    return send(place.client, f"{keys(place)}/new", **{**CHOSEN, **fields})


def made(place: Place, **more: object) -> IssuedEnrolmentKey:
    """A key in the place that its person made."""
    who = {"instance": place.cast.dana, "group": place.cast.alice, "project": place.cast.bob}[place.kind]
    return place.cast.enrolment_key(who, place.scope, **more)  # type: ignore[arg-type]


def use(cast: Cast, issued: IssuedEnrolmentKey, address: str = "192.0.2.7") -> Runner:
    key = enrolment_keys.find(cast.session, issued.token)
    runner = enrolment_use.enrol(cast.session, key, Asked(), address=address, request_id="").runner
    cast.session.commit()
    return runner


def text_of(client: FlaskClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return html.unescape(answer.get_data(as_text=True))


# Made, and shown once


def test_a_key_is_made_and_shown(place: Place, session: Session) -> None:
    answer = create(place, networks="192.0.2.0/24\n2001:db8::/32", protected="y", maximum_timeout="3600")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    page = answer.get_data(as_text=True)
    token, key = token_on(page), session.scalars(select(EnrolmentKey)).one()
    assert key.digest == tokens.digest(token)
    assert (key.name, key.most_runners, key.tag_list) == ("Rack 7", 3, ["docker", "linux"])
    assert (key.networks, key.access_level) == (["192.0.2.0/24", "2001:db8::/32"], 1)
    assert (key.group_id, key.project_id) == (
        place.scope.group and place.scope.group.id,
        place.scope.project and place.scope.project.id,
    )
    for block in ("enrol", "cloud-init", "curl", "terraform-apply", "ansible-run"):
        assert token in block_on(page, block)
    for block in ("terraform", "ansible"):
        assert token not in block_on(page, block)
    assert f'runner_type = "{place.kind}_type"' in block_on(page, "terraform")
    assert (f"{place.kind}_id" in block_on(page, "terraform")) is (place.kind != "instance")
    assert page.index("I have kept it") > page.index('id="block-ansible-run"')
    assert "history keeps what was pasted" in page
    assert "the token" not in page.lower().split("<aside")[0].split("this key is shown once")[0]


def test_it_is_never_shown_again_and_the_same_form_makes_no_second(place: Place, session: Session) -> None:
    path = f"{keys(place)}/new"
    form = place.client.get(path).get_data(as_text=True)
    fields = {**CHOSEN, "csrf_token": csrf_of(form), "request_key": hidden(form, "request_key")}
    token = token_on(place.client.post(path, data=fields).get_data(as_text=True))
    again = place.client.post(path, data=fields, follow_redirects=True)
    assert "This form was already sent" in again.get_data(as_text=True)
    key = session.scalars(select(EnrolmentKey)).one()
    for page in (keys(place), f"{keys(place)}/{key.id}", f"{keys(place)}/{key.id}/revoke", place.trail):
        assert token not in text_of(place.client, page)
    assert again.request.path == keys(place)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": ""}, "Say what it is for"),
        ({"most_runners": "many"}, "Write a whole number"),
        ({"most_runners": "0"}, "1 to 10,000"),
        ({"most_runners": "9" * 40}, "1 to 10,000"),
        ({"expires_at": "soon"}, "Choose a day from"),
        ({"expires_at": now().date().isoformat()}, "Choose a day from"),
        ({"networks": "192.0.2.7/24"}, "write 192.0.2.0/24"),
        ({"tags": ""}, "Add at least one tag"),
        ({"maximum_timeout": "5"}, "at least 10 minutes"),
        ({"token_expiration_interval": "soon"}, "Token life"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_what_was_typed_stays(
    acme: Place, session: Session, wrong: dict[str, str], said: str
) -> None:
    answer = create(acme, description="Kept as typed", **wrong)
    page = html.unescape(answer.get_data(as_text=True))
    assert answer.status_code == 422
    assert said in page
    assert 'value="Kept as typed"' in page
    assert session.scalar(select(func.count()).select_from(EnrolmentKey)) == 0


def test_everything_that_is_wrong_is_told_at_once(acme: Place) -> None:
    page = create(acme, name="", most_runners="x", maximum_timeout="x", networks="x").get_data(as_text=True)
    assert page.count('aria-invalid="true"') == 4


def test_the_summary_counts_its_lines_and_has_them_in_the_order_of_the_form(acme: Place) -> None:
    wrong = "\n".join(("x", "y"))
    page = html.unescape(
        create(acme, name="", most_runners="x", tags="", networks=wrong, maximum_timeout="5").get_data(as_text=True)
    )
    assert "6 things need your attention." in page
    summary = page.split("things need your attention")[1].split("</ul>")[0]
    fields = [each.split('"')[0] for each in summary.split('<a href="#')[1:]]
    places = [page.index(f'id="{name}"') for name in fields]
    assert places == sorted(places)
    assert summary.count("<li>") == 6


# Who may


@pytest.mark.parametrize(
    ("kind", "may"),
    [
        ("instance", {"dana"}),
        ("group", {"dana", "alice"}),
        ("project", {"dana", "alice", "bob"}),
    ],
)
def test_who_may_create_runners_may_make_watch_and_revoke_keys(
    app: Flask, cast: Cast, kind: str, may: set[str]
) -> None:
    frank = cast.person("frank")
    cast.member(frank, cast.acme, Role.MAINTAINER)  # who reads the group's runners, and creates its projects'
    cast.session.commit()
    scope: Scope = {"instance": INSTANCE, "group": cast.acme, "project": cast.web}[kind]
    base = {"instance": "/admin", "group": "/groups/acme/-", "project": "/acme/web/-"}[kind] + "/enrolment-keys"
    key = cast.enrolment_key(cast.dana, scope).record.id
    sees = {"instance": {"dana"}, "group": {"dana", "alice", "erin", "frank"}}
    seen = sees.get(kind, {"dana", "alice", "erin", "frank", "bob"})
    may = may | {"frank"} if kind == "project" else may
    for name in ("dana", "alice", "bob", "charlie", "erin", "frank"):
        client = sign_in(app.test_client(), name)
        expected = 200 if name in may else 403 if name in seen else 404
        for path in ("", "/new", f"/{key}", f"/{key}/revoke"):
            assert client.get(base + path).status_code == expected, (name, path)
        form = csrf_of(client.get("/").get_data(as_text=True))
        for path in ("/new", f"/{key}/revoke"):
            answer = client.post(base + path, data={"csrf_token": form})
            assert (answer.status_code in (403, 404)) is (name not in may), (name, path)


def test_where_only_administrators_create_runners_keys_can_be_revoked_but_not_made(
    acme: Place, session: Session
) -> None:
    issued = made(acme)
    runner_rules.change_registrars(acme.cast.session, acme.cast.as_(acme.cast.dana), Registrars(False, True))
    acme.cast.session.commit()
    assert acme.client.get(f"{keys(acme)}/new").status_code == 403
    page = text_of(acme.client, keys(acme))
    assert "Create enrolment key" not in page
    assert "Without power" in page
    assert "let nobody else create runners in groups" in page
    send(acme.client, f"{keys(acme)}/{issued.record.id}/revoke", expect=303)
    assert session.scalars(select(EnrolmentKey.revoked_at)).one() is not None


def test_a_key_of_another_scope_is_not_there(place: Place) -> None:
    foreign = place.cast.enrolment_key(place.cast.dana, place.cast.other)
    if place.kind == "instance":  # which is above all others
        page = text_of(place.client, f"{keys(place)}/{foreign.record.id}")
        assert '<a href="/groups/other">other</a>' in page
        return
    assert place.client.get(f"{keys(place)}/{foreign.record.id}").status_code == 404
    assert place.client.get(f"{keys(place)}/{foreign.record.id}/revoke").status_code == 404


# Watched and revoked


def test_without_keys_the_page_says_what_they_are_for(place: Place) -> None:
    page = text_of(place.client, keys(place))
    assert "no enrolment keys" in page
    assert "Create the first one" in page


def test_the_list_tells_what_a_key_makes_and_how_it_stands(place: Place) -> None:
    issued = made(place, networks=("192.0.2.0/24",))
    use(place.cast, issued)
    page = text_of(place.client, keys(place))
    for said in ("a test's", f"{issued.record.short}…", "1 of 10", "docker", "from 192.0.2.0/24", "Good"):
        assert said in page
    assert "from 192.0.2.7" in page
    assert keys(place) in text_of(place.client, place.url)


def test_the_list_asks_no_query_per_key(acme: Place, app: Flask, session: Session) -> None:
    def statements() -> int:
        with asked(session) as found:
            text_of(acme.client, keys(acme))
        return len(found)

    made(acme)
    before = statements()
    for number in range(4):
        owner = acme.cast.person(f"owner-{number}")
        acme.cast.member(owner, acme.cast.acme, Role.OWNER)
        acme.cast.enrolment_key(owner)
    assert statements() == before


def test_its_page_shows_its_runners_its_uses_and_what_was_refused(place: Place, app: Flask, session: Session) -> None:
    issued = made(place)
    runner = use(place.cast, issued, "198.51.100.7")
    refused = {"PRIVATE-TOKEN": issued.token}
    app.test_client().post("/api/v4/user/runners", headers=refused, json={"tag_list": ["gpu"]})
    page = text_of(place.client, f"{keys(place)}/{issued.record.id}")
    assert f"{place.url}/{runner.id}" in page
    assert "created the runner" in page
    assert "from 198.51.100.7" in page
    assert f"({issued.record.short}…)</b> was refused" in page
    assert "tag_list is settled by the enrolment key: docker, linux." in page
    assert "made the enrolment key" in page


def test_a_runners_page_names_the_key_that_made_it(place: Place) -> None:
    issued = made(place)
    runner = use(place.cast, issued)
    page = text_of(place.client, f"{place.url}/{runner.id}")
    assert "with the enrolment key" in page
    assert f'href="{keys(place)}/{issued.record.id}"' in page


def test_who_only_reads_runners_sees_the_keys_name_and_no_link(acme: Place, app: Flask) -> None:
    frank = acme.cast.person("frank")
    acme.cast.member(frank, acme.cast.acme, Role.MAINTAINER)
    issued = made(acme)
    runner = use(acme.cast, issued)
    page = text_of(sign_in(app.test_client(), "frank"), f"{acme.url}/{runner.id}")
    assert "with the enrolment key" in page
    assert "enrolment-keys" not in page


def test_a_revoked_key_says_so_and_its_runners_stay(place: Place, session: Session) -> None:
    issued = made(place)
    runner = use(place.cast, issued)
    path = f"{keys(place)}/{issued.record.id}"
    page = text_of(place.client, f"{path}/revoke")
    assert "Whatever uses this key is refused from then on" in page
    assert "It could still create 9 of 10 runners" in page
    assert "The runner that it made stays" in page
    send(place.client, f"{path}/revoke", expect=303)
    page = text_of(place.client, path)
    assert "is revoked and creates no more runners" in page
    assert f"{place.url}/{runner.id}" in page
    assert "has ended already" in text_of(place.client, f"{path}/revoke")
    assert session.get(Runner, runner.id) is not None


def test_a_blocked_creators_key_says_why_it_creates_nothing(acme: Place, app: Flask) -> None:
    issued = made(acme)
    people.block(acme.cast.session, acme.cast.as_(acme.cast.dana), acme.cast.alice)
    acme.cast.session.commit()
    dana = sign_in(app.test_client(), "dana")
    for path in (keys(acme), f"{keys(acme)}/{issued.record.id}"):
        assert "Alice Lam, who made it, is blocked." in text_of(dana, path)


# Where they are found


def test_the_instance_shows_the_keys_of_everywhere_with_their_scopes_or_only_its_own(
    app: Flask, cast: Cast, session: Session
) -> None:
    for who, scope in ((cast.dana, INSTANCE), (cast.alice, cast.acme), (cast.bob, cast.web), (cast.dana, cast.other)):
        cast.enrolment_key(who, scope)
    dana = sign_in(app.test_client(), "dana")
    page = text_of(dana, "/admin/enrolment-keys")
    assert "4 keys" in page
    for link in ("/groups/acme", "/acme/web", "/groups/other"):
        assert f'<a href="{link}">' in page
    own = text_of(dana, "/admin/enrolment-keys?keys=own")
    assert "1 key<" in own
    assert 'href="/groups/other"' not in own


def test_a_groups_page_shows_those_below_and_nothing_of_elsewhere(acme: Place) -> None:
    made(acme)
    acme.cast.enrolment_key(acme.cast.bob, acme.cast.web)
    acme.cast.enrolment_key(acme.cast.dana, acme.cast.other)
    page = text_of(acme.client, keys(acme))
    assert "2 keys" in page
    assert '<a href="/acme/web">acme/web</a>' in page
    assert "1 key<" in text_of(acme.client, f"{keys(acme)}?keys=own")


def test_a_long_list_goes_on_over_pages(acme: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.web.enrolment_key_pages.SHOWN_KEYS", 2)
    for _ in range(3):
        made(acme)
    page = text_of(acme.client, keys(acme))
    assert "1 to 2 of 3 keys" in page
    assert f'rel="next" href="{keys(acme)}?page=2"' in page
    assert "There are no keys on this page." in text_of(acme.client, f"{keys(acme)}?page=9")


def test_the_overview_of_many_scopes_takes_no_query_per_key(app: Flask, cast: Cast, session: Session) -> None:
    dana = sign_in(app.test_client(), "dana")

    def statements() -> int:
        with asked(session) as found:
            text_of(dana, "/admin/enrolment-keys")
        return len(found)

    cast.enrolment_key(cast.alice, cast.acme)
    cast.enrolment_key(cast.bob, cast.web)
    before = statements()
    for number in range(4):
        scope = cast.project(f"p-{number}", cast.group(f"g-{number}", inside=cast.acme))
        cast.enrolment_key(cast.alice, scope)
        cast.enrolment_key(cast.dana, scope)
    assert statements() == before


def test_keys_are_a_tab_beside_the_runners_for_those_who_may_make_them(place: Place, app: Flask) -> None:
    tab = f'<a href="{keys(place)}">Enrolment keys</a>'
    assert tab in text_of(place.client, place.url)
    assert f'<a href="{keys(place)}" aria-current="page">' in text_of(place.client, keys(place))
    assert f'<a href="{keys(place)}/new">enrolment key</a> lets each create its own runner' in text_of(
        place.client, f"{place.url}/new"
    )


def test_who_only_reads_runners_has_no_such_tab(acme: Place, app: Flask) -> None:
    frank = acme.cast.person("frank")
    acme.cast.member(frank, acme.cast.acme, Role.MAINTAINER)
    acme.cast.session.commit()
    assert "Enrolment keys" not in text_of(sign_in(app.test_client(), "frank"), acme.url)


def test_a_persons_page_lists_the_keys_that_they_made(acme: Place, app: Flask) -> None:
    made(acme)
    acme.cast.enrolment_key(acme.cast.bob, acme.cast.web)
    dana = sign_in(app.test_client(), "dana")
    page = text_of(dana, f"/admin/people/{acme.cast.alice.id}")
    assert "Enrolment keys that Alice Lam made" in page
    assert page.count("/admin/enrolment-keys/") == 2  # one key: its page, and revoking it
    assert f"{acme.cast.charlie.name} has made no enrolment key." in text_of(
        dana, f"/admin/people/{acme.cast.charlie.id}"
    )


def test_blocking_a_person_says_that_their_keys_stop(acme: Place, app: Flask) -> None:
    made(acme)
    dana = sign_in(app.test_client(), "dana")
    assert "Their 1 enrolment key creates no more runners" in text_of(
        dana, f"/admin/people/{acme.cast.alice.id}/block"
    )
    assert "enrolment key" not in text_of(dana, f"/admin/people/{acme.cast.charlie.id}/block")


# Watched while machines enrol


def test_the_live_part_answers_only_when_something_has_changed(place: Place) -> None:
    issued = made(place)
    path = f"{keys(place)}/{issued.record.id}"
    page = text_of(place.client, path)
    assert f'hx-get="{path}/uses"' in page
    seen = hidden(page, "seen")
    assert place.client.get(f"{path}/uses?seen={seen}").status_code == 204
    runner = use(place.cast, issued, "198.51.100.7")
    part = text_of(place.client, f"{path}/uses?seen={seen}")
    assert "<html" not in part
    assert f"{place.url}/{runner.id}" in part
    assert "1 of 10 runners" in part
    assert hidden(part, "seen") != seen
    assert place.client.get(f"{path}/uses?seen={hidden(part, 'seen')}").status_code == 204


# What goes with a person, a group, a project


def test_deleting_a_person_says_what_becomes_of_their_keys(acme: Place, app: Flask) -> None:
    made(acme)
    page = text_of(sign_in(app.test_client(), "dana"), f"/admin/people/{acme.cast.alice.id}/delete")
    assert "1 enrolment key, revoked: it creates no more runners" in page


def test_deleting_a_group_says_what_becomes_of_the_keys_below(acme: Place) -> None:
    made(acme)
    acme.cast.enrolment_key(acme.cast.bob, acme.cast.web)
    page = text_of(acme.client, "/groups/acme/-/delete")
    assert "2 enrolment keys, which create no runners meanwhile" in page


def test_the_trail_can_be_narrowed_to_keys(acme: Place) -> None:
    use(acme.cast, made(acme))
    page = text_of(acme.client, f"{acme.trail}?kind=enrolment_key")
    assert "enrolment key a test's" in page
    assert "created the runner" in page
