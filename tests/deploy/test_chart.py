"""The Helm chart: rendered by Helm itself, valid to Kubernetes, and true to the commands and settings that it names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.cli.main import Commands, main
from penstock.edges.collector.edge import ROWS
from penstock.logs import require_shared
from penstock.ports.metrics import METRICS
from penstock.settings import load_settings
from tests.conftest import ROOT
from tests.deploy.conftest import Run

CHART = ROOT / "deploy" / "helm" / "penstock"
GUIDE = ROOT / "docs" / "guides" / "deploy.md"
REFERENCE = ROOT / "docs" / "reference" / "http.md"

KUBERNETES = ("1.27", "1.37")
"""The oldest that Chart.yaml allows, and the newest that there are schemas of."""
CUSTOM = {"ServiceMonitor", "ScaledObject"}
"""Kinds that others define: Kubernetes itself has no schema of them."""

VARIANTS: dict[str, str] = {
    "defaults": "",
    "everything": """
image: {tag: v1, pullSecrets: [{name: ours}]}
serviceAccount: {annotations: {team: mail}}
up:
  persistence: {storageClass: fast}
  podAnnotations: {team: mail}
  nodeSelector: {disk: ssd}
  tolerations: [{key: mail, operator: Exists}]
workers:
  processes: 3
  previousTag: v0
  maxUnavailable: 50%
  autoscaling: {kind: hpa}
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
    {matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]}}}
