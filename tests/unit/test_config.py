"""The settings: every fault at once, the environment over the file, and no secret anywhere."""

from __future__ import annotations

import copy
import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pydantic import BaseModel, SecretStr, ValidationError

from shadow.config import CollectionSettings, MetricsOutput, MongoSettings, ReadsSettings, Settings, load, parse
from shadow.config.fields import as_duration
from shadow.config.hooks import HookSettings
from shadow.control.place import DynamoPlace, MongoPlace, SqlitePlace
from shadow.errors import ConfigurationError, Fault
from shadow.journal.server.dynamo_table import Access
from shadow.model.limits import Watch
from shadow.model.phase import Phase, ReadShares, Route, StoreName, Unsupported, WriteMode
from shadow.model.schema import Billing, CollationSpec, CollectionSpec, IndexSpec, TableSpec, UniqueSpec
from shadow.stores.dynamo.client.settings import TableSettings
from shadow.stores.mongo.durability import WeakWrites
from shadow.writes.intents import OnFailure
from tests.support.cases import each_of

SAMPLE: Final = Path(__file__).parents[2] / "config" / "shadow.yaml"


def read(text: str, **environment: str) -> Settings:
    return parse(text, environment)


def faults(text: str, **environment: str) -> tuple[Fault, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(text, **environment)
    return caught.value.faults


# --- faults -----------------------------------------------------------------------------------------------------


def test_three_faults_are_three_messages_each_with_field_value_and_what_would_be_right() -> None:
    text = """
    defaults: {phase: shaddow, shadow_reads: 1.5}
    collections: {users: {primary: postgres}}
    """
    with pytest.raises(ConfigurationError) as caught:
        parse(text, {}, source="app.yaml")
    by_field = {fault.field: fault for fault in caught.value.faults}
    assert set(by_field) == {"defaults.phase", "defaults.shadow_reads", "collections.users.primary"}
    assert by_field["defaults.phase"].value == "'shaddow'"
    assert "'off', 'dual_write' or 'shadow'" in by_field["defaults.phase"].expected
    assert by_field["defaults.shadow_reads"].value == "1.5"
    assert "less than or equal to 1" in by_field["defaults.shadow_reads"].expected
    assert by_field["collections.users.primary"].value == "'postgres'"
    assert "'mongo' or 'dynamo'" in by_field["collections.users.primary"].expected
    message = str(caught.value)
    assert message.startswith("app.yaml: 3 faults")
    assert all(str(fault) in message for fault in caught.value.faults)


@each_of(
    ("text", "field", "suggestion"),
    [
        ("mongod: {}", "mongod", "mongo"),
        ("mongo: {drivers: motor}", "mongo.drivers", "driver"),
        ("limits: {write_workerz: 3}", "limits.write_workerz", "write_workers"),
        ("dynamo: {endpoint: x}", "dynamo.endpoint", "endpoint_url"),
        ("collections: {users: {fase: off}}", "collections.users.fase", "phase"),
        ("collections: {users: {indexes: [{name: i, hash: a, rang: b}]}}", "collections.users.indexes.0.rang", "range"),
        (
            "collections: {users: {unique: [{name: i, fields: [a], spares: true}]}}",
            "collections.users.unique.0.spares",
            "sparse",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(text: str, field: str, suggestion: str) -> None:
    found = {fault.field: fault for fault in faults(text)}
    assert found[field].value == "unknown key"
    assert f"did you mean {suggestion!r}?" in found[field].expected


def test_an_unknown_key_that_is_like_none_is_refused_with_all_that_are_known() -> None:
    (fault,) = faults("journal: {zzz: 1}")
    assert "known keys: max_bytes, on_failure, synchronous, url" in fault.expected


@each_of(
    ("text", "field"),
    [
        ("mongo: {url: 'postgres://x'}", "mongo.url"),
        ("mongo: {database: ''}", "mongo.database"),
        ("mongo: 5", "mongo"),
        ("journal: {url: /var/x.db}", "journal.url"),
        (
            "collections: {u: {unique: [{name: i, fields: [a], collation: {locale: en, strength: 3}}]}}",
            "collections.u.unique.0.collation.strength",
        ),
        ("journal: {url: 'sqlite:///'}", "journal.url"),
        ("journal: {url: 'mongodb://h/a/b'}", "journal.url"),
        ("journal: {url: 'dynamodb://'}", "journal.url"),
        ("journal: {url: 'dynamodb://table/more'}", "journal.url"),
        ("journal: {url: 'redis://h'}", "journal.url"),
        ("control: {url: 'redis://h'}", "control.url"),
        ("control: {heartbeat: 0}", "control.heartbeat"),
        ("journal: {synchronous: OFF}", "journal.synchronous"),
        ("journal: {max_bytes: 1000}", "journal.max_bytes"),
        ("journal: {on_failure: ignore}", "journal.on_failure"),
        ("limits: {operation: 0}", "limits.operation"),
        ("limits: {write_workers: many}", "limits.write_workers"),
        ("watch_every: 0", "watch_every"),
        ("collections: [users]", "collections"),
        ("collections: {users: {indexes: [{name: i}]}}", "collections.users.indexes.0.hash"),
        ("dynamo: {retry_mode: legacy}", "dynamo.retry_mode"),
        ("- a list", "(file)"),
    ],
)
def test_a_value_that_cannot_be_is_named_by_its_path(text: str, field: str) -> None:
    assert field in {fault.field for fault in faults(text)}


def test_what_is_no_yaml_is_named_by_its_place() -> None:
    (fault,) = faults("mongo: {url: 'x'\ncollections: [")
    assert fault.field.startswith("line ")
    assert fault.expected == "valid YAML"


def test_a_file_that_cannot_be_read_is_a_fault_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "nowhere.yaml", {})
    assert "SHADOW_CONFIG" in caught.value.hint
    assert caught.value.faults[0].field == "(file)"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError):
        load(tmp_path / "binary.yaml", {})


# --- the file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# nothing", "mongo:\ncollections:\n", "collections: {}"])
def test_an_empty_file_is_the_defaults_of_the_code(text: str) -> None:
    assert read(text) == Settings()


def test_the_phase_off_may_be_written_bare_although_yaml_reads_it_as_false() -> None:
    settings = read("defaults: {phase: off}\ncollections: {users: {phase: off}, notes: {phase: 'off'}, books: }")
    assert [settings.route(name).phase for name in ("users", "notes", "books")] == [Phase.OFF] * 3
    assert faults("defaults: {phase: on}")


def test_a_collection_has_its_own_route_or_the_default_one() -> None:
    settings = read(
        """
        defaults: {primary: dynamo, phase: dual_write, writes: sync, shadow_reads: 0.5}
        collections: {users: {primary: mongo, phase: shadow, writes: strict, shadow_reads: 0}, notes: {}}
        """
    )
    assert settings.routes() == {
        "users": Route(StoreName.MONGO, Phase.SHADOW, WriteMode.STRICT, 0.0),
        "notes": Route(StoreName.DYNAMO, Phase.DUAL_WRITE, WriteMode.SYNC, 0.5),
    }


def test_indexes_and_unique_fields_become_the_description_that_the_stores_need() -> None:
    settings = read(
        """
        collections:
          users:
            indexes: [{name: email-index, hash: email}, {name: by-date, hash: owner, range: at}]
            unique: [email, {name: pair, fields: [a, b.c], sparse: true},
                     {name: texts, fields: [t], collation: {locale: en, strength: 1}}]
            reserved: _v
        """
    )
    assert settings.specs()["users"] == CollectionSpec(
        "users",
        (IndexSpec("email-index", "email"), IndexSpec("by-date", "owner", "at")),
        (
            UniqueSpec("email-unique", ("email",)),
            UniqueSpec("pair", ("a", "b.c"), sparse=True),
            UniqueSpec("texts", ("t",), collation=CollationSpec("en", 1)),
        ),
        "_v",
    )


def test_the_sample_configuration_says_what_the_code_does_by_itself() -> None:
    settings = load(SAMPLE, {})
    assert set(settings.collections) == {"users", "documents", "generated_content"}
    assert settings.model_copy(update={"collections": {}}) == Settings()


MONGO = MongoSettings(url=SecretStr("mongodb://u:p@stores:1/?w=1"), database="notes")


@pytest.mark.parametrize(
    ("url", "place", "mongo"),
    [
        (
            "mongodb://u:p@h:1,i:2/d?replicaSet=r&journal=j&authSource=x/y",
            "mongodb://h:1,i:2/d",
            ("mongodb://u:p@h:1,i:2/d?replicaSet=r&authSource=x/y", "d", "j"),
        ),
        ("mongodb+srv://h/d", "mongodb+srv://h/d", ("mongodb+srv://h/d", "d", "shadow_journal")),
        ("mongodb://h", "mongodb://h", ("mongodb://h", "notes", "shadow_journal")),
        ("mongodb:///d", "mongodb:///d", ("mongodb://u:p@stores:1/?w=1", "d", "shadow_journal")),
        ("mongodb:///?journal=j", "mongodb:///", ("mongodb://u:p@stores:1/?w=1", "notes", "j")),
    ],
)
def test_a_journal_in_mongodb_is_named_by_its_url(url: str, place: str, mongo: tuple[str, str, str]) -> None:
    journal = read(f"journal: {{url: '{url}'}}").journal
    assert (journal.kind, journal.place, journal.mongo(MONGO)) == ("mongodb", place, mongo)


def test_a_journal_in_dynamodb_is_named_by_its_table() -> None:
    journal = read("", SHADOW_JOURNAL_URL="dynamodb://my-journal").journal
    assert (journal.kind, journal.table, journal.place) == ("dynamodb", "my-journal", "dynamodb://my-journal")


def test_no_password_of_a_journal_is_shown() -> None:
    settings = read("journal: {url: 'mongodb://u:sesame@h/d'}")
    assert "sesame" not in f"{settings!r} {settings.journal.place} {settings.model_dump_json()}"


# --- the environment --------------------------------------------------------------------------------------------


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, (*path, name))
        else:
            yield (*path, name)


OTHERS: Final[dict[str, tuple[str, Any]]] = {
    "limits.late_writes": ("600", 600.0),
    "mongo.url": ("mongodb://other:1/", SecretStr("mongodb://other:1/")),
    "mongo.database": ("other", "other"),
    "mongo.driver": ("pymongo", "pymongo"),
    "mongo.weak_writes": ("refuse", WeakWrites.REFUSE),
    "dynamo.region": ("eu-west-1", "eu-west-1"),
    "dynamo.endpoint_url": ("http://127.0.0.1:1", "http://127.0.0.1:1"),
    "dynamo.table_prefix": ("app-", "app-"),
    "dynamo.access_key_id": ("AKIA", SecretStr("AKIA")),
    "dynamo.secret_access_key": ("sesame", SecretStr("sesame")),
    "dynamo.session_token": ("token", SecretStr("token")),
    "dynamo.retry_mode": ("adaptive", "adaptive"),
    "dynamo.requests": ("sdk", "sdk"),
    "dynamo.table.billing": ("provisioned", Billing.PROVISIONED),
    "dynamo.table.point_in_time_recovery": ("true", True),
    "dynamo.table.deletion_protection": ("true", True),
    "dynamo.table.stream": ("true", True),
    "dynamo.table.tags": ('{"team": "x"}', {"team": "x"}),
    "dynamo.verify_index_reads": ("true", True),
    "dynamo.transactional_inserts": ("false", False),
    "journal.url": ("sqlite:////x/y.db", SecretStr("sqlite:////x/y.db")),
    "journal.synchronous": ("FULL", "FULL"),
    "journal.max_bytes": ("104857600", 104857600),
    "journal.on_failure": ("sync", OnFailure.SYNC),
    "defaults.forced": ("a reason", "a reason"),
    "control.url": ("dynamodb://table", SecretStr("dynamodb://table")),
    "control.heartbeat": ("0.5", 0.5),
    "observe.hash_secret": ("pepper", SecretStr("pepper")),
    "observe.reveal_keys": ("yes", True),
    "observe.noise_share": ("0.5", 0.5),
    "observe.holdout": ("0.5", 0.5),
    "observe.canary_within": ("20", 20),
    "observe.watch_writers": ("true", True),
    "observe.follow_writers": ("true", True),
    "observe.metrics": ("both", MetricsOutput.BOTH),
    "observe.traces": ("false", False),
    "observe.trace_statements": ("true", True),
    "admin.token": ("a-token-of-some-length", SecretStr("a-token-of-some-length")),
    "defaults.primary": ("dynamo", StoreName.DYNAMO),
    "defaults.phase": ("off", Phase.OFF),
    "defaults.writes": ("strict", WriteMode.STRICT),
    "defaults.unsupported": ("refuse", Unsupported.REFUSE),
    "defaults.shadow_reads": ("0.25", 0.25),
    "defaults.reads.mongo": ("0.05", 0.05),
    "defaults.reads.dynamo": ("5%", 0.05),
    "hooks": (
        '[{"name": "a", "events": ["new_finding"], "command": ["x"]}]',
        (HookSettings(name="a", events=("new_finding",), command=("x",)),),
    ),
    "flip.watch": ("30m", 1800.0),
    "flip.take_back": ("false", False),
    "flip.guards.mismatches": ("0.2%", 0.002),
    "flip.guards.errors": ("2%", 0.02),
    "flip.guards.throttled": ("2%", 0.02),
    "docs_url": ("https://d.example.com/docs", "https://d.example.com/docs"),
    "collections": ('{"abc": {"phase": "off"}}', {"abc": CollectionSettings(phase=Phase.OFF)}),
}

CREDENTIALS: Final = {("dynamo", name) for name in ("access_key_id", "secret_access_key", "session_token")}


@each_of("path", list(leaves(Settings)), ids=".".join)
def test_every_setting_can_be_given_in_the_environment(path: tuple[str, ...]) -> None:
    """A setting that this test has no value for is a number."""
    text, expected = OTHERS.get(".".join(path), ("2", 2))
    beside = {}
    if path in CREDENTIALS:
        # All of them come from one source.
        beside = {f"SHADOW_DYNAMO_{name.upper()}": "x" for name in ("access_key_id", "secret_access_key")}
    value: Any = read("", **{**beside, "_".join(("SHADOW", *path)).upper(): text})
    for name in path:
        value = getattr(value, name)
    assert value == expected


@each_of(
    ("name", "text", "expected"),
    [
        ("PRIMARY", "dynamo", StoreName.DYNAMO),
        ("PHASE", "off", Phase.OFF),
        ("WRITES", "sync", WriteMode.SYNC),
        ("SHADOW_READS", "0.5", 0.5),
        ("READS_DYNAMO", "5%", ReadsSettings(dynamo=0.05)),
        ("RESERVED", "_v", "_v"),
        ("UNIQUE", '["email"]', ("email",)),
        ("INDEXES", '[{"name": "by-h", "hash": "h"}]', None),
        ("TABLE", '{"deletion_protection": true}', TableSettings(deletion_protection=True)),
    ],
)
def test_every_setting_of_a_collection_can_be_given_in_the_environment(name: str, text: str, expected: Any) -> None:
    environment = {f"SHADOW_COLLECTIONS_GENERATED_CONTENT_{name}": text}
    entry = read("collections: {generated_content: }", **environment).collections["generated_content"]
    value = entry.reads if name.startswith("READS") else getattr(entry, name.lower())
    assert value == expected if expected is not None else value[0].hash == "h"


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("5 %", 0.05), ("0", 0.0), ("100%", 1.0)])
def test_a_share_of_reads_is_taken_as_people_write_it(text: str, share: float) -> None:
    route = read(f"collections: {{users: {{reads: {{dynamo: {text}}}}}}}").route("users")
    assert route.secondary_reads == pytest.approx(share)


