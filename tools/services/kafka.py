"""Apache Kafka in KRaft mode: one broker or several, open or with TLS, SCRAM users and ACLs."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tools.services.maven import jars
from tools.services.service import LOOPBACK, Running, Server, free_ports, missing_programs

JARS = (
    "org.apache.kafka:kafka_2.13:4.4.0",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
    "org.apache.logging.log4j:log4j-core:2.25.3",
)
JVM = (
    "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxDirectMemorySize=64m",
)  # fmt: skip
CLUSTER_ID = "penstock-of-the-tests0"
"""22 characters, as KRaft wants them."""

ADMIN, ADMIN_PASSWORD = "admin", "the-admins-password"
STORE_PASSWORD = "of-the-key-store"  # noqa: S105 - of a key that is made anew for every test run
SCRAM_ITERATIONS = 4_096
ANSWER_S_MAX = 30.0

_LOG4J = """<Configuration><Appenders><Console name="out"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console>
</Appenders><Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers></Configuration>
"""


ALLOWED_URLS = "org.apache.kafka.sasl.oauthbearer.allowed.urls"
"""The property of a broker's JVM that names where it may fetch keys from; without it, nowhere."""


@dataclass(frozen=True)
class Tokens:
    """An identity provider whose tokens (JWT) brokers take: they check the signature, and who is meant."""

    keys_url: str
    """Of its public keys (JWKS)."""
    issuer: str
    audience: str


@dataclass
class Cluster(Running):
    """A cluster that answers. `servers` are its brokers, `kafka-1` first."""

    client: dict[str, str] = field(default_factory=dict)
    """What a client is told to reach it as its administrator, as librdkafka names it."""
    ca: Path | None = None
    """The certificate to trust, of a secured one."""

    def stop(self) -> None:
        """Stop every broker at once: the last ones of several have no quorum left to say goodbye to."""
        for server in self.servers:
            server.ask_to_end()
        if len(self.servers) > 1:
            for server in self.servers:
                server.kill()
        super().stop()

    def client_of(self, name: str, password: str) -> dict[str, str]:
        """Return what a client of a secured cluster is told to reach it as a user."""
        return {**self.client, "sasl.username": name, "sasl.password": password}

    def add_user(self, name: str, password: str) -> None:
        """Let a user in, who may do nothing yet."""
        admin = AdminClient(self.client)
        mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
        asked = admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(name, mechanism, password.encode())]
        )
        for one in asked.values():
            one.result(ANSWER_S_MAX)

    def allow(
        self, name: str, *operations: AclOperation, topics: str = "", groups: str = "", transactions: str = "",
    ) -> None:  # fmt: skip
        """Allow a user to do something with all topics, groups or transactional ids that begin with a prefix."""
        admin = AdminClient(self.client)
        resources = [
            (ResourceType.TOPIC, topics), (ResourceType.GROUP, groups), (ResourceType.TRANSACTIONAL_ID, transactions),
        ]  # fmt: skip
        asked = admin.create_acls(
            [
                AclBinding(kind, prefix, ResourcePatternType.PREFIXED, f"User:{name}", "*", operation,
                           AclPermissionType.ALLOW)
                for kind, prefix in resources if prefix
                for operation in operations
            ]
        )  # fmt: skip
        for one in asked.values():
            one.result(ANSWER_S_MAX)


