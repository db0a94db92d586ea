"""What CloudFormation and Terraform are given says the same as what CreateTable is given."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from shadow.control.dynamo import control_description
from shadow.journal.server.dynamo_table import table_description as journal_description
from shadow.model.schema import Billing, CollectionSpec, IndexSpec, TableSpec
from shadow.stores.dynamo.tables.spec import TableDefinition, collection_table, creation, plain_table
from shadow.stores.dynamo.tables.templates import cloudformation, terraform

FULL = TableSpec(Billing.PROVISIONED, 5, 6, True, True, (("env", "test"), ("team", "a")), stream=True)
INDEXES = (
    IndexSpec("email-index", "email"),
    IndexSpec("team-index", "team", "joined"),
    IndexSpec("both-index", "_shadow_by_both-index", "joined", ("a", "b")),
)
TABLES = {
    "full": collection_table("p-full", CollectionSpec("full", INDEXES, table=FULL)),
    "plain": collection_table("p-plain", CollectionSpec("plain", reserved="_v")),
    "on demand": collection_table("p-some", CollectionSpec("some", table=TableSpec(Billing.ON_DEMAND, 0, 0, False))),
    "journal": plain_table(journal_description("p-journal"), FULL),
    "control": plain_table(control_description("p-control"), FULL),
}


@pytest.fixture(params=TABLES)
def wanted(request: pytest.FixtureRequest) -> TableDefinition:
    return TABLES[request.param]


def properties_of(wanted: TableDefinition) -> dict[str, Any]:
    (resource,) = cloudformation([wanted])["Resources"].values()
    assert resource["Type"] == "AWS::DynamoDB::Table"
    assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain", "the data outlives the stack"
    found: dict[str, Any] = resource["Properties"]
    return found


def resource_of(wanted: TableDefinition) -> dict[str, Any]:
    (resource,) = terraform([wanted])["resource"]["aws_dynamodb_table"].values()
    assert resource["lifecycle"] == {"prevent_destroy": True}
    found: dict[str, Any] = resource
    return found


def test_what_is_created_is_what_the_service_takes(wanted: TableDefinition) -> None:
    """By the description of the service that its client carries: names, types, what must be there."""
    model = botocore.session.get_session().get_service_model("dynamodb")
    report = ParamValidator().validate(creation(wanted), model.operation_model("CreateTable").input_shape)
    assert not report.has_errors(), report.generate_report()


def test_every_attribute_that_is_defined_is_used_and_the_other_way_round(wanted: TableDefinition) -> None:
    """The service refuses anything else."""
    made = creation(wanted)
    schemas = [made["KeySchema"], *(each["KeySchema"] for each in made.get("GlobalSecondaryIndexes", ()))]
    used = {each["AttributeName"] for schema in schemas for each in schema}
    assert {each["AttributeName"] for each in made["AttributeDefinitions"]} == used
    assert {each["name"] for each in resource_of(wanted)["attribute"]} == used


def test_both_templates_say_what_the_table_is_to_be(wanted: TableDefinition) -> None:
    """Field by field, from the names of the one tool to those of the other."""
    made, resource = properties_of(wanted), resource_of(wanted)
    assert resource["name"] == made["TableName"]
    assert resource["billing_mode"] == made["BillingMode"]
    assert capacity(resource) == made.get("ProvisionedThroughput")
    assert keys(resource) == made["KeySchema"]
    assert [attribute(each) for each in resource["attribute"]] == made["AttributeDefinitions"]
    assert [index(each) for each in resource.get("global_secondary_index", [])] == made.get(
        "GlobalSecondaryIndexes", []
    )
    assert resource.get("deletion_protection_enabled") == made.get("DeletionProtectionEnabled")
    assert resource.get("tags", {}) == {each["Key"]: each["Value"] for each in made.get("Tags", [])}
    ttl = made.get("TimeToLiveSpecification")
    assert resource.get("ttl") == (ttl and {"attribute_name": ttl["AttributeName"], "enabled": ttl["Enabled"]})
    stream = made.get("StreamSpecification")
    assert resource.get("stream_view_type") == (stream and stream["StreamViewType"])
    assert resource.get("stream_enabled") == (stream and True)
    assert stream is None or stream.keys() == {"StreamViewType"}, "the only word that the template has for it"
    recovery = made.get("PointInTimeRecoverySpecification")
    assert resource.get("point_in_time_recovery") == (recovery and {"enabled": recovery["PointInTimeRecoveryEnabled"]})


def capacity(resource: dict[str, Any]) -> dict[str, int] | None:
    if "read_capacity" not in resource:
        return None
    return {"ReadCapacityUnits": resource["read_capacity"], "WriteCapacityUnits": resource["write_capacity"]}


def keys(resource: dict[str, Any]) -> list[dict[str, str]]:
    kinds = {"hash_key": "HASH", "range_key": "RANGE"}
    return [{"AttributeName": resource[key], "KeyType": kind} for key, kind in kinds.items() if key in resource]


def attribute(each: dict[str, str]) -> dict[str, str]:
    return {"AttributeName": each["name"], "AttributeType": each["type"]}


def index(each: dict[str, Any]) -> dict[str, Any]:
    units = capacity(each)
    return {
        "IndexName": each["name"],
        "KeySchema": keys(each),
        "Projection": {"ProjectionType": each["projection_type"]},
        **({} if units is None else {"ProvisionedThroughput": units}),
    }


def test_capacity_is_given_to_the_table_and_to_each_index() -> None:
    made = properties_of(TABLES["full"])
    units = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6}
    assert made["ProvisionedThroughput"] == units
    assert [each["ProvisionedThroughput"] for each in made["GlobalSecondaryIndexes"]] == [units] * 3


def test_what_nobody_asked_for_is_left_to_the_tool() -> None:
    """So that it does not take away what somebody has set by hand."""
    assert properties_of(TABLES["plain"]).keys() == {
        "TableName", "KeySchema", "AttributeDefinitions", "BillingMode", "TimeToLiveSpecification",
    }  # fmt: skip


def test_tables_of_small_records_are_made_on_demand_with_the_tags_and_the_protection_of_all() -> None:
    for name in ("journal", "control"):
        made = properties_of(TABLES[name])
        assert (made["BillingMode"], made["DeletionProtectionEnabled"], len(made["Tags"])) == (
            "PAY_PER_REQUEST",
            True,
            2,
        )
        assert not {"PointInTimeRecoverySpecification", "TimeToLiveSpecification", "StreamSpecification"} & made.keys()


def test_names_of_resources_differ_for_different_tables() -> None:
    names = ["a-b", "a_b", "ab", "a.b"]
    resources = cloudformation([collection_table(name, CollectionSpec("x")) for name in names])["Resources"]
    assert len(resources) == len(names)
    assert all(name.isalnum() for name in resources)
