"""The Helm chart renders with Helm itself, to objects that Kubernetes' published schemas take, around a sound server.

Helm's own code is in the library helm-python-sdk, the schemas are in kubernetes-validate. They run in a process apart:
the first brings Go's runtime along. What the Prometheus operator reads is no part of these schemas; promtool reads
the rules, and of a ServiceMonitor every field is written down here.
"""

import importlib.util
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from resolver import __version__
from resolver.app.listening import listeners
from resolver.cli.main import interdict
from resolver.config import read
from tests.support.peers import skip_or_fail

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/interdict"

PROTOCOLS = {socket.SOCK_DGRAM: "UDP", socket.SOCK_STREAM: "TCP"}

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# Reads {"chart", "cases": {name: values}}; prints {name: {"objects", "wrong"} or {"refused"}} and lint's messages.
_PROGRAM = """
import json, sys, yaml
import helm_python, kubernetes_validate

said = json.load(sys.stdin)
chart = helm_python.Chart.load(said["chart"])
out = {}
for name, values in said["cases"].items():
    try:
        rendered = chart.render(values, name="resolver", namespace="dns")
    except helm_python.HelmError as error:
        out[name] = {"refused": str(error)}
        continue
    objects = [o for path, text in rendered.items() if path.endswith(".yaml") for o in yaml.safe_load_all(text) if o]
    wrong = []
    for found in [*objects, *said["more"]]:
        try:
            if not found["apiVersion"].startswith("monitoring.coreos.com/"):
                kubernetes_validate.validate(found, said["version"], strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{found['kind']}: {error}")
    messages = helm_python.lint(said["chart"], values, strict=True)["messages"]
    wrong += [m["error"] for m in messages if m["severity"] > 1]
    out[name] = {"objects": objects, "wrong": wrong, "notes": rendered["interdict/templates/NOTES.txt"]}
print(json.dumps(out))
"""

CASES: dict[str, dict[str, Any]] = {
    "trial": {"state": {"emptyDir": True}},
    "one with a claim": {"replicas": 1, "state": {"claim": "evidence"}, "service": {"type": "LoadBalancer"}},
    "on every node": {
        "kind": "DaemonSet",
        "hostPort": 53,
        "state": {"hostPath": "/var/lib/interdict"},
        "config": {
            "allowed_networks": ["10.0.0.0/8"],
            "upstreams": [{"address": "192.0.2.53"}],
            "policy": {"orders": [{"order": "example-order", "groups": ["everyone"]}]},
        },
        "documents": {
            "apps": {"example-app.yaml": "id: example-app\n"},
            "orders": {"example-order.yaml": "id: example-order\n"},
        },
        "networkPolicy": {
            "clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "monitoring": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "upstreams": [{"ipBlock": {"cidr": "192.0.2.53/32"}}],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "priorityClassName": "system-node-critical",
        "podAnnotations": {"example.org/owner": "dns"},
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "pullSecrets": [{"name": "images"}],
    },
    "encrypted": {
        "kind": "DaemonSet",
        "hostPort": 53,
        "state": {"hostPath": "/var/lib/interdict"},
        "config": {"encrypted": {"name": "dns.example.org", "addresses": ["192.0.2.1"]}},
        "encrypted": {"secretName": "dns-tls", "clientAuthorities": "devices", "hostPorts": True},
        "service": {"type": "LoadBalancer"},
    },
    "over TLS alone": {"state": {"emptyDir": True}, "encrypted": {"secretName": "dns-tls", "transports": ["dot"]}},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no place for evidence": ({}, "set one of state.hostPath, state.claim, state.emptyDir"),
    "two places": ({"state": {"emptyDir": True, "claim": "x"}}, "set one of"),
    "two with one claim": ({"replicas": 2, "state": {"claim": "x"}}, "replicas to 1"),
    "two on one node": ({"state": {"hostPath": "/x"}}, "set kind to DaemonSet"),
    "a value that there is not": ({"state": {"emptyDir": True}, "replica": 3}, "replica"),
    "a listener of one's own": ({"state": {"emptyDir": True}, "config": {"listen": ["0.0.0.0:53"]}}, "config"),
    "a certificate of one's own": ({"state": {"emptyDir": True}, "config": {"encrypted": {"key": "/x"}}}, "config"),
    "a transport that there is not": (
        {"state": {"emptyDir": True}, "encrypted": {"secretName": "x", "transports": ["dnscrypt"]}},
        "transports",
    ),
}


def rendered(cases: dict[str, dict[str, Any]], *more: dict[str, Any]) -> dict[str, Any]:
    for library in ("helm_python", "kubernetes_validate"):
        if importlib.util.find_spec(library) is None:
            skip_or_fail(f"the library {library} is not installed (tests/requirements.lock)")
    said = {"chart": str(CHART), "cases": cases, "version": "1.34", "more": more}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM], input=json.dumps(said), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    out: dict[str, Any] = json.loads(ran.stdout)
    return out


