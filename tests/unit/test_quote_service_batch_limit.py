"""How many quotes a batch may hold: fewer once one misses the deadline, more again if there is time to spare."""

from cotacoes.errors import FenceClosedError, ShardTimedOutError, ShardUnavailableError
from cotacoes.patterns.sharding.shard import BATCH_QUOTES_MAX
from cotacoes.quote_service.batch_limit import BatchLimit


class SlowShard:
    """Takes `row_s` for each quote and gives up a batch at `deadline_s`, by a clock of its own."""

    def __init__(self, row_s: float, deadline_s: float = 1.0) -> None:
        self.row_s = row_s
        self.deadline_s = deadline_s
        self.now = 0.0
        self.limit = BatchLimit(deadline_s, lambda: self.now)

    def take(self, pending: int) -> int:
        """Send a batch of so many; how many it stores."""
        batch = min(pending, self.limit.quotes)
        try:
            with self.limit.measured(batch):
                self.now += min(batch * self.row_s, self.deadline_s)
                if batch * self.row_s > self.deadline_s:
                    raise ShardTimedOutError("shard1 did not answer within 1 s")
        except ShardTimedOutError:
            return 0
        return batch

    def catch_up(self, pending: int) -> int:
        """Store so many; how many batches that takes."""
        batches = 0
        while pending:
            pending -= self.take(pending)
            batches += 1
            assert batches < 1_000, "it never ends"
        return batches


def test_a_batch_that_misses_its_deadline_is_halved_until_it_fits() -> None:
    shard = SlowShard(row_s=0.015)
    assert shard.catch_up(150) == 2 + 5  # 150 and 75 miss it, then 37 at a time
    assert shard.limit.quotes == 37


def test_the_limit_is_half_of_the_batch_that_was_sent_not_half_of_the_limit() -> None:
    shard = SlowShard(row_s=0.6)
    assert shard.take(2) == 0
    assert shard.limit.quotes == 1
    assert shard.take(2) == 1


def test_a_single_quote_that_does_not_fit_stays_a_single_quote() -> None:
    shard = SlowShard(row_s=2.0)
    for _ in range(20):
        assert shard.take(1_000) == 0
    assert shard.limit.quotes == 1
    shard.row_s = 0.0001
    assert shard.catch_up(5_000) < 20


def test_a_size_that_only_just_fits_stays_and_does_not_grow_into_the_next_miss() -> None:
    shard = SlowShard(row_s=0.015)
    shard.catch_up(150)
    began = shard.now
    shard.catch_up(3_700)
    assert shard.now - began < 3_700 * 0.015 + 0.001  # no time lost on a batch that is rolled back


def test_the_limit_grows_again_after_full_batches_that_the_shard_stored_quickly() -> None:
    shard = SlowShard(row_s=0.015)
    shard.catch_up(150)
    shard.row_s = 0.0001
    for _ in range(50):
        shard.take(1)
    assert shard.limit.quotes == 37
    shard.catch_up(10_000)
    assert shard.limit.quotes == BATCH_QUOTES_MAX


def test_another_failure_does_not_change_the_limit() -> None:
    limit = BatchLimit(1.0, lambda: 0.0)
    for error in (ShardUnavailableError("shard1 is not reachable"), FenceClosedError("shard1: the fence is closed")):
        try:
            with limit.measured(1_000):
                raise error
        except (ShardUnavailableError, FenceClosedError):
            pass
    assert limit.quotes == BATCH_QUOTES_MAX
