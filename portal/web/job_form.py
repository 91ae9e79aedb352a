"""The form in which a job is asked for, or a template of one; what it may be the domain decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wtforms import BooleanField, Field, HiddenField, StringField, TextAreaField

from portal.domain.errors import Invalid
from portal.domain.jobs.job_definitions import (
    ArtifactsWanted,
    JobVariable,
    NewJob,
    Repository,
    expiry_problems,
    masked_url,
)
from portal.domain.jobs.kept_secrets import with_secrets, without_secrets
from portal.domain.jobs.script_lines import commands
from portal.domain.runners.runner_settings import split_tags
from portal.web.forms import KeyedForm, in_a_field
from portal.web.times import read_duration

EMPTY_ROWS = 2  # that stand below those which are filled in
MORE_ROWS = 5
MOST_ROWS = 250  # of variables; more than may be
PROTECTIONS = {"": None, "yes": True, "no": False}
USUAL_NAME = "artifacts"
# Where the form shows what the domain says of a part of the job that is several fields here.
_SHOWN_BESIDE = {"artifacts": "artifacts_paths", "repository": "repository_url"}


@dataclass(slots=True)
class Row:
    """One variable in the form. `lost` says that a masked value was typed and has to be typed again."""

    variable: JobVariable
    lost: bool = False

    @property
    def is_empty(self) -> bool:
        return not self.variable.key and not self.variable.value


class VariableRows(Field):
    """Rows of key, value and ticks. The ticks name the number of their row, since unticked boxes are not sent."""

    rows: list[Row]

    def process(self, formdata: Any, data: Any = (), extra_filters: Any = None) -> None:  # noqa: ARG002
        self.process_errors = []
        if formdata is not None and formdata.getlist(f"{self.name}_key"):
            self.rows = self._typed(formdata)
        else:
            self.rows = [Row(each) for each in (data if isinstance(data, tuple) else ())]
        self.data = tuple(row.variable for row in self.rows if not row.is_empty)

    def _typed(self, formdata: Any) -> list[Row]:
        keys = formdata.getlist(f"{self.name}_key")[:MOST_ROWS]
        values = [each.replace("\r\n", "\n") for each in formdata.getlist(f"{self.name}_value")[:MOST_ROWS]]
        values += [""] * (len(keys) - len(values))
        ticked = {name: set(formdata.getlist(f"{self.name}_{name}")) for name in ("masked", "file", "raw")}
        pairs = enumerate(zip(keys, values, strict=False))
        return [
            Row(JobVariable(key.strip(), value, **{name: str(number) in on for name, on in ticked.items()}))
            for number, (key, value) in pairs
        ]

    def hide_masked(self) -> list[str]:
        """Forget the masked values that were typed: no page shows one. Returns whose they were."""
        lost = []
        for row in self.rows:
            if row.variable.masked and row.variable.value:
                lost.append(row.variable.key or "a variable without a name")
                row.variable, row.lost = replace(row.variable, value=""), True
        return lost

    def shown(self, more: int = 0) -> list[Row]:
        """The rows of the page: those with something in them, and some that are empty."""
        filled = [row for row in self.rows if not row.is_empty or row.lost]
        return [*filled, *(Row(JobVariable("")) for _ in range(EMPTY_ROWS + more))]


class JobForm(KeyedForm):
    """In the order of the page, which the summary of what is wrong has too."""

    name = StringField("Name")
    script = TextAreaField("Script")
    tags = StringField("Tags")
    ref = StringField("Branch or tag", default="main")
    protected = StringField("Protected", default="")
    image = StringField("Image")
    services = TextAreaField("Services")
    after_script = TextAreaField("After script")
    timeout = StringField("Timeout")
    retry = StringField("Retries", default="0")
    needs = StringField("Needs")
    variables = VariableRows("Variables")
    artifacts_paths = TextAreaField("Files to keep")
    artifacts_exclude = TextAreaField("Files to leave out")
    artifacts_name = StringField("Name of the archive", default=USUAL_NAME)
    artifacts_when = StringField("Keep them", default="on_success")
    artifacts_expire_in = StringField("Expire after")
    repository_url = StringField("Git repository")
    repository_commit = StringField("Commit")
    withdraw = BooleanField("Cancel the one that waits")  # shown where the form is filled from such a job
    seen_version = HiddenField()

    def wanted(self, before: NewJob | None = None) -> NewJob:
        """What was asked for; `before` is the job or template whose secrets go on where nothing else was typed.

        Raises Invalid for what is no number or time, together with all else that is wrong.
        """
        seconds, problems = self.read(read_duration, "timeout")
        retry, unread = _number_in(self.retry.data)
        if unread:
            problems["retry"] = ["Choose from the list."]
        needs, unknown = _numbers_in(self.needs.data)
        if unknown:
            problems["needs"] = ["Write the numbers of jobs, such as 17, 18."]
        asked = self._asked(seconds["timeout"], retry, needs)
        asked = with_secrets(asked, before) if before is not None else asked
        if problems:
            raise Invalid({**asked.problems(), **problems})
        return asked

    def _asked(self, timeout: int | None, retry: int, needs: tuple[int, ...]) -> NewJob:
        return NewJob(
            name=(self.name.data or "").strip(),
            script=commands(self.script.data or ""),
            after_script=commands(self.after_script.data or ""),
            image=(self.image.data or "").strip(),
            services=_lines(self.services.data),
            tags=split_tags(self.tags.data or ""),
            ref=(self.ref.data or "").strip(),
            protected=PROTECTIONS.get(self.protected.data or ""),
            variables=self.variables.data,
            timeout=timeout,
            artifacts=self._artifacts(),
            repository=self._repository(),
            retry=retry,
            needs=needs,
        )

    def _artifacts(self) -> ArtifactsWanted | None:
        paths, exclude = _lines(self.artifacts_paths.data), _lines(self.artifacts_exclude.data)
        expire_in = (self.artifacts_expire_in.data or "").strip()
        if not paths and not exclude and not expire_in:
            return None
        name = (self.artifacts_name.data or "").strip() or USUAL_NAME
        return ArtifactsWanted(paths, exclude, name, self.artifacts_when.data or "on_success", expire_in)

    def _repository(self) -> Repository | None:
        url, commit = (self.repository_url.data or "").strip(), (self.repository_commit.data or "").strip()
        return Repository(url, commit) if url or commit else None

    def refuse(self, invalid: Invalid) -> None:
        """Put the problems beside their fields. Masked values that were typed are gone, and the page says so."""
        problems = {_SHOWN_BESIDE.get(name, name): said for name, said in invalid.problems.items()}
        said = expiry_problems((self.artifacts_expire_in.data or "").strip())
        if said and problems.get("artifacts_paths") == said:
            problems["artifacts_expire_in"] = problems.pop("artifacts_paths")
        super().refuse(Invalid(problems))
        self.hide_masked()

    def hide_masked(self) -> None:
        """Say which masked values have to be typed again, and whether the repository's address has."""
        if lost := self.variables.hide_masked():
            said = f"Type the value of {', '.join(lost)} again: a masked value is never shown, not even here."
            self.variables.errors = [*self.variables.errors, said]
        typed = (self.repository_url.data or "").strip()
        if masked_url(typed) != typed:
            said = "Write the address again, with its name and password: they are never shown, not even here."
            self.repository_url.data = masked_url(typed)
            self.repository_url.errors = [*self.repository_url.errors, said]

    @property
    def rare(self) -> bool:
        """Whether something stands in the part that is folded, or is wrong there."""
        simple = ("name", "script", "tags", "request_key", "csrf_token", "seen_version", "variables", "withdraw")
        folded = [field for field in self if field.short_name not in simple]
        usual = {"ref": "main", "retry": "0", "artifacts_name": USUAL_NAME, "artifacts_when": "on_success"}
        return bool(self.variables.errors or self.variables.data) or any(
            field.errors or (field.data or "") not in ("", usual.get(field.short_name, "")) for field in folded
        )

    @staticmethod
    def values_of(asked: NewJob) -> Mapping[str, Any]:
        """How a job stands in the form, without its secrets."""
        shown = without_secrets(asked)
        kept = shown.artifacts or ArtifactsWanted(())
        return {
            "name": shown.name,
            "script": "\n".join(shown.script),
            "tags": ", ".join(shown.tags),
            "ref": shown.ref,
            "protected": {None: "", True: "yes", False: "no"}[shown.protected],
            "image": shown.image,
            "services": "\n".join(shown.services),
            "after_script": "\n".join(shown.after_script),
            "timeout": in_a_field(shown.timeout),
            "retry": str(shown.retry),
            "needs": ", ".join(map(str, shown.needs)),
            "variables": shown.variables,
            "artifacts_paths": "\n".join(kept.paths),
            "artifacts_exclude": "\n".join(kept.exclude),
            "artifacts_name": kept.name,
            "artifacts_when": kept.when,
            "artifacts_expire_in": kept.expire_in,
            "repository_url": shown.repository.url if shown.repository else "",
            "repository_commit": shown.repository.commit if shown.repository else "",
        }


def _lines(text: str | None) -> tuple[str, ...]:
    """The lines of a text, trimmed, without empty ones."""
    lines = (text or "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return tuple(line.strip() for line in lines if line.strip())


def _number_in(text: str | None) -> tuple[int, bool]:
    """(the number, whether it is none)."""
    digits = (text or "0").strip()
    good = digits.isascii() and digits.isdecimal() and len(digits) < 4
    return (int(digits), False) if good else (0, True)


def _numbers_in(text: str | None) -> tuple[tuple[int, ...], bool]:
    """(the numbers, with or without their #; whether something is none)."""
    words = (text or "").replace(",", " ").split()
    found = [word.removeprefix("#") for word in words]
    good = [each for each in found if each.isascii() and each.isdecimal() and len(each) <= 18]
    return tuple(dict.fromkeys(map(int, good))), len(good) != len(found)
