"""The settings: what they read, which values stop the start, and the secret key that is made once."""

import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from portal.config import ROOT, SettingError, Settings, documented, stored_secret
from portal.domain.people import passwords

KEY = "a key for tests only, of no use to anybody else"


def read(tmp_path: Path, **environment: str) -> Settings:
    return Settings.from_environment({"SECRET_KEY": KEY, "PORTAL_DATA_DIR": str(tmp_path), **environment})


WRONG = [
    ("DATABASE_URL", "mysql://localhost/portal"),
    ("PORTAL_LISTEN_URL", "mysql://localhost/portal"),
    ("DATABASE_URL", "localhost"),
    ("PORTAL_HOST", "http://localhost"),
    ("PORTAL_HOST", "local host"),
    ("PORTAL_PORT", "0"),
    ("PORTAL_PORT", "65536"),
    ("PORTAL_PORT", "-1"),
    ("PORTAL_PORT", "http"),
    ("PORTAL_URL", "portal.example.com"),
    ("PORTAL_URL", "ftp://portal.example.com"),
    ("PORTAL_URL", "https://"),
    ("PORTAL_URL", "https://alice:secret@portal.example.com"),
    ("PORTAL_URL", "https://portal.example.com/?a=b"),
    ("PORTAL_URL", "https://portal.example.com/#a"),
    ("PORTAL_URL", "https://portal.example.com/a b"),
    ("PORTAL_URL", "https://portal.example.com:99999"),
    ("PORTAL_URL", "http://[::1"),
    ("SECRET_KEY", "short"),
    ("PORTAL_ENCRYPTION_KEYS", "short"),
    ("PORTAL_ENCRYPTION_KEYS", "a-key-that-is-quite-long-enough-for-this,short"),
    ("PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW", "perhaps"),
    ("PORTAL_ROOT_PASSWORD", "short"),
    ("PORTAL_ROOT_PASSWORD", "x" * 513),
    ("PORTAL_TRUSTED_PROXIES", "17"),
    ("PORTAL_TRUSTED_PROXIES", "10.0.0.0/8"),
    ("PORTAL_WORKERS", "0"),
    ("PORTAL_WORKERS", "many"),
    ("PORTAL_THREADS", "129"),
    ("PORTAL_THREADS", "1.5"),
    ("PORTAL_TOKEN_GRACE", "a day"),
    ("PORTAL_TOKEN_GRACE", "24 h"),
    ("PORTAL_TOKEN_GRACE", "-1h"),
    ("PORTAL_TOKEN_GRACE", "0"),
    ("PORTAL_TOKEN_GRACE", "999999999d"),
    ("PORTAL_SESSION_IDLE", "10s"),
    ("PORTAL_SESSION_LONGEST", "never"),
    ("PORTAL_RECENT_SIGN_IN", "15 minutes"),
    ("PORTAL_SECOND_FACTOR", "sometimes"),
    ("PORTAL_DELETED_KEPT", "a week"),
    ("PORTAL_HSTS_SUBDOMAINS", "perhaps"),
    ("PORTAL_PASSWORD_SIGN_IN", "perhaps"),
    ("PORTAL_PASSWORD_SIGN_IN", "false"),  # there is no other way to sign in
    ("PORTAL_OPENID_URL", "sso.example.com"),
    ("PORTAL_OPENID_URL", "http://sso.example.com"),
    ("PORTAL_OPENID_URL", "https://sso.example.com/?realm=a"),
    ("PORTAL_OPENID_CLIENT_ID", "the portal"),
    ("PORTAL_OPENID_CLIENT_SECRET", "two words"),
    ("PORTAL_OPENID_NAME", "x" * 61),
    ("PORTAL_OPENID_NAME", "Example\nLogin"),
    ("PORTAL_OPENID_SCOPES", "profile email"),
    ("PORTAL_OPENID_SCOPES", 'openid "email"'),
    ("PORTAL_OPENID_CREATE", "sometimes"),
    ("PORTAL_OPENID_GROUPS_CLAIM", "my groups"),
    ("PORTAL_OPENID_ROLES", "ops"),
    ("PORTAL_OPENID_ROLES", "ops=admin"),
    ("PORTAL_OPENID_ROLES", "=administrator"),
    ("PORTAL_OPENID_ROLES", "developers=acme"),
    ("PORTAL_OPENID_ROLES", "developers=acme:boss"),
    ("PORTAL_OPENID_ROLES", "developers=:owner"),
    ("PORTAL_OPENID_ROLES", "developers=/acme:owner"),
    ("PORTAL_OPENID_ROLES", "ops=administrator,developers"),
    ("PORTAL_ACCESS_TOKEN_LONGEST", "0d"),
    ("PORTAL_ACCESS_TOKEN_LONGEST", "24h"),
    ("PORTAL_RATE_LIMIT_TOKEN", "-1"),
    ("PORTAL_RATE_LIMIT_ADDRESS", "many"),
    ("PORTAL_RATE_LIMIT_REFUSED", "1.5"),
    ("PORTAL_RATE_LIMIT_LOG_ONLY", "sometimes"),
    ("PORTAL_MAX_BODY", "1k"),
    ("PORTAL_MAX_BODY", "16383"),
    ("PORTAL_LOG_LEVEL", "loud"),
    ("PORTAL_LOG_FORMAT", "xml"),
    ("PORTAL_ARTIFACTS", "ftp://files.example.com/artifacts"),
    ("PORTAL_ARTIFACTS", "s3://"),
    ("PORTAL_ARTIFACTS", "s3://Bucket"),
    ("PORTAL_ARTIFACTS", "s3://bucket/../other"),
    ("PORTAL_ARTIFACTS_S3_ENDPOINT", "s3.example.com"),
    ("PORTAL_ARTIFACTS_S3_REGION", "eu central"),
    ("PORTAL_ARTIFACTS_S3_KEY", "two words"),
    ("PORTAL_ARTIFACTS_S3_SECRET", "two words"),
    ("PORTAL_ARTIFACTS_S3_SECRET", "without-its-key"),
    ("PORTAL_ARTIFACT_LIMIT", "100M"),
    ("PORTAL_ARTIFACT_LIMIT", "1023"),
    ("PORTAL_ARTIFACTS_KEPT", "0d"),
    ("PORTAL_ARTIFACTS_KEPT", "a month"),
    ("PORTAL_JOB_LOG_LIMIT", "100M"),
    ("PORTAL_JOB_LOG_LIMIT", "1048575"),
    ("PORTAL_JOB_LOG_LIMIT", "10737418241"),
    ("PORTAL_JOB_TAKEN_BACK", "30s"),
    ("PORTAL_POLL_HOLD", "an hour"),
    ("PORTAL_JOB_SILENT", "soon"),
    ("PORTAL_JOBS_KEPT", "0d"),
    ("PORTAL_JOBS_KEPT", "400"),
    ("PORTAL_TRAIL_KEPT", "29d"),
    ("PORTAL_TRAIL_KEPT", "400"),
    ("PORTAL_TRAIL_KEPT", "a year"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_stops_with_a_sentence_that_names_the_setting(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingError) as refused:
        read(tmp_path, **{name: value})
    sentence = str(refused.value)
    assert sentence.startswith(f"{name} is ")
    assert sentence.endswith(".")
    assert "must" in sentence


def test_every_setting_with_a_rule_has_a_wrong_value_here() -> None:
    without_a_rule = {"PORTAL_DATA_DIR"}  # any text can be a folder; the next test is about the ones that cannot
    assert {name for name, _, _ in documented()} - {name for name, _ in WRONG} == without_a_rule


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="PORTAL_DATA_DIR is"):
        Settings.from_environment({"PORTAL_DATA_DIR": str(tmp_path / "file" / "data")})


SECRETS = {
    "SECRET_KEY": "p4ssw0rd",
    "PORTAL_ENCRYPTION_KEYS": "p4ssw0rd",
    "PORTAL_ROOT_PASSWORD": "p4ssw0rd",
    "PORTAL_OPENID_CLIENT_SECRET": "p4ssw0rd p4ssw0rd",
    "PORTAL_ARTIFACTS_S3_SECRET": "p4ssw0rd p4ssw0rd",
    "DATABASE_URL": "mysql://u:p4ssw0rd@h/db",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_not_repeated_in_the_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match=name) as refused:
        read(tmp_path, **{name: SECRETS[name]})
    assert "p4ssw0rd" not in str(refused.value)


def test_the_server_says_the_sentence_and_starts_nothing(tmp_path: Path) -> None:
    environment = {"PORTAL_DATA_DIR": str(tmp_path / "data"), "PORTAL_PORT": "seventy"}
    started = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert started.returncode == 2
    assert started.stderr.count("\n") == 1
    assert "PORTAL_PORT is 'seventy'" in started.stderr
    assert not (tmp_path / "data").exists()


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    names = [name for name, _, _ in documented() if name not in ("SECRET_KEY", "PORTAL_DATA_DIR")]
    assert read(tmp_path, **dict.fromkeys(names, "")) == read(tmp_path)


def test_the_defaults_are_those_that_are_documented(tmp_path: Path) -> None:
    defaults = {name: default for name, default, _ in documented() if name not in ("SECRET_KEY", "PORTAL_DATA_DIR")}
    assert read(tmp_path, **defaults) == read(tmp_path)
    assert read(tmp_path).url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("60", 60), ("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("365d", 31_536_000)],
)
def test_a_time_has_a_unit_or_is_in_seconds(tmp_path: Path, value: str, seconds: int) -> None:
    assert read(tmp_path, PORTAL_TOKEN_GRACE=value).token_grace == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/db", "postgresql+psycopg://u:p@h/db"),
        ("postgresql://u@h/db?sslmode=require", "postgresql+psycopg://u@h/db?sslmode=require"),
        ("postgresql+psycopg:///db?host=/run", "postgresql+psycopg:///db?host=/run"),
        ("", ""),
    ],
)
def test_a_database_is_reached_through_psycopg(tmp_path: Path, given: str, used: str) -> None:
    assert read(tmp_path, DATABASE_URL=given).database_url == used


