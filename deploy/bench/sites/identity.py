"""An authority per trust domain, certificates with a SPIFFE id, and the secret files that Envoy
watches.

Envoy's SPIFFE validator takes one authority per trust domain. With one bundle of all authorities
instead, site B's could sign `spiffe://site-a.tokens/...` and be believed: mesh.py shows both.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.bench.shell import run
from deploy.sites import envoy
from deploy.sites.table import Site, SiteTable
from deploy.sites.written import as_yaml

_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_SPIFFE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"


class Authorities:
    """The sites' certificate authorities and what they signed, as PEM files in `folder`."""

    def __init__(self, table: SiteTable, folder: Path) -> None:
        self.table = table
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def create(self) -> None:
        """One authority per site: ECDSA P-256, 30 days."""
        for site in self.table.sites.values():
            _openssl(
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "30",
                "-subj", f"/O={site.trust_domain}", "-keyout", str(self._key(site)), "-out",
                str(self.certificate(site)),
                "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext",
                f"subjectAltName=URI:spiffe://{site.trust_domain}",
            )  # fmt: skip

    def certificate(self, site: Site) -> Path:
        """The authority's own certificate: the trust bundle of its domain."""
        return self.folder / f"ca-{site.name}.pem"

    def sign(self, site: Site, spiffe_id: str, name: str, *, days: int = 1) -> tuple[Path, Path]:
        """A certificate that says `spiffe_id`, signed by the authority of `site`; (certificate,
        key).

        days=-1 is one that has expired. Nothing here checks that the id lies in the site's domain:
        a thief would not either.
        """
        key, request, leaf = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName=critical,URI:{spiffe_id}\nextendedKeyUsage=serverAuth,clientAuth\n"
            "keyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n"
        )
        _openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/O=gpu-tokens",
            "-keyout", str(key), "-out", str(request),
        )  # fmt: skip
        lifetime = ["-days", str(days)]
        if days < 0:
            lifetime = ["-not_before", "20240101000000Z", "-not_after", "20240102000000Z"]
        if days < 0 and not _takes_dates():
            lifetime = ["-days", str(days)]
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate(site)), "-CAkey",
            str(self._key(site)),
            "-CAcreateserial", *lifetime, "-extfile", str(extensions), "-out", str(leaf),
        )  # fmt: skip
        return leaf, key

    def secrets(self, site: Site, folder: Path) -> None:
        """All of a site's secret files, below the folder its Envoy runs in."""
        (folder / "sds").mkdir(parents=True, exist_ok=True)
        for name in envoy.secret_files(self.table, site):
            identity = Path(name).stem
            if identity == envoy.PEERS:
                _replace(folder / name, self.peers())
            else:
                self.rotate(site, identity, folder)

    def rotate(self, site: Site, identity: str, folder: Path) -> None:
        """A new certificate for an identity of a site; Envoy takes it from the watched folder,
        connections stay."""
        leaf, key = self.sign(site, site.identity(identity), f"{site.name}-{identity}")
        _replace(folder / "sds" / f"{identity}.yaml", secret(identity, leaf, key))

    def peers(self) -> str:
        """The trust bundles: each domain's identities are believed from its own authority only."""
        domains = [
            {
                "name": site.trust_domain,
                "trust_bundle": {"inline_string": self.certificate(site).read_text()},
            }
            for site in self.table.sites.values()
        ]
        validator = {
            "name": "envoy.tls.cert_validator.spiffe",
            "typed_config": {"@type": _SPIFFE, "trust_domains": domains},
        }
        return _resource(
            envoy.PEERS, {"validation_context": {"custom_validator_config": validator}}
        )

    def peers_in_one_bundle(self) -> str:
        """What not to do: every authority may speak for every domain. For the check that shows
        why."""
        bundle = "".join(self.certificate(site).read_text() for site in self.table.sites.values())
        return _resource(
            envoy.PEERS, {"validation_context": {"trusted_ca": {"inline_string": bundle}}}
        )

    def _key(self, site: Site) -> Path:
        return self.folder / f"ca-{site.name}.key"


def secret(identity: str, leaf: Path, key: Path) -> str:
    """The secret file of a certificate."""
    return _resource(
        identity,
        {
            "tls_certificate": {
                "certificate_chain": {"inline_string": leaf.read_text()},
                "private_key": {"inline_string": key.read_text()},
            }
        },
    )


def replace_peers(folder: Path, text: str) -> None:
    """Another file of trust bundles for the Envoy in `folder`."""
    _replace(folder / "sds" / f"{envoy.PEERS}.yaml", text)


def _replace(path: Path, text: str) -> None:
    """By renaming: Envoy watches for that, and never reads half a file."""
    unfinished = path.parent.parent / f".{path.name}"
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.rename(path)


def _resource(name: str, fields: dict[str, object]) -> str:
    return as_yaml(
        {"resources": [{"@type": _SECRET, "name": name} | json.loads(json.dumps(fields))]}
    )


def _takes_dates() -> bool:
    """OpenSSL 3.4 and newer sign with explicit dates; older ones take negative days."""
    return "-not_before" in run(["openssl", "x509", "-help"], check=False).stdout


def _openssl(*arguments: str) -> None:
    run(["openssl", *arguments])
