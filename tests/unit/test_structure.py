"""What the architecture says is not there, is not there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
MODULES = sorted((ROOT / "valqd").rglob("*.py"))
PURE = [path for path in MODULES if path.parent.name in ("protocol", "commands", "lua")]
#: What the pure packages may import beside each other.
ALLOWED = {
    *("abc", "collections", "copy", "dataclasses", "enum", "functools", "itertools", "operator", "random", "re"),
    *("__future__", "textwrap", "typing", "unicodedata", "hiredis"),
}
#: And bundle.py, the files that it joins.
ALSO_ALLOWED = {"bundle.py": {"importlib", "graphlib"}}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_packages_import_no_io(path):
    names = imports(path)
    outside = {name.partition(".")[0] for name in names if not name.startswith("valqd.")} - {"valqd"}
    assert outside <= ALLOWED | ALSO_ALLOWED.get(path.name, set())
    inside = {".".join(name.split(".")[:2]) for name in names if name.startswith("valqd.")}
    assert inside <= {"valqd.protocol", "valqd.commands", "valqd.lua", "valqd.errors"}


def test_only_io_imports_asyncio():
    users = {path.relative_to(ROOT).parts[1] for path in MODULES if "asyncio" in imports(path)}
    assert users == {"io"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for_and_is_no_drawer(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert not re.search(r"util|helper|common|misc|manager", path.name)


def test_commands_know_nothing_of_the_protocol():
    for path in (ROOT / "valqd" / "commands").glob("*.py"):
        assert not [name for name in imports(path) if name.startswith("valqd.protocol")], path.name


def anchors(page: Path) -> set[str]:
    """Of its headings, as they are made where such pages are shown: lower case, without punctuation, - for a space."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", path.read_text()):
        if not target.startswith("http"):
            found = path.parent / target if target else path
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def test_files_named_in_the_architecture_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for name in re.findall(r"`((?:io|protocol|commands|lua)/[\w/]+\.(?:py|lua))`", text):
        assert (ROOT / "valqd" / name).exists(), name


@pytest.mark.parametrize("package", ["protocol", "io"])
def test_the_code_map_names_every_module(package):
    (row,) = re.findall(rf"^\| `valqd/{package}/` \| (.*) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    modules = {path.stem for path in (ROOT / "valqd" / package).glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(\w+)`", row)) == modules


def test_make_targets_named_in_the_readme_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text())) <= targets
