"""Forks `python -m MODULE` processes that need no imports: run by `tests.support.warm`.

A request over a socket is one JSON message and three files (stdin, stdout, stderr); the reply is
the new process's ID. Each process is a child of the requester, has its own environment, folder,
group and standard files, and runs the module as `python -m` does.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import threading
import time
from typing import Any, NoReturn

REQUEST_BYTES = 1 << 17
PACKAGES = ("backpack_bridge", "bridge", "simulator", "consumers")
IMPORTED_LATE = (
    "anyio._backends._asyncio",
    "httpcore2",
    "truststore",
)  # by httpx2, at its first use
SEARCHED_LAST = sys.path[1:]  # installed packages, after the folder of a process
LOCALE = ("LC_ALL", "LC_CTYPE", "LANG")  # if none is set, Python sets the second
COERCED = {name: value for name, value in os.environ.items() if name == "LC_CTYPE"}


def import_all() -> None:
    """Import all modules of the processes, except `__main__` modules and missing extras."""
    for package in PACKAGES:
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                try:
                    importlib.import_module(module.name)
                except ImportError:
                    continue
    for name in IMPORTED_LATE:
        importlib.import_module(name)


def serve(requests: socket.socket) -> dict[str, Any]:
    """Fork a process for each request; returns only in the new processes, with the request."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not message:
            os._exit(0)  # the requester has ended
        answer, pipe_end = os.pipe()
        between = os.fork()
        if between == 0:  # after its end, its child belongs to the requester
            between = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.0005)
            become(request := json.loads(message), files)
            os.write(pipe_end, str(os.getpid()).encode())
            os.closerange(3, 256)
            return dict(request)
        for each in (pipe_end, *files):
            os.close(each)
        os.waitpid(between, 0)
        requests.send(os.read(answer, 32))
        os.close(answer)


def become(request: dict[str, Any], files: list[int]) -> None:
    """Apply the request's group, folder, environment and files."""
    if request["session"]:
        os.setsid()
    elif request["group"] >= 0:
        os.setpgid(0, request["group"])
    for number, each in enumerate(files):
        os.dup2(each, number)
    if request["folder"]:
        os.chdir(request["folder"])
    variables = request["environment"]
    os.environ.clear()
    os.environ.update(variables if variables.keys() & set(LOCALE) else COERCED | variables)
    searched = os.environ.get("PYTHONPATH", "")
    sys.path[:] = [os.getcwd(), *filter(None, searched.split(os.pathsep)), *SEARCHED_LAST]
    sys.argv = [request["module"], *request["arguments"]]
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        setattr(sys, name, _text(number, mode, getattr(sys, name)))
        setattr(sys, f"__{name}__", getattr(sys, name))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _text(number: int, mode: str, before: Any) -> io.TextIOWrapper:
    """A standard stream as the interpreter creates it at its start."""
    is_written_through = bool(os.environ.get("PYTHONUNBUFFERED")) and mode == "w"
    raw: Any = io.FileIO(number, mode, closefd=False)
    binary = (
        raw
        if is_written_through
        else io.BufferedReader(raw)
        if mode == "r"
        else (io.BufferedWriter(raw))
    )
    return io.TextIOWrapper(
        binary,
        before.encoding,
        before.errors,
        line_buffering=number == 2 or os.isatty(number),
        write_through=is_written_through,
    )


def run(module: str) -> NoReturn:
    """Run the module as `python -m` does, to its end.

    The objects of all imported modules are left to the operating system: freeing them would copy
    each of their memory pages, most of the cost of a short process.
    """
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise  # Python prints it
        code = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(code)  # Python reports it
    os._exit(code)


if __name__ == "__main__":
    requests = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    gc.collect()
    gc.freeze()
    requests.send(b"ready")
    wanted = serve(requests)
    requests.detach()
    run(wanted["module"])
