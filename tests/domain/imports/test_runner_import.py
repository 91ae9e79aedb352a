"""Importing runners with the tokens that their machines hold: reading, the preview, making, doing it twice."""

import json
import re
import traceback
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.database import now
from portal.domain import audit, tokens
from portal.domain.errors import Invalid, NotFound, Stale
from portal.domain.groups import groups
from portal.domain.imports import import_entries, import_formats, import_preview, runner_import
from portal.domain.imports.import_entries import Entry, Known
from portal.domain.imports.import_formats import Written
from portal.domain.imports.import_preview import Defaults, Preview
from portal.domain.imports.runner_import import Report
from portal.domain.runners import runner_tokens
from portal.domain.scopes import INSTANCE
from portal.models import (
    AccessLevel,
    GroupSettings,
    InstanceSettings,
    RegistrationType,
    Runner,
    RunnerToken,
    RunnerType,
    TokenOrigin,
)
from tests.cast import Cast

OLD = "x7Gk2mPq9RsT4vWx8YzA"  # twenty characters, as GitLab made them before 16.0
CREATED = "glrt-aB3-dE6_fG9hJ2kL5mN8"
DASHES = "glrt-t2_Zm9v-YmFy_cXV4-MTIzNDU2Nzg5MGFi.01.0w1ab2cd3"
BARE = "t1_9sKd83jfLw02mzPq7XyV"
UNTAGGED = Defaults("instance", run_untagged=True)

CONFIG = f"""
concurrent = 4
check_interval = 0

[session_server]
  session_timeout = 1800

[[runners]]
  name = "build-1"
  url = "https://someone:secret@gitlab.example.com/"
  id = 17
  token = "{OLD}"
  token_obtained_at = 2024-02-03T04:05:06Z
  token_expires_at = 0001-01-01T00:00:00Z
  executor = "docker"
  [runners.docker]
    image = "alpine"

[[runners]]
  name = "build-2"
  url = "https://gitlab.example.com/"
  token = "{CREATED}"
  token_expires_at = 2999-01-01T00:00:00Z
  executor = "kubernetes"
"""


def listed(*entries: dict[str, object]) -> list[Written]:
    return import_formats.read(json.dumps(entries), source="list.json", field="pasted")


def previewed(session: Session, cast: Cast, written: list[Written], defaults: Defaults = UNTAGGED) -> Preview:
    return import_preview.preview(session, cast.as_(cast.dana), written, defaults)


def entries_of(found: Preview) -> list[Entry]:
    return [each.entry for each in found.planned]


def imported(session: Session, cast: Cast, written: list[Written], defaults: Defaults = UNTAGGED) -> Report:
    entries = entries_of(previewed(session, cast, written, defaults))
    return runner_import.carry_out(session, cast.as_(cast.dana), entries)


def reasons(found: Preview | Report) -> list[str]:
    return [each.reason for each in found.skipped]


# Reading


def test_a_config_toml_tells_names_tokens_and_ends_of_life(session: Session) -> None:
    first, second = import_formats.read(CONFIG, source="config.toml", field="files")
    assert (first.place, first.description) == ("config.toml, runner 1 “build-1”", "build-1")
    assert (first.executor, first.server) == ("docker", "gitlab.example.com")
    assert (first.expires_at, second.expires_at) == (None, datetime(2999, 1, 1, tzinfo=UTC))
    assert first.token
    assert second.token
    assert (first.token.digest, first.token.short, first.token.by_person) == (
        tokens.digest(OLD),
        OLD[:9],
        False,
    )
    assert (second.token.short, second.token.by_person) == ("aB3-dE6_f", True)


def test_what_is_read_holds_no_token(session: Session) -> None:
    for each in (*import_formats.read(CONFIG, source="c", field="f"), *listed({"token": DASHES})):
        assert not any(token[12:] in repr(each) for token in (OLD, CREATED, DASHES))
        assert "secret" not in repr(each)


def test_windows_line_ends_and_a_byte_order_mark_are_no_trouble(session: Session) -> None:
    text = "\ufeff" + CONFIG.replace("\n", "\r\n")
    assert len(import_formats.read(text, source="c", field="f")) == 2


