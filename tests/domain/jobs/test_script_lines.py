"""Scripts written as one text: lines are commands of their own, unless one goes on in the next."""

import pytest

from portal.domain.jobs.script_lines import commands


def test_simple_lines_are_commands_of_their_own() -> None:
    text = 'npm ci\nnpm test -- --coverage\n# now the rest\n\necho "it\'s done" && du -sh .\r\n\n'
    assert commands(text) == (
        "npm ci",
        "npm test -- --coverage",
        "# now the rest",
        "",
        'echo "it\'s done" && du -sh .',
    )


@pytest.mark.parametrize(
    "text",
    [
        'printf "%s " a \\\n  b c',
        "cat <<EOF > file\nhello\nEOF",
        "cat <<-'END'\nhello\nEND",
        "if true; then\necho yes\nfi",
        "for x in a b\ndo\necho $x\ndone",
        "echo 'one\ntwo'",
        'echo "one\ntwo"',
        "cat file |\nsort",
        "true &&\nfalse",
        "build() {\nmake\n}\nbuild",
        "foreach ($x in 1..3) {\n  echo $x\n}",
        "echo start\n  indented",
    ],
)
def test_what_goes_on_in_the_next_line_is_one_command(text: str) -> None:
    assert commands(text) == (text,)


def test_one_line_is_one_command_and_nothing_is_none() -> None:
    assert commands("make") == ("make",)
    assert commands("\n \n") == ()
