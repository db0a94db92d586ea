"""The documents of the application on Beanie (`beanie_app.py`), one after the other what its manual describes."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from typing import Annotated, Any

import pymongo
from beanie import (
    BackLink,
    DecimalAnnotation,
    Delete,
    Document,
    DocumentWithSoftDelete,
    Indexed,
    Insert,
    Link,
    Replace,
    SaveChanges,
    UnionDoc,
    Update,
    ValidateOnSave,
    View,
    after_event,
    before_event,
)
from pydantic import BaseModel, Field, field_validator
from pymongo import IndexModel

__all__ = ["COLLECTIONS", "MODELS"]

BORN = dt.datetime(1815, 12, 10, 1, 2, 3, 456000)


class Role(enum.StrEnum):
    author = "author"
    reader = "reader"


class Address(BaseModel):
    street: str
    city: str = "London"


class Person(Document):
    name: Annotated[str, Indexed(unique=True)]
    age: int = 30
    born: dt.datetime = BORN
    role: Role = Role.reader
    tags: list[str] = Field(default_factory=list)
    address: Address | None = None
    scores: dict[str, float] = Field(default_factory=dict)

    class Settings:
        name = "people"
        indexes = [  # noqa: RUF012
            IndexModel([("age", pymongo.DESCENDING), ("name", pymongo.ASCENDING)], name="age-name"),
            "role",
        ]


class Name(BaseModel):
    name: str


class AgeOf(BaseModel):
    role: str = Field(alias="_id")
    mean: float
    count: int


class Adults(View):
    name: str
    age: int

    class Settings:
        source = Person
        pipeline = [{"$match": {"age": {"$gte": 18}}}, {"$project": {"name": 1, "age": 1}}]  # noqa: RUF012


class Window(Document):
    x: int
    y: int = 10


class Door(Document):
    height: int = 2
    window: Link[Window] | None = None


class House(Document):
    name: str
    door: Link[Door]
    windows: list[Link[Window]] = Field(default_factory=list)

    class Settings:
        name = "houses"


class Owner(Document):
    name: str
    pets: list[Link[Pet]] = Field(default_factory=list)


class Pet(Document):
    name: str
    owner: BackLink[Owner] = Field(json_schema_extra={"original_field": "pets"})


class Vehicle(Document):
    color: str

    class Settings:
        is_root = True


class Car(Vehicle):
    doors: int = 4


class Bus(Car):
    seats: int = 50


class Thing(UnionDoc):
    class Settings:
        name = "union"


class Cup(Document):
    volume: int

    class Settings:
        union_doc = Thing


class Plate(Document):
    size: int

    class Settings:
        union_doc = Thing


class Draft(DocumentWithSoftDelete):
    title: str


class Counted(Document):
    title: str
    steps: list[str] = Field(default_factory=list)
    length: int = 0

    @field_validator("title")
    @classmethod
    def not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("it is empty")
        return value

    @before_event(Insert, Replace, SaveChanges)
    def measure(self) -> None:
        self.length = len(self.title)
        self.steps.append("before")

    @after_event(Insert)
    async def told(self) -> None:
        self.steps.append("after insert")

    @before_event(Delete, Update, ValidateOnSave)
    def other(self) -> None:
        self.steps.append("other")

    class Settings:
        use_state_management = True
        state_management_save_previous = True
        validate_on_save = True


class Revised(Document):
    n: int

    class Settings:
        use_revision = True


class Remembered(Document):
    n: int

    class Settings:
        use_cache = True


class Lazy(Document):
    n: int
    text: str = "x"

    class Settings:
        lazy_parsing = True


class Typed(Document):
    price: DecimalAnnotation
    ident: uuid.UUID
    span: dt.timedelta
    day: dt.date
    words: set[str]
    raw: bytes
    anything: Any = None

    class Settings:
        bson_encoders = {dt.date: lambda day: dt.datetime(day.year, day.month, day.day)}  # noqa: RUF012


class ById(Document):
    id: str  # type: ignore[assignment]
    n: int


class OldNote(Document):
    name: str

    class Settings:
        name = "notes"


class NewNote(Document):
    title: str
    name: str | None = None

    class Settings:
        name = "notes"


MODELS: list[Any] = [
    Person, Adults, Window, Door, House, Owner, Pet, Vehicle, Car, Bus, Thing, Cup, Plate, Draft, Counted, Revised,
    Remembered, Lazy, Typed, ById, OldNote, NewNote,
]  # fmt: skip
COLLECTIONS = (
    "people", "Window", "Door", "houses", "Owner", "Pet", "Vehicle", "union", "Draft", "Counted", "Revised",
    "Remembered", "Lazy", "Typed", "ById", "notes",
)  # fmt: skip
for _model in (Owner, Pet):
    _model.model_rebuild()
