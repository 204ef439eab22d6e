"""Rules for Dockerfile, .dockerignore, docker-compose.yml and .env.example that need no engine. Each was broken once."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "target/check-docker/bin/docker-compose"

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# What each image declares as a volume. Docker fills what is not mounted there with an anonymous volume at each start.
DECLARED_VOLUMES = {
    "postgres": "/var/lib/postgresql/data",
    "redis": "/data",
    "rabbitmq": "/var/lib/rabbitmq",
    "localstack/localstack": "/var/lib/localstack",
    "prom/prometheus": "/prometheus",
    "grafana/grafana": None,
    "orders-api": None,
    "orders-worker": None,
}

UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def builds() -> list[str]:
    """Two services that build one tag at the same time can fail: `image … already exists`."""
    tags = [service["image"] for service in SERVICES.values() if "build" in service]
    return [f"docker-compose.yml: {tag} is built by two services" for tag in sorted(set(tags)) if tags.count(tag) > 1] + [
        f"docker-compose.yml: {name} uses {service['image']} and would pull it: it needs `pull_policy: never`"
        for name, service in SERVICES.items()
        if "build" not in service and service["image"] in tags and service.get("pull_policy") != "never"
    ]


def published_ports() -> list[str]:
    """Everything listens on this machine alone, unless a setting says otherwise."""
    faults = []
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            address = port.get("host_ip", "") if isinstance(port, dict) else port
            if not re.match(r"127\.0\.0\.1|\$\{\w+:-127\.0\.0\.1\}", address):
                faults.append(f"docker-compose.yml: {name} publishes {port} on every interface")
    return faults


def volumes() -> list[str]:
    """What an image declares as a volume has a name or is a tmpfs."""
    faults = []
    for name, service in SERVICES.items():
        image = re.sub(r":[^:/]+$", "", service["image"])
        mounted = [volume.split(":")[1] for volume in service.get("volumes", [])]
        mounted += [mount.split(":")[0] for mount in service.get("tmpfs", [])]
        if image not in DECLARED_VOLUMES:
            faults.append(f"check_compose.py: which volume does {image} declare? (docker image inspect)")
        elif DECLARED_VOLUMES[image] not in [None, *mounted]:
            faults.append(f"docker-compose.yml: {name} leaves an anonymous volume at {DECLARED_VOLUMES[image]}")
    return faults


def rabbitmq() -> list[str]:
    """RabbitMQ sees the host's memory, and each of its checks starts an Erlang."""
    service = SERVICES["rabbitmq"]
    faults = []
    number, unit = re.fullmatch(r"(\d+)([bkmg])", service["deploy"]["resources"]["limits"]["memory"]).groups()
    arguments = service["environment"].get("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "")
    if f"-rabbit total_memory_available_override_value {int(number) * UNITS[unit]}" not in arguments:
        faults.append("docker-compose.yml: rabbitmq must be told its memory limit, in bytes")
    if int(service["healthcheck"]["interval"].removesuffix("s")) < 15:
        faults.append("docker-compose.yml: rabbitmq is checked more often than every 15 s")
    return faults


def event_systems() -> list[str]:
    """EVENT_SYSTEM alone, in a copy of .env.example, starts the broker that it names."""
    systems = re.search(r"^# What carries them: (.*)\.$", ENV_EXAMPLE, re.MULTILINE)
    faults = [] if systems else [".env.example: the line `# What carries them: …` is gone"]
    listed = re.sub(r"\(.*?\)| or |,", " ", systems[1]).split() if systems else []
    for system in listed:
        file = ROOT / f"target/check-docker/{system}.env"
        file.write_text(re.sub(r"^EVENT_SYSTEM=.*$", f"EVENT_SYSTEM={system}", ENV_EXAMPLE, flags=re.MULTILINE))
        command = [COMPOSE, "--project-directory", ROOT, "--env-file", file, "config", "--services"]
        started = subprocess.run(command, check=True, capture_output=True, text=True, env={}).stdout.split()
        expected = {name for name, service in SERVICES.items() if "profiles" not in service or system in service["profiles"]}
        if set(started) != expected or (system != "local" and not any(system in s.get("profiles", []) for s in SERVICES.values())):
            faults.append(f".env.example: EVENT_SYSTEM={system} starts {sorted(started)}")
    return faults


def frontend() -> list[str]:
    """Docker 20.10 builds the images, with BuildKit or without, and pulls nothing for it but base images."""
    newer = {
        r"^#\s*syntax\s*=": "a `# syntax` line pulls a frontend",
        r"--parents|--exclude|--link|--checksum|--mount": "it has an option that BuildKit alone knows",
        r"<<-?['\"]?[A-Z]": "a here-document is newer than Docker 20.10",
    }
    return [f"Dockerfile: {why}" for pattern, why in newer.items() if re.search(pattern, DOCKERFILE, re.MULTILINE)]


def manifests() -> list[str]:
    """The workspace is complete in the build: each member's manifest is sent and copied."""
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    sent = set((ROOT / ".dockerignore").read_text().splitlines())
    return [
        f"Dockerfile: `COPY {member}/Cargo.toml {member}/` is missing"
        for member in members
        if f"COPY {member}/Cargo.toml {member}/\n" not in DOCKERFILE
    ] + [
        f".dockerignore: {member}/Cargo.toml is not sent"
        for member in members
        if not {f"!{member}", f"!{member}/Cargo.toml"} & sent
    ] + [f".dockerignore: wildcard in {line}" for line in sorted(sent) if line.startswith("!") and "*" in line]


def documents() -> list[str]:
    """A command in a new container must not start, or wait for, everything else."""
    return [
        f"{document.name}: `{line.strip()}` needs --no-deps"
        for document in DOCUMENTS
        for line in document.read_text().splitlines()
        if "docker compose run" in line and "--no-deps" not in line
    ]


faults = (
    builds() + published_ports() + volumes() + rabbitmq() + event_systems() + frontend() + manifests() + documents()
)
print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
sys.exit(1 if faults else 0)
