"""The write protocol, stated; and a simulator that holds the real code to it under a seeded choice of everything.

The real router, follower, lane, heal, shadow reader and journal logic run over simulated stores, a simulated clock and
a simulated scheduler. `python -m tests.simulation SEED` runs one seed and tells everything that happened in it.


State, for each key k
---------------------

primary(k), secondary(k)
    an image: a document at a version, a tombstone, or nothing. A version is `(born, rev)`; `born` is unique to the
    insert or replacement that made it, a tombstone's id to the deletion or the touch. States are compared for equality
    and for nothing else.
history(k)
    every image that primary(k) was, in order. No state is in it twice.
intents
    a set of (operation, key, opened, owner), durable.
deferred
    at most one (key, generation, settle_after) a key, durable.

Steps
-----

A store does each of its steps atomically; between any two steps anything else may happen. A step that was asked for and
had no answer may have been done, may not have been, or may yet be done.

open(o, k)      intents += (o, k, now, me). Durable before the primary is asked.
apply(o, k)     the primary makes the change and moves the version in one step: (pre, post). Refused: close(o).
                Unknown: defer(o) with settle_after = opened + limit.
replay(o, k)    the same operation on the secondary, fenced by an equality.
                Update: secondary(k) = pre. Insert: secondary(k) is nothing at all, no tombstone either.
                Delete: secondary(k) = pre, or nothing at all; it leaves a tombstone, also where nothing was.
                Its image is the primary's: close(o). Anything else: heal(k), then close(o). An error or the deadline:
                defer(o).
heal(k)         s0 := secondary(k), first; then p := primary(k).
                Both the same document at the same version: done.
                p is a document: put p if secondary(k) = s0 still.
                p is none: put a fresh tombstone if secondary(k) = s0 still, even where s0 is a tombstone or nothing.
                Not so any more: again, after a pause.
close(o)        intents -= o. May be lost in a crash.
defer(o)        intents -= o, and generation(k) += 1 in `deferred`, made if missing. May be lost in a crash.
due             adopts, that is defers with settle_after = opened + limit, the intents of processes that are known dead
                and those older than the limit; then claims deferred keys, oldest first, with their generation.
settle(k, g)    after a heal that began after the claim: deferred -= k, if its generation is still g, nobody has claimed
                it since, and the claim was made at settle_after or later.
untangle(k)     where a put of heal(k) is refused for a unique value: G := k and all keys that differ and hold, in the
                secondary, a value that a member of G is to get. For each of G an intent. Then all of G are put in one
                step, each if it is still at its s0; or one after the other, and one that is in the way of another is
                set aside first: a fresh *passing* tombstone, if it is still at its s0.
copy(k)         the backfill: p := primary(k); put p if secondary(k) is nothing at all; heal(k) if it is something else
                than p, or if primary(k) is no longer p.
flip            holds new writes, waits for the writes and heals under way, and exchanges the stores when the journal
                is empty and no request to the secondary can still arrive.

Assumptions
-----------

`limit` (`limits.operation`) covers one operation on the primary: to open the intent may take a quarter of it (what
took longer is opened anew), a request takes effect within five eighths of it or never, and the clocks of two processes
differ by at most an eighth. No process stands still for that long between two steps without noticing. All faults end.

A flip is made by one process alone, with no backfill running. No request of before it may land on the store that
followed: a replay or a copy that expects nothing at all would find that again after a deletion there, for the primary
keeps no tombstones. Hence no flip within `limits.straggle` of a request that was given up on, nor during a heal.

Invariants
----------

While it runs:

1. Versions only ever rise: no state comes back in history(k).
2. The secondary only ever moves forward: every secondary(k) is a member of history(k), and never an earlier one than
   the one before it. (Where the secondary itself has made something else of a replayed operation, the version is; and
   a document that is set aside stands where it stood before that.)
3. `strict`: when the caller is told that it is done, the secondary has come as far as that write.
4. Callers hear the drivers' errors and shadow's own, and nothing else; nothing fails inside but what was made to.
5. No false alarm: without a backfill to be done, no comparison comes to `mismatch`.

Once the faults have ended, within a bounded time:

6. Both are equal: the same document at the same version, or no document in either.
7. No acknowledged write is lost or doubled: what was acknowledged as done is in history(k) exactly once, what was
   refused never, what is unknown at most once. A counter holds what was acknowledged, and what is unknown at most.
8. The journal is empty: intents = deferred = {}.
9. No task is left when the runtimes are closed.

`mutations` weakens these rules one by one; each of them is then seen to break one of the invariants.
"""
