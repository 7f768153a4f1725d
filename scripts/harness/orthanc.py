"""Orthanc, the first test PACS: one per folder, on free ports, routing every new stable series to the node."""

import json
import subprocess
from pathlib import Path

from .net import LOOPBACK, end_process, free_port, http, wait_for

# SendToModality takes instances; the REST route takes a series. Asynchronous, or the script would block Orthanc.
ROUTE = """
function OnStableSeries(seriesId, tags, metadata)
   if %(everything)s or metadata['RemoteAET'] ~= '%(node)s' then
      RestApiPost('/modalities/node/store',
                  DumpJson({Resources = {seriesId}, Asynchronous = true}, true))
   end
end
"""


class Orthanc:
    """route_back: also what the node itself stored is routed to the node, as a badly configured PACS does."""

    def __init__(self, folder: Path, node_ae: str = "SPINENODE", node_port: int | None = None, ae_title: str = "ORTHANC",
                 routing: bool = True, route_back: bool = False):
        self.folder = Path(folder)
        self.ae_title = ae_title
        self.node_ae = node_ae
        self.node_port = node_port or free_port()
        self.routing = routing
        self.route_back = route_back
        self.port = free_port()
        self.http_port = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def log(self) -> Path:
        return self.folder / "orthanc.log"

    def start(self) -> "Orthanc":
        self.folder.mkdir(parents=True, exist_ok=True)
        script = self.folder / "route.lua"
        script.write_text(ROUTE % {"everything": str(self.route_back).lower(), "node": self.node_ae})
        config = {
            "Name": "Spinenode test PACS",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [],
            "LuaScripts": [str(script)] if self.routing else [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {
                "node": {"AET": self.node_ae, "Host": LOOPBACK, "Port": self.node_port, "AllowStorageCommitment": True}
            },
            "StableAge": 1,
            "SaveJobs": False,
            "OverwriteInstances": False,
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(config, indent=2))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["/usr/sbin/Orthanc", str(path)], cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        wait_for(self._up, 30, "Orthanc to answer; its log is " + str(self.log))
        return self

    def _up(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"Orthanc ended with {self.process.returncode}: {self.log.read_text()[-1500:]}")
        return http("GET", self.url + "/system")[0] == 200

    def stop(self) -> None:
        end_process(self.process)
        self.process = None

    def __enter__(self) -> "Orthanc":
        return self.start()

    def __exit__(self, *_) -> None:
        # Its folder goes with the test: no reason to wait the seconds that it takes to close everything.
        if self.process is not None:
            self.process.kill()
        self.stop()

    # --- REST ---

    def get(self, path: str):
        status, body = http("GET", self.url + path)
        if status != 200:
            raise RuntimeError(f"Orthanc: GET {path}: status {status}: {body[:300]!r}")
        return json.loads(body)

    def post(self, path: str, body: object):
        status, answer = http("POST", self.url + path, body)
        if status != 200:
            raise RuntimeError(f"Orthanc: POST {path}: status {status}: {answer[:300]!r}")
        return json.loads(answer) if answer else None

    def file(self, instance: str) -> bytes:
        status, body = http("GET", f"{self.url}/instances/{instance}/file")
        if status != 200:
            raise RuntimeError(f"Orthanc: no file of instance {instance}: status {status}")
        return body

    def lookup(self, uid: str) -> list[dict]:
        """What Orthanc holds under this study, series or instance UID: [{"Type", "ID", "Path"}]."""
        return self.post("/tools/lookup", uid.encode())

    def series(self) -> list[dict]:
        return self.get("/series?expand")

    def instances_of(self, series: str) -> list[str]:
        return [i["ID"] for i in self.get(f"/series/{series}/instances")]

    def jobs(self) -> list[dict]:
        return self.get("/jobs?expand")

    def quiet(self) -> bool:
        """No job of Orthanc waits or runs."""
        return all(j["State"] not in ("Pending", "Running", "Retry") for j in self.jobs())

    def send_to_node(self, series: str) -> dict:
        """C-STORE of one series from Orthanc to the node, now; the answer of Orthanc."""
        return self.post("/modalities/node/store", {"Resources": [series], "Synchronous": True})