BAD_READS: Final[dict[str, tuple[str, str, str]]] = {
    "{dynamo: 5}": ("collections.users.reads.dynamo", "5", "5% or 0.05"),
    "{dynamo: 101%}": ("collections.users.reads.dynamo", "'101%'", "from 0% to 100%"),
    "{dynamo: -1%}": ("collections.users.reads.dynamo", "'-1%'", "from 0% to 100%"),
    "{dynamo: .nan}": ("collections.users.reads.dynamo", "nan", "from 0% to 100%"),
    "{dynamo: true}": ("collections.users.reads.dynamo", "True", "from 0% to 100%"),
    "{dynamo: some}": ("collections.users.reads.dynamo", "'some'", "from 0% to 100%"),
    "{dynamo: '%'}": ("collections.users.reads.dynamo", "'%'", "from 0% to 100%"),
    "{dynmo: 5%}": ("collections.users.reads.dynmo", "unknown key", "did you mean 'dynamo'?"),
    "5%": ("collections.users.reads", "'5%'", "{dynamo: 5%}"),
}


@each_of("given", BAD_READS)
def test_a_bad_share_of_reads_is_a_fault_with_field_value_and_what_would_be_right(given: str) -> None:
    field, value, expected = BAD_READS[given]
    (fault,) = faults(f"collections: {{users: {{reads: {given}}}}}")
    assert (fault.field, fault.value) == (field, value)
    assert expected in fault.expected


