"""Every path and link in the documents leads to something in the repository: files, folders, and headings. Each table has a head,
and the numbers of lists follow each other."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md"), *ROOT.glob("docs/**/*.md")]
FOLDERS = "api|shared|worker|bench|testbed|xtask|e2e|models|fuzz|docs|deploy|migrations|localstack|observability|\\.ci|\\.config|\\.github"


def anchors(document: Path) -> set[str]:
    """The headings as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def breaks(document: Path) -> list[str]:
    """Rows that are shown as text because no head stands above them, and numbers that come twice or are left out."""
    found, before, number = [], ["", ""], 0
    for line in re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines():
        if before[1].startswith("|") and not before[0].startswith("|") and not re.match(r"\|[ |:-]+$", line):
            found.append(f"no head above the row {before[1][:40]}")
        before = [before[1], line]
        if item := re.match(r"(\d+)\. ", line):
            if int(item[1]) not in (1, number + 1):
                found.append(f"{item[1]} comes after {number}: {line[:40]}")
            number = int(item[1])
    return [f"{document.relative_to(ROOT)}: {fault}" for fault in found]


def faults(document: Path) -> list[str]:
    text = document.read_text()
    found = [path for path in re.findall(rf"`((?:{FOLDERS})/[\w./*-]*)`", text) if not any(ROOT.glob(path.rstrip("/")))]
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            found.append(link)
    return [f"{document.relative_to(ROOT)}: {path} does not exist" for path in found]


found = [fault for document in sorted(DOCUMENTS) for fault in faults(document) + breaks(document)]
print("\n".join(found), file=sys.stderr, end="\n" if found else "")
sys.exit(1 if found else 0)
