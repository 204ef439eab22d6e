//! The query of the list, with its cursor: a query that is accepted means the same when it is written out again. And the query
//! of the event feed.

#![no_main]

use api::{
    auth::Role,
    db::{MAX_TOTAL, OrderFilter, PageStart, count_query, page_query},
    http::{
        error::Code,
        events,
        orders::{fuzzing, page_cursor::decode_cursor},
    },
};
use axum::http::Uri;
use fuzz::{caller, check_problem, choice};
use libfuzzer_sys::fuzz_target;
use shared::domain::{order::OrderId, timestamp};

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = choice(data) else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let caller = caller(choice);
    if let Some(position) = decode_cursor(text, caller.tenant) {
        assert_eq!(fuzzing::write_cursor(position, caller.tenant), text, "one position, one text");
    }
    // As it comes in, or decoded more freely than any URI is.
    let uri: Option<Uri> = format!("/api/v1/orders?{text}").parse().ok();
    let query = uri.as_ref().map_or(Some(text), Uri::query);
    check_feed(query, choice & 2 == 0);
    match fuzzing::list(query, caller) {
        Ok((filter, start, size)) => {
            assert!((1..=100).contains(&size));
            assert!(!matches!(start, PageStart::Offset(offset) if !(0..=MAX_TOTAL).contains(&offset)));
            assert_eq!(filter.tenant, caller.tenant);
            if caller.role == Role::Customer {
                assert_eq!(filter.customer, Some(caller.customer_id), "a customer sees only its own");
            }
            // The same number of places as of values, whatever the combination.
            check_places(page_query(&filter, start, size).sql().as_str());
            check_places(count_query(&filter).sql().as_str());
            let written = written(&filter, start, size);
            let again = fuzzing::list(Some(&written), caller).expect("what was written out is understood");
            assert_eq!(again, (filter, start, size), "{written}");
        }
        Err(error) => {
            for (pointer, _) in check_problem(&error, &[Code::ValidationFailed, Code::Forbidden]) {
                assert!(pointer.starts_with('?'), "{pointer:?}");
            }
        }
    }
});

fn check_feed(query: Option<&str>, for_stream: bool) {
    match events::fuzzing::events(query, for_stream) {
        Ok((types, order, limit, wait)) => {
            assert!((1..=1000).contains(&limit) && wait <= 30);
            let mut written = String::new();
            if !for_stream {
                written = format!("limit={limit}&wait={wait}");
            }
            if !types.is_empty() {
                let types: Vec<&str> = types.iter().map(|kind| kind.as_str()).collect();
                written.push_str(&format!("&types={}", types.join(",")));
            }
            if let Some(order) = order {
                written.push_str(&format!("&order_id={order}"));
            }
            let again = events::fuzzing::events(Some(&written), for_stream)
                .expect("what was written out is understood");
            assert_eq!(again, (types, order, limit, wait), "{written}");
        }
        Err(error) => {
            for (pointer, _) in check_problem(&error, &[Code::ValidationFailed]) {
                assert!(pointer.starts_with('?'), "{pointer:?}");
            }
        }
    }
}

fn check_places(sql: &str) {
    let places = sql.matches('$').count();
    assert!((1..=places).all(|place| sql.contains(&format!("${place}"))), "{sql}");
    assert!(!sql.contains('\''), "no value stands in the text: {sql}");
}

fn written(filter: &OrderFilter, start: PageStart, size: i64) -> String {
    let mut query = format!("size={size}");
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={value}"));
        }
    };
    match start {
        PageStart::Offset(offset) => {
            add("page", (offset % size == 0).then(|| (offset / size + 1).to_string()))
        }
        PageStart::After(position) => add("cursor", Some(fuzzing::write_cursor(position, filter.tenant))),
    }
    add("customer_id", filter.customer.map(|id| id.to_string()));
    let ids = |ids: &Vec<OrderId>| ids.iter().map(OrderId::to_string).collect::<Vec<_>>().join(",");
    add("ids", filter.ids.as_ref().map(ids));
    let escaped = |text: &String| text.bytes().map(|byte| format!("%{byte:02x}")).collect();
    add("reference", filter.reference.as_ref().map(escaped));
    add("status", filter.status.map(|status| status.as_str().to_owned()));
    add("product_id", filter.product.map(|id| id.to_string()));
    add("order_date_from", filter.date_from.map(timestamp::format_date));
    add("order_date_to", filter.date_to.map(timestamp::format_date));
    add("min_total", filter.min_total.map(|amount| amount.to_string()));
    add("max_total", filter.max_total.map(|amount| amount.to_string()));
    query
}
