//! Times in log lines, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_model::format::{TimeFormat, TimeItem};

use super::write_number;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A moment, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Civil {
    epoch: i64,
    nanos: u32,
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    /// 0 is Sunday.
    weekday: u32,
    day_of_year: u32,
}

impl Civil {
    fn new(time: SystemTime) -> Self {
        let (epoch, nanos) = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => (-(before.as_secs() as i64), 0),
                    nanos => (-(before.as_secs() as i64) - 1, 1_000_000_000 - nanos),
                }
            }
        };
        let days = epoch.div_euclid(86_400);
        let of_day = epoch.rem_euclid(86_400) as u32;
        // Days to a date in the proleptic Gregorian calendar, counting years from March so that leap days come last.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = (day_from_march - (153 * month_from_march + 2) / 5 + 1) as u32;
        let month = (if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        }) as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        // March 1 is day 60, or 61 of a leap year.
        let day_of_year = if month > 2 {
            day_from_march as u32 + 60 + u32::from(leap)
        } else {
            day_from_march as u32 + 1 - 306
        };
        Self {
            epoch,
            nanos,
            year,
            month,
            day,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            weekday: (days + 4).rem_euclid(7) as u32,
            day_of_year,
        }
    }
}

impl Civil {
    /// Year and week of ISO 8601: weeks begin on Monday, the first has the year's first Thursday.
    fn iso_week(&self) -> (i64, u32) {
        let from_monday = (self.weekday + 6) % 7;
        let week = (i64::from(self.day_of_year) - i64::from(from_monday) + 9) / 7;
        if week < 1 {
            let year = self.year - 1;
            return (year, weeks_in(year));
        }
        if week as u32 > weeks_in(self.year) {
            return (self.year + 1, 1);
        }
        (self.year, week as u32)
    }
}

fn weeks_in(year: i64) -> u32 {
    let last_weekday = |year: i64| {
        (year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400)).rem_euclid(7)
    };
    52 + u32::from(last_weekday(year) == 4 || last_weekday(year - 1) == 3)
}

/// Appends the time as the format says; an empty format is `2018-04-16T21:55:30.123Z`.
pub fn write(format: &TimeFormat, time: SystemTime, out: &mut Vec<u8>) {
    let civil = Civil::new(time);
    if format.items.is_empty() {
        write_default(&civil, out);
        return;
    }
    for item in &format.items {
        write_item(item, &civil, out);
    }
}

fn write_default(civil: &Civil, out: &mut Vec<u8>) {
    let year = civil.year.clamp(0, 9_999) as u32;
    let millis = civil.nanos / 1_000_000;
    let digit = |value: u32| b'0' + (value % 10) as u8;
    let tens = |value: u32| digit(value / 10);
    out.extend_from_slice(&[
        digit(year / 1_000),
        digit(year / 100),
        tens(year),
        digit(year),
        b'-',
        tens(civil.month),
        digit(civil.month),
        b'-',
        tens(civil.day),
        digit(civil.day),
        b'T',
        tens(civil.hour),
        digit(civil.hour),
        b':',
        tens(civil.minute),
        digit(civil.minute),
        b':',
        tens(civil.second),
        digit(civil.second),
        b'.',
        digit(millis / 100),
        tens(millis),
        digit(millis),
        b'Z',
    ]);
}

