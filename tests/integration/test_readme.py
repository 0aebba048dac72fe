"""The tours of README and docs, pasted line by line into a fresh system: each answers as it is
printed there.
"""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.system import ROOT, System, running_system

README = (ROOT / "README.md").read_text()
ELLIPSIS = "…"


TOURS = {
    "README": README.split("## A tour with curl")[1].split("\n## ")[0],
    "ORDER_TYPES": (ROOT / "docs" / "ORDER_TYPES.md").read_text(),
    "PROTECTION": (ROOT / "docs" / "PROTECTION.md").read_text(),
    "MARKET_DATA": (ROOT / "docs" / "MARKET_DATA.md").read_text(),
    "CLEARING": (ROOT / "docs" / "CLEARING.md").read_text(),
}
"""Each trades instruments of its own."""


def steps_of(section: str) -> list[tuple[str, str]]:
    """Each command of a tour with what is printed below it."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```bash\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("# "):
                command, printed = steps.pop()
                steps.append((command, printed + line[2:] + "\n"))
            else:
                steps.append((line, ""))
    return steps


def inside(language: str) -> list[str]:
    """The lines of the block in `language` under "Look inside", without their comments."""
    section = README.split("## Look inside")[1].split("\n## ")[0]
    block = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [re.split(r" +(?:#|--) ", line)[0] for line in block.group(1).splitlines()]


def answers_as_printed(answer: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in printed.rstrip("\n").split(ELLIPSIS))
    return re.fullmatch(pattern, answer.strip().replace("\r", "")) is not None


@pytest.fixture(scope="module")
def fresh() -> Iterator[System]:
    with running_system() as running:
        yield running


def shell(system: System, command: str) -> str:
    here = command.replace("localhost:3000", f"localhost:{system.api.port}")
    return subprocess.run(
        ["bash", "-c", here], capture_output=True, text=True, check=True, timeout=30
    ).stdout


@pytest.mark.parametrize("name", TOURS)
def test_a_curl_tour_answers_as_printed(fresh: System, name: str) -> None:
    steps = steps_of(TOURS[name])
    assert len(steps) > 10
    for command, printed in steps:
        assert printed, f"nothing is printed below: {command}"
        answer = shell(fresh, command)
        assert answers_as_printed(answer, printed), f"{command}\n{answer}\n{printed}"


def test_the_redis_lines_work(fresh: System) -> None:
    """With the redis-cli that the start prints, each line of README finds something."""
    line = re.search(r"^ *books +(.*)$", fresh.log(), re.MULTILINE)
    assert line is not None
    fresh.api.placed(
        {"instrument": "BTC-USD", "client_id": "c", "side": "sell", "price": "9", "quantity": "1"}
    )
    for command in inside("bash"):
        if "XREVRANGE" in command or "ZRANGE" in command:
            assert shell(fresh, command.replace("redis-cli", line.group(1), 1)).strip(), command


def test_the_sql_lines_work(fresh: System) -> None:
    fresh.settled()
    for statement in inside("sql"):
        assert fresh.rows(statement.rstrip(";")), statement
