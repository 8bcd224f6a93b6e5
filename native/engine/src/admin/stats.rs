//! `/stats`, `/stats/prometheus` and `/reset_counters`.

use tidegate_stats::render::{self, Buckets, Kind, Selection};

use super::{Asked, Page, home, regex};
use crate::engine::Core;

pub(super) fn reset_counters(core: &Core, _: &Asked) -> Page {
    core.registry.reset_counters();
    Page::text("OK\n")
}

/// Whether a name is wanted.
type Filter = Box<dyn Fn(&str) -> bool>;

fn filter(asked: &Asked) -> Result<Filter, String> {
    let Some(pattern) = asked.param("filter").filter(|pattern| !pattern.is_empty()) else {
        return Ok(Box::new(|_| true));
    };
    let regex = regex(pattern).map_err(|reason| format!("Invalid re2 regex: {reason}"))?;
    let invert = asked.has("invert_filter");
    Ok(Box::new(move |name| regex.is_match(name) != invert))
}

pub(super) fn page(core: &Core, asked: &Asked) -> Page {
    let format = asked.param("format").unwrap_or("text");
    if format == "prometheus" {
        return prometheus(core, asked);
    }
    let buckets = match asked.param("histogram_buckets") {
        None | Some("" | "summary" | "none") => Buckets::Summary,
        Some("cumulative") => Buckets::Cumulative,
        Some("disjoint") => Buckets::Disjoint,
        Some("detailed") => Buckets::Detailed,
        Some(_) => {
            return Page::bad_request(
                "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n",
            );
        }
    };
    let kind = match asked.param("type") {
        None | Some("" | "All") => Kind::All,
        Some("Counters") => Kind::Counters,
        Some("Gauges") => Kind::Gauges,
        Some("Histograms") => Kind::Histograms,
        Some("TextReadouts") => Kind::TextReadouts,
        Some(_) => return Page::bad_request("invalid &type= param"),
    };
    let matches = match filter(asked) {
        Ok(matches) => matches,
        Err(reason) => return Page::bad_request(reason),
    };
    let selection = Selection {
        used_only: asked.has("usedonly"),
        matches: &*matches,
        kind,
        buckets,
        text_readouts: false,
    };
    match format {
        "text" | "" => Page::text(render::text(&core.registry, selection)),
        "json" => Page {
            content_type: "application/json",
            ..Page::text(render::json(&core.registry, selection))
        },
        "html" | "active-html" => {
            let text = home::escape(&render::text(&core.registry, selection));
            Page::html(format!(
                "<!DOCTYPE html>\n<html lang='en'>\n<head><title>Envoy Admin</title></head>\n<body>\n<pre>\n{text}</pre>\n</body>\n</html>\n"
            ))
        }
        _ => Page::bad_request("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
    }
}

pub(super) fn prometheus(core: &Core, asked: &Asked) -> Page {
    let matches = match filter(asked) {
        Ok(matches) => matches,
        Err(reason) => return Page::bad_request(reason),
    };
    let selection = Selection {
        used_only: asked.has("usedonly"),
        matches: &*matches,
        kind: Kind::All,
        buckets: Buckets::Cumulative,
        text_readouts: asked.has("text_readouts"),
    };
    Page::text(render::prometheus(&core.registry, &core.tags, selection))
}
