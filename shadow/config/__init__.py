"""The settings: a YAML file and the environment, validated together. The environment overrides the file.

Every key can be set in the environment: `SHADOW_` and the path in capitals, joined by `_`
(`SHADOW_MONGO_URL`, `SHADOW_DEFAULTS_PHASE`, `SHADOW_COLLECTIONS_USERS_PRIMARY`). `SHADOW_COLLECTIONS` takes the whole
section as JSON. Shorthands: `USE_DYNAMODB`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_SESSION_TOKEN`.
"""

from shadow.config.fields import revealed
from shadow.config.reading import load, parse
from shadow.config.sections import (
    AdminSettings,
    ControlSettings,
    Defaults,
    IndexSettings,
    JournalSettings,
    MetricsOutput,
    MongoSettings,
    ObserveSettings,
    ReadsSettings,
    UniqueSettings,
)
from shadow.config.settings import CollectionSettings, Settings, where
from shadow.stores.dynamo.client.settings import DynamoSettings

__all__ = [
    "AdminSettings",
    "CollectionSettings",
    "ControlSettings",
    "Defaults",
    "DynamoSettings",
    "IndexSettings",
    "JournalSettings",
    "MetricsOutput",
    "MongoSettings",
    "ObserveSettings",
    "ReadsSettings",
    "Settings",
    "UniqueSettings",
    "load",
    "parse",
    "revealed",
    "where",
]
