"""How an enrolment key is used, as texts to copy: shell, cloud-init, curl, Terraform and Ansible."""

from __future__ import annotations

import json
import shlex
from textwrap import indent

from portal.domain.instructions import AS_ROOT, NAME, Block, Section, double_quoted
from portal.domain.scopes import Scope

# The terraform provider reads `token` from GITLAB_TOKEN and asks for the current user first, which a key is not.
PROVIDER = "gitlabhq/gitlab"


def sections(*, url: str, key: str, scope: Scope) -> tuple[Section, ...]:
    """The created page's examples. `url` is the portal's address as machines reach it, `key` the key in clear.

    Promised: both are quoted for the language they stand in; the key is on no command line, where others on the
    machine could read it; nothing is sent that the key's template settles.
    """
    return (
        Section("enrol", "A machine that enrols itself", "gitlab-runner 15.11 or newer", (_shell(url, key),)),
        Section("cloud-init", "cloud-init", "gitlab-runner installed in the image", (_cloud_init(url, key),)),
        Section("curl", "curl", "a runner's token for anything else", (_curl(url, key),)),
        Section("terraform", "Terraform", f"provider {PROVIDER} 16.3 or newer", _terraform(url, key, scope)),
        Section("ansible", "Ansible", "ansible.builtin.uri; no collection needed", _ansible(url, key)),
    )


def _enrolling(url: str, key: str) -> str:
    """Commands that create a runner and register this machine with its token. Neither stands on a command line."""
    return f"""\
  set -eu
  portal={shlex.quote(url)}
  enrolment_key={shlex.quote(key)}
{AS_ROOT.format(variable="CI_SERVER_TOKEN")}
  answer=$(printf 'header = "PRIVATE-TOKEN: %s"\\n' "$enrolment_key" |
    curl --config - --silent --show-error --data-urlencode "description=$(uname -n)" \\
      "$portal/api/v4/user/runners")
  CI_SERVER_TOKEN=$(printf '%s' "$answer" | sed -n 's/.*"token" *: *"\\([^"]*\\)".*/\\1/p')
  if [ -z "$CI_SERVER_TOKEN" ]; then echo "$answer" >&2; exit 1; fi
  export CI_SERVER_TOKEN
  as_root gitlab-runner register --non-interactive \\
    --url "$portal" \\
    --executor shell \\
    {NAME}"""


def _shell(url: str, key: str) -> Block:
    note = (
        "Creates a runner and registers this machine with its token, which is shown and stored nowhere else. Run it "
        "once a machine: each run makes one more runner. A refusal is printed as the portal says it."
    )
    return Block("enrol", "Linux", "bash", f"(\n{_enrolling(url, key)}\n)", note)


def _cloud_init(url: str, key: str) -> Block:
    script = "\n".join(line.removeprefix("  ") for line in _enrolling(url, key).splitlines())
    text = f"""\
#cloud-config
write_files:
  - path: /run/enrol-runner
    permissions: "0700"
    content: |
      #!/bin/bash
{indent(script, "      ")}
runcmd:
  - [sh, -c, "/run/enrol-runner; rm -f /run/enrol-runner"]"""
    note = (
        "As user data of a machine: it runs once, at the first start. Whoever can read the user data can read the "
        "key, so give the key few runners, a near end and the networks of these machines."
    )
    return Block("cloud-init", "User data", "yaml", text, note)


def _curl(url: str, key: str) -> Block:
    text = f"""\
curl --config - --silent --show-error --request POST {shlex.quote(url + "/api/v4/user/runners")} <<'EOF'
header = "PRIVATE-TOKEN: {key}"
EOF"""
    note = 'Answers {"id": …, "token": "glrt-…"}. The token is shown in this answer only.'
    return Block("curl", "Create a runner", "bash", text, note)


def _terraform(url: str, key: str, scope: Scope) -> tuple[Block, ...]:
    name = f"{scope.kind}_id"
    owner = f"\n  {name:<11} = {scope.id}" if scope.id is not None else ""  # in one column, as terraform fmt has it
    text = f"""\
terraform {{
  required_providers {{
    gitlab = {{ source = "{PROVIDER}" }}
  }}
}}

provider "gitlab" {{
  base_url         = {double_quoted(url + "/api/v4/").replace("${", "$${").replace("%{", "%%{")}
  early_auth_check = false
}}

resource "gitlab_user_runner" "this" {{
  runner_type = "{scope.kind}_type"{owner}
}}

output "runner_token" {{
  value     = gitlab_user_runner.this.token
  sensitive = true
}}"""
    apply = f"export GITLAB_TOKEN={shlex.quote(key)}\nterraform init && terraform apply"
    return (
        Block(
            "terraform",
            "main.tf",
            "hcl",
            text,
            "early_auth_check = false, because the key is nobody's account. Leave out what the key settles, and "
            "maintenance_note, which a key cannot read back. Terraform reads the runner again with each plan, so the "
            "key must not have ended by then.",
        ),
        Block(
            "terraform-apply",
            "Commands",
            "bash",
            apply,
            "A key cannot change or delete runners: delete one in the portal; the next plan then wants a new one.",
        ),
    )


def _ansible(url: str, key: str) -> tuple[Block, ...]:
    text = f"""\
- name: Create a runner
  ansible.builtin.uri:
    url: {json.dumps(url + "/api/v4/user/runners")}
    method: POST
    headers:
      PRIVATE-TOKEN: "{{{{ lookup('ansible.builtin.env', 'ENROLMENT_KEY') }}}}"
      Idempotency-Key: "enrol-{{{{ inventory_hostname }}}}"
    body_format: json
    body:
      description: "{{{{ inventory_hostname }}}}"
    status_code: 201
  register: runner
  no_log: true"""
    note = (
        "The token is runner.json.token. The Idempotency-Key keeps a repeated run from making a second runner: it is "
        "answered with 200, without a token, and fails here. The module community.general.gitlab_runner asks who it "
        "is and lists runners first, which a key does not open."
    )
    run = f"export ENROLMENT_KEY={shlex.quote(key)}\nansible-playbook playbook.yml"
    return Block("ansible", "Task", "yaml", text, note), Block("ansible-run", "Commands", "bash", run)
