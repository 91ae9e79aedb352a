"""The runner settings of the three scopes in the browser: token life, who may create runners, how many."""

import re

import pytest
from flask.testing import FlaskClient

from portal.domain.groups import scope_settings
from portal.domain.runners import runner_rules
from portal.domain.runners.runner_rules import Limits, Registrars, TokenLives
from portal.domain.scopes import INSTANCE, Scope
from portal.models import Role
from tests.cast import Cast, csrf_of, sign_in
from tests.web.conftest import Place
from tests.web.reading import fill, links, part, read, words

DAY = 86_400
POSSIBLE = "Write a time such as 12h or 30d, from 2h to 1825d (5 years), or leave it empty."
INSTANCES, ACMES, PLATFORMS, WEBS = (
    "/admin/runner-settings",
    "/groups/acme/-/runner-settings",
    "/groups/acme/platform/-/runner-settings",
    "/acme/web/-/runner-settings",
)


def page_of(place: Place) -> str:
    return place.url.removesuffix("/runners") + "/runner-settings"


def settle(cast: Cast, scope: Scope, **columns: object) -> None:
    row = scope_settings.own_for_update(cast.session, scope)
    for name, value in columns.items():
        setattr(row, name, value)
    cast.session.commit()


@pytest.fixture
def dana(cast: Cast, client: FlaskClient) -> FlaskClient:
    return sign_in(client, "dana")


# Token life


def test_a_life_is_written_kept_and_told_in_words(place: Place) -> None:
    path = page_of(place)
    assert "do not expire." in words(read(place.client, path))
    answer = fill(place.client, f"{path}/token-life", form_at=path, **{"life-own": " 30d "})
    assert answer.headers["Location"] == path
    page = read(place.client, path)
    whose = {"instance": "instance runners", "group": "this group’s runners", "project": "this project’s runners"}
    said = f"Tokens of {whose[place.kind]} live 30 days, because {place.scope.title} says so."
    assert said in words(page)
    assert "Saved. It counts for tokens made from now on." in words(page)
    assert re.search(r'name="life-own"[^>]* value="30d"', page)
    trail = words(read(place.client, place.trail))
    assert f"changed how long tokens live in {place.scope.title}" in trail
    assert "tokens of its own runners live: 30 days" in trail


def test_the_page_says_what_a_life_counts_for(place: Place) -> None:
    says = words(read(place.client, page_of(place)))
    assert "tokens that exist keep the life they were made with" in says
    assert "gitlab-runner 15.3 and newer gets a new token by itself at three quarters" in says


def test_each_kind_of_scope_has_the_fields_that_mean_something_there(place: Place) -> None:
    page = read(place.client, page_of(place))
    names = set(re.findall(r'<input [^>]*name="(life-\w+)"', page))
    assert names == ({"life-own"} if place.kind == "project" else {"life-own", "life-groups", "life-projects"})


def test_the_three_numbers_of_a_scope_do_not_get_mixed_up(cast: Cast, dana: FlaskClient) -> None:
    typed = {"life-own": "2h", "life-groups": "3h", "life-projects": "4h"}
    for path, scope in ((INSTANCES, INSTANCE), (ACMES, cast.acme)):
        fill(dana, f"{path}/token-life", form_at=path, **typed)
        cast.session.expire_all()
        found = runner_rules.token_lives(cast.session, scope)
        assert found == TokenLives(own=7200, groups=10_800, projects=14_400)


def test_a_life_from_above_is_named_and_a_longer_own_one_said_not_to_count(cast: Cast, client: FlaskClient) -> None:
    settle(cast, cast.acme, project_runner_token_expiration_interval=7 * DAY)
    settle(cast, cast.web, runner_token_expiration_interval=30 * DAY)
    says = words(read(sign_in(client, "bob"), WEBS))
    assert "Tokens of this project’s runners live 7 days, because acme says so." in says
    assert "The 30 days written here do not count" in says


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("30", "Add the unit, such as 30h for hours or 30d for days."),
        ("soon", POSSIBLE),
        ("100y", POSSIBLE),
        ("90m", POSSIBLE),
        ("1826d", POSSIBLE),
    ],
)
def test_a_wrong_life_is_named_beside_its_field_and_stays_as_typed(place: Place, typed: str, sentence: str) -> None:
    path = page_of(place)
    answer = fill(place.client, f"{path}/token-life", form_at=path, expect=422, **{"life-own": typed})
    page = answer.get_data(as_text=True)
    assert words(part(page, "life-own-help").split("</div>")[0]).count(sentence) == 1
    assert f'value="{typed}"' in page
    assert '<a href="#life-own">' in page
    assert "One thing needs your attention." in words(page)
    assert runner_rules.token_lives(place.cast.session, place.scope) == TokenLives()


def test_all_wrong_lives_are_named_at_once_and_the_other_forms_keep_what_stands(dana: FlaskClient) -> None:
    typed = {"life-own": "1h", "life-groups": "x", "life-projects": "30d"}
    page = fill(dana, f"{INSTANCES}/token-life", form_at=INSTANCES, expect=422, **typed).get_data(as_text=True)
    assert "2 things need your attention." in words(page)
    assert re.search(r'id="who-groups"[^>]* checked', page)
    assert re.search(r'name="most-groups"[^>]* value="1000"', page)


