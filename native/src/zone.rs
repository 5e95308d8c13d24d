//! Calendar periods in the project's time zone; its offsets are asked of Python, by the quarter of an hour.

use std::collections::{HashMap, HashSet};

use crate::hash::Plain;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const QUARTER_MS: i64 = 15 * 60_000;
const QUARTERS_MAX: usize = 1 << 17;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
}

/// Quarter of an hour -> offset of local time; None where it changes within the quarter.
pub struct Zone {
    offsets: HashMap<i64, Option<i64>, Plain>,
    most: usize,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone { offsets: HashMap::default(), most: QUARTERS_MAX }
    }
}

impl Zone {
    pub fn quarter(at_ms: i64) -> i64 {
        at_ms.div_euclid(QUARTER_MS)
    }

    pub fn tell(&mut self, quarter: i64, offset_ms: Option<i64>) {
        self.offsets.insert(quarter, offset_ms);
    }

    /// Whether so many quarters were told that some are to be forgotten.
    pub fn is_full(&self) -> bool {
        self.offsets.len() >= self.most
    }

    /// Forget all quarters but some; those are fewer than leaves, so that there is room for as many again.
    pub fn keep(&mut self, quarters: &HashSet<i64>) {
        self.offsets.retain(|quarter, _| quarters.contains(quarter));
        self.offsets.shrink_to_fit();
        self.most = QUARTERS_MAX.max(2 * self.offsets.len());
    }

    /// Whether Python was asked about an instant.
    pub fn was_told(&self, at_ms: i64) -> bool {
        self.offsets.contains_key(&Zone::quarter(at_ms))
    }

    /// The offset of local time at an instant, if it is known here.
    pub fn offset_ms(&self, at_ms: i64) -> Option<i64> {
        self.offsets.get(&Zone::quarter(at_ms)).copied().flatten()
    }

    /// The index of the period that holds an instant whose offset is known; see `core/feature/window.py`.
    pub fn period(&self, period: Period, at_ms: i64) -> i64 {
        let offset_ms = self.offset_ms(at_ms).expect("an instant is looked up before it is used");
        let day = (at_ms + offset_ms).div_euclid(DAY_MS);
        match period {
            Period::Hour => (at_ms + offset_ms.rem_euclid(HOUR_MS)).div_euclid(HOUR_MS),
            Period::Day => day,
            Period::Week => (day + 3).div_euclid(7),
            Period::Month => month_of(day),
        }
    }
}

/// Months since the year 0 of a day since 1970; days outside the calendar are those at its ends.
fn month_of(day: i64) -> i64 {
    const FIRST: i64 = -719_162; // 0001-01-01
    const LAST: i64 = 2_932_896; // 9999-12-31
    // Days since 0000-03-01, in eras of 400 years: a year that begins in March ends in its leap day.
    let days = day.clamp(FIRST, LAST) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let (month, carry) = if from_march < 10 { (from_march + 2, 0) } else { (from_march - 10, 1) };
    (era * 400 + year + carry) * 12 + month
}
