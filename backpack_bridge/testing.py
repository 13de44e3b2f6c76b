"""For the tests of your own consumers; described in `consumers.testing`, where it lives."""

from backpack_bridge.shadows import check_shadows

check_shadows()

from consumers.testing import EventFactory, StreamEntry, Trial  # noqa: E402 - checked first

__all__ = ["EventFactory", "StreamEntry", "Trial"]
