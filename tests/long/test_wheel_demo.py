"""The demo of the wheel in a folder with packages of the same names."""

from pathlib import Path

import pytest

from tests.support.wheel import python_with_the_wheel, run

pytestmark = pytest.mark.timeout(180)


def test_wheel_demo_works_with_user_packages_of_the_same_names(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = python_with_the_wheel(tmp_path_factory)
    for name in ("bridge", "consumers", "simulator", "demo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")

    demo = [python.with_name("backpack-bridge"), "demo", "--for", "5", "--folder", "."]
    done = run(tmp_path, demo, HOME=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{python.with_name('backpack-bridge')} tap 'trade.*'" in done.stdout
    assert "quarantined: 0" in done.stdout
