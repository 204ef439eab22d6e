"""Migrations keep the programs of the version before at work, and block nobody for long: CONTRIBUTING.md has the rule ("A
migration"). squawk knows what breaks old programs and what locks for how long; this adds what is particular to this repository."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SQUAWK = ROOT / "target/check-repository/bin/squawk"
# Those before the first release with this rule have been applied; a migration cannot be changed.
FIRST = 15
# PostgreSQL 15 is the oldest that is supported; sqlx runs each file in a transaction.
OPTIONS = ["--pg-version", "15.0", "--assume-in-transaction", "--reporter", "gcc"]
# Taste, and a limit that `api migrate` sets itself.
EXCLUDED = ["prefer-bigint-over-int", "prefer-identity", "prefer-robust-stmts", "prefer-text-field", "require-statement-timeout"]
# What old programs do not survive: only after a release that no longer uses it.
CONTRACTS = re.compile(r"ban-drop-(?!not-null)|ban-truncate|renaming-|changing-column-type")
# The most that others may have to wait behind a migration that waits for a lock: their own limit is two seconds.
LONGEST_LOCK_TIMEOUT_MS = 2000


def released(changelog: str) -> set[str]:
    return set(re.findall(r"^## \[(\d+\.\d+\.\d+)\] - ", changelog, re.MULTILINE))


def is_replaced(lines: list[str], number: int) -> bool:
    """Whether the statement below a line drops a constraint that the file adds again."""
    dropped = re.search(r"DROP CONSTRAINT (\w+)", lines[number + 1] if number + 1 < len(lines) else "")
    return bool(dropped) and f"ADD CONSTRAINT {dropped[1]} " in "\n".join(lines[number:])


def check_exceptions(lines: list[str], versions: set[str]) -> list[str]:
    """Each `squawk-ignore` has its reason in the comment above it, and what takes something away names the release."""
    faults = []
    for number, line in enumerate(lines):
        ignored = re.match(r"--\s*squawk-ignore(\S*)\s*(.*)", line)
        if not ignored:
            continue
        above = lines[number - 1] if number else ""
        since = re.search(r"[Uu]nused since (\d+\.\d+\.\d+)", above)
        if ignored[1] or not ignored[2]:
            faults.append("an exception is `-- squawk-ignore RULE`, for one statement")
        elif CONTRACTS.search(ignored[2]) and not is_replaced(lines, number):
            if not since or since[1] not in versions:
                faults.append(f"the line above `squawk-ignore {ignored[2]}` must say `Unused since VERSION`, with a released version")
        elif not above.startswith("-- "):
            faults.append(f"the line above `squawk-ignore {ignored[2]}` must give the reason")
    return faults


def check_text(text: str, versions: set[str]) -> list[str]:
    """What squawk does not know."""
    lines = text.splitlines()
    faults = check_exceptions(lines, versions)
    concurrently = re.search(r"^\s*(CREATE|DROP|REINDEX)\b[^;]*\bCONCURRENTLY\b", text, re.MULTILINE | re.IGNORECASE)
    if bool(concurrently) != text.startswith("-- no-transaction\n"):
        faults.append("CONCURRENTLY and the first line `-- no-transaction` go together")
    if concurrently and len(re.findall(r";\s*$", text, re.MULTILINE)) > 1:
        faults.append("a statement with CONCURRENTLY needs a file of its own")
    for value, unit in re.findall(r"lock_timeout\s*(?:=|TO)\s*'(\d+)\s*(ms|s|min|)'", text, re.IGNORECASE):
        if int(value) == 0 or int(value) * {"ms": 1, "": 1, "s": 1000, "min": 60_000}[unit] > LONGEST_LOCK_TIMEOUT_MS:
            faults.append(f"lock_timeout is {value}{unit}: others wait behind it, so at most 2s")
    # Those of functions are indented.
    for number, line in enumerate(lines):
        statement = re.match(r"(UPDATE|DELETE|TRUNCATE)\b", line, re.IGNORECASE)
        if statement and not re.match(r"-- Few rows: \S", lines[number - 1] if number else ""):
            faults.append(f"{statement[1]} locks rows until the end: let the program do it in batches, or say `-- Few rows: …` above")
    return faults


def check_file(file: Path, versions: set[str]) -> list[str]:
    text = file.read_text()
    # It locks out no writer, and a SET beside it would make a transaction of the two.
    excluded = [*EXCLUDED, "require-lock-timeout"] if text.startswith("-- no-transaction\n") else EXCLUDED
    command = [SQUAWK, *OPTIONS, "--exclude", ",".join(excluded), file]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    faults = [line.partition(": ")[2] for line in done.stdout.splitlines() if re.match(r"\S+:\d+:\d+: ", line)]
    if done.returncode != (1 if faults else 0):
        sys.exit(f"squawk: {done.stdout}{done.stderr}")
    return [f"{file.name}: {fault}" for fault in [*check_text(text, versions), *faults]]


def check(folder: Path, changelog: str) -> list[str]:
    """The faults of the migrations in a folder."""
    files = sorted(folder.glob("*.sql"))
    numbers = [int(file.name.partition("_")[0]) for file in files]
    faults = [f"migrations: two have the number {number:04}" for number in sorted(set(numbers)) if numbers.count(number) > 1]
    versions = released(changelog)
    for file, number in zip(files, numbers, strict=True):
        faults += check_file(file, versions) if number >= FIRST else []
    return faults


if __name__ == "__main__":
    found = check(ROOT / "migrations", (ROOT / "CHANGELOG.md").read_text())
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(1 if found else 0)
