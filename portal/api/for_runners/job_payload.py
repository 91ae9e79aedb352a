"""A job as gitlab-runner reads it: every key there except `run` (reference/wire.md sections 6 and 16).

Strict clients need the keys, and a wrong type anywhere loses the whole job, so the types here are the client's.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import tokens
from portal.domain.jobs import job_artifacts
from portal.domain.jobs.job_claims import HandedOut
from portal.domain.jobs.job_definitions import ArtifactsWanted, JobVariable, Repository
from portal.domain.scopes import of_project
from portal.models import Job
from portal.requests import portal_url

NO_COMMIT = "0" * 40
DEPTH = 20  # commits that are fetched
# What the portal understands of the reasons for which a job failed; others are told in the words that are listed.
FAILURE_REASONS = (
    "unknown_failure",
    "script_failure",
    "runner_system_failure",
    "job_execution_timeout",
    "image_pull_failure",
    "runner_configuration_error",
    "runner_external_dependency_failure",
    "runner_interrupted",
    "job_canceled",
)
MASKED_PREFIXES = (tokens.CREATED, tokens.REGISTERED, tokens.JOB, tokens.PERSONAL, tokens.ENROLMENT)


def answer(session: Session, handed: HandedOut) -> bytes:
    """The body of the 201."""
    return orjson.dumps(payload(session, handed))


def payload(session: Session, handed: HandedOut) -> dict[str, Any]:
    """The job as a mapping, its token in it."""
    job, what = handed.job, handed.what
    timeout = job.effective_timeout or job.timeout
    return {
        "id": job.id,
        "token": handed.token,
        "allow_git_fetch": True,
        "job_info": _info(job),
        "git_info": _git(job, what.repository),
        "runner_info": {"timeout": timeout, "runner_session_url": ""},
        "inputs": [],
        "variables": [_variable(each) for each in _variables(handed)],
        "steps": _steps(handed, timeout),
        "image": _image(what.image) if what.image else None,
        "services": [_image(name) for name in what.services],
        "artifacts": [_artifacts(what.artifacts)] if what.artifacts else [],
        "cache": [],
        "credentials": [],
        "dependencies": [{**each, "token": handed.token} for each in job_artifacts.dependencies_of(session, job)],
        "features": {
            "trace_sections": True,
            "token_mask_prefixes": list(MASKED_PREFIXES),
            "failure_reasons": list(FAILURE_REASONS),
        },
        "secrets": {},
        "hooks": [],
        "policy_options": {},
    }


def _info(job: Job) -> dict[str, Any]:
    project = job.project
    return {
        "id": job.id,
        "name": job.name,
        "stage": "test",
        "project_id": project.id if project else 0,
        "project_name": project.name if project else "runner check",
        "project_full_path": project.full_path if project else "",
        "namespace_id": project.group_id if project else 0,
        "root_namespace_id": project.group.traversal_ids[0] if project else 0,
        "time_in_queue_seconds": max(0.0, (now() - job.queued_at).total_seconds()),
        "project_jobs_running_on_instance_runners_count": "0",
        "user_id": job.user_id or 0,
    }


def _git(job: Job, repository: Repository | None) -> dict[str, Any]:
    """What is checked out. Without a repository the variable GIT_STRATEGY says so, and nothing here is used."""
    shown = {
        "before_sha": NO_COMMIT,
        "ref_type": "branch",
        "repo_object_format": "sha1",
        "protected": job.ref_protected,
    }
    if repository is None:
        return {"repo_url": "", "ref": job.ref, "sha": NO_COMMIT, "refspecs": [], "depth": 0, **shown}
    # A commit may be on any branch or tag: patterns, unlike names, may fit nothing. The newest commit of a ref is not
    # known here: git asks the other side for a branch or a tag of this name, and FETCH_HEAD is what came. A place of
    # its own for it would be pruned by the next fetch; the client wants eight characters of what it checks out.
    everything = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    return {
        "repo_url": repository.url,
        "ref": job.ref,
        "sha": repository.commit or "FETCH_HEAD",
        "refspecs": everything if repository.commit else [job.ref],
        "depth": 0 if repository.commit else DEPTH,
        **shown,
    }


def _variables(handed: HandedOut) -> list[JobVariable]:
    """What scripts find in their environment: GitLab's names for what is true here, then the job's own."""
    job, runner, project = handed.job, handed.runner, handed.job.project
    known = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_JOB_ID": str(job.id),
        "CI_JOB_NAME": job.name,
        "CI_JOB_STAGE": "test",
        "CI_JOB_TIMEOUT": str(job.effective_timeout or job.timeout),
        "CI_COMMIT_REF_NAME": job.ref,
        "CI_COMMIT_REF_PROTECTED": "true" if job.ref_protected else "false",
        "CI_SERVER": "yes",
        "CI_SERVER_NAME": "Runner Portal",
        "CI_SERVER_URL": portal_url(""),
        "CI_API_V4_URL": portal_url("/api/v4"),
        "CI_RUNNER_ID": str(runner.id),
        "CI_RUNNER_DESCRIPTION": runner.description,
        "CI_RUNNER_TAGS": orjson.dumps(list(runner.tag_list)).decode(),
    }
    if project is not None:
        known |= {
            "CI_PROJECT_ID": str(project.id),
            "CI_PROJECT_NAME": project.path,
            "CI_PROJECT_TITLE": project.name,
            "CI_PROJECT_PATH": project.full_path,
            "CI_PROJECT_NAMESPACE": of_project(project).full_path.rpartition("/")[0],
            "CI_PROJECT_URL": portal_url("/" + quote(project.full_path)),
            "CI_JOB_URL": portal_url(f"/{quote(project.full_path)}/-/jobs/{job.id}"),
        }
    if handed.what.repository is None:
        known["GIT_STRATEGY"] = "none"
    elif handed.what.repository.commit:
        known["CI_COMMIT_SHA"] = handed.what.repository.commit
    known = {name: value for name, value in known.items() if value is not None}
    # A value that holds a $ would be expanded by the runner.
    ours = [JobVariable(name, value, raw=True) for name, value in known.items()]
    return [*ours, JobVariable("CI_JOB_TOKEN", handed.token, masked=True, raw=True), *handed.what.variables]


def _variable(variable: JobVariable) -> dict[str, Any]:
    return {
        "key": variable.key,
        "value": variable.value,
        "public": not variable.masked,
        "masked": variable.masked,
        "file": variable.file,
        "raw": variable.raw,
    }


def _steps(handed: HandedOut, timeout: int) -> list[dict[str, Any]]:
    what = handed.what
    script = {"name": "script", "script": list(what.script), "when": "on_success", "allow_failure": False}
    after = {"name": "after_script", "script": list(what.after_script), "when": "always", "allow_failure": True}
    return [{**step, "timeout": timeout} for step in ([script, after] if what.after_script else [script])]


def _image(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "alias": "",
        "command": [],
        "entrypoint": [],
        "ports": [],
        "variables": [],
        "pull_policy": [],
        "executor_opts": {},
    }


def _artifacts(wanted: ArtifactsWanted) -> dict[str, Any]:
    return {
        "name": wanted.name,
        "untracked": False,
        "paths": list(wanted.paths),
        "exclude": list(wanted.exclude),
        "when": wanted.when,
        "expire_in": wanted.expire_in,
        "artifact_type": "archive",
        "artifact_format": "zip",
    }