class Kafka:
    """Apache Kafka 4, from Maven Central."""

    name = "kafka"

    def missing(self) -> str:
        """Return what this machine lacks, and the fix."""
        return missing_programs(
            java="apt-get install default-jre-headless", mvn="apt-get install maven"
        )

    def install(self) -> None:
        """Resolve its jars."""
        self._jars()

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add how many brokers, and whether they are secured."""
        parser.add_argument("--brokers", type=int, default=1, help="1 or 3")
        parser.add_argument(
            "--secured", action="store_true", help="TLS, SCRAM-SHA-512 users and ACLs"
        )

    def start(
        self, folder: Path, *, brokers: int = 1, secured: bool = False,
        settings: Mapping[str, str] | None = None, told: Sequence[int] = (), tokens: Tokens | None = None,
    ) -> Cluster:  # fmt: skip
        """Start a cluster, and wait until every broker is part of it.

        Args:
            folder: Empty; each broker has a folder inside.
            brokers: How many; with 3, topics have 3 copies and a write needs 2 of them.
            secured: Whether clients need TLS and a SCRAM user, who may do what ACLs allow.
            settings: More of the brokers' own settings.
            told: Ports at which others are told to reach each broker, in order, where a proxy stands
                before it; replication goes that way too.
            tokens: Whose tokens a secured cluster takes besides, for OAUTHBEARER.
        """
        ports = free_ports(2 * brokers)
        listening, voting = ports[:brokers], ports[brokers:]
        address = ",".join(f"{LOOPBACK}:{port}" for port in listening)
        ca = _make_certificates(folder) if secured else None
        cluster = Cluster(address, [], folder, _client(address, ca), ca)
        voters = ",".join(f"{node}@{LOOPBACK}:{port}" for node, port in enumerate(voting, 1))
        for node in range(1, brokers + 1):
            home = folder / f"kafka-{node}"
            home.mkdir()
            properties = {
                **_plain(node, listening[node - 1], voting[node - 1], voters, home / "data"),
                **_copies(brokers),
                **(_secured(folder, listening[node - 1], voting[node - 1]) if secured else {}),
                **(_behind(told[node - 1], secured=secured) if told else {}),
                **(_takes(tokens) if tokens else {}),
                **(settings or {}),
            }
            config = home / "server.properties"
            config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
            (home / "log4j2.xml").write_text(_LOG4J)
            self._format(config, secured=secured)
            allowed = [f"-D{ALLOWED_URLS}={tokens.keys_url}"] if tokens else []
            command = self._java(home, *allowed, "kafka.Kafka", str(config))
            itself = _client(f"{LOOPBACK}:{listening[node - 1]}", ca)
            ready = partial(_answers, itself, brokers)
            cluster.servers.append(Server(f"kafka-{node}", command, home, ready))
        try:
            for server in cluster.servers:
                server.launch()
            for server in cluster.servers:
                server.wait()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def _jars(self) -> Path:
        return jars(self.name, JARS)

    def _java(self, home: Path, main: str, *arguments: str) -> list[str]:
        java = shutil.which("java") or "java"
        log4j = f"-Dlog4j2.configurationFile={home / 'log4j2.xml'}"
        return [java, *JVM, log4j, "-cp", f"{self._jars()}/*", main, *arguments]

    def _format(self, config: Path, *, secured: bool) -> None:
        """Make the folder of a broker, with the first user of a secured cluster in it."""
        first = f"SCRAM-SHA-512=[name={ADMIN},password={ADMIN_PASSWORD}]"
        subprocess.run(
            [*self._java(config.parent, "kafka.tools.StorageTool", "format"), "--ignore-formatted",
             "-t", CLUSTER_ID, "-c", str(config), *(["--add-scram", first] if secured else [])],
            check=True, capture_output=True,
        )  # fmt: skip


def _plain(node: int, port: int, voting: int, voters: str, data: Path) -> dict[str, str]:
    """Return the settings of a broker without secrets, on a small machine."""
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{voting}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(data),
        "num.network.threads": "2",
        "num.io.threads": "2",
        "background.threads": "2",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "2",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        # A broker that was killed is let in again after 3 s, where it is 11 s by default.
        "broker.session.timeout.ms": "1500",
        "broker.heartbeat.interval.ms": "300",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "log.cleaner.threads": "1",
    }


def _behind(port: int, *, secured: bool) -> dict[str, str]:
    """Return what is different for a broker that is reached through a proxy."""
    return {"advertised.listeners": f"{'SASL_SSL' if secured else 'PLAINTEXT'}://{LOOPBACK}:{port}"}


def _copies(brokers: int) -> dict[str, str]:
    """Return how many copies there are, and how many a write waits for."""
    copies, written = min(brokers, 3), min(brokers, 2)
    return {
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(written),
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(written),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(written),
        "replica.lag.time.max.ms": "3000",
    }


def _secured(folder: Path, port: int, voting: int) -> dict[str, str]:
    """Return what is different for brokers that ask who somebody is, and what they may do."""
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    who = f'username="{ADMIN}" password="{ADMIN_PASSWORD}"'
    return {
        "listeners": f"SASL_SSL://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{voting}",
        "advertised.listeners": f"SASL_SSL://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "CONTROLLER:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{scram} required {who};",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": (
            f'{plain} required {who} user_{ADMIN}="{ADMIN_PASSWORD}";'
        ),
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(folder / "broker.p12"),
        "ssl.keystore.password": STORE_PASSWORD,
        "ssl.truststore.type": "PKCS12",
        "ssl.truststore.location": str(folder / "trusted.p12"),
        "ssl.truststore.password": STORE_PASSWORD,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN}",
        "allow.everyone.if.no.acl.found": "false",
    }


def _takes(tokens: Tokens) -> dict[str, str]:
    """Return what is different for brokers that take tokens, besides passwords."""
    oauth = "org.apache.kafka.common.security.oauthbearer"
    listener = "listener.name.sasl_ssl.oauthbearer"
    return {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        f"{listener}.sasl.server.callback.handler.class": f"{oauth}.OAuthBearerValidatorCallbackHandler",
        f"{listener}.sasl.jaas.config": f"{oauth}.OAuthBearerLoginModule required;",
        f"{listener}.sasl.oauthbearer.jwks.endpoint.url": tokens.keys_url,
        f"{listener}.sasl.oauthbearer.expected.issuer": tokens.issuer,
        f"{listener}.sasl.oauthbearer.expected.audience": tokens.audience,
        # Whose token has run out is asked for a new one, on the connection that it has.
        "connections.max.reauth.ms": "3600000",
    }


def _client(address: str, ca: Path | None) -> dict[str, str]:
    """Return what a client is told to reach a cluster."""
    plain = {"bootstrap.servers": address, "log_level": "0"}
    if ca is None:
        return plain
    return {
        **plain,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(ca),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": ADMIN,
        "sasl.password": ADMIN_PASSWORD,
    }


def _answers(client: Mapping[str, str], brokers: int) -> bool:
    """Return whether a cluster answers, and every broker is part of it."""
    admin = AdminClient(dict(client))
    try:
        return len(admin.list_topics(timeout=1).brokers) == brokers
    except KafkaException:
        return False


def _make_certificates(folder: Path) -> Path:
    """Make a key for the brokers, and return the certificate that clients trust."""
    store, trusted, ca = folder / "broker.p12", folder / "trusted.p12", folder / "ca.pem"
    secret = ["-storepass", STORE_PASSWORD, "-storetype", "PKCS12"]
    for arguments in (
        ["-genkeypair", "-keyalg", "EC", "-alias", "broker", "-dname", "CN=localhost", "-ext",
         f"san=ip:{LOOPBACK},dns:localhost", "-validity", "3650", "-keystore", str(store)],
        ["-exportcert", "-rfc", "-alias", "broker", "-file", str(ca), "-keystore", str(store)],
        ["-importcert", "-noprompt", "-alias", "broker", "-file", str(ca), "-keystore", str(trusted)],
    ):  # fmt: skip
        subprocess.run(["keytool", *arguments, *secret], check=True, capture_output=True)
    return ca


SERVICE = Kafka()
