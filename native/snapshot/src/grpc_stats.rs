//! The gRPC statistics filter: under which name a call is counted.

use rustc_hash::{FxHashMap, FxHashSet};
use tidegate_model::Name;
use tidegate_model::hcm::{GrpcStats, GrpcStatsMethods};

/// `extensions.filters.http.grpc_stats.v3.FilterConfig`, compiled.
#[derive(Debug)]
pub struct CompiledGrpcStats {
    pub emit_filter_state: bool,
    pub enable_upstream_stats: bool,
    methods: Methods,
}

#[derive(Debug)]
enum Methods {
    Together,
    All {
        replace_dots: bool,
    },
    /// By service; the others are counted together.
    Listed(FxHashMap<Name, FxHashSet<Name>>),
}

impl CompiledGrpcStats {
    pub(crate) fn compile(config: &GrpcStats) -> Self {
        Self {
            emit_filter_state: config.emit_filter_state,
            enable_upstream_stats: config.enable_upstream_stats,
            methods: match &config.methods {
                GrpcStatsMethods::None => Methods::Together,
                GrpcStatsMethods::All => Methods::All {
                    replace_dots: config.replace_dots_in_grpc_service_name,
                },
                GrpcStatsMethods::Listed(services) => {
                    let mut listed: FxHashMap<Name, FxHashSet<Name>> = FxHashMap::default();
                    for (service, methods) in services {
                        let known = listed.entry(Name::clone(service)).or_default();
                        known.extend(methods.iter().map(Name::clone));
                    }
                    Methods::Listed(listed)
                }
            },
        }
    }

    /// Writes what stands between `grpc.` and the counter's name for a call of `path`: `SERVICE.METHOD.` or nothing.
    /// `false`: the path is not that of a call, and it is not counted.
    pub fn stat_name(&self, path: &[u8], out: &mut String) -> bool {
        out.clear();
        let Some((service, method)) = service_and_method(path) else {
            return false;
        };
        match &self.methods {
            Methods::Together => {}
            Methods::All { replace_dots } => write(&service, &method, *replace_dots, out),
            Methods::Listed(listed) => {
                let known = listed.get(&*service);
                if known.is_some_and(|methods| methods.contains(&*method)) {
                    write(&service, &method, false, out);
                }
            }
        }
        true
    }
}

/// As [`CompiledGrpcStats::stat_name`] for gRPC-Web, which counts by method always.
pub fn web_stat_name(path: &[u8], out: &mut String) -> bool {
    out.clear();
    let Some((service, method)) = service_and_method(path) else {
        return false;
    };
    write(&service, &method, false, out);
    true
}

fn write(service: &str, method: &str, replace_dots: bool, out: &mut String) {
    if replace_dots {
        out.extend(service.chars().map(|c| if c == '.' { '_' } else { c }));
    } else {
        out.push_str(service);
    }
    out.push('.');
    out.push_str(method);
    out.push('.');
}

/// `/service/method`: two parts that are not empty, however many slashes there are; the query does not count.
fn service_and_method(
    path: &[u8],
) -> Option<(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let mut parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(service), Some(method), None) => Some((
            String::from_utf8_lossy(service),
            String::from_utf8_lossy(method),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(methods: GrpcStatsMethods, replace_dots: bool, path: &str) -> Option<String> {
        let stats = CompiledGrpcStats::compile(&GrpcStats {
            methods,
            replace_dots_in_grpc_service_name: replace_dots,
            ..GrpcStats::default()
        });
        let mut out = String::from("old");
        stats.stat_name(path.as_bytes(), &mut out).then_some(out)
    }

    /// As Envoy 1.40 counted them.
    #[test]
    fn calls_by_name() {
        let all = |path| name(GrpcStatsMethods::All, false, path);
        assert_eq!(all("/pkg.Svc/Echo").as_deref(), Some("pkg.Svc.Echo."));
        assert_eq!(all("/a.b/Echo.x?q=/1").as_deref(), Some("a.b.Echo.x."));
        assert_eq!(all("/noslash"), None);
        assert_eq!(all("/a/b/c"), None);
        let dots = name(GrpcStatsMethods::All, true, "/a.b.Svc/Echo.x");
        assert_eq!(dots.as_deref(), Some("a_b_Svc.Echo.x."));
        let none = name(GrpcStatsMethods::None, true, "/a.b/C");
        assert_eq!(none.as_deref(), Some(""));
        let listed = |path| {
            let list = vec![("pkg.Svc".into(), vec!["Echo".into()])];
            name(GrpcStatsMethods::Listed(list), true, path)
        };
        assert_eq!(listed("/pkg.Svc/Echo").as_deref(), Some("pkg.Svc.Echo."));
        assert_eq!(listed("/pkg.Svc/Other").as_deref(), Some(""));
        let mut web = String::new();
        assert!(web_stat_name(b"/pkg.S/Echo", &mut web));
        assert_eq!(web, "pkg.S.Echo.");
    }
}
