//! Text that others have chosen, as a person may see it: names of files, threads, interfaces,
//! containers, and whatever was asked of DNS.

use std::borrow::Cow;

const CUT: char = '…';

/// With everything written out that would move the cursor, hide, or turn the order of what is
/// around it. What was escaped before stays as it is.
pub fn visible(text: &str) -> Cow<'_, str> {
    // What `escape_debug` adds a backslash to does nothing by itself.
    const PLAIN: [char; 3] = ['\\', '\'', '"'];
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let parts = text.split_inclusive(PLAIN).map(|part| {
        let (rest, plain) = match part.strip_suffix(PLAIN) {
            Some(rest) => part.split_at(rest.len()),
            None => (part, ""),
        };
        format!("{}{plain}", rest.escape_debug())
    });
    Cow::Owned(parts.collect())
}

/// At most so many characters, of which the last are kept: a name's end tells whose it is.
pub fn end_of(text: &str, characters: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= characters {
        return Cow::Borrowed(text);
    }
    let end = text.chars().skip(length + 1 - characters.max(1));
    Cow::Owned(std::iter::once(CUT).chain(end).collect())
}

/// `1,204`
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1.2 MB`
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10;
    for unit in UNITS {
        tenths /= 1000;
        if tenths < 10_000 {
            return match tenths < 1000 {
                true => format!("{}.{} {unit}", tenths / 10, tenths % 10),
                false => format!("{} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_obeyed_and_what_is_plain_stays() {
        for plain in [
            "",
            "/usr/bin/curl",
            "it's \"x\" \\u{202e}",
            "bücher",
            "日本",
            "<b>&",
        ] {
            assert_eq!(visible(plain), plain);
        }
        assert_eq!(
            visible("a\u{1b}[2Jb\r\n\t\u{9b}"),
            "a\\u{1b}[2Jb\\r\\n\\t\\u{9b}"
        );
        let turning = "\u{202e}gpj\u{2066}\u{200b}\u{feff}\u{ad}";
        assert_eq!(
            visible(turning),
            "\\u{202e}gpj\\u{2066}\\u{200b}\\u{feff}\\u{ad}"
        );
        assert_eq!(visible("é'\u{7}'"), "é'\\u{7}'");
    }

    #[test]
    fn what_is_too_long_keeps_its_end() {
        assert_eq!(end_of("abcdef", 6), "abcdef");
        assert_eq!(end_of("abcdef", 4), "…def");
        assert_eq!(end_of("äöüß", 2), "…ß");
        assert_eq!(end_of("abc", 0), "…");
    }

    #[test]
    fn numbers_are_grouped_and_bytes_have_two_digits_at_least() {
        let told: Vec<String> = [0, 999, 1000, 1_204_567].map(number).into();
        assert_eq!(told, ["0", "999", "1,000", "1,204,567"]);
        let told: Vec<String> = [0, 999, 1000, 99_949, 123_456, 999_999, 1_000_000, u64::MAX]
            .map(bytes)
            .into();
        let expected = [
            "0 B", "999 B", "1.0 kB", "99.9 kB", "123 kB", "999 kB", "1.0 MB", "18.4 EB",
        ];
        assert_eq!(told, expected);
    }
}
