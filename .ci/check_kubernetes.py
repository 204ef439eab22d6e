"""What `deploy/kubernetes` builds is valid, and agrees with itself and with the code: each document against the schemas of the
oldest and the newest Kubernetes, and of KEDA and the Prometheus operator; every variable, port, Service and Secret that is named
exists; pods have only the rights that they need and the time to stop. `check_pods.py` tries paths and secrets on the programs."""

import functools
import ipaddress
import json
import re
import sys
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
# The oldest one that docs/DEPLOY.md names, and the newest one of which there are schemas.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
# Where each program's code is; `api migrate` is part of the API.
CRATES = {"api": ("shared", "api"), "migrate": ("shared", "api"), "worker": ("shared", "worker")}
# Read by the AWS SDK.
SDK_SETTINGS = {"AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
# Of KEDA's trigger `metrics-api`, which its schema does not know: names, and which must be there.
TRIGGER_FIELDS = {"url", "valueLocation", "targetValue", "activationTargetValue", "format", "unsafeSsl", "timeout"}
TRIGGER_REQUIRED = {"url", "valueLocation", "targetValue"}

DOCKERFILE = (ROOT / "Dockerfile").read_text()


@functools.cache
def sources(*crates: str) -> str:
    return "\n".join(path.read_text() for crate in crates for path in sorted((ROOT / crate / "src").rglob("*.rs")))


def seconds(name: str, file: str) -> int:
    """A constant of the code."""
    found = re.search(rf"const {name}: Duration = Duration::from_secs\((\d+)\)", (ROOT / file).read_text())
    if not found:
        sys.exit(f"check_kubernetes.py: {file} has no {name} in seconds")
    return int(found[1])


DRAIN = seconds("DRAIN_DEADLINE", "shared/src/platform/shutdown.rs")
TRACES = seconds("EXPORT_TIMEOUT", "shared/src/platform/telemetry/otlp.rs")
BATCHES = [seconds(name, "worker/src/consumer/consume.rs") for name in ("DRAIN_LIMIT", "CLOSE_LIMIT")]
# How long each program may take to stop.
STOP_SECONDS = {"api": DRAIN + TRACES, "worker": sum(BATCHES) + DRAIN + TRACES}


class Manifests:
    """The documents of one kustomization, and the faults that were found in them."""

    def __init__(self, documents: list[dict], secrets: list[dict]) -> None:
        self.documents = documents
        self.secrets = {secret["metadata"]["name"]: set(secret["stringData"]) for secret in secrets}
        self.faults: list[str] = []

    def fault(self, document: dict, text: str) -> None:
        self.faults.append(f"{document['kind']} {document['metadata']['name']}: {text}")

    def of(self, *kinds: str) -> list[dict]:
        return [document for document in self.documents if document["kind"] in kinds]

    def named(self, kind: str, name: str) -> dict | None:
        return next((document for document in self.of(kind) if document["metadata"]["name"] == name), None)

    def workloads(self, selector: dict | None = None) -> list[dict]:
        """What makes pods, of those the ones whose pods a selector selects."""
        found = self.of("Deployment", "Job")
        return found if selector is None else [one for one in found if selects(selector, labels(one["spec"]["template"]))]


def labels(document: dict) -> dict:
    return document["metadata"].get("labels", {})


def selects(selector: dict, present: dict) -> bool:
    """Whether a selector, with `matchLabels` and `matchExpressions` of the operator In, selects these labels."""
    wanted = [(key, [value]) for key, value in selector.get("matchLabels", {}).items()]
    for rule in selector.get("matchExpressions", []):
        assert rule["operator"] == "In", "check_kubernetes.py knows the operator In alone"
        wanted.append((rule["key"], rule["values"]))
    return all(present.get(key) in values for key, values in wanted)


def container(workload: dict) -> dict:
    return workload["spec"]["template"]["spec"]["containers"][0]


def ports(workload: dict) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(workload).get("ports", [])}


# --- Each document ----------------------------------------------------------------------------------------------------


def check_schemas(manifests: Manifests) -> None:
    for document in manifests.documents:
        fault = invalid(json.dumps(document))
        if fault:
            manifests.fault(document, fault)


@functools.cache
def invalid(text: str) -> str | None:
    """What is wrong with one document by its schemas."""
    document = json.loads(text)
    own = ROOT / f".ci/schemas/{document['apiVersion'].partition('/')[0]}_{document['kind'].lower()}.json"
    try:
        if own.exists():
            jsonschema.validate(document, json.loads(own.read_text()))
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)
    except jsonschema.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return error.message
    return None


