//! Whether a machine can do what `run` asks of it, found out beforehand by the code that `run`
//! uses. What is tried ends with the trial: no packet of the machine meets a program.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    compile::{self, Image},
    daemon::loaded::Loaded,
    policy::{self, service_tag::Catalogue, source},
    tags::store::Store,
};

mod intent;
mod kernel;
mod place;

/// What `run` would be told.
#[derive(Debug, Clone)]
pub struct Plan {
    pub policy: Option<PathBuf>,
    pub listen: SocketAddr,
    pub state_dir: PathBuf,
    pub tags: Store,
}

/// Ordered by how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// `run` would do its work, and something is not as its user may think.
    Warning,
    /// `run` would refuse, or cut off who starts it.
    Failed,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    /// What is so, and why.
    pub found: String,
    /// What to do; none where nothing is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl fmt::Display) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.to_string(),
            remedy: None,
        }
    }

    fn warning(check: &'static str, found: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self {
            check,
            verdict: Verdict::Warning,
            found: found.to_string(),
            remedy: Some(remedy.to_string()),
        }
    }

    fn failed(check: &'static str, found: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self {
            check,
            verdict: Verdict::Failed,
            found: found.to_string(),
            remedy: Some(remedy.to_string()),
        }
    }

    /// What `run` would say. Behind its first semicolon stands what to do.
    fn refused(check: &'static str, error: impl fmt::Display) -> Self {
        let told = error.to_string();
        match told.split_once("; ") {
            Some((found, remedy)) => Self::failed(check, found, remedy),
            None => Self {
                check,
                verdict: Verdict::Failed,
                found: told,
                remedy: None,
            },
        }
    }

    /// What to do where the error does not say it.
    fn or(mut self, remedy: impl fmt::Display) -> Self {
        self.remedy.get_or_insert_with(|| remedy.to_string());
        self
    }

    fn but(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }
}

/// Looks at everything, whatever was found before.
///
/// # Errors
/// Where the machine does not tell its addresses.
pub fn examine(plan: &Plan) -> anyhow::Result<Vec<Finding>> {
    let (given, policy) = intent::read(plan);
    let anybodys = nothing_said()?;
    let loaded = given.as_ref().unwrap_or(&anybodys);
    let mut findings = kernel::look(&loaded.image);
    findings.extend(place::look(plan));
    findings.extend(policy);
    findings.extend(intent::look(plan, loaded, given.is_some()));
    Ok(findings)
}

/// What everybody's policy begins with.
fn nothing_said() -> anyhow::Result<Loaded> {
    let system = source::system()?;
    let policy = policy::parse("outbound_rules: []\n", "policy", &system, &|_| {
        Catalogue::built_in()
    })?;
    let image: Image = compile::compile(&policy)?;
    Ok(Loaded {
        policy,
        image,
        stamp: None,
        connected: None,
    })
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_told_apart_from_what_is_wrong() {
        let told = Finding::refused("listen", "cannot listen; choose another; or wait");
        assert_eq!(
            told,
            Finding::failed("listen", "cannot listen", "choose another; or wait")
        );
        assert_eq!(Finding::refused("x", "no").remedy, None);
    }

    #[test]
    fn failures_are_the_worst() {
        assert!(Verdict::Ok < Verdict::Warning && Verdict::Warning < Verdict::Failed);
    }
}
