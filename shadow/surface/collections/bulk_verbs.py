"""`insert_many` and `bulk_write`: many requests in PyMongo's order, with PyMongo's error details."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pymongo
from pymongo.errors import DocumentTooLarge, InvalidOperation, OperationFailure, WriteConcernError, WriteError
from pymongo.results import BulkWriteResult, InsertManyResult

from shadow.errors import UnsupportedOperation
from shadow.model.operation import Applied, Insert, Verb
from shadow.model.server_options import sending
from shadow.model.version import fresh_id, fresh_ids
from shadow.mongoql.upserts import with_key
from shadow.surface.calls.arguments import Arguments
from shadow.surface.calls.hints import no_such_index
from shadow.surface.calls.verb_options import check_options
from shadow.surface.collections.bulk import Make, Step, kind_of, operation, runs
from shadow.surface.collections.results import BulkTally, Many, as_write, inserted_ids, show_values
from shadow.surface.collections.write_verbs import WriteVerbs, filter_of

__all__ = ["BulkVerbs"]


class BulkVerbs(WriteVerbs):
    """Both use the writes of `WriteVerbs`; consecutive inserts go to the stores together."""

    async def insert_many(self, documents: Iterable[Any], ordered: bool = True, **options: Any) -> InsertManyResult:
        """Raises BulkWriteError with one entry for each rejected document."""
        self._take.refuse("insert_many", options)
        check_options("insert_many", {"ordered": ordered})
        if isinstance(documents, Mapping | str | bytes) or not isinstance(documents, Iterable):
            raise TypeError("documents must be a non-empty list")
        originals = list(documents)
        if not originals:
            raise TypeError("documents must be a non-empty list")
        births = fresh_ids(len(originals))
        steps = [self._insert_step(place, *each) for place, each in enumerate(zip(originals, births, strict=True))]
        await self._make_all(steps, ordered=ordered)
        return InsertManyResult(inserted_ids(originals), acknowledged=True)

    async def bulk_write(self, requests: Sequence[Any], ordered: bool = True, **options: Any) -> BulkWriteResult:
        """PyMongo's operation objects, in PyMongo's order. Raises BulkWriteError with PyMongo's details."""
        take = self._door("bulk_write", options)
        check_options("bulk_write", {"ordered": ordered})
        if not isinstance(requests, list):
            raise TypeError(f"requests must be a list, not {type(requests)}")
        operations = list(requests)
        if not operations:
            raise InvalidOperation("No operations to execute")
        steps = [self._step(place, each, take) for place, each in enumerate(operations)]
        tally = await self._make_all(steps, ordered=ordered)
        return BulkWriteResult(tally.details, acknowledged=True)

    def _step(self, place: int, request: Any, take: Arguments) -> Step:
        """A request, checked as far as PyMongo checks before it sends any. Errors of the server are raised when its
        turn comes, unsupported options immediately."""
        if getattr(request, "_hint", None) == "":
            refusal = functools.partial(_refusing, no_such_index("bulk_write"))
            return Step(place, kind_of(request), operation(request), make=refusal)
        take = self._of_request(request, take)
        match request:
            case pymongo.InsertOne():
                return self._insert_step(place, request._doc)
            case pymongo.UpdateOne() | pymongo.UpdateMany():
                make: Make = functools.partial(self._bulk_update, request, take)
            case pymongo.ReplaceOne():
                make = functools.partial(self._bulk_replace, request, take)
            case pymongo.DeleteOne() | pymongo.DeleteMany():
                make = functools.partial(self._bulk_delete, request, take)
            case _:
                raise TypeError(f"{type(request).__name__} is not a valid request")
        self._built(take, functools.partial(_check_request, request))
        if request._hint is not None and take.mongo_only is None:
            make = functools.partial(self._hinting, request._hint, make)
        return Step(place, kind_of(request), operation(request), make=make)

    def _of_request(self, request: Any, take: Arguments) -> Arguments:
        """The arguments that take the request's own options, and those of the whole call."""
        names = ("collation", "hint")
        own = {name: getattr(request, f"_{name}", None) for name in names}
        own = {name: value for name, value in own.items() if value is not None}
        if not own:
            return take
        if take.mongo_only is None:
            try:
                return self._door("update_one", own if take.let is None else {**own, "let": take.let})
            except UnsupportedOperation as refusal:
                name = refusal.name.replace("update_one(", "bulk_write(")
                raise UnsupportedOperation(name, refusal.reason, hint=refusal.hint) from None
        passing = self._passing(take.mongo_only.refusal)
        for name, value in {**take.mongo_only.options, **own}.items():
            passing.take_option(name, value)
        return passing

    async def _make_all(self, steps: Sequence[Step], *, ordered: bool) -> BulkTally:
        """Applies every step, or, if ordered, those up to the first rejected one. Raises BulkWriteError for rejections
        and write concern errors, the driver's error where the outcome is unknown."""
        tally = BulkTally(self._present_reply)
        for run in runs(steps, ordered=ordered):
            if run[0].make is None:
                await self._make_inserts(tally, run, ordered=ordered)
            else:
                await self._make_one(tally, run[0], run[0].make)
            if ordered and tally.has_errors:
                break
        tally.raise_errors()
        return tally

    async def _make_inserts(self, tally: BulkTally, run: Sequence[Step], *, ordered: bool) -> None:
        inserts = [step.insert for step in run if step.insert is not None]
        results = await self._router.insert_many(self._name, inserts, ordered=ordered)
        for step, result in zip(run, results, strict=True):
            if isinstance(result, WriteConcernError):
                tally.unsafe(result)
                tally.inserted += 1
            elif isinstance(result, DocumentTooLarge):
                tally.failed(step.place, _too_large(2, result), step.operation)
            elif isinstance(result, Exception):
                show_values(result, self._present_reply)
                tally.failed(step.place, result, step.operation)
            elif result is not None:
                tally.inserted += 1

    async def _make_one(self, tally: BulkTally, step: Step, make: Make) -> None:
        try:
            with as_write(self._present_reply):
                applied = await make()
        except WriteConcernError as error:
            tally.unsafe(error)
        except WriteError as error:
            tally.failed(step.place, error, step.operation)
        except DocumentTooLarge as error:
            tally.failed(step.place, _too_large(10334, error), step.operation)
        else:
            tally.made(step.place, applied, removed=step.removes)

    async def _hinting(self, hint: Any, make: Make) -> Many:
        with sending({"hint": hint}):
            await self._check_hint("bulk_write", hint)
            return await make()

    async def _bulk_update(self, request: Any, take: Arguments) -> Many:
        filter, update, filters, upsert = request._filter, request._doc, request._array_filters, bool(request._upsert)
        if isinstance(request, pymongo.UpdateMany):
            return await self._update_many(filter, update, filters, upsert=upsert, take=take)
        return await self._update(
            Verb.BULK_WRITE, filter, update, filters, upsert=upsert, sort=request._sort, take=take
        )

    async def _bulk_replace(self, request: Any, take: Arguments) -> Many:
        upsert, sort = bool(request._upsert), request._sort
        return await self._replace(Verb.BULK_WRITE, request._filter, request._doc, upsert=upsert, sort=sort, take=take)

    async def _bulk_delete(self, request: Any, take: Arguments) -> Many:
        if isinstance(request, pymongo.DeleteMany):
            return await self._delete_many(request._filter, take=take)
        return await self._delete(Verb.BULK_WRITE, request._filter, take=take)

    def _insert_step(self, place: int, document: Any, born: str = "") -> Step:
        whole = self._whole(document)
        try:
            insert = Insert(whole["_id"], with_key(whole, whole["_id"]), born or fresh_id())
        except WriteError as error:
            return Step(place, 0, document, make=functools.partial(_refusing, error))
        return Step(place, 0, document, insert)


def _check_request(request: Any, take: Arguments) -> None:
    """Raises what is to be raised before any request is sent."""
    if isinstance(request, pymongo.UpdateOne | pymongo.UpdateMany):
        _tried(take.update, request._doc, request._array_filters)
    elif isinstance(request, pymongo.ReplaceOne):
        take.replacement(request._doc)
    _tried(filter_of, take, request._filter)
    _tried(take.sort, getattr(request, "_sort", None))


def _tried(check: Callable[..., Any], *arguments: Any) -> None:
    """Checks what the application passed in, and leaves the server's errors to the step itself."""
    try:
        check(*arguments)
    except UnsupportedOperation:
        raise
    except OperationFailure:
        return


def _too_large(code: int, error: DocumentTooLarge) -> WriteError:
    """The server's error for one of several writes; a single one is refused by the driver, with its own error."""
    return WriteError(str(error), code, {"index": 0, "code": code, "errmsg": str(error)})


async def _refusing(error: Exception) -> list[Applied]:
    raise error