AT = "it goes wrong at line"
TOO_DEEP = "it is nested too deeply, or a number in it is too long"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[runners]]\n  token = "open', rf"c cannot be read as TOML: {AT} 2, column 16, its end."),
        ('[[runners]]\ntoken = "a"\ntoken = "b"\n', rf"c cannot be read as TOML: {AT} 3, column \d+."),
        ("only the token itself", rf"c cannot be read as TOML: {AT} 1, column \d+."),
        ('[{"token": "a"},\n {"token" "b"}]', f"c cannot be read as JSON: {AT} 2, column 11."),
        ('[{"token": ' + "[" * 100_000, f"c cannot be read as JSON: {TOO_DEEP}."),
        ('[{"maximum_timeout": ' + "9" * 5000 + "}]", f"c cannot be read as JSON: {TOO_DEEP}."),
        ('{"token": "a"}', r"c: a JSON list is wanted, such as \[{…}, {…}\]."),
        ("[]", "c: the list is empty."),
        ("concurrent = 1", r"c: there is no \[\[runners\]\] in it."),
        ("runners = 3", r"c: there is no \[\[runners\]\] in it."),
        (" \n", "c is empty."),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place_and_without_its_text(text: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        import_formats.read(text, source="c", field="files")
    assert re.fullmatch(says, refused.value.problems["files"][0])
    shown = "".join(traceback.format_exception(refused.value))
    assert "Error:" not in shown, "no log shows the parser's message, which may hold a token"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "It has no token."),
        ("  ", "It has no token."),
        (17, "token must be a text."),
        ("${RUNNER_TOKEN}", "In place of the token stands a variable that nobody has filled in."),
        ("$RUNNER_TOKEN_OF_THE_FLEET", "In place of the token stands a variable that nobody has filled in."),
        ("{{ runner_token_of_the_fleet }}", "In place of the token stands a variable that nobody has filled in."),
        ("<your runner token here>", "In place of the token stands a variable that nobody has filled in."),
        ("glrt-13characters", "The token is too short: fewer than 14 characters behind its prefix."),
        ("thirteen-char", "The token is too short: fewer than 14 characters behind its prefix."),
        ("glrt-with a space inside", "The token has a space or a character that no token has."),
        ("glrt-with-ümlauts-inside", "The token has a space or a character that no token has."),
        ("glrt-" + "x" * 600, "The token is too long: more than 512 characters."),
        (tokens.make(1)[:-1] + "!", None),
        (tokens.make(2)[:-2] + "zz", "The token was mistyped: its checksum does not fit, so a character is wrong or"),
    ],
)
def test_what_can_be_no_authentication_token_is_told_why(token: object, reason: str | None) -> None:
    (found,) = listed({"token": token})
    if reason is None:
        assert found.token
    else:
        assert found.problem.startswith(reason)
        assert found.token is None


def test_a_registration_token_is_told_from_a_runners_token() -> None:
    (found,) = listed({"token": tokens.make_registration()})
    assert found.problem.startswith("This is a registration token (GR1348941…)")


def test_fourteen_characters_are_enough_and_white_space_around_them_is_cut() -> None:
    (found,) = listed({"token": " fourteen-char1\n"})
    assert found.token
    assert found.token.digest == tokens.digest("fourteen-char1")
    assert found.token.brief


@pytest.mark.parametrize(
    ("token", "brief"),
    [
        ("glrt-" + "a1" * 9, True),
        ("glrt-" + "a1" * 10, False),
        ("t1_" + "a1" * 9, True),
        ("glrtr-" + "a1" * 9 + "b", True),
        ("a1" * 10, False),
    ],
)
def test_a_token_is_short_by_what_stands_behind_its_prefix(token: str, brief: bool) -> None:
    (found,) = listed({"token": token})
    assert found.token
    assert found.token.brief == brief


