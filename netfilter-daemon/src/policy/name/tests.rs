use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap()
}

fn wrong(text: &str) -> String {
    text.parse::<Pattern>().unwrap_err().to_string()
}

fn wire(name: &str) -> Vec<u8> {
    name.split('.')
        .flat_map(|label| std::iter::once(u8::try_from(label.len()).unwrap()).chain(label.bytes()))
        .collect()
}

#[test]
fn the_wire_form_is_lowercase_and_without_the_root() {
    assert_eq!(
        pattern("Mcr.Microsoft.COM").wire(),
        b"\x03mcr\x09microsoft\x03com"
    );
    assert_eq!(pattern("*.a.b").wire(), b"\x01a\x01b");
}

#[test]
fn an_exact_name_matches_itself_in_any_case_and_nothing_else() {
    let mcr = pattern("mcr.microsoft.com");
    assert!(mcr.matches(&wire("mcr.microsoft.com")));
    assert!(mcr.matches(&wire("MCR.Microsoft.com")));
    assert!(!mcr.matches(&wire("a.mcr.microsoft.com")));
    assert!(!mcr.matches(&wire("microsoft.com")));
    assert!(!mcr.matches(&wire("xmcr.microsoft.com")));
}

#[test]
fn a_wildcard_matches_one_label_and_more() {
    let data = pattern("*.data.mcr.microsoft.com");
    assert!(data.matches(&wire("westus.data.mcr.microsoft.com")));
    assert!(data.matches(&wire("a.b.c.DATA.mcr.microsoft.com")));
}

#[test]
fn a_wildcard_never_matches_its_apex() {
    assert!(!pattern("*.data.mcr.microsoft.com").matches(&wire("data.mcr.microsoft.com")));
}

#[test]
fn a_wildcard_breaks_only_between_labels() {
    let wildcard = pattern("*.example.com");
    assert!(!wildcard.matches(&wire("evilexample.com")));
    // The label's own bytes look like the length byte and the label that follow.
    assert!(!wildcard.matches(b"\x10evil\x07example\x03com"));
    assert!(wildcard.matches(&wire("evil.example.com")));
}

#[test]
fn a_cut_off_wire_name_matches_no_wildcard() {
    assert!(!pattern("*.com").matches(b"\x3fa\x03com"));
}

#[test]
fn a_trailing_dot_changes_nothing() {
    assert_eq!(pattern("pypi.org."), pattern("pypi.org"));
    assert_ne!(pattern("*.pypi.org."), pattern("pypi.org"));
}

#[test]
fn underscores_are_legal() {
    let name = "_ldap._tcp.dc_1.example.com";
    assert!(pattern(name).matches(&wire(name)));
    assert!(!pattern(name).matches(&wire("_ldap._tcp.dc-1.example.com")));
}

#[test]
fn underscores_are_legal_beside_international_labels() {
    assert_eq!(pattern("_a.bücher.de").to_string(), "_a.xn--bcher-kva.de");
}

#[test]
fn an_international_name_is_the_same_in_unicode_and_punycode() {
    assert_eq!(pattern("bücher.example"), pattern("xn--bcher-kva.example"));
    assert_eq!(
        pattern("*.BÜCHER.example"),
        pattern("*.XN--bcher-kva.example")
    );
    assert_eq!(pattern("点看。example").to_string(), "xn--3pxu8k.example");
    assert!(wrong("xn--a.example").contains("no valid international name"));
}

#[test]
fn real_names_with_odd_hyphens_are_taken() {
    for name in ["r3---sn-4g5e6nez.gvt1.com", "a-.example.com", "3com.com"] {
        assert_eq!(pattern(name).to_string(), name);
    }
}

#[test]
fn the_longest_label_fits_and_one_more_does_not() {
    assert_eq!(pattern(&format!("{}.com", "a".repeat(63))).wire()[0], 63);
    assert!(wrong(&format!("{}.com", "a".repeat(64))).contains("has 64 characters; DNS allows 63"));
}

#[test]
fn the_longest_name_fits_and_one_more_does_not() {
    let longest = format!("{}{}", "abcdefg.".repeat(31), "abcde");
    assert_eq!(longest.len(), 253);
    assert_eq!(pattern(&longest).wire().len() + 1, 255);
    assert!(wrong(&format!("{longest}f")).contains("has 254 characters; DNS allows 253"));
}

#[test]
fn a_name_of_300_characters_is_told_its_length() {
    let told = wrong(&"abcdefghi.".repeat(30));
    assert!(
        told.contains("has 299 characters; DNS allows 253"),
        "{told}"
    );
    assert!(told.len() < 160, "{told}");
    assert!(wrong(&"a".repeat(300)).contains("has 300 characters; DNS allows 253"));
}

#[test]
fn what_is_no_name_is_answered_by_what_would_be_right() {
    assert_eq!(wrong(""), Error::Empty.to_string());
    assert_eq!(wrong("."), Error::Empty.to_string());
    assert_eq!(wrong("*"), Error::Everything.to_string());
    for name in ["a..b", ".a", "a.b..", "*..b"] {
        assert!(wrong(name).contains("empty label"), "{name}");
    }
    for name in ["a.*.b", "*a.b", "a*", "*.*.b", "**.b"] {
        assert!(
            wrong(name).contains("only *.example.com is a wildcard"),
            "{name}"
        );
    }
    for address in ["10.0.0.1", "2001:db8::1", "[2001:db8::1]", "10.0.0.0/8"] {
        assert!(wrong(address).contains("`type: ip`"), "{address}");
    }
    assert!(wrong("https://user@pypi.org:443/simple?q").ends_with("only the host: pypi.org"));
    assert!(wrong("pypi.org/simple").ends_with("only the host: pypi.org"));
    assert!(
        wrong("pypi.org:8443").ends_with("write the name pypi.org, and `port_ranges: \"8443\"`")
    );
    assert!(wrong("pypi org").contains("the character ' '"));
    assert!(wrong("pypi.org:").contains("the character ':'"));
    assert!(wrong("a\u{0}b").contains("the character '\\0'"));
}

proptest! {
    #[test]
    fn what_is_displayed_reads_back_the_same(
        labels in prop::collection::vec("[A-Za-z0-9_][A-Za-z0-9_-]{0,9}", 1..5), wildcard in any::<bool>()
    ) {
        let text = format!("{}{}.x", if wildcard { "*." } else { "" }, labels.join("."));
        let Ok(pattern) = text.parse::<Pattern>() else { return Ok(()) };
        prop_assert_eq!(pattern.to_string().parse::<Pattern>().unwrap(), pattern);
    }

    #[test]
    fn matching_agrees_with_matching_on_text(
        pattern in "(\\*\\.)?[ab](\\.[ab]){0,2}", name in "[ab](\\.[ab]){0,4}"
    ) {
        let expected = match pattern.strip_prefix('*') {
            Some(dot_and_parent) => name.ends_with(dot_and_parent),
            None => name == pattern,
        };
        prop_assert_eq!(pattern.parse::<Pattern>().unwrap().matches(&wire(&name)), expected);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,80}", name in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(pattern) = text.parse::<Pattern>() {
            prop_assert!(pattern.wire().len() < 255);
            pattern.matches(&name);
        }
    }
}
