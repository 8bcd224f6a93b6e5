//! Role-based access control.

use crate::def::group;

group! {
    /// `http.PREFIX.rbac.` and the prefix of the rules; of connections `PREFIX.rbac.`.
    Rbac "rbac" {
        counters {
            ALLOWED "allowed",
            DENIED "denied",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}

group! {
    /// The same with the prefix of the shadow rules.
    RbacShadow "rbac shadow" {
        counters {
            SHADOW_ALLOWED "shadow_allowed",
            SHADOW_DENIED "shadow_denied",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}

group! {
    /// `policy.NAME.` below those.
    RbacPolicy "rbac policy" {
        counters {
            POLICY_ALLOWED? "allowed",
            POLICY_DENIED? "denied",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}

group! {
    /// `policy.NAME.` below those, of shadow rules.
    RbacShadowPolicy "rbac shadow policy" {
        counters {
            POLICY_SHADOW_ALLOWED? "shadow_allowed",
            POLICY_SHADOW_DENIED? "shadow_denied",
        }
        gauges {}
        histograms {}
        codes {}
        texts {}
    }
}
