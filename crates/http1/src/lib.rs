//! Strict HTTP/1.1 framing without I/O.
//!
//! A connection's bytes go through [`Scanner`] until it has found the end of a head, the head through [`request()`]
//! or [`response()`], and what follows it through a [`Decoder`]; [`mod@write`] makes the bytes of the next hop. Nothing is handed on as it
//! came: the target is canonical, framing is written anew, hop-by-hop fields are gone.
//!
//! Whatever two implementations might read differently is refused with a [`Reject`], also where RFC 9112 lets a server be lenient;
//! each of them names its section. After a refusal the connection cannot be used any more, because where the next message starts
//! is anybody's guess.
#![forbid(unsafe_code)]

pub mod body;
pub mod framing;
mod head;
mod limits;
pub mod reject;
pub mod request;
pub mod response;
pub mod scan;
mod target;
mod trailers;
pub mod websocket;
pub mod write;

pub use body::{Decoder, Step};
pub use framing::Framing;
pub use limits::Limits;
pub use reject::Reject;
pub use request::{Request, request};
pub use response::{Asked, Response, response};
pub use scan::Scanner;