@pytest.fixture(scope="module")
def charts() -> dict[str, Any]:
    return rendered({**CASES, **{name: values for name, (values, _) in REFUSED.items()}})


def of_kind(chart: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [found for found in chart["objects"] if found["kind"] == kind]


def pod_of(chart: dict[str, Any]) -> dict[str, Any]:
    (workload,) = of_kind(chart, "Deployment") + of_kind(chart, "DaemonSet")
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def test_the_check_finds_what_is_wrong() -> None:
    """An object with a field that there is not is refused."""
    ports = [{"port": 53, "protocoll": "UDP"}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": ports}}
    (wrong,) = rendered({"trial": CASES["trial"]}, service)["trial"]["wrong"]

    assert wrong.startswith("Service: ")
    assert "protocoll" in wrong


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid(charts: dict[str, Any], case: str) -> None:
    """By the schemas, with no field too much; and Helm's own linter has no warning."""
    assert charts[case]["wrong"] == []


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("trial", "ConfigMap Deployment NetworkPolicy PodDisruptionBudget Service Service"),
        ("one with a claim", "ConfigMap Deployment NetworkPolicy PodDisruptionBudget Service Service"),
        (
            "on every node",
            "ConfigMap ConfigMap DaemonSet NetworkPolicy PrometheusRule Service Service ServiceMonitor",
        ),
        ("encrypted", "ConfigMap DaemonSet NetworkPolicy Service Service"),
    ],
)
def test_each_way_has_its_objects(charts: dict[str, Any], case: str, kinds: str) -> None:
    """No more and no fewer."""
    assert sorted(found["kind"] for found in charts[case]["objects"]) == kinds.split()


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_evidence_or_not_start_is_refused(charts: dict[str, Any], case: str) -> None:
    """With the mend."""
    assert REFUSED[case][1] in charts[case]["refused"]


@pytest.mark.parametrize("case", CASES)
def test_the_servers_configuration_is_sound(charts: dict[str, Any], case: str) -> None:
    """The server reads it, listens where the ports lead, and keeps its state on the volume."""
    container = pod_of(charts[case])["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    config = read(of_kind(charts[case], "ConfigMap")[0]["data"]["interdict.yaml"], "interdict.yaml")

    assert config.metrics.listen is not None
    assert {(port["containerPort"], port["protocol"]) for port in container["ports"]} == {
        (config.metrics.listen.port, "TCP"),
        *((one.endpoint.port, PROTOCOLS[one.kind]) for one in listeners(config)),
    }
    assert config.state_dir == mounts["state"]
    assert ("documents" in mounts) == bool(CASES[case].get("documents"))


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("encrypted", {(853, "TCP"), (443, "TCP"), (853, "UDP"), (443, "UDP")}),
        ("over TLS alone", {(853, "TCP")}),
        ("trial", set()),
    ],
)
def test_encrypted_ports_are_open_all_the_way(charts: dict[str, Any], case: str, wanted: set[tuple[int, str]]) -> None:
    """From the service, past the network policy, to the pod, whose account may listen there without a capability."""
    plain = {(53, "UDP"), (53, "TCP")}
    service = next(found for found in of_kind(charts[case], "Service") if "clusterIP" not in found["spec"])
    (policy,) = of_kind(charts[case], "NetworkPolicy")
    pod = pod_of(charts[case])
    ports = {port["name"]: (port["containerPort"], port["protocol"]) for port in pod["containers"][0]["ports"]}
    reached = {port["port"]: ports[port["targetPort"]] for port in service["spec"]["ports"]}

    assert {(port["port"], port["protocol"]) for port in service["spec"]["ports"]} == plain | wanted
    assert all(there[0] == port for port, there in reached.items() if port != 53)
    assert {(port["port"], port["protocol"]) for port in policy["spec"]["ingress"][0]["ports"]} == {
        (5300, "UDP"),
        (5300, "TCP"),
        *wanted,
    }
    held = {sysctl["name"]: int(sysctl["value"]) for sysctl in pod["securityContext"].get("sysctls", [])}
    assert all(port >= held.get("net.ipv4.ip_unprivileged_port_start", 1024) for port, _ in ports.values())
    hosts = {port["hostPort"] for port in pod["containers"][0]["ports"] if "hostPort" in port}
    assert hosts == ({53, 853, 443} if case == "encrypted" else set())


