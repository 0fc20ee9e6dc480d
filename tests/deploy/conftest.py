# SPDX-License-Identifier: Apache-2.0
"""The manifests of deploy/k8s as a cluster would get them.

Environment: RENDER is the program of render/, which renders a kustomization and decodes each object strictly; NEXUS is
the binary (build/nexus).
"""
import functools
import os
import pathlib
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEXUS = os.environ.get("NEXUS", str(ROOT / "build/nexus"))
RENDER = os.environ.get("RENDER", str(ROOT / "build-check/render"))
KUBERNETES = ROOT / "deploy/k8s"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
SCALED = [name for name in OVERLAYS if name != "dev"]  # by an autoscaler


class Manifest:
    """The objects of an overlay."""

    def __init__(self, directory):
        done = subprocess.run([RENDER, directory], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.text = done.stdout
        self.objects = list(yaml.safe_load_all(done.stdout))

    def all(self, kind):
        return [o for o in self.objects if o["kind"] == kind]

    def get(self, kind, name="nexus"):
        found, = [o for o in self.all(kind) if o["metadata"]["name"] == name]
        return found

    def only(self, kind):
        found, = self.all(kind)
        return found

    def workloads(self):
        return [o for o in self.objects if o["kind"] in ("Deployment", "StatefulSet")]

    def pod(self):
        """The pod of nexus."""
        return self.get("Deployment")["spec"]["template"]["spec"]

    def container(self):
        found, = [c for c in self.pod()["containers"] if c["name"] == "nexus"]
        return found

    def volume(self, mount_path):
        name, = [m["name"] for m in self.container()["volumeMounts"] if m["mountPath"] == mount_path]
        found, = [v for v in self.pod()["volumes"] if v["name"] == name]
        return found

    def environment(self, secret):
        """What the container gets, with these values of the Secret."""
        env = {}
        for source in self.container()["envFrom"]:
            env.update(self.get("ConfigMap", source["configMapRef"]["name"])["data"])
        for variable in self.container().get("env", []):
            if "value" in variable:
                value = variable["value"]
                for name, known in env.items():
                    value = value.replace(f"$({name})", known)
                assert "$(" not in value, f"{variable['name']} names a variable that is not there, or stands after it"
                env[variable["name"]] = value
                continue
            key = variable["valueFrom"]["secretKeyRef"]
            assert key["name"] == self.only("Secret")["metadata"]["name"]
            if key["key"] in secret:
                env[variable["name"]] = secret[key["key"]]
            else:
                assert key.get("optional"), f"nothing makes the key {key['key']}"
        return env


@functools.lru_cache
def render(overlay):
    return Manifest(KUBERNETES / "overlays" / overlay)


@pytest.fixture(params=OVERLAYS)
def manifest(request):
    return render(request.param)


@pytest.fixture(params=SCALED)
def scaled(request):
    return render(request.param)


def quantity(text):
    """Bytes, or cores."""
    text = str(text)
    for suffix, factor in {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "m": 0.001}.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)
