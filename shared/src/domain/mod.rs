//! The order, its events, and the clock: values and their JSON.
//! No input or output lives here, and no rule of HTTP, SQL or a broker.

pub mod clock;
pub mod encoded;
pub mod event;
pub mod order;
pub mod tenant;
pub mod timestamp;
