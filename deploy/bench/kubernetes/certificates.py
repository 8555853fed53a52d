"""Keys and certificates of the cluster, by openssl: an authority, a certificate per program, a
kubeconfig per client."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.bench.kubernetes import topology
from deploy.bench.shell import run

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
_DAYS = "3"  # the cluster lives for minutes


class Authority:
    """The certificate authorities of one cluster and what they sign, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def found(self) -> None:
        """Makes the authorities themselves and the pair that signs ServiceAccounts' tokens."""
        self.folder.mkdir(parents=True, mode=0o700)
        for name, subject in (("ca", "bench"), ("front", "bench-front-proxy")):
            run(["openssl", "req", "-x509", *_KEY, "-days", _DAYS, "-subj", f"/CN={subject}",
            "-keyout", self.key(name), "-out",
                 self.certificate(name)])  # fmt: skip
        run(["openssl", "genrsa", "-out", self.key("sa"), "2048"])
        run(
            [
                "openssl",
                "rsa",
                "-in",
                self.key("sa"),
                "-pubout",
                "-out",
                str(self.folder / "sa.pub"),
            ]
        )

    def key(self, name: str) -> str:
        """The path of a private key."""
        return str(self.folder / f"{name}.key")

    def certificate(self, name: str) -> str:
        """The path of a certificate."""
        return str(self.folder / f"{name}.crt")

    def kubeconfig(self, name: str) -> str:
        """The path of a client's kubeconfig."""
        return str(self.folder / f"{name}.kubeconfig")

    def sign(
        self, name: str, subject: str, alternative_names: str = "", authority: str = "ca"
    ) -> None:
        """A key and a certificate for `subject`, for servers and clients alike."""
        request, extension = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        run(
            [
                "openssl",
                "req",
                *_KEY,
                "-subj",
                subject,
                "-keyout",
                self.key(name),
                "-out",
                str(request),
            ]
        )
        names = f"subjectAltName={alternative_names}\n" if alternative_names else ""
        extension.write_text(f"extendedKeyUsage=clientAuth,serverAuth\n{names}")
        run(["openssl", "x509", "-req", "-in", str(request), "-CA", self.certificate(authority),
        "-CAkey", self.key(authority),
             "-CAcreateserial", "-days", _DAYS, "-extfile", str(extension), "-out",
             self.certificate(name)])  # fmt: skip

    def client(self, name: str, subject: str, alternative_names: str = "") -> None:
        """A signed certificate and the kubeconfig that uses it."""
        self.sign(name, subject, alternative_names)
        server = {
            "server": f"https://{topology.CONTROL_ADDRESS}:6443",
            "certificate-authority": self.certificate("ca"),
        }
        user = {"client-certificate": self.certificate(name), "client-key": self.key(name)}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": server}], "users": [{"name": name,
            "user": user}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": name}}],
        }  # fmt: skip
        Path(self.kubeconfig(name)).write_text(json.dumps(config))


def make(folder: Path) -> Authority:
    """Everything that the control plane and the nodes need. Takes about a second."""
    authority = Authority(folder)
    authority.found()
    service = "kubernetes.default.svc"
    names = [f"IP:{ip}" for ip in (topology.CONTROL_ADDRESS, "127.0.0.1", topology.API_SERVICE)]
    names += [
        f"DNS:{name}"
        for name in (
            "kubernetes",
            "kubernetes.default",
            service,
            f"{service}.{topology.CLUSTER_DOMAIN}",
        )
    ]
    authority.sign("apiserver", "/CN=kube-apiserver", ",".join(names))
    authority.sign("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client")
    authority.sign("front-client", "/CN=front-proxy-client", authority="front")
    authority.client("admin", "/O=system:masters/CN=admin")
    for program in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        authority.client(program, f"/CN=system:{program}")
    for node in topology.NODES:
        authority.client(
            node,
            f"/O=system:nodes/CN=system:node:{node}",
            f"DNS:{node},IP:{topology.address(node)}",
        )
    return authority
