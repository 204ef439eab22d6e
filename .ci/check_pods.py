"""Starts the programs with the environment of their pods, without any server beside them: the arguments are a command, every path
that a probe, Prometheus or KEDA asks is served, SIGTERM ends them in time, and each Secret's placeholder is refused by name.

    check_pods.py FOLDER_WITH_PROGRAMS BUILT_MANIFESTS
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from check_kubernetes import ROOT, Manifests, container, load, secrets_of, settings_of

# Real values for the Secrets. Nothing listens at these addresses.
SECRETS = {"DATABASE_URL": "postgres://u:p@127.0.0.1:1/orders", "REDIS_URL": "redis://127.0.0.1:1/0", "JWT_SECRET": "x" * 32}
PLACEHOLDERS = {
    document["metadata"]["name"]: document["stringData"] for document in load(ROOT / "deploy/kubernetes/secrets.example.yaml")
}
# Seconds for a program to do what takes it milliseconds.
PATIENCE = 30


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(manifests: Manifests, workload: dict, changed: dict[str, str]) -> dict[str, str]:
    """That of the pod, with real secrets, on ports that are free here."""
    found, _ = settings_of(manifests, workload)
    real = {name: SECRETS[name] if value is None else value for name, value in found.items()}
    here = {name: value for name, value in changed.items() if name in real or name in SECRETS}
    return real | here


def run_refused(command: list[str], env: dict[str, str], name: str) -> str | None:
    """None if the program ends with code 2 and one line that names the variable."""
    try:
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"{' '.join(command[1:])} runs with a bad {name}"
    if done.returncode == 2 and done.stderr.startswith(f"{name}: ") and done.stderr.count("\n") == 1:
        return None
    return f"{' '.join(command[1:])} with a bad {name}: exit code {done.returncode}, {done.stderr.strip()!r}"


def ask(port: int, path: str, process: subprocess.Popen) -> int:
    """The status of a path, as soon as somebody listens."""
    start = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            if process.poll() is not None or time.monotonic() - start > PATIENCE:
                raise
            time.sleep(0.05)


def paths_of(manifests: Manifests, workload: dict) -> dict[tuple[str, str], int]:
    """Each port and path that something asks, with the status that it has while no server answers."""
    probes = {name: container(workload)[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    asked = {(get["port"], get["path"]): 503 if name == "readinessProbe" else 200 for name, get in probes.items()}
    asked |= {(one["port"], one["path"]): 200 for monitor in manifests.of("ServiceMonitor") for one in monitor["spec"]["endpoints"]}
    for scaled in manifests.of("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            service, path = trigger["metadata"]["url"].removeprefix("http://").split("/", 1)
            if service.startswith(f"{workload['metadata']['name']}-metrics."):
                asked["metrics", f"/{path}"] = 503
    return asked


def try_deployment(program: Path, manifests: Manifests, workload: dict) -> list[str]:
    ports = {"http": free_port(), "metrics": free_port()}
    here = {"HOST": "127.0.0.1", "PORT": str(ports["http"]), "METRICS_ADDR": f"127.0.0.1:{ports['metrics']}"}
    env, name = environment(manifests, workload, here), workload["metadata"]["name"]
    process = subprocess.Popen(
        [program, *container(workload)["args"]], env=env, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    faults = []
    try:
        for (port, path), expected in paths_of(manifests, workload).items():
            status = ask(ports[port], path, process)
            if status != expected:
                faults.append(f"{name}: {path} on the port `{port}` answers {status}, not {expected}")
        process.terminate()
        code = process.wait(workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
        if code != 0:
            faults.append(f"{name}: ends with {code} after SIGTERM")
    except (OSError, subprocess.TimeoutExpired) as error:
        process.kill()
        faults.append(f"{name}: {error}; {process.communicate()[1].strip()[-500:]}")
    finally:
        process.kill()
        process.wait()
    return faults


def try_refusals(program: Path, manifests: Manifests, workload: dict) -> list[str]:
    """Each secret of the pod is one that the program must have, and its placeholder is none."""
    faults = []
    command = [str(program), *container(workload)["args"]]
    placeholders = {key: value for secret in secrets_of(workload) for key, value in PLACEHOLDERS[secret].items()}
    for name in sorted(set(placeholders) & set(environment(manifests, workload, {}))):
        for value in (placeholders[name], ""):
            faults.append(run_refused(command, environment(manifests, workload, {name: value}), name))
    return [fault for fault in faults if fault]


def try_job(program: Path, manifests: Manifests, workload: dict) -> list[str]:
    """It gets as far as PostgreSQL, which is not there."""
    command = [program, *container(workload)["args"]]
    done = subprocess.run(command, env=environment(manifests, workload, {}), cwd="/", capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode == 1 and "PostgreSQL" in done.stderr:
        return []
    return [f"{workload['metadata']['name']}: exit code {done.returncode}, {done.stderr.strip()!r}"]


def main(programs: Path, built: Path) -> list[str]:
    manifests = Manifests(load(built), load(ROOT / "deploy/kubernetes/secrets.example.yaml"))
    faults = []
    for workload in manifests.workloads():
        name = container(workload)["image"].rpartition("/")[2].partition(":")[0].removeprefix("orders-")
        program = programs / name
        if not program.exists():
            return [f"{program} is not there: `cargo build --workspace --all-targets` makes it"]
        attempt = try_deployment if workload["kind"] == "Deployment" else try_job
        faults += attempt(program, manifests, workload) + try_refusals(program, manifests, workload)
    return faults


found = main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
print("\n".join(found), file=sys.stderr, end="\n" if found else "")
sys.exit(1 if found else 0)
