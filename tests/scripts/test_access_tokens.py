"""The first steps that the page of a new access token offers, run as pasted; python-gitlab with its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import gitlab
import pytest

from portal.domain.people import access_token_examples
from tests.cast import Cast
from tests.portals import RunningPortal

Run = Callable[..., str]


@dataclass(frozen=True)
class Tokens:
    """Access tokens of two people that open everything, and Alice's number."""

    alice: str
    dana: str
    alice_id: int


@pytest.fixture
def tokens(stage: Cast) -> Tokens:
    return Tokens(stage.access_token(stage.alice), stage.access_token(stage.dana), stage.alice.id)


@pytest.fixture
def paste(running_portal: RunningPortal, tokens: Tokens, tmp_path: Path) -> Run:
    """What a block of the page prints when it is pasted, and `more` after it."""
    blocks = {each.id: each for each in access_token_examples.blocks(url=running_portal.url, token=tokens.alice)}

    def run(name: str, more: str = "") -> str:
        program = [sys.executable, "-"] if blocks[name].language == "python" else ["bash", "-eu"]
        bin_folder = str(Path(sys.executable).parent)
        ended = subprocess.run(
            program,
            input=f"{blocks[name].text}\n{more}\n",
            env={"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return ended.stdout

    return run


def test_the_first_steps_work_as_pasted(paste: Run) -> None:
    assert json.loads(paste("curl"))["scopes"] == ["api"]
    assert paste("python") == "['api']\n"
    listed = paste("environment", "gitlab --output json personal-access-token list --get-all")
    assert [each["name"] for each in json.loads(listed)] == ["a test's"]


def test_python_gitlab_makes_rotates_and_revokes_tokens(running_portal: RunningPortal, tokens: Tokens) -> None:
    alice = gitlab.Gitlab(running_portal.url, private_token=tokens.alice)
    (first,) = alice.personal_access_tokens.list(get_all=True)
    assert first.active
    made = alice.http_post("/user/personal_access_tokens", post_data={"name": "second", "scopes": ["read_api"]})
    second = alice.personal_access_tokens.get(made["id"])
    assert (second.name, second.scopes, second.revoked) == ("second", ["read_api"], False)
    last = (date.today() + timedelta(days=20)).isoformat()
    rotated = alice.personal_access_tokens.rotate(second.id, expires_at=last)
    assert rotated["expires_at"] == last
    reader = gitlab.Gitlab(running_portal.url, private_token=rotated["token"])
    reader.auth()
    assert reader.user.username == "alice"  # type: ignore[union-attr]
    alice.personal_access_tokens.delete(rotated["id"])
    with pytest.raises(gitlab.GitlabAuthenticationError):
        reader.auth()
    alice.personal_access_tokens.get("self").rotate(self_rotate=True)
    with pytest.raises(gitlab.GitlabAuthenticationError):
        alice.auth()


def test_python_gitlab_of_an_administrator_makes_one_for_somebody(
    running_portal: RunningPortal, tokens: Tokens
) -> None:
    admin = gitlab.Gitlab(running_portal.url, private_token=tokens.dana)
    person = admin.users.get(tokens.alice_id, lazy=True)
    made = person.personal_access_tokens.create({"name": "given", "scopes": ["read_api"]})
    theirs = gitlab.Gitlab(running_portal.url, private_token=made.token)
    assert theirs.personal_access_tokens.get("self").user_id == tokens.alice_id
    assert [each.name for each in admin.personal_access_tokens.list(user_id=tokens.alice_id, get_all=True)] == [
        "given",
        "a test's",
    ]
