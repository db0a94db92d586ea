"""shadow: migrates a live backend from MongoDB to DynamoDB: both stores in parallel, compared, with a way back.

`import shadow` loads no submodule. Each name is loaded on first access (PEP 562), and the drivers when a `Shadow` is
created.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from shadow.client import Shadow, get_collection
    from shadow.config import Settings
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
    from shadow.surface.collections.collection import Collection
    from shadow.surface.cursors.cursor import Cursor

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

_MODULES: Final = {
    "Collection": "surface.collections.collection",
    "Cursor": "surface.cursors.cursor",
    "Settings": "config",
    "Shadow": "client",
    "get_collection": "client",
}
"""The module of each name that is not in `errors`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
