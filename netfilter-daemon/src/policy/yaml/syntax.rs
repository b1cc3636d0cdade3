//! What is said of text that is no YAML.

/// The parser's words, and what to look for.
const HINTS: [(&str, &str); 5] = [
    (
        "recursion limit",
        "it is nested too deep; a policy needs five levels",
    ),
    (
        "mapping values",
        "is a colon missing in the line before, or is this one indented too far?",
    ),
    (
        "illegal placement of ':'",
        "is a bracket or a quote of a line before never closed?",
    ),
    ("unexpected end of stream", "is a quote never closed?"),
    (
        "block collection",
        "keys of one mapping and items of one list begin in the same column",
    ),
];

/// The parser's words on the error in this line, and what usually is behind it.
pub(super) fn message(info: &str, line: &str) -> String {
    let remedy = match info {
        _ if unquoted_star(line) => "a value that starts with * must be quoted: \"*\"",
        _ if line.trim_start_matches(' ').starts_with('\t') => "indent with spaces, not tabs",
        info => HINTS
            .iter()
            .find(|(words, _)| info.contains(words))
            .map_or("check the lines before it, too", |(_, hint)| *hint),
    };
    format!("this is not YAML: {info}; {remedy}")
}

/// A `*` where a value starts is an alias to YAML.
fn unquoted_star(line: &str) -> bool {
    line.match_indices('*').any(|(index, _)| {
        let before = line[..index].trim_end();
        before.len() < index && before.ends_with([':', '-', ',']) || before.ends_with('[')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_blamed_only_where_it_begins_a_value() {
        assert!(unquoted_star("a: *.b"));
        assert!(unquoted_star("  - *.b"));
        assert!(unquoted_star("{ a: b, c: *}"));
        assert!(unquoted_star("a: [*]"));
        assert!(!unquoted_star("a: b*c"));
        assert!(!unquoted_star("a: \"*.b\""));
    }

    #[test]
    fn an_error_that_is_not_known_still_has_its_words() {
        let told = message("odd", "a: b");
        assert_eq!(
            told,
            "this is not YAML: odd; check the lines before it, too"
        );
    }
}
