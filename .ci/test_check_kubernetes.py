"""`check_kubernetes.py` finds each kind of mistake in the production overlay, which `.ci/check-kubernetes` has built and which
has none."""

import copy
import unittest
from collections.abc import Callable

from check_kubernetes import ROOT, check, load

BUILT = load(ROOT / "target/check-kubernetes/production.yaml")
SECRETS = load(ROOT / "deploy/kubernetes/secrets.example.yaml")


class Broken:
    """The documents, by kind and name, to be broken."""

    def __init__(self) -> None:
        self.documents, self.secrets = copy.deepcopy(BUILT), copy.deepcopy(SECRETS)

    def __call__(self, kind: str, name: str) -> dict:
        return next(one for one in self.documents if one["kind"] == kind and one["metadata"]["name"].startswith(name))

    def spec(self, kind: str, name: str) -> dict:
        return self(kind, name)["spec"]

    def pod(self, name: str) -> dict:
        return self.spec("Job" if name == "orders-migrate" else "Deployment", name)["template"]["spec"]

    def program(self, name: str) -> dict:
        return self.pod(name)["containers"][0]

    def remove(self, kind: str, name: str) -> None:
        self.documents.remove(self(kind, name))


class Mistakes(unittest.TestCase):
    def expect(self, mistake: Callable[[Broken], object], *expected: str) -> None:
        broken = Broken()
        mistake(broken)
        found = "\n".join(check(broken.documents, broken.secrets))
        for text in expected:
            self.assertIn(text, found)

    def test_the_overlay_has_none(self):
        self.assertEqual(check(BUILT, SECRETS), [])

    def test_fields_that_do_not_exist(self):
        self.expect(lambda it: it.pod("orders-api").update(restartpolicy="x"), "Deployment orders-api: spec.template.spec: Additional")
        self.expect(lambda it: it.program("orders-api")["lifecycle"]["preStop"]["sleep"].update(seconds="5"), "is not of type 'integer'")
        self.expect(lambda it: it.spec("ScaledObject", "orders").update(minReplicas=2), "ScaledObject orders-worker: spec: Additional")
        self.expect(lambda it: it.spec("ScaledObject", "orders")["fallback"].update(behavior="x"), "spec.fallback.behavior")
        self.expect(lambda it: it.spec("ServiceMonitor", "orders")["endpoints"][0].update(intervall="5s"), "spec.endpoints.0: Additional")
        self.expect(lambda it: it("PodDisruptionBudget", "orders-api").update(apiVersion="policy/v1beta1"), "Couldn't find schema")

    def test_rights_that_a_pod_does_not_need(self):
        def pod(**changes):
            return lambda it: it.pod("orders-worker").update(changes)

        def program(**changes):
            return lambda it: it.program("orders-migrate")["securityContext"].update(changes)

        self.expect(pod(securityContext={}), "runAsNonRoot", "runAsUser is 65532", "seccompProfile")
        self.expect(pod(hostNetwork=True), "nothing of the host")
        self.expect(pod(automountServiceAccountToken=True), "automountServiceAccountToken: false")
        self.expect(pod(enableServiceLinks=True), "enableServiceLinks: false")
        self.expect(program(readOnlyRootFilesystem=False), "Job orders-migrate: lacks readOnlyRootFilesystem")
        self.expect(program(allowPrivilegeEscalation=True), "allowPrivilegeEscalation: false")
        self.expect(program(capabilities={"drop": ["ALL"], "add": ["NET_RAW"]}), "capabilities: drop ALL")
        self.expect(lambda it: it.program("orders-api")["resources"].pop("limits"), "requests and a limit of memory")
        self.expect(lambda it: it("Namespace", "orders")["metadata"].update(labels={}), "does not enforce pod security")

    def test_secrets_that_would_be_applied(self):
        self.expect(lambda it: it.documents.extend(it.secrets), "Secret orders-api: is applied with the rest")

    def test_variables_that_do_not_exist(self):
        self.expect(lambda it: it("ConfigMap", "orders")["data"].update(TRUSTED_PROXY="1"), "TRUSTED_PROXY is read nowhere")
        self.expect(lambda it: it.program("orders-worker")["env"].append({"name": "PORT", "value": "1"}), "PORT is not read by the program")
        self.expect(lambda it: it.secrets[0]["stringData"].update(JWT_KEY="x"), "Secret orders-api: JWT_KEY is read nowhere")
        self.expect(lambda it: it.secrets[1]["stringData"].update(JWT_SECRET="x"), "Secret orders-worker: JWT_SECRET is read nowhere")
        self.expect(lambda it: it("ConfigMap", "orders")["data"].update(DEBUG="true"), "sets DEBUG")

    def test_secrets_and_settings_that_are_missing(self):
        self.expect(lambda it: it.secrets.pop(1), "Deployment orders-worker: there is no Secret orders-worker")
        self.expect(lambda it: it.secrets[0]["stringData"].pop("DATABASE_URL"), "no key DATABASE_URL of Secret orders-api")
        self.expect(lambda it: it.remove("ConfigMap", "orders"), "there is no ConfigMap orders-settings")
        self.expect(lambda it: it.program("orders-worker").update(envFrom=[]), "Secret orders-worker: no pod uses it")

    def test_ports_that_nobody_listens_on(self):
        def env(name, index, value):
            return lambda it: it.program(name)["env"][index].update(value=value)

        self.expect(env("orders-api", 1, "8080"), "HOST and PORT are 0.0.0.0:8080")
        self.expect(env("orders-api", 2, "127.0.0.1:9090"), "METRICS_ADDR is 127.0.0.1:9090")
        self.expect(env("orders-worker", 0, "0.0.0.0:9090"), "METRICS_ADDR is 0.0.0.0:9090, its port `metrics` is 9091")
        self.expect(lambda it: it.program("orders-worker").update(env=[]), "METRICS_ADDR is None")
        self.expect(lambda it: it.program("orders-api")["ports"][0].update(containerPort=80), "its image exposes 8000 9090")
        self.expect(lambda it: it.program("orders-api")["livenessProbe"]["httpGet"].update(port="web"), "livenessProbe asks the port web")
        self.expect(lambda it: it.program("orders-api").pop("startupProbe"), "startupProbe asks the port None")

    def test_services_that_lead_nowhere(self):
        self.expect(lambda it: it.spec("Service", "orders-api").update(selector={"app": "x"}), "Service orders-api: selects no pod")
        self.expect(lambda it: it.spec("Service", "orders-api")["ports"][0].update(targetPort="web"), "leads to web")

        def backend(it):
            return it.spec("Ingress", "orders")["rules"][0]["http"]["paths"][0]["backend"]["service"]

        self.expect(lambda it: backend(it).update(name="orders"), "which does not exist")
        self.expect(lambda it: backend(it).update(port={"name": "web"}), "which does not exist")
        self.expect(lambda it: backend(it).update(name="orders-api-metrics", port={"name": "metrics"}), "makes the metrics public")

    def test_a_network_that_is_open_or_closed(self):
        self.expect(lambda it: it.remove("NetworkPolicy", "deny-by-default"), "none denies everything")
        self.expect(lambda it: it.remove("NetworkPolicy", "clients-to-api"), "let others in by [9090], its ports are [8000, 9090]")
        self.expect(lambda it: it.remove("NetworkPolicy", "all-to-postgresql"), "Job orders-migrate: no policy lets it out to [5432]")
        self.expect(lambda it: it.remove("NetworkPolicy", "all-to-dns"), "Deployment orders-api: no policy lets it out to [53]")
        self.expect(lambda it: it.remove("NetworkPolicy", "programs-to-redis"), "Deployment orders-worker: no policy lets it out to [6379]")

    def test_replicas_that_go_together(self):
        def api(**changes):
            return lambda it: it.spec("Deployment", "orders-api").update(changes)

        self.expect(api(replicas=1), "Deployment orders-api: has 1 replica")
        self.expect(api(strategy={"type": "Recreate"}), "stops old pods before new ones are ready")
        self.expect(api(selector={"matchLabels": {"app": "x"}}), "does not select its own pods")
        self.expect(lambda it: it.remove("PodDisruptionBudget", "orders-worker"), "orders-worker: has no PodDisruptionBudget")
        self.expect(lambda it: it.pod("orders-api").pop("topologySpreadConstraints"), "may have all of its pods on one node")
        self.expect(lambda it: it.spec("ScaledObject", "orders").update(minReplicaCount=1), "orders-worker: has 1 replica")
        self.expect(lambda it: it.spec("Deployment", "orders-worker").update(replicas=2), "sets the replicas that its ScaledObject decides")

    def test_too_little_time_to_stop(self):
        self.expect(lambda it: it.program("orders-api").pop("lifecycle"), "it needs preStop")
        self.expect(lambda it: it.pod("orders-api").update(terminationGracePeriodSeconds=20), "is killed after 20 s, and may take 25 s")
        self.expect(lambda it: it.pod("orders-worker").update(terminationGracePeriodSeconds=15), "is killed after 15 s, and may take 24 s")

    def test_an_autoscaler_that_asks_in_vain(self):
        def trigger(it):
            return it.spec("ScaledObject", "orders")["triggers"][0]["metadata"]

        def url(text):
            return lambda it: trigger(it).update(url=text)

        self.expect(url("http://orders-api-metrics.orders.svc:9091/lag"), "leads to no Service")
        self.expect(url("http://orders-api-metrics.default.svc:9090/lag"), "leads to no Service")
        self.expect(url("http://orders-api-metrics.orders.svc:9090/lags"), "leads to no Service")
        self.expect(lambda it: trigger(it).update(valueLocation="event"), "/lag has no event")
        self.expect(lambda it: trigger(it).pop("targetValue"), "its trigger is a metrics-api with")
        self.expect(lambda it: it.spec("ScaledObject", "orders")["scaleTargetRef"].update(name="worker"), "scales worker, which does not exist")

    def test_metrics_that_are_not_scraped(self):
        self.expect(lambda it: it.spec("ServiceMonitor", "orders")["endpoints"][0].update(port="http"), "watches ['api']", "a job `worker`")
        self.expect(lambda it: it.spec("ServiceMonitor", "orders").update(jobLabel="app"), "watches ['None']")
        self.expect(lambda it: it.spec("ServiceMonitor", "orders")["selector"].update(matchLabels={"app": "x"}), "watches []")

    def test_images_that_are_not_built(self):
        self.expect(lambda it: it.program("orders-api").update(image="ghcr.io/example/orders:0.1.0"), "runs ghcr.io/example/orders:0.1.0")
        self.expect(lambda it: it.program("orders-api").update(image="ghcr.io/example/orders-api:latest"), "orders-api:latest")


if __name__ == "__main__":
    unittest.main()
