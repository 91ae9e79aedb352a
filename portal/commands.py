"""The portal's own commands: `flask --app app user …`, `managers …`, `runners …`, `demo …`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click
import psycopg
from flask import Flask, current_app
from flask.cli import AppGroup
from flask_migrate import upgrade
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from portal.database import db, now
from portal.demo import demo_scale, demo_story, scale_progress
from portal.demo.demo_tables import PEOPLE
from portal.domain.actors import system
from portal.domain.deletions import deletion_purge
from portal.domain.errors import Refusal
from portal.domain.jobs import job_definitions
from portal.domain.machines import silent_machines
from portal.domain.people import accounts, people, second_factor
from portal.domain.registration import registration_tokens
from portal.domain.runners import runner_cleanup
from portal.domain.runners.runner_cleanup import Gone
from portal.housekeeping import in_batches
from portal.models import User
from portal.requests import portal_url


class Commands(AppGroup):
    """Commands that say in a sentence what is wrong with the database."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OperationalError as problem:
            raise click.ClickException(f"The database does not answer. {problem.orig}") from None
        except ProgrammingError as problem:
            if not isinstance(problem.orig, psycopg.errors.UndefinedTable):
                raise
            raise click.ClickException("The database has no tables yet. Run: flask --app app db upgrade") from None


user = Commands("user", help="Create people and give them new passwords.")
managers = Commands("managers", help="Look after runner managers (the machines).")
keys = Commands("keys", help="Look after the keys that the portal encrypts with.")
token_keys = Commands("registration-tokens", help="The older name of `keys`.")
runners = Commands("runners", help="Look after runners.")
deleted = Commands("deleted", help="Look after what was deleted and can be restored.")
demo = Commands("demo", help="Fill the portal with a believable organisation, to look around in.")
T = TypeVar("T")
ACTOR = system("command line")
DEMO_PASSWORD = "let me look around"  # noqa: S105  (printed, and only for people that the demo makes)


def register(app: Flask) -> None:
    app.cli.add_command(user)
    app.cli.add_command(managers)
    app.cli.add_command(keys)
    app.cli.add_command(token_keys)
    app.cli.add_command(runners)
    app.cli.add_command(deleted)
    app.cli.add_command(demo)


@user.command("create")
@click.argument("username")
@click.option("--name", required=True, help="What people call them, such as 'Alice Lam'.")
@click.option("--email", required=True, help="E-mail address.")
@click.option("--admin", is_flag=True, help="Make them an administrator.")
@click.option("--password", help="Their password; generated and printed once when left out.")
def create_user(username: str, name: str, email: str, admin: bool, password: str | None) -> None:
    """Create the person USERNAME, who chooses a password of their own at the first sign-in."""
    chosen = password or accounts.generated_password()
    try:
        accounts.create_person(
            db.session(), ACTOR, username=username, name=name, email=email, password=chosen, admin=admin
        )
    except Refusal as refusal:
        raise click.ClickException(str(refusal)) from None
    db.session.commit()
    click.echo(f"Created {username}.")
    if not password:
        click.echo(f"Password (shown once): {chosen}")


@user.command("reset-password")
@click.argument("username")
@click.option("--password", help="The new password; generated and printed once when left out.")
def reset_password(username: str, password: str | None) -> None:
    """Give USERNAME a new password and end all their sessions."""
    person = accounts.find(db.session(), username)
    if person is None:
        raise click.ClickException(f"There is nobody called '{username}'.")
    chosen = password or accounts.generated_password()
    try:
        accounts.reset_password(db.session(), ACTOR, person, chosen)
    except Refusal as refusal:
        raise click.ClickException(str(refusal)) from None
    db.session.commit()
    click.echo(f"{person.username} has a new password and chooses another at the next sign-in.")
    if not password:
        click.echo(f"Password (shown once): {chosen}")


@user.command("block")
@click.argument("username")
def block_user(username: str) -> None:
    """Keep USERNAME out: all their sessions end, and they cannot sign in. Their runners go on working."""
    ended = _with_person(username, lambda person: people.block(db.session(), ACTOR, person))
    click.echo(f"{username} cannot sign in any more; {_some(ended, 'session')} ended.")


@user.command("unblock")
@click.argument("username")
def unblock_user(username: str) -> None:
    """Let USERNAME sign in again."""
    changed = _with_person(username, lambda person: people.unblock(db.session(), ACTOR, person))
    click.echo(f"{username} can sign in again." if changed else f"{username} was not blocked.")


@user.command("admin")
@click.argument("username")
@click.option("--take-away", is_flag=True, help="Make them an ordinary person again.")
def make_administrator(username: str, take_away: bool) -> None:
    """Make USERNAME an administrator."""
    changed = _with_person(
        username, lambda person: people.set_administrator(db.session(), ACTOR, person, not take_away)
    )
    now_or_before = "now" if changed else "already"
    click.echo(f"{username} is {'no administrator' if take_away else 'an administrator'} {now_or_before}.")


