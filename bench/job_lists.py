"""Lists and pages of jobs, with a million jobs behind them and a hundred thousand runners that could take them."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from bench import long_job_lists, page_walks
from bench.figures import Figure
from bench.long_job_lists import RARE_NAME, RARE_REF, RARE_TAG
from bench.page_walks import Asked, Seen
from bench.runs import Run
from portal.database import db
from portal.models import Job, JobMachine, JobStatus, Membership, Project, Role, Runner, RunnerManager, User

MOST_QUERIES = 45
API = "/api/v4"


@dataclass(frozen=True, slots=True)
class Places:
    """What the pages are about: the project, the runner and the machine with the most jobs, and jobs of each kind."""

    project: Project
    runner: Runner
    manager: RunnerManager
    instance: Runner
    deep: int  # the number of a job far down
    waiting: Job
    nobodys: Job
    over: Job
    running: Job


def places(session: Session) -> Places:
    """Look for them."""
    by_number = func.count().desc()
    project_id = session.scalars(
        select(Job.project_id)
        .where(Job.project_id.is_not(None))
        .group_by(Job.project_id)
        .order_by(by_number)
        .limit(1)
    ).one()
    runner_id = session.scalars(
        select(Job.runner_id).where(Job.runner_id.is_not(None)).group_by(Job.runner_id).order_by(by_number).limit(1)
    ).one()
    machine_id = session.scalars(
        select(JobMachine.runner_machine_id)
        .where(JobMachine.runner_machine_id.in_(select(RunnerManager.id)))
        .group_by(JobMachine.runner_machine_id)
        .order_by(by_number)
        .limit(1)
    ).one()
    its = select(Job).where(Job.project_id == project_id).order_by(Job.id.desc())
    total = session.scalar(select(func.count()).select_from(its.subquery())) or 0
    waits = select(Job).where(Job.status == JobStatus.PENDING, Job.project_id.is_not(None)).order_by(Job.id.desc())
    widest = (
        select(Runner)
        .where(Runner.runner_type == 1, Runner.active)
        .order_by(func.cardinality(Runner.tag_list).desc())
    )
    return Places(
        project=session.get_one(Project, project_id),
        runner=session.get_one(Runner, runner_id),
        manager=session.get_one(RunnerManager, machine_id),
        instance=session.scalars(widest.limit(1)).one(),
        deep=session.scalars(its.with_only_columns(Job.id).offset(int(total * 0.9)).limit(1)).one(),
        waiting=session.scalars(waits.limit(1)).one(),
        nobodys=session.scalars(waits.where(Job.tag_list.contains(["rare"])).limit(1)).first()
        or session.scalars(waits.offset(1).limit(1)).one(),
        over=session.scalars(its.where(Job.status == JobStatus.SUCCESS).limit(1)).one(),
        running=session.scalars(its.where(Job.status == JobStatus.RUNNING).limit(1)).first()
        or session.scalars(its.limit(1)).one(),
    )


def pages(session: Session) -> Iterator[Asked]:
    """Every list of jobs, with its filters and deep pages; pages of jobs, and what a runner could take."""
    found = places(session)
    people = _people(session, found.project)
    for who in people:
        yield from _of_project(found, who)
        yield from _of_jobs(found, who)
    for who in people[:2]:
        yield from _of_runner(found, who)
    yield from _rest(found, people[0])
    yield from _graphql(found, people[0])


def _people(session: Session, project: Project) -> list[str]:
    """An administrator, and the most and the least powerful who may see the project's jobs by a role."""
    admin = session.scalars(select(User.username).where(User.admin).order_by(User.id).limit(1)).one()
    assert project.group is not None
    here = or_(Membership.project_id == project.id, Membership.group_id.in_(project.group.traversal_ids))
    roles = select(User.username).join(Membership, Membership.user_id == User.id)
    theirs = roles.where(here, ~User.admin, Membership.access_level >= Role.DEVELOPER)
    ordered = list(session.scalars(theirs.order_by(Membership.access_level.desc(), User.id)))
    return list(dict.fromkeys([admin, *ordered[:1], *ordered[-1:]]))


