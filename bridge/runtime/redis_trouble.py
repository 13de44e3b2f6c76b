"""What a person is told where Redis cannot be read: why, and what to do about it.

Knows errors of the Redis client and URLs. Reads nothing, and knows no key.
"""

from redis.exceptions import AuthenticationError

from bridge.errors import Fatal
from bridge.runtime.masking import masked_text, masked_url
from bridge.runtime.redis_url import LOGIN_ADVICE, Topology, parse_redis_url
from bridge.runtime.terminal import printable

# What a server of another kind than the URL says, when it is asked who the primary is.
_OTHER_KINDS = {
    "cluster support disabled": "this is one server: redis.url: redis://{}/0",
    "unknown command 'SENTINEL'": "this is no Sentinel: redis.url: redis://{}/0",
    "unknown command 'CLUSTER'": "is it a Sentinel? redis.url: redis+sentinel://{}/<name>/0",
}
# Words of errors that no connection was made. Others, such as a reply that did not come, are of a
# server that runs.
_NOT_CONNECTED = ("connecting to", "no primary of ")


def unreadable(error: BaseException, url: str, what: str = "read") -> Fatal:
    """The error of a command that could not do with Redis `what` it is for: where, why, and, where
    no connection was made, what to do.
    """
    why = reason(error)
    if any(words in why for words in _NOT_CONNECTED) and LOGIN_ADVICE not in why:
        why = f"{why.removesuffix('.')}: {connect_advice(why, url)}"
    return Fatal(f"Redis at {masked_url(url)} cannot be {what}: {why}")


def reason(error: BaseException) -> str:
    """Why Redis did not answer, in words; where a login is missing or wrong, what to do."""
    said = printable(masked_text(str(error))) or type(error).__name__
    if isinstance(error, AuthenticationError):
        return f"{said.rstrip('.')}: {LOGIN_ADVICE}"
    return said


def connect_advice(said: str, url: str) -> str:
    """What to do about an error of connecting, by its words: the right URL, where another kind of
    server answers than it names.
    """
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "name the authority behind its certificate: rediss://…?ssl_ca_certs=/etc/redis/ca.pem"
        )
    parsed = parse_redis_url(url)
    if parsed.topology is Topology.SERVER:
        return "start it, or set redis.url (`embedded`: a server of our own); a bridge waits for it"
    for words, right in _OTHER_KINDS.items():
        if words in said:
            return right.format(parsed.nodes[0])
    return "look at what each of them said, and at redis.url; a bridge waits for it"
