"""Rules between settings, and errors that name setting, value and rule without showing a secret."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.settings import Settings, load, near_misses


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"raw_retention_days": 8}, r"RAW_RETENTION_DAYS=8 .*KAFKA_RETENTION_HOURS=168"),
        (
            {"silent_gpu_owned_minutes": 29 * 1440},
            r"SILENT_GPU_OWNED_MINUTES=41760 .*RAW_RETENTION_DAYS=30",
        ),
        (
            {"sample_interval_seconds": 31},
            r"SAMPLE_INTERVAL_SECONDS=31.* SAMPLE_GAP_LIMIT_SECONDS=30",
        ),
        ({"price_per_hour_usd": -1}, r"PRICE_PER_HOUR_USD=-1"),
        ({"work_weights": "[1]"}, r"WORK_WEIGHTS='\[1\]': .*not a JSON object"),
        (
            {"work_weights": '{"m": {"input": 1}, "m": {"input": 2}}'},
            r"WORK_WEIGHTS=.*names 'm' twice",
        ),
        (
            {"work_weights": '{"m": {"input": 1, "output": 4, "input": 2}}'},
            r"WORK_WEIGHTS=.*names 'input' twice",
        ),
        ({"kafka_extra_config": "{"}, r"KAFKA_EXTRA_CONFIG='\{': .*is not JSON"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_rule(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(**given)


SECRETS = [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_cannot_be_used_is_not_shown(name: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(**{name: ["mongodb://user:canary@host"]})
    assert f"{name.upper()}='***'" in str(error.value)
    assert "canary" not in str(error.value)


@pytest.mark.parametrize("name", ["low_volume_tokens", "kafka_security_protocol", "smtp_security"])
def test_what_is_no_secret_is_shown(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name.upper()}=\['x'\]: "):
        load(**{name: ["x"]})


def test_raw_events_are_complete_for_the_retention_less_a_day_and_the_silence_they_own() -> None:
    settings = load(raw_retention_days=30, silent_gpu_owned_minutes=120)
    assert settings.raw_complete_for == timedelta(days=29) - timedelta(hours=2)


@pytest.mark.parametrize(
    ("site", "host", "named"),
    [
        ("", "node-1", "node-1"),
        ("a", "node-1", "node-1.a"),
        ("a", "node-1.a", "node-1.a"),
        ("b", "node-1.a", "node-1.a.b"),
    ],
)
def test_hosts_of_two_sites_never_share_a_name(site: str, host: str, named: str) -> None:
    assert load(site=site).host_at_site(host) == named


@pytest.mark.parametrize("site", ["A", "a b", "x" * 33, "a.b"])
def test_a_site_has_a_name_that_labels_and_hosts_can_carry(site: str) -> None:
    with pytest.raises(SettingsError, match="SITE="):
        load(site=site)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PRICE_PER_HOUR", "PRICE_PER_HOUR_USD"),
        ("price_per_hour", "PRICE_PER_HOUR_USD"),
        ("PRICE_PER_HOURS_USD", "PRICE_PER_HOUR_USD"),
        ("KAFKA_BOOTSTRAPS", "KAFKA_BOOTSTRAP"),
        ("RAW_RETENTION_DAY", "RAW_RETENTION_DAYS"),
        ("RAW_RETENTION", "RAW_RETENTION_DAYS"),
        ("GPU_PRICE_PER_HOUR", "PRICE_PER_HOUR_USD"),
        ("PRICE_PER_GPU_HOUR", "PRICE_PER_HOUR_USD"),
        ("DEFAULT_PRICE_PER_HOUR_USD", "PRICE_PER_HOUR_USD"),
        ("USD_PER_HOUR", "PRICE_PER_HOUR_USD"),
        ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP"),
        ("KAFKA_GROUP_ID", "KAFKA_GROUP"),
    ],
)
def test_a_name_that_is_nearly_a_setting_is_told(name: str, meant: str) -> None:
    assert near_misses([name, "PATH", "PRICE_PER_HOUR_USD"]) == [(name.upper(), meant)]


def test_names_of_others_are_not() -> None:
    others = [
        "HOSTNAME",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "KAFKA_PORT",
        "KAFKA_HOME",
        "LOG",
        "MONGODB",
        "HOST",
        "PWD",
        "LANG",
        "KAFKA_PORT_9092_TCP_ADDR",
        "KAFKA_SERVICE_HOST",
        "MONGODB_SERVICE_PORT",
        "RUST_LOG_LEVEL",
        "KUBERNETES_SERVICE_PORT_HTTPS",
        "NVIDIA_VISIBLE_DEVICES",
        "KAFKA_HEAP_OPTS",
    ]
    assert near_misses(others) == []


@pytest.mark.parametrize("host", ["h" * 96, "a b", "a/b", "a\n", " "])
def test_a_host_has_a_name_that_events_take(host: str) -> None:
    """Else every sample of the agent is a dead letter, or its labels are none."""
    with pytest.raises(SettingsError, match="HOST_NAME"):
        load(host_name=host)
    longest = load(host_name="h" * 95, site="s" * 32)
    assert len(longest.host_at_site(longest.host_name)) <= 128
