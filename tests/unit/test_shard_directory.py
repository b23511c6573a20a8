"""The directory works while shard1 is away, believes the fences first, and never goes back."""

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


async def test_the_settings_place_the_coins_if_there_is_neither_a_file_nor_shard1(tmp_path: Path) -> None:
    async with directory_over(shards(shard1=COIN), {COIN: "shard1"}, file=tmp_path / "directory.json") as directory:
        assert directory.homes == {COIN: Home(0, "shard1", 0)}
        assert directory.shard_of(COIN).name == "shard1"


async def test_the_directory_read_once_is_known_at_the_next_start_while_shard1_is_away(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "directory.json"
    known = Directory(
        {COIN: Home(1, "shard2", 3, 30), "solana": Home(7, "third", 1)}, {"third": "postgresql://u:secret@h/d"}
    )
    every = shards(shard1="x", shard2=COIN, third="solana")
    async with directory_over(every, {COIN: "shard1"}, file=file, first_says=lambda: known) as directory:
        assert dict(directory.homes) == dict(known.homes)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with directory_over(every, {COIN: "shard1", "late": "shard2"}, file=file) as directory:
        assert dict(directory.homes) == {**known.homes, "late": Home(0, "shard2", 0)}


async def test_a_file_of_an_earlier_release_is_read_and_names_coins(tmp_path: Path) -> None:
    file = tmp_path / "directory.json"
    home = '{"coin_id": 1, "shard": "shard2", "placement": 3, "retention_days": 30, "currency": "USD"}'
    file.write_text(f'{{"homes": {{"{COIN}": {home}}}, "shards": {{}}}}')
    async with directory_over(shards(shard1="x", shard2=COIN), {COIN: "shard1"}, file=file) as directory:
        assert directory.homes == {COIN: Home(1, "shard2", 3, 30, "USD", "coin")}
        assert not directory.is_venue_series(COIN)


async def test_a_series_stays_one_when_shard1_is_away_and_when_it_moves(tmp_path: Path) -> None:
    file, name = tmp_path / "directory.json", f"{COIN}-kraken"
    known = Directory({name: Home(2, "shard1", 1, kind="venue")})
    every = shards(shard1=name, shard2=name)
    async with directory_over(every, {COIN: "shard1"}, file=file, first_says=lambda: known):
        pass
    async with directory_over(every, {COIN: "shard1"}, file=file) as directory:
        assert await directory.follow(name, CoinMovedError("moved", to="shard2", placement=2))
        assert directory.homes[name].shard == "shard2"
        assert directory.is_venue_series(name)
        assert not directory.is_venue_series("unknown")


@pytest.mark.parametrize("kept", [b"", b"{", b'{"homes": 5}', b'{"homes": {"x": {}}, "shards": {}}', b"\xff\xfe", None])
async def test_an_unreadable_file_counts_as_a_missing_one(tmp_path: Path, kept: bytes | None) -> None:
    file = tmp_path / "directory.json"
    if kept is None:
        file.mkdir()
    else:
        file.write_bytes(kept)
    async with directory_over(shards(shard1=COIN), {COIN: "shard1"}, file=file) as directory:
        assert directory.homes == {COIN: Home(0, "shard1", 0)}


async def test_a_coin_is_followed_by_its_fence_even_while_shard1_is_away() -> None:
    gone, home = MemoryShard("shard1", [COIN]), MemoryShard("shard2", [COIN])
    gone.copies[COIN].state, gone.copies[COIN].moved_to = "moved", "shard2"
    directory = directory_over({"shard1": gone, "shard2": home}, {COIN: "shard1"})
    assert await directory.ask(COIN, lambda shard: shard.last(COIN, 1)) == []
    assert directory.homes[COIN] == Home(0, "shard2", 2)


async def test_an_older_placement_that_shard1_returns_later_does_not_win() -> None:
    known = Directory({COIN: Home(1, "shard1", 1)})
    async with directory_over(shards(shard1="x", shard2=COIN), {COIN: "shard1"}, first_says=lambda: known) as directory:
        assert await directory.follow(COIN, CoinMovedError("moved", to="shard2", placement=2))
        assert await directory.refresh()
        assert directory.homes[COIN] == Home(1, "shard2", 2)


async def test_a_coin_without_a_home_is_an_error_and_not_an_endless_search() -> None:
    directory = directory_over(shards(shard1="x", shard2="y"), {COIN: "shard1"})
    with pytest.raises(CoinMovedError):
        await directory.ask(COIN, lambda shard: shard.fence(COIN))
    directory.homes[COIN] = Home(1, "nowhere", 5)
    with pytest.raises(CoinMovedError, match="no address"):
        await directory.ask(COIN, lambda shard: shard.fence(COIN))


async def test_waiting_for_a_change_ends_with_a_new_coin_or_a_new_shard() -> None:
    homes = {COIN: Home(1, "shard1", 1)}
    further: dict[str, str] = {}
    every = shards(shard1=COIN, third="solana")
    directory = directory_over(every, {COIN: "shard1"}, first_says=lambda: Directory(dict(homes), dict(further)))
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


async def test_concurrent_calls_for_a_moved_coin_all_succeed() -> None:
    gone, home = MemoryShard("shard1", [COIN]), MemoryShard("shard2", [COIN])
    gone.copies[COIN].state, gone.copies[COIN].moved_to = "moved", "shard2"
    directory = directory_over({"shard1": gone, "shard2": home}, {COIN: "shard1"})

    async def question(shard: Shard) -> list[Quote]:
        await asyncio.sleep(0.01)
        return await shard.last(COIN, 1)

    assert await asyncio.gather(*(directory.ask(COIN, question) for _ in range(5))) == [[]] * 5


async def test_a_file_of_other_databases_does_not_win_over_shard1(tmp_path: Path) -> None:
    file = tmp_path / "directory.json"
    every = shards(shard1=COIN, shard2="x")
    before = Directory({COIN: Home(1, "shard2", 3), "solana": Home(2, "shard2", 1)})
    async with directory_over(every, {COIN: "shard1"}, file=file, first_says=lambda: before):
        pass
    now = Directory({COIN: Home(1, "shard1", 1)})
    async with directory_over(every, {COIN: "shard1"}, file=file, first_says=lambda: now) as directory:
        assert directory.homes == {COIN: Home(1, "shard1", 1), "solana": Home(2, "shard2", 1)}


async def test_concurrent_refreshes_share_one_call_to_shard1() -> None:
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


async def test_shard1_learns_currencies_only_of_coins_that_it_knows_and_that_have_none() -> None:
    homes = {COIN: Home(1, "shard1", 1), "ethereum": Home(2, "shard1", 1, currency="USD")}
    learnt: dict[str, str] = {}
    every, seed = shards(shard1=f"{COIN},ethereum,late"), {"late": "shard1"}
    async with directory_over(every, seed, first_says=lambda: Directory(homes), learnt=learnt) as directory:
        await directory.learn({COIN: "USD", "ethereum": "BRL", "late": "USD"})
        assert learnt == {COIN: "USD"}
        homes[COIN] = Home(1, "shard1", 1, currency="USD")
        await directory.refresh()
        assert directory.homes[COIN].currency == "USD"


async def test_a_currency_is_known_while_shard1_is_away_and_survives_a_move(tmp_path: Path) -> None:
    file, known = tmp_path / "directory.json", Directory({COIN: Home(1, "shard1", 1, currency="USD")})
    gone, home = MemoryShard("shard1", [COIN]), MemoryShard("shard2", [COIN])
    every: dict[str, Shard] = {"shard1": gone, "shard2": home}
    async with directory_over(every, {}, file=file, first_says=lambda: known):
        pass
    gone.copies[COIN].state, gone.copies[COIN].moved_to = "moved", "shard2"
    async with directory_over(every, {COIN: "shard1"}, file=file) as directory:
        await directory.learn({"other": "USD"})
        assert directory.homes[COIN].currency == "USD"
        await directory.ask(COIN, lambda shard: shard.last(COIN, 1))
        assert directory.homes[COIN] == Home(1, "shard2", 2, currency="USD")
