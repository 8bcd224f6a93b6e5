//! Time formats: the strftime directives that Envoy knows.

use super::{FormatError, TimeFormat, TimeItem, error};
use crate::Name;

/// Reads a time format; empty is Envoy's default.
pub fn parse_time_format(text: &str) -> Result<TimeFormat, FormatError> {
    let mut items = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            literal.push(c);
            continue;
        }
        let Some(directive) = chars.next() else {
            literal.push('%');
            break;
        };
        let mut push = |item: TimeItem| {
            if !literal.is_empty() {
                items.push(TimeItem::Literal(Name::from(std::mem::take(&mut literal))));
            }
            items.push(item);
        };
        match directive {
            'Y' => push(TimeItem::Year),
            'y' => push(TimeItem::Year2),
            'C' => push(TimeItem::Century),
            'm' => push(TimeItem::Month),
            'B' => push(TimeItem::MonthName),
            'b' | 'h' => push(TimeItem::MonthNameShort),
            'd' => push(TimeItem::Day),
            'U' => push(TimeItem::WeekOfYearSunday),
            'W' => push(TimeItem::WeekOfYearMonday),
            'V' => push(TimeItem::IsoWeek),
            'G' => push(TimeItem::IsoYear),
            'e' => push(TimeItem::DaySpacePadded),
            'j' => push(TimeItem::DayOfYear),
            'H' => push(TimeItem::Hour),
            'k' => push(TimeItem::HourSpacePadded),
            'I' => push(TimeItem::Hour12),
            'M' => push(TimeItem::Minute),
            'S' => push(TimeItem::Second),
            'p' => push(TimeItem::AmPm),
            'A' => push(TimeItem::WeekdayName),
            'a' => push(TimeItem::WeekdayNameShort),
            'u' => push(TimeItem::Weekday1),
            'w' => push(TimeItem::Weekday0),
            's' => push(TimeItem::EpochSeconds),
            'f' => push(TimeItem::Subsecond(9)),
            'z' => push(TimeItem::ZoneOffset),
            'Z' => push(TimeItem::ZoneName),
            '1'..='9' if chars.peek() == Some(&'f') => {
                chars.next();
                push(TimeItem::Subsecond(directive as u8 - b'0'));
            }
            'E' => match extended(&mut chars) {
                Some(item) => push(item),
                None => literal.push_str("%E"),
            },
            'T' | 'X' => composite(&CLOCK, &mut push),
            'R' => composite(CLOCK.get(..3).unwrap_or(&CLOCK), &mut push),
            'F' => composite(&ISO_DATE, &mut push),
            'D' | 'x' => composite(&US_DATE, &mut push),
            'r' => {
                push(TimeItem::Hour12);
                composite(CLOCK.get(1..).unwrap_or(&CLOCK), &mut push);
                push(TimeItem::Literal(Name::from(" ")));
                push(TimeItem::AmPm);
            }
            'c' => {
                composite(&C_DATE, &mut push);
                push(TimeItem::Literal(Name::from(" ")));
                composite(&CLOCK, &mut push);
                push(TimeItem::Literal(Name::from(" ")));
                push(TimeItem::Year);
            }
            'n' => literal.push('\n'),
            't' => literal.push('\t'),
            '%' => literal.push('%'),
            other => {
                literal.push('%');
                literal.push(other);
            }
        }
    }
    if !literal.is_empty() {
        items.push(TimeItem::Literal(Name::from(literal)));
    }
    if items
        .iter()
        .any(|item| matches!(item, TimeItem::Literal(text) if text.contains(['\n', '\r'])))
    {
        return Err(error(
            "Invalid header configuration. Format string contains newline.".to_owned(),
        ));
    }
    Ok(TimeFormat { items })
}

/// A part of a directive that stands for several.
#[derive(Clone)]
enum Part {
    Item(TimeItem),
    Text(&'static str),
}

const CLOCK: [Part; 5] = [
    Part::Item(TimeItem::Hour),
    Part::Text(":"),
    Part::Item(TimeItem::Minute),
    Part::Text(":"),
    Part::Item(TimeItem::Second),
];
const ISO_DATE: [Part; 5] = [
    Part::Item(TimeItem::Year),
    Part::Text("-"),
    Part::Item(TimeItem::Month),
    Part::Text("-"),
    Part::Item(TimeItem::Day),
];
const US_DATE: [Part; 5] = [
    Part::Item(TimeItem::Month),
    Part::Text("/"),
    Part::Item(TimeItem::Day),
    Part::Text("/"),
    Part::Item(TimeItem::Year2),
];
const C_DATE: [Part; 5] = [
    Part::Item(TimeItem::WeekdayNameShort),
    Part::Text(" "),
    Part::Item(TimeItem::MonthNameShort),
    Part::Text(" "),
    Part::Item(TimeItem::DaySpacePadded),
];

fn composite(parts: &[Part], push: &mut impl FnMut(TimeItem)) {
    for part in parts {
        push(match part {
            Part::Item(item) => item.clone(),
            Part::Text(text) => TimeItem::Literal(Name::from(*text)),
        });
    }
}

/// What follows `%E`: `z`, `*z`, `S` with digits, `f` with digits, `Y`.
fn extended(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<TimeItem> {
    let mut ahead = chars.clone();
    let item = match (ahead.next()?, ahead.next()) {
        ('z', _) => {
            chars.next();
            return Some(TimeItem::ZoneOffsetColon);
        }
        ('*', Some('z')) => TimeItem::ZoneOffsetColon,
        ('*', Some('S')) => TimeItem::SecondFraction(None),
        ('*', Some('f')) => TimeItem::Subsecond(9),
        ('4', Some('Y')) => TimeItem::Year,
        (digit @ '0'..='9', Some('S')) => TimeItem::SecondFraction(Some(digit as u8 - b'0')),
        (digit @ '1'..='9', Some('f')) => TimeItem::Subsecond(digit as u8 - b'0'),
        _ => return None,
    };
    chars.next();
    chars.next();
    Some(item)
}
