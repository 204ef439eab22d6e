//! Reading what `write` writes.

use super::super::{Money, Order, OrderLine};
use crate::domain::{cursor::Cursor, timestamp};

/// Reads what [`Order::to_json`] wrote.
pub(crate) fn order(json: &mut Cursor<'_>) -> Option<Order> {
    json.skip(r#"{"id":"#)?;
    let id = json.number()?.try_into().ok()?;
    json.skip(r#","customer_id":"#)?;
    let customer_id = json.number()?.try_into().ok()?;
    json.skip(r#","order_date":"#)?;
    let order_date = timestamp::parse_date(json.text()?)?;
    json.skip(r#","status":"#)?;
    let status = json.text()?.parse().ok()?;
    json.skip(r#","total_amount":"#)?;
    let total_amount = amount(json)?;
    json.skip(r#","version":"#)?;
    let version = json.number()?;
    json.skip(r#","created_at":"#)?;
    let created_at = timestamp::parse(json.text()?)?;
    json.skip(r#","updated_at":"#)?;
    let updated_at = timestamp::parse(json.text()?)?;
    json.skip(r#","lines":"#)?;
    let lines = lines(json)?;
    json.skip("}")?;
    Some(Order { id, customer_id, order_date, status, total_amount, version, created_at, updated_at, lines })
}

/// Goes beyond what [`Order::changes`] wrote, whatever the fields are called.
pub(crate) fn changes(json: &mut Cursor<'_>) -> Option<()> {
    json.skip("{")?;
    if json.skip("}").is_some() {
        return Some(());
    }
    loop {
        json.text()?;
        json.skip(r#":{"from":"#)?;
        value(json)?;
        json.skip(r#","to":"#)?;
        value(json)?;
        json.skip("}")?;
        if json.skip("}").is_some() {
            return Some(());
        }
        json.skip(",")?;
    }
}

/// A value of any of an order's fields, or none.
fn value(json: &mut Cursor<'_>) -> Option<()> {
    match json.rest().bytes().next()? {
        b'n' => json.skip("null"),
        b'"' => json.text().map(drop),
        b'[' => lines(json).map(drop),
        _ => json.number().map(drop),
    }
}

fn lines(json: &mut Cursor<'_>) -> Option<Vec<OrderLine>> {
    json.skip("[")?;
    let mut lines = Vec::new();
    if json.skip("]").is_some() {
        return Some(lines);
    }
    loop {
        json.skip(r#"{"id":"#)?;
        let id = json.number()?.try_into().ok()?;
        json.skip(r#","product_id":"#)?;
        let product_id = json.number()?.try_into().ok()?;
        json.skip(r#","quantity":"#)?;
        let quantity = json.number()?.try_into().ok()?;
        json.skip(r#","unit_price":"#)?;
        let unit_price = amount(json)?;
        json.skip("}")?;
        lines.push(OrderLine { id, product_id, quantity, unit_price });
        if json.skip("]").is_some() {
            return Some(lines);
        }
        json.skip(",")?;
    }
}

fn amount(json: &mut Cursor<'_>) -> Option<Money> {
    json.text()?.parse().ok()
}
