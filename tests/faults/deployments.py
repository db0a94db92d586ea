"""What a run of the chaos test runs on: drawn by its seed, each part by itself, or named."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from shadow.embedded.process import ServerProcess
from shadow.embedded.servers import DynamoDBLocal
from tests.support import dynamodb_local
from tests.support.shadows import Site
from tests.support.topologies import MAKERS, admit

__all__ = ["CHOICES", "Deployment"]

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "topology": ("one", "replicas", "auth"),
    "primary": ("mongo", "dynamo"),
    "journal": ("sqlite", "sqlite", "mongodb", "dynamodb"),
    "driver": ("motor", "pymongo"),
    "options": ("", "&w=1", "&retryWrites=false", "&w=majority&journal=true", "&maxPoolSize=3"),
    "writes": ("background", "background", "sync", "strict"),
    "clocks": ("steady", "stepped"),
    "life": ("one loop", "loops", "forks"),
    "metrics": ("alone", "shared"),
    "flips": ("none", "some"),
}
"""Each part of a deployment, and what it may be; what stands twice comes twice as often."""

_OF_A_SET: Final = ("&w=here", "&w=3", "&readConcernLevel=majority")
"""Options that only a replica set knows of, or that only mean something there."""
_OF_ONE: Final = {"&w=1": "&w=1&journal=true"}
"""What a member that is alone is asked for instead: it acknowledges `w=1` before its journal has the write, and loses
it when it is killed at once, with or without a second store."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """`options`: of `mongo.url`; `life`: what a process does with event loops and forks; `metrics`: shared means that
    `PROMETHEUS_MULTIPROC_DIR` is set; `flips`: whether the primary changes. The defaults are the plainest."""

    topology: str = "one"
    primary: str = "mongo"
    journal: str = "sqlite"
    driver: str = "pymongo"
    options: str = ""
    writes: str = "background"
    clocks: str = "steady"
    life: str = "one loop"
    metrics: str = "alone"
    flips: str = "none"

    @classmethod
    def drawn(cls, seed: int, **named: str | None) -> Deployment:
        """By the seed, except for what is named. A part that is named changes nothing of the others."""
        chosen = {name: random.Random(f"{seed}-{name}").choice(values) for name, values in CHOICES.items()}
        topology = named.get("topology") or chosen["topology"]
        if topology == "replicas":
            options = (*CHOICES["options"], *_OF_A_SET)
            chosen["options"] = random.Random(f"{seed}-options").choice(options)
        else:
            chosen["options"] = _OF_ONE.get(chosen["options"], chosen["options"])
        return cls(**{**chosen, **{name: value for name, value in named.items() if value is not None}})

    def __str__(self) -> str:
        return " ".join(f"--{each.name} '{getattr(self, each.name)}'" for each in fields(self))

    def servers(self, start: Callable[[Callable[[], ServerProcess]], ServerProcess]) -> dict[str, ServerProcess]:
        """MongoDB and DynamoDB by the name of their store, started by `start`."""
        home = dynamodb_local.home()
        return {
            "mongo": start(MAKERS[self.topology]),
            "dynamo": start(lambda: DynamoDBLocal(home, persistent=True)),
        }

    def site(self, servers: dict[str, ServerProcess], name: str, file: str) -> Site:
        """Database, tables and a journal on a server are named after `name`; `file` is for a journal in a file."""
        admit(servers["mongo"].url, name)
        journals = {"sqlite": file, "mongodb": "mongodb:///", "dynamodb": f"dynamodb://{name}-journal"}
        return Site(
            servers["mongo"].url,
            name,
            servers["dynamo"].url,
            f"{name}-",
            journals[self.journal],
            primary=self.primary,
            writes=self.writes,
            driver=self.driver,
        )

    def but(self, **changes: Any) -> Deployment:
        return replace(self, **changes)
