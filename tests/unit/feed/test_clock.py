"""The exchange's time."""

from bridge.feed.clock import ClockSample, ExchangeClock


def clock() -> ExchangeClock:
    return ExchangeClock(lambda: 1_000_000_000)


def test_clock_believes_the_surest_of_the_latest_answers() -> None:
    subject = clock()
    assert subject.now_us() == 1_000_000_000

    for offset_us, unsure_us in ((40_000, 90_000), (3_000, 5_000), (60_000, 80_000)):
        subject.learn(ClockSample(offset_us, unsure_us))

    assert subject.now_us() == 1_000_003_000
    assert subject.now_ms() == 1_000_003


def test_clock_that_was_set_is_believed_at_once() -> None:
    subject = clock()
    subject.learn(ClockSample(3_000, 5_000))
    assert subject.learned.is_set()
    subject.learned.clear()

    subject.learn(ClockSample(30_000_000, 90_000))

    assert subject.offset_us == 30_000_000
    assert subject.learned.is_set()
