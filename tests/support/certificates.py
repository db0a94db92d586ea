"""Certificates of a test's own, made by the program `openssl`: one that signs, a server's for 127.0.0.1, a client's."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support import services

__all__ = ["CLIENT", "Certificates", "make"]

CLIENT = "CN=app,OU=clients,O=shadow"
"""The client's name, as MongoDB writes it (RFC 2253)."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: the signer's certificate; certificates with their keys behind them; `locked` is the client's with its key
    under `password`; `withdrawn` is the signer's list of certificates that count no more, an empty one."""

    signer: Path
    server: Path
    client: Path
    locked: Path
    password: str
    withdrawn: Path


def make(folder: Path) -> Certificates:
    """Skips, or fails where services are required, without the program."""
    if shutil.which("openssl") is None:
        services.missing("openssl", "it is not on the PATH")

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/O=shadow/CN=signer")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for name, subject in (("server", "/O=shadow/OU=servers/CN=here"), ("client", "/O=shadow/OU=clients/CN=app")):
        run("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)
        (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())
    run("pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:sesame", "-in", "client.key", "-out", "locked.key")
    (folder / "locked.pem").write_text((folder / "locked.key").read_text() + (folder / "client.crt").read_text())
    (folder / "index").write_text("")
    (folder / "ca.cnf").write_text("[ca]\ndefault_ca=own\n[own]\ndatabase=index\ndefault_md=sha256\n")
    signer = ("-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem")
    run("ca", "-gencrl", *signer, "-crldays", "2", "-out", "list.pem")
    return Certificates(
        folder / "ca.pem",
        folder / "server.pem",
        folder / "client.pem",
        folder / "locked.pem",
        "sesame",
        folder / "list.pem",
    )
