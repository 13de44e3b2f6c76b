"""Bridges that share the streams: which of these no bridge receives, or too many do (pure)."""

from collections.abc import Iterator, Sequence

from bridge.contract.streams import BadStreamName, parse_stream
from bridge.runtime.share import Share
from bridge.view.facts import BridgeStatus, ShareStatus


def describe_share(share: ShareStatus) -> str:
    """`member b of a, b, c; keeps 4 streams for c`."""
    told = f"member {share.me} of {', '.join(share.members)}"
    if share.kept:
        told += f"; keeps {_streams(share.kept)} for {', '.join(share.kept_for)}"
    return told


def missing(statuses: Sequence[BridgeStatus]) -> str:
    """Which streams no bridge receives though the fleet should, by those that are up; or empty."""
    shares = [status.share for status in statuses if status.share is not None]
    total = max((share.unreceived for share in shares), default=0)
    if not total:
        return ""
    owners = {name: owner for share in shares for name, owner in share.unreceived_streams.items()}
    members = ", ".join(sorted(set(owners.values())))
    first = min(owners, default="")
    if total == 1:
        return f"{first} is received by no bridge: it is for member {members}"
    return f"{_streams(total)}, such as {first}, are received by no bridge: for member {members}"


def reasons(statuses: Sequence[BridgeStatus]) -> Iterator[str]:
    """A sentence for all that a person should look at, by the bridges that are up."""
    if text := missing(statuses):
        yield text
    fleets: dict[tuple[str, ...], str] = {}
    for status in statuses:
        if status.share is not None:
            fleets.setdefault(status.share.members, status.instance)
    if len(fleets) > 1:
        told = "; ".join(f"{name} has {', '.join(members)}" for members, name in fleets.items())
        yield f"bridges do not agree on who shares the streams: {told}"
    doubled = {name: members for name, members in _claims(statuses).items() if len(members) > 1}
    if doubled:
        first = min(doubled)
        yield (
            f"{_streams(len(doubled))}, such as {first}, are received by several members: "
            + ", ".join(sorted(doubled[first]))
        )


def receivers(statuses: Sequence[BridgeStatus]) -> dict[str, list[str]]:
    """Stream → the bridges that receive it."""
    found: dict[str, list[str]] = {}
    for status in statuses:
        for name in status.streams:
            found.setdefault(name, []).append(status.instance)
    return found


def _claims(statuses: Sequence[BridgeStatus]) -> dict[str, set[str]]:
    """Stream → the members that count it as theirs; not those that keep it for another."""
    claims: dict[str, set[str]] = {}
    for status in statuses:
        if status.share is None or status.share.me not in status.share.members:
            continue
        share = Share(status.share.members, status.share.me)
        for name in status.streams:
            try:
                if share.is_mine(parse_stream(name)):
                    claims.setdefault(name, set()).add(share.me)
            except BadStreamName:  # the bridge's own streams
                continue
    return claims


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"
