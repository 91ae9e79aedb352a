"""Every page for everybody: axe finds nothing serious, nothing scrolls sideways, the keyboard is enough."""

import re
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from sqlalchemy import select

from portal.database import now
from portal.domain.bulk import bulk_acts
from portal.domain.bulk.bulk_changes import Act, Wanted
from portal.domain.deletions import deletions
from portal.domain.enrolment import enrolment_keys, enrolment_use
from portal.domain.enrolment.enrolment_keys import NewEnrolmentKey
from portal.domain.enrolment.enrolment_use import Asked
from portal.domain.groups import groups
from portal.domain.jobs import job_templates, jobs
from portal.domain.jobs.job_definitions import JobVariable, NewJob
from portal.domain.people import access_tokens
from portal.domain.people.access_tokens import NewAccessToken
from portal.domain.runners import runner_projects
from portal.domain.runners import runners as runners_
from portal.domain.runners.runner_settings import RunnerSettings
from portal.models import RunnerManager
from tests.api.machines import Machine, over_http
from tests.browser import fleet
from tests.browser.conftest import DESKTOP, PHONE, Visit, Visitor
from tests.browser.fleet import Fleet
from tests.browser.scales import MOST_BYTES, Scales
from tests.cast import JOB_VAULT, TAGGED, Cast
from tests.portals import RunningPortal

GROUP, PROJECT, INSTANCE = "/groups/acme/-/runners", "/acme/web/-/runners", "/admin/runners"
AXE = Axe()
OF_COLOUR = ["color-contrast", "link-in-text-block"]  # axe's only rules that dark can break and light cannot
SIZES = {"desktop": DESKTOP, "phone": PHONE}
BULK = (Wanted(Act.TAGS, add=("gpu",), remove=("docker",)), Wanted(Act.DELETE), Wanted(Act.PAUSE))
LONG = "a-very-long-word-without-any-place-to-break-it-that-somebody-has-chosen-as-the-name-of-a-thing"


@pytest.fixture(scope="module")
def runners(cast: Cast) -> Fleet:
    cast.group(LONG, inside=cast.acme)
    return fleet.fill(cast)


def access_token_of_dana(cast: Cast) -> int:
    """The number of one of three: good, ending soon and expired, under names that are hard to lay out."""
    ids = []
    for days in (200, 3, 1):
        wanted = NewAccessToken(f"{LONG}-{days}", ("api", "read_api"), now().date() + timedelta(days=days), LONG)
        made = access_tokens.create(cast.session, cast.as_(cast.dana), cast.dana, wanted, longest=timedelta(days=365))
        ids.append(made.record.id)
    made.record.expires_at = now().date() - timedelta(days=1)
    cast.session.commit()
    return ids[0]


def stuck_jobs(cast: Cast) -> list[str]:
    """Pages of jobs that wait: one that nobody takes, with tags that are hard to lay out, and one that has takers."""
    nobody = cast.job(name=LONG, tags=("dcoker", "linux", f"{LONG}-tag"), ref=f"{LONG}-ref")
    return [f"/acme/web/-/jobs/{job.id}" for job in (nobody, cast.job(tags=("docker",)))]


@pytest.fixture(scope="module")
def of_jobs(cast: Cast) -> list[str]:
    """The pages of a project's jobs, with texts that are hard to lay out."""
    variables = (JobVariable(f"KEY_{'X' * 120}", LONG), JobVariable("SECRET", "correct-horse", masked=True))
    hard: dict[str, Any] = {"name": LONG, "ref": LONG, "tags": ("docker", LONG), "variables": variables}
    hard |= {"script": (f"echo {LONG * 3}", "make"), "after_script": (LONG,), "image": LONG, "services": (LONG, "x")}
    over, template = cast.job(**hard), NewJob(**{**hard, "ref": "main"})
    jobs.cancel(cast.session, cast.as_(cast.dana), over)
    kept = job_templates.create(cast.session, cast.as_(cast.dana), cast.web, template, JOB_VAULT)
    cast.session.commit()
    within = ("", "?search=zebra", f"/{over.id}", "/new", f"/new?from={over.id}", "/templates", "/templates/new")
    within += (f"/templates/{kept.id}", f"/templates/{kept.id}/delete")
    within = (*within, f"/{over.id}/erase")
    return [*(f"/acme/web/-/jobs{each}" for each in within), "/acme/web/-/job-settings"]