def check_pod_security(manifests: Manifests) -> None:
    """Pod security `restricted`, and beyond it: nothing can be written, no token of the cluster, memory is bounded."""
    user = int(re.search(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[1])
    for namespace in manifests.of("Namespace"):
        if labels(namespace).get("pod-security.kubernetes.io/enforce") != "restricted":
            manifests.fault(namespace, "does not enforce pod security `restricted`")
    for workload in manifests.workloads():
        pod, program = workload["spec"]["template"]["spec"], container(workload)
        wanted = {
            "runAsNonRoot": pod.get("securityContext", {}).get("runAsNonRoot") is True,
            f"runAsUser is {user}, that of the image": pod.get("securityContext", {}).get("runAsUser") == user,
            "seccompProfile": pod.get("securityContext", {}).get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "allowPrivilegeEscalation: false": program.get("securityContext", {}).get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem": program.get("securityContext", {}).get("readOnlyRootFilesystem") is True,
            "capabilities: drop ALL": program.get("securityContext", {}).get("capabilities") == {"drop": ["ALL"]},
            "automountServiceAccountToken: false": pod.get("automountServiceAccountToken") is False,
            "enableServiceLinks: false": pod.get("enableServiceLinks") is False,
            "nothing of the host": not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(pod),
            "one container": len(pod["containers"]) == 1 and not pod.get("initContainers"),
            "requests and a limit of memory": {"cpu", "memory"} <= set(program.get("resources", {}).get("requests", {}))
            and "memory" in program["resources"].get("limits", {}),
        }
        for rule, holds in wanted.items():
            if not holds:
                manifests.fault(workload, f"lacks {rule}")


def check_secrets(manifests: Manifests) -> None:
    for secret in manifests.of("Secret"):
        manifests.fault(secret, "is applied with the rest, and would write over the real one")


# --- Settings and ports -----------------------------------------------------------------------------------------------


def secrets_of(workload: dict) -> set[str]:
    """The Secrets that a pod's environment comes from."""
    sources = [source.get("secretRef", {}) for source in container(workload).get("envFrom", [])]
    sources += [one.get("valueFrom", {}).get("secretKeyRef", {}) for one in container(workload).get("env", [])]
    return {source["name"] for source in sources if source}


def settings_of(manifests: Manifests, workload: dict) -> tuple[dict[str, str | None], list[str]]:
    """What a pod's environment has; a value from a Secret is None. With it, what it names and is nowhere."""
    found, missing = {}, []
    for source in container(workload).get("envFrom", []):
        if "configMapRef" in source:
            settings = manifests.named("ConfigMap", source["configMapRef"]["name"])
            found |= settings["data"] if settings else {}
            missing += [] if settings else [f"ConfigMap {source['configMapRef']['name']}"]
        else:
            name = source["secretRef"]["name"]
            found |= dict.fromkeys(manifests.secrets.get(name, ()))
            missing += [] if name in manifests.secrets else [f"Secret {name}"]
    for variable in container(workload).get("env", []):
        found[variable["name"]] = variable.get("value")
        key = variable.get("valueFrom", {}).get("secretKeyRef")
        if key and key["key"] not in manifests.secrets.get(key["name"], ()):
            missing.append(f"key {key['key']} of Secret {key['name']}")
    return found, missing


def check_settings(manifests: Manifests) -> None:
    """Every variable is one that the program reads, and those that it must have are there."""
    known = {name: set(re.findall(r"\"([A-Z][A-Z0-9_]+)\"", sources(*crates))) | SDK_SETTINGS for name, crates in CRATES.items()}
    for settings in manifests.of("ConfigMap"):
        for name in sorted(set(settings["data"]) - known["api"] - known["worker"]):
            manifests.fault(settings, f"{name} is read nowhere")
    for name, keys in manifests.secrets.items():
        users = [one for one in manifests.workloads() if name in secrets_of(one)]
        if not users:
            manifests.faults.append(f"Secret {name}: no pod uses it")
        for key in sorted(keys - {read for one in users for read in known[container(one)["name"]]}):
            manifests.faults.append(f"Secret {name}: {key} is read nowhere")
    for workload in manifests.workloads():
        program = container(workload)["name"]
        found, missing = settings_of(manifests, workload)
        for text in missing:
            manifests.fault(workload, f"there is no {text} (secrets.example.yaml lists the Secrets)")
        own = {variable["name"] for variable in container(workload).get("env", [])}
        for name in sorted(own - known[program]):
            manifests.fault(workload, f"{name} is not read by the program")
        if found.get("DEBUG"):
            manifests.fault(workload, "sets DEBUG, which gives everyone an admin's token")


def check_ports(manifests: Manifests) -> None:
    """The program listens where its ports are said to be, on an address that others reach; probes ask one of them."""
    for workload in manifests.of("Deployment"):
        found, named = settings_of(manifests, workload)[0], ports(workload)
        host, _, port = (found.get("METRICS_ADDR") or "127.0.0.1:0").rpartition(":")
        if ipaddress.ip_address(host.strip("[]")).is_loopback or int(port) != named.get("metrics"):
            manifests.fault(workload, f"METRICS_ADDR is {found.get('METRICS_ADDR')}, its port `metrics` is {named.get('metrics')}")
        every = found.get("HOST") in ("0.0.0.0", "::")
        if "http" in named and not (every and found.get("PORT") == str(named["http"])):
            manifests.fault(workload, f"HOST and PORT are {found.get('HOST')}:{found.get('PORT')}, its port `http` is {named['http']}")
        exposed = re.search(rf"AS {container(workload)['name']}\n.*?^EXPOSE (.*?)$", DOCKERFILE, re.MULTILINE | re.DOTALL)[1]
        if set(exposed.split()) != {str(number) for number in named.values()}:
            manifests.fault(workload, f"has the ports {sorted(named.values())}, its image exposes {exposed}")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container(workload).get(probe, {}).get("httpGet", {}).get("port")
            if asked not in named:
                manifests.fault(workload, f"{probe} asks the port {asked}")


# --- Between documents ------------------------------------------------------------------------------------------------


def check_services(manifests: Manifests) -> None:
    for service in manifests.of("Service"):
        selected = manifests.workloads({"matchLabels": service["spec"]["selector"]})
        if not selected:
            manifests.fault(service, "selects no pod")
        for workload in selected:
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in ports(workload):
                    manifests.fault(service, f"its port {port['name']} leads to {port['targetPort']}, which the pods do not have")
    for ingress in manifests.of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if not service_port(manifests, backend["name"], backend["port"].get("name")):
                    manifests.fault(ingress, f"leads to {backend}, which does not exist")
                elif backend["port"]["name"] == "metrics":
                    manifests.fault(ingress, "makes the metrics public")


def service_port(manifests: Manifests, name: str, port: str | int | None) -> dict | None:
    service = manifests.named("Service", name)
    found = service["spec"]["ports"] if service else []
    return next((one for one in found if port in (one["name"], one["port"])), None)


def check_network(manifests: Manifests) -> None:
    """All is denied; each port of each pod can be reached by somebody, and each pod reaches DNS and its stores."""
    policies = manifests.of("NetworkPolicy")
    if not any(
        policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} for policy in policies
    ):
        manifests.faults.append("NetworkPolicy: none denies everything")
    for workload in manifests.workloads():
        present, needs = labels(workload["spec"]["template"]), {53, 5432}
        if workload["kind"] == "Deployment":
            needs |= {6379}
        reached, reaches = set(), set()
        for policy in policies:
            if selects(policy["spec"]["podSelector"], present):
                for rule in policy["spec"].get("ingress", []):
                    reached |= {port["port"] for port in rule["ports"]}
                for rule in policy["spec"].get("egress", []):
                    reaches |= {port["port"] for port in rule["ports"]}
        if reached != set(ports(workload).values()):
            manifests.fault(workload, f"policies let others in by {sorted(reached)}, its ports are {sorted(ports(workload).values())}")
        if needs - reaches:
            manifests.fault(workload, f"no policy lets it out to {sorted(needs - reaches)}")