def test_names_that_mean_nothing_are_told_and_those_that_could_be_tokens_are_not() -> None:
    (found,) = listed({"token": OLD, "Scope": 1, "tagList": 2, "tag-list": 3, OLD: 4, "glrt-abc": 5, "a" * 31: 6})
    hidden = "a name that is not shown here"
    assert found.ignored == ("Scope", "tagList", "tag-list (it is called tag_list here)", hidden, hidden, hidden)
    (found,) = listed({"token": OLD, **{f"key_{letter}": 1 for letter in "abcdefghij"}})
    assert found.ignored[-2:] == ("key_h", "2 more")
    (found,) = import_formats.read(f'[[runners]]\ntoken = "{OLD}"\nlimit = 3', source="c", field="f")
    assert found.ignored == (), "a config.toml has many names that are none of ours"


def test_the_short_form_never_holds_the_whole_of_a_token() -> None:
    for token in ("fourteen-char1", "glrt-12345678901234", "glrtr-t3_12345678901234"):
        (found,) = listed({"token": token})
        assert found.token
        assert len(tokens.body(token)) - len(found.token.short) >= 5


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"scope": 3}, "scope must be a text."),
        ({"description": "\ud800"}, "description has a character that cannot be stored."),
        ({"description": "a\0b"}, "description has a character that cannot be stored."),
        ({"scope": "a\0b"}, "scope has a character that cannot be stored."),
        ({"tag_list": [1]}, "tag_list must be a list of texts, or one text with commas."),
        ({"tag_list": ["\0"]}, "tag_list must be a list of texts, or one text with commas."),
        ({"run_untagged": "yes"}, "run_untagged must be true or false."),
        ({"locked": 1}, "locked must be true or false."),
        ({"paused": "no"}, "paused must be true or false."),
        ({"access_level": "owner"}, "access_level must be not_protected or ref_protected."),
        ({"maximum_timeout": "1h"}, "maximum_timeout must be a whole number of seconds."),
        ({"maximum_timeout": 10**30}, "maximum_timeout must be a whole number of seconds."),
        ({"maximum_timeout": True}, "maximum_timeout must be a whole number of seconds."),
        ({"token_expires_at": "soon"}, "token_expires_at must be a time such as 2026-01-31T12:00:00Z."),
        ({"token_expires_at": 5}, "token_expires_at must be a time such as 2026-01-31T12:00:00Z."),
    ],
)
def test_a_value_of_a_wrong_type_spoils_only_its_own_entry(more: dict[str, object], problem: str) -> None:
    first, second = listed({"token": OLD, **more}, {"token": CREATED})
    assert first.problem == problem
    assert not second.problem


def test_an_entry_that_is_no_object_is_named() -> None:
    (found,) = import_formats.read('["glrt-12345678901234567890"]', source="c", field="f")
    assert (found.place, found.problem) == ("c, runner 1", "It is no object with names and values.")


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("", None),
        (None, None),
        ("2999-01-01", datetime(2999, 1, 1, tzinfo=UTC)),
        ("2999-01-01T02:00:00+02:00", datetime(2999, 1, 1, tzinfo=UTC)),
    ],
)
def test_the_end_of_a_tokens_life_is_a_time_or_never(written: str | None, means: datetime | None) -> None:
    (found,) = listed({"token": OLD, "token_expires_at": written})
    assert found.expires_at == means


# The preview


def test_a_preview_says_what_would_be_made_where_and_stores_nothing(session: Session, cast: Cast) -> None:
    runners, events = session.scalar(select(func.count(Runner.id))), cast_events(session)
    found = previewed(
        session,
        cast,
        listed(
            {"token": OLD, "scope": "instance", "description": "One", "tag_list": "docker, linux"},
            {"token": CREATED, "scope": "ACME/platform/", "tag_list": ["a"], "access_level": "ref_protected"},
            {"token": DASHES, "scope": "acme/web", "locked": True, "maximum_timeout": 3600, "paused": True},
        ),
    )
    assert [each.scope for each in found.planned] == [INSTANCE, cast.platform, cast.web]
    first, second, third = entries_of(found)
    assert (first.kind, second.kind, third.kind) == (RunnerType.INSTANCE, RunnerType.GROUP, RunnerType.PROJECT)
    assert (first.settings.tags, first.settings.run_untagged) == (("docker", "linux"), True)
    assert second.settings.protected
    assert (third.settings.locked, third.settings.paused, third.settings.maximum_timeout) == (True, True, 3600)
    assert not found.skipped
    assert (session.scalar(select(func.count(Runner.id))), cast_events(session)) == (runners, events)


