"""The twin of `notes.py` on Beanie: the same methods and the same stored fields, by documents of an ODM.

Like any application on Beanie it gets its database once, by `init_beanie`; each document then knows its collection.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from beanie import Document, PydanticObjectId, init_beanie
from beanie.operators import In, Inc, Set, Unset
from bson import ObjectId
from pydantic import BaseModel, Field
from pymongo import IndexModel

from shadow.embedded.notesllm.notes import Database, now

__all__ = ["BeanieNotes"]

Stored = dict[str, Any]


class Session(BaseModel):
    hash: str
    since: dt.datetime


class User(Document):
    email: str
    name: str
    password: str
    created_at: dt.datetime = Field(default_factory=now)
    updated_at: dt.datetime | None = None
    uploads: int = 0
    settings: dict[str, str] = Field(default_factory=lambda: {"theme": "light"})
    session: Session | None = None

    class Settings:
        name = "users"
        keep_nulls = False
        indexes: Final = [IndexModel("email", name="email-index")]


class Processing(BaseModel):
    since: dt.datetime


class Upload(Document):
    user_id: PydanticObjectId
    title: str
    text: str
    status: str = "uploaded"
    tags: list[str] = Field(default_factory=list)
    size: int
    pages: int = 1
    created_at: dt.datetime = Field(default_factory=now)
    updated_at: dt.datetime | None = None
    processing: Processing | None = None

    class Settings:
        name = "documents"
        keep_nulls = False
        indexes: Final = [IndexModel("user_id", name="user_id-index")]

    @classmethod
    def of(cls, user_id: ObjectId, draft: Mapping[str, Any]) -> Self:
        given = {name: draft[name] for name in ("title", "text", "tags")}
        return cls(user_id=user_id, size=len(draft["text"]), **given)


class Content(Document):
    document_id: PydanticObjectId
    kind: str
    body: str
    model: str
    tokens: int
    score: float
    created_at: dt.datetime = Field(default_factory=now)
    updated_at: dt.datetime = Field(default_factory=now)

    class Settings:
        name = "generated_content"
        indexes: Final = [IndexModel("document_id", name="document_id-index")]


def _stored(document: Document | None) -> Stored | None:
    if document is None:
        return None
    return {"_id": document.id, **document.model_dump(exclude_none=True, exclude={"id", "revision_id"})}


def _all(documents: Iterable[Document]) -> list[Stored]:
    return [stored for document in documents if (stored := _stored(document)) is not None]


class BeanieNotes:
    """What `notes.Notes` offers, over Beanie's documents. Made by `begin`."""

    @classmethod
    async def begin(cls, database: Database) -> Self:
        """`database`: that of PyMongo's async client, or whatever has its surface. Makes missing indexes."""
        given: Any = database
        await init_beanie(database=given, document_models=[User, Upload, Content])
        return cls()

    # Users.

    async def add_user(self, email: str, name: str, password_hash: str) -> Stored | None:
        """The new user; None if there is one with this email."""
        if await User.find(User.email == email).exists():
            return None
        return _stored(await User(email=email, name=name, password=password_hash).insert())

    async def user_by_email(self, email: str) -> Stored | None:
        return _stored(await User.find_one(User.email == email))

    async def user_by_id(self, user_id: ObjectId) -> Stored | None:
        return _stored(await User.get(user_id))

    async def open_session(self, user_id: ObjectId, secret_hash: str) -> None:
        session = Session(hash=secret_hash, since=now())
        await User.find_one(User.id == user_id).update(Set({User.session: session}))

    async def close_session(self, user_id: ObjectId) -> None:
        await User.find_one(User.id == user_id).update(Unset({User.session: ""}))

    async def change_user(self, user_id: ObjectId, values: Mapping[str, Any], removed: Iterable[str]) -> None:
        """Sets `values` and removes what is in `removed`; both by dotted path."""
        changes: list[Any] = [Set({**values, "updated_at": now()})]
        if gone := dict.fromkeys(removed, ""):
            changes.append(Unset(gone))
        await User.find_one(User.id == user_id).update(*changes)

    # Documents.

    async def add_documents(self, user_id: ObjectId, drafts: list[Mapping[str, Any]]) -> list[Stored]:
        """Stores title, text and tags of each draft as an uploaded document."""
        uploads = [Upload.of(user_id, draft) for draft in drafts]
        for upload in uploads:
            upload.id = PydanticObjectId()
        if len(uploads) == 1:
            await uploads[0].insert()
        else:
            await Upload.insert_many(uploads)
        await User.find_one(User.id == user_id).update(Inc({User.uploads: len(uploads)}))
        return _all(uploads)

    async def documents_of(
        self, user_id: ObjectId, *, status: str | None = None, since: dt.datetime | None = None, limit: int, skip: int
    ) -> list[Stored]:
        """A user's documents, the newest first."""
        query = Upload.find(Upload.user_id == user_id)
        if status is not None:
            query = query.find(Upload.status == status)
        if since is not None:
            query = query.find(Upload.created_at >= since)
        return _all(await query.sort("-created_at", "-_id").skip(skip).limit(limit).to_list())

    async def document(self, document_id: ObjectId, user_id: ObjectId) -> Stored | None:
        return _stored(await _of(document_id, user_id))

    async def rename(self, document_id: ObjectId, user_id: ObjectId, title: str) -> bool:
        result = await _of(document_id, user_id).update(Set({Upload.title: title, Upload.updated_at: now()}))
        return bool(result.matched_count)

    async def add_page(self, document_id: ObjectId, user_id: ObjectId, text: str) -> bool:
        """Puts a page at the end; the worker then takes the document up again."""
        while (upload := await _of(document_id, user_id)) is not None:
            unchanged = _of(document_id, user_id).find_one(Upload.pages == upload.pages)
            change = {Upload.text: f"{upload.text}\n{text}", Upload.status: "uploaded", Upload.updated_at: now()}
            result = await unchanged.update(Inc({Upload.pages: 1, Upload.size: len(text) + 1}), Set(change))
            if result.matched_count:
                return True
        return False

    async def replace_document(self, document_id: ObjectId, user_id: ObjectId, draft: Mapping[str, Any]) -> bool:
        if await _of(document_id, user_id) is None:
            return False
        upload = Upload.of(user_id, draft)
        upload.id = PydanticObjectId(document_id)
        result = await _of(document_id, user_id).replace_one(upload)
        return bool(result.matched_count)

    async def delete_document(self, document_id: ObjectId, user_id: ObjectId) -> bool:
        """Deletes the document and what was generated of it."""
        if not (await _of(document_id, user_id).delete()).deleted_count:
            return False
        async for content in Content.find(Content.document_id == document_id):
            await content.delete()
        return True

    # The worker's part.

    async def waiting(self, limit: int, abandoned_since: dt.datetime) -> list[Stored]:
        """The documents that wait longest, then those whose worker went away before `abandoned_since`."""
        fresh = await Upload.find(Upload.status == "uploaded").sort("created_at").limit(limit).to_list()
        if fresh:
            return _all(fresh)
        stale = {"processing.since": {"$lt": abandoned_since}}
        abandoned = Upload.find(In(Upload.status, ["processing"]), stale)
        return _all(await abandoned.limit(limit).to_list())

    async def claim(self, document: Stored) -> bool:
        """Takes a document for this worker. False if it has changed hands since it was read."""
        unchanged = Upload.find_one(
            Upload.id == document["_id"], Upload.status == document["status"], Upload.pages == document["pages"]
        )
        result = await unchanged.update(Set({Upload.status: "processing", "processing.since": now()}))
        return bool(result.modified_count)

    async def finish(self, document_id: ObjectId) -> None:
        """Marks a document as ready, unless it has been changed or deleted while it was worked on."""
        claimed = Upload.find_one(Upload.id == document_id, Upload.status == "processing")
        await claimed.update(Set({Upload.status: "ready", Upload.updated_at: now()}), Unset({Upload.processing: ""}))

    async def save_generated(self, document_id: ObjectId, kind: str, content: Mapping[str, Any]) -> None:
        """Puts the content of one kind in the place of what there was."""
        there = Content.find_one(Content.document_id == document_id, Content.kind == kind)
        new = Content(document_id=PydanticObjectId(document_id), kind=kind, **content)
        await there.upsert(Set({**content, "updated_at": now()}), on_insert=new)

    async def generated_of(self, document_id: ObjectId) -> list[Stored]:
        found = await Content.find(Content.document_id == document_id).to_list()
        return sorted(_all(found), key=lambda content: str(content["kind"]))

    # Figures.

    async def count(self) -> dict[str, int]:
        """How many there are of each thing, by the names of `models.Stats`."""
        states = ("uploaded", "processing", "ready")
        return {
            "users": await User.count(),
            "documents": await Upload.count(),
            **{state: await Upload.find(Upload.status == state).count() for state in states},
            "generated": await Content.count(),
        }


def _of(document_id: ObjectId, user_id: ObjectId) -> Any:
    return Upload.find_one(Upload.id == document_id, Upload.user_id == user_id)