FILTERS = {
    **{f"{status.value}": f"status={status.value}" for status in JobStatus},
    "without retried": "retried=no",
    "a common name": "search=build",
    "a rare name": f"search={RARE_NAME}",
    "a name that nothing has": "search=xylophone",
    "the beginning of names": "search=b",
    "a common ref": "ref=main",
    "a rare ref": f"ref={quote(RARE_REF)}",
    "a ref that nothing has": "ref=nowhere",
    "a common tag": "tag=docker",
    "a rare tag": f"tag={RARE_TAG}",
    "a tag that nothing has": "tag=nothing-has-it",
    "failed on a ref": "status=failed&ref=main",
    "running, rare name": f"status=running&search={RARE_NAME}",
    "canceled, a tag that nothing has": "status=canceled&tag=nothing-has-it",
    "success, a rare name": f"status=success&search={RARE_NAME}",
    "success, a name that nothing has": "status=success&search=xylophone",
    "much at once": "status=failed&ref=main&tag=docker&search=b&retried=no",
    "much at once that nothing has": "status=failed&ref=main&tag=docker&search=xylophone&retried=no",
}


def _of_project(found: Places, who: str) -> Iterator[Asked]:
    path = f"/{found.project.full_path}/-/jobs"
    yield Asked("project jobs", path, who)
    yield Asked("project jobs: a number", f"{path}?search=%23{found.over.id}", who)
    for words, query in FILTERS.items():
        yield Asked(f"project jobs: {words}", f"{path}?{query}", who)
        for way in ("after", "before"):
            name = f"project jobs: deep, {way}, {words}"
            yield Asked(name, f"{path}?{query}&{way}={found.deep}", who, deep_of=f"project jobs: {words}")
    for way in ("after", "before"):
        yield Asked(f"project jobs: deep, {way}", f"{path}?{way}={found.deep}", who, deep_of="project jobs")
    yield Asked("project", f"/{found.project.full_path}", who)
    yield Asked("which runners", f"/{found.project.full_path}/-/which-runners?tags=docker&ref=main", who)
    yield Asked("which runners: nobody", f"/{found.project.full_path}/-/which-runners?tags=nobody&ref=main", who)


def _of_jobs(found: Places, who: str) -> Iterator[Asked]:
    for words, job in {
        "that waits": found.waiting,
        "that few take": found.nobodys,
        "over": found.over,
        "that runs": found.running,
    }.items():
        assert job.project is not None
        path = f"/{job.project.full_path}/-/jobs/{job.id}"
        yield Asked(f"a job {words}", path, who)
        if job.state is JobStatus.PENDING:
            yield Asked(f"a job {words}: why", f"{path}/stuck", who)


def _of_runner(found: Places, who: str) -> Iterator[Asked]:
    path = (
        f"/groups/{found.runner.group.full_path}/-/runners/{found.runner.id}"
        if found.runner.group
        else f"/admin/runners/{found.runner.id}"
    )
    for title, at in {
        "runner jobs": f"{path}/jobs",
        "machine jobs": f"{path}/machines/{found.manager.id}/jobs",
    }.items():
        if title == "machine jobs" and found.manager.runner_id != found.runner.id:
            continue
        yield Asked(title, at, who)
        yield Asked(f"{title}: deep", f"{at}?after={found.deep}", who, deep_of=title)
        yield Asked(f"{title}: deep, before", f"{at}?before={found.deep}", who, deep_of=title)
        for status in ("running", "success", "failed", "canceled"):
            yield Asked(f"{title}: {status}", f"{at}?status={status}", who)
            yield Asked(
                f"{title}: {status}, deep",
                f"{at}?status={status}&after={found.deep}",
                who,
                deep_of=f"{title}: {status}",
            )
    yield Asked("runner checks", f"{path}/jobs?show=checks", who)
    yield Asked("a runner", path, who)
    yield Asked("could take", f"{path}/pending", who)
    yield Asked("could take: far", f"{path}/pending?from=5000", who)
    if who == "dana":
        yield Asked("could take, instance runner", f"/admin/runners/{found.instance.id}/pending", who)
        yield Asked(
            "could take, instance runner: far",
            f"/admin/runners/{found.instance.id}/pending?from=10000",
            who,
            deep_of="could take, instance runner",
        )


