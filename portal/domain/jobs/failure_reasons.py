"""Why a job failed, and what to do about it: gitlab-runner's reasons (reference/wire.md 8), and the portal's own."""

from __future__ import annotations

UNKNOWN_FAILURE = "unknown_failure"  # GitLab's word, as are the next ones
STUCK = "stuck_or_timeout_failure"
MISSING_DEPENDENCY = "missing_dependency_failure"
UNREADABLE = "data_integrity_failure"
USER_BLOCKED = "user_blocked"
# What would go wrong once more, however often the job runs again.
FOR_GOOD = frozenset({MISSING_DEPENDENCY, UNREADABLE, USER_BLOCKED})
LONGEST_REASON = 64  # characters of what a machine says

REASONS: dict[str, tuple[str, str]] = {
    "script_failure": (
        "A command failed: of the script, or of what the runner does before it, such as fetching the repository.",
        "The end of the log shows which, unless it was erased.",
    ),
    "runner_system_failure": (
        "The machine could not run it.",
        "That is no fault of the script: the log, or gitlab-runner’s own log on the machine, says why. Run it again.",
    ),
    "job_execution_timeout": (
        "It ran longer than it may.",
        "Give the job a longer timeout, or make the script shorter. The runner’s own limit counts too.",
    ),
    "stuck_or_timeout_failure": (
        "Its machine was not heard of any more.",
        "Look whether the machine runs, then run the job again.",
    ),
    "runner_unsupported": (
        "The machine’s gitlab-runner cannot do what the job asks for.",
        "Upgrade it, or let another runner take the job.",
    ),
    "image_pull_failure": (
        "The machine could not get the image.",
        "Check the image’s name, and whether the machine may fetch it.",
    ),
    "configuration_error": ("The machine cannot do this with its configuration.", "The log says what is in the way."),
    "job_canceled": ("It was canceled.", ""),
    "trace_size_exceeded": (
        "Its log grew past the limit.",
        "Let the script print less, or write the output into a file that is kept as an artifact.",
    ),
    "missing_dependency_failure": (
        "A job that it needs did not succeed, or what that left is not there any more.",
        "Run that job again, then this one.",
    ),
    "data_integrity_failure": (
        "What is secret in it cannot be read: its encryption key is not configured any more.",
        "Ask an administrator for the key, or write the job anew.",
    ),
    "user_blocked": ("Who submitted it was blocked before a runner took it.", "Somebody else can run it again."),
    "unknown_failure": ("The machine did not say why.", "The log may show it."),
    "runner_external_dependency_failure": (
        "Something that the machine needs from elsewhere did not answer.",
        "Run the job again.",
    ),
    "runner_configuration_error": ("The runner is not set up for this job.", "The log says what it lacks."),
    "runner_interrupted": ("The machine was stopped while the job ran.", "Run the job again."),
}
UNKNOWN = ("The machine gave a reason that this portal does not know.", "The log may show more.")


def told(reason: str | None) -> tuple[str, str]:
    """What happened, and what to do; the second may be empty. For the word of a runner, None for none."""
    return REASONS.get(reason or "unknown_failure", UNKNOWN)


def sentence(reason: str | None) -> str:
    """The same in one text."""
    return " ".join(part for part in told(reason) if part)


_BRIEFLY = {
    "script_failure": "a command failed",
    "runner_system_failure": "the machine could not run it",
    "job_execution_timeout": "ran too long",
    "stuck_or_timeout_failure": "the machine fell silent",
    "runner_unsupported": "the machine’s version cannot do it",
    "image_pull_failure": "the image could not be fetched",
    "configuration_error": "the machine’s configuration is in the way",
    "job_canceled": "was canceled",
    "trace_size_exceeded": "the log grew too long",
    "missing_dependency_failure": "a job that it needs failed or is gone",
    "data_integrity_failure": "its secrets cannot be read",
    "user_blocked": "who submitted it is blocked",
    "unknown_failure": "the machine did not say why",
    "runner_external_dependency_failure": "something elsewhere did not answer",
    "runner_configuration_error": "the runner is not set up for it",
    "runner_interrupted": "the machine was stopped",
}


def briefly(reason: str | None) -> str:
    """What happened in a few words, for a list."""
    return _BRIEFLY.get(reason or "unknown_failure", "for a reason that this portal does not know")
