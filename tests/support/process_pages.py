"""The HTTP pages of a process, at the address in its log."""

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx2

from tests.support import plain_http

SERVED = re.compile(r'"address": "([^"]+)"[^\n]*"metrics_served"')


class ProcessPages:
    """The pages of the process that wrote this log."""

    def __init__(self, log: str) -> None:
        addresses = SERVED.findall(log)
        assert addresses, "no address in the log"
        self.address: str = addresses[-1]
        self._url = f"http://{self.address}"

    def get(self, path: str, timeout_s: float = 20) -> httpx2.Response:
        return plain_http.get(self._url + path, timeout=timeout_s)

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    def is_alive(self, timeout_s: float = 20) -> bool:
        try:
            return self.get("/healthz", timeout_s).status_code == 200
        except httpx2.HTTPError:
            return False

    def reasons(self) -> list[str]:
        """The names of the reasons why the process is not ready."""
        return [each["reason"] for each in self._ready()["reasons"]]

    def reason_texts(self) -> str:
        """The texts of the reasons, for people."""
        return "; ".join(each["text"] for each in self._ready()["reasons"])

    def series(self) -> Mapping[str, float]:
        """The series of /metrics: values by name with labels, as written."""
        lines = self.get("/metrics").text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def _ready(self) -> Any:
        return json.loads(self.get("/readyz").text)


def serves(log: str) -> bool:
    """Whether the log has the address of the pages."""
    return SERVED.search(log) is not None