def test_the_certificate_is_mounted_where_the_server_looks(charts: dict[str, Any]) -> None:
    """By the keys that Secrets of its type have, readable by the group alone; and what the operator says stays."""
    chart = charts["encrypted"]
    pod = pod_of(chart)
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    written = read(of_kind(chart, "ConfigMap")[0]["data"]["interdict.yaml"], "interdict.yaml").encrypted

    assert (written.certificate, written.key) == tuple(f"{mounts['certificate']}/tls.{end}" for end in ("crt", "key"))
    assert written.client_authorities == f"{mounts['authorities']}/ca.crt"
    assert volumes["certificate"]["secret"] == {"secretName": "dns-tls", "defaultMode": 0o440}
    assert volumes["authorities"]["configMap"] == {"name": "devices"}
    assert (written.name, written.addresses) == ("dns.example.org", ("192.0.2.1",))
    assert "tls" not in str(pod_of(charts["trial"])["volumes"])


def test_no_mount_hides_what_the_image_needs(charts: dict[str, Any]) -> None:
    """The configuration of OpenSSL that the image's environment names is still there in a pod."""
    (conf,) = re.findall(r"OPENSSL_CONF=(\S+)", (ROOT / "deploy/container/Containerfile").read_text())
    mounts = [mount["mountPath"] for mount in pod_of(charts["encrypted"])["containers"][0]["volumeMounts"]]

    assert not any(conf.startswith(f"{mount}/") for mount in mounts)


def test_own_orders_lie_where_the_server_looks(charts: dict[str, Any]) -> None:
    """Each document in the folder of its kind, below the one that the configuration names."""
    chart = charts["on every node"]
    volumes = of_kind(chart, "DaemonSet")[0]["spec"]["template"]["spec"]["volumes"]
    documents = next(volume["configMap"] for volume in volumes if volume["name"] == "documents")
    held = next(found for found in of_kind(chart, "ConfigMap") if found["metadata"]["name"] == documents["name"])[
        "data"
    ]
    config = read(of_kind(chart, "ConfigMap")[0]["data"]["interdict.yaml"], "interdict.yaml")

    assert list(config.policy.documents) == ["shipped", "/etc/interdict/blocklists"]
    assert {item["path"]: held[item["key"]] for item in documents["items"]} == {
        "apps/example-app.yaml": "id: example-app\n",
        "orders/example-order.yaml": "id: example-order\n",
    }


@pytest.mark.parametrize("case", CASES)
def test_the_pod_has_no_rights(charts: dict[str, Any], case: str) -> None:
    """Not root, nothing writable but the volume, no capability, no account; and its probes are verbs that exist."""
    pod = pod_of(charts[case])
    (container,) = pod["containers"]
    probes = [container[f"{kind}Probe"]["exec"]["command"] for kind in ("startup", "readiness", "liveness")]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {(probe[0], probe[1] in interdict.commands) for probe in probes} == {("interdict", True)}


def test_the_operator_reads_metrics_by_the_name_that_alerts_go_by(charts: dict[str, Any]) -> None:
    """Each pod once, by the Service without an address."""
    chart = charts["on every node"]
    (monitor,) = of_kind(chart, "ServiceMonitor")
    (service,) = [found for found in of_kind(chart, "Service") if found["spec"].get("clusterIP") == "None"]
    selected = monitor["spec"]["selector"]["matchLabels"]

    assert selected.items() <= service["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert {key: value for key, value in monitor["spec"].items() if key != "selector"} == {
        "endpoints": [
            {
                "port": service["spec"]["ports"][0]["name"],
                "interval": "15s",
                "relabelings": [{"targetLabel": "job", "replacement": "interdict"}],
            }
        ]
    }


def test_the_alerts_are_those_that_prometheus_takes(
    charts: dict[str, Any], tmp_path: Path, peer: Callable[[str], str]
) -> None:
    """The chart has no copy that grows old."""
    (rule,) = of_kind(charts["on every node"], "PrometheusRule")
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    checked = subprocess.run([peer("promtool"), "check", "rules", file], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/interdict.rules.yml").read_text())


def test_the_chart_has_the_version_of_the_product() -> None:
    """The image's tag is the server's version."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_who_loses_evidence_is_told(charts: dict[str, Any]) -> None:
    """The notes warn of an emptyDir, and only of that."""
    assert {case for case in CASES if "goes with its pod" in charts[case]["notes"]} == {
        "trial",
        "over TLS alone",
    }
