//! The Postman collection, derived from the OpenAPI document.

use serde_json::{Map, Value, json};

const SCHEMA: &str = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json";
const NDJSON: &str = "application/x-ndjson";
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// What requests take from the collection's variables, with what these hold at first. Those without a value are filled
/// by the scripts of the requests.
const VARIABLES: [(&str, &str); 9] = [
    ("base_url", "http://localhost:8000"),
    ("customer_id", "123"),
    ("email", ""),
    ("password", "correct horse"),
    ("access_token", ""),
    ("refresh_token", ""),
    ("order_id", ""),
    ("operator_token", ""),
    ("tenant_id", ""),
];

/// Before a tenant is created: logs an operator in, whose token the requests of its folder carry.
const LOG_OPERATOR_IN: [&str; 5] = [
    "const login = {",
    "    url: pm.variables.replaceIn(\"{{base_url}}/api/v1/auth/login-test\"), method: \"POST\",",
    "    header: {\"Content-Type\": \"application/json\"}, body: JSON.stringify({customer_id: 1, role: \"operator\"}),",
    "};",
    "pm.sendRequest(login, (_, answer) => pm.collectionVariables.set(\"operator_token\", answer.json().accessToken));",
];

/// The folders, and the requests in them in an order in which all succeed. What is not named here comes last.
const FOLDERS: [(&str, &[&str]); 5] = [
    ("auth", &["register", "login", "login_test", "refresh", "logout", "logout_all"]),
    (
        "orders",
        &[
            "create_order",
            "create_orders",
            "import_orders",
            "get_order",
            "list_orders",
            "export_orders",
            "patch_order",
            "put_order",
            "order_history",
            "delete_order",
        ],
    ),
    ("events", &["read_events", "create_event_ticket"]),
    ("tenants", &["create_tenant", "list_tenants", "get_tenant", "patch_tenant", "delete_tenant"]),
    ("health", &[]),
];

/// The collection for an OpenAPI document.
pub(crate) fn collection(document: &Value) -> Value {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        operations.extend(
            METHODS.iter().filter_map(|method| {
                Some(Operation { document, path, method, definition: item.get(method)? })
            }),
        );
    }
    let folders: Vec<Value> =
        FOLDERS.iter().map(|(tag, order)| folder(document, &operations, tag, order)).collect();
    let variables: Vec<Value> =
        VARIABLES.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    json!({
        "info": {
            "name": document["info"]["title"],
            "description": document["info"]["description"],
            "schema": SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{access_token}}", "type": "string"}]},
        "variable": variables,
        "item": folders,
    })
}

fn folder(document: &Value, operations: &[Operation<'_>], tag: &str, order: &[&str]) -> Value {
    let mut inside: Vec<&Operation<'_>> =
        operations.iter().filter(|operation| operation.definition["tags"][0] == tag).collect();
    inside.sort_by_key(|operation| {
        order.iter().position(|id| operation.definition["operationId"] == *id).unwrap_or(order.len())
    });
    let definition =
        document["tags"].as_array().into_iter().flatten().find(|definition| definition["name"] == tag);
    json!({
        "name": tag,
        "description": definition.map_or(&Value::Null, |definition| &definition["description"]),
        "item": inside.into_iter().map(Operation::item).collect::<Vec<Value>>(),
    })
}

/// One operation of the document.
struct Operation<'a> {
    document: &'a Value,
    path: &'a str,
    method: &'a str,
    definition: &'a Value,
}

