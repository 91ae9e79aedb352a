"""The texts that pages offer to copy, with the token filled in: shell, docker-compose and Helm, new way and old."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

# Pinned, so that a text copied today does the same tomorrow; 18.9.0 is what the pinned chart runs.
RUNNER_VERSION = "18.9.0"
# The chart release whose appVersion is RUNNER_VERSION: compose and Helm users get the same runner.
CHART_VERSION = "0.86.0"
# For jobs that name no image. One minor line, not `latest`: it gets fixes but never changes under a job.
JOB_IMAGE = "alpine:3.23"

_NAMESPACE = "gitlab-runner"
_CREDENTIALS = "gitlab-runner-credentials"  # the Kubernetes Secret that block 1 writes and values.yaml names

# Every shell text that holds the token is one subshell. The variable ends with it, also after Ctrl+C, and
# the shell has read all of it before sudo's password prompt or `docker compose run` can swallow the rest
# of what was pasted. No `#` comments either: an interactive zsh would run them.

# A function, because zsh does not split an unquoted variable that holds `sudo --preserve-env=...`.
AS_ROOT = """\
  as_root() {{
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo --preserve-env={variable} "$@"; fi
  }}"""
# Not $(hostname): slim systems have no such program, and the client refuses an empty description.
NAME = '--description "$(uname -n)"'

# What the Kubernetes executor of RUNNER_VERSION asks for. Without rules the chart grants `*` on the core
# group. `events` lets a failed job say why; `list` and `watch` on pods replace polling.
_RBAC_RULES = """\
    - apiGroups: [""]
      resources: ["events"]
      verbs: ["list", "watch"]
    - apiGroups: [""]
      resources: ["pods"]
      verbs: ["create", "delete", "get", "list", "watch"]
    - apiGroups: [""]
      resources: ["pods/attach", "pods/exec"]
      verbs: ["create", "delete", "get", "patch"]
    - apiGroups: [""]
      resources: ["pods/log"]
      verbs: ["get", "list"]
    - apiGroups: [""]
      resources: ["secrets"]
      verbs: ["create", "delete", "get", "update"]
    - apiGroups: [""]
      resources: ["serviceaccounts"]
      verbs: ["get"]
    - apiGroups: [""]
      resources: ["services"]
      verbs: ["create", "get"]"""


@dataclass(frozen=True, slots=True)
class Block:
    """One text to copy: `text` is exactly what gets copied, without a trailing newline."""

    id: str
    title: str
    language: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One way to run a runner; `floor` says in words from which versions on it works."""

    id: str
    title: str
    floor: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class _Credential:
    """What proves to the portal who may come: an environment variable of the client, and the options beside it."""

    variable: str
    value: str
    since: str  # the first gitlab-runner that takes it
    options: str = ""  # of `register`, each with a continued line before it

    @property
    def is_new(self) -> bool:
        return self.variable == "CI_SERVER_TOKEN"

    @property
    def on_one_line(self) -> str:
        return self.options.replace(" \\\n    ", " ")


def sections(*, url: str, token: str) -> tuple[Section, ...]:
    """The created page's instructions: shell, docker-compose, Helm, in this order.

    `url` is the portal's address as machines reach it (a path is fine), `token` a new `glrt-` token, in
    clear. Promised: both are quoted for the language they stand in, whatever characters they hold; the
    token is on no command line; no option is used that gitlab-runner refuses with a `glrt-` token. Two
    limits: the Windows text writes a double quote in `url` as %22, and Kubernetes reads `$$` and `$(NAME)`
    in an address by itself. Rules: gitlab-runner's `register` since 15.11, the chart since 0.53.
    """
    new = _Credential("CI_SERVER_TOKEN", token, "15.11")
    return (_shell(url, new), _docker_compose(url, new), _helm(url, new))


# What may only be said together with a registration token: the client refuses it with a glrt- token.
_LEGACY_OPTIONS = """ \\
    --tag-list docker,linux \\
    --run-untagged=false \\
    --locked=false"""
_HELM_OPTIONS = """\
envVars:
  - name: RUNNER_TAG_LIST
    value: "docker,linux"
  - name: REGISTER_RUN_UNTAGGED
    value: "false"
  - name: REGISTER_LOCKED
    value: "false"
"""
LEGACY_OPTIONS = (
    ("--tag-list", "Tags, separated by commas."),
    ("--run-untagged", "Take jobs without tags too; the client makes it true when there are no tags."),
    ("--locked", "Keep a project runner to its project; true unless you say false."),
    ("--access-level", "not_protected, or ref_protected for jobs on protected refs only (12.0 and newer)."),
    ("--maximum-timeout", "Seconds after which a job ends, at least 600."),
    ("--paused", "Connect, but take no jobs yet."),
    ("--maintenance-note", "A note for those who look after it (14.8 and newer)."),
)


