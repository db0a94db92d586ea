"""The HTTP side of the sample backend."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from bson import ObjectId
from bson.errors import InvalidId
from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Query, Request, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pymongo.errors import DuplicateKeyError

from shadow.embedded.notesllm import models, passwords
from shadow.embedded.notesllm.notes import Database, Notes

__all__ = ["create_app"]

router = APIRouter()
_bearer = HTTPBearer(auto_error=False)


def create_app(
    database: Database,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None,
    password_cost: int = passwords.DEFAULT_COST,
    notes: Any = None,
) -> FastAPI:
    """The application over `database`: Motor's database object, or whatever has its surface.

    `notes`: used in place of `Notes(database)`, the twin on Beanie for example. `password_cost` is scrypt's `n`, a
    power of two; tests and load generators take a low one.
    """
    app = FastAPI(title="NotesLLM", lifespan=lifespan)
    app.state.notes = notes or Notes(database)
    app.state.password_cost = password_cost
    app.include_router(router)
    return app


def _notes(request: Request) -> Notes:
    notes: Notes = request.app.state.notes
    return notes


NotesOf = Annotated[Notes, Depends(_notes)]


async def _current_user(
    notes: NotesOf, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> dict[str, Any]:
    """The user of the token: "id.secret". By the id it is one read by key, whatever the database."""
    refused = HTTPException(status.HTTP_401_UNAUTHORIZED, "log in first", {"WWW-Authenticate": "Bearer"})
    user_id, _, secret = (given.credentials if given else "").partition(".")
    if not ObjectId.is_valid(user_id):
        raise refused
    user = await notes.user_by_id(ObjectId(user_id))
    if user is None or "session" not in user or not passwords.secret_matches(secret, user["session"]["hash"]):
        raise refused
    return user


CurrentUser = Annotated[dict[str, Any], Depends(_current_user)]


def _document_id(document_id: str) -> ObjectId:
    try:
        return ObjectId(document_id)
    except InvalidId:
        raise _not_found() from None


DocumentId = Annotated[ObjectId, Depends(_document_id)]


def _not_found() -> HTTPException:
    return HTTPException(status.HTTP_404_NOT_FOUND, "no such document")


@router.post("/users", status_code=status.HTTP_201_CREATED)
async def register(new: models.NewUser, notes: NotesOf, request: Request) -> models.User:
    """Adds a user; 409 if the email is taken."""
    hashed = await passwords.hash_password(new.password, request.app.state.password_cost)
    try:
        user = await notes.add_user(new.email, new.name, hashed)
    except DuplicateKeyError:
        user = None
    if user is None:
        raise HTTPException(status.HTTP_409_CONFLICT, "this email is taken")
    return models.User.of(user)


@router.post("/login")
async def log_in(credentials: models.Credentials, notes: NotesOf) -> models.Token:
    """A token for the Authorization header; it ends the user's earlier one. 401 if email or password is wrong."""
    user = await notes.user_by_email(credentials.email)
    if user is None or not await passwords.verify_password(credentials.password, user["password"]):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "email or password is wrong")
    secret, hashed = passwords.new_secret()
    await notes.open_session(user["_id"], hashed)
    return models.Token(token=f"{user['_id']}.{secret}")


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT)
async def log_out(user: CurrentUser, notes: NotesOf) -> None:
    await notes.close_session(user["_id"])


@router.get("/me")
async def read_profile(user: CurrentUser) -> models.User:
    return models.User.of(user)


@router.patch("/me")
async def change_profile(change: models.Profile, user: CurrentUser, notes: NotesOf) -> models.User:
    paths = {"name": "name", "theme": "settings.theme", "language": "settings.language"}
    given = {paths[name]: getattr(change, name) for name in change.model_fields_set}
    values = {path: value for path, value in given.items() if value is not None}
    removed = [path for path, value in given.items() if value is None and path != "name"]
    await notes.change_user(user["_id"], values, removed)
    return models.User.of(await notes.user_by_id(user["_id"]) or user)


@router.post("/documents", status_code=status.HTTP_201_CREATED)
async def upload(draft: models.NewDocument, user: CurrentUser, notes: NotesOf) -> models.Document:
    (document,) = await notes.add_documents(user["_id"], [draft.model_dump()])
    return models.Document.of(document)


@router.post("/documents/batch", status_code=status.HTTP_201_CREATED)
async def upload_many(
    drafts: Annotated[list[models.NewDocument], Body(min_length=1, max_length=100)],
    user: CurrentUser,
    notes: NotesOf,
) -> list[models.Document]:
    documents = await notes.add_documents(user["_id"], [draft.model_dump() for draft in drafts])
    return [models.Document.of(document) for document in documents]


@router.get("/documents")
async def list_documents(
    user: CurrentUser,
    notes: NotesOf,
    state: Annotated[models.Status | None, Query(alias="status")] = None,
    since: dt.datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    skip: Annotated[int, Query(ge=0)] = 0,
) -> list[models.Document]:
    """The user's documents, the newest first."""
    moment = since.astimezone(dt.UTC).replace(tzinfo=None) if since and since.tzinfo else since
    found = await notes.documents_of(user["_id"], status=state, since=moment, limit=limit, skip=skip)
    return [models.Document.of(document) for document in found]


@router.get("/documents/{document_id}")
async def read_document(document_id: DocumentId, user: CurrentUser, notes: NotesOf) -> models.DocumentDetail:
    document = await notes.document(document_id, user["_id"])
    if document is None:
        raise _not_found()
    return models.DocumentDetail.of(document)


@router.patch("/documents/{document_id}")
async def rename_document(
    document_id: DocumentId, change: models.Rename, user: CurrentUser, notes: NotesOf
) -> models.DocumentDetail:
    if not await notes.rename(document_id, user["_id"], change.title):
        raise _not_found()
    return await read_document(document_id, user, notes)


@router.put("/documents/{document_id}")
async def replace_document(
    document_id: DocumentId, draft: models.NewDocument, user: CurrentUser, notes: NotesOf
) -> models.DocumentDetail:
    if not await notes.replace_document(document_id, user["_id"], draft.model_dump()):
        raise _not_found()
    return await read_document(document_id, user, notes)


@router.post("/documents/{document_id}/pages", status_code=status.HTTP_201_CREATED)
async def add_page(
    document_id: DocumentId, page: models.Page, user: CurrentUser, notes: NotesOf
) -> models.DocumentDetail:
    if not await notes.add_page(document_id, user["_id"], page.text):
        raise _not_found()
    return await read_document(document_id, user, notes)


@router.delete("/documents/{document_id}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_document(document_id: DocumentId, user: CurrentUser, notes: NotesOf) -> None:
    if not await notes.delete_document(document_id, user["_id"]):
        raise _not_found()


@router.get("/documents/{document_id}/generated")
async def read_generated(document_id: DocumentId, user: CurrentUser, notes: NotesOf) -> list[models.Generated]:
    """The summary and the quiz, once the document is ready."""
    if await notes.document(document_id, user["_id"]) is None:
        raise _not_found()
    return [models.Generated.of(content) for content in await notes.generated_of(document_id)]


@router.get("/stats")
async def stats(notes: NotesOf) -> models.Stats:
    return models.Stats(**await notes.count())