impl Operation<'_> {
    fn item(&self) -> Value {
        let summary = self.definition["summary"].as_str().unwrap_or(self.path);
        let summary = summary.split_once(". ").map_or(summary, |(first, _)| first).trim_end_matches('.');
        let method = self.method.to_uppercase();
        let name = if matches!(self.method, "put" | "patch") {
            format!("{summary} ({method})")
        } else {
            summary.to_owned()
        };
        let mut request = json!({
            "method": method,
            "url": self.url(),
            "header": self.headers(),
            "description": self.definition["description"].as_str().unwrap_or_default(),
        });
        if let Some(body) = self.body() {
            request["body"] = json!({"mode": "raw", "raw": body, "options": {"raw": {"language": "json"}}});
        } else if let Some(file) = self.file().and_then(|content| content["example"].as_str()) {
            request["body"] = json!({"mode": "raw", "raw": file, "options": {"raw": {"language": "text"}}});
        }
        // An empty requirement: no token is needed.
        if self.definition["security"] == json!([{}]) {
            request["auth"] = json!({"type": "noauth"});
        } else if self.is_of_tenants() {
            let token = json!({"key": "token", "value": "{{operator_token}}", "type": "string"});
            request["auth"] = json!({"type": "bearer", "bearer": [token]});
        }
        let mut events = vec![script("test", &self.tests())];
        if self.definition["operationId"] == "create_tenant" {
            events.push(script("prerequest", &LOG_OPERATOR_IN.map(str::to_owned)));
        }
        if self.definition["operationId"] == "register" {
            let fresh =
                r#"pm.collectionVariables.set("email", pm.variables.replaceIn("{{$guid}}@example.com"));"#;
            events.push(script("prerequest", &[fresh.to_owned()]));
        }
        json!({"name": name, "request": request, "event": events, "response": []})
    }

    fn url(&self) -> Value {
        let id = if self.is_of_tenants() { "{{tenant_id}}" } else { "{{order_id}}" };
        let path = self.path.replace("{id}", id);
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let mut url =
            json!({"raw": format!("{{{{base_url}}}}{path}"), "host": ["{{base_url}}"], "path": parts});
        let query: Vec<Value> = self
            .parameters("query")
            .map(|parameter| {
                let value = match &parameter["schema"]["default"] {
                    Value::Null => String::new(),
                    default => default.to_string(),
                };
                entry(parameter, &value, true)
            })
            .collect();
        if !query.is_empty() {
            url["query"] = query.into();
        }
        url
    }

    fn is_of_tenants(&self) -> bool {
        self.definition["tags"][0] == "tenants"
    }

    fn headers(&self) -> Vec<Value> {
        let own = self.parameters("header").map(|parameter| match parameter["name"].as_str() {
            // Each click is a request of its own.
            Some("Idempotency-Key") => entry(parameter, "{{$guid}}", false),
            Some("X-Tenant-Id") => entry(parameter, "{{tenant_id}}", true),
            _ => entry(parameter, parameter["example"].as_str().unwrap_or("\"1\""), true),
        });
        let content_type = match (self.schema(), self.file()) {
            (Some(_), _) => Some("application/json"),
            (None, Some(_)) => Some(NDJSON),
            (None, None) => None,
        };
        let content_type = content_type.map(|value| json!({"key": "Content-Type", "value": value}));
        content_type.into_iter().chain(own).collect()
    }

    /// The body of an operation that takes a file.
    fn file(&self) -> Option<&Value> {
        self.definition["requestBody"]["content"].get(NDJSON)
    }

    fn parameters(&self, place: &str) -> impl Iterator<Item = &Value> {
        let all = self.definition["parameters"].as_array().into_iter().flatten();
        all.filter(move |parameter| parameter["in"] == place)
    }

    fn schema(&self) -> Option<&Value> {
        let schema = &self.definition["requestBody"]["content"]["application/json"]["schema"];
        self.document.pointer(schema["$ref"].as_str()?.trim_start_matches('#'))
    }

    /// The example, with variables if there are some of the same name.
    fn body(&self) -> Option<String> {
        let schema = self.schema()?;
        let mut body: Map<String, Value> = schema["example"].as_object().cloned().unwrap_or_default();
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            body.entry(name).or_insert(Value::Null);
        }
        // Each run creates another one.
        if self.definition["operationId"] == "create_tenant" {
            body.insert("slug".to_owned(), "{{$guid}}".into());
        }
        let mut numbers = Vec::new();
        for (name, value) in &mut body {
            if VARIABLES.iter().any(|(variable, _)| variable == name) {
                let place = format!("{{{{{name}}}}}");
                if value.is_number() {
                    numbers.push(place.clone());
                }
                *value = place.into();
            }
        }
        let text = serde_json::to_string_pretty(&body).ok()?;
        Some(numbers.iter().fold(text, |text, place| text.replace(&format!("\"{place}\""), place)))
    }

    /// The checks of the response, and which of its members are kept.
    fn tests(&self) -> Vec<String> {
        let responses = self.definition["responses"].as_object().into_iter().flatten();
        let good: Vec<&str> =
            responses.map(|(status, _)| status.as_str()).filter(|status| status.starts_with('2')).collect();
        let mut lines = vec![format!(
            "pm.test(\"it succeeds\", () => pm.expect(pm.response.code).to.be.oneOf([{}]));",
            good.join(", ")
        )];
        let returned = good.first().map_or(&Value::Null, |status| {
            &self.definition["responses"][*status]["content"]["application/json"]["schema"]["$ref"]
        });
        let kept: &[(&str, &str)] = match returned.as_str() {
            Some("#/components/schemas/TokenPair") => {
                &[("access_token", "accessToken"), ("refresh_token", "refreshToken")]
            }
            Some("#/components/schemas/Order") if self.method == "post" => &[("order_id", "id")],
            Some("#/components/schemas/Tenant") if self.method == "post" => &[("tenant_id", "id")],
            _ => &[],
        };
        if !kept.is_empty() {
            lines.push(format!("if (pm.response.code === {}) {{", good.join(", ")));
            lines.push("    const answer = pm.response.json();".to_owned());
            for (variable, member) in kept {
                lines.push(format!(
                    "    pm.collectionVariables.set(\"{variable}\", String(answer.{member}));"
                ));
            }
            lines.push("}".to_owned());
        }
        lines
    }
}

/// A header or a parameter of the query.
fn entry(parameter: &Value, value: &str, disabled: bool) -> Value {
    let description = parameter["description"].as_str().unwrap_or_default();
    json!({"key": parameter["name"], "value": value, "description": description, "disabled": disabled})
}

fn script(listen: &str, lines: &[String]) -> Value {
    json!({"listen": listen, "script": {"type": "text/javascript", "exec": lines}})
}
