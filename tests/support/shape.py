"""Figures on the code's structure: `python -m tests.support.shape [FOLDER ...]` prints a table.

Per 1,000 lines, folder by folder:

    callbacks   parameters of constructors and fields of dataclasses that are functions, except
                clocks (names with `clock`)
    stores      assignments to an attribute of another object (also `self.a.b = …`), without
                increments of a counter
    chains      reads through two objects: `self.a.b.c`
    comments    lines with a comment, in percent

`tests/unit/test_shape.py` has limits for the bridge.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Shape:
    """The figures of some modules together; `longest`: the lines of the largest module."""

    lines: int = 0
    callbacks: int = 0
    stores: int = 0
    chains: int = 0
    comments: int = 0
    longest: int = 0

    def __add__(self, other: "Shape") -> "Shape":
        return Shape(
            self.lines + other.lines,
            self.callbacks + other.callbacks,
            self.stores + other.stores,
            self.chains + other.chains,
            self.comments + other.comments,
            max(self.longest, other.longest),
        )

    def per_thousand(self, count: int) -> float:
        return 1000 * count / max(1, self.lines)

    @property
    def comment_percent(self) -> float:
        return 100 * self.comments / max(1, self.lines)


def of_modules(paths: Iterable[Path]) -> Shape:
    """The figures of these modules."""
    shape = Shape()
    for path in paths:
        shape += of_source(path.read_text("utf-8"))
    return shape


def of_source(source: str) -> Shape:
    """The figures of one module."""
    tree = ast.parse(source)
    lines = len(source.splitlines())
    return Shape(
        lines,
        sum(1 for _ in _callbacks(tree)),
        sum(1 for _ in _foreign_stores(tree)),
        sum(1 for _ in _chains(tree)),
        _comment_lines(source),
        lines,
    )


def _callbacks(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                arguments = [*item.args.args, *item.args.kwonlyargs]
                yield from (each for each in arguments if _is_callback(each.arg, each.annotation))
            elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                is_constant = item.target.id.isupper()
                if not is_constant and _is_callback(item.target.id, item.annotation):
                    yield item


def _is_callback(name: str, annotation: ast.expr | None) -> bool:
    return (
        annotation is not None
        and "clock" not in name
        and ast.unparse(annotation).startswith("Callable")
    )


def _foreign_stores(tree: ast.AST) -> Iterator[ast.AST]:
    counted = {id(node.target) for node in ast.walk(tree) if isinstance(node, ast.AugAssign)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
            continue
        is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if not is_own and id(node) not in counted:
            yield node


def _chains(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        names, inner = 0, node
        while isinstance(inner, ast.Attribute):
            names, inner = names + 1, inner.value
        if names == 3 and isinstance(inner, ast.Name) and inner.id == "self":
            yield node


def _comment_lines(source: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})


def folders(root: Path) -> dict[str, list[Path]]:
    """The modules of each subpackage of a package; those beside them under the package's name."""
    packages: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        packages.setdefault(parts[0] if len(parts) > 1 else root.name, []).append(path)
    return packages


def main() -> None:
    """Print the table."""
    roots = [Path(each) for each in sys.argv[1:]] or [ROOT / "bridge", ROOT / "consumers"]
    print("| package | lines | callbacks | stores | chains | comments % | longest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for root in roots:
        packages = {name: of_modules(paths) for name, paths in folders(root).items()}
        packages[f"{root.name} together"] = sum(packages.values(), Shape())
        for name, shape in packages.items():
            per = [shape.per_thousand(n) for n in (shape.callbacks, shape.stores, shape.chains)]
            figures = " | ".join(f"{figure:.1f}" for figure in per)
            print(
                f"| {name} | {shape.lines:,} | {figures} | {shape.comment_percent:.1f} "
                f"| {shape.longest} |"
            )


if __name__ == "__main__":
    main()
