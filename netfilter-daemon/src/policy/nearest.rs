//! "Did you mean": the nearest of the names that exist.

/// At most this many names are proposed.
const PROPOSED: usize = 3;
/// Similarity from which a name is worth proposing; 1 is equality. At 0.6 a
/// third of the letters may be wrong.
const SIMILAR: f64 = 0.6;
/// No name is longer, and the time grows with the square.
const ASKED_MAX: usize = 128;

/// The candidates most like `asked`, best first, letter case aside.
pub(crate) fn nearest<'a>(
    asked: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    if asked.len() > ASKED_MAX {
        return Vec::new();
    }
    let asked = asked.to_lowercase();
    let mut similar: Vec<(f64, &str)> = candidates
        .into_iter()
        .map(|candidate| (likeness(&asked, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= SIMILAR)
        .collect();
    similar.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    similar
        .into_iter()
        .map(|(_, candidate)| candidate)
        .take(PROPOSED)
        .collect()
}

/// `; did you mean a, b or c?`, or nothing.
pub(crate) fn did_you_mean(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("; did you mean `{one}`?"),
        [first @ .., last] => format!("; did you mean `{}` or `{last}`?", first.join("`, `")),
    }
}

fn likeness(asked: &str, candidate: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(asked, candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_comes_first() {
        let names = ["outbound_rules", "inbound", "on_deny"];
        assert_eq!(nearest("outbond_rules", names), ["outbound_rules"]);
    }

    #[test]
    fn nothing_is_proposed_for_a_name_like_no_other() {
        assert!(nearest("colour", ["outbound_rules", "inbound"]).is_empty());
    }

    #[test]
    fn letter_case_is_no_difference() {
        assert_eq!(nearest("STORAGE", ["Storage", "Sql"]), ["Storage"]);
    }

    #[test]
    fn proposals_read_as_a_question() {
        assert_eq!(did_you_mean(&[]), "");
        assert_eq!(did_you_mean(&["a"]), "; did you mean `a`?");
        assert_eq!(
            did_you_mean(&["a", "b", "c"]),
            "; did you mean `a`, `b` or `c`?"
        );
    }
}
