"""Every setting, metric and label that is named outside the code is one of the code's; every setting is listed, once, and every
metric is explained in docs/RUNBOOK.md. Every test and every property that docs/GUARANTEES.md names exists, and every property is named."""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCES = "\n".join(
    path.read_text() for crate in ("shared", "api", "worker") for path in sorted((ROOT / crate / "src").rglob("*.rs"))
)

# Read by the AWS SDK.
SDK_SETTINGS = {"AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
# Set by the system, not by an operator.
SYSTEM_SETTINGS = {"HOSTNAME"}
# Read by Docker Compose alone.
COMPOSE_SETTINGS = {"COMPOSE_PROFILES"}
# Meaningless between containers: they have one network, one database and one Redis.
NOT_IN_COMPOSE = {"PORT", "DATABASE_READ_URL", "EVENTS_REDIS_URL"}
# Metrics of others: Prometheus itself, and RabbitMQ's plugin.
FOREIGN_METRICS = re.compile(r"^(up|scrape_|rabbitmq_|ALERTS)")
# Labels that Prometheus adds itself.
FOREIGN_LABELS = {"job", "instance", "le"}

PROMQL_WORDS = {
    "and", "or", "unless", "on", "ignoring", "group_left", "group_right", "bool", "offset", "inf", "nan",
}


def settings() -> list[str]:
    """Faults of .env.example and docker-compose.yml."""
    lines = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    listed = set(lines)
    read = set(re.findall(r"\benv\s*(?:\.\s*\w+(?:::<[^>]*>)?\(|,)\s*\"([A-Z][A-Z0-9_]+)\"", SOURCES))
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    passed = set(compose["api"]["environment"]) | set(compose["worker"]["environment"])
    mentioned = set(re.findall(r"\"([A-Z][A-Z0-9_]+)\"", SOURCES)) | SDK_SETTINGS
    return (
        [f".env.example: {name} is missing, the code reads it" for name in sorted(read - listed - SYSTEM_SETTINGS)]
        + [f".env.example: {name} is listed twice" for name in sorted(listed) if lines.count(name) > 1]
        + [f".env.example: {name} is read nowhere" for name in sorted(listed - mentioned - COMPOSE_SETTINGS)]
        + [f"docker-compose.yml: {name} is not handed through" for name in sorted(listed - passed - NOT_IN_COMPOSE - COMPOSE_SETTINGS)]
        + [f"docker-compose.yml: {name} is read nowhere" for name in sorted(passed - mentioned)]
    )


def expressions() -> list[tuple[str, str, str]]:
    """Each PromQL expression, with its place, and the text that shows its labels."""
    alerts = yaml.safe_load((ROOT / "observability/prometheus/alerts.yml").read_text())
    found = [
        (f"alerts.yml: {rule.get('alert') or rule.get('record')}", rule["expr"], str(rule.get("annotations")))
        for group in alerts["groups"]
        for rule in group["rules"]
    ]
    for file in sorted((ROOT / "observability/grafana/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                found.append((f"{file.name}: {panel['title']}", target["expr"], target.get("legendFormat", "")))
    return found


def metrics_of(expression: str) -> set[str]:
    """The metric names in a PromQL expression: words that are no label, function, keyword or number."""
    text = re.sub(r"\"[^\"]*\"|\{[^}]*\}|\[[^\]]*\]", " ", expression)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    words = re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)(?!\w)\s*(\(?)", text)
    return {word for word, call in words if not call and word.lower() not in PROMQL_WORDS and word not in ("by", "without")}


def labels_of(expression: str, shown: str) -> set[str]:
    """The labels that a PromQL expression, or what shows its result, names."""
    grouped = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression)
    matched = [label for block in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[=!]", block)]
    shown_labels = re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", shown)
    return {label for group in grouped for label in re.findall(r"\w+", group)} | set(matched) | set(shown_labels)


def rules_of_dashboards() -> None:
    """Leaves the dashboards' expressions as rules, whose syntax promtool can check."""
    rules = [
        {"record": f"panel_{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression, _) in enumerate(expressions())
    ]
    target = ROOT / "target/check-docker"
    target.mkdir(parents=True, exist_ok=True)
    (target / "dashboards.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]})
    )


def exported_metrics() -> set[str]:
    """The metrics that the programs export."""
    return set(re.findall(r"\b(?:counter!|gauge!|histogram!|count)\(\s*\"([a-z_]+)\"", SOURCES))


def runbook() -> list[str]:
    """Metrics that docs/RUNBOOK.md does not explain."""
    explained = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs/RUNBOOK.md").read_text()))
    return [f"docs/RUNBOOK.md: {name} is not explained" for name in sorted(exported_metrics() - explained)]


def metrics() -> list[str]:
    """Faults of the alerts and the dashboards."""
    exported = set(re.findall(r"\"([a-z][a-z0-9]*(?:_[a-z0-9]+)+)\"", SOURCES))
    faults = []
    labels = {name for names in re.findall(r"\"(\w+)\" =>|\(\"(\w+)\",", SOURCES) for name in names} | FOREIGN_LABELS
    for place, expression, shown in expressions():
        for name in sorted(metrics_of(expression)):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            if not FOREIGN_METRICS.match(name) and name not in exported and base not in exported:
                faults.append(f"{place}: no metric is called {name}")
        if not any(FOREIGN_METRICS.match(name) for name in metrics_of(expression)):
            faults += [f"{place}: no label is called {name}" for name in sorted(labels_of(expression, shown) - labels)]
    return faults


def guarantees() -> list[str]:
    """Tests and properties that docs/GUARANTEES.md names and that do not exist, or the other way round."""
    document = (ROOT / "docs/GUARANTEES.md").read_text()
    rows = [line for line in document.splitlines() if line.startswith("| ")]
    named_tests = {name for row in rows for name in re.findall(r"`(\w+_\w+)`", row)}
    named_properties = {name for row in rows for name in re.findall(r"\"([^\"]+)\"", row)}
    tests = {
        name
        for crate in ("shared", "api", "worker", "testbed", "xtask", "e2e", "models", "bench")
        for file in sorted((ROOT / crate).rglob("*.rs"))
        for name in re.findall(r"\bfn (\w+)", file.read_text())
    }
    properties = {
        name
        for file in sorted((ROOT / "models/src").rglob("properties.rs"))
        for name in re.findall(r": &str =\s*\"([^\"]+)\"", file.read_text())
    }
    events = " ".join((ROOT / "docs/EVENTS.md").read_text().replace("**", "").split())
    promised = document.split("\n## ")[1].splitlines()
    sentences = [line.split("|")[1].strip() for line in promised if line.startswith("| ")][1:]
    return (
        [f"docs/GUARANTEES.md: no test is called {name}" for name in sorted(named_tests - tests)]
        + [f"docs/GUARANTEES.md: no model has the property \"{name}\"" for name in sorted(named_properties - properties)]
        + [f"docs/GUARANTEES.md: the property \"{name}\" is missing" for name in sorted(properties - named_properties)]
        + [f"docs/GUARANTEES.md: docs/EVENTS.md does not say \"{text}\"" for text in sentences if text not in events]
    )


rules_of_dashboards()
faults = settings() + metrics() + runbook() + guarantees()
print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
sys.exit(1 if faults else 0)
