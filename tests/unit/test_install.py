"""What a user gets: the wheel, its core dependencies, and nothing that drags a framework in."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks import footprint

FRAMEWORKS = ("keras", "matplotlib", "tensorflow")


def run(*command: str | Path) -> str:
    # Elsewhere, so that the package comes from the environment and not from the source tree.
    finished = subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True, cwd=Path(command[0]).parent
    )
    return finished.stdout


def test_importing_the_core_imports_no_framework() -> None:
    program = f"import fedmq, sys; print(sorted(sys.modules.keys() & {set(FRAMEWORKS)}))"
    assert run(sys.executable, "-c", program).strip() == "[]"


@pytest.mark.slow
@pytest.mark.install
def test_wheel_holds_the_package_whole_and_nothing_else(tmp_path: Path) -> None:
    names = zipfile.ZipFile(footprint.build_wheel(tmp_path)).namelist()
    sources = {
        path.relative_to(footprint.ROOT).as_posix()
        for path in (footprint.ROOT / "fedmq").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if not name.startswith("fedmq-")} == sources
    assert "fedmq/py.typed" in sources
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@pytest.mark.slow
@pytest.mark.install
@pytest.mark.timeout(600)
def test_core_install_is_small_and_works(tmp_path: Path) -> None:
    """One test, because making the environment is what takes the time."""
    python = footprint.install(footprint.build_wheel(tmp_path), tmp_path / "environment")

    found = footprint.installed(python)
    assert "fedmq" in found.distributions
    assert len(found.distributions) <= footprint.MOST_DISTRIBUTIONS, found.distributions
    assert found.megabytes < footprint.MOST_MEGABYTES

    assert run(python, "-c", "import fedmq; print(fedmq.__version__)").strip() == version("fedmq")
    assert "simulate" in run(python.with_name("fedmq"), "--help")
