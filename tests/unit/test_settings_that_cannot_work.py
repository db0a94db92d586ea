"""Settings that YAML, an environment or a typing slip makes of what was meant: each is refused with field and remedy,
before anything is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from shadow import Shadow
from shadow.cli import app
from shadow.config import Settings, load, parse
from shadow.errors import ConfigurationError, Fault
from shadow.model.phase import Phase
from shadow.settings.sources import not_used
from shadow.stores.dynamo.client.regions import regions
from shadow.stores.dynamo.client.settings import DynamoSettings
from tests.support.cases import each_of


def faults(text: str, environment: Mapping[str, str] | None = None) -> tuple[Fault, ...]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, environment or {})
    return caught.value.faults


def refused(text: str, field: str, said: str, environment: Mapping[str, str] | None = None) -> None:
    (fault,) = faults(text, environment)
    assert fault.field == field
    assert said in f"{fault.value} {fault.expected}"


# --- what YAML reads otherwise -----------------------------------------------------------------------------------


@each_of("word", ["on", "off", "yes", "No", "0123", "0o17", "0b1", "0x1F", "1_000", "12:30", "2024-01-31"])
@each_of("field", ["mongo.database", "collections.users.reserved", "dynamo.table_prefix"])
def test_a_word_that_yaml_reads_otherwise_wants_quotes(field: str, word: str) -> None:
    *sections, name = field.split(".")
    text = "".join(f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections))
    text += f"{'  ' * len(sections)}{name}: "
    if yaml.safe_load(f"a: {word}")["a"] == word:
        assert parse(f"{text}{word}", {})
        return
    if ":" in word and field != "collections.users.reserved":
        refused(f"{text}{word}", field, "must be")  # no name with quotes either
        return
    refused(f"{text}{word}", field, "quotes")
    assert parse(f"{text}'{word}'", {})


@each_of("word", ["on", "yes", "true", "0123", "1:30", "1_000", ".inf", "-.inf", ".nan", "30s", "2024-01-31"])
@each_of("field", ["limits.operation", "limits.read_queue", "defaults.shadow_reads", "dynamo.read_timeout"])
def test_a_word_where_a_number_belongs_is_refused(field: str, word: str) -> None:
    section, name = field.split(".")
    found = faults(f"{section}: {{{name}: {word}}}")
    assert [each.field for each in found] == [field]
    assert "number" in found[0].expected or "Input should" in found[0].expected


@each_of("word", ["null", "~", "", "5", "1.5", "true", "[a]", "{a: b}"])
def test_what_is_no_text_is_refused_where_a_text_belongs(word: str) -> None:
    (fault,) = faults(f"mongo: {{database: {word}}}")
    assert fault.field == "mongo.database"


def test_flags_and_the_phase_are_written_as_people_write_them() -> None:
    settings = parse("observe: {reveal_keys: on}\ndynamo: {verify_index_reads: yes}\ndefaults: {phase: off}", {})
    assert settings.observe.reveal_keys
    assert settings.dynamo.verify_index_reads
    assert settings.defaults.phase is Phase.OFF
    refused("defaults: {phase: no}", "defaults.phase", "one of")


@pytest.mark.parametrize("place", ["unique: [no]", "reveal_fields: [on]", "indexes: [{name: abc, hash: no}]"])
def test_fields_that_are_named_like_flags_want_quotes_too(place: str) -> None:
    (fault,) = faults(f"collections: {{users: {{{place}}}}}")
    assert "quotes" in fault.expected


def test_what_yaml_has_beside_is_refused_or_right() -> None:
    refused("mongo: {}\n---\nmongo: {}", "line 2, column 1", "one document")
    refused("mongo:\n\tdatabase: x", "line 2, column 1", "no tabs")
    refused("a: &a [*a]", "a", "unknown key")
    refused("mongo: *nothing", "line 1, column 8", "undefined alias")
    refused("mongo: !!python/object:os.system {}", "line 1, column 8", "constructor")
    assert parse("\ufeffmongo: {database: other}", {}).mongo.database == "other"
    assert parse("watch_every: 1e1", {}).watch_every == 10


def test_a_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "shadow.yaml"
    for content, said in ((b"\xff\xfem\x00", "UTF-8"), (None, "No such file")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=said):
            load(path if content is not None else tmp_path / "none", {})


# --- names ---------------------------------------------------------------------------------------------------------


@each_of("name", ["a.b", "a b", "a/b", "a\\b", 'a"b', "a$b", "a*b", "x" * 64, "local", "config", "ü" * 32])
def test_names_of_databases_that_mongodb_refuses(name: str) -> None:
    refused(json.dumps({"mongo": {"database": name}}), "mongo.database", "MongoDB")


@each_of("name", ["a$b", "system.users", ".abc", "abc.", "a..b", "shadow_witness", "shadow_journal.intents"])
def test_names_of_collections_that_are_not_to_be_had(name: str) -> None:
    (fault,) = faults(json.dumps({"collections": {name: {}}}))
    assert name in fault.expected


@each_of(
    ("entry", "said"),
    [
        ({"indexes": [{"name": "abc", "hash": "a", "range": "a"}]}, "a occurs twice"),
        ({"indexes": [{"name": "abc", "hash": ["a", "a"]}]}, "a occurs twice"),
        ({"indexes": [{"name": "abc", "hash": "$a"}]}, "begin with `$`"),
        ({"indexes": [{"name": "abc", "hash": "_shadow"}]}, "shadow's own field"),
        (
            {"indexes": [{"name": "abc", "hash": "a"}], "unique": [{"name": "abc", "fields": ["b"]}]},
            "abc occurs twice",
        ),
        ({"unique": ["_id"]}, "_id is always unique"),
        ({"unique": ["a", "a"]}, "twice"),
        ({"unique": ["a..b"]}, "empty part"),
        ({"unique": [".a"]}, "empty part"),
        ({"unique": ["a.$b"]}, "begin with `$`"),
        ({"unique": ["_shadow.b"]}, "shadow's own field"),
        ({"unique": [{"name": "u", "fields": ["a", "a"]}]}, "a occurs twice"),
        ({"unique": [{"name": "u", "fields": ["_id"]}]}, "_id is always unique"),
        ({"unique": [{"name": "*", "fields": ["a"]}]}, "accepts for an index"),
        ({"reveal_fields": ["a..b"]}, "empty part"),
        ({"reserved": "v", "unique": ["v"]}, "v is shadow's own field"),
    ],
    ids=str,
)
def test_fields_that_cannot_be_what_they_are_to_be(entry: dict[str, Any], said: str) -> None:
    (fault,) = faults(json.dumps({"collections": {"users": entry}}))
    assert fault.field.startswith("collections.users")
    assert "function" not in fault.field
    assert said in fault.expected


@each_of("url", ["", "localhost:8000", "ftp://h", "http://", "http://h:port", "http://h:99999"])
def test_an_endpoint_is_an_address(url: str) -> None:
    refused(json.dumps({"dynamo": {"endpoint_url": url}}), "dynamo.endpoint_url", "must be http://HOST:PORT")


@pytest.mark.parametrize("prefix", ["a b", "a/", "ü", "x" * 201])
def test_a_prefix_is_part_of_the_name_of_a_table(prefix: str) -> None:
    refused(json.dumps({"dynamo": {"table_prefix": prefix}}), "dynamo.table_prefix", "DynamoDB")


@each_of("url", ["mongodb://h/a.b", "mongodb://h/a$b", "mongodb:///d?journal=a$b", "mongodb:///d?control=a..b"])
@each_of("section", ["journal", "control"])
def test_names_in_the_urls_of_journal_and_control_store(section: str, url: str) -> None:
    (fault,) = faults(json.dumps({section: {"url": url}}))
    assert (fault.field, fault.value) == (f"{section}.url", "(hidden)")


# --- regions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["us-west-2", "eu-central-1", "cn-north-1", "us-gov-west-1"])
def test_regions_of_every_partition_are_known(name: str) -> None:
    assert parse(f"dynamo: {{region: {name}}}", {}).dynamo.region == name
    assert len(regions()) > 30


@pytest.mark.parametrize(
    ("name", "near"), [("us-est-1", "us-"), ("eu-centrall-1", "eu-central-1"), ("EU-WEST-1", ""), ("frankfurt", "")]
)
def test_an_unknown_region_is_refused_with_the_one_that_was_meant(name: str, near: str) -> None:
    refused(f"dynamo: {{region: {name}}}", "dynamo.region", f"did you mean {near}" if near else "botocore's list")
    refused("", "dynamo.region", "must be a region", {"AWS_REGION": name})


def test_with_an_endpoint_of_its_own_any_region_will_do() -> None:
    assert parse("dynamo: {region: local, endpoint_url: 'http://127.0.0.1:8000'}", {}).dynamo.region == "local"


# --- credentials ---------------------------------------------------------------------------------------------------

KEYS = {"access_key_id": "A", "secret_access_key": "S"}
ALL = {**KEYS, "session_token": "T"}


def source(prefix: str, given: Mapping[str, str], mark: str) -> dict[str, str]:
    return {f"{prefix}{name.upper()}": f"{mark}{value}" for name, value in given.items()}


@each_of(
    ("file", "environment"),
    [
        ({"access_key_id": "A"}, source("AWS_", {"secret_access_key": "S"}, "")),
        ({"secret_access_key": "S"}, source("AWS_", {"access_key_id": "A"}, "")),
        (KEYS, source("AWS_", {"session_token": "T"}, "")),
        (KEYS, source("AWS_", {"access_key_id": "A"}, "other")),
        (KEYS, source("SHADOW_DYNAMO_", {"secret_access_key": "S"}, "other")),
        ({}, {**source("AWS_", KEYS, ""), **source("SHADOW_DYNAMO_", {"session_token": "T"}, "")}),
        (
            {},
            {**source("AWS_", {"access_key_id": "A"}, ""), **source("SHADOW_DYNAMO_", {"secret_access_key": "S"}, "")},
        ),
    ],
)
def test_parts_of_two_sources_are_no_credentials(file: dict[str, str], environment: dict[str, str]) -> None:
    (fault,) = faults(json.dumps({"dynamo": file}), environment)
    assert fault.field == "dynamo"
    assert "one source" in fault.expected
    assert not any(secret in str(fault) for secret in ("otherA", "otherS"))


@pytest.mark.parametrize("name", list(ALL))
def test_half_a_pair_in_the_environment_is_none(name: str) -> None:
    refused("", "dynamo", "go together", source("AWS_", {name: ALL[name]}, ""))


def test_the_highest_source_gives_all_of_them() -> None:
    """The token of another source does not belong to its keys."""
    file, aws = json.dumps({"dynamo": ALL}), source("AWS_", KEYS, "aws-")
    found = parse(file, aws).dynamo
    assert found.access_key_id is not None
    assert found.access_key_id.get_secret_value() == "aws-A"
    assert found.session_token is None
    found = parse(file, {**aws, **source("SHADOW_DYNAMO_", ALL, "own-")}).dynamo
    assert found.session_token is not None
    assert found.session_token.get_secret_value() == "own-T"


@each_of("name", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"])
@each_of(
    ("file", "environment"), [(KEYS, {}), (ALL, {}), ({}, source("AWS_", KEYS, "")), (KEYS, source("AWS_", ALL, ""))]
)
def test_keys_beside_a_profile_or_a_role_are_refused(
    file: dict[str, str], environment: dict[str, str], name: str
) -> None:
    (fault,) = faults(json.dumps({"dynamo": file}), {**environment, name: "own"})
    assert fault.field == "dynamo"
    assert name in fault.value
    assert f"unset {name}" in fault.expected
    assert "own" not in fault.value


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"])
def test_shadow_s_own_keys_go_before_a_profile_and_a_role(name: str) -> None:
    environment = {**source("SHADOW_DYNAMO_", KEYS, ""), name: "none-of-this-name"}
    assert not_used(environment) == [name]
    assert not_used({name: "x"}) == not_used(source("AWS_", KEYS, "")) == []
    assert parse("", environment).dynamo.access_key_id is not None


def test_a_token_may_have_its_old_name() -> None:
    found = parse("", {**source("AWS_", KEYS, ""), "AWS_SECURITY_TOKEN": "T"}).dynamo
    assert found.session_token is not None
    refused("", "dynamo", "go together", {"AWS_SECURITY_TOKEN": "T"})


@pytest.fixture
def aws(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes the files of the AWS SDK, and answers the variables that name them."""

    def make(config: str = "", credentials: str | None = "", **more: str) -> dict[str, str]:
        for name, text in (("config", config), ("credentials", credentials)):
            if text is not None:
                (tmp_path / name).write_text(text)
        return {
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
            **more,
        }

    return make


