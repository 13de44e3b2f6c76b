"""HTTP without TLS, for the simulator: getting a client ready for TLS takes 50 ms of CPU."""

from typing import Any

import httpx


def request(method: str, url: str, **options: Any) -> httpx.Response:
    return httpx.request(method, url, verify=False, **options)


def get(url: str, **options: Any) -> httpx.Response:
    return httpx.get(url, verify=False, **options)


def post(url: str, **options: Any) -> httpx.Response:
    return httpx.post(url, verify=False, **options)


def delete(url: str, **options: Any) -> httpx.Response:
    return httpx.delete(url, verify=False, **options)


def client(base_url: str, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, verify=False, **options)
