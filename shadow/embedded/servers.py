"""The servers that the demo and the tests start: real ones, each with its own process, folder and port on 127.0.0.1."""

from shadow.embedded.dynamodb import CREDENTIALS, DynamoDBLocal, Ministack
from shadow.embedded.mongod import Mongod
from shadow.embedded.process import ServerProcess, free_port
from shadow.embedded.proxy import FaultProxy, Mode

__all__ = ["CREDENTIALS", "DynamoDBLocal", "FaultProxy", "Ministack", "Mode", "Mongod", "ServerProcess", "free_port"]
