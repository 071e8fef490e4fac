"""Generates what login.bash and lab-iam.sudoers take from the table of login-shell commands.

After a change of the table, in the folder of the entry points: python3 -m labhost.shell.entry_points
"""

from pathlib import Path

from labhost.shell.commands import COMMANDS

FOLDER = Path(__file__).resolve().parents[2]
BEGIN, END = "# Generated from labhost/shell/commands.py: begin\n", "# Generated: end\n"
HELP = "help: show this text"


def render_help() -> str:
    lines = [line.partition(": ") for command in COMMANDS for line in command.help.splitlines()]
    lines.append(HELP.partition(": "))
    width = max(len(form) for form, _, _ in lines) + 2
    usage = [f"{form:{width}}{summary}" for form, _, summary in lines]
    *programs, last = [command.name for command in COMMANDS if command.takes_json]
    return "\n".join(usage) + (
        f"\n\nFor programs: {', '.join(programs)} and {last} take --json.\n"
        "Exit status: 0 done, 1 failed, 2 wrong use, 3 refused or not confirmed, 4 busy (try again)."
    )


def render_login() -> str:
    """The names, a function with the grammar, and the help, in bash."""
    cases = [(command.name, command.arguments, command.forms) for command in COMMANDS] + [("help", "", "help")]
    names = " ".join(name for name, _, _ in cases)
    table = "\n".join(f"    {name}) pattern='{pattern}' usage='{forms}' ;;" for name, pattern, forms in cases)
    return f"""\
readonly COMMANDS='{names}'

find_command() {{
  case $1 in
{table}
    *) return 1 ;;
  esac
}}

do_help() {{
  cat <<'TEXT'
{render_help()}
TEXT
}}
"""


def render_sudoers() -> str:
    rules = [f"/usr/local/sbin/labhost user {command.name}" for command in COMMANDS]
    return "Cmnd_Alias LAB_IAM_PEOPLE = " + ", \\\n    ".join(rules) + "\n"


def insert(text: str, part: str) -> str:
    """The text of an entry point with its generated part replaced; ValueError if it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the marks of the generated part are missing")
    return before + BEGIN + part + END + after


GENERATED = {"login.bash": render_login, "lab-iam.sudoers": render_sudoers}


def main() -> None:
    for name, render in GENERATED.items():
        path = FOLDER / name
        path.write_text(insert(path.read_text(), render()))


if __name__ == "__main__":
    main()
