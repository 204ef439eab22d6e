"""Checks what keeps the code easy to find one's way in:

* no import circle between the files of a crate: a file uses a name that another one defines, and that one, directly or over
  others, a name that the first one defines. Re-exports are looked through; tests do not count. A module is part of the one
  above it and may use its names.
* The layers of the API: `http` is the outermost one, and nothing below it knows axum.
* No file, tests included, is longer than 400 lines.

`.ci/test_check_layout.py` feeds it broken input."""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

CRATES = ("api", "worker", "shared", "bench", "testbed", "xtask", "e2e", "models")
BELOW_HTTP = ("orders", "auth", "feed", "limits", "tenants", "db", "outbox")
MAX_LINES = 400

ITEM = re.compile(r"\b(?:fn|struct|enum|union|trait|type|const|static|macro_rules!)\s+(?:mut\s+)?(\w+)")
MODULE = re.compile(
    r"((?:#\[[^\]]*\]\s*)*)(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*([;{])"
)
USE = re.compile(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
PATH = re.compile(r"(?<![\w:.])(\w+(?:\s*::\s*\w+)+)")


@dataclass
class Module:
    """A module: its file, and what its names mean."""

    file: Path
    path: tuple[str, ...]
    parent: "Module | None"
    text: str = ""
    items: set[str] = field(default_factory=set)
    children: dict[str, "Module"] = field(default_factory=dict)
    # The name here, the path that it stands for, and whether other modules may use it from here.
    imports: dict[str, tuple[list[str], bool]] = field(default_factory=dict)
    globs: list[list[str]] = field(default_factory=list)

    @property
    def root(self) -> "Module":
        return self if self.parent is None else self.parent.root


def without_comments_and_literals(source: str) -> str:
    """The code alone, so that names in comments and texts are not taken for uses."""
    token = re.compile(
        r"//[^\n]*|/\*.*?\*/|b?r(#*)\".*?\"\1|b?\"(?:\\.|[^\"\\])*\"|b?'(?:\\(?:u\{\w+\}|x\w\w|.)|[^'\\])'", re.DOTALL
    )
    return token.sub(lambda match: "" if match[0].startswith("/") else '""', source)


def end_of_block(text: str, start: int) -> int:
    """The position after the brace that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.end()
    return len(text)


def split_at_commas(text: str) -> list[str]:
    parts, depth, last = [], 0, 0
    for index, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            parts.append(text[last:index])
            last = index + 1
    return [part.strip() for part in [*parts, text[last:]] if part.strip()]


def leaves(tree: str, prefix: list[str]) -> list[tuple[list[str], str]]:
    """Each path of a `use` tree with the name that it gets; `*` for all names."""
    tree = tree.strip()
    if tree.startswith("{"):
        return [leaf for part in split_at_commas(tree[1:-1]) for leaf in leaves(part, prefix)]
    head, separator, rest = tree.partition("::")
    if separator:
        return leaves(rest, [*prefix, head.strip()] if head.strip() else prefix)
    name, _, alias = (part.strip() for part in tree.partition(" as "))
    path = prefix if name == "self" and prefix else [*prefix, name]
    return [(path, alias or path[-1] if name != "*" else "*")]


def parse(file: Path, path: tuple[str, ...], parent: Module | None) -> Module:
    module = Module(file, path, parent)
    fill(module, without_comments_and_literals(file.read_text()))
    return module


def fill(module: Module, text: str) -> None:
    """Reads a module's names, and its child modules. Those of tests are left out."""
    rest, position = [], 0
    for match in MODULE.finditer(text):
        if match.start() < position:
            continue
        attributes, name, opening = match.groups()
        rest.append(text[position : match.start()])
        position = match.end() if opening == ";" else end_of_block(text, match.end() - 1)
        if "cfg(test)" in attributes:
            continue
        if opening == "{":
            child = Module(module.file, (*module.path, name), module)
            fill(child, text[match.end() : position - 1])
            module.children[name] = child
        elif "path" not in attributes:
            # The text of a `#[path]` is blanked with all literals: such a module belongs to another crate.
            folder = module.file.parent
            if module.file.name not in ("mod.rs", "lib.rs", "main.rs") and module.parent is not None:
                folder = folder / module.file.stem
            for file in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if file.is_file():
                    module.children[name] = parse(file, (*module.path, name), module)
    rest.append(text[position:])
    body = re.sub(r"#\[cfg\(test\)\]\s*(?:use[^;]*;|[^{};]*\{)", lambda found: "", "".join(rest))
    for public, tree in USE.findall(body):
        for target, name in leaves(re.sub(r"\s+", " ", tree), []):
            if name == "*":
                module.globs.append(target[:-1])
            elif name != "_":
                module.imports[name] = (target, bool(public))
    module.text = USE.sub("", body)
    module.items = set(ITEM.findall(module.text))


def resolve(module: Module, path: list[str], seen: frozenset = frozenset()) -> tuple[Module, str | None] | None:
    """What a path means: the module in which its first item is defined, and that item; or a module. None for another crate."""
    here: Module | None = module
    for index, name in enumerate(path):
        rest = path[index + 1 :]
        if name == "crate":
            here = module.root
        elif name == "super":
            here = here.parent if here is not None else None
        elif name == "self":
            pass
        elif name in here.items:
            return here, name
        elif name in here.children:
            here = here.children[name]
        elif name in here.imports and (here.path, name) not in seen:
            seen |= {(here.path, name)}
            return resolve(here, [*here.imports[name][0], *rest], seen)
        else:
            for glob in here.globs:
                if (here.path, *glob, name) in seen:
                    continue
                seen |= {(here.path, *glob, name)}
                found = resolve(here, [*glob, name, *rest], seen)
                if found is not None:
                    return found
            return None
        if here is None:
            return None
    return here, None


def modules(module: Module) -> list[Module]:
    return [module] + [below for child in module.children.values() for below in modules(child)]


def uses(module: Module) -> set[tuple[Path, str]]:
    """The files whose names a module uses, each with one of the names."""
    words = set(re.findall(r"\w+", module.text))
    paths = [re.sub(r"\s", "", path).split("::") for path in PATH.findall(module.text)]
    # A re-export alone is no use.
    paths += [target for name, (target, public) in module.imports.items() if not public or name in words]
    paths += [[*glob, word] for glob in module.globs for word in words]
    found = set()
    for path in paths:
        target = resolve(module, path)
        if target is None or target[1] is None or target[0].file == module.file:
            continue
        above = target[0].path
        if module.path[: len(above)] != above:
            found.add((target[0].file, target[1]))
    return found


def circles(edges: dict[Path, set[Path]]) -> list[list[Path]]:
    """Groups of files each of which leads to every other (strongly connected components)."""
    reachable = {}
    for start in edges:
        seen, queue = set(), [start]
        while queue:
            for target in edges.get(queue.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    queue.append(target)
        reachable[start] = seen
    groups = {frozenset(b for b in reachable[a] if a in reachable.get(b, ())) for a in edges}
    return sorted((sorted(group) for group in groups if len(group) > 1), key=str)


def import_circles(root: Path) -> list[str]:
    faults = []
    for crate in CRATES:
        for entry in ("lib.rs", "main.rs", "system.rs"):
            file = root / crate / "src" / entry
            if not file.is_file():
                continue
            names: dict[Path, dict[Path, set[str]]] = {}
            for module in modules(parse(file, (), None)):
                for target, name in uses(module):
                    names.setdefault(module.file, {}).setdefault(target, set()).add(name)
            for group in circles({file: set(targets) for file, targets in names.items()}):
                faults.append(f"import circle of {len(group)} files:")
                for file in group:
                    for target in sorted(set(names[file]) & set(group)):
                        listed = ", ".join(sorted(names[file][target]))
                        faults.append(f"    {file.relative_to(root)} uses {listed} of {target.relative_to(root)}")
    return faults


def layers(root: Path) -> list[str]:
    """Uses of HTTP below it."""
    faults = []
    for folder in BELOW_HTTP:
        for file in sorted((root / "api/src" / folder).rglob("*.rs")):
            code = re.sub(r"#\[cfg\(test\)\]\s*mod\s+\w+\s*\{.*", "", without_comments_and_literals(file.read_text()), flags=re.DOTALL)
            for word, what in ((r"\bcrate::(?:\{[^;]*\b)?http\b", "`crate::http`"), (r"\b(?:use\s+axum|axum\s*::)", "axum"), (r"\bApiError\b", "`ApiError`")):
                if re.search(word, code):
                    faults.append(f"{file.relative_to(root)}: uses {what}, but lies below HTTP")
    return faults


def long_files(root: Path) -> list[str]:
    lengths = {
        file: len(file.read_text().splitlines())
        for crate in (*CRATES, "fuzz")
        for file in sorted((root / crate).rglob("*.rs"))
        if "target" not in file.relative_to(root).parts
    }
    return [
        f"{file.relative_to(root)}: {lines} lines; {MAX_LINES} are the limit: move a part that has a name into a file of its own"
        for file, lines in lengths.items()
        if lines > MAX_LINES
    ]


def check(root: Path) -> list[str]:
    return import_circles(root) + layers(root) + long_files(root)


if __name__ == "__main__":
    found = check(Path(__file__).resolve().parent.parent)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(1 if found else 0)
