//! The header mutation filter, on the way in and on the way out.

use std::rc::Rc;

use tidegate_snapshot::HeaderScratch;
use tidegate_snapshot::header_mutation::{CompiledHeaderMutation, CompiledMutations};
use tidegate_snapshot::per_filter::CompiledPolicy;

use super::ServerConnection;
use super::filters::Verdict;
use super::log::{RequestSide, ResponseSide};
use super::runtime::HcmRuntime;
use super::stream::{Stream, StreamRoute};
use crate::worker::Core;

/// The filter's own changes, then those of the route's levels.
fn each(
    hcm: &HcmRuntime,
    route: Option<&StreamRoute>,
    index: usize,
    mut apply: impl FnMut(&CompiledMutations),
) {
    let Some(filter) = hcm.filter(index) else {
        return;
    };
    let Some(CompiledHeaderMutation {
        mutations,
        most_specific_wins,
    }) = &filter.header_mutation
    else {
        return;
    };
    apply(mutations);
    let Some(levels) = route.map(StreamRoute::per_filter) else {
        return;
    };
    let mut of_level = |policy: &CompiledPolicy| {
        if let CompiledPolicy::HeaderMutation(mutations) = policy {
            apply(mutations);
        }
    };
    let policies = levels.policies(&filter.config.name);
    if *most_specific_wins {
        policies.rev().for_each(&mut of_level);
    } else {
        policies.for_each(&mut of_level);
    }
}

impl ServerConnection {
    /// The request side.
    pub(super) fn header_mutation(
        &self,
        stream: &mut Stream,
        core: &Core,
        index: usize,
    ) -> Verdict {
        let (hcm, route) = (Rc::clone(self.manager_of(stream)), stream.route.clone());
        let mut scratch = HeaderScratch::default();
        each(&hcm, route.as_ref(), index, |mutations| {
            let mut side = RequestSide::new(self, stream, &core.clock);
            mutations.apply_request(&mut side, &mut scratch);
            if mutations.changes_query() {
                let path = side.path().to_vec();
                let path = mutations.apply_query(&path, &side);
                stream.request.path = stream.request.headers.keep(&path);
            }
        });
        Verdict::Continue
    }

    /// The response side.
    pub(super) fn mutate_response_headers(&self, stream: &mut Stream, core: &Core, index: usize) {
        let (hcm, route) = (Rc::clone(self.manager_of(stream)), stream.route.clone());
        let mut scratch = HeaderScratch::default();
        each(&hcm, route.as_ref(), index, |mutations| {
            if mutations.changes_response() {
                let mut side = ResponseSide::new(self, stream, &core.clock);
                mutations.apply_response(&mut side, &mut scratch);
            }
        });
    }
}
