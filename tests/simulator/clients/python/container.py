"""A container's life as proxmoxer leads it, printed as JSON: what was seen on the way.

Called as `container.py make` and then `container.py destroy`, with PVE_HOST, PVE_CA, PVE_TOKEN, PVE_USER and PVE_PASSWORD in its
environment. Decides nothing about what is right: whoever calls it looks at what it prints.
"""

import json
import os
import ssl
import sys
import time
from urllib.parse import quote

import websocket
from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from proxmoxer.tools import Tasks

NODE = "pve"
TEMPLATE = "ubuntu-24.04-standard_24.04-2_amd64.tar.zst"
FIRST, LINKED, FULL = 200, 201, 202

HOST = os.environ["PVE_HOST"]
CA = os.environ["PVE_CA"]


def by_token(secret=None):
    who, value = os.environ["PVE_TOKEN"].split("=", 1)
    user, name = who.split("!", 1)
    return ProxmoxAPI(HOST, user=user, token_name=name, token_value=secret or value, verify_ssl=CA)


def by_password(password):
    return ProxmoxAPI(HOST, user=os.environ["PVE_USER"], password=password, verify_ssl=CA)


class Life:
    def __init__(self):
        self.api = by_token()
        self.node = self.api.nodes(NODE)
        self.tasks = []

    def follow(self, upid):
        status = Tasks.blocking_status(self.api, upid, timeout=30, polling_interval=0.02)
        if status is None:
            raise TimeoutError(f"{upid} does not end")
        self.tasks.append(f"{Tasks.decode_upid(upid)['type']} {status['exitstatus']}")

    def refused(self, call, **parameters):
        try:
            call(**parameters)
        except ResourceException as refusal:
            return str(refusal)
        raise AssertionError("that was to be refused")

    def config(self, vmid):
        return self.node.lxc(vmid).config.get()

    def make(self):
        seen = {
            "version": self.api.version.get()["version"],
            "nodes": [node["node"] for node in self.api.nodes.get()],
            "archives": sorted(item["volid"] for item in self.node.storage("local").content.get(content="vztmpl")),
            "free": int(self.api.cluster.nextid.get(vmid=FIRST)),
        }
        self.follow(
            self.node.lxc.create(
                vmid=FIRST,
                ostemplate=f"local:vztmpl/{TEMPLATE}",
                hostname="independent",
                description="made by somebody else's client\nin two lines: ü",
                rootfs="lxc-disks:8",
                cores=2,
                memory=1024,
                unprivileged=1,
                cmode="shell",
                tags="one;two",
                net0="name=eth0,bridge=vmbr0,ip=10.0.0.200/24,gw=10.0.0.1",
            )
        )
        first = self.node.lxc(FIRST)
        seen["created"] = self.config(FIRST)

        self.follow(first.status.start.post())
        seen["started"] = first.status.current.get()["status"]
        seen["console"] = self.console()
        self.follow(first.status.stop.post())
        seen["stopped"] = first.status.current.get()["status"]

        self.follow(first.snapshot.post(snapname="before", description="as it was"))
        first.config.put(hostname="mistaken", memory=512)
        seen["changed"] = self.config(FIRST)["hostname"]
        seen["snapshots"] = sorted(item["name"] for item in first.snapshot.get())
        self.follow(first.snapshot("before").rollback.post())
        seen["rolled_back"] = self.config(FIRST)["hostname"]
        self.follow(first.snapshot("before").delete())
        self.follow(first.resize.put(disk="rootfs", size="+2G"))
        seen["resized"] = self.config(FIRST)["rootfs"]

        first.template.post()
        until = time.monotonic() + 30
        while not self.config(FIRST).get("template"):
            if time.monotonic() > until:
                raise TimeoutError("the container does not become a template")
            time.sleep(0.02)
        self.follow(first.clone.post(newid=LINKED, hostname="linked"))
        self.follow(first.clone.post(newid=FULL, hostname="full", full=1, storage="lxc-disks"))
        seen["cloned"] = {str(vmid): self.config(vmid)["rootfs"] for vmid in (FIRST, LINKED, FULL)}

        listed = self.api.cluster.resources.get(type="vm")
        seen["listed"] = {str(item["vmid"]): [item["name"], item["status"], item["template"]] for item in listed}
        seen["refused"] = self.refusals()
        seen["tasks"] = self.tasks
        return seen

    def refusals(self):
        refused = {
            "taken": self.refused(self.api.cluster.nextid.get, vmid=FIRST),
            "absent": self.refused(self.node.lxc(999).config.get),
            "invalid": self.refused(self.node.lxc(LINKED).config.put, cores="many"),
            "unknown": self.refused(self.node.lxc(LINKED).config.put, nonsense=1),
            "stranger": self.refused(by_token("00000000-0000-0000-0000-000000000000").version.get),
        }
        try:
            by_password("wrong")
        except AuthenticationError as refusal:
            refused["password"] = str(refusal)
        return refused

    def console(self):
        """proxmoxer asks for the proxy; what speaks WebSocket beside it is websocket-client."""
        api = by_password(os.environ["PVE_PASSWORD"])
        container = api.nodes(NODE).lxc(FIRST)
        proxy = container.termproxy.post()
        ticket, _ = api.get_tokens()
        url = f"wss://{HOST}/api2/json/nodes/{NODE}/lxc/{FIRST}/vncwebsocket"
        socket = websocket.create_connection(
            f"{url}?port={proxy['port']}&vncticket={quote(proxy['ticket'], safe='')}",
            timeout=20,
            cookie=f"PVEAuthCookie={quote(ticket, safe='')}",
            subprotocols=["binary"],
            sslopt={"context": ssl.create_default_context(cafile=CA)},
        )
        try:
            socket.send(f"{proxy['user']}:{proxy['ticket']}\n")
            greeting = socket.recv()
            if bytes(greeting) != b"OK":
                raise AssertionError(f"the console greets with {greeting!r}")
            socket.send("1:80:24:")
            typed = "echo answer=$((6*7)) in $(hostname)\n"
            socket.send(f"0:{len(typed)}:{typed}")
            heard = b""
            while b"answer=42 in independent" not in heard:
                heard += socket.recv()
        finally:
            socket.close()
        self.follow(proxy["upid"])
        return "answer=42 in independent"

    def destroy(self):
        seen = {"base": self.task_of_base()}
        self.follow(self.node.lxc(LINKED).delete(purge=1, **{"destroy-unreferenced-disks": 1}))
        self.follow(self.node.lxc(FULL).delete(purge=1))
        self.follow(self.node.lxc(FIRST).delete())
        seen["left"] = [item["vmid"] for item in self.node.lxc.get()]
        seen["tasks"] = self.tasks
        return seen

    def task_of_base(self):
        """What comes of destroying a template that a linked clone hangs on."""
        try:
            upid = self.node.lxc(FIRST).delete()
        except ResourceException as refusal:
            return refusal.content
        return Tasks.blocking_status(self.api, upid, timeout=30, polling_interval=0.02)["exitstatus"]


print(json.dumps({"make": Life.make, "destroy": Life.destroy}[sys.argv[1]](Life())))
