"""The headless browser for the documents' images and the tests of the console's pages."""

import subprocess
import sys
from pathlib import Path

import pytest

from docs import browser


@pytest.mark.parametrize("half_written", ["", "\n", "4x"])
def test_a_port_that_is_half_written_is_requested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_written: str
) -> None:
    monkeypatch.setattr(browser, "START_S", 0.2)
    (tmp_path / "DevToolsActivePort").write_text(half_written)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        with pytest.raises(browser.Failed, match="did not start"):
            browser._address(tmp_path, process)
        process.kill()
