"""Servers that the tests of a run share: one start for all who ask, and one end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from typing import Any

import pytest

from shadow.errors import ShadowError, StoreUnavailable
from tests.support import shared
from tests.support.shared import Asking, Servers


class Started:
    """Stands for a server; the class keeps what happened to all of them."""

    happened: list[str]

    def start(self) -> Started:
        self.happened.append("started")
        return self

    def stop(self) -> None:
        self.happened.append("stopped")

    @property
    def url(self) -> str:
        return "mongodb://here/"


class NotThere(Started):
    def start(self) -> Started:
        self.happened.append("tried")
        raise StoreUnavailable("it is not installed", hint="install it")


@pytest.fixture
def servers() -> Iterator[Servers]:
    Started.happened = []
    kinds: Any = {"one": Started, "none": NotThere}
    made = Servers(kinds)
    yield made
    made.close()


def test_whoever_asks_first_in_whichever_process_it_starts_once(servers: Servers) -> None:
    asking = [Asking(*servers.listen()) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda each: each.address("one"), asking)) == {"mongodb://here/"}
    assert servers.address("one") == "mongodb://here/"
    for each in asking:
        each.close()
    assert Started.happened == ["started"]
    servers.close()
    assert Started.happened == ["started", "stopped"]


def test_what_cannot_be_had_is_said_to_all_and_tried_once(servers: Servers) -> None:
    place, key = servers.listen()
    for each in (servers, Asking(place, key), Asking(place, key)):
        with pytest.raises(ShadowError, match=r"(?s)it is not installed.*install it"):
            each.address("none")
    assert Started.happened == ["tried"]


def test_who_has_no_key_or_hangs_up_is_no_hindrance_to_others(servers: Servers) -> None:
    place, key = servers.listen()
    with pytest.raises(AuthenticationError):
        Asking(place, b"another").address("one")
    Client(place, authkey=key).close()
    assert Asking(place, key).address("one") == "mongodb://here/"


def test_a_process_that_was_given_a_place_asks_there() -> None:
    class Config:
        workerinput: dict[str, Any]

    config: Any = Config()
    config.workerinput = {}
    servers = shared.of_run(config)
    try:
        shared.fill_in(config.workerinput, servers)
        assert isinstance(servers, Servers)
        assert isinstance(shared.of_run(config), Asking)
    finally:
        servers.close()
