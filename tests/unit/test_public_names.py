"""What `import fedmq` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fedmq


@pytest.mark.parametrize("name", fedmq.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fedmq, name) is not None


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Agregator'"):
        _ = fedmq.Agregator


def test_importing_loads_nothing_else() -> None:
    code = "import sys, fedmq; print(sorted(name for name in sys.modules if name.startswith(('fedmq.', 'numpy'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fedmq.version']"