def check_availability(manifests: Manifests) -> None:
    """Two of each, on two nodes, of which one stays; and the time that the program takes to stop."""
    for workload in manifests.of("Deployment"):
        spec, name = workload["spec"], workload["metadata"]["name"]
        template = labels(spec["template"])
        scaled = [one for one in manifests.of("ScaledObject") if one["spec"]["scaleTargetRef"]["name"] == name]
        least = scaled[0]["spec"]["minReplicaCount"] if scaled else spec.get("replicas", 1)
        if least < 2:
            manifests.fault(workload, f"has {least} replica")
        if scaled and "replicas" in spec:
            manifests.fault(workload, "sets the replicas that its ScaledObject decides")
        if not selects(spec["selector"], template):
            manifests.fault(workload, "does not select its own pods")
        if spec["strategy"].get("rollingUpdate", {}).get("maxUnavailable") != 0:
            manifests.fault(workload, "stops old pods before new ones are ready")
        spread = spec["template"]["spec"].get("topologySpreadConstraints", [])
        if not any(one["topologyKey"] == "kubernetes.io/hostname" and selects(one["labelSelector"], template) for one in spread):
            manifests.fault(workload, "may have all of its pods on one node")
        if not any(selects(budget["spec"]["selector"], template) for budget in manifests.of("PodDisruptionBudget")):
            manifests.fault(workload, "has no PodDisruptionBudget")
        pre_stop = container(workload).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if "http" in ports(workload) and not pre_stop:
            manifests.fault(workload, "closes its port before load balancers know: it needs preStop")
        stop, grace = pre_stop + STOP_SECONDS[container(workload)["name"]], spec["template"]["spec"]["terminationGracePeriodSeconds"]
        if grace < stop:
            manifests.fault(workload, f"is killed after {grace} s, and may take {stop} s to stop")