def test_a_share_of_reads_is_a_fault_outside_of_phase_shadow_beside_all_other_faults() -> None:
    text = """
    defaults: {phase: dual_write, reads: {dynamo: 5%}, primary: postgres}
    collections:
      alone: {phase: off, reads: {dynamo: 0.01}}
      as_default: {reads: {dynamo: 1%}}
      shadowed: {phase: shadow, reads: {dynamo: 1%}}
      none: {phase: off, reads: {dynamo: 0%}}
    """
    found = {fault.field: fault for fault in faults(text)}
    assert set(found) == {
        "defaults.reads",
        "defaults.primary",
        "collections.alone.reads",
        "collections.as_default.reads",
    }
    assert found["collections.alone.reads"].value == "{dynamo: 0.01}"
    assert "phase shadow (it is off)" in found["collections.alone.reads"].expected


def test_a_default_share_of_reads_is_that_of_the_collections_in_phase_shadow_alone() -> None:
    text = """
    defaults: {reads: {dynamo: 5%}}
    dynamo: {table_prefix: app-}
    collections: {a: , b: {phase: dual_write}, c: {reads: {dynamo: 10%}}, d: {reads: {dynamo: 0}}, e: {primary: dynamo}}
    """
    shares = {name: route.secondary_reads for name, route in read(text).routes().items()}
    assert shares == {"a": 0.05, "b": 0.0, "c": 0.1, "d": 0.0, "e": 0.0}
    assert read(text).route("e").reads == ReadShares(dynamo=0.05), "back in force with the way back"


