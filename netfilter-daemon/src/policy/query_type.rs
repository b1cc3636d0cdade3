//! Types of DNS questions (RFC 6895 section 3.1), by the names of IANA's registry.

use netfilter_ebpf::abi::QUERY_TYPES;

use super::nearest::{did_you_mean, nearest};

const NAMES: [(&str, u16); 41] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("RP", 17),
    ("AFSDB", 18),
    ("SIG", 24),
    ("KEY", 25),
    ("AAAA", 28),
    ("LOC", 29),
    ("SRV", 33),
    ("NAPTR", 35),
    ("KX", 36),
    ("CERT", 37),
    ("DNAME", 39),
    ("APL", 42),
    ("DS", 43),
    ("SSHFP", 44),
    ("IPSECKEY", 45),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("DHCID", 49),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("HIP", 55),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("ANY", 255),
    ("URI", 256),
    ("CAA", 257),
];

/// What clients need to reach a server, and validators to trust an answer.
/// Types that carry free text, and with it a tunnel's bytes back, are not among them.
pub const USUAL: [&str; 11] = [
    "A", "AAAA", "CNAME", "PTR", "SRV", "SVCB", "HTTPS", "NS", "SOA", "DS", "DNSKEY",
];

/// The number of a type: its name, in any letter case, or `TYPE65` (RFC 3597
/// section 5).
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn parse(written: &str) -> Result<u16, String> {
    let upper = written.to_ascii_uppercase();
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == upper) {
        return Ok(*number);
    }
    if let Some(number) = upper
        .strip_prefix("TYPE")
        .and_then(|text| text.parse().ok())
    {
        if usize::from(number) < QUERY_TYPES {
            return Ok(number);
        }
        return Err(format!(
            "a list cannot hold `{written}`: types from {QUERY_TYPES} on pass only with `query_types: \"*\"`"
        ));
    }
    let near = nearest(&upper, NAMES.iter().map(|(name, _)| *name));
    let remedy = match near.first() {
        Some(near) => did_you_mean(&[near]),
        None => "; write one such as A, or TYPE65 by number".to_owned(),
    };
    Err(format!("`{written}` is no type of DNS question{remedy}"))
}

/// As [`parse`] reads it.
pub fn written(number: u16) -> String {
    let known = NAMES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_known_by_name_and_by_number() {
        assert_eq!(parse("A"), Ok(1));
        assert_eq!(parse("https"), Ok(65));
        assert_eq!(parse("TYPE65"), Ok(65));
        assert_eq!(parse("type257"), parse("CAA"));
    }

    #[test]
    fn what_is_no_type_is_told_with_the_nearest() {
        assert!(parse("AAA").unwrap_err().contains("AAAA"));
        assert!(parse("TYPE512").unwrap_err().contains('*'));
        assert!(parse("TYPE70000").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn the_usual_ones_have_names_and_no_free_text() {
        let usual: Vec<u16> = USUAL.iter().map(|name| parse(name).unwrap()).collect();
        assert!(usual.contains(&1) && usual.contains(&28));
        for tunnel in ["TXT", "NULL", "ANY", "KEY", "MX"] {
            assert!(!usual.contains(&parse(tunnel).unwrap()), "{tunnel}");
        }
    }
}
