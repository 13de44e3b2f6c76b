"""Tools to test your own consumers: the public names of `consumers.testing`."""

from backpack_bridge.shadows import check_shadows

check_shadows()

from consumers.testing import EventFactory, StreamEntry, Trial  # noqa: E402 - checked first

__all__ = ["EventFactory", "StreamEntry", "Trial"]
