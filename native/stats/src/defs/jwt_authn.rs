//! Authentication by JSON Web Tokens.

use crate::def::group;

group! {
    /// `http.PREFIX.jwt_authn.[STAT_PREFIX.]`
    JwtAuthn "jwt_authn" {
        counters {
            ALLOWED "allowed",
            CORS_PREFLIGHT_BYPASSED "cors_preflight_bypassed",
            DENIED "denied",
            JWKS_FETCH_FAILED "jwks_fetch_failed",
            JWKS_FETCH_SUCCESS "jwks_fetch_success",
            JWT_CACHE_HIT "jwt_cache_hit",
            JWT_CACHE_MISS "jwt_cache_miss",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