PAIR = "aws_access_key_id = A\naws_secret_access_key = S\n"


@pytest.mark.parametrize(
    ("config", "credentials", "profile"),
    [
        ("", f"[app]\n{PAIR}", "app"),
        (f"[profile app]\n{PAIR}aws_session_token = T\n", None, "app"),
        (f"[default]\n{PAIR}", "", None),
        ("[default]\nregion = eu-west-1\n", f"[default]\n{PAIR}", "default"),
        ("[profile app]\nrole_arn = arn\nsource_profile = base\n", f"[base]\n{PAIR}", "app"),
        ("[profile app]\nrole_arn = arn\ncredential_source = EcsContainer\n", "", "app"),
        ("[profile app]\nsso_session = s\nsso_account_id = 1\n[sso-session s]\nsso_region = eu-west-1\n", "", "app"),
        ("[profile other]\naws_access_key_id = A\n", f"[app]\n{PAIR}", "app"),
    ],
)
def test_a_profile_that_works_is_taken(aws: Any, config: str, credentials: str | None, profile: str | None) -> None:
    named = {} if profile is None else {"AWS_PROFILE": profile}
    assert parse("", aws(config, credentials, **named)).dynamo.access_key_id is None


@pytest.mark.parametrize(
    ("config", "credentials", "profile", "field", "said"),
    [
        ("", None, "app", "AWS_PROFILE", "there is none"),
        ("[app]\nregion = eu-west-1\n", f"[other]\n{PAIR}", "app", "AWS_PROFILE", "there are other"),
        ("", "[app]\naws_access_key_id = A\n", "app", "dynamo", "aws_access_key_id alone in profile app"),
        ("", "[default]\naws_secret_access_key = S\n", None, "dynamo", "aws_secret_access_key alone"),
        ("", "[app]\naws_session_token = T\n", "app", "dynamo", "aws_session_token alone"),
        (
            "[profile app]\naws_secret_access_key = S\n",
            "[app]\naws_access_key_id = A\n",
            "app",
            "dynamo",
            "together in one file",
        ),
        ("[profile app]\nrole_arn = arn\n", "", "app", "dynamo", "role_arn alone in profile app"),
        ("[profile app]\nrole_arn = arn\nsource_profile = base\n", "", "app", "dynamo", "source_profile base"),
        (
            "[profile app]\nrole_arn = arn\nsource_profile = app\ncredential_source = Environment\n",
            "",
            "app",
            "dynamo",
            "source_profile and credential_source",
        ),
        ("aws_access_key_id = A\n", "", None, "dynamo", "the AWS SDK can read"),
    ],
)
def test_a_profile_that_cannot_work_is_refused(
    aws: Any, config: str, credentials: str | None, profile: str | None, field: str, said: str
) -> None:
    refused("", field, said, aws(config, credentials, **({} if profile is None else {"AWS_PROFILE": profile})))


