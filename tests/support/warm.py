"""What the first Shadow of a process reads and imports, read and imported when this is: for the server that forks
processes, which would all pay for it again (0.4 s of processor time)."""

from __future__ import annotations

import botocore.session
import motor.motor_asyncio  # noqa: F401

from shadow.embedded.servers import CREDENTIALS
from shadow.stores.dynamo.client.gateway import _loader

_session = botocore.session.get_session()
_session.register_component("data_loader", _loader())
# It connects to nobody. The descriptions that it needs stay in the loader, of which a process has one.
_session.create_client("dynamodb", endpoint_url="http://127.0.0.1:1", verify=False, **CREDENTIALS)
