//! What `cargo xtask bench` runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

/// The cheapest case stands for all: servers, programs, table and reports are the same for each.
#[test]
fn a_quick_bench_of_the_start_prints_its_table_and_writes_both_reports() {
    let folder = testbed::paths::temporary("bench-report").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["bench", "start", "--quick", "--report"])
        .arg(&folder)
        .output()
        .unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}{errors}");
    assert!(printed.contains("| start "), "{printed}");

    let report: Value = serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap();
    let [row] = report.as_array().unwrap().as_slice() else { panic!("one row was expected: {report}") };
    let mut names: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["case", "met", "ratio", "reference", "spread", "target", "unit", "value"]);
    assert_eq!((&row["case"], &row["unit"], &row["ratio"]), (&"start".into(), &"s".into(), &Value::Null));
    assert!(row["value"].as_f64().unwrap() > 0.0, "{row}");

    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("id=\"start\""), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "the page must need nothing else");
    fs::remove_dir_all(folder).unwrap();
}

/// The load generator is broken, so `memory` fails after its programs have started; `start` does not need it.
#[test]
fn a_case_that_fails_costs_the_other_cases_nothing_and_is_reported_with_its_reason() {
    let folder = testbed::paths::temporary("bench-report").unwrap();
    let wrk = folder.join("wrk");
    fs::write(&wrk, "#!/bin/sh\necho out of order >&2\nexit 7\n").unwrap();
    fs::set_permissions(&wrk, fs::Permissions::from_mode(0o755)).unwrap();
    let path = testbed::setting("PATH").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["bench", "start", "memory", "--quick", "--report"])
        .arg(&folder)
        .env("PATH", format!("{}:{path}", folder.display()))
        .output()
        .unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{printed}{errors}");
    assert!(errors.ends_with("error: these cases could not be measured: memory\n"), "{errors}");
    let row = printed.lines().find(|line| line.starts_with("| memory ")).expect("memory is in the table");
    assert!(row.contains("| failed ") && row.ends_with("| no  |"), "{row}");
    assert!(printed.contains("\nmemory failed: wrk failed: out of order\n"), "{printed}");
    assert!(printed.lines().any(|line| line.starts_with("| start ") && line.contains(" s ")), "{printed}");

    let report: Value = serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap();
    let [memory, start] = report.as_array().unwrap().as_slice() else { panic!("two rows: {report}") };
    assert_eq!(
        (&memory["case"], &memory["value"], &memory["met"]),
        (&"memory".into(), &Value::Null, &false.into())
    );
    assert_eq!(memory["error"], "wrk failed: out of order");
    assert!(start["value"].as_f64().unwrap() > 0.0, "{start}");
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("It could not be measured: wrk failed: out of order"), "{page}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_case_that_is_not_known_is_refused_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(["bench", "creat"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("create"));
}
