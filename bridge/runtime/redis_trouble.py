"""Error messages for a Redis that cannot be read: the reason, and what to do about it.

Knows errors of the Redis client and URLs. Performs no I/O, and knows no key.
"""

from redis.exceptions import AuthenticationError

from bridge.errors import Fatal
from bridge.runtime.masking import masked_text, masked_url
from bridge.runtime.redis_url import LOGIN_ADVICE, Topology, parse_redis_url
from bridge.runtime.terminal import printable

# Replies of a server of another kind than the URL says, to the query for the primary.
_OTHER_KINDS = {
    "cluster support disabled": "this is one server: redis.url: redis://{}/0",
    "unknown command 'SENTINEL'": "this is no Sentinel: redis.url: redis://{}/0",
    "unknown command 'CLUSTER'": "is it a Sentinel? redis.url: redis+sentinel://{}/<name>/0",
}
# Parts of errors of failed connects. Other errors, such as a missing reply, come from a running
# server.
_NOT_CONNECTED = ("connecting to", "no primary of ")


def unreadable(error: BaseException, url: str, what: str = "read") -> Fatal:
    """The error of a command that needs Redis to be `what`: address, reason, and, for a failed
    connect, what to do.
    """
    why = reason(error)
    if any(part in why for part in _NOT_CONNECTED) and LOGIN_ADVICE not in why:
        why = f"{why.removesuffix('.')}: {connect_advice(why, url)}"
    return Fatal(f"Redis at {masked_url(url)} cannot be {what}: {why}")


def reason(error: BaseException) -> str:
    """Why Redis did not answer, as text; for a missing or wrong login, also what to do."""
    text = printable(masked_text(str(error))) or type(error).__name__
    if isinstance(error, AuthenticationError):
        return f"{text.rstrip('.')}: {LOGIN_ADVICE}"
    return text


def connect_advice(text: str, url: str) -> str:
    """What to do about an error of connecting, by its text: the right URL, where the server is of
    another kind than the URL says.
    """
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "name the authority behind its certificate: rediss://…?ssl_ca_certs=/etc/redis/ca.pem"
        )
    parsed = parse_redis_url(url)
    if parsed.topology is Topology.SERVER:
        return "start it, or set redis.url (`embedded`: a server of our own); a bridge waits for it"
    for part, right in _OTHER_KINDS.items():
        if part in text:
            return right.format(parsed.nodes[0])
    return "check what each server replied, and redis.url; a bridge waits for it"
