"""The programs of the manual's page on frameworks, run as they stand, in each phase, and with the line that was there
before in the place of the one that changes."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from fastapi import FastAPI

from tests.suites.suites import MODES
from tests.support import manual, services

PROGRAMS: Final = dict(
    re.findall(r"<!-- program: (\w+) -->\n```python\n(.*?)```", manual.text("frameworks"), re.DOTALL)
)
COLLECTIONS: Final = dict(
    re.findall(r"<!-- collections: (\w+) -->\n```yaml\n(.*?)```", manual.text("frameworks"), re.DOTALL)
)
"""Those of a program that has others than the page's file."""
DRIVERS: Final = {
    **dict.fromkeys(("motor", "odmantic", "umongo"), "motor"),
    **dict.fromkeys(("pymongo", "beanie", "fastapi_users"), "pymongo"),
}
CHANGED: Final = re.compile(r"^( *)((?:\w+ = )?)(.*?)  # was: (.*)$", re.MULTILINE)


def test_each_program_changes_the_line_of_the_object_and_one_that_ends_it() -> None:
    assert PROGRAMS.keys() == DRIVERS.keys()
    for name, program in PROGRAMS.items():
        assert len(CHANGED.findall(program)) == 2, name


async def walked(program: str, name: str) -> list[Any]:
    """What the application of a program answers."""
    made = types.ModuleType(f"program_{name}")
    made.url = ""  # type: ignore[attr-defined]
    sys.modules[made.__name__] = made  # where generic models look for themselves
    try:
        exec(compile(program, f"{name}.py", "exec"), vars(made))
    except ModuleNotFoundError as error:
        services.missing(f"{error.name}", "it is not installed")
    app: FastAPI = made.app
    answers: list[Any] = []
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client,
    ):
        if name == "fastapi_users":
            return await logged_in(client)
        for turn in range(3):
            added = await client.post("/users", json={"email": f"{turn}@example.org", "name": "Ada"})
            answers.append((added.status_code, sorted(added.json()), len(added.json().get("id", ""))))
        for email in ("1@example.org", "nobody@example.org"):
            read = await client.get(f"/users/{email}")
            answers.append((read.status_code, read.json()))
    return answers


async def logged_in(client: httpx.AsyncClient) -> list[Any]:
    """What somebody sees who registers, and logs in by another spelling of the e-mail address."""
    answers: list[Any] = []
    for email in ("Ada@example.org", "ADA@example.org"):
        made = await client.post("/auth/register", json={"email": email, "password": "a long one"})
        answers.append((made.status_code, made.json().get("detail", made.json().get("email"))))
    for password in ("another one", "a long one"):
        found = await client.post("/auth/login", data={"username": "ada@EXAMPLE.org", "password": password})
        answers.append((found.status_code, found.json().get("detail", found.json().get("token_type"))))
    headers = {"Authorization": f"Bearer {found.json()['access_token']}"}
    for call in (client.get("/me", headers=headers), client.post("/auth/logout", headers=headers)):
        answers.append((await call).status_code)
    answers.append((await client.get("/me", headers=headers)).status_code)
    return answers


def configured(folder: Path, name: str, mode: str, servers: dict[str, str]) -> None:
    """The file of the page, with the addresses of real servers."""
    text = re.findall(r"```yaml\n(.*?)```", manual.text("frameworks"), re.DOTALL)[0]
    file = yaml.safe_load(text)
    if name in COLLECTIONS:
        file["collections"] = yaml.safe_load(COLLECTIONS[name])
    file["mongo"] |= {"url": servers["mongo"], "database": servers["database"], "driver": DRIVERS[name]}
    file["dynamo"] |= {
        "endpoint_url": servers["dynamo"],
        "table_prefix": f"{servers['database']}-",
        "access_key_id": "local",
        "secret_access_key": "local",
    }
    file["journal"]["url"] = f"sqlite:///{folder / 'shadow.db'}"
    file["defaults"] |= {**MODES[mode], "forced": "a test"}
    (folder / "config").mkdir()
    (folder / "config" / "shadow.yaml").write_text(yaml.safe_dump(file))


WANTED: Final = [
    *[(201, ["id"], 24)] * 3,
    (200, {"email": "1@example.org", "name": "Ada"}),
    (404, {"detail": "Not Found"}),
]


LOGGED_IN: Final = [
    *[(201, "Ada@example.org"), (400, "REGISTER_USER_ALREADY_EXISTS"), (400, "LOGIN_BAD_CREDENTIALS")],
    *[(200, "bearer"), 200, 204, 401],
]


@pytest.mark.parametrize("mode", [*MODES, "before"])
@pytest.mark.parametrize("name", list(PROGRAMS))
async def test_a_program_runs_as_it_stands(
    name: str,
    mode: str,
    one_mongod_url: str,
    dynamodb_local_url: str,
    mongo_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from shadow import Shadow

    monkeypatch.chdir(tmp_path)
    program = PROGRAMS[name]
    servers = {"mongo": one_mongod_url, "dynamo": dynamodb_local_url, "database": mongo_database}
    if mode == "before":
        program = CHANGED.sub(r"\1\2\4", program).replace("(url)", f"({one_mongod_url!r})")
        program = program.replace('"shop"', repr(mongo_database)).replace(
            'shadow = Shadow.from_file("config/shadow.yaml")\n', ""
        )
    else:
        configured(tmp_path, name, mode, servers)
        if mode != "off":
            async with Shadow.from_file("config/shadow.yaml") as shadow:
                await shadow.prepare()
    users, wanted = (1, LOGGED_IN) if name == "fastapi_users" else (3, WANTED)
    assert await walked(program, name) == wanted
    if mode in ("shadow", "dynamo"):
        async with Shadow.from_file("config/shadow.yaml") as shadow:
            assert await shadow.settled(60)
            assert await shadow["users"].count_documents({}) == users
