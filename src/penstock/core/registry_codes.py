"""The error codes of schema registries and of events from other producers; part of `codes.CODES`."""

from penstock.core.stored_codes import Code

REGISTRY: dict[str, Code] = {
    "E198": Code(
        "Declared events can't be published as they are: two have one subject, or two fields one name.",
        "Rename one of them, or have subjects named otherwise by `registry.subjects`.",
    ),
    "E199": Code(
        "A schema registry does not take what was sent as a schema.",
        "See its message; another `registry.format` may be what it knows.",
    ),
    "E230": Code(
        "What `registry.url` names is no schema registry, or does not let us in.",
        "Name the root of its Confluent API, such as `http://127.0.0.1:8081`; Apicurio's ends in "
        "`/apis/ccompat/v7`. Set `registry.username` and `registry.password`.",
    ),
    "E231": Code(
        "Settings of `[registry]` do not go together.",
        "Name the topic that subjects are to be named by in `registry.topic`.",
    ),
    "E232": Code(
        "Schemas are to be published, and the project has no schema registry.",
        'Set `registry.url` in `penstock.toml`, such as "http://127.0.0.1:8081".',
    ),
    "E233": Code(
        "A connector maps records to an event, a field or a unit that does not exist.",
        "Correct the name, or declare it in `events.py`.",
    ),
    "E234": Code(
        "A connector lacks something, or its settings do not go together.",
        "Set what the message names: topics, brokers, a declared source, a registry, events.",
    ),
    "E235": Code(
        "Topics of other producers need an extra that is not installed: Kafka, or Avro and Protobuf.",
        "pip install 'penstock[kafka,registry]'",
    ),
    "E236": Code(
        "A connector is named that the project does not have.",
        "Use a name of `[connect.NAME]` in `penstock.toml`, or add it there.",
    ),
    "E237": Code(
        "A connector's topics can't be read: they do not exist, or the brokers do not let us in.",
        "Check `connect.NAME.topics`, `brokers` and `client`, and what the user may read: topics, and the groups "
        "`GROUP` and `GROUP.copied`.",
    ),
    "E238": Code(
        "A topic of `[feed]` is to be written by a schema that the registry does not have.",
        "Run `penstock schemas publish`, which registers it. Nothing is lost: it is told from where it was.",
    ),
    "E330": Code(
        "A record of a topic is not in the Confluent wire format.",
        "Send it with a serializer of the registry, or set the connector's `format` to what the topic has.",
    ),
    "E331": Code(
        "A record of a topic does not read back as its format or its schema says.",
        "Send it with the schema that it names. Its dead letter tells topic, partition and offset.",
    ),
    "E332": Code(
        "The schema of a record can't be used: it does not compile, or is of another kind than the connector's `format`.",
        "Mend the schema at the registry, or set the `format` that the topic has.",
    ),
    "E333": Code(
        "The schema of a record is not known yet: the registry is away, or has no such id. The record is parked.",
        "Start the registry, or register the schema; the record comes back by itself, with the same message id.",
    ),
    "E334": Code(
        "A value of a record is not what its field needs: a timestamp that is no instant, a key that is no text.",
        "Map another field, or set `timestamp_unit`.",
    ),
    "E335": Code(
        "A record was parked, and its topic had it no more when its schema was known.",
        "Keep the topic's records for longer than a registry may be away.",
    ),
    "E494": Code(
        "The brokers of a connector's topics do not answer.",
        "The connector goes on trying, and loses nothing. If it lasts, look at the brokers.",
    ),
    "E490": Code(
        "The schema registry does not answer.",
        "Start it, or correct `registry.url`. Schemas that were read before go on being used meanwhile.",
    ),
}
