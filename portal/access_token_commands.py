"""The commands of access tokens, for the first step of automation: `flask --app app access-token create …`."""

from __future__ import annotations

from datetime import timedelta

import click
from flask import Flask

from portal.commands import ACTOR, Commands
from portal.database import db, now
from portal.domain.errors import NotFound, Refusal
from portal.domain.people import access_token_lists, access_tokens, accounts
from portal.domain.people.access_token_lists import State, TokenQuery
from portal.domain.people.access_tokens import NewAccessToken
from portal.models import AccessToken, TokenScope, User
from portal.requests import settings

LONGEST = "PORTAL_ACCESS_TOKEN_LONGEST at most, which is 365 unless set"
SHOWN = 1000  # the newest, when a person's are listed

access_token = Commands("access-token", help="Make access tokens, list and revoke them.")


def register(app: Flask) -> None:
    app.cli.add_command(access_token)


@access_token.command("create")
@click.argument("username")
@click.option("--scopes", required=True, help=f"What it opens, with commas: {', '.join(TokenScope)}.")
@click.option("--expires", "days", required=True, type=click.IntRange(1), help=f"Days until it ends: {LONGEST}.")
@click.option("--name", default="command line", show_default=True, help="What it is for.")
def create(username: str, scopes: str, days: int, name: str) -> None:
    """Make an access token of USERNAME and print it: nothing else, and only this once."""
    longest = settings().access_token_longest
    if days > longest.days:
        raise click.BadParameter(
            f"{days} days are too many: at most {longest.days}, as PORTAL_ACCESS_TOKEN_LONGEST says.",
            param_hint="'--expires'",
        )
    chosen = tuple(filter(None, (part.strip() for part in scopes.split(","))))
    wanted = NewAccessToken(name, chosen, now().date() + timedelta(days=days))
    try:
        issued = access_tokens.create(db.session(), ACTOR, _person(username), wanted, longest=longest)
    except Refusal as refusal:
        raise click.ClickException(str(refusal)) from None
    db.session.commit()
    click.echo(issued.token)


@access_token.command("list")
@click.argument("username")
def list_tokens(username: str) -> None:
    """Print the access tokens of USERNAME, the newest first, those that have ended too."""
    moment, wanted = now(), TokenQuery(user_id=_person(username).id)
    for token in access_token_lists.page(db.session(), wanted, moment, limit=SHOWN):
        used = f"last used {token.last_used_at:%Y-%m-%d %H:%M} UTC" if token.last_used_at else "never used"
        if token.last_used_address:
            used += f" from {token.last_used_address}"
        state = State.of(token, moment)
        click.echo(
            f"{token.id:>6}  {token.short}…  {state.value:<12}  until {token.expires_at}  "
            f"{','.join(token.scopes)}  {token.name} ({used})"
        )


@access_token.command("revoke")
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
def revoke(number: int) -> None:
    """End the access token with this NUMBER, as `list` prints it, at once and for good."""
    try:
        token: AccessToken = access_tokens.get(db.session(), ACTOR, number)
    except NotFound:
        raise click.ClickException(f"There is no access token with the number {number}.") from None
    changed = access_tokens.revoke(db.session(), ACTOR, token)
    said = f"{token.name} of {token.user.username}"
    db.session.commit()
    click.echo(f"{said} is revoked." if changed else f"{said} was revoked before.")


def _person(login: str) -> User:
    found = accounts.find(db.session(), login)
    if found is None:
        raise click.ClickException(f"There is nobody called '{login}'.")
    return found
