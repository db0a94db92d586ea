"""Everything that the sample backend asks of its database, and the shape of what it stores.

users              email, name, password, created_at, uploads, settings {theme, language}, session {hash, since}
documents          user_id, title, text, status, tags, size, pages, created_at, updated_at, processing {since}
generated_content  document_id, kind, body, model, tokens, score, created_at, updated_at
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from bson import ObjectId

__all__ = ["Database", "Notes", "now"]

Stored = dict[str, Any]


class Database(Protocol):
    """What Motor's database object offers of this: a collection by its name."""

    def __getitem__(self, name: str, /) -> Any: ...


def now() -> dt.datetime:
    """The time in UTC, without a zone and to the millisecond, as MongoDB gives it back."""
    moment = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Notes:
    """The three collections. Methods that look for one thing return None, or False, if it is not there."""

    def __init__(self, database: Database) -> None:
        self.users = database["users"]
        self.documents = database["documents"]
        self.generated = database["generated_content"]

    # Users.

    async def add_user(self, email: str, name: str, password_hash: str) -> Stored | None:
        """The new user; None if there is one with this email."""
        if await self.users.find_one({"email": email}) is not None:
            return None
        user: Stored = {
            "email": email,
            "name": name,
            "password": password_hash,
            "created_at": now(),
            "uploads": 0,
            "settings": {"theme": "light"},
        }
        result = await self.users.insert_one(user)
        return {**user, "_id": result.inserted_id}

    async def user_by_email(self, email: str) -> Stored | None:
        user: Stored | None = await self.users.find_one({"email": email})
        return user

    async def user_by_id(self, user_id: ObjectId) -> Stored | None:
        user: Stored | None = await self.users.find_one({"_id": user_id})
        return user

    async def open_session(self, user_id: ObjectId, secret_hash: str) -> None:
        session = {"session.hash": secret_hash, "session.since": now()}
        await self.users.update_one({"_id": user_id}, {"$set": session})

    async def close_session(self, user_id: ObjectId) -> None:
        await self.users.update_one({"_id": user_id}, {"$unset": {"session": ""}})

    async def change_user(self, user_id: ObjectId, values: Mapping[str, Any], removed: Iterable[str]) -> None:
        """Sets `values` and removes what is in `removed`; both by dotted path."""
        update = {"$set": {**values, "updated_at": now()}, "$unset": dict.fromkeys(removed, "")}
        await self.users.update_one({"_id": user_id}, {name: change for name, change in update.items() if change})

    # Documents.

    async def add_documents(self, user_id: ObjectId, drafts: list[Mapping[str, Any]]) -> list[Stored]:
        """Stores title, text and tags of each draft as an uploaded document."""
        documents = [_document(user_id, draft) for draft in drafts]
        if len(documents) == 1:
            await self.documents.insert_one(documents[0])
        else:
            await self.documents.insert_many(documents)
        await self.users.update_one({"_id": user_id}, {"$inc": {"uploads": len(documents)}})
        return documents

    async def documents_of(
        self, user_id: ObjectId, *, status: str | None = None, since: dt.datetime | None = None, limit: int, skip: int
    ) -> list[Stored]:
        """A user's documents, the newest first."""
        query: Stored = {"user_id": user_id}
        if status is not None:
            query["status"] = status
        if since is not None:
            query["created_at"] = {"$gte": since}
        cursor = self.documents.find(query).sort([("created_at", -1), ("_id", -1)]).skip(skip).limit(limit)
        found: list[Stored] = await cursor.to_list(limit)
        return found

    async def document(self, document_id: ObjectId, user_id: ObjectId) -> Stored | None:
        document: Stored | None = await self.documents.find_one({"_id": document_id, "user_id": user_id})
        return document

    async def rename(self, document_id: ObjectId, user_id: ObjectId, title: str) -> bool:
        change = {"$set": {"title": title, "updated_at": now()}}
        result = await self.documents.update_one({"_id": document_id, "user_id": user_id}, change)
        return bool(result.matched_count)

    async def add_page(self, document_id: ObjectId, user_id: ObjectId, text: str) -> bool:
        """Puts a page at the end; the worker then takes the document up again."""
        while (document := await self.document(document_id, user_id)) is not None:
            unchanged = {"_id": document_id, "user_id": user_id, "pages": document["pages"]}
            change = {
                "$inc": {"pages": 1, "size": len(text) + 1},
                "$set": {"text": f"{document['text']}\n{text}", "status": "uploaded", "updated_at": now()},
            }
            if (await self.documents.update_one(unchanged, change)).matched_count:
                return True
        return False

    async def replace_document(self, document_id: ObjectId, user_id: ObjectId, draft: Mapping[str, Any]) -> bool:
        document = _document(user_id, draft)
        result = await self.documents.replace_one({"_id": document_id, "user_id": user_id}, document)
        return bool(result.matched_count)

    async def delete_document(self, document_id: ObjectId, user_id: ObjectId) -> bool:
        """Deletes the document and what was generated of it."""
        result = await self.documents.delete_one({"_id": document_id, "user_id": user_id})
        if not result.deleted_count:
            return False
        async for content in self.generated.find({"document_id": document_id}):
            await self.generated.delete_one({"_id": content["_id"]})
        return True

    # The worker's part.

    async def waiting(self, limit: int, abandoned_since: dt.datetime) -> list[Stored]:
        """The documents that wait longest, then those whose worker went away before `abandoned_since`."""
        fresh: list[Stored] = await (
            self.documents.find({"status": "uploaded"}).sort("created_at", 1).limit(limit).to_list(limit)
        )
        if fresh:
            return fresh
        abandoned = {"status": {"$in": ["processing"]}, "processing.since": {"$lt": abandoned_since}}
        stale: list[Stored] = await self.documents.find(abandoned).limit(limit).to_list(limit)
        return stale

    async def claim(self, document: Stored) -> bool:
        """Takes a document for this worker. False if it has changed hands since it was read."""
        unchanged = {"_id": document["_id"], "status": document["status"], "pages": document["pages"]}
        change = {"$set": {"status": "processing", "processing.since": now()}}
        result = await self.documents.update_one(unchanged, change)
        return bool(result.modified_count)

    async def finish(self, document_id: ObjectId) -> None:
        """Marks a document as ready, unless it has been changed or deleted while it was worked on."""
        change = {"$set": {"status": "ready", "updated_at": now()}, "$unset": {"processing": ""}}
        await self.documents.update_one({"_id": document_id, "status": "processing"}, change)

    async def save_generated(self, document_id: ObjectId, kind: str, content: Mapping[str, Any]) -> None:
        """Puts the content of one kind in the place of what there was."""
        moment = now()
        change = {"$set": {**content, "updated_at": moment}, "$setOnInsert": {"created_at": moment}}
        await self.generated.update_one({"document_id": document_id, "kind": kind}, change, upsert=True)

    async def generated_of(self, document_id: ObjectId) -> list[Stored]:
        found: list[Stored] = await self.generated.find({"document_id": document_id}).to_list(100)
        return sorted(found, key=lambda content: str(content["kind"]))

    # Figures.

    async def count(self) -> dict[str, int]:
        """How many there are of each thing, by the names of `models.Stats`."""
        states = ("uploaded", "processing", "ready")
        return {
            "users": await self.users.count_documents({}),
            "documents": await self.documents.count_documents({}),
            **{state: await self.documents.count_documents({"status": state}) for state in states},
            "generated": await self.generated.count_documents({"body": {"$exists": True}}),
        }


def _document(user_id: ObjectId, draft: Mapping[str, Any]) -> Stored:
    return {
        "user_id": user_id,
        "title": draft["title"],
        "text": draft["text"],
        "status": "uploaded",
        "tags": list(draft["tags"]),
        "size": len(draft["text"]),
        "pages": 1,
        "created_at": now(),
    }
