"""The large demo's words: what its groups, projects, people, runners and jobs are called, and their tags."""

from __future__ import annotations

AREAS = (
    "atlas", "aurora", "beacon", "birch", "canyon", "cedar", "comet", "coral", "delta", "ember", "falcon", "fjord",
    "garnet", "glacier", "harbor", "heron", "indigo", "iris", "juniper", "kestrel", "lagoon", "lark", "maple",
    "meadow", "nimbus", "north", "onyx", "orchid", "otter", "pearl", "pine", "quarry", "raven", "reef", "saffron",
    "sierra", "tundra", "umber", "vale", "willow", "yarrow", "zephyr",
)  # fmt: skip
TEAMS = (
    "platform", "mobile", "data", "payments", "search", "identity", "billing", "edge", "research", "security",
    "storefront", "logistics", "firmware", "graphics", "reporting", "release", "quality", "networks",
)  # fmt: skip
THINGS = (
    "api", "web", "worker", "gateway", "android", "ios", "docs", "charts", "importer", "scheduler", "console", "sdk",
    "models", "pipeline", "proxy", "mailer", "catalog", "ledger", "images", "terraform",
)  # fmt: skip
FIRST_NAMES = (
    "Ada", "Amir", "Ana", "Ben", "Carla", "Chen", "Daria", "Elif", "Emil", "Farah", "Femi", "Gus", "Hugo", "Ines",
    "Ivo", "Jana", "Kofi", "Lena", "Lior", "Mara", "Mei", "Nils", "Noor", "Olga", "Omar", "Pia", "Quinn", "Rosa",
    "Sami", "Tara", "Timo", "Uma", "Vera", "Wim", "Xenia", "Yuki", "Zoe",
)  # fmt: skip
LAST_NAMES = (
    "Abe", "Alvarez", "Bauer", "Brandt", "Castro", "Dube", "Eriksen", "Fontaine", "Garcia", "Hansen", "Ito", "Jensen",
    "Kaya", "Kowalski", "Larsen", "Lopez", "Mensah", "Moreau", "Nagy", "Novak", "Okafor", "Petrov", "Rossi", "Sato",
    "Schmidt", "Silva", "Singh", "Tanaka", "Virtanen", "Weber", "Yilmaz", "Zhang",
)  # fmt: skip
# What runners are called: "Atlas linux builders 41".
USES = (
    "linux builders", "image builds", "browser tests", "deploys", "windows builds", "mac builds", "gpu nodes",
    "load tests", "nightly jobs", "arm builders", "release signing", "unit tests",
)  # fmt: skip
# Tags, the most common first; the hundred after them get rarer and rarer.
COMMON_TAGS = (
    "docker", "linux", "amd64", "shell", "kubernetes", "arm64", "windows", "macos", "large", "gpu", "deploy",
    "production", "nightly", "xcode", "android", "chromium", "cuda", "terraform", "signing", "bare-metal",
)  # fmt: skip
TAGS = (*COMMON_TAGS, *(f"pool-{number:02}" for number in range(100)))
NOBODYS_TAGS = ("dcoker", "quantum", "mainframe")  # jobs ask for them, and no runner has them
# (executor, platform, architecture), the most common first.
KINDS = (
    ("docker", "linux", "amd64"),
    ("kubernetes", "linux", "amd64"),
    ("docker-autoscaler", "linux", "amd64"),
    ("shell", "linux", "amd64"),
    ("docker", "linux", "arm64"),
    ("shell", "darwin", "arm64"),
    ("docker-windows", "windows", "amd64"),
)
# (version, revision), the most common first.
VERSIONS = (
    ("18.9.0", "07e534ba"),
    ("18.6.6", "5c3d1b0e"),
    ("19.3.0", "a2f1c9d4"),
    ("18.4.0", "d6a4b8ea"),
    ("17.11.4", "3153ccc6"),
    ("16.11.4", "9f2a7b31"),
    ("15.11.1", "436955cb"),
    ("13.12.0", "7a6612da"),
)
REFS = ("main", "develop", "release/4.2", "fix-totals", "faster-builds", "upgrade-base-image", "new-checkout")
PROTECTED_REF = "main"
# (name, what it runs, seconds)
JOBS = (
    ("unit tests", ("npm ci", "npm test"), 95),
    ("lint", ("npm ci", "npm run lint"), 30),
    ("build image", ("docker build -t app .", "docker push app"), 180),
    ("integration tests", ("make up", "make integration"), 420),
    ("browser tests", ("npx playwright test",), 600),
    ("package", ("make dist",), 120),
    ("deploy to staging", ("./deploy staging",), 45),
    ("deploy to production", ("./deploy production",), 60),
    ("train", ("python train.py --epochs 3",), 2400),
    ("nightly load", ("dbt run",), 1500),
    ("security scan", ("trivy fs .",), 75),
    ("docs", ("make docs",), 40),
)
