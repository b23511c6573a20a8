"""What is wrong with a value is said in our own words: no person reads those of a library."""

import json
import re
from typing import Annotated, Any, get_args

import httpx2
import msgspec
import pydantic
import pytest
from fastapi import APIRouter, Query
from pydantic_core.core_schema import ErrorType

from cotacoes import config
from cotacoes.config import Settings
from cotacoes.errors import SettingError
from cotacoes.errors.values import explain_message, explain_value
from cotacoes.external_service.faults import FaultSetting
from cotacoes.observability.metrics import Metrics
from cotacoes.web.app import build_app

OF_LIBRARIES = re.compile(
    "Input|String should|Value error|Extra inputs|Field required|Tuple|List should|Expected|pydantic|valid integer"
)
BAD = ("x", "", "-1", "1.5", "nan", "inf", "9" * 40, "a,b", "\x00", "maybe")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_invalid_setting_is_explained_in_our_own_words(name: str) -> None:
    refused = 0
    for text in BAD:
        try:
            config.load({f"COTACOES_{name.upper()}": text})
        except SettingError as error:
            refused += 1
            assert OF_LIBRARIES.search(str(error)) is None, str(error)
            assert len(str(error)) > len(f"COTACOES_{name.upper()} is invalid: ")
    is_free_text = Settings.model_fields[name].annotation in (str, pydantic.SecretStr) or name == "data"
    assert refused or is_free_text


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        (
            "COTACOES_SOURCE",
            "nothing",
            "COTACOES_SOURCE=nothing is invalid: write sim, replay:PATH[,PATH…], venues or exchanges",
        ),
        (
            "COTACOES_SOURCE",
            "replay:",
            "COTACOES_SOURCE=replay: is invalid: write sim, replay:PATH[,PATH…], venues or exchanges",
        ),
        ("COTACOES_LOG_LEVEL", "loud", "COTACOES_LOG_LEVEL=loud is invalid: write one of debug, info, warning, error"),
        ("COTACOES_LOOP", "maybe", "COTACOES_LOOP=maybe is invalid: write 1 or 0"),
        (
            "COTACOES_SEED",
            "1.5",
            f"COTACOES_SEED=1.5 is invalid: write a whole number (allowed: ≥ 0 and ≤ {2**63 - 1})",
        ),
        ("COTACOES_SPEED", "0", "COTACOES_SPEED=0 is invalid: write a number ≥ 0.01 and ≤ 1000, or max"),
        ("COTACOES_TICK_MS", "0", "COTACOES_TICK_MS=0 is invalid: must be at least 1 (allowed: ≥ 1 and ≤ 60000)"),
    ],
)
def test_an_invalid_setting_is_refused_with_what_to_write(variable: str, text: str, said: str) -> None:
    with pytest.raises(SettingError) as refused:
        config.load({variable: text})
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "body",
    [
        {"error_rate": "x"},
        {"error_rate": 2},
        {"kinds": {"x": 1}},
        {"kinds": 3},
        {"status": []},
        {"status": [1]},
        {"status": "x"},
        {"coins": ["a"] * 1001},
        {"coins": ["A B"]},
        {"latency_ms": 1.5},
        {"x": 1},
    ],
    ids=lambda body: json.dumps(body)[:40],
)
def test_an_invalid_body_is_explained_in_our_own_words(body: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError) as refused:
        FaultSetting.model_validate(body)
    for problem in refused.value.errors():
        said = explain_value(problem)
        assert OF_LIBRARIES.search(said) is None
        assert said != "is not allowed"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=x", "limit: write a whole number"),
        ("limit=0", "limit: must be at least 1"),
        ("last=99999", "last: must be at most 10000"),
    ],
)
async def test_an_invalid_parameter_is_named_and_explained(query: str, said: str) -> None:
    router = APIRouter()

    @router.get("/quotes")
    async def quotes(
        limit: Annotated[int, Query(ge=1)] = 1, last: Annotated[int | None, Query(le=10_000)] = None
    ) -> None: ...

    app = build_app("x", config.load({}), Metrics(), router)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as asking:
        answer = await asking.get(f"/quotes?{query}")
    assert (answer.status_code, answer.json()["detail"]) == (422, said)


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """Something that is decoded."""

    price: str
    coins: dict[str, int] = {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{}", "price is missing"),
        (b'{"price":"1","x":2}', "x is unknown"),
        (b'{"price":1}', "price is invalid"),
        (b'{"price":"1","coins":{"a":"b"}}', "coins[...] is invalid"),
        (b"[]", "it has the wrong shape"),
        (b"{", "it is not valid JSON"),
        (b"{} ]", "price is missing"),
        (b'{"price":"\xff"}', "it is not UTF-8"),
    ],
)
def test_a_message_that_cannot_be_read_is_explained_in_our_own_words(text: bytes, said: str) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)) as refused:
        msgspec.json.decode(text, type=Message)
    assert explain_message(refused.value) == said
    assert explain_message(ValueError("our own words")) == "our own words"


def test_no_kind_of_problem_is_explained_in_pydantics_words() -> None:
    for kind in get_args(ErrorType):
        said = explain_value({"type": kind, "msg": "Input should be another", "ctx": {"error": "ours"}})
        assert OF_LIBRARIES.search(said) is None