def test_the_environment_wins_over_the_file_key_by_key() -> None:
    text = """
    mongo: {database: from_file, driver: pymongo}
    collections: {users: {phase: dual_write, writes: sync}, notes: {phase: off}}
    """
    settings = read(text, SHADOW_MONGO_DATABASE="from_env", SHADOW_COLLECTIONS_USERS_PHASE="shadow")
    assert (settings.mongo.database, settings.mongo.driver) == ("from_env", "pymongo")
    assert settings.route("users") == Route(StoreName.MONGO, Phase.SHADOW, WriteMode.SYNC)
    assert settings.route("notes").phase is Phase.OFF


def test_a_fault_in_the_environment_is_named_by_the_same_path() -> None:
    (fault,) = faults("", SHADOW_LIMITS_OPERATION="soon")
    assert (fault.field, fault.value) == ("limits.operation", "'soon'")
    assert faults("", SHADOW_COLLECTIONS="not json")


@each_of(
    ("text", "primary"),
    [("true", "dynamo"), ("1", "dynamo"), ("YES", "dynamo"), ("false", "mongo"), ("0", "mongo"), ("off", "mongo")],
)
def test_use_dynamodb_chooses_the_primary(text: str, primary: str) -> None:
    other = "mongo" if primary == "dynamo" else "dynamo"
    assert read(f"defaults: {{primary: {other}}}", USE_DYNAMODB=text).defaults.primary == primary


