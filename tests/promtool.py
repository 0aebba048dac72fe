"""Prometheus's own checker. A machine may be without it, and then its tests are skipped, but not
where CROSSBOOK_TEST_PROMTOOL=required says that it has been installed (see .ci/run).
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

TIMEOUT_S = 60.0


def promtool(*arguments: str, given: bytes = b"", folder: Path | None = None) -> str:
    """What it says; the test fails if it finds anything wrong, and so do warnings."""
    program = shutil.which("promtool")
    if program is None:
        _missing()
    done = subprocess.run(
        [str(program), *arguments],
        input=given,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


def check_expressions(expressions: Sequence[str], folder: Path) -> None:
    """Every one of them can be parsed."""
    lines = [f"  - record: some:name\n    expr: {_quoted(text)}" for text in expressions]
    rules = folder / "expressions.yml"
    rules.write_text("groups:\n- name: expressions\n  rules:\n" + "\n".join(lines) + "\n")
    promtool("check", "rules", "--lint=none", str(rules))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _missing() -> None:
    told = "promtool is missing; get it with: apt-get install prometheus"
    if os.environ.get("CROSSBOOK_TEST_PROMTOOL") == "required":
        pytest.fail(told)
    pytest.skip(told)
