"""Alerts reach a real web server and a real mail server; what these answer decides whether an alert
was taken."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.receivers import certificate, mail_server, webhook
from tests.unit.budgets.test_alerts import BUDGET, LIMIT, state

from gpu_token_analytics.budgets.alerts import alerts_of
from gpu_token_analytics.budgets.receivers import (
    Alertmanager,
    Mail,
    NotDelivered,
    Webhook,
    receivers_of,
)
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.settings import Settings, load


def stored(name: str = "acme") -> dict[str, Any]:
    (alert,) = alerts_of(replace(state(LIMIT // 2 + 1), budget=replace(BUDGET, name=name)))
    return {**alert.document(), "raised_at": datetime(2026, 3, 9, 12, tzinfo=UTC)}


def mail_settings(port: int, **changes: Any) -> Settings:
    fields: dict[str, Any] = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_security": "none"}
    addresses = {
        "alert_mail_to": "finops@example.com, lead@example.com",
        "alert_mail_from": "Costs <costs@example.com>",
    }
    return load(**{**fields, **addresses, **changes})


def test_a_webhook_gets_the_alert_with_one_id_for_all_attempts() -> None:
    with webhook() as hook:
        receiver = Webhook(hook.url, "s3cret")
        receiver.send(stored())
        receiver.send(stored())
        receiver.send(stored("other"))
    (first, body), (again, _), (other, _) = hook.posts
    assert body["budget"] == "acme"
    assert body["spent_nusd"] == LIMIT // 2 + 1
    assert body["text"].startswith("Budget acme: 50 % spent. tenant acme")
    assert first["authorization"] == "Bearer s3cret"
    assert first["idempotency-key"] == again["idempotency-key"] != other["idempotency-key"]


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503])
def test_a_webhook_that_does_not_answer_2xx_did_not_take_it(status: int) -> None:
    with webhook() as hook:
        hook.answers = [status]
        with pytest.raises(NotDelivered, match=f"answered {status}"):
            Webhook(hook.url).send(stored())
        assert len(hook.posts) == 1, "no redirect is followed"
    with pytest.raises(NotDelivered, match="cannot be reached") as error:
        Webhook(hook.url + "?token=s3cret").send(stored())
    assert "s3cret" not in str(error.value)


def test_people_get_a_mail() -> None:
    with mail_server() as box:
        Mail(mail_settings(box.port)).send(stored())
        Mail(mail_settings(box.port)).send(stored())
    (sender, recipients, mail), (_, _, again) = box.mails
    assert sender.startswith("<costs@example.com>")
    assert [text.split()[0] for text in recipients] == [
        "<finops@example.com>",
        "<lead@example.com>",
    ]
    assert mail["Subject"] == "Budget acme: 50 % spent"
    assert mail["Message-ID"] == again["Message-ID"]
    assert mail["Message-ID"].endswith("@example.com>")
    text = mail.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert b"has spent 500,000,000.00 USD of 1,000,000,000.00 USD" in text
    assert b"\x1b" not in text


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mails_go_encrypted_and_the_server_must_be_who_it_says(
    tmp_path: Path, security: str
) -> None:
    server, client = certificate(tmp_path)
    with mail_server(server, at_once=security == "tls") as box:
        settings = mail_settings(
            box.port, smtp_security=security, smtp_username="costs", smtp_password="s3cret"
        )
        Mail(settings, client).send(stored())
        assert box.encrypted == [True]
        assert base64.b64decode(box.logins[0]) == b"\0costs\0s3cret"
        with pytest.raises(NotDelivered, match="certificate verify failed"):
            Mail(settings).send(stored())  # nobody vouches for it
    assert len(box.mails) == 1


def test_a_mail_server_that_offers_no_encryption_gets_nothing() -> None:
    with mail_server() as box, pytest.raises(NotDelivered):
        Mail(
            mail_settings(
                box.port, smtp_security="starttls", smtp_username="costs", smtp_password="s3cret"
            )
        ).send(stored())
    assert (box.mails, box.logins) == ([], [])


@pytest.mark.parametrize(
    ("verb", "answer", "said"),
    [
        ("MAIL", "451 try later", "the server answered 451 try later"),
        ("RCPT", "550 unknown", None),
        ("DATA", "554 no", "the server answered 554 no"),
    ],
)
def test_a_mail_that_is_refused_was_not_taken(verb: str, answer: str, said: str | None) -> None:
    with mail_server() as box:
        box.refuse = {verb: [answer]}
        if said is None:  # one of two addresses: the other one is told
            Mail(mail_settings(box.port)).send(stored())
            assert len(box.mails[0][1]) == 1
            box.refuse = {verb: [answer, answer]}
            said = "refused every address"
        with pytest.raises(NotDelivered, match=said):
            Mail(mail_settings(box.port)).send(stored())
    with pytest.raises(NotDelivered, match="cannot be reached"):
        Mail(mail_settings(box.port)).send(stored())


def test_alertmanager_is_posted_labels_that_are_the_same_each_time() -> None:
    with webhook() as hook:
        receiver = Alertmanager(hook.url + "/", site="b")
        receiver.send(stored())
        receiver.send({**stored(), "raised_at": stored()["end"] + timedelta(hours=1)})
    (_, [alert]), (_, [late]) = hook.posts
    assert alert["labels"] == late["labels"]
    assert (alert["labels"]["severity"], alert["labels"]["percent"], alert["labels"]["site"]) == (
        "warning",
        "50",
        "b",
    )
    assert alert["endsAt"] == "2026-04-01T00:00:00Z"
    assert late["endsAt"] > late["startsAt"], "else it would be over before anybody was told"


def test_receivers_are_those_that_are_set() -> None:
    assert receivers_of(load()) == []
    made = receivers_of(
        load(
            alert_webhook_url="https://example.com/x",
            alertmanager_url="http://am:9093",
            smtp_host="mail",
            alert_mail_to="a@example.com",
            alert_mail_from="b@example.com",
        )
    )
    assert [receiver.name for receiver in made] == ["webhook", "mail", "alertmanager"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"alert_webhook_url": "ftp://user:s3cret@example.com"}, "ALERT_WEBHOOK_URL is no http"),
        ({"alertmanager_url": "am:9093"}, "ALERTMANAGER_URL is no http"),
        ({"smtp_host": "mail"}, "needs ALERT_MAIL_TO"),
        (
            {"alert_mail_from": "a@example.com\nBcc: all@example.com"},
            "ALERT_MAIL_FROM holds a control character",
        ),
        ({"smtp_username": "u", "smtp_security": "none"}, "in the clear"),
    ],
)
def test_settings_that_cannot_be_used_are_named(changes: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as error:
        load(**changes)
    assert "s3cret" not in str(error.value)
