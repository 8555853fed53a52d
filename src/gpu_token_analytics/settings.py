"""Every setting, in one table: name, default, what it does. Each is an environment variable of the
same name in capitals.

`docs/settings.md` is generated from this table and a test keeps the two equal. Durations, sizes and
money carry their unit in the name. Nothing else in this package reads the environment.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches
from functools import cache, cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.units import MAX_USD_PER_HOUR

_log = logging.getLogger(__name__)

_NEARLY = 0.9  # of the letters are the same, in order
_COMMON_WORDS, _MOST_WORDS = 3, 0.6  # of all words of both
_OTHERS = frozenset({"HOSTNAME"})  # set by every shell and container: not a misspelt HOST_NAME

GpuMetricsSource = Literal["", "nvml", "nvidia-smi", "dcgm-exporter", "amd-exporter", "seed"]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"names {twice!r} twice, and only the last would hold")
    return members


class Settings(BaseSettings):
    """The settings of every process. Build with `load()`, which turns mistakes into a
    SettingsError."""

    model_config = SettingsConfigDict(
        env_prefix="", case_sensitive=False, extra="ignore", frozen=True
    )

    # Kafka
    kafka_bootstrap: str = Field(
        "localhost:9092", description="Kafka brokers, `host:port[,host:port]`."
    )
    kafka_topic: str = Field(
        "tokens", description="Topic of all events; its dead letters go to `<topic>.dlq`."
    )
    kafka_partitions: int = Field(
        12, ge=1, le=1024, description="Partitions `topics create` gives a new topic."
    )
    kafka_replication_factor: int = Field(
        -1,
        ge=-1,
        le=32,
        description="Replication factor of a new topic; -1 is the broker's own default.",
    )
    kafka_retention_hours: int = Field(
        168,
        ge=1,
        description=(
            "Retention of the topic. Raw documents must outlive it (see RAW_RETENTION_DAYS)."
        ),
    )
    ledger_topic: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,249}$",
        description=(
            "Compacted topic that computed and corrected ledger cells go to, for a warehouse, such "
            "as `ledger`; empty: "
            "to none. The same in every processor and in `topics create`."
        ),
    )
    kafka_group: str = Field(
        "gpu-tokens-processor", description="Consumer group of the processors."
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to Kafka."
    )
    kafka_sasl_mechanism: str = Field(
        "", description="SASL mechanism, such as SCRAM-SHA-512 or PLAIN."
    )
    kafka_sasl_username: str = Field("", description="SASL user name.")
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="SASL password.")
    kafka_ssl_ca_file: str = Field(
        "", description="PEM file of the authority that signed the brokers' certificates."
    )
    kafka_ssl_certificate_file: str = Field(
        "", description="PEM certificate of this client, for mutual TLS."
    )
    kafka_ssl_key_file: str = Field("", description="PEM key of this client, for mutual TLS.")
    kafka_extra_config: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description='More librdkafka properties as a JSON object, such as `{"client.rack": "a"}`.',
    )

    # MongoDB
    mongodb_uri: SecretStr = Field(
        SecretStr("mongodb://localhost:27017"),
        description="MongoDB connection string, with its options (TLS, authSource).",
    )
    mongodb_database: str = Field("gpu_tokens", description="Database name.")
    mongodb_timeout_ms: int = Field(
        10_000, ge=100, description="Longest wait for one MongoDB operation."
    )
    raw_retention_days: int = Field(
        30,
        ge=1,
        description=(
            "Raw events are kept this long after they were stored; 2 days over "
            "KAFKA_RETENTION_HOURS or more."
        ),
    )

    # Ledger
    price_per_hour_usd: float = Field(
        0.85,
        ge=0,
        le=MAX_USD_PER_HOUR,
        description="Price of a GPU-hour where neither the price book nor the sample has one.",
    )
    finality_hours: int = Field(
        24,
        ge=1,
        description="A cell is final this long after it opened; later changes are corrections.",
    )
    sample_gap_limit_seconds: int = Field(
        30,
        ge=1,
        le=59,
        description="A GPU sample speaks for at most this long; time past it is `unobserved`.",
    )
    model_loaded_mb: float = Field(
        1024,
        ge=0,
        description=(
            "Memory in use at or above this without work is `warm_idle`, below it `cold_idle`."
        ),
    )
    silent_gpu_owned_minutes: int = Field(
        1440,
        ge=0,
        description=(
            "A GPU that stopped sending samples is still paid for (`unobserved`) for this long."
        ),
    )
    work_weights: Annotated[dict[str, dict[str, float]], NoDecode] = Field(
        default_factory=dict,
        description=(
            'Work per token by model as JSON, such as `{"llama-3-70b": {"input": 1, "cached": 0.1, '
            '"output": 4}}`; '
            "the key `*` is the default of all models."
        ),
    )
    low_volume_tokens: int = Field(
        1000, ge=0, description="Rates over fewer tokens are flagged `low_volume`."
    )
    close_debounce_seconds: float = Field(
        10,
        ge=0,
        le=3600,
        description="A touched cell waits this long for more events before it is computed.",
    )

    # Processor and API
    http_host: str = Field("127.0.0.1", description="Address the process's HTTP server listens on.")
    http_port: int = Field(
        8080, ge=0, le=65535, description="Port of the process's HTTP server; 0 picks a free one."
    )
    http_max_connections_per_address: int = Field(
        400,
        ge=1,
        le=100_000,
        description=(
            "Open HTTP connections from one address; one more takes the place of an idle one."
        ),
    )
    http_silence_seconds: float = Field(
        20,
        gt=0,
        le=3600,
        description=(
            "A connection whose next request, or the next piece of it, takes longer is closed."
        ),
    )
    batch_max_records: int = Field(
        8000, ge=1, le=100_000, description="Most records in one ingest batch."
    )
    batch_max_cells: int = Field(
        30_000,
        ge=1,
        le=1_000_000,
        description=(
            "Most ledger cells that the requests of one ingest batch mark; those of requests that "
            "reach further are "
            "marked by closing, in pieces of this size."
        ),
    )
    request_max_minutes: int = Field(
        360, ge=1, le=360, description="A request that took longer is a bad record."
    )
    request_max_gpus: int = Field(
        128, ge=1, le=128, description="A request that names more GPUs is a bad record."
    )
    batch_max_wait_ms: int = Field(
        200, ge=1, le=60_000, description="Longest wait for a batch to fill."
    )
    live_rate_window_seconds: int = Field(
        30, ge=1, le=3600, description="Trailing event time of the live rate."
    )
    gpu_names_per_hour: int = Field(
        10_000,
        ge=1,
        description=(
            "New names of GPUs nobody knows that a processor keeps in an hour, to list and find "
            "them."
        ),
    )
    gpu_names_kept: int = Field(
        100_000,
        ge=1,
        le=1_000_000,
        description="Names of GPUs nobody knows that are kept in all; the oldest go.",
    )
    bad_record_limit_ratio: float = Field(
        0.2,
        ge=0,
        le=1,
        description=(
            "Log, `/ready` and `bad_record_ratio` warn while more than this share of the last "
            "1,000 records is bad. "
            "All of them go to the dead letters; the processor never stops for them."
        ),
    )
    stuck_after_seconds: int = Field(
        60,
        ge=5,
        description=(
            "A partition that lags and yields nothing for this long is an error; so is a silent "
            "loop."
        ),
    )

    api_allow_anonymous_loopback: bool = Field(
        False,
        description=(
            "Answer /v1 without a key on a loopback address; ignored when HTTP_HOST is any other."
        ),
    )
    api_requests_per_second: float = Field(
        20, gt=0, le=100_000, description="Sustained requests per second and API key."
    )
    api_request_burst: int = Field(
        100, ge=1, le=100_000, description="Requests an API key may make at once."
    )
    api_max_body_bytes: int = Field(
        8 * 1024 * 1024,
        ge=65_536,
        le=1 << 30,
        description=(
            "Largest body of POST /v1/events and /v1/traces, packed and unpacked; others: 64 KiB."
        ),
    )
    api_query_timeout_ms: int = Field(
        10_000, ge=100, description="Longest database operation of one API request."
    )
    api_max_new_names_per_hour: int = Field(
        20_000,
        ge=1,
        description=(
            "Different (model, tenant, host) that one API key may send in an hour, in events and "
            "spans."
        ),
    )
    api_max_streams: int = Field(
        100, ge=1, le=10_000, description="Open live streams (/v1/stream)."
    )
    api_max_streams_per_key: int = Field(
        25, ge=1, le=10_000, description="Open live streams of one API key."
    )

    otlp_grpc_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description=(
            "Port on which the API also takes spans as OTLP/gRPC, usually 4317 (extra `grpc`); 0: "
            "none."
        ),
    )

    # Agent
    gpu_metrics_source: GpuMetricsSource = Field(
        "", description="Where GPU samples come from; empty: the processor samples no GPU."
    )
    gpu_exporter_url: str = Field(
        "",
        description=(
            "Page of the exporter source; empty: `http://127.0.0.1:9400/metrics` (DCGM), port 5000 "
            "(AMD)."
        ),
    )
    gpu_seed_file: str = Field("gpu_seed.json", description="GPUs of the `seed` source.")
    sample_interval_seconds: float = Field(
        5, gt=0, le=59, description="Time between two samples of one GPU."
    )
    engines: str = Field(
        "",
        description=(
            "Serving engines whose token counters the agent reads: `vllm=http://node1:8000 "
            "sglang=http://node2:30000`."
        ),
    )
    engine_interval_seconds: float = Field(
        15,
        ge=1,
        le=300,
        description="Time between two looks at the counters of an engine; best a part of a minute.",
    )
    nvidia_smi_path: str = Field("nvidia-smi", description="The nvidia-smi executable.")
    kubelet_pods_socket: str = Field(
        "",
        description=(
            "Unix socket of the kubelet's pod-resources (extra `grpc`), of which the agent tells "
            "which pod has which "
            "GPUs: `/var/lib/kubelet/pod-resources/kubelet.sock`; empty: it does not."
        ),
    )
    placements_url: str = Field(
        "",
        description=(
            "Address of the API that the agent tells placements, such as `http://api:8080`."
        ),
    )
    placements_api_key: SecretStr = Field(
        SecretStr(""), description="Its key, with the scope `placements`."
    )
    host_name: str = Field(
        "",
        # with the site behind, as long as events take it; `/` is what tells a label
        pattern=r"^[^\s/]{0,95}$",
        description=(
            "Name of this host in events, without blanks and `/`; empty: the machine's host name."
        ),
    )

    # Exporter
    exporter_refresh_seconds: float = Field(
        15, ge=1, le=3600, description="How often the exporter looks at Kafka and at the ledger."
    )
    metrics_max_names: int = Field(
        50,
        ge=0,
        le=1000,
        description=(
            "Most models, and most tenants, that the exporter's metrics name; the others are "
            "`(other)`."
        ),
    )
    audit_every_seconds: float = Field(
        900, ge=0, description="How often the exporter audits the ledger; 0: never."
    )
    audit_last_hours: float = Field(
        3, gt=0, le=24 * 31, description="How far back the exporter's audit looks."
    )

    # Budgets
    budget_check_seconds: float = Field(
        60,
        ge=0,
        le=3600,
        description=(
            "How often the API looks at budgets and sends alerts; 0: this process sends none."
        ),
    )
    alert_webhook_url: SecretStr = Field(
        SecretStr(""),
        description=(
            "Budget alerts are POSTed to it as JSON; empty: to none. Secret, as it may hold a "
            "token."
        ),
    )
    alert_webhook_token: SecretStr = Field(
        SecretStr(""), description="Sent to the webhook as `Authorization: Bearer ...`."
    )
    alertmanager_url: str = Field(
        "",
        description=(
            "Budget alerts go to this Alertmanager (`/api/v2/alerts` is added); empty: none."
        ),
    )
    alertmanager_token: SecretStr = Field(
        SecretStr(""), description="Sent to Alertmanager as `Authorization: Bearer ...`."
    )
    alert_mail_to: str = Field(
        "", description="Addresses that budget alerts are mailed to, with commas between."
    )
    alert_mail_from: str = Field("", description="Sender of these mails.")
    smtp_host: str = Field("", description="Mail server; empty: no mails.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the mail server.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        description=(
            "How to talk to the mail server; `none` sends mails, and no password, in the clear."
        ),
    )
    smtp_username: str = Field("", description="User at the mail server; empty: no login.")
    smtp_password: SecretStr = Field(SecretStr(""), description="Password at the mail server.")

    # Sites
    site: str = Field(
        "",
        pattern=r"^[a-z0-9-]{0,32}$",
        description=(
            "Name of the site this process runs at, where there are several: lower-case letters, "
            "digits, dashes. It is "
            "the label `site` of every metric, a field of every log line, and ends the agent's "
            "host "
            "name (`HOST_NAME` too)."
        ),
    )

    # Logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`json` writes one object per line."
    )

    @field_validator("kafka_extra_config", "work_weights", mode="before")
    @classmethod
    def _json_object(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return {}
        try:
            members = json.loads(value, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not JSON ({error.msg}); give one JSON object") from None
        if not isinstance(members, dict):
            raise ValueError("is not a JSON object")
        return members

    @cached_property
    def dlq_topic(self) -> str:
        """Where bad records go."""
        return f"{self.kafka_topic}.dlq"

    @property
    def ledger_transactional_id(self) -> str:
        """What the writers of the ledger's topic share, so that Kafka lets one of them write."""
        return f"gpu-tokens-{self.ledger_topic}"

    def host_at_site(self, host: str) -> str:
        """A host's name in events: unique among all sites, as hosts of two sites may have the same
        name, and a GPU without a UUID is known by its host. A name that says its site already stays
        as it is."""
        suffix = f".{self.site}"
        return host if not self.site or host.endswith(suffix) else host + suffix

    @property
    def raw_complete_for(self) -> timedelta:
        """A cell that opened within this time still has all raw events it is computed from: its
        own, and the evidence that silence is owned by. A day of this is left for events that were
        stored before the cell opened."""
        return timedelta(days=self.raw_retention_days - 1, minutes=-self.silent_gpu_owned_minutes)

    def check(self) -> Settings:
        """Rules between settings. Raises SettingsError; returns self."""
        if self.raw_retention_days * 24 < self.kafka_retention_hours + self.finality_hours + 24:
            raise SettingsError(
                f"RAW_RETENTION_DAYS={self.raw_retention_days} is too short: raw events must "
                "outlive the log "
                f"(KAFKA_RETENTION_HOURS={self.kafka_retention_hours}) by "
                f"FINALITY_HOURS={self.finality_hours} and a day, "
                "or a replay would count twice; raise it or shorten the log's retention"
            )
        if self.raw_complete_for < timedelta(hours=self.finality_hours):
            raise SettingsError(
                f"SILENT_GPU_OWNED_MINUTES={self.silent_gpu_owned_minutes} is too long for "
                "RAW_RETENTION_DAYS="
                f"{self.raw_retention_days}: raw events must outlive it by "
                f"FINALITY_HOURS={self.finality_hours} and a day, or "
                "a cell could not be computed again until it is final; raise the retention"
            )
        if self.sample_interval_seconds > self.sample_gap_limit_seconds:
            raise SettingsError(
                f"SAMPLE_INTERVAL_SECONDS={self.sample_interval_seconds} is longer than "
                f"SAMPLE_GAP_LIMIT_SECONDS={self.sample_gap_limit_seconds}: every GPU would look "
                "unobserved in between"
            )
        if self.ledger_topic in (self.kafka_topic, self.dlq_topic):
            raise SettingsError(
                f"LEDGER_TOPIC={self.ledger_topic} is the topic of events or of their dead "
                "letters: give the ledger its own"
            )
        self._check_receivers()
        return self

    def _check_receivers(self) -> None:
        addresses = {
            "alert_webhook_url": self.alert_webhook_url.get_secret_value(),
            "alertmanager_url": self.alertmanager_url,
        }
        for name, url in addresses.items():
            if url and not url.startswith(("http://", "https://")):
                raise SettingsError(
                    f"{name.upper()} is no http:// or https:// address; give one, or leave it empty"
                )
        if self.smtp_host and not (self.alert_mail_to.strip(", ") and "@" in self.alert_mail_from):
            raise SettingsError(
                f"SMTP_HOST={self.smtp_host!r} needs ALERT_MAIL_TO and ALERT_MAIL_FROM, addresses "
                "such as finops@example.com"
            )
        for name in ("alert_mail_to", "alert_mail_from"):
            if any(ord(character) < 32 for character in getattr(self, name)):
                raise SettingsError(
                    f"{name.upper()} holds a control character; give addresses in one line"
                )
        if self.smtp_username and self.smtp_security == "none":
            raise SettingsError(
                f"SMTP_USERNAME={self.smtp_username!r} with SMTP_SECURITY=none would send the "
                "password in the clear; "
                "choose starttls or tls, or leave the user empty"
            )