def cast_events(session: Session) -> int:
    return len(session.scalars(audit.of_scope(INSTANCE)).all())


def test_what_the_form_says_counts_for_runners_that_do_not_say_it(session: Session, cast: Cast) -> None:
    written = [*import_formats.read(CONFIG, source="c", field="f"), *listed({"token": BARE, "scope": "instance"})]
    found = previewed(session, cast, written, Defaults("acme/web", ("docker",), run_untagged=False))
    assert [each.scope for each in found.planned] == [cast.web, cast.web, INSTANCE]
    assert {each.entry.settings.tags for each in found.planned} == {("docker",)}


def test_nothing_becomes_an_instance_runner_unless_it_is_said(session: Session, cast: Cast) -> None:
    for scope in ("", "  ", "/"):
        with pytest.raises(Invalid) as refused:
            previewed(session, cast, listed({"token": OLD}), Defaults(scope, run_untagged=True))
        assert refused.value.problems["scope"][0].startswith("Say where these runners belong")
    found = previewed(session, cast, listed({"token": OLD, "scope": "acme"}, {"token": ""}), Defaults("", ("a",)))
    assert [each.scope for each in found.planned] == [cast.acme]
    assert found.for_everybody == 0
    found = previewed(session, cast, listed({"token": OLD}), Defaults(" INSTANCE/", ("a",)))
    assert ([each.scope for each in found.planned], found.for_everybody) == ([INSTANCE], 1)


def test_a_scope_in_the_form_that_does_not_exist_is_told_beside_its_field(session: Session, cast: Cast) -> None:
    with pytest.raises(Invalid) as refused:
        previewed(session, cast, listed({"token": OLD}), Defaults("acme/nowhere", run_untagged=True))
    assert refused.value.problems == {"scope": ["There is no group or project with this full path."]}
    assert previewed(session, cast, listed({"token": OLD, "scope": "acme"}), Defaults("acme/nowhere", ("a",)))


def test_machines_that_share_a_token_are_one_runner(session: Session, cast: Cast) -> None:
    entry = {"token": OLD, "scope": "acme", "description": "Shared"}
    (found,) = previewed(session, cast, listed(entry, entry, entry)).planned
    assert (found.times, found.warnings) == (3, ())
    (found,) = previewed(session, cast, listed(entry, {**entry, "scope": "other"})).planned
    assert (found.times, found.scope) == (2, cast.acme)
    assert "says something else of the same token" in found.warnings[0]


def test_a_token_that_is_known_here_is_skipped_with_its_runner_also_when_it_has_ended(
    session: Session, cast: Cast
) -> None:
    issued, reset = cast.runner(), cast.runner()
    runner_tokens.reset_token(session, cast.as_(cast.dana), reset.runner, seen_token_id=None)
    found = previewed(session, cast, listed({"token": issued.token}, {"token": reset.token}))
    assert [each.runner for each in found.skipped] == [issued.runner, reset.runner]
    assert reasons(found) == ["Its token is known here already."] * 2


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"token_expires_at": "2020-01-01T00:00:00Z"}, "Its token expired on 2020-01-01 00:00 UTC."),
        ({"scope": "acme/nowhere"}, "There is no group or project acme/nowhere."),
        ({"run_untagged": False}, "tags: Add at least one tag, or let the runner take untagged jobs"),
        ({"maximum_timeout": 5}, "maximum timeout: It needs to be at least 10 minutes"),
        ({"description": "x" * 1025}, "description: It is too long: at most 1024 characters."),
    ],
)
def test_what_cannot_be_made_is_skipped_with_its_reason(
    session: Session, cast: Cast, entry: dict[str, object], reason: str
) -> None:
    found = previewed(session, cast, listed({"token": OLD, **entry}, {"token": CREATED}))
    assert [each.place for each in found.skipped if each.reason.startswith(reason)]
    assert [each.entry.short for each in found.planned] == ["aB3-dE6_f"]