def job_refused(page: Page) -> None:
    """The form of a job with much that is wrong, everything open."""
    page.locator(".more-fields > summary").click()
    page.get_by_label("Timeout").fill("soon")
    page.locator("[name=variables_key]").first.fill("1X")
    page.locator("[name=variables_value]").first.fill("correct-horse")
    page.get_by_label("Masked variable 1").check()
    page.get_by_role("button", name="Run job").click()
    expect(page.get_by_role("alert")).to_be_visible()


def addresses(runners: Fleet, cast: Cast) -> list[str]:
    online, mine = runners.at(GROUP, "Online"), access_token_of_dana(cast)
    return [
        *stuck_jobs(cast),
        f"{online}/pending",
        runners.at(GROUP, "Stale", "/pending"),
        "/acme/web/-/which-runners",
        f"/acme/web/-/which-runners?tags=dcoker,{LONG}&ref=main&protected=no",
        "/admin/which-runners?project=acme/web&tags=docker&ref=main&protected=yes",
        "/",
        "/?search=zebra",
        "/admin/groups/new",
        "/groups/acme",
        f"/groups/acme/{LONG}",
        "/groups/acme/-/edit",
        "/groups/acme/-/delete",
        "/groups/acme/-/members",
        "/groups/acme/-/trail",
        "/acme/web",
        GROUP,
        f"{GROUP}?inherited=true&search=zebra",
        f"/groups/acme/{LONG}/-/runners",
        PROJECT,
        INSTANCE,
        f"{GROUP}/new",
        f"{PROJECT}/new",
        online,
        f"{online}/edit",
        f"{online}/reset-token",
        f"{online}/delete",
        runners.at(GROUP, "New"),
        f"{GROUP}?token=due&registration=token",
        runners.at(GROUP, "Online", f"/tokens/{runners.token_of_online}/end"),
        "/admin/registration",
        "/groups/acme/-/registration",
        "/groups/acme/-/registration/turn-off",
        "/groups/acme/-/registration/reset",
        "/acme/web/-/registration",
        "/admin/runner-settings",
        "/groups/acme/-/runner-settings",
        "/acme/web/-/runner-settings",
        "/admin/cleanup",
        "/groups/acme/-/cleanup?days=7",
        "/admin/token-lookup",
        "/admin/import",
        "/admin/people",
        "/admin/people/new",
        "/admin/people?search=zebra&standing=blocked",
        f"/admin/people/{cast.bob.id}",
        *(f"/admin/people/{cast.alice.id}/{act}" for act in ("edit", "block", "administrator", "reset-password")),
        f"/admin/people/{cast.alice.id}/delete",
        f"/admin/people/{cast.dana.id}",
        f"/admin/people/{cast.dana.id}/administrator",
        f"/admin/people/{cast.dana.id}/end-sessions",
        "/-/account",
        "/-/account/password",
        "/-/account/sessions",
        "/-/api",
        *(f"/-/api/{room}" for room in ("runners", "jobs", "runner-protocol", "shapes", "try")),
        "/-/graphql-explorer",
        "/-/account/access-tokens",
        "/-/account/access-tokens/new",
        *(f"/-/account/access-tokens/{mine}/{act}" for act in ("revoke", "rotate", "trail")),
        "/nowhere",
    ]