fn write_item(item: &TimeItem, civil: &Civil, out: &mut Vec<u8>) {
    let hour12 = match civil.hour % 12 {
        0 => 12,
        hour => hour,
    };
    let name =
        |names: &[&'static str], index: u32| names.get(index as usize).copied().unwrap_or_default();
    let short = |name: &'static str| name.get(..3).unwrap_or(name);
    match item {
        TimeItem::Literal(text) => out.extend_from_slice(text.as_bytes()),
        TimeItem::Year => {
            if civil.year < 0 {
                out.push(b'-');
            }
            write_number(civil.year.unsigned_abs(), out);
        }
        TimeItem::Year2 => padded(civil.year.rem_euclid(100) as u32, 2, b'0', out),
        TimeItem::Century => padded(civil.year.div_euclid(100).max(0) as u32, 2, b'0', out),
        TimeItem::Month => padded(civil.month, 2, b'0', out),
        TimeItem::MonthName => {
            out.extend_from_slice(name(&MONTHS, civil.month.wrapping_sub(1)).as_bytes());
        }
        TimeItem::MonthNameShort => {
            out.extend_from_slice(short(name(&MONTHS, civil.month.wrapping_sub(1))).as_bytes());
        }
        TimeItem::Day => padded(civil.day, 2, b'0', out),
        TimeItem::DaySpacePadded => padded(civil.day, 2, b' ', out),
        TimeItem::DayOfYear => padded(civil.day_of_year, 3, b'0', out),
        TimeItem::Hour => padded(civil.hour, 2, b'0', out),
        TimeItem::HourSpacePadded => padded(civil.hour, 2, b' ', out),
        TimeItem::Hour12 => padded(hour12, 2, b'0', out),
        TimeItem::Minute => padded(civil.minute, 2, b'0', out),
        TimeItem::Second => padded(civil.second, 2, b'0', out),
        TimeItem::AmPm => out.extend_from_slice(if civil.hour < 12 { b"AM" } else { b"PM" }),
        TimeItem::WeekdayName => {
            out.extend_from_slice(name(&WEEKDAYS, civil.weekday).as_bytes());
        }
        TimeItem::WeekdayNameShort => {
            out.extend_from_slice(short(name(&WEEKDAYS, civil.weekday)).as_bytes());
        }
        TimeItem::Weekday1 => write_number(
            u64::from(match civil.weekday {
                0 => 7,
                day => day,
            }),
            out,
        ),
        TimeItem::Weekday0 => write_number(u64::from(civil.weekday), out),
        TimeItem::WeekOfYearSunday => {
            let week = (civil.day_of_year + 6 - civil.weekday) / 7;
            padded(week, 2, b'0', out);
        }
        TimeItem::WeekOfYearMonday => {
            let week = (civil.day_of_year + 6 - (civil.weekday + 6) % 7) / 7;
            padded(week, 2, b'0', out);
        }
        TimeItem::IsoWeek => padded(civil.iso_week().1, 2, b'0', out),
        TimeItem::IsoYear => write_number(civil.iso_week().0.unsigned_abs(), out),
        TimeItem::EpochSeconds => {
            if civil.epoch < 0 {
                out.push(b'-');
            }
            write_number(civil.epoch.unsigned_abs(), out);
        }
        TimeItem::Subsecond(digits) => subsecond(civil.nanos, *digits, out),
        TimeItem::SecondFraction(digits) => {
            padded(civil.second, 2, b'0', out);
            match digits {
                Some(0) => {}
                Some(digits) => {
                    out.push(b'.');
                    subsecond(civil.nanos, *digits, out);
                }
                None if civil.nanos == 0 => {}
                None => {
                    out.push(b'.');
                    let end = out.len();
                    subsecond(civil.nanos, 9, out);
                    while out.len() > end && out.last() == Some(&b'0') {
                        out.pop();
                    }
                }
            }
        }
        TimeItem::ZoneOffset => out.extend_from_slice(b"+0000"),
        TimeItem::ZoneOffsetColon => out.extend_from_slice(b"+00:00"),
        TimeItem::ZoneName => out.extend_from_slice(b"UTC"),
    }
}

fn padded(value: u32, width: usize, fill: u8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    for _ in digits.len()..width {
        out.push(fill);
    }
    out.extend_from_slice(digits.as_bytes());
}

/// The first so many of the nine digits after the point.
fn subsecond(nanos: u32, digits: u8, out: &mut Vec<u8>) {
    let digits = u32::from(digits.clamp(1, 9));
    padded(nanos / 10_u32.pow(9 - digits), digits as usize, b'0', out);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_model::format::parse_time_format;

    use super::*;

    fn at(seconds: u64, nanos: u32, format: &str) -> String {
        let mut out = Vec::new();
        let time = UNIX_EPOCH + Duration::new(seconds, nanos);
        write(&parse_time_format(format).unwrap(), time, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_default_has_milliseconds() {
        assert_eq!(
            at(1_523_915_730, 123_900_000, ""),
            "2018-04-16T21:55:30.123Z"
        );
        assert_eq!(at(951_782_400, 0, ""), "2000-02-29T00:00:00.000Z");
    }

    #[test]
    fn directives() {
        let when = 1_523_915_730;
        assert_eq!(
            at(when, 123_456_789, "%s.%3f %f %6f"),
            "1523915730.123 123456789 123456"
        );
        assert_eq!(
            at(when, 0, "%a %b %e %T %Y %j %p %I"),
            "Mon Apr 16 21:55:30 2018 106 PM 09"
        );
        assert_eq!(
            at(when, 120_000_000, "%FT%H:%M:%E3S%Ez %E*S"),
            "2018-04-16T21:55:30.120+00:00 30.12"
        );
        assert_eq!(
            at(1_795_494_947, 0, "%C|%u|%w|%h|%G|%V|%U|%W|%c|%x|%X|%r"),
            "20|2|2|Nov|2026|48|47|47|Tue Nov 24 04:35:47 2026|11/24/26|04:35:47|04:35:47 AM"
        );
        assert_eq!(at(1_609_459_200, 0, "%G-%V"), "2020-53");
        assert_eq!(at(1_735_603_200, 0, "%G-%V"), "2025-01");
        assert_eq!(at(951_782_400, 0, "%j"), "060");
        assert_eq!(at(1_735_603_200, 0, "%j"), "366");
    }
}
