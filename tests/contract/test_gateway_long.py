"""The live stream in memory, the long form of two scenarios: minutes of a busy gateway in some seconds."""

import random

import pytest
from tests.unit.harness_gateway_scenarios import anything, race


def test_subscribing_in_the_middle_of_publishing_has_no_seam_ten_thousand_times(seeded: random.Random) -> None:
    race(seeded, subscriptions=10_000)


@pytest.mark.parametrize("ring_bytes", [65_536, 2**25])
def test_whatever_clients_and_history_do_each_stream_covers_the_history(ring_bytes: int, seeded: random.Random) -> None:
    anything(seeded, steps=600, ring_bytes=ring_bytes)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("ring_bytes", [65_536, 300_000, 2**25])
def test_each_stream_covers_the_history_for_each_of_a_hundred_seeds(ring_bytes: int, seeded: random.Random) -> None:
    for _ in range(100):
        anything(random.Random(seeded.random()), steps=400, ring_bytes=ring_bytes)
