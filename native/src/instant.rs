//! ISO 8601 instants in the forms that senders write, and the calendar that they need.

use crate::msgpack::{Known, Unknown};

const DAY_MS: i64 = 86_400_000;
/// The milliseconds of the years 1 to 9999.
const FIRST_MS: i64 = -62_135_596_800_000;
const LAST_MS: i64 = 253_402_300_799_999;
const MONTH_DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Milliseconds since 1970 of `2026-11-25`, `2026-11-25T10:00:00`, with a fraction of up to six digits and
/// with `Z` or an offset such as `+01:00`; of the years 1 to 9999.
pub fn parse(text: &str) -> Known<i64> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(10).ok_or(Unknown)?;
    if date[4] != b'-' || date[7] != b'-' {
        return Err(Unknown);
    }
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    if year == 0 || !(1..=12).contains(&month) || !(1..=month_days(year, month)).contains(&day) {
        return Err(Unknown);
    }
    let midnight = days_of(year, month, day) * DAY_MS;
    if rest.is_empty() {
        return Ok(midnight);
    }
    let (clock, rest) = rest.split_at_checked(9).ok_or(Unknown)?;
    if !matches!(clock[0], b'T' | b' ') || clock[3] != b':' || clock[6] != b':' {
        return Err(Unknown);
    }
    let (hour, minute, second) = (number(&clock[1..3])?, number(&clock[4..6])?, number(&clock[7..])?);
    if hour > 23 || minute > 59 || second > 59 {
        return Err(Unknown);
    }
    let (fraction_us, zone) = fraction_of(rest)?;
    let us = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction_us - offset_of(zone)? * 60_000_000;
    let at_ms = midnight + us.div_euclid(1_000);
    if (FIRST_MS..=LAST_MS).contains(&at_ms) { Ok(at_ms) } else { Err(Unknown) }
}

fn fraction_of(rest: &[u8]) -> Known<(i64, &[u8])> {
    let Some((b'.', after)) = rest.split_first() else { return Ok((0, rest)) };
    let count = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=6).contains(&count) {
        return Err(Unknown);
    }
    let (digits, zone) = after.split_at(count);
    Ok((number(digits)? * 10_i64.pow(6 - count as u32), zone))
}

/// The minutes that local time is ahead.
fn offset_of(zone: &[u8]) -> Known<i64> {
    match zone {
        b"" | b"Z" => Ok(0),
        [sign @ (b'+' | b'-'), clock @ ..] if clock.len() == 5 && clock[2] == b':' => {
            let (hours, minutes) = (number(&clock[..2])?, number(&clock[3..])?);
            if hours > 23 || minutes > 59 {
                return Err(Unknown);
            }
            let ahead = hours * 60 + minutes;
            Ok(if *sign == b'-' { -ahead } else { ahead })
        }
        _ => Err(Unknown),
    }
}

fn number(digits: &[u8]) -> Known<i64> {
    digits.iter().try_fold(0, |sum, byte| {
        if byte.is_ascii_digit() { Ok(sum * 10 + i64::from(byte - b'0')) } else { Err(Unknown) }
    })
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    MONTH_DAYS[month as usize - 1] + i64::from(month == 2 && leap)
}

/// Days since 1970 of a date in the Gregorian calendar, counted in years that begin in March.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let months = (month + 9) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (153 * months + 2) / 5 + day - 1 - 719_468
}

/// The first millisecond of an instant's month in UTC.
pub fn month_of(at_ms: i64) -> i64 {
    let days = at_ms.div_euclid(DAY_MS);
    // Not later than it is: years are counted as longer than they are after 1970, and as shorter before.
    let mut year = 1970 + days.div_euclid(if days < 0 { 365 } else { 366 });
    while days_of(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_of(year, *month, 1) <= days).unwrap_or(1);
    days_of(year, month, 1) * DAY_MS
}