def test_saving_without_a_change_says_so(acme: Place) -> None:
    fill(acme.client, f"{ACMES}/token-life", form_at=ACMES, **{"life-own": ""})
    assert "Nothing was different, so nothing changed." in words(read(acme.client, ACMES))


def test_the_page_counts_the_runners_whose_tokens_never_expire(place: Place) -> None:
    assert "No runner holds a token that does not expire." in words(read(place.client, page_of(place)))
    place.runner()
    assert "1 runner holds a token that does not expire." in words(read(place.client, page_of(place)))


def test_a_reader_sees_the_values_and_who_can_change_them(cast: Cast, client: FlaskClient) -> None:
    cast.member(cast.charlie, cast.acme, Role.MAINTAINER)
    settle(cast, cast.acme, runner_token_expiration_interval=DAY)
    page = read(sign_in(client, "charlie"), ACMES)
    says = words(page)
    assert "This group’s own runners 1 day" in says
    assert "Runners of its subgroups Nothing is said here" in says
    assert "Owners of acme can change this." in says
    assert 'name="life-own"' not in page
    csrf = csrf_of(read(client, "/"))
    answer = client.post(f"{ACMES}/token-life", data={"csrf_token": csrf, "life-own": "2d"})
    assert answer.status_code == 403


def test_a_developer_and_a_stranger_do_not_get_in(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "erin")
    assert client.get(ACMES).status_code == client.get(WEBS).status_code == 403
    stranger = sign_in(client.application.test_client(), "charlie")
    assert {stranger.get(path).status_code for path in (INSTANCES, ACMES, WEBS)} == {404}


# Who may create runners


def test_the_instance_is_closed_for_groups_and_opened_again(cast: Cast, dana: FlaskClient) -> None:
    fill(dana, f"{INSTANCES}/creation", form_at=INSTANCES, **{"who-projects": "y"})
    assert runner_rules.registrars(cast.session) == Registrars(groups=False, projects=True)
    page = read(dana, INSTANCES)
    assert not re.search(r'id="who-groups"[^>]* checked', page)
    alice = sign_in(dana.application.test_client(), "alice")
    says = words(read(alice, ACMES))
    assert "let nobody else create runners in groups." in says
    assert "Locked: the instance has turned it off" in says
    form = words(read(alice, "/groups/acme/-/runners/new", expect=403))
    assert "let nobody else create runners in groups. Ask one of them to create it." in form
    fill(dana, f"{INSTANCES}/creation", form_at=INSTANCES, **{"who-groups": "y", "who-projects": "y"})
    assert "Owners of this group may create its runners." in words(read(dana, ACMES))
    trail = words(read(dana, "/admin/trail"))
    assert "changed who may create runners in the instance" in trail
    assert "others than administrators may create runners in: groups and projects → projects" in trail


def test_a_group_that_is_off_locks_what_is_below_it_and_is_named_there(cast: Cast, dana: FlaskClient) -> None:
    fill(dana, f"{ACMES}/creation", form_at=ACMES)
    assert "let nobody else create runners in acme and below." in words(read(dana, ACMES))
    below = read(dana, PLATFORMS)
    assert "Locked: acme has turned it off" in words(below)
    assert "When it is on again there, it is on here." in words(below)
    assert "who-enabled" not in below
    assert "let nobody else create runners in acme and below." in words(read(dana, WEBS))
    fill(dana, f"{ACMES}/creation", form_at=ACMES, **{"who-enabled": "y"})
    assert "who-enabled" in read(dana, PLATFORMS)


def test_an_owner_sees_who_may_create_and_changes_nothing(acme: Place) -> None:
    page = read(acme.client, ACMES)
    assert "Owners of this group may create its runners." in words(page)
    assert "Administrators of this portal can change this." in words(page)
    assert not {"who-enabled", "most-groups"} & set(re.findall(r'name="([\w-]+)"', page))
    for form in ("creation", "limits"):
        fill(acme.client, f"{ACMES}/{form}", form_at=ACMES, expect=403)


def test_a_project_has_no_form_for_who_may_create_and_how_many(dana: FlaskClient) -> None:
    csrf = csrf_of(read(dana, WEBS))
    for form in ("creation", "limits"):
        assert dana.post(f"{WEBS}/{form}", data={"csrf_token": csrf}).status_code in (404, 405)


# How many


def test_a_group_shows_its_use_of_the_limit_and_who_set_it(acme: Place) -> None:
    for _ in range(2):
        acme.runner()
    says = words(read(acme.client, ACMES))
    assert "2 of 1,000 , counted are those created or heard of in the last 7 days." in says
    assert "The limit is settled by the instance." in says
    assert "In each of its projects 1,000, as the instance says" in says


