//! gRPC inside HTTP bodies: where messages begin and end, and the form that browsers speak (gRPC-Web).
//!
//! Bytes in, bytes out; which headers go with them is the connection manager's affair.

mod base64;
mod frames;
mod web;

pub use self::frames::Frames;
pub use self::web::{BadBase64, ContentType, RequestBody, ResponseBody};