@pytest.mark.parametrize(
    ("url", "kept", "prefix", "https"),
    [
        ("https://portal.example.com", "https://portal.example.com", "", True),
        ("https://portal.example.com/", "https://portal.example.com", "", True),
        ("http://example.com:8080/ci/runners/", "http://example.com:8080/ci/runners", "/ci/runners", False),
        ("http://[::1]:8080", "http://[::1]:8080", "", False),
    ],
)
def test_the_address_decides_prefix_and_cookies(
    tmp_path: Path, url: str, kept: str, prefix: str, https: bool
) -> None:
    found = read(tmp_path, PORTAL_URL=url)
    assert (found.url, found.path_prefix, found.over_https) == (kept, prefix, https)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),  # noqa: S104
        ("::", "http://[::1]:9000"),
        ("2001:db8::1", "http://[2001:db8::1]:9000"),
        ("portal", "http://portal:9000"),
    ],
)
def test_without_an_address_host_and_port_are_it(tmp_path: Path, host: str, url: str) -> None:
    assert read(tmp_path, PORTAL_HOST=host, PORTAL_PORT="9000").url == url


@pytest.mark.parametrize("length", [0, 11, 12, 512, 513])
def test_a_root_password_is_taken_when_an_account_would_take_it(tmp_path: Path, length: int) -> None:
    password = ("correct horse battery " * 30)[:length]
    fine = not password or not passwords.problems(password)
    if fine:
        assert read(tmp_path, PORTAL_ROOT_PASSWORD=password).root_password == password
    else:
        with pytest.raises(SettingError):
            read(tmp_path, PORTAL_ROOT_PASSWORD=password)


