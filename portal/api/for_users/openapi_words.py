"""What the description of the REST API says in words: its beginning, its rooms, and parameters that recur."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from portal.database import now

BEGINNING = """\
The REST API for people and their scripts, with GitLab's paths, attributes and statuses: python-gitlab, glab,
Terraform and curl work unmodified.

**Who asks** is said by an access token in the header `PRIVATE-TOKEN` or `Authorization: Bearer`. In the browser the
session of whoever is signed in reads, and writes nothing.

**Parameters** of a GET or DELETE stand in the query, of all others in a body, as JSON or as a form. In JSON too,
numbers and flags may come as text. Unknown parameters are passed over, and the header `X-Unknown-Parameters` of the
answer names them. A group or project in a path is its number or
its URL-encoded full path, such as `acme%2Fweb`.

**Lists** come in pages: `page` and `per_page`, or `cursor` where the list may be long; headers lead to the next page.

**Errors** are JSON. Who may not see a thing hears 404, who sees it and may not act hears 403. A failure of ours is
5xx with `Retry-After`."""

ROOMS: dict[str, str] = {
    "Metadata": "Which version of GitLab's contract this is.",
    "People": "Accounts: your own, and for administrators everybody's.",
    "Runners": "Create, list, change, pause, reset and delete runners, and see their machines.",
    "Jobs": "Work for runners: submit it, watch it run, stop it, and fetch what it left.",
    "Job templates": "Named jobs that a project keeps, to run them again and again.",
    "Registration tokens": "The old way to register machines: reset the shared token of a scope.",
    "Groups": "Groups, nested in each other.",
    "Projects": "Projects, each in a group.",
    "Members": "Who has which role in a group or project.",
    "Access tokens": "Tokens for scripts: list, create, rotate and revoke.",
    "Enrolment keys": "Secrets that can create runners in one scope and nothing else.",
    "Settings": "What holds for the whole portal.",
    "Runner protocol": "What a `gitlab-runner` process asks, with its own token in the body.",
    "Description": "This document.",
}

PARAMETERS: dict[str, str] = {
    "page": "Which page of the list.",
    "per_page": "How long a page is; more than 100 is 100.",
    "cursor": "Where the list goes on: taken from the `Link` header of the answer before.",
    "order_by": "What the list is in the order of.",
    "sort": "Ascending or descending.",
    "pagination": "`keyset` pages by cursor.",
    "search": "Words that names or paths contain.",
    "runner_id": "The runner's number.",
    "job_id": "The job's number.",
    "Range": "Which part of the file, such as `bytes=1000-`; the answer is then 206.",
    "user_id": "The person's number.",
    "token_id": "The access token's number.",
    "key_id": "The enrolment key's number.",
    "group": "The group's number or URL-encoded full path.",
    "project": "The project's number or URL-encoded full path.",
    "group_id": "The group's number.",
    "project_id": "The project's number.",
    "runner_type": "Whom the runner serves: the whole instance, a group or a project.",
    "type": "Only runners of the instance, of groups or of projects.",
    "status": "Only those that stand like this.",
    "scope": "Only those that stand like this; `status` and `type` say it better.",
    "paused": "Whether the runner takes no new jobs.",
    "active": "The opposite of `paused`, as older clients say it.",
    "locked": "Whether the runner stays with its own project.",
    "run_untagged": "Whether the runner takes jobs without tags too.",
    "tag_list": "The runner's tags: a list, or one text with commas.",
    "access_level": "Whether the runner takes jobs of protected refs only.",
    "maximum_timeout": "How long a job may take at most, in seconds; 600 or more.",
    "description": "What it is, in a few words.",
    "maintenance_note": "What those who look after the runner should know.",
    "version_prefix": "Only runners with machines of this version, such as `17.` or `17.5`.",
    "system_id": "Only the machine with this system ID.",
    "include": "`managers` adds the machines of each runner.",
    "include_projects": "Whether the runner's projects are told too.",
    "name": "The name, as people read it.",
    "path": "The name, as it stands in addresses.",
    "username": "The name that somebody signs in with.",
    "email": "The e-mail address.",
    "password": "The password.",
    "expires_at": "The first day on which it opens nothing any more.",
    "scopes": "What the token opens.",
    "parent_id": "The number of the group that it lies in.",
    "namespace_id": "The number of the group that it lies in.",
    "access_token_id": "The access token's number.",
    "most_runners": "How many runners the key may create in all.",
    "networks": "From where the key may be used, such as 192.0.2.0/24; everywhere if empty.",
    "token_expiration_interval": "How long each token of the runners lives, in seconds.",
    "query": "Words that names or user names contain.",
    "user_ids": "Only these people: their numbers.",
    "owned": "Only what the person owns.",
    "membership": "Only what the person is a member of.",
    "min_access_level": "Only where the person has at least this role, as its number.",
    "top_level_only": "Only groups that lie in no other.",
    "skip_groups": "Groups to leave out: their numbers.",
    "simple": "Fewer attributes of each.",
    "include_subgroups": "Also of the groups inside.",
    "below": "Also those of all groups and projects below.",
    "creator": "Only runners that this person made, by user name.",
    "state": "`active` or `inactive`.",
    "revoked": "Only those that were revoked, or only those that were not.",
    "created_after": "Only those made after this moment.",
    "created_before": "Only those made before this moment.",
    "last_used_after": "Only those used after this moment.",
    "last_used_before": "Only those used before this moment.",
    "expires_after": "Only those that expire after this day.",
    "expires_before": "Only those that expire before this day.",
    "visibility": "Only `private` exists here.",
    "token_expires_at": "When the token expires; as late as the scope allows unless given.",
    "allow_runner_registration_token": "Whether registration tokens are allowed; what is off above is off below.",
    "valid_runner_registrars": "In which kinds of scope others than administrators may create runners.",
    "runner_registration_enabled": "Whether others than administrators may create runners in the group.",
    "runner_token_expiration_interval": "How long new tokens of runners live, in seconds; null for ever.",
    "group_runner_token_expiration_interval": "The same for runners of groups.",
    "subgroup_runner_token_expiration_interval": "The same for runners of the groups inside.",
    "project_runner_token_expiration_interval": "The same for runners of projects.",
    "ci_registered_group_runners": "How many runners a group may have; 0 sets no limit.",
    "ci_registered_project_runners": "How many runners a project may have; 0 sets no limit.",
    "stale_runner_cleanup_days": "After how many days without contact runners are deleted; null never.",
    "stale_runner_cleanup_legacy_only": "Delete only those that were registered with a registration token.",
    "reset_password": "True makes the account without a password.",
    "force_random_password": "The same, as other tools say it.",
    "admin": "Whether the person administers the portal.",
    "admins": "Only administrators.",
    "blocked": "Only people who are blocked.",
    "created_runners": "What becomes of the runners that the person made.",
    "leave_groups": "Delete the person also where a group is left without an owner.",
    "check_id": "The check's number.",
    "template_id": "The template's number.",
    "script": "The lines that are run, one after the other; the first that fails ends the job.",
    "after_script": "Lines that are run afterwards, also when the job failed or was canceled.",
    "image": "The container image that the job runs in, where the runner uses containers.",
    "services": "Images of containers that run beside it.",
    "tags": "The same as `tag_list`.",
    "ref": "The branch or tag.",
    "protected": "Whether the ref counts as protected; as the project's `protected_refs` say, unless given.",
    "variables": "A list of `{key, value, masked, file, raw}`, or an object of keys and values. Kept encrypted.",
    "timeout": "How long it may run, in seconds; as the project says, unless given.",
    "artifacts": "The files to keep: `{paths, exclude, name, when, expire_in}`.",
    "repository": "What is checked out first: `{url, commit}`; the newest commit of the ref without `commit`.",
    "retry": "How often it runs again when it fails, 2 times at most.",
    "needs": "Numbers of jobs whose artifacts are there when this one begins.",
    "force": "Stop it at once, without its after script.",
    "include_retried": "Whether jobs that were run again since are there too.",
    "tag": "Only jobs with this tag.",
    "jobs.scope": "Only jobs with this status; repeated as `scope[]` with one of these.",
    "jobs.name": "How the job is called; in a list, how its name begins, or its number.",
    "jobs.search": "The same as `name`.",
    "stuck_jobs.tag_list": "What the job would ask of a runner: a list, or one text with commas.",
    "stuck_jobs.ref": "The branch or tag that it would be on; main unless given.",
    "stuck_jobs.protected": "Whether the ref counts as protected; as the project's patterns say unless given.",
    "jobs.tag_list": "What a runner must have to take it: a list, or one text with commas.",
    "job.name": "What the template, and each job that it makes, is called.",
    "job.tag_list": "What a runner must have to take it: a list, or one text with commas.",
    "runner.system_id": "The system ID of one of the runner's machines.",
    "protected_refs": "Which refs are protected: names, in which `*` stands for anything.",
    "build_timeout": "How long the project's jobs may run unless they say otherwise, in seconds.",
    "shared_runners_enabled": "Whether runners of the instance take the project's jobs.",
    "group_runners_enabled": "Whether runners of the groups above take the project's jobs.",
    "members.access_level": "The role: 10 guest, 20 reporter, 30 developer, 40 maintainer, 50 owner.",
    "members.expires_at": "The day on which the role ends.",
    "users.active": "Only people who are not blocked.",
    "users.name": "The person's name.",
}

EXAMPLES: dict[str, Any] = {
    "runner_id": 7,
    "user_id": 2,
    "token_id": 3,
    "access_token_id": 3,
    "key_id": 4,
    "group": "acme",
    "project": "acme/web",
    "group_id": 5,
    "namespace_id": 5,
    "tag_list": ["docker", "linux"],
    "maximum_timeout": 3600,
    "version_prefix": "17.5",
    "runner_type": "group_type",
    "description": "Build machines",
    "paused": True,
    "most_runners": 20,
    "expires_at": str(now().date() + timedelta(days=90)),
    "scopes": ["read_api"],
    "allow_runner_registration_token": False,
    "username": "erin",
    "email": "erin@acme.example",
    "reset_password": True,
    "members.access_level": 30,
    "members.expires_at": None,
    "groups.name": "Acme",
    "groups.path": "acme",
    "projects.path": "web",
    "users.name": "Erin Day",
    "access_tokens.name": "nightly report",
    "enrolment_keys.name": "web servers",
    "job_id": 41,
    "check_id": 42,
    "template_id": 6,
    "system_id": "r_machine00001",
    "script": ["make", "make test"],
    "jobs.name": "build",
    "jobs.ref": "main",
    "job.name": "nightly",
    "jobs.variables": {"LEVEL": "debug"},
    "build_timeout": 3600,
    "force": True,
}

# What the example of an operation sends besides what it must.
SENT: dict[str, tuple[str, ...]] = {
    "access_tokens_rotate": ("expires_at",),
    "access_tokens_rotate_self": ("expires_at",),
    "enrolment_keys_create": ("group_id", "tag_list"),
    "groups_update": ("description",),
    "jobs_cancel": ("force",),
    "jobs_create": ("tag_list", "ref", "variables"),
    "job_templates_create": ("tag_list",),
    "job_templates_update": ("script",),
    "members_add_to_group": ("user_id",),
    "members_add_to_project": ("user_id",),
    "projects_create": ("path",),
    "projects_update": ("description",),
    "runner_jobs_cancel_check": ("force",),
    "runner_jobs_check": ("system_id",),
    "runners_update": ("paused", "tag_list"),
    "settings_update": ("allow_runner_registration_token",),
    "user_runners_create": ("runner_type", "group_id", "description", "tag_list"),
    "user_runners_create_in_scope": ("runner_type", "group_id", "description", "tag_list"),
    "users_create": ("reset_password",),
    "users_update": ("name",),
}

REQUEST_HEADERS: dict[str, str] = {
    "Idempotency-Key": "Sent again with the same values, it makes nothing twice: the answer tells of the first.",
    "If-Unmodified-Since": "Do it only if nothing has changed since then.",
}


def example(operation: str, name: str) -> Any:
    """A value that this parameter of the operation takes; None where nobody has said one."""
    own = [
        each for each in EXAMPLES if each.endswith(f".{name}") and operation.startswith(each.partition(".")[0] + "_")
    ]
    return EXAMPLES[own[0] if own else name] if own or name in EXAMPLES else None


def of(operation: str, name: str) -> str:
    """What this parameter of the operation is; empty where nobody has said it. `users.name` is of one room only."""
    own = f"{operation.partition('_')[0]}.{name}"
    return REQUEST_HEADERS.get(name) or PARAMETERS.get(own) or PARAMETERS.get(name, "")
