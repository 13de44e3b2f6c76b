"""HTTP without TLS, for the simulator: to prepare a client for TLS takes 50 ms of CPU time."""

from typing import Any

import httpx2


def request(method: str, url: str, **options: Any) -> httpx2.Response:
    return httpx2.request(method, url, verify=False, **options)


def get(url: str, **options: Any) -> httpx2.Response:
    return httpx2.get(url, verify=False, **options)


def post(url: str, **options: Any) -> httpx2.Response:
    return httpx2.post(url, verify=False, **options)


def delete(url: str, **options: Any) -> httpx2.Response:
    return httpx2.delete(url, verify=False, **options)


def client(base_url: str, **options: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=base_url, verify=False, **options)