def test_use_dynamodb_that_is_neither_yes_nor_no_is_a_fault_and_empty_is_nothing() -> None:
    (fault,) = faults("", USE_DYNAMODB="perhaps")
    assert fault.field == "defaults.primary"
    assert "USE_DYNAMODB" in fault.value
    assert read("", USE_DYNAMODB="").defaults.primary is StoreName.MONGO


def test_the_variables_of_aws_are_taken() -> None:
    settings = read(
        "dynamo: {region: us-west-2}",
        AWS_REGION="eu-central-1",
        AWS_DEFAULT_REGION="us-east-2",
        AWS_ACCESS_KEY_ID="AKIA",
        AWS_SECRET_ACCESS_KEY="sesame",
        AWS_SESSION_TOKEN="token",
    ).dynamo
    assert settings.region == "eu-central-1"
    values = (settings.access_key_id, settings.secret_access_key, settings.session_token)
    assert [value.get_secret_value() for value in values if value] == ["AKIA", "sesame", "token"]


def test_our_own_variables_win_over_the_shorthands() -> None:
    assert read("", AWS_REGION="eu-west-1", SHADOW_DYNAMO_REGION="eu-west-2").dynamo.region == "eu-west-2"
    assert read("", USE_DYNAMODB="true", SHADOW_DEFAULTS_PRIMARY="mongo").defaults.primary is StoreName.MONGO


