"""The consumer in the README, saved and started as the README instructs."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.deploy.compose import ROOT
from tests.support.bridge_process import environment
from tests.support.bridge_run import running_bridge
from tests.support.eventually import eventually_async
from tests.support.simulator_process import running_simulator

LINE = re.compile(r"^SOL_USDC \d+\.\d+ \d+\.\d+ at \d{13}-\d+$", re.MULTILINE)


def printed(language: str) -> str:
    """The first code block of this language in the README."""
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    return str(blocks[0])


async def test_the_consumer_of_the_readme_prints_best_prices(
    tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "best.py").write_text(printed("python"))
    output_file = tmp_path / "output.txt"
    async with (
        running_simulator("--rate", "200", "--market", "SOL_USDC") as simulator,
        running_bridge(tmp_path / "bridge", simulator.ws_url, redis_url, ["bookTicker.SOL_USDC"]),
    ):
        with output_file.open("wb") as output:
            consumer = subprocess.Popen(
                [sys.executable, "-m", "consumers", "run", "best:Best", "--from", "new"],
                cwd=tmp_path,
                env=environment(BRIDGE_REDIS__URL=redis_url),
                stdout=output,
            )
        try:
            await eventually_async(
                lambda: LINE.search(output_file.read_text()), "the consumer has printed prices", 40
            )
            consumer.send_signal(signal.SIGTERM)
            await eventually_async(
                lambda: consumer.poll() == 0, "the consumer has stopped with exit code 0"
            )
        finally:
            consumer.kill()
            consumer.wait()