@pytest.fixture(scope="module")
def many(runners: Fleet, cast: Cast) -> list[str]:
    """Pages of acts on many, of further projects and of what is deleted, at the names that are hardest to lay out."""
    session, dana = cast.session, cast.as_(cast.dana)
    api, gone = cast.project(f"{LONG}-too", cast.acme), cast.group(f"{LONG}-gone", inside=cast.acme)
    shared = cast.runner(cast.web).runner
    runner_projects.assign(session, dana, shared, api)
    one = runners_.delete_runner(session, dana, cast.runner(cast.web, RunnerSettings(LONG, tags=("x",))).runner)
    several = deletions.begin(session, dana, "runners", "runners of acme", "acme")
    for scope in (cast.acme, gone):
        runners_.delete_runner(session, dana, cast.runner(scope).runner, deletion=several)
    group = groups.delete(session, dana, gone)
    chosen = set(runners.runners.values())
    named = NewEnrolmentKey(LONG, 3, now().date() + timedelta(days=9), TAGGED, ("192.0.2.0/24", "2001:db8::/32") * 2)
    key = enrolment_keys.create_key(session, dana, cast.acme, named, longest=timedelta(days=9)).record
    enrolment_use.enrol(session, key, Asked(LONG), address="2001:db8::192:0:2:7", request_id="")
    acts = [bulk_acts.draft(session, dana, cast.acme, wanted, chosen) for wanted in BULK]
    bulk_acts.start(session, dana, acts[-1].id)
    while bulk_acts.take_batch(session, acts[-1].id):
        pass
    session.commit()
    return [
        runners.at(PROJECT, "Locked", "/projects"),
        f"{PROJECT}/{shared.id}/projects",
        f"{PROJECT}/{shared.id}/projects?search=zebra",
        *(f"/-/bulk/{act.id}" for act in acts),
        "/-/bulk",
        *(f"/groups/acme/-/enrolment-keys{each}" for each in ("", "/new", f"/{key.id}", f"/{key.id}/revoke")),
        "/admin/enrolment-keys",
        "/admin/enrolment-keys?keys=own",
        "/acme/web/-/enrolment-keys/new",
        "/-/deleted",
        "/-/deleted?search=zebra",
        *(f"/-/deleted/{each.id}/{act}" for each in (one, group, several) for act in ("restore", "delete")),
    ]


def refused(page: Page) -> None:
    """Forms with everything wrong."""
    page.get_by_label("Maximum job timeout").fill("5")
    page.get_by_role("button", name="Create runner").click()
    expect(page.get_by_role("alert")).to_be_visible()


def created(page: Page) -> None:
    """The page with the token, every section open."""
    page.get_by_label("Tags").fill("docker")
    page.get_by_role("button", name="Create runner").click()
    expect(page.locator("#token")).to_be_visible()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")


def not_chosen(page: Page) -> None:
    """The form for an access token with everything missing."""
    page.get_by_role("button", name="Create access token").click()
    expect(page.get_by_role("alert")).to_be_visible()


def access_token(page: Page) -> None:
    """The page with a new access token and its first steps."""
    page.get_by_label("Name").fill(LONG)
    page.get_by_label("read_api").check()
    page.get_by_role("button", name="Create access token").click()
    expect(page.locator("#token")).to_be_visible()


def enrolling(page: Page) -> None:
    """The page with an enrolment key and its examples, every section open."""
    page.get_by_label("Name").fill("Build machines")
    page.get_by_label("Tags").fill("docker")
    page.get_by_role("button", name="Create enrolment key").click()
    expect(page.locator("#token")).to_be_visible()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")


def password(page: Page) -> None:
    """The page with somebody's new password."""
    page.get_by_role("button", name="Reset password").click()
    expect(page.locator("#password")).to_be_visible()


def problems(page: Page, rules: list[str] | None = None) -> list[str]:
    """What axe calls serious or critical here, by these rules or all, and whether the page scrolls sideways."""
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.axe_script)
    found = page.evaluate("(options) => axe.run(document, options)", options)["violations"]
    words = [
        f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]
    if page.evaluate("document.scrollingElement.scrollWidth > innerWidth"):
        words.append("the page scrolls sideways")
    return words


def look(page: Page, name: str) -> list[str]:
    """The problems of the page as it stands, in light and in dark."""
    page.emulate_media(color_scheme="light")
    light = [f"{name}: {problem}" for problem in problems(page)]
    page.emulate_media(color_scheme="dark")
    return light + [f"{name}, dark: {problem}" for problem in problems(page, OF_COLOUR)]


def with_token(page: Page) -> None:
    """The registration token and its commands, everything open."""
    for button in page.get_by_role("button", name="Make a registration token").all():
        button.click()  # only the first time there is one
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    expect(page.locator("#registration-token")).to_be_visible()


