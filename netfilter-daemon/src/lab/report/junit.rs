//! The report as JUnit XML, as CI servers read it.
//!
//! It keeps to Jenkins' `junit-10.xsd`, the strictest of the schemas in use that says
//! what is common to all. It is written by hand: crates write more than that allows.

use std::fmt::{self, Display, Write};

use crate::lab::battery::Aim;

use super::{Finding, Report, Row, probes, words::bytes};

struct Suite {
    name: String,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    verdict: Verdict,
    /// What is told of it whatever came of it.
    output: String,
}

enum Verdict {
    Passed,
    Failed(String),
    /// It showed nothing, and should have.
    Error(String),
    Skipped(String),
}

impl Report {
    pub fn to_junit(&self) -> String {
        let mut suites: Vec<_> = self.policy_suite().into_iter().collect();
        suites.extend(self.groups().map(|rows| Suite {
            name: format!("lab.{}", rows[0].group),
            cases: rows.iter().flat_map(cases).collect(),
        }));
        let mut xml = String::new();
        // A string takes everything.
        write(&mut xml, &suites).ok();
        xml
    }

    fn policy_suite(&self) -> Option<Suite> {
        let policy = self.policy.as_ref()?;
        let probe = |row: &probes::Row| Case {
            name: format!("{}: {}, {}", row.group, row.what, row.line),
            verdict: match row.finding() {
                probes::Finding::AsExpected => Verdict::Passed,
                probes::Finding::Leaked | probes::Finding::Blocked => Verdict::Failed(row.result()),
                probes::Finding::Unavailable => Verdict::Error(row.result()),
            },
            output: row.result(),
        };
        let mut cases: Vec<_> = policy.probes.iter().map(probe).collect();
        if let Some(why) = &policy.no_drops {
            cases.push(Case {
                name: "/metrics".into(),
                verdict: Verdict::Error(format!("/metrics cannot be read: {why}")),
                output: String::new(),
            });
        }
        let name = "lab.policy".into();
        Some(Suite { name, cases })
    }
}

fn cases(row: &Row) -> impl Iterator<Item = Case> {
    row.results.iter().map(|(path, trial)| Case {
        name: row.name_on(path),
        verdict: match (row.of(trial), row.channel.aim) {
            (Finding::Leaked, _) => Verdict::Failed(format!(
                "{} leaked by {}",
                bytes(trial.arrived()),
                row.channel.how
            )),
            (Finding::OutOfScope, Aim::OutOfScope { why, remedy }) => {
                Verdict::Skipped(format!("out of scope: {why}; remedy: {remedy}"))
            }
            (Finding::Unavailable | Finding::HostOnly, _) => {
                let why = trial.why().unwrap_or_default();
                Verdict::Skipped(format!("{}: {why}", row.word(trial)))
            }
            (Finding::Blocked | Finding::OutOfScope, _) => Verdict::Passed,
        },
        output: match &trial.reasons()[..] {
            "" => row.channel.how.to_owned(),
            reasons => format!("{}; dropped: {reasons}", row.channel.how),
        },
    })
}

fn write(xml: &mut String, suites: &[Suite]) -> fmt::Result {
    writeln!(xml, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    let [tests, failures, errors, _] = count(suites.iter().flat_map(|suite| &suite.cases));
    writeln!(
        xml,
        r#"<testsuites name="netfilter-daemon lab" tests="{tests}" failures="{failures}" errors="{errors}">"#
    )?;
    for suite in suites {
        let [tests, failures, errors, skipped] = count(&suite.cases);
        let name = Escaped(&suite.name);
        writeln!(
            xml,
            r#"  <testsuite name="{name}" tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}">"#
        )?;
        for case in &suite.cases {
            writeln!(
                xml,
                r#"    <testcase classname="{name}" name="{}">"#,
                Escaped(&case.name)
            )?;
            let element = match &case.verdict {
                Verdict::Passed => None,
                Verdict::Failed(why) => Some(("failure", why)),
                Verdict::Error(why) => Some(("error", why)),
                Verdict::Skipped(why) => Some(("skipped", why)),
            };
            if let Some((element, why)) = element {
                writeln!(xml, r#"      <{element} message="{}"/>"#, Escaped(why))?;
            }
            if !case.output.is_empty() {
                let output = Escaped(&case.output);
                writeln!(xml, "      <system-out>{output}</system-out>")?;
            }
            writeln!(xml, "    </testcase>")?;
        }
        writeln!(xml, "  </testsuite>")?;
    }
    writeln!(xml, "</testsuites>")
}

/// All of them, failures, errors, and what was skipped.
fn count<'a>(cases: impl IntoIterator<Item = &'a Case>) -> [usize; 4] {
    let mut counts = [0; 4];
    for case in cases {
        counts[0] += 1;
        match case.verdict {
            Verdict::Passed => {}
            Verdict::Failed(_) => counts[1] += 1,
            Verdict::Error(_) => counts[2] += 1,
            Verdict::Skipped(_) => counts[3] += 1,
        }
    }
    counts
}

/// A text as it may stand in an element and in an attribute of XML 1.0, to which
/// most control characters are unknown in any form.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\n' => f.write_str("&#10;")?,
                '\0'..='\x1f' | '\x7f' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}
