"""What is secret in a job goes on when the job is asked for anew, although no page ever shows it again."""

from __future__ import annotations

from dataclasses import replace

from portal.domain.jobs.job_definitions import JobVariable, NewJob, Repository, masked_url


def without_secrets(asked: NewJob) -> NewJob:
    """The job as people may read it again: masked values empty, no name or password in the repository's address."""
    variables = tuple(replace(each, value="") if each.masked else each for each in asked.variables)
    repository = asked.repository and replace(asked.repository, url=masked_url(asked.repository.url))
    return replace(asked, variables=variables, repository=repository)


def with_secrets(asked: NewJob, before: NewJob) -> NewJob:
    """The job with the secrets of the one before it, where they were left as `without_secrets` shows them.

    The caller has asked whether the actor may run the one before: whoever may has its secrets in reach.
    """
    values = {each.key: each.value for each in before.variables if each.masked}
    variables = tuple(_with_value(each, values) for each in asked.variables)
    return replace(asked, variables=variables, repository=_with_address(asked.repository, before.repository))


def _with_value(variable: JobVariable, values: dict[str, str]) -> JobVariable:
    left = variable.masked and not variable.value
    return replace(variable, value=values.get(variable.key, "")) if left else variable


def _with_address(asked: Repository | None, before: Repository | None) -> Repository | None:
    if asked is None or before is None or asked.url != masked_url(before.url):
        return asked
    return replace(asked, url=before.url)