def looked_up(page: Page) -> None:
    """A token that belongs to nobody."""
    page.locator("main form textarea, main form input:not([type=hidden])").first.fill("glrt-nobody-has-this-token")
    page.locator("main form button").first.click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def previewed(page: Page) -> None:
    """What an import would make, and what it leaves out."""
    page.locator("main textarea").first.fill(
        '[{"token": "glrt-Xq7Lm2PdT8sVb31KdQeR", "scope": "acme"}, {"token": ""}]'
    )
    page.get_by_label("Tags").fill("docker")
    page.locator("main form button").first.click()
    expect(page.get_by_text("Xq7Lm2PdT")).to_be_visible()


def open_forms(visitor: Visitor, cast: Cast) -> list[str]:
    found = []
    for path, act in (
        (f"{GROUP}/new", refused),
        (f"{PROJECT}/new", created),
        ("/acme/web/-/enrolment-keys/new", enrolling),
        ("/acme/web/-/jobs/new", job_refused),
        (f"/admin/people/{cast.charlie.id}/reset-password", password),
        ("/-/account/access-tokens/new", not_chosen),
        ("/-/account/access-tokens/new", access_token),
        ("/groups/acme/-/registration", with_token),
        ("/admin/token-lookup", looked_up),
        ("/admin/import", previewed),
    ):
        page = visitor.open(path)
        act(page)
        found += look(page, act.__name__)
    return found


@pytest.fixture(scope="module")
def checks(runners: Fleet, cast: Cast, portal: RunningPortal) -> list[str]:
    """Checks at each step, and the jobs of a runner and of a machine, under names that are hard to lay out."""
    issued = cast.runner(cast.web, RunnerSettings(LONG, tags=("x" * 60,), run_untagged=True))
    machine, other = (Machine(over_http(portal.url), issued.token, name) for name in ("s_" + "x" * 60, "r_other"))
    runner, page = issued.runner, f"{PROJECT}/{issued.runner.id}"
    machine.poll(), other.poll()
    failed, good = cast.check(runner).id, cast.check(runner).id
    machine.wait_for_job().finish(state="failed", failure_reason="runner_system_failure", exit_code=1)
    done = machine.wait_for_job()
    done.write(b"hello\n")
    done.finish(b"hello\n")
    cast.job(name=LONG, ref=f"feature/{LONG}", tags=("x" * 60,))
    machine.wait_for_job().report("running")
    managers = cast.session.scalars(select(RunnerManager.id).where(RunnerManager.runner_id == runner.id)).all()
    aimed = cast.check(runner, cast.session.get(RunnerManager, managers[-1])).id
    never = cast.check(cast.runner(cast.web).runner)
    return [
        page,
        f"{page}/delete",
        f"{page}/jobs",
        f"{page}/jobs?status=canceled",
        f"{page}/jobs?show=checks",
        f"{page}/machines/{managers[0]}/jobs",
        *(f"{page}/checks/{each}" for each in (failed, good, aimed)),
        f"{PROJECT}/{never.checks_runner_id}/checks/{never.id}",
        f"{PROJECT}/{never.checks_runner_id}/jobs",
    ]


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious_in_checks_and_jobs_of_runners(visit: Visit, checks: list[str], size: str) -> None:
    visitor = visit(viewport=SIZES[size])
    visitor.sign_in("dana")
    found = [problem for path in checks for problem in look(visitor.open(path), path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious_and_nothing_scrolls_sideways(
    visit: Visit, runners: Fleet, cast: Cast, many: list[str], of_jobs: list[str], size: str
) -> None:
    visitor = visit(viewport=SIZES[size])
    found = look(visitor.open("/-/sign-in"), "/-/sign-in")
    visitor.sign_in("dana")
    for path in [*addresses(runners, cast), *many, *of_jobs]:
        found += look(visitor.open(path), path)
    found += open_forms(visitor, cast)
    assert not found, "\n".join(found)


def full_lists(cast: Cast) -> list[str]:
    """Pages of as many rows as a page can have."""
    tagged = RunnerSettings("Build machine in rack 7", "Call Bob", ("docker", "linux", "x86-64"))
    for _ in range(100):
        cast.runner(cast.acme, tagged)
        cast.job(name="browser tests", tags=("docker", "linux"))
    cast.session.commit()
    jobs_page = "/acme/web/-/jobs"
    runners_pages = [GROUP, f"{GROUP}?rows=100", f"{INSTANCE}?rows=100"]
    return [*runners_pages, jobs_page, f"{jobs_page}?status=pending", f"{jobs_page}?search=b", "/admin/trail"]


def test_every_page_weighs_at_most_100_kilobytes_on_a_first_visit(
    visit: Visit, runners: Fleet, cast: Cast, many: list[str], of_jobs: list[str], checks: list[str]
) -> None:
    visitor = visit()
    scales = Scales(visitor.page)
    scales.weigh(visitor.portal.url + "/-/sign-in")
    visitor.sign_in("dana")
    for path in [*addresses(runners, cast), *many, *of_jobs, *checks, *full_lists(cast)]:
        scales.weigh(visitor.portal.url + path)
    assert len(scales.weights) > 100
    assert {path: bytes_ for path, bytes_ in scales.weights.items() if bytes_ > MOST_BYTES} == {}
    assert scales.blocking == []


def test_axe_does_find_what_is_wrong(visit: Visit, runners: Fleet) -> None:
    page = visit(viewport=PHONE).open("/-/sign-in")
    page.evaluate("document.querySelector('label').remove()")
    page.evaluate("document.querySelector('h1').style.width = '900px'")
    found = problems(page)
    assert any(problem.startswith("label:") for problem in found)
    assert "the page scrolls sideways" in found


def test_axe_does_find_what_is_wrong_in_the_dark_only(visit: Visit, runners: Fleet) -> None:
    page = visit().open("/-/sign-in")
    page.evaluate("document.querySelector('h1').style.color = 'black'")
    found = look(page, "sign-in")
    assert [problem.partition(":")[0] for problem in found] == ["sign-in, dark"]


def test_the_console_is_watched(visit: Visit, runners: Fleet) -> None:
    visitor = visit()
    page = visitor.open("/-/sign-in")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'alert(1)'}))")
    page.evaluate("setTimeout(() => { throw new Error('of a script') })")
    page.wait_for_function("true")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    said = " ".join(visitor.complaints)
    assert "Content Security Policy" in said
    assert "of a script" in said
    visitor.complaints.clear()


