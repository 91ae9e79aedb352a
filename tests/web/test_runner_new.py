"""Creating a runner: the form, what it refuses, and the page that shows the token once."""

import html
import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from portal.models import Runner
from tests.cast import Cast, csrf_of, hidden, send, sign_in
from tests.web.conftest import Place
from tests.web.reading import links, part, poll, read, token_of, verify, words

TYPED = {
    "tags": "docker, <b>linux",
    "run_untagged": "y",
    "description": 'The "big" fleet',
    "maintenance_note": "Rack 7\nCall Bob",
    "paused": "y",
    "protected": "y",
    "maximum_timeout": "3600",
}


def runners_in(place: Place) -> list[Runner]:
    place.cast.session.expire_all()
    return list(place.cast.session.scalars(select(Runner).order_by(Runner.id)))


def test_the_form_has_every_setting_and_locked_only_for_a_project(place: Place) -> None:
    page = read(place.client, f"{place.url}/new")
    names = re.findall(r'<(?:input|textarea)[^>]* name="(\w+)"', page)
    assert [name for name in names if name not in ("csrf_token", "request_key")] == [
        "tags",
        "run_untagged",
        "protected",
        "description",
        "maintenance_note",
        "paused",
        *(["locked"] if place.kind == "project" else []),
        "maximum_timeout",
        "token_expiration_interval",
        "machines_forgotten_after",
    ]


WRONG = [
    ({"tags": " , "}, "tags", "Add at least one tag, or let the runner take untagged jobs"),
    ({"tags": ",".join(f"t{n}" for n in range(51))}, "tags", "Too many tags: 51. Keep to 50."),
    ({"tags": "x" * 256}, "tags", "A tag is too long (at most 255 characters)"),
    ({"description": "x" * 1025}, "description", "It is too long: at most 1024 characters."),
    ({"maintenance_note": "x" * 1025}, "maintenance_note", "It is too long: at most 1024 characters."),
    ({"maximum_timeout": "599"}, "maximum_timeout", "at least 10 minutes (600 seconds)"),
    ({"maximum_timeout": "2147483648"}, "maximum_timeout", "It is too long: at most 2147483647 seconds"),
    ({"maximum_timeout": "1h"}, "maximum_timeout", "Write whole seconds"),
    ({"maximum_timeout": "-600"}, "maximum_timeout", "Write whole seconds"),
    ({"maximum_timeout": "٦٠٠"}, "maximum_timeout", "Write whole seconds"),
    ({"token_expiration_interval": "30"}, "token_expiration_interval", "Add the unit, such as 30h"),
    ({"token_expiration_interval": "59m"}, "token_expiration_interval", "Write a time from 1h to 1825d"),
    ({"token_expiration_interval": "1826d"}, "token_expiration_interval", "Write a time from 1h to 1825d"),
    ({"machines_forgotten_after": "soon"}, "machines_forgotten_after", "such as 90m, 12h, 30d or 2w"),
    ({"machines_forgotten_after": "59m"}, "machines_forgotten_after", "Write a time from 1h to 90d"),
    ({"machines_forgotten_after": "91d"}, "machines_forgotten_after", "Write a time from 1h to 90d"),
]


@pytest.mark.parametrize(("fields", "field", "sentence"), WRONG)
def test_a_wrong_value_is_named_beside_its_field_and_in_the_summary(
    acme: Place, fields: dict[str, str], field: str, sentence: str
) -> None:
    answer = acme.create(**fields)
    page = answer.get_data(as_text=True)
    assert answer.status_code == 422
    summary = words(page[page.index('role="alert"') : page.index('<form class="card')])
    assert sentence in summary
    assert f'<a href="#{field}">' in page
    beside = part(page, f"{field}-help")
    assert sentence in words(beside[: beside.index("</div>")])
    assert re.search(rf'<(?:input|textarea) id="{field}"[^>]*aria-invalid="true"', page)
    assert runners_in(acme) == []


def test_all_wrong_values_are_named_at_once(acme: Place) -> None:
    wrong = {"tags": "", "description": "x" * 1025, "maximum_timeout": "5", "token_expiration_interval": "long"}
    page = words(acme.create(**wrong).get_data(as_text=True))
    assert "4 things need your attention." in page


