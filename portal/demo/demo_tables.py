"""The demo's organisation as tables: people, groups, projects, roles, runners, and what happened later."""

from __future__ import annotations

from dataclasses import dataclass, field

from portal.domain.permissions import Action
from portal.models import Role

THE_OLD_WAY = "a registration token"  # stands where a name stands, for runners that machines registered the old way
ADMINISTRATOR = ""  # stands for the portal's own first administrator; a group made by "" was there from the start


@dataclass(frozen=True, slots=True)
class Machines:
    """How many machines of which kind use a runner, by what has become of them."""

    kind: str = "docker"
    online: int = 0
    offline: int = 0
    stale: int = 0
    registered: int = 0  # verified, and never asked for jobs


@dataclass(frozen=True, slots=True)
class Plan:
    """One runner: where, by whom, how many days ago. `flags` are words: untagged, protected, locked."""

    scope: str
    by: str
    description: str
    tags: str
    days: float
    machines: Machines = field(default_factory=Machines)
    flags: str = ""
    note: str = ""
    timeout: int | None = None
    life: int | None = None  # days a token lives


@dataclass(frozen=True, slots=True)
class Kind:
    """What machines of one kind say of themselves."""

    executor: str
    platform: str
    architecture: str
    versions: tuple[str, ...]
    network: str
    labels: tuple[tuple[str, str], ...] = ()
    nameless: bool = False  # sends no system ID


# (user name, name, what to tell about them); everybody joined 400 days ago.
PEOPLE = (
    ("alice", "Alice Lam", "owner of acme"),
    ("bob", "Bob Ray", "maintainer of acme/platform and acme/web"),
    ("charlie", "Charlie Fox", "no role anywhere: sees nothing"),
    ("erin", "Erin Day", "developer in acme"),
    ("frank", "Frank Osei", "reporter in acme/data"),
    ("gina", "Gina Rossi", "guest in acme/web"),
    ("hana", "Hana Sato", "owner of acme/mobile"),
    ("ivan", "Ivan Petrov", "maintainer of acme/data/warehouse"),
    ("nora", "Nora Lind", "owner of nordwind"),
    ("ole", "Ole Berg", "maintainer of nordwind/shop"),
)

LEFT = ("jonas", "Jonas Weber")  # has left; blocked, so that nobody signs in as them any more

# (path, name, description, by, days ago); groups before what is in them.
GROUPS = (
    ("acme", "Acme", "Everything Acme builds", "", 390),
    ("acme/platform", "Platform", "Clusters, gateways and the tools the others build on", "alice", 380),
    ("acme/platform/edge", "Edge", "What runs close to the customers", "alice", 210),
    ("acme/mobile", "Mobile", "The apps", "alice", 371),
    ("acme/data", "Data", "Pipelines and reports", "alice", 340),
    ("acme/data/research", "Research", "Models, on machines with GPUs", "alice", 120),
    ("nordwind", "Nordwind", "Shop and shipping", "", 300),
    ("nordwind/shipping", "Shipping", "From the warehouse to the door", "nora", 290),
)
PROJECTS = (
    ("acme/web", "Web", "The public site", "alice", 389),
    ("acme/platform/gateway", "Gateway", "Routes every request", "bob", 360),
    ("acme/platform/terraform", "Terraform", "All infrastructure, as code", "bob", 355),
    ("acme/platform/edge/cache", "Cache", "", "bob", 200),
    ("acme/mobile/android", "Android", "The Android app", "hana", 350),
    ("acme/mobile/ios", "iOS", "The iPhone app", "hana", 349),
    ("acme/data/warehouse", "Warehouse", "Nightly loads", "alice", 330),
    ("acme/data/research/models", "Models", "", "alice", 118),
    ("nordwind/shop", "Shop", "The web shop", "nora", 298),
    ("nordwind/shipping/tracker", "Tracker", "Where is my parcel", "nora", 280),
    ("nordwind/shipping/labels", "Labels", "", "nora", 150),
)
# (user name, where, role, by, days ago)
MEMBERS = (
    ("alice", "acme", Role.OWNER, "", 389.9),
    ("bob", "acme/platform", Role.MAINTAINER, "alice", 379),
    ("bob", "acme/web", Role.MAINTAINER, "alice", 388),
    ("erin", "acme", Role.DEVELOPER, "alice", 370),
    ("hana", "acme/mobile", Role.OWNER, "alice", 370),
    ("frank", "acme/data", Role.REPORTER, "alice", 300),
    ("gina", "acme/web", Role.GUEST, "alice", 95),
    ("ivan", "acme/data/warehouse", Role.MAINTAINER, "alice", 320),
    ("jonas", "acme/mobile", Role.DEVELOPER, "hana", 290),
    ("nora", "nordwind", Role.OWNER, "", 299.9),
    ("ole", "nordwind/shop", Role.MAINTAINER, "nora", 270),
)


