"""The directory goes on when shard1 is away, believes the fences first, and never goes back."""

import asyncio
import stat
from pathlib import Path

import pytest
from tests.unit.harness_directory import directory_over

from cotacoes.errors import CoinMovedError
from cotacoes.model.quote import Quote
from cotacoes.patterns.sharding.shard import Directory, Home, Shard
from cotacoes.testing.memory_shard import MemoryShard

COIN = "bitcoin"


def shards(**coins: str) -> dict[str, Shard]:
    return {name: MemoryShard(name, named.split(",")) for name, named in coins.items()}


async def test_without_a_file_and_without_shard1_the_settings_say_where_the_coins_live(tmp_path: Path) -> None:
    async with directory_over(shards(shard1=COIN), {COIN: "shard1"}, file=tmp_path / "directory.json") as directory:
        assert directory.homes == {COIN: Home(0, "shard1", 0)}
        assert directory.shard_of(COIN).name == "shard1"


async def test_what_was_read_once_is_known_at_the_next_start_with_shard1_away(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "directory.json"
    told = Directory(
        {COIN: Home(1, "shard2", 3, 30), "solana": Home(7, "third", 1)}, {"third": "postgresql://u:secret@h/d"}
    )
    every = shards(shard1="x", shard2=COIN, third="solana")
    async with directory_over(every, {COIN: "shard1"}, file=file, tell=lambda: told) as directory:
        assert dict(directory.homes) == dict(told.homes)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with directory_over(every, {COIN: "shard1", "late": "shard2"}, file=file) as directory:
        assert dict(directory.homes) == {**told.homes, "late": Home(0, "shard2", 0)}


@pytest.mark.parametrize("kept", [b"", b"{", b'{"homes": 5}', b'{"homes": {"x": {}}, "shards": {}}', b"\xff\xfe", None])
async def test_a_file_that_can_not_be_read_is_as_none(tmp_path: Path, kept: bytes | None) -> None:
    file = tmp_path / "directory.json"
    if kept is None:
        file.mkdir()
    else:
        file.write_bytes(kept)
    async with directory_over(shards(shard1=COIN), {COIN: "shard1"}, file=file) as directory:
        assert directory.homes == {COIN: Home(0, "shard1", 0)}


async def test_a_coin_is_followed_to_where_its_fence_says_even_with_shard1_away() -> None:
    gone, home = MemoryShard("shard1", [COIN]), MemoryShard("shard2", [COIN])
    gone.copies[COIN].state, gone.copies[COIN].moved_to = "moved", "shard2"
    directory = directory_over({"shard1": gone, "shard2": home}, {COIN: "shard1"})
    assert await directory.ask(COIN, lambda shard: shard.last(COIN, 1)) == []
    assert directory.homes[COIN] == Home(0, "shard2", 2)


async def test_what_shard1_says_later_but_decided_earlier_does_not_win() -> None:
    told = Directory({COIN: Home(1, "shard1", 1)})
    async with directory_over(shards(shard1="x", shard2=COIN), {COIN: "shard1"}, tell=lambda: told) as directory:
        assert await directory.follow(COIN, CoinMovedError("moved", to="shard2", placement=2))
        assert await directory.refresh()
        assert directory.homes[COIN] == Home(1, "shard2", 2)


async def test_a_coin_that_is_nowhere_is_told_and_not_asked_for_for_ever() -> None:
    directory = directory_over(shards(shard1="x", shard2="y"), {COIN: "shard1"})
    with pytest.raises(CoinMovedError):
        await directory.ask(COIN, lambda shard: shard.fence(COIN))
    directory.homes[COIN] = Home(1, "nowhere", 5)
    with pytest.raises(CoinMovedError, match="no address"):
        await directory.ask(COIN, lambda shard: shard.fence(COIN))


async def test_a_new_coin_and_a_new_shard_are_told_to_who_waits() -> None:
    homes = {COIN: Home(1, "shard1", 1)}
    further: dict[str, str] = {}
    every = shards(shard1=COIN, third="solana")
    directory = directory_over(every, {COIN: "shard1"}, tell=lambda: Directory(dict(homes), dict(further)))
    del directory._settled["third"], directory.shards["third"]
    async with directory:
        await directory.wait_change()
        waiting = asyncio.create_task(directory.wait_change())
        await directory.refresh()
        await asyncio.sleep(0)
        assert not waiting.done()
        homes["solana"], further["third"] = Home(2, "third", 1), "memory"
        await directory.refresh()
        async with asyncio.timeout(1):
            await waiting
        assert directory.shard_of("solana").name == "third"


async def test_all_who_ask_at_once_of_a_coin_that_moved_are_answered() -> None:
    gone, home = MemoryShard("shard1", [COIN]), MemoryShard("shard2", [COIN])
    gone.copies[COIN].state, gone.copies[COIN].moved_to = "moved", "shard2"
    directory = directory_over({"shard1": gone, "shard2": home}, {COIN: "shard1"})

    async def question(shard: Shard) -> list[Quote]:
        await asyncio.sleep(0.01)
        return await shard.last(COIN, 1)

    assert await asyncio.gather(*(directory.ask(COIN, question) for _ in range(5))) == [[]] * 5


async def test_what_is_kept_of_other_databases_does_not_win_over_the_shard1_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / "directory.json"
    every = shards(shard1=COIN, shard2="x")
    before = Directory({COIN: Home(1, "shard2", 3), "solana": Home(2, "shard2", 1)})
    async with directory_over(every, {COIN: "shard1"}, file=file, tell=lambda: before):
        pass
    now = Directory({COIN: Home(1, "shard1", 1)})
    async with directory_over(every, {COIN: "shard1"}, file=file, tell=lambda: now) as directory:
        assert directory.homes == {COIN: Home(1, "shard1", 1), "solana": Home(2, "shard2", 1)}


async def test_many_who_ask_shard1_at_once_share_its_answer() -> None:
    class CountingShard(MemoryShard):
        asked = 0

        async def directory(self) -> Directory:
            self.asked += 1
            await asyncio.sleep(0.01)
            return Directory({})

    shard = CountingShard("shard1", [COIN])
    async with directory_over({"shard1": shard}, {COIN: "shard1"}) as directory:
        directory.shards["shard1"] = shard
        assert await asyncio.gather(*(directory.refresh() for _ in range(50))) == [True] * 50
        assert shard.asked == 1


async def test_shard1_learns_the_currency_of_a_coin_that_has_none_and_only_of_one_that_it_knows() -> None:
    homes = {COIN: Home(1, "shard1", 1), "ethereum": Home(2, "shard1", 1, currency="USD")}
    learnt: dict[str, str] = {}
    every, seed = shards(shard1=f"{COIN},ethereum,late"), {"late": "shard1"}
    async with directory_over(every, seed, tell=lambda: Directory(homes), learnt=learnt) as directory:
        await directory.learn({COIN: "USD", "ethereum": "BRL", "late": "USD"})
        assert learnt == {COIN: "USD"}
        homes[COIN] = Home(1, "shard1", 1, currency="USD")
        await directory.refresh()
        assert directory.homes[COIN].currency == "USD"


async def test_a_currency_is_known_with_shard1_away_and_goes_along_with_a_coin_that_moves(tmp_path: Path) -> None:
    file, told = tmp_path / "directory.json", Directory({COIN: Home(1, "shard1", 1, currency="USD")})
    gone, home = MemoryShard("shard1", [COIN]), MemoryShard("shard2", [COIN])
    every: dict[str, Shard] = {"shard1": gone, "shard2": home}
    async with directory_over(every, {}, file=file, tell=lambda: told):
        pass
    gone.copies[COIN].state, gone.copies[COIN].moved_to = "moved", "shard2"
    async with directory_over(every, {COIN: "shard1"}, file=file) as directory:
        await directory.learn({"other": "USD"})
        assert directory.homes[COIN].currency == "USD"
        await directory.ask(COIN, lambda shard: shard.last(COIN, 1))
        assert directory.homes[COIN] == Home(1, "shard2", 2, currency="USD")
