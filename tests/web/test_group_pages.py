"""Groups: their front page, new ones, renaming, deleting with everything below."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.models import Group, Role
from tests.cast import Cast, sign_in
from tests.web.reading import counts, fill, links, part, poll, read, words


def groups_at(cast: Cast, path: str) -> list[str]:
    cast.session.expire_all()
    return [group.full_path for group in cast.session.scalars(select(Group)) if group.full_path.startswith(path)]


def test_the_administrator_creates_a_group_and_owns_it(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "dana")
    answer = fill(client, "/admin/groups/new", name="New Group", path="new-group", expect=302)
    assert answer.headers["Location"] == "/groups/new-group"
    page = words(read(client, "/groups/new-group"))
    assert "The group new-group is created." in page
    members = words(read(client, "/groups/new-group/-/members"))
    assert "Dana Kay dana" in members
    assert "Here" in members


def test_only_administrators_create_groups_at_the_top(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    assert "/admin/groups/new" not in links(read(client, "/"))
    read(client, "/admin/groups/new", expect=404)
    fill(client, "/admin/groups/new", form_at="/", name="Mine", path="mine", expect=404)
    assert groups_at(cast, "mine") == []


def test_an_owner_creates_a_subgroup(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    assert "/groups/acme/-/groups/new" in links(read(client, "/groups/acme"))
    fill(client, "/groups/acme/-/groups/new", name="Data", path="data", description="All the data", expect=302)
    assert "All the data" in read(client, "/groups/acme/data")
    assert "/groups/acme/data" in links(read(client, "/groups/acme"))


@pytest.mark.parametrize("who", ["erin", "charlie"])
def test_others_create_no_subgroup(cast: Cast, client: FlaskClient, who: str) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    cast.session.commit()
    sign_in(client, who)
    assert "/groups/acme/-/groups/new" not in links(read(client, "/groups/acme"))
    fill(client, "/groups/acme/-/groups/new", form_at="/", name="Data", path="data", expect=403)
    assert groups_at(cast, "acme/data") == []


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"name": ""}, "name", "Choose a name."),
        ({"name": "-x"}, "name", "Start with a letter, a digit, an emoji or '_'"),
        ({"name": "x" * 256}, "name", "It is too long: at most 255 characters."),
        ({"path": ""}, "path", "Choose a path."),
        ({"path": "two words"}, "path", "Use letters, digits, '_', '-' and '.' only"),
        ({"path": "x.git"}, "path", "It cannot end in '.', '.git' or '.atom'."),
        ({"path": "new"}, "path", "'new' is reserved. Choose another path."),
        ({"path": "PLATFORM"}, "path", "There is a group or project at acme/PLATFORM already."),
        ({"path": "web"}, "path", "There is a group or project at acme/web already."),
        ({"description": "x" * 1025}, "description", "It is too long: at most 1024 characters."),
    ],
)
def test_a_wrong_name_or_path_is_named_and_what_was_typed_stays(
    cast: Cast, client: FlaskClient, fields: dict[str, str], field: str, sentence: str
) -> None:
    typed = {"name": "Data Team", "path": "data-team", "description": "Typed", **fields}
    answer = fill(sign_in(client, "alice"), "/groups/acme/-/groups/new", **typed, expect=422)
    page = answer.get_data(as_text=True)
    beside = part(page, f"{field}-help")
    assert sentence in words(beside[: beside.index("</div>")])
    assert f'<a href="#{field}">' in page
    for name in {"name", "path"} - {field}:
        assert f'value="{typed[name]}"' in page
    assert groups_at(cast, "acme/") == ["acme/platform"]


@pytest.mark.parametrize("path", ["admin", "groups", "api", "static", "healthz", "-"])
def test_a_group_at_the_top_cannot_take_an_address_of_the_portal(cast: Cast, client: FlaskClient, path: str) -> None:
    answer = fill(sign_in(client, "dana"), "/admin/groups/new", name="Taken", path=path, expect=422)
    assert "Choose another path." in words(answer.get_data(as_text=True))
    assert groups_at(cast, path) == []


def test_the_front_page_counts_the_runners_for_those_who_may_see_them(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner(cast.web)
    cast.runner(cast.acme)
    sign_in(client, "alice")
    poll(client, issued.token)
    page = read(client, "/groups/acme")
    assert counts(page) == {"Online": 1, "Offline": 0, "Stale": 0, "Never contacted": 1}
    assert "/groups/acme/-/runners?status=online" in links(page)
    assert {"/groups/acme/platform", "/acme/web", "/groups/acme/-/runners/new"} <= set(links(page))


def test_the_front_page_tells_a_developer_why_there_are_no_runners_on_it(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "erin"), "/groups/acme")
    assert "Your role in acme does not include that." in words(page)
    assert counts(page) == {}
    assert not {"/groups/acme/-/runners", "/groups/acme/-/trail", "/groups/acme/-/edit"} & set(links(page))


def test_a_path_is_found_whatever_its_case(cast: Cast, client: FlaskClient) -> None:
    assert "acme" in words(read(sign_in(client, "alice"), "/groups/ACME"))


@pytest.mark.parametrize("path", ["/groups/acme", "/groups/other", "/groups/nowhere", "/groups/acme/web"])
def test_a_stranger_cannot_tell_a_group_from_none(cast: Cast, client: FlaskClient, path: str) -> None:
    says = words(read(sign_in(client, "charlie"), path, expect=404))
    assert says == words(read(client, "/groups/certainly/nowhere", expect=404))


def test_renaming_moves_everything_below_and_no_token_ends(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner(cast.web)
    sign_in(client, "alice")
    answer = fill(client, "/groups/acme/-/edit", name="Apex", path="apex", description="New", expect=302)
    assert answer.headers["Location"] == "/groups/apex"
    assert "Linux build fleet" in read(client, f"/apex/web/-/runners/{issued.runner.id}")
    read(client, "/groups/apex/platform")
    read(client, "/groups/acme", expect=404)
    assert poll(client, issued.token) == 204
    trail = words(read(client, "/groups/apex/-/trail"))
    assert "changed the group apex" in trail
    assert "path: acme → apex" in trail


def test_a_group_cannot_take_anothers_path(cast: Cast, client: FlaskClient) -> None:
    fill(sign_in(client, "alice"), "/groups/acme/-/edit", name="Acme", path="other", expect=422)
    assert groups_at(cast, "acme") == ["acme", "acme/platform"]


def test_the_settings_form_holds_what_is_there(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "alice"), "/groups/acme/platform/-/edit")
    assert 'value="Platform"' in page
    assert 'value="platform"' in page
    assert "/groups/acme/platform/-/delete" in links(page)


def test_the_delete_page_says_what_goes_along(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner(cast.web)
    sign_in(client, "alice")
    poll(client, issued.token)
    says = words(read(client, "/groups/acme/-/delete"))
    assert "1 subgroup and 1 project" in says
    assert "1 runner with its tokens" in says
    assert "1 machine will be refused" in says
    assert "Delete group and disconnect 1 machine" in says


@pytest.mark.parametrize("typed", ["", "Acme", "acme/platform", "yes"])
def test_nothing_is_deleted_until_the_path_is_typed(cast: Cast, client: FlaskClient, typed: str) -> None:
    answer = fill(sign_in(client, "alice"), "/groups/acme/-/delete", typed=typed, expect=422)
    assert "Type acme exactly" in words(answer.get_data(as_text=True))
    assert groups_at(cast, "acme") == ["acme", "acme/platform"]


def test_a_deleted_group_takes_everything_below_along(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner(cast.web)
    sign_in(client, "alice")
    poll(client, issued.token)
    fill(client, "/groups/acme/-/delete", typed="acme", expect=302)
    assert "acme is deleted and can be restored" in words(read(client, "/"))
    for path in ("/groups/acme", "/groups/acme/platform", "/acme/web"):
        read(client, path, expect=404)
    assert poll(client, issued.token) == 403
    trail = words(read(sign_in(client.application.test_client(), "dana"), "/admin/trail"))
    assert "Alice Lam deleted the group acme" in trail


def test_a_maintainer_of_the_group_changes_nothing_of_it(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    cast.session.commit()
    sign_in(client, "charlie")
    for page in ("/groups/acme/-/edit", "/groups/acme/-/delete"):
        read(client, page, expect=403)
        fill(client, page, form_at="/", name="Mine", path="mine", typed="acme", expect=403)
    assert groups_at(cast, "") == ["acme", "acme/platform", "other"]
