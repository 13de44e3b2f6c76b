"""The starter files for a new folder, which come with the package.

In a wheel they are in this package; in a checkout and in the image at its root. Knows nothing of
their content.
"""

from importlib.resources import files
from pathlib import Path

from bridge.errors import Fatal

STARTER_FILES = ("config.yaml", ".env.example")
_ROOT = Path(__file__).parents[2]


def write_starter_files(folder: Path) -> list[Path]:
    """Write config.yaml and .env.example into `folder`, which is created where it is missing.

    Returns their paths. Raises Fatal, and writes neither, where one of them exists already, a
    dangling link included, or where the folder cannot be written.
    """
    texts = {folder / name: _text(name) for name in STARTER_FILES}
    existing = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if existing:
        raise Fatal(
            f"{' and '.join(existing)} {'exists' if len(existing) == 1 else 'exist'} already, and "
            "nothing was written: move it elsewhere, or name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:  # "x": never overwrites a file
                file.write(text)
    except OSError as error:
        raise Fatal(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    return list(texts)


def _text(name: str) -> str:
    packaged = files("bridge.runtime") / "starter" / name
    try:
        return (packaged if packaged.is_file() else _ROOT / name).read_text("utf-8")
    except OSError as error:
        raise Fatal(f"{name} did not come with this installation: {error.strerror}") from None
