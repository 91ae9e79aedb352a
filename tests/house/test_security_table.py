"""docs/security.md: every item of OWASP ASVS 5.0, levels 1 and 2, stands there once, and its tests exist."""

import ast
import re
from functools import cache

import pytest

from portal import config
from portal.config import ROOT, Settings
from portal.domain.bulk import bulk_acts
from portal.domain.imports import import_preview
from portal.domain.jobs import (
    job_artifacts,
    job_checks,
    job_definitions,
    job_rules,
    job_templates,
    log_stretches,
    stuck_jobs,
)
from portal.domain.people import passwords, second_factor, sign_in_throttle, user_sessions
from portal.domain.runners import runner_settings
from tests.house.trees import templates

DOCUMENT = (ROOT / "docs" / "security.md").read_text()
# How many items of levels 1 and 2 each section has, from its first number on; some numbers are of level 3.
LAST = {
    **{"1.1": 2, "1.2": 9, "1.3": 11, "1.4": 3, "1.5": 2, "2.1": 3, "2.2": 3, "2.3": 4, "2.4": 1},
    **{"3.2": 2, "3.3": 4, "3.4": 6, "3.5": 5, "3.7": 2, "4.1": 3, "4.2": 1, "4.3": 2, "4.4": 4},
    **{"5.1": 1, "5.2": 3, "5.3": 2, "5.4": 3, "6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5, "6.6": 3, "6.8": 4},
    **{"7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 2, "7.6": 2, "8.1": 2, "8.2": 3, "8.3": 1, "8.4": 1},
    **{"9.1": 3, "9.2": 4, "10.1": 2, "10.2": 2, "10.3": 4, "10.4": 11, "10.5": 5, "10.6": 2, "10.7": 3},
    **{"11.1": 2, "11.2": 3, "11.3": 3, "11.4": 4, "11.5": 1, "11.6": 1, "12.1": 3, "12.2": 2, "12.3": 4},
    **{"13.1": 1, "13.2": 5, "13.3": 2, "13.4": 5, "14.1": 2, "14.2": 4, "14.3": 3, "15.1": 3, "15.2": 3, "15.3": 7},
    **{"16.1": 1, "16.2": 5, "16.3": 4, "16.4": 3, "16.5": 3, "17.1": 1, "17.2": 4, "17.3": 2},
}
ITEMS = [f"{section}.{number}" for section, last in LAST.items() for number in range(1, last + 1)]
NUMBER = re.compile(r"(?<![\d.])\d{1,2}\.\d{1,2}\.\d{1,2}(?![\d.])")
ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| (.+?) \| (.+?) \| (.*?) ?\|$", re.M)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
NOT_MET = "## Not met, or met in part"
# What the standard wants written down, and where it is.
WRITTEN = {
    "Signing in": (
        "Ways in",
        "**Passwords**",
        "**Throttle**",
        "**Sessions**",
        "**Side by side**",
        "**Single sign-on**",
    ),
    "Who may do what": ("portal/domain/permissions.py", "maintenance"),
    "Data": ("| secret |", "| personal |", "| trail |", "| internal |"),
    "Keys and algorithms": ("`SECRET_KEY`", "`PORTAL_ENCRYPTION_KEYS`", "Argon2id"),
    "Connections": ("In:", "Out:"),
    "Logs": ("| the trail |", "| request log |"),
    "Limits": ("checked together", "What costs", "**Uploads**"),
    "What an operator must do": ("HTTPS", "`PORTAL_TRUSTED_PROXIES`", "`SECRET_KEY`"),
}


def section(title: str) -> str:
    """The text below a heading, on one line."""
    return re.sub(r"\s+", " ", DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0].split("\n# ")[0])


@cache
def named_in(path: str) -> frozenset[str]:
    """The names of all tests of a file: functions, and Class::method."""
    body = ast.parse((ROOT / path).read_text()).body
    methods = {f"{each.name}::{in_it.name}" for each in body if isinstance(each, ast.ClassDef) for in_it in each.body
               if isinstance(in_it, ast.FunctionDef)}  # fmt: skip
    return frozenset(methods | {each.name for each in body if isinstance(each, ast.FunctionDef)})


def test_every_item_stands_there_once() -> None:
    assert sorted(NUMBER.findall(DOCUMENT)) == sorted(ITEMS)
    assert len(ITEMS) == 253


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(DOCUMENT))))
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name.rpartition("::")[2].startswith("test_")
    assert name in named_in(path)


def test_no_name_of_a_test_is_written_another_way() -> None:
    """Else the test above would not see it."""
    assert len(NAMED.findall(DOCUMENT)) == DOCUMENT.count("::test_")