def test_a_token_made_for_another_kind_of_scope_is_told_and_imported(session: Session, cast: Cast) -> None:
    fits, other = previewed(
        session, cast, listed({"token": DASHES, "scope": "acme"}, {"token": BARE, "scope": "acme"})
    ).planned
    assert fits.warnings == ()
    assert other.warnings == ("Its token says that it was made for the instance. It works all the same.",)


def test_a_scope_that_is_full_takes_no_more_than_it_may_have(session: Session, cast: Cast) -> None:
    session.add(GroupSettings(group_id=cast.acme.id, ci_registered_group_runners=2))
    cast.runner()
    written = listed(*({"token": f"{OLD}{n}", "scope": "acme"} for n in range(3)), {"token": CREATED})
    found = previewed(session, cast, written)
    assert [each.entry.place for each in found.planned] == ["list.json, runner 1", "list.json, runner 4"]
    assert reasons(found) == ["acme has as many runners as it may have. Delete some, or raise its limit."] * 2


def test_more_runners_than_the_limit_are_refused_together(session: Session, cast: Cast) -> None:
    written = listed({"token": OLD}) * (import_preview.MOST_ENTRIES + 1)
    with pytest.raises(Invalid, match="Import at most 5000 at once"):
        previewed(session, cast, written)


def test_only_administrators_import(session: Session, cast: Cast) -> None:
    for person in (cast.alice, cast.bob, cast.charlie):
        with pytest.raises(NotFound):
            import_preview.preview(session, cast.as_(person), [], UNTAGGED)
        with pytest.raises(NotFound):
            runner_import.carry_out(session, cast.as_(person), [])


# Making


def test_an_import_makes_runners_with_the_tokens_that_they_had(session: Session, cast: Cast) -> None:
    written = import_formats.read(CONFIG, source="c", field="f")
    report = imported(session, cast, written, Defaults("acme", ("docker",)))
    old, created = [each.runner for each in report.made]
    assert (old.title, old.group, old.tag_list) == ("build-1", cast.acme.group, ["docker"])
    assert (old.registration_type, old.creator) == (RegistrationType.REGISTRATION_TOKEN, None)
    assert (created.registration_type, created.creator) == (RegistrationType.AUTHENTICATED_USER, cast.dana)
    for token, runner in ((OLD, old), (CREATED, created)):
        row = runner_tokens.token_row(session, token)
        assert (row.runner_id, row.origin, row.short) == (runner.id, TokenOrigin.IMPORTED, tokens.shorten(token))
    assert runner_tokens.token_row(session, CREATED).expires_at == datetime(2999, 1, 1, tzinfo=UTC)


def test_every_setting_of_a_list_arrives(session: Session, cast: Cast) -> None:
    entry = {
        "token": BARE,
        "scope": "acme/web",
        "description": "Fleet",
        "tag_list": ["a", "b"],
        "run_untagged": False,
        "locked": True,
        "paused": True,
        "access_level": "ref_protected",
        "maximum_timeout": 3600,
        "maintenance_note": "Rack 7",
    }
    (made,) = imported(session, cast, listed(entry)).made
    runner = made.runner
    assert (runner.description, runner.maintenance_note, runner.tag_list) == ("Fleet", "Rack 7", ["a", "b"])
    assert (runner.run_untagged, runner.locked, runner.paused) == (False, True, True)
    assert (runner.access_level, runner.maximum_timeout) == (AccessLevel.REF_PROTECTED, 3600)


def test_the_life_of_tokens_in_a_scope_does_not_shorten_an_imported_one(session: Session, cast: Cast) -> None:
    """Its machine was told when it expires, and renews it by that; a shorter life would cut it off."""
    session.add(InstanceSettings(runner_token_expiration_interval=7200))
    imported(session, cast, listed({"token": OLD}))
    assert runner_tokens.token_row(session, OLD).expires_at is None


