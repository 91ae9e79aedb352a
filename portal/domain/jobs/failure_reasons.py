"""Why a job failed, in a sentence that says what to do about it."""

from __future__ import annotations

# By the words that runners send (reference/wire.md 8), and by those of the portal's own.
SENTENCES = {
    "script_failure": "The script failed: its log says which line, and with which exit code.",
    "runner_system_failure": "The machine could not run the job. Its log ends with what went wrong; try another runner.",
    "runner_configuration_error": "The runner is not set up for this job. Its log says what it lacks.",
    "runner_external_dependency_failure": "Something that the machine needs from elsewhere did not answer. Try again.",
    "runner_interrupted": "The machine was stopped while the job ran. Run it again.",
    "runner_unsupported": "The runner is too old for what this job asks for. Use a newer one.",
    "image_pull_failure": "The image could not be fetched. Look for a typo in its name, and at its registry.",
    "job_execution_timeout": "The job took longer than it may. Let it do less, or give it a longer timeout.",
    "job_canceled": "The job was canceled while it ran.",
    "stuck_or_timeout_failure": "The machine that had the job fell silent. Look whether it is still there.",
    "missing_dependency_failure": "Artifacts that the job needs are not there any more. Run the jobs that made them.",
    "data_integrity_failure": "What is secret in the job cannot be read any more: its encryption key is gone. "
    "Submit it anew.",
    "trace_size_exceeded": "The log grew longer than a log may be here. Let the script print less.",
    "unknown_failure": "The machine did not say why the job failed. Its log may.",
}


def sentence(reason: str | None) -> str | None:
    """What to tell people of the reason; of one that nobody knows, its word. None for none."""
    if not reason:
        return None
    return SENTENCES.get(reason, f"The machine says that the job failed because of: {reason}.")