# The keys of registration tokens


def test_registration_tokens_are_encrypted_with_the_secret_key_unless_they_have_keys_of_their_own(
    tmp_path: Path,
) -> None:
    assert read(tmp_path).encryption_keys == (KEY,)
    first, second = "a first key of their own, long enough".replace(",", ""), "a second key that is long enough too"
    given = read(tmp_path, PORTAL_ENCRYPTION_KEYS=f"{first}, {second}")
    assert given.encryption_keys == (first, second, KEY)  # what was encrypted before they were set is still read


@pytest.mark.parametrize(
    ("value", "on"), [("true", True), ("YES", True), ("1", True), ("false", False), ("off", False)]
)
def test_a_switch_is_told_in_words(tmp_path: Path, value: str, on: bool) -> None:
    given = read(tmp_path, PORTAL_ENFORCE_CREATE_RUNNER_WORKFLOW=value)
    assert given.enforce_create_runner_workflow is on


# Single sign-on


@pytest.mark.parametrize("end", ["", "/", "/.well-known/openid-configuration"])
def test_a_provider_is_given_by_its_issuer_or_its_discovery_url(tmp_path: Path, end: str) -> None:
    given = read(
        tmp_path, PORTAL_OPENID_URL=f"https://sso.example.com/realms/a{end}", PORTAL_OPENID_CLIENT_ID="portal"
    )
    assert given.openid_url == "https://sso.example.com/realms/a"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9000", "[::1]:9000"])