def test_nothing_typed_is_lost_when_a_value_is_refused(place: Place) -> None:
    locked = {"locked": "y"} if place.kind == "project" else {}
    answer = place.create(**TYPED | locked | {"maximum_timeout": "5"})
    page = answer.get_data(as_text=True)
    assert answer.status_code == 422
    assert 'value="docker, &lt;b&gt;linux"' in page
    assert 'value="The &#34;big&#34; fleet"' in page
    assert ">Rack 7\nCall Bob</textarea>" in page.replace("\r\n", "\n")
    assert 'value="5"' in page
    for name in ("run_untagged", "paused", "protected", *locked):
        assert re.search(rf'<input id="{name}"[^>]* checked', page), name


def test_the_corrected_form_makes_the_runner(place: Place) -> None:
    refused = place.create(tags="").get_data(as_text=True)
    kept = {"csrf_token": csrf_of(refused), "request_key": hidden(refused, "request_key")}
    token_of(place.client.post(f"{place.url}/new", data={**kept, "tags": "docker"}))
    assert len(runners_in(place)) == 1


def test_a_runner_gets_all_that_was_chosen(place: Place) -> None:
    token_of(place.create(**TYPED, locked="y"))
    (runner,) = runners_in(place)
    assert runner.type.name.lower() == place.kind
    assert (runner.group, runner.project) == (place.scope.group, place.scope.project)
    assert runner.tag_list == ["docker", "<b>linux"]
    assert (runner.description, runner.maintenance_note) == ('The "big" fleet', "Rack 7\nCall Bob")
    assert (runner.run_untagged, runner.paused, runner.protected) == (True, True, True)
    assert runner.locked
    assert runner.maximum_timeout == 3600


def test_a_form_without_its_key_makes_no_runner(acme: Place) -> None:
    answer = acme.create(request_key="no key")
    assert answer.status_code == 422
    assert "Open the page again." in answer.get_data(as_text=True)
    assert runners_in(acme) == []


def test_the_answer_shows_a_token_that_works_and_forbids_to_keep_it(place: Place) -> None:
    answer = place.create(description="Build fleet")
    token = token_of(answer)
    assert answer.headers["Cache-Control"] == "no-store"
    assert token.startswith(f"glrt-t{['instance', 'group', 'project'].index(place.kind) + 1}_")
    assert "This token is shown once." in words(answer.get_data(as_text=True))
    assert verify(place.client, token) == 200
    assert poll(place.client, token) == 204


def test_the_answer_has_a_section_for_each_way_to_run_a_runner(place: Place) -> None:
    answer = place.create()
    page, token = answer.get_data(as_text=True), token_of(answer)
    sections = re.findall(r"<h2>(Shell|docker-compose|Helm)</h2>", page)
    assert sections == ["Shell", "docker-compose", "Helm"]
    says = words(page)
    assert all(system in says for system in ("Linux", "macOS", "Windows"))
    for section in ("shell", "docker-compose", "helm"):
        inside = part(page, section)
        assert token in inside[: inside.index("</details>")]
    assert says.count("https://portal.example.com") >= 3


def test_every_block_has_its_own_copy_button(place: Place) -> None:
    page = place.create().get_data(as_text=True)
    blocks = re.findall(r'<pre id="([^"]+)"', page)
    assert len(blocks) >= 6
    assert [f"block-{name}" for name in re.findall(r'data-copy="block-([^"]+)"', page)] == blocks
    assert 'data-copy="token"' in page


def test_no_block_uses_an_option_that_gitlab_runner_refuses_with_such_a_token(place: Place) -> None:
    page = place.create(**TYPED).get_data(as_text=True)
    blocks = html.unescape(" ".join(re.findall(r"<pre [^>]*>(.*?)</pre>", page, re.S)))
    assert "gitlab-runner register" in blocks
    refused = re.compile(
        r"--(registration-token|locked|access-level|run-untagged|maximum-timeout|paused|tag-list|maintenance-note)\b"
        r"|\b(REGISTER_|RUNNER_)(LOCKED|ACCESS_LEVEL|RUN_UNTAGGED|MAXIMUM_TIMEOUT|PAUSED|TAG_LIST|MAINTENANCE_NOTE)\b"
        r"|\b(runUntagged|registrationToken|runnerRegistrationToken|locked|maximumTimeout)\s*:"
    )
    assert refused.findall(blocks) == []


