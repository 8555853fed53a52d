"""Runs inside a site, for the checks of the mesh: stand-in servers that say who they are, and
callers with any certificate.

python peer.py serve SITE FOLDER     every service of the site; the API answers 500 while
                                     FOLDER/fail-SITE exists
python peer.py call                  JSON cases on stdin, one result per line on stdout
python peer.py keep PORT FOLDER      one connection that is used until FOLDER/stop exists; prints
                                     what went wrong
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from deploy.sites.table import LOOPBACK, Kind, Service, load

_PATIENCE_SECONDS = 10


async def serve(site: str, folder: Path) -> None:
    """Stand-ins for a site's services, until killed."""
    table = load()
    servers = []
    for service in table.at(site):
        answer = (
            _http(service, table.api.health_path, folder)
            if service.kind is Kind.API
            else _echo(service)
        )
        servers.append(await asyncio.start_server(answer, LOOPBACK, service.port))
    print("serving", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def _echo(service: Service) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(f"{service.name} ".encode() + line)
                await writer.drain()
        writer.close()

    return answer


def _http(service: Service, health_path: str, folder: Path) -> Any:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while request := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                failing = (
                    health_path.encode() not in request
                    and (folder / f"fail-{service.site}").exists()
                )
                body = f"{service.name} {request.decode(errors='replace')}".encode()
                status = b"500 Internal Server Error" if failing else b"200 OK"
                writer.write(
                    b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
                )
                await writer.drain()
        writer.close()

    return answer


def call(case: dict[str, Any]) -> dict[str, str]:
    """One connection to a gateway: `answer` is what the service said, or `refused` is how it
    ended."""
    context = ssl.create_default_context()
    context.check_hostname = False
    # what the caller thinks of the gateway is not the question here
    context.verify_mode = ssl.CERT_NONE
    if case.get("certificate"):
        context.load_cert_chain(case["certificate"], case["key"])
    if case.get("newest_tls") == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with (
            socket.create_connection(
                (case["address"], case["port"]), timeout=_PATIENCE_SECONDS
            ) as plain,
            context.wrap_socket(plain, server_hostname=case["server_name"]) as connection,
        ):
            serial = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n" if case.get("http") else b"hello\n")
            answer = connection.recv(200)
            if answer:
                return {"answer": answer.decode(errors="replace").strip(), "shown": serial}
            return {"refused": "closed"}
    except (OSError, ssl.SSLError) as error:
        return {"refused": str(error)}


def keep(port: int, folder: Path) -> None:
    """Uses one connection over and over; what ends it is printed. The last line is how often it was
    used."""
    used = 0
    with socket.create_connection((LOOPBACK, port), timeout=_PATIENCE_SECONDS) as connection:
        lines = connection.makefile("rb")
        while not (folder / "stop").exists():
            connection.sendall(b"%d\n" % used)
            if not lines.readline().endswith(b" %d\n" % used):
                print("the connection ended", flush=True)
                sys.exit(1)
            used += 1
            time.sleep(0.05)
    print(used, flush=True)


def main(arguments: list[str]) -> None:
    """What the module's docstring says."""
    if arguments[0] == "serve":
        asyncio.run(serve(arguments[1], Path(arguments[2])))
    elif arguments[0] == "keep":
        keep(int(arguments[1]), Path(arguments[2]))
    else:
        for line in sys.stdin:
            print(json.dumps(call(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
