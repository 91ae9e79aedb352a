"""The portal's own commands: `flask --app app user …`, `managers …`, `demo …`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click
import psycopg
from flask import Flask, current_app
from flask.cli import AppGroup
from flask_migrate import upgrade
from sqlalchemy.exc import OperationalError, ProgrammingError

from portal import demo as demo_story
from portal.database import db
from portal.demo_tables import PEOPLE
from portal.domain import accounts, runner_managers
from portal.domain.actors import system
from portal.domain.errors import Refusal


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
demo = Commands("demo", help="Fill the portal with a believable organisation, to look around in.")
ACTOR = system("command line")
DEMO_PASSWORD = "let me look around"  # noqa: S105  (printed, and only for people that the demo makes)


def register(app: Flask) -> None:
    app.cli.add_command(user)
    app.cli.add_command(managers)
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


@managers.command("prune")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 3650), help="Days without contact.")
def prune_managers(days: int) -> None:
    """Delete managers without contact for that many days; their runners stay."""
    total = 0
    while True:
        gone = runner_managers.prune(db.session(), silent_for=timedelta(days=days))
        db.session.commit()
        total += gone
        if gone < runner_managers.PRUNE_BATCH:
            break
    click.echo(f"Deleted {total} machine{'' if total == 1 else 's'} without contact for {days} days.")


@demo.command("fill")
@click.option("--password", default=DEMO_PASSWORD, show_default=True, help="Password of the demo's people.")
def fill_demo(password: str) -> None:
    """Add groups, projects, people, runners and machines in every status; what is there stays as it is.

    Works on a new portal too: the database and the first administrator are made as `make run` makes them.
    """
    upgrade()
    settings = current_app.config["PORTAL"]
    try:
        root_password = accounts.ensure_first_administrator(db.session(), settings.root_password)
        filled = demo_story.fill(db.session(), password)
    except Refusal as refusal:
        raise click.ClickException(str(refusal)) from None
    db.session.commit()
    if filled is None:
        click.echo("The demo is here already; nothing was changed.")
    else:
        click.echo(
            f"Added {filled.groups} groups, {filled.projects} projects, {filled.people} people, "
            f"{filled.runners} runners and {filled.machines} machines."
        )
        click.echo(
            "Machines that are online now are shown so for two hours; "
            "a running portal deletes those silent for seven days within ten minutes."
        )
    _tell_how_to_sign_in(settings.url, password if filled else None)
    if root_password:
        click.echo(f"\nThe first administrator is root, password (shown once): {root_password}")


def _tell_how_to_sign_in(url: str, password: str | None) -> None:
    click.echo(f"\nSign in at {url} as one of")
    for username, _, role in PEOPLE:
        click.echo(f"  {username:<8} {role}")
    known = f"'{password}'" if password else "the one that the demo was filled with"
    click.echo(f"Their password is {known}. Anybody who knows it can sign in as them.")