def check_operators(manifests: Manifests) -> None:
    """What KEDA and Prometheus ask exists."""
    for scaled in manifests.of("ScaledObject"):
        if not manifests.named("Deployment", scaled["spec"]["scaleTargetRef"]["name"]):
            manifests.fault(scaled, f"scales {scaled['spec']['scaleTargetRef']['name']}, which does not exist")
        for trigger in scaled["spec"]["triggers"]:
            fields = set(trigger["metadata"])
            if trigger["type"] != "metrics-api" or fields - TRIGGER_FIELDS or TRIGGER_REQUIRED - fields:
                manifests.fault(scaled, f"its trigger is a {trigger['type']} with {sorted(fields)}")
                continue
            namespace = scaled["metadata"]["namespace"]
            url = re.fullmatch(rf"http://([\w-]+)\.{namespace}\.svc:(\d+)/lag", trigger["metadata"]["url"])
            if not url or not service_port(manifests, url[1], int(url[2])):
                manifests.fault(scaled, f"{trigger['metadata']['url']} leads to no Service")
            if f"\n    {trigger['metadata']['valueLocation']}: u64," not in sources("api"):
                manifests.fault(scaled, f"/lag has no {trigger['metadata']['valueLocation']}")
    alerts = (ROOT / "observability/prometheus/alerts.yml").read_text()
    for monitor in manifests.of("ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            watched = [
                service
                for service in manifests.of("Service")
                if selects(monitor["spec"]["selector"], labels(service)) and service_port(manifests, service["metadata"]["name"], endpoint["port"])
            ]
            jobs = {labels(service).get(monitor["spec"]["jobLabel"]) for service in watched}
            if jobs != {container(workload)["name"] for workload in manifests.of("Deployment")}:
                manifests.fault(monitor, f"watches {sorted(map(str, jobs))} by the port {endpoint['port']}")
            for job in sorted(set(re.findall(r"job=\"(\w+)\"", alerts)) - jobs):
                manifests.fault(monitor, f"the alerts want a job `{job}`")


def check_images(manifests: Manifests) -> None:
    """Images are those that the Dockerfile makes, without a tag or of this version."""
    titles = set(re.findall(r"image\.title=\"([\w-]+)\"", DOCKERFILE))
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for workload in manifests.workloads():
        name, _, tag = container(workload)["image"].rpartition("/")[2].partition(":")
        if name not in titles or tag not in ("", version):
            manifests.fault(workload, f"runs {container(workload)['image']}; the images are {sorted(titles)} in version {version}")


# Of documents that are valid.
CHECKS = [
    check_pod_security, check_secrets, check_settings, check_ports, check_services, check_network,
    check_availability, check_operators, check_images,
]  # fmt: skip


def check(documents: list[dict], secrets: list[dict]) -> list[str]:
    """The faults of what a kustomization builds, with the Secrets that it expects."""
    manifests = Manifests(documents, secrets)
    check_schemas(manifests)
    for one in [] if manifests.faults else CHECKS:
        one(manifests)
    return manifests.faults


def load(file: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


if __name__ == "__main__":
    example = load(ROOT / "deploy/kubernetes/secrets.example.yaml")
    found = [f"secrets.example: {fault}" for fault in map(invalid, map(json.dumps, example)) if fault]
    found += [f"{Path(file).stem}: {fault}" for file in sys.argv[1:] for fault in check(load(Path(file)), example)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(1 if found else 0)
