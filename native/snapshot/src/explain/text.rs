//! An explanation as an operator reads it.

use std::fmt;

use tidegate_model::route::PathSpecifier;

use super::{ActionStep, Explanation, HandOff, Lost};

pub(super) fn path(specifier: &PathSpecifier) -> String {
    match specifier {
        PathSpecifier::Prefix(text) => format!("prefix {text}"),
        PathSpecifier::Path(text) => format!("path {text}"),
        PathSpecifier::SafeRegex(text) => format!("safe_regex {text}"),
        PathSpecifier::PathSeparatedPrefix(text) => format!("path_separated_prefix {text}"),
        PathSpecifier::ConnectMatcher => "of a CONNECT request".to_owned(),
    }
}

fn losers(f: &mut fmt::Formatter<'_>, what: &str, lost: &[Lost]) -> fmt::Result {
    for Lost {
        index,
        name,
        reason,
    } in lost
    {
        writeln!(f, "    not {what} {index} {name:?}: {reason}")?;
    }
    Ok(())
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.listener {
            let why = match step.how {
                HandOff::NotUsed => "accepts the connection itself",
                HandOff::Exact => "has exactly the original destination",
                HandOff::Wildcard => "has the port of the original destination",
                HandOff::Kept => "keeps it: no listener has the original destination",
            };
            writeln!(f, "listener {} {why}", step.handled_by)?;
        }
        if let Some(step) = &self.filter_chain {
            match step.index {
                Some(index) => writeln!(f, "filter chain {index} {:?}", step.name)?,
                None => writeln!(f, "default filter chain {:?}", step.name)?,
            }
            losers(f, "chain", &step.lost)?;
        }
        if let Some(step) = &self.virtual_host {
            writeln!(
                f,
                "virtual host {} of {} by domain {}",
                step.name, step.route_configuration, step.domain
            )?;
        }
        if let Some(step) = &self.route {
            match step.index {
                Some(index) => writeln!(f, "route {index} {:?}", step.name)?,
                None if self.action.is_some() => writeln!(f, "require_tls")?,
                None => writeln!(f, "no route")?,
            }
            losers(f, "route", &step.lost)?;
        }
        match &self.action {
            Some(ActionStep::Forward { weighted, path, .. }) => {
                if !weighted.is_empty() {
                    writeln!(f, "one of the weighted clusters {}", weighted.join(", "))?;
                }
                if let Some(path) = path {
                    writeln!(f, "path becomes {path}")?;
                }
            }
            Some(ActionStep::Redirect { status, location }) => {
                writeln!(f, "redirect {status} to {location}")?;
            }
            Some(ActionStep::DirectResponse { status, body_bytes }) => {
                writeln!(f, "direct response {status}, {body_bytes} bytes")?;
            }
            Some(ActionStep::NonForwarding) => writeln!(f, "non_forwarding_action: 404")?,
            None => {}
        }
        if let Some(step) = &self.cluster {
            writeln!(f, "cluster {}", step.name)?;
            for endpoint in &step.endpoints {
                writeln!(
                    f,
                    "    endpoint {} {:?} weight {} priority {}",
                    endpoint.address, endpoint.health, endpoint.weight, endpoint.priority
                )?;
            }
        }
        if let Some(end) = &self.end {
            writeln!(f, "end: {end}")?;
        }
        Ok(())
    }
}