def test_a_provider_on_the_machine_itself_needs_no_https(tmp_path: Path, host: str) -> None:
    given = read(tmp_path, PORTAL_OPENID_URL=f"http://{host}", PORTAL_OPENID_CLIENT_ID="portal")
    assert given.openid_url == f"http://{host}"


def test_a_provider_without_a_client_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="PORTAL_OPENID_CLIENT_ID is missing"):
        read(tmp_path, PORTAL_OPENID_URL="https://sso.example.com")


def test_the_mapping_of_groups_is_read(tmp_path: Path) -> None:
    text = "ops=administrator, cn=dev=acme:maintainer,/testers=acme/web:developer,"
    assert [(each.group, each.path, each.role) for each in read(tmp_path, PORTAL_OPENID_ROLES=text).openid_roles] == [
        ("ops", "", "administrator"),
        ("cn=dev", "acme", "maintainer"),
        ("/testers", "acme/web", "developer"),
    ]


# The secret key


def test_a_missing_secret_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    environment = {"PORTAL_DATA_DIR": str(tmp_path / "new" / "data")}
    first = Settings.from_environment(environment).secret_key
    assert len(first) >= 43
    assert Settings.from_environment(environment).secret_key == first
    kept = tmp_path / "new" / "data" / "secret-key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert list(kept.parent.iterdir()) == [kept]


def test_a_given_secret_key_writes_no_file(tmp_path: Path) -> None:
    assert read(tmp_path).secret_key == KEY
    assert list(tmp_path.iterdir()) == []


def test_an_empty_key_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "secret-key").write_text("")
    with pytest.raises(SettingError, match="SECRET_KEY"):
        Settings.from_environment({"PORTAL_DATA_DIR": str(tmp_path)})


RACER = """
import os, sys
from pathlib import Path
from portal.config import stored_secret
os.umask(0)
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    print(stored_secret(Path(sys.argv[1]) / str(number)))
"""


def test_processes_that_race_agree_on_every_key(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    answers = [answer for answer, _ in (racer.communicate("go\n", timeout=120) for racer in racers)]
    assert len(set(answers)) == 1
    keys = answers[0].split()
    assert len(set(keys)) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(str(number) for number in range(200))
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert [stored_secret(tmp_path / str(number)) for number in range(200)] == keys