def test_each_runner_that_is_imported_leaves_an_event(session: Session, cast: Cast) -> None:
    (made,) = imported(session, cast, listed({"token": OLD, "scope": "acme", "description": "Fleet"})).made
    event = session.scalars(audit.of_runner(made.runner)).one()
    assert (event.action, event.actor_name, event.scope_path) == ("runner_imported", "Dana Kay", "acme")
    assert event.changes == {
        "description": [None, "Fleet"],
        "run_untagged": [None, True],
        "token": [None, OLD[:9]],
    }


def test_an_import_that_is_confirmed_twice_makes_nothing_twice_and_says_so(session: Session, cast: Cast) -> None:
    entries = entries_of(previewed(session, cast, import_formats.read(CONFIG, source="c", field="f")))
    first = runner_import.carry_out(session, cast.as_(cast.dana), entries)
    again = runner_import.carry_out(session, cast.as_(cast.dana), entries)
    assert not first.repeated
    assert again.repeated
    assert [each.runner for each in again.skipped] == [each.runner for each in first.made]
    assert session.scalar(select(func.count(Runner.id))) == 2


def test_what_changed_since_the_preview_is_skipped_and_the_rest_is_made(session: Session, cast: Cast) -> None:
    soon = (now() + timedelta(hours=1)).isoformat()
    found = previewed(
        session,
        cast,
        listed(
            {"token": OLD, "scope": "acme"},
            {"token": CREATED, "scope": "acme/platform"},
            {"token": BARE, "scope": "acme/web", "token_expires_at": soon},
            {"token": DASHES, "scope": "other"},
        ),
    )
    imported(session, cast, listed({"token": OLD}))
    groups.delete(session, cast.as_(cast.dana), cast.platform)
    entries = [
        import_entries.from_plain({**import_entries.to_plain(each), "expires_at": (now() - timedelta(1)).isoformat()})
        if each.expires_at
        else each
        for each in entries_of(found)
    ]
    report = runner_import.carry_out(session, cast.as_(cast.dana), entries)
    assert reasons(report) == [
        "Its token is known here already.",
        "Its group was deleted meanwhile.",
        f"Its token expired on {now() - timedelta(1):%Y-%m-%d %H:%M} UTC. Reset it where it is, then import it.",
    ]
    assert [each.runner.group for each in report.made] == [cast.other.group]
    assert not report.repeated


def test_a_limit_that_came_since_the_preview_counts(session: Session, cast: Cast) -> None:
    found = previewed(session, cast, listed({"token": OLD, "scope": "acme"}, {"token": BARE, "scope": "acme"}))
    session.add(GroupSettings(group_id=cast.acme.id, ci_registered_group_runners=1))
    session.flush()
    report = runner_import.carry_out(session, cast.as_(cast.dana), entries_of(found))
    assert (len(report.made), reasons(report)) == (
        1,
        ["acme has as many runners as it may have. Delete some, or raise its limit."],
    )


def test_a_token_that_comes_here_in_the_same_moment_spoils_only_its_own_entry(
    session: Session, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = listed(*({"token": f"{OLD}{n}"} for n in range(5)))
    entries = entries_of(previewed(session, cast, written))
    imported(session, cast, written[2:3])
    blind = runner_import.what_is_here

    def knows_nothing(session: Session, digests: list[bytes]) -> Known:
        return blind(session, digests if len(digests) == 1 else [])

    monkeypatch.setattr(runner_import, "what_is_here", knows_nothing)
    report = runner_import.carry_out(session, cast.as_(cast.dana), entries)
    assert reasons(report) == ["Its token came here a moment ago."]
    assert [each.place[-1] for each in report.made] == ["1", "2", "4", "5"]
    assert session.scalar(select(func.count(RunnerToken.id))) == 5


def test_an_entry_survives_its_way_through_a_page(session: Session, cast: Cast) -> None:
    written = [*import_formats.read(CONFIG, source="c", field="f"), *listed({"token": BARE, "tag_list": "a, b"})]
    for entry in entries_of(previewed(session, cast, written)):
        assert import_entries.from_plain(json.loads(json.dumps(import_entries.to_plain(entry)))) == entry
    with pytest.raises(Stale):
        import_entries.from_plain({"place": "somewhere"})
    with pytest.raises(Stale):
        import_entries.skipped_from_plain(session, [{"place": "somewhere"}])