def test_settings_made_in_code_look_at_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MONGO": "5", "mongo": "5", "WATCH_EVERY": "7", "SHADOW_WATCH_EVERY": "7"}.items():
        monkeypatch.setenv(name, value)
    assert Settings().watch_every == 1.0
    with pytest.raises(ValidationError):
        Settings().watch_every = 5.0


# --- secrets ----------------------------------------------------------------------------------------------------

SECRETS: Final[Mapping[str, str]] = {
    "SHADOW_MONGO_URL": "mongodb://user:sesame@host/",
    "AWS_ACCESS_KEY_ID": "AKIA-sesame",
    "AWS_SECRET_ACCESS_KEY": "sesame-key",
    "AWS_SESSION_TOKEN": "sesame-token",
    "SHADOW_OBSERVE_HASH_SECRET": "sesame-hash",
}


def test_no_secret_is_in_any_text_of_the_settings(caplog: pytest.LogCaptureFixture) -> None:
    settings = read("", **SECRETS)
    logging.getLogger("test").warning("%s %r", settings, settings)
    texts = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        json.dumps(settings.model_dump(mode="json")),
        str(settings.model_dump()),
        repr(copy.deepcopy(settings)),
        caplog.text,
    ]
    assert not [text for text in texts if "sesame" in text]


