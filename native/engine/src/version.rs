//! The program's version, in the shape of Envoy's.

/// What the node says of the build.
pub(crate) fn metadata() -> [(&'static str, &'static str); 3] {
    [
        ("revision.sha", COMMIT),
        ("revision.status", STATUS),
        ("build.type", BUILD),
    ]
}

const COMMIT: &str = match option_env!("TIDEGATE_COMMIT") {
    Some(commit) => commit,
    None => "dev",
};

const STATUS: &str = match option_env!("TIDEGATE_COMMIT_STATUS") {
    Some(status) => status,
    None => "Clean",
};

const BUILD: &str = if cfg!(debug_assertions) {
    "DEBUG"
} else {
    "RELEASE"
};

/// `<commit or "dev">/<package version>/<Clean|Modified>/<RELEASE|DEBUG>/tidegate`.
pub fn version() -> String {
    format!("{COMMIT}/{PACKAGE}/{STATUS}/{BUILD}/tidegate")
}

/// The package version alone.
pub(crate) const PACKAGE: &str = env!("CARGO_PKG_VERSION");

/// Hot restart's protocol generation: none of Envoy's.
pub(crate) const HOT_RESTART: &str = "disabled";
