"""The rules of transactions, each weakened in the plainest way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from shadow.model.batches import Result
from shadow.model.operation import Applied, Change, Verb, Write
from shadow.model.outcome import Outcome, classify
from shadow.model.phase import Route
from shadow.model.verdict import Deferral
from shadow.writes import transactions
from shadow.writes.dual_write import Ask, DualWrite
from shadow.writes.transactions import Changed, Transaction, TransactionWrites
from tests.simulation.conditions import LIMIT, Conditions
from tests.simulation.mutations import Mutation, calm

__all__ = ["TRANSACTION_MUTATIONS"]


def _transacting(drawn: Conditions, **changes: Any) -> Conditions:
    return calm(drawn).transacting().but(**{"lasting": 0.3, "uncertain": 0.0, "operations": 6, **changes})


async def _with_the_first_intents(self: TransactionWrites, held: Transaction) -> None:
    """Each key had its intent before its statement."""
    if not held.opened:
        await self._opened_again(held)


async def _with_what_is_left(self: TransactionWrites, held: Transaction) -> None:
    """A commit that is tried again was covered when it was sent first."""
    if held.opened and any(each.age.seconds > LIMIT / 4 for each in held.opened):
        await self._opened_again(held)


_made = TransactionWrites._made


async def _made_whatever_was_heard(
    self: TransactionWrites,
    held: Transaction,
    collection: str,
    verb: Verb,
    route: Route,
    op_ids: Sequence[str],
    ask: Ask,
) -> list[Result]:
    """A statement without an answer changed nothing."""
    return await DualWrite._ask(self, collection, verb, route, op_ids, ask)


def _kept_and_followed(
    self: TransactionWrites,
    held: Transaction,
    collection: str,
    verb: Verb,
    change: Change,
    op_id: str,
    result: Result,
) -> bool:
    """What the primary has acknowledged is replicated."""
    if isinstance(result, Applied):
        made = self._decided(change, op_id, result)
        write = Write(collection, verb, op_id, made, result.pre.state, result.post)
        self._replicator.follow(write, held.routes[collection])
    return _keep(self, held, collection, verb, change, op_id, result)


_keep = TransactionWrites._keep


def _followed_in_turn(self: TransactionWrites, route: Route, changes: Sequence[Changed]) -> asyncio.Future[bool]:
    """Each change is replayed, in order."""
    last: asyncio.Future[bool] | None = None
    for each in changes:
        write = Write(each.collection, each.verb, each.op_id, each.change, each.applied.pre.state, each.applied.post)
        last = self._replicator.follow(write, route)
    assert last is not None
    return last


def _only_the_last(self: TransactionWrites, route: Route, changes: Sequence[Changed]) -> asyncio.Future[bool]:
    """The last change says what the document is."""
    return _followed_in_turn(self, route, changes[-1:])


_end = TransactionWrites._end


async def _ended_as_refused(self: TransactionWrites, held: Transaction, reason: Deferral) -> None:
    """Nothing was committed, so the intents are closed."""
    for each in held.changes if held.opened else ():
        self._intents.close(each.op_id)
    held.opened.clear()
    await _end(self, held, reason)


async def _ended_at_once(self: TransactionWrites, held: Transaction, reason: Deferral) -> None:
    """What is read after a commit without an answer is final."""
    await _end(self, held, Deferral.ROLLED_BACK)


async def _lost_and_committed(self: TransactionWrites, held: Transaction, why: str) -> None:
    """A transaction that is given up here may be committed all the same."""
    async with held.lock:
        if not held.over:
            await _end(self, held, Deferral.ROLLED_BACK)
            held.changes.clear()


def _refuses(error: BaseException) -> Outcome:
    return Outcome.REFUSED if classify(error) is Outcome.UNKNOWN else classify(error)


TRANSACTION_MUTATIONS: Final = (
    Mutation(
        "a transaction may be committed when its intents are forgotten",
        ((TransactionWrites, "_with_young_intents", _with_the_first_intents),),
        lambda drawn: _transacting(drawn, lasting=1.5 * LIMIT, uncertain=0.7, operations=4),
    ),
    Mutation(
        "a commit that is tried again has no intents",
        ((TransactionWrites, "_with_young_intents", _with_what_is_left),),
        lambda drawn: _transacting(drawn, keys=3, lasting=0.0, operations=4, uncertain=0.8),
    ),
    Mutation(
        "a statement without an answer does not end a transaction",
        ((TransactionWrites, "_made", _made_whatever_was_heard), (transactions, "classify", _refuses)),
        lambda drawn: _transacting(drawn, unanswered=0.2),
    ),
    Mutation(
        "statements are replicated before the commit",
        ((TransactionWrites, "_keep", _kept_and_followed),),
        _transacting,
    ),
    Mutation(
        "the changes of one document are replayed one by one",
        ((TransactionWrites, "_follow_key", _followed_in_turn),),
        _transacting,
    ),
    Mutation(
        "a commit without an answer counts as refused",
        ((TransactionWrites, "_end", _ended_as_refused),),
        lambda drawn: _transacting(drawn, uncertain=0.7),
    ),
    Mutation(
        "what is read after a commit without an answer is final",
        ((TransactionWrites, "_end", _ended_at_once),),
        lambda drawn: _transacting(drawn, uncertain=0.7),
    ),
)