KINDS = {
    "docker": Kind("docker", "linux", "amd64", ("18.9.0", "18.9.0", "18.6.6"), "10.20.4", (("site", "fra1"),)),
    "arm": Kind("docker", "linux", "arm64", ("18.9.0", "18.4.0"), "10.20.9", (("site", "fra1"), ("cpu", "graviton"))),
    "shell": Kind("shell", "linux", "amd64", ("17.11.4", "18.4.0"), "192.0.2"),
    "old": Kind("shell", "linux", "amd64", ("15.11.1", "16.11.4"), "198.51.100"),
    "mac": Kind("shell", "darwin", "arm64", ("18.6.6", "18.9.0"), "10.31.0", (("xcode", "16.2"), ("rack", "b4"))),
    "windows": Kind("docker-windows", "windows", "amd64", ("18.6.6", "17.11.4"), "10.40.2"),
    "pods": Kind("kubernetes", "linux", "amd64", ("18.9.0",), "10.112.7", (("pool", "autoscaled"),)),
    "scaler": Kind("docker-autoscaler", "linux", "amd64", ("18.9.0", "19.3.0"), "203.0.113", (("cloud", "ec2"),)),
    "gpu": Kind("docker", "linux", "amd64", ("19.3.0", "18.9.0"), "10.66.1", (("gpu", "a100"),)),
    "python": Kind("", "", "", ("gitlab-python-runner",), "2001:db8:40:", nameless=True),
    "nameless": Kind("shell", "linux", "amd64", ("13.12.0", "11.11.4"), "198.51.100", nameless=True),
}

