"""What a Pod's volumes and environment hold: Secrets, ConfigMaps, account tokens, claims, fields of the Pod itself."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes.node.api import Api, Object

__all__ = ["Resolver"]


@dataclass(frozen=True)
class Resolver:
    """Fills in what one Pod refers to.

    Args:
        api: asked for Secrets, ConfigMaps and tokens.
        pod: the Pod, with its address in its status.
        folder: the Pod's own, for its volumes.
        claims: where PersistentVolumeClaims are kept beyond the Pod.
    """

    api: Api
    pod: Object
    folder: Path
    claims: Path

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    async def volumes(self) -> dict[str, Path]:
        """Each volume's folder by its name, filled and owned by the Pod's group."""
        found = {}
        for volume in self.pod["spec"].get("volumes", ()):
            name = volume["name"]
            if claim := volume.get("persistentVolumeClaim"):
                folder = await self._claimed(claim["claimName"])
            else:
                folder = self.folder / name
                folder.mkdir()
                for path, data in (await self._files(volume)).items():
                    (folder / path).write_bytes(data)
            self._give(folder)
            found[name] = folder
        return found

    async def _claimed(self, name: str) -> Path:
        """The folder of a claim, which is bound by that: there are no PersistentVolumes here."""
        claim = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{name}"
        await self.api.patch(f"{claim}/status", {"status": {"phase": "Bound"}})
        folder = self.claims / f"{self.namespace}-{name}"
        folder.mkdir(exist_ok=True)
        return folder

    def _give(self, folder: Path) -> None:
        group = self.pod["spec"].get("securityContext", {}).get("fsGroup", 0)
        for path in (folder, *folder.iterdir()):
            os.chown(path, -1, group)  # whoever made a file keeps it
            path.chmod(0o2775 if path.is_dir() else 0o660)

    async def _files(self, source: Object) -> dict[str, bytes]:
        if secret := source.get("secret"):
            return await self._data("secrets", secret.get("secretName") or secret["name"], secret.get("items"))
        if config := source.get("configMap"):
            return await self._data("configmaps", config["name"], config.get("items"))
        if token := source.get("serviceAccountToken"):
            return {token["path"]: await self._token(token)}
        if fields := source.get("downwardAPI"):
            return {it["path"]: self.field(it["fieldRef"]["fieldPath"]).encode() for it in fields["items"]}
        if projected := source.get("projected"):
            return {path: data for part in projected["sources"] for path, data in (await self._files(part)).items()}
        return {}

    async def _data(self, kind: str, name: str, items: list[Object] | None = None) -> dict[str, bytes]:
        it = await self.api.call("GET", f"/api/v1/namespaces/{self.namespace}/{kind}/{name}")
        decoded = base64.b64decode if kind == "secrets" else str.encode
        found = {key: decoded(value) for key, value in it.get("data", {}).items()}
        return found if items is None else {item["path"]: found[item["key"]] for item in items}

    async def _token(self, asked: Object) -> bytes:
        account = self.pod["spec"]["serviceAccountName"]
        metadata = self.pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec: Object = {
            "expirationSeconds": asked.get("expirationSeconds", 3600),
            "boundObjectRef": bound,
            "audiences": [],
        }
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        made = await self.api.call(
            "POST", path, {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}
        )
        return str(made["status"]["token"]).encode()

    def field(self, path: str) -> str:
        """A field of the Pod, as the downward API gives it."""
        found: object = self.pod
        for name in path.split("."):
            found = found[name] if isinstance(found, dict) else ""
        return str(found)

    async def environment(self, container: Object) -> dict[str, str]:
        """The container's environment, $(NAME) of earlier variables filled in."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            kind, name = ("secrets", "secretRef") if "secretRef" in source else ("configmaps", "configMapRef")
            data = await self._data(kind, source[name]["name"])
            found |= {source.get("prefix", "") + key: value.decode() for key, value in data.items()}
        for variable in container.get("env", ()):
            value = variable.get("value")
            if value is None:
                value = await self._value(variable.get("valueFrom", {}))
            found[variable["name"]] = expanded(value, found)
        return found

    async def _value(self, source: Object) -> str:
        if secret := source.get("secretKeyRef"):
            return (await self._data("secrets", secret["name"]))[secret["key"]].decode()
        if config := source.get("configMapKeyRef"):
            return (await self._data("configmaps", config["name"]))[config["key"]].decode()
        return self.field(source["fieldRef"]["fieldPath"]) if "fieldRef" in source else ""


def expanded(text: str, known: dict[str, str]) -> str:
    """`text` with each $(NAME) that is known; as in Kubernetes, an unknown one stays as it is."""
    return re.sub(r"\$\((\w+)\)", lambda found: known.get(found[1], found[0]), text)
