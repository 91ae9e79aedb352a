"""The copied texts, pasted into real shells with stand-ins for the programs, and read by real parsers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.domain.runners import instructions
from portal.domain.runners.instructions import Block, reachable_from_elsewhere, sections

URL = "https://runners.example.com"
TOKEN = "glrt-t1_0aB1cD2eF3gH4iJ5kL6mN7oP8qR.0r1a2b3c4"

NASTY = [
    "https://example.com/ci/portal/",
    "https://example.com/it's",
    'https://example.com/"quoted"',
    "https://example.com/with space",
    "https://example.com/$HOME/$(: > pwned)/${PATH}",
    "https://example.com/`: > pwned`",
    "https://example.com/back\\slash\\",
    "https://example.com/!wow!!/it's!1",
    "https://example.com/a;b&c|d>e<f*?[x]{y}~#z",
    "https://example.com/100%/%41: # {{ .Values.x }}",
    "https://example.com/zażółć/\N{GRINNING FACE}/\u2018x\u2019",
    "--url=https://example.com",
]
# For YAML alone: in a shell the line editor takes some of these for keys.
UNTYPABLE = ["https://example.com/\ttab", "https://example.com/\x07\x7f\x85\u2028\ufeff\nline"]
NASTY_TOKENS = [
    "glrt-a'b\"c",
    "glrt-$(: > pwned)`: > pwned`",
    "glrt-back\\slash\nEOF\nkind: Pod",
    "glrt-: # {{x}}",
]

# Interactive, because that is what people paste into: history expansion is on, `exit` would end it.
SHELLS = {"bash": ["--norc", "--noprofile", "-i"], "dash": ["-i"], "zsh": ["-f", "-i"]}

# Notes what it was called with, then plays its program's part. In sh, because it is started many times.
STAND_IN = """\
#!/bin/sh
typed=$({reads})
printf '%s\\0' "$#" {name} "$PWD" "${{HOME-}}" "${{CI_SERVER_TOKEN-none}}" "$typed" "$@" >> {log}
{then}
"""
# Like the real one: a fresh environment, and in it only what it was asked to keep.
SUDO = """\
case $1 in
  --preserve-env=CI_SERVER_TOKEN) shift; exec env -i PATH="$PATH" CI_SERVER_TOKEN="$CI_SERVER_TOKEN" "$@" ;;
  *) exec env -i PATH="$PATH" "$@" ;;
