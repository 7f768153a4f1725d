"""Certificates for tests, made by the `openssl` command: an authority, and what it signs."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = "IP:127.0.0.1,IP:::1,DNS:localhost"


@dataclass(frozen=True)
class Identity:
    """PEM files: a certificate, its key, and the authority that its peers are checked by."""

    certificate: Path
    key: Path
    authorities: Path

    def settings(self, **more) -> dict:
        """As the configuration of the node has them."""
        return {"certificate": str(self.certificate), "key": str(self.key), "authorities": str(self.authorities), **more}

    def server(self, wants_client: bool = True) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        context.load_verify_locations(self.authorities)
        context.verify_mode = ssl.CERT_REQUIRED if wants_client else ssl.CERT_NONE
        return context

    def client(self, shows: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authorities))
        if shows:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Authority:
    def __init__(self, folder: Path, name: str = "authority", days: int = 100):
        self.folder, self.name = Path(folder), name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certificate = self.folder / f"{name}.pem"
        self._certify(name, "basicConstraints=critical,CA:TRUE\n", days, "-signkey", f"{name}.key")

    def sign(self, name: str, days: int = 90, made_out_to: str = HERE, usage: str = "", authorities: Path | None = None) -> Identity:
        """days: negative for one that has expired. usage: the extended key usage. authorities: other than this one."""
        extensions = f"subjectAltName={made_out_to}\n" + (f"extendedKeyUsage={usage}\n" if usage else "")
        self._certify(name, extensions, days, "-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial")
        return Identity(self.folder / f"{name}.pem", self.folder / f"{name}.key", authorities or self.certificate)

    def _certify(self, name: str, extensions: str, days: int, *by: str) -> None:
        (self.folder / f"{name}.ext").write_text(extensions)
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                      "-out", f"{name}.csr", "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.pem", "-days", str(days),
                      "-extfile", f"{name}.ext")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.folder)
