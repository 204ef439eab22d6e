//! Clients of the event feed that others wrote: npm's `eventsource`, `PyPI`'s `httpx-sse`, the consumer in docs/EVENTS.md, and nginx
//! in front.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use testbed::{Program, Proxy, eventually, install::NGINX};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    feed_support::{EVENTS, Stream},
    support::{Session, TestApp},
};

/// The events that a client must follow while its connection is cut.
const COUNT: i64 = 300;

async fn environment() -> PathBuf {
    let requirements = testbed::paths::workspace().join("api/tests/feed_clients/requirements.txt");
    let instead = "run `cargo xtask test --without-python`";
    let environment = testbed::python::environment("Clients of events", &requirements, instead).await;
    environment.unwrap_or_else(|error| panic!("{error:#}"))
}

fn start_client(program: &Path, arguments: &[&str], folder: &Path, url: &str, session: &Session) -> Child {
    let path = testbed::setting("PATH").unwrap_or_default();
    let programs = program.parent().unwrap_or(program).display().to_string();
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("PATH", format!("{programs}:{path}"))
        .env("API_URL", url)
        .env("API_TOKEN", &session.access)
        .env("COUNT", COUNT.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Runs a client behind a proxy that cuts its connection, and asserts that it printed the log.
async fn follow(program: &Path, arguments: &[&str], folder: &Path) {
    let app = TestApp::start().await;
    let admin = app.login_admin(1).await;
    let proxy = Proxy::start(app.app.addr.to_string()).await;
    let client = start_client(program, arguments, folder, &format!("http://{}", proxy.addr()), &admin);
    let mut written = 0;
    for _ in 0..3 {
        eventually("the client follows", async || app.app.state.feed.open_streams() == 1).await;
        for _ in 0..10 {
            app.append(1, written + 1..=written + 10).await;
            written += 10;
            app.sequenced().await;
        }
        proxy.cut();
    }
    let output = tokio::time::timeout(Duration::from_mins(1), client.wait_with_output()).await;
    let output = output.expect("it ends").expect("its output");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}: {printed}", output.status);
    let log: Vec<String> = app.log().await.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), log);
}

#[tokio::test]
async fn npms_eventsource_follows_through_cuts() {
    let environment = environment().await;
    let sources = testbed::paths::workspace().join("api/tests/feed_clients");
    let folder = environment.join("npm");
    fs::create_dir_all(&folder).expect("a folder");
    for file in ["package.json", "package-lock.json", "follow.mjs"] {
        fs::copy(sources.join(file), folder.join(file)).expect("a copy");
    }
    let programs = environment.join("bin");
    let path = format!("{}:{}", programs.display(), testbed::setting("PATH").unwrap_or_default());
    let installed = Command::new(programs.join("npm"))
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .env("PATH", path)
        .output()
        .await
        .expect("npm runs");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    follow(&programs.join("node"), &["follow.mjs"], &folder).await;
}

#[tokio::test]
async fn httpx_sse_follows_through_cuts() {
    let environment = environment().await;
    let sources = testbed::paths::workspace().join("api/tests/feed_clients");
    follow(&environment.join("bin/python"), &["follow.py"], &sources).await;
}

#[tokio::test]
async fn the_consumer_in_the_documentation_keeps_a_copy_of_all_orders() {
    let environment = environment().await;
    let document =
        fs::read_to_string(testbed::paths::workspace().join("docs/EVENTS.md")).expect("the document");
    let program =
        document.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let app = TestApp::start().await;
    let (alice, admin) = (app.login(1).await, app.login_admin(2).await);
    let mut consumer =
        start_client(&environment.join("bin/python"), &["-c", program], &environment, &app.url(""), &admin);
    let mut lines = BufReader::new(consumer.stdout.take().expect("its output")).lines();
    let order = crate::orders_support::order();
    let (first, second) = (alice.place(&order).await, alice.place(&order).await);
    let path = crate::orders_support::path;
    alice
        .patch(&path(first), &serde_json::json!({"status": "SHIPPED"}))
        .await
        .expect(reqwest::StatusCode::OK);
    alice.delete(&path(second)).await.expect(reqwest::StatusCode::NO_CONTENT);
    let copy = serde_json::json!({ first.to_string(): alice.get(&path(first)).await.json });
    let mut seen = String::new();
    let is_a_copy = async {
        while let Some(line) = lines.next_line().await.expect("a line") {
            seen = line;
            let printed: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
            if printed == copy {
                return true;
            }
        }
        false
    };
    let is_a_copy = tokio::time::timeout(Duration::from_secs(30), is_a_copy).await;
    assert_eq!(is_a_copy, Ok(true), "{seen} is not {copy}");
}

#[tokio::test]
async fn events_pass_through_nginx_with_default_buffering_at_once() {
    let nginx = NGINX.binary().await.unwrap_or_else(|error| panic!("{error:#}"));
    let app = TestApp::start().await;
    let (alice, admin) = (app.login(1).await, app.login_admin(2).await);
    let folder = testbed::paths::temporary("nginx").expect("a folder");
    let port = testbed::free_port();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};"));
    let settings = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr;\nevents {{}}\nhttp {{\n access_log off;\n {}\n \
         server {{\n  listen 127.0.0.1:{port};\n  location / {{ proxy_pass http://{}; }}\n }}\n}}\n",
        temporary.join(" "),
        app.app.addr
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, settings).expect("the settings");
    let prefix = format!("{}/", folder.display());
    let mut server = Program::at(&nginx, &folder.join("log"), &folder)
        .arg("-p")
        .arg(&prefix)
        .arg("-c")
        .arg(&file.display().to_string())
        .spawn();
    let base = format!("http://127.0.0.1:{port}");
    server.wait_ready(&format!("{base}/health/live").replace("/health", "/api/v1/health")).await;

    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.get(format!("{base}{EVENTS}")).bearer_auth(&admin.access);
    let mut stream = Stream::open(request.header("accept", "text/event-stream")).await;
    stream.next().await;
    for _ in 0..3 {
        let begun = Instant::now();
        let id = alice.place(&crate::orders_support::order()).await;
        assert_eq!(stream.orders(1).await, [id]);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    drop(stream);
    eventually("the API notices that the client has gone", async || app.app.state.feed.open_streams() == 0)
        .await;
    server.kill();
    let _best_effort = fs::remove_dir_all(&folder);
}
