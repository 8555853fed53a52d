"""Who is told of alerts: a webhook, people by e-mail, Alertmanager. All are settings: no caller of
the API names one.

Each alert has one id for all of its attempts: the webhook's `Idempotency-Key`, the mail's
Message-ID; Alertmanager knows an alert by its labels. So an attempt whose answer was lost can be
told from a second alert.
"""

from __future__ import annotations

import base64
import hashlib
import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from http.client import HTTPException
from typing import Any, Protocol

from gpu_token_analytics.budgets.alerts import paragraph, plain, subject
from gpu_token_analytics.settings import Settings

TIMEOUT_SECONDS = 10.0
_MOST_ERROR_CHARACTERS = 300
_SHORTEST = timedelta(hours=1)  # that Alertmanager is told an alert fires

Json = dict[str, Any]


class NotDelivered(Exception):
    """A receiver did not take an alert; the text says why, without secrets."""


class Receiver(Protocol):
    """Somebody who is told."""

    name: str

    def send(self, alert: Mapping[str, Any]) -> None:
        """Tell of a stored alert. Raises NotDelivered."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An alert is for the address that the operator gave, and no other."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        return None


# No proxies from the environment either: what is not a setting changes nothing.
_opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


def _post(url: str, body: Any, headers: Mapping[str, str]) -> None:
    data = json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", **headers}, method="POST"
    )
    try:
        with _opener.open(request, timeout=TIMEOUT_SECONDS):
            pass  # any 2xx
    except urllib.error.HTTPError as error:
        with error:
            raise NotDelivered(
                f"answered {error.code} {error.reason}"[:_MOST_ERROR_CHARACTERS]
            ) from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise NotDelivered(f"cannot be reached: {reason}"[:_MOST_ERROR_CHARACTERS]) from None


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


class Webhook:
    """POSTs the alert as JSON; `text` is a sentence, as chat systems take it."""

    name = "webhook"

    def __init__(self, url: str, token: str = "") -> None:
        self._url, self._headers = url, _bearer(token)

    def send(self, alert: Mapping[str, Any]) -> None:
        """One POST; any 2xx is taken."""
        _post(self._url, plain(alert), {**self._headers, "Idempotency-Key": _id_of(alert)})


class Alertmanager:
    """Posts to Prometheus' Alertmanager (API v2), to fire until the period ends; whom it tells, and
    how often, it decides."""

    name = "alertmanager"

    def __init__(self, url: str, token: str = "", site: str = "") -> None:
        self._url, self._headers, self._site = (
            f"{url.rstrip('/')}/api/v2/alerts",
            _bearer(token),
            site,
        )

    def send(self, alert: Mapping[str, Any]) -> None:
        """One alert; the same labels are the same alert."""
        over = alert["kind"] == "forecast" or alert["percent"] >= 100
        labels = {
            "alertname": "GpuTokensBudget",
            "severity": "critical" if over else "warning",
            "budget": alert["budget"],
            "scope": alert["scope"],
            "kind": alert["kind"],
            "percent": str(alert["percent"]),
            "period": alert["period"],
            "from": _rfc3339(alert["start"]),
        }
        if alert["key"] is not None:
            labels["key"] = alert["key"]
        if self._site:
            labels["site"] = self._site
        posted = {
            "labels": labels,
            "annotations": {"summary": subject(alert), "description": paragraph(alert)},
            "startsAt": _rfc3339(alert["raised_at"]),
            # One raised as the period ended, or after it, would be over before anybody was told.
            "endsAt": _rfc3339(
                max(alert["end"], alert["raised_at"].replace(microsecond=0) + _SHORTEST)
            ),
        }
        _post(self._url, [posted], self._headers)


class Mail:
    """Sends a mail by SMTP."""

    name = "mail"

    def __init__(self, settings: Settings, context: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._context = context
        self._to = mail_addresses(settings)

    def send(self, alert: Mapping[str, Any]) -> None:
        """One mail to all; who is refused while others are not is no failure of the alert."""
        try:
            with self._server() as server:
                if self._settings.smtp_username:
                    server.login(
                        self._settings.smtp_username,
                        self._settings.smtp_password.get_secret_value(),
                    )
                server.send_message(self._message(alert))
        except (OSError, smtplib.SMTPException) as error:
            raise NotDelivered(_smtp_text(error)[:_MOST_ERROR_CHARACTERS]) from None

    def _server(self) -> smtplib.SMTP:
        chosen = self._settings
        address = (chosen.smtp_host, chosen.smtp_port)
        if chosen.smtp_security == "tls":
            return smtplib.SMTP_SSL(*address, timeout=TIMEOUT_SECONDS, context=self._tls())
        server = smtplib.SMTP(*address, timeout=TIMEOUT_SECONDS)
        if chosen.smtp_security == "starttls":
            try:
                server.starttls(context=self._tls())
            except BaseException:
                server.close()
                raise
        return server

    def _tls(self) -> ssl.SSLContext:
        return self._context or ssl.create_default_context()

    def _message(self, alert: Mapping[str, Any]) -> EmailMessage:
        sender = self._settings.alert_mail_from
        message = EmailMessage()
        message["Subject"] = subject(alert)
        message["From"] = sender
        message["To"] = ", ".join(self._to)
        message["Date"] = format_datetime(alert["raised_at"])
        message["Message-ID"] = f"<{_id_of(alert)}@{sender.rpartition('@')[2].strip('>')}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(
            f"{paragraph(alert)}\n\nThis is told once for each budget, period and threshold.\n"
        )
        return message


def receivers_of(settings: Settings) -> list[Receiver]:
    """Those that are set."""
    receivers: list[Receiver] = []
    if url := settings.alert_webhook_url.get_secret_value():
        receivers.append(Webhook(url, settings.alert_webhook_token.get_secret_value()))
    if settings.smtp_host:
        receivers.append(Mail(settings))
    if settings.alertmanager_url:
        receivers.append(
            Alertmanager(
                settings.alertmanager_url,
                settings.alertmanager_token.get_secret_value(),
                settings.site,
            )
        )
    return receivers


def mail_addresses(settings: Settings) -> Sequence[str]:
    """Of ALERT_MAIL_TO."""
    return [part.strip() for part in settings.alert_mail_to.split(",") if part.strip()]


def _id_of(alert: Mapping[str, Any]) -> str:
    """Of an alert's name, short and without what it holds."""
    return base64.b32encode(hashlib.sha256(alert["_id"].encode()).digest()[:15]).decode().lower()


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _smtp_text(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"the server refused every address: {next(iter(error.recipients.values()), '')}"
    if isinstance(error, smtplib.SMTPResponseException):
        text = (
            error.smtp_error.decode(errors="replace")
            if isinstance(error.smtp_error, bytes)
            else str(error.smtp_error)
        )
        return f"the server answered {error.smtp_code} {text}"
    return f"the server cannot be reached: {error}" if isinstance(error, OSError) else str(error)
