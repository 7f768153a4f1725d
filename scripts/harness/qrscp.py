"""dcmqrscp (DCMTK), the second test PACS: stores everything into one folder, answers C-FIND and C-MOVE."""

import subprocess
from pathlib import Path

from .net import LOOPBACK, end_process, free_port, listens, wait_for

CONFIG = """
NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
node = ({node_ae}, {host}, {node_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{ae_title} {storage} RW (1000, 4096mb) ANY
AETable END
"""


class DcmQrScp:
    def __init__(self, folder: Path, node_ae: str = "SPINENODE", node_port: int | None = None, ae_title: str = "QRSCP"):
        self.folder = Path(folder)
        self.ae_title = ae_title
        self.node_ae = node_ae
        self.node_port = node_port or free_port()
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def log(self) -> Path:
        return self.folder / "dcmqrscp.log"

    def start(self) -> "DcmQrScp":
        self.storage.mkdir(parents=True, exist_ok=True)
        config = self.folder / "dcmqrscp.cfg"
        config.write_text(CONFIG.format(port=self.port, node_ae=self.node_ae, host=LOOPBACK, node_port=self.node_port,
                                        ae_title=self.ae_title, storage=self.storage))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["dcmqrscp", "-c", str(config)], cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: listens(self.port), 30, "dcmqrscp to listen; its log is " + str(self.log))
        return self

    def files(self) -> list[Path]:
        return sorted(p for p in self.storage.iterdir() if p.is_file() and p.suffix == ".dcm")

    def stop(self) -> None:
        end_process(self.process, group=True)
        self.process = None

    def __enter__(self) -> "DcmQrScp":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()
