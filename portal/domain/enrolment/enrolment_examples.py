"""How an enrolment key is used, as texts to copy: shell, cloud-init, curl, Terraform and Ansible."""

from __future__ import annotations

import json
import shlex
from textwrap import indent

from portal.domain.runners.instructions import AS_ROOT, NAME, Block, Section, double_quoted
from portal.domain.scopes import Scope
from portal.domain.tokens import shorten_of_people

# The terraform provider reads `token` from GITLAB_TOKEN and asks for the current user first, which a key is not.
PROVIDER = "gitlabhq/gitlab"
SCRIPT = "/root/enrol-runner"  # not below /run, which many systems mount noexec
REGISTER = "/root/register-runner"
HISTORY = "The shell's history keeps the key with what was pasted."


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


def _enrolling(url: str, key: str, again: str) -> str:
    """Commands that create a runner and register this machine with its token. Neither stands on a command line.

    Nothing is asked for before gitlab-runner is there. What a retry needs is kept in a file of mode 600 until the
    machine is registered: the token, and before it the Idempotency-Key, for an answer that got lost on its way.
    `again` says how to retry.
    """
    return f"""\
  set -eu
  umask 077
  portal={shlex.quote(url)}
  enrolment_key={shlex.quote(key)}
  kept={_kept(key)}
{AS_ROOT.format(variable="CI_SERVER_TOKEN")}
  if ! as_root sh -c 'command -v gitlab-runner' >/dev/null; then
    echo "No runner was created: root finds no gitlab-runner here. Install it, then {again}." >&2
    exit 1
  fi
  if [ ! -s "$kept" ]; then od -An -N16 -tx1 /dev/urandom | tr -d ' \\n' >"$kept"; fi
  CI_SERVER_TOKEN=$(sed -n 2p "$kept")
  if [ -z "$CI_SERVER_TOKEN" ]; then
    answer=$(printf 'header = "%s"\\n' "PRIVATE-TOKEN: $enrolment_key" "Idempotency-Key: $(cat "$kept")" |
      curl --config - --silent --show-error --data-urlencode "description=$(uname -n)" \\
        "$portal/api/v4/user/runners")
    CI_SERVER_TOKEN=$(printf '%s' "$answer" | sed -n 's/.*"token" *: *"\\([^"]*\\)".*/\\1/p')
    if [ -z "$CI_SERVER_TOKEN" ]; then
      printf '%s\\n' "$answer" "If it speaks of a runner made before, remove $kept to make another." >&2
      exit 1
    fi
    printf '\\n%s\\n' "$CI_SERVER_TOKEN" >>"$kept"
  fi
  export CI_SERVER_TOKEN
  if ! as_root gitlab-runner register --non-interactive \\
    --url "$portal" \\
    --executor shell \\
    {NAME}
  then
    echo "The runner is created, this machine is not registered. Mend what is said above, then {again}:" >&2
    echo "no second runner is made, since the token of the first is kept in $kept until then." >&2
    exit 1
  fi
  rm -f "$kept"\
"""


def _kept(key: str) -> str:
    """Where a machine keeps what a retry needs, one file for each key; cloud-init has no HOME."""
    return f'"${{HOME:-/root}}/.enrol-runner-{shorten_of_people(key)}"'


def _shell(url: str, key: str) -> Block:
    note = (
        "Creates a runner and registers this machine with its token. Run it once a machine: after a success each run "
        "makes one more runner; after a failure it goes on where it stopped. A refusal is printed as the portal says "
        f"it. {HISTORY}"
    )
    return Block("enrol", "Linux", "bash", f"(\n{_enrolling(url, key, 'paste this again')}\n)", note)


def _cloud_init(url: str, key: str) -> Block:
    commands = _enrolling(url, key, f"run {SCRIPT} again")
    script = "\n".join(line.removeprefix("  ") for line in commands.splitlines())
    text = f"""\
#cloud-config
write_files:
  - path: {SCRIPT}
    permissions: "0700"
    content: |
      #!/bin/sh
{indent(script, "      ")}
runcmd:
  - [sh, -c, "{SCRIPT} && rm -f {SCRIPT}"]"""
    note = (
        f"As user data of a machine: it runs once, at the first start. After a failure {SCRIPT} stays there, to be "
        "run again. Whoever can read the user data can read the key, so give the key few runners, a near end and the "
        "networks of these machines."
    )
    return Block("cloud-init", "User data", "yaml", text, note)


