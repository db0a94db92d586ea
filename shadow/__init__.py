"""shadow: move a live backend from MongoDB to DynamoDB, in parallel first, compared, and with a way back."""

from shadow.client import Shadow, get_collection
from shadow.collection import Collection
from shadow.config import Settings
from shadow.cursor import Cursor
from shadow.errors import (
    ConfigurationError,
    JournalError,
    SecondaryWriteError,
    ShadowClosed,
    ShadowError,
    StoreUnavailable,
    UnreadableDocument,
    UnsupportedOperation,
)

__all__ = [
    "Collection",
    "ConfigurationError",
    "Cursor",
    "JournalError",
    "SecondaryWriteError",
    "Settings",
    "Shadow",
    "ShadowClosed",
    "ShadowError",
    "StoreUnavailable",
    "UnreadableDocument",
    "UnsupportedOperation",
    "get_collection",
]
