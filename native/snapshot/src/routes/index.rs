//! Finding the first matching route among many without trying them all.

use std::sync::Arc;

use super::action::CompiledRoute;
use crate::request::RequestView;
use crate::runtime::Runtime;

#[derive(Debug)]
pub(super) struct RouteIndex;

impl RouteIndex {
    /// `None`: few enough to try one after the other.
    pub(super) fn compile(_routes: &[Arc<CompiledRoute>]) -> Option<Self> {
        None
    }

    pub(super) fn find<'r>(
        &self,
        routes: &'r [Arc<CompiledRoute>],
        request: &impl RequestView,
        random: u64,
        runtime: &Runtime,
    ) -> Option<&'r Arc<CompiledRoute>> {
        routes.iter().find(|r| r.matches(request, random, runtime))
    }
}