def test_the_answer_says_what_was_chosen_and_leads_on(place: Place) -> None:
    page = place.create(tags="docker", maximum_timeout="5400", paused="y", protected="y").get_data(as_text=True)
    (runner,) = runners_in(place)
    says = words(page)
    assert "Takes jobs on protected refs only · tagged jobs only" in says
    assert "Jobs end after 1 hour 30 minutes at the latest" in says
    assert "Paused: it takes no jobs until somebody resumes it" in says
    assert f"{place.url}/{runner.id}" in links(page)
    assert f"{place.url}/{runner.id}/reset-token" in links(page)
    assert "Waiting for a machine to register" in says


def test_the_same_form_sent_again_shows_no_token_and_makes_no_second_runner(place: Place) -> None:
    form = read(place.client, f"{place.url}/new")
    fields = {"csrf_token": csrf_of(form), "request_key": hidden(form, "request_key"), "tags": "docker"}
    token = token_of(place.client.post(f"{place.url}/new", data=fields))
    again = place.client.post(f"{place.url}/new", data=fields)
    (runner,) = runners_in(place)
    assert again.status_code == 303
    assert again.headers["Location"] == f"{place.url}/{runner.id}"
    assert token not in again.get_data(as_text=True)
    landed = read(place.client, again.headers["Location"])
    assert token not in landed
    assert "cannot be shown again; if it is lost, reset the token." in words(landed)
    assert verify(place.client, token) == 200


def test_the_same_form_sent_again_with_other_values_changes_nothing(acme: Place) -> None:
    form = read(acme.client, f"{acme.url}/new")
    fields = {"csrf_token": csrf_of(form), "request_key": hidden(form, "request_key"), "tags": "docker"}
    acme.client.post(f"{acme.url}/new", data=fields)
    assert acme.client.post(f"{acme.url}/new", data=fields | {"tags": "other"}).status_code == 303
    (runner,) = runners_in(acme)
    assert runner.tag_list == ["docker"]


def test_another_form_makes_another_runner_with_another_token(place: Place) -> None:
    assert token_of(place.create()) != token_of(place.create())
    assert len(runners_in(place)) == 2


def test_another_persons_own_form_makes_another_runner(acme: Place) -> None:
    first = token_of(acme.create())
    dana = sign_in(acme.client.application.test_client(), "dana")
    second = token_of(send(dana, f"{acme.url}/new", tags="docker"))
    assert first != second
    assert [runner.creator.username for runner in runners_in(acme)] == ["alice", "dana"]


def test_another_person_who_sends_alices_form_sees_no_token(acme: Place) -> None:
    form = read(acme.client, f"{acme.url}/new")
    fields = {"request_key": hidden(form, "request_key"), "tags": "docker"}
    token = token_of(acme.client.post(f"{acme.url}/new", data={"csrf_token": csrf_of(form), **fields}))
    dana = sign_in(acme.client.application.test_client(), "dana")
    answer = send(dana, f"{acme.url}/new", **fields, expect=303)
    assert token not in answer.get_data(as_text=True)
    assert len(runners_in(acme)) == 1


def test_asking_again_for_the_address_of_the_created_page_gives_an_empty_form(place: Place) -> None:
    token = token_of(place.create(description="Build fleet"))
    page = read(place.client, f"{place.url}/new")
    assert token not in page
    assert "Build fleet" not in page


def test_each_form_has_a_key_of_its_own(cast: Cast, client: FlaskClient) -> None:
    sign_in(client, "alice")
    pages = [read(client, "/groups/acme/-/runners/new") for _ in range(2)]
    assert hidden(pages[0], "request_key") != hidden(pages[1], "request_key")