def _curl(url: str, key: str) -> Block:
    text = f"""\
curl --config - --silent --show-error --request POST {shlex.quote(url + "/api/v4/user/runners")} <<'EOF'
header = "PRIVATE-TOKEN: {key}"
EOF"""
    note = f'Answers {{"id": …, "token": "glrt-…"}}. The token is shown in this answer only. {HISTORY}'
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
  base_url         = {_literal(double_quoted(url + "/api/v4/"))}
  early_auth_check = false
}}

resource "gitlab_user_runner" "this" {{
  runner_type = "{scope.kind}_type"{owner}
}}

locals {{
  user_data = <<-EOT
    #cloud-config
    write_files:
      - path: {REGISTER}
        permissions: "0700"
        content: |
          #!/bin/sh
          export CI_SERVER_TOKEN='${{gitlab_user_runner.this.token}}'
          gitlab-runner register --non-interactive --url {_literal(shlex.quote(url))} \\
            --executor shell {NAME}
    runcmd:
      - [sh, -c, "{REGISTER} && rm -f {REGISTER}"]
  EOT
}}

output "user_data" {{
  value     = local.user_data
  sensitive = true
}}"""
    apply = f"export GITLAB_TOKEN={shlex.quote(key)}\nterraform init && terraform apply"
    return (
        Block(
            "terraform",
            "main.tf",
            "hcl",
            text,
            "Give local.user_data to the machine that is to be registered, as its provider calls it: user_data = "
            "local.user_data. gitlab-runner has to be in its image. early_auth_check = false, because the key is "
            "nobody's account. Leave out what the key settles, and maintenance_note, which a key cannot read back. "
            "Terraform keeps the token in its state and reads the runner again with each plan, so the key must not "
            "have ended by then.",
        ),
        Block(
            "terraform-apply",
            "Commands",
            "bash",
            apply,
            "A key cannot change or delete runners: delete one in the portal; the next plan then wants a new one. "
            f"{HISTORY}",
        ),
    )


def _literal(text: str) -> str:
    """The text as Terraform's templates take it for itself."""
    return text.replace("${", "$${").replace("%{", "%%{")


def _ansible(url: str, key: str) -> tuple[Block, ...]:
    kept = f"/root/.enrol-runner-{shorten_of_people(key)}"
    register = (
        f"CI_SERVER_TOKEN=$(cat {kept}) gitlab-runner register --non-interactive "
        f"--url {shlex.quote(url)} --executor shell {NAME} && rm {kept}"
    )
    text = f"""\
- name: Enrol machines
  hosts: all
  become: true
  tasks:
    - name: See that gitlab-runner is there before a runner is made for it
      ansible.builtin.command: gitlab-runner --version
      changed_when: false

    - name: Create a runner, unless this machine has one
      ansible.builtin.uri:
        url: {json.dumps(url + "/api/v4/user/runners")}
        method: POST
        headers:
          PRIVATE-TOKEN: "{{{{ lookup('ansible.builtin.env', 'ENROLMENT_KEY') }}}}"
          Idempotency-Key: "enrol-{{{{ ansible_facts['machine_id'] | default(inventory_hostname) }}}}"
        body_format: json
        body:
          description: "{{{{ inventory_hostname }}}}"
        status_code: [200, 201]
      register: created
      changed_when: created.status == 201
      failed_when: false
      no_log: true

    - name: Say what the portal said where it created none
      ansible.builtin.fail:
        msg: "{{{{ created.json.message | default(created.json.error_description) | default(created.msg) }}}}"
      when: created.status not in [200, 201]

    - name: Keep the token until the machine is registered
      ansible.builtin.copy:
        content: "{{{{ created.json.token }}}}"
        dest: {kept}
        mode: "0600"
      when: created.status == 201
      no_log: true

    - name: Register the machine
      ansible.builtin.shell:
        cmd: {json.dumps(register)}
        removes: {kept}"""
    note = (
        "Whoever repeats it changes nothing: the Idempotency-Key is the machine's, so a second run is answered with "
        "200, without a token, and registers nothing; after a failure the token is still there. A machine that was "
        "set up anew under its old machine ID has no token any more: reset it in the portal. The module "
        "community.general.gitlab_runner asks who it is and lists runners first, which a key does not open."
    )
    run = f"export ENROLMENT_KEY={shlex.quote(key)}\nansible-playbook --inventory hosts playbook.yml"
    return (
        Block("ansible", "playbook.yml", "yaml", text, note),
        Block("ansible-run", "Commands", "bash", run, HISTORY),
    )
