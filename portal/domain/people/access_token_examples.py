"""The texts that the page of a new access token offers to copy, with the token filled in."""

from __future__ import annotations

import shlex

from portal.domain.runners.instructions import Block

# Asks what the token is: the one question that a token of every scope may ask.
_CURL = """\
curl --header "PRIVATE-TOKEN: {token}" {url}"""

# repr() writes both as Python reads them.
_PYTHON = """\
import gitlab

portal = gitlab.Gitlab({url!r}, private_token={token!r})
print(portal.personal_access_tokens.get("self").scopes)"""

_ENVIRONMENT = """\
export GITLAB_TOKEN={token}
export GITLAB_PRIVATE_TOKEN="$GITLAB_TOKEN"
export GITLAB_URL={url}
export GITLAB_HOST={url}
export GITLAB_BASE_URL={api}"""


def blocks(*, url: str, token: str) -> tuple[Block, ...]:
    """Three first steps with a token at the portal of this address."""
    return (
        Block(
            "curl",
            "curl",
            "shell",
            _CURL.format(token=token, url=shlex.quote(f"{url}/api/v4/personal_access_tokens/self")),
            "Asks what the token is and how long it is good. The shell's history keeps what was pasted.",
        ),
        Block(
            "python",
            "python-gitlab",
            "python",
            _PYTHON.format(token=token, url=url),
            "The same in Python, with the package python-gitlab.",
        ),
        Block(
            "environment",
            "Environment variables",
            "shell",
            _ENVIRONMENT.format(token=token, url=shlex.quote(url), api=shlex.quote(f"{url}/api/v4/")),
            "The names that glab, Terraform and the command gitlab of python-gitlab look for.",
        ),
    )