RUNNERS = (
    Plan("", ADMINISTRATOR, "Shared Linux fleet", "docker, linux", 380, Machines("scaler", 22, 3, 2), "untagged"),
    Plan("", ADMINISTRATOR, "Shared Windows builders", "windows, msbuild", 310, Machines("windows", 3, 1)),
    Plan("", ADMINISTRATOR, "Shared ARM fleet", "docker, arm64", 190, Machines("arm", 6)),
    Plan("", ADMINISTRATOR, "Security scans", "sast, trivy", 160, Machines("pods", 2), "", "Owned by security", 7200),
    Plan("", ADMINISTRATOR, "Old rack in the basement", "bare-metal", 385, Machines("old", 0, 0, 2)),
    Plan("", ADMINISTRATOR, "Nightly clean-up", "housekeeping", 2.5, Machines("docker", registered=1)),
    Plan("acme", "alice", "Linux build fleet", "docker, linux, x64", 370, Machines("docker", 12, 2, 1), "untagged"),
    Plan(
        "acme", "alice", "Production deploys", "deploy, production", 340, Machines("shell", 2), "protected", "", 3600
    ),
    Plan(
        "acme", "alice", "Release signing", "signing, hsm", 290, Machines("shell", 1), "protected", "HSM in rack c2"
    ),
    Plan("acme", "alice", "ARM builders", "docker, arm64", 180, Machines("arm", 4, 1)),
    Plan("acme", "alice", "Office Mac minis", "macos, xcode", 140, Machines("mac", 0, 3)),
    Plan("acme", "alice", "Load tests", "k6, large", 60, Machines("scaler", 0, 1, 3), "", "Only after 20:00", 14400),
    Plan("acme", "alice", "Windows installers", "windows, wix", 5, Machines("windows", registered=2)),
    Plan("acme", "alice", "Trial of 19.3", "docker, next", 0.02),
    Plan("acme/platform", "alice", "Kubernetes, prod-eu", "kubernetes, eu", 250, Machines("pods", 60), "untagged"),
    Plan("acme/platform", "alice", "Kubernetes, prod-us", "kubernetes, us", 5.4, Machines("pods", 31, 2), "untagged"),
    Plan("acme/platform", "alice", "Image builds", "buildah, docker", 1.6, Machines("docker", 5, 1), "", "", 5400),
    Plan("acme/platform", "alice", "Terraform plans", "terraform", 200, Machines("docker", 2)),
    Plan("acme/platform", "alice", "Bastion", "ssh, bastion", 330, Machines("old", 0, 1), "protected"),
    Plan("acme/platform/edge", "alice", "Edge probes", "edge, probe", 12, Machines("arm", 9, 4, 2)),
    Plan("acme/platform/edge", "alice", "Edge canaries", "edge, canary", 6),
    Plan(
        "acme/platform/gateway", "bob", "Gateway benchmarks", "bench, bare-metal", 90, Machines("shell", 1), "locked"
    ),
    Plan(
        "acme/platform/terraform", "bob", "Terraform apply", "terraform, apply", 200, Machines(online=1), "protected"
    ),
    Plan("acme/web", "bob", "Browser tests", "chromium, firefox", 2.1, Machines("docker", 4, 1), "locked"),
    Plan("acme/web", "bob", "Visual comparisons", "screenshots", 80, Machines("docker", 0, 2), "locked untagged"),
    Plan("acme/web", "bob", "Bob's workstation", "local", 3, Machines("shell", 0, 1), "locked", "Ask Bob first"),
    Plan("acme/mobile", "hana", "Android emulators", "android, kvm", 240, Machines("docker", 8, 1), "", "", 10800),
    Plan("acme/mobile", "hana", "iOS build Macs", "macos, xcode, ios", 19, Machines("mac", 7, 2)),
    Plan(
        "acme/mobile/ios", "hana", "App Store uploads", "macos, notarize", 170, Machines("mac", 1), "protected locked"
    ),
    Plan("acme/mobile/android", "hana", "Device farm", "android, devices", 30, Machines("shell", 0, 0, 4)),
    Plan("acme/data", "alice", "Spark jobs", "spark, large", 8, Machines("scaler", 3, 5), "", "", 86400),
    Plan("acme/data/warehouse", "ivan", "Nightly loads", "dbt, nightly", 205, Machines("docker", 0, 1), "locked"),
    Plan("acme/data/warehouse", "ivan", "Ad hoc queries", "sql", 1, flags="untagged"),
    Plan("acme/data/research", "alice", "GPU nodes", "gpu, cuda, large", 110, Machines("gpu", 6, 2), "", "", 172800),
    Plan("acme/data", "alice", "Report rendering", "latex, fonts", 28, Machines("docker", 2), life=35),
    Plan("acme/data", THE_OLD_WAY, "report-host-2", "latex", 230, Machines("nameless", 1)),
    Plan("acme/mobile/android", THE_OLD_WAY, "emulator-host-3", "android, kvm", 345, Machines("old", 1)),
    Plan("acme/platform", THE_OLD_WAY, "builder-eu-07", "docker, linux", 21, Machines("nameless", 1), "untagged"),
    Plan("acme/platform", THE_OLD_WAY, "builder-eu-08", "docker, linux", 12, Machines("old", 0, 0, 1), "untagged"),
    Plan("acme/data/research", "alice", "Notebook checks", "jupyter", 70, Machines("python", 1)),
    Plan("nordwind", "nora", "Nordwind builders", "docker, linux", 280, Machines("docker", 5, 1, 1), "untagged"),
    Plan("nordwind", "nora", "Nordwind deploys", "deploy", 260, Machines("shell", 1), "protected", "Call Nora", 1800),
    Plan("nordwind", THE_OLD_WAY, "packing-desk", "printer", 270, Machines("old", 0, 1)),
    Plan("nordwind", "nora", "Retired builder", "docker", 275, Machines("old", 0, 0, 1)),
    Plan("nordwind/shipping", "nora", "Label printer tests", "printer, usb", 120, Machines("shell", 0, 1)),
    Plan(
        "nordwind/shipping", "nora", "Shipping on Kubernetes", "kubernetes", 100, Machines("pods", 14, 1), "untagged"
    ),
    Plan("nordwind/shop", "ole", "Shop end to end", "chromium, e2e", 130, Machines("docker", 3), "locked"),
    Plan("nordwind/shop", "ole", "Shop payments", "payments", 0.4, Machines("docker", registered=1), "protected"),
)
SHORT_LIVED = Plan("acme", "alice", "Linux build fleet (try-out)", "docker", 371)
RETIRED = Plan("acme/data", "alice", "Spark on the old cluster", "spark", 150, Machines("docker", offline=2))
ROTATED = "Android emulators"  # one of its machines has reset the token by itself; the others follow within a day

