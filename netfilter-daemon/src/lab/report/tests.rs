use super::super::probe::{Knock, Moment};
use super::*;

const REACHED: Outcome = Outcome::Reached(Duration::from_micros(240));

#[test]
fn the_table_tells_the_four_findings_apart() {
    let by_address = |what, after| row("packages", what, "192.0.2.1", false, REACHED, after);
    let by_name =
        |what, allowed, before, after| row("packages", what, "pypi.org", allowed, before, after);
    let beyond = "What no rule allows";
    let report = Report {
        rows: vec![
            by_name("the name", true, REACHED, REACHED),
            by_name("a name below", false, REACHED, stopped("NXDOMAIN")),
            by_address("its address, unasked", REACHED),
            by_address(
                "other port or protocol",
                Outcome::Unanswered("refused".into()),
            ),
            by_name("the name", true, REACHED, stopped("no answer")),
            by_name("the name", true, stopped("no answer"), stopped("refused")),
            row(
                beyond,
                "a bare address",
                "192.0.2.1",
                false,
                REACHED,
                stopped("refused"),
            ),
        ],
        drops: vec![Dropped {
            reason: "no_rule".into(),
            family: "ipv4".into(),
            protocol: "tcp".into(),
            interface: "eth0".into(),
            packets: 12,
        }],
        no_drops: None,
        trials: Vec::new(),
    };
    assert_eq!(
        report.to_text(false),
        "
packages
  ✓ the name               tcp6 pypi.org:443                               passed in 0.24 ms
  ✓ a name below           tcp6 pypi.org:443                               denied: NXDOMAIN
  ✗ its address, unasked   tcp 192.0.2.1:443                               LEAKED in 0.24 ms
  ✗ other port or protocol tcp 192.0.2.1:443                               LEAKED, unanswered
  ✗ the name               tcp6 pypi.org:443                               BLOCKED: no answer
  ? the name               tcp6 pypi.org:443                               unavailable: no answer

What no rule allows
  ✓ a bare address         tcp 192.0.2.1:443                               denied: refused

3 of 7 probes came out as the policy says: 1 passed, 2 denied; 2 LEAKED; 1 BLOCKED; 1 unavailable

Dropped packets, from /metrics
      12  no_rule            ipv4   tcp    eth0
"
    );
    assert!(!report.as_expected());
}

#[test]
fn a_report_is_as_expected_only_if_the_counters_could_be_read() {
    let mut report = Report {
        rows: vec![],
        drops: vec![],
        no_drops: None,
        trials: Vec::new(),
    };
    assert!(report.as_expected());
    report.no_drops = Some("refused".into());
    assert!(!report.as_expected());
}

#[test]
fn long_lines_lose_their_middle() {
    assert_eq!(cut("tcp [2001:db8::1]:443", 21), "tcp [2001:db8::1]:443");
    assert_eq!(cut("tcp [2001:db8::1]:443", 16), "tcp [2001:…]:443");
}

fn row(
    group: &str,
    what: &'static str,
    destination: &str,
    allowed: bool,
    before: Outcome,
    after: Outcome,
) -> Row {
    let name = || Target::Name {
        name: destination.to_owned(),
        family: Family::V6,
    };
    let probe = Probe {
        group: group.into(),
        what,
        moment: Moment::WithNames,
        knock: Knock::Tcp(443),
        target: destination.parse().map_or_else(|_| name(), Target::Address),
        allowed,
    };
    Row::new(&probe, before, after)
}

fn stopped(why: &str) -> Outcome {
    Outcome::Stopped(why.into())
}