def legacy_sections(*, url: str, token: str) -> tuple[Section, ...]:
    """The same for a registration token (`GR1348941…`): each run of `register` makes a runner of its own.

    `url` and `token` as in `sections`, quoted the same way. The options are examples: with a registration token the
    machine, not the portal, says which jobs the runner takes (reference/wire.md section 12).
    """
    old = _Credential("REGISTRATION_TOKEN", token, "11", _LEGACY_OPTIONS)
    return (_shell(url, old), _docker_compose(url, old), _helm(url, old))


def reachable_from_elsewhere(url: str) -> bool:
    """Whether containers and other machines can reach `url` at all, judged by its host alone.

    False for this-machine-only hosts: loopback addresses, 0.0.0.0 and ::, localhost and the names below it
    (RFC 6761), and for texts without a host. No name is looked up, so True only means: nothing speaks
    against it.
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False
    if not host or host in ("localhost", "localhost.localdomain") or host.endswith(".localhost"):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return True
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (address.is_loopback or address.is_unspecified)


def _shell(url: str, credential: _Credential) -> Section:
    return Section(
        id="shell",
        title="Shell",
        floor=f"Linux, macOS, Windows · gitlab-runner {credential.since} or newer",
        blocks=(_linux(url, credential), _linux_run(), _macos(url, credential), _windows(url, credential)),
    )


def _linux(url: str, credential: _Credential) -> Block:
    text = f"""\
(
  export {credential.variable}={shlex.quote(credential.value)}
{AS_ROOT.format(variable=credential.variable)}
  as_root gitlab-runner register --non-interactive \\
    --url {shlex.quote(url)} \\
    --executor shell \\
    {NAME}{credential.options}
)"""
    note = "The package's service picks up the new runner by itself within seconds."
    return Block(id="linux", title="Linux", language="bash", text=text, note=note)


def _linux_run() -> Block:
    text = 'if [ "$(id -u)" -eq 0 ]; then gitlab-runner run; else sudo gitlab-runner run; fi'
    note = "Only where no service is running: jobs then run as root, until you press Ctrl+C."
    return Block(id="linux-run", title="Linux, without a service", language="bash", text=text, note=note)


def _macos(url: str, credential: _Credential) -> Block:
    # `install` remembers the folder it was called in as the jobs' folder, hence the home folder.
    text = f"""\
(
  export {credential.variable}={shlex.quote(credential.value)}
  gitlab-runner register --non-interactive \\
    --url {shlex.quote(url)} \\
    --executor shell \\
    {NAME}{credential.options}
) && (cd ~ && gitlab-runner install && gitlab-runner start)"""
    note = "Without sudo, as the user who is logged in at the Mac: the service is that user's."
    return Block(id="macos", title="macOS", language="bash", text=text, note=note)


def _windows(url: str, credential: _Credential) -> Block:
    # Windows PowerShell 5.1 drops a double quote on the way to a program; %22 is the same address.
    address = _powershell(url.replace('"', "%22"))
    # One line a command: a backslash continues no line here. The client's default shell is pwsh, which
    # Windows does not bring along.
    text = f"""\
$env:{credential.variable} = {_powershell(credential.value)}
.\\gitlab-runner.exe register --non-interactive --url {address} \
--executor shell --shell powershell --description $env:COMPUTERNAME{credential.on_one_line}
Remove-Item Env:{credential.variable}
.\\gitlab-runner.exe install
.\\gitlab-runner.exe start"""
    note = "In an elevated PowerShell, in the folder that holds gitlab-runner.exe."
    return Block(id="windows", title="Windows", language="powershell", text=text, note=note)


def _docker_compose(url: str, credential: _Credential) -> Section:
    return Section(
        id="docker-compose",
        title="docker-compose",
        floor=f"Docker with its compose plugin · gitlab-runner {credential.since} or newer",
        blocks=(_compose_file(), _compose_commands(url, credential)),
    )


def _compose_file() -> Block:
    # SIGQUIT makes the runner finish its jobs; the grace period is how long Docker lets it. The volume
    # keeps config.toml and the machine's system ID beside it.
    text = f"""\
