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
many(O, K)      a batch of operations, one a key: open all; the primary's images of K are read; one command changes
                each key that is still at the version that was read, and marks it with the batch. As many as were read:
                each is (pre, post). Fewer: marks and versions are read again; what was not changed is applied alone;
                where two answers are possible, the outcome is unknown. Of deletions the number counts, and each key
                that is gone is replicated.
replay(o, k)    the same operation on the secondary, fenced by an equality.
                Update: secondary(k) = pre. Insert: secondary(k) is nothing at all, no tombstone either.
                Delete: secondary(k) = pre, or nothing at all; it leaves a tombstone, also where nothing was.
                Its image is the primary's: close(o). Anything else: heal(k), then close(o). An error or the deadline:
                defer(o).
replay(O, K)    a batch of replays, one a key: the secondary's images of K are read; where the fence holds, one
                statement changes the key to what the replay leaves, if it is still as it was read. What was not done,
                or is not known to be, is replayed alone; where the outcome of the request is unknown: defer(o) for all.
heal(k)         s0 := secondary(k), first; then p := primary(k).
                Both the same document at the same version: done.
                p is a document: put p if secondary(k) = s0 still.
                p is none: put a fresh tombstone if secondary(k) = s0 still, even where s0 is a tombstone or nothing.
                Not so any more: again, after a pause.
heal(K)         a batch: S0 := secondary(K), first; then P := primary(K); then for each key the put of heal(k), on the
                condition that the key is still as a further look has shown it, which has to be its s0. What was not
                put, or is not known to be, is healed alone.
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
                None in a process that writes one store alone; one under way ends before it says that it does.
copy(k)         the backfill: p := primary(k); put p if secondary(k) is nothing at all; heal(k) if it is something else
                than p, or if primary(k) is no longer p.
bare(o, k)      while no process writes both stores: the driver's own call. No intent; the primary changes, and where
                both were written before, its version names the era: the time since then. Under way until it has
                answered; without an answer, for as long as it can still arrive.
raise           announced, then raising, then dual: each step when every process on the list has taken note of the one
                before, and a process takes note when no bare write of it is under way. One that is silent is waited for
                until its lease has run out and its last request has arrived, one that died likewise; one that ends
                stays on the list for as long.
alone           a process says on the list that it writes one store alone, then begins the next epoch, and only then
                does so. One that begins alone does the same before its first write. One that writes both again waits
                for its writes under way first, and says so when none that had no answer can still arrive: no intent
                stands for it.
prove           reads the epoch of dual writes, then the list; nobody on it may write alone, or has died alone and may
                have sent what can still arrive. Then heals and verifies.
                What was found counts for as long as that epoch lasts.
durable         an answer counts when a majority has the write: by the write concern, or by asking for it afterwards.
                Where the term changed in between, the collection is in doubt until a verification that began later.
                What is healed, and which document an operation has found, is read from a primary that a majority
                confirms.
flip            one process announces it in the record that all share; each says whether it could take part. Then each
                holds new writes, waits for the writes and heals under way, and says so when the journal is empty and no
                request to the secondary can still arrive. When all have said it, one conditional write of the record
                exchanges the stores; each process changes over, and lets its writes go on. What is not decided within
                the limit is aborted in the same record, by whoever sees it first. One that begins meanwhile waits for
                the decision. A flip that nobody moves any more is ended by any process.

Assumptions
-----------

`limit` (`limits.operation`) covers one operation on the primary: to open the intent may take a quarter of it (what
took longer is opened again), a request takes effect within five eighths of it or never (both requests of a batch
together: the server's limit of time is that of the operation), and the clocks of two processes differ by at most an
eighth. No process stands still for that long between two steps without noticing. All faults end.

A flip is made with no backfill running, where both stores are proven to be equal. No request of before it may land on
the store that followed: a replay or a copy that expects nothing at all would find that again after a deletion there,
for the primary keeps no tombstones. Hence no flip within `limits.in_flight_timeout` of a request that was given up on,
nor during a heal.

Faults
------

Of the servers: a request that is refused, lost, without an answer, late, answered late (`dawdling`), hung, or answered
with a write concern error; an outage; an image that cannot be read; a secondary that makes something else of an
operation (`wrong`). A replica set that is divided: an old primary acknowledges what is rolled back (see `replicas`).
Of the processes: a crash, also at a named point; an end and a new beginning; an event loop that ends, and another one
in the same process; callers that are cancelled; clocks that differ, and a wall clock that somebody sets.
Of the journal: a commit that fails or is slow. Of the fleet (see
`fleets`): a control store that is down, for all or for one process alone; files that ask one process, or all of them,
for another phase while their callers write.

Not played: how soon the claims of an event loop end with it, which `tests/faults/test_short_loops.py` has; upserts by a
filter that two processes make at once on a primary that does not find the document by itself.

Invariants
----------

While it runs:

1. Versions only ever rise: no state comes back in history(k). One that the driver's own calls give does as long as one
   store is written alone, for it names that time (before all dual writes: no version at all); no more, once both were
   written while it stood there. So it never comes to the secondary before that.
2. The secondary only ever moves forward: every secondary(k) is a member of history(k), and never an earlier one than
   the one before it. (Where the secondary itself has made something else of a replayed operation, the version is; and
   a document that is set aside stands where it stood before that.)
3. `strict`: when the caller is told that it is done, the secondary has come as far as that write.
4. Callers hear the drivers' errors and shadow's own, and nothing else; nothing fails inside but what was made to.
5. No false alarm: without a backfill to be done, no comparison comes to `mismatch`.

6. A gate that would pass tells the truth: while the journal is empty, nothing is in doubt, and what was proven counts,
   both are equal.
7. No bare write lands while both stores are written, and none hides behind a version that both may have.
8. A flip is decided while every process holds its writes and the journal is empty, and no write is asked of the store
   that is not primary.

Once the faults have ended, within a bounded time:

9. Both are equal: the same document at the same version, or no document in either.
10. No acknowledged write is lost or doubled: what was acknowledged as done is in history(k) exactly once, what was
   refused never, what is unknown at most once. A counter holds what was acknowledged, and what is unknown at most.
11. The journal is empty: intents = deferred = {}.
12. What was acknowledged and rolled back is in doubt, or was verified since; a verification takes the doubt back.
13. The fleet comes to dual writes when all files ask for them, and a proof is made.
14. All processes have the primary of the record, and no flip is under way.
15. No task is left when the runtimes are closed.

`mutations` and `flip_mutations` weaken these rules one by one; each of them is then seen to break one of the
invariants.
"""
