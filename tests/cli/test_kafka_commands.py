"""Every command on a project whose log is on Kafka: it works there, or says what to do instead."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic

from penstock.cli.main import main
from penstock.logs import change_topics, open_log_alone, topic_changes
from penstock.project import load_project
from tests.cli.test_up_kafka import project_on
from tools.services.kafka import Cluster

PEOPLE = "user_id,email\n" + "".join(f"u{n},u{n}@shop.example\n" for n in range(5))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def refused(result: Result) -> str:
    """Return the code of what a command was refused with."""
    assert result.exception is not None
    assert result.exit_code != 0
    said = result.stderr or str(result.exception)
    return said.split(":", 1)[0].strip()


def change(folder: Path, old: str, new: str) -> None:
    toml = folder / "penstock.toml"
    text = toml.read_text()
    assert old in text
    toml.write_text(text.replace(old, new))


@pytest.fixture
def folder(kafka: Cluster, tmp_path: Path) -> Path:
    return project_on(kafka, tmp_path / "shop")


@pytest.fixture
def applied(folder: Path) -> Path:
    result = run("apply", "--project", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_topics_are_planned_made_altered_and_then_nothing_differs(folder: Path) -> None:
    prefix = f"{folder.parent.name}."
    planned = run("plan", "--project", folder, "--json")
    assert 2 == planned.exit_code
    new = json.loads(planned.stdout)["topics"]
    assert [(f"{prefix}log-1", "new"), (f"{prefix}dead-letters", "new")] == [
        (one["name"], one["how"]) for one in new
    ]
    said = run("plan", "--project", folder).output
    assert f"+ {prefix}log-1: the log" in said
    assert "3 partitions, 1 copies" in said

    done = run("apply", "--project", folder)
    assert 0 == done.exit_code, done.output
    assert f"Topics are as they are declared: {prefix}log-1, {prefix}dead-letters." in done.output
    assert [] == json.loads(run("plan", "--project", folder, "--json").stdout)["topics"]

    change(folder, "replication = 1", 'replication = 1\nretention = "90d"')
    altered = run("plan", "--project", folder, "--json")
    assert 2 == altered.exit_code
    assert [f"retention.ms: -1 -> {90 * 86_400_000}"] == [
        detail for one in json.loads(altered.stdout)["topics"] for detail in one["details"]
    ]
    assert 0 == run("apply", "--project", folder).exit_code
    assert 0 == run("plan", "--project", folder).exit_code


def test_copies_are_refused_by_plan_and_apply(applied: Path) -> None:
    change(applied, "replication = 1", "replication = 2")
    planned = run("plan", "--project", applied)
    assert 1 == planned.exit_code
    assert "it has 1 copies" in planned.output
    assert "E289" == refused(run("apply", "--project", applied))


def test_other_partitions_open_a_generation_where_workers_fold_and_are_refused_else(
    applied: Path,
) -> None:
    prefix = f"{applied.parent.name}."
    change(applied, "partitions = 3", "partitions = 4")
    planned = run("plan", "--project", applied)
    assert 1 == planned.exit_code
    assert "only workers go over to it" in planned.output
    assert "E289" == refused(run("apply", "--project", applied))

    toml = applied / "penstock.toml"
    toml.write_text(toml.read_text() + '[fold]\nby = "workers"\n')
    planned = run("plan", "--project", applied)
    assert 2 == planned.exit_code, planned.output
    assert f"+ {prefix}log-2: the log" in planned.output
    assert "4 partitions, 1 copies" in planned.output
    change_topics(project := load_project(applied), topic_changes(project))
    assert [] == topic_changes(project)
    change(applied, "partitions = 4", "partitions = 3")
    with closing(open_log_alone(load_project(applied))) as log:
        assert (3, 4) == log.generations.counts, "the settings of before will do"


def test_what_only_a_file_can_do_is_refused_with_what_to_do_instead(
    applied: Path, tmp_path: Path
) -> None:
    for command in (
        ["truncate", "--keep", "1d"],
        ["repair"],
        ["backup", tmp_path / "copy"],
    ):
        assert "E284" == refused(run(*command, "--project", applied)), command


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_people_are_loaded_explained_and_replayed_and_a_doctor_finds_all_well(
    applied: Path, tmp_path: Path
) -> None:
    people = tmp_path / "people.csv"
    people.write_text(PEOPLE)
    change(applied, "[log]", '[archive]\nplace = "archive"\n\n[log]')
    loaded = run("load", "--as", "people", people, "--project", applied)
    assert 0 == loaded.exit_code, loaded.output
    explained = run("explain", "user_id:u1", "--campaign", "welcome", "--project", applied)
    assert 0 == explained.exit_code, explained.output
    replayed = run("replay", "--project", applied, "--json")
    assert 0 == replayed.exit_code, replayed.output
    told = json.loads(replayed.stdout)
    assert told["leaves_different"] == 0 < told["leaves_equal"]
    assert 0 == run("dead-letters", "list", "--project", applied).exit_code
    assert 0 == run("archive", "--project", applied).exit_code
    (applied / "features.py").write_text(
        (applied / "features.py").read_text().replace("days(7)", "days(8)")
    )
    planned = run("plan", "--project", applied, "--json")
    assert 2 == planned.exit_code, planned.output
    assert json.loads(planned.stdout)["backfill"]["records"] > 0
    examined = run("doctor", "--project", applied)
    assert "kafka: 1 broker answers in" in examined.output
    assert "leaves refolded from the log, equal byte for byte" in examined.output, examined.output
    assert 0 == examined.exit_code, examined.output


def test_new_keys_beside_a_log_that_has_records_are_refused(
    applied: Path, tmp_path: Path, kafka: Cluster
) -> None:
    people = tmp_path / "people.csv"
    people.write_text(PEOPLE)
    assert 0 == run("load", "--as", "people", people, "--project", applied).exit_code
    (applied / "data").rename(applied / "lost")
    assert "E208" == refused(run("replay", "--project", applied))


def test_leaves_of_a_topic_that_was_made_anew_are_refused(
    applied: Path, tmp_path: Path, kafka: Cluster
) -> None:
    people = tmp_path / "people.csv"
    people.write_text(PEOPLE)
    assert 0 == run("load", "--as", "people", people, "--project", applied).exit_code
    admin = AdminClient(kafka.client)
    for future in admin.delete_topics([f"{applied.parent.name}.log-1"]).values():
        future.result(10)
    assert "E283" in run("doctor", "--project", applied).output
    assert "E286" == refused(run("apply", "--project", applied))


def test_a_topic_that_is_missing_is_refused_where_nothing_is_to_be_made(folder: Path) -> None:
    change(folder, "[log]", '[definitions]\napply = "command"\n\n[log]')
    assert "E280" == refused(run("replay", "--project", folder))


def test_a_compacted_topic_and_one_of_other_stamps_are_refused(
    folder: Path, kafka: Cluster
) -> None:
    prefix = f"{folder.parent.name}."
    admin = AdminClient(kafka.client)
    made = admin.create_topics(
        [
            NewTopic(f"{prefix}log-1", 3, 1, config={"cleanup.policy": "compact"}),
            NewTopic(f"{prefix}dead-letters", 1, 1),
        ]
    )
    for future in made.values():
        future.result(10)
    assert "E283" == refused(run("replay", "--project", folder))
    planned = run("plan", "--project", folder).output
    assert "cleanup.policy: compact -> delete" in planned
    assert "message.timestamp.type: CreateTime -> LogAppendTime" in planned
    assert 0 == run("apply", "--project", folder).exit_code
    assert 0 == run("replay", "--project", folder).exit_code


def test_brokers_that_are_not_there_are_told_of(folder: Path, kafka: Cluster) -> None:
    change(folder, kafka.address, "127.0.0.1:1")
    change(folder, "replication = 1", "replication = 1\nopen_timeout_ms = 300")
    assert "E401" == refused(run("plan", "--project", folder))
    assert "E401" in run("doctor", "--project", folder).output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_on_a_secured_cluster_a_user_may_do_what_acls_allow(
    secured_kafka: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "of-the-shop")
    folder = project_on(
        secured_kafka, tmp_path / "shop",
        f'tls = true\nca = "{secured_kafka.ca}"\nsasl = "SCRAM-SHA-512"\nusername = "shop-{tmp_path.name}"\n'
        'password = "env:KAFKA_PASSWORD"\nopen_timeout_ms = 3000',
    )  # fmt: skip
    user, prefix = f"shop-{tmp_path.name}", f"{tmp_path.name}."
    assert "E282" == refused(run("plan", "--project", folder)), "nobody of that name"
    secured_kafka.add_user(user, "of-the-shop")
    secured_kafka.allow(user, AclOperation.DESCRIBE, topics=prefix)
    assert "E282" == refused(run("apply", "--project", folder)), "it may not make topics"
    secured_kafka.allow(
        user, AclOperation.CREATE, AclOperation.DESCRIBE_CONFIGS, AclOperation.READ,
        AclOperation.WRITE, topics=prefix,
    )  # fmt: skip
    done = run("apply", "--project", folder)
    assert 0 == done.exit_code, done.output
    people = tmp_path / "people.csv"
    people.write_text(PEOPLE)
    assert 0 == run("load", "--as", "people", people, "--project", folder).exit_code
    examined = run("doctor", "--project", folder)
    assert "kafka topics: as they are declared" in examined.output
    assert "of-the-shop" not in examined.output
    monkeypatch.setenv("KAFKA_PASSWORD", "wrong")
    assert "E282" == refused(run("plan", "--project", folder)), "a wrong password"
