//! Moments and calendar months, in UTC. The clock itself belongs to the host.

use chrono::{DateTime, Datelike as _, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment: milliseconds since 1970-01-01T00:00:00Z. On the wire RFC 3339 with milliseconds and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    fn civil(self) -> DateTime<Utc> {
        // Out of chrono's range (some 262,000 years) cannot come from a clock; the epoch is a harmless stand-in.
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }

    /// The calendar month in UTC.
    pub fn month(self) -> Month {
        let civil = self.civil();
        Month { year: civil.year(), month: civil.month() }
    }

    /// So many milliseconds later.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Whole seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.civil().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl std::str::FromStr for Timestamp {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, chrono::ParseError> {
        DateTime::parse_from_rfc3339(text).map(|t| Self(t.timestamp_millis()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| serde::de::Error::custom("a time is RFC 3339, such as 2026-11-24T12:00:00Z"))
    }
}

/// A calendar month in UTC: the window of a monthly limit. On the wire `2026-11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i32,
    month: u32,
}

impl Month {
    /// The first moment of the next month: when a monthly limit starts anew.
    pub fn resets_at(self) -> Timestamp {
        let next = if self.month == 12 { Self { year: self.year + 1, month: 1 } } else { Self { month: self.month + 1, ..self } };
        next.starts_at()
    }

    /// The month before.
    #[must_use]
    pub fn previous(self) -> Self {
        self.starts_at().plus_millis(-1).month()
    }

    /// The first moment of this month.
    pub fn starts_at(self) -> Timestamp {
        let midnight = NaiveDate::from_ymd_opt(self.year, self.month, 1).and_then(|day| day.and_hms_opt(0, 0, 0));
        Timestamp(midnight.map_or(0, |m| m.and_utc().timestamp_millis()))
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl std::str::FromStr for Month {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "a month is YYYY-MM, such as 2026-11";
        let (year, month) = text.split_once('-').ok_or(RULE)?;
        if year.len() != 4 || month.len() != 2 || !text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            return Err(RULE);
        }
        let (year, month): (i32, u32) = (year.parse().map_err(|_| RULE)?, month.parse().map_err(|_| RULE)?);
        if (1..=12).contains(&month) && (1970..=9998).contains(&year) { Ok(Self { year, month }) } else { Err(RULE) }
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A date, of whose day is for the context to say. On the wire `2026-11-30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(NaiveDate);

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}

impl std::str::FromStr for Day {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "a date is YYYY-MM-DD, such as 2026-11-30";
        let is_of_digits = text.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
        if text.len() != 10 || !is_of_digits {
            return Err(RULE);
        }
        let number = |part: &str| part.parse::<u32>().map_err(|_| RULE);
        let year = i32::try_from(number(&text[..4])?).map_err(|_| RULE)?;
        NaiveDate::from_ymd_opt(year, number(&text[5..7])?, number(&text[8..])?)
            .filter(|_| (1970..=9998).contains(&year))
            .map(Self)
            .ok_or(RULE)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_meet_without_gap_or_overlap() {
        let last = "2026-12-31T23:59:59.999Z".parse::<Timestamp>().unwrap();
        assert_eq!(last.month().to_string(), "2026-12");
        assert_eq!(last.month().resets_at(), last.plus_millis(1));
        assert_eq!(last.plus_millis(1).month().to_string(), "2027-01");
        assert_eq!(last.plus_millis(1).month().previous(), last.month());
        assert_eq!(last.plus_millis(1).to_string(), "2027-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_date_is_checked() {
        assert_eq!("2028-02-29".parse::<Day>().unwrap().to_string(), "2028-02-29");
        for bad in
            ["2027-02-29", "2026-13-01", "2026-1-1", "2026-11-3", "2026-11-300", "", "2026/11/30", "+026-11-01", "1969-12-31", "2026-11-3é"]
        {
            assert!(bad.parse::<Day>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_month_is_checked() {
        assert!("2026-11".parse::<Month>().is_ok());
        for bad in ["2026-13", "2026-00", "26-11", "2026-1", "2026/11", "", "+026-11", "1969-12"] {
            assert!(bad.parse::<Month>().is_err(), "{bad}");
        }
    }
}
