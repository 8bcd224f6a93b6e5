//! The two facts about the process that format strings may name. Read while configuration is compiled, never for a request.

use tidegate_model::Name;

/// The host's name, for `%HOSTNAME%`.
pub(crate) fn hostname() -> Option<Name> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| Name::from(name.trim_end()))
}

/// An environment variable, for `%ENVIRONMENT(NAME)%`.
pub(crate) fn environment(name: &str) -> Option<Name> {
    std::env::var(name).ok().map(Name::from)
}
