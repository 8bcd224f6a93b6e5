//! The local rate limit of requests, compiled, with the bucket that its requests share.

use std::sync::Arc;

use tidegate_model::local_ratelimit::{LocalRateLimit, NetworkLocalRateLimit};

use crate::error::CompileError;
use crate::headers::HeaderOps;
use crate::token_bucket::TokenBucket;

/// `LocalRateLimit` of a filter or of a route; each has its own bucket.
#[derive(Debug)]
pub struct CompiledLocalRateLimit {
    pub config: Arc<LocalRateLimit>,
    pub bucket: Option<TokenBucket>,
    pub request_headers: HeaderOps,
    pub response_headers: HeaderOps,
}

impl CompiledLocalRateLimit {
    pub fn compile(config: &Arc<LocalRateLimit>) -> Result<Self, CompileError> {
        Ok(Self {
            bucket: config.token_bucket.as_ref().map(TokenBucket::new),
            request_headers: HeaderOps::compile(
                &config.request_headers_to_add_when_not_enforced,
                &[],
            )
            .map_err(|e| e.within("request_headers_to_add_when_not_enforced"))?,
            response_headers: HeaderOps::compile(&config.response_headers_to_add, &[])
                .map_err(|e| e.within("response_headers_to_add"))?,
            config: Arc::clone(config),
        })
    }
}

/// The network filter.
#[derive(Debug)]
pub struct CompiledNetworkRateLimit {
    pub config: Arc<NetworkLocalRateLimit>,
    pub bucket: TokenBucket,
}

impl CompiledNetworkRateLimit {
    pub fn new(config: &Arc<NetworkLocalRateLimit>) -> Self {
        Self {
            bucket: TokenBucket::new(&config.token_bucket),
            config: Arc::clone(config),
        }
    }
}
