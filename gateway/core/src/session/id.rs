//! Names of sessions: `PREFIX-YYYYMMDD-NNN`, the date in UTC and a number that begins anew each day.
//!
//! A prefix may hold hyphens and digits, so a name is read from its end: neither date nor number has a hyphen in it, and what
//! is left of them is the prefix, whole. Two prefixes that differ hence never make the same name. Whoever looks for the names
//! of a prefix has to [`parse`] them all the same: `A-` also begins the names of `A-B`.

use jiff::civil::Date;

/// The prefix of apps that name none.
pub const PREFIX: &str = "SES";
/// The longest prefix, in characters.
pub const PREFIX_MAX: usize = 16;

/// Whether a text may begin names: 1 to [`PREFIX_MAX`] ASCII letters, digits and hyphens.
pub fn is_prefix(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=PREFIX_MAX).contains(&text.len()) && text.bytes().all(fine)
}

/// The name of a day's session. `date` is of UTC and its year from 0 to 9999; `sequence` gets three digits, and more where it
/// needs them.
pub fn mint(prefix: &str, date: Date, sequence: u64) -> String {
    format!("{prefix}-{:04}{:02}{:02}-{sequence:03}", date.year(), date.month(), date.day())
}

/// Day and number of a session's name. Nothing when it is none of this prefix.
pub fn parse(prefix: &str, id: &str) -> Option<(Date, u64)> {
    split(id).filter(|(own, ..)| *own == prefix).map(|(_, date, sequence)| (date, sequence))
}

/// Prefix, day and number of any session's name.
pub fn split(id: &str) -> Option<(&str, Date, u64)> {
    let (rest, sequence) = id.rsplit_once('-')?;
    let (prefix, day) = rest.rsplit_once('-')?;
    is_prefix(prefix).then_some(())?;
    Some((prefix, date(day)?, number(sequence)?))
}

fn date(text: &str) -> Option<Date> {
    let all = digits(text).filter(|_| text.len() == 8)?;
    let part = |n: u64| i8::try_from(n % 100).ok();
    Date::new(i16::try_from(all / 10_000).ok()?, part(all / 100)?, part(all)?).ok()
}

/// As [`mint`] writes it: the same number is never written in two ways.
fn number(text: &str) -> Option<u64> {
    let padded = text.len() == 3 || (text.len() > 3 && !text.starts_with('0'));
    digits(text).filter(|_| padded)
}

/// ASCII digits alone; `parse` would take a sign as well.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn s2_02_a_name_is_prefix_utc_day_and_padded_number() {
        let day = date(2026, 3, 7);
        for (prefix, sequence, id) in [
            ("SES", 1, "SES-20260307-001"),
            ("1A", 42, "1A-20260307-042"),
            ("-", 999, "--20260307-999"),
            ("A-B", 1000, "A-B-20260307-1000"),
            ("9", u64::MAX, "9-20260307-18446744073709551615"),
        ] {
            assert_eq!(mint(prefix, day, sequence), id);
            assert_eq!(parse(prefix, id), Some((day, sequence)), "{id}");
        }
    }

    #[test]
    fn s2_02_a_day_of_more_than_a_thousand_sessions_has_names_for_all() {
        let day = date(2026, 12, 31);
        let ids: BTreeSet<String> = (1..=1500).map(|n| mint("SES", day, n)).collect();
        assert_eq!(ids.len(), 1500);
        assert!(ids.iter().all(|id| parse("SES", id).is_some_and(|(of, n)| of == day && (1..=1500).contains(&n))));
    }

    #[test]
    fn s2_02_what_was_never_minted_is_no_name() {
        for id in [
            "",
            "SES",
            "SES-20260307",
            "SES-20260307-",
            "SES-20260307-01",
            "SES-20260307-0001",
            "SES-20260307-+01",
            "SES-20260307-001\n",
            "SES-20260307-٠٠١",
            "SES-20260230-001",
            "SES-20261301-001",
            "SES-2026037-001",
            "SES-+2026037-001",
            "SES-020260307-001",
            "SES-20260307-18446744073709551616",
            "ses-20260307-001",
            " SES-20260307-001",
            "SES--20260307-001",
            "-20260307-001",
        ] {
            assert_eq!(parse("SES", id), None, "{id:?}");
        }
    }

    #[test]
    fn s2_03_names_of_nested_prefixes_are_told_apart() {
        let day = date(2026, 3, 7);
        for (one, other) in
            [("INC", "INC-X"), ("INC", "INC-"), ("A", "A-20260307"), ("-", "--"), ("A", "A-20260307-001")]
        {
            assert_eq!(parse(one, &mint(other, day, 1)), None, "{one} {other}");
            assert_eq!(parse(other, &mint(one, day, 1)), None, "{one} {other}");
        }
        // A number that looks like a day does not make it a name of another prefix.
        assert_eq!(split(&mint("A", day, 20_260_308)), Some(("A", day, 20_260_308)));
    }

    proptest! {
        #[test]
        fn s2_02_s2_03_every_name_is_read_back_by_its_prefix_alone(
            one in "[A-Z0-9-]{1,16}", other in "[A-Z0-9-]{1,16}", year in 0i16..=9999, month in 1i8..=12, day in 1i8..=28, n: u64,
        ) {
            let day = date(year, month, day);
            let id = mint(&one, day, n);
            prop_assert_eq!(split(&id), Some((one.as_str(), day, n)));
            prop_assert_eq!(parse(&other, &id).is_some(), one == other);
        }
    }
}