def test_a_role_by_a_token_has_both_and_a_file_that_is_there(aws: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    role, token = {"AWS_ROLE_ARN": "arn"}, {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    assert parse("", aws(**role, **token)).dynamo == DynamoSettings()
    refused("", "AWS_ROLE_ARN", "alone", aws(**role))
    refused("", "AWS_WEB_IDENTITY_TOKEN_FILE", "alone", aws(**token))
    missing = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none")}
    refused("", "AWS_WEB_IDENTITY_TOKEN_FILE", "can read", aws(**role, **missing))


def test_a_profile_that_is_asked_for_names_the_region_unless_somebody_else_does(aws: Any) -> None:
    config = f"[default]\nregion = eu-west-2\n[profile app]\nregion = eu-west-1\n{PAIR}"
    assert parse("", aws(config)).dynamo.region == "us-east-1"
    assert parse("", aws(config, AWS_PROFILE="app")).dynamo.region == "eu-west-1"
    assert parse("", aws(config, AWS_PROFILE="app", AWS_REGION="eu-west-3")).dynamo.region == "eu-west-3"
    assert parse("dynamo: {region: eu-north-1}", aws(config, AWS_PROFILE="app")).dynamo.region == "eu-north-1"


def test_config_check_and_the_start_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shadow.yaml"
    file.write_text(json.dumps({"dynamo": KEYS, "journal": {"url": f"sqlite:///{tmp_path}/j.db"}}))
    monkeypatch.setenv("AWS_PROFILE", "app")
    said = CliRunner().invoke(app, ["config", "check", "-c", str(file)])
    assert isinstance(said.exception, ConfigurationError)
    assert "AWS_PROFILE" in str(said.exception)
    with pytest.raises(ConfigurationError, match="AWS_PROFILE"):
        Shadow.from_file(file)
    for name, value in source("SHADOW_DYNAMO_", KEYS, "").items():
        monkeypatch.setenv(name, value)
    said = CliRunner().invoke(app, ["config", "check", "-c", str(file)])
    assert said.exit_code == 0
    assert "AWS_PROFILE has no effect" in said.output


# --- variables -----------------------------------------------------------------------------------------------------


@each_of(
    ("name", "near"),
    [
        ("SHADOW_MONGO_ULR", "SHADOW_MONGO_URL"),
        ("SHADOW_MONG_URL", "SHADOW_MONGO_URL"),
        ("SHADOW_DEFAULT_PHASE", "SHADOW_DEFAULTS_PHASE"),
        ("SHADOW_COLLECTION_USERS_PRIMARY", "SHADOW_COLLECTIONS_USERS_PRIMARY"),
        ("SHADOW_COLLECTIONS_USER_PRIMARY", "SHADOW_COLLECTIONS_USERS_PRIMARY"),
        ("SHADOW_CONFIGS", "SHADOW_CONFIG"),
        ("SHADOW_LIMITS_OPERATIONS", "SHADOW_LIMITS_OPERATION"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(name: str, near: str) -> None:
    refused("collections: {users: }", name, f"did you mean {near}?", {name: "x"})


@pytest.mark.parametrize("name", ["SHADOW_MONGO_HOSTNAME_OF_IT", "SHADOW_COLLECTIONS_ORDERS_PRIMARY"])
def test_a_variable_of_a_section_that_names_nothing_is_refused(name: str) -> None:
    (fault,) = faults("collections: {users: }", {name: "x"})
    assert fault.field == name


@each_of(
    "name",
    ["SHADOW_SERVICE_HOST", "SHADOW_PORT", "SHADOW_PORT_80_TCP_ADDR", "SHADOW_MONGO_SERVICE_PORT_DB",
     "SHADOW_MONGO_PORT", "SHADOW_ROOT", "SHADOW_CONFIG", "SHADOW_STATUS_URL", "SHADOW_DYNAMODB_LOCAL",
     "OTHER_MONGO_ULR"],
)  # fmt: skip
def test_variables_of_others_are_left_alone(name: str) -> None:
    assert parse("", {name: "x"}) == Settings()


@each_of("text", ["", " "])
@each_of(
    "name",
    [
        "SHADOW_MONGO_URL",
        "SHADOW_DYNAMO_ENDPOINT_URL",
        "SHADOW_DYNAMO_TABLE_PREFIX",
        "SHADOW_LIMITS_OPERATION",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
        "SHADOW_COLLECTIONS",
        "USE_DYNAMODB",
    ],
)
def test_a_variable_that_is_set_and_empty_means_nothing(name: str, text: str) -> None:
    file = "dynamo: {table_prefix: app-}"
    assert parse(file, {name: text}) == parse(file, {})


# --- what does not go together -------------------------------------------------------------------------------------


@each_of(
    ("text", "field"),
    [
        ("limits: {operation: 1, write_deadline: 1.5, read_deadline: 1}", "limits.write_deadline"),
        ("limits: {operation: 1, write_deadline: 1, read_deadline: 1.5}", "limits.read_deadline"),
        ("observe: {canary_every: 60, canary_within: 30}", "observe.canary_within"),
        ("journal: {url: 'sqlite:///a.db'}\ncontrol: {url: 'sqlite:///./a.db'}", "control.url"),
        ("journal: {url: 'dynamodb://app-users'}\ndynamo: {table_prefix: app-}\ncollections: {users: }", "journal.url"),
        ("control: {url: 'dynamodb://users'}\ncollections: {users: }", "control.url"),
    ],
)
def test_settings_that_contradict_each_other(text: str, field: str) -> None:
    (fault,) = faults(text)
    assert fault.field == field


def test_faults_of_every_kind_come_together() -> None:
    text = "mongo: {database: on}\nlimits: {operation: yes}\ndynamo: {region: us-est-1}\nlimts: {}"
    found = {each.field for each in faults(text, {"SHADOW_MONGO_ULR": "x", "AWS_SESSION_TOKEN": "x"})}
    assert found == {"mongo.database", "limits.operation", "dynamo.region", "limts", "SHADOW_MONGO_ULR", "dynamo"}
