//! What happens to a request or response on its way, beside choosing where it goes. The order is in `pipeline`.

pub mod forwarded;
pub mod json_body;
pub mod jwt;