esac"""


@dataclass
class Call:
    program: str
    folder: str
    home: str
    token: str
    typed: str
    argv: list[str]


class Computer:
    """A PATH on which little but our stand-ins exists, and a shell to paste into."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.desk = folder / "desk"
        self.bin = folder / "bin"
        self.log = folder / "calls"
        for made in (self.home, self.desk, self.bin):
            made.mkdir()
        for name in ("uname", "cat", "env"):
            real = shutil.which(name)
            assert real
            (self.bin / name).symlink_to(real)

    def install(self, name: str, *, reads: bool = False, then: str = ":") -> None:
        log, reader = shlex.quote(str(self.log)), "cat" if reads else ":"
        self._write(name, STAND_IN.format(name=name, log=log, reads=reader, then=then))

    def log_in(self, *, root: bool) -> None:
        self._write("id", f"#!/bin/sh\necho {0 if root else 1000}\n")

    def _write(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def paste(self, shell: str, text: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which(shell)
        assert program
        return subprocess.run(
            [program, *SHELLS[shell]],
            input=text + "\n",
            env={"PATH": str(self.bin), "HOME": str(self.home), "PS1": "", "PS2": "", "LC_ALL": "C.UTF-8"},
            cwd=self.desk,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
            start_new_session=True,  # an interactive shell must not take the terminal from pytest
        )

    @property
    def calls(self) -> list[Call]:
        fields = self.log.read_text().split("\0")[:-1] if self.log.exists() else []
        made = []
        while fields:
            words = int(fields[0])
            made.append(Call(*fields[1:6], argv=fields[6 : 6 + words]))
            fields = fields[6 + words :]
        return made

    @property
    def was_broken_into(self) -> bool:
        return any(self.home.rglob("pwned")) or any(self.desk.rglob("pwned"))


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    made = Computer(tmp_path)
    for name in ("gitlab-runner", "docker", "helm"):
        made.install(name)
    made.install("kubectl", reads=True)
    made.log_in(root=True)
    return made


@pytest.fixture(params=[name for name in SHELLS if shutil.which(name)])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", SHELLS)
def test_the_blocks_are_pasted_into_this_shell_too(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here, so nothing was pasted into it")
    shown = subprocess.run([name, "-c", "echo $((6 * 7))"], capture_output=True, text=True, check=True)
    assert shown.stdout == "42\n"


def every_block(url: str = URL, token: str = TOKEN) -> dict[str, Block]:
    return {block.id: block for section in sections(url=url, token=token) for block in section.blocks}


def text_of(block: str, url: str = URL, token: str = TOKEN) -> str:
    return every_block(url, token)[block].text


def option(argv: list[str], name: str) -> str:
    assert argv.count(name) == 1, f"{name} in {argv}"
    return argv[argv.index(name) + 1]


SHELL_BLOCKS = [name for name, block in every_block().items() if block.language == "bash"]
REGISTERING = ["linux", "macos", "compose-commands"]


# The page's frame


def test_there_is_one_section_each_for_shell_compose_and_helm() -> None:
    made = sections(url=URL, token=TOKEN)
    assert [(section.id, section.title) for section in made] == [
        ("shell", "Shell"),
        ("docker-compose", "docker-compose"),
        ("helm", "Helm"),
    ]
    for section, floor in zip(made, ("15.11 or newer", "15.11 or newer", "0.53 or newer"), strict=True):
        assert floor in section.floor


def test_every_block_has_an_id_of_its_own_and_a_language_the_page_knows() -> None:
    blocks = [block for section in sections(url=URL, token=TOKEN) for block in section.blocks]
    assert len({block.id for block in blocks}) == len(blocks) == 9
    for block in blocks:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", block.id)
        assert block.language in ("bash", "powershell", "yaml")
        assert block.title


@pytest.mark.parametrize("name", every_block())
def test_a_block_is_copied_without_a_trailing_newline_or_a_carriage_return(name: str) -> None:
    text = text_of(name)
    assert text == text.strip("\n")
    assert "\r" not in text
    assert "\t" not in text


@pytest.mark.parametrize("name", every_block())
def test_a_note_is_one_plain_sentence(name: str) -> None:
    note = every_block()[name].note
    assert note.endswith(".")
    assert ". " not in note
    assert len(note) <= 110


def test_the_token_stands_only_where_it_is_needed() -> None:
    holders = {name for name, block in every_block().items() if TOKEN in block.text or TOKEN in block.note}
    assert holders == {"linux", "macos", "windows", "compose-commands", "helm-secret"}


@pytest.mark.parametrize("name", every_block())
def test_no_block_uses_an_option_that_the_client_refuses_with_a_created_token(name: str) -> None:
    refused = "tag-list locked access-level run-untagged maximum-timeout paused maintenance-note registration-token"
    variables = "RUNNER_TAG_LIST REGISTRATION_TOKEN REGISTER_[A-Z_]+"
    text = text_of(name)
    assert not re.search(rf"--({'|'.join(refused.split())})\b", text)
    assert not re.search(rf"\b({'|'.join(variables.split())})\b", text)
    # The chart's own names for the same; the Secret's key is the one exception, and is empty.
    assert not re.search(r"\b(tags|locked|runUntagged|protected|maximumTimeout|runnerRegistrationToken):", text)


@pytest.mark.parametrize("name", SHELL_BLOCKS)
def test_no_shell_block_can_end_the_shell_or_change_its_manners(name: str) -> None:
    assert not re.search(r"\b(exit|exec|logout|set)\b", text_of(name))


@pytest.mark.parametrize("name", SHELL_BLOCKS)
def test_no_shell_block_has_a_comment_because_an_interactive_zsh_would_run_it(name: str) -> None:
    assert not re.search(r"(^|\s)#", text_of(name), re.MULTILINE)


def test_every_version_is_pinned_and_the_same_everywhere() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", instructions.RUNNER_VERSION)
    assert re.fullmatch(r"\d+\.\d+\.\d+", instructions.CHART_VERSION)
    assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)+", instructions.JOB_IMAGE)
    assert f":v{instructions.RUNNER_VERSION}\n" in text_of("compose-file")
    assert f"--version {instructions.CHART_VERSION} " in text_of("helm-commands")
    assert instructions.JOB_IMAGE in text_of("compose-commands")
    assert instructions.JOB_IMAGE in text_of("helm-values")
    assert not any("latest" in block.text for block in every_block().values())


# Any shell block, pasted


@pytest.mark.parametrize("name", SHELL_BLOCKS)
@pytest.mark.parametrize("root", [True, False], ids=["root", "user"])
def test_no_shell_block_puts_the_token_on_a_command_line(
    computer: Computer, shell: str, name: str, root: bool
) -> None:
    computer.log_in(root=root)
    computer.install("sudo", then=SUDO)
    computer.paste(shell, text_of(name))
    assert computer.calls
    for call in computer.calls:
        assert not any(TOKEN in word for word in call.argv), call


@pytest.mark.parametrize("name", SHELL_BLOCKS)
@pytest.mark.parametrize("outcome", [0, 1], ids=["all goes well", "every program fails"])
def test_the_shell_lives_on_and_keeps_nothing_of_the_token(
    computer: Computer, shell: str, name: str, outcome: int
) -> None:
    computer.install("sudo", then=SUDO)
    for program in ("gitlab-runner", "docker", "helm"):
        computer.install(program, then=f"exit {outcome}")
    after = (
        'echo "token:${CI_SERVER_TOKEN-gone}"; echo "folder:$PWD"; echo "flags:$-"\n'
        "if command -v as_root; then :; else echo no function; fi"
    )
    flags = computer.paste(shell, 'echo "flags:$-"').stdout.split("flags:")[1].split()[0]
    said = computer.paste(shell, text_of(name) + "\n" + after).stdout.splitlines()
    assert {"token:gone", f"folder:{computer.desk}", f"flags:{flags}", "no function"} <= set(said)


@pytest.mark.parametrize("name", SHELL_BLOCKS)
def test_no_shell_complains_about_a_block(computer: Computer, shell: str, name: str) -> None:
    pasted = computer.paste(shell, text_of(name))
    complaints = [line for line in pasted.stderr.splitlines() if re.search(r"error|not found|unmatched|bad", line)]
    assert not complaints
    assert pasted.returncode == 0


@pytest.mark.parametrize("url", NASTY)
def test_a_strange_address_reaches_the_client_unchanged(computer: Computer, shell: str, url: str) -> None:
    computer.paste(shell, "\n".join(text_of(name, url=url) for name in REGISTERING))
    registrations = [call for call in computer.calls if "register" in call.argv]
    assert [option(call.argv, "--url") for call in registrations] == [url] * len(REGISTERING)
    assert not computer.was_broken_into


@pytest.mark.parametrize("token", NASTY_TOKENS)
def test_a_strange_token_reaches_the_client_unchanged(computer: Computer, shell: str, token: str) -> None:
    computer.paste(shell, "\n".join(text_of(name, token=token) for name in REGISTERING))
    registrations = [call for call in computer.calls if "register" in call.argv]
    assert [call.token for call in registrations] == [token] * len(REGISTERING)
    assert not computer.was_broken_into


@pytest.mark.parametrize(
    ("name", "greedy", "last"),
    [("linux", "sudo", ["--non-interactive"]), ("macos", "gitlab-runner", ["start"]),
     ("compose-commands", "docker", ["compose", "up"])],
)  # fmt: skip
def test_a_program_that_swallows_what_was_typed_ahead_does_not_cut_the_block_short(
    computer: Computer, shell: str, name: str, greedy: str, last: list[str]
) -> None:
    # sudo's password prompt throws typed-ahead lines away, `docker compose run` feeds them to the container.
    computer.log_in(root=False)
    computer.install("sudo", then=SUDO)
    computer.install(greedy, reads=True, then=SUDO if greedy == "sudo" else ":")
    computer.paste(shell, text_of(name))
    assert set(last) <= set(computer.calls[-1].argv)


# Linux


def test_the_linux_block_registers_with_the_token_in_the_environment(computer: Computer, shell: str) -> None:
    computer.paste(shell, text_of("linux"))
    (call,) = computer.calls
    assert call.program == "gitlab-runner"
    assert call.token == TOKEN
    assert call.argv == [
        *("register", "--non-interactive", "--url", URL, "--executor", "shell"),
        *("--description", os.uname().nodename),
    ]


def test_the_linux_block_works_as_root_where_no_sudo_is_installed(computer: Computer, shell: str) -> None:
    assert not (computer.bin / "sudo").exists()
    computer.paste(shell, text_of("linux"))
    assert [call.program for call in computer.calls] == ["gitlab-runner"]
    assert computer.calls[0].token == TOKEN


def test_the_linux_block_takes_the_token_through_sudo_and_nothing_else(computer: Computer, shell: str) -> None:
    computer.log_in(root=False)
    computer.install("sudo", then=SUDO)
    computer.paste(shell, text_of("linux"))
    sudo, client = computer.calls
    assert (sudo.program, client.program) == ("sudo", "gitlab-runner")
    assert sudo.argv[:2] == ["--preserve-env=CI_SERVER_TOKEN", "gitlab-runner"]
    assert client.argv == sudo.argv[2:]
    assert client.token == TOKEN
    assert client.home == ""


def test_the_linux_block_says_so_when_a_user_has_no_sudo(computer: Computer, shell: str) -> None:
    computer.log_in(root=False)
    pasted = computer.paste(shell, text_of("linux") + '\necho "status:$?"')
    assert computer.calls == []
    assert "sudo" in pasted.stderr
    assert "status:127" in pasted.stdout


@pytest.mark.parametrize(("root", "programs"), [(True, ["gitlab-runner"]), (False, ["sudo", "gitlab-runner"])])
def test_without_a_service_the_runner_is_started_by_hand(
    computer: Computer, shell: str, root: bool, programs: list[str]
) -> None:
    computer.log_in(root=root)
    if not root:
        computer.install("sudo", then=SUDO)
    computer.paste(shell, text_of("linux-run"))
    assert [call.program for call in computer.calls] == programs
    assert computer.calls[-1].argv == ["run"]


def test_the_linux_notes_say_that_a_service_needs_no_second_step() -> None:
    assert "by itself within seconds" in every_block()["linux"].note
    assert "no service" in every_block()["linux-run"].note


# macOS


def test_the_macos_block_registers_without_sudo_then_installs_and_starts_from_home(
    computer: Computer, shell: str
) -> None:
    computer.log_in(root=False)
    computer.install("sudo", then=SUDO)
    computer.paste(shell, text_of("macos"))
    assert [(call.program, call.argv[0]) for call in computer.calls] == [
        ("gitlab-runner", "register"),
        ("gitlab-runner", "install"),
        ("gitlab-runner", "start"),
    ]
    register, *service = computer.calls
    assert register.token == TOKEN
    assert option(register.argv, "--executor") == "shell"
    assert [(call.folder, call.token) for call in service] == [(str(computer.home), "none")] * 2


def test_the_macos_block_installs_nothing_when_the_registration_failed(computer: Computer, shell: str) -> None:
    computer.install("gitlab-runner", then="exit 1")
    computer.paste(shell, text_of("macos"))
    assert [call.argv[0] for call in computer.calls] == ["register"]


# Windows


def powershell_words(line: str) -> list[str]:
    """A line of PowerShell as words, by its quoting rule; fails on all that would need more than that."""
    quotes = "'\u2018\u2019\u201a\u201b"
    plain = rf"(?:(?!\$)[^\s`\"();|&<>@#,{{}}{quotes}]|\$env:[A-Z_]+)+"
    quoted = rf"[{quotes}]((?:[^{quotes}]|([{quotes}])\2|[{quotes}]{{2}})*)[{quotes}]"
    words, rest = [], line
    while rest:
        found = re.match(rf"(?:{quoted}|({plain}))(?:\s+|$)", rest)
        assert found, f"not to be read as PowerShell: {rest}"
        body = found[1] if found[1] is not None else found[3]
        words.append(re.sub(rf"[{quotes}]([{quotes}])", r"\1", body) if found[1] is not None else body)
        rest = rest[found.end() :]
    return words


@pytest.mark.parametrize("bad", ["x 'it's", 'x "a"', "x 'a' `", "x $(y)", "x '\u2019'", "x a;b"])
def test_the_powershell_reader_of_these_tests_refuses_what_powershell_would_not_take_literally(
    bad: str,
) -> None:
    with pytest.raises(AssertionError, match="not to be read"):
        powershell_words(bad)


@pytest.mark.parametrize("url", [URL, *NASTY])
def test_the_windows_block_is_one_command_a_line_and_quotes_the_address(url: str) -> None:
    lines = [powershell_words(line) for line in text_of("windows", url=url).splitlines()]
    assert lines[0] == ["$env:CI_SERVER_TOKEN", "=", TOKEN]
    assert lines[1][:3] == [".\\gitlab-runner.exe", "register", "--non-interactive"]
    assert lines[1][3] == "--url"
    assert lines[1][4] == url.replace('"', "%22")
    assert lines[1][5:] == [
        *("--executor", "shell", "--shell", "powershell"),
        *("--description", "$env:COMPUTERNAME"),
    ]
    assert lines[2:] == [
        ["Remove-Item", "Env:CI_SERVER_TOKEN"],
        [".\\gitlab-runner.exe", "install"],
        [".\\gitlab-runner.exe", "start"],
    ]


@pytest.mark.parametrize("token", ["glrt-it's", "glrt-$x`n", "glrt-\N{RIGHT SINGLE QUOTATION MARK}; Remove-Item x"])
def test_the_windows_block_quotes_a_strange_token(token: str) -> None:
    first = text_of("windows", token=token).splitlines()[0]
    assert powershell_words(first) == ["$env:CI_SERVER_TOKEN", "=", token]


def test_the_windows_block_names_the_token_in_no_command() -> None:
    _, *commands = text_of("windows").splitlines()
    assert not any(TOKEN in command or "$env:CI_SERVER_TOKEN" in command for command in commands)


# docker-compose


def compose_config(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What podman-compose makes of a compose.yaml; it only asks podman for its version to do so."""
    (folder / "compose.yaml").write_text(text)
    (folder / "podman").write_text("#!/bin/sh\necho podman version 5.4.0\n")
    (folder / "podman").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, "-m", "podman_compose", "-f", "compose.yaml", "config"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_compose_implementation_reads_the_compose_file(tmp_path: Path) -> None:
    read = compose_config(tmp_path, text_of("compose-file"))
    assert read.returncode == 0, read.stderr
    config = yaml.safe_load(read.stdout)
    assert list(config["services"]) == ["gitlab-runner"]
    service = config["services"]["gitlab-runner"]
    assert service["image"] == f"gitlab/gitlab-runner:v{instructions.RUNNER_VERSION}"
    assert service["restart"] == "unless-stopped"
    assert service["stop_signal"] == "SIGQUIT"
    assert service["stop_grace_period"] == "1h"
    assert list(config["volumes"]) == ["gitlab-runner-config"]
    assert service["volumes"] == [
        "gitlab-runner-config:/etc/gitlab-runner",
        "/var/run/docker.sock:/var/run/docker.sock",
    ]
    assert "environment" not in service


def test_the_compose_implementation_of_these_tests_refuses_a_wrong_file(tmp_path: Path) -> None:
    wrong = text_of("compose-file").replace("volumes:\n  gitlab-runner-config:", "volumes: {}")
    assert wrong != text_of("compose-file")
    assert compose_config(tmp_path, wrong).returncode != 0


def test_the_compose_file_holds_no_address_and_no_token_so_it_can_be_kept_anywhere() -> None:
    assert text_of("compose-file") == text_of("compose-file", url=NASTY[0], token="glrt-other")


def test_the_compose_commands_register_in_a_passing_container_then_start_the_lasting_one(
    computer: Computer, shell: str
) -> None:
    computer.paste(shell, text_of("compose-commands"))
    register, up = computer.calls
    assert (register.program, up.program) == ("docker", "docker")
    assert register.argv == [
        *("compose", "run", "--rm", "-e", "CI_SERVER_TOKEN", "gitlab-runner"),
        *("register", "--non-interactive", "--url", URL, "--executor", "docker"),
        *("--docker-image", instructions.JOB_IMAGE, "--description", os.uname().nodename),
    ]
    assert register.argv[5] in yaml.safe_load(text_of("compose-file"))["services"]
    assert register.token == TOKEN
    assert up.argv == ["compose", "up", "-d"]
    assert up.token == "none"


def test_the_compose_commands_start_nothing_when_the_registration_failed(computer: Computer, shell: str) -> None:
    computer.install("docker", then="exit 1")
    computer.paste(shell, text_of("compose-commands"))
    assert [call.argv[1] for call in computer.calls] == ["run"]


# Helm


def manifests(computer: Computer, shell: str, token: str = TOKEN) -> list[dict[str, Any]]:
    computer.paste(shell, text_of("helm-secret", token=token))
    (call,) = computer.calls
    assert (call.program, call.argv) == ("kubectl", ["apply", "-f", "-"])
    return list(yaml.safe_load_all(call.typed))


def values(url: str = URL) -> dict[str, Any]:
    read = yaml.safe_load(text_of("helm-values", url=url))
    assert isinstance(read, dict)
    return read


@pytest.mark.parametrize("token", [TOKEN, *NASTY_TOKENS])
def test_the_secret_has_both_keys_and_reaches_kubectl_on_its_standard_input(
    computer: Computer, shell: str, token: str
) -> None:
    namespace, secret = manifests(computer, shell, token)
    assert namespace == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": secret["metadata"]["namespace"]},
    }
    assert (secret["apiVersion"], secret["kind"]) == ("v1", "Secret")
    assert secret["stringData"] == {"runner-token": token, "runner-registration-token": ""}
    assert not computer.was_broken_into


def test_the_values_name_the_secret_and_the_release_goes_to_its_namespace(computer: Computer, shell: str) -> None:
    _, secret = manifests(computer, shell)
    computer.log.unlink()
    computer.paste(shell, text_of("helm-commands"))
    assert values()["runners"]["secret"] == secret["metadata"]["name"]
    assert option(computer.calls[-1].argv, "--namespace") == secret["metadata"]["namespace"]


@pytest.mark.parametrize("url", [URL, *NASTY, *UNTYPABLE])
def test_the_values_hold_the_address_unchanged_and_no_token(url: str) -> None:
    read = values(url)
    assert read["gitlabUrl"] == url
    assert set(read) == {"gitlabUrl", "unregisterRunners", "rbac", "serviceAccount", "runners"}
    assert set(read["runners"]) == {"secret", "config"}
    assert text_of("helm-values", token=TOKEN) == text_of("helm-values", token="glrt-other")


def test_the_values_unregister_a_pod_that_goes_and_make_its_account() -> None:
    read = values()
    assert read["unregisterRunners"] is True
    assert read["serviceAccount"] == {"create": True}
    assert read["rbac"]["create"] is True


def test_the_role_grants_what_the_executor_needs_and_nothing_by_a_star() -> None:
    granted: dict[str, set[str]] = {}
    for rule in values()["rbac"]["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}  # the chart reads a missing key as a star
        assert rule["apiGroups"] == [""]
        for resource in rule["resources"]:
            granted.setdefault(resource, set()).update(rule["verbs"])
    assert granted == {
        "events": {"list", "watch"},
        "pods": {"create", "delete", "get", "list", "watch"},
        "pods/attach": {"create", "delete", "get", "patch"},
        "pods/exec": {"create", "delete", "get", "patch"},
        "pods/log": {"get", "list"},
        "secrets": {"create", "delete", "get", "update"},
        "serviceaccounts": {"get"},
        "services": {"create", "get"},
    }


@pytest.mark.parametrize("rendered", ["{{.Release.Namespace}}", "ci"], ids=["as copied", "as Helm renders it"])
def test_the_runner_template_is_valid_toml_before_and_after_helm(rendered: str) -> None:
    template = values()["runners"]["config"]
    assert template.count("{{") == 1
    config = tomllib.loads(template.replace("{{.Release.Namespace}}", rendered))
    assert config == {"runners": [{"kubernetes": {"namespace": rendered, "image": instructions.JOB_IMAGE}}]}


def test_the_helm_commands_install_the_pinned_chart_with_the_values_file(computer: Computer, shell: str) -> None:
    computer.paste(shell, text_of("helm-commands"))
    add, update, upgrade = (call.argv for call in computer.calls)
    assert add[:3] == ["repo", "add", "gitlab"]
    assert update == ["repo", "update", "gitlab"]
    assert upgrade[:4] == ["upgrade", "--install", "gitlab-runner", "gitlab/gitlab-runner"]
    assert option(upgrade, "--version") == instructions.CHART_VERSION
    assert option(upgrade, "--values") == "values.yaml"
    assert "--create-namespace" in upgrade
    assert not any(word.startswith("--set") for word in upgrade)


# Whether anybody else can reach the address


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "http://LOCALHOST:8080/ci",
        "http://localhost.:5000",
        "http://portal.localhost:5000",
        "http://localhost.localdomain",
        "http://127.0.0.1:5000",
        "http://127.8.9.10",
        "http://0.0.0.0:8000/",
        "http://[::1]:5000",
        "http://[::]:5000",
        "http://[::ffff:127.0.0.1]/",
        "http://user@localhost/",
        "not an address",
        "http://",
        "http://[::1",
        "",
    ],
)
def test_an_address_of_this_machine_alone_is_not_reachable_from_elsewhere(url: str) -> None:
    assert not reachable_from_elsewhere(url)


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://192.168.1.20:5000",
        "http://10.0.0.1/ci",
        "http://[2001:db8::1]/",
        "http://localhost.example.com",
        "http://mylocalhost",
        "http://portal",
        "https://example.com/localhost/127.0.0.1",
        "https://example.com:443/0.0.0.0",
        "http://[::ffff:192.168.1.20]/",
    ],
)
def test_any_other_address_counts_as_reachable(url: str) -> None:
    assert reachable_from_elsewhere(url)