def near_misses(names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, the setting it nearly is) of environment names that set nothing: misspelt, without the
    unit, a word more, or most of its words."""
    settings = [name.upper() for name in Settings.model_fields]
    misses = []
    for name in sorted({name.upper() for name in names} - set(settings) - _OTHERS):
        longer = [setting for setting in settings if "_" in name and setting.startswith(f"{name}_")]
        close = (
            longer
            if len(longer) == 1
            else get_close_matches(name, settings, 1, _NEARLY) or _of_its_words(name, settings)
        )
        misses += [(name, setting) for setting in close]
    return misses


def _of_its_words(name: str, settings: list[str]) -> list[str]:
    """The setting whose words the name has most of (GPU_PRICE_PER_HOUR), or that it begins with
    (KAFKA_BOOTSTRAP_SERVERS)."""
    words = set(name.split("_"))

    def alike(setting: str) -> float:
        its = set(setting.split("_"))
        begins = len(its) > 1 and name.startswith(f"{setting}_") and len(words) == len(its) + 1
        return (
            len(words & its) / len(words | its)
            if begins or len(words & its) >= _COMMON_WORDS
            else 0.0
        )

    best = max(settings, key=alike)
    return [best] if alike(best) >= _MOST_WORDS else []


@cache
def _warn_of_near_misses() -> None:
    for name, setting in near_misses(os.environ):
        _log.warning(
            "the environment sets %s, which is no setting and changes nothing: is %s meant?",
            name,
            setting,
        )


def _shown(name: str, value: Any) -> str:
    """A value that was refused, as it may be shown."""
    field = Settings.model_fields.get(name)
    return repr(value) if field is not None and field.annotation is not SecretStr else "'***'"


def load(**overrides: Any) -> Settings:
    """Settings from the environment, `overrides` first. Raises SettingsError naming setting, value
    and rule.

    Names in the environment that are nearly a setting's are warned about, once.
    """
    _warn_of_near_misses()
    try:
        return Settings(
            **{key: value for key, value in overrides.items() if value is not None}
        ).check()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']).upper()}="
            f"{_shown(str(item['loc'][0]), item['input'])}: {item['msg']}"
            for item in error.errors()
        )
        raise SettingsError(f"a setting cannot be used: {problems}") from None
