//! `/logging`: the levels of the process's own log.

use std::fmt::Write as _;

use super::{Asked, Page};
use crate::engine::Core;
use crate::server_log::{COMPONENTS, Level, ServerLog, pairs};

const USAGE: &str = "
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
levels: trace debug info warning error critical off \n";

pub(super) fn page(core: &Core, asked: &Asked) -> Page {
    // The home page sends every field, used or not.
    let given: Vec<(&str, &str)> = asked
        .params
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    match change(&core.log, &given) {
        Ok(()) => Page::text(levels(&core.log)),
        Err(reason) => Page::bad_request(format!("error: {reason}\n{USAGE}{}", levels(&core.log))),
    }
}

fn change(log: &ServerLog, given: &[(&str, &str)]) -> Result<(), &'static str> {
    let parse = |level: &str| Level::parse(level).ok_or("unknown logger level");
    let known = |name: &str| {
        if COMPONENTS.contains(&name) {
            Ok(())
        } else {
            Err("unknown logger name")
        }
    };
    match given {
        [] => {}
        [("level", level)] => log.set_all(parse(level)?),
        [("group", _)] => return Err("group parameter requires fine-grain logging to be enabled"),
        [("paths", list)] => {
            // All or nothing.
            for (name, level) in pairs(list) {
                known(name)?;
                parse(level)?;
            }
            for (name, level) in pairs(list) {
                log.set(name, parse(level)?);
            }
        }
        [(name, level)] => {
            known(name)?;
            log.set(name, parse(level)?);
        }
        _ => return Err("invalid number of parameters"),
    }
    Ok(())
}

fn levels(log: &ServerLog) -> String {
    let mut text = "active loggers:\n".to_owned();
    for (name, level) in log.levels() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name}: {}", level.name());
    }
    text.push('\n');
    text
}
