//! The program's version, in the shape of Envoy's.

/// `<commit or "dev">/<package version>/<Clean|Modified>/<RELEASE|DEBUG>/tidegate`.
pub fn version() -> String {
    let build = if cfg!(debug_assertions) {
        "DEBUG"
    } else {
        "RELEASE"
    };
    let commit = option_env!("TIDEGATE_COMMIT").unwrap_or("dev");
    let status = option_env!("TIDEGATE_COMMIT_STATUS").unwrap_or("Clean");
    format!("{commit}/{PACKAGE}/{status}/{build}/tidegate")
}

/// The package version alone.
pub(crate) const PACKAGE: &str = env!("CARGO_PKG_VERSION");

/// Hot restart's protocol generation: none of Envoy's.
pub(crate) const HOT_RESTART: &str = "disabled";
