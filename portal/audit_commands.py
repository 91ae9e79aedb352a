"""The commands of the trail: `flask --app app audit verify` and `audit export`."""

from __future__ import annotations

import sys
from datetime import datetime

import click
from flask import Flask
from sqlalchemy import select

from portal.commands import Commands
from portal.database import db
from portal.domain.trail import audit_chain, trail, trail_filters
from portal.domain.trail.audit_chain import Checked, Head
from portal.domain.trail.trail_filters import TrailFilter
from portal.models import AuditEvent

TELL_EVERY = 100_000  # events between two lines of progress

audit = Commands("audit", help="Check the trail, and write it to a file.")


def register(app: Flask) -> None:
    app.cli.add_command(audit)


class HeadOption(click.ParamType[Head]):
    """A head as `audit verify` prints it."""

    name = "position:hash"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        try:
            return Head.read(str(value))
        except ValueError:
            self.fail("It is a position, a colon and 64 hexadecimal digits, as a check has printed it.", param, ctx)


@audit.command("verify")
@click.option("--head", "noted", type=HeadOption(), help="A head that an earlier check printed.")
def verify(noted: Head | None) -> None:
    """Work out every hash of the trail again, and print the head of the chain.

    Exits with 1 at the first event that is not as it was written, and names it. Note the head somewhere else, such as
    in a ticket or on another machine, and give it to the next check with --head: then a cut-off end is found too.

    A file of `audit export --format jsonl` is checked without the portal. A line's hash is SHA-256 of the bytes of
    its previous_hash, followed by the UTF-8 text of a JSON array of its values from id to changes, in their order in
    the line, with ", " and ": " between them, keys of objects ordered by length and then by bytes, and no \\u
    for what is not ASCII. Each line's previous_hash is the hash of the line with the position before.
    """
    session = db.session()
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})  # one moment, whatever goes on
    checked = audit_chain.verify(session, noted=noted, say=_say)
    if checked.broken is not None:
        raise click.ClickException(str(checked.broken))
    _tell(checked)


def _say(count: int) -> None:
    if count % TELL_EVERY == 0:
        click.echo(f"{count:,} events so far", err=True)


def _tell(checked: Checked) -> None:
    if checked.head is None:
        click.echo("The trail is empty.")
        return
    events = f"{checked.count:,} event{'' if checked.count == 1 else 's'}"
    click.echo(f"The trail is unbroken: {events}, positions {checked.first} to {checked.head.position}.")
    click.echo(f"Head: {checked.head}")


@audit.command("export")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="First day, in UTC.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Last day, in UTC.")
@click.option("--scope", default="", help="Full path of a group or project; what is below belongs to it.")
def export(form: str, since: datetime | None, until: datetime | None, scope: str) -> None:
    """Write the trail to the standard output, oldest event first, with each event's place in the chain and hash."""
    wanted = TrailFilter(path=scope, since=since.date() if since else None, until=until.date() if until else None)
    session = db.session()
    query = trail_filters.fitting(session, select(AuditEvent), wanted)
    write = trail.csv if form == "csv" else trail.json_lines
    for line in write(session, query, notes=True):
        sys.stdout.write(line)