def test_the_first_tab_leads_past_the_navigation(visit: Visit, runners: Fleet) -> None:
    page = visit().sign_in("dana")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_the_menu_opens_and_closes_by_keyboard(visit: Visit, runners: Fleet) -> None:
    page = visit().sign_in("dana")
    summary = page.get_by_label("Account of Dana Kay")
    items = page.locator(".menu-items")
    summary.focus()
    page.keyboard.press("Enter")
    expect(items).to_be_visible()
    page.keyboard.press("Tab")
    expect(items.get_by_role("link", name="Your account")).to_be_focused()
    page.keyboard.press("Escape")
    expect(items).to_be_hidden()
    expect(summary).to_be_focused()


def test_the_menu_closes_when_somebody_clicks_elsewhere(visit: Visit, runners: Fleet) -> None:
    page = visit().sign_in("dana")
    page.get_by_label("Account of Dana Kay").click()
    expect(page.locator(".menu-items")).to_be_visible()
    page.locator("h1").click()
    expect(page.locator(".menu-items")).to_be_hidden()


def test_every_control_of_the_new_runner_form_is_reached_by_tab(visit: Visit, runners: Fleet) -> None:
    visitor = visit()
    visitor.sign_in("alice")
    page = visitor.open(f"{GROUP}/new")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
    wanted = ["tags", "run_untagged", "protected", "description", "maintenance_note", "paused", "maximum_timeout"]
    assert [name for name in reached if name in wanted][: len(wanted)] == wanted
    assert "Create runner" in reached


def test_on_a_phone_the_menu_holds_the_ways_that_the_bar_has_no_room_for(visit: Visit, runners: Fleet) -> None:
    page = visit(viewport=PHONE).sign_in("dana")
    page.get_by_label("Account of Dana Kay").click()
    page.locator(".menu-items").get_by_role("link", name="Instance").click()
    page.wait_for_url(re.compile(INSTANCE))


def test_on_a_phone_the_connection_stands_before_the_instructions(visit: Visit, runners: Fleet) -> None:
    visitor = visit(viewport=PHONE)
    visitor.sign_in("alice")
    page = visitor.open(f"{GROUP}/new")
    created(page)
    line, how = page.locator(".live").bounding_box(), page.locator(".how").bounding_box()
    assert line
    assert how
    assert line["y"] + line["height"] <= how["y"]