def test_an_administrator_sets_limits_for_the_instance_and_for_one_group(cast: Cast, dana: FlaskClient) -> None:
    fill(dana, f"{INSTANCES}/limits", form_at=INSTANCES, **{"most-groups": "50", "most-projects": "0"})
    page = read(dana, ACMES)
    assert "0 of 50 , counted" in words(page)
    assert "Empty leaves it to the instance: 50." in words(page)
    assert "Empty leaves it to the instance: no limit." in words(page)
    fill(dana, f"{ACMES}/limits", form_at=ACMES, **{"most-groups": "1,000", "most-projects": ""})
    cast.session.expire_all()
    assert runner_rules.limits(cast.session, cast.acme) == Limits(groups=1000, projects=None)
    assert "0 of 1,000 , counted" in words(read(dana, PLATFORMS))
    assert "settled by acme" in words(read(dana, PLATFORMS))
    assert "0 runners, without a limit" in words(read(dana, WEBS))
    trail = words(read(dana, "/groups/acme/-/trail"))
    assert "changed how many runners there may be in acme" in trail
    assert "runners in each group, at most: 1,000" in trail


def test_a_full_group_is_told_what_to_do(cast: Cast, client: FlaskClient) -> None:
    cast.runner()
    settle(cast, cast.acme, ci_registered_group_runners=1)
    says = words(read(sign_in(client, "alice"), ACMES))
    assert "1 of 1 , counted" in says
    assert "delete some, or ask an administrator of this portal for a higher limit." in says


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("many", "Write a whole number, such as 50."),
        ("-1", "Write a whole number, such as 50."),
        ("1000001", "Write a whole number up to 1,000,000"),
        ("9" * 40, "Write a whole number up to 1,000,000"),
        ("", "Write a whole number up to 1,000,000, 0 for no limit."),
    ],
)
def test_a_wrong_limit_is_named_beside_its_field(dana: FlaskClient, typed: str, sentence: str) -> None:
    wrong = {"most-groups": typed, "most-projects": "7"}
    page = fill(dana, f"{INSTANCES}/limits", form_at=INSTANCES, expect=422, **wrong).get_data(as_text=True)
    assert sentence in words(part(page, "most-groups-help").split("</div>")[0])
    assert re.search(r'name="most-projects"[^>]* value="7"', page)


def test_the_clean_up_is_linked_where_there_is_one(place: Place) -> None:
    found = [address for address in links(read(place.client, page_of(place))) if address.endswith("/cleanup")]
    assert found == ([] if place.kind == "project" else [page_of(place).replace("runner-settings", "cleanup")])


# Stale runners


def test_a_scope_says_whether_its_clean_up_is_on_and_what_it_deletes(place: Place) -> None:
    page = words(read(place.client, page_of(place)))
    assert "Runners that are silent stay until somebody deletes them" in page
    if place.kind == "project":
        return
    settle(place.cast, place.scope, stale_runner_cleanup_days=30)
    page = words(read(place.client, page_of(place)))
    assert f"Runners silent for 30 days are deleted, by the clean-up of {place.scope.title} ." in page
    settle(place.cast, place.scope, stale_runner_cleanup_legacy_only=True)
    page = words(read(place.client, page_of(place)))
    assert "Runners that a registration token made and that are silent for 30 days are deleted" in page


@pytest.mark.parametrize("path", [PLATFORMS, WEBS])
def test_a_clean_up_above_is_named_below_it(cast: Cast, dana: FlaskClient, path: str) -> None:
    settle(cast, INSTANCE, stale_runner_cleanup_days=365)
    settle(cast, cast.acme, stale_runner_cleanup_days=30)
    page = read(dana, path)
    says = words(page)
    assert "Runners silent for 30 days are deleted, by the clean-up of acme ." in says
    assert "Runners silent for 365 days are deleted, by the clean-up of the instance ." in says
    assert ("The clean-up of acme/platform itself is off." in says) == (path == PLATFORMS)
    assert "/groups/acme/-/cleanup" in links(page)


def test_a_clean_up_of_a_group_that_the_reader_may_not_enter_is_named_without_a_link(
    cast: Cast, client: FlaskClient
) -> None:
    settle(cast, cast.acme, stale_runner_cleanup_days=30)
    page = read(sign_in(client, "bob"), WEBS)
    assert "by the clean-up of acme." in words(page)
    assert "/groups/acme/-/cleanup" not in links(page)


# Where an administrator changes it


def test_an_administrator_is_told_where_to_change_what_counts_for_a_project(cast: Cast, dana: FlaskClient) -> None:
    page = read(dana, WEBS)
    says = words(page)
    assert "Administrators of this portal can change this." not in says
    assert "Change it in the runner settings of acme : “In each of its projects”." in says
    assert "Change it in the runner settings of acme or of the instance ." in says
    assert {ACMES, INSTANCES} <= set(links(page))


def test_an_administrator_finds_the_group_that_has_locked_another(cast: Cast, dana: FlaskClient) -> None:
    settle(cast, cast.acme, runner_registration_enabled=False)
    page = read(dana, PLATFORMS)
    assert "Locked: acme has turned it off" in words(page)
    assert ACMES in links(part(page, "who-head"))
