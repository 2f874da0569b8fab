"""House rules that linters cannot enforce."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 350
BANNED_NAMES = {"utils", "helpers", "common", "misc", "v2"}


def tree(path: Path) -> ast.Module:
    """Parsed source of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    """Import name of a module file."""
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    return name.removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_is_short_and_introduced(path: Path) -> None:
    """A module has at most 350 lines and begins with a docstring."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_are_at_the_top_and_unconditional(path: Path) -> None:
    """No import inside a function, a `try` or an `if`."""
    nested = [
        node.lineno
        for statement in tree(path).body
        if not isinstance(statement, ast.Import | ast.ImportFrom)
        for node in ast.walk(statement)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert nested == []


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_error_is_swallowed(path: Path) -> None:
    """No bare `except`, no `except Exception`; BaseException only where it is raised again."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            name = ast.unparse(node.type) if node.type else "everything"
            assert name not in ("everything", "Exception"), f"line {node.lineno}"
            if name == "BaseException":
                assert any(isinstance(inner, ast.Raise) and inner.exc is None for inner in node.body)


def test_names_say_what_is_in_a_module() -> None:
    """No module is called utils, helpers or the like."""
    assert not [path for path in MODULES if set(path.stem.split("_")) & BANNED_NAMES]


def test_public_names_are_unique() -> None:
    """No two modules define a public function or class of the same name; `main` is the one exception."""
    names = Counter(
        node.name
        for path in MODULES
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1 and name != "main"] == []


def test_every_module_has_its_test() -> None:
    """Each module is named by an import of some test, or has a test file of its own name in its layer."""
    files = list((REPOSITORY / "tests").rglob("test_*.py"))
    imports = {
        name
        for path in files
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    }
    mirrored = {path.relative_to(REPOSITORY / "tests" / "unit").as_posix() for path in files if "unit" in path.parts}
    untested = [
        dotted(path)
        for path in MODULES
        if path.name != "__init__.py"
        and dotted(path) not in imports
        and path.relative_to(PACKAGE).with_name(f"test_{path.name}").as_posix() not in mirrored
    ]
    assert untested == []


def test_float_arguments_of_kernels_carry_units() -> None:
    """Lengths and fluxes in kernel signatures say arcsec, px, rad or nmgy."""
    physical = re.compile(r"^(theta_e|re|fwhm|psfsize|pixel_scale|src_x|src_y|lens_x|lens_y|phi|flux)$")
    bare = [
        f"{dotted(path)}.{node.name}({argument.arg})"
        for path in (PACKAGE / "kernels").glob("*.py")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        for argument in node.args.args
        if physical.match(argument.arg)
    ]
    assert bare == []


def test_importing_the_package_does_no_work() -> None:
    """Importing every module but the trainer's loads no torch, starts no cluster and writes nothing."""
    names = [dotted(path) for path in MODULES if "training" not in path.relative_to(PACKAGE).parts]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
assert 'torch' not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_no_path_or_host_of_a_workplace_is_tracked() -> None:
    """Tracked text names no local folder and no package host."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(^|[^A-Za-z0-9._])/(work|farm|root|opt/(wheels|pypi))(/|$)|pypi\.org|pythonhosted")
    found = []
    for name in listed.stdout.split():
        path = REPOSITORY / name
        if path.suffix in (".png", ".fz", ".npz") or path == Path(__file__) or not path.is_file():
            continue
        found += [f"{name}: {line}" for line in path.read_text(encoding="utf-8").splitlines() if pattern.search(line)]
    assert found == []


def test_every_dependency_is_pinned() -> None:
    """constraints.txt pins one exact version of every direct dependency."""
    pinned = {
        line.split("==")[0].lower()
        for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)
    }
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    section = project.split("[project.scripts]")[0].split("dependencies = [", 1)[1]
    direct = {re.split(r"[><=]", name)[0].lower() for name in re.findall(r'^\s+"([^"]+)",?', section, re.MULTILINE)}
    direct |= {"dask-kubernetes", "torch"}
    assert "zarr" in direct
    assert direct - pinned == set()
