//! `/certs`: there is no TLS, so there are none.

use serde_json::json;

use super::{Asked, Page};
use crate::engine::Core;

pub(super) fn page(_: &Core, _: &Asked) -> Page {
    Page::json(&json!({ "certificates": [] }))
}