def test_what_is_met_names_its_test() -> None:
    chapters = "".join(re.findall(r"^## V\d+ .*?(?=^## |\Z)", DOCUMENT, re.M | re.S))
    rows = ROW.findall(chapters)
    assert len(rows) == len(re.findall(r"^\| \d", chapters, re.M))
    assert [item for item, _, _, tests in rows if not NAMED.search(tests)] == []


def test_an_item_stands_in_its_chapter_unless_it_is_not_met() -> None:
    for chapter, text in re.findall(r"^## V(\d+) (.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S):
        assert {each.split(".")[0] for each in NUMBER.findall(text)} == {chapter}
    before_the_chapters = DOCUMENT.split("\n## V1 ")[0]
    assert NUMBER.search(before_the_chapters.split(NOT_MET)[0]) is None


@pytest.mark.parametrize(("title", "words"), WRITTEN.items(), ids=list(WRITTEN))
def test_what_has_to_be_written_down_has_its_section(title: str, words: tuple[str, ...]) -> None:
    assert [each for each in words if each not in section(title)] == []


def test_the_numbers_are_those_of_the_code() -> None:
    throttle, defaults, said = (
        sign_in_throttle,
        Settings.from_environment({"SECRET_KEY": "x" * 32}),
        section("Signing in"),
    )
    hours, days = defaults.session_idle.total_seconds() / 3600, defaults.session_longest.days
    minutes = defaults.recent_sign_in.total_seconds() / 60
    for words in (
        f"have {config.SHORTEST_PASSWORD} to {config.LONGEST_PASSWORD} characters of any kind",
        f"fewer than {passwords.SHORTEST_REST} characters are left",
        *(f"`{word}`" for word in passwords.OF_THE_PORTAL),
        f"Within {throttle.WINDOW.total_seconds() / 60:.0f} minutes: {throttle.PER_PLACE} failures for one name",
        f"{throttle.PER_NETWORK} from one network over all names",
        f"{throttle.PER_ACCOUNT} for one name from all networks",
        f"{throttle.KNOWN_FOR.days} days",
        f"{second_factor.WRONG_AT_ONCE} wrong codes in 15 minutes or {second_factor.WRONG_IN_A_DAY} in a day",
        f"{hours:.0f} hours unused (`PORTAL_SESSION_IDLE`) and after {days} days in any case",
        f"after {minutes:.0f} minutes (`PORTAL_RECENT_SIGN_IN`)",
    ):
        assert words in said
    for words in (
        f"Texts {runner_settings.LONGEST_TEXT:,} characters",
        f"{runner_settings.MOST_TAGS} tags of {runner_settings.LONGEST_TAG}",
        f"One import: {import_preview.MOST_ENTRIES:,} runners",
        f"One bulk act: {bulk_acts.MOST:,}",
        f"scripts of {job_definitions.MOST_LINES:,} lines and {job_definitions.LONGEST_SCRIPT:,} characters",
        f"{job_definitions.MOST_VARIABLES} variables with {job_definitions.LONGEST_VALUES:,} characters together",
        f"{job_definitions.MOST_NEEDS} jobs that it needs, {job_definitions.LONGEST_TIMEOUT // 86_400} days",
        f"{job_checks.MOST_PENDING_CHECKS} checks that wait",
        f"{job_templates.MOST_TEMPLATES} templates, {job_rules.MOST_PATTERNS} patterns of protected refs",
        f"{job_artifacts.MOST_FILES} of a job",
        f"a page of a log at most {log_stretches.MOST_BYTES // 1024} KiB",
        f"why a job is stuck ({stuck_jobs.LOOKED_AT} runners)",
    ):
        assert words in section("Limits")
    bits = (user_sessions.KEY_BYTES * 8, second_factor.RECOVERY_BYTES * 8)
    assert "160, {} and {} random bits".format(*bits) in section("Keys and algorithms")


def test_every_field_for_a_password_is_masked() -> None:
    shown = [line for path in templates() for line in path.read_text().splitlines()
             if re.search(r"\(form\.(password|old|new|again)\b", line)]  # fmt: skip
    assert len(shown) >= 5
    assert [line for line in shown if "type='password'" not in line] == []


def test_no_script_of_ours_writes_keys_that_it_was_given() -> None:
    script = (ROOT / "static" / "portal.js").read_text()
    assert re.findall(r"\w\[[^\]\"']+\]\s*=[^=>]", script) == []
    assert not re.search(r"__proto__|\.prototype|JSON\.parse", script)


def test_the_readme_leads_there() -> None:
    assert "(docs/security.md)" in (ROOT / "README.md").read_text()
