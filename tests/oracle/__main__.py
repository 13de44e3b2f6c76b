"""`python -m tests.oracle compare|record|expect|mutate`: see the module of each."""

import argparse
import sys
from pathlib import Path

from tests.oracle import compare, record
from tests.oracle.cases import find
from tests.oracle.replaying import HERE

RECORDED = Path(__file__).parent / "recorded"


def main() -> int:
    options = _options()
    if options.task == "record":
        record.record(
            options.names, _seeds(options.seeds), options.faster, options.into, options.code
        )
        return 0
    cases = find(options.data or [RECORDED], options.names)
    if not cases:
        print("no such case", file=sys.stderr)
        return 2
    if options.task == "mutate":
        record.mutate_all(cases, _seeds(options.seeds), options.into, options.code)
        return 0
    if options.task == "expect":
        only = options.only.split(",") if options.only else ()
        record.expect(cases, options.code, options.jobs, only)
        return 0
    return compare.run(cases, options.code, options.jobs, options.shown)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.oracle",
        description=compare.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    for name in ("compare", "expect", "record", "mutate"):
        task = tasks.add_parser(name)
        task.add_argument("names", nargs="*", help="cases or scenarios, by how they begin")
        task.add_argument("--code", type=Path, default=HERE, help="the checkout that replays")
    for name in ("compare", "expect", "mutate"):
        tasks.choices[name].add_argument(
            "--data", type=Path, action="append", help="a folder of cases; repeatable"
        )
        tasks.choices[name].add_argument("--jobs", type=int, default=2, help="cases at a time")
    tasks.choices["compare"].add_argument("--shown", type=int, default=3, help="of each replay")
    tasks.choices["expect"].add_argument("--only", help="these replays: all,all-b")
    for name in ("record", "mutate"):
        tasks.choices[name].add_argument("--into", type=Path, required=True)
        tasks.choices[name].add_argument("--seeds", default="1", help="such as 1-3")
    tasks.choices["record"].add_argument("--faster", type=int, default=1, help="times the rate")
    options = parser.parse_args()
    options.code = options.code.resolve()
    return options


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


if __name__ == "__main__":
    sys.exit(main())
