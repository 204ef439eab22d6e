//! What the fuzz targets reach of the orders' parsers.

use time::Date;

use super::{create, list::Wanted, page_cursor, update};
use crate::{
    auth::Caller,
    db::{Filter, Position, Start},
    http::error::ApiError,
};

/// The body of `POST /api/v1/orders` as it is understood, in JSON.
pub fn create(body: &[u8], caller: Caller, latest: Date) -> Result<String, ApiError> {
    if let Some(command) = create::Command::at_once(body, caller, latest) {
        assert_eq!(
            command,
            create::Command::carefully(body, caller, latest)?,
            "there is one way to understand a body"
        );
    }
    let command = create::Command::parse(body, caller, latest)?;
    serde_json::to_string(&command).map_err(ApiError::internal)
}

/// The body of `PUT` and `PATCH /api/v1/orders/{id}` as it is understood, in JSON.
pub fn update(body: &[u8], latest: Date) -> Result<String, ApiError> {
    serde_json::to_string(&update::parse(body, latest)?).map_err(ApiError::internal)
}

/// The query of `GET /api/v1/orders` as it is understood: which orders, from where, how many.
pub fn list(query: Option<&str>, caller: Caller) -> Result<(Filter, Start, i64), ApiError> {
    let wanted = Wanted::parse(query, caller)?;
    let start = wanted.start();
    Ok((wanted.filter, start, wanted.size))
}

/// A position as the text that a client gets.
pub fn write_cursor(position: Position) -> String {
    page_cursor::write(position)
}