service: {type: LoadBalancer, annotations: {team: mail}}
ingress: {enabled: true, className: nginx, tlsSecret: mail-tls, annotations: {team: mail}}
networkPolicy:
  clients: [{namespaceSelector: {matchLabels: {name: ingress}}}]
  monitoring: [{podSelector: {matchLabels: {app: prometheus}}}]
  egress: [{port: 9093, to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
""",
    "keda": "workers: {autoscaling: {kind: keda}}",
    "little": """
workers: {enabled: false}
networkPolicy: {enabled: false}
secretFiles: {kafka: null}
up: {persistence: {existingClaim: kept}}
""",
}
Render = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def render(charts: Run, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Return the manifests of a variant, having been linted."""
    known: dict[str, list[dict[str, Any]]] = {}

    def rendered(name: str) -> list[dict[str, Any]]:
        if name not in known:
            values = tmp_path_factory.mktemp(name) / "values.yaml"
            values.write_text(VARIANTS[name])
            done = charts("chart", CHART, values)
            assert 0 == done.returncode, done.stderr
            known[name] = [one for one in yaml.safe_load_all(done.stdout) if one]
        return known[name]

    return rendered


def of(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in manifests if one["kind"] == kind]


def pods(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the templates of pods, of `up` and of the workers."""
    for one in (*of(manifests, "Deployment"), *of(manifests, "StatefulSet")):
        yield one["spec"]["template"]


def containers(manifests: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for pod in pods(manifests):
        yield from pod["spec"]["containers"]


def test_what_it_renders_to_is_valid_to_kubernetes(
    render: Render, lint: Run, tmp_path: Path
) -> None:
    for name in VARIANTS:
        for number, manifest in enumerate(render(name)):
            if manifest["kind"] not in CUSTOM:
                file = tmp_path / f"{name}-{number:02}-{manifest['kind']}.yaml"
                file.write_text(yaml.safe_dump(manifest))
    files = sorted(tmp_path.glob("*.yaml"))
    assert len(files) > 4 * len(VARIANTS)
    for version in KUBERNETES:
        done = lint("-m", "kubernetes_validate", "--strict", "-k", version, *files)
        assert 0 == done.returncode, done.stdout + done.stderr


def test_what_is_no_manifest_is_found(lint: Run, tmp_path: Path) -> None:
    """A checker that finds nothing proves nothing."""
    file = tmp_path / "wrong.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {port: 80}\n")
    assert 0 != lint("-m", "kubernetes_validate", "--strict", "-k", KUBERNETES[-1], file).returncode


@pytest.mark.parametrize(
    "values",
    ["workers: {replica: 2}", "up: {port: http}", "workers: {autoscaling: {kind: magic}}", "settings: ''",
     "secret: {name: ''}", "up: {resources: {}, memory: 1Gi}", "unknown: 1"],
)  # fmt: skip
def test_values_that_are_wrong_are_refused(charts: Run, tmp_path: Path, values: str) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(values)
    done = charts("chart", CHART, file)
    assert (1, True) == (done.returncode, done.stderr.startswith("values.yaml: - ")), done.stderr


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def differs(properties: dict[str, Any], values: dict[str, Any], path: str) -> Iterator[str]:
        yield from (f"{path}{name}" for name in properties.keys() ^ values.keys() if name != "global")  # fmt: skip
        for name in properties.keys() & values.keys():
            if "properties" in properties[name] and isinstance(values[name], dict) and path + name != "up.resources":  # fmt: skip
                yield from differs(properties[name]["properties"], values[name], f"{path}{name}.")

    assert [] == list(differs(schema["properties"], values, ""))


def test_its_settings_load_and_each_secret_that_they_name_is_told_of(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings,) = of(render("defaults"), "ConfigMap")
    file = tmp_path / "penstock.toml"
    file.write_text(settings["data"]["penstock.toml"])
    named = set(re.findall(r'"env:(\w+)"', file.read_text()))
    given = {entry["name"] for one in containers(render("defaults")) for entry in one["env"]}
    assert {"PENSTOCK_MEMBER"} == named & given == given
    told = set(re.findall(r"--from-literal=(\w+)=", GUIDE.read_text()))
    assert named - given == told
    for number, name in enumerate(sorted(named)):
        monkeypatch.setenv(name, f"secret-{number}")
    loaded = load_settings(file)
    if loaded.fold.by == "workers":
        require_shared(loaded)
    assert ("0.0.0.0", "0.0.0.0", "/data") == (
        loaded.server.host,
        loaded.fold.host,
        loaded.data_dir,
    )
    mounted = {
        one["mountPath"] for each in containers(render("defaults")) for one in each["volumeMounts"]
    }
    assert str(Path(loaded.log.kafka.ca).parent) in mounted
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert (loaded.fold.by == "workers") == values["workers"]["enabled"]
    assert values["workers"]["autoscaling"]["maxReplicas"] <= loaded.log.partitions
    allowed = {one["port"] for one in values["networkPolicy"]["egress"]}
    brokers = {int(one.rpartition(":")[2]) for one in loaded.log.kafka.brokers}
    assert brokers <= allowed
    assert int(loaded.store.redis.url.rpartition(":")[2].partition("/")[0]) in allowed


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_container_runs_a_command_that_there_is(render: Render, variant: str) -> None:
    assert isinstance(main, Commands)
    with main.make_context("penstock", [], resilient_parsing=True) as context:
        for one in containers(render(variant)):
            name, *rest = one["args"]
            command = main.get_command(context, name)
            assert command is not None, name
            command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("variant", VARIANTS)
def test_probes_ask_what_is_answered(render: Render, variant: str) -> None:
    routes = set(re.findall(r"^### `GET ([^`]+)`$", REFERENCE.read_text(), re.MULTILINE))
    for one in containers(render(variant)):
        ports = {port["name"] for port in one["ports"]}
        probes = {name: one[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}  # fmt: skip
        assert {"/health", "/ready"} == {probe["path"] for probe in probes.values()} <= routes
        assert "/ready" == probes["readinessProbe"]["path"]
        assert {probe["port"] for probe in probes.values()} <= ports
        assert one["args"][one["args"].index("--port") + 1] == str(one["ports"][0]["containerPort"])


def test_an_ingress_leads_strangers_to_the_collector_and_to_links_alone(render: Render) -> None:
    (ingress,) = of(render("everything"), "Ingress")
    (rule,) = ingress["spec"]["rules"]
    paths = {(one["pathType"], one["path"]) for one in rule["http"]["paths"]}
    assert {one for kind, one in paths if kind == "Exact"} <= {row.path for row in ROWS}
    assert {"/c/", "/o/", "/v1/unsubscribe/"} == {one for kind, one in paths if kind == "Prefix"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_may_do_nothing_but_their_work(render: Render, variant: str) -> None:
    """The restricted standard of Pod Security, and a root file system that nobody writes to."""
    for pod in pods(render(variant)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert "RuntimeDefault" == spec["securityContext"]["seccompProfile"]["type"]
        for one in spec["containers"]:
            security = one["securityContext"]
            assert (False, True, ["ALL"]) == (
                security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"], security["capabilities"]["drop"],
            )  # fmt: skip
            assert {"cpu", "memory"} <= one["resources"]["requests"].keys()
            assert "memory" in one["resources"]["limits"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_selects_pods_selects_those_of_one_part(render: Render, variant: str) -> None:
    manifests = render(variant)
    labels = [pod["metadata"]["labels"] for pod in pods(manifests)]
    components = {one["app.kubernetes.io/component"] for one in labels}
    selectors = [one["spec"]["selector"] for one in of(manifests, "Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for kind in ("PodDisruptionBudget", "Deployment", "StatefulSet")
                  for one in of(manifests, kind)]  # fmt: skip
    policies = [one["spec"]["podSelector"]["matchLabels"] for one in of(manifests, "NetworkPolicy")]
    assert len(of(manifests, "PodDisruptionBudget")) == len(components)
    assert {"little": 0}.get(variant, 2) == len(policies)
    for selector in (*selectors, *policies):
        selected = [one["app.kubernetes.io/component"] for one in labels if selector.items() <= one.items()]  # fmt: skip
        assert 1 == len(set(selected)), selector
    for kind in ("Deployment", "StatefulSet"):
        for one in of(manifests, kind):
            selector = one["spec"]["selector"]["matchLabels"]
            assert 1 == sum(selector.items() <= one.items() for one in labels), selector


def test_workers_of_the_image_before_go_on_while_new_definitions_are_built(render: Render) -> None:
    images = {one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
              for one in of(render("everything"), "StatefulSet")}  # fmt: skip
    assert {"shop-worker": "penstock:v1", "shop-worker-previous": "penstock:v0"} == images


def test_what_scales_goes_by_metrics_that_there_are(render: Render) -> None:
    (scaled,) = of(render("keda"), "ScaledObject")
    (query,) = [one["metadata"]["query"] for one in scaled["spec"]["triggers"]]
    assert set(re.findall(r"penstock_\w+", query)) <= set(METRICS)
    assert "replicas" not in of(render("keda"), "StatefulSet")[0]["spec"]
    monitors = of(render("everything"), "ServiceMonitor")
    ports = {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]:
             {endpoint["port"] for endpoint in one["spec"]["endpoints"]} for one in monitors}  # fmt: skip
    services = {one["metadata"]["labels"]["app.kubernetes.io/component"]:
                {port["name"] for port in one["spec"]["ports"]} for one in of(render("everything"), "Service")}  # fmt: skip
    assert ports == services
