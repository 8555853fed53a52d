"""MirrorMaker's properties, MongoDB's replica set, and the settings that the product gets at each
site."""

from __future__ import annotations

import json

from deploy.sites.table import LOOPBACK, Kind, Role, Service, Site, SiteTable

# One broker per site here; with three, 3. The store is what survives a site, the topic what
# survives the store.
_REPLICATION = 1
_INTERNAL_TOPICS = (
    "checkpoints.topic",
    "heartbeats.topic",
    "offset-syncs.topic",
    "offset.storage",
    "status.storage",
    "config.storage",
)
_SECONDS = {
    "sync.group.offsets.interval.seconds": 2,
    "emit.checkpoints.interval.seconds": 2,
    "refresh.groups.interval.seconds": 5,
    "refresh.topics.interval.seconds": 5,
}
_REST_PORT = 8083


def mongodb_uri(table: SiteTable) -> str:
    """The same at every site: the addresses are."""
    members = ",".join(f"{LOOPBACK}:{member.port}" for member in table.of(Kind.MONGODB))
    return f"mongodb://{members}/?replicaSet={table.replica_set.name}&w=majority&retryWrites=true"


def replica_set(table: SiteTable) -> str:
    """The document for rs.initiate(), as JSON."""
    members = [
        {
            "_id": index,
            "host": f"{LOOPBACK}:{m.port}",
            "priority": m.priority,
            "votes": 1,
            "tags": {"site": m.site},
        }
        for index, m in enumerate(table.of(Kind.MONGODB))
    ]
    settings = {
        "electionTimeoutMillis": table.replica_set.election_timeout_ms,
        "heartbeatIntervalMillis": table.replica_set.heartbeat_interval_ms,
    }
    document = {
        "_id": table.replica_set.name,
        "version": 1,
        "members": members,
        "settings": settings,
    }
    return json.dumps(document, indent=2) + "\n"


def settings(table: SiteTable, site: Site) -> dict[str, str]:
    """Environment of the product's processes at a site that runs them."""
    kafka = table.the(site.name, Kind.KAFKA)
    return {
        "SITE": site.name,
        "KAFKA_BOOTSTRAP": f"{LOOPBACK}:{kafka.port}",
        "KAFKA_TOPIC": table.topics.events,
        "KAFKA_PARTITIONS": str(table.topics.partitions),
        "KAFKA_REPLICATION_FACTOR": str(_REPLICATION),
        "KAFKA_GROUP": table.topics.group,
        "MONGODB_URI": mongodb_uri(table),
        "LOG_FORMAT": "json",
    }


def mirror(table: SiteTable, *, both_ways: bool) -> str:
    """MirrorMaker's file. One process per TARGET site reads it: `MirrorMaker FILE --clusters
    <target>`.

    One way: the standby site keeps the active one's topics under their own names, group offsets
    included. Both ways: each site keeps the other's under `<site>.<topic>`; the names are what
    stops an event from going round for ever.
    """
    active, standby = table.by_role(Role.ACTIVE), table.by_role(Role.STANDBY)
    kafka = {site.name: table.the(site.name, Kind.KAFKA) for site in (active, standby)}
    ways = [(active.name, standby.name)] + ([(standby.name, active.name)] if both_ways else [])
    targets = [target for _, target in ways]
    lines = [
        f"clusters = {', '.join(kafka)}",
        *(
            f"{name}.bootstrap.servers = {LOOPBACK}:{service.port}"
            for name, service in kafka.items()
        ),
        (
            "# The gateway takes connections also while the link is cut, and closes them: clients "
            "would try at once again."
        ),
        *(f"{name}.reconnect.backoff.ms = 500" for name in kafka),
        *(f"{name}.reconnect.backoff.max.ms = 5000" for name in kafka),
        *(
            f"{source}->{target}.enabled = {_word((source, target) in ways)}"
            for source, target in _directions(kafka)
        ),
        "",
        f"topics = {_pattern(table.topics.events)}, {_pattern(table.topics.dead_letters)}",
        f"groups = {_pattern(table.topics.group)}",
    ]
    if both_ways:
        # Under the other name a group of the same name has nothing to take over.
        lines += [
            "replication.policy.class = org.apache.kafka.connect.mirror.DefaultReplicationPolicy"
        ]
        lines += ["sync.group.offsets.enabled = false"]
    else:
        lines += [
            "# Names stay. Never in both directions at once: this policy does not see a loop."
        ]
        lines += [
            "replication.policy.class = org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
        ]
        lines += ["sync.group.offsets.enabled = true"]
    lines += [
        "offset-syncs.topic.location = target",
        "offset.lag.max = 0",
        "sync.topic.acls.enabled = false",
        *(f"{name} = {seconds}" for name, seconds in _SECONDS.items()),
        "tasks.max = 4",
        f"replication.factor = {_REPLICATION}",
        *(f"{topic}.replication.factor = {_REPLICATION}" for topic in _INTERNAL_TOPICS),
        "",
        (
            "# Exactly once. Both keys need the target's name in front: without it MirrorMaker "
            "ignores them and says nothing."
        ),
        *(f"{target}.exactly.once.source.support = enabled" for target in targets),
        *(f"{target}.offset.flush.interval.ms = 1000" for target in targets),
        "dedicated.mode.enable.internal.rest = true",
        f"listeners = http://{LOOPBACK}:{_REST_PORT}",
        "plugin.discovery = service_load",
    ]
    return "\n".join(lines) + "\n"


def _directions(kafka: dict[str, Service]) -> list[tuple[str, str]]:
    return [(source, target) for source in kafka for target in kafka if source != target]


def _pattern(name: str) -> str:
    """A topic or group as the regular expression that matches it alone, in the escaping of a
    .properties file."""
    return name.replace(".", "\\\\.")


def _word(truth: bool) -> str:
    return "true" if truth else "false"
