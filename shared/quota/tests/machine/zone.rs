//! Time zones as the database knows them: their days and months, also those in which the clocks are changed.

use crate::{DAY, HOUR, START};
use astra_kernel::Timestamp;
use astra_quota::{Period, Span, Spans};

/// A zone with at most one change of its clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Utc,
    /// Back by an hour: a day of 25 hours, a few days before its month ends.
    Berlin,
    /// As Berlin before that, and no change: its windows begin together with Berlin's and end an hour sooner.
    Tripoli,
    /// Forward by an hour: a day of 23 hours.
    BerlinInSpring,
    /// Back by an hour on the first of a month: both edges on one day.
    NewYork,
    /// Forward by half an hour.
    LordHowe,
    /// No change, and no whole hour from UTC.
    Kathmandu,
}

pub(crate) const ZONES: [Zone; 7] =
    [Zone::Utc, Zone::Berlin, Zone::Tripoli, Zone::BerlinInSpring, Zone::NewYork, Zone::LordHowe, Zone::Kathmandu];

impl Zone {
    /// When the clocks change, and what is added to UTC before and after.
    fn clocks(self) -> (i64, i64, i64) {
        let minutes = |change: i64, before: i64, after: i64| (change, before * 60_000, after * 60_000);
        match self {
            Self::Utc => minutes(0, 0, 0),
            Self::Berlin => minutes(START.0 - 30 * DAY + HOUR, 120, 60),
            Self::Tripoli => minutes(0, 120, 120),
            Self::BerlinInSpring => minutes(START.0 + 124 * DAY + HOUR, 60, 120),
            Self::NewYork => minutes(START.0 - 23 * DAY + 6 * HOUR, -240, -300),
            Self::LordHowe => minutes(START.0 - 52 * DAY + 15 * HOUR + HOUR / 2, 630, 660),
            Self::Kathmandu => minutes(0, 345, 345),
        }
    }

    /// A moment with something to see: some hours before the clocks change, or before a month ends.
    pub(crate) fn start(self) -> Timestamp {
        match self {
            Self::Utc => START,
            Self::Kathmandu => START.plus_millis(6 * DAY),
            Self::Tripoli => Self::Berlin.start(),
            _ => Timestamp(self.clocks().0 - 20 * HOUR),
        }
    }

    /// The windows of a moment, as the database says them.
    pub(crate) fn spans(self, at: Timestamp) -> Spans {
        let (change, before, after) = self.clocks();
        let wall = |at: i64| at + if at < change { before } else { after };
        let utc = |wall: i64| Timestamp(if wall - before < change { wall - before } else { wall - after });
        let span = |period, starts_at, ends_at| Span { period, starts_at, ends_at };
        let (hour, day, month) = (at.0.div_euclid(HOUR), wall(at.0).div_euclid(DAY), Timestamp(wall(at.0)).month());
        Spans {
            hour: span(Period::Hour, Timestamp(hour * HOUR), Timestamp((hour + 1) * HOUR)),
            day: span(Period::Day, utc(day * DAY), utc((day + 1) * DAY)),
            month: span(Period::Month, utc(month.starts_at().0), utc(month.resets_at().0)),
        }
    }
}

#[test]
fn the_zones_are_those_of_the_tz_database() {
    let day = |zone: Zone, at: Timestamp| {
        let Span { starts_at, ends_at, .. } = zone.spans(at).day;
        format!("{starts_at} {}", (ends_at.0 - starts_at.0) / 60_000)
    };
    let change = |zone: Zone| Timestamp(zone.clocks().0);
    assert_eq!(day(Zone::Berlin, change(Zone::Berlin)), "2026-10-24T22:00:00.000Z 1500");
    assert_eq!(day(Zone::BerlinInSpring, change(Zone::BerlinInSpring)), "2027-03-27T23:00:00.000Z 1380");
    assert_eq!(day(Zone::NewYork, change(Zone::NewYork)), "2026-11-01T04:00:00.000Z 1500");
    assert_eq!(day(Zone::LordHowe, change(Zone::LordHowe)), "2026-10-03T13:30:00.000Z 1410");
    assert_eq!(day(Zone::Kathmandu, START), "2026-11-23T18:15:00.000Z 1440");
    assert_eq!(day(Zone::Tripoli, change(Zone::Berlin)), "2026-10-24T22:00:00.000Z 1440");
    let month = Zone::NewYork.spans(change(Zone::NewYork)).month;
    assert_eq!(
        (month.starts_at.to_string(), month.ends_at.to_string()),
        ("2026-11-01T04:00:00.000Z".into(), "2026-12-01T05:00:00.000Z".into())
    );
}
