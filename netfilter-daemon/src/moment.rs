//! Points and spans of time as a person reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

const DAY: u64 = 86_400;

/// A point in time of CLOCK_BOOTTIME: whoever sets the clock does not move it, and it goes
/// on in suspension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    pub fn now() -> Self {
        // Every Linux has this clock.
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from))
    }

    /// The beginning of a second of CLOCK_BOOTTIME, as the programs count them.
    pub fn at_boottime(seconds: u32) -> Self {
        Self(Duration::from_secs(seconds.into()))
    }

    /// What the clock that can be set says was at this second since 1970; now, where that
    /// is still to come.
    pub fn at_unix(seconds: u64) -> Self {
        let ago = unix_seconds(SystemTime::now()).saturating_sub(seconds);
        Self(Self::now().0.saturating_sub(Duration::from_secs(ago)))
    }

    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// Zero where it is over.
    pub fn until(self, other: Self) -> Duration {
        other.0.saturating_sub(self.0)
    }

    /// Whole minutes of this clock.
    pub fn minutes(self) -> u64 {
        self.0.as_secs() / 60
    }

    /// Seconds since 1970, by what the clock says now.
    pub fn unix(self) -> u64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        self.by(Self::now(), wall.unwrap_or_default())
    }

    fn by(self, now: Self, wall: Duration) -> u64 {
        (wall + self.0).saturating_sub(now.0).as_secs()
    }
}

/// Seconds since 1970; 0 for a clock that is set before it.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// `2026-03-01 08:15:03 UTC`
pub fn utc(unix_seconds: u64) -> String {
    let (year, month, day) = civil(unix_seconds / DAY);
    let second = unix_seconds % DAY;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Seconds since 1970 at the start of a day written `YYYY-MM-DD`.
pub fn start_of_day(date: &str) -> Option<u64> {
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let date = (parts.next()??, parts.next()??, parts.next()??);
    let days = days(date);
    (civil(days) == date).then_some(days * DAY)
}

/// The two largest units: `45 s`, `3 h 12 min`, `40 d 2 h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..DAY => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / DAY, "d", seconds / 3600 % 24, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large} {large_unit}"),
        small => format!("{large} {large_unit} {small} {small_unit}"),
    }
}

/// Year, month and day of a day since 1970, in the Gregorian calendar.
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`;
/// its years begin in March, so that a leap day is a year's last.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; any number for what is no day, 0 for what is before 1970.
fn days((year, month, day): (u64, u64, u64)) -> u64 {
    let year = year.saturating_sub(u64::from(month <= 2)).min(9999);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day.min(31);
    let of_era = year % 400 * 365 + year % 400 / 4 - year % 400 / 100 + of_year;
    (year / 400 * 146_097 + of_era).saturating_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_as_long_ago_as_it_is_whatever_the_clock_was_set_to() {
        let seconds = Duration::from_secs;
        let moment = Moment(seconds(100));
        let now = moment.after(seconds(20));
        for wall in [1_790_000_000, 1_790_003_600, 20] {
            assert_eq!(moment.by(now, seconds(wall)), wall - 20);
        }
        assert_eq!(moment.by(now, seconds(3)), 0);
        let passed = unix_seconds(SystemTime::now()) - Moment::now().unix();
        assert!(passed <= 1, "{passed}");
        assert_eq!(moment.until(now), seconds(20));
        assert_eq!(now.until(moment), Duration::ZERO);
    }

    #[test]
    fn a_time_is_written_in_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_790_000_000), "2026-09-21 14:13:20 UTC");
    }

    #[test]
    fn every_day_of_two_centuries_is_read_back_as_it_is_written() {
        for day in 0..73_000 {
            let written = utc(day * DAY);
            assert_eq!(start_of_day(&written[..10]), Some(day * DAY), "{written}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2026",
            "2026-02-30",
            "2026-13-01",
            "2026-00-01",
            "1969-12-31",
            "x-y-z",
        ] {
            assert_eq!(start_of_day(text), None, "{text}");
        }
        let absurd = format!("{0}-{0}-{0}", u64::MAX / 2);
        assert_eq!(start_of_day(&absurd), None);
    }

    #[test]
    fn a_span_has_its_two_largest_units() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3600, "1 h"),
            (11_520, "3 h 12 min"),
            (86_399, "23 h 59 min"),
            (3_463_200, "40 d 2 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
