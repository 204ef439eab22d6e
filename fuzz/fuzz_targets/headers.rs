//! The headers that are parsed here: preconditions, keys, addresses, traces and ids of requests.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use api::{
    http::{
        error::{ApiError, Code},
        layer::{X_REQUEST_ID, fuzzing},
        orders::{
            conditional::parse_preconditions,
            idempotency::{IDEMPOTENCY_KEY, parse_key},
        },
    },
    orders::preconditions::{Preconditions, etag},
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use fuzz::{check_problem, choice};
use libfuzzer_sys::fuzz_target;
use shared::platform::telemetry::TraceParent;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = choice(data) else { return };
    // A line break separates two lines of one header.
    let lines: Option<Vec<HeaderValue>> =
        text.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let Some(lines) = lines else { return };
    match choice % 6 {
        0 => if_match(&lines),
        1 => if_none_match(&lines),
        2 => idempotency_key(&lines),
        3 => forwarded_for(&lines, usize::from(choice / 6)),
        4 => traceparent(&lines),
        _ => request_id(&lines),
    }
});

fn with(name: &HeaderName, lines: &[HeaderValue]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name, line.clone());
    }
    headers
}

fn joined(lines: &[HeaderValue]) -> HeaderValue {
    let lines: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&lines.join(&b", "[..])).expect("lines of a header make a line")
}

/// The preconditions, or `None` if they are malformed. Several lines are the same as one with commas.
fn preconditions(name: &HeaderName, lines: &[HeaderValue]) -> Option<Preconditions> {
    let read = parse_preconditions(&with(name, lines));
    let as_one = parse_preconditions(&with(name, &[joined(lines)]));
    assert_eq!(read.as_ref().ok(), as_one.as_ref().ok());
    read.inspect_err(malformed).ok()
}

fn malformed(error: &ApiError) {
    check_problem(error, &[Code::MalformedRequest]);
}

/// The same list with one more tag, unless it is `*`.
fn extended(lines: &[HeaderValue], tag: &str) -> Option<Vec<HeaderValue>> {
    let any = lines.iter().any(|line| line.as_bytes().trim_ascii() == b"*");
    let tag = HeaderValue::from_str(tag).expect("a tag");
    (!any).then(|| [lines, &[tag]].concat())
}

fn if_match(lines: &[HeaderValue]) {
    let Some(read) = preconditions(&header::IF_MATCH, lines) else { return };
    assert!(!read.not_modified("7"));
    assert_eq!(read.allow_change_of(7), read.allow_read_of(7));
    let Some(more) = extended(lines, &etag(7)) else { return assert!(read.allow_change_of(7)) };
    let more = preconditions(&header::IF_MATCH, &more).expect("one more tag keeps it well-formed");
    assert!(more.allow_change_of(7));
    assert_eq!(more.allow_change_of(8), read.allow_change_of(8), "no other version is touched");
    let weak = extended(lines, "W/\"7\"").expect("no `*`");
    let weak = preconditions(&header::IF_MATCH, &weak).expect("well-formed");
    assert_eq!(weak.allow_change_of(7), read.allow_change_of(7), "a weak tag never matches strongly");
}

fn if_none_match(lines: &[HeaderValue]) {
    let Some(read) = preconditions(&header::IF_NONE_MATCH, lines) else { return };
    assert!(read.allow_read_of(7));
    assert_eq!(read.allow_change_of(7), !read.not_modified("7"));
    for tag in [etag(7), format!("W/{}", etag(7))] {
        let Some(more) = extended(lines, &tag) else { return assert!(read.not_modified("7")) };
        let more = preconditions(&header::IF_NONE_MATCH, &more).expect("well-formed");
        assert!(more.not_modified("7"));
        assert_eq!(more.not_modified("8"), read.not_modified("8"));
    }
}

fn idempotency_key(lines: &[HeaderValue]) {
    match parse_key(&with(&IDEMPOTENCY_KEY, lines)) {
        Ok(key) => {
            let key = key.expect("a line is there");
            assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            let quoted = HeaderValue::try_from(quoted).expect("visible characters");
            assert_eq!(parse_key(&with(&IDEMPOTENCY_KEY, &[quoted])).expect("well-formed"), Some(key));
        }
        Err(error) => malformed(&error),
    }
}

fn forwarded_for(lines: &[HeaderValue], proxies: usize) {
    let name = HeaderName::from_static("x-forwarded-for");
    let headers = with(&name, lines);
    assert_eq!(fuzzing::client_address(PEER, &headers, 0), PEER);
    let client = fuzzing::client_address(PEER, &headers, proxies);
    assert_eq!(client, client.to_canonical());
    // What a client puts in front of what the proxies wrote changes nothing.
    let entries = lines.iter().map(|line| line.as_bytes().split(|byte| *byte == b',').count()).sum::<usize>();
    let text = lines.iter().all(|line| line.to_str().is_ok());
    if text && proxies <= entries {
        let forged = [&[HeaderValue::from_static("6.6.6.6, 7.7.7.7")], lines].concat();
        assert_eq!(fuzzing::client_address(PEER, &with(&name, &forged), proxies), client);
    }
    // One more proxy, which appends whom it was called by.
    let longer = [lines, &[HeaderValue::from_static("192.0.2.7:443")]].concat();
    assert_eq!(fuzzing::client_address(PEER, &with(&name, &longer), 1), IpAddr::from([192, 0, 2, 7]));
}

fn traceparent(lines: &[HeaderValue]) {
    let headers = with(&HeaderName::from_static("traceparent"), lines);
    let Some(trace) = fuzzing::incoming_trace(&headers) else { return };
    assert!(trace.trace_id() != 0 && trace.span_id() != 0);
    let text = trace.to_string();
    assert_eq!(text.parse::<TraceParent>(), Ok(trace));
    // Versions to come are continued as ours.
    let sent = lines[0].to_str().expect("read as text");
    assert_eq!(text[2..], sent[2..text.len()]);
    let child = trace.child();
    assert_eq!((child.trace_id(), child.sampled()), (trace.trace_id(), trace.sampled()));
}

fn request_id(lines: &[HeaderValue]) {
    let id = fuzzing::request_id(&with(&X_REQUEST_ID, lines));
    assert!((1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic), "{id:?}");
    // What was made or taken over once is taken over as it is.
    assert_eq!(fuzzing::request_id(&with(&X_REQUEST_ID, std::slice::from_ref(&id))), id);
}
