"""Lists and pages of runners, machines, groups, projects and people, with a fleet of 100,000 runners behind them."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bench import large_demo, page_walks
from bench.figures import Figure
from bench.page_walks import Asked
from bench.runs import Run
from portal.domain.runners.runner_status import LAST_CONTACT
from portal.models import (
    Group,
    Membership,
    Project,
    Role,
    Runner,
    RunnerManager,
    RunnerToken,
    RunnerType,
    User,
)

MOST_QUERIES = 45
DEEP = 0.9  # how far down a list a deep page begins


@dataclass(frozen=True, slots=True)
class Fleet:
    """Whom and what the pages are about: the largest of each kind that the database has."""

    admin: str
    owner: str  # of the top-level group with the most groups below it
    maintainer: str  # of one project
    busy_person: str  # with the most roles of all
    stranger: str
    group: Group
    project: Project
    runner: Runner  # a usual one
    crowded: Runner  # the one with the most machines
    common_tags: list[str]
    rare_tag: str
    creator: str
    word: str
    short: str
    address: str
    system_id: str
    version: str


def fleet(session: Session) -> Fleet:
    """Look for them."""
    top = Group.traversal_ids[1]
    group_id = session.scalars(select(top).group_by(top).order_by(func.count().desc()).limit(1)).one()
    of_group = select(User.username).join(Membership, Membership.user_id == User.id)
    owners = of_group.where(Membership.group_id == group_id, Membership.access_level == Role.OWNER)
    in_projects = select(Membership).where(Membership.project_id.is_not(None), ~Membership.user.has(User.admin))
    maintainer = session.scalars(in_projects.order_by(Membership.access_level.desc(), Membership.id).limit(1)).one()
    roles = select(User.username).join(Membership, Membership.user_id == User.id).where(~User.admin)
    machines = select(RunnerManager.runner_id).group_by(RunnerManager.runner_id)
    crowded_id = session.scalars(machines.order_by(func.count().desc()).limit(1)).one()
    machine = session.scalars(select(RunnerManager).order_by(RunnerManager.id).offset(7).limit(1)).one()
    tags = select(func.unnest(Runner.tag_list).label("tag")).subquery()
    by_use = select(tags.c.tag).group_by(tags.c.tag)
    runner = session.scalars(
        select(Runner).where(Runner.runner_type == RunnerType.GROUP, Runner.group_id.is_not(None)).limit(1)
    ).one()
    members = select(Membership.user_id)
    assert maintainer.project_id is not None
    return Fleet(
        admin=session.scalars(select(User.username).where(User.admin).order_by(User.id).limit(1)).one(),
        owner=session.scalars(owners.order_by(User.id).limit(1)).one(),
        maintainer=maintainer.user.username,
        busy_person=session.scalars(roles.group_by(User.username).order_by(func.count().desc()).limit(1)).one(),
        stranger=session.scalars(select(User.username).where(User.id.not_in(members), ~User.admin).limit(1)).one(),
        group=session.get_one(Group, group_id),
        project=session.get_one(Project, maintainer.project_id),
        runner=runner,
        crowded=session.get_one(Runner, crowded_id),
        common_tags=list(session.scalars(by_use.order_by(func.count().desc(), tags.c.tag).limit(2))),
        rare_tag=session.scalars(by_use.order_by(func.count(), tags.c.tag).limit(1)).one(),
        creator=session.scalars(
            select(User.username).join(Runner, Runner.creator_id == User.id).order_by(Runner.id).limit(1)
        ).one(),
        word=(runner.description.split() or ["linux"])[0].lower(),
        short=session.scalars(select(RunnerToken.short).order_by(RunnerToken.id).limit(1)).one(),
        address=machine.ip_address or "10.0.0.1",
        system_id=machine.system_xid,
        version=(machine.version or "18.9.0"),
    )


def figures(run: Run) -> Iterator[Figure]:
    """Walk through all of them, with the large demo behind them."""
    app = page_walks.app_on(large_demo.database(run), str(run.folder / "lists"))
    seen = page_walks.walk(app, pages, rounds=5 if run.full else 3)
    run.say(page_walks.table(seen))
    yield from page_walks.figures(seen, named="list", most_queries=MOST_QUERIES)


def pages(session: Session) -> Iterator[Asked]:
    """Every list of this room, its filters and its deep pages."""
    found = fleet(session)
    yield from _runner_pages(session, found)
    yield from _other_pages(found)
    yield from _rest(session, found)
    yield from _graphql(session, found)


def filters_of(found: Fleet) -> dict[str, str]:
    """The filters of the runner pages, one by one and together, as they stand in an address."""
    common, second = quote(found.common_tags[0]), quote(found.common_tags[-1])
    rare = quote(found.rare_tag)
    return {
        "100 rows": "rows=100",
        "online": "status=online",
        "offline": "status=offline",
        "stale": "status=stale",
        "never contacted": "status=never_contacted",
        "instance type": "runner_type=instance_type",
        "project type": "runner_type=project_type",
        "paused": "paused=true",
        "a common tag": f"tag={common}",
        "two common tags": f"tag={common}&tag={second}",
        "a rare tag": f"tag={rare}",
        "two tags that nothing has": f"tag={rare}&tag=nothing-has-it",
        "a creator": f"creator={quote(found.creator)}",
        "tokens that are due": "token=due",
        "registered by token": "registration=token",
        "a common word": f"search={quote(found.word)}",
        "the beginning of every word": f"search={quote(found.word[:1])}",
        "a word that nothing has": "search=xylophone",
        "a short token": f"search={quote(found.short)}",
        "the beginning of an address": f"search={quote(found.address.split('.')[0])}.",
        "the beginning of a system ID": f"search={quote(found.system_id[:2])}",
        "a system ID": f"search={quote(found.system_id)}",
        "a number": f"search=%23{found.runner.id}",
        "last contact first": "sort=contacted_desc",
        "longest silent first": "sort=contacted_asc",
        "oldest first": "sort=created_asc",
        "much at once": f"status=offline&tag={common}&paused=false&search={quote(found.word)}&sort=contacted_desc",
        "a rare tag, longest silent first": f"tag={rare}&sort=contacted_asc",
        "due, stale, with a word": f"token=due&status=stale&search={quote(found.word)}",
    }


def _runner_pages(session: Session, found: Fleet) -> Iterator[Asked]:
    group, project = f"/groups/{found.group.full_path}/-/runners", f"/{found.project.full_path}/-/runners"
    places = (
        ("instance runners", "/admin/runners", found.admin),
        ("group runners", group, found.owner),
        ("group runners with inherited", f"{group}?inherited=true", found.owner),
        ("project runners", project, found.maintainer),
    )
    for name, path, who in places:
        yield Asked(name, path, who)
        mark = "&" if "?" in path else "?"
        for words, query in filters_of(found).items():
            yield Asked(f"{name}: {words}", f"{path}{mark}{query}", who)
        for sort in ("created_desc", "created_asc", "contacted_desc", "contacted_asc"):
            cursor = quote(_cursor_of_page(session, sort))
            for way in ("after", "before"):
                deep = f"{path}{mark}sort={sort}&{way}={cursor}"
                yield Asked(f"{name}: deep, {sort}, {way}", deep, who, deep_of=name)
        tag = quote(found.common_tags[0])
        deep = f"{path}{mark}tag={tag}&after={quote(_cursor_of_page(session, 'created_desc'))}"
        yield Asked(f"{name}: deep, with a common tag", deep, who, deep_of=f"{name}: a common tag")


def _nth(session: Session, order: object, *also: object) -> Runner:
    """The runner that stands DEEP down the list in this order."""
    total = session.scalar(select(func.count()).select_from(Runner)) or 0
    query = select(Runner).order_by(order, *also).offset(int(total * DEEP)).limit(1)  # type: ignore[arg-type]
    return session.scalars(query).one()


def _cursor_of_page(session: Session, sort: str) -> str:
    column = LAST_CONTACT if sort.startswith("contacted") else Runner.created_at.expression
    down = sort.endswith("_desc")
    runner = _nth(session, column.desc() if down else column, Runner.id.desc() if down else Runner.id)
    at = runner.contacted_at if sort.startswith("contacted") else runner.created_at
    return f"{at.isoformat() if at else '-infinity'}~{runner.id}"


def _other_pages(found: Fleet) -> Iterator[Asked]:
    group, project = f"/groups/{found.group.full_path}", f"/{found.project.full_path}"
    usual = f"/admin/runners/{found.runner.id}"
    crowded = f"/admin/runners/{found.crowded.id}"
    for name, path in {
        "instance": "/admin",
        "group": f"{group}/-",
        "project": f"{project}/-",
    }.items():
        yield Asked(f"{name} registration", f"{path}/registration", found.admin)
        yield Asked(f"{name} registration: what turning off does", f"{path}/registration/turn-off", found.admin)
        yield Asked(f"{name} runner settings", f"{path}/runner-settings", found.admin)
        yield Asked(f"{name} enrolment keys", f"{path}/enrolment-keys", found.admin)
        if name != "project":
            yield Asked(f"{name} clean-up", f"{path}/cleanup", found.admin)
            for days in (7, 30):
                yield Asked(f"{name} clean-up: {days} days", f"{path}/cleanup?days={days}", found.admin)
            yield Asked(f"{name} clean-up: delete now", f"{path}/cleanup/delete-now?days=7", found.admin)
        if name != "group":
            tags = quote(", ".join(found.common_tags))
            asked = f"{path}/which-runners?tags={tags}&ref=main&project={quote(found.project.full_path)}"
            yield Asked(f"{name} which runners take this", asked, found.admin)
    for page in ("", "/machines", "/edit", "/delete", "/reset-token"):
        yield Asked(f"a runner{page}", f"{usual}{page}", found.admin)
        yield Asked(f"a runner with many machines{page}", f"{crowded}{page}", found.admin)
    for who in (found.admin, found.owner, found.maintainer, found.busy_person, found.stranger):
        yield Asked("start page", "/", who)
        yield Asked("start page: a common word", "/?search=a", who)
        yield Asked("start page: a word that nothing has", "/?search=xylophone", who)
        yield Asked("deleted", "/-/deleted", who)
        yield Asked("account", "/-/account", who)
        yield Asked("bulk acts", "/-/bulk", who)
    yield Asked("group", group, found.owner)
    yield Asked("project", project, found.maintainer)
    yield Asked("group: delete", f"{group}/-/delete", found.admin)
    yield Asked("group members", f"{group}/-/members", found.owner)
    yield Asked("project members", f"{project}/-/members", found.maintainer)
    yield from _people(found)


def _people(found: Fleet) -> Iterator[Asked]:
    yield Asked("people", "/admin/people", found.admin)
    for words, query in {
        "deep": "after=person-9",
        "a common word": "search=person",
        "a word that nothing has": "search=xylophone",
        "never signed in": "standing=never_signed_in",
        "administrators": "administrators=true",
        "without second factor": "second_factor=none",
    }.items():
        yield Asked(f"people: {words}", f"/admin/people?{query}", found.admin, deep_of="people" * (words == "deep"))
    yield Asked("token look-up", "/admin/token-lookup", found.admin)
    for words, token in {"the beginning of a token": found.short[:4], "a short token": found.short}.items():
        yield Asked(f"token look-up: {words}", "/admin/token-lookup", found.admin, form={"pasted": token})


def _rest(session: Session, found: Fleet) -> Iterator[Asked]:
    api = "/api/v4"
    group, project = quote(found.group.full_path, safe=""), quote(found.project.full_path, safe="")
    lists = (
        ("all runners", f"{api}/runners/all", found.admin),
        ("runners one looks after", f"{api}/runners", found.admin),
        ("runners one looks after", f"{api}/runners", found.owner),
        ("runners one looks after", f"{api}/runners", found.maintainer),
        ("runners one looks after", f"{api}/runners", found.busy_person),
        ("a group's runners", f"{api}/groups/{group}/runners", found.owner),
        ("a project's runners", f"{api}/projects/{project}/runners", found.maintainer),
    )
    major, tag = found.version.split(".")[0], quote(found.common_tags[0])
    number = _nth(session, Runner.id).id
    cursor = urlsafe_b64encode(f"id~~{number}".encode()).decode().rstrip("=")
    for title, path, who in lists:
        name = f"REST {title} of {who}"
        yield Asked(name, f"{path}?per_page=100", who)
        for words, query in {
            "without totals": "pagination=keyset",
            "with machines": "include=managers",
            "online": "status=online",
            "stale": "status=stale",
            "never contacted": "status=never_contacted",
            "project type": "type=project_type",
            "paused": "paused=true",
            "a common tag": f"tag_list={tag}",
            "a rare tag": f"tag_list={quote(found.rare_tag)}",
            "a common version": f"version_prefix={major}",
            "a whole version": f"version_prefix={found.version}",
            "a version that nothing has": "version_prefix=99",
            "a common part": f"search={quote(found.word[1:])}",
            "a part that nothing has": "search=xylophone",
            "a creator": f"creator={quote(found.creator)}",
            "much at once": f"status=offline&tag_list={tag}&version_prefix={major}&paused=false",
            "a common version, newest first": f"version_prefix={major}&sort=desc",
        }.items():
            yield Asked(f"{name}: {words}", f"{path}?per_page=100&{query}", who)
        deep = f"{path}?per_page=100&pagination=keyset&order_by=id&sort=asc&cursor={cursor}"
        yield Asked(f"{name}: deep by cursor", deep, who, deep_of=f"{name}: without totals")
        yield Asked(f"{name}: page 100 by number", f"{path}?per_page=100&page=100", who, deep_of=name)
        yield Asked(f"{name}: page 900 by number", f"{path}?per_page=100&page=900", who)  # counted off, as in GitLab
    yield from _rest_of_places(found, group, project)


def _rest_of_places(found: Fleet, group: str, project: str) -> Iterator[Asked]:
    api = "/api/v4"
    for runner, words in ((found.runner, "a runner"), (found.crowded, "a runner with many machines")):
        for part in ("", "/managers", "/projects", "/jobs"):
            if (runner, part) == (found.crowded, "/managers"):
                continue  # all of them in one answer, as GitLab does it: as long as there are machines
            yield Asked(f"REST {words}{part}", f"{api}/runners/{runner.id}{part}", found.admin)
    for who in (found.admin, found.owner, found.busy_person, found.stranger):
        for what in ("groups", "projects", "namespaces", "users"):
            name = f"REST {what} of {who}"
            yield Asked(name, f"{api}/{what}?per_page=100", who)
            yield Asked(f"{name}: a common word", f"{api}/{what}?search=a", who)
            yield Asked(f"{name}: a word that nothing has", f"{api}/{what}?search=xylophone", who)
            yield Asked(f"{name}: deep", f"{api}/{what}?per_page=100&page=40", who, deep_of=name)
        yield Asked(f"REST owned groups of {who}", f"{api}/groups?owned=true", who)
        yield Asked(f"REST one's projects of {who}", f"{api}/projects?membership=true", who)
    for part in ("", "/subgroups", "/descendant_groups", "/projects", "/members", "/members/all"):
        yield Asked(f"REST a group{part}", f"{api}/groups/{group}{part}", found.owner)
    yield Asked("REST a group's projects, deep", f"{api}/groups/{group}/projects?include_subgroups=true", found.owner)
    for part in ("", "/members", "/members/all"):
        yield Asked(f"REST a project{part}", f"{api}/projects/{project}{part}", found.maintainer)
    yield Asked("REST access tokens", f"{api}/personal_access_tokens", found.admin)
    yield Asked("REST enrolment keys", f"{api}/enrolment_keys", found.admin)


NODES = """nodes { id description status runnerType paused tagList contactedAt version ipAddress jobExecutionStatus
  managers(first: 5) { count nodes { id systemId version status } } }"""

FACTS = """id version ipAddress platformName architectureName executorName status
  managers { count nodes { id version } }"""


def _graphql(session: Session, found: Fleet) -> Iterator[Asked]:
    def asked(name: str, query: str, who: str, deep_of: str = "") -> Asked:
        return Asked(f"GraphQL {name}", "/api/graphql", who, query=query, deep_of=deep_of and f"GraphQL {deep_of}")

    places = {
        "runners": ("{ runners%s { %s } }", found.admin),
        "a group's runners": (
            f'{{ group(fullPath: "{found.group.full_path}") {{ runners%s {{ %s }} }} }}',
            found.owner,
        ),
        "a project's runners": (
            f'{{ project(fullPath: "{found.project.full_path}") {{ runners%s {{ %s }} }} }}',
            found.maintainer,
        ),
    }
    part = NODES + " pageInfo { hasNextPage endCursor }"
    for name, (query, who) in places.items():
        yield asked(name, query % ("(first: 20)", part), who)
        for sort in ("CREATED_DESC", "CONTACTED_ASC", "TOKEN_EXPIRES_AT_ASC", "TOKEN_EXPIRES_AT_DESC"):
            yield asked(f"{name}: {sort}", query % (f"(first: 20, sort: {sort})", part), who)
        cursor = _cursor_of_graphql(session)
        deep = query % (f'(first: 20, after: "{cursor}")', part)
        yield asked(f"{name}: deep", deep, who, deep_of=name)
        for words, argument in _graphql_filters(found).items():
            yield asked(f"{name}: {words}", query % (f"(first: 20, {argument})", part), who)
            yield asked(f"{name}: count, {words}", query % (f"({argument})", "count"), who)
        yield asked(f"{name}: count", query % ("", "count"), who)
    query, who = places["a group's runners"]
    for name in ("DIRECT", "DESCENDANTS", "ALL_AVAILABLE"):
        listed = query % (f"(first: 20, membership: {name})", NODES + " count")
        yield asked(f"a group's runners, {name}", listed, who)
    for runner, words in ((found.runner, "a runner"), (found.crowded, "a runner with many machines")):
        yield asked(words, f'{{ runner(id: "gid://gitlab/Ci::Runner/{runner.id}") {{ {FACTS} }} }}', found.admin)


def _graphql_filters(found: Fleet) -> dict[str, str]:
    major = found.version.split(".")[0]
    return {
        "online": "status: ONLINE",
        "stale": "status: STALE",
        "a common tag": f'tagList: ["{found.common_tags[0]}"]',
        "a rare tag": f'tagList: ["{found.rare_tag}"]',
        "a common version": f'versionPrefix: "{major}"',
        "a version that nothing has": 'versionPrefix: "99"',
        "a common part": f'search: "{found.word[1:]}"',
        "a part that nothing has": 'search: "xylophone"',
        "a creator": f'creatorUsername: "{found.creator}"',
    }


def _cursor_of_graphql(session: Session) -> str:
    runner = _nth(session, Runner.created_at.desc(), Runner.id.desc())
    return urlsafe_b64encode(f"created~{runner.created_at.isoformat()}~{runner.id}".encode()).decode().rstrip("=")