def _with_person(login: str, act: Callable[[User], T]) -> T:
    person = accounts.find(db.session(), login)
    if person is None:
        raise click.ClickException(f"There is nobody called '{login}'.")
    try:
        done = act(person)
    except Refusal as refusal:
        raise click.ClickException(str(refusal)) from None
    db.session.commit()
    return done


@user.command("remove-second-factor")
@click.argument("username")
def remove_second_factor(username: str) -> None:
    """Take the second factor of USERNAME away, who has lost app and recovery codes, and end all their sessions."""
    person = accounts.find(db.session(), username)
    if person is None:
        raise click.ClickException(f"There is nobody called '{username}'.")
    try:
        second_factor.remove(db.session(), ACTOR, person)
    except Refusal as refusal:
        raise click.ClickException(str(refusal)) from None
    db.session.commit()
    click.echo(f"{username} signs in with the password alone from now on, and can set up a second factor again.")


@managers.command("prune")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 3650), help="Days without contact.")
def prune_managers(days: int) -> None:
    """Delete managers without contact for that many days; their runners stay.

    A runner that has a time of its own for that keeps its managers for so long.
    """
    session, moment, silent_for = db.session(), now(), timedelta(days=days)
    total = in_batches(
        session, lambda: silent_machines.prune(session, at=moment, silent_for=silent_for), say=_say_so_far
    )
    click.echo(f"Deleted {_some(total, 'machine')} without contact for {days} days.")


def _say_so_far(gone: int) -> None:
    if gone >= silent_machines.BATCH:  # what fits into one batch needs no news on the way
        click.echo(f"{gone} so far", err=True)


