"""What may be asked for in a job, and what people may read of a repository's address."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from portal.domain.jobs import job_definitions
from portal.domain.jobs.job_definitions import JobVariable, NewJob, Repository, masked_url
from portal.domain.jobs.kept_secrets import with_secrets, without_secrets

PASSWORD = "s3cr3t-s3cr3t"


def of(url: str) -> NewJob:
    return NewJob("build", ("make",), repository=Repository(url))


@pytest.mark.parametrize(
    "url",
    [
        f"https://bot:{PASSWORD}@git.example.com/acme/web.git",
        f"https://{PASSWORD}@git.example.com/acme/web.git",
        f"https://bot:not@{PASSWORD}@git.example.com/acme/web.git",
        f"https://git.example.com/acme/web.git?private_token={PASSWORD}",
        f"https://git.example.com/acme/web.git#{PASSWORD}",
        f"ssh://bot:{PASSWORD}@git.example.com/acme/web.git",
        f"https://bot:{PASSWORD}@git.example.com/@scope/web.git",
    ],
)
def test_nobody_reads_a_password_in_an_address_and_it_goes_on_all_the_same(url: str) -> None:
    assert of(url).problems() == {}
    shown = without_secrets(of(url))
    assert PASSWORD not in str(asdict(shown))
    assert "git.example.com/" in str(asdict(shown))
    assert with_secrets(shown, of(url)) == of(url)


@pytest.mark.parametrize(
    "url",
    [f"https://bot:pa/{PASSWORD}@git.example.com/x", f"https://bot:pa?{PASSWORD}@git.example.com/x", "https:///x"],
)
def test_an_address_in_which_a_password_hides_behind_the_path_is_refused(url: str) -> None:
    problems = of(url).problems()
    assert list(problems) == ["repository"]
    assert PASSWORD not in repr(problems)


def test_an_address_as_it_is_shown_is_none_of_another_host() -> None:
    before = of(f"https://bot:{PASSWORD}@git.example.com/x")
    elsewhere = of(masked_url("https://bot@evil.example.com/x"))
    assert with_secrets(elsewhere, before).problems().keys() == {"repository"}
    assert PASSWORD not in str(asdict(with_secrets(elsewhere, before)))


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.com/@scope/x.git",
        "git@git.example.com:x.git",
        "ssh://git@git.example.com:22/x.git",
        "file:///srv/git/x.git",
    ],
)
def test_an_address_without_a_secret_is_shown_as_it_is(url: str) -> None:
    assert of(url).problems() == {}
    assert masked_url(url) == url


SECRET = "hunter22hunter"


def with_password(password: str) -> NewJob:
    return NewJob("build", ("make",), variables=(JobVariable("PASSWORD", password),))


def test_what_is_secret_in_a_job_is_not_shown_where_a_job_is_printed() -> None:
    cloned = Repository(f"https://me:{SECRET}@git.example.com/web.git")
    assert SECRET not in repr(with_password(SECRET))
    assert SECRET not in repr(NewJob("build", ("make",), repository=cloned))


def test_jobs_that_differ_only_in_a_secret_are_not_the_same_request() -> None:
    one, two = with_password("first"), with_password("other")
    assert job_definitions.digest(one, "key") == job_definitions.digest(with_password("first"), "key")
    assert job_definitions.digest(one, "key") != job_definitions.digest(two, "key")
    assert job_definitions.digest(one, "key") != job_definitions.digest(one, "another key")
