"""What the API of the sample backend takes and gives. Ids are the hex form of ObjectIds, times are UTC."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = [
    "Credentials",
    "Document",
    "DocumentDetail",
    "Generated",
    "NewDocument",
    "NewUser",
    "Page",
    "Profile",
    "Rename",
    "Stats",
    "Status",
    "Token",
    "User",
]

Status = Literal["uploaded", "processing", "ready"]
Email = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, pattern=r"^[^@\s]+@[^@\s]+$")]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class _Stored(BaseModel):
    """Something read from the database: `_id` and references become strings."""

    model_config = ConfigDict(extra="ignore")
    id: str

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        references = {name: str(document[name]) for name in ("user_id", "document_id") if name in document}
        return cls.model_validate({**document, **references, "id": str(document["_id"])})


class Credentials(BaseModel):
    email: Email
    password: str = Field(min_length=8, max_length=200)


class NewUser(Credentials):
    name: str = Field(default="", max_length=100)


class Token(BaseModel):
    token: str


class Profile(BaseModel):
    """What a user may change; omitted fields stay, a null theme is removed."""

    name: str | None = Field(default=None, max_length=100)
    theme: Literal["light", "dark"] | None = None
    language: str | None = Field(default=None, max_length=10)


class User(_Stored):
    email: str
    name: str
    settings: dict[str, str]
    uploads: int
    created_at: dt.datetime


class NewDocument(BaseModel):
    title: Title
    text: str = Field(min_length=1)
    tags: list[str] = Field(default_factory=list, max_length=20)


class Rename(BaseModel):
    title: Title


class Page(BaseModel):
    text: str = Field(min_length=1)


class Document(_Stored):
    user_id: str
    title: str
    status: Status
    tags: list[str]
    size: int
    pages: int
    created_at: dt.datetime


class DocumentDetail(Document):
    text: str


class Generated(_Stored):
    document_id: str
    kind: Literal["summary", "quiz"]
    body: str
    model: str
    tokens: int
    score: float
    created_at: dt.datetime


class Stats(BaseModel):
    users: int
    documents: int
    uploaded: int
    processing: int
    ready: int
    generated: int