def _some(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@runners.command("clean-up")
@click.option("--dry-run", is_flag=True, help="Print what would go, and change nothing.")
def clean_up_runners(dry_run: bool) -> None:
    """Delete stale runners wherever their clean-up is turned on, and print what goes.

    The running portal does the same by itself, once an hour.
    """
    session, moment = db.session(), now()
    group_ids = runner_cleanup.turned_on(session)
    if not group_ids:
        click.echo(f"No clean-up is turned on. The instance's is turned on at {portal_url('/admin/cleanup')}.")
    listed: set[int] = set()  # a group's runners may be the instance's clean-up's too
    for group_id in group_ids:
        if dry_run:
            listed |= _say_what_would_go(session, group_id, moment, listed)
        else:
            _clean_up(session, group_id, moment)


def _clean_up(session: Session, group_id: int | None, at: datetime) -> None:
    clean_up = runner_cleanup.of_id(session, group_id)
    if clean_up is None or clean_up.criteria is None:
        return
    what = f"{clean_up.scope.title}, silent for {clean_up.criteria.days} days"

    def take() -> int:
        gone = runner_cleanup.run(session, group_id, at)
        for runner in gone:
            click.echo(_line(runner))
        return len(gone)

    total = in_batches(session, take, say=_say_so_far)
    runner_cleanup.note_run(session, group_id, at)
    session.commit()
    click.echo(f"{what}: {_some(total, 'stale runner')} deleted.")


def _say_what_would_go(session: Session, group_id: int | None, at: datetime, listed: set[int]) -> set[int]:
    clean_up = runner_cleanup.of_id(session, group_id)
    if clean_up is None or clean_up.criteria is None:
        return set()
    found = runner_cleanup.preview(session, clean_up.scope, clean_up.criteria, at)
    fresh = [Gone.of(runner) for runner in found.runners if runner.id not in listed]
    for runner in fresh:
        click.echo(_line(runner))
    what = f"{clean_up.scope.title}, silent for {clean_up.criteria.days} days"
    click.echo(f"{what}: {_some(len(fresh), 'stale runner')} would go; nothing was changed.")
    return {runner.id for runner in fresh}


def _line(runner: Gone) -> str:
    heard = f"last poll {runner.contacted_at:%Y-%m-%d %H:%M} UTC" if runner.contacted_at else "never polled"
    return f"  {runner.name} of {runner.scope}, {heard}"


@deleted.command("purge")
def purge_deleted() -> None:
    """Delete for good what was deleted for longer than PORTAL_DELETED_KEPT. The running portal does it by itself."""
    session, moment, kept = db.session(), now(), current_app.config["PORTAL"].deleted_kept
    total = in_batches(session, lambda: deletion_purge.purge(session, moment, kept), say=_say_so_far)
    click.echo("What was due is deleted for good." if total else "Nothing is due to be deleted for good.")


@keys.command("re-encrypt")
def re_encrypt() -> None:
    """Encrypt everything that is kept encrypted with the first key of PORTAL_ENCRYPTION_KEYS.

    That is registration tokens, second factors and the variables of jobs. Afterwards the other keys can go.
    """
    done = registration_tokens.renew_encryption(db.session(), ACTOR, current_app.extensions["registration"])
    factors = second_factor.renew_encryption(db.session(), ACTOR, current_app.extensions["second_factor"])
    secrets = job_definitions.renew_encryption(db.session(), ACTOR, current_app.extensions["job_vault"])
    db.session.commit()
    click.echo(f"Encrypted {_some(done.renewed, 'registration token')} with the first key.")
    if factors.renewed:
        click.echo(f"Encrypted {_some(factors.renewed, 'second factor')} with the first key.")
    if secrets.renewed:
        click.echo(f"Encrypted the variables of {_some(secrets.renewed, 'job')} with the first key.")
    lost = []
    if secrets.lost:
        lost.append(
            f"The variables of {_some(secrets.lost, 'job')} could not be opened with any of the keys, unless an "
            "older key is added; those that wait fail, and templates have to be filled in anew."
        )
    if done.lost:
        lost.append(
            f"{done.lost} could not be opened with any of the keys. Their text is lost unless an older key is added; "
            "they still register runners, and can be reset."
        )
    if factors.lost:
        lost.append(
            f"{_some(factors.lost, 'second factor')} could not be opened with any of the keys, unless an older key "
            "is added; recovery codes still work, and an administrator can remove the factor."
        )
    if lost:
        raise click.ClickException(" ".join(lost))


token_keys.add_command(re_encrypt)


@demo.command("fill")
@click.option("--password", default=DEMO_PASSWORD, show_default=True, help="Password of the demo's people.")
@click.option(
    "--scale", type=float, help="Add a large organisation too: 1 is a thousand runners, 100 a hundred thousand."
)
def fill_demo(password: str, scale: float | None) -> None:
    """Add groups, projects, people, runners and machines in every status; what is there stays as it is.

    Works on a new portal too: the database and the first administrator are made as `make run` makes them.

    With --scale a large organisation is added, only to a portal that has nothing but the demo. 100 are 100,000
    runners, 500,000 machines, 10,000 groups, 1,000,000 jobs and 10,000,000 events. When that is interrupted, the same
    command goes on where it stopped.
    """
    upgrade()
    settings = current_app.config["PORTAL"]
    try:
        if scale is not None:
            demo_scale.require(db.session(), scale)  # before the small demo: what is refused changes nothing
        root_password = accounts.ensure_first_administrator(db.session(), settings.root_password)
        found = (current_app.extensions[name] for name in ("registration", "job_vault", "artifact_store"))
        filled = demo_story.fill(db.session(), password, *found)
    except Refusal as refusal:
        raise click.ClickException(str(refusal)) from None
    db.session.commit()
    if filled is None:
        click.echo("The demo is here already; nothing was changed.")
    else:
        click.echo(
            f"Added {filled.groups} groups, {filled.projects} projects, {filled.people} people, "
            f"{filled.runners} runners, {filled.machines} machines and {filled.jobs} jobs."
        )
        click.echo(
            "Machines that are online now are shown so for two hours; "
            "a running portal deletes those silent for seven days within ten minutes, "
            "and gives up the jobs that run, as no machine speaks of them."
        )
    _tell_how_to_sign_in(settings.url, password if filled else None)
    if root_password:
        click.echo(f"\nThe first administrator is root, password (shown once): {root_password}")
    if scale is not None:
        _fill_large(scale)


def _fill_large(scale: float) -> None:
    """Fill the large demo over one connection, and say how far it is."""
    click.echo(f"\nThe large demo, SCALE={scale:g}:")
    teller = scale_progress.Teller(sys.stderr)
    with db.engine.connect() as connection, Session(connection) as session:
        try:
            for progress in demo_scale.fill(session, scale, current_app.extensions["job_vault"]):
                session.commit()
                teller.tell(progress)
        except Refusal as refusal:
            raise click.ClickException(str(refusal)) from None
        except KeyboardInterrupt:
            raise click.ClickException(
                "Stopped. What is there is whole; the same command goes on from here. To be rid of it, delete the "
                "data folder, or the database of DATABASE_URL."
            ) from None
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        click.echo("Counting what there is, for PostgreSQL's plans …")
        demo_scale.count_all(connection)
    click.echo("The large demo is there.")


def _tell_how_to_sign_in(url: str, password: str | None) -> None:
    click.echo(f"\nSign in at {url} as one of")
    for username, _, role in PEOPLE:
        click.echo(f"  {username:<8} {role}")
    known = f"'{password}'" if password else "the one that the demo was filled with"
    click.echo(f"Their password is {known}. Anybody who knows it can sign in as them.")