# (days ago, who, what, runner); what happened after the runner was made.
LATER: tuple[tuple[float, str, str, str], ...] = (
    (369.5, "alice", "delete", SHORT_LIVED.description),
    (369.4, "alice", "delete for good", SHORT_LIVED.description),
    (45, "bob", "assign:acme/platform/gateway", "Terraform apply"),
    (61.2, "bob", "pause", "Gateway benchmarks"),
    (60.9, "bob", "resume", "Gateway benchmarks"),
    (32, "alice", "reset", "Production deploys"),
    (26, "nora", "pause", "Retired builder"),
    (14.3, "hana", "tag:xcode-16", "iOS build Macs"),
    (9, "alice", "tag:amd64", "Linux build fleet"),
    (6.1, "ole", "note:Seeded database, safe to rerun", "Shop end to end"),
    (4.2, ADMINISTRATOR, "pause", "Old rack in the basement"),
    (2.1, "alice", "pause", "Load tests"),
    (2, "alice", "delete", RETIRED.description),
    (1.2, "alice", "note:Macs move to the new office on Friday", "Office Mac minis"),
    (0.8, "bob", "pause", "Visual comparisons"),
    (0.12, "hana", "rotate", ROTATED),
)
# (days ago, who, where): registration tokens turned off, after the last machine there was registered with one.
TURNED_OFF = ((40, "nora", "nordwind"),)

BLOCKED = ((18, ADMINISTRATOR, LEFT[0]),)
# (days ago, who, from where, why); failed attempts to sign in.
REFUSED_SIGN_INS = (
    (17.6, "jonas", "203.0.113.80", "blocked"),
    (0.93, "bob", "10.31.0.7", "wrong password"),
    (0.929, "bob", "10.31.0.7", "wrong password"),
)
# (days ago, who, what, where, with which request); what somebody tried and may not.
REFUSED_ACTS = (
    (5.1, "erin", Action.WRITE_RUNNERS, "acme", "POST /groups/acme/-/runners/new"),
    (3.2, "nora", Action.DELETE, "acme/web", "POST /acme/web/-/delete"),
)
# (days ago, who); each person's last sign-in, before the last thing they did. Who is not here never signed in.
SIGNED_IN = (
    (20.3, "jonas"),
    (12.4, "frank"),
    (5.2, "erin"),
    (3.3, "nora"),
    (1.05, "ivan"),
    (0.92, "bob"),
    (0.7, "alice"),
    (0.42, "ole"),
    (0.2, "hana"),
)
# (days ago, who, on which list, the tag that all its runners get); acts on many at once.
BULK_ACTS = ((0.6, "alice", "acme/data", "data-team"),)