@each_of(
    "text",
    [
        "mongo: {url: 'sesame://user:sesame@host'}",
        "mongo: {url: [sesame]}",
        "mongo: {ulr: 'mongodb://user:sesame@host'}",
        "mongo: 'mongodb://user:sesame@host'",
        "dynamo: {secret_access_key: [sesame]}",
        "dynamo: {access_key_id: {sesame: 1}}",
        "dynamo: {secret_key: sesame}",
        "observe: {hash_secret: [sesame]}",
        "observe: sesame",
        "dynamo: {endpoint_url: ['http://user:sesame@host']}",
        "mongo: {url: mongodb://user:sesame@host, database: }\nlimits: {operation: -1}",
    ],
)
def test_no_secret_is_in_a_fault_nor_in_what_it_was_raised_from(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


def test_the_sample_configuration_names_no_credentials() -> None:
    raw = yaml.safe_load(SAMPLE.read_text("utf-8"))
    assert not {"access_key_id", "secret_access_key", "session_token"} & raw["dynamo"].keys()


COMPARE = """
collections:
  users:
    reveal_fields: [title, meta.kind]
    compare:
      - {rule: ignore, name: last-seen, path: last_seen, expires: 2030-01-31}
      - {rule: tolerance, name: score, path: scores.*, by: 0.01}
  documents:
"""


def test_excuses_are_read_by_collection() -> None:
    settings = parse(COMPARE, {})
    assert settings.rules()["documents"] == ()
    first, second = settings.rules()["users"]
    assert (first.rule, first.name, first.path, str(first.expires)) == (
        "ignore",
        "last-seen",
        "last_seen",
        "2030-01-31",
    )
    assert (second.rule, second.path, second.expires) == ("tolerance", "scores.*", None)
    assert settings.collections["users"].reveal_fields == ("title", "meta.kind")


@each_of(
    ("rule", "said"),
    [
        ("{rule: ignor, name: x, path: y}", "'ignore', 'missing_as_null', 'truncate', 'tolerance', 'unordered'"),
        ("{name: x, path: y}", "discriminator 'rule'"),
        ("{rule: ignore, name: x}", "path"),
        ("{rule: ignore, name: x, path: _id}", "_id cannot be ignored"),
        ("{rule: ignore, name: x, path: y, unti: 2030-01-01}", "known keys: expires, name, path, rule"),
        ("{rule: tolerance, name: x, path: y}", "by"),
        ("{rule: ignore, name: x, path: y}, {rule: ignore, name: x, path: z}", "x occurs twice"),
    ],
)
def test_a_faulty_excuse_is_named_with_its_place(rule: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"collections\.users\.compare") as fault:
        parse(f"collections: {{users: {{compare: [{rule}]}}}}", {})
    assert said in str(fault.value)


def test_what_watches_over_the_comparison_is_set_under_observe() -> None:
    settings = parse("observe: {noise_share: 0.5, holdout: 0, canary_every: 2, canary_within: 9}", {})
    assert settings.observe.watch() == Watch(0.5, 0.0, 2.0, 9.0)
    for wrong in ("noise_share: 2", "holdout: -1", "canary_every: 0", "canary_within: 0"):
        with pytest.raises(ConfigurationError):
            parse(f"observe: {{{wrong}}}", {})


@pytest.mark.parametrize("token", ["short", "x" * 513, "with a\nline break in it", "umlaut-ä-and-long-enough"])
def test_an_admin_token_that_is_too_short_or_odd_is_a_fault_that_does_not_show_it(token: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse("", {"SHADOW_ADMIN_TOKEN": token})
    assert "admin.token" in str(raised.value)
    assert token not in str(raised.value)


def test_an_empty_admin_token_is_none() -> None:
    assert parse("", {"SHADOW_ADMIN_TOKEN": ""}).admin.token is None


@each_of(
    ("text", "place"),
    [
        ("", SqlitePlace(Path("var/shadow.db.control"))),
        ("journal: {url: 'sqlite:////x/y.db'}", SqlitePlace(Path("/x/y.db.control"))),
        ("control: {url: 'sqlite:////x/c.db'}", SqlitePlace(Path("/x/c.db"))),
        ("journal: {url: 'mongodb://h/d?journal=j'}", MongoPlace("mongodb://h/d", "d", "shadow_control")),
        (
            "{mongo: {url: 'mongodb://m', database: b}, control: {url: 'mongodb:///?control=c'}}",
            MongoPlace("mongodb://m", "b", "c"),
        ),
        (
            "{dynamo: {region: eu-west-1, access_key_id: a, secret_access_key: s}, journal: {url: 'dynamodb://table'}}",
            DynamoPlace(Access("eu-west-1", None, "a", "s"), "table", of_journal=True),
        ),
    ],
)
def test_the_control_store_is_where_it_was_put_or_beside_the_journal(text: str, place: object) -> None:
    assert parse(text, {}).control_place() == place


def test_the_table_of_a_collection_is_that_of_all_tables_where_it_says_nothing() -> None:
    """And has the tags of both."""
    text = """
    dynamo: {table: {billing: provisioned, read: 5, write: 6, deletion_protection: true, tags: {team: a, env: test}}}
    collections: {users: {table: {write: 60, deletion_protection: false, tags: {team: b}}}, notes: , logs: {table: {billing: on_demand}}}
    """  # noqa: E501
    specs = read(text).specs()
    assert specs["users"].table == TableSpec(Billing.PROVISIONED, 5, 60, None, False, (("env", "test"), ("team", "b")))
    assert (specs["notes"].table.write, specs["notes"].table.deletion_protection) == (6, True)
    assert (specs["logs"].table.billing, specs["logs"].table.read) == (Billing.ON_DEMAND, 0)


def test_nothing_is_asked_of_a_table_by_default() -> None:
    """What nobody has named is not looked at, and not changed."""
    assert read("collections: {users: }").specs()["users"].table == TableSpec()


def test_a_table_has_a_stream_where_out_of_band_writes_are_followed() -> None:
    text = """
    observe: {follow_writers: true}
    collections: {users: , notes: {table: {stream: false}}}
    """
    assert {name: spec.table.stream for name, spec in read(text).specs().items()} == {"users": True, "notes": False}
    without = "dynamo: {table: {stream: false}}\nobserve: {follow_writers: true}\ncollections: {users: }"
    assert read(without).specs()["users"].table.stream is False
    alone = "dynamo: {table: {stream: true}}\ncollections: {users: }"
    assert read(alone).specs()["users"].table.stream is True


def test_capacity_belongs_to_provisioned_billing() -> None:
    """It cannot be left out there; the message names the collection."""
    (fault,) = faults("collections: {users: {table: {billing: provisioned, read: 5}}}")
    assert fault.field == "collections"
    assert fault.expected == "users.table: billing: provisioned needs read and write, in units per second"


def test_a_tag_that_is_awss_own_is_refused() -> None:
    (fault,) = faults("dynamo: {table: {tags: {'aws:x': y}}}")
    assert fault.field.startswith("dynamo.table.tags")


def test_checkpoints_do_not_depend_on_what_a_table_costs() -> None:
    """The text of a spec is what the checkpoints of jobs are held to."""
    plain, tagged = (read(f"collections: {{users: {{table: {each}}}}}").specs() for each in ("{}", "{tags: {a: b}}"))
    assert plain != tagged
    assert str(plain) == str(tagged)


# --- what no server would take ------------------------------------------------------------------------------------


@each_of(
    ("text", "field", "said"),
    [
        ("collections: {users: }\ncollections: {orders: }", "line 2, column 1", "each key once"),
        ("collections:\n  users: {unique: [email]}\n  users: {}", "line 3, column 3", "each key once"),
        ("collections: {users: {phase: off, phase: shadow}}", "line 1, column 35", "each key once"),
        ("collections: {2024: }", "line 1, column 15", "quote it"),
        ("collections: {yes: }", "line 1, column 15", "quote it"),
        ("collections: {null: }", "line 1, column 15", "quote it"),
        ("collections: {2024-01-01: }", "line 1, column 15", "quote it"),
        ("collections: {[a]: }", "line 1, column 15", "a name"),
        ("collections: {db: }", "collections", "3 to 255"),
        ("collections: {my users: }", "collections", "'my users'"),
        ("collections: {ünïcode: }", "collections", "3 to 255"),
        ("dynamo: {table_prefix: 'a b-'}\ncollections: {users: }", "dynamo.table_prefix", "a-z, A-Z, 0-9"),
        ("collections: {users: {indexes: [{name: id, hash: email}]}}", "collections.users.indexes.0.name", "3 to 255"),
        ("collections: {users: {indexes: [{name: by email, hash: e}]}}", "collections.users.indexes.0.name", "3 to"),
        (
            "collections: {users: {indexes: [{name: abc, hash: a}, {name: abc, hash: b}]}}",
            "collections.users.indexes",
            "abc occurs twice",
        ),
        (
            f"collections: {{users: {{indexes: {json.dumps([{'name': f'of-{n}', 'hash': 'a'} for n in range(21)])}}}}}",
            "collections.users.indexes",
            "at most 20",
        ),
        (
            "collections: {users: {indexes: [{name: abc, hash: a, range: b.c}]}}",
            "collections.users.indexes.0.range",
            "top",
        ),
        ("collections: {users: {reserved: _id}}", "collections.users.reserved", "not _id"),
        ("collections: {users: {reserved: a.b}}", "collections.users.reserved", "top-level"),
        ("collections: {users: {reserved: $x}}", "collections.users.reserved", "not beginning with `$`"),
        ("mongo: {url: 'mongodb://h/?replicaSet'}", "mongo.url", "each option with a value"),
        ("mongo: {url: 'mongodb://u:p@ss@h/'}", "mongo.url", "escaped"),
        ("mongo: {url: 'mongodb+srv://u:p%zz:x@h/'}", "mongo.url", "escaped"),
        ("mongo: {url: 'mongodb://h:port/'}", "mongo.url", "a port"),
        ("mongo: {url: 'mongodb://h:99999/'}", "mongo.url", "a port"),
        ("dynamo: {access_key_id: AKIA}", "dynamo", "go together"),
        ("dynamo: {secret_access_key: sesame}", "dynamo", "go together"),
        ("dynamo: {session_token: token}", "dynamo", "with both"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(text: str, field: str, said: str) -> None:
    (fault,) = faults(text)
    assert fault.field == field
    assert said in fault.expected


@pytest.mark.parametrize("hash", ["profile.city", ["user_id", "profile.city"]])
def test_an_index_of_a_path_is_refused(hash: object) -> None:
    text = json.dumps({"collections": {"users": {"indexes": [{"name": "by-city", "hash": hash}]}}})
    (fault,) = faults(text)
    assert fault.field == "collections.users.indexes.0.hash"
    assert "top-level field" in fault.expected


def test_yaml_may_go_on_merging_and_quoting() -> None:
    text = """
    collections:
      users: &same {unique: [email]}
      "2024": {<<: *same, phase: dual_write}
      'yes': {<<: *same, unique: [name]}
    """
    collections = read(text).collections
    assert set(collections) == {"users", "2024", "yes"}
    assert collections["2024"].unique == ("email",)
    assert collections["yes"].unique == ("name",)


@each_of(
    ("given", "seconds"),
    [(90, 90.0), ("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), (" 2H ", 7200.0), ("7d", 604_800.0)],
)
def test_a_time_is_a_number_of_seconds_or_has_a_unit(given: Any, seconds: float) -> None:
    assert as_duration(given) == seconds


@each_of("given", ["", "d", "x", "5 weeks", "5w", True, None, [], "1_0s0"])
def test_anything_else_is_no_time(given: Any) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        as_duration(given)