services:
  gitlab-runner:
    image: gitlab/gitlab-runner:v{RUNNER_VERSION}
    restart: unless-stopped
    stop_signal: SIGQUIT
    stop_grace_period: 1h
    volumes:
      - gitlab-runner-config:/etc/gitlab-runner
      - /var/run/docker.sock:/var/run/docker.sock
volumes:
  gitlab-runner-config:"""
    note = "Save it as compose.yaml in a folder of its own; it holds no token."
    return Block(id="compose-file", title="compose.yaml", language="yaml", text=text, note=note)


def _compose_commands(url: str, credential: _Credential) -> Block:
    # `-e NAME` without a value: compose takes the value from its own environment, not from its arguments.
    text = f"""\
(
  export {credential.variable}={shlex.quote(credential.value)}
  docker compose run --rm -e {credential.variable} gitlab-runner register --non-interactive \\
    --url {shlex.quote(url)} \\
    --executor docker \\
    --docker-image {JOB_IMAGE} \\
    {NAME}{credential.options}
) && docker compose up -d"""
    note = "Once, in the folder of compose.yaml: each registration adds one more entry to the configuration."
    return Block(id="compose-commands", title="Commands", language="bash", text=text, note=note)


def _helm(url: str, credential: _Credential) -> Section:
    return Section(
        id="helm",
        title="Helm",
        floor="Kubernetes with Helm · chart 0.53 or newer, 0.74 or newer recommended",
        blocks=(_helm_secret(credential), _helm_values(url, credential), _helm_commands()),
    )


def _helm_secret(credential: _Credential) -> Block:
    # Both keys: the pod mounts both and does not start when one is missing. The quoted delimiter keeps the
    # shell from expanding anything.
    new, old = (credential.value, "") if credential.is_new else ("", credential.value)
    text = f"""\
kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Namespace
metadata:
  name: {_NAMESPACE}
---
apiVersion: v1
kind: Secret
metadata:
  name: {_CREDENTIALS}
  namespace: {_NAMESPACE}
type: Opaque
stringData:
  runner-token: {double_quoted(new)}
  runner-registration-token: {double_quoted(old)}
EOF"""
    note = "Creates the namespace and the Secret; the chart asks for both keys, the other one stays empty."
    return Block(id="helm-secret", title="Secret", language="bash", text=text, note=note)


def _helm_values(url: str, credential: _Credential) -> Block:
    # The chart runs `runners.config` through Helm's templating, `gitlabUrl` not.
    namespace = double_quoted("{{.Release.Namespace}}")
    text = f"""\
gitlabUrl: {double_quoted(url)}
unregisterRunners: true
{"" if credential.is_new else _HELM_OPTIONS}rbac:
  create: true
  rules:
{_RBAC_RULES}
serviceAccount:
  create: true
runners:
  secret: {_CREDENTIALS}
  config: |
    [[runners]]
      [runners.kubernetes]
        namespace = {namespace}
        image = {double_quoted(JOB_IMAGE)}"""
    note = "Save it as values.yaml; it holds no token."
    return Block(id="helm-values", title="values.yaml", language="yaml", text=text, note=note)


def _helm_commands() -> Block:
    # `repo add` skips a repository that is known already, whose list may be older than the pinned chart.
    text = f"""\
helm repo add gitlab https://charts.gitlab.io
helm repo update gitlab
helm upgrade --install gitlab-runner gitlab/gitlab-runner \\
  --version {CHART_VERSION} \\
  --namespace {_NAMESPACE} --create-namespace \\
  --values values.yaml"""
    note = "In the folder of values.yaml, after the Secret is there."
    return Block(id="helm-commands", title="Commands", language="bash", text=text, note=note)


def _powershell(value: str) -> str:
    # PowerShell takes the four typographic single quotes for ' as well.
    return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", value) + "'"


def double_quoted(value: str) -> str:
    """The value as a quoted text of YAML, TOML and Terraform's language."""

    # The escapes that YAML's double-quoted scalars and TOML's basic strings share. json.dumps would write
    # a character beyond U+FFFF as two halves, which neither of them puts together again.
    def escaped(character: str) -> str:
        if character in '"\\':
            return "\\" + character
        if " " <= character <= "~":
            return character
        number = ord(character)
        return f"\\u{number:04X}" if number <= 0xFFFF else f"\\U{number:08X}"

    return '"' + "".join(map(escaped, value)) + '"'
