"""The portal's own commands: `flask --app app user …`, `managers …`, `demo …`."""

from __future__ import annotations

from datetime import timedelta

import click
from flask import Flask
from flask.cli import AppGroup

from portal.database import db
from portal.domain import accounts, runner_managers
from portal.domain.actors import system
from portal.domain.errors import Refusal

user = AppGroup("user", help="Create people and give them new passwords.")
managers = AppGroup("managers", help="Look after runner managers (the machines).")
ACTOR = system("command line")


def register(app: Flask) -> None:
    app.cli.add_command(user)
    app.cli.add_command(managers)


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
