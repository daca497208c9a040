"""Every causal language model that transformers knows does what docs/architectures.md says."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = HERE.parent.parent / "docs" / "architectures.md"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_table_of_models_is_true(tmp_path):
    output = tmp_path / "table.md"
    command = [sys.executable, str(HERE / "registry.py"), "--output", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    assert "traceback" not in output.read_text()
    assert output.read_text() == TABLE.read_text()
