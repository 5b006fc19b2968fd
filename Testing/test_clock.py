"""The clock that preparation, synthesis and statistics go by."""

from __future__ import annotations

import pytest

from DEMISTCore import clock
from DEMISTCore.clock import PREPARATION, SYNTHESIS, Clock, Remaining


def test_shares_of_the_work():
    told: list[tuple[str, float]] = []
    one = Clock(lambda stage, done: told.append((stage, round(done, 4))), {"a": 1, "b": 3})
    one.report("a", "a", 0.0)
    one.report("a, in words", "a", 0.5)
    with one.part("b"):
        pass
    one.report("b", "b", 2.0)  # never above the whole
    one.end()
    assert told == [("a", 0.0), ("a, in words", 0.125), ("b", 0.25), ("b", 1.0), ("done", 1.0)]
    told.clear()
    one.skip("a")
    one.report("b", "b", 0.5)
    assert told == [("b", 0.5)]


def test_seconds_add_up():
    seconds: dict[str, float] = {}
    one = Clock(None, SYNTHESIS, seconds)
    one.add({"read": 1.5})
    one.add({"read": 0.5, "write": 2})
    with one.stage("encode"):
        one.report("encode", "encode", 0.5)  # nobody listens
    assert seconds["read"] == 2
    assert seconds["encode"] >= 0
    assert one.seconds is seconds
    assert one.total >= seconds["encode"]


def test_what_remains_is_known_from_the_second_step_of_sampling_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    remaining = Remaining()
    for stage in (*PREPARATION, "prepared", "encode", "mean"):
        assert remaining(stage, 0.3) is None
    now[0] = 10.0
    assert remaining("sampling", 0.5) is None
    assert remaining.sampling_after == 10
    now[0] = 12.0
    assert remaining("sampling", 0.6) == pytest.approx(8.0)
    assert remaining("write", 0.9) == pytest.approx(0.5)


def test_where_nothing_is_sampled_nothing_is_foretold():
    remaining = Remaining()
    assert remaining("mean", 0.5) is None
    assert remaining("write", 0.97) is None
    assert remaining("done", 1.0) is None
    assert remaining.sampling_after is None
