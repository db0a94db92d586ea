"""The known differences between MongoDB's answers and those of a collection whose primary is DynamoDB.

The numbers are permanent. The manual's list is generated from this one, and `tests/compat/test_known_differences.py`
has a test for each number, which shows the difference on the real servers, or what holds instead.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DIFFERENCES"]

DIFFERENCES: Final[dict[int, str]] = {
    1: "An expression that fails for some document: the server may not evaluate it for that document at all.",
    2: "Groups and `$addToSet` have the order of first occurrence; the server's order is that of a hash table.",
    3: "A field that one stage removes and a later one adds again: the server may restore its old position.",
    4: "`as` of `$lookup` over an existing field: at its position or at the end, depending on the server's engine.",
    5: "The error code of a call with several faults, or of `$group` in the server's other engine, may differ.",
    6: "The server rewrites pipelines: `$sort` before `$unwind`, `$unwind` after `$project` sees holes, fields move.",
    7: "The server garbles MinKey, MaxKey and code in `$group` and `$lookup`, loses elements where a `$sort` or "
    "a `localField` by position (`a.0`) precedes `$project` or `$group`, and the local field where `as` of `$lookup` "
    "is under it; here they are kept.",
    8: "An upsert whose filter can never match (`$all: []`, `$alwaysFalse`) is refused; the server inserts.",
    9: "Error texts are shadow's own: they name paths and types, never a value. Classes, codes, `keyPattern` and "
    "`keyValue` are the server's.",
    10: "Without a sort, documents come in DynamoDB's order, that of a hash. `update_one` and `delete_one` choose "
    "among several matches by it. Documents that `$lookup` joins come in the order of their keys.",
    11: "On real DynamoDB, reads through an index are eventually consistent, unless `verify_index_reads` is set; reads "
    "by key and scans are consistent. DynamoDB Local is consistent everywhere.",
    12: "`estimated_document_count` counts exactly, by reading the table.",
    13: "`drop` deletes the documents one by one and keeps the table; the indexes end, but for the unique ones of the "
    "configuration. `index_information` still shows these and that of `_id`.",
    14: "Tombstones and other expired items are deleted by DynamoDB within days, not a minute; no read shows them.",
    15: "`update_many` that fails at a document: documents are changed in another order and partly in parallel, so "
    "other documents may have been changed before the failure.",
    16: "`sort` in `update_one` and `replace_one` works with every server; MongoDB has it from 8.0 on.",
    17: "A NaN loses its sign and payload.",
    18: "`modified_count` counts the documents that differ afterwards; the server also counts one that a "
    "`$push` with `$slice` or `$sort` leaves unchanged.",
    19: "An update of a document with BSON that PyMongo does not reproduce (undefined, symbol, a duplicate name, a "
    "DBRef in another order) keeps what the driver reads; the server keeps the bytes of untouched fields.",
    25: "A transaction sees no snapshot: each read shows the newest documents, with the transaction's own writes over "
    "them. It conflicts if a document that it writes has changed since it first read it, at the statement or at the "
    "commit.",
    26: "A transaction writes at most 100 items, unique values included, of 4 MB together. The statement beyond that "
    "is refused, and the transaction can still be committed.",
    27: "A transaction is on one store: one over collections with different primaries, or over one that is not "
    "configured, is refused, and nothing of it is written.",
    30: "Time zones are those of this host's tz database; the server has its own, so local times may differ where the "
    "rules of a zone were changed or corrected in between.",
    31: "`$exp`, `$ln`, `$log`, `$pow`, `$sin` and their like use the C library of this host: the last digit may "
    "differ from that of another host.",
    32: "`$sortArray` keeps equal elements in their order; the server may not if there are more than 16.",
    33: "What `$graphLookup` finds comes step by step, each step in the order of the keys; the server's order is that "
    "of a hash table.",
    45: "`create_index` of a unique index that the configuration has returns its name, and no call drops it. Other "
    "indexes are listed, created and dropped as by a server, and do nothing: queries use those of the configuration.",
    46: "Documents that expire (`expires`) are hidden at once, and no write finds them; the server's monitor deletes "
    "them within a minute. A join shows what has expired in the other collection, until DynamoDB deletes it.",
    430: "The DuplicateKeyError of a unique index with a collation has the document's own values in `keyValue`; the "
    "server has its sort keys there, in hexadecimal.",
    450: "`$covariancePop` and `$covarianceSamp` over a window that slides (`documents: [-1, 0]`), of decimals among "
    "which are infinities or NaN: after such a pair has left the window, MongoDB 6.0 may round the covariance to a "
    "whole number.",
    451: "`$densify` with given bounds fills every partition; MongoDB 6.0 omits some whose values are all below them. "
    "Where equal numbers have several types, the type of the added ones and of the fields of their partition, and the "
    "order of partitions, may differ.",
    470: "`$out` into a configured collection does not replace it at once: new documents are written one by one, then "
    "what is not in the result is deleted. Meanwhile readers see both, and after an error both are there.",
    510: "`create_collection` after `drop` or `drop_database` raises CollectionInvalid: `drop` empties the collection. "
    "So it is too while MongoDB is the primary and the collection is written to both stores.",
    530: "A view is MongoDB's, also over a configured collection: it shows what has been replicated there, a moment "
    "later than DynamoDB, and with `phase: off` what was there before. A pipeline over it cannot join the collection.",
    560: "A read preference chooses nobody: DynamoDB answers, with the newest documents, also for tags that no member "
    "of MongoDB has, and where the server refuses the preference.",
    561: "The read concern `snapshot` is refused, and `linearizable` too unless the read is by `_id` and joins "
    "nothing. In a transaction neither has an effect, as with the drivers.",
    580: "`distinct` returns a DBRef whose parts are in another order (`$id` first) in the driver's order. Only raw "
    "documents (`RawBSONDocument`) show it.",
}
"""By number, each in one or two sentences for people who must decide whether it matters to them."""
