"""Projects: their front page, new ones, renaming, deleting."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.models import Project, Role
from tests.cast import Cast, sign_in
from tests.web.reading import counts, fill, links, part, poll, read, words


def projects(cast: Cast) -> list[str]:
    cast.session.expire_all()
    return [project.full_path for project in cast.session.scalars(select(Project).order_by(Project.id))]


@pytest.mark.parametrize("role", [Role.MAINTAINER, Role.OWNER])
def test_maintainers_and_owners_of_a_group_create_projects_in_it(cast: Cast, client: FlaskClient, role: Role) -> None:
    cast.member(cast.charlie, cast.platform, role)
    cast.session.commit()
    sign_in(client, "charlie")
    assert "/groups/acme/platform/-/projects/new" in links(read(client, "/groups/acme/platform"))
    answer = fill(client, "/groups/acme/platform/-/projects/new", name="Gateway", path="gateway", expect=302)
    assert answer.headers["Location"] == "/acme/platform/gateway"
    says = words(read(client, "/acme/platform/gateway"))
    assert "The project acme/platform/gateway is created." in says
    assert "Gateway project" in says


def test_a_developer_creates_no_project(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "erin")
    assert "/groups/acme/-/projects/new" not in links(read(client, "/groups/acme"))
    read(client, "/groups/acme/-/projects/new", expect=403)
    fill(client, "/groups/acme/-/projects/new", form_at="/", name="Mine", path="mine", expect=403)
    assert projects(cast) == ["acme/web"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("", "Choose a path."),
        ("edit", "'edit' is reserved."),
        ("web", "There is a group or project at acme/web already."),
        ("platform", "There is a group or project at acme/platform already."),
        ("a/b", "Use letters, digits, '_', '-' and '.' only"),
    ],
)
def test_a_wrong_path_is_named_beside_its_field(cast: Cast, client: FlaskClient, path: str, sentence: str) -> None:
    answer = fill(sign_in(client, "alice"), "/groups/acme/-/projects/new", name="Typed", path=path, expect=422)
    page = answer.get_data(as_text=True)
    assert sentence in words(part(page, "path-help")[:600])
    assert 'value="Typed"' in page
    assert projects(cast) == ["acme/web"]


def test_the_front_page_counts_all_runners_that_serve_the_project(cast: Cast, client: FlaskClient) -> None:
    cast.runner(cast.web)
    cast.runner(cast.acme)
    page = read(sign_in(client, "bob"), "/acme/web")
    assert counts(page)["Never contacted"] == 2
    assert {"/acme/web/-/runners/new", "/acme/web/-/members", "/acme/web/-/trail"} <= set(links(page))


def test_a_developer_sees_the_project_without_its_runners(cast: Cast, client: FlaskClient) -> None:
    page = read(sign_in(client, "erin"), "/acme/web")
    assert counts(page) == {}
    assert "/acme/web/-/runners" not in links(page)


@pytest.mark.parametrize("path", ["/acme/web", "/acme/nothing", "/nothing", "/acme/web/-/runners", "/acme"])
def test_a_stranger_cannot_tell_a_project_from_none(cast: Cast, client: FlaskClient, path: str) -> None:
    read(sign_in(client, "charlie"), path, expect=404)


def test_a_maintainer_renames_the_project_and_its_runner_goes_on(cast: Cast, client: FlaskClient) -> None:
    issued = cast.runner(cast.web)
    sign_in(client, "bob")
    answer = fill(client, "/acme/web/-/edit", name="Site", path="site", description="", expect=302)
    assert answer.headers["Location"] == "/acme/site"
    assert "Saved." in words(read(client, "/acme/site"))
    read(client, "/acme/web", expect=404)
    assert poll(client, issued.token) == 204


def test_a_maintainer_does_not_delete_the_project(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "bob")
    assert "/acme/web/-/delete" not in links(read(client, "/acme/web/-/edit"))
    fill(client, "/acme/web/-/delete", form_at="/", typed="acme/web", expect=403)
    assert projects(cast) == ["acme/web"]


def test_an_owner_deletes_it_with_its_runners_after_typing_its_path(cast: Cast, client: FlaskClient) -> None:
    own, above = cast.runner(cast.web), cast.runner(cast.acme)
    sign_in(client, "alice")
    says = words(read(client, "/acme/web/-/delete"))
    assert "1 runner with its tokens" in says
    assert "subgroup" not in says
    fill(client, "/acme/web/-/delete", typed="web", expect=422)
    fill(client, "/acme/web/-/delete", typed="acme/web", expect=302)
    read(client, "/acme/web", expect=404)
    assert (poll(client, own.token), poll(client, above.token)) == (403, 204)
    assert "deleted the project acme/web" in words(read(client, "/groups/acme/-/trail"))
