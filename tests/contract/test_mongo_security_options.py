"""TLS, users and compression of a connection to MongoDB, on a server that asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from shadow import Shadow
from shadow.config import ControlSettings, JournalSettings, Settings, parse
from shadow.embedded.mongod import Mongod
from shadow.errors import ConfigurationError
from tests.support import certificates, services
from tests.support.certificates import CLIENT, Certificates
from tests.support.shims import settings_for

NAME: Final = "things"
DRIVERS = pytest.mark.parametrize("driver", ["motor", "pymongo"])


class TlsMongod(Mongod):
    """A server that takes TLS alone, and a certificate for a user."""

    def __init__(self, files: Certificates) -> None:
        super().__init__(
            extra=(
                *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(files.server)),
                *("--tlsCAFile", str(files.signer), "--tlsAllowConnectionsWithoutCertificates"),
                *("--setParameter", "authenticationMechanisms=SCRAM-SHA-1,SCRAM-SHA-256,MONGODB-X509"),
                *("--networkMessageCompressors", "zlib"),
            )
        )
        self._files = files

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"mongodb://{self.address}/?directConnection=true&tls=true&tlsCAFile={self._files.signer}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(files: Certificates) -> Iterator[TlsMongod]:
    with services.start(lambda: TlsMongod(files)) as made:
        with MongoClient[dict[str, Any]](made.url) as client:
            roles = ["readWriteAnyDatabase"]
            client["$external"].command("createUser", CLIENT, roles=[{"role": roles[0], "db": "admin"}])
            for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
                client.admin.command("createUser", mechanism, pwd="p@ss", roles=roles, mechanisms=[mechanism])
            client.users.command("createUser", "elsewhere", pwd="p@ss", roles=[{"role": roles[0], "db": "admin"}])
        yield made


def settings(
    url: str, dynamodb_local_url: str, fresh_name: str, folder: Path, driver: str, *, servers: bool = True
) -> Settings:
    made = settings_for(folder, url, dynamodb_local_url, fresh_name, [NAME], driver=driver)
    if not servers:
        return made
    return made.model_copy(
        update={
            "journal": JournalSettings(url="mongodb:///?journal=j"),
            "control": ControlSettings(url="mongodb:///?control=c"),
        }
    )


ACCEPTED: Final = {
    "tls": "{base}",
    "hostnames": "{base}&tlsAllowInvalidHostnames=true",
    "certificates": "mongodb://{address}/?directConnection=true&tls=true&tlsAllowInvalidCertificates=true",
    "insecure": "mongodb://{address}/?directConnection=true&ssl=true&tlsInsecure=true",
    "ocsp": "{base}&tlsDisableOCSPEndpointCheck=true",
    "client": "{base}&tlsCertificateKeyFile={client}",
    "x509": "{base}&tlsCertificateKeyFile={client}&authMechanism=MONGODB-X509&authSource=$external",
    "x509 under a password": "{base}&tlsCertificateKeyFile={locked}&tlsCertificateKeyFilePassword=sesame"
    "&authMechanism=MONGODB-X509",
    "SCRAM-SHA-1": "mongodb://SCRAM-SHA-1:p%40ss@{rest}&authMechanism=SCRAM-SHA-1",
    "SCRAM-SHA-256": "mongodb://SCRAM-SHA-256:p%40ss@{rest}&authMechanism=SCRAM-SHA-256&authSource=admin",
    "elsewhere": "mongodb://elsewhere:p%40ss@{rest}&authSource=users",
    "withdrawn": "{base}&tlsCRLFile={withdrawn}",
    "zlib": "{base}&compressors=snappy,zlib&zlibCompressionLevel=9",
}


def url_of(name: str, server: TlsMongod, files: Certificates) -> str:
    rest = server.url.removeprefix("mongodb://")
    return ACCEPTED[name].format(
        base=server.url,
        rest=rest,
        address=server.address,
        client=quote_plus(str(files.client)),
        locked=quote_plus(str(files.locked)),
        withdrawn=quote_plus(str(files.withdrawn)),
    )


@pytest.mark.drawn_over("driver", reason="both connect by the same options and the same code, PyMongo's")
@DRIVERS
@pytest.mark.parametrize("name", list(ACCEPTED))
async def test_everything_goes_over_the_connection_that_the_url_describes(
    server: TlsMongod, files: Certificates, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str,
    name: str,
) -> None:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the driver, for a compressor whose package is not here
        made = settings(url_of(name, server, files), dynamodb_local_url, fresh_name, tmp_path, driver)
        async with Shadow.from_settings(made) as shadow:
            await shadow.prepare()
            things = shadow[NAME]
            await things.insert_one({"_id": 1, "text": "x" * 1000})
            await things.update_many({"_id": 1}, {"$set": {"n": 1}})
            assert await things.find_one({"n": 1}, {"text": 0}) == {"_id": 1, "n": 1}
            assert await shadow.settled(30)
            primary, secondary = await shadow.admin.images(NAME, 1)
            assert primary == secondary
            assert (await shadow.admin.heal(NAME, 1)).value != "failed"


@DRIVERS
@pytest.mark.parametrize(
    "url",
    [
        "mongodb://{address}/?directConnection=true&serverSelectionTimeoutMS=500",
        "mongodb://{address}/?directConnection=true&tls=true&serverSelectionTimeoutMS=500",
    ],
    ids=["no tls", "unknown signer"],
)
async def test_a_connection_that_the_server_or_the_client_does_not_trust_is_none(
    server: TlsMongod, dynamodb_local_url: str, fresh_name: str, tmp_path: Path, driver: str, url: str
) -> None:
    made = settings(url.format(address=server.address), dynamodb_local_url, fresh_name, tmp_path, driver, servers=False)
    async with Shadow.from_settings(made) as shadow:
        with pytest.raises(PyMongoError):
            await shadow[NAME].insert_one({"_id": 1})


def test_a_certificate_that_cannot_be_used_is_a_fault_before_anything_is_asked(files: Certificates) -> None:
    wrong = f"mongodb://h/?tls=true&tlsCertificateKeyFile={files.locked}&tlsCertificateKeyFilePassword=wrongword"
    with pytest.raises(ConfigurationError) as refused:
        parse(f"mongo: {{url: '{wrong}'}}", {})
    assert "certificate" in str(refused.value)
    assert "wrongword" not in str(refused.value)
