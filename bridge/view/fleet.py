"""Bridges that share the streams: streams that none of them receives, or several do (pure)."""

from collections.abc import Iterator, Sequence

from bridge.contract.streams import BadStreamName, parse_stream
from bridge.runtime.share import Share
from bridge.view.facts import BridgeStatus, ShareStatus


def describe_share(share: ShareStatus) -> str:
    """`member b of a, b, c; keeps 4 streams for c`."""
    text = f"member {share.me} of {', '.join(share.members)}"
    if share.kept:
        text += f"; keeps {_streams(share.kept)} for {', '.join(share.kept_for)}"
    return text


def missing(statuses: Sequence[BridgeStatus]) -> str:
    """A sentence on the streams that no bridge of the fleet receives, or an empty text."""
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
    """A sentence for each problem of the fleet, by the statuses of bridges that are up."""
    if text := missing(statuses):
        yield text
    fleets: dict[tuple[str, ...], str] = {}
    for status in statuses:
        if status.share is not None:
            fleets.setdefault(status.share.members, status.instance)
    if len(fleets) > 1:
        memberships = "; ".join(
            f"{name} has {', '.join(members)}" for members, name in fleets.items()
        )
        yield f"bridges do not agree on who shares the streams: {memberships}"
    duplicated = {name: members for name, members in _claims(statuses).items() if len(members) > 1}
    if duplicated:
        first = min(duplicated)
        yield (
            f"{_streams(len(duplicated))}, such as {first}, are received by several members: "
            + ", ".join(sorted(duplicated[first]))
        )


def receivers(statuses: Sequence[BridgeStatus]) -> dict[str, list[str]]:
    """Maps each stream to the bridges that receive it."""
    found: dict[str, list[str]] = {}
    for status in statuses:
        for name in status.streams:
            found.setdefault(name, []).append(status.instance)
    return found


def _claims(statuses: Sequence[BridgeStatus]) -> dict[str, set[str]]:
    """Maps each stream to the members that own it by their share, without those that keep it."""
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
