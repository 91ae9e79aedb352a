"""The demo's jobs as tables: what projects run all the time, and single jobs with a story of their own."""

from __future__ import annotations

from dataclasses import dataclass

from portal.domain.jobs.job_definitions import ArtifactsWanted, JobVariable, NewJob

HOUR = 60.0  # times here are minutes before the filling


@dataclass(frozen=True, slots=True)
class Routine:
    """What a project runs every few hours, the last time `newest` minutes ago, `times` times; some of it fails."""

    scope: str
    by: tuple[str, ...]
    runner: str
    new: NewJob
    every: float
    newest: float
    times: int
    seconds: tuple[int, int]
    fails: float = 0.0


@dataclass(frozen=True, slots=True)
class Single:
    """One job. `ends`: pending, running, canceling, canceled, success, or why it failed; `code` its exit code.

    `waits` and `runs` in seconds; who runs on no runner, waits. `stops` says who canceled it.
    """

    minutes: float
    scope: str
    by: str
    new: NewJob
    ends: str = "pending"
    runner: str = ""
    waits: float = 4
    runs: float = 60
    code: int = 0
    stops: str = ""
    leaves: tuple[str, ...] = ()  # files that it keeps, by their type


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a runner."""

    minutes: float
    runner: str
    by: str
    ends: str = "success"
    waits: float = 2


def _job(name: str, *script: str, tags: str = "", **more: object) -> NewJob:
    return NewJob(name=name, script=script, tags=tuple(tags.split()), **more)  # type: ignore[arg-type]


LINT = _job("lint", "npm ci", "npm run lint", tags="docker linux", image="node:22")
UNIT = _job("unit tests", "npm ci", "npm test", tags="docker linux", image="node:22")
BROWSER = _job("browser tests", "npm ci", "npx playwright test", tags="chromium", image="node:22", retry=1)
GATEWAY = _job("unit tests", "go vet ./...", "go test ./...", tags="docker", image="golang:1.24")
SHOP = _job("unit tests", "bundle install", "bundle exec rspec", tags="docker linux", image="ruby:3.4")
TRAIN = _job("train", "python train.py --epochs 3", tags="gpu cuda", timeout=7200)
IOS = _job("archive", "xcodebuild archive -scheme Acme", tags="macos xcode ios")
PACKAGE = _job(
    "package",
    "npm ci",
    "npm run build",
    "tar -czf site.tar.gz dist",
    after_script=("du -sh dist",),
    tags="docker linux",
    image="node:22",
    artifacts=ArtifactsWanted(paths=("dist/", "site.tar.gz"), name="site", expire_in="30 days"),
    variables=(JobVariable("NODE_ENV", "production"), JobVariable("SENTRY_KEY", "a demo, no secret", masked=True)),
)

ROUTINES = (
    Routine("acme/web", ("erin", "bob"), "Linux build fleet", LINT, 3 * HOUR, 34, 11, (24, 50), 0.1),
    Routine("acme/web", ("erin", "bob"), "Linux build fleet", UNIT, 3 * HOUR, 33, 11, (70, 140), 0.2),
    Routine("acme/web", ("bob",), "Browser tests", BROWSER, 6 * HOUR, 31, 5, (180, 420), 0.4),
    Routine("acme/platform/gateway", ("bob", "erin"), "Image builds", GATEWAY, 4 * HOUR, 55, 6, (40, 90), 0.15),
    Routine("nordwind/shop", ("ole",), "Nordwind builders", SHOP, 5 * HOUR, 47, 6, (90, 160), 0.1),
    Routine("acme/data/research/models", ("erin",), "GPU nodes", TRAIN, 9 * HOUR, 90, 4, (1500, 4800), 0.2),
    Routine("acme/mobile/ios", ("hana",), "iOS build Macs", IOS, 8 * HOUR, 75, 4, (400, 700)),
)

SINGLES = (
    Single(52, "acme/web", "bob", PACKAGE, "success", "Linux build fleet", runs=97, leaves=("archive", "junit")),
    Single(
        95,
        "acme/web",
        "bob",
        _job("deploy to production", "./deploy production", tags="deploy production", ref="release/4.2"),
        "success",
        "Production deploys",
        runs=41,
    ),
    Single(
        140,
        "acme/data/research/models",
        "erin",
        _job("sweep learning rates", "python sweep.py", tags="gpu cuda large"),
        "canceled",
        "GPU nodes",
        runs=1260,
        stops="erin",
    ),
    Single(
        210,
        "acme/platform/gateway",
        "bob",
        _job("soak", "k6 run soak.js", tags="docker", timeout=600),
        "job_execution_timeout",
        "Image builds",
        runs=600,
    ),
    Single(
        26 * HOUR,
        "acme/mobile/ios",
        "hana",
        _job("screenshots", "fastlane snapshot", tags="macos xcode"),
        "runner_system_failure",
        "iOS build Macs",
        runs=12,
    ),
    Single(
        66,
        "acme/web",
        "erin",
        _job("try something", "sleep 600", tags="docker linux", ref="faster-builds"),
        "canceled",
        stops="erin",
    ),
    # Those that wait, and why.
    Single(41, "acme/web", "erin", _job("build image", "docker build .", tags="dcoker linux", ref="faster-builds")),
    Single(
        38,
        "acme/web",
        "erin",
        _job("deploy to staging", "./deploy staging", tags="deploy production", ref="faster-builds"),
    ),
    Single(29, "acme/web", "bob", _job("load test", "k6 run peak.js", tags="k6 large", ref="main")),
    Single(
        22, "acme/web", "erin", _job("safari tests", "npm run test:safari", tags="macos xcode", ref="faster-builds")
    ),
    Single(19, "acme/data/warehouse", "ivan", _job("load orders again", "dbt run --select orders", tags="nightly")),
    Single(17, "nordwind/shop", "ole", _job("sign the app", "./sign", tags="signing hsm")),
    # Those that run.
    Single(11, "acme/data/research/models", "erin", TRAIN, "running", "GPU nodes", waits=9),
    Single(4, "acme/web", "bob", UNIT, "running", "Linux build fleet", waits=3),
    Single(3.5, "acme/web", "bob", BROWSER, "canceling", "Browser tests", waits=5, stops="bob"),
    Single(3, "acme/platform/gateway", "bob", GATEWAY, "running", "Image builds", waits=2),
)

CHECKS = (
    Check(20 * HOUR, "Linux build fleet", "alice"),
    Check(97, "GPU nodes", "alice"),
    Check(14, "Office Mac minis", "alice", "pending"),
)

# (days ago, who, project, patterns of protected refs); before the jobs above.
PROTECTED = (
    (299, "bob", "acme/web", ("main", "release/*")),
    (280, "bob", "acme/platform/gateway", ("main",)),
)

# (days ago, who, project, job); named jobs that a project keeps.
TEMPLATES = (
    (60, "bob", "acme/web", PACKAGE),
    (
        45,
        "erin",
        "acme/web",
        _job("check links", "npx linkinator https://www.acme.example", tags="docker linux", ref="links"),
    ),
    (30, "bob", "acme/platform/gateway", _job("soak", "k6 run soak.js", tags="docker", timeout=600)),
    (28, "ole", "nordwind/shop", SHOP),
)

GREEN, RED, GRAY, BOLD, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[90m", "\x1b[1m", "\x1b[0m"


def _bar(what: str) -> str:
    """A progress bar, as it is drawn over itself."""
    steps = [f"\r{what} [{'#' * done:<20}] {5 * done:3}%" for done in range(0, 21, 4)]
    return "".join(steps)


# What a line of a script prints; a line that is not here prints nothing.
PRINTS: dict[str, tuple[str, ...]] = {
    "npm ci": (_bar("Fetching packages"), "added 1184 packages in 19s"),
    "npm run lint": ("", "> web@4.2.0 lint", "> eslint src --max-warnings 0", ""),
    "npm test": (
        "",
        "> web@4.2.0 test",
        f" {GREEN}\u2713{PLAIN} src/cart.test.ts {GRAY}(38 tests){PLAIN} 412ms",
        f" {GREEN}\u2713{PLAIN} src/search.test.ts {GRAY}(61 tests){PLAIN} 877ms",
        f" {GREEN}\u2713{PLAIN} src/session.test.ts {GRAY}(19 tests){PLAIN} 203ms",
        "",
        f"{BOLD}Tests{PLAIN}  {GREEN}118 passed{PLAIN} {GRAY}(118){PLAIN}",
    ),
    "npx playwright test": (
        "Running 42 tests using 4 workers",
        _bar("Browsers"),
        f"  {GREEN}42 passed{PLAIN} {GRAY}(2.6m){PLAIN}",
    ),
    "npm run build": (
        "",
        "> web@4.2.0 build",
        _bar("Rendering chunks"),
        f"dist/index.html                 {BOLD} 1.42 kB{PLAIN}",
        f"dist/assets/index-b7c1a0.css    {BOLD}38.10 kB{PLAIN} {GRAY}gzip:  8.71 kB{PLAIN}",
        f"dist/assets/index-19fe22.js     {BOLD}412.66 kB{PLAIN} {GRAY}gzip: 131.09 kB{PLAIN}",
        f"{GREEN}built in 14.82s{PLAIN}",
    ),
    "du -sh dist": ("2.1M\tdist",),
    "go test ./...": (
        "ok  \tacme.example/gateway/route\t0.412s",
        "ok  \tacme.example/gateway/limits\t1.207s",
        "?   \tacme.example/gateway/cmd\t[no test files]",
    ),
    "bundle install": (_bar("Fetching gems"), "Bundle complete! 31 Gemfile dependencies, 118 gems now installed."),
    "bundle exec rspec": ("." * 74, f"{GREEN}346 examples, 0 failures{PLAIN}"),
    "python train.py --epochs 3": tuple(
        f"epoch {epoch}/3  loss {loss}  accuracy {accuracy}"
        for epoch, loss, accuracy in ((1, 0.4127, 0.861), (2, 0.2215, 0.918), (3, 0.1742, 0.934))
    ),
    "xcodebuild archive -scheme Acme": (
        "Resolve Package Graph",
        _bar("Compiling"),
        f"{BOLD}** ARCHIVE SUCCEEDED **{PLAIN}",
    ),
    "./deploy production": (
        "Uploading 214 files",
        _bar("Upload"),
        "Switching traffic: 10% 50% 100%",
        f"{GREEN}Release 4.2 is live{PLAIN}",
    ),
    "python sweep.py": tuple(
        f"trial {number:2}  lr {lr}" for number, lr in enumerate(("3e-3", "1e-3", "3e-4", "1e-4"), 1)
    ),
    "k6 run soak.js": ("     scenarios: (100.00%) 1 scenario, 200 max VUs", _bar("soak")),
}
# What the last line of a script prints instead when it fails.
FAILS: dict[str, tuple[str, ...]] = {
    "npm run lint": (
        "src/checkout/total.ts",
        f"  41:7  {RED}error{PLAIN}  'discount' is assigned a value but never used  {GRAY}no-unused-vars{PLAIN}",
        "",
        f"{RED}1 problem (1 error, 0 warnings){PLAIN}",
    ),
    "npm test": (
        f" {GREEN}\u2713{PLAIN} src/cart.test.ts {GRAY}(38 tests){PLAIN} 412ms",
        f" {RED}\u00d7{PLAIN} src/search.test.ts {GRAY}(61 tests | {PLAIN}{RED}1 failed{PLAIN}{GRAY}){PLAIN} 901ms",
        f"   {RED}expected [ 'blue shoes' ] to deeply equal [ 'blue shoe' ]{PLAIN}",
        "",
        f"{BOLD}Tests{PLAIN}  {RED}1 failed{PLAIN} | {GREEN}117 passed{PLAIN} {GRAY}(118){PLAIN}",
    ),
    "npx playwright test": (
        "Running 42 tests using 4 workers",
        f"  {RED}1 failed{PLAIN}: checkout.spec.ts:18 pays with a card",
        f"  {GREEN}41 passed{PLAIN} {GRAY}(3.1m){PLAIN}",
    ),
    "go test ./...": (
        f"--- {RED}FAIL{PLAIN}: TestRetryAfter (0.03s)",
        "    limits_test.go:88: waited 1.9s, want 2s",
        "FAIL\tacme.example/gateway/limits\t1.207s",
    ),
    "bundle exec rspec": ("." * 51 + f"{RED}F{PLAIN}" + "." * 22, f"{RED}346 examples, 1 failure{PLAIN}"),
    "python train.py --epochs 3": (
        "epoch 1/3  loss 0.4130  accuracy 0.860",
        f"{RED}RuntimeError: CUDA out of memory. Tried to allocate 2.50 GiB{PLAIN}",
    ),
}