def _rest(found: Places, who: str) -> Iterator[Asked]:
    lists = {
        "a project's jobs": f"{API}/projects/{found.project.id}/jobs",
        "a runner's jobs": f"{API}/runners/{found.runner.id}/jobs",
        "a machine's jobs": f"{API}/runners/{found.manager.runner_id}/jobs?system_id={found.manager.system_xid}",
    }
    for title, path in lists.items():
        name, mark = f"REST {title}", "&" if "?" in path else "?"
        yield Asked(name, f"{path}{mark}per_page=100", who)
        for status in ("pending", "running", "success", "failed", "canceled"):
            word = "scope[]" if "project" in title else "status"
            if status == "pending" and "project" not in title:
                continue
            yield Asked(f"{name}: {status}", f"{path}{mark}per_page=100&{word}={status}", who)
        yield Asked(f"{name}: oldest first", f"{path}{mark}per_page=100&order_by=id&sort=asc", who)
        yield Asked(f"{name}: page 90", f"{path}{mark}per_page=100&page=90", who, deep_of=name)
        cursor = urlsafe_b64encode(f"job~{found.deep}".encode()).decode().rstrip("=")
        yield Asked(f"{name}: by cursor", f"{path}{mark}per_page=100&pagination=keyset&order_by=id", who)
        deep = f"{path}{mark}per_page=100&pagination=keyset&order_by=id&cursor={cursor}"
        yield Asked(f"{name}: deep by cursor", deep, who, deep_of=f"{name}: by cursor")
    yield Asked("REST a job", f"{API}/projects/{found.project.id}/jobs/{found.over.id}", who)


NODES = "nodes { id name status tags runner { id } }"


def _graphql(found: Places, who: str) -> Iterator[Asked]:
    lists = {
        "a project's jobs": f'{{ project(fullPath: "{found.project.full_path}") {{ jobs%s {{ %s }} }} }}',
        "a runner's jobs": f'{{ runner(id: "gid://gitlab/Ci::Runner/{found.runner.id}") {{ jobs%s {{ %s }} }} }}',
    }
    for title, query in lists.items():
        name = f"GraphQL {title}"
        yield Asked(name, "/api/graphql", who, query=query % ("(first: 100)", NODES))
        yield Asked(f"{name}: count", "/api/graphql", who, query=query % ("", "count"))
        for status in ("RUNNING", "SUCCESS", "FAILED", "CANCELED"):
            yield Asked(
                f"{name}: {status}", "/api/graphql", who, query=query % (f"(first: 100, statuses: [{status}])", NODES)
            )
            yield Asked(
                f"{name}: {status}, count", "/api/graphql", who, query=query % (f"(statuses: [{status}])", "count")
            )
    count = f'{{ runner(id: "gid://gitlab/Ci::Runner/{found.runner.id}") {{ jobCount jobExecutionStatus }} }}'
    yield Asked("GraphQL a runner's job count", "/api/graphql", who, query=count)


def walked(run: Run, url: str, *, rounds: int = 5) -> list[Seen]:
    """What each page took on this database."""
    app = page_walks.app_on(url, str(run.folder / "job-lists"))
    try:
        return page_walks.walk(app, pages, rounds=rounds)
    finally:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


def figures(run: Run) -> Iterator[Figure]:
    """Fill a database and walk through its pages."""
    size = {"pending": 300_000, "finished": 700_000, "machines": 100_000}
    if not run.full:
        size = {"pending": 40_000, "finished": 160_000, "machines": 20_000}
    with long_job_lists.filled(run, **size) as url:
        seen = walked(run, url)
    run.say(page_walks.table(seen))
    yield from page_walks.figures(seen, named="job_lists", most_queries=MOST_QUERIES)
