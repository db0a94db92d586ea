"""Calls with a session: the driver's session is taken out of the arguments, and the call is made on a collection whose
router belongs to it.

A verb about the collection itself (its indexes, its options) needs no session, because no document is read or written;
within a transaction the server refuses most of them, and so does this.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, NoReturn

from pymongo.errors import ConfigurationError, InvalidOperation, OperationFailure

from shadow.errors import UnsupportedOperation
from shadow.stores.mongo.drivers import bound_session, call_signature, is_session

__all__ = ["SessionHandle", "check_session", "in_session", "until_refused", "without_session"]

_NOT_IN_TRANSACTION: Final = 263
_INVALID_OPTIONS: Final = 72
"""OperationNotSupportedInTransaction, InvalidOptions (error_codes.yml)."""
_CURSORS: Final = frozenset({"aggregate", "aggregate_raw_batches", "find", "find_raw_batches"})
_ABOUT: Final = frozenset({
    "create_index", "create_indexes", "drop", "drop_index", "drop_indexes", "index_information", "list_indexes",
    "options", "rename",
})  # fmt: skip


def without_session(
    verb: str, arguments: Sequence[Any], options: Mapping[str, Any]
) -> tuple[Any, Sequence[Any], Mapping[str, Any]]:
    """The session of a call, given or bound (`session.bind()`), or None, and the arguments without it. Raises what the
    drivers raise: ValueError for what is no session, InvalidOperation for one that has ended (a cursor raises it later,
    at its first request)."""
    place, given = _place(verb), arguments
    session = options.get("session")
    if place is not None and len(arguments) > place:
        names = list(call_signature(verb).parameters)[1:]
        session, given = arguments[place], arguments[:place]
        options = {**dict(zip(names[place + 1 :], arguments[place + 1 :], strict=False)), **options}
    if "session" in options:
        options = {name: value for name, value in options.items() if name != "session"}
    if session is None:
        session = bound_session()
    if session is None:
        return None, given, options
    if not is_session(session):
        raise ValueError(f"'session' argument must be a session of the driver, not {type(session).__name__}")
    if session.has_ended and verb not in _CURSORS:
        # Before a write has an intent, which would have to be healed.
        raise InvalidOperation("Cannot use ended session")
    return session, given, options


def check_session(handle: Any, command: str, options: Mapping[str, Any]) -> None:
    """Raises what the driver and the server raise for the session of a command that is answered here."""
    session = without_session(command, (), options)[0]
    if session is None:
        return
    handle.in_session(session)  # raises for one of another client
    if session.in_transaction:
        _refuse_in_transaction(command)


def _place(verb: str) -> int | None:
    """The position of the session among a verb's arguments; None: it has a keyword alone."""
    try:
        names = list(call_signature(verb).parameters)[1:]
    except AttributeError:
        return None
    return names.index("session") if "session" in names and verb not in ("find", "find_one") else None


def in_session(collection: str, handle: Any, verb: str, session: Any) -> Any:
    """The handle for one call with a session: that of the collection, for a verb that takes part in none. Raises what
    the driver and the server raise for a verb that takes no session, or not in a transaction, and UnsupportedOperation
    for a snapshot of what MongoDB does not answer."""
    if verb == "estimated_document_count":
        raise ConfigurationError("estimated_document_count does not support sessions")
    if session.options.snapshot and not handle.is_on_mongo(collection):
        refusal = UnsupportedOperation("a snapshot session", "reads of DynamoDB show the newest documents")
        handle.refused(collection, refusal)
        raise refusal
    if verb in _ABOUT:
        handle.in_session(session)  # raises for one of another client
        if session.in_transaction:
            _refuse_in_transaction(verb)
        if session.options.snapshot:
            text = f"{verb} does not support a read concern of snapshot: read concern not supported"
            raise _failure(text, _INVALID_OPTIONS, "InvalidOptions")
        return handle
    return SessionHandle(handle, session)


def _refuse_in_transaction(verb: str) -> NoReturn:
    if verb in ("create_index", "create_indexes"):
        raise UnsupportedOperation(f"{verb}(session=...)", "an index is no part of a transaction on two stores")
    text = f"Cannot run {verb!r} in a multi-document transaction."
    raise _failure(text, _NOT_IN_TRANSACTION, "OperationNotSupportedInTransaction")


def _failure(text: str, code: int, name: str) -> OperationFailure:
    return OperationFailure(text, code, {"ok": 0.0, "code": code, "codeName": name, "errmsg": text})


def until_refused(handle: Any, session: Any, call: Any) -> Any:
    """A call that is awaited, which ends its transaction when it is refused as the server would refuse it: the server
    aborts the transaction with the refused statement, and what is refused here does not reach it."""
    return _until_refused(handle, session, call) if session.in_transaction and inspect.iscoroutine(call) else call


async def _until_refused(handle: Any, session: Any, call: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await call
    except OperationFailure as error:
        # What the server refuses in every transaction, it refuses before it looks at this one.
        if not isinstance(error, UnsupportedOperation) and error.code != _NOT_IN_TRANSACTION:
            await handle.end_transaction(session)
        raise


class SessionHandle:
    """What a collection needs of its Shadow, for calls of one session. Made by a collection that routes its calls, so
    what that one refuses or hides is the same in a session."""

    def __init__(self, handle: Any, session: Any) -> None:
        self._handle = handle
        self._router: Any = None
        self.session = session

    def current(self) -> Any:
        """The router for this session, as it is now: in a transaction, or one for the whole call."""
        if self.session.in_transaction:
            return self._handle.in_session(self.session)
        if self._router is None:
            self._router = self._handle.in_session(self.session)
        return self._router

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def __eq__(self, other: object) -> bool:
        return other is self._handle or (isinstance(other, SessionHandle) and other._handle is self._handle)

    def __hash__(self) -> int:
        return hash(self._handle)
