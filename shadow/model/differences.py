"""The known differences between MongoDB's answers and those of a collection whose primary is DynamoDB.

Numbered once for all: the manual's list is made from this list, and `tests/compat/test_known_differences.py` has a
test of the same number for each, which shows the difference on the real servers, or what holds instead.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DIFFERENCES"]

DIFFERENCES: Final[dict[int, str]] = {
    1: "An expression that fails on some document: the server may decide the document before it gets there, or after.",
    2: "Groups and `$addToSet` come in the order in which they were met; the server's is that of a hash table.",
    3: "A field that one stage removes and a later one adds again: the server may give it its old place back.",
    4: "`as` of `$lookup` over a field that exists: in its place, or at the end, depending on the server's engine.",
    5: "The code of an error where a call has several faults, or where the server's other engine evaluates `$group`.",
    6: "The server rewrites pipelines: `$sort` before `$unwind`, `$unwind` after `$project` sees holes, fields move.",
    7: "The server garbles MinKey, MaxKey and code in `$group` and `$lookup`, loses elements where a `$sort` or "
    "a `localField` by position (`a.0`) precedes `$project` or `$group`, and the local field where `as` of `$lookup` "
    "is under it; here they are kept.",
    8: "An upsert whose filter can never match (`$all: []`, `$alwaysFalse`) is refused by name; the server inserts.",
    9: "The text of an error is ours: it names paths and types, never a value. Classes, codes, `keyPattern` and "
    "`keyValue` are the server's.",
    10: "Without a sort, documents come in DynamoDB's order, which is that of a hash, and so do the documents that "
    "`update_one` or `delete_one` choose among several; those that `$lookup` joins come in the order of their keys.",
    11: "On real DynamoDB, reads through an index are eventually consistent, unless `verify_index_reads` is set; reads "
    "by key and scans are consistent. DynamoDB Local is consistent everywhere.",
    12: "`estimated_document_count` counts exactly, and reads the table for it.",
    13: "`drop` deletes the documents one by one and keeps table and indexes; `index_information` says so after it.",
    14: "Tombstones and other expired items are deleted by DynamoDB within days, not a minute; no read shows them.",
    15: "`update_many` that fails at one document: documents are changed in another order, some at once, so others may "
    "have been changed by then.",
    16: "`sort` in `update_one` and `replace_one` works with every server; MongoDB knows it from 8.0 on.",
    17: "A NaN loses its sign and payload.",
    18: "`modified_count` counts the documents that are different afterwards; the server also counts one that a "
    "`$push` with `$slice` or `$sort` has left as it was.",
    19: "An update of a document with BSON that Python's driver does not give back as it is (undefined, symbol, a name "
    "twice, a DBRef in another order) keeps what the driver reads; the server keeps the bytes of what it leaves alone.",
}
"""Number to one sentence, or two, for people who decide whether it matters to them."""
